import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss
from statsmodels.stats.proportion import proportion_confint

from medjudge.errors import DataError, RunError
from medjudge.metrics.calibration import (
    Calibrator,
    _betting_passes,
    abstention_rates,
    brier_parts,
    brier_score,
    calibration_report,
    debiased_rms_error,
    ece_under_calibration,
    expected_calibration_error,
    fit_calibrator,
    fit_label_temperature,
    label_brier_score,
    log_loss,
    reliability_curve,
    risk_control_threshold,
    risk_coverage,
    selective_threshold,
)

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


def test_reliability_by_hand():
    # Four rows, two bins of two: confidence .2 and .4 (one right), .8 and .9 (both right)
    curve = reliability_curve([0.9, 0.2, 0.4, 0.8], [1, 0, 1, 1], n_bins=2)
    assert curve.mean_confidence == pytest.approx([0.3, 0.85])
    assert curve.accuracy == pytest.approx([0.5, 1])
    assert curve.n.tolist() == [2, 2]
    assert (curve.low[0], curve.high[0]) == pytest.approx(proportion_confint(1, 2, method="wilson"))
    # |.5 - .3| and |1 - .85|, half each
    assert expected_calibration_error([0.9, 0.2, 0.4, 0.8], [1, 0, 1, 1], n_bins=2) == pytest.approx(0.175)


def test_equal_confidences_share_a_bin_and_widths_are_fixed():
    curve = reliability_curve([0.9] * 7 + [0.1] * 3, [1] * 7 + [0] * 3, n_bins=10)
    assert curve.n.tolist() == [3, 7]
    curve = reliability_curve([0.05, 0.31, 0.39, 1.0], [0, 1, 0, 1], n_bins=10, bins="width")
    assert curve.n.tolist() == [1, 2, 1]
    assert curve.mean_confidence == pytest.approx([0.05, 0.35, 1.0])


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


def test_calibrated_p_tells_a_calibrated_judge_from_one_that_is_not():
    rng = RNG(3)
    small, wrong = [], []
    for _ in range(15):
        confidence = rng.choice([0.6, 0.7, 0.8, 0.9], 60)
        report = calibration_report(confidence, rng.random(60) < confidence, n_resamples=10, rng=rng)
        small.append(report.calibrated_p <= 0.1)
        report = calibration_report(confidence, rng.random(60) < confidence - 0.25, n_resamples=10, rng=rng)
        wrong.append(report.calibrated_p <= 0.1)
    assert np.mean(small) <= 0.34
    assert np.mean(wrong) >= 0.75


def test_label_brier_by_hand():
    # (.3^2 + .3^2) for gold 0 at (.7, .3); (.8^2 + .8^2) for gold 0 at (.2, .8)
    assert label_brier_score([[0.7, 0.3], [0.2, 0.8]], [0, 0]) == pytest.approx((0.18 + 1.28) / 2)
    assert math.isnan(label_brier_score(np.zeros((0, 2)), []))


def test_log_loss_of_a_judge_that_is_sure_and_wrong_is_finite():
    assert log_loss([1.0], [False]) == pytest.approx(-math.log(1e-6))
    assert log_loss([1.0, 0.0], [True, False]) == pytest.approx(0, abs=2e-6)


def test_risk_coverage_by_hand():
    # kept one by one: right, wrong, right, wrong -> 0, 1/2, 1/3, 2/4
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert curve.threshold == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert curve.coverage == pytest.approx([0.25, 0.5, 0.75, 1])
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # best order: right, right, wrong, wrong -> 0, 0, 1/3, 2/4
    assert curve.excess_aurc == pytest.approx(curve.aurc - (1 / 3 + 1 / 2) / 4)
    # all confidences equal: nothing is told apart, the risk is one half at every coverage
    assert risk_coverage([0.5] * 4, [1, 0, 1, 0]).aurc == pytest.approx(0.5)


def test_report_counts_what_has_no_confidence_and_takes_groups_together():
    rng = RNG(1)
    confidence = np.where(rng.random(400) < 0.1, np.nan, rng.uniform(0.5, 1, 400))
    groups = np.repeat(np.arange(100), 4)
    correct = np.repeat(rng.random(100) < 0.75, 4)  # the rows of a group are all alike
    report = calibration_report(confidence, correct, groups, n_resamples=400, rng=RNG(0))
    assert report.n + report.n_without == 400
    assert report.n == int((~np.isnan(confidence)).sum())
    stated = ~np.isnan(confidence)
    assert report.brier.value == pytest.approx(brier_score(confidence[stated], correct[stated]))
    apart = calibration_report(confidence, correct, n_resamples=400, rng=RNG(0))
    for name in ("brier", "log_loss", "aurc"):
        together, rows = getattr(report, name), getattr(apart, name)
        assert together.low < together.value < together.high
        assert together.high - together.low > 1.4 * (rows.high - rows.low)  # twice, but for the confidences themselves
    with pytest.raises(DataError, match="none of 2 verdicts has a confidence"):
        calibration_report([np.nan] * 2, [1, 0], rng=rng)


