"""Whether files that are broken or hostile are read right, or refused in one sentence.

    python benchmarks/fuzz.py --count=1000                     # of each kind
    python benchmarks/fuzz.py --kind=gguf --count=10000 --seed=1

Each input is a valid file with a few changes: bytes, and values where the kind has them. It is read
in this process, as a run would read it. Writes benchmarks/results/fuzz.json: for each kind how many
were read, refused, ended in another error or one that does not name the file, hung, or took memory.
"""

import gzip
import json
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from absl import flags
from safetensors.numpy import save_file

from cai_jax.commands.front import start
from cai_jax.constitution.schema import load_constitution
from cai_jax.data.readers import read_pairs, read_prompts
from cai_jax.models.io.adapters import read_adapter_info
from cai_jax.models.io.sources import ModelSource, resolve
from cai_jax.models.io.weights import SafetensorsWeights
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.messages import user
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.stages.workdir import Workdir
from cai_jax.storage.sealed import sealed_text

OUT = Path(__file__).parent / "results" / "fuzz.json"
ROOT = Path(__file__).parent.parent

SECONDS = 5  # of processor time; a read that takes more hangs
MEMORY = 2**30  # bytes above what the valid file takes
RESULTS = ("read", "refused", "other error", "file not named", "hang", "memory")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      file: that is changed, in a folder that is valid otherwise.
      read: reads the folder, all of what a run would read of it.
      values: whether it is JSON, whose values are changed too.
      odd: what is put between bytes, beside what is for all kinds.
    """

    file: str
    read: Callable[[Path], Any]
    values: bool = False
    odd: tuple[bytes, ...] = ()


def _read_model(path: Path) -> None:
    source = ModelSource(path)
    _ = source.config, source.stop_ids, source.kind
    for name in source.weights.names():
        source.weights.read(name)


def _read_gguf(folder: Path) -> None:
    _read_model(folder / "model.gguf")
    _read_chat(folder / "model.gguf")


def _read_chat(path: Path) -> None:
    chat = ChatFormat(load_tokenizer(path))
    chat.prompt_ids([user("the good day, the <end> good")])
    chat.reply_ids("good")
    _ = chat.stop_ids


def _read_weights(folder: Path) -> None:
    weights = SafetensorsWeights(folder)
    for name in weights.names():
        weights.read(name)


PATTERN = b'{"type":"Split","pattern":{"Regex":"(a+)+$"},"behavior":"Isolated","invert":false}'
LOOP = b"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
KINDS = {
    "constitution": Kind(
        "a.yaml",
        lambda folder: load_constitution(folder / "a.yaml"),
        odd=(
            b"&a [*a]",
            b"*a",
            b"[" * 2000,
            b"{a: " * 500,
            b"!!python/object:x",
            b"? ",
            b"- " * 500,
        ),
    ),
    "prompts": Kind("a.jsonl", lambda folder: read_prompts(folder / "a.jsonl"), values=True),
    "pairs": Kind("a.jsonl.gz", lambda folder: read_pairs(folder / "a.jsonl.gz"), values=True),
    "gguf": Kind("model.gguf", _read_gguf),
    "safetensors": Kind("model.safetensors", _read_weights),
    "index": Kind("model.safetensors.index.json", _read_weights, values=True),
    "config": Kind("config.json", _read_model, values=True),
    "generation_config": Kind("generation_config.json", _read_model, values=True),
    "tokenizer": Kind("tokenizer.json", _read_chat, values=True, odd=(PATTERN,)),
    "tokenizer_config": Kind("tokenizer_config.json", _read_chat, values=True),
    "template": Kind(
        "chat_template.jinja",
        _read_chat,
        odd=(LOOP, b"{{ 'a' * 2000000000 }}", b"{{ [0] * 9**9 }}"),
    ),
    "model": Kind("model.json", lambda folder: resolve(str(folder), folder), values=True),
    "adapter": Kind("adapter_config.json", read_adapter_info, values=True),
    "manifest": Kind(
        "rl/manifest.json", lambda folder: Workdir(folder).manifest("rl"), values=True
    ),
}

TEXTS = ("how can I help ?", "the food", "wait\nand see", "so", "é und 字")
ODD_BYTES = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"\n\n", b"\r", b"\t", b'"', b"\\"),
    *(b"1e999", b"NaN", b"-1", b"9" * 5000, b"[" * 100000, b'{"a":' * 5000, b"\\ud83d", b"null"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 0.5, -3.0, 1e308, 2**31, 2**63, 10**400, 1e-320),
    *("", " ", "x" * 100_000, "..", "/etc/passwd", "../a.safetensors", "\ud83d", "\0", "NaN"),
    *([], {}, [[]], [{}], {"a": 1}, [1, "a"], float("nan"), float("inf")),
)


def changed_bytes(content: bytes, odd: tuple[bytes, ...], draw: random.Random) -> bytes:
    """A few bytes flipped, cut, doubled, put in; or all in another encoding."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        to = min(len(content), at + draw.choice((1, 1, 4, 8, 64)))
        how = draw.random()
        if how < 0.4 and at < len(content):
            content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        elif how < 0.5:
            content = content[:at] + content[to:]
        elif how < 0.6:
            content = content[:to] + content[at:]
        elif how < 0.65:
            content = content[:at]
        elif how < 0.95:
            content = content[:at] + draw.choice((*ODD_BYTES, *odd)) + content[at:]
        else:
            text = content.decode("utf-8", "replace")
            content = text.encode(draw.choice(("utf-16", "utf-32", "latin-1")), "replace")
    return content


