"""The console script: ``cai-jax VERB --flags`` is ``python -m cai_jax.VERB --flags``.

A verb is a module of cai_jax that can be run, main under the name of run. Of the modules only the
one that is run is imported, since each defines flags of its own.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the verb, or lists all verbs where none is given."""
    known = verbs()
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in known:
        del sys.argv[1]
        runpy.run_module(known[verb], run_name="__main__", alter_sys=True)
    elif verb in ("--help", "-h", "help"):
        print(overview(known))
    else:
        near = difflib.get_close_matches(verb, known, 1, cutoff=0)[0]
        sys.exit(f"error: {verb}: no such verb; the nearest is {near}; cai-jax alone lists all")


def verbs() -> dict[str, str]:
    """The modules that can be run, by verb."""
    runnable = [f.stem for f in sorted(PACKAGE.glob("*.py")) if "__main__" in f.read_text("utf-8")]
    return {"run" if name == "main" else name: f"cai_jax.{name}" for name in runnable}


def overview(known: dict[str, str]) -> str:
    """The verbs, each with the first line of its module's docstring."""
    lines = ["cai-jax VERB [--FLAG=VALUE ...]; cai-jax VERB --help lists the flags", ""]
    for verb, module in known.items():
        tree = ast.parse((PACKAGE / f"{module.rpartition('.')[2]}.py").read_text("utf-8"))
        lines.append(f"  {verb:10}{(ast.get_docstring(tree) or '').partition(chr(10))[0]}")
    return "\n".join(lines)
