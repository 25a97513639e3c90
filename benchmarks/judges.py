"""Small judges that the benchmarks ask and train: made once from nothing on built-in or given rows, and kept."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.runs.pipeline import run_recipe

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


def padded(model: Any, n_layers: int, intermediate: int) -> Any:
    """The same judge at the cost of a larger one: wider MLPs and further layers whose outputs are all zero.

    Its answers are those of the small judge, which takes minutes to train where one of this size takes an hour.
    """
    config = copy.deepcopy(model.config)
    n_own = config.num_hidden_layers
    config.num_hidden_layers, config.intermediate_size = n_layers, intermediate
    config.layer_types = ["full_attention"] * n_layers
    torch.manual_seed(0)
    large = type(model)(config)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in large.named_parameters():
            is_extra = ".layers." in name and int(name.split(".layers.")[1].split(".")[0]) >= n_own
            if "down_proj" in name or ("o_proj" in name and is_extra):
                parameter.zero_()
            if not is_extra:
                part = tuple(slice(0, size) for size in own[name].shape)
                parameter[part] = own[name]
    large.generation_config = model.generation_config
    return large.to(next(model.parameters()).dtype).eval()


def make(wanted: Recipe) -> Path:
    """The run folder of the judge, made now or before."""
    return run_recipe(wanted, Console())
