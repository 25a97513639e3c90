"""GRPO runs of a few steps on a model of some ten thousand parameters; what the policy writes can be scripted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medjudge.inference.local import LocalEngine
from medjudge.models.load import load_tokenizer, load_weights
from medjudge.models.scratch import build_tokenizer
from medjudge.records import Case, Verdict
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import BaseConfig, GrpoConfig
from medjudge.tasks.appropriateness import LABELS, AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode_all
from medjudge.tasks.tokenizers import stop_token_ids
from medjudge.training.grpo import ContractGroupedTrainer, train_grpo
from medjudge.training.job import Beside, RewardedRows, TrainingJob
from medjudge.training.language_model import build_model
from medjudge.training.trl_adapter import ContractGrpoTrainer
from tests.models.small_models import teach

CONTRACT = AppropriatenessContract(form="answer_only", system_prompt="", max_prompt_tokens=64, max_completion_tokens=40)
REASONED = AppropriatenessContract(form="reasoning", system_prompt="", max_prompt_tokens=64, max_completion_tokens=48)
STYLES = {  # how the styled model reasons -> (share, whether its answer is then right)
    "as the rule says": (0.55, True),
    "pain is old new left right deep far near low high mild": (0.15, False),
    "so it is yes so it is yes so it is yes": (0.15, False),
    "it is certain": (0.15, False),
}
SHAPE = BaseConfig(vocab_size=400, hidden_size=48, n_layers=1, n_heads=2, intermediate_size=96)
PROCEDURES = ("CT contrast", "MRI plain", "Radiography")
CPU = ModelConfig(device="cpu", dtype="float32")

Script = Callable[[int, Case, int], str]
"""(step, case, place in the group) -> what the policy writes; it is cut off at the limit if it is longer."""


def make_cases(n: int, prefix: str = "c", *, labels: Sequence[str] = LABELS) -> list[Case]:
    """The procedure alone decides the label."""
    return [
        Case(
            f"{prefix}{i}",
            {"condition": "Pain", "variant": f"adult {prefix} {i}", "procedure": PROCEDURES[i % 3]},
            gold=labels[i % 3],
        )
        for i in range(n)
    ]


def answer(label: str | None) -> str:
    """The completion that gives a label."""
    return f"<answer>{label}</answer>"


def wrong(case: Case, by: int = 1) -> str:
    """A label that the case has not."""
    return LABELS[(LABELS.index(str(case.gold)) + by) % 3]


def leaning(cases: Sequence[Case]) -> list[Case]:
    """Each case seven times, five times with its own label and once with each other: a policy with a choice left."""
    return [replace(case, gold=label) for case in cases for label in (*[str(case.gold)] * 4, *LABELS)]


def styled(cases: Sequence[Case]) -> list[Case]:
    """Each case many times: reasons in each style by its share, with a wrong label where the style is wrong."""
    return [
        replace(case, reason=reason, gold=case.gold if is_right else wrong(case, 1 + n % 2))
        for case in cases
        for reason, (share, is_right) in STYLES.items()
        for n in range(round(20 * share))
    ]


def save_taught(folder: Path, steps: int = 150, *, styles: bool = False) -> Path:
    """A model that answers in form, right in five of seven samples; with `styles`, one that reasons in four ways."""
    contract = REASONED if styles else CONTRACT
    cases = (styled if styles else leaning)(make_cases(96))
    tokenizer = build_tokenizer(
        [t for case in cases[:500] for t in (contract.messages(case)[0]["content"], contract.target(case))],
        SHAPE.vocab_size,
    )
    model = build_model(SHAPE, tokenizer, seed=0)
    rows = encode_all(contract, cases, tokenizer, with_target=True)
    teach(model, tokenizer, rows, steps=steps, n_rows=32, learning_rate=5e-3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def held_out_judge(contract: TaskContract, tokenizer: Any, cases: Sequence[Case]) -> Callable[[Any], str]:
    """Real greedy answers of the real weights."""

    def judge(model: Any) -> str:
        completions = LocalEngine(model, tokenizer).generate(contract, cases)
        judged = [contract.parse(case.case_id, c.text) for case, c in zip(cases, completions, strict=True)]
        return "".join(
            "1" if isinstance(j, Verdict) and j.label == case.gold else "0"
            for j, case in zip(judged, cases, strict=True)
        )

    return judge


def script_policy(patch: pytest.MonkeyPatch, write: Script) -> None:
    """From here on the trainer's policy writes what the script says; everything after sampling is real."""

    def generate(self: Any, prompt_ids: Any, images: Any, fields: Any, n: int, has_tool_images: bool = False) -> Any:
        tokenizer, size = self.processing_class, self.num_generations
        stop, by_id = stop_token_ids(tokenizer)[0], {case.case_id: case for case in self.scripted_cases}
        completions = []
        for place, row in enumerate(self._rows):
            text = write(self.state.global_step, by_id[row["case_id"]], place % size)
            ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], stop]
            completions.append(ids[: CONTRACT.max_completion_tokens])
        return completions, None

    for trainer in (ContractGrpoTrainer, ContractGroupedTrainer):
        patch.setattr(trainer, "_generate_single_turn", generate)


def grpo(
    model_dir: Path,
    work: Path,
    patch: pytest.MonkeyPatch,
    *,
    cases: Sequence[Case] = (),
    held_out: Sequence[Case] = (),
    pass_rates: dict[str, float] | None = None,
    contract: TaskContract = CONTRACT,
    prepare: Callable[[Any], None] = lambda model: None,
    **settings: Any,
) -> dict[str, Any]:
    """What the doctor saw: 4 prompts x 4 completions a step, findings from two steps and eight groups on."""
    doctor = {"window_steps": 2, "window_groups": 8, "held_out_every": 5, **settings.pop("doctor", {})}
    config = GrpoConfig(
        **{
            **{"tuning": "full", "max_steps": 4, "prompts_per_step": 4, "group_size": 4, "micro_batch": 16},
            **{"learning_rate": 1e-4, "kl_coef": 0.0, "save_steps": 1000, "logging_steps": 3, "doctor": doctor},
            **{"lr_scheduler": "constant", "warmup_ratio": 0.0, "rewards": {"accuracy": 1.0, "format": 0.5}},
            **settings,
        }
    )
    cases = list(cases) or make_cases(24)
    tokenizer = load_tokenizer(model_dir, None)
    model = load_weights(model_dir, CPU, tokenizer, train_all=True)
    prepare(model)
    patch.setattr(ContractGrpoTrainer, "scripted_cases", cases, raising=False)
    plan = build_plan(config.rewards, config.reward_gate, RewardContext(contract, cases))
    work.mkdir(parents=True, exist_ok=True)
    judge = held_out_judge(contract, tokenizer, held_out) if held_out else None
    rows = RewardedRows.encode(contract, cases, tokenizer, plan)
    job = TrainingJob(contract, model, tokenizer, CPU, work, 7)
    report = train_grpo(job, config, rows, Beside(judge, pass_rates or {})).doctor
    assert report is not None
    return report
