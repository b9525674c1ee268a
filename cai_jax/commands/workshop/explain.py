"""Says which principles shaped the result of a finished run, and what moved the score of a reply.

python -m cai_jax.constitution explain WORKDIR [--reply=ID] [--top=5] [--out=FILE.md]

The tables are those of the run's report, principles that matter most first: how often each was
drawn (n), how much its revisions changed the reply, which labels it decided, and what RL-CAI's lead
over base owes to its labels. --reply names a reply of evaluation, as red_team/ID/rl_cai, or a
prompt, as red_team/ID for all replies to it: which principles and comparisons moved its score most,
against the other models' replies to the same prompt.

What is owed is told by a linear head on the hidden states of the preference model, solved with all
labels and again without those of one principle: see cai_jax/evaluation/attribution.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import flags
from pydantic import TypeAdapter

from cai_jax.commands.files import check_writable, write_whole
from cai_jax.commands.front import start
from cai_jax.config import naming, parse_config
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Sample
from cai_jax.evaluation.attribution import Head, contrasts, fit_head, principle_labels, read_labels
from cai_jax.evaluation.measure import Evaluation, Measurement, Section, number
from cai_jax.evaluation.principles import LEAD_LOST
from cai_jax.prompts.critique_revision import parse_reply
from cai_jax.prompts.messages import Dialogue
from cai_jax.report.page import TableRow, table_of
from cai_jax.stages import evaluate
from cai_jax.stages.engines import make_reward
from cai_jax.stages.evaluate import trained_helpfulness
from cai_jax.stages.stage import Inputs, open_run

REPLY = flags.DEFINE_string("reply", None, "id of a reply of evaluation, or of its prompt")
TOP = flags.DEFINE_integer("top", 5, "comparisons shown of each reply", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "Markdown file to write; without it, all is printed")
CHAPTERS = {"revision_principles": "words_changed", "feedback_principles": LEAD_LOST.name}
REDO = "give python -m cai_jax.main its config again, with --config.stages=evaluate,report"

