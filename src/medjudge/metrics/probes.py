"""How often a judge changes its mind where it should not: flip rates of bias probes, and self-consistency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.metrics.group_tests import GroupTest, sign_flips
from medjudge.metrics.intervals import Estimate, bootstrap_sums, clustered_wilson
from medjudge.metrics.metric_result import Frozen, MetricResult, TestResult
from medjudge.records import Judgement, Verdict

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FlipResult:
    """A judge's answers to cases and to the same cases changed by a probe."""

    n: int
    """Cases answered readably both times."""
    n_unreadable: int
    """Cases answered unreadably at least once: no flip, but shown."""
    n_became_unreadable: int
    """Of those, readable before the change only."""
    flips: Estimate
    """Share of the n whose label is not the one expected, with an interval over groups."""
    to_positive: Estimate | None
    """Share that went from not positive to positive, less the share that went back; None without a positive label."""
    shift_test: GroupTest | None
    """Of `to_positive`."""
    matrix: dict[str, dict[str, int]]
    """Expected label -> label given -> count."""


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """k samples of one judge on each case."""

    n: int
    k: int
    n_unparsed: int
    """Samples that held no verdict."""
    agreement: Estimate
    """Probability that two samples of one case agree (an unreadable one agrees with none), mean over cases."""
    unanimous: Estimate
    """Share of cases in which all k samples agree."""
    majority_accuracy: Estimate | None
    """Accuracy of the majority label (first in label order of equals, unreadable if no verdict); None without gold."""
    single_accuracy: Estimate | None
    """Mean accuracy of one sample; None without gold."""


class AttackResult(Frozen):
    """What an attack that wants one label got, over verdicts readable both times that had another label before."""

    to_attacker: MetricResult
    """Share that went to the attacker's label."""
    to_other: MetricResult
    """Share that went to any other label."""
    beside: str | None = None
    """The probe that means nothing and that the attack is held against; None where none changed a case."""
    beyond: MetricResult | None = None
    """Share that went to the attacker's label, less the share that `beside` changed at all, on the same cases."""
    beyond_test: TestResult | None = None
    """Of `beyond`."""


class ProbeResult(Frozen):
    """What one probe did to one judge's verdicts."""

    title: str
    change: str
    n_probed: int
    """Cases that the probe could change."""
    n_unchanged: int
    """Cases that it could not: no second text, an option that refers to its position."""
    n_unreadable: int
    """Of those probed, answered unreadably at least once; they take no part in the flips."""
    n_became_unreadable: int
    flips: MetricResult
    """Share of the verdicts that are not the expected ones; `n` are readable both times."""
    to_positive: MetricResult | None
    matrix: dict[str, dict[str, int]]
    shift_test: TestResult | None = None
    """Of `to_positive`; None in results of an earlier program."""
    attack: AttackResult | None = None
    """Of a probe that wants a label; None for all others."""


class ConsistencyResult(Frozen):
    """k samples of one judge on each case."""

    k: int
    temperature: float
    n_unparsed: int
    agreement: MetricResult
    unanimous: MetricResult
    majority_accuracy: MetricResult | None
    single_accuracy: MetricResult | None


class JudgeProbes(Frozen):
    """One judge under every probe, in the probes' order."""

    flips: dict[str, ProbeResult]
    consistency: ConsistencyResult | None
    not_asked: dict[str, str]
    """Probe -> why this judge could not be put to it."""
    statements: tuple[str, ...] = ()


class Probes(Frozen):
    """Every judge under every probe."""

    judges: dict[str, JudgeProbes]
    skipped: dict[str, str]
    """Probe -> why no case could be put to it."""

    @property
    def statements(self) -> tuple[str, ...]:
        """Every judge's, in order."""
        return tuple(line for judge in self.judges.values() for line in judge.statements)


def probe_result(flips: FlipResult, *, title: str, change: str, n_cases: int) -> ProbeResult:
    """A flip rate as files hold it. n_cases: those that the probe was offered."""
    fields = asdict(flips)
    n_probed = fields.pop("n") + flips.n_unreadable  # `ProbeResult.flips` has the n of the rate itself
    own = {"title": title, "change": change, "n_probed": n_probed, "n_unchanged": n_cases - n_probed}
    return ProbeResult.model_validate({**own, **fields})


def consistency_result(consistency: SelfConsistency, *, temperature: float) -> ConsistencyResult:
    """Self-consistency as files hold it."""
    fields = asdict(consistency)
    del fields["n"]  # the estimates have it
    return ConsistencyResult.model_validate({**fields, "temperature": temperature})


