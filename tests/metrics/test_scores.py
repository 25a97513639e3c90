"""Judges that give numbers, against scikit-learn, SciPy, published examples and loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import average_precision_score, roc_auc_score

from medjudge.errors import ConfigError, DataError
from medjudge.metrics.score_results import ScoreKind
from medjudge.metrics.scores import (
    ScoredCases,
    as_probability,
    auc_against_chance,
    auc_of_weights,
    average_precision_of_weights,
    bland_altman,
    correlations,
    scores_result,
)
from medjudge.metrics.thresholds import ThresholdRule, choose_threshold
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.scale import LabelScale

BINARY = LabelScale(labels=("no", "yes"), positive="yes")


def ones(n: int) -> Any:
    return np.ones((1, n))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 6])
def test_auc_and_average_precision_as_scikit_learn(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.3
    scores = np.round(rng.normal(size=80) + positive, digits)
    weights = rng.integers(0, 3, (4, 80)).astype(float)
    for statistic, library in (
        (auc_of_weights(scores, positive), roc_auc_score),
        (average_precision_of_weights(scores, positive), average_precision_score),
    ):
        assert statistic(ones(80))[0] == pytest.approx(library(positive, scores))
        assert statistic(weights) == pytest.approx([library(positive, scores, sample_weight=w) for w in weights])


def test_auc_published_example() -> None:
    """Hanley & McNeil (1982), table 1: 58 normal and 51 abnormal CT images rated 1 to 5, area .893."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    scores = np.repeat([1, 2, 3, 4, 5] * 2, normal + abnormal)
    positive = np.repeat([False, True], [58, 51])
    assert auc_of_weights(scores, positive)(ones(109))[0] == pytest.approx(0.893, abs=5e-4)


def test_statistics_without_both_kinds_are_undefined() -> None:
    assert math.isnan(auc_of_weights([0.1, 0.2], [True, True])(ones(2))[0])
    assert math.isnan(average_precision_of_weights([0.1, 0.2], [False, False])(ones(2))[0])
    assert auc_of_weights([0.5, 0.5], [True, False])(ones(2))[0] == 0.5
    assert auc_against_chance([0.3, 0.3, 0.3, 0.3], [1, 0, 1, 0], [0, 1, 2, 3]).p == 1.0
    assert auc_against_chance([0.3, 0.4], [1, 1], [0, 1]).p is None


def delong_error(scores: Any, positive: Any) -> float:
    """DeLong, DeLong & Clarke-Pearson (1988), equation 5, in loops."""
    high, low = scores[positive], scores[~positive]
    won = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in low] for a in high])
    return float(math.sqrt(won.mean(1).var(ddof=1) / len(high) + won.mean(0).var(ddof=1) / len(low)))


def judged(scores: Any, positive: Any, groups: Any = None, kind: ScoreKind = "number") -> Any:
    names = [f"c{at}" for at in range(len(scores))]
    cases = [
        Case(name, {}, BINARY.labels[int(label)], group="" if groups is None else f"g{groups[at]}")
        for at, (name, label) in enumerate(zip(names, positive, strict=True))
    ]
    answers: list[Judgement] = [Verdict(n, "yes", score=float(x)) for n, x in zip(names, scores, strict=True)]
    found = scores_result(cases, {"j": answers}, ScoredCases(kind), contract=BINARY, n_resamples=100)
    return found.judges["j"]


def test_the_interval_of_auc_is_delongs_where_every_case_is_a_group() -> None:
    rng = np.random.default_rng(4)
    positive = np.arange(300) < 120
    scores = rng.normal(size=300) + positive
    auc = judged(scores, positive).auc
    # On log-odds, as the interval is made: error / (a (1 - a)).
    error = delong_error(scores, positive) / (auc.value * (1 - auc.value))
    middle, reach = math.log(auc.value / (1 - auc.value)), t.ppf(0.975, 299) * error
    ends = [1 / (1 + math.exp(-(middle + side * reach))) for side in (-1, 1)]
    assert [auc.low, auc.high] == pytest.approx(ends, abs=2e-3)


def test_copies_in_a_group_change_no_interval_and_no_p() -> None:
    rng = np.random.default_rng(6)
    positive = rng.random(40) < 0.5
    scores = rng.normal(size=40) + 0.4 * positive
    once = judged(scores, positive, np.arange(40))
    five = judged(scores.repeat(5), positive.repeat(5), np.arange(40).repeat(5))
    for name in ("auc", "average_precision"):
        one, other = getattr(once, name), getattr(five, name)
        assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high), abs=1e-9)
    # Mann-Whitney's p of rows shrinks, and the p of groups, the larger of the two, stays.
    assert five.auc_test.p <= once.auc_test.p
    assert five.auc_test.p > 0.2 * once.auc_test.p


