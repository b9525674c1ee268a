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

from cai_jax.commands.front import start
from cai_jax.commands.reports import main

if __name__ == "__main__":
    start(main, files=True)
