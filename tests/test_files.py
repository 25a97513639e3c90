"""Files: private from the first byte, whole or not at all, read only as they were written, removable."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medjudge import artifacts, files
from medjudge.commands.score import ScoreOptions, label_scale, score_files
from medjudge.data.store import read_split, write_split
from medjudge.errors import DataError, RunError
from medjudge.records import Case
from medjudge.runs.output_folder import Record
from medjudge.runs.run_dir import RunDir

INPUTS = {"seed": 1}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A finished prepare stage of a run."""
    run = RunDir(tmp_path / "run")
    with run.lock():
        work = run.begin("prepare", INPUTS)
        write_split(work / "test.jsonl", [Case("a", {"question": "one"}), Case("b", {"question": "two"})])
        artifacts.write_json(work / artifacts.DATA, {"splits": {"test": {"n_cases": 2, "n_groups": 2}}})
        (work / "model").mkdir()
        (work / "model" / "weights.safetensors").write_bytes(b"0123456789")
        run.finish("prepare", Record(INPUTS, config={}, seed=1))
    return run.stage("prepare")


def damage(path: Path, *, keep_times: bool = False) -> None:
    """Changes one byte and leaves the size, and on demand the modification time."""
    info = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    if keep_times:
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


# --- hashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("test.jsonl", lambda stage: read_split(stage / "test.jsonl")),
        ("test.jsonl", lambda stage: list(artifacts.read_lines(stage / "test.jsonl"))),
        ("data.json", lambda stage: artifacts.read_json(stage / "data.json")),
        ("data.json", lambda stage: artifacts.read_json(stage / "model" / ".." / "data.json")),
        ("model/weights.safetensors", lambda stage: artifacts.check_outputs(stage / "model")),
        ("model/weights.safetensors", lambda stage: artifacts.check_outputs(stage)),
    ],
)
@pytest.mark.parametrize("keep_times", [False, True])
def test_damage_of_the_same_size_is_noticed_where_a_file_is_read(
    stage: Path, name: str, read: Callable[[Path], Any], keep_times: bool
) -> None:
    read(stage)
    before = artifacts.sha256_file(stage / name)
    damage(stage / name, keep_times=keep_times)
    with pytest.raises((RunError, DataError)) as refused:
        read(stage)
    message = str(refused.value)
    assert name in message
    assert before[:12] in message
    assert artifacts.sha256_file(stage / name)[:12] in message
    assert "--from prepare --fresh" in message
    current, why = RunDir(stage.parent).is_current("prepare", INPUTS)
    assert not current
    assert why.startswith(f"{name} was changed")


def test_a_file_that_is_gone_is_noticed_and_one_that_no_manifest_lists_is_not_checked(stage: Path) -> None:
    artifacts.write_json(stage / "model" / artifacts.CALIBRATION, {"a": 1})
    assert artifacts.read_json(stage / "model" / artifacts.CALIBRATION) == {"a": 1}
    artifacts.check_outputs(stage / "model")
    (stage / "model" / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"model/weights\.safetensors is missing"):
        artifacts.check_outputs(stage / "model")


def test_another_programs_manifest_is_none_of_ours(tmp_path: Path) -> None:
    for content in ('{"name": "app", "icons": []}', "{", "[]", '{"outputs": {"a.json": "x"}}'):
        (tmp_path / artifacts.MANIFEST).write_text(content)
        artifacts.write_json(tmp_path / "a.json", 7)
        assert artifacts.read_json(tmp_path / "a.json") == 7


