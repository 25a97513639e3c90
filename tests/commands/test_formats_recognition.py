"""How a file is known for another program's: by what it holds, never by its name, and never where two readings fit."""

from __future__ import annotations

import contextlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import medjudge
from medjudge.cli import main
from medjudge.commands.score import ScoreOptions, label_scale, score
from medjudge.data.rows import Row
from medjudge.data.verdict_formats import catalog
from medjudge.data.verdict_formats.layout import Asked, Format, Layout, finite, majority, meanings
from medjudge.errors import DataError, MedjudgeError
from tests.commands.format_files import accuracy, read, refusal, said, write_json, write_lines
from tests.shared_data import require_shared


def prometheus(i: int, **more: Any) -> dict[str, Any]:
    base = {"id": f"c{i}", "score_rubric": {}, "response": "-", "feedback": "-", "score": 1 + i % 2}
    return {**base, "human_score": 1, "eval_model_name": "p", **more}


def test_the_files_name_says_nothing(tmp_path: Path) -> None:
    """The same rows under the names of other programs' files, and under an ending that no program has."""
    rows = [prometheus(i) for i in range(6)]
    for name in (
        "samples_task_2026.jsonl",
        "annotations.json",
        "test_run_1.json",
        "records.dat",
        "log.eval",
        "noending",
    ):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, rows)) if name.endswith(".jsonl") else json.dumps(rows))
        scored = read(str(path), "1,2")
        assert "grades of prometheus-eval" in scored.results.read_as[0]
        assert accuracy(scored, "p") == 0.5
    # And the other way round: rows of nobody under a program's name stay plain rows.
    plain = write_lines(
        tmp_path / "samples_equiv_1.jsonl", [{"id": i, "label": "yes", "gold": "yes"} for i in range(4)]
    )
    assert not any("recognised" in line for line in read(plain).results.read_as)


def test_two_possible_readings_name_both_and_the_option(tmp_path: Path) -> None:
    both = [prometheus(i, label=2, gold=2) for i in range(6)]
    path = write_lines(tmp_path / "v.jsonl", both)
    message = refusal(path, "1,2")
    assert "it can be read as grades of prometheus-eval or BiGGen (its rows have score_rubric" in message
    assert "--format prometheus or --format rows" in message
    assert accuracy(read(path, "1,2", format="prometheus", gold="human_score"), "p") == 0.5
    assert accuracy(read(f"own={path}", "1,2", format="rows"), "own") == 1.0
    # Who names the column of verdicts has said how the file is read.
    assert accuracy(read(f"own={path}", "1,2", columns={"label": "label"}), "own") == 1.0


def test_two_programs_at_once(tmp_path: Path) -> None:
    rows = [prometheus(i, prompt_id=f"c{i}", judge_score=1, oracle_label=1) for i in range(4)]
    message = refusal(write_lines(tmp_path / "v.jsonl", rows), "1,2")
    assert "--format prometheus or --format cje" in message


def test_a_format_that_there_is_not(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "v.jsonl", [prometheus(0)])
    assert "did you mean `prometheus`?" in refusal(path, "1,2", format="promethus")


def test_a_named_format_whose_rows_hold_no_verdict_says_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "v.jsonl", [{"id": 1, "label": "yes", "gold": "yes"}] * 2)
    assert "holds no verdict" in refusal(path, format="deepeval")


