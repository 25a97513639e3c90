"""The audit as one value: thresholds and who waits for a person, the families of tests, what each sentence is about."""

from __future__ import annotations

import numpy as np
import pytest

from medjudge.metrics.audit import MAX_ERRORS, JudgeRows, audit_judges
from medjudge.metrics.audit_sentences import audit_statements
from medjudge.metrics.classification import code_outcomes
from medjudge.metrics.correction import prediction_powered_rate
from medjudge.metrics.estimates import judge_estimates
from medjudge.metrics.summary import judge_rows
from medjudge.records import Case, Unparsed, Verdict
from medjudge.reporting.audit_tables import abstention_grids, threshold_grid


def rows_of(n, *, share_right=0.9, unread=(), seed=0, shift=0.0):
    """Cases in pairs of a group, two generators; right verdicts are surer, label 1 is judged with less confidence."""
    rng = np.random.default_rng(seed)
    cases = [Case(str(i), {}, gold=str(i % 2), group=f"g{i // 2}") for i in range(n)]
    right = rng.random(n) < share_right
    said = [
        Unparsed(str(i), "", "none") if i in unread else Verdict(str(i), str(i % 2) if right[i] else str(1 - i % 2))
        for i in range(n)
    ]
    confidence = np.where(right, 0.8, 0.5) - 0.2 * (np.arange(n) % 2) + shift + rng.random(n) / 20
    outcomes = code_outcomes(cases, said, labels=("0", "1"), positive="1")
    return JudgeRows(outcomes, ["atlas" if i % 3 else "birch" for i in range(n)], confidence)


def audit_of(judges, n_resamples):
    estimates = {name: judge_estimates(rows.outcomes, n_resamples=n_resamples) for name, rows in judges.items()}
    return audit_judges(judges, estimates, n_resamples=n_resamples)


@pytest.fixture(scope="module")
def audit():
    judges = {"a": rows_of(400, unread=range(0, 400, 20)), "b": rows_of(400, share_right=0.8, seed=1)}
    return audit_of(judges, n_resamples=100)


def test_both_promises_stand_at_every_wanted_rate(audit):
    rules = audit.judges["a"].calibration.selective
    assert [(rule.method, rule.max_error) for rule in rules] == [
        *(("learn-then-test", rate) for rate in MAX_ERRORS),
        *(("conformal risk control", rate) for rate in MAX_ERRORS),
    ]
    for rule in rules[len(MAX_ERRORS) :]:  # it keeps its promise on the rows that chose, with room for one more
        assert rule.threshold is not None
        assert rule.error <= rule.max_error


def test_who_waits_is_counted_by_label_and_generator_unreadable_answers_too(audit):
    rows = rows_of(400, unread=range(0, 400, 20))
    rule = next(rule for rule in audit.judges["a"].calibration.selective if rule.abstention)
    waits = ~(rows.outcomes.parsed & (rows.confidence > rule.threshold))
    for kind, values in (("gold label", rows.outcomes.gold.astype(str)), ("generator", np.array(rows.generators))):
        expected = {value: waits[values == value].mean() for value in np.unique(values)}
        assert {name: share.value for name, share in rule.abstention[kind].items()} == pytest.approx(expected)
        assert all(share.low <= share.value <= share.high for share in rule.abstention[kind].values())
    assert rule.abstention["gold label"]["0"].value >= 0.1  # the twenty unreadable ones of its two hundred


def test_the_tables_of_thresholds(audit):
    grid = threshold_grid(audit)
    assert len(grid.rows) == 2 * 2 * len(MAX_ERRORS)
    assert {cells[-1].text for _, cells in grid.rows} == {"learn-then-test", "conformal risk control"}
    names = [grid.caption for grid in abstention_grids(audit)]
    assert names == ["Sent to human review: a", "Sent to human review: b"]
    heads = [head for head, _ in abstention_grids(audit)[0].rows]
    assert heads == ["gold label 0", "gold label 1", "generator atlas", "generator birch"]


def test_sentences_and_subjects(audit):
    (pair,) = audit.pairs
    assert (pair.a, pair.b) == ("b", "a")  # the later less the earlier
    said = audit_statements(audit, (), {"a": 0.5, "b": 0.5})
    for one in said:
        assert all(name in one.text for name in one.about)
    assert ("b", "a") in [one.about for one in said]
    assert () in [one.about for one in said]  # prevalence, which no judge changes


def test_a_question_with_rated_and_unrated_answers_is_one_group_on_both_sides():
    """60 questions, two rated and four other answers each, the judge right on some questions only."""
    rng = np.random.default_rng(4)
    rate, errs = rng.beta(0.6, 1.4, 60), rng.beta(0.5, 2.5, 60)
    cases, said = [], []
    for i in range(360):
        question = i % 60
        gold = rng.random() < rate[question]
        judged = gold ^ (rng.random() < errs[question])
        cases.append(Case(f"c{i}", {}, gold=str(int(gold)) if i < 120 else None, group=f"q{question}"))
        said.append(Verdict(f"c{i}", str(int(judged))))
    outcomes = code_outcomes(cases, said, labels=("0", "1"), positive="1")
    rows = judge_rows(cases, said, outcomes)
    found = audit_of({"j": rows}, n_resamples=50).judges["j"].correction
    values = np.array([verdict.label == "1" for verdict in said])
    gold = np.array([case.gold == "1" for case in cases[:120]])
    by = {"groups": np.arange(120, 360) % 60, "labelled_groups": np.arange(120) % 60}
    expected = prediction_powered_rate(values[120:], values[:120], gold, **by)
    assert (found.prediction_powered.low, found.prediction_powered.high) == pytest.approx((expected.low, expected.high))
    by["groups"] = by["groups"] + 60
    apart = prediction_powered_rate(values[120:], values[:120], gold, **by)
    assert found.prediction_powered.low != pytest.approx(apart.low)
