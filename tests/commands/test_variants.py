"""Variants of a recipe: laid over it, trained by one command, what is equal made once, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.commands.variants import run_variants
from medjudge.errors import ConfigError, DataError
from medjudge.metrics.variants import Variants, step_times
from medjudge.models.contract import TrainedUnder
from medjudge.recipe import variants_from_tree
from medjudge.runs.pipeline import STAGES
from tests.small_runs import small_tree, write_rows

BASE: dict[str, Any] = {"name": "x", "task": {"kind": "mcq"}, "grpo": {"max_steps": 5}}


def test_a_variant_is_the_recipe_with_its_table_laid_over_it() -> None:
    variants = {"a": {}, "b": {"grpo": {"max_steps": 9, "rewards": {"_replace": True, "accuracy": 1.0}}}}
    recipe, found = variants_from_tree({**BASE, "runs_dir": "out", "variants": variants})
    assert list(found) == ["a", "b"]
    assert [one.grpo.max_steps for one in found.values()] == [5, 9]
    assert found["b"].grpo.rewards == {"accuracy": 1.0}
    assert recipe.grpo.max_steps == 5
    assert [one.run_dir for one in found.values()] == [Path("out/x/a"), Path("out/x/b")]


def test_the_command_line_wins_over_a_variant_and_a_profile_may_change_one() -> None:
    tree = {
        **BASE,
        "variants": {"a": {"grpo": {"max_steps": 9}}},
        "profiles": {"p": {"variants": {"a": {"seed": 7}, "b": {}}}},
    }
    assert variants_from_tree(tree, ["grpo.max_steps=2"])[1]["a"].grpo.max_steps == 2
    found = variants_from_tree(tree, ["profile=p", "name=y"])[1]
    assert (list(found), found["a"].seed, found["a"].grpo.max_steps) == (["a", "b"], 7, 9)
    assert found["b"].run_dir == Path("runs/y/b")
    tree["profiles"]["p"]["variants"]["a"] = False
    assert list(variants_from_tree(tree, ["profile=p"])[1]) == ["b"]


def test_a_table_that_a_variant_replaces_is_its_own() -> None:
    variants = {"a": {}, "b": {"data": {"_replace": True, "source": "builtin:mcq"}}}
    tree = {**BASE, "data": {"source": "x"}, "variants": variants}
    found = variants_from_tree(tree, ["data.source=mine.jsonl", "grpo.max_steps=2"])[1]
    assert [one.data.source for one in found.values()] == ["mine.jsonl", "builtin:mcq"]
    assert [one.grpo.max_steps for one in found.values()] == [2, 2]


def judged(name: str) -> dict[str, Any]:
    return {"grpo": {"reward_settings": {"llm": {"judge": name}}}}


def test_a_judge_may_be_what_an_earlier_variant_trains() -> None:
    found = variants_from_tree({**BASE, "variants": {"judge": {}, "b": judged("variant:judge")}})[1]
    assert found["b"].grpo.reward_settings.llm.judge == str(Path("runs/x/judge/sft/model"))
    assert variants_from_tree({**BASE, "variants": {"b": judged("some/model")}})[1][
        "b"
    ].grpo.reward_settings.llm.judge == ("some/model")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (
            {"b": judged("variant:jugde")},
            r"\[variants.b\]: `grpo.reward_settings.llm.judge` is 'variant:jugde'",
        ),
        ({"b": judged("variant:b")}, "no variant before it has that name: it is the first"),
        (
            {"b": {"grpo": {"max_step": 1}}},
            r"\[variants.b\]: unknown key `grpo.max_step` \(did you",
        ),
        ({"b": 3}, r"`variants` must hold tables such as \[variants.NAME.sft\]"),
        ({"../b": {}}, "a variant cannot be called"),
    ],
)
def test_wrong_variants_are_refused_in_words(variants: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variants_from_tree({**BASE, "variants": variants})


def test_step_times_by_hand() -> None:
    found = step_times({"a": [1.0, 1.0], "b": [2.0, 4.0], "c": []}, "a", level=0.95, n_resamples=400, seed=0)
    assert set(found) == {"a", "b"}
    seconds, relative = found["b"]
    assert relative is not None
    assert (seconds.value, relative.value) == (3.0, 3.0)
    assert (relative.low, relative.high) == (2.0, 4.0)
    assert found["a"][1] is not None
    assert (found["a"][1].value, found["a"][1].low) == (1.0, None)


# --- a real run -------------------------------------------------------------------------------------------------------


def tree_of(folder: Path) -> dict[str, Any]:
    tree = small_tree(write_rows(folder / "rows.jsonl", n_variants=30), folder / "runs", evaluate={"n_resamples": 200})
    tree["sft"] |= {"epochs": 1, "save_steps": 50}
    tree["grpo"] |= {
        "max_steps": 2,
        "preflight": {"prompts": 0},
        "doctor": {"held_out_cases": 0},
        "rewards": {"accuracy": 1.0, "format": 0.5},
    }
    tree["evaluate"] |= {"models": ["grpo"]}
    tree["variants"] = {
        "plain": {"evaluate": {"models": ["sft", "grpo"]}},
        "scale": {"grpo": {"rewards": {"_replace": True, "ordinal": 1.0, "format": 0.5}}},
        "reasons": {"grpo": {"rewards": {"_replace": True, "llm": 1.0}, "reward_settings": {"llm": {"judge": "none"}}}},
    }
    return tree


def test_one_command_trains_the_variants_shares_what_is_equal_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medjudge.rewards.llm.LoadedWhenAsked", lambda *_: SimpleNamespace(client=None))
    monkeypatch.setattr("medjudge.rewards.llm.trained_under", TrainedUnder)
    console = Console(width=200, record=True)
    recipe, variants = variants_from_tree(tree_of(tmp_path))
    folder = run_variants(recipe, variants, console)
    said = console.export_text()
    assert folder == tmp_path / "runs" / "small" / "compare"

    made = {name: artifacts.read_json(variants[name].run_dir / "sft" / artifacts.MANIFEST) for name in variants}
    assert made["scale"] == made["plain"], "SFT is made once"
    assert said.count("taken from there") == 6  # prepare, base and sft of the second and the third
    weights = [variants[name].run_dir / "sft" / "model" / "model.safetensors" for name in ("plain", "scale")]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino

    table = Variants.model_validate(artifacts.read_json(folder / artifacts.VARIANTS))
    assert [row.name for row in table.rows] == ["sft", "plain", "scale"]
    assert table.rows[2].rewards == {"ordinal": 1.0, "format": 0.5}
    assert table.rows[1].relative_time is not None
    assert table.rows[1].relative_time.value == 1.0
    assert table.rows[2].metrics["macro_f1"].value is not None
    assert "reason" in table.not_trained["reasons"]
    assert "reasons" in said
    assert "not trained" in said
    own = artifacts.read_json(variants["scale"].run_dir / "evaluate" / artifacts.RESULTS)
    compared = artifacts.read_json(folder / artifacts.RESULTS)
    assert compared["models"]["scale"]["metrics"] == own["models"]["grpo"]["metrics"]
    assert {(c["a"], c["b"]) for c in compared["comparisons"]} >= {("scale", "plain")}
    page = (folder / artifacts.REPORT).read_text(encoding="utf-8")
    assert 'id="variants"' in page
    assert (folder / "figures" / "variants.png").exists()

    again = Console(width=200, record=True)
    run_variants(recipe, variants, again)
    titles = {stage.title for stage in STAGES.values()}
    ran = [line.partition(" (")[0] for line in again.export_text().splitlines()]
    ran = [line.strip() for line in ran if line[10:].strip() in titles]
    assert ran == ["grpo      train on rewards"], "only the variant that was left out is tried again"
    weights[1].unlink()
    assert weights[0].exists(), "a variant's folder can be deleted without harm to its siblings"

    rows = (variants["scale"].run_dir / "evaluate" / artifacts.VERDICTS).read_text(encoding="utf-8").splitlines()
    kept = [line for line in rows if json.loads(line)["case_id"] != json.loads(rows[0])["case_id"]]
    evaluated = variants["scale"].run_dir / "evaluate"
    (evaluated / artifacts.VERDICTS).write_text("\n".join(kept) + "\n", encoding="utf-8")
    manifest = artifacts.read_json(evaluated / artifacts.MANIFEST)  # as if the evaluation had written them
    manifest["outputs"][artifacts.VERDICTS]["sha256"] = artifacts.sha256_file(evaluated / artifacts.VERDICTS)
    manifest["outputs"][artifacts.VERDICTS]["bytes"] = (evaluated / artifacts.VERDICTS).stat().st_size
    artifacts.write_json(evaluated / artifacts.MANIFEST, manifest)
    from medjudge.commands.compare import compare_variants

    with pytest.raises(DataError, match="variant scale was evaluated on other cases than plain"):
        compare_variants(recipe, variants, {"reasons": "no reasons"})