def changed_values(value: Any, draw: random.Random) -> Any:
    """A JSON value of which one value, somewhere in it, is another, gone, or nested deep."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, copy = draw.choice(keys), value.copy()
        if draw.random() < 0.1:
            del copy[key]
        elif draw.random() < 0.05 and isinstance(copy, dict):
            copy[draw.choice(("", "a", "\ud83d", *map(str, keys)))] = copy.pop(key)
        else:
            copy[key] = changed_values(value[key], draw)
        return copy
    if draw.random() < 0.05:
        for _ in range(draw.choice((10, 100, 900))):
            value = [value]
        return value
    return draw.choice(ODD_VALUES)


def changed(kind: Kind, content: bytes, draw: random.Random) -> bytes:
    """A valid file of a kind with changes."""
    packed = kind.file.endswith(".gz")
    if packed and draw.random() < 0.01:  # a bomb
        return gzip.compress(draw.choice((b"0", b" ", b"\n", b'{"a":1}\n')) * 2**24, 6)
    if packed and draw.random() < 0.3:
        return changed_bytes(content, kind.odd, draw)
    plain = gzip.decompress(content) if packed else content
    if kind.values and draw.random() < 0.6:
        in_lines = ".jsonl" in kind.file
        texts = plain.decode().splitlines() if in_lines else [plain.decode()]
        at = draw.randrange(len(texts))
        texts[at] = json.dumps(changed_values(json.loads(texts[at]), draw))
        plain = "\n".join(texts).encode()
    else:
        plain = changed_bytes(plain, kind.odd, draw)
    return gzip.compress(plain, 1) if packed else plain


def write_valid(folder: Path) -> None:
    """A folder that holds a valid file of each kind."""
    sizes = {"d": 8, "ff": 16, "v": 32}
    tokenizer = word_tokenizer([*TEXTS, "user assistant system good day"])
    tokenizer.save_pretrained(folder)
    tensors = _tensors(sizes)
    save_file(tensors, folder / "model.safetensors")
    config = {
        **{"model_type": "llama", "vocab_size": sizes["v"], "num_hidden_layers": 1},
        **{"hidden_size": sizes["d"], "num_attention_heads": 2, "num_key_value_heads": 1},
        **{"intermediate_size": sizes["ff"], "hidden_act": "silu", "rms_norm_eps": 1e-5},
        **{"max_position_embeddings": 64, "tie_word_embeddings": True, "sliding_window": None},
        "rope_parameters": {
            **{"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
        },
    }
    lora = {"rank": 2, "alpha": 4.0}
    files: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": [1, 2], "do_sample": True},
        "model.json": {"kind": "policy", "base": "base", "lora": lora, "score_mean": 0.0},
        "adapter_config.json": {
            **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4},
            **{"base_model_name_or_path": "base", "bias": "none", "rank_pattern": {}},
        },
    }
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields), encoding="utf-8")
    manifest = {"stage": "rl", "fingerprint": "ab", "metrics": {"kl": [0.5, 1]}}
    (folder / "rl").mkdir(exist_ok=True)
    (folder / "rl" / "manifest.json").write_text(sealed_text(manifest), encoding="utf-8")
    rows = [{"id": str(i), "prompt": text, "tags": ["a"]} for i, text in enumerate(TEXTS)]
    rows.append({"messages": [{"role": "user", "content": "a"}], "group": "b"})
    _write_lines(folder / "a.jsonl", rows)
    sides = [(f"\n\nHuman: {t}\n\nAssistant: yes", f"\n\nHuman: {t}\n\nAssistant:") for t in TEXTS]
    pairs = [{"chosen": one, "rejected": other} for one, other in sides]
    _write_lines(folder / "a.jsonl.gz", [*pairs, {"prompt": "a", "chosen": "b", "rejected": "c"}])
    shutil.copy(ROOT / "constitutions/microworld/groups/earnest.yaml", folder / "a.yaml")
    _write_gguf(folder / "model.gguf", tensors, sizes)
    (folder / "base").mkdir()
    shutil.copy(folder / "config.json", folder / "base")


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)


def _tensors(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    d, ff, v = sizes.values()
    layer = "model.layers.0."
    shapes = {
        **{"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)},
        **{f"{layer}self_attn.{name}_proj.weight": (d, d) for name in "qo"},
        **{f"{layer}self_attn.{name}_proj.weight": (d // 2, d) for name in "kv"},
        **{f"{layer}mlp.{name}_proj.weight": (ff, d) for name in ("gate", "up")},
        f"{layer}mlp.down_proj.weight": (d, ff),
        **{f"{layer}{name}_layernorm.weight": (d,) for name in ("input", "post_attention")},
    }
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def _write_gguf(file: Path, tensors: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(sizes["d"])
    writer.add_feed_forward_length(sizes["ff"])
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    words = ["<unk>", "<end>", *map(chr, range(97, 97 + sizes["v"] - 4)), "ab", "cd"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, *[1] * (sizes["v"] - 2)])
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}<end>{% endfor %}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, tensor in tensors.items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Hang(BaseException):
    """A read took too long."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Ends what takes more processor time; counted so, for other processes may be busy."""

    def stop(*_: Any) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(read: Callable[[Path], Any], folder: Path, file: str) -> tuple[str, str]:
    """What becomes of a read: one of RESULTS, and what was said."""
    before, started = _peak(), time.monotonic()
    try:
        with _within(SECONDS):
            read(folder)
        result, said = "read", ""
    except (ValueError, OSError) as error:
        said = str(error)
        named = (str(folder) in said or file in said) and "\n" not in said
        result = "refused" if named else "file not named"
    except _Hang:
        result, said = "hang", f"after {time.monotonic() - started:.1f} s"
    except BaseException as error:  # a panic of Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        result, said = "other error", f"{type(error).__name__}: {error}"
    return ("memory" if _peak() - before > MEMORY else result), said


