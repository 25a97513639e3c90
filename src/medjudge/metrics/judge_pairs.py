"""Judges against each other: which pairs are compared, and what each pair shows.

Whether two judges differ in accuracy is tested in one way wherever it is shown: by sign flips of groups (`JudgePair`).
`claims` corrects these tests with all others of a page. Judges without a common case are compared as independent sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.baselines import CHANCE
from medjudge.metrics.by_generator import rate_heterogeneity
from medjudge.metrics.classification import Outcomes, take
from medjudge.metrics.comparison import (
    PERMUTATION,
    Pairing,
    mcnemar,
    pair,
    paired_differences,
    paired_permutation,
    paired_statistics,
    power_of_pair,
)
from medjudge.metrics.group_tests import GroupTest, sign_flips
from medjudge.metrics.intervals import design_effect
from medjudge.metrics.metric_result import TestResult, measured, tested
from medjudge.metrics.result_types import (
    ComparisonKind,
    ComparisonResult,
    DifferenceResult,
    McNemarResult,
    ModelResult,
    PairResult,
    PermutationResult,
    Role,
    SharedCases,
    UnpairedResult,
)

COMPARED_METRICS = ("accuracy", "macro_f1", "f1_positive", "schema_pass_rate")
"""Metrics whose paired differences are computed, where the task has them."""
MAX_ALL_PAIRS = 5
"""Judges of which all pairs are compared; of more, each is compared with the first: pairs grow with the square, and
every test makes Holm's correction costlier for the others."""
N_PERMUTATIONS = 9999
"""Swaps of groups, so that p has steps of 1 in 10,000."""


@dataclass(frozen=True, slots=True)
class JudgePair:
    """Two judges on the cases that both were to answer, and the test of whether their accuracies differ."""

    a: str
    b: str
    pairing: Pairing
    apart: NDArray[np.float64]
    """(n,) 1 where only `a` is right, -1 where only `b` is, else 0."""
    test: GroupTest
    """By sign flips of groups; with a row per group that is McNemar's test."""

    @classmethod
    def of(cls, a: str, b: str, outcomes: Mapping[str, Outcomes]) -> JudgePair:
        """Joins two judges by case id. Raises DataError if they were not coded from the same cases."""
        pairing = pair(outcomes[a], outcomes[b])
        apart = pairing.a.correct.astype(np.float64) - pairing.b.correct
        return cls(a, b, pairing, apart, sign_flips(apart, pairing.a.groups))

    @property
    def only_a(self) -> int:
        """Cases that only `a` got right."""
        return int((self.apart > 0).sum())

    @property
    def only_b(self) -> int:
        """Cases that only `b` got right."""
        return int((self.apart < 0).sum())


def best_model(models: Mapping[str, ModelResult], role: Role) -> str | None:
    """The model (or baseline) that is right on most cases, of equals the one that answers more; None if there is none.

    A case that a model did not answer is not right, so one that answers few is never the best.
    A lucky draw of `chance` is no baseline to beat: models are tested against chance's exact accuracy instead.
    """
    names = [name for name, model in models.items() if model.role == role and (name, role) != (CHANCE, "baseline")]
    return max(names, key=lambda name: (models[name].n_right, models[name].n_answered), default=None)


def share_cases(a: Outcomes, b: Outcomes) -> bool:
    """Whether two judges answered a case in common."""
    return not set(a.case_ids).isdisjoint(b.case_ids)


def _planned(names: Sequence[str]) -> list[tuple[str, str]]:
    """(earlier, later) of every pair, or of the first with each other one where there are many judges."""
    return list(combinations(names, 2)) if len(names) <= MAX_ALL_PAIRS else [(names[0], name) for name in names[1:]]


def compare_with_references(
    models: Mapping[str, ModelResult],
    outcomes: Mapping[str, Outcomes],
    reference: str | None,
    *,
    level: float,
    seed: int,
) -> tuple[ComparisonResult, ...]:
    """Every model with the reference and with the one before it, and every model with the best baseline.

    Later model first, the best model's first among those with the baseline; no pair twice, and none without a case in
    common.
    """
    return tuple(
        _comparison(JudgePair.of(a, b, outcomes), kind, level=level, seed=seed)
        for (a, b), kind in _planned_comparisons(models, reference).items()
        if share_cases(outcomes[a], outcomes[b])
    )


def _planned_comparisons(
    models: Mapping[str, ModelResult], reference: str | None
) -> dict[tuple[str, str], ComparisonKind]:
    names = [name for name, model in models.items() if model.role == "model"]
    planned: dict[tuple[str, str], ComparisonKind] = {}
    if reference is not None:
        planned.update({(name, reference): "reference" for name in names if name != reference})
    for earlier, later in pairwise(names):
        if (earlier, later) not in planned:  # compared already, in the other order
            planned.setdefault((later, earlier), "consecutive")
    best, baseline = best_model(models, "model"), best_model(models, "baseline")
    if baseline is not None:
        planned.update({(name, baseline): "baseline" for name in sorted(names, key=lambda name: name != best)})
    return planned


