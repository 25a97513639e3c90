"""How often intervals cover the truth and thresholds keep their promise, on simulated groups whose truth is known.

    python benchmarks/coverage.py                 # everything
    python benchmarks/coverage.py --sets 200      # a look

Designs. A set is G groups (questions) with 1 to 8 rows each. A group has latent effects, normal on the log-odds scale,
that move its own prevalence and the judge's errors, so rows of a group resemble each other. `binary`: prevalence about
.3, TPR and TNR about .8. `ordinal`: five points, the judge within a point most of the time. The truth is the statistic
of the expected table over 400,000 groups.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from medjudge.metrics.agreement import STATISTICS, statistics_from_counts
from medjudge.metrics.comparison import difference_interval
from medjudge.metrics.correction import gold_rate, prediction_powered_rate, rogan_gladen
from medjudge.metrics.intervals import (
    bca_interval,
    clustered_wilson,
    expanded_interval,
    jackknife_interval,
    percentile_interval,
    resample_sums,
    wilson_interval,
)
from medjudge.metrics.selective import risk_control_threshold, risk_coverage, selective_threshold

FloatArray = NDArray[np.float64]
LEVEL = 0.95
N_GROUPS = (10, 20, 30, 60, 200)
SHOWN = {
    "binary": ("accuracy", "tpr", "tnr", "f1_positive", "mcc", "kappa", "gwet_ac1", "alpha_nominal"),
    "ordinal": ("macro_f1", "kappa_quadratic", "gwet_ac2", "alpha_ordinal", "spearman", "kendall_tau_b", "icc_2_1"),
}


def sigmoid(x: FloatArray) -> FloatArray:
    """Log-odds to probability."""
    return 1 / (1 + np.exp(-x))


def binary_tables(effects: FloatArray) -> FloatArray:
    """(n, 2, 2) probabilities of gold by answer for latent group effects (n, 3): prevalence, TPR, TNR."""
    prevalence, tpr, tnr = (sigmoid(base + effects[:, i]) for i, base in enumerate((-0.95, 1.6, 1.6)))
    return np.stack(
        [
            np.stack([(1 - prevalence) * tnr, (1 - prevalence) * (1 - tnr)], 1),
            np.stack([prevalence * (1 - tpr), prevalence * tpr], 1),
        ],
        1,
    )


def ordinal_tables(effects: FloatArray) -> FloatArray:
    """(n, 5, 5) probabilities of gold by answer: gold around a group's quality, the judge around gold plus a lean."""
    points = np.arange(5)
    gold = np.exp(-((points - 2 - effects[:, :1]) ** 2) / 2)
    gold /= gold.sum(1, keepdims=True)
    lean = 0.3 + 0.5 * effects[:, 1]
    said = np.exp(-((points[None, None] - points[None, :, None] - lean[:, None, None]) ** 2) / 1.2)
    return gold[:, :, None] * said / said.sum(2, keepdims=True)


DESIGNS: dict[str, Callable[[FloatArray], FloatArray]] = {"binary": binary_tables, "ordinal": ordinal_tables}


def draw_set(design: str, n_groups: int, rng: np.random.Generator) -> FloatArray:
    """(G, K, K + 2) counts of one simulated set."""
    tables = DESIGNS[design](rng.normal(0, 1, (n_groups, 3)))
    k = tables.shape[1]
    counts = rng.multinomial(rng.integers(1, 9, n_groups), tables.reshape(n_groups, -1)).reshape(n_groups, k, k)
    return np.concatenate([counts, np.zeros((n_groups, k, 2))], axis=2)


def statistics(design: str, counts: FloatArray) -> dict[str, FloatArray]:
    """The statistics shown for a design, of (..., K, K + 2) tables."""
    found = statistics_from_counts(counts, positive=1 if design == "binary" else None, ordered=design == "ordinal")
    return {name: found[name] for name in SHOWN[design]}


def true_values(design: str) -> dict[str, float]:
    """The statistics of the population's table."""
    tables = DESIGNS[design](np.random.default_rng(1).normal(0, 1, (400_000, 3))).mean(0) * 1e9
    padded = np.concatenate([tables, np.zeros((len(tables), 2))], axis=1)
    return {name: float(value) for name, value in statistics(design, padded).items()}


