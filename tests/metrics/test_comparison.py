import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, false_discovery_control, permutation_test, t
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from medjudge.errors import DataError
from medjudge.metrics.agreement import STATISTICS, agreement_statistics
from medjudge.metrics.classification import code_outcomes
from medjudge.metrics.comparison import (
    adjust_p,
    mcnemar,
    pair,
    paired_differences,
    paired_permutation,
    paired_statistics,
    permutation_of_rows,
    permutation_of_sums,
    power_against_chance,
    power_of_pair,
)
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
    found = paired_differences(pairing, ("accuracy", "macro_f1"), level=0.9)

    def statistic(cases, said, metric):
        gold, answers = [c.gold for c in cases], [said[c.case_id] or "none" for c in cases]
        if metric == "accuracy":
            return np.mean([g == s for g, s in zip(gold, answers, strict=True)])
        occurring = sorted(set(gold) | (set(answers) - {"none"}))
        return f1_score(gold, answers, labels=occurring, average="macro", zero_division=0)

    def difference(cases, metric):
        return 100 * (statistic(cases, said_a, metric) - statistic(cases, said_b, metric))

    for metric in ("accuracy", "macro_f1"):
        whole = difference(CASES, metric)
        without = [difference([case for case in CASES if case.group != f"g{g}"], metric) for g in range(30)]
        reach = t.ppf(0.95, 29) * math.sqrt(29 / 30 * np.sum((without - np.mean(without)) ** 2))
        assert (found[metric].value, found[metric].low, found[metric].high) == pytest.approx(
            (whole, whole - reach, whole + reach)
        )


def test_a_difference_in_accuracy_by_hand():
    """Three groups of two: a is ahead by 2, 1 and 0 of 2 rows, so the groups' differences are 1, .5 and 0.

    Mean .5, standard error .5 / sqrt(3) = .2887; t at 2 degrees of freedom 4.3027: -.742 to 1.742, and no share goes
    beyond 1.
    """
    cases = [Case(str(i), {}, gold="a", group=f"g{i // 2}") for i in range(6)]
    a, b = dict.fromkeys("012345", "a"), {"0": "b", "1": "b", "2": "b", "3": "a", "4": "a", "5": "a"}
    found = paired_differences(pair(coded(cases, a), coded(cases, b)), ("accuracy",), level=0.95)["accuracy"]
    assert (found.value, found.low, found.high) == pytest.approx((50, -74.21, 100), abs=0.01)


def test_a_difference_of_shares_has_ends_that_shares_can_have():
    # Two groups: 1.0 and 0.0 apart, mean 0.5, standard error 0.5, t of one degree of freedom 12.7: 0.5 +- 6.4.
    cases = [Case(str(i), {}, gold="a", group=f"g{i // 2}") for i in range(4)]
    a = coded(cases, dict.fromkeys("0123", "a"))
    b = coded(cases, {"0": "b", "1": "b", "2": "a", "3": "a"})
    (accuracy,) = paired_differences(pair(a, b), ("accuracy",), level=0.95).values()
    assert (accuracy.value, accuracy.low, accuracy.high) == (50.0, -100.0, 100.0)


@pytest.mark.parametrize("n_groups", [2, 3, 4, 5])
def test_difference_intervals_cover_with_few_groups(n_groups):
    """Judges right on 75 and 65 % of ten rows a group, groups differing: a bootstrap covered 60, 79, 90 and 91 %."""
    rng = np.random.default_rng(n_groups)
    n_sets, n_rows = 300, 10
    cases = [Case(str(i), {}, gold="a", group=f"g{i // n_rows}") for i in range(n_groups * n_rows)]
    covered = 0
    for _ in range(n_sets):
        share_a, share_b = (np.repeat(rng.beta(2.3 * p, 2.3 * (1 - p), n_groups), n_rows) for p in (0.75, 0.65))
        a, b = (
            {
                case.case_id: "a" if right else "b"
                for case, right in zip(cases, rng.random(len(cases)) < share, strict=True)
            }
            for share in (share_a, share_b)
        )
        found = paired_differences(pair(coded(cases, a), coded(cases, b)), ("accuracy",), level=0.95)["accuracy"]
        covered += found.low <= 10 <= found.high
    assert covered / n_sets >= 0.92


