"""Judges that give numbers as tables: ranking and thresholds, probabilities, agreement of numbers."""

from __future__ import annotations

from medjudge.metrics.claims import AUC, PROBABILITY, find_claim
from medjudge.metrics.result_types import Claim, Results
from medjudge.metrics.score_results import ScoresResult
from medjudge.reporting.audit_tables import HOLM, Cell, Grid, number, statistic_cell, test_cells
from medjudge.reporting.inputs import DASH

CORRELATIONS = {
    "pearson": "Pearson r",
    "spearman": "Spearman rho",
    "kendall_tau_b": "Kendall tau-b",
    "icc_2_1": "ICC(2,1)",
    "icc_3_1": "ICC(3,1)",
}


def score_grids(results: Results) -> list[Grid]:
    """The tables; none where judges give labels."""
    scores = results.scores
    if scores is None:
        return []
    grids = [_ranking(scores, results), _differences(scores, results), _probabilities(scores, results)]
    return [grid for grid in (*grids, _numbers(scores)) if grid is not None]


def _tested(claim: Claim | None) -> tuple[Cell, ...]:
    return (Cell(DASH),) * 3 if claim is None else test_cells(claim.p, claim.method, claim)


def _share(value: float | None) -> Cell:
    return Cell(DASH if value is None else number(value, True))


def _ranking(scores: ScoresResult, results: Results) -> Grid | None:
    rows = []
    for name, judge in scores.judges.items():
        if judge.auc is None:
            continue
        threshold = judge.threshold
        cells = [
            Cell(f"{judge.n:,}", f"{judge.n_without:,} without" if judge.n_without else ""),
            statistic_cell(judge.auc, percent=False),
            *_tested(find_claim(results.claims, "chance", (name,), AUC)),
            statistic_cell(judge.average_precision, percent=False),
            Cell(number(judge.prevalence, False)),
            Cell(DASH) if threshold is None else Cell(f"{threshold.value:.4g}", threshold.rule),
            _share(None if threshold is None else threshold.sensitivity),
            _share(None if threshold is None else threshold.specificity),
        ]
        audited = None if results.audit is None else results.audit.judges.get(name)
        statistics = {} if audited is None else audited.statistics
        cells += [statistic_cell(statistics.get(key), percent=True) for key in ("tpr", "tnr")]
        rows.append((name, tuple(cells)))
    if not rows:
        return None
    chosen = (
        f"Thresholds were chosen by {scores.rule} on {scores.n_calibration:,} cases of "
        f"{scores.n_calibration_groups:,} groups that take no part in any other number: what they do there is too "
        "good, and stands beside what they do on the rest. "
        if scores.rule
        else "Thresholds were given. "
    )
    return Grid(
        "Ranking",
        (
            "n",
            "AUC",
            "p",
            "p, Holm",
            "Differs from .5",
            "Average precision",
            "By chance",
            "Threshold",
            "Sensitivity where chosen, %",
            "Specificity where chosen, %",
            "Sensitivity, %",
            "Specificity, %",
        ),
        tuple(rows),
        note=(
            f"AUC and average precision: jackknife over groups, or a bootstrap where that is undefined. {chosen}A case "
            f"without a score is wrong in sensitivity and specificity and takes no part in the others. {HOLM}"
        ),
    )


def _differences(scores: ScoresResult, results: Results) -> Grid | None:
    rows = tuple(
        (
            f"{one.a} minus {one.b}",
            (
                Cell(f"{one.n:,}"),
                statistic_cell(one.difference, percent=False),
                *_tested(find_claim(results.claims, "difference", (one.a, one.b), AUC)),
            ),
        )
        for one in scores.differences
    )
    heads = ("n", "AUC, difference", "p", "p, Holm", "Differs")
    return Grid("AUC of two judges on the same cases", heads, rows, note=HOLM) if rows else None


def _probabilities(scores: ScoresResult, results: Results) -> Grid | None:
    rows = tuple(
        (
            name,
            (
                Cell(f"{one.n:,}"),
                _share(one.mean),
                _share(one.share),
                *_tested(find_claim(results.claims, "calibration", (name,), PROBABILITY)),
                Cell(number(one.ece, False), f"{one.ece_if_calibrated:.3f} if calibrated"),
                statistic_cell(one.brier, percent=False),
                statistic_cell(one.log_loss, percent=False),
            ),
        )
        for name, judge in scores.judges.items()
        if (one := judge.probabilities) is not None
    )
    heads = ("n", "Mean, %", "Positive, %", "p", "p, Holm", "Too high or low", "ECE", "Brier score", "Log loss")
    note = f"Probabilities of the positive label. ECE is biased upward: compare it with the value below it. {HOLM}"
    return Grid("Scores as probabilities", heads, rows, note=note) if rows else None


def _numbers(scores: ScoresResult) -> Grid | None:
    shown = [key for key in CORRELATIONS if any(key in judge.correlations for judge in scores.judges.values())]
    if not shown:
        return None
    rows = []
    for name, judge in scores.judges.items():
        limits = judge.bland_altman
        n = next((metric.n for metric in judge.correlations.values()), 0)
        cells = [Cell(f"{n:,}"), *(statistic_cell(judge.correlations.get(key), percent=False) for key in shown)]
        for metric in (None,) * 3 if limits is None else (limits.mean, limits.lower, limits.upper):
            cells.append(statistic_cell(metric, percent=False))
        rows.append((name, tuple(cells)))
    return Grid(
        "Scores beside the experts' numbers",
        ("n", *(CORRELATIONS[key] for key in shown), "Mean difference", "Lower limit", "Upper limit"),
        tuple(rows),
        note=(
            "A correlation is no agreement: a judge that is always two points too high has 1. ICC, the mean difference "
            "(judge less experts) and the limits of agreement (1.96 standard deviations to either side) take both as "
            "numbers on one scale. Intervals: jackknife over groups. No test is made of these."
        ),
    )
