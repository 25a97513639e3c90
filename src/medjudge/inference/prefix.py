"""Prompts whose keys and values are held once, however many rows continue them.

Judging reads long prompts that share their beginning (system text, rubric) and samples several short completions of
each. Here the common beginning is computed once per call, each prompt once, and every completion attends to them in
place: nothing is repeated along the batch. The parts of one softmax are computed per stretch of tokens and joined by
their log-sum-exps, which is exact (Juravsky et al. 2024, "Hydragen", arXiv:2402.05099, equations 4-6).

It works on any decoder of transformers that takes its attention from `AttentionInterface` (Llama, Qwen, Phi-3, ...);
`why_not` names the models that it would get wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from medjudge.errors import ModelError
from medjudge.models.cpu_forward import CpuForward
from medjudge.models.cpu_forward import why_not as why_not_covered

ATTENTION = "medjudge_shared"
"""Name under which transformers finds `_attention`."""


def why_not(model: Any, longest: int) -> str | None:
    """Why attention cannot be shared on this model for rows of up to `longest` tokens, or None if it can.

    Only plain causal attention over the whole row is computed here. What differs from it on long rows alone is looked
    for in the config; anything else (soft caps, sinks, position biases, ...) shows on short rows, which are tried once.
    """
    model = plain(model)
    longest = max(longest, TRIED_TOKENS)
    config = model.config
    text = config.get_text_config()
    if text is not config:
        return f"{config.model_type} is multimodal"
    if getattr(config, "is_encoder_decoder", False):
        return f"{config.model_type} is an encoder-decoder"
    if not getattr(_base(model), "_supports_attention_backend", False):
        return f"the attention of {config.model_type} cannot be exchanged"
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    is_windowed = "sliding_attention" in kinds if kinds else window is not None
    # Phi-3 and Mistral slide on every layer wherever a window is set, whatever `layer_types` says.
    is_windowed = is_windowed or (window is not None and getattr(config, "use_sliding_window", None) is None)
    if is_windowed and (window is None or window < longest):
        return f"its attention slides over {window or 'an unknown number of'} tokens, and rows take {longest:,}"
    if odd := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"it has layers of kind {', '.join(odd)}"
    rope = getattr(config, "rope_parameters", None) or {}
    switch = {
        "longrope": rope.get("original_max_position_embeddings"),
        "dynamic": getattr(config, "max_position_embeddings", None),
    }.get(rope.get("rope_type", "default"))
    if switch is not None and longest > switch:
        return f"its rotary embedding changes at {switch:,} tokens, and rows take {longest:,}"
    base = _base(model)
    if base not in _TRIED:
        _TRIED[base] = _disproof(model)
    return _TRIED[base]


TRIED_TOKENS = 16
"""No row that is tried is longer."""
_TRIED: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def plain(model: Any) -> Any:
    """The model of transformers or PEFT behind the pass for CPUs."""
    return model.model if isinstance(model, CpuForward) else model


def proven_decoding(model: Any, dtype: torch.dtype) -> CpuForward | None:
    """The pass for CPUs, where it covers this model and a few short rows come out as by the model's own; else None."""
    if why_not_covered(model) is not None:
        return None
    forward = CpuForward(model, dtype)
    if model not in _PROVEN:
        _PROVEN[model] = _disproof(forward) is None
    return forward if _PROVEN[model] else None


