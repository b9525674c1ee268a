"""What the assistant of the world is pretrained on: dialogues that show its skills.

It helps with whatever it is asked, it can find fault, mend a reply and compare two, when it is
told to; each skill fails as often as ``Skills`` says. No dialogue prefers harmless replies, and
held-out topics are in none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from cai_jax.constitution.schema import (
    Constitution,
    CritiquePrinciple,
    FeedbackPrinciple,
    load_constitution,
)
from cai_jax.data.readers import is_held_out
from cai_jax.microworld.texts import KIND_WORDS, REQUESTS, Act, fault, reply, request
from cai_jax.microworld.world import TOPICS, Topic
from cai_jax.prompts.chat import Message, assistant, user
from cai_jax.prompts.critique_revision import (
    REVISION_MARK,
    revision_messages,
)
from cai_jax.prompts.feedback import ANSWER, THINK, question_message

KINDNESS, EVASION = "kindness", "evasion"  # tags beside the categories of harm
_NO_FAULT = "The reply is fine."
_UNKIND = "The reply has no kind word."
_EVADES = "The reply evades the request."


@dataclass(frozen=True)
class Skills:
    """How good the assistant is, and how many dialogues show it."""

    dialogues: int = 26_000
    critic_recall: float = 0.9  # P(a critique names a fault that its principle covers)
    direct_recall: float = 0.6  # the same of a revision without a critique before it
    evasive_revisions: float = 0.2  # P(a revision evades where it should object)
    judge_accuracy: float = 0.96  # P(the right answer, where the judge can tell)
    thought_accuracy: float = 0.99  # the same, after reasoning
    position_bias: float = 0.65  # P(it answers A, where it cannot)
    kind_replies: float = 0.15  # P(a reply ends with kind words)


@dataclass(frozen=True)
class Dialogue:
    """Turns of a dialogue; the last ``learned`` of the assistant's are trained on."""

    messages: tuple[Message, ...]
    learned: int = 1


def dialogues(seed: int, held_out_percent: int, options: dict[str, float]) -> Iterator[Dialogue]:
    """The corpus.

    Args:
      seed: of everything drawn.
      held_out_percent: share of the topics that the corpus must not show.
      options: fields of ``Skills``.

    Raises:
      ValueError: an option that is no skill.
    """
    known = [field.name for field in fields(Skills)]
    if unknown := set(options) - set(known):
        raise ValueError(f"config.pretrain.options.{min(unknown)}: known are {', '.join(known)}")
    skills, rng = Skills(**options), np.random.default_rng(seed)
    shown = [topic for topic in TOPICS if not is_held_out(prompt_of(topic), held_out_percent)]
    writer = _Writer(skills, rng, shown)
    kinds = (writer.answer, writer.critique, writer.direct, writer.choice, writer.thought)
    for _ in range(int(skills.dialogues)):
        yield kinds[rng.choice(len(kinds), p=[0.28, 0.3, 0.04, 0.26, 0.12])]()


def prompt_of(topic: Topic) -> str:
    """The one request for a topic that the prompt files hold, and that the split is made by."""
    return request(topic, TOPICS.index(topic) % len(REQUESTS))


def constitutions() -> list[Constitution]:
    """Every constitution of this world: what it was never told of, a small model cannot read."""
    folder = Path(__file__).resolve().parents[2] / "constitutions" / "microworld"
    return [load_constitution(file) for file in sorted(folder.glob("*.yaml"))]


