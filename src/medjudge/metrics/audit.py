"""The whole analysis of judges against experts, as one value: what `score` and `evaluate` both write and show.

Agreement with intervals, what the rows could show at all, generators, calibration, comparisons corrected for their
number, and the true pass rate behind a judged one. What a judge's rows do not have (a confidence, a generator, unrated
cases) leaves its part out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.agreement import agreement_estimates
from medjudge.metrics.by_generator import (
    GeneratorRow,
    Heterogeneity,
    SelfPreference,
    generator_table,
    heterogeneity,
    rate_heterogeneity,
    self_preference,
)
from medjudge.metrics.calibration import (
    CalibrationReport,
    SelectiveRule,
    abstention_rates,
    bin_codes,
    calibration_report,
    risk_control_threshold,
    risk_coverage,
    selective_threshold,
)
from medjudge.metrics.claims import ANSWERED, PREVALENCE
from medjudge.metrics.classification import Outcomes, take
from medjudge.metrics.comparison import (
    Pairing,
    Power,
    pair,
    paired_permutation,
    paired_statistics,
    power_against_chance,
    power_of_pair,
)
from medjudge.metrics.correction import gold_rate, prediction_powered_rate, rogan_gladen
from medjudge.metrics.group_tests import contrast_is_zero, miscalibration, right_as_stated, sign_flips
from medjudge.metrics.intervals import clustered_wilson, design_effect
from medjudge.metrics.metric_result import Frozen, MetricResult, TestResult, finite, measured, tested

FloatArray = NDArray[np.float64]

MAX_ALL_PAIRS = 5
"""Judges of which all pairs are compared; of more, each is compared with the first."""
N_PERMUTATIONS = 9999
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
    """One judge's answers with what stands beside them."""

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


class PowerResult(Frozen):
    """What the rows could show; proportions."""

    n: int
    design_effect: float
    minimum_detectable: float | None
    power: float
    alpha: float
    effect: float | None = None
    rows_needed: int | None = None
    """With `effect`, in results of an earlier program only: the rows for the effect seen say no more than its p."""


class GeneratorResult(Frozen):
    """The rows of one generator, or of one value of another slice."""

    generator: str
    n: int
    n_groups: int
    n_unparsed: int
    prevalence: MetricResult | None
    positive_rate: MetricResult | None
    always_positive_f1: float | None
    statistics: dict[str, MetricResult]
    minimum_detectable: float | None
    unanswered: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)
    """Kind of `classification.KINDS` -> count; empty in results of an earlier program."""
    answered_only: MetricResult | None = None
    """Share right of the cases with a verdict; None in results of an earlier program."""


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
    n_groups: int = 0
    """Groups of the rows that were tested."""
    answered_only: bool = False
    """Whether cases without a verdict were left out, as they are where there are any."""


class SelfPreferenceResult(Frozen):
    """Own family less others."""

    family: str
    n_own: int
    n_other: int
    positive_rate_error: MetricResult
    false_positive_rate: MetricResult
    test: TestResult | None = None
    """Of `positive_rate_error`; None in results of an earlier program."""


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
    """By sign flips of groups."""
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
    """Empty where the confidences do not vary: there is nothing to choose by."""
    varies: bool = True
    """Whether there are two different confidences or more."""
    ece_test: TestResult | None = None
    """Of being calibrated in every bin; None where the confidences do not vary, or in results of an earlier program."""
    direction_test: TestResult | None = None
    """Of mean confidence against the share right."""


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
    slices: dict[str, tuple[GeneratorResult, ...]] = {}  # noqa: RUF012  (pydantic copies it)
    """Name of a slice -> its values, those with most rows first."""
    heterogeneity: tuple[HeterogeneityResult, ...] = ()
    self_preference: SelfPreferenceResult | None = None
    calibration: CalibrationResult | None = None
    correction: CorrectionResult | None = None


class PermutationResult(Frozen):
    """A paired permutation test of one statistic; `adjusted_p` by Holm over all tests of the page."""

    difference: MetricResult
    p: float | None
    adjusted_p: float | None
    n_groups: int = 0
    """Groups in which the two differ."""


