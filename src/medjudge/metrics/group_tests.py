"""Tests that count groups of rows, not rows: what `metrics.claims` decides by.

Rows of one question, variant or patient resemble each other, and a test that takes them as independent rejects too
often. Each test here changes or averages whole groups. Where every row is its own group they are the textbook tests:
sign flips are McNemar's, and the comparison with chance is the exact binomial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.metrics.exchange import FAR, FIRST_LOOK, intraclass_correlation

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EXACT_BELOW = 25
"""Groups that differ below which a test of sign flips is exact; from there on it is mid-p."""
N_FLIPS = 9999
SIGN_FLIPS = "sign flips of groups"
GROUP_T = "t of group sums"
POISSON_BINOMIAL = "exact Poisson binomial"
_CHUNK_ENTRIES = 400_000
_GROUPS_TO_TELL = 10
"""Groups with a miss, and with a hit, from which the correlation of rows is estimated."""
_MAX_DRAWN = 200_000_000
_MIN_DRAWS = 1999
_PROBABILITY_STEPS = 400
_WIDTH = 15
"""Standard deviations, and then successes, to either side within which a number of successes is looked for."""


@dataclass(frozen=True, slots=True)
class GroupTest:
    """A two-sided test and the groups that it rests on."""

    p: float
    """In [0, 1]; nan where there is nothing to test."""
    n_groups: int
    """Groups that carry the test: no p is below that of a sign test over so many, 2^(1 - n_groups)."""
    method: str


def sign_test_floor(n_groups: int) -> float:
    """The p of a two-sided sign test in which all groups agree, 2^(1 - G), at most 1: no test here goes below it."""
    return min(1.0, 2.0 ** (1 - n_groups))


def sign_flips(values: ArrayLike, groups: ArrayLike) -> GroupTest:
    """Whether whole numbers have a mean of zero: the sign of each group's sum is turned over, in all 2^G ways.

    values: (n,) whole numbers, such as right by the first judge less right by the second; groups: (n,) codes.
    The distribution of the sum is computed exactly, by convolution; groups whose sum is 0 change nothing. Below 25
    groups that differ p is exact, from there on mid-p (Fagerland et al. 2013, doi:10.1186/1471-2288-13-91). With a row
    per group it is McNemar's test. nan without a row.
    """
    sums = np.rint(_group_sums(values, groups)).astype(np.int64)
    if not len(sums):
        return GroupTest(float("nan"), 0, SIGN_FLIPS)
    moved = np.abs(sums[sums != 0])
    seen, total, n_moved = abs(int(sums.sum())), int(moved.sum()), len(moved)
    if seen == 0:
        return GroupTest(1.0, n_moved, SIGN_FLIPS)
    distance = np.abs(2 * np.arange(total + 1) - total)
    chance = _subset_sums(moved)
    beyond, equal = float(chance[distance > seen].sum()), float(chance[distance == seen].sum())
    # Exact where few groups differ; mid-p above, because exact tests of a coarse sum are too cautious.
    p = beyond + equal if n_moved < EXACT_BELOW else beyond + equal / 2
    method = SIGN_FLIPS + (", exact" if n_moved < EXACT_BELOW else ", mid-p")
    return GroupTest(min(p, 1.0), n_moved, method)


def _subset_sums(sizes: IntArray) -> FloatArray:
    """(total + 1,) probability of each sum of those `sizes` that a fair coin keeps."""
    from scipy.signal import convolve
    from scipy.stats import binom

    chance = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        part = np.zeros(int(size * count) + 1)
        part[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chance = np.maximum(convolve(chance, part), 0.0)  # a Fourier transform leaves errors of either sign
    return chance


def mean_is_zero(values: ArrayLike, groups: ArrayLike) -> GroupTest:
    """Whether the mean of (n,) numbers is zero, by Student's t over the sums of groups.

    Group sums, not means: under the hypothesis their mean is zero whatever the groups' sizes, and unequal sizes make t
    cautious. p is never below that of a sign test over the groups. nan with fewer than two groups.
    """
    sums = _group_sums(values, groups)
    return _t_over_groups(sums, len(sums))


def _t_over_groups(sums: FloatArray, n_groups: int) -> GroupTest:
    """Student's t of `sums` with n_groups - 1 degrees of freedom."""
    from scipy.stats import t

    if n_groups < 2:
        return GroupTest(float("nan"), n_groups, GROUP_T)
    n = len(sums)
    total, spread = float(sums.sum()), float(((sums - sums.mean()) ** 2).sum() * n / (n - 1))
    # Sums that are all alike have no spread to divide by: the answer is certain either way.
    if spread <= 1e-18 * max(total**2, 1e-300):
        p = 1.0 if abs(total) < 1e-9 else 0.0
    else:
        p = float(2 * t.sf(abs(total) / spread**0.5, n_groups - 1))
    return GroupTest(max(p, sign_test_floor(n_groups)), n_groups, GROUP_T)


