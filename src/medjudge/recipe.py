"""Every setting of a run: one frozen object per stage, read from a TOML recipe. No torch here.

A recipe is checked in full before anything heavy is imported: unknown keys are refused with the nearest valid name, and
`profile = "tiny"` lays the recipe's `[profiles.tiny]` over the rest before the check.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, ValidationError, model_validator

from medjudge.errors import ConfigError, did_you_mean
from medjudge.files import BUILTIN_DIR
from medjudge.names import STAGE_NAMES, TRAINING_STAGES, StageName, file_name_trouble, shown
from medjudge.records import Case
from medjudge.rewards.composition import RewardContext, RewardPlan, build_plan, check_composition, reward_names
from medjudge.settings.base import Settings
from medjudge.settings.data import SPLIT_SOURCES, DataConfig
from medjudge.settings.evaluate import EvaluateConfig, ReportConfig
from medjudge.settings.model import SCRATCH_BASE, ModelConfig
from medjudge.settings.overlays import (
    check_overlays,
    drop_other_sources,
    lay_over,
    parse_override,
    replaced_tables,
    set_key,
)
from medjudge.settings.training import BaseConfig, GrpoConfig, MergeConfig, SftConfig
from medjudge.tasks.catalog import TASKS, Task
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.presets import rubric_text

MAX_DEPTH = 20
"""Of tables and lists within each other in a recipe."""
VARIANT_JUDGE = "variant:"
"""`judge = "variant:NAME"`: the model that another variant of the recipe trains."""
DEMO_TASKS = ("equivalence", "mcq", "rubric", "appropriateness")
DEMO_RECIPE = BUILTIN_DIR / "recipes" / "demo.toml"
RESERVED_VARIANTS = frozenset({*STAGE_NAMES, "compare", "commands.json", "preflight.json", "recipe.json"})
"""What lies in a run folder beside the variants' own folders."""


def _run_name(name: str) -> str:
    if (why := file_name_trouble(name)) is not None:
        raise ValueError(f"a run or a variant cannot be called {shown(name)}: {why}")
    return name


def _known_rewards(grpo: GrpoConfig) -> GrpoConfig:
    # Here and not in the section: the rewards that there are lie above the settings.
    check_composition(grpo.rewards, grpo.reward_gate)
    return grpo


