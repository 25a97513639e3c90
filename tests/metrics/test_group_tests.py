"""Tests over groups: by hand, against libraries where rows stand alone, and their level on rows in groups."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, ttest_1samp, ttest_rel

from medjudge.metrics.comparison import mcnemar
from medjudge.metrics.group_tests import (
    POISSON_BINOMIAL,
    accuracy_against_chance,
    contrast_is_zero,
    mean_is_zero,
    miscalibration,
    right_as_stated,
    sign_flips,
    sign_test_floor,
)


def test_sign_flips_by_hand():
    # Sums of groups 3, 1, -1: of the eight signings 3+1+1 = 5 and 3+1-1, 3-1+1 = 3 and their mirrors are as far as 3.
    found = sign_flips([1, 1, 1, 1, -1], [0, 0, 0, 1, 2])
    assert (found.p, found.n_groups) == (pytest.approx(6 / 8), 3)
    # All five groups one way: two of 32.
    assert sign_flips([1] * 10, np.arange(10) % 5).p == pytest.approx(2 / 32)
    # A group whose rows cancel changes nothing, and no difference is no evidence.
    assert sign_flips([1, -1, 1], [0, 0, 1]).n_groups == 1
    assert sign_flips([1, -1, 1, -1], [0, 0, 1, 1]).p == 1
    assert math.isnan(sign_flips([], []).p)


@pytest.mark.parametrize("n_groups", [3, 7, 11])
def test_sign_flips_are_all_signings(n_groups):
    rng = np.random.default_rng(n_groups)
    values, groups = rng.integers(-1, 2, 60), rng.integers(0, n_groups, 60)
    sums = np.bincount(groups, weights=values, minlength=n_groups)
    signings = np.array(list(itertools.product((-1, 1), repeat=n_groups))) @ np.abs(sums)
    assert sign_flips(values, groups).p == pytest.approx(np.mean(np.abs(signings) >= abs(sums.sum())))


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 6), (9, 4), (30, 12), (400, 340)])
def test_sign_flips_of_single_rows_are_mcnemar(only_a, only_b):
    values = [1] * only_a + [-1] * only_b + [0] * 20
    assert sign_flips(values, np.arange(len(values))).p == pytest.approx(mcnemar(only_a, only_b).p)


def test_the_mean_of_groups_is_students_t_of_their_sums():
    values, groups = np.array([0.2, 0.4, -0.1, 0.3, 0.5, 0.1, 0.2, 0.6]), np.array([0, 0, 1, 1, 2, 3, 4, 5])
    sums = [0.6, 0.2, 0.5, 0.1, 0.2, 0.6]
    assert mean_is_zero(values, groups).p == pytest.approx(max(ttest_1samp(sums, 0).pvalue, 2**-5))
    assert mean_is_zero([1.0] * 6, np.arange(6) % 3).p == sign_test_floor(3) == 1 / 4  # no spread is no certainty
    assert math.isnan(mean_is_zero([1.0, 1.0], [0, 0]).p)


def test_against_chance():
    # 3 of 3 right at 1/2: both tails hold 1/8
    assert accuracy_against_chance([True] * 3, [0, 1, 2], 0.5).p == pytest.approx(0.25)
    alone = np.arange(200) < 56
    assert accuracy_against_chance(alone, np.arange(200), 0.25).p == binomtest(56, 200, 0.25).pvalue
    # Four groups of 50, right throughout or not at all: 150 of 200 is p < 1e-11 to the binomial, little to four groups.
    grouped = accuracy_against_chance(np.arange(200) < 150, np.arange(200) // 50, 0.5)
    assert grouped.p > 0.3
    assert math.isnan(accuracy_against_chance([], [], 0.5).p)


def test_a_contrast_within_groups_is_the_paired_t():
    rng = np.random.default_rng(0)
    own, other = rng.normal(0.3, 1, 12), rng.normal(0, 1, 12)
    found = contrast_is_zero(np.r_[own, other], np.arange(24) < 12, np.r_[np.arange(12), np.arange(12)])
    assert found.p == pytest.approx(ttest_rel(own, other).pvalue)
    assert found.n_groups == 12
    # Own rows in two groups alone: nothing to say, however many groups the others have.
    few = contrast_is_zero(
        np.r_[np.ones(20), rng.normal(0, 1, 80)], np.arange(100) < 20, np.r_[np.arange(20) % 2, 2:82]
    )
    assert (few.n_groups, few.p) == (2, pytest.approx(0.5, abs=0.5))
    assert few.p >= sign_test_floor(2)
    assert math.isnan(contrast_is_zero([1.0, 2.0], [True, True], [0, 1]).p)


def test_calibration_counts_groups():
    """Confidence .5 and .9 in groups that are right throughout or wrong throughout, on balance as stated: not off."""
    rng = np.random.default_rng(0)
    bins = np.repeat([0, 1], 200)
    right = np.r_[np.arange(200) < 100, np.arange(200) < 180]
    groups = np.r_[np.arange(200) // 20, 10 + np.arange(200) // 20]
    assert miscalibration(bins, right, np.where(bins == 0, 0.5, 0.85), groups, rng=rng).p > 0.3
    off = miscalibration(bins, right, np.where(bins == 0, 0.9, 0.6), np.arange(400), rng=rng)
    assert off.p == pytest.approx(1e-4)


def test_the_poisson_binomial_by_hand_and_against_the_binomial():
    # Right of probabilities .9, .8, .5: none .01, all .36; one .9*.2*.5 + .1*.8*.5 + .1*.2*.5 = .14, two .49.
    found = [right_as_stated(np.arange(3) < n, [0.9, 0.8, 0.5], [0, 1, 2]) for n in range(4)]
    assert [one.p for one in found] == pytest.approx([2 * 0.01, 2 * 0.15, 1, 2 * 0.36])  # two: .64 below, .85 above
    assert found[0].method == POISSON_BINOMIAL
    for n, n_right, share in ((100, 100, 0.99), (1000, 880, 0.9), (20_000, 12_100, 0.6)):
        tails = binom.cdf(n_right, n, share), binom.sf(n_right - 1, n, share)
        found_p = right_as_stated(np.arange(n) < n_right, np.full(n, share), np.arange(n)).p
        assert found_p == pytest.approx(min(1, 2 * min(tails)), rel=1e-6)
    assert right_as_stated([True, False], [1.0, 1.0], [0, 1]).p < 1e-9  # a certain verdict that is wrong


def test_a_calibrated_judge_that_is_sure_and_never_wrong_is_not_off():
    """100 verdicts of 97 to 99 % are all right in 13 of 100 sets: no miss is what was promised."""
    rng = np.random.default_rng(0)
    stated = np.resize([0.97, 0.98, 0.99], 100)
    right = np.ones(100, dtype=bool)
    assert right_as_stated(right, stated, np.arange(100)).p > 0.2
    assert miscalibration(np.arange(100) % 3, right, stated, np.arange(100), rng=rng).p > 0.2
    # Thirty groups of 20 that are right or wrong together, at 95 %: none is wrong in a fifth of sets.
    right, stated, groups = np.ones(600, dtype=bool), np.full(600, 0.95), np.repeat(np.arange(30), 20)
    assert right_as_stated(right, stated, groups).p > 0.1
    assert accuracy_against_chance(~right, groups, 0.05).p > 0.1


@pytest.mark.parametrize(("n_groups", "size", "alike"), [(100, 1, False), (30, 10, True)])
def test_levels_where_misses_are_rare(n_groups, size, alike):
    rng = np.random.default_rng(1)
    groups, n_sets = np.repeat(np.arange(n_groups), size), 100
    mean = ece = 0
    for _ in range(n_sets):
        stated = rng.choice([0.95, 0.97, 0.98], n_groups)[groups]
        right = (rng.random(n_groups)[groups] if alike else rng.random(len(groups))) < stated
        bins = np.unique(stated, return_inverse=True)[1]
        mean += right_as_stated(right, stated, groups).p < 0.01
        ece += miscalibration(bins, right, stated, groups, rng=rng).p < 0.01
    assert max(mean, ece) <= 4


def test_a_family_without_an_error_is_not_strict():
    """20 answers of the own family without an error, others in error in one of ten: in 12 of 100 sets by chance."""
    error = np.r_[np.zeros(20), np.arange(1000) % 10 == 0]
    assert contrast_is_zero(error, np.arange(1020) < 20, np.arange(1020)).p > 0.1
    # As many answers again, nine of ten in error: no chance.
    assert contrast_is_zero(np.r_[np.arange(20) > 1, error[20:]], np.arange(1020) < 20, np.arange(1020)).p < 1e-3


def test_levels_on_grouped_rows():
    """30 groups of 20 rows that are right together: tests of rows reject in a quarter to a half of null sets."""
    rng = np.random.default_rng(5)
    groups, n_sets = np.repeat(np.arange(30), 20), 300
    chance = differ = over = 0
    for _ in range(n_sets):
        share = np.repeat(rng.beta(1.2, 1.2, 30), 20)
        a, b = rng.random(600) < share, rng.random(600) < np.repeat(rng.beta(1.2, 1.2, 30), 20)
        chance += accuracy_against_chance(a, groups, 0.5).p < 0.05
        differ += sign_flips(a.astype(int) - b, groups).p < 0.05
        over += mean_is_zero(a - 0.5, groups).p < 0.05
    assert max(chance, differ, over) / n_sets < 0.08
