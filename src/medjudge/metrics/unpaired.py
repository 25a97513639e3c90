"""Two judges that share no case: their accuracies on different cases, compared as independent sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from medjudge.metrics.by_generator import rate_heterogeneity
from medjudge.metrics.classification import Outcomes
from medjudge.metrics.metric_result import Frozen

if TYPE_CHECKING:
    from medjudge.metrics.claims import Claim

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
    n_groups: int = 0
    """Of both sets together."""


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
        n_groups=found.n_groups,
    )


def unpaired_statement(one: UnpairedResult, claim: Claim | None) -> str:
    """What two judges on different cases show. claim: the test, corrected with the others of its page."""
    from medjudge.metrics.sentences import p_value, percent

    points = 100 * (one.accuracy_a - one.accuracy_b)
    both = (
        f"{one.a} ({percent(one.accuracy_a)} right, n = {one.n_a:,}) and {one.b} ({percent(one.accuracy_b)}, "
        f"n = {one.n_b:,}) share no case"
    )
    p = one.p if claim is None or claim.adjusted_p is None else claim.adjusted_p
    if claim is not None and claim.claimed:
        how = "more" if points > 0 else "less"
        return (
            f"{both}: on its own cases {one.a} is {abs(points):.1f} points {how} accurate ({one.method}, "
            f"{p_value(p)}). Cases of the two sets may differ, too."
        )
    return f"{both}: their accuracies are not distinguishable, {points:+.1f} points ({one.method}, {p_value(p)})."
