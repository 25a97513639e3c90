"""The stages of a run in one table: what each reads, makes and depends on, and what it is handed when it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from medjudge.names import StageName
from medjudge.recipe import Recipe
from medjudge.runs.run_dir import RunDir
from medjudge.settings.model import SCRATCH_BASE
from medjudge.settings.training import TrainingConfig


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the pipeline."""

    name: StageName
    """Also that of its section in a recipe, where it has one, and of its folder in a run."""
    module: str
    """Imported only when the stage runs."""
    sections: tuple[str, ...]
    """Recipe sections that the stage depends on."""
    after: tuple[StageName, ...]
    """Stages whose outputs it reads."""
    title: str
    reads_split: bool = False
    """Whether its section names a split that it reads (`SECTION.split`)."""
    trains: bool = False
    """Whether it trains the judge, from the model of the stage before it."""
    by_rewards: bool = False
    """Whether it trains on rewards, so that a pre-flight and a doctor belong to it."""
    makes_model: bool = False
    """Whether evaluation and reports know a model by its name."""
    has_log: bool = False
    """Whether it leaves a training log."""
    computes: bool = False
    """Long enough to look for its number of threads: the load of a machine changes between stages."""
    is_of_the_run: bool = False
    """Whether it names the run itself: each run makes its own, no variant takes over another's."""

    def split_name(self, recipe: Recipe) -> str:
        """The split that it reads."""
        return str(getattr(recipe, self.name).split)

    def training(self, recipe: Recipe) -> TrainingConfig:
        """Its section, of a stage that trains the judge."""
        section = getattr(recipe, self.name)
        assert isinstance(section, TrainingConfig)
        return section


_ALL = (
    Stage("prepare", "medjudge.stages.prepare", ("task", "data"), (), "expert rows -> checked, split cases"),
    Stage(
        "base",
        "medjudge.stages.base",
        ("model", "base"),
        ("prepare",),
        "train a tiny model from random weights",
        makes_model=True,
        has_log=True,
        computes=True,
    ),
    Stage(
        "sft",
        "medjudge.stages.sft",
        ("task", "model", "sft"),
        ("prepare", "base"),
        "supervised fine-tuning on task and format",
        reads_split=True,
        trains=True,
        makes_model=True,
        has_log=True,
        computes=True,
    ),
    Stage(
        "grpo",
        "medjudge.stages.grpo",
        ("task", "model", "grpo"),
        ("prepare", "base", "sft"),
        "train on rewards",
        reads_split=True,
        trains=True,
        by_rewards=True,
        makes_model=True,
        has_log=True,
        computes=True,
    ),
    Stage(
        "merge",
        "medjudge.stages.merge",
        ("task", "model", "merge"),
        ("prepare", "sft", "grpo"),
        "one model, checked against its adapters",
    ),
    Stage(
        "evaluate",
        "medjudge.stages.evaluate",
        ("task", "model", "evaluate"),
        ("prepare", "base", "sft", "grpo", "merge"),
        "agreement with the experts, with intervals",
        reads_split=True,
        computes=True,
        is_of_the_run=True,
    ),
    Stage(
        "report",
        "medjudge.stages.report",
        ("report",),
        ("evaluate",),
        "page of outcome, tables and figures",
        is_of_the_run=True,
    ),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in _ALL}
"""In the order a project meets them."""
SECTIONS = tuple(dict.fromkeys(name for stage in _ALL for name in stage.sections if name != "task"))
"""The sections of a recipe beside its task, in the order of the stages."""
LOGGED = tuple(stage.name for stage in _ALL if stage.has_log)
"""Stages that may have left a training log."""


def training_stages(names: Iterable[str]) -> list[Stage]:
    """Those of the named stages that train the judge, in their order."""
    chosen = set(names)
    return [stage for stage in _ALL if stage.trains and stage.name in chosen]


def reading_stages(names: Iterable[str]) -> list[Stage]:
    """Those of the named stages that read a split of their own, in their order."""
    chosen = set(names)
    return [stage for stage in _ALL if stage.reads_split and stage.name in chosen]


def is_active(name: str, recipe: Recipe) -> bool:
    """Whether a run of the recipe has this stage; base only where the model is made from nothing."""
    return name in recipe.stages and (name != "base" or recipe.model.base == SCRATCH_BASE)


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage is handed when it runs."""

    recipe: Recipe
    out_dir: Path
    """Its work folder, which is moved into place when it is whole."""
    run_dir: RunDir
    """The run: its splits, and the folders of the stages before."""
    console: Console
    force: bool = False
    """Whether the run goes on over a failed pre-flight, and records it."""
    is_first_rank: bool = True
    """Whether this process writes results; the others of a run on several devices compute only."""
