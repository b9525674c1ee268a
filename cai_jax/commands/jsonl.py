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
from cai_jax.models.config import Execution
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.devices import attention_kernel, compute_dtype
from cai_jax.parallel.mesh import make_mesh
from cai_jax.prompts.chat import ChatFormat, conversation, load_tokenizer

Row = dict[str, Any]

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
    return make_mesh(*sizes)


def dtype() -> Any:
    """What --compute_dtype names."""
    return compute_dtype(_DTYPE.value, jax.default_backend())


def read_rows(fields: tuple[str, ...]) -> list[Row]:
    """Rows of --data; each has all of ``fields``, as text or as ``FIELD_ids``.

    Raises:
      ValueError: a line that is no such row; the message names it.
    """
    rows = []
    with Path(DATA.value).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{DATA.value}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error})") from None
            for field in fields:
                _check(row, field, where)
            rows.append(row)
    if not rows:
        raise ValueError(f"{DATA.value}: no rows")
    return rows


def _check(row: Any, field: str, where: str) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row is an object, found {type(row).__name__}")
    ids, text = row.get(f"{field}_ids"), row.get(field)
    if ids is None and not isinstance(text, str):
        raise ValueError(f"{where}: neither text in {field!r} nor ids in '{field}_ids'")
    if ids is not None and not (
        isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)
    ):
        raise ValueError(f"{where}: '{field}_ids' must be a list of whole numbers, not empty")


def token_ids(rows: list[Row], source: ModelSource, field: str) -> list[list[int]]:
    """Ids of a field of every row, text through the chat template.

    Raises:
      ValueError: an id is not in the vocabulary.
    """
    given = [row.get(f"{field}_ids") for row in rows]
    if any(ids is None for ids in given):
        chat = open_chat(source)
        given = [
            _encode(chat, row[field], field) if ids is None else ids
            for ids, row in zip(given, rows, strict=True)
        ]
    for number, ids in enumerate(given, 1):
        if not ids and field == "prompt":
            raise ValueError(f"{DATA.value}:{number}: the prompt is empty")
        if max(ids, default=0) >= source.config.vocab_size:
            raise ValueError(
                f"{DATA.value}:{number}: id {max(ids)} in {field!r}, but the model's vocabulary "
                f"has {source.config.vocab_size} tokens"
            )
    return given


@lru_cache(maxsize=1)
def open_chat(source: ModelSource) -> ChatFormat:
    """Tokenizer and chat template of the model."""
    tokenizer = load_tokenizer(source.path, needs_template=bool(_CHAT.value))
    return ChatFormat(tokenizer, _SYSTEM.value)


def _are_turns(chat: ChatFormat) -> bool:
    return bool(chat.tokenizer.chat_template) if _CHAT.value is None else _CHAT.value


def _encode(chat: ChatFormat, text: str, field: str) -> list[int]:
    if not _are_turns(chat):
        return chat.plain_ids(text, starts=field == "prompt")
    return chat.prompt_ids(conversation(text)) if field == "prompt" else chat.reply_ids(text)


def stop_ids(rows: list[Row], source: ModelSource) -> tuple[int, ...]:
    """Ids that end a completion: the model's own, and the end of turn where prompts are chats."""
    ids = set(source.stop_ids)
    if any(row.get("prompt_ids") is None for row in rows) and _are_turns(open_chat(source)):
        ids.update(open_chat(source).stop_ids)
    return tuple(sorted(ids))


def check_lengths(source: ModelSource, lengths: list[int]) -> None:
    """Refuses rows longer than the model was made for."""
    limit = source.config.max_length
    for number, length in enumerate(lengths, 1):
        if length > limit:
            raise ValueError(
                f"{DATA.value}:{number}: {length} tokens, but {source.path} was made for {limit}"
            )


def write_rows(rows: list[Row]) -> None:
    """Writes --out, whole or not at all."""
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.write_text(text, encoding="utf-8")
    partial.rename(out)
