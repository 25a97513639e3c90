"""Where each model of a run lies, and the whole weights that the next stage starts from."""

from __future__ import annotations

from pathlib import Path

from medjudge import artifacts
from medjudge.recipe import Recipe
from medjudge.runs.stages import STAGES, training_stages
from medjudge.settings.model import SCRATCH_BASE


def base_name(recipe: Recipe, run_dir: Path) -> str:
    """The base model as a folder or hub id."""
    return str(run_dir / "base" / artifacts.MODEL) if recipe.model.base == SCRATCH_BASE else recipe.model.base


def base_folder(recipe: Recipe, run_dir: Path) -> Path:
    """The folder of the base model's weights (downloaded if it is a hub id)."""
    from medjudge.models.load import resolve  # only here: a plan asks for names and splits, and needs no torch

    return resolve(base_name(recipe, run_dir), recipe.model.revision)


def start_of(stage: str, recipe: Recipe, run_dir: Path) -> tuple[Path, str]:
    """(folder, name) of the whole weights that `stage` trains on: the last trained model before it, or the base."""
    before = [one.name for one in training_stages(recipe.stages) if one.name in STAGES[stage].after]
    if before:
        from medjudge.models.load import resolve

        folder = run_dir / before[-1] / artifacts.MODEL
        return resolve(folder), str(folder)
    return base_folder(recipe, run_dir), base_name(recipe, run_dir)


def start_in_words(stage: str, recipe: Recipe) -> str:
    """The weights that `stage` trains on, as a sentence names them."""
    before = [one.name for one in training_stages(recipe.stages) if one.name in STAGES[stage].after]
    return f"the {before[-1] if before else 'base'} model"


def last_trained(recipe: Recipe) -> str | None:
    """The stage whose model is the run's last; None where the recipe trains none."""
    stages = training_stages(recipe.stages)
    return stages[-1].name if stages else None


def training_split(recipe: Recipe) -> str:
    """The split that the run learns from first: what the tiny base reads, and whose prompts prove a merge."""
    stages = training_stages(recipe.stages) or training_stages(STAGES)
    return stages[0].split_name(recipe)


def named_models(recipe: Recipe, run_dir: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """(the run's models by the names that evaluate uses, in order of making; the missing ones and why)."""
    folders: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name in recipe.evaluate.models:
        candidates = [run_dir / name / artifacts.MODEL, run_dir / name / artifacts.ADAPTER]
        if name == last_trained(recipe) and "merge" in recipe.stages:
            candidates.insert(0, run_dir / "merge" / artifacts.MODEL)
        folder = next((folder for folder in candidates if folder.exists()), None)
        if name == "base":
            folders[name] = base_folder(recipe, run_dir)
        elif name not in recipe.stages:
            missing[name] = f"`stages` has no {name}"
        elif folder is None:
            missing[name] = f"{name} has not run in {run_dir}"
        else:
            folders[name] = folder
    return folders, missing
