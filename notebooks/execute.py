"""Executes cai_demo.ipynb from top to bottom, about a quarter of an hour, and keeps what it shows.

    pip install -e '.[test]'
    python notebooks/execute.py

The release that it installs is the last commit of this checkout; what it shows names the
repository's address instead. The report is left out: it would be a page of megabytes in a file of
kilobytes.
"""

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nbformat
from nbclient import NotebookClient

from cai_jax import __version__

FILE = Path(__file__).resolve().with_name("cai_demo.ipynb")
KEPT = "sources_sha256"  # in its metadata: of the code that what it shows is from


def main() -> None:
    """Executes, and writes the file again."""
    notebook = nbformat.read(FILE, as_version=4)
    with tempfile.TemporaryDirectory() as place:
        origin, empty = Path(place, "cai_jax.git"), Path(place, "empty")
        empty.mkdir()
        subprocess.run(["git", "clone", "-q", "--bare", FILE.parents[1], origin], check=True)
        subprocess.run(["git", "tag", "-f", f"v{__version__}"], cwd=origin, check=True)
        with served(origin) as here:
            kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
            client = NotebookClient(notebook, timeout=3600, coalesce_streams=True)
            quiet = {"PIP_QUIET": "2"}  # what it warns of is this machine's
            client.execute(cwd=str(empty), env={**kept, **quiet, "CAI_REPO_URL": here})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    (address,) = re.findall(r'"(https://github.com/\S+?\.git)"', code[0].source)
    for cell in code:
        cell.metadata.pop("execution", None)  # when, to the microsecond
        for output in cell.outputs:
            if "text" in output:
                shown = output.text.replace(here, address)
                output.text = shown.replace(f"{empty}/", "").replace(str(empty), ".")
        if cell.id == "report":
            cell.outputs = []
    notebook.metadata["cai_jax"] = {KEPT: digest(notebook)}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, FILE)


@contextmanager
def served(repository: Path) -> Iterator[str]:
    """The address of a bare repository on loopback, for pip takes no file:// in a requirement."""
    subprocess.run(["git", "update-server-info"], cwd=repository, check=True)
    files = partial(SimpleHTTPRequestHandler, directory=str(repository.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{repository.name}"
        server.shutdown()


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of the code of all cells: SHA-256, hexadecimal."""
    code = [[cell.id, cell.source] for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode("utf-8")).hexdigest()


if __name__ == "__main__":
    main()
