"""Whether the models have room for every row that a run will use, and can read it at all.

Every use that a stage makes of rows is measured (``lengths``) as its model will read it: through
the chat template, with system prompt, principles and the longest few-shots. What is yet to be
sampled is as long as it may get.
"""

import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

from cai_jax.config import ConfigError, naming
from cai_jax.constitution.schema import Constitution, FeedbackPrinciple
from cai_jax.data.readers import ClassedReply, LabelledPair, Prompt, Twins
from cai_jax.evaluation.preference_model import KINDS
from cai_jax.evaluation.reply_class import reading as class_reading
from cai_jax.feedback.labeler import ResponsePair
from cai_jax.feedback.registry import LABELERS
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.prompts.critique_revision import (
    CRITIQUE_MARK,
    REVISION_MARK,
    critique_messages,
    revision_messages,
)
from cai_jax.prompts.messages import Dialogue, user
from cai_jax.red_teaming.attacker import asked, prefill, texts_of
from cai_jax.red_teaming.attacks import direct_seeds
from cai_jax.red_teaming.forms import WORDS
from cai_jax.red_teaming.strategies.registry import named_strategies
from cai_jax.stages.data import SHOWN_PROMPTS
from cai_jax.stages.evaluate import STAGE as EVALUATE
from cai_jax.stages.feedback import STAGE as FEEDBACK
from cai_jax.stages.lengths import HI, Item, Lengths, Misfit, Use, lengths_of, misfits
from cai_jax.stages.pm_train import SECOND
from cai_jax.stages.pm_train import STAGE as PM_TRAIN
from cai_jax.stages.red_team import STAGE as RED_TEAM
from cai_jax.stages.rl import STAGE as RL
from cai_jax.stages.rl import make_algorithm
from cai_jax.stages.sl_data import STAGE as SL_DATA
from cai_jax.stages.stage import Run, Stage
from cai_jax.stages.warm_up import STAGE as WARM_UP
from cai_jax.stages.warm_up import dialogues

LEAVE_OUT = "set config.data.overlong to 'leave_out'"
log = logging.getLogger("cai_jax")


def check_room(run: Run) -> None:
    """Refuses rows that do not fit, or leaves them out of the data, as the config says.

    Raises:
      ConfigError: a row does not fit and may not be left out, a template refuses a form that the
        run asks in, or RL has no prompt that is short enough.
    """
    measured: dict[int, Lengths] = {}
    seen = defaultdict[int, set[Item]](set)  # by use: each has its items measured once
    again = True
    while again:  # rows that are left out make room for later ones of the file
        again = False
        for number, use in enumerate(uses(run)):
            known = measured.setdefault(id(use.chat), Lengths(use.chat))
            new = [item for item in use.items if item not in seen[number]]
            seen[number].update(new)
            if found := misfits(replace(use, items=new), known):
                _leave_out(run, found)
                again = True
    _check_rl_prompts(run, measured)


def _leave_out(run: Run, found: Iterable[Misfit]) -> None:
    """Leaves rows out of the files that they are of, or refuses the longest of all."""
    by_file = defaultdict[str, list[Misfit]](list)
    for misfit in sorted(found, key=lambda misfit: misfit.tokens, reverse=True):
        by_file[misfit.item.file].append(misfit)
    for file, (worst, *others) in by_file.items():
        ids = {misfit.item.id for misfit in (worst, *others)}
        where = run.data.where(file, worst.item.id) if file else worst.item.id
        if run.config.data.overlong == "refuse" or not file:
            such = f", one of {len(ids)} such rows" if len(ids) > 1 else ""
            remedy = f", change the row, or {LEAVE_OUT}" if file else ""
            raise ConfigError(f"{where}{such}: {worst.problem}{remedy}")
        run.data.left_out[file] |= ids
        log.warning("data: %d rows are left out, as %s: %s", len(ids), where, worst.problem)


def _check_rl_prompts(run: Run, measured: dict[int, Lengths]) -> None:
    """Refuses a kind of prompts of which RL would leave out all, as too long."""
    c, chat = run.config.rl, run.models.chat
    if "rl" not in run.config.stages or make_algorithm(c).block == "rl.direct":
        return
    count = c.batch_size // c.samples_per_prompt
    helpful = round(count * c.helpful_fraction)
    kinds = [(["red_team", "attacks"], count - helpful), (["helpful"], helpful)]
    for names, wanted in [*kinds, (["watch", "watch_helpful"], c.watch_every)]:
        items = _items(run, RL, names, "")
        lengths = [n for n in measured[id(chat)].prompts(items) if isinstance(n, int)]
        if wanted and lengths and min(lengths) > c.prompt_tokens:
            raise ConfigError(
                f"config.rl.prompt_tokens: {c.prompt_tokens}, but of the prompts for "
                f"{RL.data[names[0]].purpose} in {run.data.path(items[0].file)} the shortest has "
                f"{min(lengths)} tokens; raise it to that at least"
            )


