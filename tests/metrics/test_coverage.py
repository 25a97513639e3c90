"""Who answered what: cases without a verdict count as wrong, by whatever reason, and are told apart."""

import json

import pytest

from medjudge.errors import DataError
from medjudge.metrics.classification import code_outcomes, due_cases
from medjudge.metrics.coverage import headlines, kinds_text, outcome_sentence
from medjudge.metrics.judge_pairs import best_model
from medjudge.metrics.result_types import Results
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, summarise
from medjudge.records import Case, Unparsed, Verdict
from medjudge.tasks.scale import LabelScale

SCALE = LabelScale(labels=("no", "yes"), positive="yes")


def rated(n, **slices):
    """Cases with the gold label "yes" and "no" in turn, two to a group. slices: name -> values by case."""
    return [
        Case(
            f"c{i}",
            {"q": "x"},
            gold=("yes", "no")[i % 2],
            group=f"g{i // 2}",
            slices={name: values[i] for name, values in slices.items()},
        )
        for i in range(n)
    ]


def verdict(case, right=True):
    return Verdict(case.case_id, str(case.gold) if right else {"yes": "no", "no": "yes"}[str(case.gold)])


def results_of(cases, said, *, facts=None, **options):
    return summarise(
        cases, said, contract=SCALE, split="t", facts=facts, options=AnalysisOptions(n_resamples=50, **options)
    )


def hard_cases():
    """40 cases, the second half hard: A is right on 18 + 12, B on 18 of the easy ones and on 1 of the 2 it answers."""
    cases = rated(40)
    a = [verdict(case, i < 18 or 20 <= i < 32) for i, case in enumerate(cases)]
    b = [verdict(case, i < 18 or i == 20) for i, case in enumerate(cases[:22])]
    return cases, a, b


@pytest.mark.parametrize("kind", ["absent", "failed", "refused", "format"])
def test_why_a_case_has_no_verdict_does_not_change_the_headline(kind):
    cases, a, b = hard_cases()
    left = [] if kind == "absent" else [Unparsed(case.case_id, "", "none", kind=kind) for case in cases[22:]]
    results = results_of(cases, {"A": a, "B": [*b, *left]}, reference="A")
    model = results.models["B"]
    assert (model.n, model.n_answered, model.n_unparsed) == (40, 22, 18)
    assert model.unanswered == {kind: 18}
    assert model.metrics["accuracy"].value == pytest.approx(19 / 40)
    assert (model.metrics["accuracy_on_schema"].value, model.metrics["accuracy_on_schema"].n) == (19 / 22, 22)
    assert model.metrics["schema_pass_rate"].value == pytest.approx(22 / 40)
    comparison = results.comparisons[0]
    assert comparison.n == 40
    assert comparison.differences["accuracy"].value == pytest.approx(100 * (19 - 30) / 40)
    assert best_model(results.models, "model") == "A"


def test_a_difference_is_parted_into_what_both_answered_and_the_rest():
    cases, a, b = hard_cases()
    results = results_of(cases, {"A": a, "B": b}, reference="A")
    shared = results.comparisons[0].shared
    # On the 22 that both answered A is right on 18 + 2, B on 18 + 1; on the 18 others A is right on 10.
    assert (shared.n, shared.accuracy_a, shared.accuracy_b) == (22, pytest.approx(19 / 22), pytest.approx(20 / 22))
    assert shared.differences["accuracy"].value == pytest.approx(-100 / 22)
    assert shared.points == pytest.approx(-100 / 40)
    assert (shared.n_only_a, shared.n_only_b, shared.accuracy_only_b, shared.n_neither) == (0, 18, 10 / 18, 0)
    line = results.statements[0]
    assert "On the 22 cases that both answered, B is right in 86.4 % and A in 90.9 %: -4.5 points" in line
    assert "Of the -27.5 points in all, -2.5 come from these cases and -25.0 from those" in line
    assert "On the 18 cases that only A answered, it is right in 55.6 %." in line


