"""A judge by the models whose answers it judged: one accuracy over five generators hides five different judges.

Prevalence differs between generators, and F1, accuracy and kappa move with it. So each row shows prevalence, TPR and
TNR (which do not move with it), MCC and AC1, with intervals; a test says whether the differences are more than chance;
and the standard deviation across generators is shown beside what sampling alone would give. A generator here is the
model whose answer was judged; the tables serve the values of any other slice as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.metrics.agreement import estimates_of, statistics_from_counts
from medjudge.metrics.classification import Outcomes, group_counts, take
from medjudge.metrics.comparison import power_against_chance
from medjudge.metrics.exchange import intraclass_correlation, permutation_test
from medjudge.metrics.group_tests import contrast_is_zero
from medjudge.metrics.intervals import Estimate, bootstrap_sums, clustered_wilson, design_effect
from medjudge.metrics.metric_result import measured, tested
from medjudge.metrics.result_types import GeneratorResult, HeterogeneityResult, SelfPreferenceResult

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

GENERATOR_STATISTICS = ("accuracy", "tpr", "tnr", "mcc", "gwet_ac1", "f1_positive", "macro_f1")
"""Of `agreement.STATISTICS`; those that the task does not have are absent from a row."""
_COCHRAN_ENTRIES = 24
"""Entries in groups that are not all alike, from which Cochran's Q follows chi-square well enough."""
_EXPECTED_AT_LEAST = 5.0
_WALD_EXPECTED_AT_LEAST = 50.0
"""Of hits and of misses of every generator, counted as independent rows. A variance that is estimated from each
generator's own rows needs more than the rule of 5: at 9 expected misses, five generators of one rate were told apart in
9 % of sets, at 28 in 8 %."""
_WALD_GROUPS_EACH = 100


