"""A run folder whose notes are damaged: the file is named, and no page fails half-way."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medjudge.commands.score import ScoreOptions, label_scale, score
from medjudge.errors import RunError
from medjudge.reporting.card import write_card
from medjudge.reporting.gather import gather
from medjudge.reporting.html import render_html
from medjudge.settings.evaluate import ReportConfig

PREFLIGHT = {
    "n_cases": 6,
    "n_at_maximum": 6,
    "maximum": 1.0,
    "n_prompts_cut": 0,
    "checks": [{"name": "gold", "status": "passed", "told": "6 of 6.", "causes": [], "evidence": None}],
    "terms": [
        {
            **{"name": "accuracy", "weight": 1.0, "most": 1.0, "gold": 1.0, "shuffled": 0.0},
            **{"policy": None, "policy_sd": None, "groups_with_spread": None},
        }
    ],
    "verdict": "passed",
}
DOCTOR = {
    "policy": "warn",
    "n_steps": 2,
    "stopped_step": None,
    "findings": [
        {
            **{"name": "kl", "title": "drift", "severity": "warning", "since_step": 1, "last_step": 2},
            **{"sentence": "So.", "advice": "Less.", "evidence": [{"case_id": "c1"}], "explained_by": None},
        }
    ],
    "actions": [{"step": 1, "what": "lowered"}],
    "held_out": [{"step": 1, "n": 3, "accuracy": 0.5}],
}
MANIFEST = {
    **{"stage": "sft", "inputs": {}, "inputs_sha256": "x", "outputs": {}, "versions": {"medjudge": "0"}},
    "summary": {"n_prompts_shortened": 2, "n_cases": 3, "n_words_cut": 5},
}
LINEAGE = {
    **{"stage": "merge", "kind": "merged", "base": "b", "weights_sha256": "a"},
    "ancestry": [{"stage": "base", "kind": "base", "name": "b", "weights_sha256": "b"}],
    "merge": {"n_positions": 3, "max_logit_difference": 0.1, "share_unchanged_tokens": 0.5},
}


def results_tree(tmp_path: Path) -> Any:
    rows = [{"id": f"c{i}", "label": "no", "gold": ("no", "yes")[i % 2], "group": f"q{i}"} for i in range(6)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = score([str(path)], label_scale("no,yes"), ScoreOptions(n_resamples=50)).results.to_json()
    tree["models"]["a"]["lineage"] = copy.deepcopy(LINEAGE)
    return tree


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Path in the run folder -> what it holds; `folder` the run folder."""
    return {
        "evaluate/results.json": results_tree(tmp_path),
        "evaluate/recipe.json": {"name": "x", "evaluate": {"split": "test"}},
        "evaluate/manifest.json": copy.deepcopy(MANIFEST),
        "sft/manifest.json": copy.deepcopy(MANIFEST),
        "grpo/preflight.json": copy.deepcopy(PREFLIGHT),
        "grpo/doctor.json": copy.deepcopy(DOCTOR),
        "grpo/history.json": [{"step": 1, "loss": 0.5, "note": "first"}, {"loss": 0.4}],
    }


def page(files: dict[str, Any], folder: Path) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    inputs = gather(folder, ReportConfig(show_text=True))
    write_card(inputs, folder)
    return render_html(inputs, [])


def test_whole_notes_stand_on_the_page(run: dict[str, Any], tmp_path: Path) -> None:
    html = page(run, tmp_path / "run")
    for words in ("6 of 6.", "drift", "lowered"):
        assert words.lower() in html.lower(), words


DAMAGE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a finding without its steps": ("grpo/doctor.json", lambda tree: tree["findings"][0].pop("since_step")),
    "findings that are texts": ("grpo/doctor.json", lambda tree: tree.update(findings=["x"])),
    "steps that are no number": ("grpo/doctor.json", lambda tree: tree.update(n_steps="x")),
    "actions that are an object": ("grpo/doctor.json", lambda tree: tree.update(actions={"a": 1})),
    "an accuracy that is a list": ("grpo/doctor.json", lambda tree: tree["held_out"][0].update(accuracy=[])),
    "a step that is a text": ("grpo/history.json", lambda rows: rows[0].update(step="x")),
    "a loss that no float holds": ("grpo/history.json", lambda rows: rows[0].update(loss=10**400)),
    "a step that is a list": ("grpo/history.json", lambda rows: rows[0].update(step=[1])),
    "an unknown check": ("grpo/preflight.json", lambda tree: tree["checks"][0].update(name="x")),
    "a count that is an object": ("grpo/preflight.json", lambda tree: tree.update(n_cases={"a": 1})),
    "a weight that is a text": ("grpo/preflight.json", lambda tree: tree["terms"][0].update(weight="x")),
    "a summary that is null": ("sft/manifest.json", lambda tree: tree.update(summary=None)),
    "a summary with a list": ("sft/manifest.json", lambda tree: tree["summary"].update(n_cases=[])),
    "versions that are a list": ("evaluate/manifest.json", lambda tree: tree.update(versions=["x"])),
    "settings that are a list": ("evaluate/recipe.json", lambda tree: tree.update(evaluate=["x"])),
    "a confusion of another shape": (
        "evaluate/results.json",
        lambda tree: tree["models"]["a"]["confusion"]["counts"].pop(),
    ),
    "ancestors that are texts": (
        "evaluate/results.json",
        lambda tree: tree["models"]["a"]["lineage"].update(ancestry=["x"]),
    ),
    "a merge with a text": (
        "evaluate/results.json",
        lambda tree: tree["models"]["a"]["lineage"]["merge"].update(max_logit_difference="x"),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_notes_are_told_by_their_file(run: dict[str, Any], tmp_path: Path, name: str) -> None:
    path, damage = DAMAGE[name]
    damage(run[path])
    with pytest.raises(RunError, match=path):
        page(run, tmp_path / "run")


def test_a_leakage_report_of_another_shape_is_left_out(run: dict[str, Any], tmp_path: Path) -> None:
    run["evaluate/results.json"]["leakage"] = {"comparisons": [None]}
    run["evaluate/results.json"]["models"]["a"]["unanswered"] = {"of another version": 1}
    assert "Data and leakage" in page(run, tmp_path / "run")


def test_the_preflight_of_this_version_is_read_as_it_was_written() -> None:
    from medjudge.diagnostics.preflight import Preflight

    tree = Preflight.from_json(PREFLIGHT).to_json()
    assert Preflight.from_json(json.loads(json.dumps(tree))).to_json() == tree
