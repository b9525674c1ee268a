"""What config.json may say: nonsense is refused by field, whatever it would compute."""

import json

import pytest

from cai_jax.models.io.sources import ModelSource

LLAMA_3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_position_embeddings": 64,
}
NONSENSE = [
    ("sliding_window", -4, {"model_type": "mistral"}),
    ("sliding_window", True, {"model_type": "mistral"}),
    ("rope_theta", float("nan"), {}),
    ("rope_theta", 1e400, {}),
    ("rope_theta", -1.0, {}),
    ("rope_theta", "10000", {}),
    ("rope_scaling", {"rope_type": "linear", "factor": -3.0}, {}),
    ("rope_scaling", {"rope_type": "linear", "factor": 0}, {}),
    ("rope_scaling", {**LLAMA_3, "original_max_position_embeddings": 0}, {}),
    ("low_freq_factor", None, {"rope_scaling": {**LLAMA_3, "low_freq_factor": 4.0}}),
    ("rope_scaling", [], {}),
    ("vocab_size", 0, {}),
    ("vocab_size", True, {}),
    ("vocab_size", 2.5, {}),
    ("hidden_size", 2**40, {}),
    ("hidden_size", 30, {}),
    ("head_dim", 7, {}),
    ("num_hidden_layers", 10**9, {}),
    ("num_hidden_layers", "2", {}),
    ("num_attention_heads", 0, {}),
    ("num_key_value_heads", 3, {}),
    ("rms_norm_eps", 0.0, {}),
    ("rms_norm_eps", -1e-5, {}),
    ("tie_word_embeddings", "yes", {}),
    ("layer_types", ["full_attention"] * 3, {"model_type": "smollm3"}),
    ("max_position_embeddings", -1, {}),
    ("quantization_config", {"quant_method": "gptq"}, {}),
    ("eos_token_id", -2, {}),
]


@pytest.mark.parametrize(("field", "value", "others"), NONSENSE)
def test_nonsense_is_refused_by_field(folder, field, value, others):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value} | others))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        _ = ModelSource(folder).config
    assert field.removesuffix("_theta").removesuffix("_scaling") in str(error.value) or (
        "no finite number" in str(error.value)
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ids", ["2", -1, [True], [[2]], 1.5])
def test_end_tokens_are_ids(folder, ids):
    file = folder / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": ids}))
    with pytest.raises(ValueError, match=r"generation_config\.json: field eos_token_id"):
        _ = ModelSource(folder).stop_ids
