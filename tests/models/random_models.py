"""Tiny random models of the shapes that published judges have, with logits far enough apart to see an error."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 96
SHAPES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8, "tie_word_embeddings": True}),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"num_key_value_heads": 4}),
    "mistral": (MistralConfig, MistralForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, {"head_dim": 8}),
}


def random_model(shape: str, seed: int = 0, **over: Any) -> Any:
    """Two layers, 32 wide, grouped-query attention except for Phi-3, float32, in eval mode."""
    torch.manual_seed(seed)
    config_class, model_class, own = SHAPES[shape]
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 2,
        **own,
        **over,
    }
    model = model_class(config_class(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model.eval()


def random_ids(length: int, seed: int) -> list[int]:
    """Token ids without pad and stop tokens."""
    return torch.randint(10, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
