"""Where `score` stops instead of measuring, and how it counts what is missing, failed, refused or repeated."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from medjudge.commands.score import ScoreOptions
from medjudge.data.cells import Scale
from medjudge.data.verdict_cells import joined
from medjudge.errors import ConfigError
from medjudge.metrics.repeats import repeat_consistency, repeat_sentence
from medjudge.records import Unparsed, Verdict
from tests.commands.format_files import accuracy, read, refusal, said, unanswered, write_lines


def rows(*cells: Any, gold: str = "yes", **more: Any) -> list[dict[str, Any]]:
    """A case for each cell; `more`: the same for all."""
    return [{"id": f"c{i}", "label": cell, "gold": ("no", gold)[i % 2], **more} for i, cell in enumerate(cells)]


# --- hardly anything that can be read ---------------------------------------------------------------------------------

FREE = [f"a long answer about something, number {i}" for i in range(6)]


def test_fewer_than_half_of_the_cells_read_stops_unless_said(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "v.jsonl", rows("yes", "no", "yes", "no", *FREE))
    message = refusal(path)
    assert "4 of 10 values in column 'label' are a label" in message
    assert "--min-read 0.4" in message
    scored = read(path, min_read=0.4)
    assert (accuracy(scored, "v"), unanswered(scored, "v")) == (0.0, {"schema": 6})
    half = write_lines(tmp_path / "half.jsonl", rows("yes", "no", "yes", "no", "no", "no", *FREE))
    assert unanswered(read(half), "half") == {"schema": 6}


def test_nothing_readable_stops_whatever_is_said(tmp_path: Path) -> None:
    message = refusal(write_lines(tmp_path / "v.jsonl", rows(*FREE)), min_read=0.0)
    assert "0 of 6 values" in message
    assert "--min-read" not in message


def test_a_judge_that_failed_on_nearly_every_case_is_not_measured(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "v.jsonl", rows("no", *[None] * 19))
    message = refusal(path)
    assert "holds a verdict in 1 of 20 rows, expected at least 10%" in message
    assert accuracy(read(path, min_read=0.0), "v") == 1 / 20
    # A tenth is enough: a judge may fail often, and that is a finding.
    assert unanswered(read(write_lines(tmp_path / "w.jsonl", rows("no", "yes", *[None] * 18))), "w") == {"failed": 18}


@pytest.mark.parametrize(
    "scores", [[0.1, 0.93, 0.4, 0.77, 0.2, 0.6], [10, 93, 40, 77, 20, 60], ["0,1", "0,93", "0,4", "0,77"]]
)
def test_continuous_scores_with_labels_name_the_threshold(tmp_path: Path, scores: list[Any]) -> None:
    message = refusal(write_lines(tmp_path / "v.jsonl", rows(*scores)))
    assert "this looks like a score. --threshold VALUE" in message
    assert "--min-read" not in message


# --- kinds of what is missing -----------------------------------------------------------------------------------------


def test_missing_failed_refused_unparsed_and_wrong_are_kept_apart(tmp_path: Path) -> None:
    cells = ["no", "yes", "no", "no", None, float("nan"), "refused", "Refusal", "error", "hm", "no", "yes"]
    table = rows(*cells)
    gold = write_lines(
        tmp_path / "g.jsonl", [{"id": row["id"], "gold": row["gold"]} for row in [*table, {"id": "x", "gold": "no"}]]
    )
    path = write_lines(tmp_path / "v.jsonl", [{"id": row["id"], "label": row["label"]} for row in table])
    scored = read(path, gold=gold)
    assert unanswered(scored, "v") == {"schema": 1, "refused": 2, "failed": 3, "absent": 1}
    model = scored.results.models["v"]
    assert (model.n, model.n_answered) == (13, 6)
    # c3 is the one that is wrong: a "no" where the experts say yes.
    assert accuracy(scored, "v") == 5 / 13
    assert any("1 unreadable, 2 refused, 3 failed, 1 absent" in line for line in scored.results.statements)


def test_words_of_failure_are_labels_where_they_are_labels(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "v.jsonl", [{"id": i, "label": w, "gold": "refused"} for i, w in enumerate(["refused", "answered"])]
    )
    scored = read(path, "answered,refused")
    assert unanswered(scored, "v") == {}


# --- labels and aliases -----------------------------------------------------------------------------------------------


def test_labels_after_nfkc_folding_and_trimming() -> None:
    scale = Scale(("no", "yes"), {"oui!": "yes"})
    for cell in ("ＹＥＳ", " Yes\u00a0", "ｙｅｓ", "OUI！", "oui!"):
        assert scale.read(cell) == "yes", cell
    assert Scale(("1", "2")).read("１") == "1"
    assert Scale(("0.5", "1")).read("0,50") == "0.5"


@pytest.mark.parametrize(
    ("aliases", "other"),
    [
        ({"Y": "yes", "y": "no"}, "'yes'"),
        ({"yes": "no"}, "'yes'"),
        ({"ＹＥＳ": "no"}, "'yes'"),
        ({"n": "no", "Ｎ": ""}, "'no'"),
    ],
)
def test_two_labels_are_never_made_one(aliases: dict[str, str], other: str) -> None:
    with pytest.raises(ConfigError, match=f"also stands for {other}"):
        Scale(("no", "yes"), aliases)


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_rows_that_differ_in_the_verdict_alone_are_repeats(tmp_path: Path) -> None:
    # Gold no, yes, no, yes. c0: no no yes; c1: yes yes; c2: no yes, a tie; c3: yes, unreadable.
    given: list[list[str | None]] = [["no", "no", "yes"], ["yes", "yes"], ["no", "yes"], ["yes", None]]
    table: list[dict[str, Any]] = [
        {"id": f"c{i}", "label": label, "gold": ("no", "yes")[i % 2]}
        for i, labels in enumerate(given)
        for label in labels
    ]
    scored = read(write_lines(tmp_path / "v.jsonl", table))
    assert said(scored, "v") == {"c0": "no", "c1": "yes", "c2": "(tied)", "c3": "yes"}
    assert accuracy(scored, "v") == 3 / 4
    repeats = scored.results.repeats["v"]
    assert (repeats.n_cases, repeats.n_verdicts, repeats.n_without) == (4, 9, 1)
    assert repeats.consistent.value == pytest.approx(1 / 3)
    assert repeats.pairwise == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert scored.results.to_json()["repeats"]["v"]["tied"] == ["c2"]


def test_rows_that_differ_in_more_need_a_word(tmp_path: Path) -> None:
    table = [{**row, "round": at} for at in (1, 2, 3) for row in rows("no", "yes", "yes", "no")]
    path = write_lines(tmp_path / "v.jsonl", table)
    assert "--map repeat=round" in refusal(path)
    scored = read(path, columns={"repeat": "round"})
    assert accuracy(scored, "v") == 2 / 4
    assert scored.results.repeats["v"].consistent.value == 1
    assert any("12 verdicts on 4 cases" in line and "none ties" in line for line in scored.results.statements)
    # The same count twice is a mistake in the file.
    assert "with the same 'round'" in refusal(
        write_lines(tmp_path / "w.jsonl", [*table, table[0]]), columns={"repeat": "round"}
    )


def test_longer_texts_that_differ_are_no_repeat(tmp_path: Path) -> None:
    table = [
        {**row, "answer": f"an answer of some length, the {at}th of them"} for at in (1, 2) for row in rows("no", "yes")
    ]
    message = refusal(write_lines(tmp_path / "v.jsonl", table))
    assert "The rows differ in longer texts" in message


def test_joined_takes_the_most_and_the_mean_confidence() -> None:
    one = joined([Verdict("c", "yes", 0.9), Verdict("c", "no", 0.2), Verdict("c", "yes", 0.7), Unparsed("c", "", "-")])
    assert isinstance(one, Verdict)
    assert one.label == "yes"
    assert one.confidence == pytest.approx(0.8)
    failed = Unparsed("c", "", "-", kind="failed")
    assert joined([failed, failed]) is failed


def test_consistency_without_a_pair_is_undefined() -> None:
    result = repeat_consistency({"c": ["yes", None]}, {}, level=0.95)
    assert (result.consistent.value, result.pairwise, result.consistent.n) == (None, None, 0)
    assert repeat_sentence("j", result).startswith("j gave 2 verdicts on 1 case (1 of them")


@pytest.mark.parametrize("name", [one.name for one in fields(ScoreOptions) if "float" in str(one.type)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_whoever_gives_it(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is -?(nan|inf), expected a finite number"):
        ScoreOptions(**{name: value})
