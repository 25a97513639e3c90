"""The pretraining of the shipped model: what carries loss, how it is packed, that it learns, and the shipped folder."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from rich.console import Console

from medjudge import artifacts
from medjudge.models.lineage import read_lineage, weights_sha256
from medjudge.models.load import TINY_DIR, load_tokenizer, resolve
from medjudge.settings.training import BaseConfig
from medjudge.tiny_base.build import Phase, build
from medjudge.tiny_base.cpu_forward import LinearCrossEntropy, hidden_states
from medjudge.tiny_base.documents import Document, MarkedChat, Span
from medjudge.tiny_base.pretraining import (
    Encoded,
    PretrainingPlan,
    batches,
    encode_document,
    orthogonal,
    pretrain,
    rows_of,
    tie_queries_to_keys,
    weighted_loss,
)
from medjudge.tiny_base.tiny import build_model, build_tokenizer

SHAPE = BaseConfig(vocab_size=300, hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64)
CHAT: Document = [{"role": "user", "content": "Which nerve?"}, {"role": "assistant", "content": "B) axillary nerve"}]
TEXT = "The deltoid is supplied by the axillary nerve."


def few(rng: random.Random, number: int = 0) -> list[Document]:
    return [TEXT, CHAT] * 20


def test_text_is_learned_whole_and_of_a_chat_the_answer_alone() -> None:
    tokenizer = build_tokenizer([TEXT, "Which nerve? B) axillary nerve"], 300)
    text = encode_document(TEXT, tokenizer, 4.0)
    assert tokenizer.decode(text.ids) == TEXT + "<|endoftext|>"
    assert set(text.weights) == {1.0}
    chat = encode_document(CHAT, tokenizer, 4.0)
    learned = [i for i, weight in zip(chat.ids, chat.weights, strict=True) if weight > 0]
    assert tokenizer.decode(learned) == "B) axillary nerve<|end|>"
    assert chat.weights.count(4.0) == 1
    assert tokenizer.decode([chat.ids[chat.weights.index(4.0)]]).startswith("B")


def test_of_spans_what_their_weights_say_is_learned() -> None:
    tokenizer = build_tokenizer([TEXT], 300)
    spans = encode_document((Span("A) nerve"), Span(" A", 2.0), Span("\n")), tokenizer, 4.0)
    assert tokenizer.decode(spans.ids) == "A) nerve A\n<|endoftext|>"
    learned = [i for i, weight in zip(spans.ids, spans.weights, strict=True) if weight == 2.0]
    assert tokenizer.decode(learned) == " A"
    assert set(spans.weights) == {0.0, 2.0}


def test_a_marked_chat_is_read_as_a_chat_is() -> None:
    tokenizer = build_tokenizer([TEXT, "Which nerve? B) axillary nerve"], 300)
    chat = encode_document(CHAT, tokenizer, 4.0)
    marked = encode_document(MarkedChat((Span("Which"), Span(" nerve?", 2.0)), "B) axillary nerve"), tokenizer, 4.0)
    assert marked.ids == chat.ids
    learned = [i for i, weight in zip(marked.ids, marked.weights, strict=True) if weight == 2.0]
    assert tokenizer.decode(learned) == " nerve?"
    assert [w for w in marked.weights if w != 2.0] == [
        w for w, m in zip(chat.weights, marked.weights, strict=True) if m != 2.0
    ]


def test_an_answer_in_spans_is_learned_by_their_weights() -> None:
    tokenizer = build_tokenizer([TEXT], 300)
    chat = MarkedChat((Span("Which nerve?"),), (Span("The axillary nerve.\n", 1.0), Span("B", 4.0)))
    encoded = encode_document(chat, tokenizer, 5.0)
    learned = [(token, weight) for token, weight in zip(encoded.ids, encoded.weights, strict=True) if weight]
    assert tokenizer.decode([token for token, _ in learned]) == "The axillary nerve.\nB<|end|>"
    assert {tokenizer.decode([token]): weight for token, weight in learned}["B"] == 4.0


def test_plain_texts_share_a_row_and_chats_have_one_each() -> None:
    """Texts of 7, 5, 4 and 3 tokens in rows of 8: 7, then 5, then 4 + 3; a chat is cut at its own limit."""
    tokenizer = build_tokenizer([TEXT], 300)
    plan = PretrainingPlan(n_steps=1, row_tokens=8, max_tokens=10)
    rows = rows_of(["abcdef", "abcd", CHAT, "abc", "ab"], tokenizer, plan)
    assert sorted(len(row.ids) for row in rows) == [5, 7, 7, 10]
    assert all(len(row.ids) == len(row.weights) for row in rows)


def test_batches_hold_every_row_once_beside_rows_like_it() -> None:
    """Rows of 3 and of 20 tokens, 48 tokens a batch: never in one batch, padding on the right without weight."""
    rows = [Encoded([5] * n, [1.0] * n) for n in [3, 20] * 4]
    found = list(batches(rows, 0, 48, random.Random(0)))
    assert sum(len(ids) for ids, _ in found) == 8
    assert all(ids.shape == weights.shape and ids.shape[1] in (8, 24) for ids, weights in found)
    for ids, weights in found:
        assert torch.equal(ids != 0, weights > 0)


def small_model() -> tuple[object, torch.Tensor]:
    model = build_model(SHAPE, build_tokenizer([TEXT], 300), 0).eval()
    return model, torch.randint(5, 250, (3, 17), generator=torch.Generator().manual_seed(0))


def test_the_fast_forward_pass_is_that_of_transformers() -> None:
    model, ids = small_model()
    with torch.no_grad():
        theirs = model.model(input_ids=ids).last_hidden_state  # type: ignore[attr-defined]
        assert torch.allclose(hidden_states(model, ids, torch.float32), theirs, atol=1e-5)
        assert torch.allclose(hidden_states(model, ids).float(), theirs, atol=0.1)


def test_its_gradients_are_those_of_transformers() -> None:
    model, ids = small_model()
    weights = torch.ones(ids.shape)
    weighted_loss(model, ids, weights, torch.float32).backward()  # type: ignore[no-untyped-call]
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}  # type: ignore[attr-defined]
    model.zero_grad()  # type: ignore[attr-defined]
    model(input_ids=ids, labels=ids).loss.backward()  # type: ignore[operator]
    for name, p in model.named_parameters():  # type: ignore[attr-defined]
        assert torch.allclose(ours[name], p.grad, atol=1e-6, rtol=1e-4), name


def test_cross_entropy_in_parts_by_torch() -> None:
    """Five rows in parts of two, one of weight 0."""
    source = torch.Generator().manual_seed(0)
    hidden, table = (torch.randn(n, 4, generator=source, requires_grad=True) for n in (5, 7))
    targets, weights = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([1.0, 0.0, 4.0, 1.0, 2.0])
    losses = torch.nn.functional.cross_entropy(hidden @ table.T, targets, reduction="none")
    expected = (losses * weights).sum() / weights.sum()
    wanted = torch.autograd.grad(3 * expected, (hidden, table))
    loss = LinearCrossEntropy.apply(hidden, table, targets, weights, 2)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(3 * loss, (hidden, table)), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_weighted_loss_by_hand() -> None:
    """(4 a + b) / 5 of two next tokens' cross-entropies."""
    model, _ = small_model()
    ids, weights = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1.0, 0.0, 4.0, 1.0]])
    logits = model(input_ids=ids).logits[0]  # type: ignore[operator]
    a, b = (torch.nn.functional.cross_entropy(logits[i], ids[0, i + 1]) for i in (1, 2))
    assert weighted_loss(model, ids, weights, torch.float32).item() == pytest.approx(((4 * a + b) / 5).item(), abs=1e-5)


