"""Batched answers are those of one row at a time, in the order of the cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medjudge.errors import ConfigError
from medjudge.inference.local import LocalEngine, fit_for_inference
from medjudge.inference.rollouts import Sampling
from medjudge.models.lineage import load_any
from medjudge.models.load import check_context, fit_stop_tokens
from medjudge.records import Case
from medjudge.settings.model import ModelConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode, encode_all, encode_labels
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.tokenizers import decode, stop_token_ids
from medjudge.tiny_base.tiny import build_tokenizer
from tests.models.random_models import random_model
from tests.models.small_models import save_base

CONTRACT = AppropriatenessContract(
    form="answer_only", instructions="terse", max_completion_tokens=12, max_prompt_tokens=400
)
CASES = [
    Case(str(i), {"condition": "pain", "variant": "adult " * (1 + 7 * (i % 5)), "procedure": f"CT {i}"})
    for i in range(11)
]
TEXTS = [turn["content"] for case in CASES for turn in CONTRACT.messages(case)]
TEXTS += [completion for completion in (CONTRACT.closed_completions() or {}).values() for _ in range(9)]
# No models that anyone trained, and every way of asking: shared prompts, and plain rows where attention slides.
MODELS = ["llama", "qwen3", "phi3", "mistral"]


@pytest.fixture(scope="module", params=MODELS)
def loaded(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return load(request.param)


def load(shape: str) -> tuple[Any, Any]:
    tokenizer = build_tokenizer(TEXTS, 400)
    over = {"sliding_window": 16} if shape == "mistral" else {}
    model = random_model(shape, vocab_size=448, **over)
    fit_stop_tokens(model, tokenizer)
    return model, tokenizer


@pytest.fixture(scope="module")
def alone(loaded: tuple[Any, Any]) -> list[list[int]]:
    """transformers' own greedy answer to each case in a batch of its own."""
    model, tokenizer = loaded
    answers = []
    for case in CASES:
        ids = encode(CONTRACT, case, tokenizer, with_target=False).prompt_ids
        out = model.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=12, do_sample=False
        )
        answers.append(out[0, len(ids) :].tolist())
    return answers


@pytest.mark.parametrize(("batch_tokens", "padding_side"), [(64, "left"), (1000, "right"), (100_000, "left")])
def test_batches_answer_as_single_rows_do(
    loaded: tuple[Any, Any], alone: list[list[int]], batch_tokens: int, padding_side: str
) -> None:
    model, tokenizer = loaded
    tokenizer.padding_side = padding_side
    done: list[int] = []
    answers = LocalEngine(model, tokenizer, batch_tokens=batch_tokens, on_progress=done.append).generate(
        CONTRACT, CASES
    )
    assert sum(done) == len(CASES)
    stop_ids = stop_token_ids(tokenizer)
    for ids, answer in zip(alone, answers, strict=True):
        assert answer.text == decode(tokenizer, ids, stop_ids)
        assert answer.stopped == any(token in stop_ids for token in ids)
        assert answer.n_tokens <= 12


@pytest.mark.parametrize("batch_tokens", [64, 100_000])
def test_labels_are_scored_as_single_rows_are(loaded: tuple[Any, Any], batch_tokens: int) -> None:
    model, tokenizer = loaded
    done: list[int] = []
    engine = LocalEngine(model, tokenizer, batch_tokens=batch_tokens, on_progress=done.append)
    scores = engine.label_logprobs(CONTRACT, CASES)
    assert sum(done) == len(CASES)
    closed = CONTRACT.closed_completions() or {}
    for case, found in zip(CASES, scores, strict=True):
        assert list(found.log_probs) == list(CONTRACT.labels)
        expected = []
        for label in closed:
            row = encode(CONTRACT, Case(case.case_id, case.inputs, label), tokenizer, with_target=True)
            target = row.completion_ids or []
            with torch.no_grad():
                logits = model(torch.tensor([row.prompt_ids + target])).logits[0].log_softmax(-1)
            steps = range(len(row.prompt_ids) - 1, len(row.prompt_ids) + len(target) - 1)
            expected.append(sum(float(logits[step, token]) for step, token in zip(steps, target, strict=True)))
        assert list(found.log_probs.values()) == pytest.approx(expected, abs=1e-4)
        assert sum(found.probabilities.values()) == pytest.approx(1)
        shares = torch.tensor(expected).softmax(-1).tolist()
        assert list(found.probabilities.values()) == pytest.approx(shares, abs=1e-4)
        assert found.mass == pytest.approx(sum(torch.tensor(expected).exp().tolist()), rel=1e-3)


