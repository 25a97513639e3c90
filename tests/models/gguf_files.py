"""Small GGUF files with random weights, written by the `gguf` package as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from medjudge.models.scratch import build_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + (m['role'] if m['role'] == 'user' else 'model') + '\n' + "
    "m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""As Gemma's own: no system role, and it writes BOS itself."""
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
SHAPES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"head_dim": 8, "rope_parameters": {"rope_theta": 100000.0}}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16, "tie_word_embeddings": True}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"num_key_value_heads": 4, "sliding_window": 24}),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 7},
    ),
}
TEMPLATES = {"llama": CHATML, "qwen3": CHATML, "phi3": PHI, "gemma3": GEMMA}


def write_gguf(
    path: Path,
    shape: str,
    *,
    seed: int = 0,
    template: str | None = "own",
    pad_is_eos: bool = True,
    architecture: str | None = None,
    n_parts: int = 1,
    pre: str | None = None,
    **over: Any,
) -> Any:
    """Writes a model's file and returns the model, in float32 and eval mode.

    architecture, pre: what the file says instead of its own. n_parts: of how many it says that it is the first.
    """
    tokens, settings = _vocabulary(shape)
    torch.manual_seed(seed)
    config_class, model_class, own = SHAPES[shape]
    config = config_class(**{**_SIZES, "vocab_size": len(tokens), **own, **over})
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), architecture or shape)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    writer.add_rope_freq_base(float(rope.get("full_attention", rope)["rope_theta"]))
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(len(tokens))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    _add_scaling(writer, rope.get("full_attention", rope), config, head)
    if n_parts > 1:
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", n_parts)
    settings(writer, pad_is_eos)
    if pre is not None:
        writer.kv_data[0]["tokenizer.ggml.pre"].value = pre
    if template is not None:
        writer.add_chat_template(TEMPLATES[shape] if template == "own" else template)
    _add_tensors(writer, model, shape, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_scaling(writer: Any, rope: Any, config: Any, head: int) -> None:
    kind = rope.get("rope_type", "default")
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", np.array(rope[f"{name}_factor"], dtype=np.float32))
    elif kind == "llama3":  # as `LlamaModel.generate_extra_tensors` of llama.cpp's converter
        frequencies = 1.0 / (rope["rope_theta"] ** (np.arange(0, head, 2) / head))
        factors = []
        for frequency in frequencies:
            length = 2 * np.pi / frequency
            if length < 8192 / 4:
                factors.append(1.0)
            elif length > 8192:
                factors.append(rope["factor"])
            else:
                smooth = (8192 / length - 1) / 3
                factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))


def _add_tensors(writer: Any, model: Any, shape: str, config: Any) -> None:
    names = gguf.get_tensor_name_map(
        next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == shape), config.num_hidden_layers
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if shape == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            n = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            rows = values.shape[0]
            values = values.reshape(n, 2, rows // n // 2, -1).swapaxes(1, 2).reshape(rows, -1)
        if shape == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        writer.add_tensor(found, np.ascontiguousarray(values, dtype=np.float32))


def _vocabulary(shape: str) -> tuple[list[str], Any]:
    return _sentencepiece(shape) if shape in ("phi3", "gemma3") else _byte_level(shape)


def _byte_level(shape: str) -> tuple[list[str], Any]:
    text = ["Is a chest radiograph right for acute chest pain? Yes, 0 1 2", "May be not <answer>"] * 10
    built = build_tokenizer(text, 300).backend_tokenizer
    import json

    model = json.loads(built.to_str())["model"]
    plain = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if "<|" not in token]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *plain]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]

    def settings(writer: Any, pad_is_eos: bool) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm" if shape == "llama" else "qwen2")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3, 3, *[1] * len(plain)])
        writer.add_token_merges(merges)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(2 if pad_is_eos else 0)
        writer.add_add_bos_token(False)

    return tokens, settings


def _sentencepiece(shape: str) -> tuple[list[str], Any]:
    control = (
        ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
        if shape == "phi3"
        else ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    )
    letters = [chr(code) for code in (*range(33, 127),)]
    words = ["▁", "\n", *letters, "▁t", "he", "▁the", "in", "er", "▁c", "st"]
    tokens = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [*[3] * len(control), *[6] * 256, *[1] * len(words)]
    scores = [*[0.0] * (len(control) + 256), *(-float(i) for i in range(len(words)))]
    bos, eos, unk = (1, 2, 0) if shape == "phi3" else (2, 1, 3)

    def settings(writer: Any, pad_is_eos: bool) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(bos)
        writer.add_eos_token_id(eos)
        writer.add_unk_token_id(unk)
        writer.add_pad_token_id(eos if pad_is_eos else 0)
        writer.add_add_bos_token(True)

    return tokens, settings
