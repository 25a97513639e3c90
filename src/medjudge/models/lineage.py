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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from pydantic import TypeAdapter

from medjudge import artifacts
from medjudge.errors import LineageError, ModelError
from medjudge.machine import pick_device
from medjudge.models.load import WEIGHT_PATTERNS, load_tokenizer, load_weights, pick_dtype, resolve
from medjudge.models.sources import converted, gguf_file, source_sha256
from medjudge.network import offline
from medjudge.records import AdapterStep
from medjudge.settings.model import ModelConfig

_NOT_THE_MODEL = frozenset(
    {"_name_or_path", "transformers_version", "base_model_name_or_path", "revision", "inference_mode", "use_cache"}
)
"""Config keys that say where a model lay or what wrote it, not what it computes."""
_WRITTEN_BY = "peft_version"
_WITHOUT_ORDER = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "layers_to_transform")
"""Lists of an adapter's config that PEFT holds as sets and writes in the order of a hash that changes by process."""
PROOF_POSITIONS = 64
"""Last positions of each proof prompt whose logits are compared."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The weights that another artifact was made from."""

    path: str
    """Folder or hub id, as it was named then."""
    weights_sha256: str
    relative_path: str | None = None
    """From the child's folder, so that a run folder can be moved as a whole."""
    revision: str | None = None
    """The hub's commit, where the parent is a hub id."""
    gguf_sha256: str | None = None
    """Of the GGUF file that the weights were converted from, where they were."""


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
    adapter: AdapterStep | None = None
    """Of an adapter, merged or not: rank, scale and learning rate, without which two ranks cannot be compared."""
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
        ancestry = tuple(dict(ancestor) for ancestor in tree.pop("ancestry"))
        if not all({"stage", "kind", "weights_sha256"} <= ancestor.keys() for ancestor in ancestry):
            raise KeyError
        adapter = tree.pop("adapter", None)  # absent from the files of earlier versions
        lineage = Lineage(
            **tree,
            parent=Parent(**parent) if parent else None,
            ancestry=ancestry,
            adapter=AdapterStep(**adapter) if adapter else None,
        )
        return TypeAdapter(Lineage).validate_python(lineage.to_json())
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise LineageError(
            f"{path} holds something else ({type(error).__name__}), expected a lineage file of this version. Train or "
            "merge again."
        ) from None


def weights_sha256(folder: Path) -> str:
    """Digest of a folder's weight files and of how its config uses them. Raises ModelError if it has none.

    Two folders with the same tensors in the same files have the same digest, wherever they lie and whichever process
    wrote them. Another `lora_alpha` or rope setting makes another model of the same tensors, and another digest.
    """
    return _digests(folder)[0]


def holds_weights(folder: Path, digest: str) -> bool:
    """Whether a folder holds the weights of this digest, by today's rule or by that of earlier versions.

    The older rule took an adapter's config as it was written, so that equal adapters could have different digests; an
    adapter of that time still loads. Raises ModelError if the folder has no weights.
    """
    return digest in _digests(folder)


def recorded_sha256(folder: Path) -> str:
    """The digest by which a folder's weights are known: that of its lineage, where it is of what lies there now."""
    digests, lineage = _digests(folder), read_lineage(folder)
    return lineage.weights_sha256 if lineage is not None and lineage.weights_sha256 in digests else digests[0]


def _digests(folder: Path) -> tuple[str, str]:
    """(digest by today's rule, by the older one), which differ for adapters only."""
    files = sorted(path for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern))
    files = [path for path in files if not path.name.startswith(("training_args", "optimizer", "scheduler"))]
    if not files:
        raise ModelError(
            f"{folder} has no weight files, expected {' or '.join(WEIGHT_PATTERNS)}. Copy the folder again from its "
            "source, or train again."
        )
    tensors = "".join(f"{path.name}\0{artifacts.sha256_file(path)}\n" for path in files)
    today, older = hashlib.sha256(), hashlib.sha256()
    for name in ("config.json", "adapter_config.json"):
        if (folder / name).exists():
            config = artifacts.parsed(folder / name, artifacts.read_json(folder / name, constants=True), dict)
            settings = {key: value for key, value in config.items() if key not in _NOT_THE_MODEL}
            older.update(f"{name}\0{artifacts.sha256_json(settings)}\n".encode())
            if name == "adapter_config.json":
                settings = _canonical(settings)
            today.update(f"{name}\0{artifacts.sha256_json(settings)}\n".encode())
    for digest in (today, older):
        digest.update(tensors.encode())
    return today.hexdigest(), older.hexdigest()


def _canonical(adapter: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: sorted(value, key=str) if key in _WITHOUT_ORDER and isinstance(value, list) else value
        for key, value in adapter.items()
        if key != _WRITTEN_BY
    }


