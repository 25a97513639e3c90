"""Run folders: whole or not there, resumed only from the same inputs and from whole checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from medjudge import artifacts
from medjudge.artifacts import RunDir

INPUTS = {"seed": 1, "config": {"a": 2}}


def finish(run: RunDir, name: str = "sft") -> None:
    run.finish(name, config={}, inputs=INPUTS, summary={}, seed=1, wall_s=0.1)


def test_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(path, {"x": float("nan")})
    assert artifacts.read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_finished_stage_is_current_only_for_its_inputs(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (run.begin("sft", INPUTS) / "out.txt").write_text("x")
    finish(run)
    assert run.is_current("sft", INPUTS) == (True, "unchanged")
    assert run.is_current("sft", {**INPUTS, "seed": 2}) == (False, "changed: seed")


def test_begun_stage_resumes_from_same_inputs_and_restarts_from_others(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (run.begin("sft", INPUTS) / "half.txt").write_text("x")
    assert run.is_current("sft", INPUTS) == (False, "resumes where it was cut off")
    assert (run.begin("sft", INPUTS) / "half.txt").exists()
    assert not (run.begin("sft", {"seed": 3}) / "half.txt").exists()


def test_cut_off_between_manifest_and_move_is_finished_on_the_next_look(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (run.begin("sft", INPUTS) / "out.txt").write_text("new")
    finish(run)
    run.stage("sft").rename(run.work("sft"))  # as if killed just before the move
    assert run.manifest("sft") is not None
    assert (run.stage("sft") / "out.txt").read_text() == "new"


@pytest.mark.parametrize("damage", ["no mark", "file cut", "file gone"])
def test_half_written_checkpoints_are_not_resumed_from(tmp_path: Path, damage: str) -> None:
    for step in (5, 10):
        folder = tmp_path / artifacts.CHECKPOINTS / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(b"weights")
        artifacts.mark_checkpoint_complete(folder)
    last = tmp_path / artifacts.CHECKPOINTS / "checkpoint-10"
    if damage == "no mark":
        (last / artifacts.CHECKPOINT_COMPLETE).unlink()
    elif damage == "file cut":
        (last / "model.bin").write_bytes(b"wei")
    else:
        (last / "model.bin").unlink()
    found = artifacts.latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-5"
    assert not last.exists()