def test_a_judge_does_not_differ_from_itself():
    said = random_answers(np.random.default_rng(0), 0.5)
    pairing = pair(coded(CASES, said), coded(CASES, said))
    found = paired_differences(pairing, ("accuracy",), level=0.95)
    assert (found["accuracy"].value, found["accuracy"].low, found["accuracy"].high) == (0, 0, 0)


def test_one_group_gives_no_interval_and_a_metric_the_task_lacks_is_left_out():
    cases = [Case(str(i), {}, gold="a", group="g") for i in range(3)]
    pairing = pair(coded(cases, {"0": "a", "1": "a"}), coded(cases, {"0": "a", "1": "b"}))
    found = paired_differences(pairing, ("accuracy", "f1_positive"), level=0.95)
    assert list(found) == ["accuracy"]
    assert found["accuracy"].value == 50
    assert math.isnan(found["accuracy"].low)


def test_nothing_in_common():
    pairing = pair(coded(CASES, {"0": "a"}), coded(CASES, {"1": "a"}))
    with pytest.raises(DataError, match="no case in common"):
        paired_differences(pairing, ("accuracy",), level=0.95)


def test_mcnemar_method_can_be_chosen():
    assert mcnemar(30, 10, method="exact").method == "exact"
    assert mcnemar(30, 10, method="exact").p == pytest.approx(binomtest(10, 40).pvalue)
    assert mcnemar(1, 4, method="mid-p").method == "mid-p"
    # exact 12/32 less the probability of the split that was seen, C(5,1) / 32
    assert mcnemar(1, 4, method="mid-p").p == pytest.approx(12 / 32 - 5 / 32)


def test_permutation_by_hand():
    """Three groups of one row, a right on all, b on none: 2 of the 8 assignments are as far apart as this one."""
    sums_a, sums_b = np.array([[1.0, 1], [1, 1], [1, 1]]), np.array([[0.0, 1], [0, 1], [0, 1]])
    found = permutation_of_sums(
        sums_a, sums_b, lambda s: {"accuracy": s[..., 0] / s[..., 1]}, rng=np.random.default_rng(0)
    )["accuracy"]
    assert (found.difference, found.n_groups, found.n_resamples) == (1, 3, 8)
    assert found.p == pytest.approx(2 / 8)


def test_permutation_of_rows_of_one_is_mcnemar():
    """With one row per group and accuracy, every assignment tried is the exact binomial test."""
    right_a = np.array([1] * 8 + [0] * 2 + [1] * 10, dtype=float)
    right_b = np.array([0] * 8 + [1] * 2 + [1] * 10, dtype=float)
    found = permutation_of_rows(
        right_a, right_b, lambda x: float(x.mean()), n_resamples=1024, rng=np.random.default_rng(0)
    )
    assert found.n_resamples == 2**10
    assert found.p == pytest.approx(mcnemar(8, 2, method="exact").p)
    cases = [Case(str(i), {}, gold="a") for i in range(20)]
    a = coded(cases, {str(i): "a" if r else "b" for i, r in enumerate(right_a)})
    b = coded(cases, {str(i): "a" if r else "b" for i, r in enumerate(right_b)})
    exact = paired_permutation(pair(a, b), ["accuracy"], n_resamples=1024, rng=np.random.default_rng(0))["accuracy"]
    assert exact.p == pytest.approx(mcnemar(8, 2, method="exact").p)
    drawn = paired_permutation(pair(a, b), ["accuracy"], n_resamples=1023, rng=np.random.default_rng(0))["accuracy"]
    assert drawn.n_resamples == 1023
    assert drawn.p == pytest.approx(exact.p, abs=0.05)


