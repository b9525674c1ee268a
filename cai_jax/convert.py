"""Converts any model source to a Hugging Face folder that transformers loads.

python -m cai_jax.convert --from=runs/rlaif/rl/checkpoint --to=exported

A policy becomes a causal language model, a preference model a sequence classifier with one label;
both with config, tokenizer, chat template and a model card. ``--nomerge`` writes the last low-rank
update as a PEFT adapter; the model that it was trained from stands in FOLDER/base, unless it is a
Hugging Face repository or folder itself, or ``--base`` names the repository that has it.
"""

import json
import shutil
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from cai_jax.commands.front import start
from cai_jax.commands.source import open_source
from cai_jax.markdown import code, fence
from cai_jax.models.io.export import adapter_config, adapter_tensors, decoder_tensors, write_shards
from cai_jax.models.io.load import HEAD, load_update, load_whole
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import make_mesh
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.reading import read_object, read_text
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import MANIFEST, check_whole

FROM = flags.DEFINE_string("from", None, "model source: see docs/machine.md", required=True)
TO = flags.DEFINE_string("to", None, "folder to write; must not exist", required=True)
DTYPE = flags.DEFINE_enum(
    "dtype", "source", ["source", "float32", "bfloat16", "float16"], "of the written tensors"
)
SHARD_GIB = flags.DEFINE_float("shard_gib", 5.0, "largest file of weights", lower_bound=1e-9)
MERGE = flags.DEFINE_bool("merge", True, "merge low-rank updates; --nomerge: a PEFT adapter")
BASE = flags.DEFINE_string("base", "", "with --nomerge: ORG/NAME that PEFT loads the adapter on")


def main() -> None:
    """Converts, into a hidden folder first: what stands under --to is whole."""
    to = resolved(TO.value)
    if BASE.value and MERGE.value:
        raise ValueError("--base: of an adapter; add --nomerge")
    if to.exists():
        raise ValueError(f"--to: {to} exists; name a new folder")
    source = open_source(FROM.value)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as hidden:
        partial = Path(hidden) / to.name
        partial.mkdir()
        if MERGE.value:
            _write_model(source, partial, source.kind == "preference")
        else:
            _write_adapter(source, partial, to)
        (partial / "README.md").write_text(_card(source), encoding="utf-8")
        partial.rename(to)
    print(to)


def _write_model(source: ModelSource, folder: Path, classifier: bool) -> None:
    tokenizer = _tokenizer(source)
    decoder, head = load_whole(source, make_mesh())
    fields = dict(source.hugging_face_fields)
    family = source.family
    fields["architectures"] = [family.classifier if classifier else family.language_model]
    if classifier:
        decoder.pop("output", None)  # a classifier has no projection to the vocabulary
        fields |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
        fields["pad_token_id"] = _padding(source, tokenizer)
        if tokenizer is not None:
            tokenizer.pad_token_id = fields["pad_token_id"]
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if not classifier:
        _write_generation_config(source, fields, folder / "generation_config.json")
    fields.pop("torch_dtype", None)  # the name before transformers 5
    dtype = source.weights.dtype if DTYPE.value == "source" else DTYPE.value
    tensors = decoder_tensors(decoder, family.names, source.config)
    if classifier:
        # The base of an adapter has no score of its own: the adapter brings it.
        score = np.zeros(source.config.d_model) if head is None else np.asarray(head)
        tensors = chain(tensors, [(HEAD, score[None])])
    write_shards(tensors, folder, jnp.dtype(dtype), int(SHARD_GIB.value * 2**30))
    _write_json(folder / "config.json", {**fields, "dtype": dtype})


def _write_generation_config(source: ModelSource, fields: dict[str, Any], file: Path) -> None:
    """The source's own; where it has none, the special tokens that its config states."""
    own = source.path / file.name
    if own.is_file():
        shutil.copy(own, file)
        return
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write_json(file, {name: fields[name] for name in names if fields.get(name) is not None})


