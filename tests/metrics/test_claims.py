"""What a page may claim: one correction over every test, groups counted, and nothing from few of them."""

import numpy as np
import pytest

from medjudge.commands.score import label_scale
from medjudge.metrics.baselines import Baselines
from medjudge.metrics.claims import Claim, decide, find_claim, n_tests
from medjudge.metrics.coverage import outcome_sentence
from medjudge.metrics.metric_result import TestResult
from medjudge.metrics.probes import JudgeProbes, Probes, flip_rate, probe_result
from medjudge.metrics.result_types import Results
from medjudge.metrics.summary import AnalysisOptions, summarise, with_claims
from medjudge.records import Case, Unparsed, Verdict
from medjudge.reporting.audit_figures import audit_pictures
from medjudge.reporting.audit_tables import page_grids
from medjudge.reporting.inputs import DASH, chance_text
from medjudge.tasks.equivalence import EquivalenceContract

CLAIMS = (
    "more accurate than",
    "less accurate than",
    "is above chance",
    "is below chance",
    "y differs between generators",
    "positives differs between generators",
    "is overconfident",
    "is underconfident",
    "is miscalibrated",
    "favours its own family",
    "positive by",
)


def made(n_groups, per_group, gold=None, generators=()):
    """Cases in groups, every second one positive unless said; generators in turn."""
    return [
        Case(
            f"c{i}",
            {"q": "x"},
            gold=str(i % 2 if gold is None else gold[i]),
            group=f"g{i // per_group}",
            slices={"generator": generators[i % len(generators)]} if generators else {},
        )
        for i in range(n_groups * per_group)
    ]


def said(cases, right, confidence=None):
    stated = [None] * len(cases) if confidence is None else [float(c) for c in confidence]
    return [
        Verdict(case.case_id, case.gold if ok else str(1 - int(case.gold)), confidence=c)
        for case, ok, c in zip(cases, right, stated, strict=True)
    ]


def page(cases, judges, *, baselines=None, **options):
    return summarise(
        cases,
        judges,
        contract=EquivalenceContract(),
        split="test",
        baselines=Baselines(baselines or {}),
        options=AnalysisOptions(n_resamples=200, **options),
    )


def sentences(results):
    probes = results.probes.statements if results.probes else ()
    return [*results.statements, *results.audit.statements, *probes]


def claims_in(results):
    return [line for line in sentences(results) if any(words in line for words in CLAIMS)]


def one(p, about="a", *, n_groups=50, **settings):
    return Claim(kind="chance", about=(about,), what="accuracy", p=p, n_groups=n_groups, method="t", **settings)


def test_one_family_by_hand():
    """Holm on .01, .02, .03 (and one that could not be tested): 3 x .01, 2 x .02, then no less than the one before."""
    decided = decide([one(0.01, "a"), one(0.03, "b"), one(None, "c"), one(0.02, "d")], 0.95)
    assert [claim.adjusted_p for claim in decided] == pytest.approx([0.03, 0.04, None, 0.04])
    assert [claim.claimed for claim in decided] == [True, True, False, True]
    assert n_tests(decided) == 3


def test_the_rule_needs_p_the_interval_and_the_groups():
    assert decide([one(0.01)], 0.95)[0].claimed
    assert not decide([one(0.01, n_groups=5)], 0.95)[0].claimed  # five groups that agree: 2 / 32
    assert decide([one(0.01, n_groups=5)], 0.9)[0].claimed
    assert not decide([one(0.01, low=-1.0, high=4.0)], 0.95)[0].claimed
    assert decide([one(0.01, low=0.3, high=0.4, null=0.25)], 0.95)[0].claimed
    assert not decide([one(0.01, low=0.2, high=0.4, null=0.25)], 0.95)[0].claimed


def test_a_pair_is_tested_once_in_either_order():
    tests = [
        Claim(kind="difference", about=pair, what="accuracy", p=0.04, n_groups=9, method="")
        for pair in (("a", "b"), ("b", "a"))
    ]
    decided = decide(tests, 0.95)
    assert (len(decided), decided[0].adjusted_p) == (1, 0.04)
    assert find_claim(decided, "difference", ("b", "a"), "accuracy") == decided[0]


