"""A peer's process that does a step when it is told to."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any


class Peer:
    """Runs ``trl_steps.py`` in the virtual environment of the peers.

    Args:
      venv: made by ``make.sh``.
      kind: of the steps.
      model: folder with the weights.
      settings: of the steps; JSON.
    """

    def __init__(self, venv: Path, kind: str, model: Path, settings: dict[str, Any]):
        script = Path(__file__).with_name("trl_steps.py")
        command = [venv / "bin" / "python", script, kind, model, json.dumps(settings)]
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._line()

    def step(self) -> None:
        """One step; it returns when that is done."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._line()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the peer's process ended; its error stands above")
        return dict(json.loads(line))


@contextmanager
def trl_in(
    dtype: str, venv: Path, kind: str, model: Path, settings: dict[str, Any]
) -> Iterator[dict[str, Peer]]:
    """TRL beside ours in a type, by name: ours in bfloat16 trains float32 parameters, as autocast.

    Args:
      dtype: that ours computes in.
      venv: made by ``make.sh``.
      kind: of the steps.
      model: folder with the weights.
      settings: of the steps, but for their type.
    """
    tried = ["autocast", "bfloat16"] if dtype == "bfloat16" else [dtype]
    with ExitStack() as opened:
        yield {
            f"TRL {kind}, {each}": opened.enter_context(
                closing(Peer(venv, kind, model, {**settings, "dtype": each}))
            )
            for each in tried
        }
