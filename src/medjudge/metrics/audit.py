"""The whole analysis of judges against experts, as one value: what `score` and `evaluate` both write and show.

Agreement with intervals, what the rows could show at all, generators, calibration, comparisons corrected for their
number, and the true pass rate behind a judged one. What a judge's rows do not have (a confidence, a generator, unrated
cases) leaves its part out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics import findings
from medjudge.metrics.agreement import agreement_estimates
from medjudge.metrics.calibration import (
    CalibrationReport,
    SelectiveRule,
    abstention_rates,
    calibration_report,
    risk_control_threshold,
    risk_coverage,
    selective_threshold,
)
from medjudge.metrics.classification import Outcomes
from medjudge.metrics.comparison import (
    Power,
    adjust_p,
    mcnemar,
    pair,
    paired_permutation,
    paired_statistics,
    power_against_chance,
    power_of_pair,
)
from medjudge.metrics.correction import gold_rate, prediction_powered_rate, rogan_gladen
from medjudge.metrics.generators import (
    GeneratorRow,
    Heterogeneity,
    SelfPreference,
    generator_table,
    heterogeneity,
    self_preference,
)
from medjudge.metrics.intervals import clustered_wilson, design_effect
from medjudge.metrics.measured import Frozen, MetricResult, finite, measured
from medjudge.metrics.unpaired import share_cases

FloatArray = NDArray[np.float64]

MAX_ALL_PAIRS = 5
"""Judges of which all pairs are compared; of more, each is compared with the first."""
N_PERMUTATIONS = 9999
N_CURVE_POINTS = 100
"""Points of a risk-coverage curve that are kept for the picture."""
N_HISTOGRAM_BINS = 10
MAX_ERRORS = (0.05, 0.1, 0.2)
"""Wanted error rates for which a threshold is looked for."""


@dataclass(frozen=True, slots=True)
class JudgeRows:
    """One judge's answers with what stands beside them."""

    outcomes: Outcomes
    generators: Sequence[str]
    """(n,) who wrote what was judged; "" where unknown."""
    confidence: FloatArray
    """(n,) in [0, 1]; nan where the judge gave none."""
    unrated: Sequence[str | None] = ()
    """Its labels for cases that no expert rated; None where it could not be read."""
    unrated_groups: Sequence[str] = ()


class PowerResult(Frozen):
    """What the rows could show; proportions."""

    n: int
    design_effect: float
    effect: float
    minimum_detectable: float | None
    rows_needed: int | None
    power: float
    alpha: float


class GeneratorResult(Frozen):
    """One generator's rows."""

    generator: str
    n: int
    n_groups: int
    n_unparsed: int
    prevalence: MetricResult | None
    positive_rate: MetricResult | None
    always_positive_f1: float | None
    statistics: dict[str, MetricResult]
    minimum_detectable: float | None


class HeterogeneityResult(Frozen):
    """Whether a rate differs between generators by more than chance."""

    outcome: str
    statistic: float
    df: int
    p: float
    method: str
    n: int
    rates: dict[str, float]
    sd: float
    """Standard deviation of the rates across generators."""
    sampling_sd: float
    """What sampling alone would give."""
    excess_sd: float


class SelfPreferenceResult(Frozen):
    """Own family less others."""

    family: str
    n_own: int
    n_other: int
    positive_rate_error: MetricResult
    false_positive_rate: MetricResult


class BinResult(Frozen):
    """One bin of a reliability diagram."""

    confidence: float
    accuracy: float
    low: float | None
    high: float | None
    n: int


class SelectiveResult(Frozen):
    """A threshold for a wanted error rate; `threshold` None where none keeps the promise."""

    max_error: float
    threshold: float | None
    coverage: float
    error: float | None
    n: int
    promise: str
    method: str = "learn-then-test"
    abstention: dict[str, dict[str, MetricResult]] = {}  # noqa: RUF012  (pydantic copies it)
    """`gold label`, `generator` -> value -> share of its verdicts that go to a person; empty without a threshold."""