class Recipe(Settings):
    """A whole run."""

    name: Annotated[str, AfterValidator(_run_name)]
    """The run folder is `runs/NAME`: letters, digits, `.`, `_` and `-`."""
    description: str = ""
    seed: int = 42
    runs_dir: Path = Path("runs")
    stages: tuple[StageName, ...] = STAGE_NAMES
    profile: str | None = None
    """Which of `[profiles.*]` lies over the rest."""
    task: Task
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    base: BaseConfig = BaseConfig()
    sft: SftConfig = SftConfig()
    grpo: Annotated[GrpoConfig, AfterValidator(_known_rewards)] = GrpoConfig()
    merge: MergeConfig = MergeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        if "prepare" not in self.stages:
            raise ValueError("`stages` lacks prepare, which makes the splits and looks for leaks between them: add it")
        if self.model.base == SCRATCH_BASE and "base" not in self.stages and len(self.stages) > 1:
            raise ValueError(f"`stages` lacks base, which makes {SCRATCH_BASE}: add it, or set model.base")
        learned = {getattr(self, stage).split for stage in TRAINING_STAGES if stage in self.stages}
        if "evaluate" in self.stages and self.evaluate.split in learned:
            raise ValueError(
                f"`evaluate.split` is {self.evaluate.split!r}, which the run trains on: name a held-out split"
            )
        if self.evaluate.calibrator != "none" and self.evaluate.calibration_split in (self.evaluate.split, *learned):
            raise ValueError(
                f"`evaluate.calibration_split` is {self.evaluate.calibration_split!r}, which the run trains on or "
                "reports: confidences are fitted on rows that are neither. Name another split"
            )
        splits = [name for name in SPLIT_SOURCES if getattr(self.data, name)] or list(self.data.splits)
        if self.evaluate.calibrator != "none" and self.evaluate.calibration_split not in splits:
            raise ValueError(
                f"`evaluate.calibrator` is {self.evaluate.calibrator}, but the data have no split "
                f"{self.evaluate.calibration_split!r} (`evaluate.calibration_split`): they have {', '.join(splits)}. "
                "Name one of these"
            )
        made = {name for name in self.evaluate.models if name == "base" or name in self.stages}
        if "evaluate" in self.stages and (taken := sorted(made & set(self.evaluate.extra_models))):
            raise ValueError(
                f"`evaluate.extra_models` names {', '.join(taken)}, which the run makes itself: take another name"
            )
        unknown = sorted(set(self.evaluate.models) - {"base", *TRAINING_STAGES})
        if unknown:
            raise ValueError(
                f"`evaluate.models` names {', '.join(unknown)}; a run makes base, sft and grpo. "
                "Others go under `evaluate.extra_models`"
            )
        if "grpo" in self.stages and self.grpo.algorithm == "all_action" and self.task.closed_completions() is None:
            raise ValueError(
                f"`grpo.algorithm` is all_action, but the {self.task.kind} task here answers with more than its label: "
                "take a form of the task that answers with the label, or grpo"
            )
        if "grpo" in self.stages and "consistent" in reward_names(self.grpo.rewards):
            self._pairs_fit()
        if "evaluate" in self.stages and self.evaluate.mode == "labels" and self.task.label_frame() is None:
            raise ValueError(
                f"`evaluate.mode` is labels, but the {self.task.kind} task here reasons before its label: take generate"
            )
        if self.evaluate.probes:
            self._probes_fit()
        for stage in TRAINING_STAGES:
            if stage in self.stages and getattr(self, stage).tuning == "full":
                if self.model.quantization != "none":
                    raise ValueError(
                        f"`{stage}.tuning` is full, but `model.quantization` freezes the weights: use lora"
                    )
                if self.model.dtype == "float16":
                    raise ValueError(f"`{stage}.tuning` is full, which float16 cannot train: use bfloat16 or float32")
        return self

    def _pairs_fit(self) -> None:
        if self.grpo.algorithm != "grpo":
            raise ValueError(
                "`grpo.rewards` names consistent, which pays what was drawn for both orders of a pair together, but "
                f"`grpo.algorithm` is {self.grpo.algorithm}, which draws nothing: take grpo, or the reward accuracy"
            )
        if self.grpo.prompts_per_step % 2:
            raise ValueError(
                f"`grpo.prompts_per_step` is {self.grpo.prompts_per_step}, but the reward consistent needs both orders "
                "of a pair in one step: make it even"
            )

    def _probes_fit(self) -> None:
        from medjudge.data.probes import ALL, FAMILIES, PROBES, probes_for

        fitting = probes_for(self.task)
        for name in self.evaluate.probes:
            if name == ALL:
                continue
            if name not in PROBES and name not in FAMILIES:
                known = [*(one for one in PROBES if "/" not in one), *FAMILIES]
                raise ValueError(
                    f"`evaluate.probes`: unknown probe {name!r}{did_you_mean(name, [*PROBES, *FAMILIES])}; known: "
                    f"{', '.join(known)}"
                )
            if not fitting.keys() >= set(FAMILIES.get(name, (name,))):
                raise ValueError(
                    f"`evaluate.probes`: {name!r} does not fit the {self.task.kind} task, for which there are: "
                    f"{', '.join(fitting)}. Choose from these"
                )

    def reward_plan(self, cases: Sequence[Case]) -> RewardPlan:
        """The rewards of `[grpo]`, built for a run that trains on `cases`. Raises ConfigError."""
        context = RewardContext(self.task, cases, self.grpo.reward_settings, self.seed, self.model.device)
        return build_plan(self.grpo.rewards, self.grpo.reward_gate, context)

    @property
    def run_dir(self) -> Path:
        """Where the run's artifacts lie."""
        return self.runs_dir / self.name

    @property
    def contract(self) -> TaskContract:
        """The task contract, under the name that stages use."""
        return self.task


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file with `section.key=value` overrides applied. Raises ConfigError.

    Order: the file, then `profile` and `stages`-like plain overrides that choose a profile, then the profile, then all
    overrides again, so that what is said on the command line always wins.
    """
    return recipe_from_tree(_read_toml(path), overrides, where=str(path))


def load_variants(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, dict[str, Recipe]]:
    """The recipe, and its variants by name, in order: each the recipe with `[variants.NAME]` laid over it.

    The command line wins over a variant too, but in a table that the variant replaces whole (`_replace = true`), which
    is its own. A variant's run folder lies in the recipe's. A profile takes a variant out with `variants.NAME = false`.
    Empty where the recipe has none.
    """
    return variants_from_tree(_read_toml(path), overrides, where=str(path))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(
            f"cannot read recipe {path}: {reason}, expected a TOML file. Check the path; `medjudge init KIND` writes "
            "one to start from."
        ) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise ConfigError(
            f"{path} is not valid TOML: {why}. Correct that place: text stands in quotes, a section in [brackets]."
        ) from None


def demo_recipe(task: str, seed: int, runs_dir: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The shipped recipe for one task, `runs_dir/demo-TASK` unless `seed` is not its own. Raises ConfigError."""
    if task not in DEMO_TASKS:
        raise ConfigError(
            f"--task is {task!r}{did_you_mean(task, DEMO_TASKS)}. Expected one of {', '.join(DEMO_TASKS)}. Name one of "
            "these."
        )
    profile = [] if task == DEMO_TASKS[0] else [f"profile={task}"]
    # Only another seed than the shipped one gets a folder of its own, so that the documented commands find theirs.
    shipped = load_recipe(DEMO_RECIPE, profile)
    recipe = load_recipe(DEMO_RECIPE, [*profile, f"seed={seed}", *overrides])
    name = recipe.name if recipe.seed == shipped.seed else f"{recipe.name}-seed{recipe.seed}"
    return recipe.model_copy(update={"name": name, "runs_dir": runs_dir})