def _comparison(judges: JudgePair, kind: ComparisonKind, *, level: float, seed: int) -> ComparisonResult:
    pairing = judges.pairing
    # A baseline answers with labels, not text: whether it can be read is no question.
    metrics = tuple(name for name in COMPARED_METRICS if kind != "baseline" or name != "schema_pass_rate")
    # Macro-F1 is no mean over rows, so signs of groups cannot be flipped: whole answers are swapped.
    macro = paired_permutation(pairing, ["macro_f1"], n_resamples=N_PERMUTATIONS, rng=np.random.default_rng(seed))[
        "macro_f1"
    ]
    return ComparisonResult(
        a=judges.a,
        b=judges.b,
        kind=kind,
        n=len(judges.apart),
        n_unpaired=len(pairing.only_a) + len(pairing.only_b),
        differences=_differences(pairing, metrics, level),
        mcnemar=McNemarResult.model_validate(mcnemar(judges.only_a, judges.only_b)),
        tests={
            "accuracy": tested(judges.test),
            "macro_f1": TestResult(p=macro.p, n_groups=macro.n_groups, method=PERMUTATION),
        },
        shared=_shared(pairing, metrics, level),
    )


def _differences(pairing: Pairing, metrics: tuple[str, ...], level: float) -> dict[str, DifferenceResult]:
    differences = paired_differences(pairing, metrics, level=level)
    return {metric: DifferenceResult.model_validate(difference) for metric, difference in differences.items()}


def _shared(pairing: Pairing, metrics: tuple[str, ...], level: float) -> SharedCases | None:
    """The difference apart from who answered: what the two know, where both gave a verdict."""
    in_a, in_b = pairing.a.parsed, pairing.b.parsed
    both = in_a & in_b
    if both.all():
        return None
    right_a, right_b = pairing.a.correct, pairing.b.correct
    rows = np.flatnonzero(both)
    differences = {}
    if len(rows):
        on_both = Pairing(take(pairing.a, rows), take(pairing.b, rows), (), ())
        differences = _differences(on_both, tuple(name for name in metrics if name != "schema_pass_rate"), level)

    def share(right: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
        return float(right[of].mean()) if of.any() else None

    return SharedCases(
        n=len(rows),
        accuracy_a=share(right_a, both),
        accuracy_b=share(right_b, both),
        differences=differences,
        points=100 * float(right_a[both].sum() - right_b[both].sum()) / len(both),
        n_only_a=int((in_a & ~in_b).sum()),
        accuracy_only_a=share(right_a, in_a & ~in_b),
        n_only_b=int((in_b & ~in_a).sum()),
        accuracy_only_b=share(right_b, in_b & ~in_a),
        n_neither=int((~in_a & ~in_b).sum()),
    )


def tested_statistics(outcomes: Outcomes) -> tuple[str, ...]:
    """The statistics whose paired differences are tested: few, because every test makes the correction costlier."""
    if outcomes.positive is not None:
        return ("f1_positive", "mcc")
    return ("kappa_quadratic",) if outcomes.ordered else ("macro_f1", "kappa")


def compare_all(judges: Mapping[str, Outcomes], *, level: float, seed: int) -> tuple[PairResult, ...]:
    """Judges against each other, the later one less the earlier; two that share no case are no pair."""
    pairs = [JudgePair.of(later, earlier, judges) for earlier, later in _planned(list(judges))]
    return tuple(_pair_result(one, level, seed) for one in pairs if len(one.apart))


def _pair_result(judges: JudgePair, level: float, seed: int) -> PairResult:
    pairing, groups = judges.pairing, judges.pairing.a.groups
    names = tested_statistics(pairing.a)
    differences = paired_statistics(pairing, names, level=level)
    permuted = paired_permutation(pairing, names, n_resamples=N_PERMUTATIONS, rng=np.random.default_rng(seed))
    power = power_of_pair(
        judges.only_a, judges.only_b, len(judges.apart), design_effect=design_effect(judges.apart, groups)
    )
    return PairResult(
        a=judges.a,
        b=judges.b,
        n=len(judges.apart),
        only_a=judges.only_a,
        only_b=judges.only_b,
        p=judges.test.p,
        method=judges.test.method,
        adjusted_p=judges.test.p,  # until `claims` has seen the other tests of the page
        tests={
            name: PermutationResult(
                difference=measured(differences[name]),
                p=permuted[name].p,
                adjusted_p=None,
                n_groups=permuted[name].n_groups,
            )
            for name in names
        },
        power=power,
        n_groups=judges.test.n_groups,
        n_both_answered=int((pairing.a.parsed & pairing.b.parsed).sum()),
    )


def compare_unpaired(judges: Mapping[str, Outcomes], seed: int) -> tuple[UnpairedResult, ...]:
    """Every two judges without a case in common, the later less the earlier one."""
    return tuple(
        _unpaired(later, judges[later], earlier, judges[earlier], seed)
        for earlier, later in _planned(list(judges))
        if not share_cases(judges[earlier], judges[later])
    )


def _unpaired(name_a: str, a: Outcomes, name_b: str, b: Outcomes, seed: int) -> UnpairedResult:
    # Two independent sets are what two generators are to `rate_heterogeneity`: it counts groups in any design.
    test = rate_heterogeneity(
        np.concatenate([a.correct, b.correct]),
        [name_a] * len(a.gold) + [name_b] * len(b.gold),
        np.concatenate([a.groups, b.groups]),
        outcome="accuracy",
        rng=np.random.default_rng(seed),
    )
    return UnpairedResult(
        a=name_a,
        b=name_b,
        n_a=len(a.gold),
        n_b=len(b.gold),
        accuracy_a=float(a.correct.mean()),
        accuracy_b=float(b.correct.mean()),
        p=test.p,
        method=test.method,
        n_groups=test.n_groups,
    )
