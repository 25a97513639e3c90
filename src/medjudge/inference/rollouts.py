"""Completions of many prompts, several of each: every distinct prompt is read once, and finished rows leave the batch.

Tokens are drawn by inverting the distribution function at uniform numbers that are drawn beforehand, one for each
prompt, completion and position. So the same seed gives the same completions whatever the batches and the token budget;
`torch.multinomial` would give others as soon as a row leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medjudge.errors import ModelError
from medjudge.inference.prefix import (
    Prompts,
    common_prefix,
    device_of,
    forward,
    plain,
    read_prefix,
    read_prompts,
    why_not,
)
from medjudge.models.cpu_forward import CpuForward

MIN_PREFIX = 16
"""Tokens that all prompts must begin with before reading them apart is worth a forward pass."""
GPU_CHECK_EVERY = 16
"""Decoding steps between looks at which rows are done: each look waits for the GPU."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; names, meaning and order are those of transformers and TRL."""

    temperature: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    greedy: bool = False
    """The likeliest token (after the penalty and `suppress`); the settings above it are not used."""
    suppress: tuple[int, ...] = ()
    """Tokens that are never drawn."""


GREEDY = Sampling(greedy=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a completion ends: with the first stop token, which it keeps, or after `max_new_tokens`."""

    stop_ids: Collection[int]
    max_new_tokens: int


def logits_processors(sampling: Sampling, device: torch.device) -> LogitsProcessorList:
    """transformers' own processors and warpers, in the order in which `generate` applies them."""
    chosen = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.suppress:
        chosen.append(SuppressTokensLogitsProcessor(list(sampling.suppress), device=str(device)))
    if sampling.greedy:
        return chosen
    if sampling.temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        chosen.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        chosen.append(MinPLogitsWarper(sampling.min_p))
    return chosen


@torch.no_grad()
def roll_out(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    n_per_prompt: int = 1,
    sampling: Sampling = GREEDY,
    limits: Limits,
    rng: torch.Generator | None = None,
    batch_tokens: int = 16384,
    on_progress: Callable[[int], None] | None = None,
) -> list[list[list[int]]]:
    """Token ids of `n_per_prompt` completions of each prompt, in the order of the prompts. Equal prompts are read once.

    model: of transformers or PEFT, or the pass for CPUs of one.
    rng: a CPU generator; None draws from torch's global one. batch_tokens: tokens held at one time, prompts
    (counted once, with padding) and the completions' room. on_progress is called with the number of prompts done.
    Raises ModelError where `why_not` finds the model unfit; `transformers.generate` serves those.
    """
    longest = max((len(ids) for ids in prompts), default=0) + limits.max_new_tokens
    if reason := why_not(model, longest):
        raise ModelError(
            f"prompts cannot be shared among rollouts: {reason}, expected plain causal attention. Roll out without "
            "sharing."
        )
    shape = (len(prompts), n_per_prompt, 1 if sampling.greedy else limits.max_new_tokens)
    # All draws at once, in the order of the prompts: batches of any size then give the same completions.
    uniform = torch.zeros(shape) if sampling.greedy else torch.rand(shape, generator=rng)
    places: dict[tuple[int, ...], list[int]] = {}
    for i, ids in enumerate(prompts):
        # Equal prompts are read once, and their completions drawn side by side.
        places.setdefault(tuple(ids), []).append(i)
    distinct = list(places)
    n_prefix = common_prefix(distinct)
    whole = plain(model)
    was_training = whole.training
    whole.eval()  # dropout belongs to the gradient, not to the policy that acts
    if isinstance(model, CpuForward):
        model.prepare_decoding()
    try:
        prefix = read_prefix(model, distinct[0][:n_prefix]) if n_prefix >= MIN_PREFIX else None
        completions: list[list[list[int]]] = [[] for _ in prompts]
        room = [len(places[ids]) * n_per_prompt * limits.max_new_tokens for ids in distinct]
        for batch in batches([len(ids) for ids in distinct], room, batch_tokens):
            chosen = [distinct[k] for k in batch]
            rows = [(slot, i) for slot, ids in enumerate(chosen) for i in places[ids]]
            slots = [slot for slot, _ in rows for _ in range(n_per_prompt)]
            drawn = _Decoding(
                model,
                read_prompts(model, chosen, prefix),
                chosen,
                slots,
                sampling,
                limits,
                torch.cat([uniform[i] for _, i in rows]),
            ).run()
            for (_, i), start in zip(rows, range(0, len(drawn), n_per_prompt), strict=True):
                completions[i] = drawn[start : start + n_per_prompt]
            if on_progress is not None:
                on_progress(len(rows))
    finally:
        whole.train(was_training)
    return completions


def batches(lengths: Sequence[int], room: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Numbers of prompts by batch, the longest first so that a lack of memory shows at once.

    room: tokens that each prompt needs beside its own, which are padded to the longest of the batch.
    """
    numbers: list[list[int]] = []
    widest = used = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not numbers or (len(numbers[-1]) + 1) * widest + used + room[i] > batch_tokens:
            numbers.append([])
            widest, used = lengths[i], 0
        numbers[-1].append(i)
        used += room[i]
    return numbers


class _Decoding:
    """One batch from its prompts' last logits to the last stop token."""

    def __init__(
        self,
        model: Any,
        prompts: Prompts,
        prompt_ids: Sequence[Sequence[int]],
        slots: Sequence[int],
        sampling: Sampling,
        limits: Limits,
        uniform: Tensor,
    ) -> None:
        device = device_of(model)
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.max_new_tokens = limits.max_new_tokens
        self.stops = torch.tensor(sorted(limits.stop_ids), device=device)
        self.slots = list(slots)
        """The prompt of each row still in the batch; `rows` are their numbers at the start."""
        self.rows = torch.arange(len(slots), device=device)
        self.uniform = uniform.to(device)
        self.tokens = torch.zeros(len(slots), limits.max_new_tokens, dtype=torch.long, device=device)
        self.is_done = torch.zeros(len(slots), dtype=torch.bool, device=device)
        self.positions = torch.tensor([prompts.lengths[slot] for slot in slots], device=device)[:, None]
        self.processors = logits_processors(sampling, device)
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1.0:
            # Room before a shorter prompt is filled with its own first token, which is seen in any case.
            width = max(len(ids) for ids in prompt_ids)
            padded = [[ids[0]] * (width - len(ids)) + list(ids) for ids in prompt_ids]
            self.seen = torch.tensor([padded[slot] for slot in slots], device=device)
        self.unseen = torch.empty(len(slots), 0, dtype=torch.long, device=device)
        self.context = prompts.continuation(self.slots)
        self.logits = prompts.logits[torch.tensor(self.slots, device=device)]

    def run(self) -> list[list[int]]:
        """The completions, in the order of the rows."""
        self.decode()
        stops = set(self.stops.tolist())
        completions = []
        for ids in self.tokens.tolist():
            end = next((k + 1 for k, token in enumerate(ids) if token in stops), len(ids))
            completions.append(ids[:end])
        return completions

    def decode(self) -> None:
        """Fills `tokens`. Between two looks at which rows are done, nothing here waits for a GPU."""
        check_every = 1 if self.rows.device.type == "cpu" else GPU_CHECK_EVERY
        logits = self.logits
        for step in range(self.max_new_tokens):
            drawn = self._draw(logits, step)
            self.tokens[self.rows, step] = drawn
            self.is_done |= torch.isin(drawn, self.stops)
            if self.seen is not None:
                self.seen = torch.cat([self.seen, drawn[:, None]], dim=1)
            if step + 1 == self.max_new_tokens:
                break
            # `bool` waits for the GPU, which is why it is not asked at each step.
            if (step + 1) % check_every == 0 and bool(self.is_done.any()):
                live = (~self.is_done).nonzero()[:, 0]
                if not len(live):
                    break
                drawn = drawn[live]
                self._keep(live)
            logits = forward(self.model, drawn[:, None], self.positions, self.context)[:, -1]
            self.positions = self.positions + 1

    def _draw(self, logits: Tensor, step: int) -> Tensor:
        # float32, as `generate` casts too: penalties and softmax in bfloat16 would make unequal scores equal.
        scores = self.processors(self.unseen if self.seen is None else self.seen, logits.float())
        return scores.argmax(-1) if self.sampling.greedy else invert_cdf(scores, self.uniform[self.rows, step])

    def _keep(self, live: Tensor) -> None:
        """Drops the rows that are done. Prompts that nobody continues stay until half of them are such."""
        self.slots = [self.slots[i] for i in live.tolist()]
        self.rows, self.positions, self.is_done = self.rows[live], self.positions[live], self.is_done[live]
        if self.seen is not None:
            self.seen = self.seen[live]
        still = sorted(set(self.slots))
        # Half: each time copies what is left, so that all copies together are no larger than the whole.
        if 2 * len(still) <= len(self.prompts.lengths):
            self.prompts = self.prompts.keep(still)
            place = {slot: k for k, slot in enumerate(still)}
            self.slots = [place[slot] for slot in self.slots]
        self.context.keep(live, self.prompts.grids(self.slots))


def invert_cdf(scores: Tensor, uniform: Tensor) -> Tensor:
    """The token (n_rows,) at which the distribution function of softmax(scores) passes `uniform` in [0, 1).

    scores: (n_rows, vocabulary), -inf where a token may not be drawn.
    """
    cdf = scores.softmax(-1).cumsum(-1)
    total = cdf[:, -1]
    # Rounding may lift the product to the total itself, which no entry passes.
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, point[:, None], right=True)[:, 0]
