"""Rank sweep that sweeps the learning rate: rsLoRA with a fixed alpha.

Published: rank-stabilised (Q)LoRA for judges, as in "Phi-4 as an LLM Evaluator: Benchmarking and Fine-Tuning
Experiments" (https://flow-ai.com/blog/phi-4-as-llm-evaluator), with "multiple separate hyperparameter runs" of which
the post gives neither rank nor learning rate. The scale is alpha/sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732).
What happens: under Adam each of an adapter's weights moves by about the learning rate, so a step changes the output by
learning rate x scale x r. LoRA's alpha/r was chosen to make that free of r (Hu et al. 2021, arXiv:2106.09685, section
4.1). With alpha/sqrt(r) and a fixed alpha it grows as sqrt(r): rank 128 against rank 8 is four times the learning rate,
and "a higher rank is better" may say no more than "the learning rate was too low".
What stops it here: the plan and the lineage state rank, scale and learning rate; an evaluation whose adapters differ in
rank and in step says so among its statements.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from rich.console import Console

from medjudge import artifacts
from medjudge.commands.evaluate import EvaluateOptions, evaluate_folder
from medjudge.metrics import sentences as statements
from medjudge.models.adapters import lora_config
from medjudge.models.scratch import build_tokenizer
from medjudge.recipe import recipe_from_tree
from medjudge.runs.pipeline import run_recipe
from medjudge.settings.data import DataConfig
from medjudge.settings.model import LoraSettings
from medjudge.settings.training import BaseConfig
from medjudge.training.language_model import build_model
from tests.models.small_models import TEXT, save_base
from tests.replays.common import Guard
from tests.small_runs import small_tree, write_rows

RANKS = (8, 32, 128)
ALPHA = 16
LEARNING_RATE = 1e-4
SEEDS = range(4)
SHAPE = BaseConfig(vocab_size=320, hidden_size=64, n_layers=2, n_heads=2, intermediate_size=128)


def settings(r: int, *, rslora: bool) -> LoraSettings:
    return LoraSettings(r=r, alpha=ALPHA, dropout=0.0, rslora=rslora)


@cache
def fall(r: int, rslora: bool, learning_rate: float = LEARNING_RATE) -> float:
    """By how much one AdamW step on a fresh adapter lowers the loss, on average over SEEDS."""
    tokenizer = build_tokenizer(TEXT, SHAPE.vocab_size)
    ids = torch.tensor([tokenizer(" ".join(TEXT[:3]))["input_ids"]])
    falls = []
    for seed in SEEDS:
        model: Any = build_model(SHAPE, tokenizer, seed=0)
        torch.manual_seed(seed)
        adapted = get_peft_model(model, lora_config(settings(r, rslora=rslora)))
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        trainable = [p for p in adapted.parameters() if p.requires_grad]
        torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=0.0).step()
        with torch.no_grad():
            falls.append(float(loss - adapted(input_ids=ids, labels=ids).loss))
    return sum(falls) / len(falls)


@cache
def published() -> tuple[str, ...]:
    lines = []
    for rslora, name in ((True, "rsLoRA"), (False, "LoRA")):
        measured = [fall(r, rslora) / fall(RANKS[0], rslora) for r in RANKS]
        steps = [settings(r, rslora=rslora).step(LEARNING_RATE).size for r in RANKS]
        expected = [step / steps[0] for step in steps]
        close = all(0.85 < found / wanted < 1.15 for found, wanted in zip(measured, expected, strict=True))
        assert close, "a first step is not as large as its rank and scale say"
        ranks = ", ".join(map(str, RANKS))
        lines.append(
            f"published | {name}, alpha {ALPHA} at ranks {ranks}: the first step lowers the loss by "
            f"1 : {measured[1]:.1f} : {measured[2]:.1f} (expected 1 : {expected[1]:.1f} : {expected[2]:.1f})"
        )
    same_rank = fall(RANKS[0], True, 4 * LEARNING_RATE) / fall(RANKS[0], True)
    assert 3.6 < same_rank < 4.4
    return (*lines, f"published | rsLoRA at rank 8 with four times the learning rate: 1 : {same_rank:.1f}")


def caught(folder: Path) -> list[str]:
    """Two SFT runs that differ in rank alone, compared as a user compares them."""
    rows, base = write_rows(folder / "rows.jsonl", 12), save_base(folder / "base")
    models = {f"rank-{r}": str(adapter_of(folder, rows, base, r)) for r in (8, 128)}
    tree = small_tree(rows, folder / "runs", evaluate={"n_resamples": 100, "baselines": False, "max_cases": 12})
    recipe = recipe_from_tree(tree)
    data = DataConfig(fields={"condition": "topic"})
    evaluate_folder(
        recipe.contract,
        str(rows),
        models,
        folder / "compared",
        Console(quiet=True),
        data,
        recipe,
        EvaluateOptions(where=["topic=Pain"]),
    )
    said = artifacts.read_json(folder / "compared" / artifacts.RESULTS)["statements"]
    about_rank = [sentence for sentence in said if "rank" in sentence and "learning rate" in sentence]
    assert len(about_rank) == 1, "two ranks are compared without a word on their steps"
    return [f"medjudge  | {about_rank[0]}"]


def adapter_of(folder: Path, rows: Path, base: Path, r: int) -> Path:
    """One optimiser step of the sft stage: enough for an adapter and its lineage."""
    tree = small_tree(rows, folder / "runs", name=f"rank-{r}", stages=["prepare", "sft"])
    tree["model"]["base"] = str(base)
    tree["data"]["splits"] = {"train": 0.5, "test": 0.5}
    tree["sft"] |= {"tuning": "lora", "lora": {"r": r, "alpha": ALPHA, "rslora": True}, "max_steps": 1}
    return run_recipe(recipe_from_tree(tree), Console(quiet=True)) / "sft" / artifacts.MODEL


def replay(folder: Path) -> list[str]:
    return [*published(), *caught(folder)]


GUARDS = (
    Guard(
        "the statement on ranks (`rank_sweep`) is left out",
        lambda patch: patch.setattr(statements, "rank_sweep", lambda steps: None),
        "two ranks are compared without a word on their steps",
    ),
)
