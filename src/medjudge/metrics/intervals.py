"""How far a number could be from the truth, resampling what was sampled: groups of cases, not rows.

A group is a question, a variant, a patient: its rows resemble each other, and rows resampled one by one would make
intervals too narrow. Every statistic here is a function of sums over groups, so a resample is a vector of group weights
and thousands of them are a few matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BootstrapMethod = Literal["percentile", "expanded", "bca"]

BOOTSTRAP = "expanded percentile bootstrap over groups"
WILSON = "Wilson, n = groups"
CLUSTERED_WILSON = "Wilson, n = rows / design effect"
JACKKNIFE = "jackknife over groups, t on a transformed scale"
METHODS = {
    "percentile": "percentile bootstrap over groups",
    "expanded": BOOTSTRAP,
    "bca": "BCa bootstrap over groups",
}

_CHUNK_ENTRIES = 400_000
"""Weights held at once: 3 MB, which a processor's cache holds; ten times as many take three times as long."""
_MAX_BLOCKS = 500
"""Blocks of the jackknife; where there are more groups, each block holds several."""
_BLOCK_SEED = 0
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
        raise DataError(
            "got no groups to resample, expected at least one group of cases for an interval. Check that cases were "
            "measured at all."
        )
    # One matrix product per chunk serves every statistic: a table per group is all that they need.
    flat = np.ascontiguousarray(group_sums, dtype=np.float64).reshape(n_groups, -1)
    sums = np.empty((n_resamples, flat.shape[1]))
    step = max(1, _CHUNK_ENTRIES // n_groups)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        sums[start : start + size] = _group_weights(n_groups, size, rng) @ flat
    return sums.reshape(n_resamples, *group_sums.shape[1:])


def percentile_interval(draws: FloatArray, level: float) -> tuple[float, float]:
    """The central `level` of a statistic's resampled values, (n_resamples,).

    Undefined values (nan) are left out where they are at most 5 % of the draws; above that, (nan, nan).
    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.
    """
    defined = draws[~np.isnan(draws)]
    if len(defined) < _MIN_DEFINED * len(draws) or not len(defined):
        return math.nan, math.nan
    # Equal tails on both sides, as all intervals here.
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_interval(value: float, draws: FloatArray, *, level: float, n_groups: int, proportion: bool) -> Interval:
    """The interval of a metric from its resampled values.

    value: the metric on all rows; draws: (n_resamples,). One group alone says nothing about others: (nan, nan).
    A proportion of exactly 0 or 1 has the same value in every resample, and its bootstrap interval would have no
    width; there the Wilson interval is given instead, with the number of groups as n, which is on the wide side. Any
    other statistic without spread, such as an F1 of 0, gets (nan, nan): no width is no knowledge, not certainty.
    """
    if math.isnan(value) or n_groups < 2:
        return Interval(math.nan, math.nan, BOOTSTRAP)
    # Exact comparison: a count over its own n is exactly 0 or 1, and nothing near it is meant.
    if proportion and value in (0.0, 1.0):
        return Interval(*wilson_interval(round(value) * n_groups, n_groups, level=level), WILSON)
    low, high = expanded_interval(draws, level, n_groups)
    return Interval(low, high, BOOTSTRAP) if low < high else Interval(math.nan, math.nan, BOOTSTRAP)


def wilson_interval(count: float, n: float, *, level: float) -> tuple[float, float]:
    """The score interval of a proportion count / n of rows that are, or count as, independent; (nan, nan) for n = 0.

    Source: Wilson (1927), doi:10.2307/2276774, by `statsmodels`.
    """
    if n == 0:
        return math.nan, math.nan
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, alpha=1 - level, method="wilson")
    # At the ends the closed form leaves a rounding error of 1e-18.
    return float(low) if count else 0.0, float(high) if count < n else 1.0