def test_auc_covers_and_its_test_keeps_its_level_with_groups() -> None:
    rng = np.random.default_rng(3)
    hits = rejected = 0
    for _ in range(200):
        group = np.arange(30).repeat(5)
        shared = rng.normal(size=(2, 30))[:, group]
        truth = 0.7 * shared[0] + 0.7 * rng.normal(size=150)
        guess = 0.7 * shared[1] + 0.7 * rng.normal(size=150)
        one = judged(guess, truth > 0, group)
        hits += one.auc.low <= 0.5 <= one.auc.high
        rejected += one.auc_test.p < 0.05
    assert hits >= 0.91 * 200
    assert rejected <= 0.08 * 200


def test_two_scorers_are_compared_on_shared_cases() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.5
    cases = [Case(f"c{at}", {}, BINARY.labels[int(label)]) for at, label in enumerate(positive)]
    good, bad = rng.normal(size=200) + 2 * positive, rng.normal(size=200)
    answers: dict[str, list[Judgement]] = {
        "good": [Verdict(f"c{at}", "yes", score=float(x)) for at, x in enumerate(good)],
        "bad": [Verdict(f"c{at}", "yes", score=float(x)) for at, x in enumerate(bad) if at >= 20],
    }
    answers["bad"] += [Unparsed(f"c{at}", "", "x") for at in range(20)]
    found = scores_result(cases, answers, ScoredCases("number"), contract=BINARY)
    (one,) = found.differences
    shared = slice(20, None)
    expected = roc_auc_score(positive[shared], good[shared]) - roc_auc_score(positive[shared], bad[shared])
    assert one.n == 180
    assert one.difference.value == pytest.approx(expected)
    assert one.test.p is not None
    assert one.test.p < 1e-6
    assert (found.judges["bad"].n, found.judges["bad"].n_without) == (180, 20)


def test_scores_become_probabilities() -> None:
    assert as_probability([0.2], "probability").tolist() == [0.2]
    assert as_probability([20], "percent").tolist() == [0.2]
    assert as_probability([0.0, math.log(3)], "logit").tolist() == pytest.approx([0.5, 0.75])
    positive = np.tile([True, False, False, False], 50)
    stated = judged(np.full(200, 25.0), positive, kind="percent").probabilities
    assert (stated.mean, stated.share, stated.ece) == pytest.approx((0.25, 0.25, 0.0), abs=1e-12)
    assert stated.brier.value == pytest.approx(0.1875)
    assert stated.test.p == pytest.approx(1.0)
    assert judged(np.full(200, 0.9), positive, kind="probability").probabilities.test.p < 1e-6
    assert judged(np.full(200, 0.9), positive, kind="number").probabilities is None


WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_bland_altman_published_example() -> None:
    """Peak flow by two meters, Bland & Altman (1986): mean difference -2.1, SD 38.8; its interval -22.0 to 17.8.

    Limits here are 1.96 standard deviations, there 2; their errors there are sqrt(3 / n) SD = 16.3.
    """
    rng = np.random.default_rng(0)
    found = bland_altman(WRIGHT, MINI, np.arange(17), rng=rng)
    assert found.mean.value == pytest.approx(-2.1, abs=0.05)
    assert found.sd == pytest.approx(38.8, abs=0.05)
    assert (found.mean.low, found.mean.high) == pytest.approx((-22.0, 17.8), abs=0.1)
    gaps = np.subtract(WRIGHT, MINI)
    assert found.lower.value == pytest.approx(gaps.mean() - 1.96 * gaps.std(ddof=1))
    assert found.upper.value == pytest.approx(gaps.mean() + 1.96 * gaps.std(ddof=1))
    assert found.upper.high is not None
    assert found.upper.low is not None
    assert (found.upper.high - found.upper.low) / 2 == pytest.approx(t.ppf(0.975, 16) * 16.3, rel=0.25)
    assert sorted(found.points)[0] == pytest.approx(((178 + 259) / 2, -81))


def test_limits_of_agreement_cover_with_groups() -> None:
    rng = np.random.default_rng(9)
    hits = 0
    for _ in range(300):
        gap = rng.normal(size=40).repeat(4) * 0.6 + 0.8 * rng.normal(size=160)
        found = bland_altman(gap, np.zeros(160), np.arange(40).repeat(4), rng=rng)
        assert found.upper.low is not None
        assert found.upper.high is not None
        hits += found.upper.low <= 1.96 <= found.upper.high
    assert hits >= 0.91 * 300


