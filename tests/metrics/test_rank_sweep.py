"""Ranks compared at unequal steps, with scales and steps worked out by hand."""

from __future__ import annotations

import pytest

from medjudge.metrics.sentences import rank_sweep
from medjudge.records import AdapterStep
from medjudge.settings.model import LoraSettings


@pytest.mark.parametrize(
    ("r", "alpha", "rslora", "scale", "size"),
    [
        (16, 32, False, 2.0, 0.0032),  # 1e-4 x 2 x 16
        (64, 32, False, 0.5, 0.0032),  # with alpha/r the rank cancels
        (16, 32, True, 8.0, 0.0128),  # 32 / 4
        (64, 32, True, 4.0, 0.0256),  # 32 / 8: half the scale, four times the rank
        (1, 1, True, 1.0, 0.0001),
    ],
)
def test_scale_and_step_by_hand(r: int, alpha: int, rslora: bool, scale: float, size: float) -> None:
    step = LoraSettings(r=r, alpha=alpha, rslora=rslora).step(1e-4)
    assert (step.r, step.scale, step.learning_rate) == (r, scale, 1e-4)
    assert step.size == pytest.approx(size)


def at(r: int, alpha: int, rslora: bool, learning_rate: float = 1e-4) -> AdapterStep:
    return LoraSettings(r=r, alpha=alpha, rslora=rslora).step(learning_rate)


@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"one": at(16, 32, True)},
        {"a": at(8, 16, False), "b": at(64, 16, False)},  # alpha/r: a fair sweep of ranks
        {"a": at(16, 16, True, 1e-4), "b": at(64, 16, True, 5e-5)},  # half the rate for four times the rank
        {"a": at(16, 16, True, 1e-4), "b": at(16, 16, True, 2e-4)},  # a sweep of learning rates, and says so
    ],
    ids=["none", "one", "lora", "rslora-held", "one-rank"],
)
def test_nothing_is_said_of_a_fair_comparison(steps: dict[str, AdapterStep]) -> None:
    assert rank_sweep(steps) is None


def test_unequal_steps_are_told_with_their_ratio() -> None:
    sentence = rank_sweep({"a": at(16, 16, True), "b": at(64, 16, True), "c": at(256, 16, True)})
    assert sentence is not None
    assert "a (rank 16, scale 4), b (rank 64, scale 2), c (rank 256, scale 1)" in sentence
    assert "a step of c (learning rate x scale x rank) is 4.0 times that of a" in sentence


def test_more_alpha_for_more_rank_is_told_too() -> None:
    # LoRA with alpha = 2r keeps the scale at 2, and so makes the step grow with r itself.
    sentence = rank_sweep({"a": at(8, 16, False), "b": at(64, 128, False)})
    assert sentence is not None
    assert "a step of b (learning rate x scale x rank) is 8.0 times that of a" in sentence
