"""Algorithms that sample from the policy that they train, against a preference model."""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from flax import nnx

from cai_jax.data.readers import Prompt
from cai_jax.learning.history import History, Scalars
from cai_jax.learning.skipping import count, done
from cai_jax.learning.train import (
    Trainable,
    abstract_state,
    abstract_trainable,
    init_state,
)
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.layers import LoRAParam
from cai_jax.parallel.mesh import offload_to_host
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.rl.algorithm import OFFLOAD, SAMPLING, SCORING, TRAINING, Task, Trained, from_values
from cai_jax.rl.kl import AdaptiveKL
from cai_jax.rl.loop import FIRST_RATIO_ERROR, ROUNDING, Limits, Online, RLState, train
from cai_jax.rl.prompts import Drawn, PromptPool, short, tokenised
from cai_jax.rl.updates import PolicyGradient
from cai_jax.rl.watch import Alarms, Watch

log = logging.getLogger("cai_jax")

VALUE_METRICS = ("explained_variance",)  # where there is a value function


@dataclass(frozen=True, kw_only=True)
class OnlineAlgorithm:
    """A policy gradient and the constants of its loop.

    Attributes:
      gradient: what gives credit and what is minimised.
      iterations: each samples a batch and learns from it.
      batch_size: responses an iteration.
      prompt_tokens: longer prompts are left out.
      response_tokens: of the longest response.
      helpful_fraction: share of helpfulness prompts.
      kl_coef: reward per nat of log-ratio, at every token.
      kl_target: nats a response; 0: the coefficient stays.
      kl_horizon: samples in which the coefficient can change by about a fifth.
      missing_stop_penalty: off the score of a response that never ended.
      unusable_penalty: a response that does not parse earns this much less than others.
      max_kl: nats a response; see ``Alarms``.
      max_sampler_gap: nats a token; see ``Alarms``.
      max_degenerate: share of responses; see ``Alarms``.
      max_first_ratio_error: see ``Limits``; 0: as the type has it.
    """

    gradient: PolicyGradient
    iterations: int
    batch_size: int
    prompt_tokens: int
    response_tokens: int
    helpful_fraction: float
    kl_coef: float
    kl_target: float
    kl_horizon: int
    missing_stop_penalty: float
    unusable_penalty: float
    max_kl: float
    max_sampler_gap: float
    max_degenerate: float
    max_first_ratio_error: float
    block = "rl"
    shown = ("score", "kl_k3")

    @property
    def steps(self) -> int:
        """Rows of its history."""
        return self.iterations

    def programs(self, task: Task) -> list[Program]:
        """An iteration, in order: weights, responses, scores, advantages, updates; and set-up."""
        blueprint, reference = self._blueprint(task), task.load(None)
        trainable = abstract_trainable(blueprint, task.mesh)
        online = self._online(task, trainable, reference)
        reward, loading = task.open_reward()
        longest = self.prompt_tokens + self.response_tokens
        scores = reward.programs("scores", longest)

        opt_state = abstract_state(trainable.params, task.optimizer).opt_state
        policy = (trainable.params, opt_state, trainable.frozen)
        watch, watching = self._watch(task)
        judge = (*reward.abstract_params, *(watch.second.abstract_params if watch else ()))
        # Under LoRA the reference shares the policy's frozen base; a low-rank update is its own.
        update, base = nnx.split_state(reference.params, LoRAParam, ...)
        apart = (update,) if task.lora else (reference.params,)
        aliased = (base,) if task.lora else ()
        responses = [replace(p, aliased=(online.shared,)) for p in online.responses()]
        advantages = [replace(online.preparing(w), aliased=aliased) for w in online.widths]
        updates = [online.updating(width) for width in online.widths]
        iteration = [
            _hold(task, online.sampler_weights, SAMPLING, (opt_state,), (*judge, *apart)),
            *(_hold(task, p, SAMPLING, policy, (*judge, *apart)) for p in responses),
            *(_hold(task, p, SCORING, policy, (*judge[1:], *apart)) for p in scores),
            *(_hold(task, p, TRAINING, (opt_state,), judge) for p in advantages),
            *(_hold(task, p, TRAINING, (), (*judge, *apart)) for p in updates),
        ]
        return [*iteration, *loading, *watching, *task.start_programs(blueprint, reference)]

    def train(self, task: Task, history: History) -> Trained:
        """Runs the iterations.

        Raises:
          DivergedError: the updates of all were left out; the others are those of the loop.
        """
        reference, skipping = task.load(None), task.open_skipping()
        blueprint = self._blueprint(task)
        trainable = task.start(blueprint, reference)
        # Under LoRA the reference shares the policy's frozen base: there is nothing to offload.
        reference_params = offload_to_host(reference.params, task.offload and not task.lora)
        # Of the reference the loop needs shapes alone; what is offloaded must not be kept here.
        reference = replace(task.reference.abstract(task.mesh), origin=reference.origin)
        online, (reward, _) = self._online(task, trainable, reference), task.open_reward()
        watch, _ = self._watch(task)
        state = RLState(0, init_state(trainable.params, task.optimizer), self.kl_coef)
        limits = Limits(
            first_ratio_error=self.max_first_ratio_error or FIRST_RATIO_ERROR[blueprint.dtype],
            rounding=ROUNDING[blueprint.dtype],
            alarms=Alarms(self.max_kl, self.max_sampler_gap, self.max_degenerate),
            missing_stop_penalty=self.missing_stop_penalty,
            unusable_penalty=self.unusable_penalty,
        )
        with closing(task.open_saver()) as saver:
            state, tokens = train(
                online,
                state,
                self.iterations,
                reference_params,
                reward,
                self._prompts(task),
                AdaptiveKL(self.kl_target, self.kl_horizon),
                limits,
                history,
                watch,
                saver,
                skipping,
            )
        skipping.check_learned(history.name, history.rows)
        return Trained(online.of_decoder(state.train.params), tokens, watch)

    def summary(self, rows: list[Scalars]) -> dict[str, Any]:
        """Where the score and the KL ended, and whether sampler and trainer agreed."""
        iterations, skipped, alarms = len(rows), count(rows), sum(row["alarms"] for row in rows)
        rows = done(rows)
        return {
            "iterations": iterations,
            "skipped_steps": skipped,
            "alarms": int(alarms),
            "first_score": rows[0]["score"],
            "last_score": rows[-1]["score"],
            "last_kl_k1": rows[-1]["kl_k1"],
            "last_kl_k3": rows[-1]["kl_k3"],
            "max_first_ratio_error": max(row["first_ratio_error"] for row in rows),
            "max_first_approx_kl": max(row["first_approx_kl"] for row in rows),
            "max_sampler_gap_mean": max(row["sampler_gap_mean"] for row in rows),
            **{f"last_{name}": rows[-1][name] for name in VALUE_METRICS if name in rows[-1]},
        }

    def _blueprint(self, task: Task) -> Blueprint:
        """Of what is trained."""
        return replace(task.reference, module=self.gradient.module, lora=task.lora)

    def _online(self, task: Task, trainable: Trainable, reference: Model) -> Online:
        return Online(
            algorithm=self.gradient,
            blueprint=self._blueprint(task),
            trainable=trainable,
            reference=reference,
            optimizer=task.optimizer,
            mesh=task.mesh,
            decode_mesh=task.decode_mesh,
            stop_ids=task.stop_ids,
            batch_size=self.batch_size,
            prompt_tokens=self.prompt_tokens,
            max_new_tokens=self.response_tokens,
            bucket_tokens=task.bucket_tokens,
            seed=task.seed,
        )

    def _watch(self, task: Task) -> tuple[Watch | None, list[Program]]:
        return (
            task.open_watch(self.prompt_tokens, self.batch_size) if task.open_watch else (None, [])
        )

    def _prompts(self, task: Task) -> Callable[[int], list[Drawn]]:
        """Draws the prompts of an iteration, of those of training that are short enough.

        They become ids as they are drawn: of a million, few ever are.

        Raises:
          ValueError: a kind that has a share has none.
        """
        chat = task.open_chat()
        red_team, helpful = (self._short(prompts, chat) for prompts in task.prompts())
        samples = self.gradient.samples_per_prompt
        pool = PromptPool(
            red_team=red_team,
            helpful=helpful,
            count=self.batch_size // samples,
            helpful_fraction=self.helpful_fraction,
            samples=samples,
            seed=task.seed,
        )
        pool.draw(0)
        return lambda iteration: tokenised(pool.draw(iteration), chat)

    def _short(self, prompts: list[Prompt], chat: ChatFormat) -> list[Prompt]:
        found = short(prompts, chat, self.prompt_tokens)
        if len(found) < len(prompts):
            log.info("rl: %d prompts are longer than prompt_tokens", len(prompts) - len(found))
        return found


def _hold(task: Task, program: Program, remedy: str, stay: Any, waits: Any) -> Program:
    """The program, with what is on the devices meanwhile; ``waits`` can be offloaded."""
    if task.offload:
        return replace(program, remedy=remedy, resident=stay)
    offload = OFFLOAD if waits else ""
    return replace(program, remedy=remedy, resident=(*stay, *waits), offload=offload)


def online(gradient: type[PolicyGradient]) -> Callable[[Mapping[str, Any]], OnlineAlgorithm]:
    """Makes an algorithm of a policy gradient, from the values of a config's block."""

    def make(values: Mapping[str, Any]) -> OnlineAlgorithm:
        return from_values(OnlineAlgorithm, {**values, "gradient": from_values(gradient, values)})

    return make