def test_correlations_and_icc() -> None:
    """By SciPy's own functions; ICC by the analysis of variance."""
    from scipy.stats import kendalltau, pearsonr, spearmanr

    x, y = np.array(WRIGHT, float), np.array(MINI, float)
    found = correlations(x, y, np.arange(17), one_scale=True)
    assert found["pearson"].value == pytest.approx(pearsonr(x, y).statistic)
    assert found["spearman"].value == pytest.approx(spearmanr(x, y).statistic)
    assert found["kendall_tau_b"].value == pytest.approx(kendalltau(x, y).statistic)
    # ICC(2,1) by the analysis of variance in loops.
    table = np.stack([x, y], axis=1)
    n, k, mean = 17, 2, table.mean()
    rows = k * sum((row.mean() - mean) ** 2 for row in table) / (n - 1)
    columns = n * sum((column.mean() - mean) ** 2 for column in table.T) / (k - 1)
    whole = sum((value - mean) ** 2 for value in table.ravel())
    error = (whole - rows * (n - 1) - columns * (k - 1)) / ((n - 1) * (k - 1))
    icc = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    assert found["icc_2_1"].value == pytest.approx(icc)
    assert "icc_2_1" not in correlations(x, y, np.arange(17), one_scale=False)
    assert correlations(np.ones(5), np.arange(5), np.arange(5), one_scale=False)["pearson"].value is None
    shifted = correlations(x + 100, y, np.arange(17), one_scale=True)
    assert shifted["pearson"].value == pytest.approx(found["pearson"].value)
    assert shifted["icc_2_1"].value < 0.8 * icc


SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
POSITIVE = [False, False, True, False, True, True]


@pytest.mark.parametrize(
    ("rule", "threshold", "sensitivity", "specificity"),
    [
        ("youden", 0.3, 1.0, 2 / 3),  # as good as .5 (2/3, 1): of equals the lowest
        ("sensitivity=0.95", 0.3, 1.0, 2 / 3),
        ("sensitivity=0.6", 0.5, 2 / 3, 1.0),
        ("specificity=0.9", 0.5, 2 / 3, 1.0),
        ("specificity=0.6", 0.3, 1.0, 2 / 3),
        ("cost=5", 0.3, 1.0, 2 / 3),  # 1 false alarm against 5 for the miss at .5
        ("cost=0.5", 0.5, 2 / 3, 1.0),  # a miss costs half a false alarm
        ("cost=0.0001", 0.5, 2 / 3, 1.0),
    ],
)
def test_threshold_rules_by_hand(rule: str, threshold: float, sensitivity: float, specificity: float) -> None:
    chosen = choose_threshold(SCORES, POSITIVE, ThresholdRule.parse(rule))
    assert chosen.threshold == pytest.approx(threshold)
    assert (chosen.sensitivity, chosen.specificity) == pytest.approx((sensitivity, specificity))
    assert str(ThresholdRule.parse(rule)) == rule


@pytest.mark.parametrize("seed", range(5))
def test_threshold_rules_by_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=60) + positive, 1)
    tried = []
    for cut in [*sorted(set(scores)), scores.max() + 1]:
        tried.append((cut, (positive & (scores >= cut)).sum(), (~positive & (scores >= cut)).sum()))
    p, n = positive.sum(), (~positive).sum()
    best = max(tried, key=lambda one: (round(one[1] / p - one[2] / n, 9), -one[0]))[0]
    assert choose_threshold(scores, positive, ThresholdRule.parse("youden")).threshold == best
    best = min(tried, key=lambda one: (3 * (p - one[1]) + one[2], one[0]))[0]
    assert choose_threshold(scores, positive, ThresholdRule.parse("cost=3")).threshold == best
    best = max(cut for cut, hits, _ in tried if hits / p >= 0.8)
    assert choose_threshold(scores, positive, ThresholdRule.parse("sensitivity=0.8")).threshold == best


@pytest.mark.parametrize("text", ["", "youden=1", "sensitivity", "sensitivity=0", "specificity=95", "cost=x", "f1"])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected youden, sensitivity=0\.95"):
        ThresholdRule.parse(text)


def test_a_threshold_wants_both_kinds() -> None:
    with pytest.raises(DataError, match="on 2 rows of which 2 are positive"):
        choose_threshold([1, 2], [True, True], ThresholdRule("youden"))