def overconfident(n, temperature=2.5, seed=0):
    rng = RNG(seed)
    odds = rng.normal(1, 1, n)
    correct = rng.random(n) < 1 / (1 + np.exp(-odds))
    return 1 / (1 + np.exp(-odds * temperature)), correct


def test_calibrators_find_what_was_done_to_the_confidences():
    confidence, correct = overconfident(20_000)
    assert fit_calibrator("temperature", confidence, correct).parameters["temperature"] == pytest.approx(
        [2.5], rel=0.08
    )
    platt = fit_calibrator("platt", confidence, correct)
    assert platt.parameters["slope"] == pytest.approx([1 / 2.5], rel=0.08)
    assert platt.parameters["intercept"] == pytest.approx([0], abs=0.06)
    for kind in ("temperature", "platt", "isotonic"):
        fresh, right = overconfident(20_000, seed=1)
        calibrated = fit_calibrator(kind, confidence, correct).apply(fresh)
        assert expected_calibration_error(calibrated, right) < 0.02 < expected_calibration_error(fresh, right)


def test_platt_and_isotonic_against_scikit_learn():
    confidence, correct = overconfident(3000)
    odds = np.log(confidence / (1 - confidence))
    model = LogisticRegression(C=1e9, max_iter=1000).fit(odds[:, None], correct)
    ours = fit_calibrator("platt", confidence, correct).apply(confidence)
    # Platt's smoothed targets are 1/1000 from 0 and 1 at this n
    assert ours == pytest.approx(model.predict_proba(odds[:, None])[:, 1], abs=3e-3)
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, correct)
    points = np.linspace(0, 1, 101)
    assert fit_calibrator("isotonic", confidence, correct).apply(points) == pytest.approx(isotonic.predict(points))


def test_separable_rows_stay_finite():
    for kind in ("temperature", "platt", "isotonic"):
        calibrator = fit_calibrator(kind, [0.2, 0.3, 0.8, 0.9], [0, 0, 1, 1])
        assert np.isfinite(calibrator.apply([0, 0.5, 1])).all()
        assert (np.diff(calibrator.apply(np.linspace(0, 1, 50))) >= 0).all()
        one_class = fit_calibrator(kind, [0.9, 0.8], [1, 1]).apply([0.85])
        assert 0.5 <= one_class[0] <= 1


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_a_calibrator_survives_its_file(kind):
    calibrator = fit_calibrator(kind, *overconfident(500))
    again = Calibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
    assert again == calibrator
    assert np.isnan(again.apply([np.nan])[0])


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {},
        {"kind": "magic", "parameters": {}, "n": 1},
        {"kind": "platt", "parameters": {"slope": [1.0]}, "n": 1},
        {"kind": "temperature", "parameters": {"temperature": [0.0]}, "n": 1},
        {"kind": "temperature", "parameters": {"temperature": []}, "n": 1},
        {"kind": "isotonic", "parameters": {"x": [0.0, 1.0], "y": [float("nan"), 1.0]}, "n": 1},
        {"kind": "isotonic", "parameters": {"x": [0.0, 1.0], "y": [1.0]}, "n": 1},
    ],
)
def test_a_damaged_calibrator_is_refused(damaged):
    with pytest.raises(RunError, match="calibrator"):
        Calibrator.from_json(damaged)


