"""GRPO by the pass for CPUs against stock TRL: losses, gradients and metrics of one batch, and the same rollouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from medjudge.settings.model import ModelConfig
from medjudge.training.grouped import GroupedGrpoTrainer
from tests.training.test_grouped import LAYOUTS, batch, loss_and_gradient, trainer


def packed(shape: str, tuning: str) -> Any:
    """A trainer that uses the pass."""
    ours = trainer(GroupedGrpoTrainer, shape, tuning, False)
    ours.use_packed(ModelConfig())
    assert len(ours.forwards) == 1
    return ours


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "all masked"])
@pytest.mark.parametrize(("shape", "tuning"), [("llama", "lora"), ("qwen3", "full"), ("gemma3", "lora")])
def test_losses_and_gradients_are_stock_trls(shape: str, tuning: str, layout: str) -> None:
    inputs, settings = batch(LAYOUTS[layout], has_old=True), {"beta": 0.04, "loss_type": "dapo"}
    stock = loss_and_gradient(trainer(GRPOTrainer, shape, tuning, False), inputs, settings)
    ours = loss_and_gradient(packed(shape, tuning), inputs, settings)
    assert stock[1].norm() > 0
    torch.testing.assert_close(ours[0], stock[0], rtol=1e-5, atol=1e-6)
    assert (ours[1] - stock[1]).norm() <= 1e-5 * stock[1].norm() + 1e-9
    assert ours[2] == {
        name: pytest.approx(values, rel=1e-4, abs=1e-6, nan_ok=True) for name, values in stock[2].items()
    }


def test_a_batch_in_which_nothing_is_scored_has_a_gradient_of_zero() -> None:
    ours = packed("llama", "lora")
    _, gradient, _ = loss_and_gradient(ours, batch(LAYOUTS["all masked"], has_old=False), {"beta": 0.0})
    assert not gradient.any()


def test_adapters_that_are_switched_off_are_left_out() -> None:
    ours = packed("qwen3", "lora")
    inputs = batch(LAYOUTS["ragged"], has_old=False)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad(), ours.model.disable_adapter():
        off = ours._grouped_logps_and_entropies(ours.model, ids, mask, inputs["completion_ids"].shape[1])[0]
        ours.forwards.clear()
        theirs = ours._grouped_logps_and_entropies(ours.model, ids, mask, inputs["completion_ids"].shape[1])[0]
    torch.testing.assert_close(off, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_rollouts_are_those_without_it(tuning: str) -> None:
    prompts = [[5, 6, 7, 8, 9, 10, 11]] * 4 + [[5, 6, 7, 20, 21]] * 4
    drawn = []
    for is_packed in (False, True):
        one = packed("llama", tuning) if is_packed else trainer(GroupedGrpoTrainer, "llama", tuning, False)
        for seed in (4, 5):
            torch.manual_seed(seed)
            drawn.append(one._generate_single_turn(prompts, None, None, 4)[0])
            with torch.no_grad():  # what is kept for decoding follows the weights
                for parameter in one.model.parameters():
                    if parameter.requires_grad:
                        parameter.mul_(2.0 if seed == 4 else 0.5)
        one.forwards.clear()  # the trainer is shared with other tests
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]


def test_it_steps_aside_where_attention_is_named() -> None:
    ours = trainer(GroupedGrpoTrainer, "llama", "full", False)
    ours.use_packed(ModelConfig(attn_implementation="sdpa"))
    assert not ours.forwards


def test_it_steps_aside_from_an_entropy_bonus() -> None:
    """Its entropies carry no gradient."""
    ours = trainer(GroupedGrpoTrainer, "llama", "full", False)
    ours.args.entropy_coef = 0.1
    ours.use_packed(ModelConfig())
    ours.args.entropy_coef = 0.0
    assert not ours.forwards