def accuracy_against_chance(correct: ArrayLike, groups: ArrayLike, chance: float) -> GroupTest:
    """Whether the share of right answers is `chance`: exact binomial, with groups of several rows also by groups.

    correct: (n,) bool. With groups p is the larger of the two: a judge must differ from guessing by both.
    """
    from scipy.stats import binomtest

    right = np.asarray(correct, dtype=np.float64)
    if not len(right):
        return GroupTest(float("nan"), 0, "exact binomial")
    apart = float(binomtest(int(right.sum()), len(right), chance).pvalue)
    by_groups = right_as_stated(right, np.full(len(right), chance), groups)
    if by_groups.n_groups == len(right):
        return GroupTest(apart, len(right), "exact binomial")
    return GroupTest(max(apart, by_groups.p), by_groups.n_groups, f"exact binomial and {GROUP_T}")


def right_as_stated(correct: ArrayLike, stated: ArrayLike, groups: ArrayLike) -> GroupTest:
    """Whether as many verdicts are right as their stated probabilities say.

    correct: (n,) bool; stated: (n,) in [0, 1]; groups: (n,) codes. With a row per group the number right has a known
    (Poisson binomial) distribution, and the test is exact. With larger groups p is the largest of three: that one,
    Student's t over the sums of groups, and t with the variance that the stated probabilities have by themselves and by
    the correlation of rows. Where misses are rare t alone is wrong: with none at all the sums do not vary, and 100
    verdicts of 99 % are all right in 37 % of sets.
    """
    right, probability = np.asarray(correct, dtype=np.float64), np.asarray(stated, dtype=np.float64)
    gap = right - probability
    by_groups = mean_is_zero(gap, groups)
    if not len(gap) or math.isnan(by_groups.p):
        return by_groups
    apart = _poisson_binomial_p(int(right.sum()), probability)
    if by_groups.n_groups == len(right):
        return GroupTest(apart, len(right), POISSON_BINOMIAL)
    from scipy.stats import t

    code = np.unique(np.asarray(groups), return_inverse=True)[1]
    spread = np.sqrt(probability * (1 - probability))
    correlation = _correlation(right, probability, code)
    variance = (1 - correlation) * float((spread**2).sum()) + correlation * float(
        (_group_sums(spread, code) ** 2).sum()
    )
    total = abs(float(gap.sum()))
    by_model = float(2 * t.sf(total / variance**0.5, by_groups.n_groups - 1)) if variance > 0 else float(total < 1e-9)
    return GroupTest(max(apart, by_groups.p, by_model), by_groups.n_groups, GROUP_T)


def _correlation(right: FloatArray, probability: FloatArray, code: IntArray) -> float:
    """Of two rows of a group in being right, in [0, 1]; 1, groups then counting as one row each, where misses or hits
    lie in too few groups to tell.
    """
    groups_with = [len(np.unique(code[right == outcome])) for outcome in (0, 1)]
    if min(groups_with) < _GROUPS_TO_TELL:
        return 1.0
    return intraclass_correlation(right - probability, code)


def _poisson_binomial_p(n_right: int, probability: FloatArray) -> float:
    """Two-sided p (twice the smaller tail) of so many successes in independent trials of these probabilities.

    From the characteristic function on as many points as the distribution has width. Trials of nearly the same
    probability are taken together. Source: Hong (2013), doi:10.1016/j.csda.2012.10.006.
    """
    # Equal steps of arcsin(sqrt(p)) are finest near 0 and 1, where p (1 - p) changes most.
    near = (np.arcsin(np.sqrt(probability)) * _PROBABILITY_STEPS).astype(np.int64)
    count = np.bincount(near).astype(np.float64)
    mean = np.bincount(near, weights=probability)[count > 0] / count[count > 0]
    count = count[count > 0]
    centre, spread = float(count @ mean), float(count @ (mean * (1 - mean))) ** 0.5
    first = max(0, int(centre - _WIDTH * spread) - _WIDTH)
    last = min(len(probability), int(centre + _WIDTH * spread) + _WIDTH)
    if not first <= n_right <= last:
        return 0.0
    width = last - first + 1
    turn = np.exp(2j * np.pi * np.arange(width) / width)
    transform = np.ones(width, dtype=np.complex128)
    for share, trials in zip(mean, count, strict=True):
        transform *= (1 - share + share * turn) ** trials
    chance = np.maximum(np.fft.fft(transform * turn ** (-float(first))).real / width, 0.0)
    place = n_right - first
    return min(1.0, 2 * float(min(chance[: place + 1].sum(), chance[place:].sum())))


