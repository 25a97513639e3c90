"""Thoughts in the forms that models and servers write, and what a strict contract says of them."""

from __future__ import annotations

import time

import pytest

from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.thoughts import ThoughtSplit, outside_thoughts, split_thoughts
from tests.tasks.parsing import reason_of


@pytest.mark.parametrize(
    ("text", "thought", "answer", "tag"),
    [
        ("<think>\nwhy\n</think>\n\n1", "why", "1", "<think>"),
        ("<think>\n\n</think>\n\n1", "", "1", "<think>"),
        ("<Thinking>why</Thinking>1", "why", "1", "<thinking>"),
        ("<thought>why</thought>1", "why", "1", "<thought>"),
        ("<reasoning>why</reasoning>1", "why", "1", "<reasoning>"),
        ("<seed:think>why</seed:think>1", "why", "1", "<seed:think>"),
        ("[THINK]why[/THINK]1", "why", "1", "[THINK]"),
        ("<unused94>thought\nwhy<unused95>1", "thought\nwhy", "1", "<unused94>"),
        ("<|START_THINKING|>why<|END_THINKING|>1", "why", "1", "<|START_THINKING|>"),
        (
            "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>1<|return|>",
            "why<|end|><|start|>assistant",
            "1",
            "<|channel|>analysis<|message|>",
        ),
        ("analysisWhy? Because.assistantfinal1", "Why? Because.", "1", "analysis"),
        ("Here is my thought process: why. Here is my response: 1", "why.", "1", "Here is my thought process:"),
        ("why\n</think>\n1", "why", "1", "</think>"),  # the prompt holds the opening tag
        ("<think>a</think>\n<think>b</think>1", "a\n\nb", "1", "<think>"),
        ("1", "", "1", ""),
        ("analysis of the case: 1", "", "analysis of the case: 1", ""),
        ("1 <think>why</think> 0", "", "1 <think>why</think> 0", ""),
        ("a</think>b</think>1", "", "a</think>b</think>1", ""),
        ("1</think>", "", "1</think>", ""),
    ],
)
def test_thought_and_answer(text: str, thought: str, answer: str, tag: str) -> None:
    assert split_thoughts(text) == ThoughtSplit(thought, answer, tag)


def test_a_thought_that_does_not_end_has_no_answer() -> None:
    assert split_thoughts("<think>why 1") == ThoughtSplit("why 1", "", "<think>", is_closed=False)
    assert outside_thoughts("<think>why 1") == outside_thoughts("1 <think>why 0").replace("1", "") == ""


def test_outside_of_every_thought() -> None:
    assert outside_thoughts("<think>a</think>0 [THINK]b[/THINK] 1 <think>c").split() == ["0", "1"]


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "[THINK]", "analysis", "</think>1 "])
def test_long_texts_take_no_time(piece: str) -> None:
    started = time.monotonic()
    outside_thoughts(piece * 20_000)
    assert time.monotonic() - started < 5


ON, OFF = EquivalenceContract(thinking=True), EquivalenceContract()


@pytest.mark.parametrize(
    ("contract", "completion", "named", "not_named"),
    [
        (OFF, "<think>w</think>1", "`task.thinking = true` or `task.lenient = true`", "training text"),
        (OFF, "[THINK]w[/THINK]1", "`task.lenient = true`", "`task.thinking = true`"),
        (OFF, "w</think>1", "`task.lenient = true`", "`task.thinking = true`"),
        (OFF, "<think>w", "`task.max_completion_tokens`", "`task.lenient"),
        (ON, "1", "`task.thinking = false`", "training text"),
        (
            AppropriatenessContract(form="answer_only"),
            "<think>w</think><answer>May Be Appropriate</answer>",
            '`task.form = "reasoning"` or `task.lenient = true`',
            "`task.thinking",
        ),
        (
            AppropriatenessContract(),
            "<answer>May Be Appropriate</answer>",
            '`task.form = "answer_only"`',
            "`task.thinking",
        ),
    ],
)
def test_the_reason_names_the_setting_that_reads_it(
    contract: EquivalenceContract, completion: str, named: str, not_named: str
) -> None:
    reason = reason_of(contract, completion)[1]
    assert named in reason
    assert not_named not in reason


@pytest.mark.parametrize(
    ("contract", "completion", "changes"),
    [
        (OFF, "<think>w</think>1", {"thinking": True}),
        (OFF, "<think>w</think>1", {"lenient": True}),
        (OFF, "[THINK]w[/THINK]1", {"lenient": True}),
        (OFF, "w</think>1", {"lenient": True}),
        (ON, "1", {"thinking": False}),
        (ON, "1", {"lenient": True}),
    ],
)
def test_the_named_setting_does_read_it(
    contract: EquivalenceContract, completion: str, changes: dict[str, bool]
) -> None:
    changed = contract.model_copy(update=changes)
    assert getattr(changed.parse("c", completion), "label", None) == "1"
