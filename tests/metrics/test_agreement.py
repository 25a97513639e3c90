import math
import warnings

import krippendorff
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
)
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.inter_rater import cohens_kappa

from medjudge.errors import DataError
from medjudge.metrics.agreement import (
    MISSING,
    STATISTICS,
    agreement_estimates,
    agreement_statistics,
    cohen_kappa,
    gwet_ac,
    icc,
    krippendorff_alpha,
    statistic_n,
    statistics_from_counts,
)
from medjudge.metrics.classification import code_outcomes, group_counts
from medjudge.records import Case, Unparsed, Verdict
from tests.metrics import textbook


def outcomes_of(gold, said, n_labels, *, ordered=True, positive=None, groups=None):
    """gold: codes; said: codes or None."""
    cases = [Case(str(i), {}, gold=str(g), group="" if groups is None else str(groups[i])) for i, g in enumerate(gold)]
    answers = [
        Unparsed(str(i), "?", "none", kind="schema" if i % 2 else "format") if s is None else Verdict(str(i), str(s))
        for i, s in enumerate(said)
    ]
    return code_outcomes(cases, answers, labels=[str(k) for k in range(n_labels)], ordered=ordered, positive=positive)


def random_case(seed):
    """Codes of gold and answers: often few rows, one class, many ties, much or all unreadable."""
    rng = np.random.default_rng(seed)
    n_labels = int(rng.integers(2, 6))
    n = int(rng.choice([1, 2, 3, 5, 12, 40]))
    gold = rng.integers(0, rng.integers(1, n_labels + 1), n)
    said = np.where(rng.random(n) < rng.random(), gold, rng.integers(0, rng.integers(1, n_labels + 1), n))
    unread = rng.random(n) < rng.choice([0.0, 0.2, 1.0], p=[0.6, 0.3, 0.1])
    return gold.tolist(), [None if u else int(s) for s, u in zip(said, unread, strict=True)], n_labels


def library_statistics(gold, said, n_labels, positive):
    """What scikit-learn, SciPy and statsmodels say, each with its own convention where a statistic is undefined."""
    answer = [n_labels if s is None else s for s in said]
    occurring = sorted({*gold, *(s for s in said if s is not None)})
    found = {
        "accuracy": accuracy_score(gold, answer),
        "balanced_accuracy": balanced_accuracy_score(gold, answer),
        "macro_f1": f1_score(gold, answer, labels=occurring, average="macro", zero_division=0),
        "weighted_f1": f1_score(gold, answer, labels=occurring, average="weighted", zero_division=0),
        "mcc": matthews_corrcoef(gold, answer),
    }
    if positive is not None:
        if positive in occurring:
            found["f1_positive"] = f1_score(gold, answer, labels=[positive], average="macro", zero_division=0)
        found["tpr"] = recall_score(gold, answer, labels=[positive], average="macro", zero_division=np.nan)
        found["tnr"] = recall_score(gold, answer, labels=[1 - positive], average="macro", zero_division=np.nan)
        for name, label in (("ppv", positive), ("npv", 1 - positive)):
            found[name] = precision_score(gold, answer, labels=[label], average="macro", zero_division=np.nan)
    x = [g for g, s in zip(gold, said, strict=True) if s is not None]
    y = [s for s in said if s is not None]
    if len(x) >= 2:
        labels = list(range(n_labels))
        found["kappa"] = cohen_kappa_score(x, y, labels=labels)
        found["kappa_linear"] = cohen_kappa_score(x, y, labels=labels, weights="linear")
        found["kappa_quadratic"] = cohen_kappa_score(x, y, labels=labels, weights="quadratic")
        counts = np.zeros((n_labels, n_labels))
        np.add.at(counts, (x, y), 1)
        for name, weights in (("kappa", None), ("kappa_linear", "linear"), ("kappa_quadratic", "quadratic")):
            theirs = cohens_kappa(counts, wt=weights, return_results=True).kappa if len({*x, *y}) > 1 else math.nan
            assert found[name] == pytest.approx(theirs, abs=1e-10, nan_ok=True), (name, "scikit-learn and statsmodels")
        found["pearson"] = pearsonr(x, y).statistic
        found["spearman"] = spearmanr(x, y).statistic
        found["kendall_tau_b"] = kendalltau(x, y).statistic
    return found


LIBRARY_CONVENTIONS = {"mcc": 0.0}
"""What a library returns where we say nan: scikit-learn calls the MCC of a constant side 0."""


BLOCKS = [pytest.param(block, marks=[pytest.mark.slow] if block >= 2 else []) for block in range(10)]


