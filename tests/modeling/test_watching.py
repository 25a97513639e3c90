"""Each fault injected into a real GRPO run of a few steps: exactly its cause is named.

Training, sampling, rewards, gradients and held-out answers are real; where a fault lies in what a policy says, the policy
is scripted, where it lies in a reward, the reward is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from medjudge.records import Case, Rollout
from medjudge.rewards.composition import KNOWN
from medjudge.rewards.doctor import SIGNS
from medjudge.rewards.rules import RewardRule
from tests.modeling.grpo_runs import (
    CONTRACT,
    LABELS,
    REASONED,
    answer,
    grpo,
    make_cases,
    save_taught,
    script_policy,
    wrong,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that answers in form and mostly right, one with random weights, one that reasons in four styles."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "taught": save_taught(folder / "taught"),
        "untaught": save_taught(folder / "untaught", steps=0),
        "styled": save_taught(folder / "styled", steps=120, styles=True),
    }


def gold(case: Case) -> str:
    return answer(case.gold)


def half_right(step: int, case: Case, i: int) -> str:
    return gold(case) if i % 2 else answer(wrong(case))


def reward(patch: pytest.MonkeyPatch, name: str, pays: Callable[[Rollout], float], most: float = 1.0) -> None:
    """A reward of the test's own under a name that a recipe could use."""
    patch.setitem(KNOWN, name, RewardRule(pays, 0.0, most, "made for a test"))


def hack(model_dir: Path, work: Path, patch: pytest.MonkeyPatch, **settings: Any) -> dict[str, Any]:
    """A run long enough for the policy to find what pays, with held-out answers judged beside it."""
    given = {"contract": REASONED, "learning_rate": 2e-3, "max_steps": 20, **settings}
    return grpo(model_dir, work, patch, held_out=make_cases(48, "h"), **given)


def run_of(name: str, models: Mapping[str, Path], work: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The run into which the fault `name` is injected."""
    taught, untaught, styled = models["taught"], models["untaught"], models["styled"]
    match name:
        case "all_unparsed":  # published failure 1: a think block that the parser does not know
            script_policy(patch, lambda step, case, i: f"<think>\n\n</think>\n\n{half_right(step, case, i)}")
            return grpo(taught, work, patch)
        case "truncated":
            return grpo(untaught, work, patch)
        case "no_spread":
            script_policy(patch, lambda step, case, i: gold(case) if int(case.case_id[1:]) % 2 else answer(wrong(case)))
            return grpo(taught, work, patch)
        case "all_correct":
            script_policy(patch, lambda step, case, i: gold(case))
            return grpo(taught, work, patch)
        case "all_wrong":  # the labels of the training rows stand one off
            shifted = make_cases(24, labels=[*LABELS[1:], LABELS[0]])
            script_policy(patch, lambda step, case, i: answer(wrong(case, 1 + i % 2)) if i else "no idea")
            return grpo(taught, work, patch, cases=shifted)
        case "components_cancel":
            script_policy(patch, half_right)
            return grpo(taught, work, patch, rewards={"accuracy": 1.0, "correctness": -0.5})
        case "constant_component":
            script_policy(patch, half_right)
            reward(patch, "citations_exist", lambda rollout: 0.0)
            return grpo(taught, work, patch, rewards={"accuracy": 1.0, "citations_exist": 0.5})
        case "zero_gradient":
            script_policy(patch, half_right)
            return grpo(taught, work, patch, prepare=cut_gradients)
        case "kl_runaway":
            script_policy(patch, half_right)
            return grpo(taught, work, patch, learning_rate=0.03, kl_coef=0.001, max_steps=6)
        case "entropy_runaway":
            script_policy(patch, half_right)
            bonus = {"entropy_coef": 5.0}
            return grpo(taught, work, patch, learning_rate=5e-3, max_steps=12, trl=bonus)
        case "entropy_collapse":  # one label is paid whatever the case, and soon it is all that is said
            reward(patch, "favourite", lambda rollout: float(LABELS[1] in rollout.completion.text))
            return grpo(
                taught, work, patch, learning_rate=1e-3, max_steps=20, rewards={"favourite": 1.0, "format": 0.5}
            )
        case "not_finite":
            script_policy(patch, half_right)
            return grpo(taught, work, patch, learning_rate=1e30)
        case "hacking_repetition":
            reward(patch, "eager", lambda rollout: rollout.completion.text.count("yes") / 3)
            return hack(styled, work, patch, rewards={"eager": 1.0})
        case "hacking_length":
            reward(patch, "thorough", lambda rollout: len(set(rollout.completion.text.split())) / 20)
            return hack(styled, work, patch, rewards={"thorough": 1.0})
        case "hacking_format":
            reward(patch, "certain", lambda rollout: float("certain" in rollout.completion.text))
            return hack(styled, work, patch, rewards={"certain": 1.0, "accuracy": 0.2})
        case "overfitting":  # the rows' labels are noise: learning them costs what was known
            noise = make_cases(24, labels=[*LABELS[1:], LABELS[0]])
            return hack(taught, work, patch, contract=CONTRACT, cases=noise, rewards={"accuracy": 1.0})
    raise AssertionError(name)


def cut_gradients(model: Any) -> None:
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient * 0)


@pytest.mark.parametrize("name", SIGNS)
def test_exactly_the_injected_cause_is_named(
    name: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run_of(name, models, tmp_path / "work", monkeypatch)
    causes = [finding for finding in report["findings"] if finding["explained_by"] is None]
    assert [finding["name"] for finding in causes] == [name], (report["findings"], report["series"], report["held_out"])
