"""The table of stages: what it says of a stage is so."""

from __future__ import annotations

import importlib
import inspect

from medjudge.names import STAGE_NAMES
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.runs.model_paths import last_trained, training_split
from medjudge.runs.stages import SECTIONS, STAGES, StageContext, reading_stages, training_stages
from medjudge.settings.training import TrainingConfig

RECIPE = recipe_from_tree({"name": "x", "task": {"kind": "mcq"}})


def test_the_table_names_the_stages_of_a_recipe_in_their_order() -> None:
    assert tuple(STAGES) == STAGE_NAMES
    for place, stage in enumerate(STAGES.values()):
        assert set(stage.after) <= set(STAGE_NAMES[:place]), stage.name
        assert set(stage.sections) <= Recipe.model_fields.keys(), stage.name
    assert set(SECTIONS) == {"data", "model", "base", "sft", "grpo", "merge", "evaluate", "report"}


def test_each_stage_is_a_module_that_takes_one_context() -> None:
    for stage in STAGES.values():
        parameters = inspect.signature(importlib.import_module(stage.module).run).parameters
        assert list(parameters) == ["context"], stage.name
        assert parameters["context"].annotation == StageContext.__name__, stage.name


def test_facts_agree_with_the_settings() -> None:
    for stage in STAGES.values():
        section = getattr(RECIPE, stage.name, None)
        assert stage.reads_split == hasattr(section, "split"), stage.name
        assert stage.trains == (isinstance(section, TrainingConfig) and hasattr(section, "split")), stage.name
        if stage.by_rewards:
            assert hasattr(section, "rewards"), stage.name
    assert set(RECIPE.evaluate.models) <= {stage.name for stage in STAGES.values() if stage.makes_model}


def test_stages_of_a_recipe_are_told_by_their_facts() -> None:
    assert [stage.name for stage in training_stages(["evaluate", "grpo", "sft"])] == ["sft", "grpo"]
    assert [stage.name for stage in reading_stages(RECIPE.stages)] == ["sft", "grpo", "evaluate"]
    only_grpo = recipe_from_tree(
        {"name": "x", "task": {"kind": "mcq"}, "stages": ["prepare", "grpo"], "grpo": {"split": "own"}}
    )
    assert (last_trained(only_grpo), training_split(only_grpo)) == ("grpo", "own")
    untrained = recipe_from_tree({"name": "x", "task": {"kind": "mcq"}, "stages": ["prepare", "evaluate"]})
    assert (last_trained(untrained), training_split(untrained)) == (None, untrained.sft.split)
