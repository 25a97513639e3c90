"""Each row of a training is rendered and tokenised once in its stage, whatever looks at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.models.small_models import save_base
from tests.small_runs import small_tree, write_rows

from medjudge.diagnostics import preflight
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case
from medjudge.runs.pipeline import run_recipe
from medjudge.runs.run_dir import RunDir
from medjudge.tasks import encoding
from medjudge.training import job, save, sft

QUIET = Console(quiet=True)


def test_a_row_is_encoded_once_per_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_encoded: Counter[str] = Counter()

    def counted(contract: Any, cases: Sequence[Case], *rest: Any, **more: Any) -> Any:
        n_encoded.update(case.case_id for case in cases)
        return encoding.encode_all(contract, cases, *rest, **more)

    for module in (preflight, job, save, sft):
        monkeypatch.setattr(module, "encode_all", counted)
    tree = small_tree(write_rows(tmp_path / "rows.jsonl", 12), tmp_path / "runs")
    tree["model"]["base"] = str(save_base(tmp_path / "base"))
    tree["stages"] = ["prepare", "sft", "grpo"]
    tree["sft"] |= {"max_steps": 1, "tuning": "lora", "class_balance": "oversample"}
    tree["grpo"] |= {"max_steps": 1, "preflight": {"prompts": 0}, "doctor": {"held_out_cases": 0}}
    recipe = recipe_from_tree(tree)
    run = RunDir(run_recipe(recipe, QUIET, last="prepare"))
    for stage in ("sft", "grpo"):
        run_recipe(recipe, QUIET, first=stage, last=stage, force=True)
        rows = run.split(getattr(recipe, stage).split).read()
        assert n_encoded == Counter(case.case_id for case in rows), stage
        n_encoded.clear()
