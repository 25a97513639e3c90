"""A calibrator is fitted on a validation split, saved with the model, and used wherever the model judges."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console

from medjudge import Judge, artifacts, load_cases
from medjudge.cli import main
from medjudge.commands.calibrate import calibrate_model
from medjudge.data.leakage import LeakageReport
from medjudge.errors import ConfigError, DataError, RunError
from medjudge.inference.loader import LoadedWhenAsked
from medjudge.judging import evaluate_cases
from medjudge.judging import judge as judging
from medjudge.judging.answer_store import model_identity
from medjudge.judging.calibrated import apply_to, fit_on, read_calibrator, save_calibrator
from medjudge.metrics.calibrators import Calibrator
from medjudge.models.lineage import weights_sha256
from medjudge.models.sources import CACHE_VARIABLE
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case, Unparsed, Verdict
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import StageContext
from medjudge.settings.data import DataConfig
from medjudge.stages.evaluate import run
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from tests.models.gguf_files import write_gguf
from tests.models.small_models import save_base
from tests.small_runs import small_tree, write_rows

HALF = Calibrator("platt", {"slope": [0.0], "intercept": [0.0]}, 5)
"""Makes one half of every confidence."""
CONTRACT = EquivalenceContract()
SETTINGS = {"form": "answer_only", "instructions": "terse", "max_completion_tokens": 16}


def test_only_verdicts_with_a_confidence_teach_and_only_confidences_change() -> None:
    cases = [Case("a", {}, "1"), Case("b", {}, "0"), Case("c", {}, "1"), Case("d", {})]
    said = [Verdict("a", "1", 0.9), Verdict("b", "1", 0.6), Verdict("c", "1"), Unparsed("d", "", "no answer")]
    assert fit_on("platt", cases, said).n == 2
    calibrated = apply_to(HALF, said)
    assert calibrated == [Verdict("a", "1", 0.5), Verdict("b", "1", 0.5), *said[2:]]
    with pytest.raises(DataError, match="0 of 1 validation verdicts state a confidence"):
        fit_on("platt", cases, said[2:3])


def test_it_belongs_to_one_way_of_asking_one_contract_and_one_set_of_weights(tmp_path: Path) -> None:
    ours = {"weights_sha256": "a" * 64, "contract": CONTRACT}
    assert read_calibrator(tmp_path, mode="labels", **ours) is None
    path = save_calibrator(tmp_path, HALF, mode="labels", data="val.jsonl", **ours)
    other = Calibrator("temperature", {"temperature": [2.0]}, 9)
    save_calibrator(tmp_path, other, mode="generate", data="val.jsonl", **ours)
    assert read_calibrator(tmp_path, mode="labels", **ours) == HALF
    assert read_calibrator(tmp_path, mode="generate", **ours) == other
    with pytest.raises(ConfigError, match=r"fitted for weights a{16}, but b{16} is asked"):
        read_calibrator(tmp_path, mode="labels", weights_sha256="b" * 64, contract=CONTRACT)
    with pytest.raises(ConfigError, match="fitted for contract"):
        read_calibrator(tmp_path, mode="labels", weights_sha256=None, contract=McqContract())
    path.write_text("{}")
    with pytest.raises(RunError, match="expected a calibration of this version"):
        read_calibrator(tmp_path, mode="labels", **ours)


def test_a_new_fit_takes_the_manifest_of_the_last_one_away_and_makes_no_other_model(tmp_path: Path) -> None:
    model = save_base(tmp_path / "model")
    identity, signature = model_identity(str(model)), artifacts.path_signature(model)
    artifacts.write_json(model / artifacts.CALIBRATION_MANIFEST, {"outputs": {}})
    save_calibrator(model, HALF, mode="labels", data="v", weights_sha256="a" * 64, contract=CONTRACT)
    assert not (model / artifacts.CALIBRATION_MANIFEST).exists()
    artifacts.write_json(model / artifacts.CALIBRATION_MANIFEST, {"outputs": {}})
    assert (model_identity(str(model)), artifacts.path_signature(model)) == (identity, signature)


def test_nothing_is_saved_beside_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was converted into lies in the cache and belongs to every project of this user."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    write_gguf(tmp_path / "m.gguf", "llama")
    assert judging.Judge("base", str(tmp_path / "m.gguf"), CONTRACT).folder is None


def test_calibrate_then_evaluate_and_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    model = save_base(tmp_path / "model")
    task = ["--task", "appropriateness", "--map", "condition=topic", "--mode", "labels"]
    task += [part for key, value in SETTINGS.items() for part in ("--set", f"task.{key}={value}")]

    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert not end.value.code, captured.err
        return captured.out

    options = ["--set", "evaluate.n_resamples=100", "--set", "evaluate.baselines=false"]
    given = ["--data", str(rows), "--model", f"m={model}", *options]
    command("evaluate", *given, "--out", str(tmp_path / "raw"), *task)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ConfigError, match="model cannot be written, and a calibrator is saved with the weights"):
            calibrate_model(model, str(rows), DataConfig(), recipe_of(rows, tmp_path), "platt", Console(quiet=True))
    assert "platt, fitted on 24 verdicts" in command("calibrate", str(model), "--data", str(rows), *task)
    beside = artifacts.read_json(model / artifacts.CALIBRATION_MANIFEST)
    assert (beside["stage"], list(beside["outputs"])) == ("calibrate", [artifacts.CALIBRATION])
    assert set(beside["files"]) == {str(rows), str(model / "model.safetensors")}
    command("evaluate", *given, "--out", str(tmp_path / "fitted"), *task)

    def confidences(out: str) -> list[float]:
        lines = (tmp_path / out / artifacts.VERDICTS).read_text().splitlines()
        return [json.loads(line)["confidence"] for line in lines]

    calibrator = read_calibrator(
        model, mode="labels", weights_sha256=weights_sha256(model), contract=recipe_of(rows, tmp_path).contract
    )
    assert calibrator is not None
    assert confidences("fitted") == pytest.approx(calibrator.apply(confidences("raw")))
    # A third of a random judge's verdicts are right, and now it says so.
    assert np.mean(confidences("fitted")) == pytest.approx(1 / 3, abs=0.05)
    results = artifacts.read_json(tmp_path / "fitted" / artifacts.RESULTS)
    assert any("confidences are calibrated (platt, fitted on 24 verdicts" in line for line in results["statements"])
    cases = load_cases(rows, "appropriateness", fields={"condition": "topic"}, settings=SETTINGS)
    judged = Judge(model, "appropriateness", SETTINGS).judge(cases, mode="labels")
    assert judged.to_frame()["confidence"].tolist() == pytest.approx(confidences("fitted"))
    # Under another contract it would mean nothing, which is said before a model has answered for hours.
    monkeypatch.setattr(LoadedWhenAsked, "load", Mock(side_effect=AssertionError))
    with pytest.raises(ConfigError, match="fitted for contract"):
        Judge(model, "appropriateness", {**SETTINGS, "system_prompt": "Other"}).judge(cases, mode="labels")
    with pytest.raises(AssertionError, match="fitted for contract"):
        command("evaluate", *given, "--out", str(tmp_path / "other"), *task, "--set", "task.system_prompt=Other")


def recipe_of(rows: Path, folder: Path, **evaluate: object) -> object:
    tree = small_tree(rows, folder / "runs", evaluate={"n_resamples": 100, "baselines": False, **evaluate})
    tree["task"] = {"kind": "appropriateness", **SETTINGS}
    tree["data"]["splits"] = {"train": 0.6, "grpo": 0.1, "validation": 0.1, "test": 0.2}
    return recipe_from_tree(tree)


@pytest.mark.parametrize("can_save", [True, False])
def test_a_run_fits_on_its_validation_split_and_saves_with_the_model(
    tmp_path: Path, can_save: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 10)
    model = save_base(tmp_path / "model")
    settings = {"mode": "labels", "calibrator": "temperature", "models": [], "extra_models": {"m": str(model)}}
    recipe = recipe_of(rows, tmp_path, **settings)
    run_dir, out = tmp_path / "run", tmp_path / "run" / "out"
    (run_dir / "prepare").mkdir(parents=True)
    out.mkdir()
    cases = load_cases(rows, "appropriateness", fields={"condition": "topic"}, settings=SETTINGS)
    for split, some in {"test": cases[:15], "validation": cases[15:]}.items():
        text = "".join(json.dumps(case.to_json()) + "\n" for case in some)
        (run_dir / "prepare" / f"{split}.jsonl").write_text(text)
    artifacts.write_json(run_dir / "prepare" / artifacts.LEAKAGE, LeakageReport((), {}, 0.9).to_json())
    if not can_save:
        refused = PermissionError(errno.EACCES, "Permission denied")
        monkeypatch.setattr(evaluate_cases, "save_calibrator", Mock(side_effect=refused))
    run(StageContext(recipe, out, RunDir(run_dir), Console(quiet=True)))
    if can_save:
        saved = artifacts.read_json(model / artifacts.CALIBRATION)["calibrators"]["labels"]
        assert (saved["kind"], saved["n"], saved["fitted_on"]) == ("temperature", 15, "validation")
    else:
        assert f"m: its calibrator is used here, but not saved in {model}: Permission denied" in caplog.text
    lines = [json.loads(line) for line in (out / artifacts.VERDICTS).read_text().splitlines()]
    assert all(row["confidence"] < row["confidence_as_stated"] for row in lines)  # too sure by far
    assert list(out.glob(".answers-*")) == []


def test_rows_that_are_reported_or_trained_on_are_no_validation_split(tmp_path: Path) -> None:
    for split in ("test", "train"):
        with pytest.raises(ConfigError, match="rows that are neither"):
            recipe_of(tmp_path / "x", tmp_path, calibrator="platt", calibration_split=split)
    with pytest.raises(ConfigError, match=r"have no split 'val' .*: they have train, grpo, validation, test"):
        recipe_of(tmp_path / "x", tmp_path, calibrator="platt", calibration_split="val")
