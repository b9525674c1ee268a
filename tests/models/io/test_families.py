"""Every model family against transformers, in and out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver as flagsaver_module
from flax import nnx
from gguf_files import write_gguf
from safetensors.numpy import load_file, save_file

from cai_jax.convert import main as convert_main
from cai_jax.generation.scoring import Scorer
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder, KVCache, cached_keys
from cai_jax.models.heads import PreferenceModel, last_token
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.fields import read_fields
from cai_jax.models.io.load import (
    load_policy,
    load_preference_model,
    policy_blueprint,
    preference_blueprint,
)
from cai_jax.models.io.sources import ModelSource, resolve
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import init_on_mesh

pytestmark = pytest.mark.reference
torch = pytest.importorskip("torch", reason="pip install '.[reference]' to compare")
flagsaver = flagsaver_module.flagsaver
FLOAT32 = jnp.dtype(jnp.float32)
if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

SMALL = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GEMMA_3_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
# Head sizes and groups differ on purpose; each case switches on what its family has of its own.
CASES = {
    "llama": ("Llama", {"tie_word_embeddings": False, "num_attention_heads": 3, "head_dim": 12,
                        "num_key_value_heads": 1}),
    "llama-tied-biases": ("Llama", {"tie_word_embeddings": True, "attention_bias": True,
                                    "mlp_bias": True}),
    "llama3-scaled": ("Llama", {"rope_parameters": LLAMA_3}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0,
                                                   "rope_theta": 1e4}}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 5}),
    "mistral-whole": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True, "head_dim": 6}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4,
                               "max_window_layers": 2, "head_dim": 6}),
    "qwen3": ("Qwen3", {"attention_bias": True, "num_key_value_heads": 4}),
    "gemma2": ("Gemma2", {"sliding_window": 5, "query_pre_attn_scalar": 10,
                          "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3", {"sliding_window": 4, "query_pre_attn_scalar": 10,
                          "num_hidden_layers": 7, "rope_parameters": GEMMA_3_ROPES}),
    "neox": ("GPTNeoX", {"rotary_pct": 0.25, "hidden_size": 64, "use_parallel_residual": True}),
    "neox-sequential": ("GPTNeoX", {"rotary_pct": 0.5, "hidden_size": 48,
                                    "use_parallel_residual": False}),
}  # fmt: skip


def reference_model(name, seed=0):
    """A tiny transformers model with random numbers in every tensor, norms and biases too."""
    import transformers

    family, changes = CASES[name]
    fields = SMALL | changes
    if family == "GPTNeoX":
        fields.pop("head_dim"), fields.pop("num_key_value_heads")
    text = "Text" if family == "Gemma3" else ""
    config = getattr(transformers, f"{family}{text}Config")(**fields)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in parameter_name and parameter_name.endswith("weight"):
                parameter.add_(1.0)
    return model


def loaded(folder, mesh):
    return policy_of(ModelSource(folder), mesh)


def policy_of(source, mesh):
    model = load_policy(source, policy_blueprint(source, FLOAT32), mesh)
    return nnx.merge(model.graph, model.params)


def scorer_of(source, mesh):
    model = load_preference_model(source, preference_blueprint(source, FLOAT32), mesh)
    return Scorer(model, mesh, 2, 8)


@pytest.mark.parametrize("name", CASES)
def test_logits_match_transformers(tmp_path, mesh, name):
    reference = reference_model(name)
    reference.save_pretrained(tmp_path)
    decoder = loaded(tmp_path, mesh)
    rng = np.random.default_rng(0)
    lengths, width = (19, 1, 7), 21
    rows = [rng.integers(3, 101, length) for length in lengths]
    tokens, segments = np.zeros((2, 3, width), np.int32), np.zeros((2, 3, width), np.int32)
    for i, row in enumerate(rows):
        tokens[0, i, : len(row)], segments[0, i, : len(row)] = row, 1
        tokens[1, i, width - len(row) :], segments[1, i, width - len(row) :] = row, 1
    with torch.no_grad():
        theirs = [reference(torch.tensor(row[None])).logits[0].numpy() for row in rows]
    for side in (0, 1):
        ours = decoder.logits(decoder.hidden(jnp.array(tokens[side]), jnp.array(segments[side])))
        for i, expected in enumerate(theirs):
            here = np.asarray(ours[i])[segments[side, i] > 0]
            np.testing.assert_allclose(here, expected, atol=1e-4)

    # The same through the cache: prompts, then one token after another.
    start = [max(1, length - 6) for length in lengths]
    prompts, valid = np.zeros((3, 14), np.int32), np.zeros((3, 14), np.int32)
    for i, row in enumerate(rows):
        prompts[i, : start[i]], valid[i, : start[i]] = row[: start[i]], 1
    hidden, keys, values = decoder.prefill(jnp.array(prompts), jnp.array(valid))
    hidden = last_token(hidden, jnp.array(valid))
    room = lambda held: tuple(jnp.pad(x, ((0, 0),) * 2 + ((0, 6), (0, 0))) for x in held)
    cache = KVCache((*map(cached_keys, room(keys)),), room(values), jnp.array(start))
    for step in range(7):
        logits = np.asarray(decoder.logits(hidden))
        at = [start[i] - 1 + step for i in range(3)]
        for i, expected in enumerate(theirs):
            if at[i] < lengths[i]:
                np.testing.assert_allclose(logits[i], expected[at[i]], atol=1e-4)
        following = [rows[i][at[i] + 1] if at[i] + 1 < lengths[i] else 0 for i in range(3)]
        new = jnp.array([int(at[i] + 1 < lengths[i]) for i in range(3)])
        if not new.any():
            break
        hidden, cache = decoder.extend(jnp.array(following, jnp.int32)[:, None], new, cache)
        hidden = hidden[:, 0]


OLD = {
    "gemma3": {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 6,
               "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "llama3-scaled": {"rope_theta": 5000.0, "rope_scaling": {
        k: v for k, v in LLAMA_3.items() if k != "rope_theta"}},
    "neox": {"rotary_emb_base": 10000, "rotary_pct": 0.25},
    "smollm3": {"rope_theta": 2e6, "no_rope_layer_interval": 4},
    "gemma2": {"rope_theta": 10000.0},
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_configs_of_transformers_4_mean_the_same(tmp_path, name):
    """Before version 5 layer types were implied and rope fields stood apart."""
    reference_model(name).save_pretrained(tmp_path)
    new = ModelSource(tmp_path).config
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text())
    for gone in ("rope_parameters", "layer_types", "no_rope_layers"):
        fields.pop(gone, None)
    file.write_text(json.dumps(fields | OLD[name]))
    assert ModelSource(tmp_path).config == new


# What llama.cpp's format cannot say: windows of Mistral and Qwen, other layers without rope, other
# scalings than Llama 3's own, and a local rope base or query scaling of Gemma's.
IN_GGUF = {
    "llama": {},
    "llama-tied-biases": {},
    "llama-linear": {},
    "llama3-scaled": {
        "rope_parameters": {**LLAMA_3, "rope_theta": 5e5, "original_max_position_embeddings": 8192}
    },
    "smollm3": {"num_hidden_layers": 5, "tie_word_embeddings": True, "eos_token_id": 7},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3": {"query_pre_attn_scalar": 8},
    "neox": {},
    "neox-sequential": {},
}


@pytest.mark.parametrize("name", IN_GGUF)
def test_gguf_means_the_same_as_the_folder(tmp_path, mesh, monkeypatch, name):
    monkeypatch.setitem(CASES, name, (CASES[name][0], CASES[name][1] | IN_GGUF[name]))
    reference = reference_model(name)
    reference.save_pretrained(tmp_path / "folder")
    fields = read_fields(tmp_path / "folder" / "config.json")
    tensors = load_file(tmp_path / "folder" / "model.safetensors")
    file = write_gguf(tmp_path / "model.gguf", fields, tensors)
    decoder = loaded(file, mesh)
    ours = decoder.logits(decoder.hidden(jnp.array([IDS]), jnp.ones((1, len(IDS)), jnp.int32)))[0]
    np.testing.assert_allclose(ours, logits(reference, IDS), atol=1e-4)
    assert ModelSource(file).stop_ids == (fields["eos_token_id"],)
    from transformers import AutoModelForCausalLM

    out = AutoModelForCausalLM.from_pretrained(convert(file, tmp_path / "out")).eval()
    np.testing.assert_allclose(logits(out, IDS), logits(reference, IDS), atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2"])
def test_our_gguf_files_are_what_transformers_reads(tmp_path, monkeypatch, name):
    """The writer of these tests lays tensors out as llama.cpp does, or both would be wrong."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setitem(CASES, name, (CASES[name][0], CASES[name][1] | IN_GGUF[name]))
    reference = reference_model(name)
    reference.save_pretrained(tmp_path / "folder")
    fields = read_fields(tmp_path / "folder" / "config.json")
    write_gguf(tmp_path / "model.gguf", fields, load_file(tmp_path / "folder/model.safetensors"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    for key, tensor in reference.state_dict().items():
        np.testing.assert_allclose(theirs.state_dict()[key], tensor, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, ["'mamba'", "known: llama"]),
        ({"hidden_act": "relu2"}, ["hidden_act", "relu2"]),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, ["yarn", "llama3"]),
        ({"hidden_size": None}, ["hidden_size"]),
    ],
)
def test_configs_that_cannot_be_computed_are_refused(tmp_path, change, words):
    reference_model("llama").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    fields = json.loads(file.read_text()) | change
    file.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        _ = ModelSource(tmp_path).config
    assert all(word in str(error.value) for word in words)