def describe_parent(folder: Path, named: str, child: Path) -> Parent:
    """The parent record of a child that will lie in `child`."""
    # A GGUF file is what was named; where it was converted to is a cache's affair.
    place = Path(named).resolve() if Path(named).is_file() else folder.resolve()
    is_local = Path(named).exists()
    relative = os.path.relpath(place, child.resolve()) if is_local else None
    path = str(place) if is_local else named
    return Parent(path, weights_sha256(folder), relative, hub_revision(folder), source_sha256(folder))


def hub_revision(folder: Path) -> str | None:
    """The commit of a hub snapshot; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def ancestry_of(folder: Path, named: str) -> tuple[Mapping[str, Any], ...]:
    """The ancestors that a child of `folder` has, `folder` itself last."""
    lineage = read_lineage(folder)
    if lineage is None:
        base = {"stage": "base", "kind": "base", "name": named, "weights_sha256": weights_sha256(folder)}
        digest = source_sha256(folder)
        return (base if digest is None else {**base, "gguf_sha256": digest},)
    return (
        *lineage.ancestry,
        {"stage": lineage.stage, "kind": lineage.kind, "name": named, "weights_sha256": lineage.weights_sha256},
    )


def load_any(
    model: str | Path,
    config: ModelConfig,
    *,
    parent: str | Path | None = None,
    revision: str | None = None,
    quantize: bool = False,
) -> tuple[Any, Any, Lineage | None]:
    """(model, tokenizer, lineage) of a hub id, a folder of whole weights, or an adapter folder on its exact parent.

    parent: load the adapter on these weights instead of those it names; they must be the same weights.
    quantize: load the parent quantised as `config` says, which is what an adapter is trained on.
    Raises LineageError, naming both hashes, if the parent is not the one that the adapter was trained on.
    """
    located = locate(model, parent=parent, revision=revision)
    if located.parent is None:
        tokenizer = load_tokenizer(located.folder, config.chat_template)
        return load_weights(located.folder, config, tokenizer), tokenizer, located.lineage
    tokenizer = load_tokenizer(located.tokenizer_folder, config.chat_template)
    base = load_weights(located.parent, config, tokenizer, quantize=quantize)
    with offline():
        return PeftModel.from_pretrained(base, located.folder), tokenizer, located.lineage


@dataclass(frozen=True, slots=True)
class Located:
    """The folders of a model whose hashes are those of its lineage; nothing is loaded."""

    folder: Path
    lineage: Lineage | None
    parent: Path | None
    """Of an adapter: the whole weights that it was trained on."""

    @property
    def tokenizer_folder(self) -> Path:
        """An adapter's own tokenizer goes before its parent's."""
        return self.folder if self.parent is None or (self.folder / "tokenizer.json").exists() else self.parent


def locate(model: str | Path, *, parent: str | Path | None = None, revision: str | None = None) -> Located:
    """Where a model's files lie, checked against its lineage. Arguments and errors as of `load_any`."""
    folder = resolve(model, revision)
    artifacts.check_outputs(folder)
    lineage = read_lineage(folder)
    if lineage is not None and not holds_weights(folder, lineage.weights_sha256):
        raise LineageError(
            f"{folder} holds weights {weights_sha256(folder)}, but its {artifacts.LINEAGE} names "
            f"{lineage.weights_sha256}: they were changed or swapped after training. Train or merge again."
        )
    if not (folder / "adapter_config.json").exists():
        if parent is not None:
            raise ModelError(
                f"{folder} holds whole weights, expected an adapter: whole weights take no parent. Name no parent."
            )
        return Located(folder, lineage, None)
    parent_folder = _parent_folder(folder, lineage, parent)
    expected = lineage.parent if lineage is not None else None
    if expected is not None and not holds_weights(parent_folder, expected.weights_sha256):
        raise LineageError(
            f"adapter {folder} was trained on weights {expected.weights_sha256}, but {parent_folder} holds "
            f"{weights_sha256(parent_folder)}. On other weights an adapter is noise. Load it on {expected.path}, or "
            "train it again."
        )
    return Located(folder, lineage, parent_folder)


def _parent_folder(folder: Path, lineage: Lineage | None, parent: str | Path | None) -> Path:
    if parent is not None:
        return resolve(parent)
    candidates = []
    if lineage is not None and lineage.parent is not None:
        if lineage.parent.relative_path:
            candidates.append(str(folder / lineage.parent.relative_path))
        candidates.append(lineage.parent.path)
    else:
        path = folder / "adapter_config.json"
        adapter = artifacts.parsed(path, artifacts.read_json(path, constants=True), dict)
        candidates.append(str(adapter.get("base_model_name_or_path") or ""))
    for candidate in candidates:
        if Path(candidate).is_dir():
            return Path(candidate)
        if gguf_file(candidate) is not None:
            return resolve(candidate)
    expected = lineage.parent if lineage is not None else None
    if expected is not None and expected.gguf_sha256 and (made := converted(expected.gguf_sha256)) is not None:
        return made  # the GGUF file was moved, and what was made of it is here
    try:
        revision = lineage.parent.revision if lineage and lineage.parent else None
        return resolve(candidates[-1], revision, is_asked_for=False)
    except ModelError as error:
        raise LineageError(
            f"the parent of adapter {folder} cannot be found: {error} Put it back there, or name it with `medjudge "
            "evaluate --base`."
        ) from None


