"""Conversions of a GGUF file under stress: many at once, killed, cut off, on a full disk, on a damaged cache.

    python benchmarks/gguf_soak.py --minutes 10                   (a small file with random weights)
    python benchmarks/gguf_soak.py --minutes 10 --gguf FILE.gguf

Each round starts on an empty cache. Afterwards it must hold the whole model and nothing else, or nothing at all, and
each process that failed must have given one sentence. Exits with 1 where a round did not end so.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.models.gguf_files import write_gguf

from medjudge.errors import MedjudgeError
from medjudge.files import sha256_file
from medjudge.models import gguf as gguf_module
from medjudge.models.gguf_header import GgufHeader
from medjudge.models.load import resolve
from medjudge.models.sources import CACHE_VARIABLE, converted, gguf_sha256

N_AT_ONCE = 10
FORK = multiprocessing.get_context("fork")
"""A fork has torch loaded already, so that all of them reach the conversion within a few ms."""


def convert(path: Path, cache: Path, report: Path, max_bytes: int | None) -> None:
    """One process: writes how it ended to `report`: `whole`, `converted`, or its message."""
    os.environ[CACHE_VARIABLE] = str(cache)
    if max_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    made: list[str] = []
    real = gguf_module._convert

    def noted(header: GgufHeader, digest: str, out: Path) -> None:
        made.append(digest)
        real(header, digest, out)

    gguf_module._convert = noted
    try:
        resolve(path)
        outcome = "converted" if made else "whole"
    except MedjudgeError as error:
        outcome = f"refused: {error}"
    except BaseException as error:
        outcome = f"crashed: {type(error).__name__}: {error}"
    report.write_text(outcome, encoding="utf-8")


class Bench:
    """One empty cache at a time, and what is expected of it."""

    def __init__(self, gguf: Path, work: Path, rng: random.Random) -> None:
        """Converts the file once, alone, to know what is expected and how long it takes."""
        self.gguf, self.work, self.rng = gguf, work, rng
        self.cache = work / "cache"
        os.environ[CACHE_VARIABLE] = str(self.cache)
        started_s = time.monotonic()
        self.weights = sha256_file(resolve(gguf) / "model.safetensors")
        self.seconds = time.monotonic() - started_s

    def start(self, n: int, path: Path | None = None, max_bytes: int | None = None) -> list[tuple[BaseProcess, Path]]:
        """`n` processes that convert at once."""
        started: list[tuple[BaseProcess, Path]] = []
        for i in range(n):
            report = self.work / f"report{i}"
            report.unlink(missing_ok=True)
            process = FORK.Process(target=convert, args=(path or self.gguf, self.cache, report, max_bytes))
            process.start()
            started.append((process, report))
        return started

    def end(self, started: list[tuple[BaseProcess, Path]]) -> list[str]:
        """How each of them ended; one that was killed has no report."""
        for process, _ in started:
            process.join(600)
        return [report.read_text(encoding="utf-8") if report.exists() else "killed" for _, report in started]

    def check_whole(self) -> str | None:
        """What is wrong with the cache, expected to hold the whole model and nothing else."""
        folder = converted(gguf_sha256(self.gguf))
        if folder is None:
            return "the cache holds no whole model"
        if sha256_file(folder / "model.safetensors") != self.weights:
            return "the cache holds other weights"
        return self.check_rest([folder.name])

    def check_rest(self, expected: list[str]) -> str | None:
        """As `check_whole`, for the names of the folders alone."""
        place = self.cache / "gguf"
        found = sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
        return None if found == expected else f"the cache holds {found}, expected {expected}"


def at_once(bench: Bench) -> str | None:
    """Ten processes: one converts, all have the model."""
    outcomes = Counter(bench.end(bench.start(N_AT_ONCE)))
    if outcomes != {"converted": 1, "whole": N_AT_ONCE - 1}:
        return f"outcomes {dict(outcomes)}"
    return bench.check_whole()


def killed(bench: Bench) -> str | None:
    """The one that converts is killed at a random moment: another takes over, and a later one finds all whole."""
    started = bench.start(3)
    time.sleep(bench.rng.uniform(0.0, 1.2) * bench.seconds)
    victims = started if bench.rng.random() < 0.5 else started[:1]
    for process, _ in victims:
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    outcomes = bench.end(started)
    if any(outcome not in ("killed", "converted", "whole") for outcome in outcomes):
        return f"outcomes {outcomes}"
    (last,) = bench.end(bench.start(1))
    if last not in ("converted", "whole"):
        return f"after a kill: {last}"
    return bench.check_whole()


def cut_off(bench: Bench) -> str | None:
    """A file that was cut off at a random place is refused in one sentence, and leaves nothing."""
    n_bytes = bench.gguf.stat().st_size
    path = bench.work / "cut.gguf"
    with bench.gguf.open("rb") as whole, path.open("wb") as cut:
        cut.write(whole.read(int(n_bytes * bench.rng.random() ** 3)))
    return _refusals(bench.end(bench.start(2, path)), "cut.gguf") or bench.check_rest([])


def full(bench: Bench) -> str | None:
    """A disk that is full, or a limit of a file's size, at a random place; with room the next one converts."""
    needed = sum(path.stat().st_size for path in resolve(bench.gguf).iterdir())
    shutil.rmtree(bench.cache)
    size = int(needed * bench.rng.uniform(0.05, 0.9))
    with _small_disk(bench.cache, size) as is_mounted:
        outcomes = bench.end(bench.start(2, max_bytes=None if is_mounted else size))
        if (trouble := _refusals(outcomes, "cannot be written")) is not None:
            return trouble
        if (trouble := bench.check_rest([])) is not None:
            return trouble
    (last,) = bench.end(bench.start(1))
    return bench.check_whole() if last == "converted" else f"with room again: {last}"


