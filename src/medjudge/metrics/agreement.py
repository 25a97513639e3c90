"""Agreement between a judge and the experts, and among several raters: every coefficient that a reviewer may ask for.

For one judge against gold labels all statistics are functions of one table, gold by answer. `agreement_statistics`
computes them from the labels, by a library where one has the estimator; `statistics_from_counts` computes the same
numbers from many tables at once, which is what bootstrap and permutation need.

Two families, told apart in `STATISTICS`: measures of being right (accuracy, F1, MCC) take all rows, and an unreadable
answer is wrong; coefficients between two raters (kappa, AC, alpha, ICC, correlations) take the rows with a verdict,
because an unreadable answer has no place on a scale. `statistic_n` says how many rows each rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.classification import Outcomes, classification_metrics, group_counts, metrics_from_counts
from medjudge.metrics.intervals import (
    JACKKNIFE,
    BootstrapMethod,
    Estimate,
    Interval,
    bootstrap_sums,
    clustered_wilson,
    jackknife_interval,
    leave_one_out,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Weights = Literal["identity", "linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]
IntervalMethod = Literal["jackknife"] | BootstrapMethod

MISSING = -1
"""The code of a gap in a ratings array."""


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
    """Whether it is a share of rows."""
    biased: bool = False
    """Whether its jackknife interval is centred on the bias-corrected value."""
    from_counts: Callable[[FloatArray], FloatArray] | None = None
    """(..., K, K + 2) counts, see `classification.group_counts` -> (...) values; None for those computed below."""


STATISTICS: dict[str, Statistic] = {
    "accuracy": Statistic("accuracy", "all", low=0, proportion=True),
    "balanced_accuracy": Statistic("balanced accuracy (mean recall of the gold labels)", "all", low=0),
    "tpr": Statistic("sensitivity (TPR)", "all", "positive", low=0, proportion=True),
    "tnr": Statistic("specificity (TNR)", "all", "positive", low=0, proportion=True),
    "ppv": Statistic("positive predictive value (PPV)", "read", "positive", low=0, proportion=True),
    "npv": Statistic("negative predictive value (NPV)", "read", "positive", low=0, proportion=True),
    "f1_positive": Statistic("F1 of the positive label", "all", "positive", low=0),
    "macro_f1": Statistic("macro-F1", "all", low=0),
    "weighted_f1": Statistic("weighted F1", "all", low=0),
    "mcc": Statistic("Matthews correlation", "all"),
    "accuracy_on_schema": Statistic("exact agreement", low=0, proportion=True),
    "within_one": Statistic("agreement within one point", needs="ordered", low=0, proportion=True),
    "kappa": Statistic("Cohen's kappa"),
    "kappa_linear": Statistic("Cohen's kappa, linear weights", needs="ordered"),
    "kappa_quadratic": Statistic("Cohen's kappa, quadratic weights", needs="ordered"),
    "gwet_ac1": Statistic("Gwet's AC1"),
    # Gold varies less within a handful of groups than among all, and AC2 with it: it comes out too high.
    "gwet_ac2": Statistic("Gwet's AC2, quadratic weights", needs="ordered", low=-np.inf, biased=True),
    "alpha_nominal": Statistic("Krippendorff's alpha, nominal", low=-np.inf),
    "alpha_ordinal": Statistic("Krippendorff's alpha, ordinal", needs="ordered", low=-np.inf),
    "alpha_interval": Statistic("Krippendorff's alpha, interval", needs="ordered", low=-np.inf),
    "pearson": Statistic("Pearson's r", needs="ordered"),
    "spearman": Statistic("Spearman's rho", needs="ordered"),
    "kendall_tau_b": Statistic("Kendall's tau-b", needs="ordered"),
    "icc_1_1": Statistic("ICC(1,1)", needs="ordered", low=-np.inf),
    "icc_2_1": Statistic("ICC(2,1)", needs="ordered", low=-np.inf),
    "icc_3_1": Statistic("ICC(3,1)", needs="ordered", low=-np.inf),
}


@dataclass(frozen=True, slots=True)
class Icc:
    """Intraclass correlations of single ratings, in Shrout & Fleiss's names; nan where undefined."""

    icc_1_1: float
    """One-way random: each case may have had other raters."""
    icc_2_1: float
    """Two-way random, absolute agreement: a rater who is always one point higher loses."""
    icc_3_1: float
    """Two-way mixed, consistency: a constant shift of a rater costs nothing."""
    n_cases: int
    n_raters: int


