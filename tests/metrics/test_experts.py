"""Judges beside several experts: the human ceiling and the alternative annotator test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from medjudge.metrics.alternative_annotator import alternative_annotator
from medjudge.metrics.claims import find_claim
from medjudge.metrics.expert_results import AlternativeAnnotator, ExpertsResult
from medjudge.metrics.experts import code_ratings, experts_result
from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.reporting.expert_tables import expert_grids
from medjudge.tasks.scale import LabelScale

BINARY = LabelScale(labels=("no", "yes"), positive="yes")
GRADES = LabelScale(labels=("1", "2", "3", "4", "5"), ordered=True)
YN = {"y": "yes", "n": "no"}


def case(name: str, votes: str, gold: str | None = None, **kept: Any) -> Case:
    """votes: `yn-` is yes by the first expert, no by the second, nothing by the third."""
    ratings = {f"e{place}": YN[vote] for place, vote in enumerate(votes) if vote != "-"}
    return Case(name, {}, gold, ratings=ratings, **kept)


def verdicts(said: Mapping[str, str]) -> list[Judgement]:
    return [Verdict(name, YN[label]) if label in YN else Unparsed(name, "", "x") for name, label in said.items()]


def result(cases: list[Case], said: Mapping[str, str], **kept: Any) -> ExpertsResult:
    found = experts_result(cases, {"j": verdicts(said)}, contract=BINARY, **kept)
    assert found is not None
    return found


CASES = [case("a", "yyy"), case("b", "yyn"), case("c", "nnn"), case("d", "nyn"), case("e", "yy-"), case("f", "y--")]


def test_the_ceiling_by_hand() -> None:
    """Left out in turn, with the majority of the others: a three times right. b: e0 (others y, n) and e1 undecided, e2
    wrong. c three times right. d: e0 (y, n) and e2 undecided, e1 wrong. e: two right, each against the other. f alone.
    """
    found = result(CASES, dict.fromkeys("abcdef", "y"))
    assert (found.n_cases, found.n_raters, found.n_ratings, found.n_undecided) == (5, 3, 14, 4)
    assert found.ceiling is not None
    ceiling = found.ceiling.statistics["accuracy"]
    assert ceiling.n == 10
    assert ceiling.value == pytest.approx(8 / 10)
    # By expert: e0 right on a, c, e; e1 on a, c, e, wrong on d; e2 on a, c, wrong on b.
    assert {name: (one.n, one.statistics["accuracy"].value) for name, one in found.raters.items()} == {
        "e0": (3, 1.0),
        "e1": (4, pytest.approx(3 / 4)),
        "e2": (3, pytest.approx(2 / 3)),
    }
    # Always yes, against the same majorities: a 3 of 3, b 1 of 1, c 0 of 3, d 0 of 1, e 2 of 2.
    judge = found.judges["j"]
    assert (judge.n, judge.n_cases) == (10, 5)
    assert judge.statistics["accuracy"].value == pytest.approx(6 / 10)
    assert judge.ceiling.value == pytest.approx(8 / 10)
    assert judge.difference.value == pytest.approx(-20)
    assert found.slices["all"][0].disagreement.value == pytest.approx(2 / 5)
    assert found.slices["all"][0].positive.value == pytest.approx(8 / 14)  # type: ignore[union-attr]


def test_no_verdict_is_wrong_beside_the_experts() -> None:
    judge = result(CASES, {"a": "y", "b": "?", "c": "n", "d": "n"}).judges["j"]  # e: no row at all
    assert judge.n == 10
    assert judge.statistics["accuracy"].value == pytest.approx((3 + 0 + 3 + 1 + 0) / 10)


def test_nothing_without_two_ratings() -> None:
    assert experts_result([case("a", "y--")], {"j": verdicts({"a": "y"})}, contract=BINARY) is None


def test_two_experts_are_each_others_ceiling() -> None:
    cases = [case(f"c{at}", votes) for at, votes in enumerate(["yy", "nn", "yn", "ny", "nn"])]
    found = result(cases, {})
    assert found.ceiling is not None
    assert found.ceiling.statistics["accuracy"].value == pytest.approx(3 / 5) == found.agreement["percent"].value
    assert found.alternative == {}


def test_an_expert_as_judge_is_at_the_ceiling_of_the_others() -> None:
    """A judge that repeats the third expert: where that one is left out both are right or wrong together."""
    rng = np.random.default_rng(1)
    cases = [case(f"c{at}", "".join("yn"[int(rng.random() < 0.4)] for _ in range(3))) for at in range(60)]
    said = {one.case_id: {v: k for k, v in YN.items()}[one.ratings["e2"]] for one in cases}
    ratings = code_ratings(cases, BINARY.labels)
    found = result(cases, said)
    own = found.raters["e2"].statistics["accuracy"].value
    counts = ratings.counts
    by_hand = []
    for at, one in enumerate(cases):
        others = [one.ratings["e0"], one.ratings["e1"]]
        if others[0] == others[1]:
            by_hand.append(one.ratings["e2"] == others[0])
        assert counts[at].sum() == 3
    assert own == pytest.approx(np.mean(by_hand))


def textbook_alt_test(
    humans: Mapping[str, Mapping[str, float]], judge: Mapping[str, float], *, epsilon: float, ordered: bool
) -> tuple[float, float, list[float]]:
    """The paper's procedure in its own words: (winning rate, average advantage probability, p values)."""

    def score(one: float, others: list[float]) -> float:
        if ordered:
            return -math.sqrt(sum((one - other) ** 2 for other in others) / len(others))
        return sum(one == other for other in others) / len(others)

    p_values, advantages = [], []
    for name, own in humans.items():
        judge_wins, human_wins = [], []
        for item, label in own.items():
            others = [other[item] for who, other in humans.items() if who != name and item in other]
            if not others or item not in judge:
                continue
            of_judge, of_human = score(judge[item], others), score(label, others)
            judge_wins.append(int(of_judge > of_human or math.isclose(of_judge, of_human)))
            human_wins.append(int(of_human > of_judge or math.isclose(of_judge, of_human)))
        differences = np.array(human_wins) - np.array(judge_wins)
        p_values.append(float(ttest_1samp(differences, epsilon, alternative="less").pvalue))
        advantages.append(float(np.mean(judge_wins)))
    # Benjamini and Yekutieli: the largest k with p_(k) <= k q / (m sum 1/i).
    m, order = len(p_values), np.argsort(p_values)
    bound = 0.05 / (m * sum(1 / i for i in range(1, m + 1)))
    passed = [k for k in range(1, m + 1) if p_values[order[k - 1]] <= k * bound]
    return max(passed, default=0) / m, float(np.mean(advantages)), p_values


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_alternative_annotator_is_that_of_the_paper(ordered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, n_experts = 90, 4
    truth = rng.integers(0, 5, n)

    def rater(noise: float) -> Any:
        return np.clip(truth + np.rint(noise * rng.normal(size=n)).astype(int), 0, 4)

    experts = np.stack([rater(0.4 + 0.25 * k) for k in range(n_experts)])
    rated = rng.random((n_experts, n)) < 0.8
    judge = rater(0.9)
    cases = [
        Case(f"c{i}", {}, ratings={f"e{k}": str(experts[k, i] + 1) for k in range(n_experts) if rated[k, i]})
        for i in range(n)
    ]
    cases = [one for one in cases if len(one.ratings) > 1]
    scale = GRADES if ordered else LabelScale(labels=GRADES.labels)
    ratings = code_ratings(cases, scale.labels)
    said = np.array([judge[int(one.case_id[1:])] for one in cases])
    found = alternative_annotator(ratings, said, np.ones(len(cases), bool), ordered=ordered, level=0.95)
    assert isinstance(found, AlternativeAnnotator)
    humans = {
        f"e{k}": {one.case_id: float(experts[k, int(one.case_id[1:])]) for one in cases if f"e{k}" in one.ratings}
        for k in range(n_experts)
    }
    by_case = {one.case_id: float(judge[int(one.case_id[1:])]) for one in cases}
    winning_rate, advantage, p_values = textbook_alt_test(humans, by_case, epsilon=0.2, ordered=ordered)
    in_order = {one.rater: one for one in found.annotators}
    assert [in_order[f"e{k}"].p for k in range(n_experts)] == pytest.approx(p_values, rel=1e-6, abs=1e-18)
    assert found.winning_rate == winning_rate
    assert found.advantage.value == pytest.approx(advantage)
    # Half of four, rounded up: p = (4 - 2 + 1) times the second smallest.
    assert found.test.p == pytest.approx(min(1.0, 3 * sorted(p_values)[1]), rel=1e-6, abs=1e-18)


def test_rows_of_a_group_are_one_observation_of_the_alternative_annotator_test() -> None:
    """Five copies of each case in one group: the p of the single cases, where rows taken apart would shrink it."""
    rng = np.random.default_rng(5)
    single = [case(f"c{at}", "".join("yn"[int(rng.random() < 0.5)] for _ in range(3))) for at in range(40)]
    copies = [
        Case(f"{one.case_id}.{k}", {}, group=one.case_id, ratings=one.ratings) for one in single for k in range(5)
    ]
    verdict = rng.integers(0, 2, 40)

    def tested(cases: list[Case], said: Any) -> AlternativeAnnotator:
        ratings = code_ratings(cases, BINARY.labels)
        found = alternative_annotator(ratings, said, np.ones(len(cases), bool), ordered=False, level=0.95)
        assert isinstance(found, AlternativeAnnotator)
        return found

    once, five = tested(single, verdict), tested(copies, verdict.repeat(5))
    assert [one.p for one in five.annotators] == pytest.approx([one.p for one in once.annotators])
    assert [one.n for one in five.annotators] == [200] * 3
    assert [one.n_groups for one in five.annotators] == [40] * 3


def test_too_few_experts_or_cases_are_said() -> None:
    few = [case(f"c{at}", "yyn") for at in range(29)]
    found = result(few, {one.case_id: "y" for one in few})
    assert found.alternative == {}
    assert "3 experts with 30 cases each that others rated as well; there are 0" in found.not_tested["j"]
    two = [case(f"c{at}", "yy-") for at in range(40)]
    assert "there are 2" in result(two, {one.case_id: "y" for one in two}).not_tested["j"]


def page(said: Mapping[str, str], cases: list[Case]) -> Any:
    options = AnalysisOptions(n_resamples=100, slices=("ward",))
    return summarise(cases, {"j": verdicts(said)}, contract=BINARY, split="s", options=options)


def test_claims_and_page_share_one_correction() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(120) < 0.5
    votes = ["".join("yn"[int((rng.random() < 0.12) != (not one))] for _ in range(3)) for one in truth]
    cases = [
        case(f"c{at}", three, "yes" if three.count("y") > 1 else "no", slices={"ward": "ab"[at % 2]})
        for at, three in enumerate(votes)
    ]
    guess = {one.case_id: "yn"[int(rng.random() < 0.5)] for one in cases}
    results = page(guess, cases)
    below = find_claim(results.claims, "ceiling", ("j",), "accuracy")
    assert below is not None
    assert below.claimed
    assert below.adjusted_p is not None
    assert below.p is not None
    assert below.adjusted_p > below.p  # corrected for the other tests of the page
    assert any(line.startswith("j is below the human ceiling: ") for line in results.statements)
    assert any("does not show that j may take the place of an expert" in line for line in results.statements)
    good = {one.case_id: "y" if one.gold == "yes" else "n" for one in cases}
    results = page(good, cases)
    assert any("j may take the place of an expert: winning rate 1.00" in line for line in results.statements)
    captions = [grid.caption for grid in expert_grids(results)]
    assert captions == [
        "Judges beside the experts",
        "Agreement among the experts",
        "Pairs of experts",
        "Alternative annotator test",
        "Disagreement of the experts by ward",
    ]
    assert type(results).from_json(results.to_json()) == results


def test_cases_on_which_experts_tie_are_no_unrated_ones() -> None:
    """The corrected pass rate is of cases that nobody rated."""
    cases = [case(f"c{at}", "yy" if at % 2 else "nn", "yes" if at % 2 else "no") for at in range(20)]
    cases += [case("tie", "yn"), Case("nobody", {})]
    results = page({one.case_id: "y" for one in cases}, cases)
    correction = results.audit.judges["j"].correction
    assert correction.n_unrated == 1
    assert results.experts.n_tied == 1
    assert results.n_without_gold == 2
