"""Run folders: whole or not there, resumed only from the same inputs and from whole checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from medjudge import artifacts
from medjudge.errors import RunError
from medjudge.runs.output_folder import Record
from medjudge.runs.run_dir import RunDir

INPUTS = {"seed": 1, "config": {"a": 2}}


def finish(run: RunDir, name: str = "sft") -> None:
    run.finish(name, Record(INPUTS, config={}, seed=1))


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


def test_a_checkpoint_that_was_changed_is_passed_over_and_said(tmp_path: Path) -> None:
    def checkpoint(step: int) -> Path:
        folder = tmp_path / artifacts.CHECKPOINTS / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "optimizer.pt").write_bytes(b"moments")
        (folder / "trainer_state.json").write_text('{"global_step": 1}')
        artifacts.mark_checkpoint_complete(folder)
        return folder

    folders = {step: checkpoint(step) for step in (5, 10, 20, 100)}
    assert artifacts.drop_damaged_checkpoints(tmp_path) == []
    (folders[100] / "model.safetensors").write_bytes(b"wEights")  # of the same size
    (folders[20] / "optimizer.pt").unlink()
    assert artifacts.drop_damaged_checkpoints(tmp_path) == [
        "checkpoint-20 is not used: optimizer.pt is missing",
        "checkpoint-100 is not used: model.safetensors was changed or cut off; goes on from checkpoint-10",
    ]
    assert artifacts.latest_checkpoint(tmp_path) == folders[10]
    (folders[10] / artifacts.CHECKPOINT_COMPLETE).write_text("{")
    (folders[5] / "trainer_state.json").write_bytes(b"\0" * 18)
    assert artifacts.drop_damaged_checkpoints(tmp_path)[-1] == (
        "checkpoint-10 is not used: its files cannot be read; the stage starts from its beginning"
    )
    assert artifacts.latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("mark", ["", "[]", "{}", "7", '{"model.bin": "x"}', '{"model.bin": {"bytes": 7}}', "\0"])
def test_a_damaged_mark_makes_no_checkpoint(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / artifacts.CHECKPOINTS / "checkpoint-5"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / artifacts.CHECKPOINT_COMPLETE).write_text(mark)
    assert artifacts.latest_checkpoint(tmp_path) is None


def test_checkpoints_of_an_earlier_version_and_stray_files(tmp_path: Path) -> None:
    folder = tmp_path / artifacts.CHECKPOINTS / "checkpoint-5"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text('{"x": 1}')
    artifacts.write_json(folder / artifacts.CHECKPOINT_COMPLETE, {"model.bin": 7, "trainer_state.json": 8})
    (folder.parent / "checkpoint-7").write_text("a file")
    (folder.parent / "checkpoint-9").symlink_to(tmp_path / "nowhere")
    (folder.parent / "checkpoint-best").mkdir()
    (folder.parent / "notes.txt").write_text("x")
    assert artifacts.latest_checkpoint(tmp_path) == folder
    assert (folder.parent / "notes.txt").exists()
    (folder / "trainer_state.json").write_text('{"x": 1 ')  # an earlier version noted no hash
    assert artifacts.latest_checkpoint(tmp_path) is None
    artifacts.remove(tmp_path / artifacts.CHECKPOINTS)
    (tmp_path / artifacts.CHECKPOINTS).write_text("a file")
    assert artifacts.latest_checkpoint(tmp_path) is None


MESS = ("nothing", "damaged manifest", "another's manifest", "file", "dangling link", "foreign files", "half-moved")


@pytest.mark.parametrize("place", ["sft", ".sft.work", ".sft.old", ".sft.adopted"])
@pytest.mark.parametrize("mess", MESS)
def test_a_stage_begins_anew_whatever_lies_in_its_place(tmp_path: Path, place: str, mess: str) -> None:
    run, path = RunDir(tmp_path), tmp_path / place
    if mess == "file":
        path.write_text("x")
    elif mess == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif mess != "nothing":
        path.mkdir()
    if mess == "damaged manifest":
        (path / artifacts.MANIFEST).write_text('{"stage": "sft", "inputs_sha256"')
    elif mess == "another's manifest":
        (path / artifacts.MANIFEST).write_text('{"stage": "base", "inputs_sha256": "", "inputs": {}, "outputs": {}}')
    elif mess == "foreign files":
        (path / "inputs.json").mkdir()
        (path / "a").symlink_to(tmp_path / "nowhere")
    elif mess == "half-moved":
        (path / artifacts.MANIFEST).write_text("[]")
        (path / "inputs.json").write_text("null")
    run.output("sft").discard()
    assert run.is_current("sft", INPUTS) == (False, "not run yet")
    (run.begin("sft", INPUTS) / "out.txt").write_text("new")
    finish(run)
    assert run.is_current("sft", INPUTS)[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sft"]


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"outputs": []}', '{"stage": "sft", "outputs": {}}'])
def test_a_damaged_manifest_says_how_to_go_on(tmp_path: Path, content: str) -> None:
    run = RunDir(tmp_path / "run")
    with run.lock():
        artifacts.write_json(run.path / artifacts.RECIPE, {})
        (run.begin("sft", INPUTS) / "out.txt").write_text("x")
        finish(run)
    (run.stage("sft") / artifacts.MANIFEST).write_text(content)
    with pytest.raises(RunError, match=r"manifest\.json.*medjudge run RECIPE --from sft --fresh"):
        run.is_current("sft", INPUTS)
    (run.stage("sft") / "data.json").write_text("{}")
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        artifacts.read_json(run.stage("sft") / "data.json")


@pytest.mark.parametrize("kind", ["folder", "dangling link", "another's file"])
def test_a_lock_is_taken_whatever_lies_in_its_place(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".lock"
    if kind == "folder":
        (path / "sub").mkdir(parents=True)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere" / "lock")
    else:
        path.write_text("4711")
        path.chmod(0o400)
    with RunDir(tmp_path).lock(), pytest.raises(RunError, match="in use"), RunDir(tmp_path).lock():
        pass


def test_a_run_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunError, match="a file is in its place"), RunDir(tmp_path / "run").lock():
        pass


def test_notes_that_are_damaged_are_forgotten(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / artifacts.COMMANDS).write_bytes(b"\xff")
    (tmp_path / artifacts.RECIPE).mkdir()
    (tmp_path / artifacts.PREFLIGHT).symlink_to(tmp_path / "nowhere")
    assert artifacts.read_commands(tmp_path / artifacts.COMMANDS) == []
    run.discard_notes()
    assert not list(tmp_path.iterdir())


def test_pages_that_were_written_again_belong_to_their_stage(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    work = run.begin("report", INPUTS)
    (work / artifacts.REPORT).write_text("old")
    (work / "numbers.json").write_text("1")
    finish(run, "report")
    (run.stage("report") / artifacts.REPORT).write_text("new")
    (run.stage("report") / "numbers.json").write_text("2")
    run.output("report").renew_pages()
    assert run.is_current("report", INPUTS)[1].startswith("numbers.json was changed")


@pytest.mark.parametrize(
    "content", ["null", "{}", '["x"]', '[{"began": 1.0}]', '[{"began": "x", "seconds": 1.0}]', "["]
)
def test_a_damaged_note_of_sittings_stops_no_training(tmp_path: Path, content: str) -> None:
    path = tmp_path / artifacts.CHECKPOINTS / artifacts.SITTINGS
    path.parent.mkdir()
    path.write_text(content)
    assert artifacts.sittings(tmp_path) == []
    artifacts.note_sitting(tmp_path)
    artifacts.begin_sitting(tmp_path)
    artifacts.note_sitting(tmp_path)
    [seconds] = artifacts.sittings(tmp_path)
    assert 0 <= seconds < 60
