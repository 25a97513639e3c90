"""What transformers' reading of a GGUF file's settings leaves at a class's default though the file says otherwise.

transformers 5.23 knows each architecture's sizes. It drops how positions are scaled (`rope.scaling.*` and the factors
that lie among the tensors), the width of a head in Qwen3, Phi-3's attention window and partial rotation, and keeps the
token ids of one published model where a file names none. A model with such a setting computes something else, silently.
"""

from __future__ import annotations

import math
from typing import Any

from medjudge.errors import ModelError
from medjudge.models.gguf_header import GgufHeader

CORRECTED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3")
"""Architectures whose settings are read here, too; any other is taken as transformers reads it."""
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are settings; everything else in a file is a weight."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_GEMMA3_27B_LAYERS = 62


def corrected(config: Any, header: GgufHeader) -> Any:
    """A configuration like `config`, a transformers one, with what the file says. Raises ModelError for a scaling of
    positions that cannot be taken over."""
    values = config.to_dict()
    for key in ("_model_name_or_path", "quantization_config", "transformers_version"):
        values.pop(key, None)
    for name, key in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        values[f"{key}_token_id"] = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
    # An embedding is not trained at its padding index, and an end token that pads, too, is to be learnt.
    if values["pad_token_id"] == values["eos_token_id"]:
        values["pad_token_id"] = None
    if (embeddings := header.tensors.get("token_embd.weight")) is not None:
        values["vocab_size"] = embeddings.shape[0]
    if header.architecture in CORRECTED:
        values |= _attention(values, header)
        values["rope_parameters"] = _rope(values, header)
    elif header.own("rope.scaling.type", "none") != "none" or any(name in header.tensors for name in ROPE_TENSORS):
        raise _cannot_scale(header)
    return type(config)(**values)


def _attention(values: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    width = header.first("attention.key_length")
    if "head_dim" in values and width is not None:
        changed["head_dim"] = width
    window = header.own("attention.sliding_window")
    if "sliding_window" in values and window:
        changed["sliding_window"] = window
    if header.architecture == "gemma2":
        changed |= {key: header.own(key, values[key]) for key in ("attn_logit_softcapping", "final_logit_softcapping")}
    if header.architecture in ("gemma2", "gemma3") and width is not None:
        # No file names the scale; these are the rules of llama.cpp (src/models/gemma2.cpp, gemma3.cpp).
        by_heads = header.own("block_count") == (_GEMMA3_27B_LAYERS if header.architecture == "gemma3" else 46)
        changed["query_pre_attn_scalar"] = values["hidden_size"] // values["num_attention_heads"] if by_heads else width
    pattern = header.own("attention.sliding_window_pattern")
    if "layer_types" in values and isinstance(pattern, list):
        changed["layer_types"] = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    return changed


def _rope(values: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """The parameters of the rotary position embedding, as transformers writes them."""
    theta = header.own("rope.freq_base")
    head_dim = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    n_rotated = header.own("rope.dimension_count") or head_dim
    rope = {**_scaling(values, header, n_rotated), **({} if theta is None else {"rope_theta": float(theta)})}
    if header.architecture == "phi3":
        rope["partial_rotary_factor"] = n_rotated / head_dim
    if header.architecture == "gemma3":
        local = float(header.own("rope.freq_base_swa", 10_000.0))
        return {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
    if theta is None:
        rope["rope_theta"] = values["rope_parameters"]["rope_theta"]
    return rope


def _scaling(values: dict[str, Any], header: GgufHeader, n_rotated: int) -> dict[str, Any]:
    kind, factor = header.own("rope.scaling.type", "none"), header.own("rope.scaling.factor")
    original = header.own("rope.scaling.original_context_length")
    if "rope_freqs.weight" in header.tensors:
        return {"rope_type": "llama3", **_LLAMA3, "factor": _llama3_factor(header, n_rotated)}
    if "rope_factors_long.weight" in header.tensors and original is not None:
        values["original_max_position_embeddings"] = original
        return {
            "rope_type": "longrope",
            "long_factor": _numbers(header, "rope_factors_long.weight"),
            "short_factor": _numbers(header, "rope_factors_short.weight"),
            "original_max_position_embeddings": original,
        }
    if kind == "none" or (kind == "linear" and factor == 1):
        return {"rope_type": "default"}
    if kind == "linear" and factor is not None:
        return {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn" and factor is not None and original is not None:
        return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": original}
    raise _cannot_scale(header)


def _llama3_factor(header: GgufHeader, n_rotated: int) -> float:
    """The factor of Llama 3's scaling, whose effect on each frequency the file has, but not its four parameters.

    Source: https://github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py, `LlamaModel.generate_extra_tensors`.
    """
    theta = float(header.own("rope.freq_base", 10_000.0))
    found = _numbers(header, "rope_freqs.weight")
    factor = max(found)
    low, high, context = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"], 8192
    for i, scale in enumerate(found):
        n_turns = context / (2 * math.pi * theta ** (2 * i / n_rotated))
        smooth = min(1.0, max(0.0, (n_turns - low) / (high - low)))
        if not math.isclose(scale, 1 / ((1 - smooth) / factor + smooth), rel_tol=1e-3):
            raise _cannot_scale(header)
    return factor


def _numbers(header: GgufHeader, name: str) -> list[float]:
    from gguf import GGUFReader

    tensor = next(one for one in GGUFReader(header.path).tensors if one.name == name)
    return [float(value) for value in tensor.data]


def _cannot_scale(header: GgufHeader) -> ModelError:
    kind = header.own("rope.scaling.type", "by factors of its own")
    return ModelError(
        f"{header.path} scales its positions in a way ({kind}) that "
        f"cannot be taken over for {header.architecture}: the model would answer wrongly at length. Take the model as "
        "`save_pretrained` wrote it, a folder or a hub id."
    )