def test_the_hash_of_a_large_file_is_remembered_and_checked_by_inode_size_and_both_times(
    stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "REMEMBERED_FROM", 5)
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    hashed: list[str] = []
    digest = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path.name) or digest(path))
    weights = stage / "model" / "weights.safetensors"
    for _ in range(2):
        files.check_outputs(stage / "model")
    assert hashed == ["weights.safetensors"]
    assert mode_of(stage.parent / files.HASHES) == 0o600
    time.sleep(0.02)
    damage(weights, keep_times=True)
    with pytest.raises(RunError, match="was changed"):
        files.check_outputs(stage / "model")
    (stage.parent / files.HASHES).write_text('{"prepare/model/weights.safetensors": 7')
    with pytest.raises(RunError, match="was changed"):
        files.check_outputs(stage / "model")


# --- JSON of any shape ------------------------------------------------------------------------------------------------

DAMAGED = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NUL": b"\0\0\0\0",
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "nested": b"[" * 200_000,
    "huge number": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_json_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(RunError, match=r"cannot read .*results\.json: ") as refused:
        artifacts.read_json(path)
    assert len(str(refused.value)) < 400
    with pytest.raises(RunError, match=r"results\.json"):
        list(artifacts.read_lines(path)) or artifacts.read_as(path, dict)