def convert(source, to, **changes):
    with flagsaver(**{"from": str(source), "to": str(to)}, **changes):
        convert_main()
    return to


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


IDS = [5, 99, 30, 31, 32, 7, 64, 8, 9, 3, 44]


@pytest.mark.parametrize("name", CASES)
def test_out_and_in_again(tmp_path, name):
    from transformers import AutoModelForCausalLM

    reference = reference_model(name)
    reference.save_pretrained(tmp_path / "a")
    out = convert(tmp_path / "a", tmp_path / "b", shard_gib=2e-5)
    first = load_file(tmp_path / "a" / "model.safetensors")
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 1
    second = {key: value for shard in shards for key, value in load_file(shard).items()}
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        np.testing.assert_array_equal(second[key], tensor, err_msg=key)
    again = AutoModelForCausalLM.from_pretrained(out).eval()
    np.testing.assert_allclose(logits(again, IDS), logits(reference, IDS), atol=1e-5)
    assert "converted by cai_jax" in (out / "README.md").read_text()
    assert again.generation_config.eos_token_id == SMALL["eos_token_id"]


def test_a_misshapen_joint_tensor_is_named(tmp_path, mesh):
    reference_model("neox").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "gpt_neox.layers.1.attention.query_key_value.weight"
    save_file({**tensors, name: tensors[name][:-1].copy()}, file)
    with pytest.raises(ValueError, match=r"layers\.1\.attention\.query_key_value.*asks for"):
        loaded(tmp_path, mesh)


