"""The all-action gradient is that of its objective, and what sampled GRPO's gradients come to on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig

from medjudge.errors import ConfigError
from medjudge.inference.labels import LabelTree, label_log_probs, read_cache
from medjudge.models.scratch import build_tokenizer
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import BaseConfig, GrpoConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.encoding import LabelIds, encode_all, encode_labels
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.training import all_action
from medjudge.training.all_action import (
    all_action_loss,
    expected_rewards,
    outcome_log_probs,
    outcome_rewards,
    train_all_action,
)
from medjudge.training.job import Beside, RewardedRows, TrainingJob
from medjudge.training.language_model import build_model
from medjudge.training.progress_callback import Watch
from medjudge.training.trl_adapter import ContractGrpoTrainer
from tests.models.random_models import random_ids, random_model

CPU = ModelConfig(device="cpu", dtype="float32")
CONTRACT = EquivalenceContract(system_prompt="", max_prompt_tokens=120, max_completion_tokens=2)
CASES = [
    Case(str(i), {"question": f"q{i}", "reference": "yes" * (1 + i % 3), "candidate": ("no", "yes")[i % 2]}, str(i % 2))
    for i in range(12)
]
LABELS = LabelIds((), ((12, 13, 14, 2), (12, 13, 15, 2), (16, 2)))


# --- the objective ----------------------------------------------------------------------------------------------------


def test_objective_by_hand() -> None:
    # Labels .5 and .2, so the leak is .3: expected reward .5 * 1 + .2 * 0 + .3 * (-1) = .2.
    log_probs = torch.tensor([[0.5, 0.2]]).log()
    outcomes = outcome_log_probs(log_probs, renormalised=False)
    torch.testing.assert_close(outcomes.exp(), torch.tensor([[0.5, 0.2, 0.3]]))
    rewards = torch.tensor([[1.0, 0.0, -1.0]])
    assert float(all_action_loss(outcomes, rewards, None, kl_coef=1.0, by_spread=False)) == pytest.approx(-0.2)
    # Variance .5 * .64 + .2 * .04 + .3 * 1.44 = .76.
    spread = math.sqrt(0.76) + all_action.SPREAD_FLOOR
    assert float(all_action_loss(outcomes, rewards, None, kl_coef=1.0, by_spread=True)) == pytest.approx(-0.2 / spread)
    reference = torch.tensor([[0.25, 0.25, 0.5]]).log()
    kl = 0.5 * math.log(2) + 0.2 * math.log(0.8) + 0.3 * math.log(0.6)
    loss = all_action_loss(outcomes, rewards, reference, kl_coef=0.1, by_spread=False)
    assert float(loss) == pytest.approx(-0.2 + 0.1 * kl)
    # Renormalised: 5/7 and 2/7.
    outcomes = outcome_log_probs(log_probs, renormalised=True)
    loss = all_action_loss(outcomes, rewards[:, :2], None, kl_coef=1.0, by_spread=False)
    assert float(loss) == pytest.approx(-5 / 7)


@pytest.mark.parametrize("probabilities", [[1.0, 0.0], [1e-20, 1e-20], [0.6, 0.4]])
@pytest.mark.parametrize("renormalised", [False, True])
def test_certain_and_hopeless_policies_give_finite_gradients(probabilities: list[float], renormalised: bool) -> None:
    log_probs = torch.tensor([probabilities]).clamp(min=1e-30).log().requires_grad_()
    outcomes = outcome_log_probs(log_probs, renormalised=renormalised)
    rewards = torch.tensor([[1.0, 0.0, -1.0]])[:, : outcomes.shape[1]]
    all_action_loss(outcomes, rewards, outcomes.detach(), kl_coef=0.1, by_spread=True).backward()
    assert log_probs.grad is not None
    assert bool(log_probs.grad.isfinite().all())


def test_rewards_are_those_of_the_contract() -> None:
    contract = AppropriatenessContract(form="answer_only")
    tokenizer = build_tokenizer(["<answer>Usually May Be Not Appropriate</answer>"] * 4, 400)
    cases = [Case("c", {"condition": "a", "variant": "b", "procedure": "c"}, "May Be Appropriate")]
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    ids = encode_labels(contract, encoded, tokenizer)

    def earned(weights: dict[str, float], gate: tuple[str, ...] = ()) -> tuple[list[float], dict[str, list[float]]]:
        plan = build_plan(weights, gate, RewardContext(contract, cases))
        totals, terms = outcome_rewards(contract, cases, encoded, ids, tokenizer, plan)
        return totals[0].tolist(), {name: values[0].tolist() for name, values in terms.items()}

    # Three labels, the second right, and the leak.
    assert earned({"accuracy": 1.0, "format": 0.5}) == (
        [0.5, 1.5, 0.5, 0.0],
        {"accuracy": [0.0, 1.0, 0.0, 0.0], "format": [1.0, 1.0, 1.0, 0.0]},
    )
    assert earned({"correctness": 1.0, "format": 0.5})[0] == [-0.5, 1.5, -0.5, -1.0]
    assert earned({"accuracy * format": 2.0}, ("schema",))[0] == [0.0, 2.0, 0.0, 0.0]


def test_expected_rewards_are_means_over_the_experts() -> None:
    contract = AppropriatenessContract(form="answer_only")
    tokenizer = build_tokenizer(["<answer>Usually May Be Not Appropriate</answer>"] * 4, 400)
    inputs = {"condition": "a", "variant": "b", "procedure": "c"}
    low, middle, high = contract.labels
    cases = [
        Case("three", inputs, high, ratings={"r": high, "s": high, "t": low}),
        Case("tie", inputs, low, ratings={"r": low, "s": middle}),
        Case("one label", inputs, middle),
    ]
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    ids = encode_labels(contract, encoded, tokenizer)
    plan = build_plan({"accuracy": 1.0, "format": 0.5}, (), RewardContext(contract, cases))
    totals, terms = expected_rewards(contract, cases, encoded, ids, tokenizer, plan)
    assert terms["accuracy"].tolist() == [
        pytest.approx([1 / 3, 0, 2 / 3, 0]),
        pytest.approx([1 / 2, 1 / 2, 0, 0]),
        pytest.approx([0, 1, 0, 0]),
    ]
    assert totals.tolist() == [
        pytest.approx([1 / 3 + 0.5, 0.5, 2 / 3 + 0.5, 0]),
        pytest.approx([1.0, 1.0, 0.5, 0]),
        pytest.approx([0.5, 1.5, 0.5, 0]),
    ]
    # The mean of what each expert alone would pay.
    alone = [
        outcome_rewards(contract, [Case("c", inputs, label)], encoded[:1], ids[:1], tokenizer, plan)[0][0]
        for label in (high, high, low)
    ]
    assert totals[0].tolist() == pytest.approx(torch.stack(alone).mean(0).tolist())


# --- the gradient -----------------------------------------------------------------------------------------------------


def flat_gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("shape", ["llama", "qwen3", "phi3"])
@pytest.mark.parametrize("renormalised", [False, True])
def test_gradient_is_that_of_finite_differences(shape: str, renormalised: bool) -> None:
    model, other = random_model(shape).double(), random_model(shape, seed=1).double()
    prefix = random_ids(9, seed=50)
    prompts = [prefix + random_ids(n, seed=n) for n in (3, 8, 1)]
    tree = LabelTree.of(LABELS)
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(3, 4 - renormalised, generator=generator, dtype=torch.float64)
    # Labels of a random model have next to no probability: raised by a constant, they and the leak take part alike.
    lift = 8.0 if renormalised else -float(label_log_probs(model, prompts, tree).detach().logsumexp(-1).max()) - 0.7

    def objective(share_prefix: bool) -> Tensor:
        cache = read_cache(model, prefix) if share_prefix else None
        outcomes = outcome_log_probs(
            label_log_probs(model, prompts, tree, prefix=cache) + lift, renormalised=renormalised
        )
        reference = outcome_log_probs(label_log_probs(other, prompts, tree), renormalised=renormalised).detach()
        return all_action_loss(outcomes, rewards, reference, kl_coef=0.3, by_spread=False)

    gradients = []
    for share_prefix in (False, True):
        model.zero_grad()
        objective(share_prefix).backward()
        gradients.append(flat_gradient(model))
    torch.testing.assert_close(gradients[0], gradients[1])
    step = 1e-3  # transformers normalises in float32, whose rounding a smaller step would measure
    for parameter in model.parameters():
        along = parameter.grad / parameter.grad.norm()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(along, alpha=sign * step)
                values.append(float(objective(False)))
                parameter.sub_(along, alpha=sign * step)
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float(parameter.grad.norm()), rel=1e-2, abs=1e-6)


@pytest.fixture(scope="module")
def judge() -> Callable[[], tuple[Any, Any]]:
    """Makes a tiny model that gives each digit about a quarter, and something else the rest: the same each time."""
    shape = BaseConfig(vocab_size=360, hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64)
    tokenizer = build_tokenizer(
        [turn["content"] for case in CASES for turn in CONTRACT.messages(case)], shape.vocab_size
    )
    model = build_model(shape, tokenizer, seed=0)
    encoded = encode_all(CONTRACT, CASES, tokenizer, with_target=False)
    tree = LabelTree.of(encode_labels(CONTRACT, encoded, tokenizer)[0])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        log_probs = label_log_probs(model, [row.prompt_ids for row in encoded], tree)
        if float(log_probs.detach().exp().sum(-1).min()) > 0.5:
            break
        optimizer.zero_grad()
        (-log_probs.mean()).backward()
        optimizer.step()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fresh() -> tuple[Any, Any]:
        copy = build_model(shape, tokenizer, seed=0)
        copy.load_state_dict(weights)
        return copy, tokenizer

    return fresh


class Gradients(TrainerCallback):  # type: ignore[misc]
    """Keeps the gradient of every optimiser step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.seen.append(flat_gradient(model).clone())


