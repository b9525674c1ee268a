"""What seqio hands to training: every token once, masks, and an order that follows the seed."""

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cai_jax.data.records import Part, write_records
from cai_jax.data.rows import Revision, TrainingDialogue, TrainingPair
from cai_jax.data.tasks import CausalLMConverter, PreferenceConverter, batches, mixture
from cai_jax.prompts.messages import system, user

# Real zeros among tokens and masks: what seqio's packing mistakes for padding.
TOKEN = st.integers(0, 3)
LENGTH = 16
# An example builds a dataset and takes half a second: to shrink one that fails would take minutes.
FEW = settings(max_examples=15, phases=[Phase.generate])


@st.composite
def training_dialogues(draw, name):
    """Dialogues of at most LENGTH tokens; training reads none without a token that is learned."""
    tokens = draw(st.lists(st.lists(TOKEN, min_size=1, max_size=LENGTH), min_size=1, max_size=9))
    rows = []
    for i, row in enumerate(tokens):
        prompt = draw(st.integers(0, len(row) - 1))
        mask = (0,) * prompt + (1,) * (len(row) - prompt)
        rows.append(TrainingDialogue(f"{name}/{i}", tuple(row), mask))
    return rows


def sft_rows(count):
    """Dialogues of two to eight tokens."""
    rng = np.random.default_rng(0)
    rows = [tuple(rng.integers(0, 4, size=rng.integers(2, 9)).tolist()) for _ in range(count)]
    return [TrainingDialogue(f"{i}", row, (1,) * len(row)) for i, row in enumerate(rows)]


def packed(parts, seed, batch_size=2):
    """Batches of a mixture of packed dialogues."""
    mix = mixture("packed", parts, ("tokens", "loss_mask"), 4)
    lengths = {"tokens": LENGTH, "loss_mask": LENGTH}
    return list(batches(mix, CausalLMConverter(), lengths, batch_size, [seed]))


def dialogues_of(read):
    """Tokens and mask of every segment of the batches, in their order."""
    found = []
    for batch in read:
        names = ("tokens", "loss_mask", "segments")
        for tokens, mask, segments in zip(*(batch[name] for name in names), strict=True):
            for segment in range(1, segments.max() + 1):
                (here,) = np.nonzero(segments == segment)
                assert here.tolist() == list(range(here[0], here[-1] + 1))  # in one piece
                found.append((tuple(tokens[here].tolist()), tuple(mask[here].tolist())))
    return found


@FEW
@given(training_dialogues("a"), training_dialogues("b"), st.integers(0, 99))
def test_packing_keeps_every_token_and_mask(tmp_path_factory, one, other, seed):
    folder = tmp_path_factory.mktemp("packing")
    for name, rows in (("a", one), ("b", other)):
        write_records(folder / name, rows, TrainingDialogue)
    parts = [Part(folder / "a", float(len(one))), Part(folder / "b", float(len(other)))]
    read = packed(parts, seed)
    known = [(row.tokens, row.loss_mask) for row in one + other]
    assert sorted(dialogues_of(read)) == sorted(known)  # each exactly once
    for batch in read:
        padding = batch["segments"] == 0
        assert not batch["tokens"][padding].any()
        assert not batch["loss_mask"][padding].any()


def test_tokens_are_not_shifted_and_order_follows_the_seed(tmp_path):
    rows = sft_rows(6)
    write_records(tmp_path / "a", rows, TrainingDialogue)
    read = lambda seed: dialogues_of(packed([Part(tmp_path / "a", 1.0)], seed, 99))
    assert sorted(read(0)) == sorted((row.tokens, row.loss_mask) for row in rows)
    assert read(0) == read(0)
    assert read(0) != read(1)


def test_what_training_does_not_read_changes_no_batch(tmp_path):
    rows = sft_rows(9)
    write_records(tmp_path / "plain" / "rows", rows, TrainingDialogue)
    told = {
        "prompt_id": "p",
        "prompt": (system("be kind"), user("why?")),
        "round": 1,
        "principle_id": "x",
        **dict.fromkeys(("critique", "response", "raw_critique", "raw_response"), "so"),
        "seed": 0,
        "model": "m",
        "constitution_sha256": "s",
    }
    revisions = [Revision(r.id, tokens=r.tokens, loss_mask=r.loss_mask, **told) for r in rows]
    write_records(tmp_path / "told" / "rows", revisions, Revision)
    read = lambda name: dialogues_of(packed([Part(tmp_path / name / "rows", 1.0)], 3))
    assert read("plain") == read("told")


IDS = st.lists(TOKEN, min_size=1, max_size=6).map(tuple)


@FEW
@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=6))
def test_preference_batches_mask_by_length(tmp_path_factory, sides):
    folder = tmp_path_factory.mktemp("preference") / "pairs"
    rows = [TrainingPair(f"{i}", *pair, (i,), (2 * i,)) for i, pair in enumerate(sides)]
    write_records(folder, rows, TrainingPair)
    mix = mixture("pairs", [Part(folder, 1.0)], tuple(PreferenceConverter.TASK_FEATURES), 9)
    lengths = {"first": 6, "second": 6, "target_ppm": 1, "weight_ppm": 1}
    (batch,) = batches(mix, PreferenceConverter(), lengths, 6, [0])
    assert sorted(batch["target_ppm"][:, 0]) == list(range(len(rows)))
    assert (batch["weight_ppm"] == 2 * batch["target_ppm"]).all()
    for at, (i,) in enumerate(batch["target_ppm"]):
        for name in ("first", "second"):
            ids = getattr(rows[i], name)
            padding = (0,) * (6 - len(ids))
            assert tuple(batch[name][at]) == ids + padding
            assert tuple(batch[f"{name}_segments"][at]) == (1,) * len(ids) + padding
