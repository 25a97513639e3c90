"""Several experts per case: how far they agree, and what a judge is worth beside one of them.

The human ceiling is each expert against the majority of the other experts, and a judge is measured against the very
same majorities: rows are pairs of a case and the expert left out. A pair whose others have no majority is left out for
experts and judges alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.agreement import estimates_of, statistics_from_counts
from medjudge.metrics.alternative_annotator import alternative_annotator
from medjudge.metrics.classification import Outcomes, due_cases, group_counts
from medjudge.metrics.comparison import DIFFERENCE, difference_interval
from medjudge.metrics.expert_results import (
    AlternativeAnnotator,
    BesideOthers,
    ExpertsResult,
    JudgeBesideExperts,
    RaterPairResult,
    SliceDisagreement,
)
from medjudge.metrics.group_tests import mean_is_zero, sign_flips
from medjudge.metrics.intervals import clustered_wilson, leave_one_out
from medjudge.metrics.metric_result import MetricResult, TestResult, measured
from medjudge.metrics.rater_agreement import MOST_RATERS, IntArray, Ratings, rater_agreement
from medjudge.records import Case, Judgement, Verdict
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.scale import LabelScale

BESIDE = ("accuracy", "tpr", "tnr", "kappa", "kappa_quadratic", "gwet_ac1")
"""Statistics of judges and experts against the majority of the others, as far as the task has them."""
PAIR = ("accuracy_on_schema", "kappa", "kappa_quadratic")
MOST_SHOWN = 30
"""Experts, and values of a slice, with numbers of their own: those with most ratings."""


@dataclass(frozen=True, slots=True)
class _Sampling:
    level: float
    n_resamples: int
    seed: int

    def interval(self) -> dict[str, Any]:
        # A new `rng` each time: what else is measured changes no number.
        return {"level": self.level, "n_resamples": self.n_resamples, "rng": np.random.default_rng(self.seed)}


@dataclass(frozen=True, slots=True)
class _Left:
    """Pairs of a case and the expert left out, where the others have a majority: (n,) arrays."""

    case: IntArray
    rater: IntArray
    label: IntArray
    """What the expert left out said."""
    majority: IntArray
    n_undecided: int


def experts_result(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    contract: TaskContract | LabelScale,
    slices: Sequence[str] = (),
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 42,
) -> ExpertsResult | None:
    """Everything that several ratings per case allow; None where no case has two.

    judgements: judge -> its answers, to any of the cases. A judge without a verdict on a case that it was to answer
    (`classification.due_cases`) is wrong there. slices: names of `Case.slices` for the tables of disagreement.
    """
    rated = [case for case in cases if len(case.ratings) >= 2]
    if not rated:
        return None
    place = {label: code for code, label in enumerate(contract.labels)}
    ratings = code_ratings(rated, contract.labels)
    sampling, scale = _Sampling(level, n_resamples, seed), _Scale(contract)
    left = _leave_one_out_majority(ratings)
    ids = {case.case_id for case in rated}
    due = due_cases(ids, {name: {one.case_id for one in answers} for name, answers in judgements.items()})
    judges: dict[str, JudgeBesideExperts] = {}
    alternative: dict[str, AlternativeAnnotator] = {}
    not_tested: dict[str, str] = {}
    for name, answers in judgements.items():
        verdicts = {one.case_id: place[one.label] for one in answers if isinstance(one, Verdict)}
        said = np.array([verdicts.get(case.case_id, -1) for case in rated], dtype=np.int64)
        is_due = np.array([case.case_id in due[name] for case in rated], dtype=bool)
        if is_due[left.case].any():
            judges[name] = _judge(said, is_due, ratings, left, scale, sampling)
        test = alternative_annotator(ratings, said, is_due, ordered=contract.ordered, level=level)
        if isinstance(test, str):
            not_tested[name] = test
        else:
            alternative[name] = test
    commonest = [rater for rater, _ in Counter(left.rater.tolist()).most_common(MOST_SHOWN)]
    return ExpertsResult(
        n_cases=len(rated),
        n_ratings=len(ratings.case),
        n_raters=len(ratings.raters),
        n_tied=sum(case.gold is None for case in rated),
        n_undecided=left.n_undecided,
        agreement={
            name: measured(estimate)
            for name, estimate in rater_agreement(ratings, ordered=contract.ordered, **sampling.interval()).items()
        },
        pairs=_pairs(ratings, scale, sampling),
        ceiling=_beside(left.label, left, np.ones(len(left.case), bool), ratings, scale, sampling)
        if len(left.case)
        else None,
        raters={
            ratings.raters[rater]: _beside(left.label, left, left.rater == rater, ratings, scale, sampling)
            for rater in sorted(commonest)
        },
        judges=judges,
        alternative=alternative,
        not_tested=not_tested,
        slices=_slices(rated, ratings, contract, slices, level),
    )


class _Scale:
    """Of the labels, what outcomes need."""

    def __init__(self, contract: TaskContract | LabelScale) -> None:
        self.labels, self.ordered = contract.labels, contract.ordered
        self.positive = None if contract.positive is None else contract.labels.index(contract.positive)


def code_ratings(cases: Sequence[Case], labels: Sequence[str]) -> Ratings:
    """Every rating of the cases as codes; raters in the order in which they are met."""
    place, raters, groups = {label: code for code, label in enumerate(labels)}, dict[str, int](), dict[str, int]()
    rows = [
        (at, raters.setdefault(rater, len(raters)), place[label])
        for at, case in enumerate(cases)
        for rater, label in case.ratings.items()
    ]
    case, rater, label = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    # A group may be named as a case is: the two are told apart.
    named = [f"group {one.group}" if one.group else f"case {one.case_id}" for one in cases]
    group = np.array([groups.setdefault(name, len(groups)) for name in named], dtype=np.int64)
    return Ratings(case, rater, label, group, tuple(raters), len(labels))


def _leave_one_out_majority(ratings: Ratings) -> _Left:
    counts = ratings.counts
    others = counts[ratings.case].copy()
    others[np.arange(len(others)), ratings.label] -= 1
    most = others.max(1)
    decided = (most > 0) & ((others == most[:, None]).sum(1) == 1)
    return _Left(
        ratings.case[decided],
        ratings.rater[decided],
        ratings.label[decided],
        others[decided].argmax(1),
        int((~decided).sum()),
    )


def _outcomes(gold: IntArray, predicted: IntArray, groups: IntArray, ids: Sequence[str], scale: _Scale) -> Outcomes:
    """predicted: codes, -1 without a verdict."""
    k = len(scale.labels)
    codes, group = np.unique(groups, return_inverse=True)
    return Outcomes(
        labels=scale.labels,
        case_ids=tuple(ids),
        gold=gold,
        predicted=np.where(predicted < 0, k + 1, predicted),
        groups=group.astype(np.int64),
        n_groups=len(codes),
        positive=scale.positive,
        ordered=scale.ordered,
    )


def _measured(outcomes: Outcomes, names: Sequence[str], sampling: _Sampling) -> dict[str, MetricResult]:
    counts = group_counts(outcomes).sum(0)
    values = statistics_from_counts(counts, positive=outcomes.positive, ordered=outcomes.ordered, names=names)
    estimates = estimates_of(outcomes, {name: float(value) for name, value in values.items()}, **sampling.interval())
    return {name: measured(estimate) for name, estimate in estimates.items()}


def _beside(
    predicted: IntArray,
    left: _Left,
    rows: NDArray[np.bool_],
    ratings: Ratings,
    scale: _Scale,
    sampling: _Sampling,
) -> BesideOthers:
    case = left.case[rows]
    ids = [f"{one} {rater}" for one, rater in zip(case.tolist(), left.rater[rows].tolist(), strict=True)]
    outcomes = _outcomes(left.majority[rows], predicted[rows], ratings.groups[case], ids, scale)
    return BesideOthers(n=len(case), n_cases=len(np.unique(case)), statistics=_measured(outcomes, BESIDE, sampling))


def _judge(
    said: IntArray,
    is_due: NDArray[np.bool_],
    ratings: Ratings,
    left: _Left,
    scale: _Scale,
    sampling: _Sampling,
) -> JudgeBesideExperts:
    rows = is_due[left.case]
    own = _beside(said[left.case], left, rows, ratings, scale, sampling)
    groups = ratings.groups[left.case[rows]]
    right = (said[left.case] == left.majority)[rows]
    expert_right = (left.label == left.majority)[rows]
    return JudgeBesideExperts(
        n=own.n,
        n_cases=own.n_cases,
        statistics=own.statistics,
        ceiling=measured(clustered_wilson(expert_right, groups, level=sampling.level)),
        difference=_difference(right.astype(np.int64) - expert_right, groups, sampling.level),
        test=_no_difference(right.astype(np.int64) - expert_right, groups),
    )


def _difference(values: IntArray, groups: IntArray, level: float) -> MetricResult:
    """The mean in points, with a jackknife over groups."""
    _, code = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(code, weights=values), np.bincount(code).astype(np.float64)], axis=1)
    mean = float(values.mean())
    low = high = float("nan")
    if len(sums) > 1:
        without = leave_one_out(sums, lambda s: {"mean": s[..., 0] / s[..., 1]})["mean"]
        low, high = difference_interval(mean, without, level)
    return MetricResult(
        value=100 * mean,
        low=100 * max(low, -1.0) if low == low else low,
        high=100 * min(high, 1.0) if high == high else high,
        n=len(values),
        method=DIFFERENCE,
    )


def _no_difference(values: IntArray, groups: IntArray) -> TestResult:
    """Whether the mean is zero: the larger p of sign flips of groups and Student's t of their sums.

    One judge stands beside several experts, so that a group's sum is not symmetric around zero as sign flips want it;
    and with few groups that differ t alone rejects too often.
    """
    flips, student = sign_flips(values, groups), mean_is_zero(values, groups)
    method = f"{flips.method}, and {student.method}"
    return TestResult(p=max(flips.p, student.p), n_groups=flips.n_groups, method=method)


def _pairs(ratings: Ratings, scale: _Scale, sampling: _Sampling) -> tuple[RaterPairResult, ...]:
    if len(ratings.raters) > MOST_RATERS:
        return ()
    table = ratings.table()
    pairs = []
    for a, b in combinations(range(len(ratings.raters)), 2):
        both = np.flatnonzero((table[:, a] >= 0) & (table[:, b] >= 0))
        if len(both):
            ids = [str(case) for case in both.tolist()]
            outcomes = _outcomes(table[both, a], table[both, b], ratings.groups[both], ids, scale)
            names = (ratings.raters[a], ratings.raters[b])
            statistics = _measured(outcomes, PAIR, sampling)
            pairs.append(RaterPairResult(a=names[0], b=names[1], n=len(both), statistics=statistics))
    return tuple(pairs)


def _slices(
    cases: Sequence[Case], ratings: Ratings, contract: TaskContract | LabelScale, names: Sequence[str], level: float
) -> dict[str, tuple[SliceDisagreement, ...]]:
    """Disagreement and share of positive ratings of all cases, and of each value of a slice, commonest first."""
    differs = (ratings.counts > 0).sum(1) > 1
    positive = None if contract.positive is None else ratings.label == contract.labels.index(contract.positive)

    def row(value: str, of: NDArray[np.bool_]) -> SliceDisagreement:
        share = None
        if positive is not None:
            own = of[ratings.case]
            share = measured(clustered_wilson(positive[own], ratings.groups[ratings.case[own]], level=level))
        return SliceDisagreement(
            value=value,
            n=int(of.sum()),
            disagreement=measured(clustered_wilson(differs[of], ratings.groups[of], level=level)),
            positive=share,
        )

    found: dict[str, tuple[SliceDisagreement, ...]] = {"all": (row("all cases", np.ones(len(cases), dtype=bool)),)}
    for name in dict.fromkeys(("generator", *names)):
        values = np.array([case.slices.get(name, "") for case in cases], dtype=object)
        commonest = [value for value, _ in Counter(value for value in values if value).most_common(MOST_SHOWN)]
        if len(commonest) > 1:
            found[name] = tuple(row(value, np.asarray(values == value, dtype=bool)) for value in commonest)
    return found
