"""The probe of the tiny base, on models whose answers are known beforehand."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medjudge.models.scratch import build_tokenizer
from medjudge.synthetic import mcq
from medjudge.tiny_base import tiny_probe
from medjudge.tiny_base.documents import Document, Span


def knows(which: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that writes the next token of the text itself, or always the same token."""
    size = len(tokenizer)

    def hidden(model: Any, tokenizer: Any, rows: list[list[int]]) -> torch.Tensor:
        ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        following = ids.roll(-1, 1)
        if which != "next":
            following = torch.full_like(ids, tokenizer(which, add_special_tokens=False)["input_ids"][0])
        return torch.nn.functional.one_hot(following, size).float()

    monkeypatch.setattr(tiny_probe, "_hidden", hidden)
    return SimpleNamespace(lm_head=SimpleNamespace(weight=torch.eye(size)))


def test_one_letter_is_right_as_often_as_it_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer(["Which nerve? A B C D"], 300)
    answer = "The deltoid is supplied by the axillary nerve.\nB) axillary nerve"
    monkeypatch.setattr(tiny_probe, "_answers", lambda model, tokenizer, chats: [answer] * len(chats))
    rows = mcq.generate(60, random.Random(5), part="task")
    expected = sum(row["cop"] == 1 for row in rows) / 60
    assert tiny_probe.options_right(None, tokenizer, "task", 60, 5) == pytest.approx(expected)
    monkeypatch.setattr(tiny_probe, "_answers", lambda model, tokenizer, chats: ["B is a letter"] * len(chats))
    assert tiny_probe.options_right(None, tokenizer, "task", 60, 5) == 0.0


def test_an_order_is_rated_by_how_the_answer_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer(["This order is wrong for the patient."], 300)
    for answer, expected in (
        ("This order is wrong for the patient. So it is.", 0.44),
        ("So this order is wrong.", 0.0),
    ):
        monkeypatch.setattr(
            tiny_probe, "_answers", lambda model, tokenizer, chats, answer=answer: [answer] * len(chats)
        )
        assert tiny_probe.orders_rated(None, tokenizer, "task", 50, 5) == pytest.approx(expected)


def test_statements_are_known_word_for_word(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer(["The deltoid is supplied by the axillary nerve."], 300)
    assert tiny_probe.statements_known(knows("next", tokenizer, monkeypatch), tokenizer, "task", 40, 0) == 1.0
    assert tiny_probe.statements_known(knows("Q", tokenizer, monkeypatch), tokenizer, "task", 40, 0) == 0.0


def test_a_skill_is_the_share_of_the_weightiest_tokens_that_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer(["axillary nerve A B C D"], 300)

    def draw(rng: random.Random) -> Document:
        return (Span("nerve"), Span(rng.choice("AB"), 2.0), Span("C", 1.0))

    assert tiny_probe.skill(knows("next", tokenizer, monkeypatch), tokenizer, draw, 5.0, 40, 0) == 1.0
    rng = random.Random(0)
    expected = sum(rng.choice("AB") == "A" for _ in range(40)) / 40
    assert tiny_probe.skill(knows("A", tokenizer, monkeypatch), tokenizer, draw, 5.0, 40, 0) == pytest.approx(expected)