def agreement_statistics(outcomes: Outcomes) -> dict[str, float]:
    """Every statistic of `STATISTICS` that the task has, by name, in its order; nan where undefined.

    By scikit-learn, SciPy and `krippendorff` where they have the estimator. Raises DataError on zero rows.
    """
    n_labels = len(outcomes.labels)
    statistics = classification_metrics(outcomes)
    statistics |= _of_all_rows(outcomes.gold, np.minimum(outcomes.predicted, n_labels), outcomes.positive)
    gold, answer = outcomes.gold[outcomes.parsed], outcomes.predicted[outcomes.parsed]
    ratings = np.stack([gold, answer], axis=1)
    statistics["kappa"] = cohen_kappa(gold, answer, n_labels)
    statistics["gwet_ac1"] = gwet_ac(ratings, n_labels)
    statistics["alpha_nominal"] = krippendorff_alpha(ratings, n_labels)
    if outcomes.ordered:
        statistics |= _of_ordered_labels(gold, answer, n_labels)
    available = available_statistics(outcomes)
    added = _added(group_counts(outcomes).sum(0), available)
    statistics |= {name: float(value) for name, value in added.items()}
    return {name: statistics[name] for name in available}


def available_statistics(outcomes: Outcomes) -> list[str]:
    """The names of `STATISTICS` that the task has, in order."""
    return _available(outcomes.positive is not None, outcomes.ordered)


def _available(has_positive: bool, ordered: bool) -> list[str]:
    has = {"": True, "positive": has_positive, "ordered": ordered}
    return [name for name, statistic in STATISTICS.items() if has[statistic.needs]]


def _of_all_rows(gold: IntArray, answer: IntArray, positive: int | None) -> dict[str, float]:
    """Of statistics over all rows, those that `classification_metrics` lacks. answer: (n,) codes 0..K, K unreadable."""
    from sklearn.metrics import matthews_corrcoef, precision_score, recall_score

    values = {"balanced_accuracy": float(recall_score(gold, answer, labels=np.unique(gold), average="macro"))}
    if positive is not None:
        recalls = recall_score(gold, answer, labels=[positive, 1 - positive], average=None, zero_division=np.nan)
        values |= {"tpr": float(recalls[0]), "tnr": float(recalls[1])}
        precisions = precision_score(gold, answer, labels=[positive, 1 - positive], average=None, zero_division=np.nan)
        values |= {"ppv": float(precisions[0]), "npv": float(precisions[1])}
    varies = np.ptp(gold) and np.ptp(answer)
    values["mcc"] = float(matthews_corrcoef(gold, answer)) if varies else float("nan")
    return values


def _of_ordered_labels(gold: IntArray, answer: IntArray, n_labels: int) -> dict[str, float]:
    """The statistics that take labels as positions, over rows with a verdict."""
    from scipy.stats import kendalltau, spearmanr

    ratings = np.stack([gold, answer], axis=1)
    varies = len(gold) and np.ptp(gold) and np.ptp(answer)
    correlations = icc(ratings.astype(np.float64))
    return {
        "within_one": float(np.mean(np.abs(gold - answer) <= 1)) if len(gold) else float("nan"),
        "kappa_linear": cohen_kappa(gold, answer, n_labels, "linear"),
        "kappa_quadratic": cohen_kappa(gold, answer, n_labels, "quadratic"),
        "gwet_ac2": gwet_ac(ratings, n_labels, "quadratic"),
        "alpha_ordinal": krippendorff_alpha(ratings, n_labels, "ordinal"),
        "alpha_interval": krippendorff_alpha(ratings, n_labels, "interval"),
        "spearman": float(spearmanr(gold, answer).statistic) if varies else float("nan"),
        "kendall_tau_b": float(kendalltau(gold, answer).statistic) if varies else float("nan"),
        "icc_1_1": correlations.icc_1_1,
        "icc_2_1": correlations.icc_2_1,
        "icc_3_1": correlations.icc_3_1,
    }