def trained(folder, model_folder, mesh, kind):
    """A checkpoint with random low-rank updates (and head) on the model in a folder."""
    source, lora = resolve(str(model_folder), folder), LoRAConfig(3, 6.0)
    module = PreferenceModel if kind == "preference" else Decoder
    blueprint = Blueprint(module, source.config, FLOAT32, lora)
    state = init_on_mesh(blueprint.build, (LoRAParam, HeadParam), mesh)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), state)
    if kind == "preference":
        state["head"]["kernel"].set_value(state["head"]["kernel"][...] * 3)
    folder.mkdir()
    save_checkpoint(folder, CheckpointInfo(kind, str(model_folder), lora), state)
    return resolve(str(folder), folder)


@pytest.mark.parametrize("name", ["llama-tied-biases", "qwen3", "gemma2", "gemma3", "neox"])
def test_preference_model_out(tmp_path, mesh, name):
    from transformers import AutoModelForSequenceClassification

    reference_model(name).save_pretrained(tmp_path / "base")
    source = trained(tmp_path / "pm", tmp_path / "base", mesh, "preference")
    out = convert(tmp_path / "pm", tmp_path / "out")
    theirs = AutoModelForSequenceClassification.from_pretrained(out).eval()
    rows = [[*IDS, 2], [40, 2]]
    ours = scorer_of(source, mesh).preference_scores(rows)
    padded = torch.full((2, 12), theirs.config.pad_token_id)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    with torch.no_grad():
        scores = theirs(padded, attention_mask=(padded != theirs.config.pad_token_id)).logits[:, 0]
    np.testing.assert_allclose(ours, scores.numpy(), atol=1e-4)

    # The classifier is a source too, to score with and to write again.
    again = scorer_of(ModelSource(out), mesh).preference_scores(rows)
    # Updates that were added before and that are added now: sums in another order, scores of 3.
    np.testing.assert_allclose(again, ours, atol=5e-5)
    with pytest.raises(ValueError, match="a preference model, but a policy"):
        loaded(out, mesh)
    copy = convert(out, tmp_path / "copy")
    for key, tensor in load_file(out / "model.safetensors").items():
        np.testing.assert_array_equal(load_file(copy / "model.safetensors")[key], tensor)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_low_rank_updates_out(tmp_path, mesh, name):
    from transformers import AutoModelForCausalLM

    reference_model(name).save_pretrained(tmp_path / "base")
    source = trained(tmp_path / "policy", tmp_path / "base", mesh, "policy")
    decoder = policy_of(source, mesh)
    ours = decoder.logits(decoder.hidden(jnp.array([IDS]), jnp.ones((1, len(IDS)), jnp.int32)))[0]
    merged = AutoModelForCausalLM.from_pretrained(convert(tmp_path / "policy", tmp_path / "out"))
    np.testing.assert_allclose(logits(merged.eval(), IDS), ours, atol=2e-4)

    peft = pytest.importorskip("peft", reason="pip install '.[reference]' to compare")
    adapter = convert(tmp_path / "policy", tmp_path / "adapter", merge=False)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, adapter).eval()
    np.testing.assert_allclose(logits(adapted, IDS), ours, atol=2e-4)


