"""Section `[model]` and the adapter settings that stages share."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator

from medjudge.errors import did_you_mean
from medjudge.records import AdapterStep
from medjudge.settings.base import Settings

BUILTIN = "builtin:"
SCRATCH_BASE = f"{BUILTIN}scratch"
SMOLLM_BASE = f"{BUILTIN}smollm2-135m"
BUILTIN_BASES = (SMOLLM_BASE, SCRATCH_BASE)


def unknown_builtin(name: str) -> str | None:
    """What is wrong with a name that begins as the built-in models' do; None where nothing is."""
    if not name.startswith(BUILTIN) or name in BUILTIN_BASES:
        return None
    return (
        f"{name!r} is no built-in model{did_you_mean(name, BUILTIN_BASES)}, expected one of {', '.join(BUILTIN_BASES)}"
    )


class ModelConfig(Settings):
    """The base model and how it is loaded."""

    base: str = SMOLLM_BASE
    """A hub id, a local folder, a GGUF file, or one of two that need no hub.

    `builtin:smollm2-135m` is SmolLM2-135M-Instruct out of an installed wheel, else from the hub. `builtin:scratch` has
    some million parameters and is built from nothing by the base stage, on the training split's text. A GGUF file is
    converted once, into the user's cache."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What is stored and computed in. `auto` on a CPU: weights in float32, evaluated in it, and trained by products in
    bfloat16 where the processor has them and the model is 256 or more wide."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    """On a CPU, a name leaves training to transformers' own forward pass; None takes the faster one, if it fits."""
    gradient_checkpointing: bool = False
    quantization: Literal["none", "4bit", "8bit"] = "none"
    """QLoRA's base weights (needs the `quant` extra; on a CPU bitsandbytes 0.50 or later, and slow there).

    The merge is made in full precision, and says how far it is from the quantised model that was trained."""
    chat_template: str | None = None
    """A Jinja chat template, or `plain` for the built-in one; only for a tokenizer that has none."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, ...; None takes a GPU where there is one."""
    threads: int | None = Field(None, ge=1, exclude=True)  # excluded: no stage's inputs, and no reason to run it again
    """Threads of a CPU; None measures before each stage which number is fastest. OMP_NUM_THREADS says it, too."""

    @field_validator("base")
    @classmethod
    def _known_builtin(cls, value: str) -> str:
        if (trouble := unknown_builtin(value)) is not None:
            raise ValueError(trouble)
        return value


class LoraSettings(Settings):
    """LoRA's adapter shape (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    rslora: bool = False
    """Scale by alpha/sqrt(r) instead of alpha/r (Kalajdzievski 2023, arXiv:2312.03732)."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_or_all(cls, value: Any) -> Any:
        if value == "all-linear":
            return value
        if isinstance(value, str) or not value:
            raise ValueError(
                'expected a list of module names such as ["q_proj", "v_proj"], or "all-linear"; patterns are not read'
            )
        return value

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied by."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def step(self, learning_rate: float) -> AdapterStep:
        """The size of a step under Adam, to first order.

        Adam moves each weight by about the learning rate, whatever its gradient. The second matrix, which starts at
        zero, has r weights per output, so the output moves by learning_rate x scale x r. With alpha/r that does not
        depend on r (Hu et al. 2021, section 4.1); with alpha/sqrt(r) and a fixed alpha it grows as sqrt(r).
        """
        return AdapterStep(self.r, self.scale, learning_rate, size=learning_rate * self.scale * self.r)
