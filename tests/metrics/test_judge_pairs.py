"""Which judges are compared, and that a pair has one test of accuracy wherever it is shown."""

import numpy as np
import pytest
from scipy.stats import binomtest

from medjudge.metrics.classification import code_outcomes, due_cases
from medjudge.metrics.judge_pairs import JudgePair, compare_all, compare_unpaired
from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.records import Case, Verdict
from medjudge.tasks.scale import LabelScale

CASES = [Case(str(i), {}, gold=str(i % 2)) for i in range(40)]


def verdicts(n_right, cases=CASES):
    return [Verdict(c.case_id, c.gold if i < n_right else str(1 - int(c.gold))) for i, c in enumerate(cases)]


def coded(answers):
    return {
        name: code_outcomes(CASES, said, labels=("0", "1"), positive="1", due={one.case_id for one in said})
        for name, said in answers.items()
    }


def test_with_a_row_per_group_the_test_is_mcnemars():
    judges = coded({"a": verdicts(30), "b": verdicts(18)})
    one, turned = JudgePair.of("a", "b", judges), JudgePair.of("b", "a", judges)
    assert (one.only_a, one.only_b) == (12, 0) == (turned.only_b, turned.only_a)
    assert one.test.p == pytest.approx(binomtest(12, 12).pvalue)
    assert one.test == turned.test


def test_both_tables_of_a_page_hold_the_same_test_of_accuracy():
    said = {"base": verdicts(18), "sft": verdicts(26), "grpo": verdicts(30)}
    results = summarise(
        CASES,
        said,
        contract=LabelScale(labels=("0", "1"), positive="1"),
        split="test",
        options=AnalysisOptions(reference="base", n_resamples=20),
    )
    pairs = {(one.a, one.b): one for one in results.audit.pairs}
    assert [(one.a, one.b) for one in results.comparisons] == [("sft", "base"), ("grpo", "base"), ("grpo", "sft")]
    for one in results.comparisons:
        other = pairs[one.a, one.b]
        assert (one.mcnemar.only_a, one.mcnemar.only_b) == (other.only_a, other.only_b)
        assert (one.tests["accuracy"].p, one.mcnemar.adjusted_p) == (other.p, other.adjusted_p)
    tests_of_accuracy = [claim for claim in results.claims if (claim.kind, claim.what) == ("difference", "accuracy")]
    assert len(tests_of_accuracy) == 3  # one per pair, though two tables show it


@pytest.mark.parametrize(("n_judges", "n_pairs"), [(5, 10), (6, 5)])
def test_many_judges_are_each_compared_with_the_first(n_judges, n_pairs):
    pairs = compare_all(coded({f"j{i}": verdicts(20 + i) for i in range(n_judges)}), level=0.95, seed=0)
    assert len(pairs) == n_pairs
    if n_judges > 5:
        assert {one.b for one in pairs} == {"j0"}


def test_judges_without_a_common_case_are_compared_as_independent_sets():
    said = {"early": verdicts(19, CASES[:20]), "late": verdicts(5, CASES[20:])}
    assert due_cases({c.case_id for c in CASES}, {n: {v.case_id for v in s} for n, s in said.items()})["early"] == {
        c.case_id for c in CASES[:20]
    }
    judges = coded(said)
    assert compare_all(judges, level=0.95, seed=0) == ()
    (one,) = compare_unpaired(judges, 0)
    assert (one.a, one.b, one.n_a, one.n_b) == ("late", "early", 20, 20)
    assert (one.accuracy_a, one.accuracy_b) == (0.25, 0.95)
    assert one.p < 0.001
    assert compare_unpaired(coded({"a": verdicts(30), "b": verdicts(18)}), 0) == ()


def test_apart_is_plus_one_where_only_a_is_right():
    pair = JudgePair.of("a", "b", coded({"a": verdicts(30), "b": verdicts(18)}))
    assert np.array_equal(pair.apart, [0.0] * 18 + [1.0] * 12 + [0.0] * 10)