class CalibrationResult(Frozen):
    """One judge's confidences against what was right."""

    n: int
    n_without: int
    mean_confidence: float
    accuracy: float
    ece: float
    ece_if_calibrated: float
    calibrated_p: float
    rms_error: float
    brier: MetricResult
    brier_parts: dict[str, float]
    log_loss: MetricResult
    aurc: MetricResult
    excess_aurc: float
    bins: tuple[BinResult, ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    """Selective error at each of `coverage`."""
    n_right: tuple[int, ...]
    n_wrong: tuple[int, ...]
    """Right and wrong verdicts in ten equal ranges of confidence."""
    selective: tuple[SelectiveResult, ...]


class CorrectionResult(Frozen):
    """The pass rate on cases that no expert rated, from a judge that errs in known ways."""

    n_unrated: int
    n_rated: int
    judged: MetricResult
    """Share that the judge calls positive on the unrated cases, as it stands."""
    gold: MetricResult
    """Share positive on the rated cases alone."""
    rogan_gladen: MetricResult
    prediction_powered: MetricResult


class JudgeAudit(Frozen):
    """One judge or baseline."""

    statistics: dict[str, MetricResult]
    power: PowerResult
    generators: tuple[GeneratorResult, ...] = ()
    heterogeneity: tuple[HeterogeneityResult, ...] = ()
    self_preference: SelfPreferenceResult | None = None
    calibration: CalibrationResult | None = None
    correction: CorrectionResult | None = None


class PermutationResult(Frozen):
    """A paired permutation test of one statistic; `adjusted_p` by Holm over the family."""

    difference: MetricResult
    p: float | None
    adjusted_p: float | None


class PairResult(Frozen):
    """Two judges on the cases that both answered."""

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    p: float
    method: str
    adjusted_p: float
    """McNemar's p, by Holm over the family of accuracy tests."""
    tests: dict[str, PermutationResult]
    power: PowerResult


class Audit(Frozen):
    """Everything beyond the table of metrics."""

    judges: dict[str, JudgeAudit]
    """Judges first, then baselines."""
    pairs: tuple[PairResult, ...]
    n_tests: int
    """Tests of accuracy in the family that Holm's method corrects for: these pairs, and in an evaluation every other
    comparison that it makes."""
    n_statistic_tests: int = 0
    """Permutation tests of other statistics: a family of their own."""
    statements: tuple[str, ...] = ()
    about: tuple[tuple[str, ...], ...] = ()
    """The judges that each statement speaks of; none where it speaks of the rows alone."""


def audit_judges(
    judges: Mapping[str, JudgeRows],
    baselines: Mapping[str, Outcomes] | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 42,
    families: Mapping[str, str] | None = None,
) -> Audit:
    """The analysis of judges that were coded from the same cases. Every draw comes from `seed`.

    baselines: get the agreement statistics only. families: judge or generator -> family.
    Raises DataError for a judge without a row.
    """
    audited = {
        name: _audit(name, rows, level=level, n_resamples=n_resamples, seed=seed, families=families or {})
        for name, rows in judges.items()
    }
    audited |= {
        name: JudgeAudit(
            statistics=_statistics(outcomes, level, n_resamples, seed), power=_power_result(_power(outcomes))
        )
        for name, outcomes in (baselines or {}).items()
    }
    pairs = _pairs({name: rows.outcomes for name, rows in judges.items()}, level, n_resamples, seed)
    n_statistic_tests = sum(test.p is not None for one in pairs for test in one.tests.values())
    audit = Audit(judges=audited, pairs=pairs, n_tests=len(pairs), n_statistic_tests=n_statistic_tests)
    chance = {name: 1 / len(rows.outcomes.labels) for name, rows in judges.items()}
    found = findings.of_audit(audit, chance, level)
    return audit.model_copy(
        update={"statements": tuple(one.text for one in found), "about": tuple(one.about for one in found)}
    )


def _audit(
    name: str, rows: JudgeRows, *, level: float, n_resamples: int, seed: int, families: Mapping[str, str]
) -> JudgeAudit:
    outcomes = rows.outcomes
    rng = np.random.default_rng(seed)
    named = sum(generator != "" for generator in set(rows.generators))
    preference = None
    if outcomes.positive is not None and name in families:
        preference = self_preference(
            outcomes, rows.generators, families, families[name], level=level, n_resamples=n_resamples, rng=rng
        )
    return JudgeAudit(
        statistics=_statistics(outcomes, level, n_resamples, seed),
        power=_power_result(_power(outcomes)),
        generators=tuple(
            _generator_result(row)
            for row in (
                generator_table(outcomes, rows.generators, level=level, n_resamples=n_resamples, rng=rng)
                if named
                else []
            )
        ),
        heterogeneity=tuple(
            _heterogeneity_result(found)
            for found in (heterogeneity(outcomes, rows.generators, rng=rng) if named > 1 else [])
        ),
        self_preference=None if preference is None else _preference_result(preference),
        calibration=_calibration(rows, level=level, n_resamples=n_resamples, rng=rng),
        correction=_correction(rows, level=level, n_resamples=n_resamples, rng=rng),
    )


def _statistics(outcomes: Outcomes, level: float, n_resamples: int, seed: int) -> dict[str, MetricResult]:
    # A fresh generator per judge: all see the same resamples, whatever else stands in the table.
    rng = np.random.default_rng(seed)
    found = agreement_estimates(outcomes, level=level, n_resamples=n_resamples, rng=rng)
    return {name: measured(estimate) for name, estimate in found.items()}


def _power(outcomes: Outcomes) -> Power:
    return power_against_chance(
        int(outcomes.correct.sum()),
        len(outcomes.gold),
        1 / len(outcomes.labels),
        design_effect=design_effect(outcomes.correct, outcomes.groups),
    )


def _power_result(power: Power) -> PowerResult:
    return PowerResult(**{**asdict(power), "minimum_detectable": finite(power.minimum_detectable)})


def _generator_result(row: GeneratorRow) -> GeneratorResult:
    return GeneratorResult(
        generator=row.generator,
        n=row.n,
        n_groups=row.n_groups,
        n_unparsed=row.n_unparsed,
        prevalence=None if row.prevalence is None else measured(row.prevalence),
        positive_rate=None if row.positive_rate is None else measured(row.positive_rate),
        always_positive_f1=finite(row.always_positive_f1),
        statistics={name: measured(estimate) for name, estimate in row.statistics.items()},
        minimum_detectable=finite(row.minimum_detectable),
    )


def _heterogeneity_result(found: Heterogeneity) -> HeterogeneityResult:
    return HeterogeneityResult(
        outcome=found.outcome,
        statistic=found.statistic,
        df=found.df,
        p=found.p,
        method=found.method,
        n=found.n,
        rates=found.rates,
        sd=found.variance**0.5,
        sampling_sd=max(found.sampling_variance, 0.0) ** 0.5,
        excess_sd=found.excess_sd,
    )


def _preference_result(found: SelfPreference) -> SelfPreferenceResult:
    return SelfPreferenceResult(
        family=found.family,
        n_own=found.n_own,
        n_other=found.n_other,
        positive_rate_error=measured(found.positive_rate_error),
        false_positive_rate=measured(found.false_positive_rate),
    )


def _calibration(
    rows: JudgeRows, *, level: float, n_resamples: int, rng: np.random.Generator
) -> CalibrationResult | None:
    """The calibration of the readable verdicts that have a confidence; None where none has."""
    read = rows.outcomes.parsed
    confidence, correct, groups = rows.confidence[read], rows.outcomes.correct[read], rows.outcomes.groups[read]
    stated = ~np.isnan(confidence)
    if not stated.any():
        return None
    found = calibration_report(confidence, correct, groups, level=level, n_resamples=n_resamples, rng=rng)
    curve = risk_coverage(confidence[stated], correct[stated])
    shown = np.unique(np.linspace(0, len(curve.coverage) - 1, N_CURVE_POINTS).round().astype(int))
    edges = np.linspace(0, 1, N_HISTOGRAM_BINS + 1)
    rules = [
        selective_threshold(confidence, correct, max_error=max_error, groups=groups, rng=rng)
        for max_error in MAX_ERRORS
    ]
    rules += [
        risk_control_threshold(confidence, correct, max_error=max_error, groups=groups) for max_error in MAX_ERRORS
    ]
    return _calibration_result(
        found,
        coverage=curve.coverage[shown],
        risk=curve.risk[shown],
        n_right=np.histogram(confidence[stated & correct], edges)[0],
        n_wrong=np.histogram(confidence[stated & ~correct], edges)[0],
        rules=rules,
        abstention=[_abstention(rule, rows, level) for rule in rules],
    )


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


def _correction(
    rows: JudgeRows, *, level: float, n_resamples: int, rng: np.random.Generator
) -> CorrectionResult | None:
    """The true positive rate of the unrated cases; None without any, or without a positive label."""
    outcomes = rows.outcomes
    if outcomes.positive is None or not rows.unrated:
        return None
    said = np.array([label == outcomes.labels[outcomes.positive] for label in rows.unrated])
    labelled, gold = outcomes.predicted == outcomes.positive, outcomes.gold == outcomes.positive
    # Alone is each row in a group of its own on both sides; the estimators then need no groups.
    alone = len(set(outcomes.groups.tolist())) == len(gold) and len(set(rows.unrated_groups)) == len(said)
    new = None if alone else np.unique(np.asarray(rows.unrated_groups, dtype=str), return_inverse=True)[1]
    old = None if alone else outcomes.groups
    return CorrectionResult(
        n_unrated=len(said),
        n_rated=len(gold),
        judged=measured(clustered_wilson(said, new, level=level)),
        gold=measured(gold_rate(gold, old, level=level)),
        rogan_gladen=measured(
            rogan_gladen(
                said,
                labelled,
                gold,
                groups=new,
                labelled_groups=old,
                level=level,
                n_resamples=n_resamples,
                rng=rng,
            )
        ),
        prediction_powered=measured(
            prediction_powered_rate(said, labelled, gold, groups=new, labelled_groups=old, level=level)
        ),
    )


def _calibration_result(
    found: CalibrationReport,
    *,
    coverage: FloatArray,
    risk: FloatArray,
    n_right: NDArray[np.int64],
    n_wrong: NDArray[np.int64],
    rules: Sequence[SelectiveRule],
    abstention: Sequence[dict[str, dict[str, MetricResult]]],
) -> CalibrationResult:
    curve = found.reliability
    bins = zip(curve.mean_confidence, curve.accuracy, curve.low, curve.high, curve.n, strict=True)
    return CalibrationResult(
        n=found.n,
        n_without=found.n_without,
        mean_confidence=found.mean_confidence,
        accuracy=found.accuracy,
        ece=found.ece,
        ece_if_calibrated=found.ece_if_calibrated,
        calibrated_p=found.calibrated_p,
        rms_error=found.rms_error,
        brier=measured(found.brier),
        brier_parts=asdict(found.brier_parts),
        log_loss=measured(found.log_loss),
        aurc=measured(found.aurc),
        excess_aurc=found.excess_aurc,
        bins=tuple(
            BinResult(confidence=float(c), accuracy=float(a), low=finite(low), high=finite(high), n=int(n))
            for c, a, low, high, n in bins
        ),
        coverage=tuple(map(float, coverage)),
        risk=tuple(map(float, risk)),
        n_right=tuple(map(int, n_right)),
        n_wrong=tuple(map(int, n_wrong)),
        selective=tuple(
            SelectiveResult(
                max_error=rule.max_error,
                threshold=rule.threshold,
                coverage=rule.coverage,
                error=finite(rule.error),
                n=rule.n,
                promise=rule.promise,
                method=rule.method,
                abstention=left,
            )
            for rule, left in zip(rules, abstention, strict=True)
        ),
    )


def tested_statistics(outcomes: Outcomes) -> tuple[str, ...]:
    """The statistics whose paired differences are tested: few, because every one costs the family."""
    if outcomes.positive is not None:
        return ("f1_positive", "mcc")
    return ("kappa_quadratic",) if outcomes.ordered else ("macro_f1", "kappa")


def _pairs(judges: Mapping[str, Outcomes], level: float, n_resamples: int, seed: int) -> tuple[PairResult, ...]:
    names = list(judges)
    # The later judge less the earlier one, as everywhere.
    planned = [(b, a) for a, b in combinations(names, 2)]
    if len(names) > MAX_ALL_PAIRS:
        planned = [(name, names[0]) for name in names[1:]]
    found = [
        _pair(a, b, judges[a], judges[b], level, n_resamples, seed)
        for a, b in planned
        if share_cases(judges[a], judges[b])
    ]
    accuracy = adjust_p({str(i): one.p for i, one in enumerate(found)}, method="holm")
    family: dict[str, float] = {}
    for i, one in enumerate(found):
        family |= {f"{i} {name}": test.p for name, test in one.tests.items() if test.p is not None}
    adjusted = adjust_p(family, method="holm")
    return tuple(
        one.model_copy(
            update={
                "adjusted_p": accuracy[str(i)],
                "tests": {
                    name: test.model_copy(update={"adjusted_p": adjusted.get(f"{i} {name}")})
                    for name, test in one.tests.items()
                },
            }
        )
        for i, one in enumerate(found)
    )


def _pair(name_a: str, name_b: str, a: Outcomes, b: Outcomes, level: float, n_resamples: int, seed: int) -> PairResult:
    pairing = pair(a, b)
    right_a, right_b = pairing.a.correct, pairing.b.correct
    test = mcnemar(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()))
    names = tested_statistics(a)
    differences = paired_statistics(
        pairing, names, n_resamples=n_resamples, rng=np.random.default_rng(seed), level=level
    )
    permuted = paired_permutation(pairing, names, n_resamples=N_PERMUTATIONS, rng=np.random.default_rng(seed))
    power = power_of_pair(
        test.only_a,
        test.only_b,
        len(right_a),
        design_effect=design_effect(right_a.astype(float) - right_b, pairing.a.groups),
    )
    return PairResult(
        a=name_a,
        b=name_b,
        n=len(right_a),
        only_a=test.only_a,
        only_b=test.only_b,
        p=test.p,
        method=test.method,
        adjusted_p=test.p,
        tests={
            name: PermutationResult(difference=measured(differences[name]), p=finite(permuted[name].p), adjusted_p=None)
            for name in names
        },
        power=_power_result(power),
    )