def test_the_smallest_permutation_p_can_be_claimed_among_a_hundred_tests():
    decided = decide([one(1e-4, "real"), *(one(0.5, str(i)) for i in range(100))], 0.95)
    assert decided[0].claimed


def five_judges(seed):
    """30 groups of 20 rows, intraclass correlation .3, all judges right on 70 % of them."""
    rng = np.random.default_rng(seed)
    cases = made(30, 20)
    shares = rng.beta(0.7 * 7 / 3, 0.3 * 7 / 3, (5, 30))
    return cases, {f"judge{k}": said(cases, rng.random(600) < np.repeat(shares[k], 20)) for k in range(5)}


@pytest.mark.parametrize("seed", [3, 5])
def test_five_equal_judges_are_not_told_apart(seed):
    """Sets in which an interval leaves out zero and McNemar's test, blind to groups, rejects after its correction."""
    cases, judges = five_judges(seed)
    results = page(cases, judges, reference="judge0")
    assert any(c.mcnemar.p < 0.005 for c in results.comparisons)
    assert not [line for line in claims_in(results) if "accurate" in line]


def test_four_judges_on_four_generators_of_one_kind():
    """Sixteen tests of equal rates, some of which alone are below .05."""
    rng = np.random.default_rng(0)
    cases = made(600, 1, rng.integers(0, 2, 600), generators=("m0", "m1", "m2", "m3"))
    results = page(cases, {f"judge{k}": said(cases, rng.random(600) < 0.8) for k in range(4)})
    tests = [test for judge in results.audit.judges.values() for test in judge.heterogeneity]
    assert min(test.p for test in tests) < 0.05
    assert not [line for line in claims_in(results) if "generators" in line]
    # The share of gold positives is the same to every judge: one test, not four.
    assert [c.about for c in results.claims if c.what == "prevalence"] == [()]


def test_what_is_true_is_still_claimed():
    """Six judges, one 20 points better, one overconfident and half as good on one generator: among 60 tests."""
    rng = np.random.default_rng(0)
    cases = made(200, 3, generators=("m0", "m1", "m2"))
    easy = np.arange(600) % 3 > 0
    judges = {f"judge{k}": said(cases, rng.random(600) < 0.65, np.full(600, 0.65)) for k in range(4)}
    judges["good"] = said(cases, rng.random(600) < 0.85, rng.choice([0.8, 0.9], 600))
    judges["loud"] = said(cases, rng.random(600) < np.where(easy, 0.8, 0.4), rng.choice([0.8, 0.9], 600))
    results = page(cases, judges, reference="judge0")
    said_so = "\n".join(claims_in(results))
    assert n_tests(results.claims) > 60
    assert "good is " in said_so.split("more accurate than judge0")[0]
    assert "loud's accuracy differs between generators" in said_so
    assert "loud is overconfident" in said_so


def test_an_own_family_in_four_groups_is_not_favoured():
    """In each of four groups the judge passes its own family's negatives: two of 16 signings, p = .125."""
    cases = made(4, 20, [0] * 80, generators=("own-7b", "rival"))
    right = [case.slices["generator"] == "rival" or i % 8 for i, case in enumerate(cases)]
    families = {"judge": "own", "own-7b": "own", "rival": "rival"}
    results = page(cases, {"judge": said(cases, right)}, families=families)
    line = next(line for line in results.audit.statements if "own family" in line)
    assert line.startswith("judge is not shown to favour its own family (own): +25.0 points")
    more = made(40, 20, [0] * 800, generators=("own-7b", "rival"))
    right = [case.slices["generator"] == "rival" or i % 8 for i, case in enumerate(more)]
    results = page(more, {"judge": said(more, right)}, families=families)
    assert any("judge favours its own family" in line for line in results.audit.statements)


