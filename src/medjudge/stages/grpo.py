"""Sharpen the SFT model on verifiable rewards: `medjudge run RECIPE --from grpo --until grpo`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge import artifacts
from medjudge.data.splits import seeded_sample
from medjudge.data.store import read_split
from medjudge.diagnostics.preflight import Preflight, require_earnable, run_preflight
from medjudge.errors import RunError
from medjudge.inference.local import LocalEngine
from medjudge.models.adapters import check_adapters, skeleton
from medjudge.models.load import count_parameters, load_tokenizer, load_weights, quiet_libraries
from medjudge.recipe import Recipe
from medjudge.records import Case, Verdict
from medjudge.reporting.diagnostics import print_doctor, print_preflight
from medjudge.rewards.composition import RewardPlan
from medjudge.rewards.llm import LlmReward
from medjudge.runs.model_paths import start_of
from medjudge.runs.run_dir import RunDir
from medjudge.training.all_action import train_all_action
from medjudge.training.grpo import rewarded_cases, train_grpo
from medjudge.training.policy_sample import draw_sample
from medjudge.training.save import save_trained
from medjudge.training.totals import JudgeCounts


def run(recipe: Recipe, out_dir: Path, run_dir: Path, console: Console) -> dict[str, Any]:
    """Proves that the rewards can be earned, then trains under the doctor's eyes.

    Writes `adapter/` or `model/`, `preflight.json`, `doctor.json` and the log.
    """
    quiet_libraries()
    split = read_split(run_dir / "prepare" / f"{recipe.grpo.split}{artifacts.SPLIT_SUFFIX}")
    start, name = start_of("grpo", recipe, run_dir)
    tokenizer = load_tokenizer(start, recipe.model.chat_template)
    cases, plan, n_not_rewardable = rewarded_cases(recipe, split, tokenizer)
    judges = {name: reward for name, reward in plan.rewards.items() if isinstance(reward, LlmReward)}
    for reward in judges.values():
        if reward.client is not None and not reward.client.endpoint.is_loopback:
            console.print(f"          the text of the cases is sent to {reward.client.endpoint.host}")
    is_lora = recipe.grpo.tuning == "lora"
    if is_lora:
        check_adapters(recipe, ("grpo",), skeleton(start))
    model = load_weights(start, recipe.model, tokenizer, quantize=is_lora, train_all=not is_lora)
    is_forced = RunDir(run_dir).allows_failed_preflight
    preflight = _proven(recipe, cases, plan, model, tokenizer, out_dir, console, is_forced=is_forced)
    if line := preflight.shortened_line(recipe.contract.max_prompt_tokens):
        console.print(f"          {line}")
    require_earnable(preflight)
    train = _train_all_action if recipe.grpo.algorithm == "all_action" else _train_grpo
    model, history, doctor = train(recipe, cases, plan, model, tokenizer, out_dir, run_dir, console, preflight)
    trainable, total = count_parameters(model)
    lineage = save_trained("grpo", model, tokenizer, recipe, start, name, out_dir, run_dir, merge_now=False, prompts=())
    artifacts.write_json(out_dir / artifacts.HISTORY, history)
    if doctor is not None:
        artifacts.write_json(out_dir / artifacts.DOCTOR, doctor)
        print_doctor(doctor, console)
    reports = {name: reward.report() for name, reward in judges.items()}
    if reports:
        artifacts.write_json(out_dir / artifacts.JUDGES, reports)
    return {
        "n_cases": len(cases),
        "n_prompts_shortened": preflight.n_prompts_cut,
        "n_words_cut": preflight.n_words_cut,
        **{f"{name} {key}": report[key] for name, report in reports.items() for key in ("n_marked", "n_failed")},
        **{f"{name} usd": report["usage"]["cost_usd"] for name, report in reports.items() if report["usage"]},
        "n_cases_not_rewardable": n_not_rewardable,
        "rewards": plan.report(),
        "preflight": preflight.verdict,
        **_found(doctor),
        "trainable_parameters": trainable,
        "parameters": total,
        "weights_sha256": lineage.weights_sha256,
        "parent_sha256": lineage.parent.weights_sha256 if lineage.parent else None,
    }


def _train_grpo(
    recipe: Recipe,
    cases: Sequence[Case],
    plan: RewardPlan,
    model: Any,
    tokenizer: Any,
    out_dir: Path,
    run_dir: Path,
    console: Console,
    preflight: Preflight,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any] | None]:
    """(model, training log, what the doctor saw)."""
    return train_grpo(
        recipe.contract,
        cases,
        plan,
        model,
        tokenizer,
        recipe.grpo,
        recipe.model,
        out_dir,
        seed=recipe.seed,
        console=console,
        held_out=_held_out(recipe, run_dir, tokenizer),
        pass_rates=preflight.pass_rates,
    )


def _train_all_action(
    recipe: Recipe,
    cases: Sequence[Case],
    plan: RewardPlan,
    model: Any,
    tokenizer: Any,
    out_dir: Path,
    run_dir: Path,
    console: Console,
    preflight: Preflight,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any] | None]:
    """(model, training log, None: the expected reward is computed, and there are no rollouts for a doctor to watch)."""
    model, history = train_all_action(
        recipe.contract,
        cases,
        plan,
        model,
        tokenizer,
        recipe.grpo,
        recipe.model,
        out_dir,
        seed=recipe.seed,
        console=console,
    )
    return model, history, None


def _found(doctor: Mapping[str, Any] | None) -> dict[str, Any]:
    """The doctor's findings for the stage's one line."""
    if doctor is None:
        return {}
    named = [finding["name"] for finding in doctor["findings"] if finding["explained_by"] is None]
    return {"doctor": ", ".join(named) or "nothing found", "stopped_step": doctor["stopped_step"]}


def _proven(
    recipe: Recipe,
    cases: Sequence[Case],
    plan: RewardPlan,
    model: Any,
    tokenizer: Any,
    out_dir: Path,
    console: Console,
    *,
    is_forced: bool,
) -> Preflight:
    """The pre-flight, printed and kept in `preflight.json`; a run that was cut off after it has it already."""
    path = out_dir / artifacts.PREFLIGHT
    kept = None
    with contextlib.suppress(RunError):  # a damaged one is made again
        kept = artifacts.read_as(path, Preflight.from_json) if path.exists() else None
    has_proof = kept is not None and kept.verdict != "failed"
    counts = JudgeCounts(out_dir, plan.rewards)
    counts.resume(has_preflight=has_proof)
    if kept is not None and has_proof:
        return kept
    started = time.monotonic()
    policy = "the sft model" if "sft" in recipe.stages else "the base model"
    result = run_preflight(
        recipe.contract,
        cases,
        tokenizer,
        plan,
        sample=draw_sample(recipe, cases, model, tokenizer, policy, is_start=True)
        if recipe.grpo.preflight.prompts
        else None,
        why_no_sample="`grpo.preflight.prompts` is 0",
        seed=recipe.seed,
        max_cut_share=recipe.grpo.preflight.max_cut_share,
        context_tokens=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        keep_completions=recipe.grpo.doctor.keep_completions,
    )
    result = replace(result, seconds=round(time.monotonic() - started, 2), forced=is_forced and not result.passed)
    counts.keep()
    artifacts.write_json(path, result.to_json())
    print_preflight(result, console)
    return result


def _held_out(recipe: Recipe, run_dir: Path, tokenizer: Any) -> Callable[[Any], str] | None:
    """Judges a few held-out cases greedily: `1` or `0` each. None where the run has none, or wants none."""
    config = recipe.grpo.doctor
    path = run_dir / "prepare" / f"{config.held_out_split}{artifacts.SPLIT_SUFFIX}"
    if not config.held_out_cases or not path.exists() or config.held_out_split in (recipe.grpo.split, recipe.sft.split):
        return None
    rated = [case for case in read_split(path) if case.gold is not None]
    cases = seeded_sample(rated, config.held_out_cases, recipe.seed)

    def judge(model: Any) -> str:
        engine = LocalEngine(model, tokenizer, batch_tokens=recipe.evaluate.batch_tokens)
        completions = engine.generate(recipe.contract, cases)
        judged = (recipe.contract.parse(case.case_id, c.text) for case, c in zip(cases, completions, strict=True))
        return "".join(
            "1" if isinstance(judgement, Verdict) and judgement.label == case.gold else "0"
            for case, judgement in zip(cases, judged, strict=True)
        )

    return judge if cases else None
