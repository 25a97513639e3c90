"""The whole analysis of judges against experts, as one value: what `score` and `evaluate` both write and show.

Agreement with intervals, what the rows could show at all, generators, calibration, comparisons corrected for their
number, and the true pass rate behind a judged one. What a judge's rows do not have (a confidence, a generator, unrated
cases) leaves its part out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.by_generator import generator_table, heterogeneity, rate_heterogeneity, self_preference
from medjudge.metrics.calibration import calibration_measures
from medjudge.metrics.claims import ANSWERED, PREVALENCE
from medjudge.metrics.classification import Outcomes, take
from medjudge.metrics.comparison import power_against_chance
from medjudge.metrics.correction import gold_rate, prediction_powered_rate, rogan_gladen
from medjudge.metrics.estimates import MAX_AGREEMENT_RESAMPLES, JudgeEstimates
from medjudge.metrics.group_tests import miscalibration, right_as_stated
from medjudge.metrics.intervals import clustered_wilson, design_effect
from medjudge.metrics.judge_pairs import compare_all
from medjudge.metrics.metric_result import MetricResult, measured, tested
from medjudge.metrics.reliability import bin_codes
from medjudge.metrics.result_types import (
    Audit,
    CalibrationResult,
    CorrectionResult,
    HeterogeneityResult,
    JudgeAudit,
    PowerResult,
    SelectiveResult,
)
from medjudge.metrics.selective import (
    SelectiveRule,
    abstention_rates,
    risk_control_threshold,
    risk_coverage,
    selective_threshold,
)

FloatArray = NDArray[np.float64]

N_CURVE_POINTS = 100
"""Points of a risk-coverage curve that are kept for the picture."""
N_HISTOGRAM_BINS = 10
N_BINS = 10
"""Equal-mass bins in which a judge's calibration is tested: those of its ECE."""
_CONFIDENCE_DIGITS = 6
"""Confidences that agree so far are one."""
MAX_ERRORS = (0.05, 0.1, 0.2)
"""Wanted error rates for which a threshold is looked for."""
MAX_SLICE_VALUES = 30
"""Rows of a slice's table."""