def test_a_format_gain_is_told_apart_from_a_gain_in_knowledge():
    """The base answers ten cases readably, six right; the tuned model answers all and is right on five of those ten."""
    cases = rated(30)
    base = [verdict(case, i < 6) if i < 10 else Unparsed(case.case_id, "", "?") for i, case in enumerate(cases)]
    tuned = [verdict(case, i < 5 or 10 <= i < 25) for i, case in enumerate(cases)]
    results = results_of(cases, {"base": base, "tuned": tuned}, reference="base")
    shared = results.comparison("tuned", "base").shared
    assert results.comparison("tuned", "base").differences["accuracy"].value == pytest.approx(100 * 14 / 30)
    assert shared.differences["accuracy"].value == pytest.approx(-10)
    assert shared.points == pytest.approx(-100 / 30)
    assert "Of the +46.7 points in all, -3.3 come from these cases and +50.0 from those" in results.statements[0]


def test_nothing_is_said_of_knowledge_where_the_base_answers_nothing():
    cases = rated(12)
    said = {"base": [Unparsed(case.case_id, "", "?") for case in cases], "tuned": [verdict(case) for case in cases]}
    results = results_of(cases, said, reference="base")
    assert results.comparisons[0].shared.n == 0
    assert "No case was answered by both" in results.statements[0]


def test_no_second_number_where_both_answer_everything():
    cases = rated(12)
    said = {"a": [verdict(case) for case in cases], "b": [verdict(case, i > 3) for i, case in enumerate(cases)]}
    results = results_of(cases, said, reference="a")
    assert results.comparisons[0].shared is None
    assert "answered" not in results.statements[0]


def test_one_answered_case_is_never_the_best():
    cases = rated(30)
    results = results_of(
        cases, {"one": [verdict(cases[0])], "all": [verdict(case, i < 18) for i, case in enumerate(cases)]}
    )
    assert best_model(results.models, "model") == "all"
    assert results.models["one"].metrics["accuracy"].value == pytest.approx(1 / 30)
    assert outcome_sentence(results).startswith("all gives the experts' label in 60.0 %")


@pytest.mark.parametrize(
    ("n_right", "rank"),
    [
        ({"a": 30, "b": 30}, ", as many as b:"),
        ({"a": 30, "b": 29, "c": 4}, ", the highest of 3 models here, not shown to differ from b:"),
        ({"a": 38, "b": 5, "c": 4}, ", the highest of 3 models:"),
    ],
)
def test_the_highest_is_said_without_reserve_only_where_it_is_shown(n_right, rank):
    cases = [Case(f"c{i}", {"q": "x"}, gold=("yes", "no")[i % 2]) for i in range(40)]
    said = {name: [verdict(case, i < n) for i, case in enumerate(cases)] for name, n in n_right.items()}
    assert rank in outcome_sentence(results_of(cases, said))


def test_a_difference_on_the_shared_cases_is_not_called_clear_by_its_interval():
    cases = rated(60)
    a = [verdict(case, i % 3 > 0) for i, case in enumerate(cases[:50])]
    results = results_of(cases, {"A": a, "B": [verdict(case, i > 3) for i, case in enumerate(cases)]}, reference="A")
    shared = results.comparisons[0].shared
    assert shared.differences["accuracy"].low > 0
    assert "; not tested by itself)" in results.statements[0]


