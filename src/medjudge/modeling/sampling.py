"""A few rollouts from the policy before it is trained, drawn as GRPO will draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medjudge.config import Recipe
from medjudge.inference.engine import Engine
from medjudge.inference.rollouts import Sampling
from medjudge.modeling.grpo import grpo_order
from medjudge.records import Case
from medjudge.rewards.checks import PolicySample


def draw_sample(
    recipe: Recipe, cases: Sequence[Case], model: Any, tokenizer: Any, policy: str, *, is_start: bool
) -> PolicySample:
    """A group of completions for each of the first cases that GRPO would train on, drawn with the recipe's seed.

    policy: which weights these are, in words. Leaves torch's random state and the model's mode as they were.
    """
    config = recipe.grpo
    order, _ = grpo_order(len(cases), config, recipe.seed)
    chosen = tuple(cases[i] for i in list(dict.fromkeys(order))[: config.preflight.prompts])
    sampling = Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
    )
    size, was_training = config.group_size, model.training
    try:
        drawn = Engine(model, tokenizer, batch_tokens=recipe.evaluate.batch_tokens).generate(
            recipe.contract,
            [case for case in chosen for _ in range(size)],
            sampling,
            torch.Generator().manual_seed(recipe.seed),
        )
    finally:
        model.train(was_training)
    return PolicySample(policy, is_start, chosen, tuple(tuple(drawn[i : i + size]) for i in range(0, len(drawn), size)))
