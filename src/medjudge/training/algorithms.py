"""The algorithms that train on rewards, in one table: the recipe's `grpo.algorithm` names one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from medjudge.recipe import Recipe
from medjudge.settings.training import GrpoConfig
from medjudge.training.job import Beside, RewardedRows, Trained, TrainingJob

Train = Callable[[TrainingJob, GrpoConfig, RewardedRows, Beside], Trained]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to train on rewards."""

    module: str
    """Imported only when it trains: a plan and a pre-flight need the facts alone."""
    function: str
    draws_rollouts: bool
    """Whether it samples from the policy, so that there is something for the doctor to watch."""

    def train(self, job: TrainingJob, config: GrpoConfig, rows: RewardedRows, beside: Beside) -> Trained:
        """Trains, or goes on from the last whole checkpoint in the job's work folder."""
        train = cast(Train, getattr(importlib.import_module(self.module), self.function))
        return train(job, config, rows, beside)


ALGORITHMS = {
    "grpo": Algorithm("medjudge.training.grpo", "train_grpo", draws_rollouts=True),
    "all_action": Algorithm("medjudge.training.all_action", "train_all_action", draws_rollouts=False),
}


def algorithm_of(recipe: Recipe) -> Algorithm:
    """The algorithm that the recipe's GRPO stage trains with."""
    return ALGORITHMS[recipe.grpo.algorithm]
