"""What a tiny base has learned: does it know the sentences, and does it find the one that a question asks for?"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from medjudge.models.scratch import TURN_END
from medjudge.records import Message
from medjudge.synthetic import appropriateness, mcq
from medjudge.synthetic.answers import statement
from medjudge.synthetic.appropriateness import LEVELS
from medjudge.synthetic.mcq import Row
from medjudge.synthetic.partition import Part, facts_of
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.mcq import LETTERS, McqContract
from medjudge.tiny_base.corpus import case_of
from medjudge.tiny_base.cpu_forward import hidden_states
from medjudge.tiny_base.documents import Document
from medjudge.tiny_base.pretraining import encode_document

BATCH = 50
MAX_ANSWER = 80
"""Tokens of an answer: a sentence and the option."""


def options_right(model: Any, tokenizer: Any, part: Part, n: int, seed: int) -> float:
    """Share of `n` multiple-choice questions whose written answer ends on the right letter; chance is 0.25."""
    asked = _asked(model, tokenizer, McqContract(system_prompt=""), mcq.generate(n, random.Random(seed), part=part))
    letters = rf"^([{''.join(LETTERS)}])\)"
    return sum(re.findall(letters, answer, re.MULTILINE)[-1:] == [gold] for gold, answer in asked) / n


def orders_rated(model: Any, tokenizer: Any, part: Part, n: int, seed: int) -> float:
    """Share of `n` imaging orders that the model, in its own words, rates as the table does; 48 % are "wrong"."""
    rows = appropriateness.generate(n, random.Random(seed), evidence=False, part=part)
    asked = _asked(model, tokenizer, AppropriatenessContract(system_prompt=""), rows)
    return sum(answer.startswith(LEVELS[gold]) for gold, answer in asked) / n


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


def skill(
    model: Any, tokenizer: Any, draw: Callable[[random.Random], Document], answer_weight: float, n: int, seed: int
) -> float:
    """Of `n` documents that `draw` makes, the share of the tokens with the most weight that the model would write."""
    rng = random.Random(seed)
    right = total = 0
    for _ in range(n):
        document = encode_document(draw(rng), tokenizer, answer_weight)
        said = (_hidden(model, tokenizer, [document.ids])[0] @ model.lm_head.weight.T).argmax(-1).tolist()
        most = max(document.weights)
        asked = [place for place, weight in enumerate(document.weights) if weight == most and place]
        right += sum(said[place - 1] == document.ids[place] for place in asked)
        total += len(asked)
    return right / total


def _asked(model: Any, tokenizer: Any, contract: TaskContract, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Gold label and written answer of each row."""
    cases = [case_of(contract, row) for row in rows]
    answers: list[str] = []
    for start in range(0, len(cases), BATCH):
        answers += _answers(model, tokenizer, [contract.messages(case) for case in cases[start : start + BATCH]])
    return [(str(case.gold), answer) for case, answer in zip(cases, answers, strict=True)]


def _answers(model: Any, tokenizer: Any, chats: Sequence[list[Message]]) -> list[str]:
    prompts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    rows = tokenizer(prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        written = model.generate(
            input_ids=rows["input_ids"],
            attention_mask=rows["attention_mask"],
            max_new_tokens=MAX_ANSWER,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.convert_tokens_to_ids(TURN_END),
        )
    answers: list[str] = tokenizer.batch_decode(written[:, rows["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def _hidden(model: Any, tokenizer: Any, rows: Sequence[list[int]]) -> torch.Tensor:
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    with torch.no_grad():
        return hidden_states(model, ids, torch.float32)
