"""Reliability diagram, ECE, Brier score and log-loss, by hand and against libraries."""

import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from medjudge.metrics.reliability import (
    brier_parts,
    debiased_rms_error,
    ece_under_calibration,
    expected_calibration_error,
    label_brier_score,
    log_loss,
    reliability_curve,
)

RNG = np.random.default_rng


def test_reliability_by_hand():
    # Four rows, two bins of two: confidence .2 and .4 (one right), .8 and .9 (both right)
    curve = reliability_curve([0.9, 0.2, 0.4, 0.8], [1, 0, 1, 1], n_bins=2)
    assert [one.confidence for one in curve] == pytest.approx([0.3, 0.85])
    assert [one.accuracy for one in curve] == pytest.approx([0.5, 1])
    assert [one.n for one in curve] == [2, 2]
    assert (curve[0].low, curve[0].high) == pytest.approx(proportion_confint(1, 2, method="wilson"))
    # |.5 - .3| and |1 - .85|, half each
    assert expected_calibration_error([0.9, 0.2, 0.4, 0.8], [1, 0, 1, 1], n_bins=2) == pytest.approx(0.175)


def test_equal_confidences_share_a_bin_and_widths_are_fixed():
    curve = reliability_curve([0.9] * 7 + [0.1] * 3, [1] * 7 + [0] * 3, n_bins=10)
    assert [one.n for one in curve] == [3, 7]
    curve = reliability_curve([0.05, 0.31, 0.39, 1.0], [0, 1, 0, 1], n_bins=10, bins="width")
    assert [one.n for one in curve] == [1, 2, 1]
    assert [one.confidence for one in curve] == pytest.approx([0.05, 0.35, 1.0])


def test_murphy_by_hand():
    # confidence .5: one of two right; 1.0: both right. base .75
    parts = brier_parts([0.5, 0.5, 1, 1], [0, 1, 1, 1])
    assert parts.reliability == 0
    assert parts.resolution == pytest.approx(((0.5 - 0.75) ** 2 + (1 - 0.75) ** 2) / 2)
    assert parts.uncertainty == pytest.approx(0.75 * 0.25)
    assert parts.score == pytest.approx(0.125)


def test_ece_is_biased_and_the_debiased_error_is_not():
    """A calibrated judge on 200 rows: ECE is far from zero, as `ece_under_calibration` says; Kumar's error is near."""
    rng = RNG(0)
    eces, squares = [], []
    for _ in range(300):
        confidence = rng.random(200)
        correct = rng.random(200) < confidence
        eces.append(expected_calibration_error(confidence, correct))
        n = 20
        code = np.argsort(np.argsort(confidence)) // n
        for b in range(10):
            rows = code == b
            accuracy = correct[rows].mean()
            squares.append((accuracy - confidence[rows].mean()) ** 2 - accuracy * (1 - accuracy) / (n - 1))
    assert np.mean(eces) == pytest.approx(np.mean(ece_under_calibration(confidence, rng=rng)), rel=0.05)
    assert np.mean(eces) > 0.04
    assert abs(np.mean(squares)) < 0.0005
    assert debiased_rms_error([0.9] * 100, [1] * 50 + [0] * 50) == pytest.approx(math.sqrt(0.16 - 0.25 / 99))
    assert debiased_rms_error([0.5] * 100, [1] * 50 + [0] * 50) == 0


def test_label_brier_by_hand():
    # (.3^2 + .3^2) for gold 0 at (.7, .3); (.8^2 + .8^2) for gold 0 at (.2, .8)
    assert label_brier_score([[0.7, 0.3], [0.2, 0.8]], [0, 0]) == pytest.approx((0.18 + 1.28) / 2)
    assert math.isnan(label_brier_score(np.zeros((0, 2)), []))


def test_log_loss_of_a_judge_that_is_sure_and_wrong_is_finite():
    assert log_loss([1.0], [False]) == pytest.approx(-math.log(1e-6))
    assert log_loss([1.0, 0.0], [True, False]) == pytest.approx(0, abs=2e-6)
