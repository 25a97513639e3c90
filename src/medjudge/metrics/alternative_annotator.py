"""The alternative annotator test: may a judge take the place of any one of several experts?

For each expert j and each case i that j and others rated, the judge and j are each compared with the other experts. The
judge wins where it is at least as close to them as j is, and j where j is at least as close as the judge; at equal
closeness both win. The hypothesis for j is that j wins more often than the judge by epsilon or more; what the expert
costs is worth epsilon. Rejected for at least half of the experts (winning rate omega >= .5), the judge may stand in.

Source: Calderon, Reichart & Dror (2025), The Alternative Annotator Test for LLM-as-a-Judge, arXiv:2501.10970.
Here the one-sided paired t test takes groups of cases as its units; with a case per group it is the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.agreement_tables import FloatArray
from medjudge.metrics.expert_results import AlternativeAnnotator, AnnotatorResult
from medjudge.metrics.group_tests import mean_is_zero
from medjudge.metrics.intervals import JACKKNIFE, Estimate, jackknife_interval, leave_one_out
from medjudge.metrics.metric_result import TestResult, measured
from medjudge.metrics.rater_agreement import IntArray, Ratings

EPSILON = 0.2
"""What an expert's time is worth, as the paper sets it for experts (.1 to .15 for trained and lay annotators)."""
Q = 0.05
"""Bound of the false discovery rate over experts."""
MIN_CASES = 30
"""Cases of an expert from which the t test holds, as in the paper."""
MIN_ANNOTATORS = 3
METHOD = "partial conjunction of one-sided t of group sums"


@dataclass(frozen=True, slots=True)
class Wins:
    """Per pair of a case and an expert who rated it with others: who is at least as close to those others."""

    rater: IntArray
    group: IntArray
    judge: NDArray[np.bool_]
    expert: NDArray[np.bool_]


def wins(ratings: Ratings, said: IntArray, is_due: NDArray[np.bool_], *, ordered: bool) -> Wins:
    """said: (n_cases,) codes of the judge's labels, -1 where it has no verdict: such a case is never its win.

    is_due: (n_cases,) the cases that it was to answer. Closeness: the share of the others with the same label; with
    ordered labels the root of the mean squared distance of positions, the smaller the closer.
    """
    counts = ratings.counts
    m = counts.sum(1)
    keep = (m[ratings.case] >= 2) & is_due[ratings.case]
    case, rater, label = ratings.case[keep], ratings.rater[keep], ratings.label[keep]
    verdict = said[case]
    # Whole numbers, and both sides over the same others: equal closeness is exactly equal.
    if ordered:
        place = np.arange(ratings.n_labels)
        total, squares = counts @ place, counts @ place**2
        n_others, others, others_squared = m[case] - 1, total[case] - label, squares[case] - label**2

        def distance(x: IntArray) -> IntArray:
            return np.asarray(n_others * x**2 - 2 * x * others + others_squared)

        own, judged = -distance(label), -distance(verdict)
    else:
        own = counts[case, label] - 1
        judged = counts[case, np.maximum(verdict, 0)] - (verdict == label)
    answered = verdict >= 0
    return Wins(rater, ratings.groups[case], answered & (judged >= own), ~answered | (own >= judged))


def alternative_annotator(
    ratings: Ratings,
    said: IntArray,
    is_due: NDArray[np.bool_],
    *,
    ordered: bool,
    level: float,
    epsilon: float = EPSILON,
    q: float = Q,
) -> AlternativeAnnotator | str:
    """The test of one judge, or why it was not made. Arguments as in `wins`; epsilon in [0, 1].

    The winning rate and the advantage probability are in [0, 1]. The test of the result is that of the partial
    conjunction hypothesis, which fewer than half of the experts' hypotheses being false would be: with u the half of m
    experts, rounded up, p = (m - u + 1) p_(u), valid however the experts' tests depend on each other (Benjamini &
    Heller 2008, doi:10.1111/j.1541-0420.2007.00984.x).
    """
    found = wins(ratings, said, is_due, ordered=ordered)
    n_of = np.bincount(found.rater, minlength=len(ratings.raters))
    chosen = [rater for rater in range(len(ratings.raters)) if n_of[rater] >= MIN_CASES]
    if len(chosen) < MIN_ANNOTATORS:
        return (
            f"it needs {MIN_ANNOTATORS} experts with {MIN_CASES} cases each that others rated as well; there are "
            f"{len(chosen)}"
        )
    p, rows = [], []
    for rater in chosen:
        own = found.rater == rater
        loss = found.expert[own].astype(np.float64) - found.judge[own]
        test = mean_is_zero(loss - epsilon, found.group[own])
        # One-sided: small where the expert's lead is clearly below epsilon.
        half = test.p / 2
        p.append(half if loss.mean() < epsilon else 1 - half)
        rows.append((ratings.raters[rater], int(own.sum()), test.n_groups, found.judge[own], found.expert[own]))
    known = np.where(np.isnan(p), 1.0, p)
    from statsmodels.stats.multitest import multipletests

    rejected = multipletests(known, alpha=q, method="fdr_by")[0]
    half_of = math.ceil(len(chosen) / 2)
    joint = min(1.0, (len(chosen) - half_of + 1) * float(np.sort(known)[half_of - 1]))
    return AlternativeAnnotator(
        alignment="root mean square distance of positions" if ordered else "share of equal labels",
        epsilon=epsilon,
        q=q,
        winning_rate=float(rejected.mean()),
        advantage=measured(_advantage(found, chosen, level)),
        annotators=tuple(
            AnnotatorResult(
                rater=name,
                n=n,
                n_groups=n_groups,
                judge_advantage=float(judge.mean()),
                rater_advantage=float(expert.mean()),
                p=one,
                rejected=bool(is_rejected),
            )
            for (name, n, n_groups, judge, expert), one, is_rejected in zip(rows, p, rejected, strict=True)
        ),
        n_left_out=int((n_of > 0).sum()) - len(chosen),
        test=TestResult(p=joint, n_groups=min(row[2] for row in rows), method=METHOD),
    )


def _advantage(found: Wins, chosen: list[int], level: float) -> Estimate:
    """The mean over experts of the share of the judge's wins, with a jackknife over groups."""
    place = {rater: at for at, rater in enumerate(chosen)}
    keep = np.isin(found.rater, chosen)
    column = np.array([place[rater] for rater in found.rater[keep]])
    _, code = np.unique(found.group[keep], return_inverse=True)
    sums = np.zeros((int(code.max()) + 1, 2, len(chosen)))
    for at, values in enumerate((found.judge[keep], np.ones(len(code)))):
        np.add.at(sums[:, at], (code, column), values)

    def rho(s: FloatArray) -> dict[str, FloatArray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"rho": np.asarray((s[..., 0, :] / s[..., 1, :]).mean(-1))}

    value = float(rho(sums.sum(0))["rho"])
    low, high = jackknife_interval(value, leave_one_out(sums, rho)["rho"], level, 0.0)
    return Estimate(value, low, high, int(keep.sum()), JACKKNIFE)
