"""Small judges that the benchmarks ask and train: made once from nothing on built-in or given rows, and kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge.config import Recipe, recipe_from_tree
from medjudge.pipeline import run_recipe

CACHE = Path(__file__).parent / ".cache"


def recipe(
    task: dict[str, Any], data: dict[str, Any], *, sft: dict[str, Any], base: dict[str, Any] | None = None
) -> Recipe:
    """A recipe that makes a judge of a few million parameters from nothing; its run folder is named by its content."""
    tree: dict[str, Any] = {
        "runs_dir": str(CACHE),
        "stages": ["prepare", "base", "sft"],
        "task": task,
        "data": data,
        "model": {"base": "builtin:scratch", "dtype": "float32", "device": "cpu"},
        "base": {"vocab_size": 2048, "hidden_size": 256, "n_layers": 4, "epochs": 1, "max_tokens": 128, **(base or {})},
        "sft": {
            "tuning": "full",
            "completions_per_step": 16,
            "micro_batch": 16,
            "learning_rate": 1.5e-3,
            "class_balance": "oversample",
            **sft,
        },
    }
    name = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
    return recipe_from_tree({"name": f"{task['kind']}-{name}", **tree})


def make(wanted: Recipe) -> Path:
    """The run folder of the judge, made now or before."""
    return run_recipe(wanted, Console())