_PROVEN: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Whether decoding by the pass for CPUs came out right. Not the pass itself, which would keep its model alive."""


@torch.no_grad()
def _disproof(model: Any) -> str | None:
    """Why a few short rows come out otherwise than by the model's own attention, or None if they do not."""
    whole = plain(model)
    n_vocabulary = whole.get_input_embeddings().weight.shape[0]
    ids = [(7 * i + 3) % n_vocabulary for i in range(14)]
    prompts = [ids[:7], ids[:5] + ids[9:]]
    # Two prompts of different lengths with a common beginning, continued by one row and by two: padding, prefix and
    # grid all take part.
    slots, new = [0, 1, 1], torch.tensor([ids[7:9], ids[:2], ids[2:4]], device=device_of(model))
    was_training = whole.training
    whole.eval()
    try:
        read = read_prompts(model, prompts, read_prefix(model, ids[:5]))
        positions = torch.tensor([[len(prompts[slot]), len(prompts[slot]) + 1] for slot in slots], device=new.device)
        context = read.continuation(slots)
        ours = torch.stack([forward(model, new[:, k : k + 1], positions[:, k : k + 1], context)[:, 0] for k in (0, 1)])
        rows = [
            torch.cat([torch.tensor(prompts[slot], device=new.device), row])
            for slot, row in zip(slots, new, strict=True)
        ]
        theirs = torch.stack([whole(input_ids=row[None], use_cache=False).logits[0, -2:] for row in rows], dim=1)
    except Exception as error:  # of any library: the model's own attention is used instead
        return f"its layers do not take shared attention ({type(error).__name__})"
    finally:
        whole.train(was_training)
    is_exact = theirs.dtype == getattr(model, "dtype", torch.float32) == torch.float32
    return disagreement(ours, theirs, is_exact=is_exact)


def disagreement(ours: Tensor, theirs: Tensor, *, is_exact: bool) -> str | None:
    """A sentence if two tensors differ by more than rounding does, measured against the spread of the second.

    is_exact: they were computed in float32 throughout (TF32 counts as such), not in a type of 16 bits.
    """
    # Far above rounding, and far below a wrong mask or position, whose error is of the order of the spread itself.
    bound = 0.01 if is_exact else 0.1
    # Against the spread, since the scale of logits differs a hundredfold between models.
    error = float((ours.float() - theirs.float()).abs().max() / theirs.float().std().clamp(min=1e-6))
    return None if error <= bound else f"on short rows it differs from the model's own attention by {error:.2g}"


def _base(model: Any) -> Any:
    """The transformers model inside PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """The model with another attention function for the duration of the block."""
    # On the config, where each layer looks it up at every call.
    config = _base(model).config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


@dataclass(slots=True)
class Stretch:
    """Consecutive tokens that several rows continue, held once per slot. By layer: (n_slots, kv_heads, n, head_dim)."""

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None
    """(n_slots, 1, 1, n): -inf on padding, else 0; None where there is no padding."""
    n_slots: int

    def keep(self, slots: Tensor) -> Stretch:
        """These slots only."""
        return Stretch(
            [keys.index_select(0, slots) for keys in self.keys],
            [values.index_select(0, slots) for values in self.values],
            None if self.bias is None else self.bias.index_select(0, slots),
            len(slots),
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The rows of a batch as a rectangle (n_slots, width), so that one matmul per slot serves all its rows."""

    n_slots: int
    width: int
    places: Tensor | None
    """(n_rows,) place of each row in the flattened rectangle; None where the rows fill it in order."""

    @classmethod
    def of(cls, slots: Sequence[int], n_slots: int, device: torch.device) -> Grid:
        """`slots`: the slot of each row, rising."""
        counts = [0] * n_slots
        within = []
        for slot in slots:
            within.append(counts[slot])
            counts[slot] += 1
        width = max(counts)
        if len(slots) == n_slots * width:
            return cls(n_slots, width, None)
        places = [slot * width + k for slot, k in zip(slots, within, strict=True)]
        return cls(n_slots, width, torch.tensor(places, device=device))

    def gather(self, rows: Tensor) -> Tensor:
        """(n_rows, kv_heads, n_queries, d) -> (n_slots, kv_heads, width * n_queries, d)."""
        if self.places is not None:
            # Zeros in places without a row: their attention is computed and dropped, and must not be nan.
            rows = rows.new_zeros(self.n_slots * self.width, *rows.shape[1:]).index_copy(0, self.places, rows)
        _, heads, queries, d = rows.shape
        grid = rows.view(self.n_slots, self.width, heads, queries, d).transpose(1, 2)
        return grid.reshape(self.n_slots, heads, self.width * queries, d)

    def scatter(self, grid: Tensor, n_queries: int) -> Tensor:
        """The inverse of `gather`."""
        _, heads, _, d = grid.shape
        rows = grid.view(self.n_slots, heads, self.width, n_queries, d).transpose(1, 2)
        rows = rows.reshape(self.n_slots * self.width, heads, n_queries, d)
        return rows if self.places is None else rows.index_select(0, self.places)


