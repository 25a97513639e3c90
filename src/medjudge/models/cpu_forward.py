"""A forward pass for Llama-, Qwen- and Gemma-3-shaped models on CPUs, several times as fast as the general one.

Rows are packed without padding and share what they begin with (`packed.py`); the LM head sees the positions that are
asked for; products are few, large and in bfloat16 where the processor has it, over weights that stay as they are
(float32 for those that learn). `why_not` names what is not covered, and `disproof` compares with transformers' own pass
on a few rows before anything depends on this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from medjudge.models.cpu_functions import (
    Adapter,
    Attention,
    Gate,
    Head,
    Heads,
    Norm,
    Project,
    Rotate,
    dropout_factors,
    logits_of,
)
from medjudge.models.packed import PackedRows, pack

COVERED = ("Gemma3ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that depend on a token's position alone."""
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}
BF16_WIDTH = 256
"""Width of the smallest model that bfloat16 makes faster: smaller products cost less than their casts."""


def pick_arithmetic(dtype: str, model: Any) -> torch.dtype:
    """The type to compute in, from `model.dtype`: for `auto`, bfloat16 where the processor multiplies it faster."""
    if dtype != "auto":
        picked: torch.dtype = getattr(torch, dtype)
        return picked
    is_wide = base_of(model).config.get_text_config().hidden_size >= BF16_WIDTH
    return torch.bfloat16 if is_wide and has_fast_bf16() else torch.float32


def has_fast_bf16() -> bool:
    """Whether the CPU has instructions for products in bfloat16."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def base_of(model: Any) -> Any:
    """The transformers model inside PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def why_not(model: Any) -> str | None:
    """Why this model is not covered, or None if it is."""
    base = base_of(model)
    name = type(base).__name__
    if name not in COVERED:
        return f"{name} is none of {', '.join(COVERED)}"
    if any(parameter.device.type != "cpu" for parameter in base.parameters()):
        return "the model is not on the CPU"
    config = base.config
    rope = getattr(config, "rope_parameters", None) or {}
    for one in rope.values() if all(isinstance(value, dict) for value in rope.values()) else (rope,):
        if (kind := one.get("rope_type", "default")) not in ROPES:
            return f"its rotary embedding is of type {kind}"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention scores have a soft cap"
    if getattr(config, "use_bidirectional_attention", False):
        return "its attention is not causal"
    if getattr(config, "attention_dropout", 0):
        return "its attention has dropout"
    activation = getattr(config, "hidden_act", None) or config.hidden_activation
    if activation not in ACTIVATIONS:
        return f"its activation is {activation}"
    if isinstance(model, PeftModel) and model.peft_type != "LORA":
        return f"its adapter is of type {getattr(model.peft_type, 'value', model.peft_type)}"
    if type(base.lm_head) is not nn.Linear or base.lm_head.bias is not None:
        return f"its output layer is a {type(base.lm_head).__name__}"
    if not type(base.model.embed_tokens).__module__.startswith(("torch.", "transformers.")):
        return f"its embedding is a {type(base.model.embed_tokens).__name__}"
    return next((reason for layer in _linears(base) if (reason := _odd(layer))), None)


