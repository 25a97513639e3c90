"""Whether two judges differ on the same rows, and whether one differs from guessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError
from medjudge.metrics.classification import Outcomes, classification_metrics, count_options, metrics_from_counts
from medjudge.metrics.classification import group_counts as counts_by_group
from medjudge.metrics.intervals import Estimate, percentile_interval, resample_sums

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
EXACT_BELOW = 25
"""Discordant rows below which McNemar's test is exact."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two judges' answers to the cases that both of them judged, row by row."""

    a: Outcomes
    b: Outcomes
    only_a: tuple[str, ...]
    """Case ids that `a` judged and `b` did not: they found no partner and take no part."""
    only_b: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test on the rows where exactly one of two judges is right."""

    only_a: int
    """Rows that only `a` got right."""
    only_b: int
    p: float
    """Two-sided, in [0, 1]; 1 where no row is discordant."""
    method: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Metric of `a` minus metric of `b`, in points (hundredths); the ends are nan where there is no interval."""

    value: float
    low: float
    high: float


def pair(a: Outcomes, b: Outcomes) -> Pairing:
    """Joins two judges' outcomes by case id. Both must have been coded from the same cases. Raises DataError if not."""
    if a.labels != b.labels or a.n_groups != b.n_groups:
        raise DataError("two judges can only be paired if both were coded from the same cases and labels.")
    row_b = {case_id: row for row, case_id in enumerate(b.case_ids)}
    rows = [(row, row_b[case_id]) for row, case_id in enumerate(a.case_ids) if case_id in row_b]
    shared = {a.case_ids[row] for row, _ in rows}
    paired_a, paired_b = _take(a, [row for row, _ in rows]), _take(b, [row for _, row in rows])
    if not np.array_equal(paired_a.gold, paired_b.gold) or not np.array_equal(paired_a.groups, paired_b.groups):
        raise DataError("two judges can only be paired if both were coded from the same cases and labels.")
    return Pairing(
        paired_a,
        paired_b,
        only_a=tuple(case_id for case_id in a.case_ids if case_id not in shared),
        only_b=tuple(case_id for case_id in b.case_ids if case_id not in shared),
    )


def _take(outcomes: Outcomes, rows: list[int]) -> Outcomes:
    index = np.asarray(rows, dtype=np.int64)
    return replace(
        outcomes,
        case_ids=tuple(outcomes.case_ids[row] for row in rows),
        gold=outcomes.gold[index],
        predicted=outcomes.predicted[index],
        groups=outcomes.groups[index],
    )


def mcnemar(only_a: int, only_b: int, *, method: Literal["auto", "exact", "mid-p"] = "auto") -> McNemar:
    """McNemar's two-sided test from the two discordant counts. Rows are taken as independent.

    auto: fewer than 25 discordant rows: exact binomial (`statsmodels`). From 25 on: mid-p, the exact p less the
    probability
    of the observed split, which keeps the nominal level without the exact test's caution.
    Source: Fagerland, Lydersen & Laake (2013), doi:10.1186/1471-2288-13-91.
    """
    discordant = only_a + only_b
    if discordant == 0:
        return McNemar(0, 0, 1.0, "exact")
    if method == "exact" or (method == "auto" and discordant < EXACT_BELOW):
        from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

        return McNemar(only_a, only_b, float(exact_mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue), "exact")
    from scipy.stats import binom

    fewer = min(only_a, only_b)
    p = 2 * float(binom.cdf(fewer, discordant, 0.5)) - float(binom.pmf(fewer, discordant, 0.5))
    return McNemar(only_a, only_b, p, "mid-p")


def paired_differences(
    pairing: Pairing, metrics: tuple[str, ...], *, n_resamples: int, rng: np.random.Generator, level: float
) -> dict[str, Difference]:
    """Metric of `a` minus metric of `b` in points, with a percentile bootstrap interval over groups.

    Both judges are resampled by the same group weights, so what they share cancels. Groups without a paired row take no
    part. Metrics that the task does not have are left out; an undefined difference is nan.
    """
    a, b = pairing.a, pairing.b
    if not len(a.gold):
        raise DataError("two judges have no case in common: there is nothing to compare.")
    both = np.stack([counts_by_group(a), counts_by_group(b)], axis=1)
    both = both[both[:, 0].sum((1, 2)) > 0]
    drawn = metrics_from_counts(resample_sums(both, n_resamples, rng), **count_options(a))
    value_a, value_b = classification_metrics(a), classification_metrics(b)
    differences = {}
    for metric in metrics:
        if metric not in value_a:
            continue
        ends = percentile_interval(drawn[metric][:, 0] - drawn[metric][:, 1], level)
        low, high = ends if len(both) > 1 else (float("nan"), float("nan"))
        differences[metric] = Difference(100 * (value_a[metric] - value_b[metric]), 100 * low, 100 * high)
    return differences


