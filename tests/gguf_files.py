"""Writes .gguf files as llama.cpp's converter lays them out."""

import gguf
import numpy as np

ARCHITECTURES = {
    "llama": "llama",
    "smollm3": "smollm3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
}


def write_gguf(path, fields, tensors, architecture=None, scaling=None, kind="F32"):
    """Writes a model.

    Args:
      path: the file.
      fields: of its config.json.
      tensors: float32, under Hugging Face names.
      architecture: another name than the one that fits.
      scaling: type of rope scaling to state.
      kind: quantisation of matrices whose rows are whole blocks.
    """
    fits = ARCHITECTURES[fields["model_type"]]
    writer = gguf.GGUFWriter(path, architecture or fits)
    heads, layers = fields["num_attention_heads"], fields["num_hidden_layers"]
    kv_heads = fields.get("num_key_value_heads") or heads
    size = fields.get("head_dim") or fields["hidden_size"] // heads
    rope = fields.get("rope_parameters") or {}
    full = rope.get("full_attention", rope)
    writer.add_block_count(layers)
    writer.add_vocab_size(fields["vocab_size"])
    writer.add_embedding_length(fields["hidden_size"])
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_context_length(fields["max_position_embeddings"])
    writer.add_rope_freq_base(full.get("rope_theta", fields.get("rope_theta", 10_000.0)))
    if fits == "gptneox":
        writer.add_layer_norm_eps(fields["layer_norm_eps"])
        writer.add_parallel_residual(fields["use_parallel_residual"])
        writer.add_rope_dimension_count(int(rope["partial_rotary_factor"] * size))
    else:
        writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(size)
    if fits.startswith("gemma"):
        writer.add_sliding_window(fields["sliding_window"])
        if fits == "gemma2":
            writer.add_attn_logit_softcapping(fields["attn_logit_softcapping"])
            writer.add_final_logit_softcapping(fields["final_logit_softcapping"])
    if fields.get("eos_token_id") is not None:
        writer.add_eos_token_id(fields["eos_token_id"])
    if full.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])
    if full.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(full, size))
    if scaling:
        writer.add_rope_scaling_type(scaling)
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known[fits], layers)
    for name, tensor in tensors.items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        tensor = as_stored(name, tensor, fits, heads, kv_heads)
        quantisation = gguf.GGMLQuantizationType[kind if fits_blocks(tensor) else "F32"]
        if quantisation.name != "F32":
            tensor = gguf.quants.quantize(tensor, quantisation)
        writer.add_tensor(theirs, np.ascontiguousarray(tensor), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def fits_blocks(tensor):
    """Whether rows are whole blocks; vectors and other matrices are left as they are."""
    return tensor.ndim > 1 and tensor.shape[-1] % 32 == 0


def as_stored(name, tensor, architecture, heads, kv_heads):
    """What llama.cpp's converter makes of a tensor."""
    for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
        if part in name and architecture in ("llama", "smollm3"):
            halves = tensor.reshape(count, 2, -1, *tensor.shape[1:])
            return halves.swapaxes(1, 2).reshape(tensor.shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if "query_key_value" in name:
        split = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
        return np.concatenate([split[:, i].reshape(-1, *tensor.shape[1:]) for i in range(3)])
    return tensor


def llama3_divisors(rope, size):
    """rope_freqs.weight: by how much each frequency of Llama 3 is divided."""
    divisors = []
    for i in range(0, size, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / size)
        original = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, np.float32)
