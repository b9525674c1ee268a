"""The programs that are listed are those that are called."""

import jax
import numpy as np
import pytest
from conftest import TINY, at_rest
from described import described
from flax import nnx

from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.models.blueprint import Model
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.params import param_sharding
from cai_jax.parallel.program import Program, abstract

NEW = 3  # tokens of a completion


def compiled(program, args):
    """All that decides what is compiled: hashable, so that sets of programs can be compared."""
    static = tuple(sorted(program.static.items()))
    return program.function, args[0], described(args[1:]), static, program.mesh


@pytest.fixture
def ran(monkeypatch):
    """Every program that is called, by what it is called with."""
    seen, call = set(), Program.__call__

    def spy(program, *args):
        seen.add(compiled(program, args))
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    return seen


@pytest.fixture(params=["one device", "eight devices"])
def layout(request, mesh, mesh8):
    return mesh if request.param == "one device" else mesh8


def on(model, mesh):
    """A model, sharded over a mesh."""
    place = lambda v: v.replace(jax.device_put(v.get_value(), param_sharding(v, mesh)))
    params = jax.tree.map(place, model.params, is_leaf=lambda v: isinstance(v, nnx.Variable))
    return Model(model.graph, params)


def rows_up_to(limit):
    """One of every length, of which no two begin alike."""
    return [[length, *[5] * (length - 1)] for length in range(1, limit + 1)]


def width(program):
    return program.args[3].shape[1]


def check(programs, ran, widths):
    """No program is listed twice, none is missing, and none is listed in vain."""
    wanted = [compiled(program, program.args) for program in programs]
    assert len(set(wanted)) == len(wanted)
    assert set(wanted) == ran
    assert [width(program) for program in programs] == widths


# Rows that are longer than a pack, and ones that are not.
LIMITS = [(8, 32, [32, 16, 8]), (8, 21, [32, 16, 8]), (32, 20, [32])]


@pytest.mark.parametrize(("bucket", "longest"), [(8, 21), (32, 20)])
def test_a_generator_lists_what_it_calls(layout, model, ran, bucket, longest):
    """Whatever the longest prompt of a call: no program twice, none missing, none in vain."""
    model, sampling = on(model, layout), Sampling(0.7)
    args = (layout, (3,), 2, bucket, longest + NEW)
    for longest_here in range(bucket - 1, longest + bucket, bucket):
        prompts = rows_up_to(min(longest_here, longest))
        keys = [named_key(0, i) for i in range(len(prompts))]
        Generator(model, *args).generate(prompts, keys, NEW, sampling)
    ahead = Generator(Model(model.graph, abstract(model.params)), *args)
    programs = ahead.programs("responses", NEW, sampling)
    wanted = [compiled(program, program.args) for program in programs]
    assert len(set(wanted)) == len(wanted)
    assert set(wanted) == ran
    sizes = [program.args[2].cache.values[0].shape[2] for program in programs]
    assert sizes == sorted(sizes, reverse=True)


def test_a_generator_lists_what_it_calls_for_prompts_that_begin_alike(layout, model, ran):
    model, sampling = on(model, layout), Sampling(0.7)
    args = (layout, (3,), 2, 32, 150 + NEW)
    for head in (64, 65, 100, 129):
        for rest in (1, 33, 85):
            prompts = [[*[5] * head, *range(9, 9 + n)] for n in {1, rest} if head + n <= 150]
            keys = [named_key(0, i) for i in range(len(prompts))]
            shared = [head] * len(prompts)
            Generator(model, *args).generate(prompts, keys, NEW, sampling, shared=shared)
    ahead = Generator(Model(model.graph, abstract(model.params)), *args)
    programs = ahead.programs("critiques", NEW, sampling, shared=True)
    wanted = [compiled(program, program.args) for program in programs]
    assert len(set(wanted)) == len(wanted)
    assert ran <= set(wanted)
    assert {p.args[2].shape[1] for p in programs if p.name.endswith("shared")} == {64, 128, 256}


def scored(kind, scorer, rows):
    if kind == "logprobs":
        return scorer.completion_logprobs(
            [row[:-1] for row in rows], [row[-1:] for row in rows], 0.7
        )
    if kind == "choices":
        return scorer.choice_logprobs(rows, [4, 7, 9])
    return scorer.preference_scores(rows)


def listed(kind, scorer):
    if kind == "logprobs":
        return scorer.logprob_programs("score", 0.7)
    if kind == "choices":
        return scorer.choice_programs("score", 3)
    return scorer.preference_programs("score")


