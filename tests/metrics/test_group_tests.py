"""Tests over groups: by hand, against libraries where rows stand alone, and their level on rows in groups."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp, ttest_rel

from medjudge.metrics.comparison import mcnemar
from medjudge.metrics.group_tests import (
    accuracy_against_chance,
    contrast_is_zero,
    mean_is_zero,
    miscalibration,
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
    gap = right - np.where(bins == 0, 0.5, 0.85)
    clustered = miscalibration(bins, gap, np.r_[np.arange(200) // 20, 10 + np.arange(200) // 20], rng=rng)
    assert clustered.p > 0.3
    off = miscalibration(bins, right - np.where(bins == 0, 0.9, 0.6), np.arange(400), rng=rng)
    assert off.p == pytest.approx(1e-4)


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
