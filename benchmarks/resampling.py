"""Seconds that 1,000 resamples of 100,000 verdicts take, every agreement statistic in each.

python benchmarks/resampling.py
"""

# ruff: noqa: B023  # the functions are called before their round ends

from __future__ import annotations

import time

import numpy as np

from medjudge.metrics.agreement import agreement_estimates, available_statistics
from medjudge.metrics.calibration import calibration_report
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


def main() -> None:
    """Print one line per task."""
    print("| work | labels | groups | seconds |\n|---|---|---|---|")
    for n_labels in (2, 5):
        for n_groups in (20_000, N):
            a, b = verdicts(n_labels, n_groups, 1), verdicts(n_labels, n_groups, 2)
            pairing = Pairing(a, b, (), ())
            confidence = np.random.default_rng(3).random(N)
            size = len(available_statistics(a))
            work = {  # run within this round: nothing is bound too late
                f"{size} statistics, expanded bootstrap": lambda: agreement_estimates(
                    a, rng=np.random.default_rng(0), method="expanded"
                ),
                f"{size} statistics, BCa": lambda: agreement_estimates(a, rng=np.random.default_rng(0), method="bca"),
                f"{size} statistics, default": lambda: agreement_estimates(a, rng=np.random.default_rng(0)),
                f"{size} paired differences": lambda: paired_statistics(pairing, rng=np.random.default_rng(0)),
                f"{size} paired permutation tests (1,000)": lambda: paired_permutation(
                    pairing, n_resamples=1000, rng=np.random.default_rng(0)
                ),
                "calibration report": lambda: calibration_report(
                    confidence, a.correct, a.groups, rng=np.random.default_rng(0)
                ),
            }
            for name, run in work.items():
                start = time.perf_counter()
                run()
                print(f"| {name} | {n_labels} | {n_groups:,} | {time.perf_counter() - start:.1f} |", flush=True)


if __name__ == "__main__":
    main()