class PairResult(Frozen):
    """Two judges on the cases that both were to answer."""

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    p: float
    """Of the difference in accuracy, by sign flips of groups; with a row per group that is McNemar's test."""
    method: str
    adjusted_p: float
    """By Holm over all tests of the page."""
    tests: dict[str, PermutationResult]
    power: PowerResult
    n_groups: int = 0
    """Groups in which the two differ."""
    n_both_answered: int | None = None
    """Of `n`, those with a verdict from both; None in results of an earlier program."""


class Audit(Frozen):
    """Everything beyond the table of metrics."""

    judges: dict[str, JudgeAudit]
    """Judges first, then baselines."""
    pairs: tuple[PairResult, ...]
    n_tests: int
    """Tests of the page that Holm's method corrects for: `claims.tests_of`."""
    n_statistic_tests: int = 0
    """In results of an earlier program: permutation tests, once a family of their own."""
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

    What it says in words, and p corrected for all tests of a page, `claims.with_claims` adds when the page is complete.
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
    pairs = _pairs({name: rows.outcomes for name, rows in judges.items()}, level, seed)
    return Audit(judges=audited, pairs=pairs, n_tests=0)


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
        generators=_by_value(outcomes, rows.generators, level, n_resamples, rng) if named else (),
        heterogeneity=_heterogeneity(outcomes, rows.generators, rng) if named > 1 else (),
        self_preference=None if preference is None else _preference_result(preference, rows, families, families[name]),
        calibration=_calibration(rows, level=level, n_resamples=n_resamples, rng=rng),
        correction=_correction(rows, level=level, n_resamples=n_resamples, rng=rng),
        slices={
            name: _by_value(outcomes, _commonest(values), level, n_resamples, rng)
            for name, values in rows.slices.items()
        },
    )


def _by_value(
    outcomes: Outcomes, values: Sequence[str], level: float, n_resamples: int, rng: np.random.Generator
) -> tuple[GeneratorResult, ...]:
    """A row per value, by name, each with the share right of the answered cases beside that of all."""
    of = np.asarray(values, dtype=str)
    results = []
    for row in generator_table(outcomes, values, level=level, n_resamples=n_resamples, rng=rng):
        part = take(outcomes, np.flatnonzero(of == row.generator))
        answered = clustered_wilson(part.correct[part.parsed], part.groups[part.parsed], level=level)
        results.append(
            _generator_result(row).model_copy(
                update={"unanswered": part.unanswered, "answered_only": measured(answered)}
            )
        )
    return tuple(results)


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
    if outcomes.parsed.all():
        return tuple(_heterogeneity_result(found) for found in heterogeneity(outcomes, generators, rng=rng))
    names, read = np.asarray(generators, dtype=str), np.flatnonzero(outcomes.parsed)
    # Of gold labels alone: whether the judge answered changes nothing about them.
    results = [
        _heterogeneity_result(found)
        for found in heterogeneity(outcomes, generators, rng=rng)
        if found.outcome == PREVALENCE
    ]
    named = np.flatnonzero(names != "")
    results.append(
        _heterogeneity_result(
            rate_heterogeneity(
                outcomes.parsed[named],
                names[named].tolist(),
                outcomes.groups[named],
                outcome=ANSWERED,
                rng=rng,
            )
        )
    )
    results += [
        _heterogeneity_result(found).model_copy(update={"answered_only": True})
        for found in heterogeneity(take(outcomes, read), names[read].tolist(), rng=rng)
        if found.outcome != PREVALENCE
    ]
    return tuple(results)


def _statistics(outcomes: Outcomes, level: float, n_resamples: int, seed: int) -> dict[str, MetricResult]:
    # A fresh generator per judge: all see the same resamples, whatever else stands in the table.
    rng = np.random.default_rng(seed)
    found = agreement_estimates(outcomes, level=level, n_resamples=n_resamples, rng=rng)
    return {name: measured(estimate) for name, estimate in found.items()}


def _power(outcomes: Outcomes) -> Power:
    return power_against_chance(
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
        n_groups=found.n_groups,
    )


