"""The console script: ``cai-jax VERB --flags`` is ``python -m cai_jax.VERB --flags``.

A verb is a module that can be run, main under the name of run. Of the modules only the one that is
run is imported, since each defines flags of its own.
"""

import ast
import difflib
import runpy
import sys
from importlib import import_module
from pathlib import Path

NAMES = {"main": "run", "import_": "import"}  # of modules that are not called as their verb


def main() -> None:
    """Runs the verb, or lists all verbs where none is given."""
    run_verb("cai-jax", "cai_jax")


def run_verb(command: str, package: str) -> None:
    """Runs the module of a package that the first argument names.

    Args:
      command: what stands before the verb on the command line.
      package: whose modules are the verbs.
    """
    known = verbs(package)
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in known:
        del sys.argv[1]
        runpy.run_module(f"{package}.{_module(known[verb])}", run_name="__main__", alter_sys=True)
    elif verb in ("--help", "-h", "help"):
        print(overview(command, known))
    else:
        near = difflib.get_close_matches(verb, known, 1, cutoff=0)[0]
        sys.exit(f"error: {verb}: no such verb; the nearest is {near}; {command} alone lists all")


def verbs(package: str = "cai_jax") -> dict[str, Path]:
    """The files of the package's modules and packages that can be run, by verb."""
    folder = Path(str(import_module(package).__file__)).parent
    files = [f for f in folder.glob("*.py") if "__main__" in f.read_text("utf-8")]
    files += folder.glob("*/__main__.py")
    return {NAMES.get(_module(f), _module(f)): f for f in sorted(files, key=_module)}


def _module(file: Path) -> str:
    return file.parent.name if file.stem == "__main__" else file.stem


def overview(command: str, known: dict[str, Path]) -> str:
    """The verbs, each with the first line of its module's docstring."""
    lines = [f"{command} VERB [--FLAG=VALUE ...]; {command} VERB --help lists the flags", ""]
    for verb, file in known.items():
        said = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        lines.append(f"  {verb:14}{said.partition(chr(10))[0]}")
    return "\n".join(lines)
