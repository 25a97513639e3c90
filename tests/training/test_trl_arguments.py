"""The order of rows and the number of steps, worked out by hand."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from trl import GRPOConfig

from medjudge.errors import ConfigError
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import GrpoConfig, SftConfig
from medjudge.training.grpo import grpo_order
from medjudge.training.sft import oversampled
from medjudge.training.trl_arguments import (
    epoch_order,
    grpo_arguments,
    length_grouped_order,
    n_steps,
    settings_in_force,
    sft_arguments,
)

CPU = ModelConfig(device="cpu", dtype="float32")


def test_each_epoch_holds_each_row_once() -> None:
    order = epoch_order(10, 2.5, seed=3)
    assert len(order) == 25
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert len(set(order[20:])) == 5
    assert order[:10] != order[10:20]
    assert order == epoch_order(10, 2.5, seed=3)


def test_length_grouping_keeps_rows_and_saves_padding() -> None:
    lengths = [(i * 37) % 101 + 1 for i in range(403)]  # no multiple of the batch: epochs do not end with a batch

    def padding(order: list[int]) -> int:
        batches = [order[i : i + 8] for i in range(0, len(order), 8)]
        return sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches)

    grouped = length_grouped_order(lengths, 3, 8, seed=1)
    assert Counter(grouped) == Counter(dict.fromkeys(range(403), 3))
    assert padding(grouped) < padding(epoch_order(403, 3, seed=1)) / 4


@pytest.mark.parametrize(
    ("epochs", "max_steps", "drop_last", "steps"),
    [(1.0, -1, False, 4), (1.0, -1, True, 3), (2.0, -1, False, 7), (1.0, 5, False, 5), (1.0, 2, True, 2)],
)
def test_steps_of_ten_rows_three_a_step(epochs: float, max_steps: int, drop_last: bool, steps: int) -> None:
    assert n_steps(10, epochs, 3, max_steps, drop_last=drop_last) == steps


def test_grpo_counts_prompts_not_completions() -> None:
    # 50 cases, 2 prompts a step: an epoch is 25 steps, whatever the group size.
    order, steps = grpo_order(50, GrpoConfig(prompts_per_step=2, group_size=4, micro_batch=8), seed=0)
    assert (len(order), steps) == (50, 25)
    order, steps = grpo_order(50, GrpoConfig(prompts_per_step=2, group_size=4, micro_batch=8, max_steps=400), seed=0)
    assert (len(order), steps) == (800, 400)
    # Each batch of completions serves two optimiser steps.
    order, steps = grpo_order(50, GrpoConfig(prompts_per_step=5, group_size=4, micro_batch=4, num_iterations=2), seed=0)
    assert (len(order), steps) == (50, 20)


def test_settings_reach_trl(tmp_path: Path) -> None:
    config = GrpoConfig(
        prompts_per_step=2,
        group_size=4,
        micro_batch=4,
        kl_coef=0.1,
        loss_type="bnpo",
        trl={"top_entropy_quantile": 0.5},
    )
    arguments = grpo_arguments(config, CPU, tmp_path, max_tokens=12, steps=7, seed=1)
    assert arguments.num_generations == 4
    assert arguments.per_device_train_batch_size == 4
    assert arguments.gradient_accumulation_steps == arguments.steps_per_generation == 2
    assert arguments.generation_batch_size == 8
    assert (arguments.beta, arguments.loss_type, arguments.top_entropy_quantile) == (0.1, "bnpo", 0.5)
    sft = sft_arguments(
        SftConfig(completions_per_step=12, micro_batch=4, optimizer="adafactor"),
        CPU,
        tmp_path,
        steps=3,
        eval_steps=None,
        seed=1,
    )
    assert (sft.per_device_train_batch_size, sft.gradient_accumulation_steps, sft.optim) == (4, 3, "adafactor")


@pytest.mark.parametrize(
    ("trl", "message"),
    [({"beta": 0.5}, "repeats what the recipe sets elsewhere: beta"), ({"bta": 1}, "TRL refuses the grpo settings")],
)
def test_wrong_passthrough_is_refused(tmp_path: Path, trl: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grpo_arguments(GrpoConfig(trl=trl), CPU, tmp_path, max_tokens=12, steps=7, seed=1)


def test_oversampling_evens_labels_and_keeps_every_case() -> None:
    cases = [Case(str(i), {}, gold) for i, gold in enumerate("AAAAABBC")]
    chosen = oversampled(cases, seed=0)
    assert Counter(case.gold for case in chosen) == {"A": 5, "B": 5, "C": 5}
    assert {case.case_id for case in chosen} == {str(i) for i in range(8)}
    assert Counter(case.case_id for case in chosen)["5"] in (2, 3)  # five B out of two: two rounds and one more


def test_a_manifest_holds_trls_own_settings_that_change_gradients() -> None:
    tree = {"name": "x", "task": {"kind": "appropriateness", "form": "answer_only"}}
    default = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    in_force = settings_in_force("grpo", recipe_from_tree(tree))
    assert in_force["use_bias_correction_kl"] == default["use_bias_correction_kl"]
    changed = recipe_from_tree({**tree, "grpo": {"trl": {"use_bias_correction_kl": False}}})
    assert settings_in_force("grpo", changed)["use_bias_correction_kl"] is False
    assert "loss_type" in settings_in_force("sft", changed)
    sums = recipe_from_tree({**tree, "grpo": {"algorithm": "all_action"}})
    assert settings_in_force("grpo", sums) == {}  # trained without TRL
