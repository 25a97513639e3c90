"""Commands that measure judges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medjudge.cli.app import (
    MEASURE,
    Engine,
    Mapped,
    Overrides,
    app,
    asking,
    bench_recipe,
    console,
    named_pairs,
    task_data_rest,
)
from medjudge.errors import ConfigError

ASKED_TASK = (
    "The task. Not needed for models that medjudge trained: their folders say it, with its settings (contract.json)."
)


@app.command(rich_help_panel=MEASURE)
def evaluate(
    data: Annotated[str, typer.Option("--data", help="Labelled rows: a file, a hub or builtin data set.")],
    model: Annotated[
        list[str], typer.Option("--model", help="NAME=PATH_OR_ID, as often as needed; the first is the reference.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.json and verdicts.jsonl.")],
    task: Annotated[str | None, typer.Option("--task", help=ASKED_TASK)] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take task, fields and other settings from a recipe.")] = None,
    mapping: Mapped = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE.")] = None,
    train: Annotated[
        str | None, typer.Option(help="The rows the models were trained on: for leakage and baselines.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Load adapters on these weights; they must be the adapters' parent.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="generate: write answers; labels: score the labels alone, one pass per case.")
    ] = None,
    engine: Engine = None,
    overrides: Overrides = None,
) -> None:
    """Judge labelled rows with any models, and compare them with intervals and paired tests."""
    models = named_pairs(model)
    settings = [*(overrides or []), *asking(mode, engine)]
    contract, data_config, rest = task_data_rest(task, recipe, mapping, settings, list(models.values()))
    from medjudge.commands.evaluate import evaluate_folder

    evaluate_folder(
        contract, data, models, out, console(), data_config, rest, where=where or [], train=train, parent=base
    )
    from medjudge.commands.report import rewrite
    from medjudge.reporting.terminal import print_outcome

    rewrite(out, console(), show_text=rest.report.show_text)
    print_outcome(out, console())


@app.command(rich_help_panel=MEASURE)
def calibrate(
    model: Annotated[Path, typer.Argument(help="A folder with weights or an adapter.", metavar="MODEL_DIR")],
    data: Annotated[str, typer.Option("--data", help="Labelled validation rows: never those that are reported.")],
    kind: Annotated[
        str, typer.Option("--kind", help="temperature, platt, or isotonic (wants a thousand rows).")
    ] = "platt",
    task: Annotated[str | None, typer.Option("--task", help=ASKED_TASK)] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take task, fields and other settings from a recipe.")] = None,
    mapping: Mapped = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE.")] = None,
    base: Annotated[str | None, typer.Option(help="Load an adapter on these weights.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="generate: stated confidences; labels: the labels' probabilities.")
    ] = None,
    engine: Engine = None,
    overrides: Overrides = None,
) -> None:
    """Fit a judge's confidences on a validation split; `evaluate`, `probe` and `Judge` then use the calibrator."""
    if kind not in ("temperature", "platt", "isotonic"):
        raise ConfigError(f"--kind is {kind!r}: expected temperature, platt or isotonic.")
    settings = [*(overrides or []), *asking(mode, engine)]
    _, data_config, rest = task_data_rest(task, recipe, mapping, settings, [str(model)])
    from medjudge.commands.calibrate import calibrate_model

    done = calibrate_model(model, data, data_config, rest, kind, console(), where=where or [], parent=base)  # type: ignore[arg-type]
    console().print(
        f"wrote {done.path}: {kind}, fitted on {done.n:,} verdicts. ECE on these rows {done.ece_before:.3f} before, "
        f"{done.ece_after:.3f} after; what it is worth shows on rows it has not seen."
    )


