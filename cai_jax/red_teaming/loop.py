"""The loop: write, drop what is not new, attack, keep what succeeds and learn from it, again."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cai_jax.data.readers import Attack
from cai_jax.evaluation.measure import Measurement
from cai_jax.evaluation.tasks.red_team import RED_TEAM, attempt
from cai_jax.evaluation.tasks.task import Asked, Judge, Result, TaskSettings
from cai_jax.generation.engine import Generator
from cai_jax.keys import named_key
from cai_jax.parallel import hosts
from cai_jax.prompts.messages import assistant
from cai_jax.red_teaming.attacker import Attacker, Pool
from cai_jax.red_teaming.filters import Filter
from cai_jax.red_teaming.forms import problem_of
from cai_jax.red_teaming.strategies.registry import STRATEGIES
from cai_jax.red_teaming.strategies.strategy import Strategy
from cai_jax.rl.reward import usable

log = logging.getLogger("cai_jax")
LISTS = 4  # for each attack that a round keeps, at most: where nothing is new there is an end


@dataclass(frozen=True)
class Target:
    """What is attacked, and who says whether an attack succeeded.

    Attributes:
      generator: samples its replies.
      settings: how it is asked, and the threshold below which the judge finds a reply harmful.
      judge: of replies.
    """

    generator: Generator
    settings: TaskSettings
    judge: Judge


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the loop ends.

    Attributes:
      rounds: at most.
      attacks: that are kept a round, at most.
      min_success: share of tried attacks below which the attacker has stalled.
      min_novelty: share of written prompts below which it has, if fewer are kept.
      max_tokens: that attacker and target read and write, about; 0: any number.
      minutes: that it takes, about; 0: any number.
    """

    rounds: int
    attacks: int
    min_success: float = 0.0
    min_novelty: float = 0.0
    max_tokens: int = 0
    minutes: float = 0.0


@dataclass(frozen=True)
class Round:
    """What came of a round.

    Attributes:
      number: from 1.
      counts: of written prompts: generated, kept, and the reasons of those that were dropped.
      measurements: of the tried ones, all and by strategy; empty where there is no target.
    """

    number: int
    counts: dict[str, int]
    measurements: list[Measurement] = field(default_factory=list)

    @property
    def novelty(self) -> float:
        """Share of written prompts that were kept."""
        return self.counts.get("kept", 0) / max(self.counts.get("generated", 0), 1)

    @property
    def success(self) -> float | None:
        """Share of tried attacks that succeeded; None: none was tried."""
        return next((m.mean for m in self.measurements if m.measure == "success"), None)


@dataclass(frozen=True)
class Campaign:
    """What a loop left.

    Attributes:
      attacks: that succeeded, in the order in which they were written; all that were kept, where
        there is no target.
      results: of these attacks, one each; empty where there is no target.
      rounds: what came of each.
      ended: why there is no further round.
      tokens: that attacker and target read and wrote.
    """

    attacks: list[Attack]
    results: list[Result]
    rounds: list[Round]
    ended: str
    tokens: int

    @property
    def extras(self) -> list[dict[str, Any]]:
        """What rows of its attacks say besides where they come from: the reply, and its score."""
        return [{n: r.values[n] for n in ("reply", "score")} for r in self.results]