def _peak() -> int:
    """Most memory that this process ever had, in bytes; what renders templates has a limit."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fuzz(name: str, count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Reads changed files of a kind.

    Args:
      name: of KINDS.
      count: of files.
      seed: of the changes; input i is the same however many there are.
      folder: empty, for the files.

    Returns:
      How many ended how, and what was said of those that are neither read nor refused.
    """
    kind = KINDS[name]
    write_valid(folder)
    if name == "index":
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        shards = dict.fromkeys(_tensors({"d": 8, "ff": 16, "v": 32}), "a.safetensors")
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": shards})
        (folder / kind.file).write_text(text, encoding="utf-8")
    file = folder / kind.file
    valid = file.read_bytes()
    kind.read(folder)  # is valid, or this raises
    counts: Counter[str] = Counter()
    bad = []
    for number in range(count):
        draw = random.Random(f"{seed} {name} {number}")
        fresh = file.with_name(f".{file.name}.new")  # a map of the old file stays whole
        fresh.write_bytes(changed(kind, valid, draw))
        fresh.rename(file)
        result, said = outcome(kind.read, folder, kind.file)
        counts[result] += 1
        if result not in ("read", "refused"):
            bad.append(f"{name} {number}: {result}: {said[:300]}")
    file.write_bytes(valid)
    return counts, bad


def main() -> None:
    """Fuzzes the kinds that are asked for, and prints a table."""
    names = list(KINDS) if KIND.value == "all" else KIND.value.split(",")
    if unknown := [name for name in names if name not in KINDS]:
        raise ValueError(f"--kind={unknown[0]}: no such kind; known: all, {', '.join(KINDS)}")
    logging.getLogger("cai_jax").setLevel(logging.ERROR)  # rows that are left out are expected
    print(f"| kind | seconds | {' | '.join(RESULTS)} |\n| --- |{' ---: |' * (1 + len(RESULTS))}")
    found = {}
    for name in names:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            counts, bad = fuzz(name, COUNT.value, SEED.value, Path(folder))
        seconds = time.monotonic() - started
        cells = " | ".join(str(counts[result]) for result in RESULTS)
        print(f"| {name} | {seconds:.0f} | {cells} |", flush=True)
        for line in bad[:20]:
            print(line, file=sys.stderr, flush=True)
        found[name] = {result: counts[result] for result in RESULTS}
    if KIND.value == "all":
        text = {"count": COUNT.value, "seed": SEED.value, "kinds": found}
        OUT.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":  # tests import this file beside commands, some of which have such flags
    KIND = flags.DEFINE_string("kind", "all", "of files, or all")
    COUNT = flags.DEFINE_integer("count", 1000, "inputs of each kind", lower_bound=1)
    SEED = flags.DEFINE_integer("seed", 0, "of the changes")
    start(main)
