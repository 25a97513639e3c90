"""Which weights came from which: hashes of exact parents, refusal on a mismatch, merges proven by logits.

A LoRA adapter is only meaningful on the weights it was trained on. A published pipeline loaded a GRPO adapter trained
on base+SFT onto the bare base, and so evaluated a model that nobody had trained. Here each model folder holds a
`lineage.json`, and an adapter loads on no other parent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel

from medjudge import artifacts
from medjudge.config import ModelConfig
from medjudge.errors import LineageError, ModelError
from medjudge.modeling.load import WEIGHT_PATTERNS, load_tokenizer, load_weights, resolve


@dataclass(frozen=True, slots=True)
class Parent:
    """The weights that another artifact was made from."""

    path: str
    """Folder or hub id, as it was named then."""
    weights_sha256: str
    relative_path: str | None = None
    """From the child's folder, so that a run folder can be moved as a whole."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where one model folder comes from. Stored beside its weights as `lineage.json`."""

    kind: Literal["base", "full", "adapter", "merged"]
    stage: str
    weights_sha256: str
    """Of this folder's weight files."""
    base: str
    """The hub id, folder or builtin name that the whole chain starts from."""
    base_revision: str | None = None
    parent: Parent | None = None
    contract_sha256: str | None = None
    recipe_sha256: str | None = None
    data_sha256: str | None = None
    merge: Mapping[str, Any] | None = None
    """Of a merged model: the adapter's hash and the proof by logits."""
    ancestry: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    """Stage, kind and weights hash of each ancestor, the oldest first."""

    def to_json(self) -> dict[str, Any]:
        """The lineage as a JSON object."""
        return asdict(self)

    def write(self, folder: Path) -> None:
        """Stores the lineage beside the weights."""
        artifacts.write_json(folder / artifacts.LINEAGE, self.to_json())


def read_lineage(folder: Path) -> Lineage | None:
    """The lineage of a model folder, or None if it has none (one from elsewhere). Raises LineageError if damaged."""
    path = folder / artifacts.LINEAGE
    if not path.exists():
        return None
    try:
        tree = dict(artifacts.read_json(path))
        parent = tree.pop("parent")
        ancestry = tuple(tree.pop("ancestry"))
        return Lineage(**tree, parent=Parent(**parent) if parent else None, ancestry=ancestry)
    except (TypeError, KeyError, AttributeError) as error:
        raise LineageError(f"{path} is not a lineage file of this version ({error}). Train or merge again.") from None