def _padding(source: ModelSource, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """A padding token that is none of the stop tokens.

    transformers reads the score at the last token that is not padding, and a dialogue ends with a
    stop token: were that the padding token, the score would be read one token early.
    """
    own = source.hugging_face_fields.get("pad_token_id")
    if source.kind == "preference" and not source.checkpoints and own is not None:
        return own  # a classifier already: what it reads must stay what it reads
    stops, named = source.stop_ids, list[int | None]()
    if tokenizer is not None:
        stops = ChatFormat(tokenizer, stated_ends=source.stop_ids).stop_ids
        named = [
            tokenizer.pad_token_id,
            tokenizer.unk_token_id,
            *sorted(tokenizer.added_tokens_decoder),
        ]
    return next(i for i in (*named, *range(len(stops) + 1)) if i is not None and i not in stops)


def _write_adapter(source: ModelSource, folder: Path, to: Path) -> None:
    """Writes the last update, and the model that it belongs to, where PEFT could not load that.

    For a preference model always: the base's config says how many labels and what padding.
    """
    info = source.checkpoints[-1][1] if source.checkpoints else None
    if info is None or not info.lora:
        raise ValueError(
            f"--nomerge: {FROM.value} does not end with a low-rank update; leave --nomerge away"
        )
    update = load_update(source, make_mesh())
    tensors = adapter_tensors(update, source.family.names, source.path)
    if DTYPE.value != "source":
        tensors = {name: value.astype(jnp.dtype(DTYPE.value)) for name, value in tensors.items()}
    policy = info.kind == "policy"
    if BASE.value:
        base = BASE.value
    elif policy and info.base.startswith("hf:"):
        base = info.base.removeprefix("hf:")
    elif policy and len(source.checkpoints) == 1 and source.path.is_dir():
        base = str(source.path)
    else:
        base = str(to / "base")
        (folder / "base").mkdir()
        _write_model(source.below, folder / "base", not policy)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "adapter_config.json", adapter_config(info, base, tensors))


def _tokenizer(source: ModelSource) -> PreTrainedTokenizerBase | None:
    """The source's tokenizer; it may have none."""
    return load_tokenizer(source.path, needs_template=False) if source.has_tokenizer else None


def _card(source: ModelSource) -> str:
    """README.md of the folder: what it is, what it was made from, under which constitution."""
    kind = "A preference model" if source.kind == "preference" else "A language model"
    lines = ["---", "library_name: transformers", "tags: [constitutional-ai, cai_jax]", "---", ""]
    lines += [f"# {TO.value.rstrip('/').rsplit('/', 1)[-1]}", ""]
    lines += [f"{kind}, converted by cai_jax from {_public(FROM.value)}.", ""]
    lines += [f"- pretrained model: {code(source.path.name)}"]
    lines += [f"- trained on top of it: {_public(str(folder))}" for folder, _ in source.checkpoints]
    if BASE.value:
        lines += [f"- a PEFT adapter of {_public(BASE.value)}"]
    elif not MERGE.value:
        lines += [
            "- a PEFT adapter: adapter_config.json names its base by path; once the folder has "
            "moved, load the base yourself and hand both to `PeftModel.from_pretrained`"
        ]
    for folder, info in source.checkpoints[-1:]:
        lines += _constitution(folder)
        if info.kind == "policy":
            continue
        lines += [
            "- the score is the one label's logit, read at the last token, the end of the turn; "
            f"over samples of the reference policy its mean is {info.score_mean:.6g} and its "
            f"standard deviation {info.score_std:.6g}"
        ]
    return "\n".join([*lines, "", "The license of the pretrained model applies.", ""])


def _constitution(checkpoint: Path) -> list[str]:
    """Name, hash and text of the constitution of the run that left the checkpoint."""
    manifest = checkpoint.parent / MANIFEST
    if not manifest.is_file():
        return []
    file = checkpoint.parent / "constitution.yaml"
    check_whole(file)
    stage = read_object(manifest)
    name, digest = (str(stage.get(f"constitution{part}")) for part in ("", "_sha256"))
    lines = [f"- constitution: {code(name)}, SHA-256 {code(digest)}"]
    if file.is_file():
        text = read_text(file)
        marks = fence(text, 3)
        lines += ["", "## Constitution", "", f"{marks}yaml", text, marks]
    return lines


def _public(source: str) -> str:
    """A source as others may read it: of a path on this machine the last two names alone."""
    known = source.startswith(("pypi:", "hf:")) or not resolved(source).exists()
    return code(source if known else "/".join(resolved(source).parts[-2:]))


def _write_json(file: Path, fields: dict[str, Any]) -> None:
    file.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    start(main)