@pytest.mark.parametrize(
    ("room", "longest", "widths", "offload"),
    [*((*limit, False) for limit in LIMITS), (*LIMITS[1], True)],
)
@pytest.mark.parametrize("kind", ["logprobs", "choices", "preference"])
def test_a_scorer_lists_what_it_calls(layout, model, ran, kind, room, longest, widths, offload):
    judge = at_rest(PreferenceModel(TINY, rngs=nnx.Rngs(0)))
    model = on(judge if kind == "preference" else model, layout)
    args = (layout, 2, room, longest)
    for rows in (rows_up_to(longest), *([row] for row in rows_up_to(longest))):
        scored(kind, Scorer(model, *args, offload), rows)
    for size in sorted({longest, min(longest, 16), 8}):  # two packs of each width
        scored(kind, Scorer(model, *args, offload), [[i] * size for i in (4, 5)])
    ahead = Scorer(Model(model.graph, abstract(model.params)), *args)
    whole = [p for p in listed(kind, ahead) if not p.name.endswith(("prefix", "rests"))]
    check(whole, ran, widths * len(ahead.batch_sizes))


@pytest.mark.parametrize("kind", ["logprobs", "choices", "preference"])
def test_a_scorer_lists_what_it_calls_for_rows_that_begin_alike(layout, model, ran, kind):
    judge = at_rest(PreferenceModel(TINY, rngs=nnx.Rngs(0)))
    model = on(judge if kind == "preference" else model, layout)
    rows = [[*range(1, 90), *[7] * n, 3, 4] for n in range(1, 30)]
    rows += [[*range(2, 70), *[9] * n, 3, 4] for n in range(3)]
    scored(kind, Scorer(model, layout, 2, 64, 130), rows)
    found = listed(kind, Scorer(Model(model.graph, abstract(model.params)), layout, 2, 64, 130))
    wanted = [compiled(program, program.args) for program in found]
    assert len(set(wanted)) == len(wanted)
    assert len(ran) > 1
    assert ran <= set(wanted)


def test_a_scorer_without_a_limit_lists_rows_up_to_one(mesh):
    judge = at_rest(PreferenceModel(TINY, rngs=nnx.Rngs(0)))
    found = Scorer(judge, mesh, 1, 8).preference_programs("score", 20)
    assert [width(p) for p in found if p.name == "score"] == [32, 16, 8]


def test_without_a_limit_there_is_no_list(mesh, model):
    with pytest.raises(ValueError, match="responses: prompts of any length; set max_tokens"):
        Generator(model, mesh, (), 2).programs("responses", NEW, Sampling())
    scorer = Scorer(model, mesh, 2)
    for programs in (scorer.logprob_programs, scorer.preference_programs):
        with pytest.raises(ValueError, match="score: rows of any length; set max_tokens"):
            programs("score")
    with pytest.raises(ValueError, match="score: rows of any length; set max_tokens"):
        scorer.choice_programs("score", 2)


def test_rows_beyond_the_limit_are_refused(mesh, model, ran):
    key = [named_key(0, "long")]
    with pytest.raises(ValueError, match=r"responses: a row has up to 11 tokens, .* of 10;"):
        Generator(model, mesh, (), 1, 8, 10).generate([[5] * 8], key, NEW, Sampling(), "responses")
    scorer = Scorer(model, mesh, 1, 8, 10)
    with pytest.raises(ValueError, match="score: a row has up to 11 tokens"):
        scorer.completion_logprobs([[5] * 8], [[5] * 3])
    with pytest.raises(ValueError, match="choose: a row has up to 11 tokens"):
        scorer.choice_logprobs([[5] * 11], [1])
    with pytest.raises(ValueError, match="score: a row has up to 11 tokens"):
        scorer.preference_scores([[5] * 11])
    assert not ran


def test_tokens_count_no_padding(mesh, model):
    generator, scorer = Generator(model, mesh, (), 4, 8), Scorer(model, mesh, 4, 8)
    out = generator.generate(rows_up_to(3), [named_key(0, i) for i in range(3)], NEW, Sampling())
    assert generator.tokens == 1 + 2 + 3 + sum(len(c.ids) for c in out)
    scorer.completion_logprobs(rows_up_to(3), [[1], [2, 3], [4]])
    assert scorer.tokens == 1 + 2 + 3 + 4
    assert np.isfinite(scorer.choice_logprobs(rows_up_to(2), [1])).all()
