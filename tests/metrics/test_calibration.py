"""A judge's calibration as a whole, on random cases and with groups."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from medjudge.errors import DataError
from medjudge.metrics.calibration import calibration_measures
from medjudge.metrics.calibrators import fit_calibrator
from medjudge.metrics.reliability import (
    brier_parts,
    brier_score,
    debiased_rms_error,
    expected_calibration_error,
    log_loss,
)
from medjudge.metrics.selective import risk_control_threshold, risk_coverage, selective_threshold

RNG = np.random.default_rng


def random_verdicts(seed, n=None):
    """Confidences with many ties, or none; often few; sometimes all right or all wrong."""
    rng = RNG(seed)
    n = int(rng.choice([1, 2, 5, 20, 80])) if n is None else n
    confidence = rng.random(n)
    if rng.random() < 0.6:
        confidence = np.round(confidence, 1)
    correct = rng.random(n) < rng.choice([0.0, 1.0, 0.5, 2.0]) * np.clip(confidence, 0.2, 1)
    return confidence, correct


def slow_ece(confidence, correct, n_bins):
    """Bins by the middle rank of equal confidences, one row at a time."""
    n, bins = len(confidence), {}
    for c, right in zip(confidence, correct, strict=True):
        middle = (sum(o < c for o in confidence) + sum(o <= c for o in confidence)) / 2 / n
        bins.setdefault(int(middle * n_bins), []).append((c, right))
    return sum(abs(sum(r for _, r in b) - sum(c for c, _ in b)) for b in bins.values()) / n


def slow_aurc(confidence, correct):
    """The mean over all orders that put higher confidence first; each block of ties in every order."""
    order = sorted(set(confidence), reverse=True)
    blocks = [[bool(r) for c, r in zip(confidence, correct, strict=True) if c == value] for value in order]
    areas = []
    for arrangement in itertools.product(*(list(itertools.permutations(block)) for block in blocks)):
        wrong, risks = 0, []
        for k, right in enumerate(itertools.chain(*arrangement), start=1):
            wrong += not right
            risks.append(wrong / k)
        areas.append(sum(risks) / len(risks))
    return sum(areas) / len(areas)


@pytest.mark.parametrize("block", [pytest.param(b, marks=[pytest.mark.slow] if b else []) for b in range(10)])
def test_five_hundred_random_cases(block):
    for seed in range(50 * block, 50 * block + 50):
        confidence, correct = random_verdicts(seed)
        assert brier_score(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence, pos_label=True))
        clipped = np.clip(confidence, 1e-6, 1 - 1e-6)
        expected = sklearn_log_loss(correct, clipped, labels=[False, True])
        assert log_loss(confidence, correct) == pytest.approx(expected)
        n_bins = int(RNG(seed).integers(1, 12))
        ece = expected_calibration_error(confidence, correct, n_bins=n_bins)
        assert ece == pytest.approx(slow_ece(confidence, correct, n_bins))
        for bins in (None, n_bins):
            parts = brier_parts(confidence, correct, n_bins=bins)
            whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
            assert whole == pytest.approx(parts.score, abs=1e-12)
            assert parts.score == pytest.approx(brier_score(confidence, correct))
        assert brier_parts(confidence, correct).within_bin == pytest.approx(0, abs=1e-12)
        curve = risk_coverage(confidence, correct)
        assert curve.coverage[-1] == 1
        assert curve.risk[-1] == pytest.approx(1 - correct.mean())
        assert curve.excess_aurc >= 0
        if len(confidence) <= 5:
            assert curve.aurc == pytest.approx(slow_aurc(confidence, correct))


def test_calibrated_p_tells_a_calibrated_judge_from_one_that_is_not():
    rng = RNG(3)
    small, wrong = [], []
    for _ in range(15):
        confidence = rng.choice([0.6, 0.7, 0.8, 0.9], 60)
        report = calibration_measures(confidence, rng.random(60) < confidence, n_resamples=10, rng=rng)
        small.append(report.calibrated_p <= 0.1)
        report = calibration_measures(confidence, rng.random(60) < confidence - 0.25, n_resamples=10, rng=rng)
        wrong.append(report.calibrated_p <= 0.1)
    assert np.mean(small) <= 0.34
    assert np.mean(wrong) >= 0.75


def test_report_counts_what_has_no_confidence_and_takes_groups_together():
    rng = RNG(1)
    confidence = np.where(rng.random(400) < 0.1, np.nan, rng.uniform(0.5, 1, 400))
    groups = np.repeat(np.arange(100), 4)
    correct = np.repeat(rng.random(100) < 0.75, 4)  # the rows of a group are all alike
    report = calibration_measures(confidence, correct, groups, n_resamples=400, rng=RNG(0))
    assert report.n + report.n_without == 400
    assert report.n == int((~np.isnan(confidence)).sum())
    stated = ~np.isnan(confidence)
    assert report.brier.value == pytest.approx(brier_score(confidence[stated], correct[stated]))
    apart = calibration_measures(confidence, correct, n_resamples=400, rng=RNG(0))
    for name in ("brier", "log_loss", "aurc"):
        together, rows = getattr(report, name), getattr(apart, name)
        assert together.low < together.value < together.high
        assert together.high - together.low > 1.4 * (rows.high - rows.low)  # twice, but for the confidences themselves
    with pytest.raises(DataError, match="none of 2 verdicts has a confidence"):
        calibration_measures([np.nan] * 2, [1, 0], rng=rng)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier_score([0.5], [1, 0]), "shape"),
        (lambda: brier_score([1.5], [1]), r"outside \[0, 1\]"),
        (lambda: brier_score([np.nan], [1]), "missing"),
        (lambda: fit_calibrator("platt", [np.nan, 0.5], [1, 1]), "got 1"),
        (lambda: selective_threshold([0.5], [1], max_error=0, rng=RNG(0)), "between 0 and 1"),
        (lambda: selective_threshold([0.5], [1], max_error=0.1, delta=1, rng=RNG(0)), "delta"),
        (lambda: risk_control_threshold([], [], max_error=0.1), "got none"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_no_rows():
    for statistic in (brier_score, log_loss, expected_calibration_error, debiased_rms_error):
        assert math.isnan(statistic([], []))
    assert math.isnan(risk_coverage([], []).aurc)
    assert math.isnan(brier_parts([], []).score)
