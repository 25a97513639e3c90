"""How far two judges are apart on the same rows, and what a number of rows could show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.metrics.agreement import statistics_from_counts
from medjudge.metrics.classification import Outcomes, count_options, metrics_from_counts, take
from medjudge.metrics.classification import group_counts as counts_by_group
from medjudge.metrics.exchange import FAR, FIRST_LOOK
from medjudge.metrics.group_tests import EXACT_BELOW
from medjudge.metrics.intervals import Estimate, leave_one_out
from medjudge.metrics.result_types import PowerResult

FloatArray = NDArray[np.float64]
DIFFERENCE = "jackknife over groups, t"
PERMUTATION = "paired permutation of groups"
_CHUNK_ENTRIES = 400_000
"""Signs held at once: 3 MB."""


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
    paired_a, paired_b = take(a, [row for row, _ in rows]), take(b, [row for _, row in rows])
    if not np.array_equal(paired_a.gold, paired_b.gold) or not np.array_equal(paired_a.groups, paired_b.groups):
        raise DataError("two judges can only be paired if both were coded from the same cases and labels.")
    return Pairing(
        paired_a,
        paired_b,
        only_a=tuple(case_id for case_id in a.case_ids if case_id not in shared),
        only_b=tuple(case_id for case_id in b.case_ids if case_id not in shared),
    )


def mcnemar(only_a: int, only_b: int, *, method: Literal["auto", "exact", "mid-p"] = "auto") -> McNemar:
    """McNemar's two-sided test from the two discordant counts. Rows are taken as independent.

    auto: fewer than 25 discordant rows: exact binomial (`statsmodels`). From 25 on: mid-p, the exact p less the
    probability of the observed split, which keeps the nominal level without the exact test's caution.
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


def paired_differences(pairing: Pairing, metrics: tuple[str, ...], *, level: float) -> dict[str, Difference]:
    """Metric of `a` minus metric of `b` in points, -100 to 100, with the interval of `difference_interval`.

    Groups without a paired row take no part. Metrics that the task does not have are left out; an undefined difference
    is nan.
    """
    a, b = pairing.a, pairing.b
    if not len(a.gold):
        raise DataError("two judges have no case in common: there is nothing to compare. Check that case ids agree.")
    both = np.stack([counts_by_group(a), counts_by_group(b)], axis=1)
    both = both[both[:, 0].sum((1, 2)) > 0]
    without = leave_one_out(both, lambda sums: metrics_from_counts(sums, **count_options(a)))
    values = metrics_from_counts(both.sum(0), **count_options(a))
    differences = {}
    for metric in metrics:
        if metric not in values:
            continue
        value = float(values[metric][0] - values[metric][1])
        ends = difference_interval(value, without[metric][:, 0] - without[metric][:, 1], level)
        # Two groups give t of one degree of freedom, which reaches beyond what two shares can differ by.
        low, high = np.clip(ends, -1.0, 1.0)
        differences[metric] = Difference(100 * value, 100 * float(low), 100 * float(high))
    return differences


def difference_interval(value: float, without: FloatArray, level: float) -> tuple[float, float]:
    """Student's t around a difference, its standard error from leaving out each group (or block of groups) in turn.

    value: the difference on all rows; without: (n_blocks,) the difference without each block. For a difference in
    accuracy it is t on the groups' differences. (nan, nan) with one group, or where a block decides whether the
    difference is defined at all; of no width where no block changes it.
    Source: Miller (1974), The jackknife - a review, doi:10.1093/biomet/61.1.1. It covers 95 to 97 % from 2 groups on,
    where a bootstrap of 2 to 5 groups covers 60 to 91 %: `docs/statistics.md`.
    """
    from scipy.stats import t

    n_blocks = len(without)
    if n_blocks < 2 or not np.isfinite([value, *without]).all():
        return math.nan, math.nan
    error = math.sqrt((n_blocks - 1) / n_blocks * float(((without - without.mean()) ** 2).sum()))
    if error < 1e-12:  # what is left of equal numbers, added in another order
        return value, value
    reach = float(t.ppf((1 + level) / 2, n_blocks - 1)) * error
    return value - reach, value + reach