@torch.no_grad()
def proof_logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits at the last positions of each prompt, float32 on the CPU, (at most PROOF_POSITIONS, n_vocabulary) each."""
    model.eval()
    device = next(model.parameters()).device
    return [
        model(input_ids=torch.tensor([list(ids)], device=device)).logits[0, -PROOF_POSITIONS:].float().cpu()
        for ids in prompts
    ]


def compare_logits(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Largest absolute difference (infinite where either is not finite), and the share of positions whose most likely
    token is the same."""
    differences = [(a - b).abs() for a, b in zip(before, after, strict=True)]
    finite = all(bool(difference.isfinite().all()) for difference in differences)
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(before, after, strict=True))
    n_positions = sum(len(a) for a in before)
    return {
        "max_logit_difference": max(float(d.max()) for d in differences) if finite else float("inf"),
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

    The merge is made and proven in float32. Where `config` stores 16 bits, what rounding changes is measured after and
    told, without a bound: it is the price of the format, not of the merge. Where the adapter was trained on quantised
    or 16-bit weights, how far the result is from that model is measured, too: `proof_sentences` says all three.
    Raises LineageError if the merged weights do not answer as parent + adapter did.
    """
    exact = config.model_copy(update={"dtype": "float32", "quantization": "none"})
    model, tokenizer, lineage = load_any(adapter, exact)
    if lineage is None or lineage.parent is None:
        raise LineageError(
            f"{adapter} has no lineage, expected {artifacts.LINEAGE}: a merge could not say what it was made from. "
            "Train it again."
        )
    before = proof_logits(model, prompts)
    merged = model.merge_and_unload()
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    del model, merged
    again = load_weights(out, exact, tokenizer)
    proof = compare_logits(before, proof_logits(again, prompts))
    if not proof["max_logit_difference"] <= max_logit_difference:
        raise LineageError(
            f"merging {adapter} changed logits by up to {proof['max_logit_difference']:.3g}, more than "
            f"`merge.max_logit_difference` = {max_logit_difference:g}: what was saved is not what was trained. Use "
            "the adapter itself, or raise the limit if so much may differ."
        )
    dtype = pick_dtype(config.dtype, pick_device(config.device))
    if (adapter / artifacts.CONTRACT).exists():  # an adapter of an earlier version has none
        shutil.copyfile(adapter / artifacts.CONTRACT, out / artifacts.CONTRACT)
    if dtype != torch.float32:
        again = again.to(dtype)
        again.save_pretrained(out)
        proof |= _named("stored", compare_logits(before, proof_logits(again, prompts)))
    if dtype != torch.float32 or config.quantization != "none":
        stored = proof_logits(again, prompts)
        del again
        proof |= _difference_to_trained(adapter, config, dtype, stored, prompts)
    merged_lineage = replace(
        lineage,
        kind="merged",
        stage=stage,
        weights_sha256=weights_sha256(out),
        merge={"adapter_sha256": lineage.weights_sha256, "dtype": str(dtype).removeprefix("torch."), **proof},
        ancestry=(
            *lineage.ancestry,
            {"stage": lineage.stage, "kind": "adapter", "name": adapter.name, "weights_sha256": lineage.weights_sha256},
        ),
    )
    merged_lineage.write(out)
    return merged_lineage


def _difference_to_trained(
    adapter: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    stored: Sequence[torch.Tensor],
    prompts: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """How far the logits of the stored merge are from those of the model as its training loaded it."""
    name = str(dtype).removeprefix("torch.")
    trained_as = f"{name} weights" if config.quantization == "none" else f"{config.quantization} weights, {name}"
    try:
        trained, _, _ = load_any(adapter, config, quantize=True)
    except ModelError as error:  # merged on another machine than the one that trained
        return {"trained_as": trained_as, "trained_not_measured": str(error)}
    return {"trained_as": trained_as, **_named("trained", compare_logits(proof_logits(trained, prompts), stored))}


def _named(reference: str, comparison: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{reference}_{key}": comparison[key] for key in ("max_logit_difference", "share_unchanged_tokens")}


def copy_model(source: Path, out: Path) -> None:
    """The same model folder at another place, by hard links where the file system has them."""
    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.name != artifacts.LINEAGE:
            (out / path.name).unlink(missing_ok=True)  # of a copy that was cut off
            try:
                os.link(path, out / path.name)
            except OSError:
                shutil.copy2(path, out / path.name)
