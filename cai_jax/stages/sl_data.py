"""Responses of the base model, revised round by round (Bai et al. 2022, section 3.1).

The base model responds. The critic criticises and revises: the same model, or its warm-up.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cai_jax.config import ConfigError
from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import CritiqueExample, CritiquePrinciple
from cai_jax.data.readers import Prompt
from cai_jax.data.records import write_records
from cai_jax.data.rows import Revision
from cai_jax.generation.engine import Generator
from cai_jax.keys import named_key, named_rng
from cai_jax.parallel.program import Program
from cai_jax.prompts.critique_revision import (
    CRITIQUE_MARK,
    REVISION_MARK,
    critique_messages,
    example_texts,
    few_shot_messages,
    is_near_copy,
    revision_messages,
)
from cai_jax.prompts.few_shots import FewShots
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import Sampled, usable
from cai_jax.stages.data import Selection, first, repeated
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SAMPLING_REMEDY,
    make_generator,
    make_sampling,
    with_remedy,
)
from cai_jax.stages.reuse import Sample
from cai_jax.stages.stage import Inputs, Outcome, Stage

log = logging.getLogger("cai_jax")


ORDERS = 4  # of few-shots, of which each prompt draws one
NO_PRINCIPLE = CritiquePrinciple("", "", (), "", "")  # of first responses


@dataclass(frozen=True)
class Draft:
    """A dialogue under revision."""

    prompt: Prompt
    round: int
    response: str
    raw_response: str
    principle: CritiquePrinciple = NO_PRINCIPLE
    critique: str = ""
    raw_critique: str = ""
    few_shots: tuple[CritiqueExample, ...] = ()

    @property
    def shown(self) -> list[str]:
        """What the few-shots say, which is not to be repeated."""
        return example_texts(self.few_shots)


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Writes ``responses`` (round 0), ``revisions`` (later rounds) and ``helpful`` samples."""
    settings = inputs.config.sl_data
    writer = _Writer(inputs, *_generators(inputs))
    prompts = [*inputs.rows("red_team"), *inputs.attacks]
    drafts = [writer.respond(prompts, "response")]
    for number in range(1, settings.rounds + 1):
        drafts.append(writer.revise(drafts[-1], number))
    helpful = writer.respond(repeated(inputs.rows("helpful"), settings.helpful_samples), "helpful")

    revisions = [draft for later in drafts[1:] for draft in later]
    if not revisions:
        raise ValueError(
            "sl_data: no revision could be parsed; use a larger model, more "
            "config.generation.response_tokens, or other few-shots"
        )
    for name, found in (("responses", drafts[0]), ("revisions", revisions), ("helpful", helpful)):
        if found:
            write_records(folder / name, [_row(inputs, draft) for draft in found], Revision)
    for why, counted in (("did not parse", writer.unparsed), ("are near-copies", writer.copied)):
        for kind, count in counted.items():
            log.info("sl_data: %d of kind %r %s and were dropped", count, kind, why)
    return Outcome(
        {
            "prompts": len(prompts),
            "responses": len(drafts[0]),
            "revisions_by_round": [len(later) for later in drafts[1:]],
            "helpful": len(helpful),
            "unparsed": dict(writer.unparsed),
            "copied": dict(writer.copied),
            "repeated": writer.repeated,
        },
        writer.tokens,
    )


def drawn_few_shots(
    shots: FewShots[CritiqueExample], prompt_id: str, messages: Dialogue, number: int
) -> list[CritiqueExample]:
    """The few-shots of a prompt in one round, in one of few orders.

    So many prompts begin alike, and the generator reads what they share once.
    """
    order = named_rng(shots.seed, "sl_data", "few_shots", prompt_id, number).integers(ORDERS)
    return shots.draw(f"order {order}", messages)


