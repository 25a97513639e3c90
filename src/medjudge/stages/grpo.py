"""Sharpen the SFT model on verifiable rewards: `medjudge run RECIPE --from grpo --until grpo`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from medjudge import artifacts
from medjudge.data.splits import seeded_sample
from medjudge.diagnostics.preflight import Preflight, PreflightOptions, require_earnable, run_preflight
from medjudge.errors import RunError
from medjudge.inference.local import LocalEngine
from medjudge.models.adapters import skeleton
from medjudge.models.load import count_parameters, load_tokenizer, load_weights, quiet_libraries
from medjudge.records import Verdict
from medjudge.reporting.diagnostics import print_doctor, print_preflight
from medjudge.rewards.llm import LlmReward
from medjudge.runs.model_paths import start_in_words, start_of
from medjudge.runs.stages import StageContext, training_stages
from medjudge.training.adapter_check import check_adapters
from medjudge.training.algorithms import algorithm_of
from medjudge.training.job import Beside, RewardedRows, TrainingJob
from medjudge.training.policy_sample import draw_sample
from medjudge.training.save import Origin, save_trained
from medjudge.training.totals import JudgeCounts

STAGE = "grpo"


def run(context: StageContext) -> dict[str, Any]:
    """Proves that the rewards can be earned, then trains while the doctor watches.

    Writes `adapter/` or `model/`, `preflight.json`, `doctor.json` and the log.
    """
    quiet_libraries()
    recipe, run_dir, algorithm = context.recipe, context.run_dir, algorithm_of(context.recipe)
    split = run_dir.split(recipe.grpo.split)
    start, name = start_of(STAGE, recipe, run_dir.path)
    tokenizer = load_tokenizer(start, recipe.model.chat_template)
    rows = RewardedRows.of_split(recipe, split.read(), tokenizer)
    judges = {name: reward for name, reward in rows.plan.rewards.items() if isinstance(reward, LlmReward)}
    for reward in judges.values():
        if reward.client is not None and not reward.client.endpoint.is_loopback:
            context.console.print(f"          the text of the cases is sent to {reward.client.endpoint.host}")
    is_lora = recipe.grpo.tuning == "lora"
    if is_lora:
        check_adapters(recipe, (STAGE,), skeleton(start))
    model = load_weights(start, recipe.model, tokenizer, quantize=is_lora, train_all=not is_lora)
    preflight = _proven(context, rows, model, tokenizer)
    shortened = preflight.shortened_line(recipe.contract.max_prompt_tokens)
    for line in filter(None, (shortened, preflight.neutralised_line, recipe.contract.guard_warning)):
        context.console.print(f"          {line}")
    require_earnable(preflight)
    held_out = _held_out(context, tokenizer) if algorithm.draws_rollouts else None
    job = TrainingJob(recipe.contract, model, tokenizer, recipe.model, context.out_dir, recipe.seed)
    trained = algorithm.train(job, recipe.grpo, rows, Beside(held_out, preflight.pass_rates))
    if not context.is_first_rank:
        return {}
    trainable, total = count_parameters(trained.model)
    origin = Origin(STAGE, recipe, start, name, run_dir.stage(STAGE), split.sha256)
    lineage = save_trained(trained.model, tokenizer, context.out_dir, origin)
    artifacts.write_json(context.out_dir / artifacts.HISTORY, trained.history)
    if trained.doctor is not None:
        artifacts.write_json(context.out_dir / artifacts.DOCTOR, trained.doctor)
        print_doctor(trained.doctor, context.console)
    reports = {name: reward.report() for name, reward in judges.items()}
    if reports:
        artifacts.write_json(context.out_dir / artifacts.JUDGES, reports)
    return {
        "n_cases": len(rows.cases),
        "n_prompts_shortened": preflight.n_prompts_cut,
        "n_words_cut": preflight.n_words_cut,
        "n_prompts_neutralised": preflight.n_prompts_neutralised,
        **{f"{name} {key}": report[key] for name, report in reports.items() for key in ("n_marked", "n_failed")},
        **{f"{name} usd": report["usage"]["cost_usd"] for name, report in reports.items() if report["usage"]},
        "n_cases_not_rewardable": rows.n_not_rewardable,
        "rewards": rows.plan.report(),
        "preflight": preflight.verdict,
        **_findings(trained.doctor),
        "trainable_parameters": trainable,
        "parameters": total,
        "weights_sha256": lineage.weights_sha256,
        "parent_sha256": lineage.parent.weights_sha256 if lineage.parent else None,
    }


def _findings(doctor: Mapping[str, Any] | None) -> dict[str, Any]:
    """The doctor's findings for the stage's one line."""
    if doctor is None:
        return {}
    named = [finding["name"] for finding in doctor["findings"] if finding["explained_by"] is None]
    return {"doctor": ", ".join(named) or "nothing found", "stopped_step": doctor["stopped_step"]}


def _proven(context: StageContext, rows: RewardedRows, model: Any, tokenizer: Any) -> Preflight:
    """The pre-flight, printed and kept in `preflight.json`; a run that was cut off after it has it already."""
    recipe, path = context.recipe, context.out_dir / artifacts.PREFLIGHT
    stored = None
    with contextlib.suppress(RunError):  # a damaged one is made again
        stored = artifacts.read_as(path, Preflight.from_json) if path.exists() else None
    has_proof = stored is not None and stored.verdict != "failed"
    counts = JudgeCounts(context.out_dir, rows.plan.rewards)
    counts.resume(has_preflight=has_proof)
    if stored is not None and has_proof:
        return stored
    started = time.monotonic()
    policy, n_prompts = start_in_words(STAGE, recipe), recipe.grpo.preflight.prompts
    options = PreflightOptions(
        sample=draw_sample(recipe, rows.cases, model, tokenizer, policy, is_start=True)
        if n_prompts
        else "`grpo.preflight.prompts` is 0",
        seed=recipe.seed,
        max_cut_share=recipe.grpo.preflight.max_cut_share,
        context_tokens=getattr(model.config.get_text_config(), "max_position_embeddings", None),
    )
    result = run_preflight(recipe.contract, rows.cases, tokenizer, rows.plan, options, answers=rows.answers)
    if not recipe.grpo.doctor.keep_completions:
        result = result.without_text()
    result = replace(result, seconds=round(time.monotonic() - started, 2), forced=context.force and not result.passed)
    if context.is_first_rank:
        counts.keep()
        artifacts.write_json(path, result.to_json())
        print_preflight(result, context.console)
    return result


def _held_out(context: StageContext, tokenizer: Any) -> Callable[[Any], str] | None:
    """Judges a few held-out cases greedily: `1` or `0` each. None where the run has none, or wants none."""
    recipe, config = context.recipe, context.recipe.grpo.doctor
    split = context.run_dir.split(config.held_out_split)
    learned_from = [stage.split_name(recipe) for stage in training_stages(context.recipe.stages)]
    if not config.held_out_cases or not split.exists or config.held_out_split in learned_from:
        return None
    cases = seeded_sample([case for case in split.read() if case.gold is not None], config.held_out_cases, recipe.seed)

    def judge(model: Any) -> str:
        engine = LocalEngine(model, tokenizer, batch_tokens=recipe.evaluate.batch_tokens)
        completions = engine.generate(recipe.contract, cases)
        judged = (recipe.contract.parse(case.case_id, c.text) for case, c in zip(cases, completions, strict=True))
        return "".join(
            "1" if isinstance(judgement, Verdict) and judgement.label == case.gold else "0"
            for case, judgement in zip(cases, judged, strict=True)
        )

    return judge if cases else None
