"""What a statistic of agreement is, and how one with a function of its own is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.classification import Outcomes, group_counts

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistic:
    """What a statistic is called and which rows and tasks it is for."""

    title: str
    rows: Literal["all", "read"] = "read"
    """`all`: every row, an unreadable answer is wrong. `read`: the rows that hold a verdict."""
    needs: Literal["", "positive", "ordered"] = ""
    """The task must have a positive label, or ordered labels."""
    low: float = -1.0
    """The lowest value that it can take; the highest is 1. -inf where it depends on the number of rows or raters."""
    proportion: bool = False
    """Whether it is a share of rows: its interval is then Wilson's."""
    biased: bool = False
    """Whether its jackknife interval is centred on the bias-corrected value."""
    from_counts: Callable[[FloatArray], FloatArray] | None = None
    """(..., K, K + 2) counts, see `classification.group_counts` -> (...) values, nan where undefined. Where it `needs`
    the positive label, that is the last of the two. None for statistics that `agreement` computes itself."""


def value_from_counts(name: str, statistic: Statistic, counts: FloatArray, positive: int | None) -> FloatArray:
    """(...) values of a statistic with a function of its own. counts: (..., K, K + 2); positive: code of that label.

    Raises ValueError where the function gives anything but one value per table.
    """
    if statistic.from_counts is None:
        raise ValueError(f"statistic {name!r} has no `from_counts`, expected a function of tables. Give it one.")
    if statistic.needs == "positive" and positive == 0:
        counts = counts[..., ::-1, [1, 0, 2, 3]]
    # Tables of a resample may lack a label: 0 / 0 is nan, undefined, and no news.
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(statistic.from_counts(counts), dtype=np.float64)
    if values.shape != counts.shape[:-2]:
        raise ValueError(
            f"statistic {name!r}: `from_counts` gave shape {values.shape} for tables of shape {counts.shape}, expected "
            f"one value per table, {counts.shape[:-2]}. Sum over the last two axes alone: `.sum((-2, -1))`."
        )
    return values


def hits_from_counts(name: str, statistic: Statistic, outcomes: Outcomes) -> FloatArray:
    """(n,) what each row is to a share with a function of its own: 1 a hit, 0 a miss, nan not counted.

    Raises ValueError where the statistic is no share of rows.
    """
    n_labels = len(outcomes.labels)
    shape = (n_labels, n_labels + 2)
    # The share of a table that holds one row says what that row is: 1, 0, or 0 / 0.
    one_row_each = np.eye(math.prod(shape)).reshape(-1, *shape)
    cells = value_from_counts(name, statistic, one_row_each, outcomes.positive).reshape(shape)
    hits = cells[outcomes.gold, outcomes.predicted]
    counted = hits[~np.isnan(hits)]
    share = counted.mean() if len(counted) else math.nan
    value = float(value_from_counts(name, statistic, group_counts(outcomes).sum(0), outcomes.positive))
    if not (np.isin(counted, (0, 1)).all() and np.isclose(share, value, equal_nan=True)):
        raise ValueError(
            f"statistic {name!r} is marked `proportion`, but gives {value:.4g} for all rows and {share:.4g} counted "
            "row by row, expected the same: it is no share of rows. Leave `proportion` out; its interval is then a "
            "jackknife's."
        )
    return hits