@dataclass(frozen=True, slots=True)
class Permutation:
    """A paired permutation test of one statistic."""

    difference: float
    """Statistic of `a` minus statistic of `b`."""
    p: float
    """Two-sided, in (0, 1]; nan where the statistic is undefined."""
    n_groups: int
    n_resamples: int
    """Assignments tried; all 2^n_groups of them where that is fewer than asked for."""


@dataclass(frozen=True, slots=True)
class Power:
    """What a number of rows could show, and how many would be needed to show what was seen."""

    n: int
    design_effect: float
    """Variance with groups over variance without, at least 1: n / design_effect rows are independent."""
    effect: float
    """The distance that was seen, as a proportion, signed."""
    minimum_detectable: float
    """The smallest distance that n rows detect with the wanted power; nan where none."""
    rows_needed: int | None
    """Rows that would detect `effect` with the wanted power; None for an effect of 0 or too small to count."""
    power: float
    alpha: float


def paired_statistics(
    pairing: Pairing,
    names: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    rng: np.random.Generator,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """`a` minus `b` for any of `agreement.STATISTICS` (None: all that the task has), with a bootstrap over groups."""
    raise NotImplementedError


def paired_permutation(
    pairing: Pairing, names: Sequence[str] | None = None, *, n_resamples: int = 9999, rng: np.random.Generator
) -> dict[str, Permutation]:
    """Whether `a` and `b` differ, for any of `agreement.STATISTICS`: the judges are swapped group by group.

    All rows of a group are swapped together, because they are not independent. All assignments are tried where there
    are no more than `n_resamples`. Source: Ernst (2004), doi:10.1214/088342304000000396; p with the observed assignment
    counted: Phipson & Smyth (2010), doi:10.2202/1544-6115.1585.
    """
    raise NotImplementedError


def permutation_of_sums(
    sums_a: FloatArray,
    sums_b: FloatArray,
    statistics: Callable[[FloatArray], Mapping[str, FloatArray]],
    *,
    n_resamples: int = 9999,
    rng: np.random.Generator,
) -> dict[str, Permutation]:
    """`paired_permutation` for any statistics of sums over groups. sums_a, sums_b: (n_groups, ...)."""
    raise NotImplementedError


def permutation_of_rows(
    rows_a: NDArray[Any],
    rows_b: NDArray[Any],
    statistic: Callable[[NDArray[Any]], float],
    groups: IntArray | None = None,
    *,
    n_resamples: int = 999,
    rng: np.random.Generator,
) -> Permutation:
    """`paired_permutation` for a statistic of rows that no sums give (AURC, ECE). rows_a, rows_b: (n, ...), row by
    row."""
    raise NotImplementedError


def adjust_p(
    p_values: Mapping[str, float], *, method: Literal["holm", "benjamini-hochberg"] = "holm"
) -> dict[str, float]:
    """Adjusted p of a family of comparisons, by name; nan stays nan and is not counted as a test.

    holm: no false claim in the whole family with probability 1 - alpha. benjamini-hochberg: the expected share of false
    claims is at most alpha. By `statsmodels`. Source: Holm (1979); Benjamini & Hochberg (1995).
    """
    raise NotImplementedError


def power_against_chance(
    n_correct: int, n: int, chance: float, *, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> Power:
    """What n rows could show of an accuracy against `chance`, and the rows that would show the accuracy seen.

    Two-sided, normal approximation with the variance of each hypothesis. Raises DataError for n = 0.
    Source: Fleiss, Levin & Paik (2003), Statistical Methods for Rates and Proportions, 3rd ed., section 2.3...
    """
    raise NotImplementedError


def power_of_pair(
    only_a: int, only_b: int, n: int, *, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> Power:
    """What n paired rows could show of a difference in accuracy, given how often exactly one judge is right.

    Two-sided McNemar's test. Source: Connor (1987), doi:10.2307/2531961.
    """
    raise NotImplementedError


def compare_with_chance(n_correct: int, n: int, chance: float) -> float:
    """Two-sided exact binomial p of n_correct out of n against guessing right with probability `chance`.

    Rows are taken as independent. Raises DataError for n = 0.
    """
    if n == 0:
        raise DataError("no rows: accuracy cannot be compared with chance.")
    from scipy.stats import binomtest

    return float(binomtest(n_correct, n, chance).pvalue)