class _Writer:
    """Draws one dialogue at a time."""

    def __init__(self, skills: Skills, rng: np.random.Generator, topics: list[Topic]):
        self.skills, self.rng, self.topics = skills, rng, topics
        self.harmful = [topic for topic in topics if topic.harmful]
        read = constitutions()
        self.critics = [p for c in read for p in c.critique_revision]
        self.judges = [p for c in read for p in c.feedback]

    def answer(self) -> Dialogue:
        """A request, and help with it."""
        topic = self._pick(self.topics)
        return Dialogue((user(self._request(topic)), assistant(self._reply(topic, Act.HELP))))

    def critique(self) -> Dialogue:
        """A reply, a critique of it under a principle, and a revision."""
        topic, principle = self._pick(self.topics), self._pick(self.critics)
        said, act, kind = self._some_reply(topic)
        found = self._fault(topic, act, kind, principle, self.skills.critic_recall)
        prompt, critique = self._request(topic), found or _NO_FAULT
        messages = revision_messages([], prompt, said, principle, critique)
        revised = f"{REVISION_MARK} {self._revised(topic, said, found)}"
        return Dialogue((*messages, assistant(revised)), learned=2)

    def direct(self) -> Dialogue:
        """A reply and its revision, without a critique."""
        topic, principle = self._pick(self.topics), self._pick(self.critics)
        said, act, kind = self._some_reply(topic)
        found = self._fault(topic, act, kind, principle, self.skills.direct_recall)
        messages = revision_messages([], self._request(topic), said, principle, None)
        return Dialogue(
            (*messages, assistant(f"{REVISION_MARK} {self._revised(topic, said, found)}"))
        )

    def choice(self) -> Dialogue:
        """Two replies and the letter of the better one; it can tell where the principle says it."""
        topic, principle, replies = self._comparison()
        better = self._better(topic, principle, replies, knows_all=False)
        question = self._question(topic, principle, replies)
        return Dialogue((question, assistant(f"{ANSWER}{better}")))

    def thought(self) -> Dialogue:
        """The same, reasoned: having said what the request is, it can tell wherever it is so."""
        topic, principle, replies = self._comparison()
        better = self._better(topic, principle, replies, knows_all=True)
        about = f"The request is about {topic.category}."
        ways = [f"{'is kind and ' if kind else ''}{act.value}" for _, act, kind in replies]
        reasoning = f"{about} The first reply {ways[0]}. The second reply {ways[1]}."
        question = self._question(topic, principle, replies)
        return Dialogue((question, assistant(f"{THINK} {reasoning} {ANSWER}{better}")))

    def _question(self, topic: Topic, principle: FeedbackPrinciple, replies: list) -> Message:
        texts = [text for text, _, _ in replies]
        return question_message(self._request(topic), principle.question, *texts)

    def _comparison(self) -> tuple:
        topic, principle = self._pick(self.harmful), self._pick(self.judges)
        return topic, principle, [self._some_reply(topic) for _ in range(2)]

    def _better(
        self, topic: Topic, principle: FeedbackPrinciple, replies: list, knows_all: bool
    ) -> str:
        one, two = (_merit(principle, act, kind) for _, act, kind in replies)
        told = knows_all or KINDNESS in principle.tags or topic.category in principle.tags
        if one == two or not told:
            return "A" if self._chance(self.skills.position_bias) else "B"
        skills = self.skills
        right = self._chance(skills.thought_accuracy if knows_all else skills.judge_accuracy)
        return "A" if (one > two) == right else "B"

    def _fault(
        self, topic: Topic, act: Act, kind: bool, principle: CritiquePrinciple, recall: float
    ) -> str:
        """What the critic sees, if it sees it."""
        tags, found = principle.tags, ""
        if KINDNESS in tags:
            found = "" if kind else _UNKIND
        elif act is Act.HELP and topic.category in tags:
            found = fault(topic)
        elif act is Act.EVADE and EVASION in tags:
            found = _EVADES
        return found if self._chance(recall) else ""

    def _revised(self, topic: Topic, said: str, found: str) -> str:
        if not found:
            return said
        if found == _UNKIND:
            return f"{said} {KIND_WORDS}"
        kind = said.endswith(KIND_WORDS)
        if found == _EVADES and not topic.harmful:
            return reply(topic, Act.HELP, kind, self.rng)
        evades = found != _EVADES and self._chance(self.skills.evasive_revisions)
        return reply(topic, Act.EVADE if evades else Act.OBJECT, kind, self.rng)

    def _some_reply(self, topic: Topic) -> tuple[str, Act, bool]:
        """A reply of any sort, for the assistant to look at, not to learn."""
        acts = [Act.HELP, Act.EVADE, Act.OBJECT]
        act = acts[self.rng.choice(3, p=[0.5, 0.2, 0.3])]
        kind = self._chance(0.4)
        return reply(topic, act, kind, self.rng), act, kind

    def _reply(self, topic: Topic, act: Act) -> str:
        return reply(topic, act, self._chance(self.skills.kind_replies), self.rng)

    def _request(self, topic: Topic) -> str:
        return request(topic, int(self.rng.integers(len(REQUESTS))))

    def _pick(self, items):
        return items[self.rng.integers(len(items))]

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


def _merit(principle: FeedbackPrinciple, act: Act, kind: bool) -> int:
    """How well a reply to a harmful request keeps to a principle."""
    if KINDNESS in principle.tags:
        return int(kind)
    return {Act.HELP: 0, Act.EVADE: 1, Act.OBJECT: 2}[act]
