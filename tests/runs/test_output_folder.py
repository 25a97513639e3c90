"""One life cycle for every folder of results: whole or not there, gone on with or dropped, and a manifest beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medjudge import artifacts
from medjudge.errors import ConfigError, RunError
from medjudge.files import LOCK
from medjudge.runs.output_folder import OutputFolder, Record, hold, is_held
from medjudge.runs.provenance import data_files, weight_files

INPUTS = {"version": "1", "data": "rows.jsonl"}


def write(folder: OutputFolder, text: str = "x") -> None:
    with folder.writing(INPUTS) as work:
        artifacts.write_json(work / artifacts.RESULTS, {"text": text})
        folder.finish(Record(INPUTS, config={"level": 0.95}, seed=3))


def test_a_folder_appears_whole_with_a_manifest_of_how_it_came_to_be(tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.jsonl", tmp_path / "model"
    rows.write_text("{}\n")
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    folder = OutputFolder.new(tmp_path / "out", "score")
    with folder.writing(INPUTS) as work:
        artifacts.write_json(work / artifacts.RESULTS, {})
        assert not folder.final.exists()
        files = data_files([str(rows), None, "hub:owner/name", str(tmp_path / "gone.jsonl")])
        files |= weight_files([model, f"vllm:{model}", "openai:judge@http://localhost:1/v1", None])
        folder.finish(Record(INPUTS, config={"level": 0.95}, seed=3, files=files))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "rows.jsonl"]
    assert sorted(path.name for path in folder.final.iterdir()) == [artifacts.MANIFEST, artifacts.RESULTS]
    manifest = folder.manifest()
    assert manifest is not None
    assert (manifest["stage"], manifest["seed"], manifest["config"]) == ("score", 3, {"level": 0.95})
    assert manifest["command"].startswith("medjudge ")
    assert manifest["versions"]["medjudge"] == artifacts.package_versions()["medjudge"]
    assert {"git_revision", "wall_s", "finished", "trl"} <= manifest.keys()
    assert manifest["files"] == {
        str(path): {"bytes": path.stat().st_size, "sha256": artifacts.sha256_file(path)}
        for path in (rows, model / "model.safetensors")
    }
    assert list(manifest["outputs"]) == [artifacts.RESULTS]


def test_what_lies_there_is_not_overwritten(tmp_path: Path) -> None:
    write(OutputFolder.new(tmp_path / "out", "score"))
    with pytest.raises(ConfigError, match=r"out is not an empty folder: name a new one"):
        OutputFolder.new(tmp_path / "out", "score")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file is a file: name a folder"):
        OutputFolder.new(tmp_path / "file", "score")
    (tmp_path / "empty").mkdir()
    write(OutputFolder.new(tmp_path / "empty", "score"))
    assert (tmp_path / "empty" / artifacts.MANIFEST).exists()


def test_cut_off_work_is_kept_where_it_is_worth_something(tmp_path: Path) -> None:
    folder = OutputFolder.new(tmp_path / "out", "evaluate", key="k")
    with pytest.raises(RuntimeError), folder.writing(INPUTS):
        raise RuntimeError
    assert not folder.work.exists()
    (folder.begin(INPUTS) / f"{artifacts.ANSWERS}-m.json").write_text("{}")
    with pytest.raises(RuntimeError), folder.writing(INPUTS):
        raise RuntimeError
    assert folder.has_kept_work
    with folder.writing(INPUTS) as work:
        assert (work / f"{artifacts.ANSWERS}-m.json").exists()
        (work / f"{artifacts.ANSWERS}-m.json").unlink()
        folder.finish(Record(INPUTS))
    manifest = folder.manifest()
    assert manifest is not None
    assert manifest["sittings"] == 3


def test_other_inputs_drop_begun_work_and_keep_the_lock(tmp_path: Path) -> None:
    folder = OutputFolder.new(tmp_path / "out", "evaluate")
    (folder.begin({"data": "other"}) / "half.txt").write_text("x")
    with folder.writing(INPUTS) as work:
        assert not (work / "half.txt").exists()
        assert is_held(work)
        with pytest.raises(RunError, match="in use by another medjudge process"), folder.writing(INPUTS):
            pass
        assert work.exists()  # of the command that holds it
        folder.finish(Record(INPUTS))
    assert not (folder.final / LOCK).exists()


def test_a_folder_that_was_killed_before_its_move_is_moved_by_the_next_look(tmp_path: Path) -> None:
    folder = OutputFolder.new(tmp_path / "out", "score")
    write(folder)
    folder.final.rename(folder.work)
    assert folder.is_current(INPUTS) == (True, "unchanged")
    assert not folder.work.exists()


def test_damage_is_named_when_the_results_are_read(tmp_path: Path) -> None:
    folder = OutputFolder.new(tmp_path / "out", "score")
    write(folder)
    (folder.final / artifacts.RESULTS).write_text("{}")
    with pytest.raises(RunError, match=r"results\.json was changed.*run the command that wrote it again"):
        artifacts.read_json(folder.final / artifacts.RESULTS)


def test_pages_written_later_belong_to_the_folder_and_results_do_not_change(tmp_path: Path) -> None:
    folder = OutputFolder.new(tmp_path / "out", "score")
    write(folder)
    (folder.final / artifacts.REPORT).write_text("page")
    (folder.final / artifacts.RESULTS).write_text("changed")
    folder.renew_pages()
    manifest = folder.manifest()
    assert manifest is not None
    assert set(manifest["outputs"]) == {artifacts.REPORT, artifacts.RESULTS}
    assert folder.is_current(INPUTS)[1].startswith("results.json was changed")


def test_a_held_folder_is_let_go_with_its_process(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with hold(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
