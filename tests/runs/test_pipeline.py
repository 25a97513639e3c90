"""The whole pipeline on a small run: skipped where nothing changed, equal after kill -9, refused where it must be."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medjudge import artifacts, machine
from medjudge.api import Judge
from medjudge.cli import main
from medjudge.errors import ConfigError, DataError, RunError
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.runs.pipeline import _settle_threads, resume_words, run_recipe, stage_inputs
from medjudge.runs.run_dir import RunDir
from medjudge.runs.summaries import stage_sentence
from tests.small_runs import small_tree, write_rows, write_toml

CONSOLE = Console(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A whole uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = recipe_from_tree(small_tree(write_rows(folder / "rows.jsonl"), folder / "runs"))
    return recipe, run_recipe(recipe, CONSOLE)


def metrics(run_dir: Path) -> Any:
    """All numbers of a run but the wall times."""
    results = artifacts.read_json(run_dir / "evaluate" / artifacts.RESULTS)
    for model in results["models"].values():
        model.pop("seconds")
        model.pop("lineage")
    return results


def weights(run_dir: Path, stage: str) -> str:
    return str(artifacts.read_json(run_dir / stage / artifacts.MANIFEST)["summary"]["weights_sha256"])


def test_run_makes_every_stage_and_learns(finished: tuple[Recipe, Path]) -> None:
    recipe, run_dir = finished
    for stage in recipe.stages:
        assert (run_dir / stage / artifacts.MANIFEST).exists(), stage
    models = metrics(run_dir)["models"]
    assert models["base"]["metrics"]["schema_pass_rate"]["value"] == 0.0
    assert models["sft"]["metrics"]["schema_pass_rate"]["value"] >= 0.95
    assert models["sft"]["metrics"]["accuracy"]["value"] > models["majority"]["metrics"]["accuracy"]["value"] + 0.2
    assert not list(run_dir.glob(".*.work"))
    assert (run_dir / "report" / artifacts.REPORT).exists()


def test_verdict_rows_hold_gold_label_and_completion(finished: tuple[Recipe, Path]) -> None:
    _, run_dir = finished
    rows = [json.loads(line) for line in (run_dir / "evaluate" / artifacts.VERDICTS).read_text().splitlines()]
    test_ids = {json.loads(line)["case_id"] for line in (run_dir / "prepare" / "test.jsonl").read_text().splitlines()}
    for model in ("base", "sft", "grpo"):
        own = [row for row in rows if row["model"] == model]
        assert {row["case_id"] for row in own} == test_ids
        assert all((row["label"] is None) == (row["unparsed_reason"] is not None) for row in own)
        assert all(row["completion"] is not None for row in own)


def test_second_run_skips_everything(finished: tuple[Recipe, Path], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run_dir = finished
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob(artifacts.MANIFEST)}
    run_recipe(recipe, CONSOLE)
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob(artifacts.MANIFEST)} == before


def test_changed_setting_reruns_only_what_depends_on_it(finished: tuple[Recipe, Path]) -> None:
    recipe, run_dir = finished
    changed = recipe.model_copy(update={"grpo": recipe.grpo.model_copy(update={"learning_rate": 9e-4})})
    folder = RunDir(run_dir)
    current = {name: folder.is_current(name, stage_inputs(name, changed, folder))[0] for name in recipe.stages}
    assert current == {
        "prepare": True,
        "base": True,
        "sft": True,
        "grpo": False,
        "merge": True,  # would be stale once grpo has run again and its outputs differ
        "evaluate": True,
        "report": True,
    }
    assert "grpo" in folder.is_current("grpo", stage_inputs("grpo", changed, folder))[1]


def test_a_stage_after_a_stale_one_is_refused(finished: tuple[Recipe, Path]) -> None:
    """Evaluating the old model under new settings is how an experiment reports a model that nobody trained."""
    recipe, run_dir = finished
    before = (run_dir / artifacts.RECIPE).read_text()
    changed = recipe.model_copy(update={"grpo": recipe.grpo.model_copy(update={"learning_rate": 9e-4})})
    with pytest.raises(ConfigError, match=r"stage grpo of .* is not of this recipe \(changed: grpo.learning_rate\)"):
        run_recipe(changed, CONSOLE, first="evaluate")
    assert (run_dir / artifacts.RECIPE).read_text() == before


def test_lora_sft_then_full_grpo_without_merge_stage(tmp_path: Path) -> None:
    """The other way round of tuning, with a reference policy and batches used twice; merged by SFT itself."""
    tree = small_tree(write_rows(tmp_path / "rows.jsonl", 30), tmp_path / "runs")
    tree["stages"] = ["prepare", "base", "sft", "grpo", "evaluate"]
    tree["sft"] |= {"tuning": "lora", "lora": {"r": 4, "alpha": 8}, "max_steps": 6}
    # An adapter on a base from nothing earns no reward in six steps; the decay is what moves the weights here.
    tree["grpo"] |= {"tuning": "full", "kl_coef": 0.05, "num_iterations": 2, "max_steps": 4, "micro_batch": 4}
    tree["grpo"] |= {"weight_decay": 0.5}
    # A policy that never learned the format cannot learn from rewards: the pre-flight says so, and must be overruled.
    with pytest.raises(DataError, match=r"pre-flight failed \(the policy's own answers can be told apart: no\)"):
        run_recipe(recipe_from_tree(tree), CONSOLE)
    run_dir = run_recipe(recipe_from_tree(tree), CONSOLE, force=True)
    assert artifacts.read_json(run_dir / "grpo" / artifacts.PREFLIGHT)["forced"] is True
    sft = artifacts.read_json(run_dir / "sft" / artifacts.MANIFEST)["summary"]
    assert sft["merge"]["max_logit_difference"] < 1e-3
    assert sft["trainable_parameters"] < sft["parameters"] / 5
    grpo = artifacts.read_json(run_dir / "grpo" / artifacts.MANIFEST)["summary"]
    assert grpo["preflight"] == "forced"
    assert grpo["parent_sha256"] == sft["weights_sha256"]
    assert grpo["weights_sha256"] != sft["weights_sha256"]
    assert any("kl" in entry for entry in artifacts.read_json(run_dir / "grpo" / artifacts.HISTORY))
    assert set(metrics(run_dir)["models"]) >= {"base", "sft", "grpo"}


def test_damaged_output_is_noticed(finished: tuple[Recipe, Path]) -> None:
    recipe, run_dir = finished
    path = run_dir / "prepare" / "test.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) // 2], encoding="utf-8")
    folder = RunDir(run_dir)
    try:
        current, why = folder.is_current("prepare", stage_inputs("prepare", recipe, folder))
    finally:
        path.write_text(whole, encoding="utf-8")
    assert not current
    assert why.startswith("test.jsonl was changed: its sha256 is ")


def flip_one_bit(path: Path) -> tuple[bytes, Path]:
    """Damage that leaves size and modification time as they were; returns what undoes it."""
    whole, info = path.read_bytes(), path.stat()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(bytes(changed))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return whole, path


def reading_commands(run_dir: Path, rows: str, out: Path) -> dict[str, list[str]]:
    """Commands that read what the run's stages wrote."""
    asked = ["--recipe", str(run_dir.parent / "small.toml"), "--data", rows]
    model = str(run_dir / "merge" / "model")
    return {
        "report": ["report", str(run_dir)],
        "lineage": ["lineage", model],
        "evaluate": ["evaluate", *asked, "--model", f"m={model}", "--out", str(out)],
        "calibrate": ["calibrate", model, *asked],
    }


