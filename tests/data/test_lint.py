"""Lint rules on cases made to trip each of them, and what they say about real rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.shared_data import require_shared

from medjudge.data.lint import LintReport, lint_cases
from medjudge.data.sources import read_source
from medjudge.records import Case
from medjudge.settings.data import DataConfig
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract

JUDGE = EquivalenceContract(language="fr")
MCQ = McqContract()


def judged(
    case_id: str, candidate: str = "Le vaccin.", gold: str | None = "1", question: str = "Quel vaccin ?"
) -> Case:
    return Case(case_id, {"question": question, "reference": "ROR", "candidate": candidate}, gold)


def choice(case_id: str, gold: str = "A", reason: str | None = None, **options: str) -> Case:
    texts = {"opa": "one", "opb": "two", "opc": "three", "opd": "four", **options}
    return Case(case_id, {"question": f"Which is it, {case_id}?", **texts}, gold, reason)


def found(report: LintReport) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.case_ids for finding in report.findings}


BOTH = [judged("p"), judged("n", "Non.", "0")]


def test_nothing_to_say() -> None:
    report = lint_cases(BOTH, JUDGE)
    assert report == LintReport(2, {"0": 1, "1": 1}, 0, ())


def test_no_cases() -> None:
    assert lint_cases([], JUDGE).findings == ()


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        ([None, None], {"no_labels": 2}),
        (["1", None], {"unlabelled": 1, "one_class": 1}),
        (["1", "1"], {"one_class": 2}),
        (["1", "0"], {}),
    ],
)
def test_labels(labels: list[str | None], codes: dict[str, int]) -> None:
    cases = [judged(f"c{n}", f"Réponse {n}.", label) for n, label in enumerate(labels)]
    assert {finding.code: finding.count for finding in lint_cases(cases, JUDGE).findings} == codes


def test_labels_that_never_occur() -> None:
    report = lint_cases([choice("x", "A"), choice("y", "B")], MCQ)
    assert found(report) == {"absent_labels": ()}
    assert "C, D" in report.findings[0].message
    assert report.labels == {"A": 1, "B": 1, "C": 0, "D": 0}


CUT = "La prise en charge repose sur un bilan biologique complet, une imagerie"


@pytest.mark.parametrize(
    ("candidate", "code"),
    [
        ("**", "empty_field"),
        ("5", None),
        ("La toxoplasmose ையை", "mixed_scripts"),
        ("Сoffee in Latin with a Cyrillic first letter", "mixed_scripts"),
        ("TNF-α et β2-microglobuline, 5 µg, Ωm", None),
        ("Ã©tude prospective", "broken_encoding"),
        ("une \ufffd inconnue", "broken_encoding"),
        ("Âge : 5 ans, Ã l'hôpital", None),
        (CUT + " et", "truncated"),
        (CUT + " (scanner ou IRM", "truncated"),
        (CUT + " **en urgence", "truncated"),
        (CUT + " par IRM", None),
        (CUT + " par IRM.", None),
        ("La prise de", None),
    ],
)
def test_fields(candidate: str, code: str | None) -> None:
    report = lint_cases([*BOTH, judged("x", candidate), judged("y", "Une phrase finie.")], JUDGE)
    assert found(report) == ({code: ("x",)} if code else {})


def test_texts_that_pile_up_at_one_length_are_cut() -> None:
    short = [judged(f"s{n}", f"Phrase {n}.", str(n % 2)) for n in range(10)]
    long = [judged(f"l{n}", f"{n} " + "mot " * 49 + "fin", str(n % 2)) for n in range(5)]
    assert found(lint_cases(short + long, JUDGE)) == {"truncated": ("l0", "l1", "l2", "l3", "l4")}
    assert found(lint_cases(short + long[:4], JUDGE)) == {}


def test_short_questions() -> None:
    assert found(lint_cases([*BOTH, judged("x", question="Q 3?")], JUDGE)) == {"short_field": ("x",)}


def test_conflicting_labels() -> None:
    cases = [judged("x", "Oui."), judged("y", "oui", "0"), judged("z", "Non.", "0")]
    assert found(lint_cases(cases, JUDGE)) == {"conflicting_labels": ("x", "y")}


def test_phrases_that_stand_with_one_label_alone() -> None:
    told = [judged(f"n{n}", f"On ne peut pas trancher : {n}.", "0", f"Question {n} ?") for n in range(45)]
    other = [judged(f"p{n}", f"Sans aucun doute possible : {n}.", str(n % 2), f"Question {n} ?") for n in range(60)]
    (finding,) = [f for f in lint_cases(told + other, JUDGE).findings if f.code == "label_phrases"]
    assert "candidate: 3 phrases of three words stand with label '0' alone" in finding.message
    assert set(finding.case_ids) == {case.case_id for case in told}
    # With as many of the other label, the same words tell nothing.
    even = [judged(f"e{n}", f"On ne peut pas trancher : {n + 100}.", "1", f"Question {n} ?") for n in range(25)]
    assert "label_phrases" not in found(lint_cases(told + other + even, JUDGE))
    # A question that many cases share is no phrase.
    asked = [judged(f"s{n}", f"Réponse {n}.", "0", "Quel est le bon vaccin ?") for n in range(40)]
    same = [replace(case, group="vaccin") for case in asked] + other
    assert "label_phrases" not in found(lint_cases(same, JUDGE))


def all_letters(per_letter: int = 1) -> list[Case]:
    return [choice(f"{letter}{n}", letter) for letter in "ABCD" for n in range(per_letter)]


def test_duplicate_options() -> None:
    assert found(lint_cases([*all_letters(), choice("x", opb="ONE.")], MCQ)) == {"duplicate_options": ("x",)}


@pytest.mark.parametrize(
    ("reason", "names_another"),
    [
        ("Ans. is 'b' i.e., two", True),
        ("Answer: (C)", True),
        ("The correct option is D.", True),
        ("Not answer B. Answer: A", False),
        ("Ans. A", False),
        ("The answer a patient gives is blunt.", False),
        ("Answered by day two; option dosing differs.", False),
        (None, False),
    ],
)
def test_reasons_that_name_another_option(reason: str | None, names_another: bool) -> None:
    report = lint_cases([*all_letters(), choice("x", "A", reason)], MCQ)
    assert ("reason_names_other_option" in found(report)) == names_another


def test_gold_letters() -> None:
    assert found(lint_cases(all_letters(25), MCQ)) == {}
    # 70 of 145 are A: 48 %, and chi-square is far beyond chance.
    uneven = all_letters(25) + [choice(f"x{n}", "A") for n in range(45)]
    report = lint_cases(uneven, MCQ)
    assert found(report) == {"letter_imbalance": ()}
    assert "always answering A is right in 48.3% of cases (25% if even)" in report.findings[0].message
    # 8 of 23 A: as uneven as chance makes them.
    assert found(lint_cases(all_letters(5) + [choice(f"x{n}", "A") for n in range(3)], MCQ)) == {}


@pytest.mark.parametrize("letters", ["BCD", "ABC"])
def test_an_index_read_from_the_wrong_end(letters: str) -> None:
    cases = [choice(f"{letter}{n}", letter) for letter in letters for n in range(10)]
    assert set(found(lint_cases(cases, MCQ))) >= {"first_index", "absent_labels"}


def test_findings_hold_ids_and_no_text_and_are_json() -> None:
    cases = [judged("x", "SECRET ையை", gold="1"), judged("y", "SECRET Ã©", gold="1")]
    text = json.dumps(lint_cases(cases, JUDGE).to_json())
    assert "SECRET" not in text
    assert '"x"' in text


def test_real_rows_french_judge_has_a_stray_script() -> None:
    source = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    report = lint_cases(read_source(source, JUDGE, DataConfig(where={"split": "train"})).cases, JUDGE)
    by_code = {finding.code: finding.count for finding in report.findings}
    assert by_code["mixed_scripts"] == 1  # at the end of a generated answer
    assert "candidate mixes scripts: LATIN, TAMIL" in [finding.message for finding in report.findings]
    assert by_code["truncated"] > 10  # "unfinished answers (as generated)"
    assert report.labels == {"0": 300, "1": 208}


def test_real_rows_medmcqa_explanations_that_disagree() -> None:
    """The README counts 131 GPT-4 explanations that end on another letter than the label."""
    contract = McqContract(first_index=1)
    source = str(require_shared("data", "medmcqa_train", "medmcqa_train.jsonl"))
    report = lint_cases(read_source(source, contract, DataConfig(where={"exp_source": "gpt4"})).cases, contract)
    by_code = {finding.code: finding.count for finding in report.findings}
    assert by_code["reason_names_other_option"] == pytest.approx(131, abs=8)
    agreeing = lint_cases(read_source(source, contract, DataConfig(where={"exp_agrees": True})).cases, contract)
    assert {f.code: f.count for f in agreeing.findings}.get("reason_names_other_option", 0) <= 8
