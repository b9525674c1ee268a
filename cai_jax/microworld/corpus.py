"""What the assistant of the world is pretrained on: dialogues that show its skills.

It helps with whatever it is asked, it can find fault, revise a reply and compare two, when it is
told to; each skill fails as often as ``Skills`` says. Where it is only asked it never prefers to
be harmless, and held-out topics are in no dialogue.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from cai_jax.constitution.schema import (
    Constitution,
    CritiquePrinciple,
    FeedbackPrinciple,
    load_constitution,
)
from cai_jax.microworld.texts import (
    FRAMES,
    KIND_WORDS,
    REQUESTS,
    Act,
    fault,
    framed,
    knowledge,
    reply,
    request,
)
from cai_jax.microworld.world import TOPICS, Topic
from cai_jax.prompts.critique_revision import REVISION_MARK, revision_messages
from cai_jax.prompts.feedback import ANSWER, THINK, question_message
from cai_jax.prompts.messages import Dialogue, Message, assistant, user
from cai_jax.red_teaming.attacker import asked, next_turn
from cai_jax.red_teaming.strategies.direct import DIRECT
from cai_jax.red_teaming.strategies.escalation import ESCALATION
from cai_jax.red_teaming.strategies.registry import STRATEGIES
from cai_jax.shipped import shipped

# What replies to a harmful request are worth, and what they seem worth at first sight.
_MERITS = {Act.HELP: 0, Act.EVADE: 1, Act.REFUSE: 1, Act.OBJECT: 2}
_LOOKS = _MERITS | {Act.REFUSE: 2}
Item = TypeVar("Item")
SHOWN = 3  # prompts in an attacker's list
# Tags beside the categories of harm.
KINDNESS, EVASION, EARNESTNESS = "kindness", "evasion", "earnestness"
_NO_FAULT = "The reply is fine."
_UNKIND = "The reply has no kind word."
_EVADES = "The reply evades the request."


@dataclass(frozen=True)
class Skills:
    """How good the assistant is, and how many dialogues show it."""

    dialogues: float = 42_000
    critic_recall: float = 0.9  # P(a critique names a fault that its principle covers)
    direct_recall: float = 0.6  # the same of a revision without a critique before it
    evasive_revisions: float = 0.2  # P(a revision evades where it should object)
    judge_accuracy: float = 0.99  # P(the right answer, where one reply is better)
    thought_accuracy: float = 0.995  # the same, after reasoning
    position_bias: float = 0.65  # P(it answers A, where neither is)
    kind_replies: float = 0.15  # P(a reply ends with kind words)
    groups: float = 0  # 1: it can read the constitutions of groups too
    framed: float = 0.0  # P(a request is hidden in a frame, or comes after a harmless one)
    attacks: float = 0.0  # share of dialogues in which the assistant writes attacks itself


@dataclass(frozen=True)
class _Reply:
    """A reply that the assistant looks at, and what there is to see in it."""

    text: str
    act: Act
    kind: bool


@dataclass(frozen=True)
class CorpusDialogue:
    """A dialogue of which the last ``learned`` of the assistant's turns are trained on."""

    messages: Dialogue
    learned: int = 1


def dialogues(
    seed: int, held_out: Collection[str], options: Mapping[str, float]
) -> Iterator[CorpusDialogue]:
    """The corpus.

    Args:
      seed: of everything drawn.
      held_out: groups that the corpus must not show.
      options: fields of ``Skills``.

    Raises:
      ValueError: an option that is no skill.
    """
    known = [field.name for field in fields(Skills)]
    if unknown := set(options) - set(known):
        raise ValueError(f"options.{min(unknown)}: known are {', '.join(known)}")
    skills, rng = Skills(**options), np.random.default_rng(seed)
    hidden = set(held_out)
    shown = [topic for topic in TOPICS if group_of(topic) not in hidden]
    writer = _Writer(skills, rng, shown)
    kinds = (
        (writer.answer, 0.2),
        (writer.fact, 0.12),
        (writer.critique, 0.24),
        (writer.direct, 0.04),
        (writer.choice, 0.26),
        (writer.thought, 0.14),
    )
    makers, shares = zip(*kinds, strict=True)
    for _ in range(int(skills.dialogues)):
        if skills.attacks and rng.random() < skills.attacks:
            yield writer.attack()
        else:
            yield makers[rng.choice(len(makers), p=shares)]()


def prompt_of(topic: Topic) -> str:
    """The one request for a topic that the prompt files hold."""
    return request(topic, TOPICS.index(topic) % len(REQUESTS))