def test_label_temperature():
    rng = RNG(0)
    logits = rng.normal(0, 1.5, (8000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gold = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    sharp = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    calibrator = fit_label_temperature(sharp, gold)
    assert calibrator.parameters["temperature"] == pytest.approx([3], rel=0.06)
    calibrated = calibrator.apply_to_labels(sharp)
    assert calibrated == pytest.approx(probabilities, abs=0.02)
    assert calibrator.apply_to_labels([[1.0, 0.0, 0.0]])[0] == pytest.approx([1, 0, 0])
    with pytest.raises(DataError, match="got none"):
        fit_label_temperature(np.zeros((0, 3)), [])


def test_labels_share_what_the_top_label_gives_up():
    halve = Calibrator("isotonic", {"x": [0.0, 1.0], "y": [0.0, 0.5]}, 2)
    # top .6 -> .3; the others grow from .3 + .1 to .7 in proportion
    assert halve.apply_to_labels([[0.6, 0.3, 0.1]])[0] == pytest.approx([0.3, 0.525, 0.175])
    assert halve.apply_to_labels([[0.0, 1.0, 0.0]])[0] == pytest.approx([0.25, 0.5, 0.25])


def test_selective_threshold_by_hand():
    # A fifth proposes. All right, a judge wrong in .1 would show that in .9^8 = .43 of sets with 8 testing rows, in
    # .9^23 = .09 with 23
    assert selective_threshold([0.9] * 10, [1] * 10, max_error=0.1, rng=RNG(0)).threshold is None
    rule = selective_threshold([0.9] * 28, [1] * 28, max_error=0.1, rng=RNG(0))
    assert 0.9**23 <= 0.1 < 0.9**21
    assert (rule.threshold, rule.coverage, rule.error, rule.n) == (-1, 1, 0, 28)
    assert rule.promise.startswith("of the verdicts accepted, at most 10 % are wrong")
    # 1,000 rows, wrong below .6 only: at 10 % of the accepted, some of the wrong ones may come in, never all
    confidence = np.linspace(1, 0.5, 1000)
    rule = selective_threshold(confidence, confidence > 0.6, max_error=0.1, rng=RNG(1))
    assert 0.55 < rule.threshold < 0.62
    assert 0 < rule.error < 0.1
    assert rule.accepts([0.0, rule.threshold, 1.0, np.nan]).tolist() == [False, False, True, False]


def test_a_judge_that_is_wrong_when_sure_gets_no_threshold_from_its_best_verdicts():
    """Error is not monotone: the surest tenth is all wrong, the rest right. Only letting in more rows helps."""
    confidence = np.linspace(1, 0, 2000)
    correct = np.arange(2000) >= 200
    rule = selective_threshold(confidence, correct, max_error=0.15, rng=RNG(0))
    assert rule.coverage > 0.8
    assert selective_threshold(confidence, correct, max_error=0.05, rng=RNG(0)).threshold is None


@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_the_betting_test_keeps_its_level_and_finds_what_is_there(delta):
    rng = RNG(2)
    false = np.mean([_betting_passes(rng.integers(0, 2, 60) * rng.random(60), 0.25, delta) for _ in range(600)])
    assert false <= delta + 0.03
    found = np.mean([_betting_passes(0.4 * rng.random(60), 0.25, delta) for _ in range(100)])
    assert found > 0.5
    assert not _betting_passes(np.zeros(0), 0.25, delta)


def test_a_missing_confidence_is_never_accepted():
    confidence = np.array([np.nan] * 100 + [0.9] * 200)
    rule = selective_threshold(confidence, [0] * 100 + [1] * 200, max_error=0.1, rng=RNG(0))
    assert rule.coverage == pytest.approx(2 / 3)
    assert not rule.accepts([np.nan]).any()
    conformal = risk_control_threshold(confidence, [0] * 100 + [1] * 200, max_error=0.1)
    assert (conformal.coverage, conformal.error) == (pytest.approx(2 / 3), 0)


def test_risk_control_by_hand():
    # n = 19: the budget is .1 * 20 - 1 = 1 wrong verdict accepted. Wrong ones at confidences .7 and .4.
    confidence = np.round(np.linspace(0.95, 0.05, 19), 2)
    correct = ~np.isin(confidence, [0.7, 0.4])
    rule = risk_control_threshold(confidence, correct, max_error=0.1)
    assert rule.threshold == pytest.approx(0.4)
    assert rule.error == pytest.approx(1 / 19)
    assert rule.delta is None
    assert risk_control_threshold(confidence, correct, max_error=0.15).threshold == -1  # two are allowed
    assert risk_control_threshold(confidence[:8], correct[:8], max_error=0.1).threshold is None  # 1/9 > .1
    assert risk_control_threshold([0.9] * 10, [0] * 10, max_error=0.1).threshold == pytest.approx(0.9)


def test_risk_control_over_groups():
    # 9 groups of 2 rows; one group wrong in both rows. At .2: 2 wrong <= .2 * 18 - .8 * 2 = 2
    confidence, correct = np.full(18, 0.5), np.array([0, 0] + [1] * 16)
    groups = np.repeat(np.arange(9), 2)
    assert risk_control_threshold(confidence, correct, max_error=0.2, groups=groups).threshold == -1
    rule = risk_control_threshold(confidence, correct, max_error=0.19, groups=groups)
    assert (rule.threshold, rule.n) == (0.5, 9)
    assert rule.promise.endswith("on average over calibration sets, for new groups like these of at most 2 verdicts")
    # 30 groups of 1 row and one of 10, all wrong in the large one: 10 of 40 verdicts, but 1 of 31 group means
    confidence, correct = np.full(40, 0.5), np.repeat([True, False], [30, 10])
    groups = np.r_[np.arange(30), np.full(10, 30)]
    assert risk_control_threshold(confidence, correct, max_error=0.1, groups=groups).threshold is None  # 4 < .9 * 10
    rule = risk_control_threshold(confidence, correct, max_error=0.4, groups=groups)  # 10 <= .4 * 40 - .6 * 10
    assert (rule.threshold, rule.error) == (-1, 0.25)


def test_the_share_of_all_verdicts_is_kept_where_large_groups_are_harder():
    """9 of 10 groups have one verdict and err in 2 to 10 %, the tenth has 12 and errs in 15 to 45 %."""
    rng = RNG(3)
    grid = np.linspace(0, 1, 1001)
    wrong_at = {1: 0.1 - 0.08 * grid, 12: 0.45 - 0.3 * grid}
    rows = {1: 0.9, 12: 0.1 * 12}
    wrong = sum(rows[size] * wrong_at[size] for size in rows) / sum(rows.values())
    wrong_above = wrong[::-1].cumsum()[::-1] / len(grid)  # share of all verdicts, confidences uniform
    losses, seen, coverage = [], [], []
    for _ in range(200):
        sizes = rng.choice([1, 12], 300, p=[0.9, 0.1])
        groups, size = np.repeat(np.arange(300), sizes), np.repeat(sizes, sizes)
        confidence = rng.random(len(groups))
        chance = np.where(size == 1, 0.1 - 0.08 * confidence, 0.45 - 0.3 * confidence)
        correct = rng.random(len(groups)) >= chance
        rule = risk_control_threshold(confidence, correct, max_error=0.1, groups=groups)
        losses.append(wrong_above[np.searchsorted(grid, rule.threshold, side="right")])
        accepted = rule.accepts(confidence)
        seen.append(rule.error)
        assert rule.error == pytest.approx((accepted & ~correct).mean())
        coverage.append(rule.coverage)
    assert 0.08 <= np.mean(losses) <= 0.1 + 0.003
    assert np.mean(seen) == pytest.approx(np.mean(losses), abs=0.01)


@pytest.mark.parametrize("grouped", [False, True])
def test_promises_hold_on_new_rows(grouped):
    """200 calibration sets of a judge whose error is known at every threshold: the short form of `benchmarks`."""
    rng = RNG(7)
    n_groups, size, spread = (150, 3, 0.15) if grouped else (300, 1, 0.0)
    grid = np.linspace(0, 1, 1001)  # confidences are uniform
    shifts = spread * norm.ppf((np.arange(400) + 0.5) / 400)
    right = np.clip(0.6 + 0.4 * grid[:, None] + shifts, 0, 1).mean(1)
    wrong_above = (1 - right)[::-1].cumsum()[::-1]
    broken, naively_broken, losses = 0, 0, []

    def error_above(threshold):
        first = np.searchsorted(grid, threshold, side="right")
        return wrong_above[first] / (len(grid) - first)

    for _ in range(200):
        shift = np.repeat(rng.normal(0, spread, n_groups), size)
        groups = np.repeat(np.arange(n_groups), size) if grouped else None
        confidence = rng.random(n_groups * size)
        correct = rng.random(len(confidence)) < np.clip(0.6 + 0.4 * confidence + shift, 0, 1)
        rule = selective_threshold(confidence, correct, max_error=0.15, delta=0.1, groups=groups, rng=rng)
        broken += rule.threshold is not None and error_above(rule.threshold) > 0.15
        curve = risk_coverage(confidence, correct)
        naively_broken += error_above(curve.threshold[curve.risk <= 0.15].min()) > 0.15
        conformal = risk_control_threshold(confidence, correct, max_error=0.1, groups=groups)
        losses.append(wrong_above[np.searchsorted(grid, conformal.threshold, side="right")] / len(grid))
    assert broken / 200 <= 0.1
    assert naively_broken / 200 > 0.4  # what the lowest threshold whose error on these rows is small enough would do
    assert 0.09 <= np.mean(losses) <= 0.1 + 0.002


def test_abstention_by_class():
    accepted = [True, False, True, True, False, False]
    rates = abstention_rates(accepted, ["1", "1", "0", "0", "0", "0"])
    assert {name: (rate.value, rate.n) for name, rate in rates.items()} == {"0": (0.5, 4), "1": (0.5, 2)}
    assert (rates["0"].low, rates["0"].high) == pytest.approx(proportion_confint(2, 4, method="wilson"))


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
