import math
import time

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from statsmodels.stats.contingency_tables import cochrans_q

from medjudge.errors import DataError
from medjudge.metrics.by_generator import generator_table, heterogeneity, rate_heterogeneity, self_preference
from medjudge.metrics.classification import code_outcomes
from medjudge.metrics.exchange import _drawn_tables
from medjudge.records import Case, Unparsed, Verdict
from tests.shared_data import shared_rows

RNG = np.random.default_rng


def coded(rows, labels=("0", "1"), positive="1"):
    """rows: (gold, said or None, group)."""
    cases = [Case(str(i), {}, gold=g, group=group) for i, (g, _, group) in enumerate(rows)]
    said = [Unparsed(str(i), "", "none") if s is None else Verdict(str(i), s) for i, (_, s, _) in enumerate(rows)]
    return code_outcomes(cases, said, labels=labels, positive=positive)


def test_table_by_hand():
    # x: 2 of 4 positive, one of them missed, one unreadable negative; y: 1 of 4 positive, all called positive
    rows = [("1", "1", "a"), ("1", "0", "b"), ("0", "0", "c"), ("0", None, "d")]
    rows += [("1", "1", "a"), ("0", "1", "b"), ("0", "1", "c"), ("0", "1", "d")]
    x, y = generator_table(coded(rows), ["x"] * 4 + ["y"] * 4, n_resamples=100, rng=RNG(0))
    assert (x.generator, x.n, x.n_groups, x.n_unparsed) == ("x", 4, 4, 1)
    assert (x.prevalence.value, x.positive_rate.value, y.prevalence.value, y.positive_rate.value) == (
        0.5,
        0.25,
        0.25,
        1,
    )
    assert (x.statistics["tpr"].value, x.statistics["tnr"].value) == (0.5, 0.5)
    assert (y.statistics["tpr"].value, y.statistics["tnr"].value) == (1, 0)
    assert y.always_positive_f1 == pytest.approx(2 * 0.25 / 1.25)
    assert y.statistics["f1_positive"].value == pytest.approx(y.always_positive_f1)
    assert y.statistics["mcc"].value is None
    assert x.statistics["tpr"].n == 2


def test_rows_without_a_generator_and_tasks_without_a_positive_label():
    rows = [(g, s, "") for g, s in zip("abcabc", "abcaab", strict=True)]
    outcomes = coded(rows, labels=("a", "b", "c"), positive=None)
    (only,) = generator_table(outcomes, ["x"] * 5 + [""], n_resamples=50, rng=RNG(0))
    assert (only.n, only.prevalence, only.positive_rate) == (5, None, None)
    assert only.always_positive_f1 is None
    assert "tpr" not in only.statistics
    assert heterogeneity(outcomes, ["x"] * 5 + [""], rng=RNG(0)) == []
    with pytest.raises(DataError, match="2 generators were given for 6 rows"):
        generator_table(outcomes, ["x", "y"], rng=RNG(0))


def test_cochran_by_hand_and_by_statsmodels():
    # Three generators, six questions: column sums 6, 4, 2; row sums 2, 2, 2, 2, 2, 2
    table = np.array([[1, 1, 0]] * 4 + [[1, 0, 1]] * 2)
    hits, groups = table.ravel(), np.repeat(np.arange(6), 3)
    found = rate_heterogeneity(hits, ["x", "y", "z"] * 6, groups, n_resamples=4000, rng=RNG(0))
    # Q = (k-1) (k sum C^2 - N^2) / (k N - sum R^2) = 2 (3*56 - 144) / (36 - 24)
    assert found.statistic == pytest.approx(2 * (3 * 56 - 144) / 12)
    assert found.method == "Cochran's Q by permutation within groups"
    assert found.df == 2
    assert found.rates == pytest.approx({"x": 1, "y": 4 / 6, "z": 2 / 6})
    rng = RNG(4)
    table = rng.random((60, 4)) < np.array([0.3, 0.4, 0.5, 0.6])
    found = rate_heterogeneity(table.ravel(), list("wxyz") * 60, np.repeat(np.arange(60), 4), rng=rng)
    expected = cochrans_q(table)
    assert (found.statistic, found.p, found.method) == (
        pytest.approx(expected.statistic),
        pytest.approx(expected.pvalue),
        "Cochran's Q",
    )


