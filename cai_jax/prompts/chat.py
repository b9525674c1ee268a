"""The chat template of a model, applied once, here."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cai_jax.prompts.gguf_tokenizer import gguf_tokenizer
from cai_jax.prompts.messages import Message, assistant, split_system, system, user

THINKING = "enable_thinking"  # variable of the templates of models that think before they reply


def load_tokenizer(path: Path, needs_template: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder or a .gguf file.

    Raises:
      ValueError: it has no chat template, and needs one.
    """
    is_gguf = path.suffix == ".gguf"
    tokenizer = gguf_tokenizer(path) if is_gguf else _folder_tokenizer(path)
    if needs_template and not tokenizer.chat_template:
        raise ValueError(
            f"{path}: the tokenizer has no chat template; use an instruction-tuned model, or add "
            "chat_template.jinja to the folder"
        )
    return tokenizer


def _folder_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise ValueError(f"{folder}: no tokenizer that can be read ({error})") from error


@dataclass(frozen=True)
class ChatFormat:
    """Dialogues to token ids and back, for one tokenizer.

    Attributes:
      tokenizer: with a chat template, unless it is for ``plain_ids`` alone.
      system_prompt: of dialogues without a system message; empty: whatever the template puts there.
    """

    tokenizer: PreTrainedTokenizerBase
    system_prompt: str = ""

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> list[int]:
        """Ids up to where the assistant's reply begins, or continues after ``prefill``.

        A dialogue that begins with a system message keeps it; others get ``system_prompt``.

        Raises:
          ValueError: the template refuses the dialogue.
        """
        own, _ = split_system(messages)
        ours = () if own or not self.system_prompt else (system(self.system_prompt),)
        text = self._template([*ours, *messages], add_generation_prompt=True)
        return self._encode(text + prefill)

    def plain_ids(self, text: str, starts: bool) -> list[int]:
        """Ids of text outside any dialogue; one that ``starts`` gets the tokenizer's own start."""
        return self.tokenizer(text)["input_ids"] if starts else self._encode(text)

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a finished reply: the text and the end of turn."""
        return [*self._encode(text), self.end_of_turn]

    def judged_ids(self, prompt_ids: Sequence[int], text: str) -> list[int]:
        """What the preference model reads, in training and in every scoring: a finished reply."""
        return [*prompt_ids, *self.reply_ids(text)]

    def text(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return cast(str, self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def is_text(self, ids: Sequence[int]) -> bool:
        """Whether all ids have a text that ``text`` shows: none is special, or of no token.

        Nor may they spell a special token, which would be one where the text is read again.
        """
        return self._plain(ids) and self._plain(self._encode(self.text(ids)))

    def as_far_as(self, ids: Sequence[int], text: str) -> tuple[list[int], int]:
        """Ids of ``text``, with which the text of the given ids begins.

        Returns:
          The ids, and how many of the given ones they begin with. Where ``text`` ends within a
          token ("。So"), its part is encoded by itself, and the token is not counted.
        """
        begins = lambda n: self.text(ids[:n]).startswith(text)
        count = bisect_left(range(len(ids)), True, key=begins)
        while not text.startswith(self.text(ids[:count])):
            count -= 1
        rest = text[len(self.text(ids[:count])) :]
        return [*ids[:count], *(self._encode(rest) if rest else ())], count

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply."""
        eos = self.tokenizer.eos_token_id
        return (self.end_of_turn,) if eos in (None, self.end_of_turn) else (self.end_of_turn, eos)

    @cached_property
    def end_of_turn(self) -> int:
        """The token that the template puts after an assistant's reply."""
        text = self._template([user("Hi"), assistant("yes")], add_generation_prompt=False)
        tail = self._encode(text[text.rindex("yes") + len("yes") :])
        return next((i for i in tail if i in self._special), self.tokenizer.eos_token_id)

    def _plain(self, ids: Sequence[int]) -> bool:
        count = len(self.tokenizer)
        return all(i < count and i not in self._special for i in ids)

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special)

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        turns = [{"role": message.role, "content": message.text} for message in messages]
        # Thoughts would be read as the reply: few tokens leave no room for anything after them.
        knows = THINKING in str(self.tokenizer.chat_template)
        options: dict[str, Any] = {THINKING: False} if knows else {}
        try:
            text = self.tokenizer.apply_chat_template(
                turns,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **options,
            )
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses a dialogue: {error}") from error
        return cast(str, text)

    def _encode(self, text: str) -> list[int]:
        # The template has written any begin-of-sequence token already.
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether ids of one tokenizer mean the same in the other."""
    return one.get_vocab() == other.get_vocab()
