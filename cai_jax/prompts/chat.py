"""The chat template of a model, applied once, here."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cai_jax.prompts.gguf_tokenizer import gguf_tokenizer
from cai_jax.prompts.messages import Message, assistant, split_system, system, user
from cai_jax.prompts.patterns import check_patterns
from cai_jax.prompts.template import DATE, TemplateRefusedError, render
from cai_jax.reading import check_regular, parsing

MARK = "﷐"  # no character, by Unicode's promise: texts have none
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
    remedy = "give a model whose tokenizer this version of transformers knows, or update it"
    for pattern in ("*.json", "*.jinja", "*.txt", "tokenizer*"):
        for file in folder.glob(pattern):
            check_regular(file)
    file = folder / "tokenizer.json"
    if file.exists():
        check_patterns(file)
    with parsing(file if file.exists() else folder, "no tokenizer that can be read", remedy):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer("a")  # what it is made of is read at its first use
        return tokenizer


@dataclass(frozen=True)
class ChatFormat:
    """Dialogues to token ids and back, for one tokenizer.

    Attributes:
      tokenizer: with a chat template, unless it is for ``plain_ids`` alone.
      system_prompt: of dialogues without a system message; empty: whatever the template puts there.
      date: that templates which write one are told, as YYYY-MM-DD.

    Text stays text: where it spells a control token of the tokenizer, it becomes the ids of the
    letters. Only what the template itself writes becomes control tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    system_prompt: str = ""
    date: str = DATE

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> list[int]:
        """Ids up to where the assistant's reply begins, or continues after ``prefill``.

        A dialogue that begins with a system message keeps it; others get ``system_prompt``.

        Raises:
          ValueError: the template refuses the dialogue.
        """
        own, _ = split_system(messages)
        ours = () if own or not self.system_prompt else (system(self.system_prompt),)
        turns = [replace(m, text=self._cut(m.text)) for m in (*ours, *messages)]
        return self._ids(self._template(turns, add_generation_prompt=True) + self._cut(prefill))

    def plain_ids(self, text: str, starts: bool) -> list[int]:
        """Ids of text outside any dialogue; one that ``starts`` gets the tokenizer's own start."""
        before, after = self._affixes if starts else ([], [])
        return [*before, *self._text_ids(text), *after]

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a finished reply: the text and the end of turn."""
        return [*self._text_ids(text), self.end_of_turn]

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
        return [*ids[:count], *(self._text_ids(rest) if rest else ())], count

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply."""
        eos = self.tokenizer.eos_token_id
        return (self.end_of_turn,) if eos in (None, self.end_of_turn) else (self.end_of_turn, eos)

    @cached_property
    def end_of_turn(self) -> int:
        """The token that the template puts after an assistant's reply."""
        text = self._template([user("Hi"), assistant("yes")], add_generation_prompt=False)
        if "Hi" not in text or "yes" not in text:
            raise ValueError(
                f"{self._name}: the chat template leaves out what is said; it may want content "
                "as a list of parts, where cai_jax gives texts: add a template for texts"
            )
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
        options: dict[str, Any] = {THINKING: False} if THINKING in self._source else {}
        plain = lambda token: [*map(str, token)] if isinstance(token, list) else str(token)
        named = self.tokenizer.special_tokens_map.items()
        tokens = {name: plain(token) for name, token in named}
        given = {"messages": turns, "add_generation_prompt": add_generation_prompt}
        try:
            return render(self._source, self.date, {**tokens, **given, **options})
        except TemplateRefusedError as error:
            raise ValueError(
                f"{self._name}: the model's chat template refuses a dialogue: {error}"
            ) from error

    @property
    def _name(self) -> str:
        return str(self.tokenizer.name_or_path or "the tokenizer")

    @cached_property
    def _source(self) -> str:
        """The chat template."""
        return self.tokenizer.get_chat_template()

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """What spells a control token: special ones, and those that the template writes."""
        template = self._source if self.tokenizer.chat_template else ""
        added = self.tokenizer.added_tokens_decoder.values()

        def is_written(text: str) -> bool:  # words and spaces are text, whoever added them
            bare = "".join(text.split())
            return text in template and bool(bare) and not bare.isalnum()

        tokens = {t.content for t in added if t.special or is_written(t.content)}
        spelled = [re.escape(token) for token in tokens if len(token) > 1]
        if not spelled:
            return re.compile("(?!)()")
        first = "".join({re.escape(token[0]) for token in tokens})  # by which most text is passed
        return re.compile(f"(?=[{first}])(?={'|'.join(spelled)})(.)", re.S)

    def _cut(self, text: str) -> str:
        """Text with a mark after the first letter of whatever spells a control token.

        Between marks no control token is whole. Texts are marked before the template writes them
        between its own, which stay as they are.
        """
        return self._control.sub(rf"\1{MARK}", text.replace(MARK, "\ufffd"))

    def _ids(self, marked: str) -> list[int]:
        """Ids of text up to each mark and after it."""
        return [i for piece in marked.split(MARK) for i in self._encode(piece)]

    def _text_ids(self, text: str) -> list[int]:
        """Ids of text in which nothing is a control token."""
        return self._ids(self._cut(text))

    @cached_property
    def _affixes(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer puts before and after a text by itself."""
        whole, bare = self.tokenizer("a")["input_ids"], self._encode("a")
        begin = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return whole[:begin], whole[begin + len(bare) :]

    def _encode(self, text: str) -> list[int]:
        # The template has written any begin-of-sequence token already.
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether ids of one tokenizer mean the same in the other."""
    return one.get_vocab() == other.get_vocab()
