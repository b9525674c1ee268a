"""Says what differs between two constitutions, by text.

python -m cai_jax.constitution diff OLD.yaml NEW.yaml

Entries are added (+), removed (-) or changed (~); [-words-] are gone and {+words+} are new.
"""

from pathlib import Path

from cai_jax.commands.front import start
from cai_jax.constitution.diff import as_text, differences
from cai_jax.constitution.schema import load_constitution


def main(paths: list[Path]) -> None:
    """Prints the differences."""
    if len(paths) != 2:
        raise ValueError(f"diff compares two files, not {len(paths)}; name OLD.yaml and NEW.yaml")
    old, new = map(load_constitution, paths)
    print(as_text(differences(old, new)))


if __name__ == "__main__":
    start(main, files=True)
