import math

import numpy as np
import pytest

from medjudge.errors import DataError
from medjudge.metrics.correction import gold_rate, prediction_powered_rate, rogan_gladen

RNG = np.random.default_rng


def labelled(tp, fn, fp, tn):
    """(judged, gold) of the labelled rows."""
    return [1] * tp + [0] * fn + [1] * fp + [0] * tn, [1] * (tp + fn) + [0] * (fp + tn)


def test_rogan_gladen_by_hand():
    # TPR .9, TNR .8, judged 41 of 100: (.41 + .8 - 1) / .7 = .3
    found = rogan_gladen([1] * 41 + [0] * 59, *labelled(90, 10, 20, 80))
    assert found.value == pytest.approx(0.3)
    assert found.method == "Lang & Reiczigel"
    assert found.low < 0.3 < found.high
    # with no doubt about TPR and TNR the interval is the judged rate's, 1 / .7 as wide
    many = rogan_gladen([1] * 41 + [0] * 59, *labelled(45_000, 5_000, 10_000, 40_000))
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(0.41 * 0.59 / 104) / 0.7, rel=0.01)
    assert found.high - found.low > many.high - many.low


@pytest.mark.parametrize(
    ("judged", "counts", "value"),
    [
        ([0] * 10, (9, 1, 2, 8), 0.0),  # fewer positives than false alarms alone would give: clipped
        ([1] * 10, (9, 1, 2, 8), 1.0),
        ([1] * 5, (5, 5, 5, 5), math.nan),  # TPR + TNR = 1: a coin
        ([1] * 5, (2, 8, 8, 2), math.nan),  # worse than a coin
        ([1] * 5, (9, 1, 0, 0), math.nan),  # no gold negatives
        ([], (9, 1, 2, 8), math.nan),
    ],
)
def test_rogan_gladen_at_its_edges(judged, counts, value):
    found = rogan_gladen(judged, *labelled(*counts))
    assert found.value == pytest.approx(value, nan_ok=True)
    if not math.isnan(value):
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_ppi_by_hand():
    # labelled: gold 3 of 5, judged 4 of 5, errors (gold - judged) 0 0 0 -1 0; others judged 60 of 100
    judged, gold = [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]
    found = prediction_powered_rate([1] * 60 + [0] * 40, judged, gold, tuning="plain")
    assert found.value == pytest.approx(0.6 + (0.6 - 0.8))
    # variance of the mean error: .2 * .8 / 4 (n - 1), plus .24 / 99; t(.975, 4) = 2.776
    error = math.sqrt(0.16 / 4 + 0.24 / 99)
    assert found.high - found.value == pytest.approx(2.776445 * error)
    tuned = prediction_powered_rate([1] * 60 + [0] * 40, judged, gold)
    # covariance .12 / 4 over (.16 / 4 + .24 / 99)
    weight = (0.12 / 4) / (0.16 / 4 + 0.24 / 99)
    assert tuned.value == pytest.approx(0.6 + weight * (0.6 - 0.8))


def test_a_useless_judge_costs_ppi_plus_plus_nothing():
    rng = RNG(0)
    gold = rng.random(400) < 0.4
    noise, others = rng.random(400) < 0.5, rng.random(4000) < 0.5
    tuned = prediction_powered_rate(others, noise, gold)
    plain = prediction_powered_rate(others, noise, gold, tuning="plain")
    alone = 2 * 1.966 * math.sqrt(gold.var() / 399)
    assert tuned.high - tuned.low <= alone * 1.001
    assert plain.high - plain.low > 1.3 * alone


def test_a_perfect_judge_makes_all_rows_labelled():
    rng = RNG(0)
    gold, others = rng.random(100) < 0.4, rng.random(10_000) < 0.4
    found = prediction_powered_rate(others, gold, gold)
    assert found.high - found.low < 0.25 * (gold_rate(gold).high - gold_rate(gold).low)


def test_rows_of_a_group_are_one_observation():
    """Every row five times over, with groups: the same numbers as once without."""
    rng = RNG(1)
    gold = rng.random(60) < 0.5
    judged = np.where(rng.random(60) < 0.8, gold, ~gold)
    others = rng.random(300) < 0.5
    by = {"groups": np.repeat(np.arange(300), 5), "labelled_groups": np.repeat(1000 + np.arange(60), 5)}
    once = prediction_powered_rate(others, judged, gold)
    often = prediction_powered_rate(np.repeat(others, 5), np.repeat(judged, 5), np.repeat(gold, 5), **by)
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))
    grouped = rogan_gladen(np.repeat(others, 5), np.repeat(judged, 5), np.repeat(gold, 5), rng=RNG(2), **by)
    apart = rogan_gladen(others, judged, gold)
    assert grouped.value == pytest.approx(apart.value)
    assert grouped.high - grouped.low == pytest.approx(apart.high - apart.low, rel=0.15)