def test_one_seed_gives_one_sample(loaded: tuple[Any, Any]) -> None:
    engine = LocalEngine(*loaded)

    def drawn(seed: int) -> list[list[str]]:
        generator = torch.Generator().manual_seed(seed)
        answers = engine.draw(CONTRACT, CASES, 3, Sampling(temperature=1.5), generator)
        return [[answer.text for answer in own] for own in answers]

    state = torch.random.get_rng_state()
    first = drawn(1)
    assert first == drawn(1)
    assert first != drawn(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(first) == len(CASES)
    assert all(len(own) == 3 for own in first)
    assert any(len(set(own)) > 1 for own in first)


def test_a_frame_is_given_and_not_scored() -> None:
    model, tokenizer = load("qwen3")
    contract = McqContract(instructions="terse", max_prompt_tokens=220)
    case = Case("q", {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"})
    (found,) = LocalEngine(model, tokenizer).label_logprobs(contract, [case])
    encoded = encode(contract, case, tokenizer, with_target=False)
    (ids,) = encode_labels(contract, [encoded], tokenizer)
    assert decode(tokenizer, ids.forced, ()) == '{"predicted_category": "'
    expected = []
    for label in ids.labels:
        row = torch.tensor([[*encoded.prompt_ids, *ids.forced, *label]])
        with torch.no_grad():
            scores = model(row).logits[0, -len(label) - 1 : -1].log_softmax(-1)
        expected.append(float(scores.gather(-1, row[0, -len(label) :, None]).sum()))
    assert list(found.log_probs.values()) == pytest.approx(expected, abs=1e-4)
    assert [decode(tokenizer, label, ())[0] for label in ids.labels] == list("ABCD")


def test_nothing_to_judge_is_no_error() -> None:
    engine = LocalEngine(*load("qwen3"))
    assert engine.generate(CONTRACT, []) == []
    assert engine.label_logprobs(CONTRACT, []) == []


@pytest.mark.parametrize(
    "contract", [AppropriatenessContract(), EquivalenceContract(thinking=True), McqContract(thinking=True)]
)
def test_reasoning_cannot_be_skipped(contract: TaskContract) -> None:
    _, tokenizer = load("qwen3")
    inputs = dict.fromkeys(contract.fields, "x")
    encoded = encode_all(contract, [Case("c", inputs)], tokenizer, with_target=False)
    with pytest.raises(ConfigError, match="answers with text before its label"):
        encode_labels(contract, encoded, tokenizer)


def test_slow_16_bit_weights_are_widened_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    is_fast = False
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_fast)
    assert fit_for_inference(random_model("qwen3").bfloat16()).dtype == torch.float32
    is_fast = True
    assert fit_for_inference(random_model("qwen3").bfloat16()).dtype == torch.bfloat16


def test_a_prompt_longer_than_the_model_reads_is_refused_before_training() -> None:
    model, _ = load("qwen3")
    check_context(model, 256)
    with pytest.raises(ConfigError, match=r"take 257 tokens, but the model's context holds 256"):
        check_context(model, 257)


def test_model_folder_is_read_from_any_place(tmp_path: Path) -> None:
    _, _, lineage = load_any(save_base(tmp_path / "x"), ModelConfig(device="cpu", dtype="float32"))
    assert lineage is not None
    assert lineage.kind == "base"
