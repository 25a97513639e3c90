"""The fact base: what its linter finds, that the real base is clean, and which values are never offered as wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medjudge.errors import DataError
from medjudge.synthetic import facts as facts_module
from medjudge.synthetic.facts import (
    FIELDS,
    Fact,
    also_true,
    fact_files,
    facts_by_relation,
    holds,
    is_wrong,
    lint_also_true,
    lint_facts,
    load_facts,
    read_facts,
)

DELTOID = Fact(
    id="nerve_muscle-001",
    relation="nerve_muscle",
    subject="deltoid",
    value="axillary nerve",
    subject_fr="muscle deltoïde",
    value_fr="nerf axillaire",
    explanation="The deltoid is supplied by the axillary nerve.",
    explanation_fr="Le muscle deltoïde est innervé par le nerf axillaire.",
    source_kind="anatomy textbook",
)
BICEPS = replace(
    DELTOID,
    id="nerve_muscle-002",
    subject="biceps brachii",
    value="musculocutaneous nerve",
    subject_fr="muscle biceps brachial",
    value_fr="nerf musculo-cutané",
    explanation="The biceps brachii is supplied by the musculocutaneous nerve.",
    explanation_fr="Le muscle biceps brachial est innervé par le nerf musculo-cutané.",
)


def test_the_real_base_is_clean_and_large_enough() -> None:
    facts = load_facts()
    assert lint_facts(facts) == []
    assert lint_also_true(facts) == []
    assert len(facts) >= 600
    assert len(facts_by_relation()) >= 14
    assert {path.suffix for path in fact_files()} == {".jsonl", ".json"}


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"id": DELTOID.id}, "nerve_muscle-001, nerve_muscle-001: id repeats"),
        ({"id": "nerve_muscle-é"}, "nerve_muscle-é: id is not ASCII: 'nerve_muscle-é'"),
        ({"explanation": " "}, "nerve_muscle-002: explanation is empty"),
        ({"explanation_fr": "Voilà."}, "nerve_muscle-002: the explanation (fr) does not state the value"),
        ({"value": "ulnar  nerve"}, "nerve_muscle-002: value has white space at an end or doubled"),
        ({"subject": "Deltoid"}, "nerve_muscle-001, nerve_muscle-002: one subject (en), asked for two values"),
        (
            {"subject_fr": "muscle deltoïde"},
            "nerve_muscle-001, nerve_muscle-002: one subject (fr), asked for two values",
        ),
        (
            {"subject": "biceps, through its tendon"},
            "nerve_muscle-002: subject runs on after a comma; put the clause in brackets",
        ),
        (
            {"subject": "biceps (effect on the elbow)"},
            "nerve_muscle-002: subject hints at the value in brackets; "
            "a patient of whom other values are not true, or nothing",
        ),
        (
            {"subject_fr": "muscle stylo-pharyngien"},
            "nerve_muscle-002: subject_fr has 'stylo-pharyngien'; the other facts write 'stylopharyngien'",
        ),
        ({"value": "axillary nerve"}, "nerve_muscle-001, nerve_muscle-002: one value (en) with 2 values (fr)"),
        ({"value_fr": "nerf axillaire"}, "nerve_muscle-001, nerve_muscle-002: one value (fr) with 2 values (en)"),
        (
            {"value": "upper axillary nerve"},
            "nerve_muscle-001, nerve_muscle-002: the value of the first stands inside that of the second (en)",
        ),
    ],
)
def test_lint_names_what_is_wrong(change: dict[str, str], finding: str) -> None:
    assert lint_facts([DELTOID, BICEPS]) == []
    assert finding in lint_facts([DELTOID, replace(BICEPS, **change)])


def test_values_of_other_relations_may_repeat() -> None:
    french = {"value_fr": "un autre nom", "explanation_fr": "C'est un autre nom."}
    other = replace(DELTOID, id="artery-001", relation="artery", **french)
    assert lint_facts([DELTOID, other]) == []


def test_holds_whole_words_only() -> None:
    assert holds("haloperidol over many years", "Haloperidol")
    assert not holds("oral thrush", "rush")


def test_arguable_values_are_never_wrong() -> None:
    by_subject = {(fact.relation, fact.subject): fact for fact in load_facts()}
    listed = [(by_subject[relation, subject], value) for relation, subject, value in sorted(also_true())]
    assert len(listed) > 500
    for fact, value in listed:
        for other in facts_by_relation()[fact.relation]:
            if other.value == value:
                assert not is_wrong(fact, other)


def test_an_entry_that_nothing_meets_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "also_true.json"
    path.write_text(json.dumps({"nerve_muscle": {"axillary nerve": ["biceps", "gone"], "no nerve": "*"}}))
    monkeypatch.setattr(facts_module, "ALSO_TRUE_PATH", path)
    assert lint_also_true([DELTOID, BICEPS]) == [
        "nerve_muscle: no subject holds 'gone' (under 'axillary nerve')",
        "nerve_muscle: no fact has the value 'no nerve'",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"nerve_muscle.jsonl:2: broken JSON"),
        ('{"id": "x"}', r"nerve_muscle.jsonl:2: got id; expected the fields id, relation"),
        ("[]", r"nerve_muscle.jsonl:2: got list; expected the fields"),
        (json.dumps(dict.fromkeys(FIELDS, 1)), r"nerve_muscle.jsonl:2: id, .* should be text"),
        (json.dumps(dict.fromkeys(FIELDS, "x")), r"relation 'x' in the file of 'nerve_muscle'"),
    ],
)
def test_damaged_files_are_named_with_their_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "nerve_muscle.jsonl"
    good = {name: getattr(DELTOID, name) for name in FIELDS}
    path.write_text(json.dumps(good) + "\n", encoding="utf-8")
    assert read_facts(path) == [DELTOID]
    path.write_text(json.dumps(good) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_facts(path)