def rows_of(counts: FloatArray, name: str) -> tuple[FloatArray, FloatArray]:
    """0 or 1 per row and the row's group, for a statistic that is a share of rows."""
    hit = {"accuracy": counts[:, 0, 0] + counts[:, 1, 1], "tpr": counts[:, 1, 1], "tnr": counts[:, 0, 0]}[name]
    size = {"accuracy": counts.sum((1, 2)), "tpr": counts[:, 1].sum(1), "tnr": counts[:, 0].sum(1)}[name]
    groups = np.repeat(np.arange(len(counts)), size.astype(int))
    place = np.arange(len(groups)) - np.repeat(np.cumsum(size) - size, size.astype(int))
    return (place < hit[groups]).astype(float), groups


def cover_statistics(design: str, n_groups: int, n_sets: int, n_resamples: int) -> dict[str, dict[str, list[bool]]]:
    """Statistic -> method -> whether each set's interval holds the truth. A missing interval does not cover."""
    rng = np.random.default_rng([7, n_groups])
    truth = true_values(design)
    covered: dict[str, dict[str, list[bool]]] = {name: {} for name in SHOWN[design]}
    for _ in range(n_sets):
        counts = draw_set(design, n_groups, rng)
        drawn = statistics(design, resample_sums(counts, n_resamples, rng))
        values, leave = statistics(design, counts.sum(0)), statistics(design, counts.sum(0) - counts)
        for name, draws in drawn.items():
            ends = {
                "percentile": percentile_interval(draws, LEVEL),
                "expanded": expanded_interval(draws, LEVEL, n_groups),
                "BCa": bca_interval(float(values[name]), draws, leave[name], LEVEL),
            }
            without = leave[name]
            told = STATISTICS[name]
            ends["default"] = jackknife_interval(float(values[name]), without, LEVEL, told.low, corrected=told.biased)
            if np.isnan(ends["default"][0]):
                ends["default"] = ends["expanded"]
            if STATISTICS[name].proportion:
                hits, groups = rows_of(counts, name)
                estimate = clustered_wilson(hits, groups, level=LEVEL)
                ends["default"] = (estimate.low, estimate.high)
                ends["Wilson, rows"] = wilson_interval(hits.sum(), len(hits), level=LEVEL)
            for method, (low, high) in ends.items():
                covered[name].setdefault(method, []).append(low <= truth[name] <= high)
    return covered


def print_statistics(n_sets: int, n_resamples: int) -> None:
    """Every method for every statistic and number of groups."""
    methods = ("percentile", "BCa", "expanded", "default", "Wilson, rows")
    for design in DESIGNS:
        print(f"\n### Design `{design}`: share of {n_sets:,} sets whose 95 % interval holds the truth\n")
        print(f"| statistic | groups | {' | '.join(methods)} |\n|---|---|{'---|' * len(methods)}")
        for n_groups in N_GROUPS:
            for name, found in cover_statistics(design, n_groups, n_sets, n_resamples).items():
                cells = [f"{100 * np.mean(found[m]):.1f}" if m in found else "" for m in methods]
                print(f"| {name} | {n_groups} | {' | '.join(cells)} |", flush=True)


def print_differences(n_sets: int, n_resamples: int) -> None:
    """Two judges on the same rows: their errors share the group's difficulty."""
    print(f"\n### Paired differences of two judges (binary): share of {n_sets:,} sets\n")
    names = ("accuracy", "f1_positive", "mcc", "kappa")
    print("| statistic | groups | percentile | BCa | expanded | t, jackknife |\n|---|---|---|---|---|---|")

    def tables(effects: FloatArray) -> FloatArray:
        """(n, 2, 2, 2): gold by answer of a by answer of b."""
        prevalence = sigmoid(-0.95 + effects[:, 0])
        right_a, right_b = sigmoid(1.6 + effects[:, 1]), sigmoid(1.0 + 0.8 * effects[:, 1] + 0.6 * effects[:, 2])
        out = np.empty((len(effects), 2, 2, 2))
        for gold, share in enumerate((1 - prevalence, prevalence)):
            for a in (0, 1):
                for b in (0, 1):
                    pa, pb = (p if said == gold else 1 - p for p, said in ((right_a, a), (right_b, b)))
                    out[:, gold, a, b] = share * pa * pb
        return out

    def differences(joint: FloatArray) -> dict[str, FloatArray]:
        empty = np.zeros((*joint.shape[:-2], 2))
        of_a, of_b = joint.sum(-1), joint.sum(-2)
        a, b = (statistics_from_counts(np.concatenate([t, empty], -1), positive=1) for t in (of_a, of_b))
        return {name: a[name] - b[name] for name in names}

    truth = differences(tables(np.random.default_rng(1).normal(0, 1, (400_000, 3))).mean(0) * 1e9)
    for n_groups in (2, 3, 4, 5, *N_GROUPS):
        rng = np.random.default_rng([8, n_groups])
        covered: dict[str, dict[str, list[bool]]] = {
            name: {"percentile": [], "BCa": [], "expanded": [], "t, jackknife": []} for name in names
        }
        for _ in range(n_sets):
            p = tables(rng.normal(0, 1, (n_groups, 3))).reshape(n_groups, -1)
            counts = rng.multinomial(rng.integers(1, 9, n_groups), p).reshape(n_groups, 2, 2, 2).astype(float)
            drawn = differences(resample_sums(counts, n_resamples, rng))
            values, jackknife = differences(counts.sum(0)), differences(counts.sum(0) - counts)
            for name, draws in drawn.items():
                for method, (low, high) in {
                    "percentile": percentile_interval(draws, LEVEL),
                    "BCa": bca_interval(float(values[name]), draws, jackknife[name], LEVEL),
                    "expanded": expanded_interval(draws, LEVEL, n_groups),
                    "t, jackknife": difference_interval(float(values[name]), jackknife[name], LEVEL),
                }.items():
                    if low < high:  # a few rows give no interval, or one without width that is not shown
                        covered[name][method].append(bool(low <= truth[name] <= high))
        for name, found in covered.items():
            cells = " | ".join(f"{100 * np.mean(values):.1f}" for values in found.values())
            print(f"| {name} | {n_groups} | {cells} |", flush=True)


