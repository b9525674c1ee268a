"""Responses of the base model, revised round by round (Bai et al. 2022, section 3.1)."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cai_jax.constitution.schema import CritiquePrinciple
from cai_jax.data.readers import Prompt
from cai_jax.data.records import INT, INTS, TEXT, write_records
from cai_jax.generation.engine import Completion, Generator
from cai_jax.keys import named_key, named_rng
from cai_jax.prompts.chat import Message, conversation
from cai_jax.prompts.critique_revision import (
    CRITIQUE_MARK,
    REVISION_MARK,
    critique_messages,
    example_texts,
    parse_reply,
    revision_messages,
)
from cai_jax.stages.plan import Plan, Step
from cai_jax.stages.run import Outcome, Run, Stage

log = logging.getLogger("cai_jax")

# One step of one dialogue; round 0 is the first response, which has no principle.
REVISION_FEATURES = {
    "id": TEXT,
    "prompt_id": TEXT,
    "prompt": TEXT,
    "round": INT,
    "principle_id": TEXT,
    "critique": TEXT,
    "response": TEXT,
    "raw_critique": TEXT,
    "raw_response": TEXT,
    "tokens": INTS,
    "loss_mask": INTS,
    "seed": INT,
    "model": TEXT,
    "constitution_sha256": TEXT,
}


@dataclass(frozen=True)
class Draft:
    """A dialogue under revision."""

    prompt: Prompt
    round: int
    response: str
    raw_response: str
    principle: CritiquePrinciple | None = None
    critique: str = ""
    raw_critique: str = ""


def run(run: Run, folder: Path) -> Outcome:
    """Writes ``responses`` (round 0), ``revisions`` (later rounds) and ``helpful`` samples."""
    settings = run.config.sl_data
    generator = run.generator(run.policy(run.source("")), run.chat)
    dropped: dict[str, int] = {}
    prompts = run.training(run.red_team_prompts, settings.red_team_prompts)
    drafts = [_first_responses(run, generator, prompts, "response", dropped)]
    for number in range(1, settings.rounds + 1):
        drafts.append(_revise(run, generator, drafts[-1], number, dropped))
    helpful_prompts = run.repeated(
        run.training(run.helpful_prompts, settings.helpful_prompts), settings.helpful_samples
    )
    helpful = _first_responses(run, generator, helpful_prompts, "helpful", dropped)

    revisions = [draft for later in drafts[1:] for draft in later]
    if not revisions:
        raise ValueError(
            "sl_data: no revision could be parsed; use a larger model, more "
            "config.generation.response_tokens, or other few-shots"
        )
    write_records(folder, "responses", REVISION_FEATURES, [_row(run, d) for d in drafts[0]])
    write_records(folder, "revisions", REVISION_FEATURES, [_row(run, d) for d in revisions])
    if helpful:
        write_records(folder, "helpful", REVISION_FEATURES, [_row(run, d) for d in helpful])
    for what, count in dropped.items():
        log.info("sl_data: %d texts of kind %r did not parse and were dropped", count, what)
    return Outcome(
        {
            "prompts": len(prompts),
            "responses": len(drafts[0]),
            "revisions_by_round": [len(later) for later in drafts[1:]],
            "helpful": len(helpful),
            "dropped": dropped,
        },
        generator.tokens,
    )


def _first_responses(
    run: Run, generator: Generator, prompts: list[Prompt], kind: str, dropped: dict[str, int]
) -> list[Draft]:
    samples = _sample(run, generator, [conversation(p.text) for p in prompts], "", prompts, kind, 0)
    drafts = []
    for prompt, sample in zip(prompts, samples, strict=True):
        raw = run.chat.text(sample.ids)
        text = parse_reply(raw, sample.finished, ())
        if text is None:
            dropped[kind] = dropped.get(kind, 0) + 1
        else:
            drafts.append(Draft(prompt, 0, text, raw))
    return drafts


def _revise(
    run: Run, generator: Generator, drafts: list[Draft], number: int, dropped: dict[str, int]
) -> list[Draft]:
    """One round for every dialogue whose last step parsed, a principle drawn for each."""
    settings = run.config.sl_data
    examples = run.constitution.critique_examples[: settings.few_shots]
    copied = example_texts(examples)
    drawn = [_draw_principle(run, draft, number) for draft in drafts]
    if settings.critique:
        messages = [
            critique_messages(examples, d.prompt.text, d.response, d.principle) for d in drawn
        ]
        prompts = [d.prompt for d in drawn]
        samples = _sample(run, generator, messages, CRITIQUE_MARK, prompts, "critique", number)
        drawn = _keep_parsed(run, drawn, samples, "critique", copied, dropped)
    messages = [
        revision_messages(
            examples,
            d.prompt.text,
            d.response,
            d.principle,
            d.critique if settings.critique else None,
        )
        for d in drawn
    ]
    prompts = [d.prompt for d in drawn]
    samples = _sample(run, generator, messages, REVISION_MARK, prompts, "revision", number)
    return _keep_parsed(run, drawn, samples, "response", copied, dropped)


def _draw_principle(run: Run, draft: Draft, number: int) -> Draft:
    rng = named_rng(run.config.seed, "sl_data", "principle", draft.prompt.id, number)
    principles = run.constitution.critique_revision
    return replace(draft, round=number, principle=principles[rng.integers(len(principles))])


def _keep_parsed(
    run: Run,
    drafts: list[Draft],
    samples: list[Completion],
    field: str,
    copied: list[str],
    dropped: dict[str, int],
) -> list[Draft]:
    kept = []
    kind = "critique" if field == "critique" else "revision"
    for draft, sample in zip(drafts, samples, strict=True):
        raw = run.chat.text(sample.ids)
        request = getattr(draft.principle, f"{kind}_request")
        text = parse_reply(raw, sample.finished, [*copied, request])
        if text is None:
            dropped[kind] = dropped.get(kind, 0) + 1
        else:
            kept.append(replace(draft, **{field: text, f"raw_{field}": raw}))
    return kept


def _sample(
    run: Run,
    generator: Generator,
    messages: list[list[Message]],
    prefill: str,
    prompts: list[Prompt],
    kind: str,
    number: int,
) -> list[Completion]:
    g = run.config.generation
    return generator.generate(
        [run.chat.prompt_ids(m, prefill) for m in messages],
        [named_key(run.config.seed, "sl_data", kind, p.id, number) for p in prompts],
        g.critique_tokens if kind == "critique" else g.response_tokens,
        run.sampling,
        f"sl_data: {kind} {number}" if number else f"sl_data: {kind}",
    )


def _row(run: Run, draft: Draft) -> dict[str, Any]:
    prompt_ids = run.chat.prompt_ids(conversation(draft.prompt.text))
    reply_ids = run.chat.reply_ids(draft.response)
    return {
        "id": f"{draft.prompt.id}/{draft.round}",
        "prompt_id": draft.prompt.id,
        "prompt": draft.prompt.text,
        "round": draft.round,
        "principle_id": draft.principle.id if draft.principle else "",
        "critique": draft.critique,
        "response": draft.response,
        "raw_critique": draft.raw_critique,
        "raw_response": draft.raw_response,
        "tokens": prompt_ids + reply_ids,
        "loss_mask": [0] * len(prompt_ids) + [1] * len(reply_ids),
        "seed": run.config.seed,
        "model": run.model,
        "constitution_sha256": run.constitution.content_hash(),
    }


def steps(plan: Plan) -> list[Step]:
    """Responses, critiques and revisions; the program with the longest completion."""
    run, source = plan.run, plan.source()
    g = run.config.generation
    new = max(g.response_tokens, g.critique_tokens)
    model = plan.decoder(source, run.decode_mesh)
    name, prompt = "sl_data: revisions", g.context_tokens - new
    return [plan.generate(name, source, model, g.batch_size, prompt, new, run.sampling)]


STAGE = Stage(
    name="sl_data",
    inputs=("pretrain",),
    settings=lambda run: [
        run.config.sl_data,
        run.config.generation,
        run.constitution.content_hash(),
        run.file_hashes("red_team_prompts", "helpful_prompts"),
    ],
    run=run,
)
