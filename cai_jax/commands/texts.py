"""Texts of rows as token ids of a model, through its chat template or plain."""

from collections.abc import Sequence
from functools import lru_cache

from absl import flags

from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import read_prompt
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, open_chat

_CHAT = flags.DEFINE_bool(
    "chat",
    None,
    "text prompts are a user's turns; --nochat: plain text; unset: turns, if there is a template",
)
_SYSTEM = flags.DEFINE_string("system_prompt", "", "of the chat template; empty: its own")


def token_ids(rows: Sequence[JsonRow], source: ModelSource, field: str) -> list[list[int]]:
    """Ids of a field of every row, text through the chat template.

    Raises:
      ValueError: an id is not in the vocabulary.
    """
    found = []
    for row in rows:
        ids = row.fields.get(f"{field}_ids")
        if ids is None:
            ids = _encode(chat_of(source), row, field)
        if not ids and field == "prompt":
            raise row.error("the prompt is empty; write one")
        if max(ids, default=0) >= source.config.vocab_size:
            raise row.error(
                f"id {max(ids)} in {field!r}, but the model's vocabulary has "
                f"{source.config.vocab_size} tokens"
            )
        found.append(ids)
    return found


def stop_ids(rows: Sequence[JsonRow], source: ModelSource) -> tuple[int, ...]:
    """Ids that end a completion; where all prompts are ids, those that the model's files state."""
    if all(row.fields.get("prompt_ids") is not None for row in rows):
        return source.stop_ids
    return chat_of(source).stop_ids


def check_lengths(rows: Sequence[JsonRow], source: ModelSource, lengths: Sequence[int]) -> None:
    """Refuses rows longer than the model was made for.

    Raises:
      ValueError: one is; the message names file and line.
    """
    limit = source.config.max_length
    for row, length in zip(rows, lengths, strict=True):
        if length > limit:
            raise row.error(f"{length} tokens, but {source.path} was made for {limit}; shorten it")


@lru_cache(maxsize=1)
def chat_of(source: ModelSource) -> ChatFormat:
    """Tokenizer and chat template of the model."""
    return open_chat(source, _SYSTEM.value, needs_template=bool(_CHAT.value))


def _are_turns(chat: ChatFormat) -> bool:
    return bool(chat.tokenizer.chat_template) if _CHAT.value is None else _CHAT.value


def _encode(chat: ChatFormat, row: JsonRow, field: str) -> list[int]:
    if _are_turns(chat):
        if field == "prompt":
            return chat.prompt_ids(read_prompt(row).messages)
        return chat.reply_ids(row.text(field))
    if field not in row.fields:
        raise row.error(f"messages need a chat template; write {field!r} as text, or give ids")
    return chat.plain_ids(row.text(field), starts=field == "prompt")