@pytest.mark.parametrize("block", BLOCKS)
def test_five_hundred_random_cases_agree_with_libraries_and_the_textbook(block):
    """By label, by table, by library and by slow loops: four ways to the same number, undefined ones included."""
    for seed in range(50 * block, 50 * block + 50):
        gold, said, n_labels = random_case(seed)
        positive = 1 if n_labels == 2 else None
        outcomes = outcomes_of(gold, said, n_labels, positive=None if positive is None else "1")
        found = agreement_statistics(outcomes)
        slow = textbook.agreement_statistics(gold, said, n_labels, positive)
        counted = statistics_from_counts(group_counts(outcomes).sum(0), positive=positive, ordered=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries warn where a statistic is undefined
            library = library_statistics(gold, said, n_labels, positive)
        assert set(found) == set(counted)
        # One with a function of its own is that function both times: its test holds it against something else.
        assert set(slow) == {name for name in found if STATISTICS[name].from_counts is None}
        for name, value in found.items():
            assert name not in slow or value == pytest.approx(slow[name], abs=1e-10, nan_ok=True), (seed, name)
            assert float(counted[name]) == pytest.approx(value, abs=1e-10, nan_ok=True), (seed, name)
            if name in library:
                expected = library[name]
                if math.isnan(value):
                    expected = math.nan if math.isnan(expected) else expected - LIBRARY_CONVENTIONS.get(name, math.inf)
                    assert math.isnan(expected) or expected == 0, (seed, name)
                else:
                    assert value == pytest.approx(expected, abs=1e-10), (seed, name)
            statistic = STATISTICS[name]
            if statistic.low > -1 or name in ("mcc", "pearson", "spearman", "kendall_tau_b"):
                assert math.isnan(value) or statistic.low - 1e-9 <= value <= 1 + 1e-9


def random_ratings(seed):
    rng = np.random.default_rng(1000 + seed)
    n_labels, n_raters = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    n = int(rng.choice([1, 2, 4, 15]))
    truth = rng.integers(0, rng.integers(1, n_labels + 1), n)[:, None]
    ratings = np.where(
        rng.random((n, n_raters)) < rng.random(), truth, rng.integers(0, rng.integers(1, n_labels + 1), (n, n_raters))
    )
    gaps = rng.random((n, n_raters)) < rng.choice([0.0, 0.3, 0.8])
    return np.where(gaps, MISSING, ratings), n_labels


@pytest.mark.parametrize("block", BLOCKS)
def test_five_hundred_tables_of_several_raters_with_gaps(block):
    for seed in range(50 * block, 50 * block + 50):
        ratings, n_labels = random_ratings(seed)
        units = [[int(v) for v in row if v != MISSING] for row in ratings]
        for weights in ("identity", "linear", "quadratic"):
            expected = textbook.gwet(units, n_labels, weights)
            assert gwet_ac(ratings, n_labels, weights) == pytest.approx(expected, abs=1e-10, nan_ok=True), seed
            a, b = ([None if v == MISSING else int(v) for v in ratings[:, j]] for j in (0, 1))
            expected = textbook.kappa(a, b, n_labels, weights)
            found = cohen_kappa(ratings[:, 0], ratings[:, 1], n_labels, weights)
            assert found == pytest.approx(expected, abs=1e-10, nan_ok=True), seed
        for scale in ("nominal", "ordinal", "interval"):
            expected = textbook.alpha(units, n_labels, scale)
            found = krippendorff_alpha(ratings, n_labels, scale)
            assert found == pytest.approx(expected, abs=1e-10, nan_ok=True), (seed, scale)
        numbers = np.where(ratings == MISSING, np.nan, ratings)
        whole = [row for row in ratings.tolist() if MISSING not in row]
        found = icc(numbers)
        assert (found.icc_1_1, found.icc_2_1, found.icc_3_1) == pytest.approx(
            textbook.icc(whole), abs=1e-10, nan_ok=True
        ), seed


def icc_by_anova(table):
    """Shrout & Fleiss's three coefficients from statsmodels' analysis of variance of the ratings."""
    n, k = table.shape
    frame = pd.DataFrame({"value": table.ravel(), "case": np.repeat(range(n), k), "rater": np.tile(range(k), n)})
    two = anova_lm(ols("value ~ C(case) + C(rater)", frame).fit())
    one = anova_lm(ols("value ~ C(case)", frame).fit())
    bms, jms, ems = (two.loc[name, "mean_sq"] for name in ("C(case)", "C(rater)", "Residual"))
    wms = one.loc["Residual", "mean_sq"]
    return (
        (bms - wms) / (bms + (k - 1) * wms),
        (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n),
        (bms - ems) / (bms + (k - 1) * ems),
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_icc_is_that_of_an_analysis_of_variance(block):
    for seed in range(50 * block, 50 * block + 50):
        rng = np.random.default_rng(seed)
        n, k = int(rng.integers(3, 12)), int(rng.integers(2, 5))
        table = (rng.integers(0, 5, (n, 1)) + rng.integers(-1, 2, (n, k))).astype(float)
        if len(np.unique(table.mean(1))) < 2:
            continue
        found = icc(table)
        values = (found.icc_1_1, found.icc_2_1, found.icc_3_1)
        assert values == pytest.approx(icc_by_anova(table), abs=1e-9, nan_ok=True), seed


@pytest.mark.parametrize("block", BLOCKS)
def test_alpha_of_two_raters_and_of_many_by_the_package(block):
    """`krippendorff` asked directly, in its own orientation, against both our door to it and the loops."""
    for seed in range(50 * block, 50 * block + 50):
        ratings, n_labels = random_ratings(seed)
        units = [[int(v) for v in row if v != MISSING] for row in ratings]
        values = {value for unit in units if len(unit) > 1 for value in unit}
        for scale in ("nominal", "ordinal", "interval"):
            expected = textbook.alpha(units, n_labels, scale)
            if len(values) < 2:
                assert math.isnan(expected)  # documented: undefined here, an error or nan there
                continue
            data = np.where(ratings == MISSING, np.nan, ratings).T
            theirs = krippendorff.alpha(data, level_of_measurement=scale, value_domain=list(range(n_labels)))
            assert expected == pytest.approx(theirs, abs=1e-10), (seed, scale)


def test_kappa_against_statsmodels():
    rng = np.random.default_rng(0)
    for n_labels in (2, 3, 5):
        a, b = rng.integers(0, n_labels, 60), rng.integers(0, n_labels, 60)
        counts = np.zeros((n_labels, n_labels))
        np.add.at(counts, (a, b), 1)
        assert cohen_kappa(a, b, n_labels) == pytest.approx(cohens_kappa(counts).kappa)
        for ours, theirs in (("linear", "linear"), ("quadratic", "quadratic")):
            assert cohen_kappa(a, b, n_labels, ours) == pytest.approx(cohens_kappa(counts, wt=theirs).kappa)


def test_binary_table_by_hand():
    #          said 1   said 0      100 rows: TPR 20/25, TNR 60/75
    # gold 1     20        5
    # gold 0     15       60
    gold = [1] * 25 + [0] * 75
    said = [1] * 20 + [0] * 5 + [1] * 15 + [0] * 60
    found = agreement_statistics(outcomes_of(gold, said, 2, ordered=False, positive="1"))
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["tpr"] == pytest.approx(0.8)
    assert found["tnr"] == pytest.approx(0.8)
    assert found["balanced_accuracy"] == pytest.approx(0.8)
    # (20*60 - 5*15) / sqrt(25 * 75 * 35 * 65)
    assert found["mcc"] == pytest.approx(1125 / math.sqrt(25 * 75 * 35 * 65))
    # chance .25*.35 + .75*.65 = .575: (.8 - .575) / .425
    assert found["kappa"] == pytest.approx(0.225 / 0.425)
    # share of 1 over both: .30; chance 2*.3*.7 = .42: (.8 - .42) / .58
    assert found["gwet_ac1"] == pytest.approx(0.38 / 0.58)
    # observed 2*20 unequal ordered pairs of 200 values; expected 2*60*140/199: alpha = 1 - 199*40/(2*60*140)
    assert found["alpha_nominal"] == pytest.approx(1 - 199 * 40 / (2 * 60 * 140))
    assert "pearson" not in found


def test_prevalence_moves_kappa_but_hardly_ac1():
    """Feinstein & Cicchetti's paradox: 95 % raw agreement, and a kappa near zero because one label is rare."""
    gold = [1] * 95 + [0] * 3 + [1] * 2
    said = [1] * 95 + [1] * 3 + [0] * 2
    found = agreement_statistics(outcomes_of(gold, said, 2, ordered=False, positive="1"))
    # chance .97*.98 + .03*.02 = .9512; kappa = (.95 - .9512) / .0488
    assert found["kappa"] == pytest.approx((0.95 - 0.9512) / 0.0488)
    # share of 1: .975, chance 2*.975*.025 = .04875
    assert found["gwet_ac1"] == pytest.approx((0.95 - 0.04875) / (1 - 0.04875))


def test_published_alpha():
    """Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, data C (four observers, twelve units, gaps)."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    ratings = np.array(table).T - 1  # 0 becomes MISSING
    assert krippendorff_alpha(ratings, 5, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(ratings, 5, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(ratings, 5, "interval") == pytest.approx(0.849, abs=5e-4)


def test_published_ac1_of_the_same_table():
    """Gwet's own value for these ratings (Handbook of Inter-Rater Reliability; irrCAC's `cac.raw4raters`)."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    assert gwet_ac(np.array(table).T - 1, 5) == pytest.approx(0.77544, abs=5e-6)


def test_published_icc():
    """Shrout & Fleiss (1979), table 2: six targets, four judges; ICC .17, .29, .71."""
    table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = icc(np.array(table, dtype=float))
    assert found.icc_1_1 == pytest.approx(0.1657, abs=5e-5)
    assert found.icc_2_1 == pytest.approx(0.2898, abs=5e-5)
    assert found.icc_3_1 == pytest.approx(0.7148, abs=5e-5)
    assert (found.n_cases, found.n_raters) == (6, 4)


def test_ordered_labels_by_hand():
    # gold 0 1 2, said 0 1 1: weights cost (2-1)^2 = 1, expected (0+1+1+1+0+0+4+1+1)/3 = 3; kappa = 1 - 1/3
    found = agreement_statistics(outcomes_of([0, 1, 2], [0, 1, 1], 3))
    assert found["kappa_quadratic"] == pytest.approx(2 / 3)
    assert found["within_one"] == 1
    # pairs: (0,1) concordant, (0,2) concordant, (1,2) tied in said: 2 / sqrt(3 * 2)
    assert found["kendall_tau_b"] == pytest.approx(2 / math.sqrt(6))
    # ranks 1 2 3 and 1 2.5 2.5: r = 1.5 / sqrt(2 * 1.5)
    assert found["spearman"] == pytest.approx(1.5 / math.sqrt(3))


def test_unreadable_answers_count_as_wrong_or_take_no_part():
    gold, said = [1, 1, 0, 0], [1, None, 0, None]
    outcomes = outcomes_of(gold, said, 2, ordered=False, positive="1")
    found = agreement_statistics(outcomes)
    assert (found["accuracy"], found["tpr"], found["tnr"]) == (0.5, 0.5, 0.5)
    assert (found["accuracy_on_schema"], found["kappa"]) == (1, 1)
    assert statistic_n(outcomes, "accuracy") == 4
    assert statistic_n(outcomes, "kappa") == 2
    assert statistic_n(outcomes, "tpr") == 2


def test_all_unreadable_and_one_class():
    nothing = agreement_statistics(outcomes_of([0, 1], [None, None], 2, positive="1"))
    assert nothing["accuracy"] == nothing["balanced_accuracy"] == 0
    for name, value in nothing.items():
        assert STATISTICS[name].rows == "all" or math.isnan(value), name
    one = agreement_statistics(outcomes_of([1, 1, 1], [1, 1, 1], 2, positive="1"))
    assert one["accuracy"] == one["gwet_ac1"] == one["tpr"] == 1
    assert all(math.isnan(one[name]) for name in ("mcc", "kappa", "alpha_nominal", "tnr", "pearson", "icc_1_1"))


def test_no_rows():
    outcomes = code_outcomes([Case("x", {}, gold="0")], [], labels=("0", "1"))
    with pytest.raises(DataError, match="nothing to measure"):
        agreement_statistics(outcomes)


def test_estimates_hold_their_values_and_repeat_by_seed():
    rng = np.random.default_rng(5)
    gold = rng.integers(0, 3, 120)
    said = [
        int(g) if r < 0.6 else (None if r < 0.65 else int(v))
        for g, r, v in zip(gold, rng.random(120), rng.integers(0, 3, 120), strict=True)
    ]
    outcomes = outcomes_of(gold.tolist(), said, 3, groups=[i // 4 for i in range(120)])
    found = agreement_estimates(outcomes, n_resamples=300, rng=np.random.default_rng(1))
    again = agreement_estimates(outcomes, n_resamples=300, rng=np.random.default_rng(1))
    assert found == again
    assert list(found) == list(agreement_statistics(outcomes))
    for name, estimate in found.items():
        assert estimate.low < estimate.value < estimate.high, name
        assert estimate.n == statistic_n(outcomes, name)
    assert found["accuracy"].method == "Wilson, n = rows / design effect"
    assert found["kappa"].method == "jackknife over groups, t on a transformed scale"