class Loop:
    """One attacker against one target; without a target it only writes.

    Args:
      attacker: writes.
      strategies: by which it attacks, in turn.
      pool: of what it is shown.
      filter_: keeps what is well-formed and new.
      target: that it attacks; None: prompts are kept as they are.
      limits: when it ends.
    """

    def __init__(
        self,
        attacker: Attacker,
        strategies: Sequence[Strategy],
        pool: Pool,
        filter_: Filter,
        target: Target | None,
        limits: Limits,
    ):
        self.attacker, self.strategies, self.pool = attacker, strategies, pool
        self.filter, self.target, self.limits = filter_, target, limits
        self._started = time.monotonic()

    def run(self) -> Campaign:
        """Rounds, until one ends the loop."""
        attacks, results, rounds, ended = list[Attack](), list[Result](), list[Round](), ""
        for number in range(1, self.limits.rounds + 1):
            written = self._write(number)
            tried, found = self.attack(written)
            measured = RED_TEAM.measure("attacks", found) if found else []
            rounds.append(Round(number, self.filter.take_counts(), measured))
            hits = [i for i, result in enumerate(found) if result.values["success"]]
            kept = [tried[i] for i in hits] if self.target else tried
            self.pool.add(kept)
            attacks += kept
            results += [found[i] for i in hits]
            tell(rounds[-1])
            if ended := self._stalled(rounds[-1]) or self._spent():
                break
        return Campaign(attacks, results, rounds, ended or "all rounds are done", self.tokens)

    @property
    def tokens(self) -> int:
        """That attacker and target have read and written."""
        generators = {self.attacker.generator, *([self.target.generator] if self.target else [])}
        return sum(generator.tokens for generator in generators)

    def _write(self, number: int) -> list[Attack]:
        """New prompts: as many as a round has, or fewer where few are new or a limit is reached."""
        kept, lists = list[Attack](), self.attacker.generator.batch_size
        for batch in range(-(-LISTS * self.limits.attacks // lists)):
            written = self.attacker.write(self.strategies, self.pool, number, batch, lists)
            new = self.filter.keep(written, self.limits.attacks - len(kept))
            kept += new
            few = len(new) < self.limits.min_novelty * len(written)
            if len(kept) == self.limits.attacks or few or self._spent():
                break
        return kept

    def attack(self, attacks: Sequence[Attack]) -> tuple[list[Attack], list[Result]]:
        """Attacks as they were tried, further turns included, and what came of each."""
        if self.target is None or not attacks:
            return list(attacks), []
        whole = self.converse(attacks, self.target.generator, self.target.settings)
        items = [Asked(a.id, a.strategy, a.messages) for a in whole]
        target = self.target
        return whole, attempt(items, target.generator, target.settings, target.judge)

    def converse(
        self, attacks: Sequence[Attack], generator: Generator, settings: TaskSettings
    ) -> list[Attack]:
        """Attacks up to their last turn; those in which a turn cannot be used are left out."""
        whole = {attack.id: attack for attack in attacks}
        for turn in range(1, max((STRATEGIES[a.strategy].turns for a in attacks), default=1)):
            open_ = [a for a in whole.values() if STRATEGIES[a.strategy].turns > turn]
            samples = generator.generate(
                settings.chat.prompts_ids([a.messages for a in open_]),
                [named_key(settings.seed, "red_team", a.id, turn) for a in open_],
                settings.max_new_tokens,
                settings.sampling,
                "red team: replies within conversations",
            )
            replies = [usable(settings.chat, sample) for sample in samples]
            answered = [
                replace(a, messages=(*a.messages, assistant(reply.text)))
                for a, reply in zip(open_, replies, strict=True)
                if reply
            ]
            short = [a for a in answered if self._fits(a, settings)]
            further = {a.id: a for a in self.attacker.go_on(short) if self._usable(a, settings)}
            self.filter.counts["conversations broken off"] += len(open_) - len(further)
            whole = {
                a.id: a for a in whole.values() if STRATEGIES[a.strategy].turns <= turn
            } | further
        return [whole[attack.id] for attack in attacks if attack.id in whole]

    def _fits(self, attack: Attack, settings: TaskSettings) -> bool:
        """Whether target and attacker can go on, and a judge can read it within its question."""
        return 2 * len(settings.chat.prompt_ids(attack.messages)) <= settings.max_tokens

    def _usable(self, attack: Attack, settings: TaskSettings) -> bool:
        text = attack.messages[-1].text
        new = not self.filter.held_out.near(text) and not problem_of(text, self.filter.script)
        return new and self._fits(attack, settings)

    def _stalled(self, done: Round) -> str:
        """Why the attacker gets no further; empty: it does."""
        limits, few = self.limits, done.counts.get("kept", 0) < self.limits.attacks
        if not done.counts.get("kept") or (few and done.novelty < limits.min_novelty):
            return f"stalled: {100 * done.novelty:.0f} % of what was written was new"
        if done.success is not None and done.success < limits.min_success:
            return f"stalled: {100 * done.success:.0f} % of attacks succeeded"
        return ""

    def _spent(self) -> str:
        """Which limit is reached, on all hosts alike; empty: none."""
        limits, minutes = self.limits, (time.monotonic() - self._started) / 60
        spent = ""
        if limits.max_tokens and self.tokens >= limits.max_tokens:
            spent = f"{self.tokens} tokens"
        elif limits.minutes and minutes >= limits.minutes:
            spent = f"{minutes:.1f} minutes"
        return hosts.from_main("the budget of the red team", str, spent)


def tell(done: Round) -> None:
    """Logs a round."""
    counts = ", ".join(f"{n} {what}" for what, n in done.counts.items())
    log.info("red team: round %d: %s", done.number, counts)
    for m in done.measurements:
        if m.measure == "success":
            (measure,) = (known for known in RED_TEAM.measures if known.name == m.measure)
            log.info("red team: round %d: success, %s: %s", done.number, m.group, m.told(measure))