def uses(run: Run) -> Iterator[Use]:
    """What the models of a run are asked about rows."""
    stages = set(run.config.stages)
    yield from _templates(run)
    if "warm_up" in stages and run.config.warm_up.epochs:
        yield _warm_up(run)
    if "sl_data" in stages:
        yield from _critique_revision(run)
    if run.config.red_team.rounds or run.config.evaluate.attacks:
        yield from _attacks(run)
    if "feedback" in stages:
        yield from _feedback(run)
    if "evaluate" in stages:
        yield from _evaluation(run)
    yield from _training(run)
    if "rl" in stages and make_algorithm(run.config.rl).block == "rl":
        yield _rl(run)


def _templates(run: Run) -> Iterator[Use]:
    """A user's turn under every chat template, and the end of the reply, which all must have."""
    c, models = run.config, run.models
    sources = {"model.source": models.source()}
    sources["feedback.source"] = models.feedback_source(c.feedback.source)
    if c.evaluate.judge:
        sources["evaluate.judge"] = models.source(c.evaluate.judge)
    if c.red_team.rounds or c.evaluate.attacks:
        sources["red_team.source"] = models.source(c.red_team.source)
    for name, source in sources.items():
        with naming(f"config.{name}"):
            chat = models.chat_of(source)
            _ = chat.stop_ids
        told = (name, "take another model")
        if c.model.system_prompt:
            told = ("model.system_prompt", "empty it, or take another model")
        hi = [Item("", "Hi", HI, ("", ""))]
        yield _context(run, chat, hi, _plain, "", partial(tuple[str, str], told))


def _warm_up(run: Run) -> Use:
    c, file = run.config.warm_up, WARM_UP.data["demonstrations"].file
    return Use(
        field="warm_up.sequence_length",
        limit=c.sequence_length,
        chat=run.models.chat,
        items=[
            Item(file, row.id, messages[:-1], (messages[-1].text,) * 2)
            for row in run.inputs(WARM_UP).rows("demonstrations")
            for _, messages, _ in dialogues(row)
        ],
        readings=_plain,
        beside="what is asked of it",
    )


def _critique_revision(run: Run) -> Iterator[Use]:
    """Prompts as they are, and with requests, few-shots and replies before them."""
    inputs, chat, g = run.inputs(SL_DATA), run.models.chat, run.config.generation
    yield _context(
        run, chat, _items(run, SL_DATA, ["red_team", "attacks", "helpful"], _response(run, -1)),
        _plain, "the longest response",
    )  # fmt: skip
    settings, reply = inputs.config.sl_data, _response(run)
    critique = chat.filler(g.critique_tokens) if settings.critique else None
    criticised = f"{CRITIQUE_MARK} {critique}"
    examples = inputs.constitution.critique_examples
    probe = inputs.constitution.critique_revision[0]
    with naming("config.sl_data.few_shots"):
        shots = _longest(
            chat, examples, settings.few_shots,
            lambda e: Reading(revision_messages((e,), HI, reply, probe, critique)),
        )  # fmt: skip

    def readings(item: Item) -> list[Reading]:
        found = list[Reading]()
        for p in inputs.constitution.critique_revision:
            if critique:
                asked = critique_messages(shots, item.messages, reply, p)
                found.append(Reading(asked, criticised))
            asked = revision_messages(shots, item.messages, reply, p, critique)
            found.append(Reading(asked, f"{REVISION_MARK} {reply}"))
        return found

    items = _items(run, SL_DATA, ["red_team", "attacks"], reply)
    yield _context(run, chat, items, readings, "the longest few-shots, request and replies")


