"""How far a number could be from the truth, resampling what was sampled: groups of cases, not rows.

A group is a question, a variant, a patient: its rows resemble each other, and rows resampled one by one would make
intervals too narrow. Every statistic here is a function of sums over groups, so a resample is a vector of group weights
and thousands of them are a few matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BootstrapMethod = Literal["percentile", "expanded", "bca"]

BOOTSTRAP = "percentile bootstrap over groups"
WILSON = "Wilson, n = groups"

_CHUNK_ENTRIES = 4_000_000
"""Weights held at once: 32 MB."""
_MIN_DEFINED = 0.95
"""Share of resamples in which a statistic must be defined before its interval is given."""


class Interval(NamedTuple):
    """Both ends of an interval, nan where there is none, and how it was made."""

    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; nan where undefined."""

    value: float
    low: float
    high: float
    n: int
    """Rows behind the value."""
    method: str
    """How the interval was made."""


def resample_sums(group_sums: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Sums over groups drawn with replacement, as many as there are.

    group_sums: (n_groups, ...). Returns (n_resamples, ...). Each resample weights the groups by one multinomial draw.
    The same `rng` state and number of groups give the same draws, so statistics computed apart are still paired.
    Source: Field & Welsh (2007), doi:10.1111/j.1467-9868.2007.00593.x (the cluster bootstrap).
    """
    n_groups = group_sums.shape[0]
    if n_groups == 0:
        raise DataError("no groups to resample: an interval needs at least one group of cases.")
    flat = np.ascontiguousarray(group_sums, dtype=np.float64).reshape(n_groups, -1)
    sums = np.empty((n_resamples, flat.shape[1]))
    step = max(1, _CHUNK_ENTRIES // n_groups)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        # Counting uniform draws is a multinomial draw, and several times faster than `rng.multinomial`.
        drawn = rng.integers(n_groups, size=(size, n_groups)) + (np.arange(size) * n_groups)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n_groups).reshape(size, n_groups)
        sums[start : start + size] = weights.astype(np.float64) @ flat
    return sums.reshape(n_resamples, *group_sums.shape[1:])


def percentile_interval(draws: FloatArray, level: float) -> tuple[float, float]:
    """The central `level` of a statistic's resampled values, (n_resamples,).

    Undefined values (nan) are left out where they are at most 5 % of the draws; above that, (nan, nan).
    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
    """
    defined = draws[~np.isnan(draws)]
    if len(defined) < _MIN_DEFINED * len(draws) or not len(defined):
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(value: float, draws: FloatArray, *, level: float, n_groups: int, proportion: bool) -> Interval:
    """The interval of a metric from its resampled values.

    value: the metric on all rows; draws: (n_resamples,). One group alone says nothing about others: (nan, nan).
    A proportion of exactly 0 or 1 has the same value in every resample, and its bootstrap interval would have no
    width; there the Wilson interval stands instead, with the number of groups as n, which is on the wide side. Any
    other statistic without spread, such as an F1 of 0, gets (nan, nan): no width is no knowledge, not certainty.
    """
    if math.isnan(value) or n_groups < 2:
        return Interval(math.nan, math.nan, BOOTSTRAP)
    if proportion and value in (0.0, 1.0):
        return Interval(*wilson_interval(round(value) * n_groups, n_groups, level=level), WILSON)
    low, high = percentile_interval(draws, level)
    return Interval(low, high, BOOTSTRAP) if low < high else Interval(math.nan, math.nan, BOOTSTRAP)


def wilson_interval(count: int, n: int, *, level: float) -> tuple[float, float]:
    """The score interval of a proportion count / n of independent rows; (nan, nan) for n = 0.

    Source: Wilson (1927), doi:10.2307/2276774, by `statsmodels`.
    """
    if n == 0:
        return math.nan, math.nan
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, alpha=1 - level, method="wilson")
    # At the ends the closed form leaves a rounding error of 1e-18.
    return float(low) if count else 0.0, float(high) if count < n else 1.0


def clustered_wilson(values: FloatArray, groups: IntArray | None = None, *, level: float) -> Estimate:
    """The Wilson interval of a proportion of rows that come in groups, n divided by the design effect.

    values: (n,) 0 or 1; groups: (n,) codes, None takes rows as independent. nan without a row; nan ends with one group.
    Source: Korn & Graubard (1998), Survey Methodology 24: 193-201 (effective sample size); Kish (1965).
    """
    raise NotImplementedError


def bca_interval(value: float, draws: FloatArray, jackknife: FloatArray, level: float) -> tuple[float, float]:
    """The bias-corrected and accelerated interval. draws: (n_resamples,); jackknife: (n_groups,) leave-one-group-out.

    Undefined draws are handled as in `percentile_interval`. Source: Efron (1987), doi:10.1080/01621459.1987.10478410.
    """
    raise NotImplementedError


def expanded_interval(draws: FloatArray, level: float, n_groups: int) -> tuple[float, float]:
    """The percentile interval at a level widened for few groups, as t quantiles widen z.

    Source: Hesterberg (2015), doi:10.1080/00031305.2015.1089789, section 4.3.
    """
    raise NotImplementedError


def bootstrap_sums(
    group_sums: FloatArray,
    statistics: Callable[[FloatArray], Mapping[str, FloatArray]],
    *,
    n_resamples: int = 1000,
    rng: np.random.Generator,
    level: float = 0.95,
    method: BootstrapMethod = "expanded",
) -> dict[str, Interval]:
    """Intervals of any statistics of sums over groups.

    group_sums: (n_groups, ...). statistics: (..., same trailing axes) -> name -> (...). One group: nan ends.
    """
    raise NotImplementedError


def bootstrap_rows(
    statistic: Callable[[FloatArray], FloatArray],
    groups: IntArray,
    *,
    n_resamples: int = 1000,
    rng: np.random.Generator,
    level: float = 0.95,
    method: BootstrapMethod = "expanded",
) -> Interval:
    """The interval of any statistic of weighted rows: for those that no sum over groups can give (AURC, ECE).

    statistic: (m, n) row weights, whole numbers >= 0 -> (m,) values. groups: (n,) codes.
    """
    raise NotImplementedError
