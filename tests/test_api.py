"""`from medjudge import Judge, load_cases, score`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import medjudge
from medjudge import Judge, load_cases, score
from medjudge.api import Judged, contract_of
from medjudge.errors import ConfigError
from medjudge.records import Case, Unparsed, Verdict
from tests.models.small_models import save_base
from tests.small_runs import write_rows

SETTINGS = {"form": "answer_only", "instructions": "terse", "max_completion_tokens": 16}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("face") / "rows.jsonl", 4)


def test_a_model_folder_judges_rows_and_is_scored(rows: Path, tmp_path: Path) -> None:
    cases = load_cases(rows, "appropriateness", fields={"condition": "topic"}, settings=SETTINGS)
    judge = Judge(save_base(tmp_path / "base"), "appropriateness", SETTINGS, name="tiny")
    judged = judge.judge(cases, mode="labels")
    frame = judged.to_frame()
    assert list(frame["case_id"]) == [case.case_id for case in cases]
    assert list(frame["gold"]) == [case.gold for case in cases]
    assert frame["confidence"].between(1 / 3, 1).all()  # the likeliest of three labels
    scores = judged.score(n_resamples=100)
    table = scores.to_frame().set_index(["judge", "statistic"])
    assert table.loc[("tiny", "accuracy"), "value"] == pytest.approx(frame["correct"].mean())
    assert "accuracy" in scores._repr_html_()
    assert cases[0].inputs["procedure"] not in judged._repr_html_()


def test_two_judges_and_what_cannot_be_scored() -> None:
    cases = load_cases("builtin:mcq", "mcq")[:20]
    contract = Judge("nowhere", "mcq").contract
    right = Judged("right", cases, [Verdict(case.case_id, str(case.gold)) for case in cases], contract)
    silent = Judged("silent", cases, [Unparsed(case.case_id, "x", "no answer") for case in cases], contract)
    scores = score([right, silent], n_resamples=100)
    assert scores.results.models["silent"].n_unparsed == 20
    audit = scores.results.audit
    assert audit is not None
    assert audit.pairs[0].only_b == 20
    assert audit.pairs[0].p == pytest.approx(2 * 0.5**20)
    with pytest.raises(ConfigError, match="2 judges share names"):
        score([right, right])
    with pytest.raises(ConfigError, match="not both at once"):
        score([right, "file.csv"])  # type: ignore[list-item]


def test_what_a_notebook_and_a_terminal_show() -> None:
    cases = load_cases("builtin:mcq", "mcq")[:12]
    contract = Judge("nowhere", "mcq").contract
    said = [
        Verdict(case.case_id, str(case.gold) if i else "A", confidence=0.8 + i / 100) for i, case in enumerate(cases)
    ]
    judged = Judged("j", cases, [*said[:-1], Unparsed(cases[-1].case_id, "PATIENT", "no answer")], contract)
    scores = judged.score(n_resamples=100)
    html = scores.plots()._repr_html_()
    assert html.count("<img") == len(scores.plots()) == html.count('alt="') >= 4
    assert scores.plot("reliability").png().startswith(b"\x89PNG")
    assert scores.plot()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="no picture 'nothing' of these scores: expected one of metrics, "):
        scores.plot("nothing")
    terminal = io.StringIO()
    Console(width=140, file=terminal).print(scores)
    assert "Accuracy" in terminal.getvalue()
    shown = judged._repr_html_() + scores._repr_html_() + html + repr(judged) + repr(scores)
    assert "PATIENT" not in shown
    assert cases[0].inputs["question"] not in shown
    assert "<table" in scores._repr_html_()
    assert ">nan<" not in scores._repr_html_()
    assert scores.generators().empty


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    rows = [{"id": str(i), "label": "yes", "gold": "yes" if i < 3 else "no"} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert score(path, labels=["no", "yes"], n_resamples=100).results.models["v"].metrics["accuracy"].value == 0.75
    with pytest.raises(ConfigError, match="got neither of `task` and `labels`, expected one"):
        score(path)


def test_the_names_are_there_but_not_imported() -> None:
    assert {"Judge", "load_cases", "score"} <= set(dir(medjudge))
    with pytest.raises(AttributeError, match="no attribute 'judge'"):
        medjudge.judge  # noqa: B018
    code = "import sys, medjudge; assert not {'torch', 'numpy', 'medjudge.api'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_that_say_how_files_are_read_are_refused_with_verdicts_of_a_judge() -> None:
    judged = Judged("a", [Case("c", {}, "1")], [Verdict("c", "1", None)], contract_of("equivalence"))
    assert score(judged, level=0.9).results.level == 0.9
    with pytest.raises(ConfigError, match="got threshold with verdicts of"):
        score(judged, threshold=0.5)