def miscalibration(
    bins: ArrayLike, correct: ArrayLike, stated: ArrayLike, groups: ArrayLike, *, rng: np.random.Generator
) -> GroupTest:
    """Whether being right differs from the stated confidence in any bin.

    bins: (n,) codes; correct: (n,) bool; stated: (n,) confidences. The statistic is ECE, the sum over bins of the
    distances between right and confidence. p is the larger of two: by sign flips, each of which turns over all
    distances of a group at once, and by verdicts drawn from their own confidences, as alike within groups as the
    verdicts are. Sign flips alone are wrong where misses are rare, and draws where groups are few. Verdicts are drawn
    only where sign flips leave something to decide, at p below .2.
    """
    right, probability = np.asarray(correct, dtype=np.float64), np.asarray(stated, dtype=np.float64)
    code = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups, n_bins = int(code.max()) + 1, int(np.max(bins)) + 1
    sums = np.zeros((n_groups, n_bins))
    np.add.at(sums, (code, np.asarray(bins)), right - probability)
    seen = float(np.abs(sums.sum(0)).sum())
    as_far = n_flips = 0
    step = max(1, min(_CHUNK_ENTRIES // n_groups, FIRST_LOOK))
    while n_flips < N_FLIPS and (n_flips < FIRST_LOOK or as_far <= FAR * n_flips):
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(min(step, N_FLIPS - n_flips), n_groups))
        as_far += int((np.abs(signs @ sums).sum(1) >= seen - 1e-12).sum())
        n_flips += len(signs)
    p = max((as_far + 1) / (n_flips + 1), sign_test_floor(n_groups))
    if p < FAR:
        p = max(p, _drawn_calibrated(seen, np.asarray(bins), right, probability, code, rng))
    return GroupTest(p, n_groups, SIGN_FLIPS)


def _drawn_calibrated(
    seen: float,
    bins: IntArray,
    right: FloatArray,
    probability: FloatArray,
    code: IntArray,
    rng: np.random.Generator,
) -> float:
    """Share of calibrated judges whose ECE is `seen` or more.

    A verdict is drawn by its group's number or by one of its own, so that two of a group have the seen correlation.
    """
    n, n_groups = len(code), int(code.max()) + 1
    n_draws = int(np.clip(_MAX_DRAWN // n, _MIN_DRAWS, N_FLIPS))
    # Both rows of a pair take the group's number with probability share^2, which is the correlation.
    share = _correlation(right, probability, code) ** 0.5 if n_groups < n else 0.0
    in_bin = np.zeros((n, int(bins.max()) + 1))
    in_bin[np.arange(n), bins] = 1.0
    stated = probability @ in_bin
    as_far = n_drawn = 0
    step = max(1, _CHUNK_ENTRIES // n)
    while n_drawn < n_draws and (n_drawn < FIRST_LOOK or as_far <= FAR * n_drawn):
        size = min(step, n_draws - n_drawn)
        n_drawn += size
        number = rng.random((size, n))
        if share:
            number = np.where(rng.random((size, n)) < share, rng.random((size, n_groups))[:, code], number)
        as_far += int((np.abs((number < probability) @ in_bin - stated).sum(1) >= seen - 1e-9).sum())
    return (as_far + 1) / (n_drawn + 1)


def contrast_is_zero(values: ArrayLike, is_first: ArrayLike, groups: ArrayLike) -> GroupTest:
    """Whether two kinds of rows have the same mean, by Student's t over groups; groups may hold rows of one or both.

    values: (n,) numbers; is_first: (n,) bool. Groups that carry the test: those that hold rows of the rarer kind, and
    its degrees of freedom are one less, because that kind's rows are what the difference mostly depends on.
    p is the larger of two: with each group's own deviation, and with the variance of all rows, which a kind has that
    happens to be all alike. nan where a kind has no row or fewer than two groups carry it.
    """
    x, first = np.asarray(values, dtype=np.float64), np.asarray(is_first, dtype=bool)
    code = np.unique(np.asarray(groups), return_inverse=True)[1]
    carried = min(len(np.unique(code[first])), len(np.unique(code[~first])))
    if carried < 2:
        return GroupTest(float("nan"), carried, GROUP_T)
    from scipy.stats import t

    # Around the common mean, which is what both kinds have under the hypothesis.
    weight = np.where(first, 1 / first.sum(), -1 / (~first).sum())
    pull = (x - x.mean()) * weight
    own = _t_over_groups(_group_sums(pull, code), carried)
    apart, together = float((weight**2).sum()), float((_group_sums(weight, code) ** 2).sum())
    few = len(np.unique(code[x != 0])) < _GROUPS_TO_TELL
    correlation = 1.0 if few else intraclass_correlation(x, code)
    variance = float(x.var()) * max(apart, (1 - correlation) * apart + correlation * together)
    common = float(2 * t.sf(abs(float(pull.sum())) / variance**0.5, carried - 1)) if variance > 0 else 1.0
    return GroupTest(max(own.p, common), carried, GROUP_T)


def _group_sums(values: ArrayLike, groups: ArrayLike) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return np.zeros(0)
    code = np.unique(np.asarray(groups), return_inverse=True)[1]
    return np.bincount(code, weights=x).astype(np.float64)
