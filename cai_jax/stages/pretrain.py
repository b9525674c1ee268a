"""A small assistant from scratch, where the config asks for one: the model the run starts from."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cai_jax.config import PretrainConfig
from cai_jax.data.records import INTS, TEXT, write_records
from cai_jax.data.tasks import CausalLMConverter, Part, batches, mixture
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.train import Trainable, make_optimizer
from cai_jax.models.io.export import decoder_tensors, write_shards
from cai_jax.models.io.load import decoder_builder
from cai_jax.models.io.params import abstract_split, init_on_mesh
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, Message, load_tokenizer
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.stages.run import PRETRAINED, Outcome, Run, Stage, load_function
from cai_jax.stages.training import fill_packed, train

DIALOGUE_FEATURES = {"id": TEXT, "tokens": INTS, "loss_mask": INTS}


def run(run: Run, folder: Path) -> Outcome:
    """Trains on the corpus and leaves a Hugging Face folder, ``model``."""
    settings = run.config.pretrain
    corpus = load_function(settings.corpus, "config.pretrain.corpus")
    percent = run.config.data.held_out_percent
    dialogues = list(corpus(run.config.seed, percent, dict(settings.options)))
    model = folder / PRETRAINED
    texts = (m["content"] for dialogue in dialogues for m in dialogue.messages)
    word_tokenizer(texts).save_pretrained(model)
    chat = ChatFormat(load_tokenizer(model))
    fields = json.dumps(_fields(settings, chat), indent=2)
    (model / "config.json").write_text(fields + "\n", encoding="utf-8")
    source = ModelSource(model)

    rows = [_row(chat, f"{n:07d}", d.messages, d.learned) for n, d in enumerate(dialogues)]
    write_records(folder, "dialogues", DIALOGUE_FEATURES, rows)
    length = settings.sequence_length
    longest = max(len(row["tokens"]) for row in rows)
    if longest > length:
        raise ValueError(
            f"pretrain: a dialogue has {longest} tokens; set config.pretrain.sequence_length (now "
            f"{length}) to at least that"
        )
    mix = mixture(
        "pretrain",
        [Part(folder, "dialogues", 1.0)],
        ("tokens", "loss_mask"),
        source.config.vocab_size,
    )
    packed = batches(
        mix,
        CausalLMConverter(),
        {"tokens": length, "loss_mask": length},
        settings.batch_size,
        [run.stage_seed("pretrain", "epoch", e) for e in range(settings.epochs)],
    )
    filled = [fill_packed(batch, settings.batch_size) for batch in packed]
    if len(filled) <= settings.warmup_steps:
        raise ValueError(
            f"pretrain: {len(filled)} updates; set config.pretrain.warmup_steps (now "
            f"{settings.warmup_steps}) below that, or use a larger corpus"
        )
    build = decoder_builder(source, run.dtype, seed=run.stage_seed("pretrain", "init"))
    graph, _ = abstract_split(build)
    trainable = Trainable(graph, init_on_mesh(build, nnx.Param, run.mesh), nnx.State({}))
    optimizer = make_optimizer(
        settings.learning_rate,
        settings.warmup_steps,
        settings.max_grad_norm,
        decay_steps=len(filled),
    )
    params, history, tokens = train(
        run,
        folder,
        "pretrain",
        trainable,
        sft_loss_sum,
        optimizer,
        filled,
        settings.micro_batches,
        lambda batch: int(np.sum(batch["segments"] > 0)),
    )
    tensors = decoder_tensors(params, source.family.names, source.config)
    write_shards(tensors, model, jnp.dtype(jnp.float32), 1 << 40)
    return Outcome(
        {
            "dialogues": len(rows),
            "steps": len(history),
            "first_loss": history[0]["loss"],
            "last_loss": history[-1]["loss"],
        },
        tokens,
    )


def _fields(settings: PretrainConfig, chat: ChatFormat) -> dict[str, Any]:
    """config.json of a Llama decoder."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": len(chat.tokenizer),
        "num_hidden_layers": settings.num_layers,
        "hidden_size": settings.d_model,
        "num_attention_heads": settings.num_heads,
        "num_key_value_heads": settings.num_heads,
        "intermediate_size": settings.d_ff,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": settings.max_length,
        "eos_token_id": chat.tokenizer.eos_token_id,
        "pad_token_id": chat.tokenizer.pad_token_id,
        "dtype": "float32",
    }


def _row(chat: ChatFormat, id_: str, messages: tuple[Message, ...], learned: int) -> dict[str, Any]:
    """A dialogue's ids; the mask is 1 on the last ``learned`` of the assistant's turns."""
    tokens = [*chat.prompt_ids(messages[:-1]), *chat.reply_ids(messages[-1]["content"])]
    mask = [0] * len(tokens)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"][-learned:]
    for turn in turns:
        start = len(chat.prompt_ids(messages[:turn]))
        end = start + len(chat.reply_ids(messages[turn]["content"]))
        mask[start:end] = [1] * (end - start)
    return {"id": id_, "tokens": tokens, "loss_mask": mask}


STAGE = Stage(name="pretrain", inputs=(), settings=lambda run: [run.config.pretrain], run=run)