def test_nothing_to_learn_from():
    assert math.isnan(prediction_powered_rate([], [1], [1]).value)
    assert math.isnan(prediction_powered_rate([1, 0], [], []).value)
    one = prediction_powered_rate([1, 0], [1], [1])
    assert (one.value, math.isnan(one.low)) == (1, True)
    flat = prediction_powered_rate([1, 1], [1, 1], [1, 1])
    assert (flat.value, math.isnan(flat.low)) == (1, True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rogan_gladen([0.5], [1], [1]), "passed or not"),
        (lambda: rogan_gladen([1], [1, 0], [1]), "2 judged and 1 gold"),
        (lambda: prediction_powered_rate([2.0], [1], [1]), r"in \[0, 1\]"),
        (lambda: prediction_powered_rate([np.nan], [1], [1]), r"in \[0, 1\]"),
        (lambda: rogan_gladen([1, 0], *labelled(9, 1, 2, 8), groups=[0, 1], rng=RNG(0)), "labelled_groups"),
        (lambda: prediction_powered_rate([1, 0], [1, 0], [1, 0], groups=[0, 1]), "both or neither"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_intervals_cover():
    """150 draws of independent rows: about 95 %, where the judge's own rate is off by 12 points in every one."""
    rng = RNG(3)
    covered = {"rg": 0, "ppi": 0, "naive": 0}
    for _ in range(150):
        gold, other = rng.random(120) < 0.3, rng.random(1000) < 0.3
        judged = rng.random(120) < np.where(gold, 0.85, 0.2)
        others = rng.random(1000) < np.where(other, 0.85, 0.2)
        for name, found in {
            "rg": rogan_gladen(others, judged, gold),
            "ppi": prediction_powered_rate(others, judged, gold),
            "naive": gold_rate(others),
        }.items():
            covered[name] += found.low <= 0.3 <= found.high
    assert covered["rg"] / 150 >= 0.9
    assert covered["ppi"] / 150 >= 0.9
    assert covered["naive"] == 0


def test_shared_groups_enter_the_variance_together_by_hand():
    # Two questions, each with a rated answer (gold 1 and 0, judged 0 and 0) and another one (judged 1 and 0).
    # The estimate is 1/2 + 1/2 - 0. Question 0 moves mean(gold) by +1/4 and mean(others) by +1/4, question 1 by -1/4
    # each; a variance over two groups is twice the sum of squares.
    def error(groups):
        found = prediction_powered_rate(
            [1, 0], [0, 0], [1, 0], groups=groups, labelled_groups=["a", "b"], tuning="plain", level=0.2
        )
        assert found.value == 1
        return (1 - found.low) / math.tan(math.pi * 0.1)  # Student's t with one degree of freedom is Cauchy's

    assert error(["a", "b"]) == pytest.approx(math.sqrt(2 * (0.5**2 + 0.5**2)))  # they move together
    assert error(["c", "d"]) == pytest.approx(math.sqrt(2 * 4 * 0.25**2))  # apart
    assert error(["a", "d"]) == pytest.approx(math.sqrt(2 * (0.5**2 + 2 * 0.25**2)))
    assert math.isnan(error(["b", "a"]))  # they cancel: no spread


def draw_shared(rng, n_questions=60):
    """Questions with 2 rated and 4 other answers each; a question's pass rate and the judge's errors are its own."""
    rate = rng.beta(0.6, 1.4, n_questions)
    errs = rng.beta(0.5, 2.5, n_questions)
    old, new = np.repeat(np.arange(n_questions), 2), np.repeat(np.arange(n_questions), 4)
    gold, other = rng.random(len(old)) < rate[old], rng.random(len(new)) < rate[new]
    judged = np.where(rng.random(len(old)) < errs[old], ~gold, gold)
    others = np.where(rng.random(len(new)) < errs[new], ~other, other)
    return others, judged, gold, {"groups": new, "labelled_groups": old}


def test_intervals_cover_where_rated_and_other_rows_share_questions():
    """300 sets; coding the groups of the two sets apart covers 88 to 92 %."""
    rng = RNG(8)
    covered = {"shared": 0, "plain": 0, "apart": 0}
    for _ in range(300):
        others, judged, gold, by = draw_shared(rng)
        apart = {**by, "groups": by["groups"] + 1000}
        for name, found in {
            "shared": prediction_powered_rate(others, judged, gold, **by),
            "plain": prediction_powered_rate(others, judged, gold, tuning="plain", **by),
            "apart": prediction_powered_rate(others, judged, gold, **apart),
        }.items():
            covered[name] += found.low <= 0.3 <= found.high
    assert covered["shared"] / 300 >= 0.925
    assert covered["plain"] / 300 >= 0.925
    assert covered["apart"] < covered["shared"]
