"""Where each model of a run lies, and the whole weights that the next stage starts from."""

from __future__ import annotations

from pathlib import Path

from medjudge import artifacts
from medjudge.config import TINY_BASE, Recipe
from medjudge.errors import RunError
from medjudge.modeling.load import resolve


def base_name(recipe: Recipe, run_dir: Path) -> str:
    """The base model as a folder or hub id."""
    return str(run_dir / "base" / artifacts.MODEL) if recipe.model.base == TINY_BASE else recipe.model.base


def base_folder(recipe: Recipe, run_dir: Path) -> Path:
    """The folder of the base model's weights (downloaded if it is a hub id)."""
    return resolve(base_name(recipe, run_dir), recipe.model.revision)


def start_of(stage: str, recipe: Recipe, run_dir: Path) -> tuple[Path, str]:
    """(folder, name) of the whole weights that `stage` trains on: the last trained model before it, or the base."""
    if stage == "grpo" and "sft" in recipe.stages:
        folder = run_dir / "sft" / artifacts.MODEL
        return resolve(folder), str(folder)
    return base_folder(recipe, run_dir), base_name(recipe, run_dir)


def last_trained(recipe: Recipe) -> str:
    """The stage whose model is the run's last: grpo, or sft where the recipe has no grpo."""
    for stage in ("grpo", "sft"):
        if stage in recipe.stages:
            return stage
    raise RunError("the recipe trains nothing: `stages` has neither sft nor grpo.")


def named_models(recipe: Recipe, run_dir: Path) -> dict[str, Path]:
    """The models of a run that exist, by the names that evaluate uses, in order of making."""
    final = run_dir / "merge" / artifacts.MODEL
    found: dict[str, Path] = {}
    for name in recipe.evaluate.models:
        if name == "base":
            found[name] = base_folder(recipe, run_dir)
        elif name == last_trained(recipe) and final.exists():
            found[name] = final
        elif (run_dir / name / artifacts.MODEL).exists():
            found[name] = run_dir / name / artifacts.MODEL
        elif (run_dir / name / artifacts.ADAPTER).exists():
            found[name] = run_dir / name / artifacts.ADAPTER
    return found
