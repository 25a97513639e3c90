"""Tests that count groups of rows, not rows: what `metrics.claims` decides by.

Rows of one question, variant or patient resemble each other, and a test that takes them as independent rejects too
often. Each test here changes or averages whole groups. Where every row is its own group they are the textbook tests:
sign flips are McNemar's, and the comparison with chance is the exact binomial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

EXACT_BELOW = 25
"""Groups that differ below which a test of sign flips is exact; from there on it is mid-p."""
N_FLIPS = 9999
SIGN_FLIPS = "sign flips of groups"
GROUP_T = "t of group sums"
_CHUNK_ENTRIES = 400_000


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
    if spread <= 1e-18 * max(total**2, 1e-300):
        p = 1.0 if abs(total) < 1e-9 else 0.0
    else:
        p = float(2 * t.sf(abs(total) / spread**0.5, n_groups - 1))
    return GroupTest(max(p, sign_test_floor(n_groups)), n_groups, GROUP_T)


def accuracy_against_chance(correct: ArrayLike, groups: ArrayLike, chance: float) -> GroupTest:
    """Whether the share of right answers is `chance`: exact binomial, with groups of several rows also t over groups.

    correct: (n,) bool. With groups p is the larger of the two: a judge must differ from guessing by both.
    """
    from scipy.stats import binomtest

    right = np.asarray(correct, dtype=np.float64)
    if not len(right):
        return GroupTest(float("nan"), 0, "exact binomial")
    apart = float(binomtest(int(right.sum()), len(right), chance).pvalue)
    by_groups = mean_is_zero(right - chance, groups)
    if by_groups.n_groups == len(right):
        return GroupTest(apart, len(right), "exact binomial")
    return GroupTest(max(apart, by_groups.p), by_groups.n_groups, f"exact binomial and {GROUP_T}")


def miscalibration(bins: ArrayLike, gap: ArrayLike, groups: ArrayLike, *, rng: np.random.Generator) -> GroupTest:
    """Whether being right differs from the stated confidence in any bin, by sign flips of whole groups.

    bins: (n,) codes; gap: (n,) right (0 or 1) less confidence. The statistic is ECE, the sum over bins of the distances
    between right and confidence; each draw turns over the signs of all gaps of a group at once.
    """
    code = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups, n_bins = int(code.max()) + 1, int(np.max(bins)) + 1
    sums = np.zeros((n_groups, n_bins))
    np.add.at(sums, (code, np.asarray(bins)), np.asarray(gap, dtype=np.float64))
    seen = float(np.abs(sums.sum(0)).sum())
    as_far = 0
    step = max(1, _CHUNK_ENTRIES // n_groups)
    for start in range(0, N_FLIPS, step):
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(min(step, N_FLIPS - start), n_groups))
        as_far += int((np.abs(signs @ sums).sum(1) >= seen - 1e-12).sum())
    p = (as_far + 1) / (N_FLIPS + 1)
    return GroupTest(max(p, sign_test_floor(n_groups)), n_groups, SIGN_FLIPS)


def contrast_is_zero(values: ArrayLike, is_first: ArrayLike, groups: ArrayLike) -> GroupTest:
    """Whether two kinds of rows have the same mean, by Student's t over groups; groups may hold rows of one or both.

    values: (n,) numbers; is_first: (n,) bool. Groups that carry the test: those that hold rows of the rarer kind, and
    its degrees of freedom are one less, because that kind's rows are what the difference mostly depends on.
    nan where a kind has no row or fewer than two groups carry it.
    """
    x, first = np.asarray(values, dtype=np.float64), np.asarray(is_first, dtype=bool)
    code = np.asarray(groups)
    carried = min(len(np.unique(code[first])), len(np.unique(code[~first])))
    if carried < 2:
        return GroupTest(float("nan"), carried, GROUP_T)
    # Around the common mean, which is what both kinds have under the hypothesis.
    pull = (x - x.mean()) * np.where(first, 1 / first.sum(), -1 / (~first).sum())
    return _t_over_groups(_group_sums(pull, code), carried)


def _group_sums(values: ArrayLike, groups: ArrayLike) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return np.zeros(0)
    code = np.unique(np.asarray(groups), return_inverse=True)[1]
    return np.bincount(code, weights=x).astype(np.float64)
