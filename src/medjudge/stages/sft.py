"""Teach the base model the task and the answer format: `medjudge run RECIPE --from sft --until sft`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.markup import escape

from medjudge import artifacts
from medjudge.data.ratings import one_view_each
from medjudge.diagnostics.preflight import check_answers, require_earnable, taught_answers
from medjudge.models.adapters import skeleton
from medjudge.models.load import count_parameters, load_tokenizer, load_weights, quiet_libraries
from medjudge.models.merge_proof import proof_sentences
from medjudge.runs.model_paths import start_of
from medjudge.runs.stages import STAGES, StageContext
from medjudge.training.adapter_check import check_adapters
from medjudge.training.job import TrainingJob
from medjudge.training.save import Origin, proof_prompts, save_trained
from medjudge.training.sft import TaughtRows, train_sft

STAGE = "sft"


def run(context: StageContext) -> dict[str, Any]:
    """Fine-tunes on the experts' answers. Writes `model/` (whole weights), with LoRA also `adapter/`, and the log."""
    quiet_libraries()
    recipe, run_dir = context.recipe, context.run_dir
    split, validation = run_dir.split(recipe.sft.split), run_dir.split("validation")
    train = split.read()
    start, name = start_of(STAGE, recipe, run_dir.path)
    tokenizer = load_tokenizer(start, recipe.model.chat_template)
    # Each row is encoded once: the check, the training and the proof of the merge see the same tokens.
    views = one_view_each(train) if recipe.sft.ratings != "gold" else ()
    rated = [view.case for view in views] or [case for case in train if case.gold is not None]
    answers = taught_answers(recipe.contract, rated, tokenizer)
    preflight = check_answers(answers, recipe.reward_plan([answer.rollout.case for answer in answers]))
    if any(STAGES[stage].by_rewards for stage in recipe.stages):
        # What no answer can earn is better known before SFT than after it.
        require_earnable(replace(preflight, forced=context.force))
    shortened = preflight.shortened_line(recipe.contract.max_prompt_tokens)
    for line in filter(None, (shortened, preflight.neutralised_line, recipe.contract.guard_warning)):
        context.console.print(f"          {line}")
    is_lora = recipe.sft.tuning == "lora"
    if is_lora:
        check_adapters(recipe, (STAGE,), skeleton(start))
    model = load_weights(start, recipe.model, tokenizer, quantize=is_lora, train_all=not is_lora)
    watched = validation.read() if validation.exists else ()
    rows = tuple((answer.rollout.case, answer.encoded) for answer in answers)
    held_out = TaughtRows.encode_validation(recipe.contract, watched, tokenizer, seed=recipe.seed)
    taught = TaughtRows(rows, held_out)
    if recipe.sft.ratings != "gold":
        taught = TaughtRows.of_ratings(views, rows, recipe.sft.ratings, held_out)
    job = TrainingJob(recipe.contract, model, tokenizer, recipe.model, context.out_dir, recipe.seed)
    trained = train_sft(job, recipe.sft, taught)
    if not context.is_first_rank:
        return {}
    trainable, total = count_parameters(trained.model)
    known = {answer.rollout.case.case_id: answer.encoded for answer in answers}
    proof = proof_prompts(recipe, train, tokenizer, known)
    origin = Origin(STAGE, recipe, start, name, run_dir.stage(STAGE), split.sha256)
    lineage = save_trained(trained.model, tokenizer, context.out_dir, origin, proof=proof)
    for sentence in proof_sentences(lineage.merge or {}):
        context.console.print(f"          {escape(sentence)}")
    artifacts.write_json(context.out_dir / artifacts.HISTORY, trained.history)
    return {
        "n_cases": len({view.case_id for view in views}) or len(answers),
        **({"n_targets": len(taught.train)} if views else {}),
        "n_prompts_shortened": preflight.n_prompts_cut,
        "n_words_cut": preflight.n_words_cut,
        "n_prompts_neutralised": preflight.n_prompts_neutralised,
        "n_snippets_cut": preflight.n_snippets_cut,
        "trainable_parameters": trainable,
        "parameters": total,
        "weights_sha256": lineage.weights_sha256,
        "parent_sha256": lineage.parent.weights_sha256 if lineage.parent else None,
        "merge": dict(lineage.merge) if lineage.merge else None,
    }
