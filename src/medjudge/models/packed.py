"""Rows of tokens as one packed row, in which what several rows begin with stands once.

Every token sees those before it in its own row alone, so a beginning that rows share has one and the same hidden state
in each of them and is computed once; its gradient is the sum over the rows, which is what autograd gives. Prompts of a
batch share instructions and rubric, the completions of a group share their whole prompt: the tree finds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

MIN_SHARED = 16
"""Tokens that rows must share before they are computed apart from the rest: each stretch is a call in every layer."""
MAX_WASTE = 0.75
"""Stretches attend together, padded to the longest, where none is shorter than this share of it ..."""
MAX_PADDING = 16
"""... or lacks more than so many tokens."""


@dataclass(frozen=True, slots=True)
class Group:
    """Stretches that continue the same tokens and attend together: a rectangle of (n_stretches, width) places."""

    index: Tensor
    """(n_stretches, width): the place of each token; where a stretch is shorter, its first place is repeated."""
    real: Tensor | None
    """(n_stretches, width): False where a place is repeated; None where none is."""
    before: tuple[tuple[int, int], ...]
    """Stretches of places that all of these continue, in order."""
    n_before: int
    """Tokens in `before`: the position of the first column."""


@dataclass(slots=True)
class PackedRows:
    """Rows as one. `places[row][t]` is where token t of a row stands."""

    ids: Tensor
    """(n,)"""
    positions: Tensor
    """(n,): of each token in its own row."""
    groups: list[Group]
    places: list[list[int]] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        """Tokens that are computed."""
        return len(self.ids)


def pack(rows: Sequence[Sequence[int]]) -> PackedRows:
    """The rows, none of them empty, with every beginning of `MIN_SHARED` or more tokens that rows share held once."""
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    shared = [_shared(rows[a], rows[b]) for a, b in pairwise(order)]
    ids: list[int] = []
    positions: list[int] = []
    places: list[list[int]] = [[] for _ in rows]
    leaves: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}

    def add(row: int, start: int, end: int, before: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        """Tokens start..end of a row as a stretch of their own."""
        first = len(ids)
        ids.extend(rows[row][start:end])
        positions.extend(range(start, end))
        leaves.setdefault(before, []).append((first, len(ids)))
        return first, len(ids)

    # Without recursion: a chain of nested beginnings may be as long as the batch.
    waiting: list[tuple[int, int, int, tuple[tuple[int, int], ...]]] = [(0, len(rows), 0, ())]
    while waiting:
        low, high, depth, before = waiting.pop()
        for first, last in _runs(shared, low, high, depth + MIN_SHARED):
            row = order[first]
            if last - first > 1:
                common = min(shared[first : last - 1])
                inner = (*before, add(row, depth, common, before))
                waiting.append((first, last, common, inner))
                continue
            own = before
            if depth < len(rows[row]):
                own = (*before, add(row, depth, len(rows[row]), before))
            places[row] = [place for start, end in own for place in range(start, end)]
    groups = [group for before, stretches in leaves.items() for group in _groups(before, stretches)]
    return PackedRows(torch.tensor(ids), torch.tensor(positions), groups, places)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    limit = min(len(a), len(b))
    return next((i for i in range(limit) if a[i] != b[i]), limit)


def _runs(shared: Sequence[int], low: int, high: int, least: int) -> Iterator[tuple[int, int]]:
    """Neighbours low..high in runs whose members share at least `least` tokens."""
    start = low
    for i in range(low, high):
        if i + 1 == high or shared[i] < least:
            yield start, i + 1
            start = i + 1


def _groups(before: tuple[tuple[int, int], ...], stretches: Sequence[tuple[int, int]]) -> Iterator[Group]:
    """Stretches of like length together, the longest first."""
    longest_first = sorted(stretches, key=lambda stretch: stretch[0] - stretch[1])
    together: list[tuple[int, int]] = []
    for start, end in longest_first:
        width = together[0][1] - together[0][0] if together else 0
        if together and end - start < min(MAX_WASTE * width, width - MAX_PADDING):
            yield _group(before, together)
            together = []
        together.append((start, end))
    yield _group(before, together)


def _group(before: tuple[tuple[int, int], ...], stretches: Sequence[tuple[int, int]]) -> Group:
    starts = torch.tensor([start for start, _ in stretches])[:, None]
    lengths = torch.tensor([end - start for start, end in stretches])[:, None]
    column = torch.arange(int(lengths.max()))
    real = column < lengths
    index = torch.where(real, starts + column, starts)
    n_before = sum(end - start for start, end in before)
    return Group(index, None if bool(real.all()) else real, before, n_before)
