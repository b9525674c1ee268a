"""Finished batches are kept: a stage that is cut off goes on, to the last bit."""

import numpy as np
import pytest

from cai_jax.generation.engine import Generator
from cai_jax.generation.journal import Journal, keeping
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key

PROMPTS = [[5 + i, 7, 9][: 1 + i % 3] for i in range(10)]
BATCHES = 3 + 5  # of sampling, and of scoring


class CutOffError(Exception):
    pass


class Work:
    """Samples and scores them, as a stage does; ``budget`` batches are computed, and no more."""

    def __init__(self, model, mesh, budget=BATCHES, batch_size=4):
        self.budget, self.computed = budget, 0
        self.generator = Generator(model, mesh, (2,), batch_size, bucket_tokens=4)
        self.scorer = Scorer(model, mesh, 2, bucket_tokens=16)
        for tool in (self.generator, self.scorer):
            tool._call = self.counted(tool._call)

    def counted(self, call):
        def compute(*args):
            if self.computed == self.budget:
                raise CutOffError
            self.computed += 1
            return call(*args)

        return compute

    def run(self, folder=None):
        with keeping(Journal(folder) if folder else None):
            keys = [named_key(0, "row", i) for i in range(len(PROMPTS))]
            found = self.generator.generate(PROMPTS, keys, 6, Sampling())
            ids = [completion.ids for completion in found]
            logprobs = self.scorer.completion_logprobs(PROMPTS, ids)
            return ids, [c.logprobs for c in found], logprobs


def assert_same(one, other):
    assert one[0] == other[0]
    for ours, theirs in zip(one[1:], other[1:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(model, mesh):
    work = Work(model, mesh)
    found = work.run()
    assert work.computed == BATCHES
    return found, work.generator.tokens, work.scorer.tokens


@pytest.mark.parametrize("batches", [0, 2, 5, BATCHES])
def test_what_is_cut_off_goes_on_after_its_last_batch(model, mesh, tmp_path, whole, batches):
    if batches < BATCHES:
        with pytest.raises(CutOffError):
            Work(model, mesh, batches).run(tmp_path)
    else:
        Work(model, mesh).run(tmp_path)
    assert Journal(tmp_path).kept == batches
    again = Work(model, mesh)
    assert_same(again.run(tmp_path), whole[0])
    assert again.computed == BATCHES - batches
    assert (again.generator.tokens, again.scorer.tokens) == whole[1:]


def test_a_damaged_batch_and_those_after_it_are_computed_again(model, mesh, tmp_path, whole):
    Work(model, mesh).run(tmp_path)
    files = sorted(tmp_path.iterdir())
    content = bytearray(files[2].read_bytes())
    content[len(content) // 3] ^= 1
    files[2].write_bytes(content)
    (tmp_path / "00000008.partial").write_bytes(b"half")
    again = Work(model, mesh)
    assert_same(again.run(tmp_path), whole[0])
    assert again.computed == BATCHES - 2


def test_batches_of_another_size_are_not_taken(model, mesh, tmp_path, whole):
    with pytest.raises(CutOffError):
        Work(model, mesh, 2).run(tmp_path)
    other = Work(model, mesh, batch_size=2, budget=10)
    assert other.run(tmp_path)[0] == whole[0][0]
    assert other.computed == 10
    assert Journal(tmp_path).kept == 10
