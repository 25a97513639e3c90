"""Which of two answers is better, as benchmarks and leaderboards write it: hand-made files, and what they must give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medjudge.records import Verdict
from tests.commands.format_files import accuracy, gold_of, read, refusal, said, unanswered, write_json, write_lines

SIDES = ("A", "B", "A", "B", "A", "B")
SAID = ("A", "B", "B", "B", "tie", None)
"""Right on three of six; a tie where the experts have none is wrong."""
PREFERENCE = {"A": 1.0000630276, "B": 1.9999, "tie": 1.5, None: None}


def annotation(i: int, **more: Any) -> dict[str, Any]:
    base = {"instruction": f"c{i}", "output_1": "a", "generator_1": "g1", "output_2": "b", "generator_2": "g2"}
    return {**base, "dataset": "d", "annotator": "judge", "preference": PREFERENCE[SAID[i]], **more}


def test_alpaca_eval(tmp_path: Path) -> None:
    path = write_json(tmp_path / "annotations.json", [annotation(i) for i in range(6)])
    human = [{"instruction": f"c{i}", "preference": {"A": 1, "B": 2}[SIDES[i]]} for i in range(6)]
    gold = write_json(tmp_path / "human.json", human)
    mapped = {"id": "instruction", "gold": "preference"}
    assert accuracy(read(path, "1,2", gold=gold), "judge") == 3 / 6
    scored = read(path, "A,B,tie", gold=gold, gold_columns=mapped)
    assert said(scored, "judge") == {f"c{i}": label or "(failed)" for i, label in enumerate(SAID)}
    assert accuracy(scored, "judge") == 3 / 6
    sure = {one.case_id: one.confidence for one in scored.judgements["judge"] if isinstance(one, Verdict)}
    assert sure["c0"] == pytest.approx(2 - 1.0000630276)
    assert sure["c1"] == pytest.approx(0.9999)
    assert sure["c4"] == pytest.approx(0.5)
    # By the numbers that the program writes; a tie is no label of that scale.
    numbers = read(path, "1,2", gold=gold, gold_columns=mapped, columns={"label": "preference"})
    assert accuracy(numbers, "judge") == 3 / 6
    assert unanswered(numbers, "judge") == {"schema": 1, "failed": 1}


def test_alpaca_eval_pairs_of_one_instruction_are_cases_of_a_group(tmp_path: Path) -> None:
    rows = [annotation(i, generator_1=name, gold=SIDES[i]) for i in range(6) for name in ("x", "y")]
    scored = read(write_json(tmp_path / "annotations.json", rows), "A,B,tie")
    assert (scored.results.n_cases, scored.results.n_groups) == (12, 6)
    assert accuracy(scored, "judge") == 6 / 12


# --- MT-Bench ---------------------------------------------------------------------------------------------------------


def test_mt_bench_pair_against_experts_votes(tmp_path: Path) -> None:
    # Both orders of two models are one case; votes of the experts name the models the other way round.
    games = [
        ("model_1", "model_1"),
        ("model_2", "model_2"),
        ("model_1", "model_2"),
        ("tie", "tie"),
        ("error", "model_1"),
    ]
    rows = [
        {"question_id": i, "model_1": "m", "model_2": "k", "g1_winner": a, "g2_winner": b, "judge": ["gpt", "pair"]}
        | {"turn": 1, "g1_judgment": "-", "g2_judgment": "-"}
        for i, (a, b) in enumerate(games)
    ]
    path = write_lines(tmp_path / "pair.jsonl", rows)
    # m (model_b here) is better on 0 by two of three, k on 1, undecided on 2 (one each), tie on 3, m on 4.
    votes = {0: ("model_b", "model_b", "tie"), 1: ("model_a",), 2: ("model_a", "model_b"), 3: ("tie",), 4: ("model_b",)}
    people = [
        {"question_id": i, "model_a": "k", "model_b": "m", "winner": one, "judge": f"expert_{at}", "turn": 1}
        for i, given in votes.items()
        for at, one in enumerate(given)
    ]
    gold = write_lines(tmp_path / "votes.jsonl", people)
    scored = read(path, "A,B,tie", gold=gold)
    # Sorted by name k is A and m is B.
    assert said(scored, "gpt") == {
        "0|k|m|1": "B",
        "1|k|m|1": "A",
        "2|k|m|1": "tie",
        "3|k|m|1": "tie",
        "4|k|m|1": "(failed)",
    }
    assert list(gold_of(scored).values()) == ["B", "A", None, "tie", "B"]
    assert accuracy(scored, "gpt") == 3 / 4
    assert any("On 1 of 5 cases the experts tie" in line for line in scored.results.read_as)
    assert any("Orders that disagree are a tie, as in the benchmark: 1 of 5" in line for line in scored.results.read_as)
    assert "no column 'label'" in refusal(gold, "A,B,tie")


def test_mt_bench_single(tmp_path: Path) -> None:
    scores = [9, 3, 7, -1]
    rows = [
        {"question_id": i, "model": "m", "judge": ["gpt", "single"], "judgment": "-", "score": score, "turn": turn}
        for i, score in enumerate(scores)
        for turn in (1, 2)
    ]
    gold = [{"id": f"{i}|m|{turn}", "gold": 9 if i == 0 else 3} for i in range(4) for turn in (1, 2)]
    scored = read(
        write_lines(tmp_path / "single.jsonl", rows),
        ",".join(map(str, range(1, 11))),
        ordered=True,
        gold=write_lines(tmp_path / "g.jsonl", gold),
    )
    assert accuracy(scored, "gpt") == 4 / 8
    assert unanswered(scored, "gpt") == {"failed": 2}
    assert scored.results.n_groups == 4


# --- benchmarks of judges ---------------------------------------------------------------------------------------------


def test_judge_bench_turns_the_second_order_round(tmp_path: Path) -> None:
    # Case 0: both orders right. 1: the first right, the second wrong, a tie. 2: both wrong. 3: one order is missing.
    orders = [("A>B", "B>A"), ("B>A", "B>A"), ("B>A", "A>B"), ("A>B", None)]
    labels = ["A>B", "B>A", "A>B", "A>B"]
    rows: list[dict[str, Any]] = [
        {"pair_id": f"c{i}", "original_id": f"o{i}", "question": f"q{i}", "response_A": "a", "response_B": "b"}
        | {"label": labels[i], "judge_name": "arena", "judgments": []}
        for i in range(4)
    ]
    for row, given in zip(rows, orders, strict=True):
        row["judgments"] = [{"judgment": {"judge_model": "gpt"}, "decision": one} for one in given]
    scored = read(write_lines(tmp_path / "o.jsonl", rows), "A,B")
    assert said(scored, "gpt") == {"c0": "A", "c1": "(tied)", "c2": "B", "c3": "A"}
    assert accuracy(scored, "gpt") == 2 / 4
    assert scored.results.repeats["gpt"].consistent.value == pytest.approx(2 / 3)
    rows.append({**rows[0], "pair_id": "c4", "judgments": []})
    assert unanswered(read(write_lines(tmp_path / "p.jsonl", rows), "A,B"), "gpt") == {"tied": 1, "absent": 1}


def test_llmbar_both_orders(tmp_path: Path) -> None:
    # (label, winner in each order)
    given = [(1, "1", "1"), (2, "2", "2"), (1, "2", "2"), (2, "1", "2"), (1, "1", None), (2, None, None)]
    rows = [
        {"input": f"q{i}", "output_1": "a", "output_2": "b", "label": label}
        | {"results": [{"swap = False": {"winner": one}, "swap = True": {"winner": two}}]}
        for i, (label, one, two) in enumerate(given)
    ]
    path = write_json(tmp_path / "result.json", rows)
    scored = read(f"l={path}", "1,2")
    assert list(said(scored, "l").values()) == ["1", "2", "2", "(tied)", "1", "(failed)"]
    assert accuracy(scored, "l") == 3 / 6
    one_order = read(f"l={path}", "A,B", where=["order=swap = False"])
    assert list(said(one_order, "l").values()) == ["A", "B", "B", "A", "A", "(failed)"]
    assert accuracy(one_order, "l") == 3 / 6
    # By hand as before: who names the column decides.
    by_hand = read(f"l={path}", "1,2", columns={"label": "results[0].swap = True.winner"}, gold="label")
    assert accuracy(by_hand, "l") == 3 / 6


@pytest.mark.parametrize("labels", ["0,1", "A,B", "no,yes"])
def test_reward_bench_columns(tmp_path: Path, labels: str) -> None:
    tree = {
        "id": [f"c{i}" for i in range(4)],
        "text_chosen": ["a"] * 4,
        "text_rejected": ["b"] * 4,
        "results": [1, 0, 1, 1],
        "scores_chosen": [2.0, 1.0, 3.0, 1.1],
        "scores_rejected": [1.0, 2.0, 1.0, 1.0],
        "model": "rm",
        "model_type": "Seq. Classifier",
    }
    scored = read(write_json(tmp_path / "scores.json", tree), labels)
    assert accuracy(scored, "rm") == 3 / 4
    no_results = {key: value for key, value in tree.items() if key != "results"}
    assert accuracy(read(write_json(tmp_path / "s.json", no_results), labels), "rm") == 3 / 4
