"""Google's notice that a machine is about to be taken away.

Virtual machines, TPU hosts included, find it at their metadata server, up to 30 seconds before
(https://cloud.google.com/compute/docs/instances/spot).
"""

import http.client
import os
import threading
from contextlib import closing, suppress
from pathlib import Path

# What the firmware calls the machine: read without the network, as Google's own libraries do.
PRODUCT = Path("/sys/class/dmi/id/product_name")
SERVER = "metadata.google.internal"
SERVER_VARIABLE = "GCE_METADATA_HOST"  # HOST or HOST:PORT of another one, for those libraries too
NOTICE = "/computeMetadata/v1/instance/preempted"
ASK_SECONDS = 60  # that one request waits for a change
RETRY_SECONDS = 5.0


def on_google() -> bool:
    """Whether this machine is one of Google's, or the environment names a metadata server."""
    if os.environ.get(SERVER_VARIABLE):
        return True
    with suppress(OSError):
        return PRODUCT.read_text(encoding="utf-8").startswith("Google")
    return False


def wait_for_notice(over: threading.Event) -> bool:
    """Waits until this machine is about to be taken away; False: ``over`` was set before.

    The server answers when something changes, so this costs a request a minute. One that does not
    answer is asked again: it may be updated while the machine runs.
    """
    state = "0"  # which none has: the first request is answered at once
    while not over.is_set():
        try:
            said, state = _ask(state)
        except (OSError, http.client.HTTPException):
            over.wait(RETRY_SECONDS)
            continue
        if said == "TRUE":
            return True
        if state == "0":  # it does not tell states apart, so it does not wait
            over.wait(RETRY_SECONDS)
    return False


def _ask(state: str) -> tuple[str, str]:
    """What the notice says once it is no longer in a state, and its state then.

    Raises:
      OSError: the server is out of reach, or has no such notice.
    """
    server = os.environ.get(SERVER_VARIABLE) or SERVER
    # No proxy: the server is beside the machine.
    with closing(http.client.HTTPConnection(server, timeout=ASK_SECONDS + 10)) as connection:
        wait = f"wait_for_change=true&timeout_sec={ASK_SECONDS}&last_etag={state}"
        connection.request("GET", f"{NOTICE}?{wait}", headers={"Metadata-Flavor": "Google"})
        answer = connection.getresponse()
        said = answer.read(100).decode("ascii", "replace").strip().upper()
        if answer.status != http.client.OK:
            raise OSError(f"the metadata server answers {answer.status}")
        return said, answer.getheader("ETag") or "0"
