"""The pretraining of the shipped model: what carries loss, how it is packed, that it learns, and the shipped folder."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from rich.console import Console

from medjudge import artifacts
from medjudge.config import BaseConfig
from medjudge.data.generators.corpus import Document
from medjudge.errors import ModelError
from medjudge.modeling.lineage import read_lineage, weights_sha256
from medjudge.modeling.load import resolve
from medjudge.modeling.pretraining import (
    PretrainingPlan,
    Windows,
    encode_document,
    orthogonal,
    pack,
    pretrain,
    weighted_loss,
)
from medjudge.modeling.tiny import build_model, build_tokenizer
from medjudge.stages.tiny_base import build

SHAPE = BaseConfig(vocab_size=300, hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64)
CHAT: Document = [{"role": "user", "content": "Which nerve?"}, {"role": "assistant", "content": "B) axillary nerve"}]
TEXT = "The deltoid is supplied by the axillary nerve."


def few(rng: random.Random, number: int = 0) -> list[Document]:
    return [TEXT, CHAT] * 20


def test_text_is_learned_whole_and_of_a_chat_the_answer_alone() -> None:
    tokenizer = build_tokenizer([TEXT, "Which nerve? B) axillary nerve"], 300)
    ids, weights = encode_document(TEXT, tokenizer, 4.0)
    assert tokenizer.decode(ids) == TEXT + "<|endoftext|>"
    assert set(weights) == {1.0}
    ids, weights = encode_document(CHAT, tokenizer, 4.0)
    learned = [i for i, weight in zip(ids, weights, strict=True) if weight > 0]
    assert tokenizer.decode(learned) == "B) axillary nerve<|end|>"
    assert weights.count(4.0) == 1
    assert tokenizer.decode([ids[weights.index(4.0)]]).startswith("B")


def test_windows_hold_whole_documents_from_position_0() -> None:
    """Documents of 7, 5, 4 and 3 tokens fill windows of 8 as best they fit: 7, 5 + 3, 4."""
    tokenizer = build_tokenizer([TEXT], 300)
    windows = pack(["abcdef", "abcd", "abc", "ab"], tokenizer, PretrainingPlan(n_steps=1, window=8))
    lengths = [len(encode_document(text, tokenizer, 1.0)[0]) for text in ("abcdef", "abcd", "abc", "ab")]
    assert lengths == [7, 5, 4, 3]
    assert windows.documents.tolist() == [[0] * 7 + [-1], [0] * 5 + [1] * 3, [0] * 4 + [-1] * 4]
    assert windows.positions[1].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert windows.weights[2].tolist() == [1.0] * 4 + [0.0] * 4
    mask = windows.mask(torch.tensor([1]))[0, 0]
    assert mask[5].tolist() == [False] * 5 + [True] + [False] * 2  # the second document sees nothing of the first
    assert mask[7].tolist() == [False] * 5 + [True] * 3


def test_a_document_longer_than_a_window_is_cut() -> None:
    tokenizer = build_tokenizer([TEXT], 300)
    assert pack(["a" * 50], tokenizer, PretrainingPlan(n_steps=1, window=8)).ids.shape == (1, 8)


def test_weighted_loss_by_hand() -> None:
    """Two documents in one window: (4 a + b) / 5 of their weighted cross-entropies, each read on its own."""
    model = build_model(SHAPE, build_tokenizer([TEXT], 300), 0).eval()
    windows = Windows(
        ids=torch.tensor([[5, 6, 7, 8, 9]]),
        weights=torch.tensor([[1.0, 0.0, 4.0, 1.0, 1.0]]),
        documents=torch.tensor([[0, 0, 0, 1, 1]]),
        positions=torch.tensor([[0, 1, 2, 0, 1]]),
    )
    first, second = (model(input_ids=torch.tensor([ids])).logits[0] for ids in ([5, 6, 7], [8, 9]))
    a = torch.nn.functional.cross_entropy(first[1], torch.tensor(7))
    b = torch.nn.functional.cross_entropy(second[0], torch.tensor(9))
    assert weighted_loss(model, windows, torch.tensor([0])).item() == pytest.approx(((4 * a + b) / 5).item(), abs=1e-5)


def test_orthogonal_brings_singular_values_near_one() -> None:
    matrix = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    for one in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(one))
        assert 0.6 < values.min() <= values.max() < 1.3


def test_learning_rate_warms_up_holds_and_falls() -> None:
    plan = PretrainingPlan(n_steps=100, learning_rate=1.0, warmup_steps=10, decay_from=0.5, final_share=0.02)
    assert plan.learning_rate_at(0) == pytest.approx(0.1)
    assert plan.learning_rate_at(30) == 1.0
    assert plan.learning_rate_at(75) == pytest.approx(0.5)
    assert plan.learning_rate_at(99) == pytest.approx(0.02)


def test_it_learns_and_repeats_itself() -> None:
    logs = []
    for _ in range(2):
        tokenizer = build_tokenizer([TEXT, "Which nerve? B) axillary nerve"], 300)
        model = build_model(SHAPE, tokenizer, 0)
        plan = PretrainingPlan(n_steps=40, batch_size=4, window=32, learning_rate=1e-2, warmup_steps=3, log_every=10)
        log = pretrain(model, tokenizer, few, plan, seed=1, on_log=lambda entry: None)
        logs.append([{key: entry[key] for key in ("step", "loss", "tokens")} for entry in log])
    assert logs[0] == logs[1]
    assert logs[0][-1]["loss"] < 0.5 * logs[0][0]["loss"]


def test_build_writes_a_whole_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medjudge.data.generators.corpus.epoch", few)
    plan = PretrainingPlan(n_steps=2, batch_size=2, window=32, log_every=1)
    summary = build(tmp_path / "tiny", Console(quiet=True), plan, SHAPE)
    assert (
        weights_sha256(tmp_path / "tiny") == summary["weights_sha256"] == read_lineage(tmp_path / "tiny").weights_sha256
    )
    log = artifacts.read_json(tmp_path / "tiny" / "training_log.json")
    assert [entry["step"] for entry in log["log"]] == [1, 2]
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert summary["weights_sha256"] in card
    assert "Research and teaching only" in card
    assert not (tmp_path / "tiny.new").exists()


def test_weights_that_were_not_made_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("medjudge.modeling.load.TINY_DIR", tmp_path / "tiny")
    with pytest.raises(ModelError, match="make tiny-base"):
        resolve("builtin:tiny")
