"""How long `medjudge score` takes from another tool's verdict file to a report, page and pictures included.

    python benchmarks/score_csv.py                  # 10,000 rows of two judges' verdicts in one CSV
    python benchmarks/score_csv.py --rows 50000

The file has column names of its own, five generators, groups of four rows, confidences with two decimals and one
unreadable answer in fifty. The command runs as a user runs it, in a process of its own; seconds are of that process.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

GENERATORS = ("atlas", "birch", "cedar", "delta", "ember")


def write_file(path: Path, n_rows: int, n_judges: int, seed: int = 0) -> None:
    """`n_rows` verdicts on `n_rows / n_judges` answers."""
    rng = np.random.default_rng(seed)
    n_cases = n_rows // n_judges
    truth = rng.random(n_cases) < 0.35
    difficulty = np.repeat(rng.normal(0, 1, -(-n_cases // 4)), 4)[:n_cases]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["answer id", "question", "model", "grader", "clinician", "verdict", "certainty"])
        for judge in range(n_judges):
            skill = 1.6 - 0.2 * judge
            right = rng.random(n_cases) < 1 / (1 + np.exp(-(skill + difficulty)))
            sure = np.clip(rng.normal(0.85, 0.1, n_cases) - 0.15 * ~right, 0.5, 1.0)
            unread = rng.random(n_cases) < 0.02
            for i in range(n_cases):
                said = "?" if unread[i] else "pass" if truth[i] == right[i] else "fail"
                gold = "pass" if truth[i] else "fail"
                writer.writerow(
                    [f"a{i}", f"q{i // 4}", GENERATORS[i % 5], f"judge-{judge}", gold, said, f"{sure[i]:.2f}"]
                )


def main() -> None:
    """Write the file, run the command, print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--judges", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tool.csv"
        write_file(path, given.rows, given.judges)
        columns = "id=answer id,group=question,generator=model,judge=grader,label=verdict,confidence=certainty"
        command = [sys.executable, "-m", "medjudge", "score", str(path), "--labels", "fail,pass"]
        command += ["--gold", "clinician", "--map", columns, "--out", str(Path(folder) / "scored")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size_mb = (Path(folder) / "scored" / "index.html").stat().st_size / 1e6
    user_s, system_s = used.ru_utime - before.ru_utime, used.ru_stime - before.ru_stime
    print(
        f"{given.rows:,} rows, {given.judges} judges: {user_s + system_s:.1f} s of processor (user {user_s:.1f}, "
        f"system {system_s:.1f}), {wall_s:.1f} s on the clock; a page of {size_mb:.1f} MB"
    )


if __name__ == "__main__":
    main()
