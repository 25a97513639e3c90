"""One row of `verdicts.jsonl`: what is written comes back, older rows are read, damage is named by line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medjudge.data.verdict_rows import VerdictRow, read_verdicts, write_verdicts
from medjudge.errors import RunError
from medjudge.records import Case, Completion, LabelScores, Unparsed, Verdict

CASE = Case("c1", {"question": "q"}, gold="yes", group="g1", slices={"generator": "x"})
OLD = {  # as the first versions wrote it
    "model": "m",
    "case_id": "c1",
    "gold": "yes",
    "label": "no",
    "confidence": None,
    "unparsed_reason": None,
}


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        VerdictRow.of("m", CASE, Verdict("c1", "yes", 0.75), Completion("<answer>yes</answer>", 5, True, 2)),
        VerdictRow.of("m", CASE, Unparsed("c1", "well", "no tag", "schema"), Completion("well", 1, False)),
        VerdictRow.of("l", CASE, Verdict("c1", "no", 0.9), LabelScores({"no": -0.1}, {"no": 0.9, "yes": 0.1}, 0.5)),
        VerdictRow.of("majority", CASE, Verdict("c1", "no"), role="baseline"),
    ]
    write_verdicts(tmp_path / "verdicts.jsonl", rows)
    assert read_verdicts(tmp_path / "verdicts.jsonl") == rows
    assert [row.correct for row in rows] == [True, False, False, False]
    assert rows[1].judgement() == Unparsed("c1", "well", "no tag", "schema")
    assert rows[2].judgement() == Verdict("c1", "no", 0.9)


def test_what_was_not_measured_is_absent_and_not_null(tmp_path: Path) -> None:
    row = VerdictRow.of("m", CASE, Verdict("c1", "yes"))
    assert {"confidence_as_stated", "reasoning"}.isdisjoint(row.to_json())
    assert row.to_json()["n_tokens"] is None


def test_a_row_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps({**OLD, "dropped_since": 3}) + "\n", encoding="utf-8")
    [row] = read_verdicts(path)
    assert (row.role, row.group, row.slices, row.judgement()) == (None, "", {}, Verdict("c1", "no"))


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "a label that is a number": ({"label": 3}, "`label` holds a int, expected a text or null"),
    "a confidence that is a text": ({"confidence": "0.5"}, "`confidence` holds a str, expected a number or null"),
    "a confidence that is no number": ({"confidence": True}, "`confidence` holds a bool"),
    "an unknown role": ({"role": "judge"}, "`role` holds a str, expected model or baseline"),
    "slices with a number": ({"slices": {"a": 1}}, "`slices` holds a dict, expected an object of texts"),
    "a count that is a part": ({"n_tokens": 1.5}, "`n_tokens` holds a float"),
    "reasoning that is a list": ({"reasoning": [1]}, "`reasoning` holds a list"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_by_line_and_field_and_without_its_text(tmp_path: Path, name: str) -> None:
    change, message = DAMAGE[name]
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (OLD, {**OLD, **change})), encoding="utf-8")
    with pytest.raises(RunError) as told:
        read_verdicts(path)
    assert str(told.value).startswith(f"{path}:2: {message}")
    assert "run the command that wrote it again" in str(told.value)


def test_a_row_that_lacks_its_case_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps({name: value for name, value in OLD.items() if name != "case_id"}) + "\n")
    with pytest.raises(RunError, match=r"verdicts\.jsonl:1: the row lacks case_id"):
        read_verdicts(path)
