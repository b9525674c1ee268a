"""Commands as a user starts them, each in a process of its own.

What commands import takes seconds, and tests start hundreds of them. So a server, one for a
process of tests, imports it once, and is forked for each command. What ``python -m`` has besides:
JAX reads its variables when it is imported, so those of the tests hold, and not of ``env`` (XLA's
do); and nothing that waits for the interpreter's end (``atexit``) is called.
"""

import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parent.parent
# None starts JAX's devices when it is imported: whose threads a fork would not have.
IMPORTS = ["cai_jax.stages.checks", "cai_jax.data.tasks", "cai_jax.generation.engine"]
SERVED = get_context("forkserver")
SERVED.set_forkserver_preload(IMPORTS)


def command(
    name: str,
    *arguments: object,
    cwd: Path = ROOT,
    env: Mapping[str, str] = os.environ,
    timeout: float = 900,
) -> CompletedProcess[str]:
    """``python -m cai_jax.NAME ARGUMENTS``, and what it wrote; seconds, after which it fails."""
    argv = [f"cai_jax.{name}", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder, stream) for stream in ("out", "err"))
        process = SERVED.Process(target=_run, args=(argv, str(cwd), dict(env), str(out), str(err)))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{argv}: {timeout} s; it said {err.read_text()[-3000:]}")
        said = (stream.read_text(encoding="utf-8", errors="replace") for stream in (out, err))
        assert process.exitcode is not None
        return CompletedProcess(argv, process.exitcode, *said)


def _run(argv: list[str], cwd: str, env: dict[str, str], *streams: str) -> None:
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
