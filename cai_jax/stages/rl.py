"""RL-CAI: PPO from SL-CAI against the preference model (Bai et al. 2022, section 4.1)."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metric_writers
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from cai_jax.data.readers import Prompt
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import row_scores
from cai_jax.keys import named_key, named_rng
from cai_jax.learning.train import abstract_state, init_state, make_optimizer, make_trainable
from cai_jax.models.heads import PolicyWithValue
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.load import (
    Model,
    decoder_builder,
    forget_pretrained,
    inside,
    load_preference_model,
)
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.params import abstract_split, for_sampling, on_mesh
from cai_jax.parallel.hosts import fetch, is_main, write_text
from cai_jax.parallel.mesh import put_batch, waiting
from cai_jax.prompts.chat import conversation
from cai_jax.rl.kl import AdaptiveKL
from cai_jax.rl.ppo import Experience, PPOSettings, prepare, update
from cai_jax.rl.rollout import Rollout, assemble
from cai_jax.stages.plan import Plan, Step
from cai_jax.stages.run import Outcome, Run, Stage, frozen_layers, lora_config
from cai_jax.stages.training import check_finite

log = logging.getLogger("cai_jax")


class Reward:
    """Normalised preference-model scores of responses.

    Replies that do not parse get a fixed score: comparisons hold none, so the preference model
    has never read one, and PPO would soon write what it misjudges (seen: rows of emoji).

    Args:
      run: whose preference model it is.
      longest: tokens that a dialogue may have, as ``Run.scorer`` takes it.
    """

    def __init__(self, run: Run, longest: int | None = None):
        source = run.source(str(run.checkpoint("pm_train")))
        model, self.info = load_preference_model(source, run.mesh, run.dtype, run.dtype)
        self.chat = run.chat
        self.scorer = run.scorer(model, run.mesh, longest, run.config.rl.offload)
        self.unusable_score = run.config.rl.unusable_score

    def __call__(
        self, prompts: list[list[int]], replies: list[str | None], name: str = "score"
    ) -> np.ndarray:
        """Float32 scores: 0 is the mean of SL-CAI samples, 1 their standard deviation.

        Args:
          prompts: ids.
          replies: texts as ``Run.usable_text`` gives them; None for one that does not parse.
          name: label of the progress bar.
        """
        scores = np.full(len(replies), self.unusable_score, np.float32)
        usable = [i for i, reply in enumerate(replies) if reply is not None]
        if usable:
            rows = [self.chat.judged_ids(prompts[i], replies[i]) for i in usable]
            raw = self.scorer.preference_scores(rows, name)
            scores[usable] = (raw - self.info.score_mean) / self.info.score_std
        return scores


def run(run: Run, folder: Path) -> Outcome:
    """Trains the policy and leaves a checkpoint of it, without its value function."""
    settings = run.config.rl
    source = run.source(str(run.checkpoint("sl_train")))
    lora = lora_config(settings.lora)
    # Merged, as the policy's frozen base: both start as exactly the same function.
    reference = run.merged(source)
    start = reference if lora else run.merged(source, trained_fully=True)
    # Under LoRA the reference is the policy's frozen base: there is nothing to put away.
    reference_params = waiting(reference.params, settings.offload and not lora)
    build = _builder(run, source)
    trainable = make_trainable(build, start.params, lora, run.mesh, decoder_name="decoder")
    del reference, start
    optimizer, ppo = _optimizer(run), _ppo_settings(run)
    state = init_state(trainable.params, optimizer)
    sampler_graph, sampler_params = abstract_split(decoder_builder(source, run.dtype, lora))
    reference_graph = _reference_graph(run, source)
    to_sampler = for_sampling(sampler_params, run.decode_mesh, run.dtype)
    reward = Reward(run, longest=0)  # prompts and responses have limits of their own
    forget_pretrained()
    prompts = _training_prompts(run)
    controller = AdaptiveKL(settings.kl_target, settings.kl_horizon)
    kl_coef, history, tokens = settings.kl_coef, [], 0
    writer = metric_writers.create_default_writer(
        str(folder / "tensorboard"), just_logging=not is_main(), asynchronous=False
    )
    with tqdm(range(settings.iterations), desc="rl", unit="iteration", leave=False) as bar:
        for iteration in bar:
            batch = _draw(run, prompts, iteration)
            ids = [row for _, row in batch]
            decoder = inside("decoder", nnx.merge_state(state.params, trainable.frozen))
            generator = Generator(
                Model(sampler_graph, to_sampler(decoder)),
                run.decode_mesh,
                run.chat.stop_ids,
                settings.batch_size,
                bucket_multiple=settings.prompt_tokens,
            )
            completions = _respond(run, generator, batch, iteration)
            del generator  # and the sampler's copy of the weights
            texts = [run.usable_text(c) for c in completions]
            scores = _scores(run, reward(ids, texts), completions)
            rollout = put_batch(
                assemble(
                    ids, completions, scores, settings.prompt_tokens, settings.response_tokens
                ),
                run.mesh,
            )
            with jax.set_mesh(run.mesh):
                experience, stats = prepare(
                    state.params,
                    trainable.frozen,
                    reference_params(),
                    rollout,
                    np.float32(kl_coef),
                    policy_graph=trainable.graph,
                    reference_graph=reference_graph,
                    settings=ppo,
                )
                state, metrics = update(
                    state,
                    trainable.frozen,
                    experience,
                    named_key(run.config.seed, "rl", "shuffle", iteration),
                    graph=trainable.graph,
                    optimizer=optimizer,
                    settings=ppo,
                )
            metrics, stats = fetch((metrics, stats))
            scalars = {key: float(value) for key, value in stats.items()}
            scalars |= _weighted_means(metrics)
            scalars["first_ratio_error"] = float(metrics["ratio_error"][0])
            scalars["first_approx_kl"] = float(metrics["approx_kl"][0])
            scalars["kl_coef"] = kl_coef
            scalars["unusable"] = float(np.mean([text is None for text in texts]))
            scalars["finished"] = float(np.mean([c.finished for c in completions]))
            _check(run, scalars, iteration)
            kl_coef = controller.update(kl_coef, scalars["kl_k1"], settings.batch_size)
            history.append(scalars)
            writer.write_scalars(iteration, scalars)
            real = sum(map(len, ids)) + sum(len(c.ids) for c in completions)
            tokens += real
            bar.set_postfix(
                score=f"{scalars['score']:.2f}", kl=f"{scalars['kl_k3']:.2f}", refresh=False
            )
    writer.close()
    write_text(folder / "history.json", json.dumps(history, indent=1) + "\n")
    info = CheckpointInfo("policy", "../../sl_train/checkpoint", lora)
    save_checkpoint(folder / "checkpoint", info, inside("decoder", state.params))
    return Outcome(
        {
            "iterations": settings.iterations,
            "first_score": history[0]["score"],
            "last_score": history[-1]["score"],
            "last_kl_k1": history[-1]["kl_k1"],
            "last_kl_k3": history[-1]["kl_k3"],
            "max_first_ratio_error": max(h["first_ratio_error"] for h in history),
            "max_first_approx_kl": max(h["first_approx_kl"] for h in history),
            "max_sampler_gap_mean": max(h["sampler_gap_mean"] for h in history),
        },
        tokens,
    )


def _builder(run: Run, source: ModelSource) -> Callable[[], PolicyWithValue]:
    settings, seed = run.config.rl, run.stage_seed("rl", "init")
    lora, frozen = lora_config(settings.lora), frozen_layers(settings.trained_layers, source)
    return lambda: PolicyWithValue(source.config, lora, run.dtype, frozen, rngs=nnx.Rngs(seed))


def _reference_graph(run: Run, source: ModelSource) -> nnx.GraphDef:
    frozen = frozen_layers(run.config.rl.trained_layers, source)
    return abstract_split(decoder_builder(source, run.dtype, None, frozen))[0]


def _optimizer(run: Run) -> optax.GradientTransformation:
    settings = run.config.rl
    return make_optimizer(
        settings.learning_rate, settings.warmup_steps, settings.max_grad_norm, settings.adam_eps
    )


def _ppo_settings(run: Run) -> PPOSettings:
    settings = run.config.rl
    return PPOSettings(
        prompt_length=settings.prompt_tokens,
        temperature=settings.temperature,
        gamma=settings.gamma,
        lam=settings.lam,
        clip_ratio=settings.clip_ratio,
        clip_value=settings.clip_value,
        value_coef=settings.value_coef,
        entropy_coef=settings.entropy_coef,
        epochs=settings.epochs,
        minibatches=settings.minibatches,
        micro_batches=settings.micro_batches,
    )


def steps(plan: Plan) -> list[Step]:
    """An iteration: weights to the sampler, responses, scores, advantages, updates."""
    run, settings, source = plan.run, plan.run.config.rl, plan.source()
    lora, mesh = lora_config(settings.lora), run.mesh
    trainable = plan.trainable(_builder(run, source), lora)
    optimizer, ppo = _optimizer(run), _ppo_settings(run)
    graph, params = abstract_split(decoder_builder(source, run.dtype, lora))
    moved = for_sampling(params, run.decode_mesh, run.dtype)
    decoder = inside("decoder", nnx.merge_state(trainable.params, trainable.frozen))
    sampler = Model(graph, on_mesh(jax.eval_shape(moved, decoder), run.decode_mesh))
    judge = plan.source(run.config.pm_train.source)
    judge_model = plan.preference_model(judge, mesh, lora_config(run.config.pm_train.lora))

    b, t = settings.batch_size, settings.prompt_tokens + settings.response_tokens
    whole, real = plan.rows(mesh, b, t), plan.rows(mesh, b, t, dtype=jnp.float32)
    rollout = Rollout(whole, whole, real, real, plan.rows(mesh, b, dtype=jnp.float32))
    static = {
        "policy_graph": trainable.graph,
        "reference_graph": _reference_graph(run, source),
        "settings": ppo,
    }
    everywhere = NamedSharding(mesh, PartitionSpec())
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    reference = plan.decoder(source, mesh).params
    args = (trainable.params, trainable.frozen, reference, rollout, scalar)
    # Under LoRA the reference is the policy's frozen base.
    apart = () if lora else (reference,)
    more = "raise config.rl.micro_batches or the number of chips"
    frozen = frozen_layers(settings.trained_layers, source)
    # Policy and reference, which share what is frozen.
    reads = plan.reading(source, b * t) * (2 - frozen / source.config.num_layers)
    advantages = Step("rl: advantages", prepare, args, static, mesh, b * t, reads, more)

    trunk = None
    if frozen:
        trunk = plan.rows(mesh, b, t, source.config.d_model, dtype=run.dtype)
    experience = Experience(whole, whole, trunk, *[real] * 5)
    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=everywhere)
    state = abstract_state(trainable.params, optimizer)
    args = (state, trainable.frozen, experience, key)
    static = {"graph": trainable.graph, "optimizer": optimizer, "settings": ppo}
    tokens = b * t * settings.epochs
    # What is frozen was run before, by ``prepare``.
    trains = plan.training(source, tokens, settings.lora, settings.trained_layers)
    trains -= plan.reading(source, tokens) * frozen / source.config.num_layers
    updates = Step("rl: updates", update, args, static, mesh, tokens, trains, more)

    mend = "raise config.mesh.decode_tensor or the number of chips"
    weights = Step("rl: weights to the sampler", moved, (decoder,), {}, None, 0, 0.0, mend)
    prompt, new = settings.prompt_tokens, settings.response_tokens
    sampling = Sampling(settings.temperature)
    responses = plan.generate("rl: responses", source, sampler, b, prompt, new, sampling)
    scores = plan.score("rl: scores", judge, row_scores, judge_model, mesh, t)
    judges, policy = (judge_model.params,), (state, trainable.frozen)
    advantages = replace(advantages, twice=() if apart else (reference,))
    return [
        plan.beside(weights, state.opt_state, waits=(*judges, *apart)),
        plan.beside(responses, *policy, waits=(*judges, *apart)),
        plan.beside(scores, *policy, waits=apart),
        plan.beside(advantages, state.opt_state, waits=judges),
        plan.beside(updates, waits=(*judges, *apart)),
    ]


def _training_prompts(run: Run) -> list[tuple[Prompt, list[int], bool]]:
    """Prompts that fit, as (prompt, ids, is it a helpfulness prompt)."""
    limit, out = run.config.rl.prompt_tokens, []
    for items, helpful in ((run.red_team_prompts, False), (run.helpful_prompts, True)):
        for prompt in run.training(items, None):
            ids = run.chat.prompt_ids(conversation(prompt.text))
            if len(ids) <= limit:
                out.append((prompt, ids, helpful))
    asked = sum(len(run.training(p, None)) for p in (run.red_team_prompts, run.helpful_prompts))
    left_out = asked - len(out)
    if left_out:
        log.info("rl: %d prompts are longer than config.rl.prompt_tokens", left_out)
    if not out:
        raise ValueError(f"rl: no prompt has at most config.rl.prompt_tokens = {limit} tokens")
    return out


def _draw(run: Run, prompts: list, iteration: int) -> list[tuple[Prompt, list[int]]]:
    """A batch of prompts, each kind in its share, without replacement where there are enough."""
    rng = named_rng(run.config.seed, "rl", "prompts", iteration)
    size = run.config.rl.batch_size
    helpful = round(size * run.config.rl.helpful_fraction)
    batch = []
    for wanted, count in ((False, size - helpful), (True, helpful)):
        kind = [(p, ids) for p, ids, is_helpful in prompts if is_helpful == wanted]
        if count and not kind:
            raise ValueError(
                f"rl: no {'helpfulness' if wanted else 'red-team'} prompts fit; set "
                f"config.rl.helpful_fraction to {0 if wanted else 1} or raise "
                "config.rl.prompt_tokens"
            )
        chosen = rng.choice(len(kind), size=count, replace=count > len(kind)) if count else []
        batch += [kind[int(i)] for i in chosen]
    return batch


def _respond(run: Run, generator: Generator, batch: list, iteration: int) -> list[Completion]:
    keys = [
        named_key(run.config.seed, "rl", "sample", iteration, row, prompt.id)
        for row, (prompt, _) in enumerate(batch)
    ]
    # The full distribution, so that the sampled probabilities are the trained ones.
    return generator.generate(
        [ids for _, ids in batch],
        keys,
        run.config.rl.response_tokens,
        Sampling(run.config.rl.temperature),
        "rl: responses",
    )


def _scores(run: Run, scores: np.ndarray, completions: list[Completion]) -> np.ndarray:
    unfinished = np.array([not c.finished for c in completions], np.float32)
    return scores - unfinished * run.config.rl.missing_stop_penalty


def _weighted_means(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    """Over the minibatches, weighted by their tokens; the largest gradient norm."""
    weight = metrics["weight"]
    means = {
        key: float(np.sum(value * weight) / np.sum(weight))
        for key, value in metrics.items()
        if key not in ("weight", "grad_norm")
    }
    return means | {"grad_norm": float(np.max(metrics["grad_norm"]))}


def _check(run: Run, scalars: dict[str, float], iteration: int) -> None:
    check_finite(scalars, "rl", iteration)
    settings = run.config.rl
    off = max(scalars["first_ratio_error"], scalars["first_approx_kl"])
    if off > settings.max_first_ratio_error:
        raise FloatingPointError(
            f"rl: at iteration {iteration} the first minibatch's ratios are off 1 by "
            f"{scalars['first_ratio_error']:.2e} and its approximate KL is "
            f"{scalars['first_approx_kl']:.2e}, above config.rl.max_first_ratio_error = "
            f"{settings.max_first_ratio_error}: old and new log-probabilities are not computed "
            "alike"
        )
    if scalars["sampler_gap_mean"] > settings.max_sampler_gap:
        log.warning(
            "rl: sampler and trainer log-probabilities differ by %.3f nats a token at iteration "
            "%d, above config.rl.max_sampler_gap",
            scalars["sampler_gap_mean"],
            iteration,
        )


STAGE = Stage(
    name="rl",
    inputs=("sl_train", "pm_train"),
    settings=lambda run: [
        run.config.rl,
        run.config.generation,
        run.file_hashes("red_team_prompts", "helpful_prompts"),
    ],
    run=run,
)
