"""A small assistant from scratch, where the config asks for one: the model the run starts from."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from cai_jax.config import PretrainConfig
from cai_jax.data.records import INTS, TEXT, write_records
from cai_jax.data.tasks import Part
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.train import Trainable, make_optimizer
from cai_jax.models.io.export import decoder_tensors, write_shards
from cai_jax.models.io.load import decoder_builder
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.params import abstract_split, init_on_mesh
from cai_jax.parallel import hosts
from cai_jax.prompts.chat import ChatFormat, Message, load_tokenizer
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.stages.run import PRETRAINED, Outcome, Run, Stage, load_function
from cai_jax.stages.training import check_lengths, packed_batches, packed_tokens, train

DIALOGUE_FEATURES = {"id": TEXT, "tokens": INTS, "loss_mask": INTS}


def run(run: Run, folder: Path) -> Outcome:
    """Trains on the corpus and leaves a Hugging Face folder, ``model``."""
    settings = run.config.pretrain
    dialogues = list(_corpus(run))
    model = folder / PRETRAINED
    texts = (m["content"] for dialogue in dialogues for m in dialogue.messages)
    if hosts.is_main():
        word_tokenizer(texts).save_pretrained(model)
    hosts.sync("the tokenizer")
    chat = ChatFormat(load_tokenizer(model))
    hosts.write_text(model / "config.json", json.dumps(_fields(settings, chat), indent=2) + "\n")
    hosts.sync("the model's config")
    source = ModelSource(model, execution=run.execution)

    rows = [_row(chat, f"{n:07d}", d.messages, d.learned) for n, d in enumerate(dialogues)]
    lengths = (len(row["tokens"]) for row in rows)
    check_lengths("pretrain", lengths, settings.sequence_length)
    write_records(folder, "dialogues", DIALOGUE_FEATURES, rows)
    parts = [Part(folder, "dialogues", 1.0)]
    data = list(packed_batches(run, "pretrain", parts, settings, source.config.vocab_size))
    if len(data) <= settings.warmup_steps:
        raise ValueError(
            f"pretrain: {len(data)} updates; set config.pretrain.warmup_steps (now "
            f"{settings.warmup_steps}) below that, or use a larger corpus"
        )
    build = decoder_builder(source, run.dtype, seed=run.stage_seed("pretrain", "init"))
    graph, _ = abstract_split(build)
    trainable = Trainable(graph, init_on_mesh(build, nnx.Param, run.mesh), nnx.State({}))
    optimizer = make_optimizer(
        settings.learning_rate,
        settings.warmup_steps,
        settings.max_grad_norm,
        decay_steps=len(data),
    )
    params, history, tokens = train(
        run,
        folder,
        "pretrain",
        trainable,
        sft_loss_sum,
        optimizer,
        data,
        settings.micro_batches,
        packed_tokens,
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


def _corpus(run: Run) -> Iterator[Any]:
    """Dialogues with ``messages`` and ``learned``, as cai_jax/microworld/corpus.py writes them."""
    settings = run.config.pretrain
    write = load_function(settings.corpus, "config.pretrain.corpus")
    return write(run.config.seed, run.config.data.held_out_percent, dict(settings.options))


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
        "rope_theta": 300.0,
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


def _beginning(run: Run) -> list[str]:
    """The corpus by its first dialogues: files that it is written from may have changed."""
    return [m["content"] for dialogue in islice(_corpus(run), 1000) for m in dialogue.messages]


STAGE = Stage(
    name="pretrain",
    inputs=(),
    settings=lambda run: [run.config.pretrain, _beginning(run)],
    run=run,
)