def test_sampled_grpo_gradients_average_to_it(judge: Callable[[], tuple[Any, Any]], tmp_path: Path) -> None:
    """Baseline, group and sampling change the noise of GRPO's gradient and its length, never its direction.

    With the group's mean as baseline, which holds the completion itself, the mean is (1 - 1/G) of the gradient; dr_grpo
    divides by the completion limit; without scaling by the group's standard deviation nothing else remains.
    """
    model, tokenizer = judge()
    cases = CASES[:2]
    encoded = encode_all(CONTRACT, cases, tokenizer, with_target=False)
    ids = encode_labels(CONTRACT, encoded, tokenizer)[0]
    table = dict(zip(ids.labels, (1.5, -0.5), strict=True))
    group, n_steps = 64, 30

    tree = LabelTree.of(ids)
    outcomes = outcome_log_probs(label_log_probs(model, [row.prompt_ids for row in encoded], tree), renormalised=False)
    assert float(outcomes.detach()[:, 2].exp().min()) > 0.05  # the leak takes part
    rewards = torch.tensor([[1.5, -0.5, -1.0]] * 2)
    all_action_loss(outcomes, rewards, None, kl_coef=0.0, by_spread=False).backward()
    exact = flat_gradient(model)

    def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
        return [table.get(tuple(row), -1.0) for row in completion_ids]

    watch = Gradients()
    trainer = ContractGrpoTrainer(
        model=model,
        reward_funcs=[reward],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2 * group,
            num_generations=group,
            max_completion_length=CONTRACT.max_completion_tokens,
            max_steps=n_steps,
            learning_rate=0.0,
            max_grad_norm=1e9,
            beta=0.0,
            loss_type="dr_grpo",
            scale_rewards="none",
            shuffle_dataset=False,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1000,
            top_k=0,
            seed=1,
        ),
        train_dataset=Dataset.from_list([{"prompt": row.prompt_text} for row in encoded] * n_steps),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.prompt_ids_by_text = {row.prompt_text: row.prompt_ids for row in encoded}
    trainer.train()
    sampled = torch.stack(watch.seen) * group / (group - 1) * CONTRACT.max_completion_tokens
    assert len(sampled) == n_steps
    directions = torch.randn(50, len(exact), generator=torch.Generator().manual_seed(0))
    along = (sampled - exact) @ directions.T
    z = along.mean(0) / (along.std(0) / math.sqrt(n_steps))
    assert float(z.abs().max()) < 4  # of fifty standard normal draws
    assert float(torch.cosine_similarity(sampled.mean(0), exact, dim=0)) > 0.98
    assert float(sampled.mean(0).norm() / exact.norm()) == pytest.approx(1, abs=0.1)
    assert (
        float(torch.cosine_similarity(sampled[0], exact, dim=0)) < 0.98
    )  # one batch of 128 completions is further off