def test_permutation_against_scipy():
    """Groups of one row and the sum of differences: SciPy's paired permutation test enumerates the same assignments."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        a, b = rng.normal(0.5, 1, 9), rng.normal(0, 1, 9)
        found = permutation_of_rows(a, b, lambda x: float(x.mean()), rng=rng)
        assert found.n_resamples == 2**9
        expected = permutation_test((a, b), lambda x, y: x.mean() - y.mean(), permutation_type="samples")
        assert found.p == pytest.approx(expected.pvalue)


def test_rows_of_a_group_are_swapped_together():
    """Six equal rows in one group are one observation: nothing can be shown."""
    a, b = np.ones(6), np.zeros(6)
    found = permutation_of_rows(a, b, lambda x: float(x.mean()), np.zeros(6), rng=np.random.default_rng(0))
    assert (found.p, found.n_groups) == (1, 1)
    apart = permutation_of_rows(a, b, lambda x: float(x.mean()), rng=np.random.default_rng(0))
    assert apart.p == pytest.approx(2 / 2**6)


def test_no_difference_and_an_undefined_one():
    sums = np.array([[1.0, 2], [0, 1]])
    same = permutation_of_sums(sums, sums, lambda s: {"x": s[..., 0] / s[..., 1]}, rng=np.random.default_rng(0))["x"]
    assert (same.difference, same.p, same.n_groups) == (0, 1, 0)
    with np.errstate(invalid="ignore"):
        undefined = permutation_of_sums(
            sums, sums[::-1], lambda s: {"x": s[..., 0] * np.nan}, rng=np.random.default_rng(0)
        )["x"]
    assert math.isnan(undefined.p)


def test_permutation_keeps_its_level_on_grouped_rows():
    """400 pairs of equally good judges whose errors cluster: p <= .05 in about 5 % of them."""
    rng = np.random.default_rng(8)
    rejected = 0
    for _ in range(400):
        shared = rng.random((20, 1))  # each question has its own difficulty for both judges, and rows of it go together
        tilt = rng.normal(0, 0.3, (20, 1))
        hits_a = rng.random((20, 4)) < np.clip(shared + tilt, 0, 1)
        hits_b = rng.random((20, 4)) < np.clip(shared - tilt, 0, 1)
        size = np.full(20, 4.0)
        found = permutation_of_sums(
            np.stack([hits_a.sum(1), size], 1).astype(float),
            np.stack([hits_b.sum(1), size], 1).astype(float),
            lambda s: {"x": s[..., 0] / s[..., 1]},
            n_resamples=199,
            rng=rng,
        )["x"]
        rejected += found.p <= 0.05
    assert 0.02 <= rejected / 400 <= 0.08


def test_paired_statistics_hold_the_difference():
    rng = np.random.default_rng(2)
    pairing = pair(coded(CASES, random_answers(rng, 0.9)), coded(CASES, random_answers(rng, 0.4)))
    found = paired_statistics(pairing, ["mcc", "kappa", "pearson"])
    assert list(found) == ["mcc", "kappa"]  # labels without an order have no r
    kappa = agreement_statistics(pairing.a)["kappa"] - agreement_statistics(pairing.b)["kappa"]
    assert found["kappa"].value == pytest.approx(kappa)
    assert found["kappa"].low < kappa < found["kappa"].high
    everything = paired_permutation(pairing, n_resamples=500, rng=np.random.default_rng(4))
    assert set(everything) == {n for n, s in STATISTICS.items() if not s.needs}
    assert everything["accuracy"].p < 0.05


def test_adjusted_p_by_hand():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}
    # Holm: 3*.01, then max(.03, 2*.03), then max(.06, 1*.04)
    assert adjust_p(p) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": math.nan}, nan_ok=True)
    # BH: .01*3/1, min(.03*3/2, .04), .04*3/3
    assert adjust_p(p, method="benjamini-hochberg") == pytest.approx(
        {"a": 0.03, "b": 0.04, "c": 0.04, "d": math.nan}, nan_ok=True
    )
    assert adjust_p({}) == {}
    assert math.isnan(adjust_p({"a": math.nan})["a"])


def test_mcnemar_on_five_hundred_tables():
    """Exact: statsmodels, SciPy's binomial test and the binomial coefficients. Mid-p: the coefficients, and SciPy."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        a, b = (int(v) for v in rng.integers(0, rng.choice([1, 4, 30]), 2))
        n, fewer = a + b, min(a, b)
        tail = sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n
        point = math.comb(n, fewer) / 2**n
        exact, mid = mcnemar(a, b, method="exact").p, mcnemar(a, b, method="mid-p").p
        assert exact == pytest.approx(min(1.0, 2 * tail))
        assert exact == pytest.approx(statsmodels_mcnemar([[1, a], [b, 1]], exact=True).pvalue if n else 1.0)
        assert exact == pytest.approx(binomtest(fewer, n).pvalue if n else 1.0)
        assert mid == pytest.approx(2 * tail - point if n else 1.0)
        assert mid == pytest.approx(2 * binom.cdf(fewer, n, 0.5) - binom.pmf(fewer, n, 0.5) if n else 1.0)


