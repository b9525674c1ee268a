"""Finished batches are kept: a stage that is cut off goes on, to the last bit."""

import numpy as np
import pytest

from cai_jax.generation.engine import Generator
from cai_jax.generation.journal import Journal, keeping
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key

PROMPTS = [[5 + i, 7, 9][: 1 + i % 3] for i in range(10)]


class CutOffError(Exception):
    pass


class Counted(Journal):
    """Counts what is computed; after ``budget`` batches the run is cut off, the next one lost."""

    def __init__(self, folder, budget):
        super().__init__(folder)
        self.budget, self.computed = budget, 0

    def put(self, call, values):
        if self.computed == self.budget:
            raise CutOffError
        self.computed += 1
        super().put(call, values)


class Work:
    """Samples and scores, as a stage does."""

    def __init__(self, model, mesh, batch_size=4):
        stops = tuple(range(20))  # rows end at any length
        self.generator = Generator(model, mesh, stops, batch_size, bucket_tokens=4)
        self.scorer = Scorer(model, mesh, 1, pack_tokens=1)

    def run(self, folder, budget=100):
        with keeping(journal := Counted(folder, budget)):
            keys = [named_key(0, "row", i) for i in range(len(PROMPTS))]
            found = self.generator.generate(PROMPTS, keys, 6, Sampling())
            ids = [completion.ids for completion in found]
            logprobs = self.scorer.completion_logprobs(PROMPTS, ids)
        self.computed = journal.computed
        return ids, [c.logprobs for c in found], logprobs


def assert_same(one, other):
    assert one[0] == other[0]
    for ours, theirs in zip(one[1:], other[1:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(model, mesh, tmp_path_factory):
    """An uninterrupted run: what it gave, its number of batches, and tokens that it counted."""
    work = Work(model, mesh)
    found = work.run(tmp_path_factory.mktemp("whole"))
    assert work.computed > 5 + 3  # five of scoring
    return found, work.computed, (work.generator.tokens, work.scorer.tokens)


@pytest.mark.parametrize("batches", [0, 2, 4, 7, "all"])
def test_what_is_cut_off_goes_on_after_its_last_batch(model, mesh, tmp_path, whole, batches):
    found, in_all, tokens = whole
    batches = in_all if batches == "all" else batches
    if batches < in_all:
        with pytest.raises(CutOffError):
            Work(model, mesh).run(tmp_path, batches)
    else:
        Work(model, mesh).run(tmp_path)
    assert Journal(tmp_path).kept == batches
    again = Work(model, mesh)
    assert_same(again.run(tmp_path), found)
    assert again.computed > 0 or batches == in_all
    assert (again.generator.tokens, again.scorer.tokens) == tokens


def test_a_damaged_batch_and_those_after_it_are_computed_again(model, mesh, tmp_path, whole):
    Work(model, mesh).run(tmp_path)
    files = sorted(tmp_path.iterdir())
    content = bytearray(files[2].read_bytes())
    content[len(content) // 3] ^= 1
    files[2].write_bytes(content)
    (tmp_path / f"{len(files):08}.partial").write_bytes(b"half")
    again = Work(model, mesh)
    assert_same(again.run(tmp_path), whole[0])
    assert Journal(tmp_path).kept == 2 + again.computed


def test_batches_of_another_kind_are_not_taken(model, mesh, tmp_path, whole):
    """Rows that ended are the same, however many are decoded together; scored batches are not."""
    with pytest.raises(CutOffError):
        Work(model, mesh).run(tmp_path, whole[1] - 1)
    other = Work(model, mesh)
    other.scorer = Scorer(model, mesh, 5, pack_tokens=16)
    assert other.run(tmp_path)[0] == whole[0][0]
    assert other.computed == 1
