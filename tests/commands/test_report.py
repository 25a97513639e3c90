"""A page that is written again names the packages that measured its numbers, never those of today."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.commands.evaluate import evaluate_folder
from medjudge.commands.report import rewrite
from medjudge.commands.score import ScoreOptions, label_scale, score_files
from medjudge.recipe import recipe_from_tree
from tests.models.small_models import save_base
from tests.small_runs import write_rows

TODAY = "77.7.7"


def use_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "version", lambda name: TODAY)
    assert artifacts.package_versions()["numpy"] == TODAY


def pages_name_what_measured(folder: Path, page: Path, numpy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_other_packages(monkeypatch)
    rewrite(folder, Console(quiet=True))
    html = page.read_text(encoding="utf-8")
    assert f"numpy {numpy}" in html
    assert TODAY not in html


def scored(tmp_path: Path) -> Path:
    rows = tmp_path / "a.csv"
    lines = [f"c{i},{('no', 'yes')[i % 2]},{('no', 'yes')[i % 3 == 0]}\n" for i in range(9)]
    rows.write_text("id,label,gold\n" + "".join(lines))
    score_files([str(rows)], label_scale("no,yes"), tmp_path / "out", ScoreOptions(n_resamples=50))
    return tmp_path / "out"


def test_of_scored_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, numpy = scored(tmp_path), artifacts.package_versions()["numpy"]
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    assert list(manifest["files"]) == [str(tmp_path / "a.csv")]
    assert {artifacts.RESULTS, artifacts.VERDICTS, artifacts.REPORT} <= manifest["outputs"].keys()
    pages_name_what_measured(folder, folder / artifacts.REPORT, numpy, monkeypatch)
    assert artifacts.read_json(folder / artifacts.RESULTS)  # the folder is still as its manifest says


def test_of_a_folder_without_a_manifest_no_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scored(tmp_path)
    (folder / artifacts.MANIFEST).unlink()  # as earlier versions left it
    use_other_packages(monkeypatch)
    rewrite(folder, Console(quiet=True))
    html = (folder / artifacts.REPORT).read_text(encoding="utf-8")
    assert TODAY not in html
    assert "Measured with" not in html


def test_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe_from_tree(
        {
            "name": "x",
            "task": {"kind": "appropriateness", "form": "answer_only", "system_prompt": ""},
            "data": {"fields": {"condition": "topic"}},
            "evaluate": {"mode": "labels", "n_resamples": 100, "baselines": False},
            "model": {"dtype": "float32", "device": "cpu"},
        }
    )
    rows, model, folder = write_rows(tmp_path / "rows.jsonl", 3), save_base(tmp_path / "model"), tmp_path / "out"
    console = Console(quiet=True)
    evaluate_folder(settings.contract, str(rows), {"m": str(model)}, folder, console, settings.data, settings)
    rewrite(folder, console)
    manifest, numpy = artifacts.read_json(folder / artifacts.MANIFEST), artifacts.package_versions()["numpy"]
    assert set(manifest["files"]) == {str(rows), str(model / "model.safetensors")}
    assert artifacts.REPORT in manifest["outputs"]
    assert (manifest["stage"], manifest["config"]["evaluate"]["mode"]) == ("evaluate", "labels")
    pages_name_what_measured(folder, folder / artifacts.REPORT, numpy, monkeypatch)