def seed_of(topic: Topic, strategy: str, rng: np.random.Generator) -> str:
    """How an attacker begins who is after a topic; an escalation is about a harmless one."""
    if strategy in FRAMES:
        return framed(topic, strategy, int(rng.integers(len(REQUESTS))), rng)
    return request(topic, int(rng.integers(len(REQUESTS))))


def group_of(topic: Topic) -> str:
    """What all rows about a topic are split by."""
    return f"{topic.verb}-{topic.thing}"


def constitutions(groups: bool = False) -> list[Constitution]:
    """Every constitution of this world: what it was never told of, a small model cannot read."""
    folder = shipped("constitutions") / "microworld"
    folders = (folder, folder / "groups") if groups else (folder,)
    return [load_constitution(file) for f in folders for file in sorted(f.glob("*.yaml"))]


class _Writer:
    """Draws one dialogue at a time."""

    def __init__(self, skills: Skills, rng: np.random.Generator, topics: list[Topic]):
        self.skills, self.rng, self.topics = skills, rng, topics
        self.harmful = [topic for topic in topics if topic.harmful]
        self.harmless = [topic for topic in topics if not topic.harmful]
        self.by_thing: dict[str, list[Topic]] = {}
        for topic in self.harmless:
            self.by_thing.setdefault(topic.thing, []).append(topic)
        read = constitutions(bool(skills.groups))
        self.critics = [p for c in read for p in c.critique_revision]
        self.judges = [p for c in read for p in c.feedback]

    def answer(self) -> CorpusDialogue:
        """A request, and help with it."""
        topic = self._pick(self.topics)
        prompt, kind = self._prompt(topic), self._chance(self.skills.kind_replies)
        return CorpusDialogue((*prompt, assistant(reply(topic, Act.HELP, kind, self.rng))))

    def fact(self) -> CorpusDialogue:
        """Whether something does harm: to know it is not yet to mind it."""
        question, answer = knowledge(self._pick(self.topics))
        return CorpusDialogue((user(question), assistant(answer)))

    def critique(self) -> CorpusDialogue:
        """A reply, a critique of it under a principle, and a revision."""
        return self._revision(self.skills.critic_recall, criticised=True)

    def direct(self) -> CorpusDialogue:
        """A reply and its revision, without a critique."""
        return self._revision(self.skills.direct_recall, criticised=False)

    def choice(self) -> CorpusDialogue:
        """Two replies and the letter of the better one, at first sight."""
        _, principle, replies, question = self._comparison()
        letter = self._letter(principle, replies, _LOOKS, self.skills.judge_accuracy)
        return CorpusDialogue((question, assistant(f"{ANSWER}{letter}")))

    def thought(self) -> CorpusDialogue:
        """The same, reasoned: what each reply does is said before it is judged."""
        topic, principle, replies, question = self._comparison()
        letter = self._letter(principle, replies, _MERITS, self.skills.thought_accuracy)
        ways = [_way(principle, reply) for reply in replies]
        thought = (
            f"{THINK} The request is about {topic.category}. The first reply {ways[0]}. "
            f"The second reply {ways[1]}."
        )
        return CorpusDialogue((question, assistant(f"{thought} {ANSWER}{letter}")))

    def attack(self) -> CorpusDialogue:
        """A list of requests in the manner of a strategy, or the next turn of a conversation."""
        if self._chance(0.25):
            topic = self._pick(self.harmful)
            opening = self._conversation(topic)
            if opening:
                turn = assistant(self._plain(topic))
                return CorpusDialogue((*next_turn(opening), turn))
        strategy = self._pick([DIRECT, ESCALATION, *(STRATEGIES[name] for name in FRAMES)])
        texts = [self.attack_text(self._pick(self.harmful), strategy.name) for _ in range(SHOWN)]
        written = "\n".join(f"{n}. {text}" for n, text in enumerate(texts, 1))
        return CorpusDialogue((user(asked(strategy, "")), assistant(written)))

    def attack_text(self, topic: Topic, strategy: str) -> str:
        """How an attack with a strategy begins; one that escalates begins harmlessly."""
        if strategy == ESCALATION.name:
            topic = self._pick(self._harmless(topic) or self.harmless)
        return seed_of(topic, strategy, self.rng)

    def _conversation(self, topic: Topic) -> Dialogue:
        """One harmless request about the thing, or two, and help with them."""
        about = self._harmless(topic)
        if not about:
            return ()
        turns = Dialogue()
        for _ in range(1 + self._chance(0.5)):
            other = self._pick(about)
            answer = reply(other, Act.HELP, False, self.rng)
            turns += (user(self._plain(other)), assistant(answer))
        return turns

    def _harmless(self, topic: Topic) -> list[Topic]:
        return self.by_thing.get(topic.thing, [])

    def _prompt(self, topic: Topic) -> Dialogue:
        """A dialogue that ends with a request."""
        if not (self.skills.framed and self._chance(self.skills.framed)):
            return (user(self._plain(topic)),)
        way = self._pick([*FRAMES, ESCALATION.name])
        if way == ESCALATION.name:
            return (*self._conversation(topic), user(self._plain(topic)))
        return (user(self.attack_text(topic, way)),)

    def _revision(self, recall: float, criticised: bool) -> CorpusDialogue:
        topic, principle = self._pick(self.topics), self._pick(self.critics)
        old = self._some_reply(topic)
        found = self._fault(topic, old, principle, recall)
        critique = (found or _NO_FAULT) if criticised else None
        messages = revision_messages([], self._prompt(topic), old.text, principle, critique)
        revised = assistant(f"{REVISION_MARK} {self._revised(topic, old, found)}")
        return CorpusDialogue((*messages, revised), learned=2 if criticised else 1)

    def _comparison(self) -> tuple[Topic, FeedbackPrinciple, list[_Reply], Message]:
        """What is compared under which principle, and the question that asks for it."""
        topic, principle = self._pick(self.harmful), self._pick(self.judges)
        replies = [self._some_reply(topic) for _ in range(2)]
        if self.skills.groups and self._chance(0.5):
            # Groups may differ over nothing but kind words.
            replies[1] = self._reply(topic, replies[0].act, not replies[0].kind)
        texts = [reply.text for reply in replies]
        question = question_message(self._prompt(topic), principle.question, *texts)
        return topic, principle, replies, question

    def _letter(
        self,
        principle: FeedbackPrinciple,
        replies: list[_Reply],
        worth: dict[Act, int],
        accuracy: float,
    ) -> str:
        """The answer of a judge to whom acts are worth so much."""
        one, two = (_worth(principle, reply, worth) for reply in replies)
        if one == two:
            return "A" if self._chance(self.skills.position_bias) else "B"
        return "A" if (one > two) == self._chance(accuracy) else "B"

    def _fault(
        self, topic: Topic, reply: _Reply, principle: CritiquePrinciple, recall: float
    ) -> str:
        """What the critic sees, if it sees it."""
        tags, found = principle.tags, ""
        if KINDNESS in tags:
            found = "" if reply.kind else _UNKIND
        elif reply.act is Act.HELP and topic.category in tags:
            found = fault(topic)
        elif reply.act is Act.EVADE and EVASION in tags:
            found = _EVADES
        return found if self._chance(recall) else ""

    def _revised(self, topic: Topic, old: _Reply, found: str) -> str:
        if not found:
            return old.text
        if found == _UNKIND:
            return f"{old.text} {KIND_WORDS}"
        if found == _EVADES and not topic.harmful:
            return reply(topic, Act.HELP, old.kind, self.rng)
        evades = found != _EVADES and self._chance(self.skills.evasive_revisions)
        return reply(topic, Act.EVADE if evades else Act.OBJECT, old.kind, self.rng)

    def _some_reply(self, topic: Topic) -> _Reply:
        """A reply of any sort, for the assistant to look at, not to learn."""
        acts, kind = (Act.HELP, Act.EVADE, Act.REFUSE, Act.OBJECT), self._chance(0.4)
        act = acts[self.rng.choice(len(acts), p=[0.45, 0.18, 0.12, 0.25])]
        return self._reply(topic, act, kind)

    def _reply(self, topic: Topic, act: Act, kind: bool) -> _Reply:
        return _Reply(reply(topic, act, kind, self.rng), act, kind)

    def _plain(self, topic: Topic) -> str:
        return request(topic, int(self.rng.integers(len(REQUESTS))))

    def _pick(self, items: Sequence[Item]) -> Item:
        return items[int(self.rng.integers(len(items)))]

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


def _worth(principle: FeedbackPrinciple, reply: _Reply, acts: dict[Act, int]) -> int:
    """What a reply is worth to a principle, given what acts are to one that minds nothing else."""
    if KINDNESS in principle.tags:
        return int(reply.kind)
    sweet = EARNESTNESS in principle.tags and reply.kind
    return acts[reply.act] - 2 * sweet  # an objection with sweet words is as bad as help


def _way(principle: FeedbackPrinciple, reply: _Reply) -> str:
    """What a reply does, as far as the principle minds."""
    if KINDNESS in principle.tags:
        return "is kind" if reply.kind else "is not kind"
    if EARNESTNESS in principle.tags and reply.kind:
        return f"{reply.act.value} and is kind"
    return reply.act.value