def test_queries_start_close_to_their_keys() -> None:
    """q = k + q0 / 2 for every head of a key's group: a cosine of about 1 / sqrt(1 + 1/4)."""
    model, _ = small_model()
    tie_queries_to_keys(model)
    attention = model.model.layers[0].self_attn  # type: ignore[attr-defined]
    k = attention.k_proj.weight.view(1, 16, 32)
    for q in attention.q_proj.weight.view(2, 16, 32):
        assert torch.nn.functional.cosine_similarity(q.flatten(), k.flatten(), dim=0).item() == pytest.approx(
            0.894, abs=0.04
        )


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
        plan = PretrainingPlan(n_steps=100, batch_tokens=128, learning_rate=2e-2, warmup_steps=3, log_every=10)
        log = pretrain(model, tokenizer, few, plan, seed=1, on_log=lambda entry: None)
        logs.append([{key: entry[key] for key in ("step", "loss", "tokens")} for entry in log])
    assert logs[0] == logs[1]
    assert logs[0][-1]["loss"] < 0.7 * logs[0][0]["loss"]


def test_it_ends_early_once_it_has_learned() -> None:
    tokenizer = build_tokenizer([TEXT, "Which nerve? B) axillary nerve"], 300)
    plan = PretrainingPlan(n_steps=100, batch_tokens=128, log_every=2)
    seen: list[dict[str, float]] = []
    log = pretrain(
        build_model(SHAPE, tokenizer, 0),
        tokenizer,
        few,
        plan,
        seed=1,
        on_log=seen.append,
        is_learned=lambda: len(seen) == 3,
    )
    assert [entry["step"] for entry in log] == [2, 4, 6]


def test_build_writes_a_whole_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medjudge.tiny_base.corpus.plain_epoch", lambda rng: few(rng, 0))
    monkeypatch.setattr("medjudge.tiny_base.build.N_PROBED", 8)
    plan = PretrainingPlan(n_steps=2, batch_tokens=64, log_every=1)
    phases = [Phase(few, plan, 1), Phase(few, plan, 2, skill=lambda rng: (Span("B"), Span("B", 1.0)))]
    monkeypatch.setattr("medjudge.tiny_base.build.LEARNED", 0.0)
    summary = build(tmp_path / "tiny", Console(quiet=True), phases, SHAPE)
    assert (
        weights_sha256(tmp_path / "tiny") == summary["weights_sha256"] == read_lineage(tmp_path / "tiny").weights_sha256
    )
    log = artifacts.read_json(tmp_path / "tiny" / "training_log.json")
    assert [entry["step"] for entry in log["log"]] == [1, 2, 3]
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert summary["weights_sha256"] in card
    assert "Research and teaching only" in card
    assert "| never asked | " in card
    assert all(0 <= value <= 1 for found in summary["learned"].values() for value in found.values())
    assert not (tmp_path / "tiny.new").exists()


def test_the_shipped_model_is_the_one_its_card_and_log_describe() -> None:
    folder = resolve("builtin:tiny")
    assert folder == TINY_DIR
    log = artifacts.read_json(folder / "training_log.json")
    lineage = read_lineage(folder)
    assert lineage is not None
    assert weights_sha256(folder) == log["weights_sha256"] == lineage.weights_sha256
    assert 3e6 <= log["n_parameters"] <= 8e6
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16 * 2**20
    assert log["weights_sha256"] in (folder / "README.md").read_text(encoding="utf-8")
    assert log["learned"]["never asked"]["options"] > 0.5
    tokenizer = load_tokenizer(folder)
    for text in ("Which nerve supplies the deltoid?", "Le muscle deltoïde est innervé par le nerf axillaire."):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