def test_an_adapter_brings_a_base_that_peft_could_not_load(tmp_path, mesh):
    peft = pytest.importorskip("peft", reason="pip install '.[reference]' to compare")
    reference_model("llama").save_pretrained(tmp_path / "base")
    trained(tmp_path / "first", tmp_path / "base", mesh, "policy")
    source = trained(tmp_path / "second", tmp_path / "first", mesh, "policy")
    adapter = convert(tmp_path / "second", tmp_path / "adapter", merge=False)
    adapted = peft.AutoPeftModelForCausalLM.from_pretrained(adapter).eval()
    decoder = policy_of(source, mesh)
    ours = decoder.logits(decoder.hidden(jnp.array([IDS]), jnp.ones((1, len(IDS)), jnp.int32)))[0]
    np.testing.assert_allclose(logits(adapted, IDS), ours, atol=2e-4)


def test_an_adapter_names_the_repository_that_has_its_base(tmp_path, mesh):
    reference_model("llama").save_pretrained(tmp_path / "base")
    trained(tmp_path / "policy", tmp_path / "base", mesh, "policy")
    made = dict(merge=False, base="org/name", dtype="bfloat16")
    adapter = convert(tmp_path / "policy", tmp_path / "adapter", **made)
    assert (
        json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "org/name"
    )
    assert not (adapter / "base").exists()
    assert "org/name" in (adapter / "README.md").read_text()
    written = load_file(adapter / "adapter_model.safetensors")
    assert {value.dtype for value in written.values()} == {jnp.dtype("bfloat16")}
    with pytest.raises(ValueError, match="--nomerge"):
        convert(tmp_path / "policy", tmp_path / "merged", base="org/name")


def test_an_adapter_of_a_preference_model(tmp_path, mesh):
    peft = pytest.importorskip("peft", reason="pip install '.[reference]' to compare")
    reference_model("qwen3").save_pretrained(tmp_path / "base")
    source = trained(tmp_path / "pm", tmp_path / "base", mesh, "preference")
    adapter = convert(tmp_path / "pm", tmp_path / "adapter", merge=False)
    theirs = peft.AutoPeftModelForSequenceClassification.from_pretrained(adapter).eval()
    end = SMALL["eos_token_id"]
    assert theirs.config.pad_token_id != end
    rows = [[*IDS, end], [40, end]]
    ours = scorer_of(source, mesh).preference_scores(rows)
    for row, score in zip(rows, ours, strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(theirs(torch.tensor([row])).logits[0, 0], score, atol=1e-4)


def test_what_cannot_be_converted_is_refused(tmp_path, mesh):
    reference_model("neox").save_pretrained(tmp_path / "base")
    trained(tmp_path / "policy", tmp_path / "base", mesh, "policy")
    with pytest.raises(ValueError, match="--merge"):
        convert(tmp_path / "policy", tmp_path / "adapter", merge=False)
    with pytest.raises(ValueError, match="low-rank"):
        convert(tmp_path / "base", tmp_path / "adapter", merge=False)
    with pytest.raises(ValueError, match="exists"):
        convert(tmp_path / "base", tmp_path / "policy")
