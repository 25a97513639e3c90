"""Only positions that carry loss reach the LM head, and the loss and its gradients are those of TRL as it comes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import trl.trainer.utils
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from medjudge.tiny_base.tiny import build_tokenizer
from medjudge.training.trl_adapter import head_on_labels_only
from tests.models.random_models import VOCAB, random_ids, random_model

# Prompts of 30, 3, 11 and completions of 2, 5, 1 tokens.
ROWS = [
    {"input_ids": (ids := random_ids(n + m, seed=n)), "labels": [-100] * n + ids[n:]}
    for n, m in ((30, 2), (3, 5), (11, 1))
]


def loss_and_gradients(work: Path, tuning: str, ours: bool) -> tuple[float, list[torch.Tensor], list[int]]:
    """(loss, gradients, positions scored in each call) of one batch of all rows."""
    model = random_model("qwen3")
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(work),
            per_device_train_batch_size=len(ROWS),
            max_length=None,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=build_tokenizer(["a b c"] * 4, 300),
        peft_config=LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if tuning == "lora" else None,
    )
    scored: list[int] = []
    whole: Callable[..., Any] = trl.trainer.utils._ChunkedLogProbFunction.apply

    class Counting:
        @staticmethod
        def apply(hidden: torch.Tensor, *rest: Any) -> Any:
            scored.append(len(hidden))
            return whole(hidden, *rest)

    with pytest.MonkeyPatch.context() as patch, head_on_labels_only() if ours else nullcontext():
        patch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Counting)
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(ROWS))
        loss.backward()
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    return float(loss.detach()), gradients, scored


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_loss_and_gradients_are_those_of_trl(tmp_path: Path, tuning: str) -> None:
    torch.manual_seed(0)
    loss, gradients, scored = loss_and_gradients(tmp_path / "trl", tuning, ours=False)
    torch.manual_seed(0)
    same, others, fewer = loss_and_gradients(tmp_path / "ours", tuning, ours=True)
    assert scored == [3 * 31]  # every position that has a next one, padding too
    assert fewer == [2 + 5 + 1]
    assert same == pytest.approx(loss, rel=1e-6)
    assert len(gradients) == len(others) > 0
    for a, b in zip(gradients, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert max(row["input_ids"][-1] for row in ROWS) < VOCAB


def test_trl_is_left_as_it_was() -> None:
    before, cpu = trl.trainer.utils._use_triton, torch.device("cpu")
    with suppress(KeyboardInterrupt), head_on_labels_only():
        assert trl.trainer.utils._use_triton(cpu)
        raise KeyboardInterrupt
    assert trl.trainer.utils._use_triton is before
    assert not before(cpu)