@dataclass(frozen=True, slots=True)
class Permutation:
    """A paired permutation test of one statistic."""

    difference: float
    """Statistic of `a` minus statistic of `b`."""
    p: float
    """Two-sided, in (0, 1]; nan where the statistic is undefined."""
    n_groups: int
    """Groups in which the two differ: those that a swap changes."""
    n_resamples: int
    """Assignments tried; all 2^n_groups of them where that is fewer than asked for."""


def paired_statistics(
    pairing: Pairing, names: Sequence[str] | None = None, *, level: float = 0.95
) -> dict[str, Estimate]:
    """`a` minus `b` for any of `agreement.STATISTICS`, with `difference_interval`. In the statistic's own unit.

    names: None for all that the task has; one that the task lacks is left out. Each estimate's n is the paired rows.
    nan ends where no group changes the difference. Raises DataError without a paired row.
    """
    counts_a, counts_b, statistics = _paired_counts(pairing, names)
    both = np.stack([counts_a, counts_b], axis=1)
    without = leave_one_out(both, statistics)
    differences = {}
    for name, values in statistics(both.sum(0)).items():
        value = float(values[0] - values[1])
        low, high = difference_interval(value, without[name][:, 0] - without[name][:, 1], level)
        ends = (low, high) if low < high else (math.nan, math.nan)
        differences[name] = Estimate(value, *ends, len(pairing.a.gold), DIFFERENCE)
    return differences


def paired_permutation(
    pairing: Pairing, names: Sequence[str] | None = None, *, n_resamples: int = 9999, rng: np.random.Generator
) -> dict[str, Permutation]:
    """Whether `a` and `b` differ, for any of `agreement.STATISTICS`: the judges are swapped group by group.

    All rows of a group are swapped together, because they are not independent. All assignments are tried where there
    are no more than `n_resamples`. Source: Ernst (2004), doi:10.1214/088342304000000396; p with the observed
    assignment counted: Phipson & Smyth (2010), doi:10.2202/1544-6115.1585.
    """
    counts_a, counts_b, statistics = _paired_counts(pairing, names)
    return permutation_of_sums(counts_a, counts_b, statistics, n_resamples=n_resamples, rng=rng)


def _paired_counts(
    pairing: Pairing, names: Sequence[str] | None
) -> tuple[FloatArray, FloatArray, Callable[[FloatArray], dict[str, FloatArray]]]:
    """Tables of both judges by group, groups without a paired row left out, and the statistics of such tables."""
    a, b = pairing.a, pairing.b
    if not len(a.gold):
        raise DataError("two judges have no case in common: there is nothing to compare. Check that case ids agree.")
    counts_a, counts_b = counts_by_group(a), counts_by_group(b)
    present = counts_a.sum((1, 2)) > 0

    def statistics(counts: FloatArray) -> dict[str, FloatArray]:
        return dict(statistics_from_counts(counts, positive=a.positive, ordered=a.ordered, names=names))

    return counts_a[present], counts_b[present], statistics


