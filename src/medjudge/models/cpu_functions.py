"""The parts of a decoder layer with gradients of their own, for CPUs.

Matrix products run in the type of the arithmetic (bfloat16 where the processor multiplies it faster), norms and the
stream between layers in float32, as autocast does. What a gradient needs and is cheap to compute again is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medjudge.models.packed import Group, PackedRows

MAX_SCORES = 1 << 22
"""Attention scores held at one time."""
HEAD_ROWS = 256
"""Positions whose logits are held at one time: 50 MB in float32 for 49,000 tokens."""


class Norm(torch.autograd.Function):
    """x / rms(x) * (offset + weight) over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float, dtype: torch.dtype) -> Tensor:
        """x: (.., size); weight: (size,). Computed in float32, given back in `dtype`."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, scale, weight)
        ctx.offset = offset
        return (wide * scale).mul_(weight.float() + offset).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients to x and weight."""
        x, scale, weight = ctx.saved_tensors
        grad = grads[0].float()
        normed = x.float() * scale
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (grad * normed).sum(tuple(range(grad.ndim - 1))).to(weight.dtype)
        to_normed = grad * (weight.float() + ctx.offset)
        along = (to_normed * normed).mean(-1, keepdim=True)
        return to_normed.sub_(normed.mul_(along)).mul_(scale).to(x.dtype), to_weight, None, None, None


