"""Two judges that share no case: their accuracies on different cases, compared as independent sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from medjudge.metrics.classification import Outcomes
from medjudge.metrics.generators import rate_heterogeneity
from medjudge.metrics.measured import Frozen

if TYPE_CHECKING:
    from medjudge.metrics.results import Results

MAX_ALL_PAIRS = 5
"""Judges of which all pairs are compared; of more, each is compared with the first."""


class UnpairedResult(Frozen):
    """Accuracy of `a` less that of `b`, on cases of which none is shared."""

    a: str
    b: str
    n_a: int
    n_b: int
    accuracy_a: float
    accuracy_b: float
    p: float
    """Two-sided, groups counted: `generators.rate_heterogeneity` with the judges in place of generators."""
    method: str
    adjusted_p: float | None = None
    """By Holm's method over every test of accuracy in these results."""


def share_cases(a: Outcomes, b: Outcomes) -> bool:
    """Whether two judges answered a case in common."""
    return not set(a.case_ids).isdisjoint(b.case_ids)


def unpaired_comparisons(judges: Mapping[str, Outcomes], seed: int) -> tuple[UnpairedResult, ...]:
    """Every two judges without a case in common, the later less the earlier one."""
    names: Sequence[str] = list(judges)
    planned = list(combinations(names, 2)) if len(names) <= MAX_ALL_PAIRS else [(names[0], one) for one in names[1:]]
    return tuple(
        _compare(later, judges[later], earlier, judges[earlier], seed)
        for earlier, later in planned
        if not share_cases(judges[earlier], judges[later])
    )


def _compare(name_a: str, a: Outcomes, name_b: str, b: Outcomes, seed: int) -> UnpairedResult:
    found = rate_heterogeneity(
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
        p=found.p,
        method=found.method,
    )


def unpaired_statement(one: UnpairedResult, results: Results) -> str:
    """What two judges on different cases show."""
    from medjudge.metrics.statements import p_value, percent

    p = one.p if one.adjusted_p is None else one.adjusted_p
    points = 100 * (one.accuracy_a - one.accuracy_b)
    both = (
        f"{one.a} ({percent(one.accuracy_a)} right, n = {one.n_a:,}) and {one.b} ({percent(one.accuracy_b)}, "
        f"n = {one.n_b:,}) share no case"
    )
    # Fewer groups than a sign test needs show nothing.
    if p < 1 - results.level and 2.0 ** (1 - results.n_groups) < 1 - results.level:
        how = "more" if points > 0 else "less"
        return (
            f"{both}: on its own cases {one.a} is {abs(points):.1f} points {how} accurate ({p_value(p)}, corrected, "
            "groups counted). Cases of the two sets may differ, too."
        )
    return f"{both}: their accuracies are not distinguishable, {points:+.1f} points ({p_value(p)}, groups counted)."
