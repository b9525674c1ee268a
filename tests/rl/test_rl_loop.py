"""The loop of online algorithms: what it records, checks, and goes on from."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from described import described
from flax import nnx
from rl_setting import ALGORITHM, OPTIMIZER

from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.learning.history import open_history
from cai_jax.learning.skipping import DivergedError, Skipping
from cai_jax.learning.train import init_state, make_trainable
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue, PreferenceModel
from cai_jax.models.io.load import load_policy
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import decoding_mesh, make_mesh, put_batch, replicate
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.rl import loop
from cai_jax.rl.kl import AdaptiveKL
from cai_jax.rl.loop import Limits, Online, RLState
from cai_jax.rl.prompts import Drawn, PromptPool
from cai_jax.rl.reward import Reward
from cai_jax.rl.rollout import Width, assemble
from cai_jax.rl.watch import Alarms

FLOAT32, LORA = jnp.dtype(jnp.float32), LoRAConfig(4, 8.0)
ROWS, NEW = 8, 6
LIMITS = Limits(
    first_ratio_error=0.1,
    rounding=1e-5,
    alarms=Alarms(kl=50.0, sampler_gap=0.05, degenerate=0.9),
    missing_stop_penalty=0.5,
    unusable_penalty=1.0,
)
CONTROLLER = AdaptiveKL(target=0.01, horizon=40)


class Iterations:
    """Everything that a loop needs, on the tiny model."""

    def __init__(self, folder, mesh, lora=LORA, tensor=1, new=NEW, prompts=4):
        source = ModelSource(folder)
        blueprint = Blueprint(PolicyWithValue, source.config, FLOAT32, lora, frozen_layers=1)
        plain = replace(blueprint, module=Decoder, lora=None)
        reference = load_policy(source, plain, mesh)
        start = reference if lora else load_policy(source, plain, mesh)
        self.reference = reference.params
        self.online = Online(
            algorithm=replace(ALGORITHM, minibatches=1, micro_batches=2),
            blueprint=blueprint,
            trainable=make_trainable(blueprint, start.params, mesh, seed=0),
            reference=reference,
            optimizer=OPTIMIZER,
            mesh=mesh,
            decode_mesh=decoding_mesh(mesh, tensor),
            stop_ids=(2,),
            batch_size=ROWS,
            prompt_tokens=prompts,
            max_new_tokens=new,
            bucket_tokens=6,
            seed=0,
        )
        judge = Blueprint(PreferenceModel, source.config, FLOAT32)
        module = judge.build()
        module.head.kernel.set_value(jnp.linspace(-1, 1, source.config.d_model))
        wanted = jax.tree.map(lambda x: x.sharding, judge.abstract(mesh).params)
        params = jax.device_put(nnx.state(module), wanted)
        self.scorer = Scorer(Model(judge.graph, params), mesh, ROWS, pack_tokens=16)
        chat = ChatFormat(load_tokenizer(folder))
        self.reward = Reward(self.scorer, lambda: chat, 0.0, 1.0, unusable_score=-2.0)
        kinds = ([Drawn(f"{k}{i}", [k, 5 + i, 7][: 1 + i % 3]) for i in range(9)] for k in (10, 30))
        self.pool = PromptPool(*kinds, count=ROWS, helpful_fraction=0.25, samples=1, seed=0)
        self.state = RLState(0, init_state(self.online.trainable.params, OPTIMIZER), 0.1)

    def train(self, iterations, history, skipping=None):
        self.state, tokens = loop.train(
            self.online,
            self.state,
            iterations,
            lambda: self.reference,
            self.reward,
            self.pool.draw,
            CONTROLLER,
            LIMITS,
            history,
            skipping=skipping,
        )
        return tokens


@pytest.fixture
def history(tmp_path):
    with open_history(tmp_path, "rl", 4, ("score",)) as history:
        yield history


def test_a_loop_goes_on_where_it_was_left(model_folder, mesh, tmp_path, history):
    """KL coefficient, iteration, samples and shuffles: two halves are the whole."""
    whole = Iterations(model_folder, mesh)
    tokens = whole.train(4, history)
    halves, rows, others = Iterations(model_folder, mesh), [], 0
    for iterations in (2, 4):
        with open_history(tmp_path / "halves", "rl", 2, ("score",)) as half:
            others += halves.train(iterations, half)
        assert halves.state.iteration == iterations
        rows += half.rows
    assert rows == history.rows
    assert len(rows) == 4
    assert others == tokens
    assert halves.state.kl_coef == whole.state.kl_coef
    ours, theirs = jax.device_get((halves.state.train, whole.state.train))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert len({row["entropy"] for row in rows}) == 4  # every iteration has prompts of its own
    assert halves.train(4, history) == 0  # there is nothing left to do


def test_the_coefficient_follows_the_kl_of_the_iteration_before(model_folder, mesh, history):
    run = Iterations(model_folder, mesh)
    run.train(3, history)
    coefs = [row["kl_coef"] for row in history.rows] + [run.state.kl_coef]
    assert coefs[0] == 0.1
    for row, after in zip(history.rows, coefs[1:], strict=True):
        assert after == CONTROLLER.update(row["kl_coef"], row["kl_k1"], ROWS)
    assert len(set(coefs)) == 4


def test_metrics_are_fetched_after_the_next_responses_are_sampled(
    model_folder, mesh, history, monkeypatch
):
    events = []

    def spy(name):
        real = getattr(loop, name)

        def call(*args):
            events.append(name)
            return real(*args)

        monkeypatch.setattr(loop, name, call)

    for name in ("sample", "score", "learn", "record"):
        spy(name)
    Iterations(model_folder, mesh).train(3, history)
    assert events == [
        *("sample", "score", "learn"),
        *("sample", "record", "score", "learn"),
        *("sample", "record", "score", "learn"),
        "record",
    ]
    assert len(history.rows) == 3


def test_nothing_is_transferred_unseen(model_folder, mesh, history):
    run = Iterations(model_folder, mesh)
    run.reference = jax.device_get(run.reference)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        run.train(1, history)


def compiled(program, args):
    """All that decides what is compiled, and its name; calls are labelled by their stage."""
    name, static = program.name.removeprefix("rl: "), tuple(sorted(program.static.items()))
    return name, described(args), static, program.mesh


@pytest.mark.parametrize("lora", [LORA, None], ids=str)
@pytest.mark.parametrize("layout", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_an_iteration_calls_the_programs_that_are_listed(
    model_folder, history, monkeypatch, layout, lora
):
    """With arrays of the very shapes, dtypes and shardings that are compiled ahead."""
    mesh = make_mesh(*layout, jax.devices()[: int(np.prod(layout))])
    run = Iterations(model_folder, mesh, lora, layout[2], prompts=12)
    ran, call = [], Program.__call__
    online = run.online
    programs = [online.sampler_weights, *online.responses()]
    programs += [*map(online.preparing, online.widths), *map(online.updating, online.widths)]
    listed = [compiled(program, program.args) for program in programs]
    scores = run.scorer.preference_programs("score", run.online.prompt_tokens + NEW)
    scores = [compiled(program, program.args) for program in scores]

    def spy(program, *args):
        ran.append(compiled(program, args))
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    run.train(1, history)
    called = [program for program in ran if program[0] != "score"]
    assert [name for name, *_ in called] == [
        *("weights to the sampler", "responses, prompts", "responses", "advantages", "updates"),
        "advantages",  # once more, for the policy that is left
    ]
    assert all(program in listed for program in called)
    assert {program[0] for program in called} == {program[0] for program in listed}
    (wide, narrow) = (program for program in listed if program[0] == "advantages")
    assert (wide in called, narrow in called) == (False, True)  # as the prompts are short
    judged = [program for program in ran if program[0] == "score"]
    assert all(program in scores for program in judged)


def test_what_is_frozen_is_not_copied_for_sampling(model_folder, mesh):
    """Every weight that sampling reads is the policy's; those of the base are training's own."""
    run = Iterations(model_folder, mesh)
    online, params = run.online, run.state.train.params
    sampled = nnx.to_flat_state(online.sampler_params(params))
    trained = online.of_decoder(nnx.merge_state(params, online.trainable.frozen))
    base = dict(nnx.to_flat_state(online.of_decoder(online.trainable.frozen)))
    assert {path for path, _ in sampled} == {path for path, _ in nnx.to_flat_state(trained)}
    for path, variable in sampled:
        if path in base:
            assert variable.get_value() is base[path].get_value()
    assert len(base) < len(sampled)


def test_responses_are_sampled_from_the_full_distribution(model_folder, mesh, monkeypatch):
    asked = {}

    def generate(self, prompts, keys, max_new_tokens, sampling, name):
        asked.update(prompts=prompts, keys=keys, new=max_new_tokens, sampling=sampling)

    monkeypatch.setattr(Generator, "generate", generate)
    run = Iterations(model_folder, mesh)
    loop.sample(run.online, run.state, [Drawn("a", [5]), Drawn("a", [5])])
    assert asked["sampling"] == Sampling(run.online.algorithm.temperature)
    assert (asked["sampling"].top_k, asked["sampling"].top_p) == (0, 1.0)
    assert (asked["prompts"], asked["new"]) == ([[5], [5]], NEW)
    first = asked["keys"]
    assert (first[0] != first[1]).any()  # the same prompt twice in a batch
    loop.sample(run.online, run.state._replace(iteration=1), [Drawn("a", [5])])
    assert all((asked["keys"][0] != key).any() for key in first)


def good_scalars():
    return {"first_ratio_error": 0.0, "first_approx_kl": 0.0}


@pytest.mark.parametrize("field", ["first_ratio_error", "first_approx_kl"])
@pytest.mark.parametrize(
    ("dtype", "rounding", "stop"), [("float32", 1e-5, 0.01), ("bfloat16", 0.02, 0.1)]
)
def test_a_first_minibatch_that_is_off_warns_and_far_off_stops(
    field, dtype, rounding, stop, caplog
):
    kind = jnp.dtype(dtype)
    limits = replace(
        LIMITS, rounding=loop.ROUNDING[kind], first_ratio_error=loop.FIRST_RATIO_ERROR[kind]
    )
    loop.check(good_scalars() | {field: rounding}, 0, limits)
    assert not caplog.records
    for off in (1.01 * rounding, stop):
        caplog.clear()
        loop.check(good_scalars() | {field: off}, 3, limits)
        assert f"above the {rounding:.0e} of rounding" in caplog.text
        assert "at iteration 3" in caplog.text
    said = rf"at iteration 7 .* max_first_ratio_error = {stop}"
    with pytest.raises(FloatingPointError, match=said):
        loop.check(good_scalars() | {field: 1.1 * stop}, 7, limits)


def test_a_stricter_stop_than_rounding_is_kept():
    limits = replace(LIMITS, first_ratio_error=1e-3, rounding=0.02)
    with pytest.raises(FloatingPointError, match=r"max_first_ratio_error = 0.001"):
        loop.check(good_scalars() | {"first_ratio_error": 2e-3}, 0, limits)


def test_an_iteration_that_gives_inf_changes_nothing_and_is_written_down(
    model_folder, mesh, tmp_path, history, monkeypatch
):
    """A score that is infinite: all its updates are left out, and the limit stops the loop."""
    run, real = Iterations(model_folder, mesh), loop.score
    before = jax.device_get(run.state.train)

    def score(*args):
        replies, scores = real(*args)
        scores[1] = np.inf
        return replies, scores

    monkeypatch.setattr(loop, "score", score)
    skipping = Skipping(limit=2, folder=tmp_path / "skipped", start="the start")
    run.train(1, history, skipping)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.state.train), before)
    (row,) = history.rows
    assert row["skipped"] == ALGORITHM.epochs
    assert "grad_norm" not in row
    kept = json.loads((tmp_path / "skipped" / "step-000000.json").read_text(encoding="utf-8"))
    assert kept["rows"][1]["score"] == np.inf
    assert len(kept["rows"]) == ROWS
    assert all(row["prompt"] and row["response_text"] for row in kept["rows"])
    with pytest.raises(DivergedError, match="The start gives that before any update"):
        run.train(3, history, skipping)


def test_a_last_policy_that_is_broken_is_refused(model_folder, mesh, history):
    run = Iterations(model_folder, mesh)
    batch = run.pool.draw(0)
    sampled = loop.sample(run.online, run.state, batch)
    replies, scores = loop.score(run.reward, batch, sampled, LIMITS)
    judged = loop.judged_tokens(replies, sampled)
    rollout = loop.roll_out(run.online, batch, sampled, judged, scores)
    args = (lambda: run.reference, rollout, Skipping(lower_rate="lower it"))
    loop.verify(run.online, run.state, *args)
    huge = jax.tree.map(lambda x: x + 1e30, run.state.train.params)
    broken = run.state.train._replace(params=huge)
    with pytest.raises(DivergedError, match=r"the last policy are NaN .* lower it"):
        loop.verify(run.online, run.state._replace(train=broken), *args)


def test_the_loop_checks_every_iteration(model_folder, mesh, history, monkeypatch):
    run, seen = Iterations(model_folder, mesh), []
    monkeypatch.setattr(loop, "check", lambda row, iteration, limits: seen.append((iteration, row)))
    run.train(2, history)
    assert seen == list(enumerate(history.rows))
    assert all(row["first_ratio_error"] <= 1e-5 for row in history.rows)
    assert all(row["first_approx_kl"] <= 1e-5 for row in history.rows)


def test_metrics_weigh_by_tokens():
    metrics = {"ratio": np.array([1.0, 2.0, np.nan]), "weight": np.array([30.0, 10.0, 7.0])}
    metrics |= {"grad_norm": np.array([0.1, 0.4, np.inf]), "skipped": np.array([0.0, 0.0, 1.0])}
    assert loop.weighted_means(metrics) == {"ratio": 1.25, "grad_norm": 0.4}
    assert loop.weighted_means(metrics | {"skipped": np.ones(3)}) == {}


def completion(ids, finished):
    return Completion(ids, np.zeros(len(ids), np.float32), finished)


def test_abuse_after_a_polite_sentence_earns_less_and_is_not_credited(model_folder, mesh):
    """By a real preference model, which reads as far as the last whole sentence of what never ends;
    then through everything between scores and advantages."""
    run = Iterations(model_folder, mesh, new=36)
    chat = run.reward.chat
    polite = chat.reply_ids("so I will help you .")
    abuse = chat.reply_ids("you are bad and harm is what people want to do " * 3)[:29]
    assert chat.is_text([*polite[:-1], *abuse])
    stop = run.online.stop_ids[0]
    assert polite[-1] == stop
    clean, unfinished = completion(polite, True), completion(polite[:-1] + abuse, False)
    finished = completion([*polite[:-1], *abuse, stop], True)
    hidden = completion([*polite[:-1], chat.tokenizer.all_special_ids[-1], *abuse], False)
    sampled = [clean, unfinished, finished, hidden] * 2
    batch = [Drawn(f"{i}", [5, 7]) for i in range(len(sampled))]
    replies, scores = loop.score(run.reward, batch, sampled, LIMITS)
    assert replies[1].ids == replies[0].ids == polite
    np.testing.assert_allclose(scores[0] - scores[1], LIMITS.missing_stop_penalty, rtol=1e-5)
    assert replies[2].ids == finished.ids  # abuse that ends is read
    assert replies[3] is None
    assert scores[3] == min(scores[:3]) - LIMITS.unusable_penalty

    judged = loop.judged_tokens(replies, sampled)
    assert judged[:4] == [len(polite), len(polite) - 1, len(finished.ids), len(hidden.ids)]
    rollout = assemble([d.ids for d in batch], sampled, judged, scores, Width(4, 36))
    params, frozen = run.state.train.params, run.online.trainable.frozen
    experience, _ = run.online.prepare(
        *(params, frozen, run.reference, put_batch(rollout, mesh)),
        replicate(np.asarray(0.1, np.float32), mesh),
    )
    advantages = np.asarray(experience.advantages_bn)
    tail = (rollout.mask_bn > 0) & (rollout.judged_bn == 0)
    assert tail.sum() == 2 * 29
    assert np.abs(advantages[tail]).max() < 1e-4  # the policy is at the reference: no KL penalty
    first = advantages[:, 4]
    assert first[1] < first[0]  # the sentence is judged, and pays for what follows it
    assert first[3] < min(first[:3])
