"""Which samples become critiques and revisions, and what is counted of those that do not."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from tiny_run import tiny_config

from cai_jax.constitution.schema import CritiquePrinciple
from cai_jax.data.readers import Prompt
from cai_jax.generation.engine import Completion
from cai_jax.prompts.critique_revision import critique_messages, example_texts
from cai_jax.prompts.messages import user
from cai_jax.stages import sl_data
from cai_jax.stages.reuse import Computed
from cai_jax.stages.stage import open_run

REPLY = (
    "a good way to help is to tell people what is bad and why that is so "
    "and to ask what people need and want"
)
REQUEST = (
    "what is bad in that and why is it so tell the user in a good way "
    "that people will want to know and can talk with you of"
)
CRITIQUE = (
    "it is bad to tell people so and that is why a good way is kind "
    "but the user will want help with the work and not harm"
)


@pytest.fixture
def writer(tmp_path, model_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = tiny_config(tmp_path, model_folder, **{"sl_data.few_shots": 1})
    return sl_data._Writer(open_run(config).inputs(sl_data.STAGE), None, None)


def sampled(writer, text, finished=True):
    ids = writer.chat.reply_ids(text)
    return Completion(ids if finished else ids[:-1], np.zeros(len(ids), np.float32), finished)


def draft(reply=REPLY):
    principle = CritiquePrinciple("p", "", (), REQUEST, REQUEST)
    return sl_data.Draft(Prompt("r", (user("how"),)), 1, reply, "", principle, CRITIQUE)


def keep(writer, kind, text, given):
    take = {"critique": sl_data._criticise, "revision": sl_data._respond}[kind]
    return writer._keep([draft()], [sampled(writer, text)], kind, take, [given])


@pytest.mark.parametrize("kind", ["critique", "revision"])
@pytest.mark.parametrize("copied", [REQUEST, CRITIQUE])
def test_near_copies_are_dropped_and_counted(writer, kind, copied):
    near = copied.removesuffix(" you of").removesuffix(" harm")
    assert keep(writer, kind, near, [REQUEST, REPLY, CRITIQUE]) == []
    assert writer.copied == {kind: 1}
    assert writer.unparsed == {}


def test_a_revision_may_repeat_the_reply_and_a_critique_may_not(writer):
    (kept,) = keep(writer, "revision", REPLY, [REQUEST, REPLY])
    assert kept.response == REPLY
    assert (writer.repeated, writer.copied) == (1, {})
    assert keep(writer, "critique", REPLY, [REQUEST, REPLY]) == []
    assert keep(writer, "revision", REPLY.replace(" so ", " "), [REQUEST, REPLY]) == []
    assert (writer.repeated, writer.copied) == (1, {"critique": 1, "revision": 1})


def test_what_says_something_else_is_kept(writer):
    said = "that is not a kind way so ask the user"
    (kept,) = keep(writer, "critique", said, [REQUEST, REPLY])
    assert kept.critique == said
    assert writer.copied == writer.unparsed == {}


def test_what_does_not_parse_is_counted_apart(writer):
    never_ends = sampled(writer, "that is not a kind way", finished=False)
    assert writer._keep([draft()], [never_ends], "critique", sl_data._criticise, [[]]) == []
    assert (writer.unparsed, writer.copied) == ({"critique": 1}, {})


def test_few_shots_are_compared_with_only_where_they_are_shown(writer):
    shown = writer._draw(draft(), 1).shown
    assert len(shown) == 3  # a reply, a critique and a revision
    assert set(shown) <= set(example_texts(writer.few_shots.examples))


def test_what_prompts_share_are_their_few_shots_in_few_orders(writer, monkeypatch):
    given = []

    def sample(self, kind, generator, ids, keys, tokens, sampling, name, shared):
        given.extend(
            writer.chat.tokenizer.decode(row[:n]) for row, n in zip(ids, shared, strict=True)
        )
        return [sampled(writer, REPLY) for _ in ids]

    monkeypatch.setattr(Computed, "sample", sample)
    drafts = [replace(draft(), prompt=Prompt(f"r{i}", (user("how"),))) for i in range(40)]
    drawn = [writer._draw(d, 1) for d in drafts]
    writer._write(
        [critique_messages(d.few_shots, d.prompt.messages, d.response, d.principle) for d in drawn],
        "",
        drawn,
        "critique",
    )
    assert 1 < len(set(given)) <= sl_data.ORDERS
    assert all(text.count("<|im_start|> user") == 3 for text in given)  # of one few-shot
    assert not any(REPLY in text for text in given)
