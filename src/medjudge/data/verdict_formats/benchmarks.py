"""Benchmarks of judges of pairs: RewardBench, JudgeBench, LLMBar. Two orders of one pair are two verdicts on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    NO_VERDICT,
    Asked,
    Format,
    Layout,
    Values,
    added,
    entries,
    finite,
    get,
    has,
    having,
    items,
    objects,
    sides_of,
    unique,
)

BETTER, TRUTH, ORDER, JUDGE, FAILED, CASE = "better answer", "right answer", "order", "judge model", "failure", "case"
SIDES = {"A>B": "A", "B>A": "B", "A=B": "tie", "1": "A", "2": "B"}
FLIPPED = {"A": "B", "B": "A", "tie": "tie"}
PAIR_NOTE = "A is the first answer of a pair, B the second."


def _read_reward(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    as_pair = bool(sides_of(asked.labels)) and set(asked.labels) != {"0", "1"}
    for row in rows:
        result = finite(row.values.get("results"))
        if result is None:
            chosen, rejected = finite(row.values.get("scores_chosen")), finite(row.values.get("scores_rejected"))
            if chosen is not None and rejected is not None:
                result = 1.0 if chosen > rejected else 0.0 if chosen < rejected else 0.5
        words = {1.0: "A", 0.0: "B", 0.5: "tie"} if as_pair else {1.0: 1, 0.0: 0, 0.5: "tie"}
        verdict = None if result is None else words.get(result)
        laid.append(added(row, {BETTER: verdict, TRUTH: words[1.0], FAILED: "" if verdict is not None else "no score"}))
    columns = {
        "id": "id" if unique(rows, "id") else CASE,
        "label": BETTER,
        "gold": TRUTH,
        "judge": "model" if any(row.values.get("model") for row in rows) else "",
        "error": FAILED,
        "confidence": "",
    }
    if columns["id"] == CASE:
        laid = [added(row, {CASE: f"row {at}"}) for at, row in enumerate(laid, start=1)]
    notes = [
        f"{source}: the verdict is whether the chosen answer scored higher, and the right label is the same on every "
        "case: accuracy is all that can be measured."
    ]
    return Layout(laid, columns, {"results": BETTER}, notes, meaning="pair" if as_pair else "sides")


def _is_reward(rows: Sequence[Values]) -> str:
    return having("scores_chosen", "scores_rejected", one_of=("results", "text_chosen", "id", "subset"))(rows)


def _read_judge_bench(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for row in rows:
        truth = SIDES.get(plain(row.values.get("label")))
        judgements = entries(row.values.get("judgments"))
        if not judgements:
            laid.append(added(row, {NO_VERDICT: True, BETTER: None, TRUTH: truth, JUDGE: "", FAILED: ""}))
        for at, judgement in enumerate(judgements, start=1):
            side = SIDES.get(plain(items(judgement).get("decision")))
            # The second judgement saw the answers the other way round.
            side = FLIPPED.get(side or "") if at == 2 else side
            who = get(judgement, "judgment.judge_model") or row.values.get("judge_name")
            laid.append(
                added(
                    row,
                    {BETTER: side, TRUTH: truth, ORDER: at, JUDGE: who, FAILED: "" if side else "no decision"},
                )
            )
    columns = {
        "id": "pair_id",
        "label": BETTER,
        "gold": TRUTH,
        "judge": JUDGE,
        "repeat": ORDER,
        "error": FAILED,
        "group": "original_id" if any(row.values.get("original_id") for row in rows) else "",
        "confidence": "",
    }
    return Layout(laid, columns, {"label": TRUTH}, [f"{source}: {PAIR_NOTE}"], meaning="pair")


def _orders(row: Row) -> list[tuple[str, Any]]:
    """(order, what was said in it) of one row of LLMBar."""
    return [
        (order, said)
        for result in objects(row.values.get("results"))
        for order, said in items(result).items()
        if has(said, "winner")
    ]


def _read_llmbar(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for at, row in enumerate(rows, start=1):
        truth = SIDES.get(plain(row.values.get("label")))
        if not _orders(row):
            laid.append(added(row, {NO_VERDICT: True, BETTER: None, TRUTH: truth, CASE: f"row {at}", FAILED: ""}))
        for order, said in _orders(row):
            winner = SIDES.get(plain(items(said).get("winner")))
            computed = {
                BETTER: winner,
                TRUTH: truth,
                ORDER: order,
                FAILED: "" if winner else "no winner",
                CASE: f"row {at}",
            }
            laid.append(added(row, computed))
    columns = {
        "id": CASE,
        "label": BETTER,
        "gold": TRUTH,
        "repeat": ORDER,
        "error": FAILED,
        "confidence": "",
        "group": "",
    }
    # The winner is the answer itself in both orders, so nothing is turned round.
    return Layout(laid, columns, {"label": TRUTH}, [f"{source}: {PAIR_NOTE}"], meaning="pair")


def _is_llmbar(rows: Sequence[Values]) -> str:
    if not any(_orders(Row("", row)) for row in rows):
        return ""
    return having("input", "output_1", "output_2", "label", "results")(rows)


REWARD_BENCH = Format(
    "reward_bench",
    "scores of RewardBench",
    "medjudge score scores.json --labels 0,1",
    _is_reward,
    _read_reward,
)
JUDGE_BENCH = Format(
    "judge_bench",
    "judgements of JudgeBench",
    "medjudge score output.jsonl --labels A,B,tie",
    having("pair_id", "label", "judgments", "response_A", "response_B"),
    _read_judge_bench,
)
LLMBAR = Format(
    "llmbar",
    "results of LLMBar",
    "medjudge score result.json --labels 1,2",
    _is_llmbar,
    _read_llmbar,
)