def permutation_of_sums(
    sums_a: FloatArray,
    sums_b: FloatArray,
    statistics: Callable[[FloatArray], Mapping[str, FloatArray]],
    *,
    n_resamples: int = 9999,
    rng: np.random.Generator,
) -> dict[str, Permutation]:
    """`paired_permutation` for any statistics of sums over groups. sums_a, sums_b: (n_groups, ...).

    statistics: (..., same trailing axes) -> name -> (...).
    """
    shape = sums_a.shape[1:]
    apart = (sums_a != sums_b).reshape(len(sums_a), -1).any(1)  # swapping equals changes nothing
    middle = (sums_a.sum(0) + sums_b.sum(0)).ravel() / 2
    # A swap of group g moves both sums by the same amount, so all swaps are one product of signs and halves.
    half = (sums_a[apart] - sums_b[apart]).reshape(-1, middle.size) / 2
    signs, exact = _assignments(len(half), n_resamples, rng)
    whole_a, whole_b = statistics(sums_a.sum(0)), statistics(sums_b.sum(0))
    drawn: dict[str, list[FloatArray]] = {}

    def results() -> dict[str, Permutation]:
        return {
            name: _permutation(float(whole_a[name] - whole_b[name]), np.concatenate(draws), exact, len(half))
            for name, draws in drawn.items()
        }

    n_drawn = 0
    for chunk in signs:
        shift = chunk @ half
        of_a = statistics((middle + shift).reshape(-1, *shape))
        of_b = statistics((middle - shift).reshape(-1, *shape))
        for name, values in of_a.items():
            drawn.setdefault(name, []).append(values - of_b[name])
        # As in `exchange.permutation_test`: a p that is far from any claim is not drawn further.
        n_before, n_drawn = n_drawn, n_drawn + len(chunk)
        if not exact and n_before < FIRST_LOOK <= n_drawn and not any(one.p <= FAR for one in results().values()):
            break
    return results()


def permutation_of_rows(
    rows_a: NDArray[Any],
    rows_b: NDArray[Any],
    statistic: Callable[[NDArray[Any]], float],
    groups: ArrayLike | None = None,
    *,
    n_resamples: int = 999,
    rng: np.random.Generator,
) -> Permutation:
    """`paired_permutation` for a statistic of rows that no sums give (AURC, ECE).

    rows_a, rows_b: (n, ...), row by row; statistic: (n, ...) -> one number. groups: (n,) codes, None for rows apart.
    """
    _, code = np.unique(np.arange(len(rows_a)) if groups is None else np.asarray(groups), return_inverse=True)
    apart = np.bincount(code, weights=(rows_a != rows_b).reshape(len(code), -1).any(1)) > 0
    n_groups = int(apart.sum())
    signs, exact = _assignments(n_groups, n_resamples, rng)
    draws = []
    swap = np.ones(len(apart))
    for chunk in signs:
        for row in chunk:
            swap[apart] = row
            keep = (swap[code] > 0).reshape(-1, *(1,) * (rows_a.ndim - 1))
            draws.append(statistic(np.where(keep, rows_a, rows_b)) - statistic(np.where(keep, rows_b, rows_a)))
    difference = statistic(rows_a) - statistic(rows_b)
    return _permutation(difference, np.array(draws), exact, n_groups)