class _Writer:
    """Samples responses, critiques and revisions, and counts those that it drops."""

    def __init__(self, inputs: Inputs, base: Generator, critic: Generator):
        self.inputs, self.base, self.critic = inputs, base, critic
        self.chat = inputs.models.chat
        examples = inputs.constitution.critique_examples
        self.few_shots = FewShots(examples, inputs.config.sl_data.few_shots, inputs.seed)
        self.unparsed: Counter[str] = Counter()
        self.copied: Counter[str] = Counter()
        self.repeated = 0

    @property
    def tokens(self) -> int:
        """Read and written so far."""
        return sum(generator.tokens for generator in {self.base, self.critic})

    def respond(self, prompts: list[Prompt], kind: str) -> list[Draft]:
        """First responses, as they are."""
        drafts = [Draft(prompt, 0, "", "") for prompt in prompts]
        ids = self.chat.prompts_ids([prompt.messages for prompt in prompts])
        samples = self._sample(self.base, ids, drafts, kind)
        return self._keep(drafts, samples, kind, _respond, [[]] * len(drafts))

    def revise(self, drafts: list[Draft], number: int) -> list[Draft]:
        """One round for every dialogue whose last step parsed, a principle drawn for each."""
        settings = self.inputs.config.sl_data
        drawn = [self._draw(draft, number) for draft in drafts]
        if settings.critique:
            messages = [
                critique_messages(d.few_shots, d.prompt.messages, d.response, d.principle)
                for d in drawn
            ]
            samples = self._write(messages, CRITIQUE_MARK, drawn, "critique")
            given = [[*d.shown, d.principle.critique_request, d.response] for d in drawn]
            drawn = self._keep(drawn, samples, "critique", _criticise, given)
        messages = [
            revision_messages(
                d.few_shots,
                d.prompt.messages,
                d.response,
                d.principle,
                d.critique if settings.critique else None,
            )
            for d in drawn
        ]
        samples = self._write(messages, REVISION_MARK, drawn, "revision")
        given = [[*d.shown, d.principle.revision_request, d.response, d.critique] for d in drawn]
        return self._keep(drawn, samples, "revision", _respond, given)

    def _draw(self, draft: Draft, number: int) -> Draft:
        """The draft in its next round, under a principle and beside few-shots of its own."""
        (principle,) = draw_principles(
            self.inputs.constitution.critique_revision,
            1,
            self.inputs.seed,
            *("sl_data", "principle", draft.prompt.id, number),
            tags=draft.prompt.tags,
            tag_factor=self.inputs.config.sl_data.draw_by_tag,
        )
        asked = draft.prompt
        few_shots = drawn_few_shots(self.few_shots, asked.id, asked.messages, number)
        return replace(draft, round=number, principle=principle, few_shots=tuple(few_shots))

    def _keep(
        self,
        drafts: list[Draft],
        samples: Sequence[Sampled],
        kind: str,
        take: Callable[[Draft, str, str], Draft],
        given: list[list[str]],
    ) -> list[Draft]:
        """Drafts that took their sample, where it parses and is no near-copy of what was given."""
        kept = []
        for draft, sample, texts in zip(drafts, samples, given, strict=True):
            reply = usable(self.chat, sample)
            if reply is None:
                self.unparsed[kind] += 1
                continue
            may_repeat = draft.response if kind == "revision" else None
            if is_near_copy(reply.text, texts, may_repeat):
                self.copied[kind] += 1
                continue
            self.repeated += reply.text == may_repeat
            kept.append(take(draft, reply.text, self.chat.text(sample.ids)))
        return kept

    def _write(
        self, messages: list[Dialogue], mark: str, drafts: list[Draft], kind: str
    ) -> list[Sample]:
        """What the critic writes after a mark; the few-shots that prompts share are read once."""
        criticised = self.inputs.config.sl_data.critique
        ids = self.chat.prompts_ids(messages, mark)
        shots = [few_shot_messages(d.few_shots, d.prompt.messages, criticised) for d in drafts]
        shared = [
            self.chat.shared_tokens(row, first) if d.few_shots else 0
            for row, first, d in zip(ids, shots, drafts, strict=True)
        ]
        return self._sample(self.critic, ids, drafts, kind, shared)

    def _sample(
        self,
        generator: Generator,
        ids: list[list[int]],
        drafts: list[Draft],
        kind: str,
        shared: list[int] | None = None,
    ) -> list[Sample]:
        g, seed = self.inputs.config.generation, self.inputs.seed
        number = drafts[0].round if drafts else 0
        return self.inputs.computed.sample(
            kind,
            generator,
            ids,
            [named_key(seed, "sl_data", kind, d.prompt.id, d.round) for d in drafts],
            g.critique_tokens if kind == "critique" else g.response_tokens,
            make_sampling(g),
            f"sl_data: {kind} {number}" if number else f"sl_data: {kind}",
            shared,
        )


