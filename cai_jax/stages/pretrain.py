"""A small assistant from scratch, where the config asks for one: the model the run starts from."""

import json
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx

from cai_jax.config import PretrainConfig
from cai_jax.data.records import Part, write_records
from cai_jax.data.rows import TrainingDialogue
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.train import Trainable
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.export import decoder_tensors, write_shards
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.params import init_on_mesh
from cai_jax.parallel import hosts
from cai_jax.parallel.mesh import abstract_batch
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.stages.engines import load_function, stage_seed
from cai_jax.stages.models import PRETRAINED
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.training import (
    Training,
    check_lengths,
    dialogue_rows,
    packed_batches,
    packed_tokens,
    survey_batches,
)


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains on the corpus and leaves a Hugging Face folder, ``model``."""
    settings, models = inputs.config.pretrain, inputs.models
    dialogues = list(_corpus(inputs))
    model = folder / PRETRAINED
    texts = (message.text for dialogue in dialogues for message in dialogue.messages)
    if hosts.is_main():
        word_tokenizer(texts).save_pretrained(model)
    hosts.sync("the tokenizer")
    chat = ChatFormat(load_tokenizer(model))
    hosts.write_text(model / "config.json", json.dumps(_fields(settings, chat), indent=2) + "\n")
    hosts.sync("the model's config")
    source = ModelSource(model)

    rows = dialogue_rows(
        chat, [(f"{n:07d}", d.messages, d.learned) for n, d in enumerate(dialogues)]
    )
    check_lengths("pretrain", (len(row.tokens) for row in rows), settings.sequence_length)
    write_records(folder / "dialogues", rows, TrainingDialogue)
    parts = [Part(folder / "dialogues", 1.0)]
    vocab_size = source.config.vocab_size
    batches = partial(packed_batches, "pretrain", parts, settings, vocab_size, inputs.seed)
    survey = survey_batches(batches(), packed_tokens)
    if survey.count <= settings.warmup_steps:
        raise ValueError(
            f"pretrain: {survey.count} updates; set config.pretrain.warmup_steps (now "
            f"{settings.warmup_steps}) below that, or use a larger corpus"
        )
    training = _training(inputs, source, survey.count)
    build = partial(training.blueprint.build, stage_seed(inputs.seed, "pretrain", "init"))
    params = init_on_mesh(build, nnx.Param, models.mesh)
    trainable = Trainable(training.blueprint.graph, params, nnx.State({}))
    skipping = inputs.skipping("pretrain", "a new model", lambda: chat)
    fit = training.fit(folder, trainable, batches, survey, inputs.saver(), skipping)
    tensors = decoder_tensors(fit.params, source.family.names, source.config)
    write_shards(tensors, model, jnp.dtype(jnp.float32), 1 << 40)
    return Outcome({"dialogues": len(rows), **fit.metrics}, fit.tokens)


def _training(inputs: Inputs, source: ModelSource, steps: int) -> Training:
    settings, models = inputs.config.pretrain, inputs.models
    rows = abstract_batch((settings.batch_size, settings.sequence_length), jnp.int32, models.mesh)
    return Training(
        name="pretrain",
        block="pretrain",
        blueprint=models.blueprint(Decoder, source),
        loss_sum=sft_loss_sum,
        optimizer=make_optimizer(
            settings.learning_rate,
            settings.warmup_steps,
            settings.max_grad_norm,
            decay_steps=steps,
        ),
        micro_batches=settings.micro_batches,
        batch={name: rows for name in ("tokens", "segments", "loss_mask")},
        mesh=models.mesh,
        seed=inputs.seed,
    )


def _corpus(inputs: Inputs) -> Iterable[Any]:
    """Dialogues with ``messages`` and ``learned``, as cai_jax/microworld/corpus.py writes them."""
    settings = inputs.config.pretrain
    write = load_function(settings.corpus, "config.pretrain.corpus")
    return write(inputs.seed, inputs.held_out, dict(settings.options))


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


def _extra(inputs: Inputs) -> Any:
    """What is held out, and the first dialogues: files that they are made from may have changed."""
    beginning = [m.text for dialogue in islice(_corpus(inputs), 1000) for m in dialogue.messages]
    return [inputs.held_out, beginning]


def check(inputs: Inputs) -> None:
    """Refuses a corpus that there is not."""
    load_function(inputs.config.pretrain.corpus, "config.pretrain.corpus")


STAGE = Stage(name="pretrain", blocks=("pretrain",), execute=execute, extra=_extra, check=check)
