"""Several processes of one run: one takes the lock and writes, the others train beside it, and none waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medjudge import artifacts
from medjudge.errors import RunError
from medjudge.files import LOCK
from medjudge.runs.ranks import is_first_rank, n_ranks, rank
from medjudge.runs.run_dir import RunDir
from tests.models.small_models import save_base
from tests.small_runs import write_rows

SCRIPT = Path(__file__).with_name("ranks_script.py")
ROOT = SCRIPT.parents[2]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "3"}, (0, 1)),  # a variable of that name alone launches nothing
        ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, (3, 4)),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (1, 2)),
        ({"WORLD_SIZE": "two", "RANK": "1"}, (0, 1)),
    ],
)
def test_the_environment_says_which_process_this_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (rank(), n_ranks()) == expected
    assert is_first_rank() == (expected[0] == 0)


def test_only_the_first_process_takes_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with run.lock():
        assert not (tmp_path / LOCK).exists()
    monkeypatch.setenv("RANK", "0")
    with run.lock():
        run.announce("sft", "runs")
        monkeypatch.setenv("RANK", "1")
        with run.lock():  # works in it while the first one holds it
            assert run.announced("sft") == "runs"
            assert run.announced("grpo") == ""
        monkeypatch.setenv("MASTER_PORT", "2")  # another launch
        assert run.announced("sft") == ""
        monkeypatch.setenv("WORLD_SIZE", "1")
        with pytest.raises(RunError, match="in use"), run.lock():
            pass


def launch(tmp_path: Path, **more: str) -> list[subprocess.Popen[bytes]]:
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    (tmp_path / "notes").mkdir()
    command = [sys.executable, str(SCRIPT), str(rows), str(tmp_path / "runs"), str(tmp_path / "notes")]
    command.append(str(save_base(tmp_path / "base")))
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "WORLD_SIZE": "2", "MASTER_PORT": "1", "PATIENCE_S": "100"}
    # The second first: it has to wait for a run folder that nobody has made yet.
    return [
        subprocess.Popen(
            command,
            env={**environment, "RANK": number, **more},
            stderr=subprocess.PIPE,
        )
        for number in ("1", "0")
    ]


def test_two_processes_make_one_run(tmp_path: Path) -> None:
    ended = [(process.communicate(timeout=240)[1], process.returncode) for process in launch(tmp_path)]
    assert [code for _, code in ended] == [0, 0], b"".join(errors for errors, _ in ended).decode()
    run = tmp_path / "runs" / "small"
    notes = {path.name: path.read_text().split()[1:] for path in (tmp_path / "notes").iterdir()}
    assert notes == {"trains-0": ["True", "True"], "trains-1": ["False", "True"]}
    assert sorted(path.name for path in run.glob("*/manifest.json")) == ["manifest.json"] * 2
    assert artifacts.read_json(run / "sft" / artifacts.MANIFEST)["outputs"].keys() == {"model.txt"}
    assert not list(run.glob(".*.work"))
    assert RunDir(run).is_current("sft", artifacts.read_json(run / "sft" / artifacts.MANIFEST)["inputs"])[0]


def test_no_process_waits_for_a_first_one_that_has_died(tmp_path: Path) -> None:
    second, first = launch(tmp_path, DIES="0", PATIENCE_S="20")
    _, errors = second.communicate(timeout=240)
    first.communicate(timeout=240)
    assert first.returncode == 9
    assert second.returncode == 1
    assert "process 1 of 2 waited 20 s for the first process" in errors.decode()
    assert not (tmp_path / "runs" / "small" / "sft").exists()