def statistics_from_counts(
    counts: FloatArray, *, positive: int | None = None, ordered: bool = False, names: Sequence[str] | None = None
) -> dict[str, FloatArray]:
    """The numbers of `agreement_statistics` for many tables at once.

    counts: (..., K, K + 2) as `classification.group_counts` lays them out; entries may be any whole weights >= 0.
    names: those wanted, in this order, and one that the task lacks is left out; None for all.
    Returns (...) per statistic; nan where undefined.
    """
    counts = np.asarray(counts, dtype=np.float64)
    n_labels = counts.shape[-2]
    table = counts[..., :n_labels]
    available = _available(positive is not None, ordered)
    wanted = list(available) if names is None else [name for name in names if name in available]
    statistics: dict[str, FloatArray] = _added(counts, wanted)
    equal = _agreement_weights(n_labels, "identity")
    of_table: dict[str, Callable[[], FloatArray]] = {
        "kappa": lambda: _kappa_from_table(table, equal),
        "gwet_ac1": lambda: _gwet_from_table(table, equal),
        "alpha_nominal": lambda: _alpha_from_table(table, "nominal"),
        "kappa_quadratic": lambda: _kappa_from_table(table, _agreement_weights(n_labels, "quadratic")),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics |= {name: of_table[name]() for name in wanted if name in of_table}
        if not statistics.keys() >= set(wanted):
            statistics |= metrics_from_counts(counts, positive=positive, ordered=ordered)
            statistics |= _all_rows_from_counts(counts, positive)
        if not statistics.keys() >= set(wanted):
            statistics |= _ordered_from_table(table)
    return {name: statistics[name] for name in wanted}


def _added(counts: FloatArray, names: Sequence[str]) -> dict[str, FloatArray]:
    """Of these statistics, those that carry their own function."""
    functions = {name: STATISTICS[name].from_counts for name in names}
    return {name: np.asarray(function(counts)) for name, function in functions.items() if function is not None}


def _all_rows_from_counts(counts: FloatArray, positive: int | None) -> dict[str, FloatArray]:
    n_labels = counts.shape[-2]
    hits = np.diagonal(counts[..., :n_labels], axis1=-2, axis2=-1)
    support, given = counts.sum(-1), counts[..., :n_labels].sum(-2)
    n, unread = support.sum(-1), counts[..., n_labels:].sum((-2, -1))
    recall = hits / support
    statistics = {"balanced_accuracy": np.where(support > 0, recall, 0.0).sum(-1) / (support > 0).sum(-1)}
    if positive is not None:
        statistics |= {"tpr": recall[..., positive], "tnr": recall[..., 1 - positive]}
        precision = hits / given
        statistics |= {"ppv": precision[..., positive], "npv": precision[..., 1 - positive]}
    spread_gold = n**2 - (support**2).sum(-1)
    spread_said = n**2 - (given**2).sum(-1) - unread**2
    scale = np.sqrt(spread_gold * spread_said)
    statistics["mcc"] = _ratio(hits.sum(-1) * n - (support * given).sum(-1), scale)
    return statistics


def _ordered_from_table(table: FloatArray) -> dict[str, FloatArray]:
    n_labels = table.shape[-1]
    n = table.sum((-2, -1))
    gap = np.abs(np.subtract.outer(np.arange(n_labels), np.arange(n_labels)))
    return {
        "within_one": (table * (gap <= 1)).sum((-2, -1)) / n,
        "kappa_linear": _kappa_from_table(table, _agreement_weights(n_labels, "linear")),
        "kappa_quadratic": _kappa_from_table(table, _agreement_weights(n_labels, "quadratic")),
        "gwet_ac2": _gwet_from_table(table, _agreement_weights(n_labels, "quadratic")),
        "alpha_ordinal": _alpha_from_table(table, "ordinal"),
        "alpha_interval": _alpha_from_table(table, "interval"),
        "spearman": _spearman_from_table(table),
        "kendall_tau_b": _kendall_from_table(table),
        **_icc_from_table(table),
    }


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, nan where the denominator is not above zero."""
    positive = denominator > 0
    return np.asarray(np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan))


def _agreement_weights(n_labels: int, weights: Weights) -> FloatArray:
    """(K, K): 1 for equal labels, falling to 0 for the ends of the scale (`identity`: 0 for all that differ)."""
    if weights == "identity":
        return np.eye(n_labels)
    gap = np.abs(np.subtract.outer(np.arange(n_labels), np.arange(n_labels))) / max(n_labels - 1, 1)
    return np.asarray(1.0 - gap ** (1 if weights == "linear" else 2))


def _kappa_from_table(table: FloatArray, weights: FloatArray) -> FloatArray:
    n = table.sum((-2, -1))
    expected = np.einsum("...i,...j,ij->...", table.sum(-1), table.sum(-2), 1 - weights)
    observed = np.einsum("...ij,ij->...", table, 1 - weights)
    return 1 - _ratio(observed * n, expected)


def _gwet_from_table(table: FloatArray, weights: FloatArray) -> FloatArray:
    n = table.sum((-2, -1))
    share = (table.sum(-1) + table.sum(-2)) / (2 * n[..., None])
    agreed = np.einsum("...ij,ij->...", table, weights) / n
    return _gwet(agreed, share, weights)


def _gwet(agreed: FloatArray, share: FloatArray, weights: FloatArray) -> FloatArray:
    """(agreed - chance) / (1 - chance); share: (..., K) of all ratings that each label has."""
    n_labels = share.shape[-1]
    if n_labels < 2:
        return np.full_like(agreed, np.nan)
    chance = weights.sum() / (n_labels * (n_labels - 1)) * (share * (1 - share)).sum(-1)
    return np.asarray((agreed - chance) / (1 - chance))


def _alpha_from_table(table: FloatArray, scale: Scale) -> FloatArray:
    margin = table.sum(-1) + table.sum(-2)
    n = margin.sum(-1)
    if scale == "nominal":
        distance = np.broadcast_to(1.0 - np.eye(table.shape[-1]), table.shape)
    else:
        # The ordinal distance of two labels is the distance of their mid-ranks.
        place = _mid_ranks(margin) if scale == "ordinal" else np.arange(table.shape[-1], dtype=np.float64)
        distance = (place[..., :, None] - place[..., None, :]) ** 2
    observed = 2 * (table * distance).sum((-2, -1))
    expected = np.einsum("...i,...j,...ij->...", margin, margin, distance)
    return 1 - _ratio((n - 1) * observed, expected)


def _mid_ranks(margin: FloatArray) -> FloatArray:
    """(..., K) ranks of labels with these counts, ties at their middle, around a mean of exactly zero."""
    return np.asarray(np.cumsum(margin, axis=-1) - (margin + margin.sum(-1, keepdims=True)) / 2)


def _spearman_from_table(table: FloatArray) -> FloatArray:
    rows, columns = table.sum(-1), table.sum(-2)
    x, y = _mid_ranks(rows), _mid_ranks(columns)
    scale = np.sqrt((rows * x**2).sum(-1) * (columns * y**2).sum(-1))
    return _ratio(np.einsum("...ij,...i,...j->...", table, x, y), scale)


def _kendall_from_table(table: FloatArray) -> FloatArray:
    n = table.sum((-2, -1))
    # below[i, j]: rows with a higher gold label than i, by what was said.
    below = np.cumsum(table[..., ::-1, :], axis=-2)[..., ::-1, :] - table
    lower = np.cumsum(below, axis=-1) - below
    higher = below.sum(-1, keepdims=True) - lower - below
    concordance = (table * (higher - lower)).sum((-2, -1))
    scale = np.sqrt((n**2 - (table.sum(-1) ** 2).sum(-1)) * (n**2 - (table.sum(-2) ** 2).sum(-1)))
    return _ratio(2 * concordance, scale)


def _icc_from_table(table: FloatArray) -> dict[str, FloatArray]:
    """The ICCs of two raters: positions of gold and verdict."""
    position = np.arange(table.shape[-1], dtype=np.float64)
    n = table.sum((-2, -1))
    total, gap = np.add.outer(position, position), np.subtract.outer(position, position)
    sums = {
        name: np.einsum("...ij,ij->...", table, values)
        for name, values in {"t": total, "tt": total**2, "g": gap, "gg": gap**2}.items()
    }
    # All scaled by 2n, so that whole counts stay whole and a case without variance gives an exact zero.
    between = n * sums["tt"] - sums["t"] ** 2
    within = n * sums["gg"]
    raters = sums["g"] ** 2
    return _icc_from_squares(between, within, raters, n, 2)


def _icc_from_squares(
    between: FloatArray, within: FloatArray, raters: FloatArray, n: FloatArray, k: int
) -> dict[str, FloatArray]:
    """ICCs from sums of squares between cases, within cases and between raters (one common scale for all three)."""
    n = np.where(n >= 2, n, np.nan)
    cases_ms, within_ms, raters_ms = between / (n - 1), within / (n * (k - 1)), raters / (k - 1)
    error_ms = (within - raters) / ((n - 1) * (k - 1))
    return {
        "icc_1_1": _ratio(cases_ms - within_ms, cases_ms + (k - 1) * within_ms),
        "icc_2_1": _ratio(cases_ms - error_ms, cases_ms + (k - 1) * error_ms + k * (raters_ms - error_ms) / n),
        "icc_3_1": _ratio(cases_ms - error_ms, cases_ms + (k - 1) * error_ms),
    }


def statistic_n(outcomes: Outcomes, name: str) -> int:
    """The number of rows behind a statistic: for `tpr` and `tnr` those with that gold label, for `ppv` and `npv` those
    with that verdict."""
    return int(_rows_behind(outcomes, name).sum())


def _rows_behind(outcomes: Outcomes, name: str) -> NDArray[np.bool_]:
    """(n,) which rows a statistic is computed over."""
    if name in ("tpr", "tnr", "ppv", "npv") and outcomes.positive is not None:
        label = outcomes.positive if name in ("tpr", "ppv") else 1 - outcomes.positive
        return np.asarray((outcomes.gold if name in ("tpr", "tnr") else outcomes.predicted) == label)
    return outcomes.parsed if STATISTICS[name].rows == "read" else np.ones(len(outcomes.gold), dtype=bool)


def agreement_estimates(
    outcomes: Outcomes,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
    method: IntervalMethod = "jackknife",
) -> dict[str, Estimate]:
    """`agreement_statistics` with an interval each. `rng` in the same state draws the same for each judge.

    Shares of rows get Wilson's interval with a design effect. For the others, `jackknife` covers best where groups are
    few, and falls back on the expanded bootstrap where a group alone decides whether the statistic is defined; the
    bootstraps (`percentile`, `expanded`, `bca`) are there to be compared with.
    """
    values = agreement_statistics(outcomes)
    return estimates_of(outcomes, values, level=level, n_resamples=n_resamples, rng=rng, method=method)


def estimates_of(
    outcomes: Outcomes,
    values: Mapping[str, float],
    *,
    level: float,
    n_resamples: int,
    rng: np.random.Generator,
    method: IntervalMethod = "jackknife",
) -> dict[str, Estimate]:
    """`agreement_estimates` for these statistics of `outcomes`, by name."""
    counts = group_counts(outcomes)
    counts = counts[counts.sum((1, 2)) > 0]
    statistics = partial(statistics_from_counts, positive=outcomes.positive, ordered=outcomes.ordered)
    intervals: dict[str, Interval] = {}
    if method == "jackknife" and len(counts) > 1:
        for name, without_one in leave_one_out(counts, statistics).items():
            if name in values:
                statistic = STATISTICS[name]
                ends = jackknife_interval(values[name], without_one, level, statistic.low, corrected=statistic.biased)
                intervals[name] = Interval(*ends, JACKKNIFE)
    shares = {name for name in values if STATISTICS[name].proportion}
    lacking = [n for n, v in values.items() if n not in shares and not np.isnan(v) and not _has_ends(intervals.get(n))]
    if lacking:
        bootstrap = "expanded" if method == "jackknife" else method
        intervals |= bootstrap_sums(counts, statistics, n_resamples=n_resamples, rng=rng, level=level, method=bootstrap)
    nothing = Interval(np.nan, np.nan, "")
    return {
        name: share_estimate(outcomes, name, level=level)
        if name in shares
        else _estimate(outcomes, name, value, nothing if np.isnan(value) else intervals[name])
        for name, value in values.items()
    }


def _has_ends(interval: Interval | None) -> bool:
    return interval is not None and not np.isnan(interval.low)


def _estimate(outcomes: Outcomes, name: str, value: float, interval: Interval) -> Estimate:
    return Estimate(value, interval.low, interval.high, statistic_n(outcomes, name), interval.method)


def share_estimate(outcomes: Outcomes, name: str, *, level: float) -> Estimate:
    """A statistic that is a share of rows, with Wilson's interval and the groups' design effect."""
    rows = _rows_behind(outcomes, name)
    hits = np.abs(outcomes.gold - outcomes.predicted) <= 1 if name == "within_one" else outcomes.correct
    return clustered_wilson(hits[rows], outcomes.groups[rows], level=level)


def cohen_kappa(a: IntArray, b: IntArray, n_labels: int, weights: Weights = "identity") -> float:
    """Cohen's kappa of two raters, by scikit-learn.

    a, b: (n,) codes 0..n_labels-1, `MISSING` where a rater was silent (row left out).
    Returns a value <= 1; 0 is chance agreement. nan if both gave one and the same label throughout, or without a row.
    Source: Cohen (1960), doi:10.1177/001316446002000104; weighted: Cohen (1968), doi:10.1037/h0026256.
    """
    from sklearn.metrics import cohen_kappa_score

    a, b = np.asarray(a), np.asarray(b)
    both = (a != MISSING) & (b != MISSING)
    a, b = a[both], b[both]
    if not len(a) or (np.ptp(a) == 0 and np.array_equal(a, b)):
        return float("nan")
    kind = None if weights == "identity" else weights
    return float(cohen_kappa_score(a, b, labels=list(range(n_labels)), weights=kind))


def gwet_ac(ratings: IntArray, n_labels: int, weights: Weights = "identity") -> float:
    """Gwet's agreement coefficient of several raters with gaps: AC1 with identity weights, AC2 with others.

    ratings: (n_cases, n_raters) codes 0..n_labels-1, `MISSING` for a gap. nan if no case has two ratings.
    All labels of the scale count, whether or not they occur: chance agreement is what it is on this scale.
    Source: Gwet (2008), doi:10.1348/000711006X126600; AC2 and gaps: Gwet (2014), Handbook of Inter-Rater Reliability,
    4th ed., ch. 4 and 5.
    """
    counts = _rating_counts(ratings, n_labels)
    n_ratings = counts.sum(1)
    counts, n_ratings = counts[n_ratings > 0], n_ratings[n_ratings > 0]
    several = n_ratings >= 2
    if not several.any():
        return float("nan")
    matrix = _agreement_weights(n_labels, weights)
    pairs, m = counts[several], n_ratings[several]
    agreed = ((pairs * (pairs @ matrix - 1)).sum(1) / (m * (m - 1))).mean()
    share = (counts / n_ratings[:, None]).mean(0)
    return float(_gwet(np.asarray(agreed), share, matrix))


def krippendorff_alpha(ratings: IntArray, n_labels: int, scale: Scale = "nominal") -> float:
    """Krippendorff's alpha of several raters with gaps, by the package `krippendorff`.

    ratings: as in `gwet_ac`; ordinal and interval distances are those of positions 0..n_labels-1.
    nan if no case has two ratings or all pairable ratings are one label.
    Source: Krippendorff (2019), Content Analysis, 4th ed., ch. 12.
    """
    import krippendorff

    counts = _rating_counts(ratings, n_labels)
    counts = counts[counts.sum(1) >= 2]  # a case with one rating pairs with nothing
    if (counts.sum(0) > 0).sum() < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts.astype(np.int64), level_of_measurement=scale))


def _rating_counts(ratings: IntArray, n_labels: int) -> FloatArray:
    """(n_cases, K): how many raters gave each label to each case."""
    table = np.asarray(ratings)
    return np.stack([(table == code).sum(1) for code in range(n_labels)], axis=1).astype(np.float64)


def icc(ratings: FloatArray) -> Icc:
    """ICC(1,1), ICC(2,1) and ICC(3,1) of a complete table. ratings: (n_cases, n_raters); rows with nan are left out.

    nan with fewer than two cases or raters, or where no rating varies.
    Source: Shrout & Fleiss (1979), doi:10.1037/0033-2909.86.2.420.
    """
    table = np.asarray(ratings, dtype=np.float64)
    table = table[~np.isnan(table).any(1)]
    n, k = table.shape
    if n < 2 or k < 2 or np.ptp(table) == 0:
        return Icc(np.nan, np.nan, np.nan, n, k)
    mean = table.mean()
    between = k * ((table.mean(1) - mean) ** 2).sum()
    within = ((table - table.mean(1, keepdims=True)) ** 2).sum()
    raters = n * ((table.mean(0) - mean) ** 2).sum()
    forms = _icc_from_squares(between, within, raters, np.asarray(float(n)), k)
    return Icc(float(forms["icc_1_1"]), float(forms["icc_2_1"]), float(forms["icc_3_1"]), n_cases=n, n_raters=k)
