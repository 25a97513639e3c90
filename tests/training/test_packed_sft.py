"""SFT by the pass for CPUs: losses, metrics and gradients of TRL's own loss, and a line where it steps aside."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig

from medjudge.models.scratch import build_tokenizer
from medjudge.settings.model import ModelConfig
from medjudge.training.packed_sft import PackedSftTrainer
from tests.models.random_models import random_ids, random_model

PROMPT = random_ids(24, seed=7)
ROWS = [
    {"input_ids": (ids := PROMPT + random_ids(n + m, seed=n)), "labels": [-100] * (24 + n) + ids[24 + n :]}
    for n, m in ((30, 2), (3, 5), (11, 1), (4, 4))
]


def build(work: Path, tuning: str, **arguments: Any) -> PackedSftTrainer:
    """A trainer on two batches of two rows; the same weights each time."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return PackedSftTrainer(
        model=random_model("llama"),
        args=SFTConfig(
            output_dir=str(work),
            per_device_train_batch_size=2,
            num_train_epochs=2,
            learning_rate=1e-3,
            max_length=None,
            train_sampling_strategy="sequential",
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=arguments.pop("gradient_checkpointing", False),
            **arguments,
        ),
        train_dataset=Dataset.from_list(ROWS),
        eval_dataset=Dataset.from_list(ROWS),
        processing_class=build_tokenizer(["a b c"] * 4, 300),
        peft_config=lora if tuning == "lora" else None,
    )


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_training_is_that_of_trl(tmp_path: Path, tuning: str, accumulate: int) -> None:
    logs = []
    for packed in (False, True):
        trainer = build(tmp_path, tuning, gradient_accumulation_steps=accumulate, eval_strategy="epoch")
        if packed:
            trainer.use_packed(ModelConfig())
            assert trainer.forward is not None
        trainer.train()
        logs.append(trainer.state.log_history)
    theirs, ours = logs
    assert len(theirs) == len(ours) >= 4
    for a, b in zip(theirs, ours, strict=True):
        assert a.keys() == b.keys()
        for name in ("loss", "eval_loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens"):
            assert a.get(name, 0) == pytest.approx(b.get(name, 0), rel=1e-4), name


@pytest.mark.parametrize(
    ("model", "arguments", "reason"),
    [
        (ModelConfig(attn_implementation="sdpa"), {}, "model.attn_implementation"),
        (ModelConfig(dtype="float16"), {}, "float16"),
        (ModelConfig(), {"gradient_checkpointing": True}, "checkpointed"),
        (ModelConfig(), {"loss_type": "dft"}, "another loss"),
        (ModelConfig(), {"neftune_noise_alpha": 5.0}, "noise"),
    ],
)
def test_it_steps_aside_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: ModelConfig, arguments: dict[str, Any], reason: str
) -> None:
    trainer = build(tmp_path, "full", **arguments)
    with caplog.at_level(logging.INFO, "medjudge"):
        trainer.use_packed(model)
    assert trainer.forward is None
    (message,) = caplog.messages
    assert reason in message


def test_a_pass_that_disagrees_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(tmp_path, "full")
    monkeypatch.setattr("medjudge.models.cpu_functions._rotated", lambda x, cos, sin: x)
    with caplog.at_level(logging.INFO, "medjudge"):
        trainer.use_packed(ModelConfig())
    assert trainer.forward is None
    assert "log-probabilities differ" in caplog.messages[0]
