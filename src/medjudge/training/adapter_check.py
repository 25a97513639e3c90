"""The adapter settings of a recipe's stages against the model that they start from, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from medjudge.models.adapters import base_skeleton, check_targets
from medjudge.recipe import Recipe


def check_adapters(recipe: Recipe, stages: Collection[str], model: Any | None = None) -> None:
    """Checks `target_modules` of each of the stages that trains an adapter. Raises ConfigError.

    model: the skeleton of what the stages train on; without it the recipe's base, and no check where that is not here.
    """
    trained = [stage for stage in ("sft", "grpo") if stage in stages and getattr(recipe, stage).tuning == "lora"]
    if not trained:
        return
    model = base_skeleton(recipe.model, recipe.base) if model is None else model
    if model is None:
        return
    for stage in trained:
        by_trl = stage == "sft" or recipe.grpo.algorithm == "grpo"
        key = f"{stage}.lora.target_modules"
        check_targets(model, getattr(recipe, stage).lora, key, name=recipe.model.base, head_is_read_directly=by_trl)
