"""AI feedback on pairs of SL-CAI responses (Bai et al. 2022, section 4.1), audited first.

Where there are groups, every pair is labelled under the principles of each.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.config import ConfigError
from cai_jax.constitution.draw import draw_principles
from cai_jax.data.readers import Prompt
from cai_jax.data.records import write_records
from cai_jax.data.rows import Comparison, Reply
from cai_jax.evaluation.measure import joined
from cai_jax.feedback.audit import audit, reliability
from cai_jax.feedback.baselines import baselines, openings
from cai_jax.feedback.labeler import Judgement, Labeler, ResponsePair
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key, named_rng
from cai_jax.models.blueprint import Model
from cai_jax.parallel.program import Program
from cai_jax.rl.reward import usable
from cai_jax.stages.data import Selection, first, repeated
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SAMPLING_REMEDY,
    SCORING_REMEDY,
    make_generator,
    make_labeler_tools,
    make_sampling,
    with_remedy,
)
from cai_jax.stages.reuse import digest
from cai_jax.stages.stage import Inputs, Outcome, Stage

log = logging.getLogger("cai_jax")
TOGETHER = 4096  # judgements whose rows are on the host as tokens at once


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Audits the labeler, samples SL-CAI, and writes ``comparisons`` and ``helpful`` replies."""
    settings = inputs.config.feedback
    models, source = inputs.models, inputs.models.feedback_source(settings.source)
    base = None if settings.source else models.policy(models.source())
    judge = models.policy(source, base)
    tools = {g: make_labeler_tools(inputs, judge, source, c) for g, c in inputs.groups.items()}
    labelers = {group: LABELERS[settings.method].make(given) for group, given in tools.items()}
    audits = dict[str, dict[str, Any]]()
    for group, labeler in labelers.items():
        audits |= audit_labeler(inputs, labeler, group)
    sampler = _sampler(inputs, base)
    times, second = settings.pairs_per_prompt, inputs.rows("second_model")
    training = repeated([*inputs.rows("training"), *inputs.attacks], times, second)
    # Both are written as one dataset.
    prompts = {"training": training, "second_model": repeated(second, times, training)}
    pairs = {p: _sample_pairs(inputs, sampler, found) for p, found in prompts.items()}
    if helpful := _sample_helpful(inputs, sampler):
        write_records(folder / "helpful", helpful, Reply)
    sampled = sampler.tokens
    del sampler  # the labeler has the devices for itself
    for purpose, found in pairs.items():
        if prompts[purpose] and not found:
            raise ValueError(
                f"feedback: no prompt of {purpose} gave two different responses; raise "
                "config.feedback.temperature or config.generation.response_tokens"
            )
    sides = [(purpose, pair) for purpose, found in pairs.items() for pair in found]
    strengths = {}
    for group, labeler in labelers.items():
        judged = [_under(inputs, group, pair) for _, pair in sides]
        judgements = zip(sides, judged, judge_pairs(inputs, group, labeler, judged), strict=True)
        rows = [_row(inputs, group, side[0], pair, found) for side, pair, found in judgements]
        write_records(folder / "comparisons" / group, rows, Comparison)
        labels = np.array([row.probability for row in rows])
        strengths[joined("label_strength", group)] = float(np.mean(np.abs(labels - 0.5)))
    return Outcome(
        {
            "method": settings.method,
            "audit": audits,
            "comparisons": len(pairs["training"]),
            "second_model_comparisons": len(pairs["second_model"]),
            "dropped": sum(map(len, prompts.values())) - len(sides),
            **strengths,
        },
        sum(t.scorer.tokens + t.generator.tokens for t in tools.values()) + sampled,
    )


def _sampler(inputs: Inputs, base: Model | None) -> Generator:
    """Samples from SL-CAI; ``base`` is the base model, where it is loaded."""
    models = inputs.models
    model = models.policy(models.policy_source("sl_cai"), base)
    return make_generator(inputs.config.generation, model, models.decode_mesh, models.stop_ids)


def check(inputs: Inputs) -> None:
    """Refuses a method that there is not, and more principles and few-shots than there are.

    Raises:
      ConfigError: one of these.
    """
    f = inputs.config.feedback
    if f.method not in LABELERS:
        raise ConfigError(
            f"config.feedback.method: no method {f.method!r}; known: {', '.join(LABELERS)}"
        )
    for group, constitution in inputs.groups.items():
        whose = f"the constitution of {group}" if group else "the constitution"
        examples = LABELERS[f.method].few_shots(constitution)
        if examples is not None and f.few_shots > len(examples):
            raise ConfigError(
                f"config.feedback.few_shots: {f.few_shots}, but {whose} has {len(examples)} "
                "such few-shots"
            )
        if f.principles_per_pair > len(constitution.feedback):
            raise ConfigError(
                f"config.feedback.principles_per_pair: {f.principles_per_pair}, but only "
                f"{len(constitution.feedback)} feedback principles of {whose} are in use"
            )


