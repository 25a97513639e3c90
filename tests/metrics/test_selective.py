"""Risk against coverage, and thresholds that keep their promise."""

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from medjudge.metrics.selective import (
    _betting_passes,
    abstention_rates,
    risk_control_threshold,
    risk_coverage,
    selective_threshold,
)

RNG = np.random.default_rng


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
