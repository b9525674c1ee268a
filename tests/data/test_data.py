"""Readers, records, and what seqio hands to training."""

import gzip
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT, SHARED

from cai_jax.data.readers import is_held_out, read_pairs, read_prompts
from cai_jax.data.records import FLOAT, INTS, TEXT, TEXTS, read_records, write_records
from cai_jax.data.tasks import CausalLMConverter, Part, PreferenceConverter, batches, mixture
from cai_jax.prompts.chat import conversation


@pytest.mark.parametrize("name", ["red_team_prompts", "helpful_prompts"])
def test_shipped_prompts(name):
    prompts = read_prompts(ROOT / "datasets" / f"{name}.jsonl")
    assert len(prompts) >= 200
    assert len({p.text for p in prompts}) == len(prompts)
    held_out = sum(is_held_out(p.text, 30) for p in prompts)
    assert 0.2 < held_out / len(prompts) < 0.4


@pytest.mark.parametrize(
    ("name", "least"), [("harmlessness_pairs", 120), ("helpfulness_pairs", 120)]
)
def test_shipped_pairs_are_balanced_in_length(name, least):
    pairs = read_pairs(ROOT / "datasets" / f"{name}.jsonl")
    assert len(pairs) >= 120
    words = np.array([[len(p.chosen.split()), len(p.rejected.split())] for p in pairs])
    assert abs(words[:, 0].mean() - words[:, 1].mean()) < 1
    assert 0.4 < np.mean(words[:, 0] > words[:, 1]) < 0.6


def test_hh_rlhf_file():
    path = SHARED / "hh_harmless_base_test_half.jsonl.gz"
    if not path.exists():
        pytest.skip("../shared/data is not here")
    pairs = read_pairs(path)
    assert len(pairs) == 1156
    assert all(p.prompt and not p.prompt.startswith("Human:") for p in pairs)
    assert sum(not p.chosen or not p.rejected for p in pairs) < 10  # silence is allowed, and rare


def test_dialogues_are_split_at_the_last_reply(tmp_path):
    talk = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: "
    path = tmp_path / "pairs.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"chosen": talk + "Because.", "rejected": talk + "No idea."}) + "\n")
    (pair,) = read_pairs(path)
    assert pair.prompt == "Hi\n\nAssistant: Hello\n\nHuman: Why?"
    assert (pair.chosen, pair.rejected) == ("Because.", "No idea.")
    turns = [(m["role"], m["content"]) for m in conversation(pair.prompt)]
    assert turns == [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["holds no prompts"]),
        ('{"prompt": "a"}\n{"prompt": 3}\n', ["line 2", "'prompt'", "3"]),
        ('{"prompt": "a"\n', ["line 1", "not JSON"]),
        ("[1]\n", ["line 1", "JSON object"]),
        ('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', ["'x'", "twice"]),
        ('{"prompt": "  "}\n', ["line 1", "non-empty"]),
    ],
)
def test_bad_prompt_files(tmp_path, content, words):
    path = tmp_path / "prompts.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"prompts\.jsonl") as error:
        read_prompts(path)
    for word in words:
        assert word in str(error.value)