def generator_table(
    outcomes: Outcomes,
    generators: Sequence[str],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> list[GeneratorResult]:
    """One row per generator, by name. generators: (n,) beside `outcomes.case_ids`; rows with "" are left out.

    Intervals as in `agreement.agreement_estimates`. Raises DataError if the lengths differ.
    """
    names = _names(outcomes, generators)
    rows = []
    for name in sorted(set(names) - {""}):
        part = take(outcomes, np.flatnonzero(names == name))
        rows.append(_row(name, part, level=level, n_resamples=n_resamples, rng=rng))
    return rows


def _row(name: str, part: Outcomes, *, level: float, n_resamples: int, rng: np.random.Generator) -> GeneratorResult:
    """The row of one generator. part: the outcomes of its answers alone."""
    of_counts = statistics_from_counts(group_counts(part).sum(0), positive=part.positive, ordered=part.ordered)
    values = {key: float(of_counts[key]) for key in GENERATOR_STATISTICS if key in of_counts}
    prevalence = positive_rate = None
    if part.positive is not None:
        prevalence = clustered_wilson(part.gold == part.positive, part.groups, level=level)
        positive_rate = clustered_wilson(part.predicted == part.positive, part.groups, level=level)
    statistics = estimates_of(part, values, level=level, n_resamples=n_resamples, rng=rng)
    power = power_against_chance(
        len(part.gold), 1 / len(part.labels), design_effect=design_effect(part.correct, part.groups)
    )
    read = part.parsed
    return GeneratorResult(
        generator=name,
        n=len(part.gold),
        n_groups=len(np.unique(part.groups)),
        n_unparsed=int((~read).sum()),
        prevalence=None if prevalence is None else measured(prevalence),
        positive_rate=None if positive_rate is None else measured(positive_rate),
        # Of calling every answer positive: recall is 1 and precision the prevalence.
        always_positive_f1=None if prevalence is None else 2 * prevalence.value / (1 + prevalence.value),
        statistics={key: measured(estimate) for key, estimate in statistics.items()},
        minimum_detectable=power.minimum_detectable,
        unanswered=part.unanswered,
        answered_only=measured(clustered_wilson(part.correct[read], part.groups[read], level=level)),
    )


def heterogeneity(
    outcomes: Outcomes, generators: Sequence[str], *, n_resamples: int = 9999, rng: np.random.Generator
) -> list[HeterogeneityResult]:
    """The tests of `rate_heterogeneity` for accuracy and, with a positive label, prevalence, TPR and TNR.

    A test whose rows come from fewer than two generators is left out.
    """
    names = _names(outcomes, generators)
    named = names != ""
    tests: dict[str, tuple[BoolArray, BoolArray]] = {}  # outcome -> (which rows, what is counted)
    if outcomes.positive is not None:
        positive = outcomes.gold == outcomes.positive
        tests["prevalence"] = (named, positive)
        tests["tpr"] = (named & positive, outcomes.correct)
        tests["tnr"] = (named & ~positive, outcomes.correct)
    tests["accuracy"] = (named, outcomes.correct)
    return [
        rate_heterogeneity(
            values[rows], names[rows].tolist(), outcomes.groups[rows], outcome=outcome, n_resamples=n_resamples, rng=rng
        )
        for outcome, (rows, values) in tests.items()
        if len(set(names[rows])) >= 2
    ]


def rate_heterogeneity(
    values: ArrayLike,
    generators: Sequence[str],
    groups: ArrayLike,
    *,
    outcome: str = "",
    n_resamples: int = 9999,
    rng: np.random.Generator,
) -> HeterogeneityResult:
    """Whether the share of True differs between generators. values, generators, groups: (n,).

    Each group (question) answered once by every generator: Cochran's Q. Groups with one row each: chi-square. Both by
    chi-square where every generator can expect 5 hits and 5 misses (Cochran's Q: in groups that are not all alike, with
    24 entries), else permuted. Any other grouping: a Wald test with the rates' covariance over groups where every
    generator stands in 100 groups and can expect 50 hits and 50 misses, counted as independent rows; else permuted, and
    then rows within groups as well as whole groups, as far as either carries information (`exchange`).
    Raises DataError with fewer than two generators.
    Source: Cochran (1950), doi:10.2307/2332378; the rule of 24: Tate & Brown (1970), doi:10.2307/2283999; the rule of
    5: Cochran (1954), doi:10.2307/3001616.
    """
    hits = np.asarray(values, dtype=np.float64)
    names, of = np.unique(np.asarray(generators, dtype=str), return_inverse=True)
    _, block = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise DataError(f"heterogeneity needs rows of two generators or more, got {len(names)}.")
    cells = np.zeros((int(block.max()) + 1, len(names)))
    hit_cells = np.zeros_like(cells)
    np.add.at(cells, (block, of), 1)
    np.add.at(hit_cells, (block, of), hits)
    statistic, p, method = _test(hits, of, block, cells, hit_cells, n_resamples, rng)
    n = np.bincount(of).astype(np.float64)
    rates = np.bincount(of, weights=hits) / n
    variance, sampling_variance = float(rates.var(ddof=1)), _mean_squared_gap(_rate_covariance(hits, of, block))
    return HeterogeneityResult(
        outcome=outcome,
        statistic=statistic,
        df=len(names) - 1,
        p=p,
        method=method,
        n=len(hits),
        rates={str(name): float(rate) for name, rate in zip(names, rates, strict=True)},
        sd=variance**0.5,
        # An estimate of a variance from a covariance may fall below zero; a standard deviation may not.
        sampling_sd=max(sampling_variance, 0.0) ** 0.5,
        excess_sd=max(variance - sampling_variance, 0.0) ** 0.5,
        n_groups=len(cells),
    )


def _test(
    hits: FloatArray,
    of: IntArray,
    block: IntArray,
    cells: FloatArray,
    hit_cells: FloatArray,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float, str]:
    """Statistic, p and method, by the design and by what its cells can be expected to hold."""
    rate = float(hits.mean())
    if rate in (0.0, 1.0):
        return 0.0, 1.0, "chi-square"
    if (cells == 1).all():
        size = cells.shape[1]
        mixed = hit_cells[(hit_cells.sum(1) > 0) & (hit_cells.sum(1) < size)]  # groups all alike tell nothing
        if mixed.size >= _COCHRAN_ENTRIES and _enough(np.full(size, len(mixed)), mixed.mean(), _EXPECTED_AT_LEAST):
            return _cochran(hit_cells)
    elif len(cells) == len(hits):  # a row per group: rows are independent
        if _enough(cells.sum(0), rate, _EXPECTED_AT_LEAST):
            return _chi_square(hit_cells, cells)
    elif (cells > 0).sum(0).min() >= _WALD_GROUPS_EACH:
        correlation = intraclass_correlation(hits, block)
        effective = (cells / (1 + np.maximum(cells - 1, 0) * correlation)).sum(0)
        if _enough(effective, rate, _WALD_EXPECTED_AT_LEAST):
            return *_wald(hits, of, block, len(cells)), "Wald test over groups"
    return _permutation(hits, block, cells, hit_cells, n_resamples, rng)


def _cochran(hit_cells: FloatArray) -> tuple[float, float, str]:
    """Cochran's Q of a full table of blocks by generators: statistic, p, method."""
    from statsmodels.stats.contingency_tables import cochrans_q

    test = cochrans_q(hit_cells)
    return float(test.statistic), float(test.pvalue), "Cochran's Q"


def _mean_squared_gap(covariance: FloatArray) -> float:
    """The variance across k rates, (k - 1) in the denominator, to be expected from their sampling alone."""
    k = len(covariance)
    return float((np.trace(covariance) - covariance.sum() / k) / (k - 1))


def _chi_square(hit_cells: FloatArray, cells: FloatArray) -> tuple[float, float, str]:
    """Pearson's chi-square of generators by outcome, for independent rows: statistic, p, method."""
    from scipy.stats import chi2

    n, counted = cells.sum(0), hit_cells.sum(0)
    rate = counted.sum() / n.sum()
    statistic = float(((counted - n * rate) ** 2 / (n * rate * (1 - rate))).sum())
    return statistic, float(chi2.sf(statistic, len(n) - 1)), "chi-square"


def _permutation(
    hits: FloatArray,
    block: IntArray,
    cells: FloatArray,
    hit_cells: FloatArray,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float, str]:
    """The permutation test for any design: statistic, p, and what was permuted."""
    test = permutation_test(hits, cells, hit_cells, block, n_resamples=n_resamples, rng=rng)
    if (cells == 1).all():
        return test.statistic, test.p, "Cochran's Q by permutation within groups"
    parts = ["within groups"] * test.within
    parts += ["of rows" if len(cells) == len(hits) else "of groups"] * test.between
    return test.statistic, test.p, f"chi-square by permutation {' and '.join(parts)}" if parts else "chi-square"


def _enough(expected_rows: FloatArray, rate: float, at_least: float) -> bool:
    """Whether every generator can expect that many hits and that many misses."""
    return bool((expected_rows * min(rate, 1 - rate)).min() >= at_least)


def _rate_covariance(hits: FloatArray, of: IntArray, block: IntArray) -> FloatArray:
    """(k, k) covariance of the generators' rates, linearised over groups; whatever groups they share.

    Where all rows of a generator are in one group, its rate's variance is that of a group with all rows' mean rate.
    """
    n = np.bincount(of).astype(np.float64)
    rates = np.bincount(of, weights=hits) / n
    parts = np.zeros((int(block.max()) + 1, len(n)))
    np.add.at(parts, (block, of), (hits - rates[of]) / n[of])
    # Each generator's own groups: with few of them the linearised variance is too small by (G - 1) / G.
    n_groups = np.bincount(np.unique(np.stack([of, block]), axis=1)[0])
    scale = np.sqrt(n_groups / np.maximum(n_groups - 1, 1))
    covariance = np.asarray((parts * scale).T @ (parts * scale))
    correlation = intraclass_correlation(hits, block)
    of_one_group = hits.mean() * (1 - hits.mean()) * (correlation + (1 - correlation) / n)
    # One group shows no variance between groups: its rows' correlation is taken from all generators.
    single = np.flatnonzero(n_groups == 1)
    covariance[single, single] = of_one_group[single]
    return covariance


def _wald(hits: FloatArray, of: IntArray, block: IntArray, n_blocks: int) -> tuple[float, float]:
    """Hotelling's test that all rates are equal, from their covariance over groups: statistic and p."""
    from scipy.stats import f

    rates = np.bincount(of, weights=hits) / np.bincount(of)
    contrast = np.eye(len(rates))[1:] - np.eye(len(rates))[0]
    apart = contrast @ rates
    covariance = contrast @ _rate_covariance(hits, of, block) @ contrast.T
    statistic = float(apart @ np.linalg.pinv(covariance) @ apart)
    df = int(np.linalg.matrix_rank(covariance))
    if df == 0:
        return 0.0, 1.0
    return statistic, float(f.sf(statistic * (n_blocks - df) / ((n_blocks - 1) * df), df, n_blocks - df))


def self_preference(
    outcomes: Outcomes,
    generators: Sequence[str],
    families: Mapping[str, str],
    judge_family: str,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> SelfPreferenceResult | None:
    """The contrast where judge and generator share a family; None where no generator does, or all do.

    families: generator -> family; a generator that it does not name takes no part. Two-label tasks only: raises
    DataError for others. Source: Panickssery, Bowman & Feng (2024), arXiv:2404.13076.
    """
    if outcomes.positive is None:
        raise DataError("self-preference is a contrast of positive rates: the task has no positive label.")
    names = _names(outcomes, generators)
    family = np.array([families.get(name, "") for name in names], dtype=object)
    # A generator of unknown family might be the judge's own: it is on neither side.
    own, known = family == judge_family, family != ""
    other = known & ~own
    if not own.any() or not other.any():
        return None
    gold = (outcomes.gold == outcomes.positive).astype(np.float64)
    called = (outcomes.predicted == outcomes.positive).astype(np.float64)
    sums = np.zeros((outcomes.n_groups, 2, 4))  # group, own or other: rows, error, gold negatives, positives among them
    columns = np.stack([np.ones_like(gold), called - gold, 1 - gold, called * (1 - gold)], axis=1)
    np.add.at(sums, (outcomes.groups[known], (~own[known]).astype(int)), columns[known])
    sums = sums[sums[:, :, 0].sum(1) > 0]
    intervals = bootstrap_sums(sums, _contrasts, n_resamples=n_resamples, rng=rng, level=level)
    values = _contrasts(sums.sum(0))
    n_negative = int((1 - gold)[known].sum())
    estimates = {
        name: Estimate(float(value), intervals[name].low, intervals[name].high, n, intervals[name].method)
        for (name, value), n in zip(values.items(), (int(known.sum()), n_negative), strict=True)
    }
    return SelfPreferenceResult(
        family=judge_family,
        n_own=int(own.sum()),
        n_other=int(other.sum()),
        positive_rate_error=measured(estimates["positive_rate_error"]),
        false_positive_rate=measured(estimates["false_positive_rate"]),
        test=tested(contrast_is_zero((called - gold)[known], own[known], outcomes.groups[known])),
    )


def _contrasts(sums: FloatArray) -> dict[str, FloatArray]:
    """Own family less others. sums: (..., 2, 4)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error, false_positive = sums[..., 1] / sums[..., 0], sums[..., 3] / sums[..., 2]
    return {
        "positive_rate_error": error[..., 0] - error[..., 1],
        "false_positive_rate": false_positive[..., 0] - false_positive[..., 1],
    }


def _names(outcomes: Outcomes, generators: Sequence[str]) -> NDArray[np.str_]:
    if len(generators) != len(outcomes.gold):
        raise DataError(f"{len(generators)} generators were given for {len(outcomes.gold)} rows: expected one per row.")
    return np.asarray(generators, dtype=str)
