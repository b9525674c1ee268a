"""What the page does: two answers side by side, votes on them, and critique and revision."""

import json
import secrets
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cai_jax.chat.speaker import Reply, Speaker
from cai_jax.commands.files import append_line
from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import Constitution, CritiqueExample, CritiquePrinciple
from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import read_pair, read_prompt
from cai_jax.prompts.critique_revision import (
    CRITIQUE_MARK,
    REVISION_MARK,
    critique_messages,
    example_texts,
    is_near_copy,
    revision_messages,
)
from cai_jax.prompts.few_shots import FewShots
from cai_jax.prompts.messages import Dialogue, split_system
from cai_jax.reading import FileError
from cai_jax.rl.reward import usable

Event = dict[str, Any]  # what the page is told; "text" continues what "of" names
Events = Generator[Event, None, None]
SIDES = ("A", "B")
EQUAL = "equal"
WAITING = 100  # duels that may wait for a vote; the oldest are forgotten


@dataclass(frozen=True)
class Duel:
    """Two answers to one dialogue, A first."""

    messages: Dialogue
    speakers: tuple[str, str]  # by name
    texts: tuple[str, str]


@dataclass(frozen=True)
class Critic:
    """Who criticises and revises, and by what."""

    speaker: Speaker
    constitution: Constitution
    few_shots: FewShots[CritiqueExample]


