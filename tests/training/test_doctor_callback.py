"""Each fault injected into a real GRPO run of a few steps: exactly its cause is named.

Training, sampling, rewards, gradients and held-out answers are real; where a fault lies in what a policy says, the
policy is scripted, where it lies in a reward, the reward is.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from medjudge import artifacts
from medjudge.diagnostics.signs import SIGNS
from medjudge.log import show_on
from medjudge.models.load import load_tokenizer, load_weights
from medjudge.records import Case, Rollout
from medjudge.rewards.composition import KNOWN
from medjudge.rewards.rules import RewardRule
from medjudge.rewards.shaping import repeated_share
from medjudge.settings.training import DoctorConfig
from medjudge.training.doctor_callback import DoctorWatch
from medjudge.training.trl_adapter import set_temperature
from tests.training.grpo_runs import (
    CONTRACT,
    CPU,
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
    doctor = {"window_steps": 3, "window_groups": 12, "held_out_every": 6}
    given = {"contract": REASONED, "learning_rate": 1e-3, "group_size": 8, "doctor": doctor, **settings}
    return grpo(model_dir, work, patch, held_out=make_cases(24, "h"), micro_batch=4 * given["group_size"], **given)


def sharpen_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """The logits become a thousand times as large, which leaves the likeliest token and no choice."""
    looked = DoctorWatch.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        looked(self, args, state, control, **rest)
        if state.global_step == step:
            self.trainer.model.model.norm.weight.data *= 1000

    patch.setattr(DoctorWatch, "on_step_end", on_step_end)


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
        case "label_lost":  # the policy knows two of the three labels
            script_policy(
                patch,
                lambda step, case, i: (
                    gold(case) if i % 2 and case.gold != LABELS[1] else answer(LABELS[i // 2 % 2 * 2])
                ),
            )
            return grpo(taught, work, patch)
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
        case "entropy_collapse":  # from the third step on the policy says what is likeliest, whatever the case
            sharpen_after(2, patch)
            half_known = [*make_cases(12), *make_cases(12, "d", labels=[*LABELS[1:], LABELS[0]])]
            return grpo(taught, work, patch, max_steps=6, learning_rate=1e-9, cases=half_known)
        case "not_finite":
            script_policy(patch, half_right)
            return grpo(taught, work, patch, learning_rate=1e30)
        case "hacking_repetition":
            reward(patch, "eager", lambda rollout: min(4, rollout.completion.text.count("yes")) / 4)
            return hack(styled, work, patch, rewards={"eager": 1.0}, max_steps=16)
        case "hacking_length":
            # Nothing for repeated words, so that length alone pays, whatever a processor's rounding makes of the run.
            reward(
                patch,
                "thorough",
                lambda rollout: (
                    0.0
                    if repeated_share(rollout.completion.text, 2)
                    else len(set(rollout.completion.text.split())) / 20
                ),
            )
            return hack(styled, work, patch, rewards={"thorough": 1.0}, max_steps=18)
        case "hacking_format":
            reward(patch, "certain", lambda rollout: float("certain" in rollout.completion.text))
            return hack(styled, work, patch, rewards={"certain": 1.0}, max_steps=12)
        case "overfitting":  # the labels of these rows are wrong: learning them by heart costs what was known
            wrong_rows = make_cases(24, labels=[*LABELS[1:], LABELS[0]])
            script_policy(patch, lambda step, case, i: gold(case) if i <= min(2, step // 3) else answer(wrong(case)))
            given = {"contract": CONTRACT, "cases": wrong_rows, "group_size": 4, "max_steps": 12, "learning_rate": 5e-3}
            return hack(taught, work, patch, **given)
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


def test_a_healthy_run_of_a_hundred_steps_stays_silent(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real samples, real updates, a rule to be learned and as many rows that no rule decides; windows as shipped."""
    lots = random.Random(0)
    undecided = [replace(case, gold=lots.choice(LABELS)) for case in make_cases(48, "u")]
    shipped = DoctorConfig()
    report = grpo(
        models["taught"],
        tmp_path / "work",
        monkeypatch,
        cases=[*make_cases(48), *undecided],
        held_out=make_cases(24, "h"),
        max_steps=100,
        prompts_per_step=8,
        micro_batch=32,
        doctor={name: getattr(shipped, name) for name in ("window_steps", "window_groups", "held_out_every")},
    )
    rewards = report["series"]["reward"]
    assert report["findings"] == []
    assert report["n_steps"] == len(rewards) == 100
    assert sum(rewards[-20:]) > sum(rewards[:20])  # it did learn
    accuracy = [row["accuracy"] for row in report["held_out"]]
    assert accuracy[-1] >= accuracy[0]


