"""A judge by the models whose answers it judged: one accuracy over five generators hides five different judges.

Prevalence differs between generators, and F1, accuracy and kappa move with it. So each row shows prevalence, TPR and
TNR
(which do not move with it), MCC and AC1, with intervals; a test says whether the differences are more than chance; and
the variance across generators stands beside what sampling alone would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.classification import Outcomes
from medjudge.metrics.intervals import Estimate

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

GENERATOR_STATISTICS = ("accuracy", "tpr", "tnr", "mcc", "gwet_ac1", "f1_positive", "macro_f1")
"""Of `agreement.STATISTICS`; those that the task does not have are absent from a row."""


@dataclass(frozen=True, slots=True)
class GeneratorRow:
    """One generator's rows."""

    generator: str
    n: int
    n_groups: int
    n_unparsed: int
    prevalence: Estimate | None
    """Share of gold positive; None where the task has no positive label."""
    positive_rate: Estimate | None
    """Share that the judge calls positive, of all rows."""
    always_positive_f1: float
    """F1 of calling everything positive, 2p / (1 + p); nan where the task has no positive label."""
    statistics: dict[str, Estimate]
    """Name -> estimate, of `GENERATOR_STATISTICS`."""
    minimum_detectable: float
    """Smallest distance of accuracy from chance that n rows detect with 80 % power, as a proportion."""


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Whether a rate differs between generators by more than chance."""

    outcome: str
    """Which rate: `prevalence`, `accuracy`, `tpr`, `tnr`."""
    statistic: float
    df: int
    p: float
    method: str
    n: int
    rates: dict[str, float]
    variance: float
    """Variance of the rates across generators, (k - 1) in the denominator."""
    sampling_variance: float
    """What sampling alone would give: the mean of the rates' own sampling variances under one common rate."""

    @property
    def excess_sd(self) -> float:
        """Standard deviation across generators that sampling does not explain; 0 where it explains all."""
        return float(max(self.variance - self.sampling_variance, 0.0) ** 0.5)


@dataclass(frozen=True, slots=True)
class SelfPreference:
    """A judge's error on answers of its own family against its error on others'."""

    family: str
    n_own: int
    n_other: int
    positive_rate_error: Estimate
    """(share called positive - share gold positive) on own family, minus the same on the others."""
    false_positive_rate: Estimate
    """Share called positive among gold negatives, own family minus others: no prevalence in it."""


def generator_table(
    outcomes: Outcomes,
    generators: Sequence[str],
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> list[GeneratorRow]:
    """One row per generator, by name. generators: (n,) beside `outcomes.case_ids`; rows with "" are left out."""
    raise NotImplementedError


def heterogeneity(
    outcomes: Outcomes, generators: Sequence[str], *, n_resamples: int = 9999, rng: np.random.Generator
) -> list[Heterogeneity]:
    """The tests of `rate_heterogeneity` for prevalence, accuracy and, with a positive label, TPR and TNR.

    Empty with fewer than two generators.
    """
    raise NotImplementedError


def rate_heterogeneity(
    values: BoolArray,
    generators: Sequence[str],
    groups: IntArray,
    *,
    outcome: str = "",
    n_resamples: int = 9999,
    rng: np.random.Generator,
) -> Heterogeneity:
    """Whether the share of True differs between generators. values, generators, groups: (n,).

    Each group (question) answered once by every generator: Cochran's Q. Groups that several generators share, but not
    all: labels permuted within groups. Groups with one generator each: chi-square, or groups permuted where they hold
    several rows or an expected count is below 5. Raises DataError with fewer than two generators.
    Source: Cochran (1950), doi:10.2307/2332378; Cochran (1954), doi:10.2307/3001616 (the rule of 5).
    """
    raise NotImplementedError


def self_preference(
    outcomes: Outcomes,
    generators: Sequence[str],
    families: Mapping[str, str],
    judge_family: str,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> SelfPreference | None:
    """The contrast where judge and generator share a family; None where no generator does, or all do.

    families: generator -> family; a generator that it does not name takes no part. Two-label tasks only: raises
    DataError for others. Source: Panickssery, Bowman & Feng (2024), arXiv:2404.13076.
    """
    raise NotImplementedError
