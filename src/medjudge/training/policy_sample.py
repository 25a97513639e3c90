"""A few rollouts from the policy before it is trained, drawn as GRPO will draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medjudge.diagnostics.checks import PolicySample
from medjudge.inference.local import LocalEngine
from medjudge.inference.rollouts import Sampling
from medjudge.recipe import Recipe
from medjudge.records import Case, Completion
from medjudge.settings.training import GrpoConfig
from medjudge.tasks.contract import TaskContract
from medjudge.training.order import grpo_order, twins_together


def draw_sample(
    recipe: Recipe, cases: Sequence[Case], model: Any, tokenizer: Any, policy: str, *, is_start: bool
) -> PolicySample:
    """What the policy answers to the first cases that GRPO would train on. `policy`: which weights, in words."""
    order, _ = grpo_order(len(cases), recipe.grpo, recipe.seed)
    order = twins_together(order, [case.case_id for case in cases])
    chosen = tuple(cases[i] for i in list(dict.fromkeys(order))[: recipe.grpo.preflight.prompts])
    completions = sample_policy(recipe.contract, chosen, model, tokenizer, recipe.grpo, seed=recipe.seed)
    return PolicySample(policy, is_start, chosen, completions)


def sample_policy(
    contract: TaskContract, cases: Sequence[Case], model: Any, tokenizer: Any, config: GrpoConfig, *, seed: int
) -> tuple[tuple[Completion, ...], ...]:
    """(n_cases, group_size) completions at the recipe's temperature. Leaves the random state as it found it."""
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty)
    # Sampling in train mode would leave dropout on.
    was_training = model.training
    try:
        drawn = LocalEngine(model, tokenizer).draw(
            contract, cases, config.group_size, sampling, torch.Generator().manual_seed(seed)
        )
    finally:
        model.train(was_training)
    return tuple(tuple(row) for row in drawn)