def _preference_result(
    found: SelfPreference, rows: JudgeRows, families: Mapping[str, str], own: str
) -> SelfPreferenceResult:
    outcomes = rows.outcomes
    family = np.array([families.get(generator, "") for generator in rows.generators], dtype=object)
    known = family != ""
    called, gold = outcomes.predicted == outcomes.positive, outcomes.gold == outcomes.positive
    error = (called.astype(np.float64) - gold)[known]
    return SelfPreferenceResult(
        family=found.family,
        n_own=found.n_own,
        n_other=found.n_other,
        positive_rate_error=measured(found.positive_rate_error),
        false_positive_rate=measured(found.false_positive_rate),
        test=tested(contrast_is_zero(error, family[known] == own, outcomes.groups[known])),
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
    confidence_said, right, group = confidence[stated], correct[stated], groups[stated]
    varies = len(np.unique(confidence_said.round(_CONFIDENCE_DIGITS))) > 1
    curve = risk_coverage(confidence_said, right)
    shown = np.unique(np.linspace(0, len(curve.coverage) - 1, N_CURVE_POINTS).round().astype(int))
    edges = np.linspace(0, 1, N_HISTOGRAM_BINS + 1)
    rules: list[SelectiveRule] = []
    if varies:
        rules = [
            selective_threshold(confidence, correct, max_error=max_error, groups=groups, rng=rng)
            for max_error in MAX_ERRORS
        ]
        rules += [
            risk_control_threshold(confidence, correct, max_error=max_error, groups=groups) for max_error in MAX_ERRORS
        ]
    result = _calibration_result(
        found,
        coverage=curve.coverage[shown],
        risk=curve.risk[shown],
        n_right=np.histogram(confidence_said[right], edges)[0],
        n_wrong=np.histogram(confidence_said[~right], edges)[0],
        rules=rules,
        abstention=[_abstention(rule, rows, level) for rule in rules],
    )
    ece = None
    if varies:
        ece = miscalibration(bin_codes(confidence_said, N_BINS, "mass"), right, confidence_said, group, rng=rng)
    return result.model_copy(
        update={
            "varies": varies,
            "calibrated_p": found.calibrated_p if ece is None else ece.p,
            "ece_test": None if ece is None else tested(ece),
            "direction_test": tested(right_as_stated(right, confidence_said, group)),
        }
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
    rated = [f"group {name}" for name in rows.rated_groups] or [f"code {code}" for code in outcomes.groups.tolist()]
    # A question with rated and unrated answers is one group on both sides.
    names, code = np.unique([*rated, *(f"group {name}" for name in rows.unrated_groups)], return_inverse=True)
    # Where every row is a group of its own the estimators need no groups.
    alone = len(names) == len(gold) + len(said)
    old, new = (None, None) if alone else (code[: len(gold)], code[len(gold) :])
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


def _pairs(judges: Mapping[str, Outcomes], level: float, seed: int) -> tuple[PairResult, ...]:
    """Judges against each other, the later one less the earlier; two that share no case are no pair."""
    names = list(judges)
    planned = [(b, a) for a, b in combinations(names, 2)]
    if len(names) > MAX_ALL_PAIRS:
        planned = [(name, names[0]) for name in names[1:]]
    pairings = {(a, b): pair(judges[a], judges[b]) for a, b in planned}
    return tuple(_pair(a, b, both, level, seed) for (a, b), both in pairings.items() if len(both.a.gold))


def _pair(name_a: str, name_b: str, pairing: Pairing, level: float, seed: int) -> PairResult:
    right_a, right_b = pairing.a.correct, pairing.b.correct
    apart = right_a.astype(np.float64) - right_b
    only_a, only_b = int((apart > 0).sum()), int((apart < 0).sum())
    test = sign_flips(apart, pairing.a.groups)
    names = tested_statistics(pairing.a)
    differences = paired_statistics(pairing, names, level=level)
    permuted = paired_permutation(pairing, names, n_resamples=N_PERMUTATIONS, rng=np.random.default_rng(seed))
    power = power_of_pair(only_a, only_b, len(right_a), design_effect=design_effect(apart, pairing.a.groups))
    return PairResult(
        a=name_a,
        b=name_b,
        n=len(right_a),
        only_a=only_a,
        only_b=only_b,
        p=test.p,
        method=test.method,
        adjusted_p=test.p,
        tests={
            name: PermutationResult(
                difference=measured(differences[name]),
                p=finite(permuted[name].p),
                adjusted_p=None,
                n_groups=permuted[name].n_groups,
            )
            for name in names
        },
        power=_power_result(power),
        n_groups=test.n_groups,
        n_both_answered=int((pairing.a.parsed & pairing.b.parsed).sum()),
    )
