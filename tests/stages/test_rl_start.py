"""Where RL starts, in bfloat16: at SL-CAI as evaluation reads it, however small its update is."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_model import write_tiny_model
from tiny_run import tiny_config

from cai_jax.config import ConfigError
from cai_jax.learning.logprobs import token_logprobs
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.models.blueprint import DECODER, Blueprint, Model, inside
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.load import load_policy
from cai_jax.models.layers import LoRAParam
from cai_jax.stages import rl
from cai_jax.stages.checks import check_models
from cai_jax.stages.models import lora_config
from cai_jax.stages.stage import open_run

FLOAT32 = jnp.dtype(jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(1).integers(3, 70, (8, 24)))
ONE_DEVICE = {"mesh.fsdp": 1, "mesh.tensor": 1, "model.compute_dtype": "bfloat16"}


@jax.jit(static_argnums=0)
def logprobs(graph, params):
    return token_logprobs(nnx.merge(graph, params), TOKENS, jnp.ones_like(TOKENS)).logprobs_bt


def bfloat16_model(folder):
    """As models are published: every weight is a bfloat16 number."""
    write_tiny_model(folder, layers=4)
    file = folder / "model.safetensors"
    weights = load_file(file).items()
    rounded = {name: w.astype(jnp.bfloat16).astype(np.float32) for name, w in weights}
    save_file(rounded, file)
    return folder


def small_update(source, lora, mesh):
    """Of five steps that make some tokens likelier; and by how much, in float32."""
    base = load_policy(source, Blueprint(Decoder, source.config, FLOAT32), mesh).params
    blueprint = Blueprint(Decoder, source.config, FLOAT32, lora)
    start, _ = nnx.split_state(nnx.state(blueprint.build()), LoRAParam, ...)
    mean = lambda params: logprobs(blueprint.graph, nnx.merge_state(base, params)).mean()
    optimizer = make_optimizer(3e-5, 0, 1.0)
    state, params = optimizer.init(start), start
    for _ in range(5):
        grads = jax.grad(lambda params: -mean(params))(params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, float(mean(params) - mean(start))


def test_a_small_update_of_sl_cai_is_in_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = bfloat16_model(tmp_path / "model")
    config = tiny_config(tmp_path / "run", folder, **ONE_DEVICE)
    run = open_run(config, jax.devices()[:1])
    models, lora = run.models, lora_config(config.sl_train.lora)
    update, gain = small_update(models.source(), lora, models.mesh)
    save_checkpoint(
        models.checkpoint("sl_train"), CheckpointInfo("policy", str(folder), lora), update
    )

    task = rl.make_task(run.inputs(rl.STAGE))
    reference = task.load(None)
    blueprint = replace(task.reference, module=PolicyWithValue, lora=task.lora)
    policy = task.start(blueprint, reference)
    start = Model(
        replace(task.reference, lora=task.lora).graph,
        inside(DECODER, nnx.merge_state(policy.params, policy.frozen)),
    )
    evaluated = models.policy(models.policy_source("sl_cai"))
    base = models.policy(models.source())
    plain = Blueprint(Decoder, evaluated_config(models), models.dtype)
    merged = load_policy(models.policy_source("sl_cai"), plain, models.mesh)
    found = {
        name: np.asarray(logprobs(model.graph, model.params))
        for name, model in (
            *(("start", start), ("reference", reference), ("evaluated", evaluated)),
            *(("merged", merged), ("base", base)),
        )
    }
    np.testing.assert_allclose(found["start"], found["evaluated"], atol=1e-3)
    np.testing.assert_array_equal(found["start"], found["reference"])
    share = {name: float((x - found["base"]).mean()) / gain for name, x in found.items()}
    assert share["start"] > 0.7
    assert share["merged"] < 0.3
    # What is trained is a copy: the reference keeps the values that it has.
    ours, theirs = (
        nnx.split_state(x, LoRAParam, ...)[0]
        for x in (inside(DECODER, policy.params), reference.params)
    )
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == jnp.float32
        assert one.unsafe_buffer_pointer() != other.unsafe_buffer_pointer()


def evaluated_config(models):
    return replace(models.source().config, execution=models.execution)


def test_another_rank_than_sl_cais_is_refused(tmp_path, model_folder):
    for changes in ({"rl.lora.rank": 4}, {"sl_train.lora.alpha": 8.0}):
        with pytest.raises(ConfigError, match=r"config.rl.lora: rank \d and alpha 16.0, but RL"):
            tiny_config(tmp_path, model_folder, **changes)
    full = {"sl_train.lora.rank": 0, "sl_train.trained_layers": 0}
    assert tiny_config(tmp_path, model_folder, **full, **{"rl.lora.rank": 4}).rl.lora.rank == 4


def test_rl_cai_is_one_update_of_the_base(tmp_path, model_folder):
    low_rank = open_run(tiny_config(tmp_path, model_folder)).models
    assert low_rank.policy_source("rl_cai").below == low_rank.source()
    full = {"rl.lora.rank": 0, "rl.trained_layers": 0}
    whole = open_run(tiny_config(tmp_path, model_folder, **full)).models
    assert whole.policy_source("rl_cai").below == whole.policy_source("sl_cai")


def test_sl_cai_may_start_from_another_model(tmp_path, model_folder):
    other = write_tiny_model(tmp_path / "pretrained", layers=3)
    run = open_run(tiny_config(tmp_path / "run", model_folder, **{"sl_train.source": str(other)}))
    check_models(run)
    paths = {name: run.models.policy_source(name).path for name in ("base", "sl_cai", "rl_cai")}
    assert paths == {"base": model_folder, "sl_cai": other, "rl_cai": other}
    assert run.models.sl_base_name == str(other)
    strange = write_tiny_model(tmp_path / "strange", ("zebra",))
    changes = {"sl_train.source": str(strange)}
    with pytest.raises(ValueError, match=r"config.sl_train.source: the tokenizer of .* differs"):
        check_models(open_run(tiny_config(tmp_path / "run", model_folder, **changes)))