def test_the_list_of_formats_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["medjudge", "score", "--list-formats"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert all(f"{name}: " in shown for name in [*catalog.FORMATS, "rows"])
    assert "medjudge score log.eval --labels I,C" in shown


def test_every_command_of_the_list_is_short() -> None:
    """A file, and at most two options beside --out; what stands in brackets or makes a scale ordered is no third."""
    for name, _, command in catalog.listing()[:-1]:
        options = [word for word in command.partition(" [")[0].split() if word.startswith("--")]
        assert len([word for word in options if word != "--ordered"]) <= (3 if name == "cje" else 2), command


def test_majority_and_meanings() -> None:
    assert majority(["yes", "Yes ", "no", None]) == ("yes", False)
    assert majority([True, False]) == (None, True)
    assert majority([None, ""]) == (None, False)
    assert finite(float("nan")) is None
    assert finite("0,5") == 0.5
    assert meanings("pair", ("1", "2"))["model_a"] == "1"
    assert meanings("pair", ("A", "B", "C"))["tie"] == "C"
    assert meanings("pair", ("no", "yes")) == {}
    assert meanings("sides", ("fail", "pass"))["c"] == "pass"
    assert "pass" not in meanings("sides", ("fail", "pass"))


CELLS: list[Any] = [
    None,
    "",
    "x",
    "yes",
    1,
    -1,
    1.5,
    True,
    [],
    {},
    [1],
    ["a"],
    [{}],
    {"a": 1},
    [[1, 2]],
    "1" * 400,
    "\u0000",
]
KEYS = sorted(
    re.findall(
        r"\w+",
        """
        id epoch scores target value history provenance doc_id doc filtered_resps testCase gradingResult provider vars
        metricsData name score success error custom_id response body choices message content spec sample_id type data
        instruction output_1 output_2 preference question_id model judge judgment turn model_1 model_2 g1_winner
        g2_winner winner model_a model_b annotations predictions result source dataType stringValue annotator_kind
        assessments instance binary_labels rubric score_rubric feedback metric_input metric_output is_accepted
        prompt_id judge_score oracle_label scores_chosen scores_rejected results pair_id label judgments picked
        """,
    )
)


def anything(rng: random.Random, depth: int = 0) -> Any:
    if depth > 3 or rng.random() < 0.3:
        return rng.choice(CELLS)
    if rng.random() < 0.3:
        return [anything(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(KEYS): anything(rng, depth + 1) for _ in range(rng.randint(1, 5))}


@pytest.mark.parametrize("name", list(catalog.FORMATS))
def test_no_reader_fails_on_odd_rows(tmp_path: Path, name: str) -> None:
    """Rows of the right keys and of any values, forced on each reader: numbers, or one message."""
    rng = random.Random(name)
    form: Format = catalog.FORMATS[name]
    for at in range(60):
        rows = [{key: anything(rng) for key in rng.sample(KEYS, 30)} for _ in range(3)]
        form.recognise(rows)
        form.container(rows[0])
        with contextlib.suppress(DataError):
            layout = form.read([Row(f"r{i}", row) for i, row in enumerate(rows)], Asked(("no", "yes")), "file")
            assert isinstance(layout, Layout)
        if at < 3:
            path = write_lines(tmp_path / "v.jsonl", rows)
            with pytest.raises(MedjudgeError):
                score([path], label_scale("no,yes"), ScoreOptions(n_resamples=20, format=name))


def test_conditions_hold_for_what_a_reader_makes_of_rows(tmp_path: Path) -> None:
    tree = {
        "testCases": [
            {"name": f"c{i}", "actualOutput": "-", "metadata": {"expert": "yes", "part": i % 2}}
            | {"metricsData": [{"name": n, "score": 1.0, "success": True} for n in ("x", "y")]}
            for i in range(6)
        ]
    }
    path = write_json(tmp_path / "run.json", tree)
    scored = read(path, where=["metricsData.name=x", "metadata.part=1"])
    assert list(said(scored, "x")) == ["c1", "c3", "c5"]
    assert set(scored.results.of_role("model")) == {"x"}


def test_frames_of_other_programs_are_recognised_in_python() -> None:
    frame = pd.DataFrame(
        [
            {"user_input": f"q{i}", "response": "-", "faithfulness": 0.2 + 0.6 * (i % 2), "expert": "yes"}
            for i in range(6)
        ]
    )
    scores = medjudge.score(frame, labels=["no", "yes"], threshold=0.5, n_resamples=20)
    assert scores.results.models["faithfulness"].metrics["accuracy"].value == 0.5
    with pytest.raises(MedjudgeError, match="no column 'label'"):
        medjudge.score(frame, labels=["no", "yes"], format="rows")


# --- small inputs beside the project ----------------------------------------------------------------------------------

SHARED: list[tuple[str, str, dict[str, Any], float, int]] = [
    ("d01_inspect_eval/log.eval", "I,C", {}, 0.75, 2),
    ("d02_lm_eval/samples_choice_2026-09-01T10-00-00.jsonl", "no,yes", {}, 19 / 24, 0),
    ("d02_lm_eval/samples_equiv_2026-09-01T10-00-00.jsonl", "no,yes", {"where": ["filter=strict-match"]}, 0.75, 2),
    ("d03_promptfoo/results.json", "no,yes", {}, 0.75, 2),
    (
        "d03_promptfoo/results.jsonl",
        "no,yes",
        {"columns": {"label": "gradingResult.pass"}},
        0.75,
        2,
    ),
    ("d04_deepeval/test_run_20260901_100000.json", "false,true", {}, 0.75, 2),
    ("d06_openai_evals/230901_r1_judge-x_equiv.jsonl", "no,yes", {}, 0.75, 2),
    ("d09_argilla/records.json", "no,yes", {}, 15 / 21, 2),
    ("d10_label_studio/project-1.json", "no,yes", {}, 0.75, 2),
    ("d15_llmbar/result.json", "1,2", {"gold": "label"}, 0.75, 2),
    ("d15_prometheus/evals.json", "1,2,3,4,5", {}, 0.75, 2),
    ("d15_rewardbench/scores.json", "0,1", {}, 0.75, 0),
    ("d15_cje/draws.jsonl", "0,1", {"threshold": 0.5, "gold_threshold": 0.5}, 11 / 16, 2),
]


@pytest.mark.parametrize(("path", "labels", "given", "right", "unparsed"), SHARED, ids=[one[0] for one in SHARED])
def test_layouts_that_people_report(path: str, labels: str, given: dict[str, Any], right: float, unparsed: int) -> None:
    file = require_shared("cases", *path.split("/"))
    scored = read(f"tool={file}", labels, **given)
    (judge,) = scored.results.of_role("model")
    assert accuracy(scored, judge) == pytest.approx(right)
    assert scored.results.models[judge].n_unparsed == unparsed
