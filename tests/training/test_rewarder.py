"""TRL's reward functions: one per term, each batch read and scored once, each rollout with its own case."""

from __future__ import annotations

from typing import Any

import pytest

from medjudge.models.scratch import build_tokenizer
from medjudge.records import Case, Judgement
from medjudge.rewards.composition import RewardContext, ScoredRollout, build_plan
from medjudge.tasks.appropriateness import LABELS, AppropriatenessContract
from medjudge.tasks.encoding import encode_all
from medjudge.training.grpo import Rewarder
from tests.models.small_models import TEXT

TOKENIZER = build_tokenizer(TEXT, 320)
CASES = [
    Case(f"c{i}", {"condition": "pain", "variant": f"v{i}", "procedure": "CT"}, gold=LABELS[i]) for i in range(3)
] + [Case("unrated", {"condition": "pain", "variant": "v", "procedure": "CT"})]


class Counting(AppropriatenessContract):
    def parse(self, case_id: str, completion: str) -> Judgement:
        READ.append(case_id)
        return super().parse(case_id, completion)


READ: list[str] = []
CONTRACT = Counting(form="answer_only", max_completion_tokens=64)


def ids_of(label: str) -> list[int]:
    text = f"<answer>{label}</answer>"
    return [*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]


@pytest.fixture
def rewarder() -> Rewarder:
    READ.clear()
    plan = build_plan({"accuracy": 1.0, "ordinal": 1.0, "format": 0.5}, ["schema"], RewardContext(CONTRACT))
    seen: list[list[ScoredRollout]] = []
    made = Rewarder(
        CONTRACT, CASES, encode_all(CONTRACT, CASES, TOKENIZER, with_target=False), TOKENIZER, plan, seen.append
    )
    made.seen = seen  # type: ignore[attr-defined]
    return made


def pay(functions: list[Any], case_ids: list[str], completion_ids: list[list[int]]) -> list[list[float | None]]:
    blank = [""] * len(case_ids)
    return [f(prompts=blank, completions=blank, completion_ids=completion_ids, case_id=case_ids) for f in functions]


def test_each_term_by_name_and_each_completion_read_once(rewarder: Rewarder) -> None:
    functions = rewarder.functions()
    assert [f.__name__ for f in functions] == ["accuracy", "ordinal", "format"]
    completions = [ids_of(LABELS[0]), ids_of(LABELS[0]), ids_of(LABELS[2]), [5]]
    # The order of the batch is not that of the cases.
    paid = pay(functions, ["c1", "c0", "c2", "c2"], completions)
    assert paid == [[0, 1, 1, 0], [0.5, 1, 1, 0], [1, 1, 1, 0]]
    assert READ == ["c1", "c0", "c2", "c2"]
    assert len(rewarder.seen) == 1  # type: ignore[attr-defined]
    pay(functions, ["c1"], [ids_of(LABELS[1])])
    assert len(rewarder.seen) == 2  # type: ignore[attr-defined]
    assert len(READ) == 5


def test_a_rollout_without_a_total_is_left_out_of_every_term(rewarder: Rewarder) -> None:
    assert pay(rewarder.functions(), ["unrated"], [ids_of(LABELS[0])]) == [[None], [None], [None]]
