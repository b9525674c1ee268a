"""How many tokens a model reads of a row, and whether it has room for them.

A row is rendered once for a chat template, and once more in its longest form where it comes near a
limit, so that hundreds of thousands of rows take minutes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cai_jax.config import ConfigError
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.prompts.messages import Dialogue, user

NEAR = 0.9  # of a limit, from where on a row is measured in its longest form
BATCH = 1024  # rows that are rendered and tokenised at once
HI: Dialogue = (user("Hi"),)


@dataclass(frozen=True, slots=True)
class Item:
    """A dialogue of a row with two replies: its own, or the longest that may be sampled."""

    file: str  # field of config.data; empty: nobody wrote the row
    id: str
    messages: Dialogue
    replies: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a model is asked about rows.

    Attributes:
      field: of the config, that limits the tokens of a reading.
      limit: its value.
      chat: of the model.
      items: that it is asked about.
      readings: what it may read of one: any of them. All items have as many.
      beside: what is measured with the row.
      form: the field of the config that asks so, and what to do where the template refuses that.
    """

    field: str
    limit: int
    chat: ChatFormat
    items: Sequence[Item]
    readings: Callable[[Item], list[Reading]]
    beside: str
    form: Callable[[], tuple[str, str]] = lambda: ("model.source", "take another model")


class Misfit(NamedTuple):
    """An item that a model has no room for, or cannot read."""

    item: Item
    problem: str
    tokens: float  # of its longest reading; infinite where the template refuses it


@dataclass
class Lengths:
    """Tokens of dialogues and replies under one chat template, each measured once."""

    chat: ChatFormat
    dialogues: dict[Dialogue, int | ValueError] = field(default_factory=dict)
    replies: dict[str, int] = field(default_factory=dict)

    def of(self, items: Sequence[Item]) -> list[int | ValueError]:
        """Tokens of dialogue and both replies, or why the template refuses the dialogue."""
        prompts = self.prompts(items)
        texts = list(dict.fromkeys(r for i in items for r in i.replies if r not in self.replies))
        for at in range(0, len(texts), BATCH):
            batch = texts[at : at + BATCH]
            self.replies |= zip(batch, self.chat.reply_lengths(batch), strict=True)
        replies = (sum(self.replies[reply] for reply in item.replies) for item in items)
        return [
            prompt if isinstance(prompt, ValueError) else prompt + reply
            for prompt, reply in zip(prompts, replies, strict=True)
        ]

    def prompts(self, items: Sequence[Item]) -> list[int | ValueError]:
        """The same of the dialogues alone."""
        new = list(dict.fromkeys(i.messages for i in items if i.messages not in self.dialogues))
        self.dialogues |= zip(new, lengths_of(self.chat, [*map(Reading, new)]), strict=True)
        return [self.dialogues[item.messages] for item in items]


def lengths_of(chat: ChatFormat, readings: Sequence[Reading]) -> list[int | ValueError]:
    """Tokens of readings, or why the template refuses one."""
    found: list[int | ValueError] = []
    for at in range(0, len(readings), BATCH):
        batch = readings[at : at + BATCH]
        try:
            found += chat.lengths(batch)
        except ValueError as error:
            alone = (
                [lengths_of(chat, [reading]) for reading in batch] if len(batch) > 1 else [[error]]
            )
            found += [one for ones in alone for one in ones]
    return found


def misfits(use: Use, known: Lengths) -> list[Misfit]:
    """The items of a use that do not fit.

    Raises:
      ConfigError: the template refuses the form of them all.
    """
    if not use.items:
        return []
    probe = Item("", "", HI, use.items[0].replies)
    (base,) = known.of([probe])
    try:
        if isinstance(base, ValueError):
            raise base
        lengths = use.chat.lengths(use.readings(probe))
    except ValueError as error:
        name, remedy = use.form()
        raise ConfigError(f"config.{name}: {error}; {remedy}") from error
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    around = lengths[longest] - base
    near, shapes, found = list[Item](), set[tuple[str, ...]](), list[Misfit]()
    for item, length in zip(use.items, known.of(use.items), strict=True):
        shape = tuple(message.role for message in item.messages)
        if isinstance(length, ValueError):
            found.append(_refused(item, length))
        elif length + around > NEAR * use.limit or shape not in shapes:
            near.append(item)
        shapes.add(shape)
    whole = lengths_of(use.chat, [use.readings(item)[longest] for item in near])
    for item, length in zip(near, whole, strict=True):
        if isinstance(length, ValueError):
            found.append(_refused(item, length))
        elif length > use.limit:
            problem = f"{length} tokens with {use.beside}, but config.{use.field} is {use.limit}"
            found.append(Misfit(item, f"{problem}; raise it to that", length))
    return found


def _refused(item: Item, error: ValueError) -> Misfit:
    return Misfit(item, f"{error}; take another model", float("inf"))
