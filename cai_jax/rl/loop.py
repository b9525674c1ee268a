"""The loop of online algorithms: sample, score, prepare, update, record."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.journal import keeping
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.learning.history import History, Scalars
from cai_jax.learning.saving import Saver
from cai_jax.learning.skipping import SKIPPED, DivergedError, Skipping
from cai_jax.learning.train import Trainable, TrainState, abstract_state, training_flops
from cai_jax.models.blueprint import DECODER, UNKNOWN, Blueprint, Model, Origin, inside
from cai_jax.models.decoder import Decoder
from cai_jax.models.params import on_mesh, resharder
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import (
    abstract_batch,
    abstract_replicated,
    put_batch,
    replicate,
)
from cai_jax.parallel.program import Program, abstract
from cai_jax.rl import updates
from cai_jax.rl.kl import AdaptiveKL
from cai_jax.rl.prompts import Drawn
from cai_jax.rl.reward import Objective, Usable, below_usable, usable
from cai_jax.rl.rollout import Rollout, Width, assemble, halvings, holding
from cai_jax.rl.updates import PolicyGradient
from cai_jax.rl.watch import Alarms, Look, Watch, degenerate

log = logging.getLogger("cai_jax")

# How far two programs for one log-probability differ by rounding, mean over tokens, by the type
# that activations are in. In float32 sums differ in their order alone. Where XLA fuses otherwise,
# another activation is rounded to bfloat16, by up to 2**-9: some layers add up to hundredths.
ROUNDING = {jnp.dtype(jnp.float32): 1e-5, jnp.dtype(jnp.bfloat16): 0.02}
# More than an accelerator's fast matmuls add to that, less than a wrong mask or temperature.
FIRST_RATIO_ERROR = {jnp.dtype(jnp.float32): 0.01, jnp.dtype(jnp.bfloat16): 0.1}


@dataclass(frozen=True)
class Limits:
    """What a loop refuses and reports.

    Attributes:
      first_ratio_error: of the first minibatch, before any update: mean |ratio - 1|, and
        approximate KL, nats a token; above it the loop stops.
      rounding: of the same; above it the loop warns.
      alarms: bounds of what else it warns of.
      missing_stop_penalty: off the score of a response that never ended.
      unusable_penalty: see ``below_usable``.
    """

    first_ratio_error: float
    rounding: float
    alarms: Alarms
    missing_stop_penalty: float
    unusable_penalty: float


class RLState(NamedTuple):
    """Everything that an iteration changes."""

    iteration: int
    train: TrainState
    kl_coef: float  # reward a nat of log-ratio


@dataclass(frozen=True)
class Online:
    """An online algorithm on its devices; models are abstract where only programs are asked for.

    Attributes:
      algorithm: what gives credit and what is minimised.
      blueprint: of the module that is trained.
      trainable: that module, taken apart.
      reference: a decoder that freezes the same layers.
      optimizer: of the trained parameters.
      mesh: of training.
      decode_mesh: of sampling.
      stop_ids: tokens that end a response.
      batch_size: responses an iteration.
      prompt_tokens: of the longest prompt.
      max_new_tokens: of a response.
      bucket_tokens: a rollout is as wide as its longest prompt and response need, down to this.
      seed: of samples and shuffles.
    """

    algorithm: PolicyGradient
    blueprint: Blueprint
    trainable: Trainable
    reference: Model
    optimizer: optax.GradientTransformation
    mesh: Mesh
    decode_mesh: Mesh
    stop_ids: tuple[int, ...]
    batch_size: int
    prompt_tokens: int
    max_new_tokens: int
    bucket_tokens: int
    seed: int

    def responses(self) -> list[Program]:
        """The programs that sample."""
        weights = self.sampler_weights
        moved = on_mesh(jax.eval_shape(weights.function, *weights.args), self.decode_mesh)
        return self.generator(nnx.merge_state(moved, self.shared)).programs(
            "responses", self.max_new_tokens, self.sampling
        )

    @cached_property
    def widths(self) -> list[Width]:
        """Every width that a rollout may have, the widest first."""
        prompts = halvings(self.prompt_tokens, self.bucket_tokens)
        responses = halvings(self.max_new_tokens, self.bucket_tokens)
        return [Width(prompt, response) for prompt in prompts for response in responses]

    def width(self, batch: Sequence[Drawn], completions: Sequence[Completion]) -> Width:
        """The least width that prompts and completions fit in."""
        longest = max(len(d.ids) for d in batch), max(len(c.ids) for c in completions)
        return Width(*map(holding, longest, zip(*self.widths, strict=True)))

    @property
    def sampling(self) -> Sampling:
        """The full distribution, so that the sampled probabilities are the trained ones."""
        return Sampling(self.algorithm.temperature)

    def of_decoder(self, params: nnx.State) -> nnx.State:
        """Those of some of the policy's parameters that are its decoder's."""
        return params if self.blueprint.module is Decoder else inside(DECODER, params)

    @cached_property
    def shared(self) -> nnx.State:
        """Frozen parameters that sampling reads where training has them.

        They are in the type of matmuls from the start. Where sampling has a layout of its own they
        are moved there each time with the rest, lest the devices hold them twice meanwhile.
        """
        same = self.decode_mesh == self.mesh
        return self.of_decoder(self.trainable.frozen) if same else nnx.State({})

    def sampler_params(self, params: nnx.State) -> nnx.State:
        """The parameters of the decoder that samples, from the trained ones."""
        return nnx.merge_state(self.sampler_weights(self._moved(params)), self.shared)

    @cached_property
    def sampler_weights(self) -> Program:
        """Moves the policy's weights, but for ``shared``, to the layout of sampling."""
        moved = self._moved(self.trainable.params)
        return resharder(moved, self.decode_mesh, self.blueprint.dtype)

    def _moved(self, params: nnx.State) -> nnx.State:
        if nnx.to_flat_state(self.shared):
            return self.of_decoder(params)
        return self.of_decoder(nnx.merge_state(params, self.trainable.frozen))

    @cached_property
    def sampler_graph(self) -> nnx.GraphDef:
        """Of the decoder that samples."""
        return replace(self.blueprint, module=Decoder, frozen_layers=0).graph

    def generator(self, params: nnx.State, origin: Origin = UNKNOWN) -> Generator:
        """Samples from the policy."""
        return Generator(
            Model(self.sampler_graph, params, origin),
            self.decode_mesh,
            self.stop_ids,
            self.batch_size,
            bucket_tokens=halvings(self.prompt_tokens, self.bucket_tokens)[-1],
            max_tokens=self.prompt_tokens + self.max_new_tokens,
        )

    @cached_property
    def prepare(self) -> Program:
        """From a rollout, of any of the widths, to experience."""
        return self.preparing(self.widths[0])

    @cached_property
    def update(self) -> Program:
        """All epochs over one rollout, likewise."""
        return self.updating(self.widths[0])

    def preparing(self, width: Width) -> Program:
        """``prepare`` for one width."""
        b, t = self.batch_size, sum(width)
        tokens = abstract_batch((b, t), jnp.int32, self.mesh)
        numbers = abstract_batch((b, width.response), jnp.float32, self.mesh)
        scores = abstract_batch((b,), jnp.float32, self.mesh)
        rollout = Rollout(tokens, tokens, numbers, numbers, numbers, scores)
        args = (
            abstract(self.trainable.params),
            abstract(self.trainable.frozen),
            abstract(self.reference.params),
            rollout,
            abstract_replicated((), jnp.float32, self.mesh),
        )
        static = {
            "policy_graph": self.trainable.graph,
            "reference_graph": self.reference.graph,
            "algorithm": self.algorithm,
        }
        # Policy and reference share what is frozen.
        share = 2 - self.blueprint.frozen_layers / self.blueprint.config.num_layers
        flops = 2.0 * self.reference.size * b * t * share
        return Program("advantages", updates.prepare, args, static, self.mesh, b * t, flops)

    def updating(self, width: Width) -> Program:
        """``update`` for one width."""
        prepare = self.preparing(width)
        with prepare.layout():
            experience, _ = jax.eval_shape(
                partial(prepare.function, **prepare.static), *prepare.args
            )
        args = (
            abstract_state(self.trainable.params, self.optimizer),
            abstract(self.trainable.frozen),
            jax.tree.map(lambda x: abstract_batch(x.shape, x.dtype, self.mesh), experience),
            abstract_replicated((2,), jnp.uint32, self.mesh),
        )
        static = {
            "graph": self.trainable.graph,
            "optimizer": self.optimizer,
            "algorithm": self.algorithm,
        }
        tokens = prepare.tokens * self.algorithm.epochs
        flops = training_flops(self.blueprint, self.reference.size, tokens)
        # What is frozen was run before, by ``prepare``.
        frozen = self.blueprint.frozen_layers / self.blueprint.config.num_layers
        flops -= 2.0 * self.reference.size * tokens * frozen
        return Program("updates", updates.update, args, static, self.mesh, tokens, flops)


