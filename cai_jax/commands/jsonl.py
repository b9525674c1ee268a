"""What score and generate share: their flags, and rows of a JSONL file."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh

from cai_jax.commands.front import open_source
from cai_jax.data.jsonl import JsonRow, jsonl_rows
from cai_jax.data.readers import read_prompt
from cai_jax.models.config import Execution
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.devices import attention_kernel, compute_dtype
from cai_jax.parallel.mesh import make_mesh
from cai_jax.prompts.chat import ChatFormat, load_tokenizer

# Fields of which each alone gives a prompt or a completion as text.
_TEXT_FIELDS = {"prompt": ("prompt", "messages"), "completion": ("completion",)}

MODEL = flags.DEFINE_string("model", None, "model source: see the README", required=True)
DATA = flags.DEFINE_string("data", None, "JSONL file to read", required=True)
OUT = flags.DEFINE_string("out", None, "JSONL file to write", required=True)
_CHAT = flags.DEFINE_bool(
    "chat",
    None,
    "text prompts are a user's turns; --nochat: plain text; unset: turns, if there is a template",
)
_SYSTEM = flags.DEFINE_string("system_prompt", "", "of the chat template; empty: its own")
_DTYPE = flags.DEFINE_enum(
    "compute_dtype", "float32", ["auto", "float32", "bfloat16"], "of weights and activations"
)
_MESH = flags.DEFINE_list("mesh", ["1", "-1", "1"], "devices for data,fsdp,tensor")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "rows at a time", lower_bound=1)


def open_model() -> ModelSource:
    """The source that --model names."""
    execution = Execution(attention_kernel("auto", jax.default_backend()))
    return replace(open_source(MODEL.value), execution=execution)


def open_mesh() -> Mesh:
    """The devices as --mesh lays them out."""
    try:
        sizes = [int(size) for size in _MESH.value]
    except ValueError:
        sizes = []
    if len(sizes) != 3:
        raise ValueError(f"--mesh: three whole numbers are wanted, found {','.join(_MESH.value)}")
    data, fsdp, tensor = sizes
    return make_mesh(data, fsdp, tensor)


def dtype() -> Any:
    """What --compute_dtype names."""
    return compute_dtype(_DTYPE.value, jax.default_backend())


def read_rows(fields: tuple[str, ...]) -> list[JsonRow]:
    """Rows of --data; each has all of ``fields``, as text or as ``FIELD_ids``.

    A prompt may also be ``messages``: whatever data/readers.py reads as one.

    Raises:
      ValueError: a row lacks a field; the message names file and line.
    """
    path = Path(DATA.value)
    rows = list(jsonl_rows(path))
    if not rows:
        raise ValueError(f"{path}: holds no rows; write one JSON object a line")
    for row in rows:
        for field in fields:
            _check(row, field)
    return rows


def _check(row: JsonRow, field: str) -> None:
    ids = row.fields.get(f"{field}_ids")
    given = [name for name in _TEXT_FIELDS[field] if name in row.fields]
    if ids is not None:
        if not (isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)):
            raise row.error(f"'{field}_ids' must be a list of whole numbers, not empty")
    elif not given:
        known = ", ".join(map(repr, [*_TEXT_FIELDS[field], f"{field}_ids"]))
        raise row.error(f"has no {field}; give one of {known}")
    elif given == ["messages"]:
        read_prompt(row)
    else:
        row.text(field)


def token_ids(rows: list[JsonRow], source: ModelSource, field: str) -> list[list[int]]:
    """Ids of a field of every row, text through the chat template.

    Raises:
      ValueError: an id is not in the vocabulary.
    """
    found = []
    for row in rows:
        ids = row.fields.get(f"{field}_ids")
        if ids is None:
            ids = _encode(open_chat(source), row, field)
        if not ids and field == "prompt":
            raise row.error("the prompt is empty; write one")
        if max(ids, default=0) >= source.config.vocab_size:
            raise row.error(
                f"id {max(ids)} in {field!r}, but the model's vocabulary has "
                f"{source.config.vocab_size} tokens"
            )
        found.append(ids)
    return found


@lru_cache(maxsize=1)
def open_chat(source: ModelSource) -> ChatFormat:
    """Tokenizer and chat template of the model."""
    tokenizer = load_tokenizer(source.path, needs_template=bool(_CHAT.value))
    return ChatFormat(tokenizer, _SYSTEM.value)


def _are_turns(chat: ChatFormat) -> bool:
    return bool(chat.tokenizer.chat_template) if _CHAT.value is None else _CHAT.value


def _encode(chat: ChatFormat, row: JsonRow, field: str) -> list[int]:
    if _are_turns(chat):
        if field == "prompt":
            return chat.prompt_ids(read_prompt(row).messages)
        return chat.reply_ids(row.text(field))
    return chat.plain_ids(row.text(field), starts=field == "prompt")


def stop_ids(rows: list[JsonRow], source: ModelSource) -> tuple[int, ...]:
    """Ids that end a completion: the model's own, and the end of turn where prompts are chats."""
    ids = set(source.stop_ids)
    if any(row.fields.get("prompt_ids") is None for row in rows) and _are_turns(open_chat(source)):
        ids.update(open_chat(source).stop_ids)
    return tuple(sorted(ids))


def check_lengths(rows: list[JsonRow], source: ModelSource, lengths: list[int]) -> None:
    """Refuses rows longer than the model was made for."""
    limit = source.config.max_length
    for row, length in zip(rows, lengths, strict=True):
        if length > limit:
            raise row.error(f"{length} tokens, but {source.path} was made for {limit}; shorten it")


def write_rows(rows: list[dict[str, Any]]) -> None:
    """Writes --out, whole or not at all."""
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.write_text(text, encoding="utf-8")
    partial.rename(out)