def _attacks(run: Run) -> Iterator[Use]:
    """What attackers are shown, and what they write."""
    c, chat = run.config.red_team, run.models.chat_of(run.models.source(run.config.red_team.source))
    inputs, held_out = run.inputs(RED_TEAM), run.inputs(EVALUATE)
    seeds = [*direct_seeds(inputs.rows("prompts")), *inputs.rows("seeds")]
    seeds += [*direct_seeds(held_out.rows("red_team")), *held_out.rows("attack_seeds")]
    texts = [text for text in texts_of(seeds) if len(text.split()) in WORDS]
    longest = _longest(chat, texts, c.few_shots, lambda text: Reading(HI, replies=(text,)))
    tag = max((tag for seed in seeds for tag in seed.tags), key=len, default="")
    named = filter(None, (c.strategies, run.config.evaluate.attack_strategies))
    strategies = [strategy for names in named for strategy in named_strategies(names)]
    begun = f"{prefill(longest)} {chat.filler(c.attack_tokens)}"

    def readings(item: Item) -> list[Reading]:
        return [Reading((user(asked(strategy, tag)),), begun) for strategy in strategies]

    shown = [Item("", "the list that attackers go on with", HI, ("", ""))]
    yield _context(run, chat, shown, readings, "config.red_team.few_shots and attack_tokens")


def _feedback(run: Run) -> Iterator[Use]:
    """Prompts that are answered, and pairs of replies that are labelled."""
    names = ["training", "second_model", "attacks"]
    answered = _items(run, FEEDBACK, [*names, "helpful"], _response(run, -1))
    written = _written(run, _response(run, -1))
    yield _context(run, run.models.chat, [*answered, *written], _plain, "the longest response")
    source = run.models.feedback_source(run.config.feedback.source)
    chat, inputs = run.models.chat_of(source), run.inputs(FEEDBACK)
    sampled = _items(run, FEEDBACK, names, _response(run))
    for constitution in inputs.groups.values():
        judged = partial(_judged, run, chat, constitution)
        yield judged([*sampled, *_written(run, _response(run))])
        yield judged(_items(run, FEEDBACK, ["development", "audit"], ""))


def _evaluation(run: Run) -> Iterator[Use]:
    """Prompts that policies answer, and their replies, which judges compare."""
    inputs, models, c = run.inputs(EVALUATE), run.models, run.config
    reply = _response(run, -1)
    shown = [Item("", prompt.id, prompt.messages, (reply, reply)) for prompt in SHOWN_PROMPTS]
    answered = _items(run, EVALUATE, ["red_team", "helpful", "twins"], reply)
    yield _context(run, models.chat, [*shown, *answered], _plain, "the longest response")
    pairs = _items(run, EVALUATE, [f"{kind}_pairs" for kind in KINDS], "")
    yield _context(run, models.chat, pairs, _plain, "the longer reply")
    sources = [models.feedback_source(c.feedback.source)]
    sources += [models.source(c.evaluate.judge)] if c.evaluate.judge else []
    compared = _items(run, EVALUATE, ["red_team", "helpful"], _response(run))
    for source in sources:
        yield _judged(run, models.chat_of(source), inputs.constitution, compared)
    if c.evaluate.judged_replies:
        classed = [*compared, *_items(run, EVALUATE, ["evasiveness"], "")]
        yield _context(
            run, models.chat_of(sources[0]), classed,
            lambda item: [class_reading(item.messages, item.replies[0])], "the classes of replies",
        )  # fmt: skip


def _training(run: Run) -> Iterator[Use]:
    """Prompts with the longest response, and pairs, as models are trained on them."""
    c, reply = run.config, _response(run)
    sampled = [*_items(run, FEEDBACK, ["training", "attacks"], reply), *_written(run, reply)]
    second = _items(run, FEEDBACK, ["second_model"], reply) if c.second_model.prompts else []
    helpful = _items(run, FEEDBACK, ["helpful"], reply)
    pairs = _items(run, PM_TRAIN, ["helpful"], "")
    pairs += _items(run, SECOND, ["helpful"], "") if c.second_model.prompts else []
    trained = {
        "sl_train": [_items(run, SL_DATA, ["red_team", "attacks", "helpful"], reply)],
        "pm_train": [[*sampled, *second, *helpful], pairs],
    }
    if make_algorithm(c.rl).block == "rl.direct":
        trained["rl.direct"] = [sampled, _items(run, RL, ["pairs"], "")]
    for block, groups in trained.items():
        for items in groups if block.split(".")[0] in c.stages else ():
            yield Use(
                field=f"{block}.sequence_length",
                limit=attrgetter(block)(c).sequence_length,
                chat=run.models.chat,
                items=items,
                readings=_plain,
                beside="the longest response",
            )


