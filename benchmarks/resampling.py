"""Seconds that 1,000 resamples of 100,000 verdicts take, every agreement statistic in each.

python benchmarks/resampling.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from medjudge.metrics.agreement import agreement_estimates, available_statistics
from medjudge.metrics.calibration import calibration_measures
from medjudge.metrics.classification import Outcomes
from medjudge.metrics.comparison import Pairing, paired_permutation, paired_statistics

N = 100_000


def verdicts(n_labels: int, n_groups: int, seed: int) -> Outcomes:
    """A judge right in seven of ten rows, 1 % unreadable."""
    rng = np.random.default_rng(seed)
    gold = np.random.default_rng(0).integers(0, n_labels, N)
    said = np.where(rng.random(N) < 0.7, gold, rng.integers(0, n_labels, N))
    return Outcomes(
        labels=tuple(map(str, range(n_labels))),
        case_ids=tuple(map(str, range(N))),
        gold=gold,
        predicted=np.where(rng.random(N) < 0.01, n_labels, said),
        groups=np.arange(N) * n_groups // N,
        n_groups=n_groups,
        positive=1 if n_labels == 2 else None,
        ordered=n_labels > 2,
    )


def work_on(n_labels: int, n_groups: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    a, b = verdicts(n_labels, n_groups, 1), verdicts(n_labels, n_groups, 2)
    pairing = Pairing(a, b, (), ())
    confidence = np.random.default_rng(3).random(N)
    rng, size = np.random.default_rng, len(available_statistics(a))
    return {
        f"{size} statistics, expanded bootstrap": lambda: agreement_estimates(a, rng=rng(0), method="expanded"),
        f"{size} statistics, BCa": lambda: agreement_estimates(a, rng=rng(0), method="bca"),
        f"{size} statistics, default (jackknife, Wilson)": lambda: agreement_estimates(a, rng=rng(0)),
        f"{size} paired differences, jackknife": lambda: paired_statistics(pairing),
        f"{size} paired permutation tests": lambda: paired_permutation(pairing, n_resamples=1000, rng=rng(0)),
        "calibration: Brier, log loss, AURC": lambda: calibration_measures(confidence, a.correct, a.groups, rng=rng(0)),
    }


def main() -> None:
    """Print one line per task: seconds by the clock, and of one processor."""
    print("| work | labels | groups | seconds | processor seconds |\n|---|---|---|---|---|")
    for n_labels in (2, 5):
        for n_groups in (20_000, N):
            for name, run in work_on(n_labels, n_groups).items():
                start, used = time.perf_counter(), time.process_time()
                run()
                clock, processor = time.perf_counter() - start, time.process_time() - used
                print(f"| {name} | {n_labels} | {n_groups:,} | {clock:.1f} | {processor:.1f} |", flush=True)


if __name__ == "__main__":
    main()
