"""A recipe small enough for a test: some hundred made-up imaging orders and a model of a few thousand parameters."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

LABELS = ("Usually Not Appropriate", "May Be Appropriate", "Usually Appropriate")


def write_rows(path: Path, n_variants: int = 50, seed: int = 0) -> Path:
    """Three orders for each variant; the procedure alone decides the rating, so a small model can learn it."""
    rng = random.Random(seed)
    rows = []
    for i in range(n_variants):
        words = " ".join(
            rng.choice(["acute", "chronic", "knee", "chest", "pain", "trauma", "adult", "child"]) for _ in range(6)
        )
        for procedure, label in zip(("CT contrast", "MRI plain", "Radiography"), LABELS, strict=True):
            rows.append(
                {
                    "topic": "Pain" if i % 2 else "Trauma",
                    "variant": f"variant {i} {words}",
                    "procedure": procedure,
                    "appropriateness": label,
                }
            )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def small_tree(rows: Path, runs_dir: Path, **over: Any) -> dict[str, Any]:
    """The recipe as a tree; `over` replaces whole sections."""
    tree: dict[str, Any] = {
        "name": "small",
        "runs_dir": str(runs_dir),
        "task": {
            "kind": "appropriateness",
            "form": "answer_only",
            "instructions": "terse",
            "max_prompt_tokens": 120,
            "max_completion_tokens": 12,
        },
        "data": {
            "source": str(rows),
            "fields": {"condition": "topic"},
            "splits": {"train": 0.6, "grpo": 0.2, "test": 0.2},
        },
        "model": {"base": "builtin:scratch", "dtype": "float32", "device": "cpu"},
        "base": {
            "vocab_size": 400,
            "hidden_size": 64,
            "n_layers": 2,
            "n_heads": 2,
            "intermediate_size": 128,
            "max_position_embeddings": 256,
            "epochs": 1,
            "batch_size": 16,
        },
        "sft": {
            "tuning": "full",
            "epochs": 16,
            "completions_per_step": 8,
            "micro_batch": 8,
            "learning_rate": 3e-3,
            "save_steps": 5,
            "logging_steps": 2,
        },
        "grpo": {
            "split": "grpo",
            "tuning": "lora",
            "lora": {"r": 4, "alpha": 8},
            "max_steps": 8,
            "group_size": 4,
            "prompts_per_step": 4,
            "micro_batch": 8,
            "learning_rate": 1e-3,
            "save_steps": 2,
            "logging_steps": 1,
            "rewards": {"accuracy": 1.0, "format": 0.5},
        },
        "evaluate": {"n_resamples": 200},
    }
    return {**tree, **over}


def write_toml(path: Path, tree: dict[str, Any]) -> Path:
    """The tree as a recipe file."""
    import tomlkit

    path.write_text(tomlkit.dumps(tree), encoding="utf-8")
    return path
