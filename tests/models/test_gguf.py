"""GGUF files as models: converted once, whole or not at all, and the same model as the file's."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from medjudge.errors import ModelError
from medjudge.models import gguf as gguf_module
from medjudge.models.gguf_header import read_header
from medjudge.models.load import load_tokenizer, load_weights, resolve
from medjudge.models.sources import NOTE, converted, gguf_sha256
from medjudge.settings.model import ModelConfig
from tests.models.gguf_files import SHAPES, write_gguf

CPU = ModelConfig(device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEDJUDGE_CACHE", str(folder))
    return folder


def logits_of(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.as_tensor(model(torch.tensor([ids])).logits[0])


def random_ids(n_tokens: int, vocabulary: int) -> list[int]:
    return torch.randint(3, vocabulary, (n_tokens,), generator=torch.Generator().manual_seed(3)).tolist()


def largest_difference(folder: Path, model: Any, n_tokens: int = 64) -> float:
    ids = random_ids(n_tokens, model.config.vocab_size)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0]
    return float((logits_of(folder, ids) - expected).abs().max())


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_converted_folder_is_the_model_that_the_file_was_written_from(tmp_path: Path, shape: str) -> None:
    # 64 tokens: longer than the windows of Phi-3 (24) and Gemma 3 (16)
    model = write_gguf(tmp_path / "m.gguf", shape)
    assert largest_difference(resolve(tmp_path / "m.gguf"), model) < 2e-5


SCALINGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    ("qwen3", {"rope_type": "yarn", "factor": 4.0}),
    ("llama", {"rope_type": "linear", "factor": 2.0}),
    ("phi3", {"rope_type": "longrope", "long_factor": [1.0, 2.0, 4.0, 8.0], "short_factor": [1.0, 1.1, 1.2, 1.3]}),
]


@pytest.mark.parametrize(("shape", "scaling"), SCALINGS, ids=[scaling["rope_type"] for _, scaling in SCALINGS])
def test_a_scaling_of_positions_is_taken_over(tmp_path: Path, shape: str, scaling: dict[str, Any]) -> None:
    original = 8192 if scaling["rope_type"] == "llama3" else 64
    rope = {"rope_theta": 500000.0, **scaling}
    if scaling["rope_type"] != "linear":
        rope["original_max_position_embeddings"] = original
    over: dict[str, Any] = {"rope_parameters": rope, "max_position_embeddings": 4 * original}
    if shape == "phi3":
        over["original_max_position_embeddings"] = original
    model = write_gguf(tmp_path / "m.gguf", shape, **over)
    folder = resolve(tmp_path / "m.gguf")
    assert largest_difference(folder, model, 100) < 2e-5
    # The test would not see a scaling that is dropped unless dropping it changed the answers.
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_theta": 500000.0,
        "rope_type": "default",
        **({"partial_rotary_factor": 1.0} if shape == "phi3" else {}),
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert largest_difference(folder, model, 100) > 1e-3


def test_gemma3_keeps_its_scaled_global_and_plain_local_positions(tmp_path: Path) -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    model = write_gguf(tmp_path / "m.gguf", "gemma3", rope_parameters=rope)
    assert largest_difference(resolve(tmp_path / "m.gguf"), model) < 2e-5


def test_a_scaling_that_cannot_be_taken_over_is_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5}
    write_gguf(
        tmp_path / "m.gguf",
        "llama",
        rope_parameters={**rope, "original_max_position_embeddings": 8192},
        max_position_embeddings=512,
    )
    content = bytearray((tmp_path / "m.gguf").read_bytes())
    from gguf import GGUFReader

    tensor = next(one for one in GGUFReader(tmp_path / "m.gguf").tensors if one.name == "rope_freqs.weight")
    start = int(tensor.data_offset)
    content[start : start + 4] = b"\x00\x00\x40\x40"  # 3.0 where the rule has 1.0
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="scales its positions"):
        resolve(tmp_path / "m.gguf")


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_tokenizer_and_template_are_those_of_the_file(tmp_path: Path, shape: str) -> None:
    write_gguf(tmp_path / "m.gguf", shape)
    direct = gguf_module.read_tokenizer(read_header(tmp_path / "m.gguf"))
    converted_one = load_tokenizer(resolve(tmp_path / "m.gguf"))
    for text in ("the chest in 12345 mg", "  two spaces\n\nand é", "<|im_end|><eos>"):
        for added in (False, True):
            expected = direct(text, add_special_tokens=added)["input_ids"]
            assert converted_one(text, add_special_tokens=added)["input_ids"] == expected
    assert converted_one.chat_template == direct.chat_template
    assert converted_one.eos_token_id == direct.eos_token_id


def test_digits_are_split_as_smollm2_learnt_them(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    tokenizer = load_tokenizer(resolve(tmp_path / "m.gguf"))
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("dose 123")
    assert [text for text, _ in pieces] == ["dose", "Ġ", "1", "2", "3"]


@pytest.mark.parametrize("shape", list(SHAPES))
def test_only_the_files_own_settings_are_read(tmp_path: Path, shape: str) -> None:
    model = write_gguf(tmp_path / "m.gguf", shape)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 7}')
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ 1 }}", "eos_token": "!"}')
    folder = resolve(tmp_path / "m.gguf")
    assert largest_difference(folder, model) < 2e-5
    assert load_tokenizer(folder).eos_token != "!"
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.glob("*.json"))


def test_a_padding_token_that_ends_answers_is_trained(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    folder = resolve(tmp_path / "m.gguf")
    tokenizer = load_tokenizer(folder)
    model = load_weights(folder, CPU, tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    assert model.get_input_embeddings().padding_idx is None  # whose row would get no gradient


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    first = resolve(tmp_path / "m.gguf")
    shutil.copy(tmp_path / "m.gguf", tmp_path / "same.GGUF")
    monkeypatch.setattr(gguf_module, "_convert", lambda *_: pytest.fail("converted again"))
    assert resolve(tmp_path / "m.gguf") == resolve(tmp_path / "same.GGUF") == first


def _half_the_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _other_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x00\x01")


def _a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": _half_the_weights,
    "changed": _other_weights,
    "no note": lambda folder: (folder / NOTE).unlink(),
    "a note of another kind": lambda folder: (folder / NOTE).write_text('{"converter": 1, "files": 3}'),
    "a file missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "a file in its place": _a_file_in_its_place,
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_torn_or_foreign_folder_is_converted_again(tmp_path: Path, damage: str) -> None:
    model = write_gguf(tmp_path / "m.gguf", "llama")
    folder = resolve(tmp_path / "m.gguf")
    DAMAGES[damage](folder)
    assert converted(gguf_sha256(tmp_path / "m.gguf")) is None
    assert largest_difference(resolve(tmp_path / "m.gguf"), model) < 2e-5
    assert converted(gguf_sha256(tmp_path / "m.gguf")) == folder


def test_a_copied_cache_is_used(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    resolve(tmp_path / "m.gguf")
    shutil.copytree(cache, tmp_path / "copy")
    monkeypatch.setenv("MEDJUDGE_CACHE", str(tmp_path / "copy"))
    monkeypatch.setattr(gguf_module, "_convert", lambda *_: pytest.fail("converted again"))
    assert resolve(tmp_path / "m.gguf").is_relative_to(tmp_path / "copy")


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_dir() and path.name != "gguf"]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, cache: Path, share: float) -> None:
    write_gguf(tmp_path / "whole.gguf", "llama")
    content = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"m\.gguf is (damaged or )?cut off.*Fetch it again"):
        resolve(tmp_path / "m.gguf")
    assert leftovers(cache) == []


@pytest.mark.parametrize("content", [b"", b"GG", b"<html>", b"GGUF", b"GGUF" + bytes(60), b"GGUF\x63" + bytes(90)])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf"):
        resolve(tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["t5", "clip", "qqqqq"])
def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path: Path, cache: Path, name: str) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", architecture=name)
    with pytest.raises(ModelError, match=f"architecture '{name}'"):
        resolve(tmp_path / "m.gguf")
    assert leftovers(cache) == []


def test_a_part_of_a_model_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", n_parts=3)
    with pytest.raises(ModelError, match="is one of 3 parts of a model"):
        resolve(tmp_path / "m.gguf")


@pytest.mark.parametrize(("pre", "is_known"), [("qwen2", True), ("gpt-2", True), ("smollm", True), ("zzz", False)])
def test_a_rule_of_splitting_that_is_not_known_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pre: str, is_known: bool
) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", pre=pre)
    resolve(tmp_path / "m.gguf")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [f"'{pre}'" in text for text in told] == ([] if is_known else [True])


def test_weights_that_the_model_has_no_place_for_are_refused(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama", attention_bias=True)
    with pytest.raises(ModelError, match=r"holds [\d,]+ weights, but transformers' LlamaForCausalLM has [\d,]+"):
        resolve(tmp_path / "m.gguf")
    assert leftovers(cache) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    process = multiprocessing.get_context("spawn").Process(target=_with_small_files, args=(str(tmp_path),))
    process.start()
    process.join(120)
    assert (tmp_path / "message").read_text().count("cannot be converted") == 1
    assert "MEDJUDGE_CACHE" in (tmp_path / "message").read_text()
    assert leftovers(cache) == []
    assert resolve(tmp_path / "m.gguf").is_dir()


def _with_small_files(folder: str) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        resolve(Path(folder) / "m.gguf")
    except ModelError as error:
        (Path(folder) / "message").write_text(str(error))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    cache.write_text("a file")
    with pytest.raises(ModelError, match=r"cannot be written .* MEDJUDGE_CACHE names another folder"):
        resolve(tmp_path / "m.gguf")


def _convert_in_process(path: str, results: Any) -> None:
    results.put(str(resolve(path)))


def test_of_two_processes_one_converts(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_convert_in_process, args=(str(tmp_path / "m.gguf"), results)) for _ in "ab"]
    for process in processes:
        process.start()
    folders = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(30)
    assert len(folders) == 1
    assert len(leftovers(cache)) == 1


def test_what_a_killed_process_left_is_removed(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "m.gguf", "llama")
    digest = gguf_sha256(tmp_path / "m.gguf")
    left = cache / "gguf" / f".{digest}-v1.abc" / "model"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    folder = resolve(tmp_path / "m.gguf")
    assert leftovers(cache) == [folder.name]
