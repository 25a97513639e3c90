"""Trained weights into a stage's folder, with their lineage and their contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from medjudge import artifacts
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
from medjudge.models.load import pick_device, pick_dtype
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.settings.model import SCRATCH_BASE
from medjudge.tasks.encoding import encode_all


def proof_prompts(recipe: Recipe, cases: Sequence[Case], tokenizer: Any) -> list[list[int]]:
    """The fixed prompts on which a merge is proven: the first of the training split."""
    chosen = cases[: recipe.merge.proof_prompts]
    return [row.prompt_ids for row in encode_all(recipe.contract, chosen, tokenizer, with_target=False)]


def save_trained(
    stage: str,
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    start: Path,
    start_name: str,
    out_dir: Path,
    run_dir: Path,
    *,
    merge_now: bool,
    prompts: Sequence[Sequence[int]],
) -> Lineage:
    """Writes an adapter (and, with `merge_now`, the proven merge as `model/`), or whole weights as `model/`.

    out_dir: the stage's work folder; its final place in `run_dir` is what parents are described from.
    Returns the lineage of the folder that the next stage starts from.
    """
    is_adapter = isinstance(model, PeftModel)
    folder = out_dir / (artifacts.ADAPTER if is_adapter else artifacts.MODEL)
    final = run_dir / stage / folder.name
    if is_adapter:
        _name_parent(model, start, start_name)
        model.save_pretrained(folder, selected_adapters=["default"])
    else:
        dtype = pick_dtype(recipe.model.dtype, pick_device(recipe.model.device))
        model.to(dtype).save_pretrained(folder)  # trained in float32, stored as the recipe says
    tokenizer.save_pretrained(folder)
    write_contract(folder, recipe.contract)
    before = read_lineage(start)
    settings = getattr(recipe, stage)
    lineage = Lineage(
        kind="adapter" if is_adapter else "full",
        stage=stage,
        weights_sha256=weights_sha256(folder),
        base=before.base if before else recipe.model.base,
        base_revision=before.base_revision if before else hub_revision(start) or recipe.model.revision,
        parent=describe_parent(start, start_name, final),
        contract_sha256=recipe.contract.fingerprint(),
        recipe_sha256=artifacts.sha256_json(recipe.model_dump(mode="json", exclude={"runs_dir"})),  # where, not what
        data_sha256=artifacts.sha256_file(run_dir / "prepare" / f"{settings.split}{artifacts.SPLIT_SUFFIX}"),
        adapter=settings.lora.step(settings.learning_rate) if is_adapter else None,
        ancestry=ancestry_of(
            start, SCRATCH_BASE if recipe.model.base == SCRATCH_BASE and before is None else start_name
        ),
    )
    lineage.write(folder)
    if is_adapter and merge_now:
        return merge_adapter(
            folder,
            out_dir / artifacts.MODEL,
            recipe.model,
            stage=stage,
            prompts=prompts,
            max_logit_difference=recipe.merge.max_logit_difference,
        )
    return lineage


def _name_parent(model: PeftModel, start: Path, start_name: str) -> None:
    """The weights that the adapter belongs on, in PEFT's own file: other programs load it by that."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(start.resolve()) if Path(start_name).exists() else start_name
        config.revision = hub_revision(start)
        if isinstance(config.target_modules, set):  # whose order differs from process to process
            config.target_modules = sorted(config.target_modules)
