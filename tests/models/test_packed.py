"""Packing: every row can be read back from its places, what rows share stands once, attention sees one row alone."""

from __future__ import annotations

import numpy as np
import pytest

from medjudge.models.packed import MIN_SHARED, pack


def rows_with_shared_beginnings(seed: int) -> list[list[int]]:
    """Rows that grow from each other: of every depth and length, some equal, some the beginning of another."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 50, rng.integers(1, 60)).tolist()]
    for _ in range(rng.integers(0, 12)):
        parent = rows[rng.integers(len(rows))]
        kept = parent[: rng.integers(0, len(parent) + 1)]
        rows.append((kept + rng.integers(0, 50, rng.integers(0, 40)).tolist()) or [1])
    return rows


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_read_back_and_see_themselves_alone(seed: int) -> None:
    rows = rows_with_shared_beginnings(seed)
    packed = pack(rows)
    for row, places in zip(rows, packed.places, strict=True):
        assert packed.ids[places].tolist() == row
        assert packed.positions[places].tolist() == list(range(len(row)))
    seen: dict[int, list[int]] = {}
    for group in packed.groups:
        before = [place for start, end in group.before for place in range(start, end)]
        assert len(before) == group.n_before
        for i, stretch in enumerate(group.index.tolist()):
            n = len(stretch) if group.real is None else int(group.real[i].sum())
            for k in range(n):
                assert stretch[k] not in seen, "a token attends once"
                seen[stretch[k]] = before + stretch[: k + 1]
    assert len(seen) == packed.n_tokens
    for places in packed.places:
        for k, place in enumerate(places):
            assert seen[place] == places[: k + 1]


def test_what_rows_share_stands_once() -> None:
    start, rest = list(range(MIN_SHARED)), [[100], [101, 102], [103]]
    assert pack([start + row for row in rest]).n_tokens == MIN_SHARED + 4
    # One token less is not worth a stretch of its own.
    assert pack([start[1:] + row for row in rest]).n_tokens == 3 * (MIN_SHARED - 1) + 4
    # A group of completions under one prompt, beside another prompt with the same instructions.
    first, second = start + list(range(200, 230)), start + list(range(300, 320))
    rows = [[*first, k] for k in range(8)] + [[*second, k] for k in range(8)]
    assert pack(rows).n_tokens == MIN_SHARED + 30 + 20 + 16


def test_stretches_of_unlike_length_attend_apart() -> None:
    packed = pack([[row] * n for row, n in enumerate((100, 90, 30, 28))])
    assert [tuple(group.index.shape) for group in packed.groups] == [(2, 100), (2, 30)]
