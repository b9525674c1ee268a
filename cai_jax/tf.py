"""TensorFlow, which only reads and writes data here, and what is built on it; imported here alone.

It takes seconds, so each of ``metric_writers``, ``seqio``, ``tf`` and ``tfds`` is loaded when it is
first asked for: a command that refuses its input, or that reads no records, does without.

When it is loaded, its C++ parts tell of instructions and drivers that make no difference here. No
variable of the environment stops that (tensorflow 2.21), so such lines are taken out of standard
error meanwhile; warnings and errors stay.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from clu import metric_writers

__all__ = ["metric_writers", "seqio", "tf", "tfds"]
_LIBRARIES = {
    "metric_writers": "clu.metric_writers",
    "seqio": "seqio",
    "tf": "tensorflow",
    "tfds": "tensorflow_datasets",
}
_INFORMATION = r"^(I[0-9]{4} |WARNING: All log messages before absl::InitializeLog)"


@contextmanager
def _without_information() -> Iterator[None]:
    """Passes on what is written to standard error but for lines that inform.

    A process of its own does it, which also passes on the last words of one that is aborted.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        grep = ["grep", "--line-buffered", "--text", "--invert-match", "-E", _INFORMATION]
        process = subprocess.Popen(grep, stdin=subprocess.PIPE, stdout=shown)
    except OSError:  # no grep, so all is shown
        os.close(shown)
        yield
        return
    assert process.stdin
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, 2)
        os.close(shown)
        with suppress(subprocess.TimeoutExpired):  # what was started meanwhile writes on
            process.wait(timeout=1)


def __getattr__(name: str) -> ModuleType:
    if name not in _LIBRARIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _without_information():
        import_module("tensorflow")  # which TFDS would load later, and not in silence
        library = globals()[name] = import_module(_LIBRARIES[name])
    return library
