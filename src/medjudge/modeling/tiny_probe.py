"""What a tiny base has learned: does it read options, does it know the sentences, and does it put the two together?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from medjudge.data.generators import mcq
from medjudge.data.generators.answers import statement
from medjudge.data.generators.parts import Part, facts_of
from medjudge.modeling.cpu_forward import hidden_states
from medjudge.records import Case
from medjudge.tasks.mcq import LETTERS, McqContract

BATCH = 50


def option_accuracy(model: Any, tokenizer: Any, part: Part, n: int, seed: int) -> float:
    """Share of `n` multiple-choice questions whose right letter is the likeliest of the four; chance is 0.25."""
    contract = McqContract(system_prompt="")
    rows = mcq.generate(n, random.Random(seed), part=part)
    cases = [contract.read_case({k: v for k, v in row.items() if k in contract.fields}, "probe") for row in rows]
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in LETTERS]
    prompts = [_prompt(contract, case, tokenizer) for case in cases]
    right = 0
    for start in range(0, n, BATCH):
        some = prompts[start : start + BATCH]
        hidden = _hidden(model, tokenizer, some)
        last = torch.stack([hidden[row, len(ids) - 1] for row, ids in enumerate(some)])
        chosen = (last @ model.lm_head.weight[letters].T).argmax(-1).tolist()
        right += sum(
            LETTERS[place] == case.gold for place, case in zip(chosen, cases[start : start + BATCH], strict=True)
        )
    return right / n


def statements_known(model: Any, tokenizer: Any, part: Part, n: int, seed: int) -> float:
    """Share of `n` facts whose value the model writes, word for word, once a statement has come to it."""
    rng = random.Random(seed)
    heads, values = [], []
    for fact in rng.sample(facts_of(part), min(n, len(facts_of(part)))):
        for _ in range(10):  # wordings that put the value first have nothing to complete
            text = statement(fact, fact.value, rng, "en")
            head, found, _ = text.partition(" " + fact.value)
            if found and fact.subject in head:
                heads.append(tokenizer(head, add_special_tokens=False)["input_ids"])
                values.append(tokenizer(found, add_special_tokens=False)["input_ids"])
                break
    known = 0
    for start in range(0, len(heads), BATCH):
        pairs = list(zip(heads[start : start + BATCH], values[start : start + BATCH], strict=True))
        hidden = _hidden(model, tokenizer, [head + value for head, value in pairs])
        for row, (head, value) in enumerate(pairs):
            said = (hidden[row, len(head) - 1 : len(head) + len(value) - 1] @ model.lm_head.weight.T).argmax(-1)
            known += said.tolist() == value
    return known / max(1, len(heads))


def _prompt(contract: McqContract, case: Case, tokenizer: Any) -> list[int]:
    text = tokenizer.apply_chat_template(contract.messages(case), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _hidden(model: Any, tokenizer: Any, rows: Sequence[list[int]]) -> torch.Tensor:
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    with torch.no_grad():
        return hidden_states(model, ids, torch.float32)
