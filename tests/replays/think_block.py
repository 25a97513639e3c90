"""Think-block collapse: an answer that the reward's parser cannot read, however right it is.

Published: the MedMCQA structured-JSON pipeline on Qwen3-0.6B (github.com/WeiL11/LongGraph_agents, `Fine-Tune/`).
What happened: Qwen3's template writes an empty think block before every last assistant turn, so SFT on chat messages
teaches `<think>\\n\\n</think>\\n\\n{json}`. The GRPO prompts left thinking on, so the block fell to the completion,
where `json.loads` read nothing: "all rewards = 0.0 throughout (`frac_reward_zero_std = 1.0`)", says the notebook, and
blames an SFT run cut short. The evaluation turned thinking off and stripped the block, and saw 98.5 % valid JSON.
What stops it here: one contract renders, parses and rewards, a block that nobody asked for is `Unparsed` with that
reason, and the pre-flight holds gold answers to the maximum before a step is trained.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from medjudge.data.sources import read_source
from medjudge.diagnostics import preflight
from medjudge.inference.local import LocalEngine
from medjudge.models.scratch import build_tokenizer
from medjudge.records import Case, Rollout, Unparsed
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.settings.data import DataConfig
from medjudge.settings.training import BaseConfig
from medjudge.tasks import mcq
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.tokenizers import stop_token_ids
from medjudge.training.language_model import build_model
from tests.replays.common import Guard, refusal
from tests.shared_data import shared_tokenizer

BLOCK = "<think>\n\n</think>\n\n"
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""A chat template that treats thinking as Qwen3's does."""
G = 4
CONTRACT = McqContract(system_prompt="", max_reason_words=2, strip_stated_answer=False, max_completion_tokens=64)
PLAN = build_plan({"json": 1.0, "schema": 1.0, "accuracy": 1.0}, (), RewardContext(CONTRACT))


class TeachesTheBlock(McqContract):
    """The published SFT in terms of a contract: the answer that is taught begins with the template's block."""

    def target(self, case: Case) -> str:
        return BLOCK + super().target(case)


def published_reward(completion: str, gold: str) -> float:
    """Valid JSON, schema and accuracy, one point each, read from the completion as it is."""
    try:
        answer = json.loads(completion)
    except ValueError:
        return 0.0
    keeps_schema = set(answer) == {"predicted_category", "confidence", "reason"}
    return 1.0 + keeps_schema + (answer.get("predicted_category") == gold)


def published_evaluation(completion: str, gold: str) -> float:
    """The same with the block taken off first, as the evaluation did."""
    return published_reward(re.sub(r"<think>.*?</think>", "", completion, flags=re.DOTALL).strip(), gold)


def sft_text(case: Case, tokenizer: Any) -> str:
    """What SFT on chat messages trains on."""
    turns = [*CONTRACT.messages(case), {"role": "assistant", "content": CONTRACT.target(case)}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def prompt(case: Case, tokenizer: Any, **mode: bool) -> str:
    """A chat prompt; GRPO rendered it without a mode, the evaluation with `enable_thinking=False`."""
    turns = CONTRACT.messages(case)
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **mode))


@cache
def cases() -> tuple[Case, ...]:
    return read_source("builtin:mcq", CONTRACT, DataConfig(max_rows=8)).cases


@cache
def sft_model() -> tuple[Any, Any]:
    """(model, tokenizer): a tiny model that knows these eight texts by heart, hence a perfect policy on them."""
    tokenizer = build_tokenizer([BLOCK + CONTRACT.target(c) + str(dict(c.inputs)) for c in cases()] * 4, 1000)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    shape = BaseConfig(vocab_size=1000, hidden_size=64, n_layers=2, n_heads=2, intermediate_size=128)
    model = build_model(shape, tokenizer, seed=0)
    batch = tokenizer(
        [sft_text(c, tokenizer) for c in cases()], padding=True, padding_side="right", return_tensors="pt"
    )
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(600):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


@torch.no_grad()
def generate(prompts: Sequence[str], *, sample: bool) -> list[str]:
    """Completions as the published code decodes them."""
    model, tokenizer = sft_model()
    inputs = tokenizer(list(prompts), padding=True, return_tensors="pt", add_special_tokens=False)
    torch.manual_seed(0)
    out = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=64, do_sample=sample
    )
    return [
        str(text) for text in tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    ]


@cache
def rollouts() -> tuple[str, ...]:
    """G completions of each GRPO prompt, at temperature 1."""
    _, tokenizer = sft_model()
    return tuple(generate([prompt(c, tokenizer) for c in cases() for _ in range(G)], sample=True))