def weights_sha256(folder: Path) -> str:
    """Digest of a folder's weight files, by name and content. Raises ModelError if it has none.

    Two folders with the same tensors in the same files have the same digest, wherever they lie.
    """
    files = sorted(path for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern))
    files = [path for path in files if not path.name.startswith(("training_args", "optimizer", "scheduler"))]
    if not files:
        raise ModelError(f"{folder} has no weight files ({', '.join(WEIGHT_PATTERNS)}).")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{artifacts.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def describe_parent(folder: Path, named: str, child: Path) -> Parent:
    """The parent record of a child that will lie in `child`."""
    is_local = Path(named).exists()
    relative = os.path.relpath(folder.resolve(), child.resolve()) if is_local else None
    return Parent(str(folder.resolve()) if is_local else named, weights_sha256(folder), relative)


def ancestry_of(folder: Path, named: str) -> tuple[Mapping[str, Any], ...]:
    """The ancestors that a child of `folder` has, `folder` itself last."""
    lineage = read_lineage(folder)
    if lineage is None:
        return ({"stage": "base", "kind": "base", "name": named, "weights_sha256": weights_sha256(folder)},)
    return (
        *lineage.ancestry,
        {"stage": lineage.stage, "kind": lineage.kind, "name": named, "weights_sha256": lineage.weights_sha256},
    )


def load_any(
    model: str | Path, config: ModelConfig, *, parent: str | Path | None = None, revision: str | None = None
) -> tuple[Any, Any, Lineage | None]:
    """(model, tokenizer, lineage) of a hub id, a folder of whole weights, or an adapter folder on its exact parent.

    parent: load the adapter on these weights instead of those it names; they must be the same weights.
    Raises LineageError, naming both hashes, if the parent is not the one that the adapter was trained on.
    """
    folder = resolve(model, revision)
    lineage = read_lineage(folder)
    if not (folder / "adapter_config.json").exists():
        if parent is not None:
            raise ModelError(f"{folder} holds whole weights, not an adapter: it takes no parent.")
        tokenizer = load_tokenizer(folder, config.chat_template)
        return load_weights(folder, config, tokenizer), tokenizer, lineage
    parent_folder = _parent_folder(folder, lineage, parent)
    if lineage is not None and lineage.parent is not None:
        found = weights_sha256(parent_folder)
        if found != lineage.parent.weights_sha256:
            raise LineageError(
                f"adapter {folder} was trained on weights {lineage.parent.weights_sha256}, but {parent_folder} holds "
                f"{found}. On other weights an adapter is noise. Load it on {lineage.parent.path}, or train it anew."
            )
    tokenizer = load_tokenizer(folder if (folder / "tokenizer.json").exists() else parent_folder, config.chat_template)
    base = load_weights(parent_folder, config, tokenizer)
    return PeftModel.from_pretrained(base, folder), tokenizer, lineage


def _parent_folder(folder: Path, lineage: Lineage | None, parent: str | Path | None) -> Path:
    if parent is not None:
        return resolve(parent)
    candidates = []
    if lineage is not None and lineage.parent is not None:
        if lineage.parent.relative_path:
            candidates.append(str(folder / lineage.parent.relative_path))
        candidates.append(lineage.parent.path)
    else:
        candidates.append(artifacts.read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "")
    for candidate in candidates:
        if Path(candidate).is_dir():
            return Path(candidate)
    try:
        return resolve(candidates[-1])
    except ModelError as error:
        raise LineageError(f"the parent of adapter {folder} cannot be found: {error} Or name it with --base.") from None


@torch.no_grad()
def proof_logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits at every position of each prompt, float32 on the CPU, shape (n_tokens, n_vocabulary) each."""
    model.eval()
    device = next(model.parameters()).device
    return [model(input_ids=torch.tensor([list(ids)], device=device)).logits[0].float().cpu() for ids in prompts]


def compare_logits(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Largest absolute difference, and the share of positions whose most likely token is the same."""
    largest = max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(before, after, strict=True))
    n_positions = sum(len(a) for a in before)
    return {
        "max_logit_difference": largest,
        "share_unchanged_tokens": same / n_positions,
        "n_prompts": len(before),
        "n_positions": n_positions,
    }


def merge_adapter(
    adapter: Path,
    out: Path,
    config: ModelConfig,
    *,
    stage: str,
    prompts: Sequence[Sequence[int]],
    max_logit_difference: float,
) -> Lineage:
    """Writes parent + adapter as whole weights into `out`, loads them again, and proves them by logits on `prompts`.

    max_logit_difference: the bound in float32; 16-bit weights are borne 100 times as much.
    Raises LineageError if the merged weights do not answer as parent + adapter did.
    """
    model, tokenizer, lineage = load_any(adapter, config)
    if lineage is None or lineage.parent is None:
        raise LineageError(f"{adapter} has no lineage: a merge could not say what it was made from.")
    before = proof_logits(model, prompts)
    merged = model.merge_and_unload()
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    del model, merged
    again = load_weights(out, config, tokenizer)
    proof = compare_logits(before, proof_logits(again, prompts))
    bound = max_logit_difference * (1 if again.dtype == torch.float32 else 100)
    if proof["max_logit_difference"] > bound:
        raise LineageError(
            f"merging {adapter} changed logits by up to {proof['max_logit_difference']:.3g}, more than {bound:g}. "
            "Merge in float32 (`--set model.dtype=float32`), or raise `merge.max_logit_difference` knowingly."
        )
    merged_lineage = Lineage(
        kind="merged",
        stage=stage,
        weights_sha256=weights_sha256(out),
        base=lineage.base,
        base_revision=lineage.base_revision,
        parent=lineage.parent,
        contract_sha256=lineage.contract_sha256,
        recipe_sha256=lineage.recipe_sha256,
        data_sha256=lineage.data_sha256,
        merge={"adapter_sha256": lineage.weights_sha256, "dtype": str(again.dtype).removeprefix("torch."), **proof},
        ancestry=(
            *lineage.ancestry,
            {"stage": lineage.stage, "kind": "adapter", "name": adapter.name, "weights_sha256": lineage.weights_sha256},
        ),
    )
    merged_lineage.write(out)
    return merged_lineage


def copy_model(source: Path, out: Path) -> None:
    """The same model folder at another place, by hard links where the file system has them."""
    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.name != artifacts.LINEAGE:
            try:
                os.link(path, out / path.name)
            except OSError:
                shutil.copy2(path, out / path.name)
