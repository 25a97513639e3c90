"""What a resumed training logs, entry by entry and in total, is what an uninterrupted one logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.models.load import load_tokenizer, load_weights
from medjudge.recipe import recipe_from_tree
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.runs.pipeline import run_recipe
from medjudge.settings.base import EndpointSettings
from medjudge.settings.rewards import LlmSettings, RewardSettings
from medjudge.settings.training import BaseConfig, GrpoConfig, SftConfig
from medjudge.training.algorithms import ALGORITHMS
from medjudge.training.grpo import train_grpo
from medjudge.training.job import Beside, RewardedRows, TrainingJob
from medjudge.training.language_model import build_model, train_language_model
from medjudge.training.progress_callback import Watch
from medjudge.training.sft import TaughtRows, train_sft
from medjudge.training.totals import JudgeCounts
from medjudge.training.trl_adapter import ContractGrpoTrainer
from tests.inference.scripted_endpoint import Say, scripted
from tests.small_runs import small_tree, write_rows
from tests.training.grpo_runs import CONTRACT, CPU, REASONED, make_cases, save_taught, script_policy

QUIET = Console(quiet=True)
STEPS = {"max_steps": 7, "save_steps": 2, "logging_steps": 3, "learning_rate": 1e-3}
"""Checkpoints lie between the log's entries, and the last entry is at no multiple of either."""
LORA = {"r": 2, "alpha": 4, "dropout": 0.1}
History = list[dict[str, Any]]


class PulledPlugError(Exception):
    """The run is cut off."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_taught(tmp_path_factory.mktemp("taught") / "model")


def sft(folder: Path, work: Path, tuning: str) -> History:
    tokenizer = load_tokenizer(folder, None)
    config = SftConfig(**STEPS, tuning=tuning, lora=LORA, completions_per_step=4, micro_batch=2)
    cases, held_out = make_cases(24), make_cases(6, "h")
    model = load_weights(folder, CPU, tokenizer, train_all=True)
    rows = TaughtRows.encode(CONTRACT, cases, held_out, tokenizer, seed=3)
    return train_sft(TrainingJob(CONTRACT, model, tokenizer, CPU, work, 3), config, rows).history


def grpo(folder: Path, work: Path, **over: Any) -> History:
    tokenizer, cases = load_tokenizer(folder, None), make_cases(24)
    config = GrpoConfig(
        **{**STEPS, "tuning": "full", "lora": LORA, "group_size": 4, "prompts_per_step": 4, "micro_batch": 8, **over}
    )
    plan = build_plan(config.rewards, (), RewardContext(CONTRACT, cases))
    model = load_weights(folder, CPU, tokenizer, train_all=True)
    rows = RewardedRows.encode(CONTRACT, cases, tokenizer, plan)
    job = TrainingJob(CONTRACT, model, tokenizer, CPU, work, 3)
    return ALGORITHMS[config.algorithm].train(job, config, rows, Beside()).history


def base(folder: Path, work: Path) -> History:
    tokenizer = load_tokenizer(folder, None)
    config = BaseConfig(
        **STEPS, vocab_size=320, hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64, batch_size=4
    )
    texts = [f"A radiograph of the {part}, seen {n} times." for part in ("chest", "knee", "hand") for n in range(8)]
    model = build_model(config, tokenizer, 3)
    return train_language_model(texts, model, tokenizer, config, CPU, work, seed=3)


TRAININGS: dict[str, Callable[[Path, Path], History]] = {
    "base": base,
    "sft full": lambda folder, work: sft(folder, work, "full"),
    "sft lora": lambda folder, work: sft(folder, work, "lora"),
    "grpo grouped": lambda folder, work: grpo(folder, work, kl_coef=0.02),
    "grpo stock": lambda folder, work: grpo(folder, work, grouped=False, tuning="lora"),
    "grpo reused batches": lambda folder, work: grpo(folder, work, num_iterations=2),
    "all-action": lambda folder, work: grpo(folder, work, algorithm="all_action", tuning="lora", micro_batch=2),
}


def cut_in_step(step: int, patch: pytest.MonkeyPatch) -> None:
    def on_step_begin(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == step:
            raise PulledPlugError

    patch.setattr(Watch, "on_step_begin", on_step_begin, raising=False)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_resumed_training_logs_what_an_uninterrupted_one_logs(
    name: str, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = TRAININGS[name](taught, tmp_path / "whole")
    work = tmp_path / "cut"
    work.mkdir()
    for step in (3, 5):  # twice, each time past another checkpoint
        with monkeypatch.context() as patch:
            cut_in_step(step, patch)
            with pytest.raises(PulledPlugError):
                TRAININGS[name](taught, work)
    resumed = TRAININGS[name](taught, work)
    assert resumed == whole
    assert TRAININGS[name](taught, work) == whole  # cut off after the last step
    assert {"train_loss", "total_flos"} <= set(whole[-1])
    entries = [entry for entry in whole if "loss" in entry]
    assert {entry["step"] for entry in entries} >= {3, 6, 7}
    # The mean loss of the whole training is that of its entries, each weighted by the steps since the one before.
    spans = [now["step"] - before for now, before in zip(entries, [0, *(e["step"] for e in entries)], strict=False)]
    mean = sum(entry["loss"] * span for entry, span in zip(entries, spans, strict=True)) / 7
    assert whole[-1]["train_loss"] == pytest.approx(mean, rel=1e-6)


def test_a_training_that_the_doctor_stopped_ends_its_log_as_it_did(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = make_cases(24)
    monkeypatch.setattr(ContractGrpoTrainer, "scripted_cases", cases, raising=False)
    script_policy(monkeypatch, lambda step, case, i: "no answer")
    doctor = {"policy": "stop", "window_steps": 2, "window_groups": 8}
    stopped = grpo(taught, tmp_path, doctor=doctor)
    assert stopped[-1]["step"] == 2
    assert grpo(taught, tmp_path, doctor=doctor) == stopped


def test_seconds_are_those_of_all_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sitting is noted as 1,000 s when it is cut off; the second adds its own few."""
    tree = small_tree(write_rows(tmp_path / "rows.jsonl", n_variants=12), tmp_path / "runs")
    tree["base"] |= {"max_steps": 4, "save_steps": 2, "hidden_size": 16, "n_layers": 1, "intermediate_size": 16}
    recipe = recipe_from_tree(tree)
    run_recipe(recipe, QUIET, last="prepare")
    with monkeypatch.context() as patch:
        cut_in_step(3, patch)
        with pytest.raises(PulledPlugError):
            run_recipe(recipe, QUIET, first="base", last="base")
    work = recipe.run_dir / ".base.work"
    (first,) = artifacts.sittings(work)
    assert first > 0
    kept = artifacts.read_json(work / artifacts.CHECKPOINTS / artifacts.SITTINGS)
    artifacts.write_json(work / artifacts.CHECKPOINTS / artifacts.SITTINGS, [{**kept[0], "seconds": 1000.0}])
    run_recipe(recipe, QUIET, first="base", last="base")
    manifest = artifacts.read_json(recipe.run_dir / "base" / artifacts.MANIFEST)
    assert manifest["sittings"] == 2
    assert 1000 < manifest["wall_s"] < 1200
    assert artifacts.read_json(recipe.run_dir / "prepare" / artifacts.MANIFEST)["sittings"] == 1
    assert not (recipe.run_dir / "base" / artifacts.CHECKPOINTS).exists()


