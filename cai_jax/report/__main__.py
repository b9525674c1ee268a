"""Makes the report of a run again, from its folder alone, or puts runs side by side.

python -m cai_jax.report --workdir=DIR [--out=FOLDER]
python -m cai_jax.report --runs A B C [--out=FILE.html]

The page, its figures and summary.json are made from what the stages left; no model is opened. They
take the place of those of a finished run. Of a run that is not finished, the page shows what there
is, and needs --out.

--runs takes workdirs, and folders of sweeps for all finished runs in them. Replies of the same
policy to the same prompts are compared in pairs, with the first run of the same seed, or else with
the first of all.
"""

from pathlib import Path

from absl import flags

from cai_jax.commands.front import start
from cai_jax.commands.reports import make_again, runs_in, side_by_side
from cai_jax.storage.files import resolved

WORKDIR = flags.DEFINE_string("workdir", None, "of a run, whose report is made again")
RUNS = flags.DEFINE_list("runs", [], "workdirs, or folders of sweeps, that are put side by side")
OUT = flags.DEFINE_string(
    "out", None, "folder of the report, in place of the run's; HTML file of the comparison"
)


def main(others: list[Path]) -> None:
    """Makes the report of a run again, or compares runs; some may stand beside the flags."""
    runs = [*map(Path, RUNS.value), *others]
    if runs and not WORKDIR.value:
        side_by_side([found for path in runs for found in runs_in(resolved(path))], OUT.value)
    elif WORKDIR.value and not runs:
        make_again(resolved(WORKDIR.value), OUT.value)
    else:
        raise ValueError("--workdir: name the folder of one run, or several in --runs")


if __name__ == "__main__":
    start(main, files=True)
