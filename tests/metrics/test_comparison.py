import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from medjudge.errors import DataError
from medjudge.metrics.classification import code_outcomes
from medjudge.metrics.comparison import compare_with_chance, mcnemar, pair, paired_differences
from medjudge.records import Case, Unparsed, Verdict


def coded(cases, said):
    answers = [Unparsed(i, "", "r") if label is None else Verdict(i, label) for i, label in said.items()]
    return code_outcomes(cases, answers, labels=("a", "b"))


CASES = [Case(str(i), {}, gold="a" if i % 3 else "b", group=f"g{i // 2}") for i in range(60)]


def test_mcnemar_exact_by_hand():
    # 5 discordant, 1 against 4: p = 2 (C(5,0) + C(5,1)) / 2^5 = 12/32
    test = mcnemar(1, 4)
    assert test.p == pytest.approx(12 / 32)
    assert test.method == "exact"


def test_mcnemar_ties_and_nothing_discordant():
    assert mcnemar(0, 0).p == 1
    assert mcnemar(3, 3).p == 1
    assert mcnemar(20, 20).p == pytest.approx(1)


def test_mcnemar_mid_p_by_hand():
    # 25 discordant, all on one side: exact 2 / 2^25; mid-p is half of that
    test = mcnemar(25, 0)
    assert test.method == "mid-p"
    assert test.p == pytest.approx(1 / 2**25)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (2, 9), (12, 12), (10, 20), (40, 31), (200, 260)])
def test_mcnemar_against_statsmodels(a, b):
    exact = statsmodels_mcnemar([[5, a], [b, 7]], exact=True).pvalue
    chi_square = statsmodels_mcnemar([[5, a], [b, 7]], exact=False, correction=False).pvalue
    test = mcnemar(a, b)
    assert test.p == mcnemar(b, a).p
    if test.method == "exact":
        assert test.p == pytest.approx(exact)
    else:  # the mid-p lies below the exact p and near the uncorrected asymptotic one
        assert test.p < exact
        assert test.p == pytest.approx(chi_square, abs=0.01)


def test_pairing_reports_what_found_no_partner():
    a = coded(CASES[:4], {"0": "a", "1": "a", "2": None})
    b = coded(CASES[:4], {"3": "a", "2": "a", "1": "b"})
    pairing = pair(a, b)
    assert pairing.a.case_ids == pairing.b.case_ids == ("1", "2")
    assert pairing.only_a == ("0",)
    assert pairing.only_b == ("3",)
    assert pairing.a.correct.tolist() == [True, False]
    assert pairing.b.correct.tolist() == [False, True]


def test_pairing_refuses_other_cases():
    with pytest.raises(DataError, match="same cases"):
        pair(coded(CASES, {"0": "a"}), coded(CASES[:3], {"0": "a"}))


def random_answers(rng, share_right):
    return {
        case.case_id: None if rng.random() < 0.1 else (case.gold if rng.random() < share_right else "a")
        for case in CASES
    }


def test_paired_differences_against_a_plain_loop():
    rng = np.random.default_rng(2)
    said_a, said_b = random_answers(rng, 0.9), random_answers(rng, 0.4)
    pairing = pair(coded(CASES, said_a), coded(CASES, said_b))
    found = paired_differences(
        pairing, ("accuracy", "macro_f1"), n_resamples=300, rng=np.random.default_rng(4), level=0.9
    )

    groups = [[case for case in CASES if case.group == f"g{g}"] for g in range(30)]
    chosen = np.random.default_rng(4).integers(30, size=(300, 30))

    def statistic(cases, said, metric):
        gold, answers = [c.gold for c in cases], [said[c.case_id] or "none" for c in cases]
        if metric == "accuracy":
            return np.mean([g == s for g, s in zip(gold, answers, strict=True)])
        occurring = sorted(set(gold) | (set(answers) - {"none"}))
        return f1_score(gold, answers, labels=occurring, average="macro", zero_division=0)

    for metric in ("accuracy", "macro_f1"):
        draws = []
        for row in chosen:
            cases = [case for g in row for case in groups[g]]
            draws.append(100 * (statistic(cases, said_a, metric) - statistic(cases, said_b, metric)))
        assert found[metric].value == pytest.approx(
            100 * (statistic(CASES, said_a, metric) - statistic(CASES, said_b, metric))
        )
        assert (found[metric].low, found[metric].high) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])))


def test_a_judge_does_not_differ_from_itself():
    said = random_answers(np.random.default_rng(0), 0.5)
    pairing = pair(coded(CASES, said), coded(CASES, said))
    found = paired_differences(pairing, ("accuracy",), n_resamples=100, rng=np.random.default_rng(0), level=0.95)
    assert (found["accuracy"].value, found["accuracy"].low, found["accuracy"].high) == (0, 0, 0)


def test_one_group_gives_no_interval_and_a_metric_the_task_lacks_is_left_out():
    cases = [Case(str(i), {}, gold="a", group="g") for i in range(3)]
    pairing = pair(coded(cases, {"0": "a", "1": "a"}), coded(cases, {"0": "a", "1": "b"}))
    found = paired_differences(
        pairing, ("accuracy", "f1_positive"), n_resamples=100, rng=np.random.default_rng(0), level=0.95
    )
    assert list(found) == ["accuracy"]
    assert found["accuracy"].value == 50
    assert math.isnan(found["accuracy"].low)


def test_nothing_in_common():
    pairing = pair(coded(CASES, {"0": "a"}), coded(CASES, {"1": "a"}))
    with pytest.raises(DataError, match="no case in common"):
        paired_differences(pairing, ("accuracy",), n_resamples=100, rng=np.random.default_rng(0), level=0.95)


def test_chance():
    # 3 of 3 right at 1/2: both tails hold 1/8
    assert compare_with_chance(3, 3, 0.5) == pytest.approx(0.25)
    assert compare_with_chance(56, 200, 0.25) == binomtest(56, 200, 0.25).pvalue
    with pytest.raises(DataError, match="no rows"):
        compare_with_chance(0, 0, 0.25)
