"""Makes the report of a run again, from its folder alone.

python -m cai_jax.report --workdir=DIR [--out=FOLDER]

The page, its figures and summary.json are made from what the stages left; no model is opened. They
take the place of those of a finished run. Of a run that is not finished, the page shows what there
is, and needs --out.
"""

from cai_jax.commands.front import start
from cai_jax.commands.reports import main

if __name__ == "__main__":
    start(main)