@pytest.mark.parametrize("value", [None, 3, "text", [], [1], {"a": 1}, {"outputs": []}, True])
def test_json_of_another_shape_is_one_clear_error(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(RunError, match=r"x\.json does not hold what this version of medjudge writes there"):
        artifacts.read_as(path, lambda tree: tree["outputs"]["b"]["c"])


def test_kept_values_come_back_or_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    artifacts.write_kept(path, {"answers": ["yes"]})
    assert artifacts.read_kept(path) == {"answers": ["yes"]}
    path.write_text(path.read_text().replace("yes", "not"))
    assert artifacts.read_kept(path) is None
    for content in DAMAGED.values():
        path.write_bytes(content)
        assert artifacts.read_kept(path) is None
    assert artifacts.read_kept(tmp_path / "none.json") is None


# --- permissions ------------------------------------------------------------------------------------------------------


def test_files_and_folders_of_a_run_are_for_their_owner_alone(stage: Path) -> None:
    for path in (stage.parent, *stage.parent.rglob("*")):
        assert mode_of(path) & 0o077 == 0, path


def test_a_run_folder_that_was_there_is_closed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    (tmp_path / "run").chmod(0o755)
    with RunDir(tmp_path / "run").lock():
        (tmp_path / "run" / "by_a_library.txt").write_text("x")
    assert mode_of(tmp_path / "run") == 0o700
    assert mode_of(tmp_path / "run" / "by_a_library.txt") == 0o600


def test_no_moment_at_which_others_can_read(tmp_path: Path) -> None:
    """A second thread looks at the folder while large files are written into it."""
    modes: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for entry in os.scandir(tmp_path):
                try:
                    modes.add(stat.S_IMODE(entry.stat().st_mode))
                except FileNotFoundError:
                    continue

    previous = os.umask(0o022)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for i in range(20):
            artifacts.write_text(tmp_path / f"{i}.txt", "x" * 1_000_000)
    finally:
        stop.set()
        watcher.join()
        os.umask(previous)
    assert modes == {0o600}


def test_the_mask_is_given_back(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        with pytest.raises(ZeroDivisionError), artifacts.private_files():
            raise ZeroDivisionError
        (tmp_path / "a").write_text("x")
        assert mode_of(tmp_path / "a") == 0o644
    finally:
        os.umask(previous)


def test_a_cache_of_models_that_people_share_keeps_the_users_own_mask(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        with artifacts.private_files(), artifacts.private_files():
            with files.shared_files():
                (tmp_path / "model").write_text("x")
            (tmp_path / "rows").write_text("x")
            artifacts.write_text(tmp_path / "recipe", "x", private=False)
        with files.shared_files():
            (tmp_path / "after").write_text("x")
    finally:
        os.umask(previous)
    assert [mode_of(tmp_path / name) for name in ("model", "rows", "after", "recipe")] == [0o644, 0o600, 0o644, 0o644]


# --- writing and removing ---------------------------------------------------------------------------------------------


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(RunError, match=r"a\.json is a folder, where a file is to be written"):
        artifacts.write_json(tmp_path / "a.json", 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="a file is in its place"):
        artifacts.make_folder(tmp_path / "file" / "sub")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS])
def test_a_failed_write_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(code)) as failed:
        artifacts.write_json(path, "new")
    monkeypatch.undo()
    assert failed.value.filename == str(path)
    message = files.write_failure(failed.value)
    assert message is not None
    assert message.startswith(f"{path} cannot be written: ")
    assert artifacts.read_json(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


class SafetensorError(Exception):
    """As a library raises it, which is no OSError."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (SafetensorError("I/O error: File too large (os error 27)"), "larger than the limit"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "the disk is full"),
        (RuntimeError("CUDA error"), None),
        (ValueError("x"), None),
    ],
)
def test_a_librarys_word_for_a_failed_write_is_understood(error: Exception, words: str | None) -> None:
    message = files.write_failure(error)
    assert message is None if words is None else message is not None and words in message


def verdict_file(path: Path) -> Path:
    rows = [{"id": f"c{i}", "label": "yes" if i % 3 else "no", "gold": "yes" if i % 2 else "no"} for i in range(300)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("command", ["data build", "score", "export", "run"])
def test_a_limit_of_file_sizes_ends_with_one_sentence(tmp_path: Path, command: str) -> None:
    verdicts = verdict_file(tmp_path / "verdicts.jsonl")
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "x"\nruns_dir = "{tmp_path / "runs"}"\nstages = ["prepare"]\n[task]\nkind = "mcq"\n'
        '[data]\nsource = "builtin:mcq"\n'
    )
    arguments = {
        "data build": ["data", "build", "mcq", "--n", "500", "--out", str(tmp_path / "rows.jsonl")],
        "score": ["score", str(verdicts), "--labels", "no,yes", "--out", str(tmp_path / "out")],
        "export": ["export", "lm-eval", str(tmp_path / "lm"), "--task", "mcq", "--data", "builtin:mcq"],
        "run": ["run", str(recipe)],
    }[command]
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        f"sys.argv = {['medjudge', *arguments]!r}; from medjudge.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    assert "rows.jsonl" in done.stderr or "larger than the limit for files" in done.stderr
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} - {"verdicts.jsonl", "r.toml"}
    assert left == ({"runs"} if command == "run" else set())
    notes = {path.name for path in (tmp_path / "runs" / "x").glob("*")}
    assert notes <= {".lock", artifacts.COMMANDS, artifacts.RECIPE}


@pytest.mark.parametrize("is_there", [False, True])
def test_what_score_writes_is_for_its_owner_alone(tmp_path: Path, is_there: bool) -> None:
    out = tmp_path / "out"
    if is_there:
        out.mkdir(mode=0o755)
    previous = os.umask(0o022)
    try:
        options = ScoreOptions(n_resamples=100)
        score_files([str(verdict_file(tmp_path / "v.jsonl"))], label_scale("no,yes"), out, options)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(previous)
    for path in (out, *out.rglob("*")):
        assert mode_of(path) & 0o077 == 0, path


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "link", "read-only folder", "nothing"])
def test_anything_can_be_removed(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "x", tmp_path / "kept"
    other.mkdir()
    (other / "a").write_text("x")
    if kind == "file":
        path.write_text("x")
        path.chmod(0o000)
    elif kind in ("folder", "read-only folder"):
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "file").write_text("x")
        (path / "sub").chmod(0o500 if kind == "read-only folder" else 0o700)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "link":
        path.symlink_to(other)
    files.remove(path)
    assert not os.path.lexists(path)
    assert (other / "a").exists()


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "commands.json", ["medjudge run \ud800.toml"])
    assert (tmp_path / "commands.json").read_bytes() == b'[\n  "medjudge run \\ud800.toml"\n]\n'
