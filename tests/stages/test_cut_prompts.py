"""A training stage says on the console how many of its prompts lose words."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.models.small_models import save_base
from tests.small_runs import small_tree, write_rows

from medjudge import artifacts
from medjudge.data.store import write_split
from medjudge.diagnostics.preflight import Preflight
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case
from medjudge.reporting.gather import gather
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import StageContext
from medjudge.stages import grpo, sft


class TrainingBeginsError(Exception):
    """Training would begin now."""


def stop(*_: Any, **__: Any) -> Any:
    raise TrainingBeginsError


def printed(stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    recipe = recipe_from_tree(small_tree(write_rows(tmp_path / "rows.jsonl", 2), tmp_path))
    base = save_base(tmp_path / "model")
    cases = [
        Case(
            f"c{i}",
            {"condition": "Pain", "variant": "acute pain " * (200 if i < 3 else 2), "procedure": "CT"},
            gold="Usually Appropriate",
            group=f"g{i}",
        )
        for i in range(8)
    ]
    (tmp_path / "prepare").mkdir()
    for split in (recipe.sft.split, recipe.grpo.split):
        write_split(tmp_path / "prepare" / f"{split}{artifacts.SPLIT_SUFFIX}", cases)
    monkeypatch.setattr(stage, "start_of", lambda *_: (base, "base"))
    console = Console(width=200, color_system=None, file=io.StringIO())
    with pytest.raises(TrainingBeginsError):
        stage.run(StageContext(recipe, tmp_path / "out", RunDir(tmp_path), console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_sft_says_how_many_prompts_are_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft, "load_weights", stop)
    text = printed(sft, tmp_path, monkeypatch)
    assert "3 of 8 training prompts are shortened to 120 tokens (`task.max_prompt_tokens`)" in text
    assert "words are not shown" in text


def test_grpo_says_how_many_prompts_are_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Preflight(n_cases=8, n_at_maximum=8, maximum=1.0, n_prompts_cut=3, checks=(), n_words_cut=900)
    monkeypatch.setattr(grpo, "load_weights", lambda *_, **__: None)
    monkeypatch.setattr(grpo, "_proven", lambda *_, **__: found)
    monkeypatch.setattr(grpo, "require_earnable", stop)
    text = printed(grpo, tmp_path, monkeypatch)
    assert "3 of 8 training prompts are shortened to 120 tokens" in text
    assert "900 words are not shown" in text
    assert replace(found, n_prompts_cut=0).shortened_line(120) is None


def test_the_page_says_it_of_each_stage(tmp_path: Path, report_folder: Path) -> None:
    for stage, n in (("sft", 3), ("grpo", 0)):
        folder = report_folder / stage
        folder.mkdir()
        summary = {"n_cases": 8, "n_prompts_shortened": n, "n_words_cut": 900 * bool(n)}
        (folder / artifacts.MANIFEST).write_text(json.dumps({"summary": summary}), encoding="utf-8")
    from medjudge.settings.evaluate import ReportConfig

    assert gather(report_folder, ReportConfig()).shortened == {
        "sft": "3 of 8 training prompts were shortened, by 900 words in all"
    }


@pytest.fixture
def report_folder(tmp_path: Path) -> Path:
    """A run folder that was evaluated."""
    from medjudge.metrics.summary import AnalysisOptions, summarise
    from medjudge.records import Verdict
    from medjudge.tasks.scale import LabelScale

    cases = [Case(f"c{i}", {}, gold=("no", "yes")[i % 2]) for i in range(8)]
    said = {"m": [Verdict(case.case_id, "yes") for case in cases]}
    results = summarise(
        cases, said, contract=LabelScale(labels=("no", "yes")), split="test", options=AnalysisOptions(n_resamples=20)
    )
    (tmp_path / "evaluate").mkdir()
    artifacts.write_json(tmp_path / "evaluate" / artifacts.RESULTS, results.to_json())
    return tmp_path