@keeping(None)  # an iteration is repeated as a whole
def train(
    online: Online,
    state: RLState,
    iterations: int,
    reference: Callable[[], nnx.State],
    reward: Objective,
    draw: Callable[[int], Sequence[Drawn]],
    controller: AdaptiveKL,
    limits: Limits,
    history: History,
    watch: Watch | None = None,
    saver: Saver | None = None,
    skipping: Skipping | None = None,
) -> tuple[RLState, int]:
    """Runs the iterations that are left, or as many as the watch allows.

    It goes on from the saver's last state: what is sampled in an iteration depends on its number.

    The metrics of an iteration are fetched after the next one's responses are sampled, so that
    devices never wait for the host.

    Args:
      online: the algorithm on its devices.
      state: before the first of these iterations; its buffers are reused.
      iterations: in all, those before ``state`` included.
      reference: gives the reference's parameters.
      reward: of responses.
      draw: prompts of an iteration, as many as its batch has.
      controller: of the KL coefficient.
      limits: what is refused and reported.
      history: gets the metrics of every iteration.
      watch: looks at the policy now and then; None: nobody does.
      saver: of states, each with the history and the looks until then; None: nobody does.
      skipping: what is done about updates that are not finite; None: what its defaults say.

    Returns:
      The state, and the number of tokens read and sampled, padding not counted.

    Raises:
      FloatingPointError: the first ratio of an iteration is not 1.
      NotFiniteError: a model gives what is NaN or infinite.
      DivergedError: too many updates were not finite, or the last one broke the policy.
      PreemptedError: the run is told to end; the state is saved.
    """
    tokens, saver, skipping = 0, saver or Saver(), skipping or Skipping()
    pending: Pending | None = None
    if saved := saver.restore(abstract(state.train)):
        notes = saved.notes
        state, tokens = RLState(saved.step, saved.state, notes["kl_coef"]), notes["tokens"]
        history.go_on(notes["history"])
        if watch:
            watch.looks.extend(Look(**look) for look in notes["looks"])
            for seen in watch.looks:
                history.show(seen.iteration, watch.shown(reward.chat, seen))
        skipping.check(history.name, history.rows)
    if watch and not watch.looks:
        tokens += look(online, state, reward, watch, history)
    batch = draw(state.iteration) if state.iteration < iterations else []
    while state.iteration < iterations and not (watch and watch.stops):
        completions = sample(online, state, batch)
        if pending is not None:
            state = record(state, pending, online, controller, limits, history, skipping)
        replies, scores = score(reward, batch, completions, limits)
        judged = judged_tokens(replies, completions)
        rollout = roll_out(online, batch, completions, judged, scores)
        state, measured = learn(online, state, reference, rollout)
        told = {
            "kl_coef": state.kl_coef,
            "unusable": float(np.mean([reply is None for reply in replies])),
            "finished": float(np.mean([c.finished for c in completions])),
            **degenerate(completions),
        }
        pending = Pending(*measured, told, batch, completions, scores)
        tokens += sum(len(d.ids) for d in batch) + sum(len(c.ids) for c in completions)
        if state.iteration < iterations:  # while the devices are busy with the update
            batch = draw(state.iteration)
        if watch and watch.due(state.iteration, iterations):
            tokens += look(online, state, reward, watch, history)
        stops = skipping.too_many(history.rows)
        last = state.iteration == iterations or bool(watch and watch.stops)
        if last and not watch:  # which has just run the last policy
            verify(online, state, reference, rollout, skipping)
        if saver.due(state.iteration, last or stops):
            state = record(state, pending, online, controller, limits, history, skipping)
            pending = None
            notes = {
                "kl_coef": state.kl_coef,
                "tokens": tokens,
                "history": list(history.rows),
                "looks": [asdict(look) for look in watch.looks] if watch else [],
            }
            saver.save(state.iteration, state.train, notes)
        if stops:
            skipping.check(history.name, history.rows)
    if pending is not None:
        state = record(state, pending, online, controller, limits, history, skipping)
    skipping.check(history.name, history.rows)
    return state, tokens


