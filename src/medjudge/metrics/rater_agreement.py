"""How far several experts agree: the usual coefficients, with gaps, each with an interval that counts groups.

All of them are functions of sums over cases, so that the same code serves all cases, those without one group, and
resamples. What a case adds: whether it has two ratings, its share of each label, the agreement of its pairs of ratings,
and its coincidences (Krippendorff's pairs of values, each divided by the case's number of ratings less one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.agreement_tables import (
    FloatArray,
    agreement_weights,
    alpha_from_table,
    gwet_from_shares,
    kappa_from_table,
)
from medjudge.metrics.intervals import (
    BOOTSTRAP,
    JACKKNIFE,
    WILSON,
    Estimate,
    bootstrap_sums,
    jackknife_interval,
    leave_one_out,
    wilson_interval,
)

IntArray = NDArray[np.int64]

MOST_RATERS = 8
"""Experts up to whose number pairs are shown: 28 of them."""
MOST_CELLS = 1000
"""Cells of the tables of all pairs, K x K each, up to which the mean of their kappas is computed: case by case they
would take gigabytes on scales of thirty points."""
COEFFICIENTS: dict[str, tuple[str, float]] = {
    "percent": ("pairs of ratings that are equal", 0.0),
    "cohen_kappa": ("Cohen's kappa, mean of the pairs of experts", -1.0),
    "fleiss_kappa": ("Fleiss' kappa", -1.0),
    "gwet_ac1": ("Gwet's AC1", -1.0),
    "gwet_ac2": ("Gwet's AC2, quadratic weights", -math.inf),
    "alpha_nominal": ("Krippendorff's alpha, nominal", -math.inf),
    "alpha_ordinal": ("Krippendorff's alpha, ordinal", -math.inf),
    "alpha_interval": ("Krippendorff's alpha, interval", -math.inf),
}
"""Name -> (title, lowest value); the highest is 1."""


@dataclass(frozen=True, slots=True)
class Ratings:
    """Every rating by itself: (n_ratings,) arrays of codes."""

    case: IntArray
    """0..n_cases-1."""
    rater: IntArray
    label: IntArray
    groups: IntArray
    """(n_cases,) the group of each case."""
    raters: tuple[str, ...]
    n_labels: int

    @property
    def counts(self) -> IntArray:
        """(n_cases, K): how many experts gave each label to each case."""
        counts = np.zeros((len(self.groups), self.n_labels), dtype=np.int64)
        np.add.at(counts, (self.case, self.label), 1)
        return counts

    def table(self) -> IntArray:
        """(n_cases, n_raters) codes, -1 for a gap."""
        table = np.full((len(self.groups), len(self.raters)), -1, dtype=np.int64)
        table[self.case, self.rater] = self.label
        return table


def rater_agreement(
    ratings: Ratings, *, ordered: bool, level: float, n_resamples: int, rng: np.random.Generator
) -> dict[str, Estimate]:
    """Every coefficient of `COEFFICIENTS` that the scale has, by name; nan where undefined.

    `percent`: the mean over cases with two ratings of the share of their pairs of ratings that are equal, in [0, 1].
    `cohen_kappa`: the unweighted mean over pairs of experts (Light 1971, doi:10.1037/h0031643), over pairs where it is
    defined; left out with more experts or labels than `MOST_CELLS` allows. `fleiss_kappa`: chance agreement from the
    labels' shares among all ratings (Fleiss 1971, doi:10.1037/h0031619; with gaps as Gwet 2014, ch. 2: shares are means
    over rated cases). `gwet_ac1`, `gwet_ac2`, `alpha_..`: as in `metrics.agreement`. All but `percent` are nan where
    only one label occurs (AC1 then is 1), all are nan where no case has two ratings.
    Intervals: jackknife over groups; where a group decides whether a coefficient is defined, a bootstrap; where all
    pairs agree or none does, Wilson's for `percent` with the number of groups, none for the others.
    """
    sums, names = _group_sums(ratings), _names(ordered, has_pairs=_has_pairs(ratings))
    statistics = partial(_coefficients, n_labels=ratings.n_labels, names=names)
    values = {name: float(value) for name, value in statistics(sums.sum(0)).items()}
    n = int((ratings.counts.sum(1) >= 2).sum())
    without = leave_one_out(sums, statistics) if len(sums) > 1 else {}
    ends: dict[str, tuple[float, float, str]] = {}
    for name, value in values.items():
        low, high = math.nan, math.nan
        if name in without:
            lowest = COEFFICIENTS[name][1]
            low, high = jackknife_interval(value, without[name], level, lowest, corrected=name == "gwet_ac2")
        if name == "percent" and value in (0.0, 1.0) and len(sums) > 1:
            low, high = wilson_interval(value * len(sums), len(sums), level=level)
            ends[name] = low, high, WILSON
            continue
        ends[name] = low, high, JACKKNIFE
    if lacking := [name for name, value in values.items() if math.isnan(ends[name][0]) and not math.isnan(value)]:
        drawn = bootstrap_sums(sums, statistics, n_resamples=n_resamples, rng=rng, level=level)
        ends |= {name: (drawn[name].low, drawn[name].high, BOOTSTRAP) for name in lacking}
    return {name: Estimate(value, ends[name][0], ends[name][1], n, ends[name][2]) for name, value in values.items()}


def _has_pairs(ratings: Ratings) -> bool:
    n = len(ratings.raters)
    return n >= 2 and n * (n - 1) // 2 * ratings.n_labels**2 <= MOST_CELLS


def _names(ordered: bool, *, has_pairs: bool) -> tuple[str, ...]:
    of_order = ("gwet_ac2", "alpha_ordinal", "alpha_interval")
    return tuple(
        name for name in COEFFICIENTS if (ordered or name not in of_order) and (name != "cohen_kappa" or has_pairs)
    )


def _group_sums(ratings: Ratings) -> FloatArray:
    """(n_groups, ..): what the rated cases of each group add; groups without a rating take no part."""
    counts = ratings.counts.astype(np.float64)
    n_labels, m = ratings.n_labels, counts.sum(1)
    several, rated = m >= 2, m >= 1
    pairs = np.where(several, m * (m - 1), 1.0)
    parts = [several[:, None].astype(np.float64), rated[:, None].astype(np.float64)]
    parts.append(counts / np.maximum(m, 1)[:, None])
    for weights in ("identity", "quadratic"):
        matrix = agreement_weights(n_labels, weights)
        # Less 1: a rating is not compared with itself.
        agreed = (counts * (counts @ matrix - 1)).sum(1) / pairs
        parts.append(np.where(several, agreed, 0.0)[:, None])
    coincidences = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(n_labels)
    coincidences /= np.maximum(m - 1, 1)[:, None, None]
    parts.append(coincidences.reshape(len(counts), -1))
    if _has_pairs(ratings):
        parts += [table.reshape(len(counts), -1) for table in _pair_tables(ratings)]
    per_case = np.concatenate(parts, axis=1)
    _, code = np.unique(ratings.groups[rated], return_inverse=True)
    sums = np.zeros((int(code.max()) + 1 if len(code) else 0, per_case.shape[1]))
    np.add.at(sums, code, per_case[rated])
    return sums


def _pair_tables(ratings: Ratings) -> list[FloatArray]:
    """Per pair of experts (n_cases, K, K): 1 at the labels that the two gave."""
    table = ratings.table()
    tables = []
    for a, b in combinations(range(len(ratings.raters)), 2):
        both = np.flatnonzero((table[:, a] >= 0) & (table[:, b] >= 0))
        one = np.zeros((len(table), ratings.n_labels, ratings.n_labels))
        one[both, table[both, a], table[both, b]] = 1.0
        tables.append(one)
    return tables


def _coefficients(sums: FloatArray, *, n_labels: int, names: Sequence[str]) -> dict[str, FloatArray]:
    """(...) values from (..., p) sums as `_group_sums` lays them out."""
    k = n_labels
    several, rated, shares = sums[..., 0], sums[..., 1], sums[..., 2 : 2 + k]
    equal, close = sums[..., 2 + k], sums[..., 3 + k]
    coincidences = sums[..., 4 + k : 4 + k + k * k].reshape(*sums.shape[:-1], k, k)
    tables = sums[..., 4 + k + k * k :]
    identity, quadratic = agreement_weights(k, "identity"), agreement_weights(k, "quadratic")
    with np.errstate(divide="ignore", invalid="ignore"):
        agreed, agreed_close, share = equal / several, close / several, shares / rated[..., None]
        expected = (share**2).sum(-1)
        # 1e-12: shares of one label alone add up to 1 but for rounding.
        fleiss = np.where(expected < 1 - 1e-12, (agreed - expected) / (1 - expected), np.nan)
        values = {
            "percent": agreed,
            "fleiss_kappa": fleiss,
            "gwet_ac1": gwet_from_shares(agreed, share, identity),
            "gwet_ac2": gwet_from_shares(agreed_close, share, quadratic),
            # Half of the coincidences is the table of two raters that has them: the same formula serves any number.
            **{
                f"alpha_{scale}": alpha_from_table(coincidences / 2, scale)
                for scale in ("nominal", "ordinal", "interval")
            },
        }
        if "cohen_kappa" in names:
            pairs = tables.reshape(*sums.shape[:-1], -1, k, k)
            kappas = kappa_from_table(pairs, identity)
            defined = ~np.isnan(kappas)
            values["cohen_kappa"] = np.where(defined, kappas, 0.0).sum(-1) / defined.sum(-1)
    return {name: np.asarray(np.where(several > 0, values[name], np.nan)) for name in names}
