"""AI feedback on pairs of SL-CAI responses (Bai et al. 2022, section 4.1), audited first."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.config import ConfigError
from cai_jax.constitution.draw import draw_principles
from cai_jax.data.readers import Prompt
from cai_jax.data.records import write_records
from cai_jax.data.rows import Comparison, Reply
from cai_jax.feedback.audit import audit
from cai_jax.feedback.baselines import baselines
from cai_jax.feedback.labeler import Judgement, Labeler, ResponsePair
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key, named_rng
from cai_jax.models.blueprint import Model
from cai_jax.parallel.program import Program
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import usable
from cai_jax.stages.data import Selection, first, repeated
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SAMPLING_REMEDY,
    SCORING_REMEDY,
    make_generator,
    make_labeler_tools,
    with_remedy,
)
from cai_jax.stages.stage import Inputs, Outcome, Stage

log = logging.getLogger("cai_jax")


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Audits the labeler, samples SL-CAI, and writes ``comparisons`` and ``helpful`` replies."""
    settings = inputs.config.feedback
    models, source = inputs.models, inputs.models.feedback_source(settings.source)
    base = None if settings.source else models.policy(models.source())
    judge = models.policy(source, base)
    tools = make_labeler_tools(inputs, judge, source)
    labeler = LABELERS[settings.method].make(tools)
    audits = audit_labeler(inputs, labeler)
    sampler = _sampler(inputs, base)
    asked = {"training": inputs.attacks, "second_model": []}
    prompts = {
        purpose: repeated([*inputs.rows(purpose), *attacks], settings.pairs_per_prompt)
        for purpose, attacks in asked.items()
    }
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
    judged = [(purpose, pair) for purpose, found in pairs.items() for pair in found]
    judgements = labeler.judge([pair for _, pair in judged])
    rows = [_row(inputs, *one, j) for one, j in zip(judged, judgements, strict=True)]
    write_records(folder / "comparisons", rows, Comparison)
    labels = np.array([j.probability for j in judgements])
    return Outcome(
        {
            "method": settings.method,
            "audit": audits,
            "comparisons": len(pairs["training"]),
            "second_model_comparisons": len(pairs["second_model"]),
            "dropped": sum(map(len, prompts.values())) - len(rows),
            "label_strength": float(np.mean(np.abs(labels - 0.5))),
        },
        tools.scorer.tokens + tools.generator.tokens + sampled,
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
    f, constitution = inputs.config.feedback, inputs.constitution
    if f.method not in LABELERS:
        raise ConfigError(
            f"config.feedback.method: no method {f.method!r}; known: {', '.join(LABELERS)}"
        )
    examples = LABELERS[f.method].few_shots(constitution)
    if examples is not None and f.few_shots > len(examples):
        raise ConfigError(
            f"config.feedback.few_shots: {f.few_shots}, but the constitution has {len(examples)} "
            "such few-shots"
        )
    if f.principles_per_pair > len(constitution.feedback):
        raise ConfigError(
            f"config.feedback.principles_per_pair: {f.principles_per_pair}, but only "
            f"{len(constitution.feedback)} feedback principles of the constitution are in use"
        )


def audit_labeler(inputs: Inputs, labeler: Labeler) -> dict[str, dict[str, float]]:
    """Measures the labeler on labelled pairs, kept apart by purpose.

    The ``development`` pairs are for people to choose methods and wordings by; ``audit`` is for
    the audit alone.
    """
    out: dict[str, dict[str, Any]] = {}
    for half in ("development", "audit"):
        pairs, truth = [], []
        for pair in inputs.rows(half):
            flip = bool(named_rng(inputs.seed, "audit", "flip", pair.id).integers(2))
            options = (pair.rejected, pair.chosen) if flip else (pair.chosen, pair.rejected)
            pairs.append(_to_judge(inputs, pair.id, pair.messages, *options))
            truth.append(not flip)
        result = audit(labeler.judge(pairs), truth, baselines(pairs, truth))
        out[half] = {
            **asdict(result),
            "better_than_chance": result.better_than_chance,
            "better_baselines": result.better_baselines,
        }
    tell(inputs.config.feedback.method, out["audit"])
    return out


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


def _to_judge(inputs: Inputs, item: str, prompt: Dialogue, first: str, second: str) -> ResponsePair:
    """A pair, with the principles that it is compared under."""
    principles = draw_principles(
        inputs.constitution.feedback,
        inputs.config.feedback.principles_per_pair,
        named_rng(inputs.seed, "feedback", "principles", item),
    )
    return ResponsePair(item, prompt, first, second, principles)


def _sample_pairs(inputs: Inputs, sampler: Generator, prompts: list[Prompt]) -> list[ResponsePair]:
    """Two responses to each prompt, where both parse and they differ."""
    pairs = []
    for prompt, (one, other) in zip(
        prompts, _sample(inputs, sampler, prompts, "responses", 2), strict=True
    ):
        if one and other and one != other:
            pairs.append(_to_judge(inputs, prompt.id, prompt.messages, one, other))
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
    samples = sampler.generate(
        [chat.prompt_ids(p.messages) for p in prompts for _ in range(count)],
        [named_key(inputs.seed, "feedback", kind, p.id, n) for p in prompts for n in range(count)],
        inputs.config.generation.response_tokens,
        Sampling(inputs.config.feedback.temperature),
        f"feedback: {kind}",
    )
    replies = (usable(chat, sample) for sample in samples)
    texts = [reply.text if reply else None for reply in replies]
    return [texts[at : at + count] for at in range(0, len(texts), count)]


def _row(inputs: Inputs, purpose: str, pair: ResponsePair, judgement: Judgement) -> Comparison:
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
        constitution_sha256=inputs.constitution_sha256,
        bounds=(judgement.low, judgement.high),
    )


def programs(inputs: Inputs) -> list[Program]:
    """Responses, with the labeler's model resident; and what the labeler asks of it."""
    f, g, models = inputs.config.feedback, inputs.config.generation, inputs.models
    source = models.feedback_source(f.source)
    tools = make_labeler_tools(inputs, models.policy(source), source)
    responses = _sampler(inputs, None).programs(
        "feedback: responses", g.response_tokens, Sampling(f.temperature)
    )
    resident = (tools.scorer.abstract_params,)
    labels = LABELERS[f.method].programs(tools, "feedback")
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
    blocks=("feedback", "second_model", "generation", "warm_up"),
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
    constitution=("feedback", "choice_examples", "thought_examples"),
    execute=execute,
    programs=programs,
    check=check,
)