def sample(online: Online, state: RLState, batch: Sequence[Drawn]) -> list[Completion]:
    """Responses of the present policy."""
    keys = [
        named_key(online.seed, "rl", "sample", state.iteration, row, drawn.id)
        for row, drawn in enumerate(batch)
    ]
    return _respond(online, state, batch, keys, "rl: responses")


def _respond(
    online: Online, state: RLState, batch: Sequence[Drawn], keys: Sequence[Any], name: str
) -> list[Completion]:
    made = Origin(f"the policy after {state.iteration} iterations", "rl")
    origin = made if state.iteration else online.reference.origin  # the same parameters
    generator = online.generator(online.sampler_params(state.train.params), origin)
    ids = [drawn.ids for drawn in batch]
    return generator.generate(ids, keys, online.max_new_tokens, online.sampling, name)


def look(online: Online, state: RLState, reward: Objective, watch: Watch, history: History) -> int:
    """Has the present policy answer the watch's prompts, and keeps it; tokens that it sampled.

    Keys are the same at every look, so that looks differ by the policy alone.
    """
    keys = [named_key(online.seed, "rl", "watch", drawn.id) for drawn in watch.prompts]
    completions = _respond(online, state, watch.prompts, keys, "rl: watch")
    watch.look(state.iteration, reward, completions)
    history.show(state.iteration, watch.shown(reward.chat, watch.looks[-1]))
    if state.iteration:  # the policy before is SL-CAI
        watch.keep(state.iteration, online.of_decoder(state.train.params))
    return sum(len(completion.ids) for completion in completions)


