"""Tries the feedback principles on the cases that the constitution carries.

python -m cai_jax.constitution test FILE --model=SOURCE [--method=multiple_choice] [--out=JSON]

Each principle is scored by how often the feedback model decides its cases right under it, with a
95 % interval (Wilson; cases that open alike count as one), position bias, and what a bag of words
reaches that learned from the other cases. A case is also judged under --others principles that are
drawn for it, and under none: a principle that never decides otherwise is named. ``cases needed``
says how many would show with 80 % power that it is not right by chance.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cai_jax.commands import labelers
from cai_jax.commands.files import check_out, write_whole
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import MODEL
from cai_jax.constitution.schema import load_constitution
from cai_jax.evaluation.cases import as_rows, as_text, judge_cases, scores

OTHERS = flags.DEFINE_integer(
    "others", 4, "principles beside its own that each case is judged under", lower_bound=0
)
OUT = flags.DEFINE_string("out", None, "JSON file to write")


def main(files: Sequence[Path]) -> None:
    """Writes the table where --out says, and prints it."""
    if len(files) != 1:
        raise ValueError(f"test tries one file, not {len(files)}; name a constitution with cases")
    constitution = load_constitution(files[0])
    if not constitution.cases:
        raise ValueError(f"{files[0]} has no cases; add them, as constitutions/README.md says")
    if OUT.value:
        check_out(OUT.value, inputs=[*files, MODEL.value])
    labeler = labelers.open_labeler(constitution)
    judged = judge_cases(labeler, constitution, OTHERS.value, labelers.SEED.value)
    found = scores(constitution, judged)
    if OUT.value:
        answer = {
            "constitution": constitution.name,
            "version": constitution.version,
            "model": MODEL.value,
            "method": labelers.METHOD.value,
            "others": OTHERS.value,
            "seed": labelers.SEED.value,
            "principles": as_rows(found),
            "labels": [
                {"case": j.case.id, "under": [p.id for p in j.pair.principles]}
                | {"better_shown_first": j.judgement.shown_first.tolist()}
                | {"better_shown_second": j.judgement.shown_second.tolist()}
                for j in judged
            ],
        }
        write_whole(OUT.value, json.dumps(answer, indent=2) + "\n")
    print(as_text(constitution, found, ordered=labelers.METHOD.value != "contrast"))


if __name__ == "__main__":
    start(main, files=True)