def audit_labeler(inputs: Inputs, labeler: Labeler, group: str) -> dict[str, dict[str, Any]]:
    """Measures the labeler of a group on labelled pairs, kept apart by purpose.

    The ``development`` pairs are for people to choose methods and wordings by; ``audit`` is for
    the audit alone.
    """
    out: dict[str, dict[str, Any]] = {}
    for half in ("development", "audit"):
        pairs, truth = [], []
        for pair in inputs.rows(half):
            flip = bool(named_rng(inputs.seed, "audit", "flip", pair.id).integers(2))
            options = (pair.rejected, pair.chosen) if flip else (pair.chosen, pair.rejected)
            shown = ResponsePair(pair.id, pair.messages, *options, principles=())
            pairs.append(_under(inputs, group, shown))
            truth.append(not flip)
        judgements = judge_pairs(inputs, group, labeler, pairs)
        result = audit(judgements, truth, baselines(pairs, truth))
        labels = np.array([judgement.probability for judgement in judgements])
        out[joined(half, group)] = {
            **asdict(result),
            "better_than_chance": result.better_than_chance,
            "better_baselines": result.better_baselines,
            "reliability": [
                asdict(b) for b in reliability(labels, np.array(truth), openings(pairs))
            ],
        }
    by = f" by {group}'s principles" if group else ""
    tell(f"{inputs.config.feedback.method}{by}", out[joined("audit", group)])
    return out


def judge_pairs(
    inputs: Inputs, group: str, labeler: Labeler, pairs: Sequence[ResponsePair]
) -> list[Judgement]:
    """Judgements of pairs, of which each principle's part is taken where it was made before.

    It depends on the pair, on the text of that principle, and on how the labeler is asked.
    """
    f = inputs.config.feedback
    how = digest(
        [
            *(f.method, f.few_shots, f.contrast_scale, f.reasoning_tokens, f.chains),
            *(f.clamp_low, f.clamp_high, asdict(make_sampling(inputs.config.generation))),
            [asdict(e) for e in LABELERS[f.method].few_shots(inputs.groups[group]) or ()],
            "with thoughts",  # earlier versions kept a value without them
        ]
    )
    singles = [  # no labeler reads the rest of a principle
        replace(pair, principles=(replace(principle, author="", tags=(), weight=1.0),))
        for pair in pairs
        for principle in pair.principles
    ]

    def compute(missing: list[int]) -> list[Any]:
        parts = (missing[at : at + TOGETHER] for at in range(0, len(missing), TOGETHER))
        return [
            [float(j.shown_first[0]), float(j.shown_second[0]), j.low, j.high, list(j.thoughts)]
            for part in parts
            for j in labeler.judge([singles[i] for i in part])
        ]

    asked = [[how, asdict(single)] for single in singles]
    parts, judgements = iter(inputs.computed.fill("labels", asked, compute)), []
    for pair in pairs:
        first, second, low, high, thoughts = zip(*islice(parts, len(pair.principles)), strict=True)
        reasoned = tuple(chain.from_iterable(thoughts))
        judgements.append(Judgement(np.array(first), np.array(second), low[0], high[0], reasoned))
    return judgements


def tell(method: str, heard: dict[str, Any]) -> None:
    """Logs what an audit found; warns of a labeler that guesses, or does worse than a baseline."""
    line = (
        f"feedback: audit of {method} on {heard['pairs']} held-out labelled pairs: accuracy "
        f"{heard['accuracy']:.2f} [{heard['accuracy_low']:.2f}, {heard['accuracy_high']:.2f}]; on "
        f"the same pairs a bag of words reaches {heard['bag_of_words']:.2f}, length alone "
        f"{heard['length']:.2f}"
    )
    if heard["better_than_chance"]:
        log.info("%s", line)
    else:
        log.warning(
            "%s. The interval does not lie above one half: these labels may be noise. Use a larger "
            "feedback model (config.feedback.source) or another config.feedback.method.",
            line,
        )
    if better := heard["better_baselines"]:
        log.warning(
            "feedback: %s is right less often than %s, which understands nothing. Use a larger "
            "feedback model (config.feedback.source) or another config.feedback.method, or audit "
            "on pairs whose surface says less (config.data.harmlessness_pairs).",
            method,
            " and ".join(name.replace("_", " ") for name in better),
        )


def _under(inputs: Inputs, group: str, pair: ResponsePair) -> ResponsePair:
    """The pair, with those of a group's principles that it is compared under."""
    principles = draw_principles(
        inputs.groups[group].feedback,
        inputs.config.feedback.principles_per_pair,
        inputs.seed,
        *("feedback", "principles", pair.id),
    )
    return replace(pair, principles=principles)