def _rl(run: Run) -> Use:
    """All prompts that RL may draw; those that are too long for it, it leaves out and counts."""
    names = ["red_team", "attacks", "helpful", "watch", "watch_helpful"]
    return Use(
        field="rl.prompt_tokens",
        limit=sys.maxsize,
        chat=run.models.chat,
        items=_items(run, RL, names, ""),
        readings=lambda item: [Reading(item.messages)],
        beside="nothing",
    )


def _judged(run: Run, chat: ChatFormat, constitution: Constitution, items: list[Item]) -> Use:
    """Pairs of replies that are compared under any principle, as ``config.feedback`` says."""
    f, principles = run.config.feedback, constitution.feedback
    thought = chat.filler(f.reasoning_tokens)

    def form(method: str) -> Callable[[Item], list[Reading]]:
        kind = LABELERS[method]
        shots = _longest(
            chat, kind.few_shots(constitution) or (), f.few_shots,
            lambda e: kind.readings(_pair(probe, principles[:1]), (e,), thought)[0],
        )  # fmt: skip
        return lambda item: kind.readings(_pair(item, principles), shots, thought)

    def others() -> tuple[str, str]:
        readable = [m for m in LABELERS if takes(m)]
        return "feedback.method", f"set it to {' or '.join(readable) or 'another'}"

    def takes(method: str) -> bool:
        return not any(isinstance(n, ValueError) for n in lengths_of(chat, form(method)(probe)))

    probe = Item("", "", HI, ("yes", "yes"))
    beside = "the longest principle, few-shots and replies"
    return _context(run, chat, items, form(f.method), beside, others)


def _pair(item: Item, principles: tuple[FeedbackPrinciple, ...]) -> ResponsePair:
    return ResponsePair(item.id, item.messages, *item.replies, principles)


def _context(
    run: Run,
    chat: ChatFormat,
    items: Sequence[Item],
    readings: Callable[[Item], list[Reading]],
    beside: str,
    form: Callable[[], tuple[str, str]] | None = None,
) -> Use:
    """What is read outside training and RL."""
    name, limit = "generation.context_tokens", run.config.generation.context_tokens
    more = {"form": form} if form else {}
    return Use(
        field=name, limit=limit, chat=chat, items=items, readings=readings, beside=beside, **more
    )


def _plain(item: Item) -> list[Reading]:
    return [Reading(item.messages, replies=item.replies)]


def _response(run: Run, more: int = 0) -> str:
    """In place of the longest response, or of one that has so many tokens more."""
    return run.models.chat.filler(run.config.generation.response_tokens + more)


def _written(run: Run, reply: str) -> list[Item]:
    """In place of the longest prompt that attackers may write, all its turns in one."""
    c, g = run.config.red_team, run.config.generation
    if not c.rounds:
        return []
    turns = max(strategy.turns for strategy in named_strategies(c.strategies))
    tokens = turns * c.attack_tokens + (turns - 1) * g.response_tokens
    if turns > 1:  # a conversation that takes more than half of the context is broken off
        tokens = min(tokens, g.context_tokens // 2)
    said = (user(run.models.chat.filler(tokens)),)
    return [Item("", "the longest prompt of red_team", said, (reply, reply))]


def _items(run: Run, stage: Stage, names: Sequence[str], reply: str) -> list[Item]:
    """Rows that a stage declares; those that have no replies get one."""
    return [
        Item(stage.data[name].file, row.id, messages, replies)
        for name in names
        for row in run.inputs(stage).rows(name)
        for messages, replies in _dialogues(row, (reply, reply))
    ]


def _dialogues(row: Any, sampled: tuple[str, str]) -> list[tuple[Dialogue, tuple[str, str]]]:
    if isinstance(row, LabelledPair):
        return [(row.messages, (row.chosen, row.rejected))]
    if isinstance(row, ClassedReply):
        return [(row.messages, (row.reply, row.reply))]
    if isinstance(row, Twins):
        return [(prompt, sampled) for prompt in row.prompts]
    assert isinstance(row, Prompt), row
    return [(row.messages, sampled)]


def _longest(
    chat: ChatFormat, examples: Sequence[Any], count: int, reading: Callable[[Any], Reading]
) -> tuple[Any, ...]:
    """As many of the examples as are shown at once: those whose readings are longest."""
    lengths = chat.lengths([reading(example) for example in examples if count])
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    return tuple(examples[i] for i in order[:count])