@pytest.mark.parametrize(
    ("damaged", "command"),
    [
        ("evaluate/results.json", "report"),
        ("evaluate/verdicts.jsonl", "report"),
        ("evaluate/manifest.json", "report"),
        ("merge/model/tokenizer.json", "lineage"),
        ("merge/model/model.safetensors", "lineage"),
        ("merge/model/model.safetensors", "evaluate"),
        ("merge/model/generation_config.json", "calibrate"),
        ("merge/manifest.json", "evaluate"),
    ],
)
def test_damage_that_keeps_size_and_time_is_named_by_every_command_that_reads_it(
    finished: tuple[Recipe, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    damaged: str,
    command: str,
) -> None:
    recipe, run_dir = finished
    write_toml(run_dir.parent / "small.toml", small_tree(Path(str(recipe.data.source)), tmp_path / "runs"))
    arguments = reading_commands(run_dir, str(recipe.data.source), tmp_path / "out")[command]
    monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
    whole, path = flip_one_bit(run_dir / damaged)
    if path.name == artifacts.MANIFEST:
        path.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        path.write_bytes(whole)
    streams = capsys.readouterr()
    text = " ".join((streams.out + streams.err).split())
    assert end.value.code == 1
    assert "Traceback" not in text
    if command != "lineage" or "safetensors" not in damaged:
        assert path.name in text
        assert f"--from {damaged.partition('/')[0]} --fresh" in text or "sha256" not in text
    assert not (tmp_path / "out").exists()


def test_a_judge_in_python_is_not_loaded_from_changed_files(finished: tuple[Recipe, Path]) -> None:
    _, run_dir = finished
    model = run_dir / "merge" / "model"
    settings = {"form": "answer_only", "instructions": "terse", "max_prompt_tokens": 120, "max_completion_tokens": 12}
    whole, path = flip_one_bit(model / "tokenizer.json")
    try:
        with pytest.raises(RunError, match=r"model/tokenizer\.json was changed"):
            _ = Judge(model, "appropriateness", settings)._engine.load()
    finally:
        path.write_bytes(whole)
    assert Judge(model, "appropriateness", settings)._engine.load() is not None


def test_a_changed_output_is_made_anew_and_fresh_helps_with_a_damaged_run_folder(
    finished: tuple[Recipe, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, uninterrupted = finished
    tree = small_tree(Path(str(recipe.data.source)), tmp_path / "runs")
    tree["stages"] = ["prepare", "base"]
    short = recipe_from_tree(tree)
    run_dir = run_recipe(short, CONSOLE)
    flip_one_bit(run_dir / "prepare" / "test.jsonl")
    run_recipe(short, Console(width=200))
    assert "test.jsonl was changed" in capsys.readouterr().out
    assert (run_dir / "prepare" / "test.jsonl").read_bytes() == (uninterrupted / "prepare/test.jsonl").read_bytes()
    for name in ("prepare", "base"):
        (run_dir / name / artifacts.MANIFEST).write_text("[1, 2")
    (run_dir / artifacts.COMMANDS).write_bytes(b"\xff\0")
    (run_dir / artifacts.RECIPE).unlink()
    (run_dir / artifacts.RECIPE).mkdir()
    (run_dir / ".lock").unlink()
    (run_dir / ".lock").symlink_to(tmp_path / "nowhere")
    (run_dir / ".base.work").write_text("a file")
    (run_dir / ".prepare.old").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is a folder, expected a file or nothing there"):
        run_recipe(short, CONSOLE)
    run_recipe(short, CONSOLE, fresh=True)
    assert weights(run_dir, "base") == weights(uninterrupted, "base")
    for path in (run_dir, *run_dir.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_two_processes_cannot_share_a_run(finished: tuple[Recipe, Path]) -> None:
    recipe, run_dir = finished
    with RunDir(run_dir).lock(), pytest.raises(RunError, match="in use by another medjudge process"):
        run_recipe(recipe, CONSOLE)


def run_until(toml: Path, seen: Callable[[], bool]) -> None:
    """Starts the run in a process of its own and kills it with SIGKILL as soon as `seen`."""
    process = subprocess.Popen([sys.executable, "-m", "medjudge", "run", str(toml)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not seen():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("damage", ["weights cut", "all gone"])
def test_a_damaged_checkpoint_is_passed_over(
    finished: tuple[Recipe, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    recipe, uninterrupted = finished
    tree = small_tree(Path(str(recipe.data.source)), tmp_path / "runs")
    toml = write_toml(tmp_path / "small.toml", tree)
    run_dir = tmp_path / "runs" / "small"
    folder = run_dir / ".sft.work" / artifacts.CHECKPOINTS
    run_until(toml, (folder / "checkpoint-10" / artifacts.CHECKPOINT_COMPLETE).exists)
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    before = sorted(int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*") if path != last)
    if damage == "weights cut":
        os.truncate(next(last.glob("*.safetensors")), 1000)
    else:
        for path in folder.glob("checkpoint-*/*.safetensors"):
            path.write_bytes(b"")
    recipe = recipe_from_tree(tree | {"stages": ["prepare", "base", "sft"]})
    run_recipe(recipe, Console(width=200))
    printed = capsys.readouterr().out
    assert f"{last.name} is not used: " in printed
    is_start = damage == "all gone" or not before
    assert ("the stage starts from its beginning" if is_start else f"goes on from checkpoint-{before[-1]}") in printed
    assert weights(run_dir, "sft") == weights(uninterrupted, "sft")


def test_kill_during_sft_and_grpo_ends_with_equal_metrics(finished: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, uninterrupted = finished
    tree = small_tree(Path(str(recipe.data.source)), tmp_path / "runs")
    toml = write_toml(tmp_path / "small.toml", tree)
    run_dir = tmp_path / "runs" / "small"

    def has_checkpoint(stage: str, step: int) -> Callable[[], bool]:
        mark = run_dir / f".{stage}.work" / artifacts.CHECKPOINTS / f"checkpoint-{step}" / artifacts.CHECKPOINT_COMPLETE
        return mark.exists

    run_until(toml, has_checkpoint("sft", 10))
    assert not (run_dir / "sft").exists()
    run_until(toml, has_checkpoint("grpo", 4))
    assert (run_dir / "sft").exists()
    assert not (run_dir / "grpo").exists()
    run_recipe(recipe_from_tree(tree), CONSOLE)

    for stage in ("base", "sft", "grpo", "merge"):
        assert weights(run_dir, stage) == weights(uninterrupted, stage), stage
    assert metrics(run_dir) == metrics(uninterrupted)
    for name in (artifacts.DOCTOR, artifacts.PREFLIGHT):
        reports = [artifacts.read_json(folder / "grpo" / name) for folder in (run_dir, uninterrupted)]
        assert len({json.dumps({**report, "seconds": 0}, sort_keys=True) for report in reports}) == 1, name
    for stage in ("sft", "grpo"):
        history = artifacts.read_json(run_dir / stage / artifacts.HISTORY)
        assert [e["step"] for e in history] == [
            e["step"] for e in artifacts.read_json(uninterrupted / stage / artifacts.HISTORY)
        ]


def said_of(recipe: Recipe, **options: Any) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    run_recipe(recipe, console, **options)
    return console.export_text()


def test_a_stage_without_a_checkpoint_starts_again_and_says_so(tmp_path: Path) -> None:
    recipe = recipe_from_tree(small_tree(write_rows(tmp_path / "rows.jsonl"), tmp_path / "runs"))
    run_dir = RunDir(recipe.run_dir)
    run_dir.path.mkdir(parents=True)
    run_dir.begin("prepare", stage_inputs("prepare", recipe, run_dir))
    text = said_of(recipe, last="prepare")
    assert "starts again from its beginning" in " ".join(text.split())
    assert "checkpoint)" in text, "it was cut off before its first one"
    assert "resumes" not in text
    assert "not run yet" not in text
    assert "unchanged, skipped" in said_of(recipe, last="prepare")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("", "starts again from its beginning: it was cut off before its first checkpoint"),
        ("checkpoints/checkpoint-5", "goes on after step 5"),
        (".answers-sft.json", "goes on after the models that have answered"),
    ],
)
def test_where_a_stage_goes_on(tmp_path: Path, made: str, words: str) -> None:
    checkpoint = None
    if made.startswith("checkpoints"):
        checkpoint = tmp_path / made
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights").write_bytes(b"12")
        artifacts.mark_checkpoint_complete(checkpoint)
    elif made:
        (tmp_path / made).write_text("{}", encoding="utf-8")
    assert artifacts.latest_checkpoint(tmp_path) == checkpoint
    assert resume_words(tmp_path, checkpoint) == words


def test_manifests_record_the_threads(finished: tuple[Recipe, Path]) -> None:
    _, run_dir = finished
    for stage in ("base", "sft", "grpo", "evaluate"):
        threads = artifacts.read_json(run_dir / stage / artifacts.MANIFEST)["threads"]
        assert threads["n"] >= 1
        assert threads["why"]
        assert not (run_dir / stage / artifacts.THREADS).exists()
    assert artifacts.read_json(run_dir / "prepare" / artifacts.MANIFEST)["threads"] is None


def test_a_stage_that_was_cut_off_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    recipe = recipe_from_tree(small_tree(tmp_path / "rows.jsonl", tmp_path / "runs"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "n_processors", lambda: 8)
    monkeypatch.setattr(machine, "_measured", lambda n, *_: machine.Threads(n, n, "measured"))
    try:
        _settle_threads(recipe, tmp_path, CONSOLE)
        assert artifacts.read_json(tmp_path / artifacts.THREADS)["n"] == 8
        monkeypatch.setattr(machine, "n_processors", lambda: 2)
        console = Console(record=True, file=io.StringIO())
        _settle_threads(recipe, tmp_path, console)
        assert torch.get_num_threads() == 8
        assert "8 threads on 2 processors: as before this stage was cut off" in console.export_text()
    finally:
        torch.set_num_threads(before)


def test_a_thread_count_makes_no_stage_stale(finished: tuple[Recipe, Path]) -> None:
    recipe, run_dir = finished
    folder = RunDir(run_dir)
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"threads": 3})})
    assert all(folder.is_current(name, stage_inputs(name, other, folder))[0] for name in recipe.stages)


def test_what_stages_did_is_told_in_sentences(finished: tuple[Recipe, Path]) -> None:
    _, run_dir = finished
    for stage in ("prepare", "base", "sft", "grpo", "merge", "evaluate", "report"):
        summary = artifacts.read_json(run_dir / stage / artifacts.MANIFEST)["summary"]
        text = stage_sentence(stage, summary)
        assert re.match(r"[A-Z0-9].*\.$", text, re.DOTALL), (stage, text)
        assert "_" not in re.sub(r"`[^`]*`|embedding_linear|embedding_svm|token_f1|\w+/\w+\.json", "", text), (
            stage,
            text,
        )
        assert "sha256" not in text
    prepared = artifacts.read_json(run_dir / "prepare" / artifacts.MANIFEST)["summary"]
    # 50 variants of three rows each, six in ten to train.
    assert stage_sentence("prepare", prepared).startswith("90 train, 30 grpo and 30 test cases. ")


def test_a_summary_with_gaps_is_still_told() -> None:
    for stage in ("prepare", "base", "sft", "grpo", "merge", "evaluate", "report"):
        assert isinstance(stage_sentence(stage, {}), str)
    assert stage_sentence("own", {"n_rows": 1200, "kind": "x"}) == "N rows 1,200. Kind x."
