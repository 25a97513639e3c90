"""The reward for a verdict that outlives the exchange of the two answers: paid for both orders together, or not at all.

Source: the position-consistent reward of J1 (Whitehouse et al. 2025, arXiv:2505.10320), whose batches hold
both orders of each pair, as training does here (`training.order.twins_together`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medjudge.errors import ConfigError
from medjudge.records import Case, Rollout
from medjudge.rewards.composition import RULE_TOLERANCE, RewardContext
from medjudge.rewards.rules import is_correct
from medjudge.tasks.pairwise import PairwiseContract, twin_id


@dataclass(slots=True)
class Consistent:
    """1 where a rollout and the one of like number for the other order are both right, else 0.

    The k-th rollout of a case counts with the k-th of its twin: drawn apart, they are as independent as any two. Where
    the batch lacks the twin, a rollout is paid for itself alone, which `report` counts.
    """

    n_alone: int = 0
    minimum: float = field(default=0.0, init=False)
    maximum: float = field(default=1.0, init=False)
    gold_tolerance: float = field(default=RULE_TOLERANCE, init=False)
    asks_a_model: bool = field(default=False, init=False)

    def most(self, case: Case) -> float | None:
        """1 with an expert's label."""
        return None if case.gold is None else 1.0

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """1 or 0 per rollout; None without an expert's label."""
        right: dict[str, list[bool]] = {}
        places = []
        for rollout in rollouts:
            of_case = right.setdefault(rollout.case.case_id, [])
            places.append(len(of_case))
            of_case.append(is_correct(rollout))
        paid: list[float | None] = []
        for rollout, k in zip(rollouts, places, strict=True):
            case_id = rollout.case.case_id
            twins = right.get(twin_id(case_id), [])
            self.n_alone += k >= len(twins)
            both = right[case_id][k] and (k >= len(twins) or twins[k])
            paid.append(None if rollout.case.gold is None else float(both))
        return paid

    def report(self) -> Mapping[str, Any]:
        """Rollouts whose other order was not in their batch."""
        return {"n_alone": self.n_alone}


def consistent(context: RewardContext) -> Consistent:
    """`Consistent`. Raises ConfigError for a task that does not ask in two orders."""
    contract = context.contract
    if not isinstance(contract, PairwiseContract) or contract.orders != "both":
        what = "rows as given" if isinstance(contract, PairwiseContract) else f"the task {contract.kind}"
        raise ConfigError(
            f"reward `consistent` holds the two orders of a pair against each other, but {what} has one. Take "
            '`accuracy`, or the task pairwise with `orders = "both"`.'
        )
    return Consistent()