def score(
    reward: Objective, batch: Sequence[Drawn], completions: Sequence[Completion], limits: Limits
) -> tuple[list[Usable | None], np.ndarray]:
    """What is judged of the responses, and float32 scores, less what those pay that never ended."""
    replies = [usable(reward.chat, completion) for completion in completions]
    scores = reward([drawn.ids for drawn in batch], replies)
    unfinished = np.array([not completion.finished for completion in completions], np.float32)
    scores -= unfinished * limits.missing_stop_penalty
    return replies, below_usable(scores, replies, [d.id for d in batch], limits.unusable_penalty)


def judged_tokens(replies: Sequence[Usable | None], completions: Sequence[Completion]) -> list[int]:
    """How many tokens of each response its score is of: all, where it does not parse."""
    pairs = zip(replies, completions, strict=True)
    return [reply.judged if reply else len(completion.ids) for reply, completion in pairs]


def roll_out(
    online: Online,
    batch: Sequence[Drawn],
    completions: Sequence[Completion],
    judged: Sequence[int],
    scores: np.ndarray,
) -> Rollout[jax.Array]:
    """Prompts, responses and scores on the devices."""
    ids, width = [drawn.ids for drawn in batch], online.width(batch, completions)
    arrays = assemble(ids, completions, judged, scores, width)
    return put_batch(arrays, online.mesh)


def learn(
    online: Online,
    state: RLState,
    reference: Callable[[], nnx.State],
    rollout: Rollout[jax.Array],
) -> tuple[RLState, tuple[Any, Any]]:
    """Prepares a rollout and updates on it; its statistics and metrics stay on the devices."""
    kl_coef = replicate(np.asarray(state.kl_coef, np.float32), online.mesh)
    shuffle = replicate(named_key(online.seed, "rl", "shuffle", state.iteration), online.mesh)
    frozen, prepare, update = online.trainable.frozen, online.prepare, online.update
    with jax.transfer_guard("disallow"):
        # The reference is given up before the update: an offloaded one is off the devices again.
        params = state.train.params
        experience, stats = prepare(params, frozen, reference(), rollout, kl_coef)
        trained, metrics = update(state.train, frozen, experience, shuffle)
    return state._replace(iteration=state.iteration + 1, train=trained), (stats, metrics)


def verify(
    online: Online,
    state: RLState,
    reference: Callable[[], nnx.State],
    rollout: Rollout[jax.Array],
    skipping: Skipping,
) -> None:
    """Refuses a last policy under which the last rollout has no probabilities.

    Raises:
      DivergedError: its log-probabilities are NaN or infinite.
    """
    zero = replicate(np.asarray(0.0, np.float32), online.mesh)
    frozen, params = online.trainable.frozen, state.train.params
    _, stats = online.prepare(params, frozen, reference(), rollout, zero)
    # What depends on the policy alone: not on scores, nor on the reference.
    ours = fetch([stats["entropy"], stats["sampler_gap_mean"]])
    if not np.isfinite(ours).all():
        raise DivergedError(
            "rl: log-probabilities under the last policy are NaN or infinite: updates broke it, "
            f"and it is not kept; {skipping.lower_rate}"
        )


