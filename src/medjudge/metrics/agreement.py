"""Agreement between a judge and the experts, and among several raters: every coefficient that a reviewer may ask for.

For one judge against gold labels all statistics are functions of one table, gold by answer. `agreement_statistics`
computes them from the labels, by a library where one has the estimator; `statistics_from_counts` computes the same
numbers from many tables at once, which is what bootstrap and permutation need.

Two families, told apart in `STATISTICS`: measures of being right (accuracy, F1, MCC) take all rows, and an unreadable
answer is wrong; coefficients between two raters (kappa, AC, alpha, ICC, correlations) take the rows with a verdict,
because an unreadable answer has no place on a scale. `statistic_n` says how many rows stand behind each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.classification import Outcomes
from medjudge.metrics.intervals import Estimate

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Weights = Literal["identity", "linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]

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
    """The lowest value that it can take (-inf for ICC and alpha); the highest is 1."""
    proportion: bool = False
    """Whether it is a share of rows."""


STATISTICS: dict[str, Statistic] = {
    "accuracy": Statistic("accuracy", "all", low=0, proportion=True),
    "balanced_accuracy": Statistic("balanced accuracy (mean recall of the gold labels)", "all", low=0),
    "tpr": Statistic("sensitivity (TPR)", "all", "positive", low=0, proportion=True),
    "tnr": Statistic("specificity (TNR)", "all", "positive", low=0, proportion=True),
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
    "gwet_ac2": Statistic("Gwet's AC2, quadratic weights", needs="ordered"),
    "alpha_nominal": Statistic("Krippendorff's alpha, nominal"),
    "alpha_ordinal": Statistic("Krippendorff's alpha, ordinal", needs="ordered"),
    "alpha_interval": Statistic("Krippendorff's alpha, interval", needs="ordered"),
    "pearson": Statistic("Pearson's r", needs="ordered"),
    "spearman": Statistic("Spearman's rho", needs="ordered"),
    "kendall_tau_b": Statistic("Kendall's tau-b", needs="ordered"),
    "icc_1_1": Statistic("ICC(1,1)", needs="ordered"),
    "icc_2_1": Statistic("ICC(2,1)", needs="ordered"),
    "icc_3_1": Statistic("ICC(3,1)", needs="ordered"),
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
    raise NotImplementedError


def statistics_from_counts(
    counts: FloatArray, *, positive: int | None = None, ordered: bool = False
) -> dict[str, FloatArray]:
    """The numbers of `agreement_statistics` for many tables at once.

    counts: (..., K, K + 2) as `classification.group_counts` lays them out; entries may be any weights >= 0.
    Returns (...) per statistic; nan where undefined.
    """
    raise NotImplementedError


def statistic_n(outcomes: Outcomes, name: str) -> int:
    """The number of rows behind a statistic: for `tpr` and `tnr` those with that gold label."""
    raise NotImplementedError


def agreement_estimates(
    outcomes: Outcomes, *, level: float = 0.95, n_resamples: int = 1000, rng: np.random.Generator
) -> dict[str, Estimate]:
    """`agreement_statistics` with an interval each, from a bootstrap over groups. `rng` draws the same for each
    judge."""
    raise NotImplementedError


def cohen_kappa(a: IntArray, b: IntArray, n_labels: int, weights: Weights = "identity") -> float:
    """Cohen's kappa of two raters. a, b: (n,) codes 0..n_labels-1, `MISSING` where a rater was silent (row left out).

    Returns a value <= 1; 0 is chance agreement. nan if both gave one and the same label throughout, or without a row.
    Source: Cohen (1960), doi:10.1177/001316446002000104; weighted: Cohen (1968), doi:10.1037/h0026256.
    """
    raise NotImplementedError


def gwet_ac(ratings: IntArray, n_labels: int, weights: Weights = "identity") -> float:
    """Gwet's agreement coefficient of several raters with gaps: AC1 with identity weights, AC2 with others.

    ratings: (n_cases, n_raters) codes 0..n_labels-1, `MISSING` for a gap. nan if no case has two ratings.
    Source: Gwet (2008), doi:10.1348/000711006X126600; AC2: Gwet (2014), Handbook of Inter-Rater Reliability, ch. 4.
    """
    raise NotImplementedError


def krippendorff_alpha(ratings: IntArray, n_labels: int, scale: Scale = "nominal") -> float:
    """Krippendorff's alpha of several raters with gaps, by the package `krippendorff`.

    ratings: as in `gwet_ac`; ordinal and interval distances are those of positions 0..n_labels-1.
    nan if no case has two ratings or all pairable ratings are one label.
    Source: Krippendorff (2019), Content Analysis, 4th ed., ch. 12.
    """
    raise NotImplementedError


def icc(ratings: FloatArray) -> Icc:
    """ICC(1,1), ICC(2,1) and ICC(3,1) of a complete table. ratings: (n_cases, n_raters); rows with nan are left out.

    nan with fewer than two cases or raters, or where no rating varies.
    Source: Shrout & Fleiss (1979), doi:10.1037/0033-2909.86.2.420.
    """
    raise NotImplementedError