class Rotate(torch.autograd.Function):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: (n, heads, size); cos, sin: (n, 1, size), float32."""
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The rotation back."""
        cos, sin = ctx.saved_tensors
        return _rotated(grads[0], cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.addcmul(x * cos, torch.cat([-second, first], -1), sin).to(x.dtype)


class Gate(torch.autograd.Function):
    """act(gate) * up, the two side by side in one tensor."""

    @staticmethod
    def forward(ctx: Any, both: Tensor, act: str) -> Tensor:
        """both: (n, 2 * size); act: `silu`, or `gelu` in its tanh form."""
        ctx.save_for_backward(both)
        ctx.act = act
        gate, up = both.chunk(2, -1)
        return _activated(gate, act).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient to both."""
        (both,) = ctx.saved_tensors
        grad, (gate, up) = grads[0], both.chunk(2, -1)
        to_both = torch.empty_like(both)
        to_gate, to_up = to_both.chunk(2, -1)
        torch.mul(grad, _activated(gate, ctx.act), out=to_up)
        if ctx.act == "silu":
            to_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        else:
            to_gate.copy_(torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh"))
        return to_both, None


def _activated(x: Tensor, act: str) -> Tensor:
    return functional.silu(x) if act == "silu" else functional.gelu(x, approximate="tanh")


# --- attention --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heads:
    """How a layer attends."""

    n: int
    n_kv: int
    size: int
    scale: float
    window: int | None
    """Tokens that a token sees, itself among them; None for all before it."""


class Attention(torch.autograd.Function):
    """Causal attention of packed rows, as plain products: for rows of some hundred tokens the fastest on a CPU."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, rows: PackedRows, heads: Heads) -> Tensor:
        """q: (n, heads, size); k, v: (n, kv_heads, size). Gives (n, heads * size)."""
        out = torch.empty_like(q)
        for group in _parts(rows, heads):
            part = _Part(q, k, v, group, heads)
            group_out = _from_grid(part.weights() @ part.values, group, heads)
            out[_flat(group)] = group_out
        ctx.save_for_backward(q, k, v)
        ctx.rows, ctx.heads = rows, heads
        return out.view(len(q), heads.n * heads.size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients to q, k and v; the weights are computed again, which is cheaper than to keep them."""
        q, k, v = ctx.saved_tensors
        rows, heads = ctx.rows, ctx.heads
        grad = grads[0].reshape(len(q), heads.n, heads.size)
        to_q = torch.empty_like(q)
        # float32: many rows add to the keys and values of what they share.
        to_k, to_v = (torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))
        for group in _parts(rows, heads):
            part = _Part(q, k, v, group, heads)
            weights, part_grad = part.weights(), _to_grid(grad, group, heads)
            if group.real is not None:
                # Repeated places are no tokens: nothing flows back from them.
                part_grad = part_grad.view(len(group.index), heads.n_kv, -1, group.index.shape[1], heads.size)
                part_grad = (part_grad * group.real[:, None, None, :, None]).view(part.queries.shape)
            part.add(to_v, weights.transpose(-1, -2) @ part_grad)
            to_weights = part_grad @ part.values.transpose(-1, -2)
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype).mul_(heads.scale)
            part.add(to_k, to_scores.transpose(-1, -2) @ part.queries)
            to_q[_flat(group)] = _from_grid(to_scores @ part.keys, group, heads)
        return to_q, to_k.to(k.dtype), to_v.to(v.dtype), None, None


def _parts(rows: PackedRows, heads: Heads) -> list[Group]:
    """The groups, in pieces whose scores fit the bound."""
    parts = []
    for group in rows.groups:
        n, width = group.index.shape
        step = max(1, MAX_SCORES // (heads.n * width * (group.n_before + width)))
        for i in range(0, n, step):
            real = None if group.real is None else group.real[i : i + step]
            parts.append(group if step >= n else Group(group.index[i : i + step], real, group.before, group.n_before))
    return parts


def _flat(group: Group) -> Tensor:
    return group.index.flatten() if group.real is None else group.index[group.real]


def _to_grid(x: Tensor, group: Group, heads: Heads) -> Tensor:
    """(n, heads, size) -> (n_stretches, kv_heads, repeats * width, size): query heads of one key head below another."""
    n, width = group.index.shape
    grid = x[group.index.flatten()].view(n, width, heads.n_kv, heads.n // heads.n_kv, heads.size)
    return grid.permute(0, 2, 3, 1, 4).reshape(n, heads.n_kv, -1, heads.size)


def _from_grid(grid: Tensor, group: Group, heads: Heads) -> Tensor:
    """The inverse of `_to_grid`, for the real places: (n_real, heads, size)."""
    n, width = group.index.shape
    rows = grid.view(n, heads.n_kv, heads.n // heads.n_kv, width, heads.size).permute(0, 3, 1, 2, 4)
    rows = rows.reshape(n, width, heads.n, heads.size)
    return rows.flatten(0, 1) if group.real is None else rows[group.real]


class _Part:
    """Queries, keys and values of one group."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, group: Group, heads: Heads) -> None:
        self.group, self.heads = group, heads
        self.queries = _to_grid(q, group, heads)
        self.keys, self.values = self._with_before(k), self._with_before(v)

    def _with_before(self, x: Tensor) -> Tensor:
        """(n_stretches, kv_heads, n_before + width, size)."""
        n, width = self.group.index.shape
        grid = x.new_empty(n, self.heads.n_kv, self.group.n_before + width, self.heads.size)
        at = 0
        for start, end in self.group.before:
            grid[:, :, at : at + end - start] = x[start:end].transpose(0, 1)
            at += end - start
        grid[:, :, at:] = x[self.group.index.flatten()].view(n, width, *x.shape[1:]).transpose(1, 2)
        return grid

    def weights(self) -> Tensor:
        """(n_stretches, kv_heads, repeats * width, n_before + width)."""
        group, heads = self.group, self.heads
        n, width = group.index.shape
        scores = (self.queries * heads.scale) @ self.keys.transpose(-1, -2)
        place = torch.arange(group.n_before + width)
        ahead = place - place[group.n_before :, None]
        unseen = ahead > 0
        if heads.window is not None:
            unseen |= ahead <= -heads.window
        by_head = scores.view(n, heads.n_kv, -1, width, group.n_before + width)
        return by_head.masked_fill_(unseen, -torch.inf).softmax(-1).view(scores.shape)

    def add(self, total: Tensor, grid: Tensor) -> None:
        """Adds gradients laid out as `keys` to those of the tokens."""
        at = 0
        for start, end in self.group.before:
            total[start:end] += grid[:, :, at : at + end - start].float().sum(0).transpose(0, 1)
            at += end - start
        own = grid[:, :, at:].transpose(1, 2)
        own = own.flatten(0, 1) if self.group.real is None else own[self.group.real]
        # Each place is the own token of one stretch alone: nothing is added twice.
        total[_flat(self.group)] += own


# --- projections ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Adapter:
    """LoRA on one of the fused layers (Hu et al. 2021, arXiv:2106.09685)."""

    columns: slice
    """Where the layer's outputs stand among those of all."""
    a: Tensor
    b: Tensor
    scale: float
    dropout: float


class Project(torch.autograd.Function):
    """Several linear layers of one input as one product, with LoRA where it is, and gradients to float32 weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Sequence[Tensor],
        bias: Tensor | None,
        adapters: Sequence[Adapter],
        keep: Tensor | None,
        sizes: Sequence[int],
        *masters: Tensor,
    ) -> Tensor:
        """x: (n, size). weights: one of all layers or one of each, in the type of the arithmetic, as is the one bias.

        keep: dropout's factors of x.
        sizes: outputs of each layer. masters: the layers' weights, their biases, the adapters' A, the adapters' B, to
        which the gradients go.
        """
        out = functional.linear(x, weights[0]) if len(weights) == 1 else torch.cat([x @ one.T for one in weights], 1)
        if bias is not None:
            out += bias
        inner = None
        if adapters:
            inner = (x if keep is None else x * keep) @ torch.cat([one.a for one in adapters]).to(x.dtype).T
            at = 0
            for one in adapters:
                part = inner[:, at : at + len(one.a)]
                out[:, one.columns].addmm_(part, one.b.to(x.dtype).T, alpha=one.scale)
                at += len(one.a)
        ctx.save_for_backward(x, keep, inner)
        ctx.weights, ctx.adapters, ctx.sizes = weights, adapters, sizes
        ctx.n_biases = len(masters) - len(sizes) - 2 * len(adapters)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients to x and to whichever masters learn."""
        x, keep, inner = ctx.saved_tensors
        grad, adapters, wanted = grads[0].contiguous(), ctx.adapters, ctx.needs_input_grad[6:]
        to_x: Tensor | None = None
        if ctx.needs_input_grad[0]:
            parts = torch.split(grad, [len(one) for one in ctx.weights], 1)
            to_x = parts[0] @ ctx.weights[0]
            for part, one in zip(parts[1:], ctx.weights[1:], strict=True):
                to_x += part @ one
        n_layers = len(ctx.sizes)
        columns: list[slice] = []
        for size in ctx.sizes:
            start = columns[-1].stop if columns else 0
            columns.append(slice(start, start + size))
        masters: list[Tensor | None] = [None] * len(wanted)
        if any(wanted[:n_layers]):
            to_weight = grad.T @ x
            for i in range(n_layers):
                masters[i] = to_weight[columns[i]].float() if wanted[i] else None
        if ctx.n_biases and any(wanted[n_layers : n_layers + ctx.n_biases]):
            to_bias = grad.float().sum(0)
            for i in range(n_layers):
                masters[n_layers + i] = to_bias[columns[i]] if wanted[n_layers + i] else None
        if adapters:
            first, to_inner, at = n_layers + ctx.n_biases, torch.empty_like(inner), 0
            for i, one in enumerate(adapters):
                part, rank = grad[:, one.columns], len(one.a)
                torch.mul(part @ one.b.to(x.dtype), one.scale, out=to_inner[:, at : at + rank])
                to_b = part.T @ inner[:, at : at + rank]
                masters[first + len(adapters) + i] = to_b.float().mul_(one.scale)
                at += rank
            to_a = (to_inner.T @ (x if keep is None else x * keep)).float()
            for i, part in enumerate(to_a.split([len(one.a) for one in adapters])):
                masters[first + i] = part
            if to_x is not None:
                through = to_inner @ torch.cat([one.a for one in adapters]).to(x.dtype)
                to_x += through if keep is None else through.mul_(keep)
        return to_x, None, None, None, None, None, *masters


def dropout_factors(x: Tensor, p: float) -> Tensor:
    """0 with probability `p`, else 1 / (1 - p), of the shape and type of x.

    Drawn from torch's generator, four 16-bit numbers at a time: several times as fast as one draw for each.
    """
    n = x.numel()
    drawn = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
    keep = drawn >= round(p * 2**16) - 2**15
    return (keep.to(x.dtype) / (1 - p)).view(x.shape)


# --- the head ---------------------------------------------------------------------------------------------------------


class Head(torch.autograd.Function):
    """Log-probabilities of chosen tokens, some rows of logits at a time."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, master: Tensor, table: Tensor, targets: Tensor, temperature: float, cap: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hidden: (m, size); table: (vocabulary, size), `master` in the type of the arithmetic; targets: (m,).

        Gives (log-probabilities, entropies, whether the target is the likeliest), (m,) each; gradients flow from the
        first alone.
        """
        log_probs, entropies = torch.empty(len(hidden)), torch.empty(len(hidden))
        is_first = torch.empty(len(hidden), dtype=torch.bool)
        for start in range(0, len(hidden), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            logits, _ = _logits(hidden[part], table, temperature, cap)
            total = logits.logsumexp(1)
            is_first[part] = logits.argmax(1) == targets[part]
            log_probs[part] = logits.gather(1, targets[part, None])[:, 0] - total
            chances = (logits - total[:, None]).exp_()
            # 0 * -inf would be nan; float32 logits are finite.
            entropies[part] = total - (chances.mul_(logits)).sum(1)
        ctx.save_for_backward(hidden, table, targets)
        ctx.temperature, ctx.cap = temperature, cap
        ctx.mark_non_differentiable(entropies, is_first)
        return log_probs, entropies, is_first

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients to hidden and master; logits are computed again, so that none are kept."""
        hidden, table, targets = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_table: Tensor | None = None
        for start in range(0, len(hidden), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            logits, slope = _logits(hidden[part], table, ctx.temperature, ctx.cap)
            grad = grads[0][part, None]
            to_logits = logits.softmax(1).mul_(-grad).scatter_add_(1, targets[part, None], grad)
            if slope is not None:
                to_logits *= slope
            rounded = to_logits.div_(ctx.temperature).to(table.dtype)
            to_hidden[part] = rounded @ table
            if ctx.needs_input_grad[1]:
                more = (rounded.T @ hidden[part]).float()
                to_table = more if to_table is None else to_table.add_(more)
        return to_hidden, to_table, None, None, None, None


def _logits(hidden: Tensor, table: Tensor, temperature: float, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """(float32 logits over the temperature, the slope of the soft cap)."""
    logits = logits_of(hidden, table, cap)
    slope = None if cap is None else 1 - (logits / cap).square()
    return (logits if temperature == 1.0 else logits.div_(temperature)), slope


def logits_of(hidden: Tensor, table: Tensor, cap: float | None) -> Tensor:
    """float32 logits (.., vocabulary) under the soft cap of some models."""
    logits = (hidden @ table.T).float()
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)