@cache
def published() -> tuple[str, ...]:
    """The collapse: no rollout earns anything, and the evaluation of the same weights sees nothing wrong."""
    _, tokenizer = sft_model()
    rewards = [
        [published_reward(text, case.gold or "") for text in rollouts()[i * G : (i + 1) * G]]
        for i, case in enumerate(cases())
    ]
    flat = [reward for group in rewards for reward in group]
    without_spread = sum(len(set(group)) == 1 for group in rewards)
    assert (sum(flat), without_spread) == (0.0, len(rewards)), "the published rewards do not collapse"
    answers = generate([prompt(c, tokenizer, enable_thinking=False) for c in cases()], sample=False)
    evaluated = [published_evaluation(text, case.gold or "") for text, case in zip(answers, cases(), strict=True)]
    n_valid, n_right = sum(value >= 1 for value in evaluated), sum(value == 3 for value in evaluated)
    assert n_right == len(cases()), "the policy is not the perfect one that this replay needs"
    return (
        f"published | {len(flat)} rollouts of a policy that knows every answer: mean reward "
        f"{sum(flat) / len(flat):.1f} of 3, groups without spread {without_spread} of {len(rewards)}",
        f"published | evaluation of the same weights, thinking off, block stripped: valid JSON {n_valid} of "
        f"{len(cases())}, right {n_right} of {len(cases())}",
    )


def caught() -> list[str]:
    """What is said here of the same rollouts, of the contract behind them, and of the same weights asked rightly."""
    model, tokenizer = sft_model()
    read = [CONTRACT.parse(cases()[i // G].case_id, text) for i, text in enumerate(rollouts())]
    reasons = Counter(judgement.reason for judgement in read if isinstance(judgement, Unparsed))
    assert all(isinstance(judgement, Unparsed) for judgement in read), "the block is taken off in silence"
    assert all("a <think> block stands first" in reason for reason in reasons)  # some do not end
    message = stopped_by_preflight(tokenizer)
    answers = LocalEngine(model, tokenizer).generate(CONTRACT, cases())
    asked_rightly = [
        Rollout(case, CONTRACT.parse(case.case_id, answer.text), answer)
        for case, answer in zip(cases(), answers, strict=True)
    ]
    earned = [rollout.total for rollout in PLAN.score(asked_rightly)]
    assert earned == [3.0] * len(cases())
    return [
        f"medjudge  | {len(read)} of {len(read)} of those rollouts unparsed: {reasons.most_common(1)[0][0]}",
        f"medjudge  | {message}",
        f"medjudge  | the same weights on the contract's own prompts, which hold the closed block: "
        f"{earned.count(3.0)} of {len(earned)} earn 3.0",
    ]


def stopped_by_preflight(tokenizer: Any) -> str:
    """The pre-flight's message where the answer that is taught is not the answer that is rewarded."""
    teaches = TeachesTheBlock(**CONTRACT.model_dump())
    return refusal(lambda: preflight.require_earnable(preflight.check_gold(teaches, cases(), tokenizer, PLAN))).split(
        " Such as case"
    )[0]


def replay(folder: Path) -> list[str]:
    return [*published(), *caught()]


def replay_on_qwen3(folder: Path) -> list[str]:
    """The same on Qwen3's real tokenizer and template; the perfect policy's completion is read off the SFT text."""
    tokenizer = shared_tokenizer("qwen3")
    stop = tokenizer.decode(stop_token_ids(tokenizer)[:1])
    completions = [sft_text(c, tokenizer).removeprefix(prompt(c, tokenizer)).partition(stop)[0] for c in cases()]
    assert all(text.startswith(BLOCK) for text in completions)
    golds = [case.gold or "" for case in cases()]
    rewards = [published_reward(text, gold) for text, gold in zip(completions, golds, strict=True)]
    evaluated = [published_evaluation(text, gold) for text, gold in zip(completions, golds, strict=True)]
    assert (set(rewards), set(evaluated)) == ({0.0}, {3.0})
    found = preflight.check_gold(CONTRACT, cases(), tokenizer, PLAN)
    assert found.passed
    return [
        f"published | a perfect policy completes with {completions[0][:37]!r}...",
        f"published | its reward: {max(rewards):.1f} of 3; in the evaluation: {min(evaluated):.1f} of 3",
        f"medjudge  | {stopped_by_preflight(tokenizer)}",
        f"medjudge  | under one contract {found.n_at_maximum} of {found.n_cases} gold answers earn {found.maximum:g}",
    ]


def _strip_in_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mcq, "split_thinking", lambda text, thinking: ("", text.rpartition("</think>")[2].strip()))


GUARDS = (
    Guard(
        "the pre-flight's stop (`require_earnable`) does nothing",
        lambda patch: patch.setattr(preflight, "require_earnable", lambda result: None),
        "nothing was refused",
    ),
    Guard("the parser strips the block, as the evaluation did", _strip_in_silence, "the block is taken off in silence"),
)