# --- what is done about it --------------------------------------------------------------------------------------------


class PulledPlugError(Exception):
    """The run is cut off."""


def pull_plug_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """The next run ends without a word in the middle of this step."""
    looked = DoctorWatch.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == step:
            raise PulledPlugError
        looked(self, args, state, control, **rest)

    patch.setattr(DoctorWatch, "on_step_end", on_step_end)


def test_a_cut_off_run_names_and_does_the_same(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything on that draws or changes something: resampling, a raised temperature, held-out answers."""
    settings: dict[str, Any] = {
        "max_steps": 8,
        "save_steps": 2,
        "temperature": 0.5,
        "kl_coef": 0.02,
        "learning_rate": 1e-3,
        "held_out": make_cases(12, "h"),
        "doctor": {"policy": "act", "held_out_every": 3, "max_resamples": 1},
        "rewards": {"format": 1.0},  # soon all groups are alike
    }
    whole = grpo(models["taught"], tmp_path / "whole", monkeypatch, **settings)
    with monkeypatch.context() as patch:
        pull_plug_at(7, patch)
        with pytest.raises(PulledPlugError):
            grpo(models["taught"], tmp_path / "cut", monkeypatch, **settings)
    assert artifacts.latest_checkpoint(tmp_path / "cut") is not None
    resumed = grpo(models["taught"], tmp_path / "cut", monkeypatch, **settings)
    assert resumed == whole
    assert sum(whole["series"]["resampled"]) > 0
    assert any("temperature raised from 0.50 to 0.57" in action["what"] for action in whole["actions"])
    assert [row["step"] for row in whole["held_out"]] == [0, 3, 6, 8]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("num_iterations", "kl_coef"), [(2, 0.0), (3, 0.1)])
def test_an_unchanged_policy_keeps_its_ratios_when_the_temperature_rises(
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grouped: bool,
    num_iterations: int,
    kl_coef: float,
) -> None:
    """Two windows are seen while a batch is in use; until the next batch that batch is scored as it was drawn."""
    script_policy(monkeypatch, lambda step, case, i: gold(case) if int(case.case_id[1:]) % 2 else answer(wrong(case)))
    ratios, references, temperatures = watch_ratios(monkeypatch)
    report = grpo(
        models["taught"],
        tmp_path / "work",
        monkeypatch,
        grouped=grouped,
        num_iterations=num_iterations,
        kl_coef=kl_coef,
        micro_batch=8,
        max_steps=6 * num_iterations,
        save_steps=6 * num_iterations,
        learning_rate=1e-30,  # no float32 weight moves
        doctor={"policy": "act", "max_resamples": 0, "max_temperature": 1.3},
    )
    assert len(ratios) == 2 * 6 * num_iterations
    for ratio in ratios:
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
    for difference in references:
        torch.testing.assert_close(difference, torch.zeros_like(difference), atol=1e-5, rtol=0)
    assert len(references) == (len(ratios) if kl_coef else 0)
    raised = [action["step"] for action in report["actions"]]
    # Batches are drawn in steps 1, 1 + n, ...; the second one fills the first window, the fourth the next.
    assert raised == [1 + num_iterations, 1 + 3 * num_iterations]
    assert all(step % num_iterations for step in raised)  # in the middle of a batch
    assert [t for _, t in temperatures] == pytest.approx([1.0, 1.0, 1.15, 1.15, 1.3, 1.3])
    assert [step for step, _ in temperatures] == [i * num_iterations for i in range(6)]


def watch_ratios(
    patch: pytest.MonkeyPatch,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[int, float]]]:
    """(importance ratios of each micro-batch, log-ratios to the reference, (step, temperature) of each generation)."""
    ratios: list[torch.Tensor] = []
    references: list[torch.Tensor] = []
    temperatures: list[tuple[int, float]] = []
    loss, draw = GRPOTrainer._compute_loss, GRPOTrainer._generate_and_score_completions

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        scored = self._get_per_token_logps_and_entropies

        def recorded(*args: Any, **kwargs: Any) -> Any:
            now = scored(*args, **kwargs)
            mask = inputs["completion_mask"].bool()
            ratios.append((now[0] - inputs["old_per_token_logps"])[mask].detach().exp())
            if "ref_per_token_logps" in inputs and inputs["ref_per_token_logps"] is not None:
                references.append((now[0] - inputs["ref_per_token_logps"])[mask].detach())
            return now

        self._get_per_token_logps_and_entropies = recorded
        try:
            return loss(self, model, inputs)
        finally:
            del self._get_per_token_logps_and_entropies

    def generate(self: Any, inputs: Any) -> Any:
        temperatures.append((self.state.global_step, float(self.temperature)))
        return draw(self, inputs)

    patch.setattr(GRPOTrainer, "_compute_loss", compute_loss)
    patch.setattr(GRPOTrainer, "_generate_and_score_completions", generate)
    return ratios, references, temperatures


def test_a_temperature_raised_while_a_batch_was_in_use_is_there_after_a_resume(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of a batch decides, the checkpoint after it holds the decision, the resumed run draws by it."""
    script_policy(monkeypatch, lambda step, case, i: gold(case) if int(case.case_id[1:]) % 2 else answer(wrong(case)))
    settings: dict[str, Any] = {
        "num_iterations": 2,
        "save_steps": 4,
        "max_steps": 10,
        "doctor": {"policy": "act", "max_resamples": 0},
    }
    whole = grpo(models["taught"], tmp_path / "whole", monkeypatch, **settings)
    with monkeypatch.context() as patch:
        pull_plug_at(6, patch)
        with pytest.raises(PulledPlugError):
            grpo(models["taught"], tmp_path / "cut", monkeypatch, **settings)
    _, _, temperatures = watch_ratios(monkeypatch)
    assert grpo(models["taught"], tmp_path / "cut", monkeypatch, **settings) == whole
    assert [step for step, _ in temperatures] == [4, 6, 8]
    assert [t for _, t in temperatures] == pytest.approx([1.15, 1.15, 1.15**2])


def test_stop_saves_and_ends_and_is_not_trained_on(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_policy(monkeypatch, lambda step, case, i: gold(case) if int(case.case_id[1:]) % 2 else answer(wrong(case)))
    settings: dict[str, Any] = {"max_steps": 6, "doctor": {"policy": "stop"}}
    report = grpo(models["taught"], tmp_path / "work", monkeypatch, **settings)
    assert (report["stopped_step"], report["n_steps"]) == (2, 2)
    assert report["actions"] == [{"step": 2, "what": "stopped and saved: all groups have zero reward variance"}]
    checkpoint = artifacts.latest_checkpoint(tmp_path / "work")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-2"
    assert grpo(models["taught"], tmp_path / "work", monkeypatch, **settings) == report  # cut off after it had stopped


def test_what_is_named_is_said_at_once_with_what_to_do(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_policy(monkeypatch, lambda step, case, i: f"[{i}] {gold(case)}")
    out = io.StringIO()
    with show_on(Console(file=out, width=400)):
        grpo(models["taught"], tmp_path / "work", monkeypatch)
    said = out.getvalue()
    assert "warning: doctor, step 2: no completion can be read." in said
    assert "32 of 32 completions (steps 1 to 2) could not be read" in said
    assert "All begin with '['." in said
    assert "medjudge preflight" in said
    assert said.count("doctor, step") == 1


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_log_probabilities_follow_a_changed_temperature(models: dict[str, Path], temperature: float) -> None:
    tokenizer = load_tokenizer(models["taught"], None)
    model = load_weights(models["taught"], CPU, tokenizer)
    ids = torch.tensor([tokenizer("<answer>May Be Appropriate</answer>")["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, :-1]
    add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
    trainer = SimpleNamespace(
        temperature=1.0,
        generation_config=SimpleNamespace(),
        generation_kwargs={},
        use_vllm=False,
        model=model,
        ref_model=None,
        args=SimpleNamespace(cast_lm_head_to_fp32=False),
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
    )
    set_temperature(trainer, temperature)
    with torch.no_grad():
        out = model(input_ids=ids, labels=ids, fused_lm_head=True)
    expected = torch.log_softmax(logits / temperature, -1)
    torch.testing.assert_close(out.log_probs, expected.gather(-1, ids[:, 1:, None]).squeeze(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.entropy, -(expected.exp() * expected).sum(-1), atol=1e-5, rtol=1e-4)
    assert (trainer.generation_config.temperature, trainer.generation_kwargs["temperature"]) == (temperature,) * 2
