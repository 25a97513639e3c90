"""How many threads a run takes: what the user says, what it began with, what is fastest now."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from medjudge import machine
from medjudge.machine import Threads, cgroup_quota, choose, pick_threads


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the count of this process nor its environment is left changed."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "n"),
    [
        ({4: 1.0, 2: 2.0, 1: 4.0}, 4),  # an idle machine
        ({4: 9.0, 2: 3.0, 1: 2.0}, 1),  # a busy one: threads wait for one another
        ({4: 1.0, 2: 1.05, 1: 2.0}, 2),  # as good as four
        ({2: 1.9, 1: 2.0}, 1),  # not worth another thread
    ],
)
def test_the_smallest_count_that_is_nearly_fastest(seconds: Mapping[int, float], n: int) -> None:
    assert choose(max(seconds), seconds).n == n


def test_what_was_measured_is_said() -> None:
    assert choose(4, {4: 1.0, 2: 2.0, 1: 3.0}).sentence == "4 threads on 4 processors: 3.0 times as fast as one"
    busy = choose(2, {2: 6.0, 1: 2.0}).sentence
    assert busy == "1 thread on 2 processors: with 2 a product took 3.0 times as long, other programs may be busy"


def test_a_slow_second_thread_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes five times as long with two threads, as on a busy machine: one is measured to be better."""
    monkeypatch.setattr(machine, "n_processors", lambda: 2)
    current = [0]
    now = [0.0]
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += 0.05 if current[0] == 2 else 0.01

    picked = machine._measured(2, work, lambda n: current.__setitem__(0, n))
    assert picked.n == 1
    assert picked.seconds[2] == pytest.approx(0.05)
    assert picked.seconds[1] == pytest.approx(0.01)


def test_the_user_wins_then_the_cut_off_stage_then_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "n_processors", lambda: 4)
    monkeypatch.setattr(machine, "_measured", lambda n, *_: Threads(n, n, "measured"))
    assert pick_threads(None, 64).n == 4
    assert torch.get_num_threads() == 4
    assert pick_threads(None, 64, kept=3).n == 3
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert pick_threads(None, 64, kept=3).why == "set by OMP_NUM_THREADS"
    assert torch.get_num_threads() == 2
    assert pick_threads(1, 64, kept=3).why == "set by `model.threads`"
    assert torch.get_num_threads() == 1


def test_a_measurement_of_this_machine_ends_soon() -> None:
    picked = pick_threads(None, 64)
    assert 1 <= picked.n <= machine.n_processors()
    assert torch.get_num_threads() == picked.n


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/box\n", {"box/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/box/inner\n", {"box/cpu.max": "50000 100000\n", "box/inner/cpu.max": "max 100000\n"}, 0.5),
        ("0::/hosts/own/path\n", {"cpu.max": "400000 100000\n"}, 4.0),  # a container sees its own root
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        (
            "4:cpu,cpuacct:/box\n",
            {"cpu/box/cpu.cfs_quota_us": "200000\n", "cpu/box/cpu.cfs_period_us": "100000\n"},
            2.0,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:memory:/box\n", {"memory/box/cpu.max": "1 100\n"}, None),
    ],
)
def test_cgroup_quota(tmp_path: Path, membership: str, files: Mapping[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    (tmp_path / "cgroup").write_text(membership, encoding="ascii")
    assert cgroup_quota(tmp_path, tmp_path / "cgroup") == quota


def in_a_process(code: str, **environment: str) -> str:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise() -> None:
    code = "import os; from medjudge.machine import prepare_process as p; p(); print(os.environ.get('GOMP_SPINCOUNT'))"
    assert in_a_process(code) == machine.SPIN_COUNT
    assert in_a_process(code, OMP_WAIT_POLICY="active") == "None"
    assert in_a_process(code, GOMP_SPINCOUNT="7") == "7"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults of glibc's malloc")
def test_freed_memory_stays_with_the_process() -> None:
    """Fifty blocks of 64 MiB, one after another: faulted in once, not fifty times (16,384 pages of 4 KiB each)."""
    code = """
import resource, sys
import numpy as np
if sys.argv[1:] != ["plain"]:
    from medjudge.machine import prepare_process
    prepare_process()
np.ones(2**24, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(2**24, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert int(in_a_process(code)) < 20_000