def draw_pass_rates(
    n: int, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Gold, the judge's answer and the group of n rows in groups of `size`."""
    groups = np.arange(n) // size
    effects = rng.normal(0, 1, (n // size, 3))[groups]
    gold = rng.random(n) < sigmoid(-0.95 + effects[:, 0])
    right = rng.random(n) < sigmoid(1.6 + np.where(gold, effects[:, 1], effects[:, 2]))
    return gold, gold == right, groups


def print_corrections(n_sets: int) -> None:
    """The pass rate of 2,000 judged rows from n labelled ones."""
    print(f"\n### True pass rate from 2,000 judged rows and n labelled ones: share of {n_sets:,} sets (mean width)\n")
    print("| labelled rows | groups of | labelled alone | Rogan-Gladen | PPI | PPI++ |\n|---|---|---|---|---|---|")
    truth = float(sigmoid(-0.95 + np.random.default_rng(1).normal(0, 1, 400_000)).mean())
    for n, size in ((50, 1), (200, 1), (800, 1), (200, 4), (800, 4)):
        rng = np.random.default_rng([9, n, size])
        covered: dict[str, list[bool]] = {}
        widths: dict[str, list[float]] = {}
        for _ in range(n_sets):
            gold, judged, groups = draw_pass_rates(n, size, rng)
            _, unlabelled, other_groups = draw_pass_rates(2000, size, rng)
            by = {"groups": other_groups + n, "labelled_groups": groups} if size > 1 else {}
            estimates = {
                "alone": gold_rate(gold, groups if size > 1 else None),
                "rg": rogan_gladen(unlabelled, judged, gold, n_resamples=400, rng=rng, **by),
                "ppi": prediction_powered_rate(unlabelled, judged, gold, tuning="plain", **by),
                "ppi++": prediction_powered_rate(unlabelled, judged, gold, **by),
            }
            for name, e in estimates.items():
                covered.setdefault(name, []).append(e.low <= truth <= e.high)
                widths.setdefault(name, []).append(e.high - e.low)
        cells = " | ".join(f"{100 * np.mean(covered[k]):.1f} % ({np.nanmean(widths[k]):.3f})" for k in covered)
        print(f"| {n} | {size} | {cells} |", flush=True)


def print_shared_groups(n_sets: int) -> None:
    """Questions of which some answers are rated and others are not: one group in both sets, or taken apart."""
    print(f"\n### The same where rated and other rows share questions: share of {n_sets:,} sets (mean width)\n")
    print("| questions | rated, other each | PPI | PPI++ | Rogan-Gladen | PPI++, apart | Rogan-Gladen, apart |")
    print("|---|---|---|---|---|---|---|")
    for n_groups, n_rated, n_other in ((30, 2, 2), (60, 2, 4), (200, 1, 4)):
        rng = np.random.default_rng([10, n_groups])
        found: dict[str, list[tuple[bool, float]]] = {}
        for _ in range(n_sets):
            rate, errs = rng.beta(0.6, 1.4, n_groups), rng.beta(0.5, 2.5, n_groups)
            old, new = np.repeat(np.arange(n_groups), n_rated), np.repeat(np.arange(n_groups), n_other)
            gold, other = rng.random(len(old)) < rate[old], rng.random(len(new)) < rate[new]
            judged, others = gold ^ (rng.random(len(old)) < errs[old]), other ^ (rng.random(len(new)) < errs[new])
            together = {"groups": new, "labelled_groups": old}
            apart = {"groups": new + n_groups, "labelled_groups": old}
            estimates = {
                "ppi": prediction_powered_rate(others, judged, gold, tuning="plain", **together),
                "ppi++": prediction_powered_rate(others, judged, gold, **together),
                "rg": rogan_gladen(others, judged, gold, n_resamples=400, rng=rng, **together),
                "ppi++ apart": prediction_powered_rate(others, judged, gold, **apart),
                "rg apart": rogan_gladen(others, judged, gold, n_resamples=400, rng=rng, **apart),
            }
            for name, e in estimates.items():
                found.setdefault(name, []).append((e.low <= 0.3 <= e.high, e.high - e.low))
        cells = " | ".join(
            f"{100 * share:.1f} % ({width:.3f})" for share, width in (np.nanmean(v, 0) for v in found.values())
        )
        print(f"| {n_groups} | {n_rated}, {n_other} | {cells} |", flush=True)


def print_thresholds(n_sets: int) -> None:
    """Right with probability .6 + .4 confidence (+ a group effect); confidences uniform, so every error is known."""
    print(f"\n### Thresholds chosen on n rows, {n_sets:,} calibration sets each\n")
    print(
        "| n | groups of | wanted | broken by learn-then-test (at most 10 %) | its mean coverage | no threshold "
        "| broken by the naive choice | mean loss of conformal risk control | its mean coverage |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    grid = np.linspace(0, 1, 2001)
    for n, size, wanted in ((300, 1, 0.15), (1000, 1, 0.15), (1000, 1, 0.10), (900, 3, 0.15), (3000, 3, 0.10)):
        spread = 0.15 if size > 1 else 0.0
        shifts = spread * norm.ppf((np.arange(1000) + 0.5) / 1000)
        right = np.clip(0.6 + 0.4 * grid[:, None] + shifts, 0, 1).mean(1)
        wrong_above = (1 - right)[::-1].cumsum()[::-1]
        rng = np.random.default_rng([5, n, size])
        broken = naive = none = 0
        losses, coverages, conformal_coverages = [], [], []
        for _ in range(n_sets):
            groups = np.arange(n) // size
            confidence = rng.random(n)
            shift = rng.normal(0, spread, n // size)[groups]
            correct = rng.random(n) < np.clip(0.6 + 0.4 * confidence + shift, 0, 1)
            by = groups if size > 1 else None
            rule = selective_threshold(confidence, correct, max_error=wanted, delta=0.1, groups=by, rng=rng)
            none += rule.threshold is None
            first = len(grid) if rule.threshold is None else np.searchsorted(grid, rule.threshold, side="right")
            coverages.append(1 - first / len(grid))
            broken += first < len(grid) and wrong_above[first] / (len(grid) - first) > wanted
            curve = risk_coverage(confidence, correct)
            first = np.searchsorted(grid, min(curve.threshold[curve.risk <= wanted], default=1.0), side="right")
            naive += first < len(grid) and wrong_above[first] / (len(grid) - first) > wanted
            conformal = risk_control_threshold(confidence, correct, max_error=wanted / 2, groups=by)
            first = np.searchsorted(grid, conformal.threshold, side="right")
            losses.append(wrong_above[first] / len(grid) if first < len(grid) else 0.0)
            conformal_coverages.append(1 - first / len(grid))
        print(
            f"| {n} | {size} | {wanted:g} | {100 * broken / n_sets:.1f} % | {np.mean(coverages):.2f} | {none} "
            f"| {100 * naive / n_sets:.1f} % | {np.mean(losses):.4f} (at most {wanted / 2:g}) "
            f"| {np.mean(conformal_coverages):.2f} |",
            flush=True,
        )


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets per line")
    parser.add_argument("--resamples", type=int, default=600)
    parser.add_argument("--parts", default="statistics,differences,corrections,thresholds")
    given = parser.parse_args()
    start = time.perf_counter()
    parts = given.parts.split(",")
    if "statistics" in parts:
        print_statistics(given.sets, given.resamples)
    if "differences" in parts:
        print_differences(given.sets, given.resamples)
    if "corrections" in parts:
        print_corrections(given.sets)
        print_shared_groups(given.sets)
    if "thresholds" in parts:
        print_thresholds(given.sets)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