def slow_holm(p):
    """Each p times the number of those not smaller, never less than one before it."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted


def slow_benjamini_hochberg(p):
    """The least of n p / rank over all p at least as large."""
    ranked = sorted(p)
    scaled = [(value, min(1.0, len(p) * value / rank)) for rank, value in enumerate(ranked, 1)]
    return [min(s for value, s in scaled if value >= one) for one in p]


def test_corrections_on_five_hundred_families():
    """Ties, ones, zeros, one test alone, and undefined p among them: statsmodels' doors, SciPy and slow loops."""
    rng = np.random.default_rng(1)
    for _ in range(500):
        p = np.round(rng.random(int(rng.integers(1, 12))) ** 2, int(rng.integers(1, 5)))
        gaps = rng.random(len(p)) < 0.2
        family = {str(i): math.nan if gap else float(v) for i, (v, gap) in enumerate(zip(p, gaps, strict=True))}
        real = [v for v in family.values() if not math.isnan(v)]
        holm, bh = adjust_p(family), adjust_p(family, method="benjamini-hochberg")
        assert [v for v in holm.values() if not math.isnan(v)] == pytest.approx(slow_holm(real))
        kept = [v for v in bh.values() if not math.isnan(v)]
        assert kept == pytest.approx(slow_benjamini_hochberg(real))
        assert kept == pytest.approx(list(false_discovery_control(real)) if real else [])
        assert [name for name, v in holm.items() if math.isnan(v)] == [n for n, v in family.items() if math.isnan(v)]


def test_minimum_detectable_effect_by_hand():
    # McNemar, 30 % discordant: (1.96 sqrt(.3) + .8416 sqrt(.3 - .065^2))^2 / .065^2 = 554.95
    assert power_of_pair(100, 66, 555).minimum_detectable == pytest.approx(0.065, abs=2e-4)
    # one sample, chance .25 against .315: (1.96 sqrt(.1875) + .8416 sqrt(.2158))^2 / .065^2 = 363.7
    assert power_against_chance(364, 0.25).minimum_detectable == pytest.approx(0.065, abs=2e-4)
    assert power_against_chance(728, 0.25, design_effect=2).minimum_detectable == pytest.approx(0.065, abs=2e-4)
    assert power_of_pair(0, 0, 100).minimum_detectable is None
    assert power_against_chance(2, 0.5).minimum_detectable is None


def test_power_is_what_it_says():
    """At the smallest detectable accuracy, McNemar-free: the two-sided z test rejects in about 80 % of draws."""
    rng = np.random.default_rng(0)
    found = power_against_chance(400, 0.25)
    hits = rng.binomial(400, 0.25 + found.minimum_detectable, 4000)
    z = (hits / 400 - 0.25) / math.sqrt(0.25 * 0.75 / 400)
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("n", "chance"), [(0, 0.25), (5, 0.0), (5, 1.0)])
def test_power_refuses_what_it_cannot_compute(n, chance):
    with pytest.raises(DataError, match="power needs rows"):
        power_against_chance(n, chance)


def test_power_of_no_pairs():
    with pytest.raises(DataError, match="no paired rows"):
        power_of_pair(0, 0, 0)
