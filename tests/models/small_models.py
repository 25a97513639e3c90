"""Models of a few thousand parameters, with a tokenizer of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from medjudge.models.lineage import Lineage, ancestry_of, describe_parent, weights_sha256
from medjudge.models.scratch import build_tokenizer
from medjudge.settings.training import BaseConfig
from medjudge.tasks.encoding import Encoded
from medjudge.training.language_model import build_model

TEXT = ["Is a chest radiograph right for acute chest pain?", "<answer>Usually Appropriate</answer>", "May Be Not"] * 20
SHAPE = BaseConfig(vocab_size=320, hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64)


def save_base(folder: Path, seed: int = 0, shape: BaseConfig = SHAPE) -> Path:
    """Whole weights with a lineage of their own."""
    tokenizer = build_tokenizer(TEXT, shape.vocab_size)
    model = build_model(shape, tokenizer, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Lineage(kind="base", stage="base", weights_sha256=weights_sha256(folder), base="builtin:scratch").write(folder)
    return folder


def save_adapter(folder: Path, parent: Path, seed: int = 1) -> Path:
    """A LoRA adapter with random weights on `parent`, so that it changes what the model says."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(parent)
    peft_model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    peft_model.save_pretrained(folder)
    Lineage(
        kind="adapter",
        stage="sft",
        weights_sha256=weights_sha256(folder),
        base="builtin:scratch",
        parent=describe_parent(parent, str(parent), folder),
        ancestry=ancestry_of(parent, str(parent)),
    ).write(folder)
    return folder


def teach(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], *, steps: int, n_rows: int, learning_rate: float
) -> None:
    """Plain steps of AdamW on the completions of `n_rows` rows each, drawn by a fixed seed."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = [rows[i] for i in torch.randperm(len(rows), generator=generator)[:n_rows].tolist()]
        width = max(len(row.prompt_ids) + len(row.completion_ids or ()) for row in chosen)
        ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
        labels = torch.full((len(chosen), width), -100)
        for k, row in enumerate(chosen):
            whole = torch.tensor([*row.prompt_ids, *(row.completion_ids or ())])
            ids[k, : len(whole)] = whole
            labels[k, len(row.prompt_ids) : len(whole)] = whole[len(row.prompt_ids) :]
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
