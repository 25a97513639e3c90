"""The machine that a run is on: its processors, the fastest thread count now, and how the allocator is set.

No torch is imported here: `prepare_process` acts before it is.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medjudge.errors import ConfigError

if TYPE_CHECKING:
    import torch

SPIN_COUNT = "10000"
"""Turns, about a tenth of a millisecond, for which a thread that waits for the others spins before it sleeps.

libgomp's own value spins for milliseconds. On a processor that another program wants, that is the time the thread it
waits for would need: with two threads on two busy cores, writing 20 tokens took ten times as long as with one."""
MIN_GAIN = 1.1
"""More threads are taken where they are at least so many times faster: fewer leave room for others."""
CALIBRATION_S = 0.6
"""Time spent on measuring thread counts, if a product of the model's size is not slower than that."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads a stage computes with, and why."""

    n: int
    n_processors: int
    why: str
    """Follows "2 threads on 4 processors: " in what is printed."""
    seconds: Mapping[int, float] = field(default_factory=dict)
    """Thread count -> mean seconds of the calibration's product; empty where nothing was measured."""

    @property
    def sentence(self) -> str:
        """One line for the console."""
        return f"{_count(self.n, 'thread')} on {_count(self.n_processors, 'processor')}: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        seconds = {str(n): round(mean, 6) for n, mean in self.seconds.items()}
        return {"n": self.n, "n_processors": self.n_processors, "why": self.why, "calibration_s": seconds}


