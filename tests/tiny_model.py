"""A random model in Hugging Face layout, with a tokenizer of whole words."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = [
    "the",
    "a",
    "you",
    "I",
    "is",
    "are",
    "not",
    "and",
    "or",
    "but",
    "so",
    "it",
    "that",
    "this",
    "with",
    "for",
    "of",
    "to",
    "in",
    "on",
    "do",
    "can",
    "will",
    "be",
    "have",
    "how",
    "what",
    "why",
    "when",
    "help",
    "harm",
    "kind",
    "good",
    "bad",
    "safe",
    "reply",
    "better",
    "user",
    "assistant",
    "system",
    "people",
    "time",
    "way",
    "work",
    "home",
    "food",
    "talk",
    "tell",
    "ask",
    "give",
    "make",
    "know",
    "think",
    "want",
    "need",
    "feel",
    "say",
    ".",
    "!",
    "?",
    ",",
    ":",
    "(",
    ")",
    "A",
    "B",
    "step",
    "by",
    "Let",
    "'",
    "s",
    "response",
]
SPECIALS = ["<unk>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }} <|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def write_tiny_model(folder: Path, extra_words: tuple[str, ...] = (), layers: int = 2) -> Path:
    """Writes config, weights and tokenizer; ``extra_words`` make the tokenizer another one."""
    folder.mkdir(parents=True)
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *extra_words, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([AddedToken(s, special=True) for s in SPECIALS])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    size = {"d": 32, "heads": 4, "kv": 2, "n": 8, "ff": 48, "v": len(vocabulary)}
    config = {
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": size["v"],
        "num_hidden_layers": layers,
        "hidden_size": size["d"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv"],
        "intermediate_size": size["ff"],
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(random_weights(size, layers), folder / "model.safetensors")
    return folder


def random_weights(size: dict[str, int], layers: int) -> dict[str, np.ndarray]:
    """Tensors under Hugging Face names."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)
    d, q, kv = size["d"], size["heads"] * size["n"], size["kv"] * size["n"]
    tensors = {
        "model.embed_tokens.weight": draw(size["v"], d),
        "model.norm.weight": np.ones(d, np.float32),
    }
    for layer in range(layers):
        for name, shape in {
            "self_attn.q_proj": (q, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q),
            "mlp.gate_proj": (size["ff"], d),
            "mlp.up_proj": (size["ff"], d),
            "mlp.down_proj": (d, size["ff"]),
        }.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = draw(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ones(d, np.float32)
    return tensors