# --- training ---------------------------------------------------------------------------------------------------------


def config(**over: Any) -> GrpoConfig:
    settings = {
        "algorithm": "all_action",
        "tuning": "full",
        "prompts_per_step": 4,
        "micro_batch": 4,
        "max_steps": 6,
        "learning_rate": 2e-3,
        "save_steps": 2,
        "logging_steps": 1,
        "kl_coef": 0.05,
    }
    return GrpoConfig.model_validate({**settings, **over})


def train(judge: Callable[[], tuple[Any, Any]], work: Path, settings: GrpoConfig) -> tuple[Any, list[dict[str, Any]]]:
    model, tokenizer = judge()
    plan = build_plan(settings.rewards, (), RewardContext(CONTRACT, CASES))
    rows = RewardedRows.encode(CONTRACT, CASES, tokenizer, plan)
    trained = train_all_action(TrainingJob(CONTRACT, model, tokenizer, CPU, work, 3), settings, rows, Beside())
    return trained.model, trained.history


@pytest.mark.parametrize("policy", ["with_leak", "renormalised"])
def test_training_raises_the_expected_reward(judge: Callable[[], tuple[Any, Any]], tmp_path: Path, policy: str) -> None:
    settings = config(max_steps=40, save_steps=100, learning_rate=3e-3, label_policy=policy)
    _, history = train(judge, tmp_path, settings)
    first, last = history[0], history[-2]
    assert last["reward"] > first["reward"] + 0.4
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert last["kl"] > 0.05
    assert last["entropy"] < first["entropy"]
    assert {"reward_std", "rewards/correctness/mean", "rewards/format/mean"} <= set(last)
    # One learns the format, which is worth more at first; the other has the labels alone to learn.
    if policy == "with_leak":
        assert last["leak"] < 0.2 < first["leak"]
    else:
        assert last["accuracy"] == 1.0 > first["accuracy"]
        assert last["leak"] > 0.9