@pytest.mark.parametrize(("n_groups", "claimed"), [(4, False), (20, True)])
def test_a_probe_that_moves_few_groups_moves_no_judge(n_groups, claimed):
    cases = made(n_groups, 10, [0] * (10 * n_groups))
    before = {one.case_id: one for one in said(cases, [True] * len(cases))}
    after = {one.case_id: one for one in said(cases, [i % 10 > 2 + i // 10 % 2 for i in range(len(cases))])}
    found = flip_rate(
        before,
        after,
        {key: {"0": "0", "1": "1"} for key in before},
        {case.case_id: case.group for case in cases},
        positive="1",
        rng=np.random.default_rng(0),
    )
    assert found.to_positive.low > 0  # the bootstrap of the groups would have claimed it
    probe = probe_result(found, title="padding", change="two sentences", n_cases=len(cases))
    probes = Probes(judges={"judge": JudgeProbes(flips={"padding": probe}, consistency=None, not_asked={})}, skipped={})
    results = page(cases, {"judge": list(before.values())})
    probed = with_claims(results.model_copy(update={"probes": probes}))
    assert n_tests(probed.claims) == n_tests(results.claims) + 1
    assert any("towards positive by" in line for line in probed.probes.statements) == claimed


def test_confidence_in_groups_that_are_right_together():
    """Eight groups of 25, five right throughout: 22 points off is far to 200 rows, and nothing to eight groups."""
    cases = made(8, 25)
    right = np.arange(200) // 25 < 5
    results = page(cases, {"judge": said(cases, right, np.where(np.arange(200) % 2, 0.8, 0.9))})
    assert abs(0.85 - 0.625) > 1.96 * (0.625 * 0.375 / 200) ** 0.5
    assert any("judge is not shown to be miscalibrated: mean confidence 85.0 %" in line for line in sentences(results))


def test_a_confidence_that_does_not_vary_chooses_nothing():
    cases = made(100, 2)
    right = np.arange(200) % 10 > 0
    results = page(cases, {"judge": said(cases, right, np.full(200, 0.9) + 1e-9 * (np.arange(200) % 3))})
    grids = [grid.caption for grid in page_grids(results)["confidence"]]
    assert grids == ["Confidence"]
    assert not audit_pictures(results)
    assert results.audit.judges["judge"].calibration.selective == ()
    (line,) = [line for line in results.audit.statements if "mean confidence" in line]
    assert "all confidences are equal, so they cannot rank verdicts" in line


def test_verdicts_without_a_confidence_are_counted():
    cases = made(24, 1)
    stated = np.where(np.arange(24) % 2, np.nan, 0.9)
    judged = [
        Verdict(case.case_id, one.label, confidence=None if np.isnan(c) else c)
        for case, one, c in zip(cases, said(cases, np.arange(24) < 20), stated, strict=True)
    ]
    results = page(cases, {"judge": judged})
    (line,) = [line for line in results.audit.statements if "mean confidence" in line]
    assert "n = 12" in line
    assert line.endswith("; 12 of 24 verdicts have no confidence and take no part.")


def test_no_observed_power():
    """The rows that the difference seen would need say no more than its p."""
    rng = np.random.default_rng(0)
    cases = made(60, 1)
    results = page(cases, {name: said(cases, rng.random(60) < 0.7) for name in "ab"})
    assert not [line for line in sentences(results) if "would be needed" in line]
    assert any("detect differences from" in line and "seen" not in line for line in results.audit.statements)
    assert "Rows needed" not in page_grids(results)["pairs"][0].columns
    assert results.audit.pairs[0].power.rows_needed is None


def test_every_model_is_compared_with_the_best_baseline_which_pays_for_being_picked():
    """Where a model is ahead its p is the test's own: each has one in the family. Behind: p times two baselines."""
    rng = np.random.default_rng(1)
    cases = made(100, 1)
    judges = {f"m{k}": said(cases, rng.random(100) < share) for k, share in enumerate((0.6, 0.65, 0.9))}
    baselines = {f"b{k}": said(cases, rng.random(100) < share) for k, share in enumerate((0.4, 0.2))}
    ahead = page(cases, judges, baselines=baselines)
    compared = [c for c in ahead.comparisons if c.kind == "baseline"]
    assert [(c.a, c.b) for c in compared] == [("m2", "b0"), ("m0", "b0"), ("m1", "b0")]
    for comparison in compared:
        claim = find_claim(ahead.claims, "difference", (comparison.a, comparison.b), "accuracy")
        assert claim.p == comparison.tests["accuracy"].p
        assert claim.adjusted_p >= claim.p
    first, *others = [line for line in ahead.statements if "the most accurate baseline (b0)" in line]
    assert first.startswith("The most accurate model on these rows (m2) is ")
    assert [line.split()[0] for line in others] == ["m0", "m1"]
    behind = page(cases, {"m": judges["m0"]}, baselines={"b0": judges["m2"], "b1": baselines["b1"]})
    (comparison,) = [c for c in behind.comparisons if c.kind == "baseline"]
    claim = find_claim(behind.claims, "difference", ("m", "b0"), "accuracy")
    assert claim.p == pytest.approx(2 * comparison.tests["accuracy"].p)


def test_results_of_an_earlier_program_claim_nothing_new():
    cases = made(40, 1)
    results = page(cases, {"a": said(cases, [True] * 40), "b": said(cases, [False] * 40)})
    tree = results.to_json()
    del tree["claims"]
    for model in tree["models"].values():
        del model["chance_test"]
    for comparison in tree["comparisons"]:
        del comparison["tests"]
    for pair in tree["audit"]["pairs"]:
        del pair["n_groups"]
        pair["power"] |= {"effect": 1.0, "rows_needed": 8}
    earlier = Results.from_json(tree)
    assert earlier.statements == results.statements
    assert chance_text("a", results) == "above"
    assert chance_text("a", earlier) == DASH


def test_a_test_that_could_not_be_made_is_none():
    assert TestResult(p=None, n_groups=1, method="t").p is None


def answered(cases, n, right):
    """Verdicts on the first n cases, right or wrong all of them; no verdict on the others."""
    silent = [Unparsed(case.case_id, "", "not JSON") for case in cases[n:]]
    return [*said(cases[:n], [right] * n), *silent]


def test_silence_alone_puts_no_judge_below_chance():
    """Of 60 cases: 15 answered and right, none answered, 30 answered and wrong; accuracy 25 %, 0 % and 0 %."""
    cases = made(60, 1)
    results = page(
        cases,
        {"few": answered(cases, 15, True), "mute": answered(cases, 0, True), "wrong": answered(cases, 30, False)},
    )
    text = "\n".join(results.statements)
    assert "The accuracy of few, 25.0 % (15.8 to 37.2), counts 45 cases without a verdict as wrong; of the 15" in text
    assert "60 of mute's 60 answers (100.0 %) could not be read" in text
    assert "its accuracy of 0.0 % comes from missing verdicts alone" in text
    assert "The accuracy of wrong, 0.0 % (0.0 to 6.0), is below chance (50.0 %)" in text
    assert "n = 60; of the 30 answered, 0.0 % are right." in text
    assert text.count("is below chance") == 1
    assert [chance_text(name, results) for name in ("few", "mute", "wrong")] == ["not distinguishable", DASH, "below"]
    assert "could not be measured" in outcome_sentence(page(cases, {"mute": answered(cases, 0, True)}))


def test_rows_that_are_wrong_together_are_few_observations():
    """Twelve groups of two rows, all wrong on five labels: .8^24 = .005 for rows apart, .8^12 = .07 for groups."""
    cases = [Case(f"c{i}", {"q": "x"}, gold="1", group=f"g{i // 2}") for i in range(24)]
    results = summarise(
        cases,
        {"a": [Verdict(case.case_id, "5") for case in cases]},
        contract=label_scale("1,2,3,4,5"),
        split="test",
        options=AnalysisOptions(n_resamples=200),
    )
    line = next(line for line in results.statements if line.startswith("The accuracy of a,"))
    assert "is not distinguishable from chance (20.0 %), p = .11, n = 24." in line