def test_a_loss_that_is_no_number_is_kept_too(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = {"learning_rate": 1e30, "max_steps": 4}
    (tmp_path / "cut").mkdir()
    whole = grpo(taught, tmp_path, algorithm="all_action", **over)
    with monkeypatch.context() as patch:
        cut_in_step(3, patch)
        with pytest.raises(PulledPlugError):
            grpo(taught, tmp_path / "cut", algorithm="all_action", **over)
    assert grpo(taught, tmp_path / "cut", algorithm="all_action", **over) == whole
    assert whole[-1]["train_loss"] is None


def judged(work: Path, folder: Path, url: str, cache: Path) -> dict[str, Any]:
    """One sitting of a training that a judge behind an endpoint pays, as its stage does it: what the judge counted."""
    tokenizer = load_tokenizer(folder, None)
    cases = [replace(case, reason=f"the expert's words on {case.case_id}") for case in make_cases(24)]
    endpoint = EndpointSettings(cache=cache, usd_per_million_in=1.0, usd_per_million_out=1.0)
    context = RewardContext(
        REASONED, cases, settings=RewardSettings(llm=LlmSettings(judge=f"openai:judge@{url}", endpoint=endpoint))
    )
    config = GrpoConfig(
        **{**STEPS, "max_steps": 6}, tuning="full", group_size=4, prompts_per_step=4, micro_batch=16, rewards={"llm": 1}
    )
    plan = build_plan(config.rewards, (), context)
    JudgeCounts(work, plan.rewards).resume(has_preflight=True)
    model = load_weights(folder, CPU, tokenizer, train_all=True)
    rows = RewardedRows.encode(REASONED, cases, tokenizer, plan)
    train_grpo(TrainingJob(REASONED, model, tokenizer, CPU, work, 3), config, rows, Beside())
    return dict(plan.rewards["llm"].report())


def test_a_judges_marks_and_costs_are_those_of_all_sittings(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps are cut off after the checkpoint: their marks count once, and their answers are not paid for again."""
    reasons = ("plainly seen", "hardly", "by habit", "as told")
    cases = make_cases(24)
    monkeypatch.setattr(ContractGrpoTrainer, "scripted_cases", cases, raising=False)
    script_policy(
        monkeypatch,
        lambda step, case, i: REASONED.target(replace(case, reason=f"{reasons[i]} {step}")) if i else "no answer",
    )
    marks = '{"medical_concepts": 7, "logic_alignment": 8, "supporting_evidence": 6}'
    with scripted(lambda text, before: Say(marks, n_in=100, n_out=10)) as server:
        whole = judged(tmp_path / "whole", taught, server.url, tmp_path / "a.sqlite")
        n_asked = len(server.bodies)
        with monkeypatch.context() as patch:
            cut_in_step(5, patch)
            with pytest.raises(PulledPlugError):
                judged(tmp_path / "cut", taught, server.url, tmp_path / "b.sqlite")
        resumed = judged(tmp_path / "cut", taught, server.url, tmp_path / "b.sqlite")
        assert len(server.bodies) == 2 * n_asked
    assert whole["n_marked"] == 6 * 12
    assert whole["n_unread"] == 6 * 4
    for key in ("n_marked", "n_failed", "n_asked_again", "n_unread", "n_without_gold", "failures"):
        assert resumed[key] == whole[key], key
    paid = ("n_prompts", "n_answered", "n_from_cache", "n_requests", "prompt_tokens", "cost_usd", "new_cost_usd")
    assert {key: resumed["usage"][key] for key in paid} == {key: whole["usage"][key] for key in paid}
    assert whole["usage"]["cost_usd"] == pytest.approx(n_asked * 110 / 1e6)
