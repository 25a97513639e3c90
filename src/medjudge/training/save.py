"""Trained weights into a stage's folder, with their lineage and their contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from medjudge import artifacts
from medjudge.machine import pick_device
from medjudge.models.contract import write_contract
from medjudge.models.lineage import (
    Lineage,
    ancestry_of,
    describe_parent,
    hub_revision,
    merge_adapter,
    read_lineage,
    weights_sha256,
)
from medjudge.models.load import pick_dtype
from medjudge.models.sources import hub_id
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.settings.model import BUILTIN, SCRATCH_BASE
from medjudge.tasks.encoding import Encoded, encode_all


def proof_prompts(
    recipe: Recipe, cases: Sequence[Case], tokenizer: Any, known: Mapping[str, Encoded] | None = None
) -> list[list[int]]:
    """The fixed prompts on which a merge is proven: the first of the training split.

    known: case id -> the case encoded already.
    """
    # The first ones, not a draw: anybody can repeat the proof from the split's file.
    chosen, known = cases[: recipe.merge.proof_prompts], known or {}
    missing = [case for case in chosen if case.case_id not in known]
    added = encode_all(recipe.contract, missing, tokenizer, with_target=False)
    rows = {**known, **{case.case_id: row for case, row in zip(missing, added, strict=True)}}
    return [rows[case.case_id].prompt_ids for case in chosen]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where trained weights come from: what their lineage says."""

    stage: str
    recipe: Recipe
    start: Path
    """The whole weights that the training started from, as a folder."""
    start_name: str
    """The same as the recipe names them: a folder or a hub id."""
    final: Path
    """The stage's final folder, from which parents are described."""
    data_sha256: str
    """Of the split that was learned from."""


def save_trained(
    model: Any, tokenizer: Any, out_dir: Path, origin: Origin, *, proof: Sequence[Sequence[int]] | None = None
) -> Lineage:
    """Writes an adapter (and, with `proof`, the proven merge as `model/`), or whole weights as `model/`.

    out_dir: the stage's work folder. proof: the prompts on which a merge is proven; None leaves the adapter unmerged.
    Returns the lineage of the folder that the next stage starts from.
    """
    recipe = origin.recipe
    is_adapter = isinstance(model, PeftModel)
    folder = out_dir / (artifacts.ADAPTER if is_adapter else artifacts.MODEL)
    if is_adapter:
        _name_parent(model, origin)
        # TRL adds a copy of an adapter that is trained further, `ref`, for the KL term: it is no part of the judge.
        model.save_pretrained(folder, selected_adapters=["default"])
    else:
        dtype = pick_dtype(recipe.model.dtype, pick_device(recipe.model.device))
        model.to(dtype).save_pretrained(folder)  # trained in float32, stored as the recipe says
    tokenizer.save_pretrained(folder)
    write_contract(folder, recipe.contract)
    lineage = _lineage(folder, origin, is_adapter=is_adapter)
    lineage.write(folder)
    if is_adapter and proof is not None:
        return merge_adapter(
            folder,
            out_dir / artifacts.MODEL,
            recipe.model,
            stage=origin.stage,
            prompts=proof,
            max_logit_difference=recipe.merge.max_logit_difference,
        )
    return lineage


def _name_parent(model: Any, origin: Origin) -> None:
    """Writes into an adapter's own settings what it is to be loaded on."""
    start, name = origin.start, origin.start_name
    for config in model.peft_config.values():
        # An absolute path: PEFT reads it relative to wherever it is loaded from.
        # A name that only we understand stands for a folder, or for the same model on the hub.
        is_ours = Path(name).exists() or (name.startswith(BUILTIN) and hub_id(name) == name)
        config.base_model_name_or_path = str(start.resolve()) if is_ours else hub_id(name)
        config.revision = hub_revision(start)
        if isinstance(config.target_modules, set):  # whose order differs from process to process
            config.target_modules = sorted(config.target_modules)


def _lineage(folder: Path, origin: Origin, *, is_adapter: bool) -> Lineage:
    recipe, start = origin.recipe, origin.start
    before, settings = read_lineage(start), getattr(recipe, origin.stage)
    is_scratch = recipe.model.base == SCRATCH_BASE and before is None
    return Lineage(
        kind="adapter" if is_adapter else "full",
        stage=origin.stage,
        weights_sha256=weights_sha256(folder),
        base=before.base if before else recipe.model.base,
        base_revision=before.base_revision if before else hub_revision(start) or recipe.model.revision,
        parent=describe_parent(start, origin.start_name, origin.final / folder.name),
        contract_sha256=recipe.contract.fingerprint(),
        recipe_sha256=artifacts.sha256_json(recipe.model_dump(mode="json", exclude={"runs_dir"})),  # where, not what
        data_sha256=origin.data_sha256,
        adapter=settings.lora.step(settings.learning_rate) if is_adapter else None,
        ancestry=ancestry_of(start, SCRATCH_BASE if is_scratch else origin.start_name),
    )