@dataclass
class Arena:
    """The page's models, one request at a time.

    Every action takes a request, and gives events of which the first comes once the request is
    known to be good.

    Attributes:
      speakers: two; the same twice for two samples of one model.
      opening: what dialogues begin with: a system message, or nothing.
      votes: a JSONL file that they are added to; None: they are not kept.
      critic: None: nothing is revised.
    """

    speakers: tuple[Speaker, Speaker]
    opening: Dialogue
    votes: Path | None
    critic: Critic | None
    duels: dict[str, Duel] = field(default_factory=dict)
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def actions(self) -> dict[str, Callable[[JsonRow], Events]]:
        """By the path of the request."""
        return {
            "/about": self.about,
            "/duel": self.duel,
            "/vote": self.vote,
            "/revise": self.revise,
        }

    def about(self, request: JsonRow) -> Events:
        """What the page can do."""
        constitution = self.critic.constitution if self.critic else None
        yield {
            "models": sorted({speaker.name for speaker in self.speakers}),
            "votes": str(self.votes or ""),
            "constitution": constitution.name if constitution else "",
            "principles": [
                {"id": p.id, "critique": p.critique_request, "revision": p.revision_request}
                for p in (constitution.critique_revision if constitution else ())
            ],
        }

    def duel(self, request: JsonRow) -> Events:
        """Two answers to the request's dialogue, token by token in turns, in random order."""
        messages = self._dialogue(request)
        name, order = secrets.token_hex(8), secrets.choice(((0, 1), (1, 0)))
        speakers = [self.speakers[i] for i in order]
        replies = [s.reply(messages, name, i) for s, i in zip(speakers, order, strict=True)]
        with self._alone():
            yield {"duel": name}
            for pieces in zip_longest(*replies, fillvalue=""):
                for side, piece in zip(SIDES, pieces, strict=True):
                    yield {"of": side, "text": piece}
            while len(self.duels) >= WAITING:
                del self.duels[next(iter(self.duels))]
        a, b = replies
        self.duels[name] = Duel(messages, (speakers[0].name, speakers[1].name), (a.text, b.text))
        for side, reply in zip(SIDES, replies, strict=True):
            yield {"of": side, "whole": reply.text, "finished": reply.finished}

    def vote(self, request: JsonRow) -> Events:
        """Keeps which answer is better, and says which model wrote which.

        Answers that are about equal are no pair, and nothing is kept of them.
        """
        better = request.text("better")
        if better not in (*SIDES, EQUAL):
            raise request.error(f"'better' is {better!r}; give one of {', '.join(SIDES)}, {EQUAL}")
        duel = self.duels.pop(name := request.text("duel"), None)
        if duel is None:
            raise request.error("these answers were voted on, or are too old; ask again")
        file = None if better == EQUAL else self.votes
        try:
            if file:
                append_line(file, _pair(name, duel, SIDES.index(better)))
        except ValueError:
            self.duels[name] = duel  # for another vote
            raise
        yield {"speakers": dict(zip(SIDES, duel.speakers, strict=True)), "kept": file is not None}

    def revise(self, request: JsonRow) -> Events:
        """A critique of a response and a revision by it (Bai et al. 2022, section 3.1).

        As in the stage sl_data, of which a round is one such pair.
        """
        messages, response = self._dialogue(request), request.text("response")
        if self.critic is None:
            raise request.error("there is no constitution; start again with --constitution")
        critic, name = self.critic, secrets.token_hex(8)
        principle = self._principle(request, name)
        shots = critic.few_shots.draw(name, messages)
        criticise = critique_messages(shots, messages, response, principle)
        reply = critic.speaker.reply(criticise, name, "critique", prefill=CRITIQUE_MARK)
        with self._alone():
            yield {"principle": principle.id, "critic": critic.speaker.name}
            given = [*example_texts(shots), principle.critique_request, response]
            critique = yield from _step("critique", reply, given)
            if critique is None:
                return
            revise = revision_messages(shots, messages, response, principle, critique)
            reply = critic.speaker.reply(revise, name, "revision", prefill=REVISION_MARK)
            given = [*example_texts(shots), principle.revision_request, response, critique]
            yield from _step("revision", reply, given, response)

    def _dialogue(self, request: JsonRow) -> Dialogue:
        own, turns = split_system(read_prompt(request).messages)
        return (*(own or self.opening), *turns)

    def _principle(self, request: JsonRow, name: str) -> CritiquePrinciple:
        """The one that the request names, or one that is drawn."""
        assert self.critic
        known = self.critic.constitution.critique_revision
        if not (wanted := request.text("principle")):
            return draw_principles(known, 1, self.critic.few_shots.seed, "chat", name)[0]
        for principle in known:
            if principle.id == wanted:
                return principle
        raise request.error(f"the constitution has no principle {wanted!r}; name one of its own")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The models, for one request.

        Raises:
          ValueError: another has them.
        """
        if not self.busy.acquire(timeout=5):
            raise ValueError("another answer is being written; wait for its end, or stop it")
        try:
            yield
        finally:
            self.busy.release()


def _step(
    kind: str, reply: Reply, given: Sequence[str], response: str | None = None
) -> Generator[Event, None, str | None]:
    """Events of a critique or revision; returns its text, None where a run would drop it.

    Args:
      kind: which it is.
      reply: that is sampled.
      given: what the model read, of which the reply should be no near-copy.
      response: what a revision may repeat.
    """
    for piece in reply:
        yield {"of": kind, "text": piece}
    found = usable(reply.chat, reply)
    dropped = ""
    if found is None:
        dropped = "it does not parse"
    elif is_near_copy(found.text, given, response):
        dropped = "it is a near-copy of what the model was given"
    yield {"of": kind, "whole": found.text if found else reply.text, "dropped": dropped}
    return None if dropped or found is None else found.text


def _pair(name: str, duel: Duel, better: int) -> str:
    """A vote as a labelled pair, and who wrote its sides.

    Raises:
      ValueError: no reader would take it.
    """
    (chosen, rejected), (by, by_other) = (
        (both[better], both[1 - better]) for both in (duel.texts, duel.speakers)
    )
    row = {
        "id": f"vote-{name}",
        "messages": [{"role": m.role, "content": m.text} for m in duel.messages],
        **{"chosen": chosen, "rejected": rejected},
        **{"chosen_model": by, "rejected_model": by_other},
    }
    try:
        read_pair(JsonRow(Path("vote"), 1, row))
    except FileError as error:
        raise ValueError(f"this vote cannot be kept as a pair: {error.problem}") from error
    return json.dumps(row, ensure_ascii=False)
