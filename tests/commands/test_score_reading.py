"""What `medjudge score` takes for what, and where it stops: files as other programs and people write them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import medjudge
from medjudge.commands.score import ScoreOptions, label_scale, score
from medjudge.data.shapes import archived_objects
from medjudge.errors import ConfigError, DataError, MedjudgeError
from medjudge.metrics.result_types import Results
from medjudge.tasks.equivalence import EquivalenceContract
from tests.shared_data import require_shared

BINARY = label_scale("no,yes")
ZERO_ONE = label_scale("0,1")

# Ten cases, yes on the even ones; the judge is wrong on cases 3 and 8 and silent on case 5: 7 of 10.
GOLD = ["yes" if i % 2 == 0 else "no" for i in range(10)]
SAID = [{3: "yes", 8: "no", 5: None}.get(i, GOLD[i]) for i in range(10)]


def rows(**more: Any) -> list[dict[str, Any]]:
    """The ten cases; `more`: column -> its ten values."""
    return [
        {"id": f"c{i}", "gold": GOLD[i], "label": SAID[i], **{name: values[i] for name, values in more.items()}}
        for i in range(10)
    ]


def renamed(names: dict[str, str], of: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    return [{names.get(key, key): value for key, value in row.items()} for row in of or rows()]


def jsonl(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def scored(source: str | list[str], scale: Any = BINARY, **given: Any) -> Results:
    paths = [source] if isinstance(source, str) else source
    return score(paths, scale, ScoreOptions(**{"n_resamples": 50, **given})).results


def accuracy(results: Results, name: str) -> float:
    value = results.models[name].metrics["accuracy"].value
    assert value is not None
    return value


def refusal(source: str | list[str], scale: Any = BINARY, **given: Any) -> str:
    with pytest.raises(MedjudgeError) as error:
        scored(source, scale, **given)
    return str(error.value)


# --- columns ----------------------------------------------------------------------------------------------------------


def test_one_column_is_never_two_fields(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "v.jsonl", renamed({"label": "winner", "gold": "label"}))
    said = refusal(path, gold="label")
    assert "no column 'label' or 'verdict' or 'prediction' ('label' for 'gold' is taken)" in said
    assert "Labels stand in: winner" in said
    assert "'label' is mapped to two fields" in refusal(path, gold="label", columns={"label": "label"})
    results = scored(path, gold="label", columns={"label": "winner"})
    assert accuracy(results, "v") == pytest.approx(0.7)
    assert results.models["v"].n_unparsed == 1


def test_two_columns_that_may_be_the_verdict_are_not_guessed_at(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "v.jsonl", rows(prediction=["yes"] * 10))
    assert "columns 'label', 'prediction' may each stand for field 'label'" in refusal(path)
    assert accuracy(scored(path, columns={"label": "prediction"}), "v") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("result.verdct", "no row has result.verdct (did you mean `result.verdict`?); result has: verdict"),
        ("reslt.verdict", "no column 'reslt.verdict' for field 'label'"),
        ("result.verdict.text", "no row has result.verdict.text; result.verdict holds plain values"),
        ("votes.first", "no row has votes.first; votes is a list of up to 2: name an entry, votes[0]"),
        ("votes[5]", "no row has votes[5]; votes is a list of up to 2"),
    ],
)
def test_a_path_that_no_row_has_stops_with_what_is_there(tmp_path: Path, path: str, message: str) -> None:
    lines = [{"id": row["id"], "gold": row["gold"], "result": {"verdict": row["label"]}} for row in rows()]
    file = jsonl(tmp_path / "v.jsonl", [{**line, "votes": [line["gold"], "no"]} for line in lines])
    assert message in refusal(file, columns={"label": path})


@pytest.mark.parametrize("path", ["a.0.b", "a[0].b", "a.1.c.0", "x.y z.0", "x = 1.b.verdict"])
def test_paths_enter_lists_and_keys_with_dots(tmp_path: Path, path: str) -> None:
    lines = [
        {
            "id": row["id"],
            "gold": row["gold"],
            "a": [{"b": row["label"]}, {"c": [row["label"]]}],
            "x.y z": [row["label"]],
            "x = 1.b": {"verdict": row["label"]},
        }
        for row in rows()
    ]
    assert accuracy(scored(jsonl(tmp_path / "v.jsonl", lines), columns={"label": path}), "v") == pytest.approx(0.7)


def test_a_column_of_models_is_no_judge_unless_said(tmp_path: Path) -> None:
    models = ["alpha", "beta"] * 5
    results = scored(jsonl(tmp_path / "v.jsonl", rows(model=models)))
    assert list(results.of_role("model")) == ["v"]
    assert accuracy(results, "v") == pytest.approx(0.7)
    assert results.audit is not None
    assert [row.generator for row in results.audit.judges["v"].generators] == ["alpha", "beta"]
    assert any("--map judge=model" in line for line in results.read_as)
    said = scored(str(tmp_path / "v.jsonl"), columns={"judge": "model"})
    assert list(said.of_role("model")) == ["alpha", "beta"]


def test_models_that_answer_the_same_question_are_two_cases(tmp_path: Path) -> None:
    lines = [{**row, "id": f"q{i // 2}", "model": ["alpha", "beta"][i % 2]} for i, row in enumerate(rows())]
    path = jsonl(tmp_path / "v.jsonl", lines)
    said = refusal(path)
    assert "The two rows differ in: model" in said
    assert "--map id=id+model,group=id" in said
    results = scored(path, columns={"id": "id+model", "group": "id"})
    assert (accuracy(results, "v"), results.n_groups) == (pytest.approx(0.7), 5)


def test_models_that_judge_the_same_cases_are_judges(tmp_path: Path) -> None:
    both = [{**row, "model": name} for row in rows() for name in ("alpha", "beta")]
    results = scored(jsonl(tmp_path / "v.jsonl", both))
    assert list(results.of_role("model")) == ["alpha", "beta"]
    assert any("judge = model" in line for line in results.read_as)


def test_a_column_of_judges_can_be_switched_off(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "v.jsonl", rows(judge=["a", "b"] * 5))
    assert list(scored(path).of_role("model")) == ["a", "b"]
    assert list(scored(path, columns={"judge": ""}).of_role("model")) == ["v"]


def test_several_columns_of_one_file_are_judges(tmp_path: Path) -> None:
    lines = rows(second=GOLD, third=[None] * 10)
    path = jsonl(tmp_path / "jury.jsonl", lines)
    results = scored(path, judges={"one": "label", "two": "second"})
    assert {name: accuracy(results, name) for name in results.of_role("model")} == {
        "one": pytest.approx(0.7),
        "two": 1.0,
    }
    assert "column 'third' (judge 'three') holds no verdict in any of 10 rows" in refusal(
        path, judges={"one": "label", "three": "third"}
    )
    assert "column 'third' holds no verdict in any of 10 rows" in refusal(path, columns={"label": "third"})
    assert "--judge NAME=COLUMN" in refusal([f"a={path}", f"b={path}"])
    assert "no column 'secnd'" in refusal(path, judges={"two": "secnd"})
    assert "mapped to two fields" in refusal(path, judges={"one": "second", "two": "second"})
    assert "one column of 'confidence'" in refusal(path, judges={"a": "second"}, columns={"confidence": "label"})


def test_what_was_read_as_what_is_said_with_counts(tmp_path: Path) -> None:
    results = scored(jsonl(tmp_path / "v.jsonl", rows()))
    first, verdicts, gold = results.read_as
    assert "read as: verdict = label, gold = gold, id = id, group = each case alone, judge = 'v'; 10 rows" in first
    assert verdicts == "Verdicts of v: 'yes' 5, 'no' 4, empty 1."
    assert gold == "Expert labels: 'yes' 5, 'no' 5."
    assert Results.from_json(results.to_json()).read_as == results.read_as


def test_a_judge_with_a_baselines_name_stays_a_judge(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "v.jsonl", rows())
    for name in ("majority", "chance", "always_positive"):
        results = scored(f"{name}={path}")
        assert results.models[name].role == "model"
        assert accuracy(results, name) == pytest.approx(0.7)
    assert results.skipped_baselines["always_positive"] == "a judge has this name."


# --- values -----------------------------------------------------------------------------------------------------------


def test_unreadable_verdicts_stop_with_their_counts_and_the_option(tmp_path: Path) -> None:
    letters = {"yes": "Y", "no": "N", None: None}
    path = jsonl(tmp_path / "v.jsonl", [{**row, "label": letters[row["label"]]} for row in rows()])
    said = refusal(path)
    assert "0 of 9 values in column 'label' are a label (no, yes)" in said
    assert "'Y' 5, 'N' 4, empty 1" in said
    assert "--alias Y=yes" in said
    assert "--alias N=no" in said
    assert accuracy(scored(path, aliases={"Y": "yes", "N": "no"}), "v") == pytest.approx(0.7)
    assert accuracy(scored(path, aliases={"y": "YES", "n": "no"}), "v") == pytest.approx(0.7)


def test_a_label_under_another_name_is_not_counted_as_wrong(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "v.jsonl", [{**row, "label": {"no": "nope"}.get(row["label"], row["label"])} for row in rows()]
    )
    said = refusal(path)
    assert "--alias nope=no" in said
    assert accuracy(scored(path, aliases={"nope": "no"}), "v") == pytest.approx(0.7)
    assert scored(path, aliases={"nope": ""}).models["v"].n_unparsed == 5  # no verdict, on purpose; one cell is empty


@pytest.mark.parametrize(
    ("label", "cell", "alias"),
    [
        ("yes", "Yes.", "--alias Yes.=yes"),
        ("yes", "Y", "--alias Y=yes"),
        ("no", '"no"', """--alias '"no"=no'"""),
        ("yes", "yes, as written", "--alias 'yes, as written=yes'"),
        ("no", "0", "--alias 0=no"),
    ],
)
def test_other_names_of_labels_stop_although_every_label_is_met(
    tmp_path: Path, label: str, cell: str, alias: str
) -> None:
    """Three of four cells of one label are written otherwise, the last one as on the scale."""
    left = iter([cell, cell, cell])
    lines = [{**row, "label": next(left, label) if row["label"] == label else row["label"]} for row in rows()]
    said = refusal(jsonl(tmp_path / "v.jsonl", lines))
    assert "6 of 9 values in column 'label' are a label (no, yes)" in said
    assert alias in said
    value, _, meaning = alias.removeprefix("--alias ").strip("'").rpartition("=")
    assert accuracy(scored(str(tmp_path / "v.jsonl"), aliases={value: meaning}), "v") == pytest.approx(0.7)


@pytest.mark.parametrize("cell", ["no answer", "not sure", "no-show", "yes/no", "none", "-1"])
def test_a_value_that_is_no_label_is_not_taken_for_one(tmp_path: Path, cell: str) -> None:
    lines = [{**row, "gold": cell if i == 4 else row["gold"]} for i, row in enumerate(rows())]
    said = refusal(jsonl(tmp_path / "v.jsonl", lines))
    assert "1 of 10 values in column 'gold' are no expert label" in said
    assert "=no" not in said
    assert "=yes" not in said


def test_zero_and_one_are_names_of_two_labels_and_no_score(tmp_path: Path) -> None:
    numbers = {"yes": 1.0, "no": 0.0, None: None}
    lines = [{**row, "gold": numbers[row["gold"]], "label": numbers[row["label"]]} for row in rows()]
    path = jsonl(tmp_path / "v.jsonl", lines)
    said = refusal(path)
    assert "--alias 1=yes" in said
    assert "--alias 0=no" in said
    assert accuracy(scored(path, aliases={"1": "yes", "0": "no"}), "v") == pytest.approx(0.7)


def test_experts_values_that_are_no_label_stop_with_their_counts(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "v.jsonl", [{**row, "gold": {"yes": "same"}.get(row["gold"], row["gold"])} for row in rows()]
    )
    said = refusal(path)
    assert "5 of 10 values in column 'gold' are no expert label, expected no, yes" in said
    assert "'same' 5" in said
    assert "--alias same=yes" in said


def test_a_score_is_no_label(tmp_path: Path) -> None:
    scores = [1, 0, 0.8, 0.7, 0.9, 0.2, 0.6, 0.3, 0.4, 0.1]  # wrong at .5: cases 3 and 8
    lines = [{"id": i, "gold": int(GOLD[i] == "yes"), "score": scores[i]} for i in range(10)]
    path = jsonl(tmp_path / "v.jsonl", lines)
    said = refusal(path, ZERO_ONE, columns={"label": "score"})
    assert "8 of 10 values are numbers from 0.1 to 0.9 that are no label: this looks like a score" in said
    assert "--threshold" in said
    results = scored(path, ZERO_ONE, columns={"label": "score"}, threshold=0.5)
    assert accuracy(results, "v") == pytest.approx(0.8)
    assert "--gold-threshold" in refusal(path, ZERO_ONE, columns={"label": "gold"}, gold="score")
    both = scored(path, ZERO_ONE, columns={"label": "gold"}, gold="score", gold_threshold=0.5)
    assert accuracy(both, "v") == pytest.approx(0.8)
    with pytest.raises(ConfigError, match="makes two labels"):
        scored(path, label_scale("0,1,2"), columns={"label": "score"}, threshold=0.5)


def test_a_number_between_two_labels_is_a_score(tmp_path: Path) -> None:
    scores = [1, 0, 0.5, 0, 1, 0, 1, 0, 0.5, 0]
    lines = [{"id": i, "gold": int(GOLD[i] == "yes"), "label": scores[i]} for i in range(10)]
    path = jsonl(tmp_path / "v.jsonl", lines)
    assert "2 of 10 values are numbers equal to 0.5 that are no label: this looks like a score" in refusal(
        path, ZERO_ONE
    )
    assert accuracy(scored(path, ZERO_ONE, threshold=0.5), "v") == pytest.approx(1.0)


def test_reasons_of_other_programs_are_shown_as_one_word_alone(tmp_path: Path) -> None:
    for reason, shown in (("timeout", "timeout"), ("Mr Able was not named", "no label was given")):
        path = jsonl(tmp_path / "v.jsonl", rows(unparsed_reason=[reason] * 10))
        assert list(scored(path).models["v"].unparsed_reasons) == [shown]


@pytest.mark.parametrize(
    ("labels", "read"), [("no,yes", True), ("yes,no", True), ("0,1", True), ("fail,pass", True), ("mild,severe", False)]
)
def test_true_and_false_are_labels_that_mean_so(tmp_path: Path, labels: str, read: bool) -> None:
    as_bool = {"yes": True, "no": False, None: None}
    path = jsonl(
        tmp_path / "v.jsonl", [{**r, "gold": as_bool[r["gold"]], "label": as_bool[r["label"]]} for r in rows()]
    )
    if read:
        assert accuracy(scored(path, label_scale(labels)), "v") == pytest.approx(0.7)
    else:
        assert "--alias true=LABEL" in refusal(path, label_scale(labels))


@pytest.mark.parametrize(
    ("labels", "cells"),
    [
        ("no,yes", {"no": "\u00a0No ", "yes": "YES\u200b"}),
        ("non,équivalent", {"no": "NON", "yes": "e\u0301quivalent"}),
        ("1,2", {"no": "1.0", "yes": "2,0"}),
        ("1.0,2.0", {"no": 1, "yes": "2"}),
        ("not the same,the same", {"no": "not\u2003the  same", "yes": "The same"}),
        ("no,yes", {"no": ["no"], "yes": ["yes"]}),
    ],
)
def test_labels_in_other_writing(tmp_path: Path, labels: str, cells: dict[str, Any]) -> None:
    lines = [{**row, "gold": cells[row["gold"]], "label": cells.get(row["label"])} for row in rows()]
    assert accuracy(scored(jsonl(tmp_path / "v.jsonl", lines), label_scale(labels)), "v") == pytest.approx(0.7)


def test_two_labels_are_never_one(tmp_path: Path) -> None:
    scale = label_scale("A,a")
    lines = [{"id": i, "gold": "A", "label": said} for i, said in enumerate(["A", "a", "A", "A"])]
    assert accuracy(scored(jsonl(tmp_path / "v.jsonl", lines), scale), "v") == pytest.approx(0.75)
    with pytest.raises(ConfigError, match="expected one of the labels no, yes"):
        scored(jsonl(tmp_path / "w.jsonl", rows()), aliases={"y": "maybe"})


@pytest.mark.parametrize(
    ("of_verdicts", "of_gold"),
    [
        ([1, 2, 3], ["1.0", "2.0", "3.0"]),
        (["1", "2", "3"], [1.0, 2.0, 3.0]),
        (["é1", "é2", "é3"], ["e\u03011", "e\u03012", "e\u03013"]),
        ([" a", "b\u00a0", "c\u200b"], ["a", "b", "c"]),
    ],
)
def test_ids_that_look_alike_are_alike(tmp_path: Path, of_verdicts: list[Any], of_gold: list[Any]) -> None:
    verdicts = jsonl(tmp_path / "v.jsonl", [{"id": one, "label": "yes"} for one in of_verdicts])
    gold = jsonl(tmp_path / "g.jsonl", [{"id": one, "gold": "yes"} for one in of_gold])
    results = scored(verdicts, gold=gold)
    assert (results.n_cases, results.models["v"].n, accuracy(results, "v")) == (3, 3, 1.0)


@pytest.mark.parametrize(
    ("of_verdicts", "of_gold"), [("Case-{}", "CASE-{}"), ("{}", "{:03d}"), ("ward 2/{}", "Ward 02/{:02d}")]
)
def test_ids_that_differ_in_case_or_leading_zeros_are_joined_and_said(
    tmp_path: Path, of_verdicts: str, of_gold: str
) -> None:
    said = [{"id": of_verdicts.format(i), "label": row["label"]} for i, row in enumerate(rows())]
    truth = [{"id": of_gold.format(i), "gold": row["gold"]} for i, row in enumerate(rows())]
    results = scored(jsonl(tmp_path / "v.jsonl", said), gold=jsonl(tmp_path / "g.jsonl", truth))
    assert accuracy(results, "v") == pytest.approx(0.7)
    assert results.models["v"].n_missing == 0
    assert any("10 of 10 case ids are joined with ids that differ" in line for line in results.read_as)


def test_ids_that_a_file_itself_tells_apart_by_case_stay_apart(tmp_path: Path) -> None:
    said = [{"id": name, "label": "yes"} for name in ("a", "b", "c")]
    truth = [{"id": name, "gold": "yes"} for name in ("a", "A", "b", "B", "c", "C")]
    results = scored(jsonl(tmp_path / "v.jsonl", said), gold=jsonl(tmp_path / "g.jsonl", truth))
    assert (results.n_cases, results.models["v"].n_answered) == (6, 3)
    assert not any("differ" in line for line in results.read_as)


def test_a_judge_with_hardly_a_partner_among_the_experts_cases_stops(tmp_path: Path) -> None:
    gold = jsonl(tmp_path / "g.jsonl", [{"id": row["id"], "gold": row["gold"]} for row in rows()])
    right = jsonl(tmp_path / "a.jsonl", [{"id": row["id"], "label": row["label"]} for row in rows()])
    other = [{"id": row["id"] if i == 0 else f"x{i}", "label": row["label"]} for i, row in enumerate(rows())]
    said = refusal([right, jsonl(tmp_path / "b.jsonl", other)], gold=gold)
    assert "only 1 of 10 verdicts of b have a partner" in said
    assert "--gold-map id=COLUMN" in said
    few = jsonl(tmp_path / "few.jsonl", other[:1])  # one verdict, and it has its partner: few are answered, all joined
    assert scored(few, gold=gold).models["few"].n_answered == 1


def test_a_file_of_experts_that_is_not_there_is_no_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "v.jsonl", rows())
    assert "experts.csv does not exist" in refusal(path, gold=str(tmp_path / "experts.csv"))
    assert "no column 'experts' for field 'gold'" in refusal(path, gold="experts")


def test_of_several_entries_the_message_names_a_path_to_one(tmp_path: Path) -> None:
    lines = [
        {"id": i, "gold": GOLD[i], "said": [{"by": "a", "as": SAID[i]}, {"by": "b", "as": SAID[i]}]} for i in range(10)
    ]
    path = jsonl(tmp_path / "v.jsonl", lines)
    assert "Of lists one entry can be read: said[0].as." in refusal(path, columns={"label": "said[*].as"})
    assert accuracy(scored(path, columns={"label": "said[0].as"}), "v") == pytest.approx(0.7)


def test_equal_rows_are_named_as_such(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "v.jsonl", [*rows(), rows()[2]])
    assert "v.jsonl:11: judge 'v' has a second verdict for case 'c2', expected one. The row is the same as" in refusal(
        path
    )


def test_a_blank_id_is_no_id(tmp_path: Path) -> None:
    lines = [*rows(kind=["match"] * 10), {"id": " ", "label": "yes", "gold": "yes", "kind": "sampling"}]
    path = jsonl(tmp_path / "v.jsonl", lines)
    said = refusal(path)
    assert "1 of 11 rows hold no case id in column 'id'" in said
    assert "Columns that may tell rows apart: kind" in said
    assert accuracy(scored(path, where=["kind=match"]), "v") == pytest.approx(0.7)
    assert accuracy(scored(path, columns={"id": ""}), "v") == pytest.approx(8 / 11)


def test_long_ids_and_long_values_are_not_shown(tmp_path: Path) -> None:
    text = "The patient, born in 1951, was seen on Monday and complained of a headache since the morning"
    lines = [{**row, "id": f"{text} {i}", "label": f"{text} {i}"} for i, row in enumerate(rows())]
    path = jsonl(tmp_path / "v.jsonl", lines)
    said = refusal(path)
    assert "10 texts of up to 94 characters" in said
    assert "patient" not in said
    twice = jsonl(tmp_path / "w.jsonl", [{**line, "id": text, "label": "yes"} for line in lines])
    assert "patient" not in refusal(twice)
    named = jsonl(
        tmp_path / "n.jsonl",
        [{"id": i, "gold": "no", "label": one} for i, one in enumerate(["Jane Roe", "Ann Poe"])],
    )
    assert "Roe" not in refusal(named)


def test_free_text_is_not_shown(tmp_path: Path) -> None:
    """A column of notes, some of them short and met twice: neither in the message nor among what was read."""
    notes = ["Mr Able fell today", "Mrs Baker takes warfarin and was seen by the nurse at home", "yes"]
    for column in ("label", "gold"):
        lines = [{**row, column: notes[i % 3]} for i, row in enumerate(rows())]
        said = refusal(jsonl(tmp_path / "v.jsonl", lines))
        assert "texts of up to 58 characters" in said
        assert "able" not in said.casefold().replace("readable", "")
        assert "Baker" not in said
    said = refusal(jsonl(tmp_path / "n.jsonl", rows(note=["Mr Able fell today"] * 10)), where=["note=x"])
    assert "Values there: note: 1 different." in said
    ids = [{**row, "id": f"Mr Able fell on day {i}"} for i, row in enumerate(rows())]
    verdicts = jsonl(tmp_path / "a.jsonl", [{"id": row["id"], "label": row["label"]} for row in ids])
    said = refusal(verdicts, gold=jsonl(tmp_path / "g.jsonl", [{"id": r["id"], "gold": r["gold"]} for r in rows()]))
    assert "no verdict of a has a partner" in said
    assert "Able" not in said


def test_rows_of_a_judge_that_failed_are_no_verdicts(tmp_path: Path) -> None:
    nested = [
        {**row, "label": row["label"] or "no", "parts": [{"meta": {"graderError": True}}] if i == 5 else [{"meta": {}}]}
        for i, row in enumerate(rows())
    ]
    path = jsonl(tmp_path / "v.jsonl", nested)
    said = refusal(path)
    assert "1 rows with a verdict say in parts[*].meta.graderError that something failed" in said
    results = scored(path, columns={"error": "parts[*].meta.graderError"})
    assert (accuracy(results, "v"), results.models["v"].n_unparsed) == (pytest.approx(0.7), 1)
    assert accuracy(scored(path, columns={"error": ""}), "v") == pytest.approx(0.8)
    flat = jsonl(
        tmp_path / "f.jsonl", [{**row, "label": "no", "error": "timed out"} for row in rows()[:4]] + rows()[4:]
    )
    assert scored(flat).models["f"].n_unparsed == 5


# --- files ------------------------------------------------------------------------------------------------------------

CSV = "id;label;gold;;\n" + "".join(f"c{i};{SAID[i] or ''};{GOLD[i]};;\n" for i in range(10)) + ";;;;\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("v.csv", CSV.encode(), None),
        ("v.csv", ("sep=;\n" + CSV).encode(), None),
        ("v.csv", ("\ufeff" + CSV).encode(), None),
        ("v.csv", CSV.replace(";", "\t").encode("utf-16"), "UTF-16"),
        ("v.csv", CSV.replace("id;", "numéro;", 1).encode("cp1252"), "Windows-1252"),
        ("v.json", json.dumps(rows()).encode(), None),
        ("v.jsonl", json.dumps(rows()).encode(), None),
        ("v.json", "\n".join(map(json.dumps, rows())).encode(), "per line"),
        ("v.json", json.dumps({"results": rows(), "version": 3}).encode(), "'results'"),
        ("v.json", json.dumps({"run": {"results": rows()}, "tags": []}).encode(), "'run.results'"),
        ("v.json", json.dumps({key: [row[key] for row in rows()] for key in rows()[0]}).encode(), "columns"),
        ("v.json", pd.DataFrame(rows()).to_json().encode(), "columns"),
        (
            "v.json",
            json.dumps({row["id"]: {"gold": row["gold"], "label": row["label"]} for row in rows()}).encode(),
            "ids",
        ),
    ],
)
def test_files_as_programs_write_them(tmp_path: Path, name: str, content: bytes, said: str | None) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    columns = {"id": "numéro"} if said == "Windows-1252" else {}
    results = scored(str(path), columns=columns)
    assert accuracy(results, "v") == pytest.approx(0.7)
    assert said is None or any(said in line for line in results.read_as)


def test_a_file_with_two_lists_or_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    two = tmp_path / "two.json"
    two.write_text(json.dumps({"a": rows(), "b": rows()}))
    assert "several lists of rows, expected one: a (10), b (10)" in refusal(str(two))
    twice = tmp_path / "twice.csv"
    twice.write_text("id,label,label\n1,yes,no\n")
    assert "got twice: 'label'" in refusal(str(twice))


def test_excel_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "v.xlsx"
    frame = pd.DataFrame(rows(confidence=["0,9"] * 10))
    with pd.ExcelWriter(path) as writer:
        frame.to_excel(writer, sheet_name="verdicts", index=False)
        frame.head(1).to_excel(writer, sheet_name="other", index=False)
    results = scored(str(path))
    assert accuracy(results, "v") == pytest.approx(0.7)
    assert any("the first of 2 sheets is read ('verdicts')" in line for line in results.read_as)
    assert results.audit is not None
    calibration = results.audit.judges["v"].calibration
    assert calibration is not None
    assert calibration.mean_confidence == pytest.approx(0.9)


def test_frames_in_python(tmp_path: Path) -> None:
    frame = pd.DataFrame(rows())
    found = medjudge.score(frame, labels=["no", "yes"], n_resamples=50)
    assert accuracy(found.results, "judge") == pytest.approx(0.7)
    verdicts, experts = frame[["id", "label"]], frame[["id", "gold"]].rename(columns={"gold": "truth"})
    pair = {"a": verdicts, "b": verdicts.assign(label=GOLD)}
    both = medjudge.score(pair, gold=experts, gold_columns={"gold": "truth"}, labels="no,yes", n_resamples=50)
    assert [accuracy(both.results, name) for name in ("a", "b")] == [pytest.approx(0.7), 1.0]
    numbers = frame.assign(
        gold=[float(g == "yes") for g in GOLD], label=[None if s is None else s == "yes" for s in SAID]
    )
    assert accuracy(medjudge.score(numbers, labels=[0, 1], n_resamples=50).results, "judge") == pytest.approx(0.7)
    with pytest.raises(ConfigError, match="no option 'treshold'"):
        medjudge.score(frame, labels="no,yes", treshold=1)
    with pytest.raises(DataError, match="each column name once"):
        medjudge.score(pd.concat([frame, frame[["gold"]]], axis=1), labels="no,yes")


# --- cases and groups -------------------------------------------------------------------------------------------------


def test_a_frames_named_index_is_a_column_and_other_types_are_refused() -> None:
    frame = pd.DataFrame(rows()).set_index("id")
    scores = medjudge.score(frame[["label"]], gold=frame[["gold"]], labels=["no", "yes"], n_resamples=50)
    assert accuracy(scores.results, "judge") == pytest.approx(0.7)
    with pytest.raises(ConfigError, match="gave, got int"):
        medjudge.score(5, labels="no,yes")  # type: ignore[arg-type]


def test_where_holds_for_verdicts_and_for_experts(tmp_path: Path) -> None:
    lines = rows(part=["a"] * 5 + ["b"] * 5)  # of a: case 3 wrong
    path = jsonl(tmp_path / "v.jsonl", lines)
    results = scored(path, where=["part=a"])
    assert (results.n_cases, accuracy(results, "v")) == (5, pytest.approx(0.8))
    gold = jsonl(
        tmp_path / "g.jsonl",
        [{"id": row["id"], "gold": row["gold"], "set": f"s{i % 2}"} for i, row in enumerate(lines)],
    )
    plain = [{key: value for key, value in row.items() if key != "gold"} for row in lines]
    apart = jsonl(tmp_path / "w.jsonl", plain)
    of_verdicts = scored(apart, gold=gold, where=["part=a"])
    assert (of_verdicts.n_cases, of_verdicts.models["w"].n_missing) == (5, 0)
    of_gold = scored(apart, gold=gold, where=["set=s0"])  # the five "yes": case 8 wrong
    assert (of_gold.n_cases, accuracy(of_gold, "w")) == (5, pytest.approx(0.8))
    assert not any("found no case" in line for line in of_gold.statements)
    assert "no column 'prt'" in refusal(apart, gold=gold, where=["prt=a"])
    assert "Values there: part: 'a', 'b'" in refusal(path, where=["part=c"])


@pytest.mark.parametrize(("condition", "word"), [("label=yes", "verdict"), ("gold=yes", "expert label")])
def test_choosing_rows_by_what_is_measured_is_said(tmp_path: Path, condition: str, word: str) -> None:
    results = scored(jsonl(tmp_path / "v.jsonl", rows()), where=[condition])
    assert any(f"rows are kept by their {word}" in line for line in results.read_as)


def test_repeated_questions_are_groups(tmp_path: Path) -> None:
    questions = [f"Question number {i // 2}?" for i in range(10)]
    results = scored(jsonl(tmp_path / "v.jsonl", rows(question=questions)))
    assert results.n_groups == 5
    assert any("group = question (5 different)" in line for line in results.read_as)
    assert scored(str(tmp_path / "v.jsonl"), columns={"group": ""}).n_groups == 10
    nested = scored(jsonl(tmp_path / "n.jsonl", rows(vars=[{"question": one} for one in questions])))
    assert nested.n_groups == 5


def test_other_repeated_texts_are_named(tmp_path: Path) -> None:
    lines = [
        {"id": i, "gold": "yes", "label": "yes", "aufgabe": f"Welches Medikament zuerst, Fall {i % 20}?"}
        for i in range(60)
    ]
    results = scored(jsonl(tmp_path / "v.jsonl", lines))
    assert results.n_groups == 60
    assert any("--map group=aufgabe" in line and "20 different texts for 60 cases" in line for line in results.read_as)
    few = [{**line, "prompt": f"form {i % 2}"} for i, line in enumerate(lines)]
    form = scored(jsonl(tmp_path / "f.jsonl", few))
    assert form.n_groups == 60
    assert any("--map group=prompt" in line for line in form.read_as)


def test_judges_without_a_shared_case_have_a_table_each(tmp_path: Path) -> None:
    def week(name: str, n_right: int) -> str:
        lines = [
            {"id": f"{name}{i}", "gold": ["no", "yes"][i % 2], "label": ["no", "yes"][(i % 2) ^ (i >= n_right)]}
            for i in range(100)
        ]
        return jsonl(tmp_path / f"{name}.jsonl", lines)

    results = scored([week("one", 90), week("two", 70)])
    assert [accuracy(results, name) for name in ("one", "two")] == [pytest.approx(0.9), pytest.approx(0.7)]
    (apart,) = results.unpaired
    assert (apart.n_a, apart.n_b) == (100, 100)
    # Pearson's chi-square of 90:10 against 70:30: 200 (90 * 30 - 70 * 10)^2 / (160 * 40 * 100 * 100) = 12.5.
    assert apart.p == pytest.approx(0.000407, abs=2e-5)
    assert any(
        "share no case: on its own cases two is 20.0 points less accurate" in line for line in results.statements
    )
    alike = scored([week("three", 80), week("four", 80)])
    assert any("not distinguishable" in line and "share no case" in line for line in alike.statements)


def test_baselines_say_what_was_checked(tmp_path: Path) -> None:
    texts = {
        "question": [f"What is the dose number {i}?" for i in range(10)],
        "candidate": [f"{i} mg" for i in range(10)],
        "reference": [f"{i + i % 2} mg" for i in range(10)],
    }
    train = jsonl(
        tmp_path / "train.jsonl", [{**row, "label": str(int(GOLD[i] == "yes"))} for i, row in enumerate(rows(**texts))]
    )
    as_number = {"yes": 1, "no": 0, None: None}
    bare = [{"id": row["id"], "gold": as_number[row["gold"]], "label": as_number[row["label"]]} for row in rows()]
    blind = scored(jsonl(tmp_path / "v.jsonl", bare), EquivalenceContract(), train=train)
    note = next(line for line in blind.statements if line.startswith("Baselines were fitted"))
    assert "could not be checked" in note
    assert "token_f1" not in blind.models
    with_texts = [{**row, **{name: values[i] for name, values in texts.items()}} for i, row in enumerate(bare)]
    seen = scored(jsonl(tmp_path / "w.jsonl", with_texts), EquivalenceContract(), train=train)
    note = next(line for line in seen.statements if line.startswith("Baselines were fitted"))
    assert note.startswith("Baselines were fitted on 0 of 10 training rows: the questions of the other 10 are among")


# --- real layouts -----------------------------------------------------------------------------------------------------

LAYOUTS: list[tuple[str, str, dict[str, Any], float, int]] = [
    ("c10_jury/jury.jsonl", "1,2,3,4,5", {"columns": {"label": "llama-x"}}, 19 / 24, 0),
    (
        "d01_inspect_eval/log.eval",
        "I,C",
        {"columns": {"label": "scores.model_graded_qa.value"}, "gold": "scores.clinician.value"},
        0.75,
        2,
    ),
    (
        "d02_lm_eval/samples_equiv_2026-09-01T10-00-00.jsonl",
        "no,yes",
        {"columns": {"label": "filtered_resps", "id": "doc_id"}, "gold": "target", "where": ["filter=strict-match"]},
        0.75,
        2,
    ),
    (
        "d03_promptfoo/results.json",
        "no,yes",
        {
            "columns": {
                "label": "gradingResult.pass",
                "id": "testCase.description",
                "error": "gradingResult.componentResults[*].metadata.graderError",
            },
            "gold": "vars.expert",
        },
        0.75,
        2,
    ),
    (
        "d04_deepeval/test_run_20260901_100000.json",
        "no,yes",
        {"columns": {"label": "success", "id": "name", "error": "metricsData[0].error"}, "gold": "metadata.expert"},
        0.75,
        2,
    ),
    (
        "d06_openai_evals/230901_r1_judge-x_equiv.jsonl",
        "no,yes",
        {"columns": {"label": "data.picked", "id": "sample_id"}, "gold": "data.expected", "where": ["type=match"]},
        0.75,
        2,
    ),
    (
        "d09_argilla/records.json",
        "no,yes",
        {"columns": {"label": "same.suggestion"}, "gold": "same.responses.0"},
        0.75,
        2,
    ),
    (
        "d10_label_studio/project-1.json",
        "no,yes",
        {
            "columns": {"label": "predictions.0.result.0.value.choices.0"},
            "gold": "annotations.0.result.0.value.choices.0",
        },
        0.75,
        2,
    ),
    (
        "d15_llmbar/result.json",
        "1,2",
        {"columns": {"label": "results.0.swap = False.winner"}, "gold": "label"},
        0.75,
        2,
    ),
    (
        "d15_prometheus/evals.json",
        "1,2,3,4,5",
        {"columns": {"label": "score"}, "gold": "human_score"},
        0.75,
        2,
    ),
]


@pytest.mark.parametrize(("path", "labels", "given", "right", "unparsed"), LAYOUTS, ids=[one[0] for one in LAYOUTS])
def test_layouts_of_other_programs(path: str, labels: str, given: dict[str, Any], right: float, unparsed: int) -> None:
    file = require_shared("cases", *path.split("/"))
    results = scored(f"tool={file}", label_scale(labels), **given)
    assert (accuracy(results, "tool"), results.models["tool"].n_unparsed) == (pytest.approx(right), unparsed)


@pytest.mark.parametrize(
    ("path", "labels", "given", "message"),
    [
        (
            "d02_lm_eval/samples_choice_2026-09-01T10-00-00.jsonl",
            "0,1",
            {"columns": {"label": "filtered_resps"}, "gold": "target"},
            "24 lists",
        ),
        (
            "d03_promptfoo/results.jsonl",
            "no,yes",
            {"format": "rows", "columns": {"label": "gradingResult.pass"}, "gold": "vars.expert"},
            "graderError",
        ),
        (
            "d04_deepeval/test_run_20260901_100000.json",
            "no,yes",
            {"format": "rows", "columns": {"label": "success"}, "gold": "metadata.expert"},
            "metricsData",
        ),
        (
            "d07_alpacaeval/annotations.json",
            "1,2",
            {"columns": {"label": "preference"}, "gold": "preference"},
            "two fields",
        ),
        (
            "d15_cje/draws.jsonl",
            "0,1",
            {"columns": {"label": "judge_score"}, "gold": "oracle_label"},
            "--gold-threshold",
        ),
        ("d15_rewardbench/scores.json", "0,1", {"format": "rows"}, "Labels stand in: results"),
        ("d15_llmbar/result.json", "1,2", {"format": "rows", "gold": "label"}, "swap = False.winner"),
    ],
)
def test_layouts_that_need_a_word_stop(path: str, labels: str, given: dict[str, Any], message: str) -> None:
    assert message in refusal(str(require_shared("cases", *path.split("/"))), label_scale(labels), **given)


def test_a_damaged_archive_is_named_wherever_the_damage_lies(tmp_path):
    """Every byte of a small evaluation log set to another value in turn: read as it is, or one error of ours."""
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/0.json", '{"id": "c0", "label": "no"}')
    whole = path.read_bytes()
    n_named = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            list(archived_objects(path))
        except DataError as error:
            n_named += str(path) in str(error)
    assert n_named > len(whole) / 3