def test_due_cases():
    every = {"a", "b", "c", "d", "e"}
    assert due_cases(every, {"x": {"a"}}) == {"x": every}
    assert due_cases(every, {"x": {"a", "b"}, "y": {"b", "c"}}) == {"x": every, "y": every}
    # Through a third judge: x and z share nothing, but each shares a case with y.
    chain = {"x": {"a"}, "z": {"c"}, "y": {"a", "c"}}
    assert due_cases(every, chain) == dict.fromkeys(chain, every)
    # Two weeks: each answers for its own cases, and nobody for the case that no one was given.
    assert due_cases(every, {"x": {"a", "b"}, "y": {"c", "d"}}) == {"x": {"a", "b"}, "y": {"c", "d"}}
    # A set of two judges and one beside it; the set's cases are both judges'.
    assert due_cases(every, {"x": {"a"}, "y": {"d"}, "z": {"a", "b"}}) == {"x": {"a", "b"}, "y": {"d"}, "z": {"a", "b"}}
    # Cases without a gold label join nobody.
    assert due_cases({"a", "b"}, {"x": {"a", "u"}, "y": {"b", "u"}}) == {"x": {"a"}, "y": {"b"}}


def test_a_judge_without_any_partner_is_refused_not_zero():
    cases = rated(4)
    with pytest.raises(DataError, match="none of 2 answers belongs to a case with an expert label"):
        results_of(cases, {"a": [verdict(case) for case in cases], "b": [Verdict("x1", "no"), Verdict("x2", "no")]})


def test_kinds_are_kept_by_row():
    cases = rated(6)
    kinds = ["format", "schema", "truncated", "refused", "failed"]
    said = [Unparsed(case.case_id, "", "?", kind=kind) for case, kind in zip(cases, kinds, strict=False)]
    outcomes = code_outcomes(cases, said, labels=SCALE.labels, due={case.case_id for case in cases})
    assert outcomes.kinds == (*kinds, "absent")
    assert outcomes.unanswered == dict.fromkeys([*kinds, "absent"], 1)
    assert kinds_text(outcomes.unanswered) == "2 unreadable, 1 cut off, 1 refused, 1 failed, 1 absent"