def _linears(base: Any) -> Iterator[Any]:
    for layer in base.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield from (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        yield from (mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _odd(layer: Any) -> str | None:
    if type(layer) is nn.Linear:
        return None
    if type(layer) is not LoraLinear or type(layer.get_base_layer()) is not nn.Linear:
        return f"it has layers of type {type(layer).__name__}"
    names = layer.active_adapters
    if layer.merged or layer.disable_adapters or len(names) != 1 or names[0] not in layer.lora_A:
        return "its adapters are merged, switched off or several"
    if layer.lora_variant or layer.lora_bias.get(names[0]):
        return "its adapters are a variant of LoRA"
    return None


class _Fused:
    """Linear layers of one input as one. Weights of another type than the arithmetic's are copied, side by side."""

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        bases = [layer.get_base_layer() if isinstance(layer, LoraLinear) else layer for layer in layers]
        self.layers, self.dtype = layers, dtype
        self.masters = [base.weight for base in bases]
        self.biases = [base.bias for base in bases] if bases[0].bias is not None else []
        self.sizes = [len(weight) for weight in self.masters]
        self.is_copied = any(weight.dtype != dtype for weight in self.masters)
        self.learns = any(weight.requires_grad for weight in (*self.masters, *self.biases))
        self.weights: list[Tensor] = []
        if self.is_copied:
            self.weights.append(torch.empty(sum(self.sizes), self.masters[0].shape[1], dtype=dtype))
        self.bias: Tensor | None = None
        self.cast: list[Adapter] | None = None
        """The adapters in the type of the arithmetic, for `decode`: a cast for every token would cost more than it."""
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Takes the weights as they are now."""
        if not self.is_copied:
            self.weights = [weight.detach() for weight in self.masters]
        else:
            for place, weight in zip(torch.split(self.weights[0], self.sizes), self.masters, strict=True):
                place.copy_(weight)
        if self.biases:
            self.bias = torch.cat([bias.detach() for bias in self.biases]).to(self.dtype)

    def adapters(self) -> list[Adapter]:
        """Those in use now: a trainer switches them off for the reference policy."""
        adapters, start = [], 0
        for layer, size in zip(self.layers, self.sizes, strict=True):
            if isinstance(layer, LoraLinear) and not layer.disable_adapters:
                (name,) = layer.active_adapters
                a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
                dropout = getattr(layer.lora_dropout[name], "p", 0.0)
                adapters.append(Adapter(slice(start, start + size), a, b, layer.scaling[name], dropout))
            start += size
        return adapters

    def cast_adapters(self) -> None:
        """Takes the adapters as they are now, for `decode`."""
        self.cast = [
            replace(one, a=one.a.detach().to(self.dtype), b=one.b.detach().to(self.dtype)) for one in self.adapters()
        ]

    def __call__(self, x: Tensor, *, training: bool, decoding: bool = False) -> Tensor:
        """(n, outputs of all layers)."""
        adapters, keep = self.cast if decoding and self.cast is not None else self.adapters(), None
        if training and adapters and (p := max(one.dropout for one in adapters)) > 0:
            # One draw for the layers of one input, where PEFT makes one for each: for each layer it is the same noise.
            keep = dropout_factors(x, p)
        masters = (*self.masters, *self.biases, *(one.a for one in adapters), *(one.b for one in adapters))
        out: Tensor = Project.apply(  # type: ignore[no-untyped-call]
            x, self.weights, self.bias, adapters, keep, self.sizes, *masters
        )
        return out


@dataclass(frozen=True, slots=True)
class _Layer:
    module: Any
    qkv: _Fused
    out: _Fused
    gate_up: _Fused
    down: _Fused
    heads: Heads
    kind: str | None
    """Layers of one kind share a rotary embedding; None where there is only one."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of chosen tokens, (m,) each; gradients flow from `log_probs`."""

    log_probs: Tensor
    entropies: Tensor
    is_first: Tensor
    """Whether the token is the likeliest one."""


class CpuForward:
    """The pass of one model, for which `why_not` is None. Keeps a copy of its weights in the type of the arithmetic."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        """`model`: of transformers, or PEFT's wrapper of one. `dtype`: to compute in."""
        self.model, self.base, self.dtype = model, base_of(model), dtype
        config = self.config = self.base.config
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.act = ACTIVATIONS[getattr(config, "hidden_act", None) or config.hidden_activation]
        self.is_gemma = type(self.base).__name__.startswith("Gemma")
        self.layers = [self._layer(layer) for layer in self.base.model.layers]
        self.fused = [part for layer in self.layers for part in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        self.table = _Fused([self.base.lm_head], dtype)

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp, dtype = layer.self_attn, layer.mlp, self.dtype
        qkv = _Fused([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        size = attention.head_dim
        heads = Heads(
            qkv.sizes[0] // size,
            qkv.sizes[1] // size,
            size,
            attention.scaling,
            getattr(attention, "sliding_window", None),
        )
        return _Layer(
            layer,
            qkv,
            _Fused([attention.o_proj], dtype),
            _Fused([mlp.gate_proj, mlp.up_proj], dtype),
            _Fused([mlp.down_proj], dtype),
            heads,
            attention.layer_type if self.is_gemma else None,
        )

    def hidden(self, rows: PackedRows) -> Tensor:
        """The stream after the last layer, before the last norm: (n, size), float32."""
        with torch.autocast("cpu", enabled=False):
            self.refresh()
            return self._hidden(rows)

    def refresh(self) -> None:
        """Takes the weights that learn as they are now."""
        for part in (*self.fused, self.table):
            if part.learns:
                part.refresh()

    def prepare_decoding(self) -> None:
        """Takes weights and adapters as they are now; for `decode`, which does not do so by itself."""
        self.refresh()
        for part in self.fused:
            part.cast_adapters()

    def _hidden(self, rows: PackedRows) -> Tensor:
        training = self.model.training
        x: Tensor = self.base.model.embed_tokens(rows.ids).float()
        turns = {
            kind: self._turns(x, rows.positions, kind) for kind in dict.fromkeys(layer.kind for layer in self.layers)
        }
        for layer in self.layers:

            def attend(q: Tensor, k: Tensor, v: Tensor, heads: Heads = layer.heads) -> Tensor:
                mixed: Tensor = Attention.apply(q, k, v, rows, heads)  # type: ignore[no-untyped-call]
                return mixed

            x = self._attend(x, layer, attend, turns[layer.kind], training)
            x = self._feed(x, layer, training)
        return x

    @torch.no_grad()
    def decode(self, ids: Tensor, positions: Tensor, shared_kv: Any, n_kept: int = 0) -> Tensor:
        """Logits (n_rows, n_kept, vocabulary) of the last `n_kept` of new tokens (n_rows, n), 0 for all.

        shared_kv: `attend(layer, q, k, v, scale)` on (n_rows, heads, n, size), causal over the whole row. Adapters act,
        dropout does not. After a change of the weights, `prepare_decoding` comes first.
        """
        with torch.autocast("cpu", enabled=False):
            n_rows, n = ids.shape
            x: Tensor = self.base.model.embed_tokens(ids.flatten()).float()
            kinds = dict.fromkeys(layer.kind for layer in self.layers)
            turns = {kind: self._turns(x, positions.flatten(), kind) for kind in kinds}
            for i, layer in enumerate(self.layers):

                def attend(q: Tensor, k: Tensor, v: Tensor, i: int = i, scale: float = layer.heads.scale) -> Tensor:
                    grids = (one.reshape(n_rows, n, -1, one.shape[-1]).transpose(1, 2) for one in (q, k, v))
                    mixed: Tensor = shared_kv.attend(i, *grids, scale)
                    return mixed.transpose(1, 2).reshape(n_rows * n, -1)

                x = self._attend(x, layer, attend, turns[layer.kind], training=False, decoding=True)
                x = self._feed(x, layer, training=False, decoding=True)
            kept = x.view(n_rows, n, -1)[:, -n_kept:]
            return logits_of(self._norm(kept, self.base.model.norm), self.table.weights[0], self.cap)

    def _turns(self, x: Tensor, positions: Tensor, kind: str | None) -> tuple[Tensor, Tensor]:
        """(cosines, sines), (n, 1, size), float32."""
        rotary = self.base.model.rotary_emb
        cos, sin = rotary(x, positions[None], *(() if kind is None else (kind,)))
        return cos[0, :, None].float(), sin[0, :, None].float()

    def _norm(self, x: Tensor, module: Any, dtype: torch.dtype | None = None) -> Tensor:
        eps = module.eps if self.is_gemma else module.variance_epsilon
        normed: Tensor = Norm.apply(  # type: ignore[no-untyped-call]
            x, module.weight, eps, 1.0 if self.is_gemma else 0.0, dtype or self.dtype
        )
        return normed

    def _attend(
        self,
        x: Tensor,
        layer: _Layer,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        turns: tuple[Tensor, Tensor],
        training: bool,
        decoding: bool = False,
    ) -> Tensor:
        module, heads = layer.module, layer.heads
        joined = layer.qkv(self._norm(x, module.input_layernorm), training=training, decoding=decoding)
        parts = joined.view(len(x), -1, heads.size)
        q, k, v = torch.split(parts, [heads.n, heads.n_kv, heads.n_kv], 1)
        attention = module.self_attn
        if hasattr(attention, "q_norm"):
            q, k = self._norm(q, attention.q_norm), self._norm(k, attention.k_norm)
        q, k = Rotate.apply(q, *turns), Rotate.apply(k, *turns)  # type: ignore[no-untyped-call]
        out = layer.out(attend(q, k, v), training=training, decoding=decoding)
        return x + (self._norm(out, module.post_attention_layernorm, torch.float32) if self.is_gemma else out)

    def _feed(self, x: Tensor, layer: _Layer, training: bool, decoding: bool = False) -> Tensor:
        module = layer.module
        before = module.pre_feedforward_layernorm if self.is_gemma else module.post_attention_layernorm
        both = layer.gate_up(self._norm(x, before), training=training, decoding=decoding)
        out = layer.down(Gate.apply(both, self.act), training=training, decoding=decoding)  # type: ignore[no-untyped-call]
        return x + (self._norm(out, module.post_feedforward_layernorm, torch.float32) if self.is_gemma else out)

    def scores(self, hidden: Tensor, places: Tensor, targets: Tensor, temperature: float = 1.0) -> Scores:
        """Of `targets` (m,), each the token that follows the one at `places` (m,) of `hidden`."""
        with torch.autocast("cpu", enabled=False):
            last = self._norm(hidden.index_select(0, places), self.base.model.norm)
            return Scores(
                *Head.apply(  # type: ignore[no-untyped-call]
                    last, self.table.masters[0], self.table.weights[0], targets, temperature, self.cap
                )
            )

    def score_rows(
        self, rows: Sequence[Sequence[int]], scored: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> Scores:
        """Of the tokens numbered `scored` (each 1 or more) of every row, row by row."""
        # What stands behind the last predictor of a row predicts nothing.
        kept = [row[: max(chosen)] if chosen else row[:1] for row, chosen in zip(rows, scored, strict=True)]
        packed = pack(kept)
        places = [packed.places[i][t - 1] for i, chosen in enumerate(scored) for t in chosen]
        targets = [rows[i][t] for i, chosen in enumerate(scored) for t in chosen]
        return self.scores(self.hidden(packed), torch.tensor(places), torch.tensor(targets), temperature)


def disproof(forward: CpuForward, rows: Sequence[Sequence[int]]) -> str | None:
    """Why log-probabilities of a few rows come out otherwise than by transformers' own pass, or None if they do not.

    Adapters that still do nothing are given weights for the comparison, and get their own back.
    """
    model = forward.model
    zeros = [one.b for part in forward.fused for one in part.adapters() if not bool(one.b.any())]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for b in zeros:
                b.normal_(std=0.02)
            ours = forward.score_rows(rows, [range(1, len(row)) for row in rows]).log_probs
            theirs = torch.cat([_log_probs(model, row) for row in rows])
    finally:
        with torch.no_grad():
            for b in zeros:
                b.zero_()
        model.train(was_training)
    is_exact = forward.dtype == torch.float32 and next(model.parameters()).dtype == torch.float32
    # Far above rounding (bfloat16 keeps less than three digits), far below what a wrong mask or position makes.
    bound = 1e-3 if is_exact else 0.1
    error = float((ours - theirs).abs().mean())
    if error <= bound:
        return None
    return f"log-probabilities differ from those of transformers by {error:.2g} on average, expected at most {bound}"


def _log_probs(model: Any, row: Sequence[int]) -> Tensor:
    ids = torch.tensor([list(row)])
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0].float()
    log_probs: Tensor = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return log_probs