class Prefill:
    """Attention of prompts, padded on the left, that may all continue one stretch. Keeps their keys and values."""

    def __init__(self, before: Stretch | None, mask: Tensor | None) -> None:
        """`mask`: (n_rows, 1, n_queries, n_keys) where allowed; None for plain causal attention."""
        self.before, self.mask = before, mask
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(n_rows, heads, n_queries, head_dim)."""
        if layer != len(self.keys):
            raise ModelError(
                f"layer {layer} attends after {len(self.keys)} others, expected layers in order, each once. This "
                "model's attention cannot be shared: roll out without it."
            )
        self.keys.append(key.contiguous())  # else every later matmul would copy them first
        self.values.append(value.contiguous())
        if self.before is not None:
            key = torch.cat([self.before.keys[layer].expand(len(key), -1, -1, -1), key], dim=2)
            value = torch.cat([self.before.values[layer].expand(len(value), -1, -1, -1), value], dim=2)
        repeats = query.shape[1] // key.shape[1]
        return functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(repeats, 1) if repeats > 1 else key,
            value.repeat_interleave(repeats, 1) if repeats > 1 else value,
            attn_mask=self.mask,
            is_causal=self.mask is None,
            scale=scale,
        )


class Continuation:
    """Attention of rows that continue shared stretches: their own tokens' keys and values, a grid for each stretch."""

    def __init__(self, shared: Sequence[tuple[Stretch, Grid]], n_rows: int) -> None:
        """Rows without tokens of their own as yet."""
        self.shared = list(shared)
        self.n_rows = n_rows
        self.n_own = 0
        """Tokens of their own that rows have so far, those of the forward pass under way left out."""
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def keep(self, rows: Tensor, shared: Sequence[tuple[Stretch, Grid]]) -> None:
        """Drops all rows but these, and takes new stretches and grids for them."""
        self.shared = list(shared)
        self.n_rows = len(rows)
        self._keys = [keys.index_select(0, rows) for keys in self._keys]
        self._values = [values.index_select(0, rows) for values in self._values]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(n_rows, heads, n_queries, head_dim)."""
        n_rows, heads, n_queries, d = query.shape
        kv_heads, repeats = key.shape[1], heads // key.shape[1]
        keys, values = self._with_new(layer, key, value)
        # Query heads that share a key head become more queries of it: no key is repeated in memory.
        query = query.reshape(n_rows, kv_heads, repeats * n_queries, d)
        bias = None
        if n_queries > 1:
            # New tokens see all earlier ones of their row and themselves, hence the shift of the diagonal by n_own.
            allowed = torch.ones(n_queries, keys.shape[2], dtype=torch.bool, device=query.device).tril(self.n_own)
            bias = torch.zeros_like(allowed, dtype=torch.float32).masked_fill(~allowed, -torch.inf).repeat(repeats, 1)
        parts = [_attend_part(query, keys, values, bias, scale)]
        for stretch, grid in self.shared:
            part = _attend_part(grid.gather(query), stretch.keys[layer], stretch.values[layer], stretch.bias, scale)
            parts.append((grid.scatter(part[0], repeats * n_queries), grid.scatter(part[1], repeats * n_queries)))
        return _join(parts).to(query.dtype).view(n_rows, heads, n_queries, d)

    def _with_new(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Own keys and values up to and with the new ones."""
        past = self.n_own + key.shape[2]
        if layer == len(self._keys):
            self._keys.append(key)
            self._values.append(value)
        elif self._keys[layer].shape[2] < past:  # grown by doubling, so that a step copies O(1) tokens on average
            room = max(past, 2 * self._keys[layer].shape[2], 16)
            self._keys[layer] = _with_room(self._keys[layer], self.n_own, room)
            self._values[layer] = _with_room(self._values[layer], self.n_own, room)
        self._keys[layer][:, :, self.n_own : past] = key
        self._values[layer][:, :, self.n_own : past] = value
        return self._keys[layer][:, :, :past], self._values[layer][:, :, :past]


