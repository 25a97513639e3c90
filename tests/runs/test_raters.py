"""A run that learns from several experts' ratings: each in turn, then their expected reward."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.commands.plan import _steps
from medjudge.data.store import Split
from medjudge.metrics.result_types import Results
from medjudge.recipe import recipe_from_tree
from medjudge.runs.pipeline import run_recipe
from tests.small_runs import LABELS, small_tree, write_rows

CONSOLE = Console(quiet=True)


def with_raters(path: Path) -> Path:
    """Three experts in place of the one label: every fourth case is rated otherwise by one, some by all three."""
    rng = random.Random(1)
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        label = row.pop("appropriateness")
        votes = [label, label, label]
        if number % 4 == 0:
            votes[rng.randrange(3)] = rng.choice(LABELS)
        if number % 20 == 7:
            votes = list(LABELS)
        rows.append({**row, **dict(zip(("ann", "bob", "cleo"), votes, strict=True))})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("mode", ["each", "drawn"])
def test_a_run_learns_from_ratings_and_reports_the_ceiling(tmp_path: Path, mode: str) -> None:
    tree = small_tree(with_raters(write_rows(tmp_path / "rows.jsonl", 30)), tmp_path / "runs")
    tree["data"]["raters"] = ["ann", "bob", "cleo"]
    tree["stages"] = ["prepare", "base", "sft", "grpo", "evaluate"]
    tree["sft"] |= {"ratings": mode, "max_steps": 6 if mode == "each" else -1, "epochs": 3}
    tree["grpo"] |= {"algorithm": "all_action", "ratings": "expected", "tuning": "full", "max_steps": 2}
    recipe = recipe_from_tree(tree)
    run_dir = run_recipe(recipe, CONSOLE, force=True)
    train = Split.of(run_dir / "prepare", "train").read()
    tied = [case for case in train if case.gold is None]
    assert tied
    assert all(len(case.ratings) == 3 for case in train)
    data = artifacts.read_json(run_dir / "prepare" / artifacts.DATA)
    assert sum(source["n_tied"] for source in data["sources"].values()) >= len(tied)
    sft = artifacts.read_json(run_dir / "sft" / artifacts.MANIFEST)["summary"]
    # Cases on which the experts tie are learned from, too.
    assert (sft["n_cases"], sft["n_targets"]) == (len(train), 3 * len(train))
    steps = _steps(recipe, "sft", train)[2]
    history = artifacts.read_json(run_dir / "sft" / artifacts.HISTORY)
    assert max(entry["step"] for entry in history) == steps
    grpo = artifacts.read_json(run_dir / "grpo" / artifacts.MANIFEST)["summary"]
    assert grpo["n_cases"] == len(Split.of(run_dir / "prepare", "grpo").read())
    results = artifacts.read_as(run_dir / "evaluate" / artifacts.RESULTS, Results.from_json)
    assert results.experts is not None
    assert set(results.experts.judges) == set(results.of_role("model"))
    assert results.experts.n_raters == 3
