"""What is secret, and is cut from all that people may read: log, errors, manifests, reports.

Three kinds are secret: what the environment keeps under a name that says so, name and password in
an address, and what has the form of a key of a known service or stands in an address as one.
"""

import os
import re
from typing import Any

CUT = "***"
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_LEAST = 8  # letters of a secret: shorter values of such variables are switches
_FORMS = re.compile(
    r"(?<=://)[^/@\s]+(?=@)"  # name and password before a host
    r"|(?<=[?&;])([\w-]*(?:token|secret|password|signature|api_?key|access_?key)[\w-]*=)[^&#\s]+"
    r"|\b(?:hf_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA|AIza)[\w-]{16,}",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text with ``CUT`` in the place of each secret."""
    secrets = {v for n, v in os.environ.items() if _SECRET_NAME.search(n) and len(v) >= _LEAST}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, CUT)
    return _FORMS.sub(lambda found: (found[1] or "") + CUT, text)


def public(tree: Any) -> Any:
    """A JSON value without secrets, in names of fields as well."""
    if isinstance(tree, str):
        return without_secrets(tree)
    if isinstance(tree, dict):
        return {without_secrets(name): public(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [public(value) for value in tree]
    return tree


def may_be(shown: Any, value: Any) -> bool:
    """Whether a value may be the one of which ``shown`` is what could be shown.

    What was secret where it was cut need not be secret here, where the environment may be another.
    """
    if isinstance(shown, str) and isinstance(value, str) and CUT in shown:
        return bool(re.fullmatch("(?s:.+)".join(map(re.escape, shown.split(CUT))), value))
    if (
        isinstance(shown, list | tuple)
        and isinstance(value, list | tuple)
        and len(shown) == len(value)
    ):
        return all(map(may_be, shown, value))
    return bool(shown == value)
