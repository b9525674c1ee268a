"""Plain text: every token counts once, whatever the window, and bytes do not depend on tokens."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_settings import task_settings
from tiny_model import WORDS

from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import Text
from cai_jax.evaluation.tasks.perplexity import PERPLEXITY, windows
from cai_jax.evaluation.tasks.task import TaskTools
from cai_jax.generation.scoring import Scorer
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, load_tokenizer


def text(words, id_="t", category=""):
    return Text(id_, category, words, JsonRow(Path("f"), 1, {}))


@pytest.fixture(scope="module")
def settings(model_folder):
    return task_settings(ChatFormat(load_tokenizer(model_folder)))


@given(st.lists(st.sampled_from(WORDS[:20]), min_size=1, max_size=60), st.integers(2, 33))
def test_every_token_is_scored_once_with_half_a_window_before_it(settings, words, window):
    ids = settings.chat.plain_ids(" ".join(words), starts=True)
    found = windows(text(" ".join(words)), replace(settings, window=window))
    assert [i for _, scored in found for i in scored] == ids
    start = settings.chat.tokenizer.eos_token_id  # there is no token that begins a text
    at, whole = 1, [start, *ids]
    for number, (before, scored) in enumerate(found):
        assert scored
        assert len(before) + len(scored) <= window
        assert before == whole[at - len(before) : at]
        assert len(before) == (window // 2 if number else 1)
        at += len(scored)


def test_nats_are_of_the_model_and_bytes_of_the_text(settings, model_folder, mesh):
    source = ModelSource(model_folder)
    model = load_policy(source, policy_blueprint(source, np.dtype("float32")), mesh)
    scorer = Scorer(model, mesh, 4)
    items = [text("the good way is not so bad .", "a", "x"), text("it", "b", "y"), text("ü", "c")]
    results = PERPLEXITY.methods["likelihood"].run(items, TaskTools(settings, scorer))
    start = [settings.chat.tokenizer.eos_token_id]
    for item, result in zip(items, results, strict=True):
        ids = settings.chat.plain_ids(item.text, starts=True)
        (nats,) = scorer.completion_logprobs([start], [ids])
        assert result.values["nats"] == pytest.approx(-nats.sum(), rel=1e-6)
        assert result.values["tokens"] == len(ids)
        assert result.values["bytes"] == len(item.text.encode())
    measured = {(m.measure, m.group): m for m in PERPLEXITY.measure("likelihood", results)}
    nats, tokens, size = (sum(r.values[n] for r in results) for n in ("nats", "tokens", "bytes"))
    assert measured["nats_per_token", "all"].mean == pytest.approx(nats / tokens)
    assert measured["bits_per_byte", "all"].mean == pytest.approx(nats / size / math.log(2))
    assert measured["perplexity", "all"].mean == pytest.approx(math.exp(nats / tokens))
    assert {group for _, group in measured} == {"all", "x", "y"}
    assert measured["nats_per_token", "all"].low is None