def damaged(bench: Bench) -> str | None:
    """A file of the cache is cut, changed or removed at random: it is converted again, by one of three."""
    folder = resolve(bench.gguf)
    path = bench.rng.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    match bench.rng.randrange(3):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(content[: bench.rng.randrange(len(content))])
        case _:
            at = bench.rng.randrange(len(content))
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
    outcomes = Counter(bench.end(bench.start(3)))
    # A flipped bit in what the note says of versions leaves the model whole.
    if outcomes not in ({"converted": 1, "whole": 2}, {"whole": 3}):
        return f"{path.name} damaged: outcomes {dict(outcomes)}"
    return bench.check_whole()


def _refusals(outcomes: list[str], words: str) -> str | None:
    for outcome in outcomes:
        if not outcome.startswith("refused: ") or words not in outcome or "\n" in outcome or len(outcome) > 800:
            return f"expected one sentence with {words!r}, got {outcome[:600]!r}"
    return None


@contextlib.contextmanager
def _small_disk(place: Path, n_bytes: int) -> Iterator[bool]:
    """A file system of so many bytes where this account may mount one; else False, and a limit has to stand for it."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(place)]
    is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(place)], check=True)


ROUNDS: dict[str, Callable[[Bench], str | None]] = {
    "ten at once": at_once,
    "killed": killed,
    "cut off": cut_off,
    "full disk": full,
    "damaged cache": damaged,
}


def main() -> None:
    """Runs rounds in turn until the time is up, and prints how many there were of each kind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--gguf", type=Path, help="default: a small file with random weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gguf-soak.") as folder:
        gguf = options.gguf or Path(folder) / "small.gguf"
        if options.gguf is None:
            shape: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8}
            write_gguf(gguf, "llama", head_dim=64, **shape)
        bench = Bench(gguf, Path(folder), random.Random(options.seed))
        print(f"{gguf.name}: {gguf.stat().st_size:,} bytes, converted alone in {bench.seconds:.1f} s", flush=True)
        ends_s = time.monotonic() + 60 * options.minutes
        while time.monotonic() < ends_s:
            for name, round_of in ROUNDS.items():
                shutil.rmtree(bench.cache, ignore_errors=True)
                counts[name] += 1
                if (trouble := round_of(bench)) is not None:
                    failures.append(f"{name}, round {counts[name]}: {trouble}")
                    print(f"FAILED {failures[-1]}", flush=True)
    for name, n in counts.items():
        print(f"{name:>14}: {n:4} rounds, {sum(failure.startswith(name) for failure in failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