def test_truncated_gzip_is_named(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    whole = gzip.compress(b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 50)
    path.write_bytes(whole[:-12])
    with pytest.raises(ValueError, match="truncated"):
        read_pairs(path)


def test_records_open_with_tfds_and_come_back_whole(tmp_path):
    features = {"id": TEXT, "tokens": INTS, "weight": FLOAT, "tags": TEXTS}
    rows = [
        {"id": f"r{i}", "tokens": list(range(i)), "weight": i / 2, "tags": ["ä", "b"][:i]}
        for i in range(4)
    ]
    write_records(tmp_path, "things", features, rows)
    builder = tfds.builder_from_directory(tmp_path / "things" / "1.0.0")
    assert builder.info.splits["train"].num_examples == 4
    back = read_records(tmp_path, "things")
    for row, read in zip(rows, back, strict=True):
        assert read["id"] == row["id"]
        assert read["tokens"].tolist() == row["tokens"]
        assert read["weight"] == row["weight"]
        assert list(read["tags"]) == row["tags"]
    with pytest.raises(ValueError, match="no records"):
        write_records(tmp_path, "empty", features, [])


def sft_rows(count, offset=0):
    """Rows with real zeros among tokens and masks: what seqio's packing mistakes for padding."""
    rng = np.random.default_rng(offset)
    rows = []
    for i in range(count):
        tokens = rng.integers(0, 4, size=rng.integers(2, 9)).tolist()
        mask = [0] * (len(tokens) // 2) + [1] * (len(tokens) - len(tokens) // 2)
        rows.append({"id": f"{offset}/{i}", "tokens": tokens, "loss_mask": mask})
    return rows


def test_packing_keeps_every_token_and_mask(tmp_path):
    features = {"id": TEXT, "tokens": INTS, "loss_mask": INTS}
    rows = {"a": sft_rows(13, 0), "b": sft_rows(5, 100)}
    for name, part in rows.items():
        write_records(tmp_path, name, features, part)
    parts = [Part(tmp_path, "a", 13.0), Part(tmp_path, "b", 5.0)]
    mix = mixture("packing", parts, ("tokens", "loss_mask"), 4)
    lengths = {"tokens": 16, "loss_mask": 16}
    read = list(batches(mix, CausalLMConverter(), lengths, 2, [0]))
    known = [(tuple(r["tokens"]), tuple(r["loss_mask"])) for r in rows["a"] + rows["b"]]
    found = []
    for batch in read:
        for tokens, mask, segments in zip(
            batch["tokens"], batch["loss_mask"], batch["segments"], strict=True
        ):
            assert (tokens[segments == 0] == 0).all()
            for segment in range(1, segments.max() + 1):
                here = segments == segment
                found.append((tuple(tokens[here].tolist()), tuple(mask[here].tolist())))
    assert sorted(found) == sorted(known)  # each exactly once


def test_tokens_are_not_shifted_and_order_follows_the_seed(tmp_path):
    features = {"id": TEXT, "tokens": INTS, "loss_mask": INTS}
    rows = sft_rows(6)
    write_records(tmp_path, "a", features, rows)
    mix = mixture("order", [Part(tmp_path, "a", 1.0)], ("tokens", "loss_mask"), 4)

    def read(seed):
        lengths = {"tokens": 8, "loss_mask": 8}
        (batch,) = batches(mix, CausalLMConverter(), lengths, 99, [seed])
        return [
            tuple(tokens[segments == s].tolist())
            for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True)
            for s in range(1, segments.max() + 1)
        ]

    assert sorted(read(0)) == sorted(tuple(r["tokens"]) for r in rows)
    assert read(0) == read(0)
    assert read(0) != read(1)


def test_preference_batches_mask_by_length(tmp_path):
    features = {"id": TEXT, "first": INTS, "second": INTS, "target_ppm": INTS}
    rows = [
        {"id": "x", "first": [0, 5, 0], "second": [7], "target_ppm": [250_000]},
        {"id": "y", "first": [3], "second": [0, 0], "target_ppm": [1_000_000]},
    ]
    write_records(tmp_path, "pairs", features, rows)
    mix = mixture("pairs", [Part(tmp_path, "pairs", 1.0)], ("first", "second", "target_ppm"), 9)
    lengths = {"first": 4, "second": 4, "target_ppm": 1}
    (batch,) = batches(mix, PreferenceConverter(), lengths, 2, [0])
    by_target = {int(t[0]): i for i, t in enumerate(batch["target_ppm"])}
    x, y = by_target[250_000], by_target[1_000_000]
    np.testing.assert_array_equal(batch["first"][x], [0, 5, 0, 0])
    np.testing.assert_array_equal(batch["first_segments"][x], [1, 1, 1, 0])
    np.testing.assert_array_equal(batch["second_segments"][y], [1, 1, 0, 0])