def _with_room(tensor: Tensor, n_used: int, room: int) -> Tensor:
    roomy = tensor.new_empty(*tensor.shape[:2], room, tensor.shape[3])
    roomy[:, :, :n_used] = tensor[:, :, :n_used]
    return roomy


def _attend_part(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """(attention over these keys alone, log-sum-exp of their scores (..., 1)), float32."""
    # float32 from here to the sum, as fused kernels do inside: bfloat16 keeps less than three digits.
    scores = (query @ keys.transpose(-1, -2)).float() * scale
    if bias is not None:
        scores = scores + bias
    total = scores.logsumexp(-1, keepdim=True)
    return ((scores - total).exp().to(values.dtype) @ values).float(), total


def _join(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """One softmax over the keys of all parts."""
    if len(parts) == 1:
        return parts[0][0]
    # exp(log-sum-exp) of a part is its share of the softmax's denominator: the parts joined are one softmax over all
    # keys.
    weights = torch.cat([total for _, total in parts], dim=-1).softmax(-1)
    joined = parts[0][0] * weights[..., :1]
    for i, (out, _) in enumerate(parts[1:], start=1):
        joined += out * weights[..., i : i + 1]
    return joined


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer; `shared_kv` says how the rows hang together."""
    refuse_extras(kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = kwargs["shared_kv"].attend(module.layer_idx, query, key, value, scale)
    return out.transpose(1, 2).contiguous(), None


def refuse_extras(kwargs: dict[str, Any]) -> None:
    """Raises ModelError where a layer asks for more than plain attention (soft caps, sinks, position biases)."""
    if odd := [name for name in ("softcap", "s_aux", "position_bias", "cache") if kwargs.get(name) is not None]:
        raise ModelError(
            f"the model's attention uses {', '.join(odd)}, which shared attention does not compute: expected plain "
            "causal attention. Set `grpo.grouped = false`, or take another model."
        )


AttentionInterface.register(ATTENTION, _attention)


# --- prompts ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Prompts:
    """Prompts that were read once, ready to be continued by any number of rows."""

    stretches: list[Stretch]
    """The prefix common to all prompts of the call (one slot), if there is one, and the rest of each (a slot each)."""
    lengths: list[int]
    logits: Tensor
    """(n_prompts, vocabulary): of the token that follows each prompt."""

    def continuation(self, slots: Sequence[int]) -> Continuation:
        """`slots`: the prompt that each row continues, rising."""
        return Continuation(self.grids(slots), len(slots))

    def keep(self, slots: Sequence[int]) -> Prompts:
        """These prompts only, renumbered in the order given."""
        index = torch.tensor(slots, device=self.logits.device)
        stretches = [stretch if stretch.n_slots == 1 else stretch.keep(index) for stretch in self.stretches]
        return Prompts(stretches, [self.lengths[slot] for slot in slots], self.logits.index_select(0, index))

    def grids(self, slots: Sequence[int]) -> list[tuple[Stretch, Grid]]:
        """Each stretch with the place of each row in it."""
        device = self.logits.device
        return [
            (stretch, Grid.of(slots if stretch.n_slots > 1 else [0] * len(slots), stretch.n_slots, device))
            for stretch in self.stretches
        ]


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, one less than the shortest at most, so that each keeps a token of its own."""
    if len(prompts) < 2:
        return 0
    in_order = sorted(tuple(ids) for ids in prompts)
    first, last = in_order[0], in_order[-1]  # in dictionary order: what these two share, all share
    limit = min(len(ids) for ids in prompts) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


@torch.no_grad()
def read_prefix(model: Any, ids: Sequence[int]) -> Stretch:
    """The keys and values of the tokens that all prompts begin with."""
    pass_ = Prefill(None, None)
    forward(model, torch.tensor([list(ids)], device=device_of(model)), None, pass_, logits_to_keep=1)
    return Stretch(pass_.keys, pass_.values, None, 1)


@torch.no_grad()
def read_prompts(model: Any, prompts: Sequence[Sequence[int]], prefix: Stretch | None = None) -> Prompts:
    """Reads each prompt once, padded on the left. `prefix`: of the tokens that all of them begin with, already read."""
    device = device_of(model)
    n_prefix = prefix.keys[0].shape[2] if prefix is not None else 0
    rests = [list(ids[n_prefix:]) for ids in prompts]
    lengths = torch.tensor([len(rest) for rest in rests])
    width = int(lengths.max())
    # Any token does for padding, as nothing attends to it: the row's own first needs no pad token, which some
    # tokenizers lack.
    padded = torch.tensor([[rest[0]] * (width - len(rest)) + rest for rest in rests])
    place = torch.arange(width)
    is_real = place >= (width - lengths)[:, None]
    # Clamped: padding has no position, and a negative one would index outside of a table of positions.
    positions = (place - (width - lengths)[:, None]).clamp(min=0) + n_prefix
    has_padding = not bool(is_real.all())
    mask = bias = None
    # Without either, SDPA's causal kernel needs no mask and is faster.
    if has_padding or n_prefix:
        causal = place[:, None] >= place
        # A padding token sees itself: a row of the softmax without any key would be nan, and nan spreads.
        own = (causal & is_real[:, None, :]) | torch.eye(width, dtype=torch.bool)
        mask = torch.cat([torch.ones(len(rests), width, n_prefix, dtype=torch.bool), own], dim=2)[:, None].to(device)
    if has_padding:
        bias = torch.zeros(is_real.shape).masked_fill(~is_real, -torch.inf)[:, None, None].to(device)
    pass_ = Prefill(prefix, mask)
    logits = forward(model, padded.to(device), positions.to(device), pass_, logits_to_keep=1)
    rest_stretch = Stretch(pass_.keys, pass_.values, bias, len(rests))
    stretches = [rest_stretch] if prefix is None else [prefix, rest_stretch]
    return Prompts(stretches, [len(ids) for ids in prompts], logits[:, -1])


def forward(
    model: Any, ids: Tensor, positions: Tensor | None, shared_kv: Prefill | Continuation, *, logits_to_keep: int = 0
) -> Tensor:
    """Logits (n_rows, n_kept, vocabulary) of new tokens (n_rows, n) at `positions`, which None counts from 0.

    logits_to_keep: only of so many last tokens; 0 for all.
    """
    if positions is None:
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    if isinstance(model, CpuForward):
        logits: Tensor = model.decode(ids, positions, shared_kv, logits_to_keep)
    else:
        logits = _by_transformers(model, ids, positions, shared_kv, logits_to_keep)
    if isinstance(shared_kv, Continuation):
        # After the pass, not in a layer: every layer of one pass has to see the same count.
        shared_kv.n_own += ids.shape[1]
    return logits


def _by_transformers(
    model: Any, ids: Tensor, positions: Tensor, shared_kv: Prefill | Continuation, logits_to_keep: int
) -> Tensor:
    with attention_of(model, ATTENTION):
        logits: Tensor = model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=None,
            use_cache=False,
            logits_to_keep=logits_to_keep,
            shared_kv=shared_kv,
        ).logits
    return logits


def device_of(model: Any) -> torch.device:
    """Where the model's embeddings lie."""
    device: torch.device = plain(model).get_input_embeddings().weight.device
    return device