def design_effect(values: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Variance of the mean of `values` with rows in groups over that with independent rows; at least 1.

    values: (n,) numbers; groups: (n,) codes. 1 with fewer than two groups or values that do not vary.
    Source: Kish (1965), Survey Sampling, ch. 8; the variance over groups is the linearised one of a ratio mean.
    """
    x = np.asarray(values, dtype=np.float64)
    if groups is None or len(x) < 2:
        return 1.0
    sums, sizes = _by_group(x, np.asarray(groups))
    n, n_groups = len(x), len(sizes)
    # Variance of the mean if rows were independent; `together` is the same with groups as units.
    apart = float(((x - x.mean()) ** 2).sum()) / (n * (n - 1))
    if n_groups < 2 or apart == 0:
        return 1.0
    together = n_groups / (n_groups - 1) * float(((sums - sizes * x.mean()) ** 2).sum()) / n**2
    # With few groups an estimate below 1 is mostly noise: rows are never counted as more than they are.
    return max(1.0, together / apart)


def clustered_wilson(values: ArrayLike, groups: ArrayLike | None = None, *, level: float) -> Estimate:
    """The Wilson interval of a proportion of rows that come in groups: n is divided by the design effect.

    values: (n,) 0 or 1; groups: (n,) codes, None takes rows as independent. nan without a row; nan ends with one group.
    The effective n is made smaller still by (z / t)^2 with t at n_groups - 1 degrees of freedom, because the design
    effect is an estimate. At 0 and 1, where it cannot be estimated, the effective n is the number of groups.
    Source: Korn & Graubard (1998), Survey Methodology 24: 193-201, with Wilson's interval in place of the exact one.
    """
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, WILSON)
    rate = float(x.mean())
    if groups is None:
        return Estimate(rate, *wilson_interval(float(x.sum()), n, level=level), n, "Wilson")
    n_groups = len(np.unique(np.asarray(groups)))
    if n_groups < 2:
        return Estimate(rate, math.nan, math.nan, n, WILSON)
    if n_groups == n:
        return Estimate(rate, *wilson_interval(float(x.sum()), n, level=level), n, "Wilson")
    if rate in (0.0, 1.0):
        return Estimate(rate, *wilson_interval(rate * n_groups, n_groups, level=level), n, WILSON)
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    # Wilson's interval uses z; a smaller n gives it the width that t would, for few groups.
    shrink = float(norm.ppf(tail) / t.ppf(tail, n_groups - 1)) ** 2
    effective = n / design_effect(x, groups) * shrink
    return Estimate(rate, *wilson_interval(rate * effective, effective, level=level), n, CLUSTERED_WILSON)


def bca_interval(value: float, draws: FloatArray, jackknife: FloatArray, level: float) -> tuple[float, float]:
    """The bias-corrected and accelerated interval.

    value: the statistic on all rows; draws: (n_resamples,); jackknife: (n_blocks,) values without one block of groups.
    Undefined draws are handled as in `percentile_interval`. (nan, nan) where no draw differs from the value.
    Source: Efron (1987), doi:10.1080/01621459.1987.10478410.
    """
    from scipy.stats import norm

    defined, left_out = draws[~np.isnan(draws)], jackknife[~np.isnan(jackknife)]
    if math.isnan(value) or len(defined) < _MIN_DEFINED * len(draws) or not len(defined):
        return math.nan, math.nan
    # Half of the ties count as below, as in a mid-p; a coarse statistic would otherwise look biased.
    tied = np.isclose(defined, value, rtol=1e-12, atol=1e-12)  # the same table, summed in another order
    below = (np.sum((defined < value) & ~tied) + 0.5 * np.sum(tied)) / len(defined)
    # A value outside all its draws would make the bias infinite.
    bias = float(norm.ppf(np.clip(below, 0.5 / len(defined), 1 - 0.5 / len(defined))))
    # Without a jackknife value there is no acceleration: the interval is then the bias-corrected one.
    pull = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float((pull**2).sum())
    acceleration = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    with np.errstate(divide="ignore"):
        tails = norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-12))
    low, high = np.quantile(defined, tails)
    return float(low), float(high)


def expanded_interval(draws: FloatArray, level: float, n_groups: int) -> tuple[float, float]:
    """The percentile interval at a level widened for few groups, by as much as t and n / (n - 1) widen z.

    draws: (n_resamples,). (nan, nan) with one group.
    Source: Hesterberg (2015), What Teachers Should Know about the Bootstrap, doi:10.1080/00031305.2015.1089789, 5.
    """
    from scipy.stats import norm, t

    if n_groups < 2:
        return math.nan, math.nan
    widened = math.sqrt(n_groups / (n_groups - 1)) * float(t.ppf((1 + level) / 2, n_groups - 1))
    return percentile_interval(draws, 2 * float(norm.cdf(widened)) - 1)


def jackknife_interval(
    value: float, jackknife: FloatArray, level: float, lowest: float, *, corrected: bool = False
) -> tuple[float, float]:
    """Student's t around a statistic on a scale without ends, its variance from leaving out each group in turn.

    value: the statistic on all rows; jackknife: (n_blocks,) values without one block of groups. lowest: the statistic's
    lower end; the highest is 1. Scale: log-odds for 0 to 1, Fisher's z for -1 to 1, -log(1 - x) for -inf to 1.
    corrected: around the mean of the pseudo-values, which takes off the statistic's bias on that scale; worth its noise
    only where the bias is large.
    (nan, nan) where any value is undefined or at an end, or where none differs.
    On simulated sets of 10 to 200 groups it covers best: `benchmarks/coverage.py`.
    Source: Miller (1974), The jackknife - a review, doi:10.1093/biomet/61.1.1, section 3.
    """
    from scipy.stats import t

    n_blocks = len(jackknife)
    whole = np.append(jackknife, value)
    if n_blocks < 2 or not np.isfinite(whole).all() or (whole <= lowest).any() or (whole >= 1).any():
        return math.nan, math.nan
    # On these scales an interval cannot leave the statistic's range, and is near to symmetric.
    moved = -np.log1p(-whole)
    if math.isfinite(lowest):
        moved += np.log(whole - lowest)
    error = math.sqrt((n_blocks - 1) / n_blocks * float(((moved[:-1] - moved[:-1].mean()) ** 2).sum()))
    reach = float(t.ppf((1 + level) / 2, n_blocks - 1)) * error
    centre = moved[-1] + corrected * (n_blocks - 1) * (moved[-1] - moved[:-1].mean())
    ends = np.array([centre - reach, centre + reach])
    if error == 0:
        return math.nan, math.nan
    if math.isinf(lowest):
        low, high = -np.expm1(-ends)
    else:
        low, high = lowest + (1 - lowest) / (1 + np.exp(-ends))
    return float(low), float(high)


def leave_one_out(
    group_sums: FloatArray, statistics: Callable[[FloatArray], Mapping[str, FloatArray]]
) -> Mapping[str, FloatArray]:
    """Each statistic without one group, or one of 500 blocks of groups where there are more: name -> (n_blocks,).

    Groups are dealt to blocks by chance, from an order that only their sums decide: neither their order nor their names
    change a value, only which block has it.
    """
    n_groups = len(group_sums)
    block = _jackknife_blocks(n_groups)
    # Sorted by content: the same groups in another order of the file fall into the same blocks.
    if n_groups > _MAX_BLOCKS:
        flat = group_sums.reshape(n_groups, -1)
        group_sums = group_sums[np.lexsort(flat.T)]
    of_block = np.zeros((int(block.max()) + 1, *group_sums.shape[1:]))
    # np.add.at and not `of_block[block] +=`: the latter adds only once where a block repeats.
    np.add.at(of_block, block, group_sums)
    # The whole less the block, not a sum of the others: n_blocks subtractions in place of n_blocks ** 2 additions.
    return statistics(group_sums.sum(0) - of_block)


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

    group_sums: (n_groups, ...). statistics: (..., same trailing axes) -> name -> (...). nan ends where there is one
    group, or where a statistic has no spread.
    """
    n_groups = len(group_sums)
    drawn = statistics(resample_sums(group_sums, n_resamples, rng))
    if n_groups < 2:
        return {name: Interval(math.nan, math.nan, METHODS[method]) for name in drawn}
    jackknife: Mapping[str, FloatArray] = {}
    values: Mapping[str, FloatArray] = {}
    if method == "bca":
        jackknife, values = leave_one_out(group_sums, statistics), statistics(group_sums.sum(0)[None])
    return {
        name: _interval(draws, level, method, n_groups, values.get(name), jackknife.get(name))
        for name, draws in drawn.items()
    }


def bootstrap_rows(
    statistic: Callable[[FloatArray], FloatArray],
    groups: ArrayLike,
    *,
    n_resamples: int = 1000,
    rng: np.random.Generator,
    level: float = 0.95,
    method: BootstrapMethod = "expanded",
) -> Interval:
    """The interval of any statistic of weighted rows: for those that no sum over groups can give (AURC, ECE).

    statistic: (m, n) row weights, whole numbers >= 0 -> (m,) values. groups: (n,) codes of any kind.
    """
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = int(code.max()) + 1 if len(code) else 0
    if n_groups < 2:
        return Interval(math.nan, math.nan, METHODS[method])
    draws = []
    # In chunks: weights of (n_resamples, n) at once would be gigabytes for some 100,000 rows.
    step = max(1, _CHUNK_ENTRIES // len(code))
    for start in range(0, n_resamples, step):
        weights = _group_weights(n_groups, min(step, n_resamples - start), rng)
        draws.append(statistic(weights[:, code]))
    values = jackknife = None
    if method == "bca":
        block = _jackknife_blocks(n_groups)[code]
        left_out = [statistic((block != b).astype(np.float64)[None]) for b in range(int(block.max()) + 1)]
        values, jackknife = statistic(np.ones((1, len(code)))), np.concatenate(left_out)
    return _interval(np.concatenate(draws), level, method, n_groups, values, jackknife)


def jackknife_rows(statistic: Callable[[FloatArray], FloatArray], groups: ArrayLike) -> FloatArray:
    """(n_blocks,) values of any statistic of weighted rows without one group, or one of 500 blocks of groups.

    statistic and groups as in `bootstrap_rows`. Empty with one group.
    """
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = int(code.max()) + 1 if len(code) else 0
    if n_groups < 2:
        return np.zeros(0)
    block = _jackknife_blocks(n_groups)[code]
    n_blocks, step = int(block.max()) + 1, max(1, _CHUNK_ENTRIES // len(code))
    values = [
        statistic((block[None] != np.arange(start, min(start + step, n_blocks))[:, None]).astype(np.float64))
        for start in range(0, n_blocks, step)
    ]
    return np.concatenate(values)


def _interval(
    draws: FloatArray,
    level: float,
    method: BootstrapMethod,
    n_groups: int,
    value: FloatArray | None,
    jackknife: FloatArray | None,
) -> Interval:
    if method == "bca" and value is not None and jackknife is not None:
        low, high = bca_interval(float(value[0]), draws, jackknife, level)
    elif method == "expanded":
        low, high = expanded_interval(draws, level, n_groups)
    else:
        low, high = percentile_interval(draws, level)
    # No width is no knowledge here, as in `bootstrap_interval`.
    return Interval(low, high, METHODS[method]) if low < high else Interval(math.nan, math.nan, METHODS[method])


def _group_weights(n_groups: int, size: int, rng: np.random.Generator) -> FloatArray:
    """(size, n_groups): how often each group was drawn, one multinomial draw per row."""
    # Counting uniform draws is a multinomial draw, and several times faster than `rng.multinomial`.
    drawn = rng.integers(n_groups, size=(size, n_groups)) + (np.arange(size) * n_groups)[:, None]
    weights = np.bincount(drawn.ravel(), minlength=size * n_groups).reshape(size, n_groups)
    return weights.astype(np.float64)


def _jackknife_blocks(n_groups: int) -> IntArray:
    """(n_groups,) block codes: one group each, or `_MAX_BLOCKS` blocks of groups drawn by a fixed seed.

    Blocks of neighbours would be blocks of like groups wherever a file is sorted, and the interval then too wide.
    """
    if n_groups <= _MAX_BLOCKS:
        return np.arange(n_groups)
    return np.random.default_rng(_BLOCK_SEED).permutation(n_groups) * _MAX_BLOCKS // n_groups


def _by_group(values: FloatArray, groups: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Sum of `values` and number of rows per group."""
    _, code = np.unique(groups, return_inverse=True)
    return np.bincount(code, weights=values).astype(np.float64), np.bincount(code).astype(np.float64)