def by_generator(n=24):
    """Twelve cases each of alpha, answered and mostly right, and of beta, whose every answer is unreadable."""
    cases = rated(n, generator=["alpha", "beta"] * (n // 2))
    cases = [Case(c.case_id, c.inputs, c.gold, group=f"g{i // 2}", slices=c.slices) for i, c in enumerate(cases)]
    cases = [
        Case(c.case_id, c.inputs, ("yes", "no")[i // 2 % 2], group=c.group, slices=c.slices)
        for i, c in enumerate(cases)
    ]
    said = [
        verdict(case, i > 3) if case.slices["generator"] == "alpha" else Unparsed(case.case_id, "", "no label")
        for i, case in enumerate(cases)
    ]
    return cases, said


def test_unreadable_answers_are_not_judged_wrong_between_generators():
    cases, said = by_generator()
    results = results_of(cases, {"judge": said})
    alpha, beta = results.audit.judges["judge"].generators
    assert (alpha.n, alpha.unanswered, beta.n, beta.unanswered) == (12, {}, 12, {"format": 12})
    assert (alpha.answered_only.value, beta.answered_only.value) == (10 / 12, None)
    outcomes = {found.outcome for found in results.audit.judges["judge"].heterogeneity}
    assert outcomes == {"prevalence", "answered"}
    text = " ".join(results.statements)
    assert "All 12 unreadable answers of judge belong to the generator 'beta': 0 of its 12 cases were answered." in text
    assert not [line for line in results.audit.statements if "sensitivity" in line or "accuracy differs" in line]


def test_heterogeneity_over_answered_cases_where_all_generators_have_some():
    cases, said = by_generator()
    said = [
        verdict(case, i % 3 > 0) if i in (1, 3, 5, 7) else one
        for i, (case, one) in enumerate(zip(cases, said, strict=True))
    ]
    found = {one.outcome: one for one in results_of(cases, {"judge": said}).audit.judges["judge"].heterogeneity}
    assert found["answered"].rates == {"alpha": 1.0, "beta": pytest.approx(1 / 3)}
    assert (found["accuracy"].answered_only, found["accuracy"].n) == (True, 16)
    assert found["accuracy"].rates == {"alpha": pytest.approx(10 / 12), "beta": 0.75}


def test_a_slice_gets_its_table_and_its_gaps_a_sentence():
    criteria = ["short", "safe", "right"] * 12
    cases = rated(36, criterion=criteria)
    said = [verdict(case) for i, case in enumerate(cases) if criteria[i] != "safe" or i < 12]
    results = results_of(cases, {"judge": said}, slices=("criterion", "not there"))
    tables = results.audit.judges["judge"].slices
    assert list(tables) == ["criterion"]
    rows = {row.generator: row for row in tables["criterion"]}
    assert {name: (row.n, row.n_unparsed) for name, row in rows.items()} == {
        "right": (12, 0),
        "safe": (12, 8),
        "short": (12, 0),
    }
    assert rows["safe"].unanswered == {"absent": 8}
    assert (rows["safe"].statistics["accuracy"].value, rows["safe"].answered_only.value) == (pytest.approx(4 / 12), 1)
    text = " ".join(results.statements)
    assert (
        "8 of judge's 36 cases (22.2 %) have no verdict and count as wrong: 8 absent; of the 28 answered, 100.0 %"
        in text
    )
    assert "belong to the criterion 'safe': 4 of its 12 cases were answered" in text


def test_a_slice_of_many_values_keeps_the_commonest():
    cases = rated(120, site=[f"s{i if i < 60 else 0}" for i in range(120)])
    rows = (
        results_of(cases, {"judge": [verdict(case) for case in cases]}, slices=("site",)).audit.judges["judge"].slices
    )
    assert len(rows["site"]) == 30
    assert {row.generator: row.n for row in rows["site"]}["31 others"] == 31
    assert sum(row.n for row in rows["site"]) == 120


def test_agreement_on_whole_and_on_shortened_prompts():
    cases = rated(24)
    said = [verdict(case, i < 9 or i > 20) for i, case in enumerate(cases)]
    cut = {case.case_id: 0 if i < 12 else 40 for i, case in enumerate(cases)}
    results = results_of(
        cases,
        {"judge": said, "other": said},
        facts={"judge": JudgeFacts(words_cut=cut), "other": JudgeFacts(words_cut=dict.fromkeys(cut, 0))},
    )
    prompts = results.models["judge"].prompts
    assert (prompts.n, prompts.n_shortened, prompts.n_words_cut) == (24, 12, 480)
    assert (prompts.whole.value, prompts.whole.n, prompts.shortened.value) == (0.75, 12, 0.25)
    (line,) = [line for line in results.statements if "shortened" in line]
    assert line.startswith("judge: 12 of 24 prompts were shortened")
    assert "agreement on whole prompts 75.0 %" in line
    assert "on cut ones 25.0 %" in line
    assert results.models["other"].prompts.n_shortened == 0
    assert results.models["other"].prompts.shortened is None
    assert line in headlines(results)


def test_old_results_are_read():
    cases, a, b = hard_cases()
    tree = results_of(cases, {"A": a, "B": b}, reference="A").to_json()
    for model in tree["models"].values():
        del model["unanswered"], model["prompts"]
    for comparison in tree["comparisons"]:
        del comparison["shared"]
    for judge in tree["audit"]["judges"].values():
        del judge["slices"]
    results = Results.from_json(json.loads(json.dumps(tree)))
    assert results.models["B"].unanswered == {}
    assert headlines(results)
    assert outcome_sentence(results).startswith("A gives")


def test_at_most_seven_headlines_and_the_leakage_line_among_them():
    cases = rated(20)
    said = {f"m{k}": [verdict(case, i > k) for i, case in enumerate(cases)][: 20 - k] for k in range(6)}
    results = results_of(cases, said, reference="m0")
    assert len(results.statements) > 12
    shown = headlines(results)
    assert len(shown) == 7
    assert shown[-1].startswith("Leakage")
    assert any("have no verdict" in line for line in shown)
    assert [line for line in results.statements if line in shown] == shown
