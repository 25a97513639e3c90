"""Tokenizers out of GGUF files in use: templates that are not ChatML, BOS, and an end token that pads, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from medjudge.errors import ModelError
from medjudge.inference.local import LocalEngine
from medjudge.models.load import load_tokenizer, load_weights, resolve
from medjudge.records import Case
from medjudge.settings.model import ModelConfig
from medjudge.tasks.encoding import encode, encode_all, instructions_lead_the_user_turn
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.tokenizers import stop_token_ids
from medjudge.training.sft import tokenised_rows
from tests.models.gguf_files import SHAPES, write_gguf

CONTRACT = EquivalenceContract(instructions="terse", system_prompt="Reply 0 or 1.")
CPU = ModelConfig(device="cpu", dtype="float32")
STOPS = {"llama": "<|im_end|>", "qwen3": "<|im_end|>", "phi3": "<|end|>", "gemma3": "<end_of_turn>"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDJUDGE_CACHE", str(tmp_path / "cache"))


def case(n: int) -> Case:
    return Case(f"c{n}", {"question": "Dose?", "reference": f"{n} mg", "candidate": f"{n + 1} mg"}, str(n % 2))


def converted(folder: Path, shape: str, **options: Any) -> Path:
    write_gguf(folder / "m.gguf", shape, max_position_embeddings=1024, **options)
    return resolve(folder / "m.gguf")


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_prompt_carries_the_instructions_bos_stands_at_most_once_and_the_target_ends(
    tmp_path: Path, shape: str
) -> None:
    tokenizer = load_tokenizer(converted(tmp_path, shape))
    row = encode(CONTRACT, case(1), tokenizer, with_target=True)
    assert "Reply 0 or 1." in row.prompt_text
    assert instructions_lead_the_user_turn(CONTRACT, tokenizer) == (shape == "gemma3")  # which refuses a system turn
    if shape == "gemma3":  # template and tokenizer both write it
        assert row.prompt_text.startswith("<bos>")
        assert tokenizer(row.prompt_text)["input_ids"][:2] == [tokenizer.bos_token_id] * 2
        assert row.prompt_ids[:2].count(tokenizer.bos_token_id) == 1
    if shape in ("phi3", "gemma3"):
        assert row.prompt_ids.count(tokenizer.bos_token_id) == (1 if shape == "gemma3" else 0)
    assert row.completion_ids is not None
    assert tokenizer.convert_ids_to_tokens(row.completion_ids[-1]) == STOPS[shape]
    assert stop_token_ids(tokenizer)[0] == row.completion_ids[-1]


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_file_without_a_template_says_what_to_set_and_takes_the_plain_one(tmp_path: Path, shape: str) -> None:
    folder = converted(tmp_path, shape, template=None)
    with pytest.raises(ModelError, match=r"no chat template.*model\.chat_template"):
        encode(CONTRACT, case(1), load_tokenizer(folder), with_target=True)
    tokenizer = load_tokenizer(folder, "plain")
    row = encode(CONTRACT, case(1), tokenizer, with_target=True)
    adds_bos = shape in ("phi3", "gemma3")
    assert (row.prompt_ids[0] == tokenizer.bos_token_id) == adds_bos
    assert tokenizer.bos_token_id not in row.prompt_ids[1:] or not adds_bos
    assert row.completion_ids is not None
    assert row.completion_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("pad_is_eos", [True, False])
@pytest.mark.parametrize("tuning", ["full", "full, tied"])
def test_an_end_token_that_pads_is_learnt_and_ends_answers(tmp_path: Path, pad_is_eos: bool, tuning: str) -> None:
    """Rows of unequal length in one batch: what pads is not learnt, and what ends an answer is."""
    folder = converted(tmp_path, "llama", pad_is_eos=pad_is_eos, tie_word_embeddings=tuning != "full")
    tokenizer = load_tokenizer(folder)
    model = load_weights(folder, CPU, tokenizer, train_all=True)
    cases = [case(1), case(123), case(45_678)]
    encoded = encode_all(CONTRACT, cases, tokenizer, with_target=True)
    rows = tokenised_rows(encoded)
    arguments = {"output_dir": str(tmp_path), "max_length": None, "gradient_checkpointing": False, "use_cpu": True}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**arguments, bf16=False, report_to="none"),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator(rows)
    for labels, row in zip(batch["labels"], encoded, strict=True):
        assert labels[labels != -100].tolist() == row.completion_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(**{key: batch[key] for key in ("input_ids", "attention_mask", "labels")}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    completions = LocalEngine(model, tokenizer).generate(CONTRACT, cases)
    assert [completion.stopped for completion in completions] == [True] * 3
    assert [completion.n_tokens for completion in completions] == [len(row.completion_ids or ()) for row in encoded]
