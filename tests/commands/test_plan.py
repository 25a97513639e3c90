"""What `--dry-run` says, how soon, and how it comes to its times."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.commands import estimate, plan
from medjudge.commands.estimate import SPREAD, StageWork, span
from medjudge.commands.model_shape import scratch_shape
from medjudge.commands.plan import print_plan, stage_works
from medjudge.recipe import Recipe, demo_recipe, load_recipe, recipe_from_tree
from medjudge.runs.pipeline import stage_inputs
from medjudge.runs.run_dir import RunDir
from medjudge.stages.prepare import prepare_splits
from tests.small_runs import small_tree, write_rows, write_toml

RECIPES = Path(__file__).parents[2] / "recipes"
WORDS = ("fever", "cough", "adult", "acute", "chronic", "child", "pain", "left", "right", "severe")


def rows_of(recipe: str, path: Path) -> Path:
    """Some rows with the columns that a published recipe reads."""
    rows = []
    for i in range(60):
        text = f"case {i} {WORDS[i % 10]} {WORDS[i // 10]}"
        rows.append(
            {
                "topic": text,
                "condition": text,
                "generator": f"generator {i % 3}",
                "variant": text,
                "procedure": f"procedure {i % 3}",
                "appropriateness": ("Usually Not Appropriate", "May Be Appropriate", "Usually Appropriate")[i % 3],
                "question": text,
                "reference": WORDS[i % 10],
                "candidate": WORDS[(i * 3) % 10],
                "label": i % 2,
                "input": text,
                "output": f"answer {i}",
                "criteria": "Is the answer right?",
                **{f"score{n}": f"level {n}" for n in range(1, 6)},
                "score": i % 5 + 1,
                "opa": f"a{i}",
                "opb": f"b{i}",
                "opc": f"c{i}",
                "opd": f"d{i}",
                "cop": i % 4,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plan_text(recipe: Recipe, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_plan(recipe, console, first=None, last=None)
    return console.export_text()


@pytest.mark.parametrize("name", ["acr", "french_judge", "rubric_judge", "medmcqa"])
def test_a_plan_needs_no_torch_and_little_time(name: str, tmp_path: Path) -> None:
    """Seconds of processor time, which other programs do not add to. torch and transformers' models alone take more."""
    arguments = ["run", str(RECIPES / f"{name}.toml"), "--dry-run", "--set", f"runs_dir={tmp_path}"]
    rows = rows_of(name, tmp_path / "rows.jsonl")
    arguments += ["--set", "profile=tiny", "--set", f"data.source={rows}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "medjudge", *arguments], capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0, errors
    assert not re.search(r"\| +(torch|trl|peft|datasets)\n", done.stderr)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 5, "less than 3 s without -X importtime on a processor of its own"
    assert re.search(r"time: about \d", done.stdout)


@pytest.mark.parametrize("task", ["mcq", "appropriateness"])
def test_the_plan_fits_80_columns(task: str, tmp_path: Path) -> None:
    text = plan_text(demo_recipe(task, 42, tmp_path))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for word in ("longest", "steps", "GiB", "test", "evaluate"):
        assert word in text
    assert re.search(r"of the first 400 cases", text)


def test_the_shape_of_a_model_from_nothing_is_that_of_the_built_one(tmp_path: Path) -> None:
    import torch

    from medjudge.models.scratch import build_tokenizer
    from medjudge.training.language_model import build_model

    tree = small_tree(tmp_path, tmp_path)
    tree["base"] |= {"hidden_size": 96, "n_layers": 3, "n_heads": 3, "intermediate_size": 200}
    recipe = recipe_from_tree(tree)
    tokenizer = build_tokenizer(["some words to read " * 3, "and others"], 300)
    with torch.device("meta"):
        model = build_model(recipe.base, tokenizer, 0)
    shape = scratch_shape(recipe.base, len(tokenizer))
    assert shape.n_parameters == sum(p.numel() for p in model.parameters())
    config = model.config
    assert (shape.hidden_size, shape.n_layers, shape.vocab_size) == (96, 3, config.vocab_size)


def test_an_adapter_is_counted(tmp_path: Path) -> None:
    recipe = recipe_from_tree(small_tree(write_rows(tmp_path / "rows.jsonl"), tmp_path / "runs"))
    assert re.search(r"grpo .* [\d,]+ of [\d,]+", plan_text(recipe, 120))


def test_seconds_of_a_training_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 tokens x 1e6 parameters x 6 = 6e9 operations at 1e9 a second, by the efficiency, and what is fixed."""
    work = StageWork("sft", 1_000_000, 4, trained=1000)
    assert estimate._seconds(work, 1e9, most=False) == pytest.approx(
        estimate.FIXED_S["sft"] + 6 / estimate.TRAIN_EFFICIENCY
    )
    monkeypatch.setattr(estimate, "matmul_flops", lambda: 1e9)
    monkeypatch.setattr(estimate, "free_processors", lambda work: (work(), 1.0)[1])
    monkeypatch.setattr(estimate, "n_processors", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    recipe = demo_recipe("mcq", 42, Path("runs"))
    times = estimate.estimate([work], recipe)
    assert times is not None
    assert times.n_threads == 1, "one of two processors is free"
    computed = estimate._seconds(work, 1e9, most=False)
    assert times.seconds["sft"] == pytest.approx((SPREAD[0] * computed, SPREAD[1] * computed))
    assert times.sentence.startswith(f"time: about {span(SPREAD[0] * computed, SPREAD[1] * computed)} on this machine")


def test_a_threads_setting_is_what_the_estimate_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "matmul_flops", lambda: 1e9)
    monkeypatch.setattr(estimate, "free_processors", lambda work: (work(), 4.0)[1])
    monkeypatch.setattr(estimate, "n_processors", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    work = [StageWork("sft", 10, 1, trained=1)]
    times = estimate.estimate(work, demo_recipe("mcq", 42, Path("runs")))
    asked = estimate.estimate(work, demo_recipe("mcq", 42, Path("runs"), ["model.threads=2"]))
    assert times is not None
    assert asked is not None
    assert (times.n_threads, asked.n_threads) == (3, 2)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(480, 900, "8 to 15 min"), (40, 130, "40 s to 2 min"), (119, 121, "2 min"), (5000, 20_000, "83 min to 5.6 h")],
)
def test_a_range_in_words(low: float, high: float, words: str) -> None:
    assert span(low, high) == words


def test_work_of_the_demo_by_hand(tmp_path: Path) -> None:
    recipe = demo_recipe("equivalence", 42, tmp_path)
    splits = prepare_splits(recipe)
    lengths = {name: plan.Lengths(50.0, 80, 30.0, 49, 400, 0, 0, 0) for name in splits}
    shape = plan.ModelShape(5_000_000, 256, 4, 4096)
    works = {work.name: work for work in stage_works(recipe, splits, lengths, shape, recipe.stages)}
    # 1,200 rows in steps of 8: 150 steps of 8 rows of 80 tokens.
    assert works["sft"].trained == 150 * 8 * 80
    # 20 steps of 8 prompts of 50 tokens, each read once, and 64 answers of 30.
    assert works["grpo"].trained == 20 * (8 * 50 + 64 * 30)
    assert works["grpo"].written == 20 * 64 * 30
    # 400 cases for base, sft and grpo; the base may write to the limit.
    assert works["evaluate"].read == 3 * 400 * 50
    assert works["evaluate"].written_most == 400 * (2 * 30 + 64)


def test_a_stage_that_was_cut_off_before_a_checkpoint_claims_none(tmp_path: Path) -> None:
    recipe = recipe_from_tree(small_tree(write_rows(tmp_path / "rows.jsonl"), tmp_path / "runs"))
    run_dir = RunDir(recipe.run_dir)
    run_dir.path.mkdir(parents=True)
    work = run_dir.begin("prepare", stage_inputs("prepare", recipe, run_dir))
    assert "prepare: starts again from its beginning" in plan_text(recipe)
    checkpoint = work / artifacts.CHECKPOINTS / "checkpoint-40"
    checkpoint.mkdir(parents=True)
    assert "prepare: starts again from its beginning" in plan_text(recipe), "half a checkpoint is none"
    artifacts.mark_checkpoint_complete(checkpoint)
    assert "prepare: goes on after step 40" in plan_text(recipe)


def test_variants_read_the_same_rows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_from_tree(small_tree(write_rows(tmp_path / "rows.jsonl"), tmp_path / "runs"))
    grpo = recipe.grpo.model_copy(update={"learning_rate": 1e-5})
    others = [recipe.model_copy(update={"grpo": grpo}), recipe.model_copy(update={"seed": 7})]
    read: list[str] = []
    rows = plan._rows
    monkeypatch.setattr(plan, "_rows", lambda one, n: (read.append(one.name), rows(one, n))[1])
    console = Console(width=80, record=True, file=io.StringIO())
    plan.print_plans([recipe, *others], console, first=None, last=None)
    assert len(read) == 1
    assert console.export_text().count("Training") == 3
    terse = recipe.model_copy(update={"task": recipe.task.model_copy(update={"max_prompt_tokens": 90})})
    plan.print_plans([recipe, terse], console, first=None, last=None)
    assert len(read) == 3


def test_a_recipe_file_is_planned(tmp_path: Path) -> None:
    toml = write_toml(tmp_path / "r.toml", small_tree(write_rows(tmp_path / "rows.jsonl"), tmp_path / "runs"))
    assert "small" in plan_text(load_recipe(toml))