def test_the_permuted_cochran_is_exact_on_a_table_small_enough_to_list():
    # Two questions, two generators, each question split: the two columns differ by 2 in 2 of 4 arrangements.
    found = rate_heterogeneity([1, 0, 1, 0], ["x", "y"] * 2, [0, 0, 1, 1], n_resamples=4000, rng=RNG(0))
    assert found.p == pytest.approx(0.5, abs=0.03)
    alike = rate_heterogeneity([1, 1, 0, 0], ["x", "y"] * 2, [0, 0, 1, 1], rng=RNG(0))
    assert (alike.statistic, alike.p) == (0, 1)


def test_independent_rows_are_chi_square_or_permuted():
    hits = np.array([1] * 20 + [0] * 30 + [1] * 35 + [0] * 15)
    found = rate_heterogeneity(hits, ["x"] * 50 + ["y"] * 50, np.arange(100), rng=RNG(0))
    expected = chi2_contingency([[20, 30], [35, 15]], correction=False)
    assert (found.statistic, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert found.method == "chi-square"
    # 4 of 4 against 0 of 4: Fisher's two-sided p is 2 / C(8, 4)
    few = rate_heterogeneity([1] * 4 + [0] * 4, ["x"] * 4 + ["y"] * 4, np.arange(8), n_resamples=6000, rng=RNG(1))
    assert few.method == "chi-square by permutation of rows"
    assert few.p == pytest.approx(2 / 70, abs=0.008)
    flat = rate_heterogeneity([1] * 8, ["x"] * 4 + ["y"] * 4, np.arange(8), rng=RNG(1))
    assert (flat.statistic, flat.p, flat.sd) == (0, 1, 0)


def test_groups_with_one_generator_each_are_permuted_whole():
    # Four groups of ten equal rows: 2 x and 2 y groups. Rows are 40, but only 6 arrangements of groups exist.
    hits = np.repeat([1, 1, 0, 0], 10)
    names = ["x"] * 20 + ["y"] * 20
    found = rate_heterogeneity(hits, names, np.repeat(np.arange(4), 10), n_resamples=3000, rng=RNG(0))
    assert found.method == "chi-square by permutation of groups"
    assert found.p == pytest.approx(2 / 6, abs=0.03)


def test_groups_that_some_generators_share_are_permuted_within():
    hits, names, groups = [1, 0, 1, 0, 1], ["x", "y", "x", "y", "x"], [0, 0, 1, 1, 2]
    found = rate_heterogeneity(hits[:4] * 2, names[:4] * 2, [0, 0, 1, 1, 2, 2, 3, 3], n_resamples=3000, rng=RNG(0))
    assert found.method == "Cochran's Q by permutation within groups"
    assert found.p == pytest.approx(2 / 16, abs=0.02)  # one side wins all four groups in 2 of 16 arrangements
    both = rate_heterogeneity(hits, names, groups, n_resamples=3000, rng=RNG(0))
    assert both.method == "chi-square by permutation within groups and of groups"
    # 4 arrangements within groups by 3 of the groups' totals; no other is as far out as x right throughout, y never
    assert both.p == pytest.approx(1 / 12, abs=0.02)


def test_two_rows_of_a_generator_show_nothing():
    """A generator whose two rows are both wrong: a covariance from its own rows would be 0, and p 3e-24."""
    hits = np.r_[np.arange(150) % 2, [0, 0]].astype(bool)
    found = rate_heterogeneity(hits, ["A"] * 150 + ["B"] * 2, np.r_[np.arange(150), [0, 1]], rng=RNG(0))
    # Within: the A row of group 1 is right and B's wrong, 1 of 2 arrangements. Between: 2 wrong of 4, no less common.
    assert 0.1 < found.p < 0.6


def few_rows(rng, n_rows):
    """A with 150 questions, B with 1 to 5 rows of them; one rate."""
    groups = np.r_[np.arange(150), rng.choice(150, n_rows, replace=False)]
    return rng.random(len(groups)) < 0.5, ["A"] * 150 + ["B"] * n_rows, groups


def rare_misses(rng, icc):
    """Four generators of 108 rows and one of 12, all right in 95 %."""
    groups = np.r_[rng.integers(0, 150, 432), rng.choice(150, 12, replace=False)]
    rate = np.full(150, 0.95) if icc == 0 else rng.beta(0.95 * (1 / icc - 1), 0.05 * (1 / icc - 1), 150)
    return rng.random(444) < rate[groups], np.repeat(list("abcde"), [108] * 4 + [12]).tolist(), groups


def unequal_groups(rng):
    """15 groups of 12 rows by A, 100 of 1 or 2 by B, rows of a group alike (ICC .3)."""
    size = np.r_[np.full(15, 12), rng.integers(1, 3, 100)]
    groups = np.repeat(np.arange(115), size)
    return rng.random(len(groups)) < rng.beta(1.63, 0.7, 115)[groups], np.where(groups < 15, "A", "B").tolist(), groups


def rare_clustered(rng):
    """400 groups of 1 to 11 rows by one of five generators, right in 95 %, ICC .3."""
    groups = np.repeat(np.arange(400), rng.integers(1, 12, 400))
    names = rng.choice(list("abcde"), 400)[groups]
    return rng.random(len(groups)) < rng.beta(0.95 * 7 / 3, 0.05 * 7 / 3, 400)[groups], names.tolist(), groups


NULL_SETS = {
    **{f"B has {n} rows": (lambda rng, n=n: few_rows(rng, n)) for n in (1, 2, 3, 5)},
    "rare misses": lambda rng: rare_misses(rng, 0.0),
    "rare misses, clustered": lambda rng: rare_misses(rng, 0.3),
    "unequal groups": unequal_groups,
    "rare, nested": rare_clustered,
}


@pytest.mark.parametrize("name", NULL_SETS)
def test_generators_of_one_rate_seldom_differ(name):
    rng = RNG(12)
    p = [
        rate_heterogeneity(hits, names, groups, n_resamples=99, rng=rng).p
        for hits, names, groups in (NULL_SETS[name](rng) for _ in range(300))
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("n_mixed", [1, 5, 20])
def test_generators_that_lie_between_groups_are_told_apart_though_some_groups_are_mixed(n_mixed):
    rng = RNG(5)
    hits = np.r_[rng.random(150) < 0.89, rng.random(150) < 0.09, np.tile([1, 0, 1, 0, 1], n_mixed)]
    names = ["x"] * 150 + ["y"] * 150 + list("xyyxx") * n_mixed  # the mixed groups say nothing
    found = rate_heterogeneity(hits, names, np.repeat(np.arange(60 + n_mixed), 5), rng=rng)
    assert found.p == pytest.approx(1e-4)


def test_a_generator_alone_in_its_groups_is_compared_with_two_that_share_theirs():
    rng = RNG(6)
    hits = np.r_[rng.random(160) < 0.8, rng.random(160) < 0.4]
    names = ["x"] * 160 + ["y", "z"] * 80
    assert rate_heterogeneity(hits, names, np.repeat(np.arange(80), 4), n_resamples=999, rng=rng).p == 0.001


def test_one_group_per_generator_shows_nothing():
    hits = np.r_[np.ones(40), np.zeros(40), np.arange(40) % 2]
    found = rate_heterogeneity(hits, np.repeat(list("xyz"), 40).tolist(), np.repeat(np.arange(3), 40), rng=RNG(0))
    assert found.p == 1


def test_random_tables_keep_their_margins_and_have_the_hypergeometric_mean():
    tables = _drawn_tables(np.array([3, 5, 2]), np.array([4, 6]), 4000, RNG(0))
    assert (tables.sum(2) == [3, 5, 2]).all()
    assert (tables.sum(1) == [4, 6]).all()
    assert tables.mean(0) == pytest.approx(np.outer([3, 5, 2], [0.4, 0.6]), abs=0.06)


def test_the_three_ways_of_drawing_agree(monkeypatch):
    """Alike groups together, ways listed or rows drawn one by one: one distribution."""
    rng = RNG(3)
    groups = np.repeat(np.arange(60), 4)
    hits, names = rng.random(240) < 0.6, rng.choice(list("xyz"), 240).tolist()
    usual = rate_heterogeneity(hits, names, groups, n_resamples=4000, rng=RNG(1)).p
    monkeypatch.setattr("medjudge.metrics.exchange._MAX_LISTED", 0)
    monkeypatch.setattr("medjudge.metrics.exchange._DRAWS_PER_TABLE_ENTRY", 10**9)
    assert rate_heterogeneity(hits, names, groups, n_resamples=4000, rng=RNG(2)).p == pytest.approx(usual, abs=0.04)


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_seconds():
    rng = RNG(0)
    names = rng.choice(list("abcdefgh"), 100_000)
    names[:3] = "z"
    for groups in (np.arange(100_000), np.arange(100_000) // 5, rng.integers(0, 20_000, 100_000)):
        start = time.process_time()
        rate_heterogeneity(rng.random(100_000) < 0.9, names.tolist(), groups, rng=rng)
        assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("nested", "n_groups"),
    [(True, 120), (False, 120), *(pytest.param(nested, 30, marks=pytest.mark.slow) for nested in (True, False))],
)
def test_level_is_kept_on_grouped_rows(nested, n_groups):
    """Generators of one rate, rows alike within groups: p <= .05 in about 5 % of 300 draws."""
    rng = RNG(6)
    rejected, variance, expected = 0, [], []
    for _ in range(300):
        rate = rng.beta(1, 1, n_groups)
        size = rng.integers(2, 5, n_groups)
        groups = np.repeat(np.arange(n_groups), size)
        hits = rng.random(len(groups)) < rate[groups]
        names = rng.choice(list("abc"), n_groups)[groups] if nested else rng.choice(list("abc"), len(groups))
        found = rate_heterogeneity(hits, names.tolist(), groups, n_resamples=99, rng=rng)
        rejected += found.p <= 0.05
        variance.append(found.sd**2)
        expected.append(found.sampling_sd**2)
    assert 0.02 <= rejected / 300 <= 0.085
    assert np.mean(variance) == pytest.approx(np.mean(expected), rel=0.2)


def test_excess_spread():
    hits = np.array([1] * 90 + [0] * 10 + [1] * 10 + [0] * 90)
    found = rate_heterogeneity(hits, ["x"] * 100 + ["y"] * 100, np.arange(200), rng=RNG(0))
    # rates .9 and .1: variance .32; sampling .09/99 each
    assert found.sd**2 == pytest.approx(0.32)
    assert found.sampling_sd**2 == pytest.approx(0.09 / 99)
    assert found.excess_sd == pytest.approx(math.sqrt(0.32 - 0.09 / 99))
    # One row of y: its rate is 1 or 0 whatever its truth, which leaves no spread to explain.
    one = rate_heterogeneity([0, 1] * 50 + [1], ["x"] * 100 + ["y"], np.arange(101), rng=RNG(0))
    assert one.excess_sd == 0


def test_self_preference_by_hand():
    # own: 4 rows, 1 gold positive, 3 called positive: error +.5; 2 of 3 negatives called positive
    # other: 4 rows, 2 gold positive, 2 called positive: error 0; 1 of 2 negatives
    rows = [("1", "1", "a"), ("0", "1", "b"), ("0", "1", "c"), ("0", "0", "d")]
    rows += [("1", "1", "a"), ("1", "0", "b"), ("0", "1", "c"), ("0", "0", "d")]
    rows += [("0", "1", "a")]
    names = ["own-7b"] * 4 + ["other"] * 4 + ["unknown"]
    families = {"own-7b": "qwen", "other": "llama"}
    found = self_preference(coded(rows), names, families, "qwen", n_resamples=200, rng=RNG(0))
    assert (found.n_own, found.n_other) == (4, 4)
    assert found.positive_rate_error.value == pytest.approx(0.5)
    assert found.false_positive_rate.value == pytest.approx(2 / 3 - 1 / 2)
    assert (found.positive_rate_error.n, found.false_positive_rate.n) == (8, 5)
    assert self_preference(coded(rows), names, families, "gemma", rng=RNG(0)) is None
    with pytest.raises(DataError, match="no positive label"):
        self_preference(coded([("a", "a", "")], ("a", "b"), None), ["x"], {}, "q", rng=RNG(0))


def test_the_french_judge_set_has_an_always_positive_f1_of_26_to_59():
    """All 300 published evaluation rows: calling everything positive scores by the generator, not by any skill."""
    rows = [row for row in shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl") if row["split"] == "eval"]
    outcomes = coded([(str(row["label"]), "1", row["question"]) for row in rows])
    generators = [row["generator"] for row in rows]
    table = generator_table(outcomes, generators, n_resamples=200, rng=RNG(0))
    assert [row.n for row in table] == [60] * 5
    assert {row.generator: round(row.prevalence.value, 3) for row in table} == {
        "Gemma_3_4b_it": 0.417,
        "LLama_13b_chat_SFT": 0.3,
        "MedGemma_4b_it": 0.367,
        "Qwen_4B_sft": 0.15,
        "Qwen_4b_it": 0.383,
    }
    assert (min(r.always_positive_f1 for r in table), max(r.always_positive_f1 for r in table)) == (
        pytest.approx(0.26, abs=0.005),
        pytest.approx(0.59, abs=0.005),
    )
    for row in table:
        assert row.statistics["f1_positive"].value == pytest.approx(row.always_positive_f1)
        assert row.minimum_detectable > 0.15  # 60 rows show no less than 17 points
    by_outcome = {found.outcome: found for found in heterogeneity(outcomes, generators, rng=RNG(0))}
    assert by_outcome["prevalence"].method == "Cochran's Q"
    assert by_outcome["prevalence"].p < 0.001
    assert by_outcome["prevalence"].sd ** 2 > 2 * by_outcome["prevalence"].sampling_sd ** 2
    assert by_outcome["tpr"].p == 1