@dataclass(frozen=True, slots=True)
class JudgeRows:
    """One judge's answers with what else is known of each row."""

    outcomes: Outcomes
    generators: Sequence[str]
    """(n,) who wrote what was judged; "" where unknown."""
    confidence: FloatArray
    """(n,) in [0, 1]; nan where the judge gave none."""
    unrated: Sequence[str | None] = ()
    """Its labels for cases that no expert rated; None where it could not be read."""
    unrated_groups: Sequence[str] = ()
    rated_groups: Sequence[str] = ()
    """(n,) the groups of `outcomes` by the names of `unrated_groups`; without them, the two are taken to share none."""
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name of a slice -> (n,) its value on each row; "" where unknown."""


@dataclass(frozen=True, slots=True)
class _Sampling:
    """How intervals of one judge are made; `rng` is drawn from part by part, in one order."""

    level: float
    n_resamples: int
    rng: np.random.Generator


def audit_judges(
    judges: Mapping[str, JudgeRows],
    estimates: Mapping[str, JudgeEstimates],
    baselines: Mapping[str, Outcomes] | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 42,
    families: Mapping[str, str] | None = None,
) -> Audit:
    """The analysis of judges that were coded from the same cases. Every draw comes from `seed`.

    What it says in words, and p corrected for all tests of a page, `summary.with_claims` adds when the page is
    complete.
    estimates: judge or baseline -> its numbers (`estimates.judge_estimates`). baselines: get the agreement statistics
    only. families: judge or generator -> family. Raises DataError for a judge without a row.
    """

    def sampling() -> _Sampling:  # a fresh `rng` for each judge: its draws do not depend on who else is measured
        return _Sampling(level, min(n_resamples, MAX_AGREEMENT_RESAMPLES), np.random.default_rng(seed))

    audited = {name: _audit(name, rows, estimates[name], families or {}, sampling()) for name, rows in judges.items()}
    for name, outcomes in (baselines or {}).items():
        audited[name] = JudgeAudit(statistics=estimates[name].statistics, power=_power(outcomes))
    pairs = compare_all({name: rows.outcomes for name, rows in judges.items()}, level=level, seed=seed)
    return Audit(judges=audited, pairs=pairs, n_tests=0)


def _audit(
    name: str,
    rows: JudgeRows,
    estimates: JudgeEstimates,
    families: Mapping[str, str],
    sampling: _Sampling,
) -> JudgeAudit:
    outcomes, generators = rows.outcomes, rows.generators
    how: dict[str, Any] = {"level": sampling.level, "n_resamples": sampling.n_resamples, "rng": sampling.rng}
    n_generators = len(set(generators) - {""})
    # One `rng` serves all parts: their order, which is that of the calls here, is part of the stored numbers.
    preference = None
    if outcomes.positive is not None and name in families:
        preference = self_preference(outcomes, generators, families, families[name], **how)
    return JudgeAudit(
        statistics=estimates.statistics,
        power=_power(outcomes),
        generators=tuple(generator_table(outcomes, generators, **how)) if n_generators else (),
        heterogeneity=_heterogeneity(outcomes, generators, sampling.rng) if n_generators > 1 else (),
        self_preference=preference,
        calibration=_calibration(rows, sampling),
        correction=_correction(rows, sampling),
        slices={
            slice_name: tuple(generator_table(outcomes, _commonest(values), **how))
            for slice_name, values in rows.slices.items()
        },
    )


def _power(outcomes: Outcomes) -> PowerResult:
    return power_against_chance(
        len(outcomes.gold),
        1 / len(outcomes.labels),
        design_effect=design_effect(outcomes.correct, outcomes.groups),
    )


def _commonest(values: Sequence[str]) -> list[str]:
    """The values with all but the `MAX_SLICE_VALUES` commonest put together."""
    counts = Counter(value for value in values if value)
    if len(counts) <= MAX_SLICE_VALUES:
        return list(values)
    kept = {value for value, _ in counts.most_common(MAX_SLICE_VALUES - 1)}
    rest = f"{len(counts) - len(kept):,} others"
    return [value if not value or value in kept else rest for value in values]


def _heterogeneity(
    outcomes: Outcomes, generators: Sequence[str], rng: np.random.Generator
) -> tuple[HeterogeneityResult, ...]:
    """The tests over answered cases, beside one of the share answered: no verdict is no wrong judgement."""
    tests = heterogeneity(outcomes, generators, rng=rng)
    if outcomes.parsed.all():
        return tuple(tests)
    names, read = np.asarray(generators, dtype=str), np.flatnonzero(outcomes.parsed)
    named = np.flatnonzero(names != "")
    answered = rate_heterogeneity(
        outcomes.parsed[named], names[named].tolist(), outcomes.groups[named], outcome=ANSWERED, rng=rng
    )
    on_answered = heterogeneity(take(outcomes, read), names[read].tolist(), rng=rng)
    return (
        # Of gold labels alone: whether the judge answered changes nothing about them.
        *(test for test in tests if test.outcome == PREVALENCE),
        answered,
        *(test.model_copy(update={"answered_only": True}) for test in on_answered if test.outcome != PREVALENCE),
    )


def _calibration(rows: JudgeRows, sampling: _Sampling) -> CalibrationResult | None:
    """The calibration of the readable verdicts that have a confidence; None where none has."""
    read = rows.outcomes.parsed
    confidence, correct, groups = rows.confidence[read], rows.outcomes.correct[read], rows.outcomes.groups[read]
    has_confidence = ~np.isnan(confidence)
    if not has_confidence.any():
        return None
    measures = calibration_measures(
        confidence, correct, groups, level=sampling.level, n_resamples=sampling.n_resamples, rng=sampling.rng
    )
    stated, right, group = confidence[has_confidence], correct[has_confidence], groups[has_confidence]
    varies = len(np.unique(stated.round(_CONFIDENCE_DIGITS))) > 1
    rules = _rules(confidence, correct, groups, sampling.rng) if varies else []
    ece = None
    if varies:
        ece = miscalibration(bin_codes(stated, N_BINS, "mass"), right, stated, group, rng=sampling.rng)
    curve = risk_coverage(stated, right)
    shown = np.unique(np.linspace(0, len(curve.coverage) - 1, N_CURVE_POINTS).round().astype(int))
    edges = np.linspace(0, 1, N_HISTOGRAM_BINS + 1)
    # Where it could be tested, the p that counts groups takes the place of the one that takes rows as independent.
    known = dict(measures) if ece is None else {**dict(measures), "calibrated_p": ece.p}
    return CalibrationResult(
        **known,
        coverage=tuple(map(float, curve.coverage[shown])),
        risk=tuple(map(float, curve.risk[shown])),
        n_right=tuple(map(int, np.histogram(stated[right], edges)[0])),
        n_wrong=tuple(map(int, np.histogram(stated[~right], edges)[0])),
        selective=tuple(
            SelectiveResult.model_validate(rule).model_copy(
                update={"abstention": _abstention(rule, rows, sampling.level)}
            )
            for rule in rules
        ),
        varies=varies,
        ece_test=None if ece is None else tested(ece),
        direction_test=tested(right_as_stated(right, stated, group)),
    )


def _rules(
    confidence: FloatArray, correct: NDArray[np.bool_], groups: NDArray[np.int64], rng: np.random.Generator
) -> list[SelectiveRule]:
    """A threshold of either promise for every wanted error rate."""
    tested_rules = [
        selective_threshold(confidence, correct, max_error=max_error, groups=groups, rng=rng)
        for max_error in MAX_ERRORS
    ]
    return tested_rules + [
        risk_control_threshold(confidence, correct, max_error=max_error, groups=groups) for max_error in MAX_ERRORS
    ]


def _abstention(rule: SelectiveRule, rows: JudgeRows, level: float) -> dict[str, dict[str, MetricResult]]:
    """Who waits for a person under a rule. What could not be read waits too."""
    if rule.threshold is None:
        return {}
    outcomes = rows.outcomes
    accepted = rule.accepts(np.where(outcomes.parsed, rows.confidence, np.nan))
    by = {"gold label": [outcomes.labels[code] for code in outcomes.gold]}
    if len(set(rows.generators) - {""}) > 1:
        by["generator"] = list(rows.generators)
    return {
        kind: {
            value: measured(share)
            for value, share in abstention_rates(accepted, values, outcomes.groups, level=level).items()
            if value
        }
        for kind, values in by.items()
    }


def _correction(rows: JudgeRows, sampling: _Sampling) -> CorrectionResult | None:
    """The true positive rate of the unrated cases; None without any, or without a positive label."""
    outcomes = rows.outcomes
    if outcomes.positive is None or not rows.unrated:
        return None
    judged = np.array([label == outcomes.labels[outcomes.positive] for label in rows.unrated])
    labelled, gold = outcomes.predicted == outcomes.positive, outcomes.gold == outcomes.positive
    rated = [f"group {name}" for name in rows.rated_groups] or [f"code {code}" for code in outcomes.groups.tolist()]
    # A question with rated and unrated answers is one group on both sides.
    names, code = np.unique([*rated, *(f"group {name}" for name in rows.unrated_groups)], return_inverse=True)
    # Where every row is a group of its own the estimators need no groups.
    alone = len(names) == len(gold) + len(judged)
    old, new = (None, None) if alone else (code[: len(gold)], code[len(gold) :])
    return CorrectionResult(
        n_unrated=len(judged),
        n_rated=len(gold),
        judged=measured(clustered_wilson(judged, new, level=sampling.level)),
        gold=measured(gold_rate(gold, old, level=sampling.level)),
        rogan_gladen=measured(
            rogan_gladen(
                judged,
                labelled,
                gold,
                groups=new,
                labelled_groups=old,
                level=sampling.level,
                n_resamples=sampling.n_resamples,
                rng=sampling.rng,
            )
        ),
        prediction_powered=measured(
            prediction_powered_rate(judged, labelled, gold, groups=new, labelled_groups=old, level=sampling.level)
        ),
    )
