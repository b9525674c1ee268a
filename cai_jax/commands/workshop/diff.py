"""Says what differs between two constitutions: by text and, with a model, by what they decide.

python -m cai_jax.constitution diff OLD.yaml NEW.yaml [--model=SOURCE --pairs=FILE]

Entries are added (+), removed (-) or changed (~); [-words-] are gone and {+words+} are new. With
--model the labelled pairs of --pairs are judged under all feedback principles of both files, asked
as --method says: how many pairs they decide differently, with a 95 % interval, and which those are.
"""

from pathlib import Path

from cai_jax.commands import labelers, models
from cai_jax.commands.front import start
from cai_jax.constitution.diff import as_text, differences
from cai_jax.constitution.schema import load_constitution
from cai_jax.evaluation import decisions


def main(paths: list[Path]) -> None:
    """Prints the differences."""
    if len(paths) != 2:
        raise ValueError(f"diff compares two files, not {len(paths)}; name OLD.yaml and NEW.yaml")
    old, new = map(load_constitution, paths)
    pairs = labelers.read_labelled() if models.MODEL.value or labelers.PAIRS.value else []
    print(as_text(differences(old, new)))
    if pairs:
        labeler = labelers.open_labeler(new)
        print(decisions.as_text(decisions.compare_decisions(labeler, old, new, pairs)))


if __name__ == "__main__":
    start(main, files=True)
