"""The other commands: built-in rows, tasks for other programs, what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medjudge.cli.app import (
    MORE,
    FromRecipe,
    Mapped,
    Overrides,
    Where,
    app,
    bench_recipe,
    console,
    named_pairs,
    task_data_rest,
)

data_app = typer.Typer(help="The built-in synthetic data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=MORE)


@data_app.command("build")
def build_data(
    name: Annotated[str, typer.Argument(help="A built-in set, such as mcq, equivalence-fr or appropriateness.")],
    n: Annotated[int | None, typer.Option(help="Rows; default: as many as `builtin:NAME` has.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 42,
    out: Annotated[Path | None, typer.Option(help="Where to write it; default NAME.jsonl.")] = None,
) -> None:
    """Draw a built-in set as JSON lines: any size, any seed. Synthetic, for research use."""
    from medjudge.synthetic.write import write_rows

    console().print(f"wrote {write_rows(name, n, seed, out)}")


export_app = typer.Typer(help="Tasks for other evaluation programs.", no_args_is_help=True)
app.add_typer(export_app, name="export", rich_help_panel=MORE)


@export_app.command("lm-eval")
def export_lm_eval(
    out: Annotated[
        Path, typer.Argument(help="The folder to write; it must not exist yet, or be empty.", metavar="DIR")
    ],
    task: Annotated[str | None, typer.Option("--task", help="The task of --data, unless --recipe says it.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Labelled rows: a file, a hub or builtin data set.")
    ] = None,
    bench: Annotated[
        list[str] | None, typer.Option("--bench", help="A set of the rubric benchmark, NAME or NAME=PATH.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="generate: answers are written; labels: multiple choice by log-probability.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A model: shorten prompts and end labels as is done here for it.")
    ] = None,
    recipe: FromRecipe = None,
    mapping: Mapped = None,
    where: Where = None,
    rubric: Annotated[
        list[str] | None, typer.Option("--rubric", help="NAME=PRESET_OR_TOML: what a benchmark set is judged by.")
    ] = None,
    max_cases: Annotated[int | None, typer.Option(help="At most so many rows, drawn by the seed.", min=1)] = None,
    overrides: Overrides = None,
) -> None:
    """Write tasks for lm-evaluation-harness: any rows, sets of the benchmark, or the tasks on built-in rows."""
    settings = [*(overrides or []), *([f"evaluate.mode={mode}"] if mode is not None else [])]
    own = None
    if data is not None or task is not None:
        _, data_config, loaded = task_data_rest(task, recipe, mapping, settings)
        own = loaded.model_copy(update={"data": data_config})
    base = own if own is not None and not bench else bench_recipe(recipe, mode, None, overrides or [])
    from medjudge.commands.export import ExportOptions, export_lm_eval

    sets = {name: path if equals else None for name, equals, path in (one.partition("=") for one in bench or [])}
    options = ExportOptions(
        sets=sets,
        rubrics=named_pairs(rubric or [], "--rubric", "NAME=PRESET_OR_TOML"),
        source=data,
        where=where or [],
        tokenizer=tokenizer,
        max_cases=max_cases,
    )
    export_lm_eval(own, base, options, out, console())


@app.command("push", rich_help_panel=MORE)
def push_model(
    folder: Annotated[
        Path, typer.Argument(help="A finished model or adapter, such as runs/demo/merge/model.", metavar="DIR")
    ],
    name: Annotated[str, typer.Argument(help="Where it goes on the hub.", metavar="OWNER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="Only its owners can see it.")] = False,
    token_env: Annotated[
        str | None,
        typer.Option(
            "--token-env", help="Environment variable with the hub's token; default: that of `hf auth login`."
        ),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option("--parent", help="Of an adapter: OWNER/NAME of its parent, where that lies only on this machine."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Send a model or adapter to a model hub with card, contract and lineage; no rows, verdicts, logs or paths."""
    from medjudge.commands.push import PushOptions, push

    push(folder, name, PushOptions(private, token_env, parent, dry_run), console())


@app.command(rich_help_panel=MORE)
def info() -> None:
    """Show versions, devices and optional parts, and what each part unlocks."""
    from medjudge.commands.info import print_info

    print_info(console())