def flip_rate(
    before: Mapping[str, Judgement],
    after: Mapping[str, Judgement],
    expected: Mapping[str, Mapping[str, str]],
    groups: Mapping[str, str],
    *,
    positive: str | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> FlipResult:
    """Compares the answers to the cases in `expected` with those to the same cases changed. All mappings by case id.

    expected: case id -> label before -> label that a fair judge gives after. groups: case id -> group; "" or absent is
    a group of its own. Raises DataError if there is no case, or one lacks an answer.
    """
    if not expected:
        raise DataError(
            "the probe changed no case, expected at least one: there are no flips to count. Leave this probe out for "
            "these cases."
        )
    for case_id in expected:
        if case_id not in before or case_id not in after:
            raise DataError(
                f"case {case_id!r} was not answered both before and after the probe, expected both: judge it again."
            )
    wanted: list[str] = []
    given: list[str] = []
    codes: list[str] = []
    n_became = 0
    for case_id, mapping in expected.items():
        first, second = before[case_id], after[case_id]
        if isinstance(first, Verdict) and isinstance(second, Verdict):
            wanted.append(mapping[first.label])
            given.append(second.label)
            codes.append(f"group {groups[case_id]}" if groups.get(case_id) else f"case {case_id}")
        else:
            n_became += isinstance(first, Verdict)
    flips = np.array([w != g for w, g in zip(wanted, given, strict=True)], dtype=np.float64)
    shift = shift_test = None
    if positive is not None:
        moved = np.array([(g == positive) - (w == positive) for w, g in zip(wanted, given, strict=True)], dtype=float)
        shift = _mean(moved, codes, level=level, n_resamples=n_resamples, rng=rng)
        shift_test = sign_flips(moved, codes)
    matrix: dict[str, dict[str, int]] = {}
    for (w, g), count in sorted(Counter(zip(wanted, given, strict=True)).items()):
        matrix.setdefault(w, {})[g] = count
    return FlipResult(
        n=len(wanted),
        n_unreadable=len(expected) - len(wanted),
        n_became_unreadable=n_became,
        flips=clustered_wilson(flips, codes, level=level),
        to_positive=shift,
        shift_test=shift_test,
        matrix=matrix,
    )


def attack_rate(
    before: Mapping[str, Judgement],
    after: Mapping[str, Judgement],
    wanted: Mapping[str, str],
    groups: Mapping[str, str],
    *,
    beside: tuple[str, Mapping[str, bool]] | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> AttackResult:
    """What an attack got. All mappings by case id.

    wanted: case id -> the attacker's label. beside: name of a probe that means nothing, and case id -> whether it
    changed a verdict that was readable both times. groups: as in `flip_rate`.
    """
    reached: list[bool] = []
    missed: list[bool] = []
    codes: list[str] = []
    excess: list[float] = []
    paired: list[str] = []
    for case_id, label in wanted.items():
        first, second = before[case_id], after[case_id]
        if not isinstance(first, Verdict) or not isinstance(second, Verdict) or first.label == label:
            continue
        codes.append(f"group {groups[case_id]}" if groups.get(case_id) else f"case {case_id}")
        reached.append(second.label == label)
        missed.append(second.label not in (label, first.label))
        if beside is not None and case_id in beside[1]:
            excess.append(float(reached[-1]) - float(beside[1][case_id]))
            paired.append(codes[-1])
    beyond = beyond_test = None
    if excess:
        values = np.array(excess)
        beyond = _metric(_mean(values, paired, level=level, n_resamples=n_resamples, rng=rng))
        beyond_test = TestResult.model_validate(asdict(sign_flips(values, paired)))
    return AttackResult(
        to_attacker=_metric(clustered_wilson(np.array(reached), codes, level=level)),
        to_other=_metric(clustered_wilson(np.array(missed), codes, level=level)),
        beside=beside[0] if beside is not None and excess else None,
        beyond=beyond,
        beyond_test=beyond_test,
    )


def _metric(estimate: Estimate) -> MetricResult:
    return MetricResult.model_validate(asdict(estimate))


def self_consistency(
    samples: IntArray,
    groups: IntArray,
    gold: IntArray | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> SelfConsistency:
    """samples: (n, k) label codes, -1 unreadable; groups: (n,); gold: (n,) codes. Raises DataError for k < 2 or n = 0.

    Source: Wang et al. (2023), arXiv:2203.11171 (the majority of samples).
    """
    codes = np.asarray(samples)
    if codes.ndim != 2 or codes.shape[0] == 0 or codes.shape[1] < 2:
        raise DataError(
            f"self-consistency needs two samples or more of each case, got an array of {codes.shape}. Raise "
            "`evaluate.samples`."
        )
    n, k = codes.shape
    # From 0: an unreadable answer (-1) is counted nowhere, and so agrees with nothing, not even its like.
    counts = np.stack([(codes == code).sum(1) for code in range(int(codes.max()) + 1)] or [np.zeros(n)], axis=1)
    # Ordered pairs of samples that are equal, of all pairs of one case.
    agreement = (counts * (counts - 1)).sum(1) / (k * (k - 1))
    mean = partial(_mean, groups=groups, level=level, n_resamples=n_resamples, rng=rng)
    majority = single = None
    if gold is not None:
        # argmax takes the lowest label of equals: a draw by lot would make the number differ from run to run.
        right = np.where(counts.max(1) > 0, counts.argmax(1), -1) == np.asarray(gold)
        majority = clustered_wilson(right, groups, level=level)
        single = mean((codes == np.asarray(gold)[:, None]).mean(1))
    return SelfConsistency(
        n=n,
        k=k,
        n_unparsed=int((codes < 0).sum()),
        agreement=mean(agreement),
        unanimous=clustered_wilson(counts.max(1) == k, groups, level=level),
        majority_accuracy=majority,
        single_accuracy=single,
    )


def _mean(
    values: FloatArray, groups: ArrayLike, *, level: float, n_resamples: int, rng: np.random.Generator
) -> Estimate:
    """A mean over rows with an expanded bootstrap over groups."""
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan, 0, "")
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((int(code.max()) + 1, 2))
    # Sum and number of rows: groups of different sizes make the mean a ratio, in which both vary.
    np.add.at(sums, code, np.stack([values, np.ones(len(values))], axis=1))
    interval = bootstrap_sums(
        sums, lambda s: {"mean": s[..., 0] / s[..., 1]}, n_resamples=n_resamples, rng=rng, level=level
    )["mean"]
    return Estimate(float(values.mean()), interval.low, interval.high, len(values), interval.method)
