"""A few rollouts from the policy before it is trained, drawn as GRPO will draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medjudge.config import GrpoConfig, Recipe
from medjudge.modeling.grpo import grpo_order
from medjudge.modeling.load import check_context
from medjudge.records import Case, Completion
from medjudge.rewards.checks import PolicySample
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import decode, encode_all, stop_token_ids


def draw_sample(
    recipe: Recipe, cases: Sequence[Case], model: Any, tokenizer: Any, policy: str, *, is_start: bool
) -> PolicySample:
    """What the policy answers to the first cases that GRPO would train on. `policy`: which weights, in words."""
    order, _ = grpo_order(len(cases), recipe.grpo, recipe.seed)
    chosen = tuple(cases[i] for i in list(dict.fromkeys(order))[: recipe.grpo.preflight.prompts])
    completions = sample_policy(recipe.contract, chosen, model, tokenizer, recipe.grpo, seed=recipe.seed)
    return PolicySample(policy, is_start, chosen, completions)


@torch.inference_mode()
def sample_policy(
    contract: TaskContract, cases: Sequence[Case], model: Any, tokenizer: Any, config: GrpoConfig, *, seed: int
) -> tuple[tuple[Completion, ...], ...]:
    """(n_cases, group_size) completions at the recipe's temperature. Leaves the random state as it found it."""
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    check_context(model, max(len(row.prompt_ids) for row in encoded) + contract.max_completion_tokens)
    stop_ids = stop_token_ids(tokenizer)
    size = config.group_size
    per_call = max(1, config.micro_batch // size)
    drawn: list[Completion] = []
    was_training, device = model.training, next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model.eval()
        try:
            for first in range(0, len(encoded), per_call):
                rows = [row for row in encoded[first : first + per_call] for _ in range(size)]
                for row, ids in zip(rows, _generate(model, tokenizer, rows, contract, config), strict=True):
                    n = next((i + 1 for i, token in enumerate(ids) if token in stop_ids), len(ids))
                    stopped = n > 0 and ids[n - 1] in stop_ids
                    drawn.append(
                        Completion(decode(tokenizer, ids[:n], stop_ids), n, stopped, row.n_words_cut, row.shown)
                    )
        finally:
            model.train(was_training)
    return tuple(tuple(drawn[i : i + size]) for i in range(0, len(drawn), size))


def _generate(
    model: Any, tokenizer: Any, rows: Sequence[Any], contract: TaskContract, config: GrpoConfig
) -> list[list[int]]:
    width = max(len(row.prompt_ids) for row in rows)
    device = next(model.parameters()).device
    pads = [width - len(row.prompt_ids) for row in rows]
    input_ids = [[tokenizer.pad_token_id] * n + row.prompt_ids for n, row in zip(pads, rows, strict=True)]
    mask = [[0] * n + [1] * (width - n) for n in pads]
    out = model.generate(
        input_ids=torch.tensor(input_ids, device=device),
        attention_mask=torch.tensor(mask, device=device),
        max_new_tokens=contract.max_completion_tokens,
        do_sample=True,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        use_cache=True,
    )
    ids: list[list[int]] = out[:, width:].tolist()
    return ids