def recipe_from_tree(tree: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """As `load_recipe`, from a parsed tree. `where` names it in messages."""
    return variants_from_tree(tree, overrides, where=where)[0]


def variants_from_tree(
    tree: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe"
) -> tuple[Recipe, dict[str, Recipe]]:
    """As `load_variants`, from a parsed tree."""
    settings = [parse_override(text) for text in overrides]
    try:
        # A deep copy in JSON's own types: what is read here is what `recipe.json` can hold.
        merged: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    except (RecursionError, ValueError):
        raise ConfigError(
            f"{where}: the recipe is nested too deeply, or holds a number of thousands of digits. Expected "
            "plain settings: take these away."
        ) from None
    profiles = merged.pop("profiles", {})
    check_overlays(profiles, "profiles", where)
    profile = next((value for keys, value in reversed(settings) if keys == ["profile"]), merged.get("profile"))
    if profile is not None:
        if not isinstance(profile, str) or profile not in profiles:
            raise ConfigError(
                f"{where}: profile {shown(profile)} is not defined{did_you_mean(str(profile), profiles)}. "
                f"Expected one of the recipe's: {', '.join(profiles) or 'none'}. Name one of these, or write its table."
            )
        lay_over(merged, profiles[profile])
    drop_other_sources(merged, {tuple(keys) for keys, _ in settings})
    for keys, value in settings:
        set_key(merged, keys, value)
    kind = merged.get("task", {}).get("kind") if isinstance(merged.get("task"), dict) else None
    if kind is not None and (not isinstance(kind, str) or kind not in TASKS):
        raise ConfigError(
            f"{where}: task.kind is {shown(kind)}{did_you_mean(str(kind), TASKS)}. Expected one of {', '.join(TASKS)}. "
            "Name one of these."
        )
    overlays = merged.pop("variants", {})
    if isinstance(overlays, dict):
        overlays = {name: overlay for name, overlay in overlays.items() if overlay is not False}
    check_overlays(overlays, "variants", where)
    recipe = _validate(merged, where=where)
    # Every profile must hold keys that exist, also those not in use: a typo there would wait for its day.
    for name, overlay in profiles.items():
        trial = json.loads(json.dumps(merged))
        lay_over(trial, overlay)
        trial.pop("variants", None)
        _validate(trial, where=f"{where} [profiles.{name}]")
    return recipe, _variants_of(recipe, merged, overlays, settings, where)


def _variants_of(
    recipe: Recipe,
    merged: Mapping[str, Any],
    overlays: Mapping[str, Any],
    settings: Sequence[tuple[list[str], Any]],
    where: str,
) -> dict[str, Recipe]:
    """`[variants.*]` laid over the recipe's tree, each as a recipe of its own. settings: the command line's."""
    variants: dict[str, Recipe] = {}
    for name, overlay in overlays.items():
        if (why := file_name_trouble(name, RESERVED_VARIANTS)) is not None:
            raise ConfigError(f"{where}: a variant cannot be called {shown(name)}: {why}. Give it another name.")
        if name.lower() in {other.lower() for other in variants}:
            raise ConfigError(
                f"{where}: two variants are called {shown(name)} except for capitals, expected different names: one "
                "folder on some systems. Rename one."
            )
        trial = json.loads(json.dumps(merged))
        lay_over(trial, overlay)
        own = replaced_tables(overlay)
        for keys, value in settings:
            if not any(tuple(keys[: len(place)]) == place for place in own):
                set_key(trial, keys, value)
        # Last, so that neither overlay nor command line can move a variant out of its recipe's folder.
        trial |= {"name": name, "runs_dir": str(recipe.run_dir)}
        _name_judges(trial, variants, where=f"{where} [variants.{name}]")
        variants[name] = _validate(trial, where=f"{where} [variants.{name}]")
    return variants


def _name_judges(tree: dict[str, Any], earlier: Mapping[str, Recipe], *, where: str) -> None:
    """`judge = "variant:NAME"` becomes the folder of the model that an earlier variant trains."""
    places = (("grpo", "reward_settings", "llm"), ("evaluate", "llm"))
    for place in places:
        section: Any = tree
        for key in place:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        judge = section.get("judge") if isinstance(section, dict) else None
        if not isinstance(judge, str) or not judge.startswith(VARIANT_JUDGE):
            continue
        name = judge.removeprefix(VARIANT_JUDGE)
        if name not in earlier:
            raise ConfigError(
                f"{where}: `{'.'.join(place)}.judge` is {judge!r}, but no variant before it has that name: "
                f"{', '.join(earlier) or 'it is the first'}. Expected one of an earlier variant: name it, or move this "
                "variant down."
            )
        section["judge"] = str(earlier[name].run_dir / "sft" / "model")


def _validate(tree: Mapping[str, Any], *, where: str) -> Recipe:
    _check_depth(tree, where)
    tree = _with_preset(tree, where)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "\n  ".join(_explain(tree, item) for item in error.errors())) from None