@dataclass(frozen=True)
class Pending:
    """An iteration whose metrics are not fetched yet."""

    stats: Any  # of the rollout
    metrics: Any  # of its updates
    told: Scalars
    batch: Sequence[Drawn]
    completions: Sequence[Completion]
    scores: np.ndarray


def record(
    state: RLState,
    pending: Pending,
    online: Online,
    controller: AdaptiveKL,
    limits: Limits,
    history: History,
    skipping: Skipping,
) -> RLState:
    """Keeps the metrics of an iteration, checks them, and moves the KL coefficient."""
    stats, metrics = fetch((pending.stats, pending.metrics))
    scalars = {key: float(value) for key, value in stats.items()}
    scalars |= weighted_means(metrics)
    scalars["first_ratio_error"] = float(metrics["ratio_error"][0])
    scalars["first_approx_kl"] = float(metrics["approx_kl"][0])
    scalars[SKIPPED] = float(np.sum(metrics[SKIPPED]))
    alarms = limits.alarms.of(scalars | pending.told)
    for alarm in alarms:
        log.warning("rl: at iteration %d %s", len(history.rows), alarm)
    if scalars[SKIPPED]:
        skipping.keep("rl", len(history.rows), _described(pending, stats, metrics, skipping))
    row = history.record(scalars | pending.told | {"alarms": float(len(alarms))})
    check(row, state.iteration - 1, limits)
    if "kl_k1" not in row:
        return state
    return state._replace(kl_coef=controller.update(state.kl_coef, row["kl_k1"], online.batch_size))


def _described(pending: Pending, stats: Any, metrics: Any, skipping: Skipping) -> dict[str, Any]:
    """An iteration of which updates were left out, as JSON."""
    measured = {name: str(value) for name, value in (stats | metrics).items()}
    rows = [
        {
            "id": drawn.id,
            "prompt": list(drawn.ids),
            "prompt_text": skipping.text(drawn.ids),
            "response": completion.ids,
            "response_text": skipping.text(completion.ids),
            "logprobs": completion.logprobs.tolist(),
            "score": float(score),
        }
        for drawn, completion, score in zip(
            pending.batch, pending.completions, pending.scores, strict=True
        )
    ]
    return {"measured": measured, "rows": rows}


def weighted_means(metrics: Mapping[str, np.ndarray]) -> Scalars:
    """Over the minibatches, weighted by their tokens; the largest gradient norm.

    Those that were left out are not counted, and where all were there is nothing.
    """
    done = metrics[SKIPPED] == 0
    if not done.any():
        return {}
    metrics = {key: value[done] for key, value in metrics.items() if key != SKIPPED}
    weight = metrics["weight"]
    means = {
        key: float(np.sum(value * weight) / np.sum(weight))
        for key, value in metrics.items()
        if key not in ("weight", "grad_norm")
    }
    return means | {"grad_norm": float(np.max(metrics["grad_norm"]))}


def check(scalars: Scalars, iteration: int, limits: Limits) -> None:
    """Stops where old and new log-probabilities are of different functions.

    Warns where they differ by more than rounding explains. A first minibatch that was left out
    tells nothing.

    Raises:
      FloatingPointError: the first minibatch's ratio is nowhere near 1.
    """
    if not {"first_ratio_error", "first_approx_kl"} <= scalars.keys():
        return
    off = max(scalars["first_ratio_error"], scalars["first_approx_kl"])
    found = (
        f"rl: at iteration {iteration} the first minibatch's ratios are off 1 by "
        f"{scalars['first_ratio_error']:.2e} and its approximate KL is "
        f"{scalars['first_approx_kl']:.2e}, above"
    )
    if off > limits.first_ratio_error:
        raise FloatingPointError(
            f"{found} max_first_ratio_error = {limits.first_ratio_error}: old and new "
            "log-probabilities are not of the same function"
        )
    if off > limits.rounding:
        log.warning(
            "%s the %.0e of rounding: two programs compute one log-probability differently, and "
            "ratios are that noisy",
            found,
            limits.rounding,
        )
