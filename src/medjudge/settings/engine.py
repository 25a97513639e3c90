"""How a model that is asked is named: `vllm:NAME` asks it by vLLM, a plain folder or hub id by transformers."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["transformers", "vllm"]

VLLM_SCHEME = "vllm:"


def is_vllm(where: str) -> bool:
    """Whether the name asks for vLLM."""
    return where.startswith(VLLM_SCHEME)


def local_name(where: str) -> str:
    """The folder or hub id without the engine."""
    return where.removeprefix(VLLM_SCHEME)
