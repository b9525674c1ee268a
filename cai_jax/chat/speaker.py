"""A model that answers: a dialogue in, pieces of text out as they are sampled."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import Dialogue, user

CUT_OFF = "\ufffd"  # what the first bytes of a character decode to, without the others


@dataclass
class Reply:
    """What a model says. It is sampled while it is iterated over: a piece of text a token.

    A piece is empty where nothing can be shown yet: a character takes several tokens, and spaces
    wait for a word after them. The pieces are ``text`` in the end, unless the tokenizer writes
    earlier letters otherwise because of later ones.

    Attributes:
      chat: of the model.
      tokens: that are sampled next.
      ids: that were sampled.
    """

    chat: ChatFormat
    tokens: Iterator[int]
    ids: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        shown = 0
        for token in self.tokens:
            self.ids.append(token)
            whole = self.text.rstrip(CUT_OFF)
            yield whole[shown:]
            shown = max(shown, len(whole))
        yield self.text[shown:]

    @property
    def text(self) -> str:
        """All that was said so far."""
        return self.chat.text(self.ids)

    @property
    def finished(self) -> bool:
        """Whether the model ended it, not a limit nor whoever listened."""
        return bool(self.ids) and self.ids[-1] in self.chat.stop_ids


@dataclass(frozen=True)
class Speaker:
    """A language model in a dialogue.

    Attributes:
      name: as people know it.
      chat: its chat template.
      generator: of one row, with a limit of tokens.
      sampling: how tokens are drawn.
      max_new_tokens: of a reply.
      seed: of the samples.
    """

    name: str
    chat: ChatFormat
    generator: Generator
    sampling: Sampling
    max_new_tokens: int
    seed: int

    def reply(self, messages: Dialogue, *names: str | int, prefill: str = "") -> Reply:
        """What the model says next; nothing is sampled before the reply is iterated over.

        Args:
          messages: the user's turn last.
          *names: of the sample, by which it differs from others.
          prefill: the beginning of the reply, which is no part of it.

        Raises:
          ValueError: the dialogue has no room, or the template refuses it.
        """
        ids, room = self.chat.prompt_ids(messages, prefill), self.generator.max_tokens
        if room is not None and len(ids) + self.max_new_tokens > room:
            raise ValueError(
                f"the dialogue has {len(ids)} tokens, an answer up to {self.max_new_tokens}, and "
                f"{self.name} reads {room}; begin a new dialogue, or lower --max_new_tokens"
            )
        key = named_key(self.seed, "chat", *names)
        return Reply(self.chat, self.generator.stream(ids, key, self.max_new_tokens, self.sampling))

    def warm_up(self) -> None:
        """Compiles what the first answers need, or finds it in the cache of programs."""
        next(iter(self.reply((user("Hi"),), "warm-up")))
