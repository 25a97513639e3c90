"""Sharpen the SFT model on verifiable rewards: `medjudge run RECIPE --from grpo --until grpo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge import artifacts
from medjudge.config import Recipe
from medjudge.data.splits import seeded_sample
from medjudge.data.store import read_split
from medjudge.modeling.all_action import train_all_action
from medjudge.modeling.chain import start_of
from medjudge.modeling.grpo import train_grpo
from medjudge.modeling.load import count_parameters, load_tokenizer, load_weights, quiet_libraries
from medjudge.modeling.save import save_trained
from medjudge.rewards.composition import reward_plan, rewardable
from medjudge.rewards.llm import LlmReward
from medjudge.rewards.preflight import as_taught, check_gold, require_earnable


def run(recipe: Recipe, out_dir: Path, run_dir: Path, console: Console) -> dict[str, Any]:
    """Proves that the rewards can be earned, then trains. Writes `adapter/` or `model/`, and two JSON files."""
    quiet_libraries()
    split = read_split(run_dir / "prepare" / f"{recipe.grpo.split}{artifacts.SPLIT_SUFFIX}")
    rated = [case for case in split if case.gold is not None]
    start, name = start_of("grpo", recipe, run_dir)
    tokenizer = load_tokenizer(start, recipe.model.chat_template)
    rated = as_taught(recipe.contract, rated, tokenizer)
    plan = reward_plan(recipe, rated)
    can_earn = rewardable(plan, rated)
    cases = seeded_sample(can_earn, recipe.grpo.max_cases, recipe.seed)
    preflight = check_gold(recipe.contract, cases, tokenizer, plan)
    artifacts.write_json(out_dir / artifacts.PREFLIGHT, preflight.to_json())
    require_earnable(preflight)
    judges = [reward for reward in plan.rewards.values() if isinstance(reward, LlmReward)]
    for judge in judges:
        if judge.client is not None and not judge.client.endpoint.is_loopback:
            console.print(f"          the text of the cases is sent to {judge.client.endpoint.host}")
    is_lora = recipe.grpo.tuning == "lora"
    model = load_weights(start, recipe.model, tokenizer, quantize=is_lora, train_all=not is_lora)
    train = train_all_action if recipe.grpo.algorithm == "all_action" else train_grpo
    model, history = train(
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
    trainable, total = count_parameters(model)
    lineage = save_trained("grpo", model, tokenizer, recipe, start, name, out_dir, run_dir, merge_now=False, prompts=())
    artifacts.write_json(out_dir / artifacts.HISTORY, history)
    for judge in judges:
        console.print(f"          {judge.outcome()}")
    return {
        "n_cases": len(cases),
        "n_cases_not_rewardable": len(rated) - len(can_earn),
        "rewards": plan.facts(),
        "trainable_parameters": trainable,
        "parameters": total,
        "weights_sha256": lineage.weights_sha256,
        "parent_sha256": lineage.parent.weights_sha256 if lineage.parent else None,
    }