def _check_depth(tree: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for tables or lists nested so deep that a recipe could be read but not written."""
    level: list[Any] = [tree]
    for _ in range(MAX_DEPTH):
        inner = [value.values() if isinstance(value, Mapping) else value for value in level]
        level = [value for values in inner for value in values if isinstance(value, Mapping | list | tuple)]
        if not level:
            return
    raise ConfigError(
        f"{where}: tables or lists are nested more than {MAX_DEPTH} deep, which no setting needs. Take the outer "
        "ones away."
    )


def _with_preset(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """`task.preset`, a rubric by name or its TOML file, becomes the scale, criteria and rubric that it stands for."""
    task = tree.get("task")
    if not isinstance(task, dict) or task.get("kind") != "rubric" or task.get("preset") is None:
        return tree
    if taken := [key for key in ("criteria", "rubric") if task.get(key) is not None]:
        raise ConfigError(
            f"{where}: `task.preset` and `task.{taken[0]}` both say what to judge, expected one: give one of the two."
        )
    rest = {key: value for key, value in task.items() if key != "preset"}
    return {**tree, "task": {**rest, **rubric_text(str(task["preset"])).task_settings()}}


def _explain(tree: Mapping[str, Any], item: Any) -> str:
    """One pydantic complaint as a sentence that names the key, the value and the nearest valid key."""
    loc = [str(part) for part in item["loc"] if part not in TASKS]
    key = ".".join(loc)
    if item["type"] == "extra_forbidden":
        known = _keys_at(loc[:-1], tree)
        return (
            f"unknown key `{key}`{did_you_mean(loc[-1], known)}. Expected one of {', '.join(sorted(known))}."
            " Rename it, or take it out."
        )
    if item["type"] == "missing":
        return f"`{key}` is missing, expected it here. Add it."
    if item["type"] == "union_tag_not_found":
        return f"`task.kind` is missing, expected one of {', '.join(TASKS)}. Add it."
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    # Tables are not repeated: they may be long, and their key says where they stand.
    is_said = isinstance(value, dict | list | tuple) or shown(value) in message
    got = "" if is_said else f" (got {shown(value)})"
    return f"`{key}`: {message[:1].lower()}{message[1:]}{got}." if key else f"{message}."


def _keys_at(loc: Sequence[str], tree: Mapping[str, Any]) -> list[str]:
    """Valid keys of the section at `loc`."""
    section: type[Settings] = Recipe
    for part in loc:
        if section is Recipe and part == "task":
            section = TASKS[str(tree["task"]["kind"])]
            continue
        fields = section.by_name()
        if part not in fields:  # a name in a table of sections
            continue
        annotation = fields[part].annotation
        candidates = [annotation, *get_args(annotation)] if get_origin(annotation) else [annotation]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, Settings))
    keys = list(section.by_name())
    return [*keys, "profiles"] if section is Recipe else keys