@app.command(rich_help_panel=MEASURE)
def probe(
    data: Annotated[str, typer.Option("--data", help="Labelled rows: a file, a hub or builtin data set.")],
    model: Annotated[
        list[str], typer.Option("--model", help="NAME=PATH_OR_ID or NAME=openai:MODEL@URL, as often as needed.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.json, probes.jsonl and the page.")],
    probes: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            help="swap (equivalence), position (mcq, rubric), verbosity, authority, formatting, rewording, language "
            "(equivalence), paraphrase, translation (rows carry columns paraphrase_FIELD, translation_FIELD); as "
            "often as needed. Default: all that fit the task.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Samples per case for self-consistency; 0 draws none. Default 5, labels: 0.")
    ] = None,
    max_cases: Annotated[int | None, typer.Option(help="Only so many of the rows, drawn by the seed.")] = None,
    task: Annotated[str | None, typer.Option("--task", help=ASKED_TASK)] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take task, fields and other settings from a recipe.")] = None,
    mapping: Mapped = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Load adapters on these weights; they must be the adapters' parent.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="generate: write answers; labels: score the labels alone, one pass per case.")
    ] = None,
    engine: Engine = None,
    overrides: Overrides = None,
) -> None:
    """Do changes that should not matter move a judge? Flip rates with intervals, and agreement with itself.

    Every probe asks each model once more about all rows. A cut-off probe goes on where it stopped.
    """
    import json

    models = named_pairs(model)
    settings = [*(overrides or []), f"evaluate.probes={json.dumps(probes or ['all'])}", *asking(mode, engine)]
    settings += [f"evaluate.max_cases={max_cases}"] if max_cases is not None else []
    if samples is None:
        unsampled = task_data_rest(task, recipe, None, [*settings, "evaluate.samples=0"], list(models.values()))[2]
        samples = 0 if unsampled.evaluate.mode == "labels" else 5
    settings.append(f"evaluate.samples={samples}")
    contract, data_config, rest = task_data_rest(task, recipe, mapping, settings, list(models.values()))
    from medjudge.commands.evaluate import evaluate_folder

    evaluate_folder(contract, data, models, out, console(), data_config, rest, where=where or [], parent=base)
    from medjudge.commands.report import rewrite
    from medjudge.reporting.terminal import print_outcome

    rewrite(out, console(), show_text=rest.report.show_text)
    print_outcome(out, console())


bench_app = typer.Typer(help="Judges on published benchmarks.", no_args_is_help=True)
app.add_typer(bench_app, name="bench", rich_help_panel=MEASURE)


@bench_app.command("rubric")
def bench_rubric(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="NAME=PATH_OR_ID or NAME=openai:MODEL@URL, as often as needed."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; the same command goes on in it.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="NAME=PATH: a local copy of a set, or rows of your own.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Sets by name, also `a,b`; `published`: the published suite. Default: those of --data, or it."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Show the sets and the rubrics; judge nothing.")] = False,
    max_cases: Annotated[
        int | None, typer.Option(help="At most so many cases per set, drawn by the seed.", min=1)
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="generate: write answers; labels: score the scores alone, one pass per case.")
    ] = None,
    rubric: Annotated[
        list[str] | None, typer.Option("--rubric", help="NAME=PRESET_OR_TOML: what a set is judged by.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take form, wording and other settings from a recipe.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Load adapters on these weights; they must be the adapters' parent.")
    ] = None,
    engine: Engine = None,
    overrides: Overrides = None,
) -> None:
    """Judge the sets of the rubric-judge benchmark, and lay the numbers beside the published scheme's."""
    if show:
        from medjudge.commands.info import print_benchmark_sets

        print_benchmark_sets(console())
        return
    if not model or out is None:
        raise ConfigError(
            "got no --model or no --out, expected both: name a judge with --model NAME=PATH_OR_ID and a folder with "
            "--out; --list shows the sets."
        )
    models = named_pairs(model)
    settings = bench_recipe(recipe, mode, max_cases, [*(overrides or []), *asking(None, engine)], models)
    names = [name.strip() for one in only or [] for name in one.split(",") if name.strip()]
    from medjudge.commands.bench import BenchOptions, run_benchmark

    options = BenchOptions(
        models=models,
        only=names,
        copies=named_pairs(data or [], "--data", "NAME=PATH"),
        rubrics=named_pairs(rubric or [], "--rubric", "NAME=PRESET_OR_TOML"),
        parent=base,
    )
    run_benchmark(settings, options, out, console())
    from medjudge.reporting.terminal import print_outcome

    print_outcome(out, console())
