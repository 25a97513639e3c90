"""For the doctor's `act` policy: resampling of zero-variance groups, and an easy-first curriculum.

Source: DAPO (Yu et al. 2025, arXiv:2503.14476, section 3.2) fills every batch with groups whose rewards differ; here
that search ends after `max_rounds` rounds, and a batch that is still not full trains as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjudge.diagnostics.observation import SAME

Rewarder = Callable[[Sequence[str], Sequence[Sequence[int]]], Sequence[float | None]]
"""(case ids, completion ids) -> totals."""


@dataclass(slots=True)
class Drawn:
    """Rollouts as they were drawn: one entry each per rollout, the rollouts of a group one after the other."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list[Any]
    log_probs: list[list[float]] | None
    """Of the sampled tokens; None where the trainer scores them itself."""


class Resampler:
    """Draws other cases for groups whose rewards are all alike."""

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], rewarder: Rewarder, *, group_size: int, max_rounds: int, seed: int
    ) -> None:
        """`rows`: one per case, as the training set has them (`prompt`, `case_id`)."""
        self.rows, self.rewarder = rows, rewarder
        self.group_size, self.max_rounds, self.seed = group_size, max_rounds, seed
        self.n_resampled = 0

    def fill(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[str],
        drawn: Drawn,
        generate: Callable[[list[str]], Drawn],
        step: int,
    ) -> None:
        """Replaces the groups without spread in `drawn`, what was drawn for `prompts`, and their rows in the batch.

        inputs, prompts: the batch, each prompt `group_size` times; all three are changed in place. The draw depends on
        seed and step alone, so a resumed run draws the same cases.
        """
        rng = np.random.default_rng([self.seed, 3, step])
        taken = {row["case_id"] for row in inputs}
        reserve = [row for i in rng.permutation(len(self.rows)) if (row := self.rows[i])["case_id"] not in taken]
        flat = self._flat_groups(inputs, drawn.completion_ids, range(len(inputs) // self.group_size))
        for _ in range(self.max_rounds):
            fresh = [reserve.pop() for _ in flat[: len(reserve)]]
            if not fresh:
                break
            again = generate([row["prompt"] for row in fresh for _ in range(self.group_size)])
            for n, (group, row) in enumerate(zip(flat, fresh, strict=False)):
                for k in range(self.group_size):
                    to, source = group * self.group_size + k, n * self.group_size + k
                    inputs[to], prompts[to] = dict(row), row["prompt"]
                    drawn.prompt_ids[to] = again.prompt_ids[source]
                    drawn.completion_ids[to] = again.completion_ids[source]
                    drawn.completions[to] = again.completions[source]
                    if drawn.log_probs is not None and again.log_probs is not None:
                        drawn.log_probs[to] = again.log_probs[source]
            self.n_resampled += len(fresh)
            flat = self._flat_groups(inputs, drawn.completion_ids, flat[: len(fresh)]) + flat[len(fresh) :]

    def take_count(self) -> int:
        """Groups drawn anew since this was last asked."""
        n, self.n_resampled = self.n_resampled, 0
        return n

    def _flat_groups(
        self, inputs: Sequence[Mapping[str, Any]], completion_ids: Sequence[Sequence[int]], groups: Sequence[int]
    ) -> list[int]:
        places = [group * self.group_size + k for group in groups for k in range(self.group_size)]
        totals = self.rewarder([inputs[i]["case_id"] for i in places], [completion_ids[i] for i in places])
        flat = []
        for n, group in enumerate(groups):
            known = [t for t in totals[n * self.group_size : (n + 1) * self.group_size] if t is not None]
            if not known or max(known) - min(known) <= SAME:
                flat.append(group)
        return flat


def by_difficulty(order: Sequence[int], n_cases: int, pass_rates: Mapping[int, float]) -> list[int]:
    """The order of training with, in each epoch, cases of known difficulty first, from easy to hard.

    pass_rates: case number -> share of the policy's completions that were right. Cases that were never measured follow
    in the order that the seed gave; those that the policy always or never gets right come last, they teach least.
    """

    def rank(case: int) -> tuple[int, float]:
        rate = pass_rates.get(case)
        if rate is None:
            return 1, 0.0
        return (2, 0.0) if rate in (0.0, 1.0) else (0, -rate)

    return [
        case
        for first in range(0, len(order), n_cases)
        for case in sorted(order[first : first + n_cases], key=rank)  # stable: equal ranks keep the seed's order
    ]