def test_parts_of_a_step_add_up_to_it(judge: Callable[[], tuple[Any, Any]], tmp_path: Path) -> None:
    whole, _ = train(judge, tmp_path / "whole", config(max_steps=2))
    parts, _ = train(judge, tmp_path / "parts", config(max_steps=2, micro_batch=1))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_cut_off_training_ends_as_an_uninterrupted_one(
    judge: Callable[[], tuple[Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str
) -> None:
    settings = config(tuning=tuning, lora={"r": 2, "alpha": 4, "dropout": 0.1})
    expected, history = train(judge, tmp_path / "whole", settings)

    class Cut(Watch):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:  # past the checkpoint of step 2
                raise KeyboardInterrupt

    monkeypatch.setattr(all_action, "Watch", Cut)
    with pytest.raises(KeyboardInterrupt):
        train(judge, tmp_path / "cut", settings)
    monkeypatch.undo()
    resumed, again = train(judge, tmp_path / "cut", settings)
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [entry["step"] for entry in again] == [entry["step"] for entry in history]
    for entry, same in zip(again[:-1], history[:-1], strict=True):
        assert entry == same


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"num_iterations": 2}, "all_action has no samples to use again"),
        ({"scale_rewards": "batch"}, "all_action does not have"),
        ({"trl": {"top_entropy_quantile": 0.5}}, "all_action does not use"),
    ],
)
def test_settings_that_it_does_not_have_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_from_tree({"name": "x", "task": {"kind": "equivalence"}, "grpo": {"algorithm": "all_action", **section}})


def test_a_task_that_reasons_first_is_refused() -> None:
    with pytest.raises(ConfigError, match="answers with more than its label"):
        recipe_from_tree({"name": "x", "task": {"kind": "mcq"}, "grpo": {"algorithm": "all_action"}})
