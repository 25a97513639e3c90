"""Batched greedy answers are those of one row at a time, in the order of the cases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medjudge.config import ModelConfig
from medjudge.errors import ConfigError
from medjudge.inference.engine import Engine
from medjudge.modeling.lineage import load_any
from medjudge.modeling.load import check_context
from medjudge.records import Case
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.encoding import decode, encode, stop_token_ids
from tests.modeling.models import save_base

CONTRACT = AppropriatenessContract(
    form="answer_only", instructions="terse", max_completion_tokens=12, max_prompt_tokens=400
)
CASES = [
    Case(str(i), {"condition": "pain", "variant": "adult " * (1 + 7 * (i % 5)), "procedure": f"CT {i}"})
    for i in range(13)
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, object]:
    model, tokenizer, _ = load_any(
        save_base(tmp_path_factory.mktemp("m") / "base"), ModelConfig(device="cpu", dtype="float32")
    )
    return model, tokenizer


@pytest.mark.parametrize("batch_tokens", [64, 1000, 100_000])
def test_batches_answer_as_single_rows_do(loaded: tuple[object, object], batch_tokens: int) -> None:
    model, tokenizer = loaded
    done: list[int] = []
    answers = Engine(model, tokenizer, batch_tokens=batch_tokens, on_progress=done.append).generate(CONTRACT, CASES)
    assert sum(done) == len(CASES)
    stop_ids = stop_token_ids(tokenizer)
    for case, answer in zip(CASES, answers, strict=True):
        ids = encode(CONTRACT, case, tokenizer, with_target=False).prompt_ids
        alone = model.generate(  # type: ignore[attr-defined]
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=12, do_sample=False
        )[0, len(ids) :].tolist()
        assert answer.text == decode(tokenizer, alone, stop_ids)
        assert answer.stopped == any(token in stop_ids for token in alone)
        assert answer.n_tokens <= 12


def test_a_prompt_longer_than_the_model_reads_is_refused_before_training(loaded: tuple[object, object]) -> None:
    model, _ = loaded
    check_context(model, 2048)
    with pytest.raises(ConfigError, match=r"take 2,049 tokens, but the model's context holds 2,048"):
        check_context(model, 2049)


def test_model_folder_is_read_from_any_place(tmp_path: Path) -> None:
    _, _, lineage = load_any(save_base(tmp_path / "x"), ModelConfig(device="cpu", dtype="float32"))
    assert lineage is not None
    assert lineage.kind == "base"
