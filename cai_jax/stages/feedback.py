"""AI feedback on pairs of SL-CAI responses (Bai et al. 2022, section 4.1), audited first."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.data.readers import Prompt
from cai_jax.data.records import FLOAT, FLOATS, INT, INTS, TEXT, TEXTS, write_records
from cai_jax.feedback.audit import audit
from cai_jax.feedback.labelers import (
    ChainOfThought,
    Comparison,
    Judgement,
    Labeler,
    LikelihoodContrast,
    MultipleChoice,
)
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer, next_logprobs, row_logprobs
from cai_jax.keys import named_key, named_rng
from cai_jax.models.io.sources import stamp
from cai_jax.prompts.chat import conversation
from cai_jax.stages.plan import Plan, Step
from cai_jax.stages.run import Outcome, Run, Stage, lora_config

log = logging.getLogger("cai_jax")

# Training reads first, second and target_ppm; seqio takes integers, hence parts per million.
COMPARISON_FEATURES = {
    "id": TEXT,
    "prompt": TEXT,
    "response_first": TEXT,
    "response_second": TEXT,
    "first": INTS,
    "second": INTS,
    "target_ppm": INTS,
    "probability": FLOAT,
    "principle_ids": TEXTS,
    "shown_first": FLOATS,
    "shown_second": FLOATS,
    "method": TEXT,
    "seed": INT,
    "model": TEXT,
    "feedback_model": TEXT,
    "constitution_sha256": TEXT,
}


def run(run: Run, folder: Path) -> Outcome:
    """Audits the labeler, samples pairs from SL-CAI, and writes ``comparisons``."""
    settings = run.config.feedback
    source = run.source(settings.source)
    model, chat = run.policy(source), run.chat_of(source)
    scorer, writer = run.scorer(model), run.generator(model, chat)
    labeler = make_labeler(run, scorer, writer, chat)
    audits = audit_labeler(run, labeler)
    sl_cai = run.policy(run.source(str(run.checkpoint("sl_train"))))
    sampler = run.generator(sl_cai, run.chat)
    prompts = run.repeated(
        run.training(run.red_team_prompts, settings.prompts), settings.pairs_per_prompt
    )
    comparisons, dropped = _sample_pairs(run, sampler, prompts)
    sampled = sampler.tokens
    del sampler, sl_cai  # the labeler has the devices for itself
    if not comparisons:
        raise ValueError(
            "feedback: no prompt gave two different responses; raise config.feedback.temperature "
            "or config.generation.response_tokens"
        )
    judgements = labeler.judge(comparisons)
    rows = [_row(run, c, j) for c, j in zip(comparisons, judgements, strict=True)]
    write_records(folder, "comparisons", COMPARISON_FEATURES, rows)
    labels = np.array([j.probability for j in judgements])
    return Outcome(
        {
            "method": settings.method,
            "audit": audits,
            "comparisons": len(rows),
            "dropped": dropped,
            "label_strength": float(np.mean(np.abs(labels - 0.5))),
        },
        scorer.tokens + writer.tokens + sampled,
    )


def make_labeler(run: Run, scorer: Scorer, writer: Generator, chat: Any) -> Labeler:
    """The labeler that the config names."""
    f = run.config.feedback
    examples = run.feedback_examples_all[: f.few_shots]
    if f.method == "contrast":
        return LikelihoodContrast(scorer, chat, f.contrast_scale)
    if f.method == "multiple_choice":
        return MultipleChoice(scorer, chat, examples)
    return ChainOfThought(
        generator=writer,
        scorer=scorer,
        chat=chat,
        examples=examples,
        max_new_tokens=f.reasoning_tokens,
        sampling=run.sampling,
        clamp_low=f.clamp_low,
        clamp_high=f.clamp_high,
        seed=run.config.seed,
    )


def audit_labeler(run: Run, labeler: Labeler) -> dict[str, dict[str, float]]:
    """Measures the labeler on labelled pairs, kept apart in two halves.

    The ``development`` half is for people to choose methods and wordings by; ``audit`` is for the
    audit alone.
    """
    limit = run.config.feedback.audit_pairs // 2
    out = {}
    for half, held_out in (("development", False), ("audit", True)):
        pairs = run.audit_split(held_out)[:limit]
        comparisons, truth = [], []
        for pair in pairs:
            flip = bool(named_rng(run.config.seed, "audit", "flip", pair.id).integers(2))
            options = (pair.rejected, pair.chosen) if flip else (pair.chosen, pair.rejected)
            principles = draw_principles(run, pair.id)
            comparisons.append(Comparison(pair.id, pair.prompt, *options, principles))
            truth.append(not flip)
        result = audit(labeler.judge(comparisons), truth)
        out[half] = {**asdict(result), "better_than_chance": result.better_than_chance}
    heard = out["audit"]
    line = (
        f"feedback: audit of {run.config.feedback.method} on {heard['pairs']} held-out labelled "
        f"pairs: accuracy {heard['accuracy']:.2f} "
        f"[{heard['accuracy_low']:.2f}, {heard['accuracy_high']:.2f}]"
    )
    if not heard["better_than_chance"]:
        log.warning(
            "%s. The interval does not lie above one half: these labels may be noise. Use a larger "
            "feedback model (config.feedback.source) or another config.feedback.method.",
            line,
        )
    else:
        log.info("%s", line)
    return out


def draw_principles(run: Run, item: str) -> tuple:
    """The principles that one pair is compared under."""
    principles = run.constitution.feedback
    rng = named_rng(run.config.seed, "feedback", "principles", item)
    count = run.config.feedback.principles_per_pair
    chosen = rng.choice(len(principles), size=count, replace=False)
    return tuple(principles[int(i)] for i in chosen)


def _sample_pairs(
    run: Run, sampler: Generator, prompts: list[Prompt]
) -> tuple[list[Comparison], int]:
    ids = [run.chat.prompt_ids(conversation(p.text)) for p in prompts]
    sides = range(2)
    samples = sampler.generate(
        [row for row in ids for _ in sides],
        [named_key(run.config.seed, "feedback", p.id, side) for p in prompts for side in sides],
        run.config.generation.response_tokens,
        Sampling(run.config.feedback.temperature),
        "feedback: responses",
    )
    comparisons = []
    for i, prompt in enumerate(prompts):
        texts = [run.usable_text(s) for s in samples[2 * i : 2 * i + 2]]
        if None not in texts and texts[0] != texts[1]:
            principles = draw_principles(run, prompt.id)
            comparisons.append(Comparison(prompt.id, prompt.text, *texts, principles))
    return comparisons, len(prompts) - len(comparisons)


def _row(run: Run, c: Comparison, judgement: Judgement) -> dict[str, Any]:
    prompt_ids = run.chat.prompt_ids(conversation(c.prompt))
    target = judgement.probability
    if run.config.feedback.labels == "hard":
        target = (1 + np.sign(target - 0.5)) / 2
    return {
        "id": c.id,
        "prompt": c.prompt,
        "response_first": c.first,
        "response_second": c.second,
        "first": run.chat.judged_ids(prompt_ids, c.first),
        "second": run.chat.judged_ids(prompt_ids, c.second),
        "target_ppm": [round(target * 1e6)],
        "probability": judgement.probability,
        "principle_ids": [p.id for p in c.principles],
        "shown_first": judgement.shown_first.tolist(),
        "shown_second": judgement.shown_second.tolist(),
        "method": run.config.feedback.method,
        "seed": run.config.seed,
        "model": run.model,
        "feedback_model": run.config.feedback.source or run.model,
        "constitution_sha256": run.constitution.content_hash(),
    }


def steps(plan: Plan) -> list[Step]:
    """Responses, beside the labeler's model; and what the labeler asks of it."""
    run, f, g = plan.run, plan.run.config.feedback, plan.run.config.generation
    source, own, mesh = plan.source(f.source), plan.source(), plan.run.decode_mesh
    model, length = plan.decoder(source, mesh), g.context_tokens
    policy = plan.decoder(own, mesh, lora_config(run.config.sl_train.lora))
    name, prompt = "feedback: responses", length - g.response_tokens
    sampling = Sampling(f.temperature)
    responses = plan.generate(name, own, policy, g.batch_size, prompt, g.response_tokens, sampling)
    found = [plan.beside(responses, model.params)]
    if f.method == "contrast":
        scored, static = row_logprobs, {"temperature": 1.0}
    else:
        scored, static = next_logprobs, {"choices": (0, 1)}
    if f.method == "chain_of_thought":
        name, new = "feedback: reasoning", f.reasoning_tokens
        prompt, b = length - new, g.batch_size
        found.append(plan.generate(name, source, model, b, prompt, new, run.sampling))
    return [*found, plan.score("feedback: labels", source, scored, model, mesh, length, **static)]


STAGE = Stage(
    name="feedback",
    inputs=("sl_train",),
    settings=lambda run: [
        run.config.feedback,
        run.config.generation,
        run.file_hashes("red_team_prompts", "harmlessness_pairs"),
        stamp(run.config.feedback.source),
        run.constitution.content_hash(),
    ],
    run=run,
)
