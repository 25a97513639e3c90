"""The program itself, and what its commands share: options, the console, settings from --recipe or --task."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medjudge.errors import ConfigError
from medjudge.names import model_name_trouble, shown

if TYPE_CHECKING:
    from rich.console import Console


TRAIN, MEASURE, MORE = "Train a judge", "Measure judges", "More"
ASKED_TASK = (
    "The task, such as equivalence. Not needed for models that medjudge trained: their folders say it, with its "
    "settings (contract.json)."
)
FIRST_STEPS = (
    "First steps: `medjudge demo` shows all of it on built-in rows. With rows of your own: `medjudge init TASK` writes "
    "a recipe (mcq, equivalence, rubric, appropriateness, pairwise, or classification with labels of your own), "
    "`medjudge check-data ROWS --recipe TASK.toml` reads the "
    "rows, `medjudge run TASK.toml --dry-run` says what it would take, and without --dry-run it does it. To measure "
    "verdicts that exist already: `medjudge score`. `medjudge COMMAND --help` explains each option."
)

app = typer.Typer(
    name="medjudge",
    epilog=FIRST_STEPS,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Force = Annotated[
    bool, typer.Option("--force", help="Go on over a failed pre-flight. Manifest and report will say so.")
]
Mapped = Annotated[
    list[str] | None,
    typer.Option("--map", help="FIELD=COLUMN where the names differ; 'FIELD={A}, {B}' makes one field of two columns."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting, as often as needed: `--set sft.epochs=2`.", metavar="SECTION.KEY=VALUE"
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(help="What asks local models: transformers, or vllm (a GPU). `vllm:DIR` names it for one model."),
]
Rows = Annotated[str, typer.Option("--data", help="Labelled rows: a file, a hub or builtin data set.")]
AskedTask = Annotated[str | None, typer.Option("--task", help=ASKED_TASK)]
FromRecipe = Annotated[Path | None, typer.Option(help="Take task, fields and other settings from a recipe.")]
Where = Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE.")]
Base = Annotated[str | None, typer.Option(help="Load adapters on these weights; they must be the adapters' parent.")]
Mode = Annotated[
    str | None, typer.Option(help="generate: write answers; labels: score the labels alone, one pass per case.")
]
RecipeFile = Annotated[Path, typer.Argument(help="A TOML recipe; `medjudge init KIND` writes one.", metavar="RECIPE")]


def finite(value: float | None) -> float | None:
    """A number option that is a number: `nan` passes any `min=` and `max=`."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"got {value}, expected a finite number")
    return value


def console() -> Console:
    """Where people read: the terminal at its own width; a file or a pipe at one that tables fit."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def _print_version(wanted: bool) -> None:
    if wanted:
        from medjudge.version import __version__

        typer.echo(f"medjudge {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train compact open language models as medical judges, and measure them honestly against the experts."""


def asking(mode: str | None, engine: str | None) -> list[str]:
    """--mode and --engine as overrides."""
    options = {"evaluate.mode": mode, "evaluate.engine": engine}
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def task_data_rest(
    task: str | None,
    recipe: Path | None,
    mapping: list[str] | None,
    overrides: list[str] | None,
    models: list[str] | None = None,
) -> tuple[Any, Any, Any]:
    """(contract, data settings, whole recipe) from a recipe, --task, or what the models were trained under.

    Raises ConfigError.
    """
    from medjudge.data.sources import parse_fields
    from medjudge.recipe import load_recipe, recipe_from_tree

    if recipe is None and task is None and not models:
        raise ConfigError(
            "got neither --task nor --recipe, expected one: name the task with --task KIND, or give a recipe with "
            "--recipe FILE."
        )
    if recipe is not None:
        loaded = load_recipe(recipe, overrides or [])
        if task is not None and task != loaded.task.kind:
            raise ConfigError(
                f"--task is {task!r}, but {recipe} is for {loaded.task.kind!r}: expected one task. Give one of the two."
            )
    else:
        settings = _settings_of(models or [], task, overrides) or {"kind": task}
        loaded = recipe_from_tree({"name": "cli", "task": settings}, overrides or [], where="--task/--set")
    fields = {**loaded.data.fields, **parse_fields(mapping or [])}
    return loaded.contract, loaded.data.model_copy(update={"fields": fields}), loaded


def _settings_of(models: list[str], task: str | None, overrides: list[str] | None) -> dict[str, Any] | None:
    """The task settings that models of this task (None: of any) were trained under; None where none says."""
    if not models:
        return None
    from medjudge.judging.judge import contract_for

    contract = contract_for(models, task)
    if contract is None:
        return None
    # A preset brings the scale, the criteria and the rubric; the models' own would contradict it.
    is_replaced = any(text.startswith("task.preset=") for text in overrides or [])
    return contract.model_dump(mode="json", exclude={"points", "criteria", "rubric"} if is_replaced else None)


def bench_recipe(
    recipe: Path | None,
    mode: str | None,
    max_cases: int | None,
    overrides: list[str],
    models: dict[str, str] | None = None,
) -> Any:
    """The settings of a benchmark: a recipe's; or the models' own form and wording, and room for long passages."""
    from medjudge.recipe import load_recipe, recipe_from_tree

    options = {"evaluate.mode": mode, "evaluate.max_cases": max_cases}
    settings = [*overrides, *(f"{key}={value}" for key, value in options.items() if value is not None)]
    if recipe is not None:
        return load_recipe(recipe, settings)
    room = {"max_prompt_tokens": 8192, "max_completion_tokens": 1024}
    own = _settings_of(list((models or {}).values()), "rubric", overrides)
    task: dict[str, Any] = {"kind": "rubric", **(own or {}), **room}
    if own is None and mode == "labels":
        task["form"] = "score_only"  # feedback cannot be scored; --set task.form=feedback leaves it empty
    return recipe_from_tree({"name": "bench", "task": task}, settings, where="--set")


def named_pairs(pairs: list[str], option: str = "--model", form: str = "NAME=PATH_OR_ID") -> dict[str, str]:
    """`["a=x", "b=y"]` -> `{"a": "x", "b": "y"}` of an option that may be given often. Raises ConfigError.

    form: what the option takes, for the message.
    """
    named: dict[str, str] = {}
    for text in pairs:
        name, equals, where = text.partition("=")
        if not equals or not name or not where:
            raise ConfigError(f"{option} takes {form}, got {text!r}. Write it in that form.")
        if option == "--model" and (why := model_name_trouble(name)) is not None:
            raise ConfigError(
                f"{option} names a model {shown(name)}, expected a short printable one: {why}. Give it another name."
            )
        if name in named:
            raise ConfigError(f"{option} names {name!r} twice: expected each name once. Rename one.")
        named[name] = where
    return named