def _sample_pairs(inputs: Inputs, sampler: Generator, prompts: list[Prompt]) -> list[ResponsePair]:
    """Two responses to each prompt, where both parse and they differ; no principles yet."""
    pairs = []
    for prompt, (one, other) in zip(
        prompts, _sample(inputs, sampler, prompts, "responses", 2), strict=True
    ):
        if one and other and one != other:
            pairs.append(ResponsePair(prompt.id, prompt.messages, one, other, principles=()))
    return pairs


def _sample_helpful(inputs: Inputs, sampler: Generator) -> list[Reply]:
    """A reply to each helpfulness prompt, where it parses."""
    chat, prompts = inputs.models.chat, inputs.rows("helpful")
    return [
        Reply(
            id=prompt.id,
            prompt=prompt.messages,
            response=text,
            tokens=tuple(chat.judged_ids(chat.prompt_ids(prompt.messages), text)),
            seed=inputs.seed,
            model=inputs.models.base_name,
        )
        for prompt, (text,) in zip(
            prompts, _sample(inputs, sampler, prompts, "helpful", 1), strict=True
        )
        if text is not None
    ]


def _sample(
    inputs: Inputs, sampler: Generator, prompts: list[Prompt], kind: str, count: int
) -> list[list[str | None]]:
    """``count`` responses to each prompt; None for one that does not parse."""
    chat = inputs.models.chat
    samples = inputs.computed.sample(
        kind,
        sampler,
        chat.prompts_ids([p.messages for p in prompts for _ in range(count)]),
        [named_key(inputs.seed, "feedback", kind, p.id, n) for p in prompts for n in range(count)],
        inputs.config.generation.response_tokens,
        Sampling(inputs.config.feedback.temperature),
        f"feedback: {kind}",
    )
    replies = (usable(chat, sample) for sample in samples)
    texts = [reply.text if reply else None for reply in replies]
    return [texts[at : at + count] for at in range(0, len(texts), count)]


def _row(
    inputs: Inputs, group: str, purpose: str, pair: ResponsePair, judgement: Judgement
) -> Comparison:
    settings, chat = inputs.config.feedback, inputs.models.chat
    prompt_ids = chat.prompt_ids(pair.prompt)
    return Comparison(
        id=pair.id,
        purpose=purpose,
        prompt=pair.prompt,
        response_first=pair.first,
        response_second=pair.second,
        first=tuple(chat.judged_ids(prompt_ids, pair.first)),
        second=tuple(chat.judged_ids(prompt_ids, pair.second)),
        probability=judgement.probability,
        principle_ids=tuple(p.id for p in pair.principles),
        shown_first=tuple(judgement.shown_first.tolist()),
        shown_second=tuple(judgement.shown_second.tolist()),
        method=settings.method,
        seed=inputs.seed,
        model=inputs.models.base_name,
        feedback_model=settings.source or inputs.models.critic_name,
        constitution_sha256=inputs.group_sha256(group),
        bounds=(judgement.low, judgement.high),
        thoughts=judgement.thoughts,
    )


def programs(inputs: Inputs) -> list[Program]:
    """Responses, with the labeler's model resident; and what the labeler asks of it."""
    f, g, models = inputs.config.feedback, inputs.config.generation, inputs.models
    source = models.feedback_source(f.source)
    judge = models.policy(source)
    tools = [make_labeler_tools(inputs, judge, source, c) for c in inputs.groups.values()]
    responses = _sampler(inputs, None).programs(
        "feedback: responses", g.response_tokens, Sampling(f.temperature)
    )
    resident = (tools[0].scorer.abstract_params,)
    labels = LABELERS[f.method].programs(tools[0], "feedback")  # the groups' are the same
    sources = (source, models.policy_source("sl_cai"))
    loading = [program for source in sources for program in models.loading_programs(source)]
    return [
        *with_remedy([replace(p, resident=resident) for p in responses], SAMPLING_REMEDY),
        *with_remedy(labels, SCORING_REMEDY),
        *with_remedy(loading, MEMORY_REMEDY, "feedback: "),
    ]


STAGE = Stage(
    name="feedback",
    needs=("sl_train", "warm_up", "red_team"),
    blocks=("feedback", "generation", "warm_up"),
    data={
        "training": first("red_team_prompts", "training", "feedback.prompts"),
        "second_model": first("red_team_prompts", "second_model", "second_model.prompts"),
        "helpful": first("helpful_prompts", "training", "feedback.helpful_prompts"),
        "attacks": Selection("red_team_attacks", "training"),
        "development": Selection(
            "harmlessness_pairs", "development", lambda c: c.feedback.audit_pairs // 2
        ),
        "audit": Selection("harmlessness_pairs", "audit", lambda c: c.feedback.audit_pairs // 2),
    },
    groups=("feedback", "choice_examples", "thought_examples"),
    execute=execute,
    programs=programs,
    check=check,
)
