"""Commands that measure judges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medjudge.cli.app import (
    MEASURE,
    AskedTask,
    Base,
    Engine,
    FromRecipe,
    Mapped,
    Mode,
    Overrides,
    Rows,
    Where,
    app,
    asking,
    bench_recipe,
    console,
    named_pairs,
    task_data_rest,
)
from medjudge.errors import ConfigError


@app.command(rich_help_panel=MEASURE)
def evaluate(
    data: Rows,
    model: Annotated[
        list[str], typer.Option("--model", help="NAME=PATH_OR_ID, as often as needed; the first is the reference.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.json and verdicts.jsonl.")],
    task: AskedTask = None,
    recipe: FromRecipe = None,
    mapping: Mapped = None,
    where: Where = None,
    train: Annotated[
        str | None, typer.Option(help="The rows the models were trained on: for leakage and baselines.")
    ] = None,
    base: Base = None,
    mode: Mode = None,
    engine: Engine = None,
    overrides: Overrides = None,
) -> None:
    """Judge labelled rows with any models, and compare them with intervals and paired tests."""
    models = named_pairs(model)
    settings = [*(overrides or []), *asking(mode, engine)]
    asked = task_data_rest(task, recipe, mapping, settings, list(models.values()))
    _measure(asked, data, models, out, where=where, train=train, base=base)


def _measure(
    asked: tuple[Any, Any, Any],
    data: str,
    models: dict[str, str],
    out: Path,
    *,
    where: list[str] | None,
    train: str | None = None,
    base: str | None,
) -> None:
    """Judges the rows, writes the page and prints the outcome. asked: what `task_data_rest` gave."""
    from medjudge.commands.evaluate import EvaluateOptions, evaluate_folder
    from medjudge.commands.report import first_page
    from medjudge.reporting.terminal import print_outcome

    contract, data_config, rest = asked
    options = EvaluateOptions(where or (), train, base)
    evaluate_folder(contract, data, models, out, console(), data_config, rest, options)
    first_page(out, console(), show_text=rest.report.show_text)
    print_outcome(out, console())


@app.command(rich_help_panel=MEASURE)
def calibrate(
    model: Annotated[Path, typer.Argument(help="A folder with weights or an adapter.", metavar="MODEL_DIR")],
    data: Annotated[str, typer.Option("--data", help="Labelled validation rows: never those that are reported.")],
    kind: Annotated[
        str, typer.Option("--kind", help="temperature, platt, or isotonic (wants a thousand rows).")
    ] = "platt",
    task: AskedTask = None,
    recipe: FromRecipe = None,
    mapping: Mapped = None,
    where: Where = None,
    base: Annotated[str | None, typer.Option(help="Load an adapter on these weights.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="generate: stated confidences; labels: the labels' probabilities.")
    ] = None,
    engine: Engine = None,
    overrides: Overrides = None,
) -> None:
    """Fit a judge's confidences on a validation split; `evaluate`, `probe` and `Judge` then use the calibrator."""
    if kind not in ("temperature", "platt", "isotonic"):
        raise ConfigError(f"--kind is {kind!r}: expected temperature, platt or isotonic. Name one of these.")
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
    data: Rows,
    model: Annotated[
        list[str], typer.Option("--model", help="NAME=PATH_OR_ID or NAME=openai:MODEL@URL, as often as needed.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.json, probes.jsonl and the page.")],
    probes: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            help="swap (equivalence), position (mcq, rubric), verbosity, authority, formatting, rewording, language "
            "(equivalence), paraphrase, translation (rows carry columns paraphrase_FIELD, translation_FIELD), "
            "injection (fourteen attacks in the judged text, each towards a wrong label); as often as needed. Default: "
            "all that fit the task.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Samples per case for self-consistency; 0 draws none. Default 5, labels: 0.")
    ] = None,
    max_cases: Annotated[int | None, typer.Option(help="Only so many of the rows, drawn by the seed.")] = None,
    task: AskedTask = None,
    recipe: FromRecipe = None,
    mapping: Mapped = None,
    where: Where = None,
    base: Base = None,
    mode: Mode = None,
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
    asked = task_data_rest(task, recipe, mapping, settings, list(models.values()))
    _measure(asked, data, models, out, where=where, base=base)


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
    base: Base = None,
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
    from medjudge.commands.bench import BenchOptions, run_benchmark

    options = BenchOptions(
        models=models,
        only=[name.strip() for one in only or [] for name in one.split(",") if name.strip()],
        copies=named_pairs(data or [], "--data", "NAME=PATH"),
        rubrics=named_pairs(rubric or [], "--rubric", "NAME=PRESET_OR_TOML"),
        parent=base,
    )
    run_benchmark(settings, options, out, console())
    from medjudge.reporting.terminal import print_outcome

    print_outcome(out, console())