def prepare_process() -> None:
    """Settings of the C libraries under torch; to be called before torch is imported. What the user has set stays.

    Threads that wait sleep soon (`SPIN_COUNT`). Freed memory stays with the process: glibc gives large blocks back
    after every training step and faults them in anew, which took an eighth of the demo's processor time.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    if not {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys():
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Asks glibc to serve blocks up to 2 GiB from its heap, and not to shrink it. Does nothing elsewhere."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # absent from other C libraries, whose mallopt means other things
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_INT)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
    except (OSError, AttributeError):
        return


def n_processors() -> int:
    """Processors that this process may use: its affinity, and what a control group grants it."""
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        n = os.cpu_count() or 1
    # In a container the affinity still shows all processors of the host.
    quota = cgroup_quota()
    return max(1, n if quota is None else min(n, math.floor(quota)))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processors granted by the tightest control group around this process, of version 2 or 1; None without a limit."""
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers and (root / controllers).is_dir() else root
        base = base if not controllers or base != root else root / "cpu"
        folder = base / path.lstrip("/")
        # In a container the path is the host's, and what holds for it lies at the root.
        for place in (folder, *folder.parents):
            if not place.is_relative_to(base):
                break
            if (quota := _quota_of(place)) is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return None if limit == "max" or int(limit) <= 0 else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def busy_processors() -> float | None:
    """Processor seconds that all programs have used since the start of the machine; None where it does not tell."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        ticks = [int(word) for word in words[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = ticks
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def free_processors(while_running: Callable[[], object]) -> float:
    """Processors that other programs leave free while `while_running` runs; all of them where the system is silent."""
    n = n_processors()
    used, own, started = busy_processors(), time.process_time(), time.monotonic()
    while_running()
    wall_s = time.monotonic() - started
    now = busy_processors()
    if used is None or now is None or wall_s <= 0:
        return float(n)
    others = max(0.0, now - used - (time.process_time() - own)) / wall_s
    return max(0.0, min(float(n), (os.cpu_count() or n) - others))


def pick_device(device: str | None) -> torch.device:
    """The named device, or the first GPU, or the CPU. Raises ConfigError for a name that torch does not know."""
    import torch

    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError:
            raise ConfigError(
                f"`model.device` is {device!r}: expected `cpu`, `cuda` or `cuda:N`. Without it a GPU is taken where "
                "there is one."
            ) from None
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit_threads(
    device: str | None, wish: int | None, model: int | str | Path, *, kept: int | None = None
) -> Threads | None:
    """`pick_threads` for a model, given by its folder or hidden size; None where a GPU computes.

    device, wish: `model.device` and `model.threads` of the recipe.
    """
    if pick_device(device).type != "cpu":
        return None
    return pick_threads(wish, model if isinstance(model, int) else hidden_size(Path(model)), kept=kept)


def hidden_size(folder: Path) -> int:
    """Width of the model in a folder; that of a small model where it does not say."""
    try:
        return int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1024


def pick_threads(wish: int | None, width: int, *, kept: int | None = None) -> Threads:
    """Sets torch's thread count to what is fastest now, and says why.

    wish: `model.threads`. kept: the count that a cut-off stage began with. width: the model's hidden size; a product of
    that size is measured with different counts in turn, so that the load of the moment counts. The order of what takes
    precedence: `model.threads`, OMP_NUM_THREADS, `kept`, the measurement.
    """
    import torch

    n = n_processors()
    if wish is not None:
        picked = Threads(wish, n, "set by `model.threads`")
    elif os.environ.get("OMP_NUM_THREADS"):
        picked = Threads(torch.get_num_threads(), n, "set by OMP_NUM_THREADS")
    elif kept is not None:
        picked = Threads(kept, n, "as before this stage was cut off")
    elif n == 1:
        picked = Threads(1, 1, "there is no other")
    else:
        picked = _measured(n, _products(width), torch.set_num_threads)
    torch.set_num_threads(picked.n)
    return picked


def _measured(n: int, work: Callable[[], object], set_threads: Callable[[int], object]) -> Threads:
    """The smallest of n, n/2, .. 1 that is nearly as fast as the fastest."""
    counts = [n]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    times: dict[int, list[float]] = {count: [] for count in counts}
    started = time.perf_counter()
    # In turn, not one count after the other: the load of the machine changes within a second.
    while len(times[1]) < 3 or (time.perf_counter() - started < CALIBRATION_S and len(times[1]) < 60):
        for count in counts:
            set_threads(count)
            if not times[count]:
                work()  # starts the threads
            before = time.perf_counter()
            work()
            times[count].append(time.perf_counter() - before)
    # The mean, not the median: on a busy machine it is the long waits that count.
    seconds = {count: sum(values) / len(values) for count, values in times.items()}
    return choose(n, seconds)


def choose(n: int, seconds: Mapping[int, float]) -> Threads:
    """The smallest thread count within `MIN_GAIN` of the fastest, with the measurement in words."""
    fastest = min(seconds.values())
    picked = min(count for count, mean in seconds.items() if mean <= fastest * MIN_GAIN)
    if picked > 1:
        return Threads(picked, n, f"{seconds[1] / seconds[picked]:.1f} times as fast as one", seconds)
    slower = seconds[n] / seconds[1]
    compared = f"{slower:.1f} times as long" if slower > 1.05 else "no less time"
    return Threads(1, n, f"with {n} a product took {compared}, other programs may be busy", seconds)


def _products(width: int) -> Callable[[], object]:
    """Products as a layer of a model has them, for 128 tokens."""
    import torch

    width = min(max(width, 64), 4096)
    x, up, down = torch.ones(128, width), torch.ones(width, 4 * width), torch.ones(4 * width, width)

    def work() -> None:
        with torch.inference_mode():
            for _ in range(4 if width <= 1024 else 1):
                torch.nn.functional.silu(x @ up) @ down

    return work


def matmul_flops(seconds: float = 0.15) -> float:
    """Floating-point operations per second of one thread in float32 products, as busy as the machine is now."""
    import numpy as np
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    x = np.ones((512, 512), dtype=np.float32)
    # One thread: the estimate multiplies by the threads of the run.
    with threadpool_limits(1):
        x @ x
        n, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            x @ x
            n += 1
        wall_s = time.perf_counter() - started
    return 2 * 512**3 * n / wall_s


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