def _respond(draft: Draft, text: str, raw: str) -> Draft:
    return replace(draft, response=text, raw_response=raw)


def _criticise(draft: Draft, text: str, raw: str) -> Draft:
    return replace(draft, critique=text, raw_critique=raw)


def _generators(inputs: Inputs) -> tuple[Generator, Generator]:
    """Of the base model and of the critic; one where they are one model."""
    models = inputs.models
    make = partial(
        make_generator,
        inputs.config.generation,
        mesh=models.decode_mesh,
        stop_ids=models.stop_ids,
    )
    base = models.policy(models.policy_source("base"))
    answers = make(base)
    if models.critic_source == models.policy_source("base"):
        return answers, answers
    return answers, make(models.policy(models.critic_source, base))


def _row(inputs: Inputs, draft: Draft) -> Revision:
    chat = inputs.models.chat
    prompt_ids, reply_ids = chat.prompt_ids(draft.prompt.messages), chat.reply_ids(draft.response)
    return Revision(
        id=f"{draft.prompt.id}/{draft.round}",
        prompt_id=draft.prompt.id,
        prompt=draft.prompt.messages,
        round=draft.round,
        principle_id=draft.principle.id,
        critique=draft.critique,
        response=draft.response,
        raw_critique=draft.raw_critique,
        raw_response=draft.raw_response,
        tokens=(*prompt_ids, *reply_ids),
        loss_mask=(0,) * len(prompt_ids) + (1,) * len(reply_ids),
        seed=inputs.seed,
        model=inputs.models.critic_name if draft.round else inputs.models.base_name,
        constitution_sha256=inputs.constitution_sha256,
    )


def check(inputs: Inputs) -> None:
    """Refuses more few-shots than there are.

    Raises:
      ConfigError: there are fewer.
    """
    few, there = inputs.config.sl_data.few_shots, len(inputs.constitution.critique_examples)
    if few > there:
        raise ConfigError(
            f"config.sl_data.few_shots: {few}, but the constitution has {there} such few-shots"
        )


def programs(inputs: Inputs) -> list[Program]:
    """Sampling of revisions, and of critiques where they may have another length."""
    g, models = inputs.config.generation, inputs.models
    base, critic = _generators(inputs)
    wanted = {(base, g.response_tokens): "responses", (critic, g.response_tokens): "revisions"}
    if inputs.config.sl_data.critique:
        wanted.setdefault((critic, g.critique_tokens), "critiques")
    found = [
        program
        for (generator, tokens), what in wanted.items()
        for program in generator.programs(
            *(f"sl_data: {what}", tokens, make_sampling(g)),
            shared=what != "responses" and inputs.config.sl_data.few_shots > 0,
        )
    ]
    sources = dict.fromkeys([models.policy_source("base"), models.critic_source])
    loading = [program for source in sources for program in models.loading_programs(source)]
    return [*with_remedy(found, SAMPLING_REMEDY), *with_remedy(loading, MEMORY_REMEDY, "sl_data: ")]


STAGE = Stage(
    name="sl_data",
    needs=("pretrain", "warm_up"),
    blocks=("sl_data", "generation", "warm_up"),
    data={
        "red_team": first("red_team_prompts", "training", "sl_data.red_team_prompts"),
        "helpful": first("helpful_prompts", "training", "sl_data.helpful_prompts"),
        "attacks": Selection("red_team_attacks", "training"),
    },
    constitution=("critique_revision", "critique_examples"),
    execute=execute,
    programs=programs,
    check=check,
)
