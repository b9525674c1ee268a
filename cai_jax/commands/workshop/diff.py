"""Says what differs between two constitutions: by text, and by what runs under them became.

python -m cai_jax.constitution diff OLD.yaml NEW.yaml
python -m cai_jax.constitution diff --runs=OLD_WORKDIR,NEW_WORKDIR

Entries are added (+), removed (-) or changed (~); [-words-] are gone and {+words+} are new. With
two runs, Markdown says what else changed: labels, scores, replies, each with its interval, and
what the new run computed. Without files it compares the constitutions that the runs kept.
"""

from pathlib import Path

from absl import flags

from cai_jax.commands.front import start
from cai_jax.config import naming
from cai_jax.constitution.diff import as_text, differences
from cai_jax.constitution.schema import load_constitution

RUNS = flags.DEFINE_list("runs", [], "workdirs of a run under OLD.yaml and of one under NEW.yaml")


def main(paths: list[Path]) -> None:
    """Prints the differences."""
    if RUNS.value:
        from cai_jax.commands.workshop.behaviour import behaviour_report  # JAX, which takes seconds

        with naming("--runs"):
            print(behaviour_report([Path(run) for run in RUNS.value], paths))
        return
    if len(paths) != 2:
        raise ValueError(f"diff compares two files, not {len(paths)}; name OLD.yaml and NEW.yaml")
    old, new = map(load_constitution, paths)
    print(as_text(differences(old, new)))


if __name__ == "__main__":
    start(main, files=True)
