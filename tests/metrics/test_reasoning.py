"""Reasoning metrics by hand, their intervals, and entities."""

from __future__ import annotations

import sys

import pytest

from medjudge.errors import ConfigError
from medjudge.metrics.entities import SpacyEntities, TermList, words_of
from medjudge.metrics.reasoning import REASONING_METRICS, ReasoningNumbers, ReasoningResults, summarise_reasoning
from medjudge.synthetic.terms import builtin_terms, procedure_parts


def summary(
    numbers: dict[str, list[ReasoningNumbers]], groups: list[str] | None = None, reference: str = "a"
) -> ReasoningResults:
    n = len(next(iter(numbers.values())))
    return summarise_reasoning(
        numbers,
        groups or [str(i) for i in range(n)],
        reference=reference,
        level=0.95,
        n_resamples=400,
        seed=1,
        facts={},
        not_measured={"judge_score": "no judge"},
    )


THREE = [
    ReasoningNumbers(0.5, None, 2, 4, 3, n_cited=2, n_valid=1, has_evidence=True),
    ReasoningNumbers(1.0, None, 3, 3, 3, n_cited=0, n_valid=0, has_evidence=True),
    ReasoningNumbers(0.0, None, 0, 0, 4),  # unparsed: nothing found, nothing cited
]


def test_metrics_by_hand() -> None:
    found = summary({"a": THREE}).models["a"]
    # 5 shared entities of 7 generated and 10 gold: P 5/7, R 5/10, F1 2 x 5 / 17.
    expected = {
        "alignment": 0.5,
        "entity_precision": 5 / 7,
        "entity_recall": 0.5,
        "entity_f1": 10 / 17,
        "citations_valid": 0.5,
        "citing": 0.5,
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert found["judge_score"].value is None
    assert {name: found[name].n for name in ("alignment", "entity_f1", "citations_valid", "citing")} == {
        "alignment": 3,
        "entity_f1": 3,
        "citations_valid": 1,
        "citing": 2,
    }


def test_intervals_hold_the_value_and_one_group_has_none() -> None:
    rows = [ReasoningNumbers(i / 40, i / 4, 1, 2, 2) for i in range(40)]
    metric = summary({"a": rows}).models["a"]["alignment"]
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low < float(metric.value or 0) < metric.high
    alone = summary({"a": rows}, ["g"] * 40).models["a"]["alignment"]
    assert (alone.value, alone.low, alone.high) == (metric.value, None, None)


def test_a_model_does_not_differ_from_itself_and_a_constant_shift_is_found() -> None:
    low = [ReasoningNumbers(0.2 + i / 100, 2.0, 1, 2, 2) for i in range(30)]
    high = [ReasoningNumbers(0.5 + i / 100, 7.0, 2, 2, 2) for i in range(30)]
    results = summary({"a": low, "same": low, "b": high})
    same, b = results.differences
    assert (same.a, same.b, same.metrics["alignment"].value) == ("same", "a", 0.0)
    assert b.metrics["alignment"].value == pytest.approx(0.3)
    assert b.metrics["judge_score"].value == 5.0
    assert b.metrics["entity_recall"].value == 0.5


def test_rows_without_reasons_say_so_instead_of_inventing_numbers() -> None:
    results = summary({"a": [ReasoningNumbers(), ReasoningNumbers()]})
    assert set(results.not_measured) == set(REASONING_METRICS)
    assert results.not_measured["alignment"] == "no evaluated row has the expert's reasoning"
    assert results.not_measured["judge_score"] == "no judge"
    assert results.not_measured["citing"] == "no prompt showed evidence"
    assert all(metric.value is None for metric in results.models["a"].values())


def test_results_survive_json() -> None:
    results = summary({"a": THREE})
    assert ReasoningResults.model_validate(results.model_dump(mode="json")) == results


# --- entities ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("haemorrhages", "Hemorrhage"),
        ("oesophagus", "Esophagus"),
        ("X-ray", "x ray"),
        ("Syndrome de Guillain-Barré", "syndrome de guillain barre"),
        ("radiographs", "radiograph"),
    ],
)
def test_words_in_a_plain_form(one: str, other: str) -> None:
    assert words_of(one) == words_of(other)


@pytest.mark.parametrize("word", ["stenosis", "abscess", "thrombus", "gas"])
def test_no_plural_is_made_of_a_singular(word: str) -> None:
    assert words_of(word) == (word,)


def test_the_longest_term_wins_and_a_word_belongs_to_one_term() -> None:
    find = TermList("mine", ["CT", "CT angiography", "pulmonary embolism", "embolism", "x"])
    assert find(["CT angiography shows pulmonary embolism; CT without x. CT again.", "", "Nothing."]) == [
        {"ct angiography", "pulmonary embolism", "ct"},
        frozenset(),
        frozenset(),
    ]


@pytest.mark.parametrize(
    ("procedure", "parts"),
    [
        ("CT head without IV contrast", ["CT head", "without IV contrast"]),
        ("CT chest without and with IV contrast", ["CT chest", "without and with IV contrast"]),
        (
            "CT of the chest, abdomen and pelvis with IV contrast",
            ["CT", "chest", "abdomen", "pelvis", "with IV contrast"],
        ),
        ("FDG PET/CT of the brain", ["FDG PET", "CT", "brain"]),
        ("Chest radiography", ["Chest radiography"]),
    ],
)
def test_procedure_parts(procedure: str, parts: list[str]) -> None:
    assert procedure_parts(procedure) == parts


def test_the_built_in_terms_find_what_the_package_writes_about() -> None:
    [found] = TermList("builtin", builtin_terms())(
        ["Chest radiography is indicated for suspected pneumothorax; bleomycin causes pulmonary fibrosis."]
    )
    assert {"chest radiography", "bleomycin", "pulmonary fibrosis"} <= found


def test_a_missing_pipeline_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match="entities by 'spacy:en_core_sci_sm' need spaCy, which is not installed"):
        SpacyEntities("en_core_sci_sm")(["text"])


def test_a_spacy_pipeline_fits_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entity:
        text = "Pulmonary Embolisms"

    class Document:
        ents = (Entity(),)

    class Pipeline:
        def pipe(self, texts: list[str]) -> list[Document]:
            return [Document() for _ in texts]

    module = type(sys)("spacy")
    module.load = lambda name: Pipeline()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", module)
    assert SpacyEntities("any")(["a", "b"]) == [{"pulmonary embolism"}] * 2