def _assignments(n_groups: int, n_resamples: int, rng: np.random.Generator) -> tuple[Iterator[FloatArray], bool]:
    """Chunks of rows of +1 (as observed) and -1 (swapped), (m, n_groups), and whether they are all that there are."""
    if n_groups < 60 and 2**n_groups <= n_resamples:
        bits = (np.arange(2**n_groups)[:, None] >> np.arange(n_groups)) & 1
        return iter([(1 - 2 * bits).astype(np.float64)]), True
    step = max(1, min(_CHUNK_ENTRIES // max(n_groups, 1), FIRST_LOOK))
    sizes = [min(step, n_resamples - start) for start in range(0, n_resamples, step)]
    return ((1 - 2 * rng.integers(0, 2, size=(size, n_groups))).astype(np.float64) for size in sizes), False


def _permutation(difference: float, draws: FloatArray, exact: bool, n_groups: int) -> Permutation:
    defined = draws[~np.isnan(draws)]
    if np.isnan(difference) or len(defined) < 0.95 * len(draws):
        return Permutation(difference, float("nan"), n_groups, len(draws))
    # Sums in another order may differ in the last digit from the observed difference they equal.
    as_far = int((np.abs(defined) >= abs(difference) - 1e-12).sum())
    # With all assignments listed the observed one is among them; a drawn sample does not hold it, so 1 is added.
    p = as_far / len(defined) if exact else (as_far + 1) / (len(defined) + 1)
    return Permutation(difference, p, n_groups, len(draws))


def adjust_p(
    p_values: Mapping[str, float], *, method: Literal["holm", "benjamini-hochberg"] = "holm"
) -> dict[str, float]:
    """Adjusted p of a family of comparisons, by name; nan stays nan and is not counted as a test.

    holm: no false claim in the whole family with probability 1 - alpha. benjamini-hochberg: the expected share of
    false claims among the claims is at most alpha. By `statsmodels`.
    Source: Holm (1979), https://www.jstor.org/stable/4615733; Benjamini & Hochberg (1995),
    doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    from statsmodels.stats.multitest import multipletests

    tested = [name for name, p in p_values.items() if not np.isnan(p)]
    if not tested:
        return dict(p_values)
    code = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}[method]
    adjusted = multipletests([p_values[name] for name in tested], method=code)[1]
    return {**p_values, **dict(zip(tested, map(float, adjusted), strict=True))}


def power_against_chance(
    n: int, chance: float, *, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> PowerResult:
    """What n rows could show of an accuracy against `chance`.

    Two-sided, normal approximation: n = deff (z_a sqrt(p0 q0) + z_b sqrt(p1 q1))^2 / (p1 - p0)^2.
    `minimum_detectable` is above chance. Raises DataError for n = 0 or a chance outside (0, 1).
    Source: Fleiss, Levin & Paik (2003), Statistical Methods for Rates and Proportions, 3rd ed., ch. 2.
    """
    if n == 0 or not 0 < chance < 1:
        raise DataError(f"power needs rows and a chance between 0 and 1, got {n} rows and chance {chance:g}.")
    z_a, z_b = _normal_quantiles(power, alpha)

    def rows(effect: float) -> float:
        there = chance + effect
        spread = z_a * math.sqrt(chance * (1 - chance)) + z_b * math.sqrt(there * (1 - there))
        return design_effect * (spread / effect) ** 2

    return _power(_smallest(rows, n, 1 - chance), n, design_effect, power, alpha)


def power_of_pair(
    only_a: int, only_b: int, n: int, *, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> PowerResult:
    """What n paired rows could show of a difference in accuracy, given how often exactly one judge is right.

    Two-sided McNemar's test: n = deff (z_a sqrt(d) + z_b sqrt(d - e^2))^2 / e^2 with d the share of discordant rows
    and e the difference. `minimum_detectable` holds at the d that was seen. Raises DataError for n = 0.
    Source: Connor (1987), doi:10.2307/2531961.
    """
    if n == 0:
        raise DataError("no paired rows: what they could show cannot be computed.")
    z_a, z_b = _normal_quantiles(power, alpha)
    # Concordant rows say nothing about the difference: only how often the two part decides.
    discordant = (only_a + only_b) / n

    def rows(effect: float) -> float:
        spread = z_a * math.sqrt(discordant) + z_b * math.sqrt(max(discordant - effect**2, 0.0))
        return design_effect * (spread / effect) ** 2

    return _power(_smallest(rows, n, discordant), n, design_effect, power, alpha)


def _power(least: float, n: int, design_effect: float, power: float, alpha: float) -> PowerResult:
    return PowerResult(n=n, design_effect=design_effect, minimum_detectable=least, power=power, alpha=alpha)


def _normal_quantiles(power: float, alpha: float) -> tuple[float, float]:
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))


def _smallest(rows: Callable[[float], float], n: int, largest: float) -> float:
    """The smallest effect in (0, largest] that needs no more than n rows; nan if none does."""
    from scipy.optimize import brentq

    if largest <= 0 or rows(largest) > n:
        return float("nan")
    return float(brentq(lambda effect: rows(effect) - n, 1e-9, largest))
