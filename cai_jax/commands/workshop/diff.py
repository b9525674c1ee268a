"""Says what differs between two constitutions: by text, by decisions, by what runs became of it.

python -m cai_jax.constitution diff OLD.yaml NEW.yaml [--model=SOURCE --pairs=FILE]
python -m cai_jax.constitution diff --runs=OLD_WORKDIR,NEW_WORKDIR

Entries are added (+), removed (-) or changed (~); [-words-] are gone and {+words+} are new. With
--model the labelled pairs of --pairs are judged under all feedback principles of both files, asked
as --method says: how many pairs they decide differently, with a 95 % interval, and which those are.
With two runs, Markdown says what else changed: labels, scores, replies, each with its interval, and
what the new run computed. Without files it compares the constitutions that the runs kept.
"""

from pathlib import Path

from absl import flags

from cai_jax.commands import labelers
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import MODEL
from cai_jax.commands.workshop.behaviour import behaviour_report
from cai_jax.config import naming
from cai_jax.constitution.diff import as_text, differences
from cai_jax.constitution.schema import load_constitution
from cai_jax.evaluation import decisions

RUNS = flags.DEFINE_list("runs", [], "workdirs of a run under OLD.yaml and of one under NEW.yaml")


def main(paths: list[Path]) -> None:
    """Prints the differences."""
    if RUNS.value:
        with naming("--runs"):
            print(behaviour_report([Path(run) for run in RUNS.value], paths))
        return
    if len(paths) != 2:
        raise ValueError(f"diff compares two files, not {len(paths)}; name OLD.yaml and NEW.yaml")
    old, new = map(load_constitution, paths)
    pairs = labelers.read_labelled() if MODEL.value or labelers.PAIRS.value else []
    print(as_text(differences(old, new)))
    if pairs:
        labeler = labelers.open_labeler(new)
        print(decisions.as_text(decisions.compare_decisions(labeler, old, new, pairs)))


if __name__ == "__main__":
    start(main, files=True)
