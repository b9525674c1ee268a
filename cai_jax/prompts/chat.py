"""The chat template of a model, applied once, here."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.gguf_tokenizer import gguf_tokenizer
from cai_jax.prompts.messages import Dialogue, Message, assistant, split_system, system, user
from cai_jax.prompts.patterns import check_patterns
from cai_jax.prompts.template import DATE, TemplateRefusedError, render
from cai_jax.reading import FileError, check_regular, parsing

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


def open_chat(
    source: ModelSource, system_prompt: str = "", date: str = DATE, needs_template: bool = True
) -> "ChatFormat":
    """How a model reads dialogues, and where its replies end.

    Raises:
      ValueError: it has no chat template, and needs one, or ids that it does not embed.
    """
    tokenizer = load_tokenizer(source.path, needs_template)
    chat = ChatFormat(tokenizer, system_prompt, date, source.stop_ids)
    check_embedded(source, chat)
    return chat


def check_embedded(source: ModelSource, chat: "ChatFormat") -> None:
    """Refuses a tokenizer that writes ids beyond the model's table of embeddings.

    Raises:
      FileError: it does; the message names both files.
    """
    size, file = source.config.vocab_size, source.path
    named, config = (
        (file / "tokenizer.json", file / "config.json") if file.is_dir() else (file,) * 2
    )
    remedy = "take the tokenizer that the model was trained with"
    token, highest = max(chat.written.items(), key=lambda entry: entry[1], default=("", 0))
    if highest >= size:
        raise FileError(
            named, f"token {token!r} has id {highest}, but {config} has {size} tokens; {remedy}"
        )
    padding = source.hugging_face_fields.get("pad_token_id")
    if padding is not None and padding >= size:
        raise FileError(config, f"pad_token_id is {padding}, but it has {size} tokens; correct it")


@dataclass(frozen=True)
class Reading:
    """What a model reads at once.

    Attributes:
      messages: a dialogue.
      prefill: the beginning of the assistant's reply.
      replies: whole ones, of which each stands alone after the dialogue; none: it ends there.
    """

    messages: Dialogue
    prefill: str = ""
    replies: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatFormat:
    """Dialogues to token ids and back, for one tokenizer.

    Attributes:
      tokenizer: with a chat template, unless it is for ``plain_ids`` alone.
      system_prompt: of dialogues without a system message; empty: whatever the template puts there.
      date: that templates which write one are told, as YYYY-MM-DD.
      stated_ends: ids that the model's files say end a sequence.

    Text stays text: where it spells a control token of the tokenizer, it becomes the ids of the
    letters. Only what the template itself writes becomes control tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    system_prompt: str = ""
    date: str = DATE
    stated_ends: tuple[int, ...] = ()

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> list[int]:
        """Ids up to where the assistant's reply begins, or continues after ``prefill``.

        A dialogue that begins with a system message keeps it; others get ``system_prompt``.

        Raises:
          ValueError: the template refuses the dialogue.
        """
        return self._ids(self._prompt(messages, prefill))

    def shared_tokens(self, ids: Sequence[int], first: Dialogue) -> int:
        """How many tokens of a prompt come of its first messages alone, whatever follows them.

        Raises:
          ValueError: the template refuses these messages.
        """
        if not first:
            return 0
        if first not in self._beginnings:
            turns = self._turns(first)
            self._beginnings[first] = self._ids(self._template(turns, add_generation_prompt=False))
        pairs = zip(ids[:-1], self._beginnings[first], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def prompts_ids(
        self, dialogues: Sequence[Sequence[Message]], prefills: str | Sequence[str] = ""
    ) -> list[list[int]]:
        """``prompt_ids`` of each; in one batch.

        Args:
          dialogues: the messages of each.
          prefills: what the assistant's reply begins with; one for all, or one each.

        Raises:
          ValueError: the template refuses one.
        """
        begins = repeat(prefills, len(dialogues)) if isinstance(prefills, str) else prefills
        return self._encoded([self._prompt(*one) for one in zip(dialogues, begins, strict=True)])

    def lengths(self, readings: Sequence[Reading]) -> list[int]:
        """Tokens of each, with the longest of its replies and the end of turn; in one batch.

        Raises:
          ValueError: the template refuses one.
        """
        prompts = self._counts([self._prompt(r.messages, r.prefill) for r in readings])
        replies = iter(self.reply_lengths([reply for r in readings for reply in r.replies]))
        longest = [max((next(replies) for _ in r.replies), default=0) for r in readings]
        return [prompt + reply for prompt, reply in zip(prompts, longest, strict=True)]

    def reply_lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of finished replies, the end of turn included; in one batch."""
        return [len(ids) for ids in self.replies_ids(texts)]

    def filler(self, tokens: int) -> str:
        """A text of so many tokens, in the place of one that is yet to be written."""
        some = ["yes"] * 8
        per_word = (self.reply_lengths([" ".join(some)])[0] - 1) / len(some)
        return " ".join(["yes"] * max(int(tokens / per_word), 1))

    def plain_ids(self, text: str, starts: bool) -> list[int]:
        """Ids of text outside any dialogue; one that ``starts`` gets the tokenizer's own start."""
        before, after = self._affixes if starts else ([], [])
        return [*before, *self._text_ids(text), *after]

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a finished reply: the text and the end of turn."""
        return [*self._text_ids(text), self.end_of_turn]

    def replies_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """``reply_ids`` of each; in one batch."""
        return [[*ids, self.end_of_turn] for ids in self._encoded([self._cut(t) for t in texts])]

    def judged_ids(self, prompt_ids: Sequence[int], text: str) -> list[int]:
        """What the preference model reads, in training and in every scoring: a finished reply."""
        return [*prompt_ids, *self.reply_ids(text)]

    def text(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens and those that end a reply left out."""
        said = [i for i in ids if i not in self.stop_ids]
        return cast(str, self.tokenizer.decode(said, skip_special_tokens=True)).strip()

    def is_text(self, ids: Sequence[int]) -> bool:
        """Whether all ids have a text that ``text`` shows: none is special, an end, or no token.

        Nor may they spell such a token, which would be one where the text is read again.
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

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply: the template's end of turn, and what the model's files state."""
        turn = [self.end_of_turn] if self.tokenizer.chat_template else []
        eos = self.tokenizer.eos_token_id
        ends = [*turn, *([] if eos is None else [eos]), *self.stated_ends]
        return tuple(dict.fromkeys(ends))

    @cached_property
    def end_of_turn(self) -> int:
        """The token that the template puts after an assistant's reply, flagged special or not.

        Raises:
          ValueError: the template wants no texts, or it and the model's files know no such token.
        """
        text = self._template([user("Hi"), assistant("yes")], add_generation_prompt=False)
        if "Hi" not in text or "yes" not in text:
            raise ValueError(
                f"{self._name}: the chat template leaves out what is said; it may want content "
                "as a list of parts, where cai_jax gives texts: add a template for texts"
            )
        tail = self._encode(text[text.rindex("yes") + len("yes") :])
        written = [i for i in tail if i in self._controls]
        ends = [*written, self.tokenizer.eos_token_id, *self.stated_ends]
        found = next((i for i in ends if i is not None), None)
        if found is None:
            raise ValueError(
                f"{self._name}: no token ends a reply: the chat template writes none, and there is "
                "no eos_token; name one in tokenizer_config.json"
            )
        return found

    @property
    def written(self) -> dict[str, int]:
        """Tokens that texts or the template can become; special ones of neither are left out."""
        roles = ("bos", "eos", "unk", "pad", "sep", "cls")
        named = {getattr(self.tokenizer, f"{role}_token_id", None) for role in roles}
        unwritten = {
            token.content
            for i, token in self.tokenizer.added_tokens_decoder.items()
            if token.special and i not in named and token.content not in self._source
        }
        return {t: i for t, i in self.tokenizer.get_vocab().items() if t not in unwritten}

    def _plain(self, ids: Sequence[int]) -> bool:
        count = len(self.tokenizer)
        return all(i < count and i not in self._hidden for i in ids)

    @cached_property
    def _hidden(self) -> frozenset[int]:
        """What ``text`` does not show."""
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(i for i, t in added if t.special).union(self.stop_ids)

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
        """The chat template; empty where there is none."""
        return self.tokenizer.get_chat_template() if self.tokenizer.chat_template else ""

    @cached_property
    def _controls(self) -> dict[int, str]:
        """Control tokens: special ones, ends, and those that the template writes."""

        def is_written(text: str) -> bool:  # words and spaces are text, whoever added them
            bare = "".join(text.split())
            return text in self._source and bool(bare) and not bare.isalnum()

        added = self.tokenizer.added_tokens_decoder.items()
        ends = self.stated_ends
        return {i: t.content for i, t in added if t.special or i in ends or is_written(t.content)}

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """What spells a control token."""
        tokens = set(self._controls.values())
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

    def _prompt(self, messages: Sequence[Message], prefill: str) -> str:
        """Marked text up to where the assistant's reply begins, or continues."""
        return self._template(self._turns(messages), True) + self._cut(prefill)

    def _turns(self, messages: Sequence[Message]) -> list[Message]:
        """Marked messages, behind the system prompt where they have none of their own."""
        own, _ = split_system(messages)
        ours = () if own or not self.system_prompt else (system(self.system_prompt),)
        return [replace(m, text=self._cut(m.text)) for m in (*ours, *messages)]

    @cached_property
    def _beginnings(self) -> dict[Dialogue, list[int]]:
        """Ids of first messages that were asked for: of few few-shots."""
        return {}

    def _counts(self, marked: Sequence[str]) -> list[int]:
        """Tokens of marked texts."""
        return [len(ids) for ids in self._encoded(marked)]

    def _encoded(self, marked: Sequence[str]) -> list[list[int]]:
        """Ids of marked texts, many times faster in one batch than one by one."""
        pieces = [text.split(MARK) for text in marked]
        flat = [piece for parts in pieces for piece in parts]
        ids = iter(self.tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else ())
        return [[i for _ in parts for i in next(ids)] for parts in pieces]

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
