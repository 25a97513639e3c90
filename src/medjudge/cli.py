"""The one door: every command, in the order a project meets them.

    medjudge init appropriateness          a commented recipe to start from
    medjudge check-data rows.jsonl ...     is this data fit to train and to test on?
    medjudge data build mcq                synthetic rows of a built-in set
    medjudge preflight recipe.toml         can the rewards be earned, and by the right answers only?
    medjudge demo                          all of what follows, on built-in data, in minutes
    medjudge run recipe.toml               prepare -> base -> sft -> grpo -> merge -> evaluate -> report
    medjudge evaluate ...                  any models on any labelled rows
    medjudge calibrate MODEL_DIR ...       fit its confidences on a validation split, saved with the model
    medjudge probe ...                     do changes that should not matter move a judge?
    medjudge score verdicts.csv --gold ..  any judge's verdicts, from any program, against the experts
    medjudge bench rubric ...              judges on the published rubric benchmark
    medjudge export lm-eval DIR            the same tasks for lm-evaluation-harness
    medjudge report runs/NAME              the page of a run, again
    medjudge lineage MODEL_DIR             which weights came from which
    medjudge info                          versions, devices, optional parts

Nothing heavy is imported before the arguments and the recipe have been checked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medjudge.errors import ConfigError, MedjudgeError
from medjudge.files import private_files, write_failure
from medjudge.names import model_name_trouble, shown

if TYPE_CHECKING:
    from rich.console import Console

    from medjudge.recipe import Recipe

TRAIN, MEASURE, MORE = "Train a judge", "Measure judges", "More"
FIRST_STEPS = (
    "First steps: `medjudge demo` shows all of it on built-in rows. With rows of your own: `medjudge init TASK` writes "
    "a recipe (mcq, equivalence, rubric or appropriateness), `medjudge check-data ROWS --recipe TASK.toml` reads the "
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
RecipeFile = Annotated[Path, typer.Argument(help="A TOML recipe; `medjudge init KIND` writes one.", metavar="RECIPE")]


ASKED_TASK = (
    "The task. Not needed for models that medjudge trained: their folders say it, with its settings (contract.json)."
)
_STAGES = "prepare, base, sft, grpo, merge, evaluate or report"


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


@app.command(rich_help_panel=TRAIN)
def init(
    kind: Annotated[str, typer.Argument(help="mcq, equivalence, rubric or appropriateness.")],
    out: Annotated[Path | None, typer.Option(help="Where to write it; default KIND.toml.")] = None,
) -> None:
    """Write a commented recipe to start from."""
    from medjudge.commands.init import write_recipe

    path = write_recipe(kind, out or Path(f"{kind}.toml"))
    console().print(
        f"wrote {path}. Next: name your rows in it (`source` under [data]), then\n"
        f"    medjudge check-data ROWS.jsonl --recipe {path}\n    medjudge run {path} --dry-run",
        soft_wrap=True,
        markup=False,
    )


@app.command("check-data", rich_help_panel=TRAIN)
def check_data(
    path: Annotated[str, typer.Argument(help="Rows: a file, `hub:owner/name[:split]` or `builtin:NAME`.")],
    task: Annotated[
        str | None, typer.Option("--task", help="The task the rows are for, unless --recipe says it.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Held-out rows: look for leaks from PATH into them.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Take task, fields and other data settings from a recipe.")
    ] = None,
    mapping: Mapped = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE of PATH.")] = None,
    against_where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE of AGAINST.")] = None,
    overrides: Overrides = None,
) -> None:
    """Read, lint and compare rows before anyone trains on them. Exits with 1 if rows are bad or leak."""
    from medjudge.commands.check_data import check_data as check
    from medjudge.commands.check_data import print_check

    contract, data = _task_and_data(task, recipe, mapping, overrides)
    report = check(path, contract, data, against=against, where=where or [], against_where=against_where or [])
    print_check(report, console())
    if not report.ok:
        raise typer.Exit(1)


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


@app.command(rich_help_panel=TRAIN)
def preflight(recipe_path: RecipeFile, overrides: Overrides = None, force: Force = False) -> None:
    """Prove, in seconds, that the rewards can be earned and only by right answers. Exits with 1 if not."""
    from medjudge.recipe import load_recipe

    recipe = load_recipe(recipe_path, overrides or [])
    from medjudge.commands.preflight import preflight as prove

    result = prove(recipe, console(), force=force)
    if not result.passed and not force:
        raise typer.Exit(1)


@app.command(rich_help_panel=TRAIN)
def demo(
    task: Annotated[str, typer.Option("--task", help="mcq, equivalence, rubric or appropriateness.")] = "mcq",
    seed: Annotated[int, typer.Option(help="Seed of the trainings; the rows and their splits stay.")] = 42,
    runs_dir: Annotated[Path, typer.Option("--out", help="Where run folders go.")] = Path("runs"),
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier demo of this task and seed.")] = False,
    force: Force = False,
) -> None:
    """Train and compare a tiny judge on built-in synthetic data: minutes on two cores, no hub, no GPU.

    The shipped base model is fine-tuned, sharpened by GRPO, merged, and
    compared with itself and with baselines on questions that none of its
    training asked. The recipe is `recipes/demo.toml` of the repository.
    """
    from medjudge.recipe import demo_recipe

    recipe = demo_recipe(task, seed, runs_dir, overrides or [])
    _run_and_tell(recipe, fresh=fresh, force=force)
    _say_what_next(recipe, task)


@app.command(rich_help_panel=TRAIN)
def run(
    recipe_path: RecipeFile,
    overrides: Overrides = None,
    first: Annotated[
        str | None, typer.Option("--from", help=f"First stage to run: {_STAGES}.", metavar="STAGE")
    ] = None,
    last: Annotated[str | None, typer.Option("--until", help="Last stage to run.", metavar="STAGE")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: rows, steps, tokens, memory, time; run nothing.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget earlier results and begun work of these stages.")
    ] = False,
    force: Force = False,
) -> None:
    """Run a recipe's stages in order. Unchanged stages are skipped; a cut-off one resumes from its last checkpoint.

    A recipe with variants runs each of them, what they share once, and lays
    the results side by side.
    """
    from medjudge.recipe import load_variants

    recipe, variants = load_variants(recipe_path, overrides or [])
    from medjudge.runs.pipeline import active_stages

    active_stages(recipe, first, last)
    out = console()
    if dry_run:
        from medjudge.commands.plan import print_plans

        print_plans(variants.values() or [recipe], out, first=first, last=last)
        return
    if variants:
        from medjudge.commands.variants import run_variants

        run_variants(recipe, variants, out, first=first, last=last, fresh=fresh, force=force)
        return
    _run_and_tell(recipe, first=first, last=last, fresh=fresh, force=force)


def _run_and_tell(
    recipe: Recipe, *, first: str | None = None, last: str | None = None, fresh: bool = False, force: bool = False
) -> None:
    """Runs the stages and prints the outcome, if one of them brought it."""
    from medjudge.runs.pipeline import active_stages, run_recipe

    out = console()
    run_dir = run_recipe(recipe, out, first=first, last=last, fresh=fresh, force=force)
    if active_stages(recipe, first, last)[-1] in ("evaluate", "report"):
        from medjudge.reporting.terminal import print_outcome

        print_outcome(run_dir, out)


def _say_what_next(recipe: Recipe, task: str) -> None:
    """What a person would do after the demo, as commands that work where they stand."""
    run_dir, own = recipe.run_dir, f"{task}.toml"
    other = "equivalence" if task != "equivalence" else "mcq"
    steps = (
        ("the page with prompts and answers of what it got wrong", [f"medjudge report {run_dir} --show-text"]),
        ("which weights came from which", [f"medjudge lineage {run_dir}/merge/model"]),
        ("another task", [f"medjudge demo --task {other}"]),
        (
            "your own rows: write a recipe, check the rows, see the plan; then run it without --dry-run",
            [
                f"medjudge init {task}",
                f"medjudge check-data ROWS.jsonl --recipe {own}",
                f"medjudge run {own} --set data.source=ROWS.jsonl --dry-run",
            ],
        ),
        ("verdicts of another judge", ["medjudge score VERDICTS.csv --gold GOLD.csv --labels no,yes --out scored"]),
    )
    out = console()
    out.print("\n[bold]What next[/]: open the page in a browser, then")
    for what, commands in steps:
        out.print(f"- {what}:")
        for command in commands:
            out.print(f"    {command}", soft_wrap=True)


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
    models = _named(model)
    settings = [*(overrides or []), *_asking(mode, engine)]
    contract, data_config, rest = _task_data_rest(task, recipe, mapping, settings, list(models.values()))
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
    settings = [*(overrides or []), *_asking(mode, engine)]
    _, data_config, rest = _task_data_rest(task, recipe, mapping, settings, [str(model)])
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

    models = _named(model)
    settings = [*(overrides or []), f"evaluate.probes={json.dumps(probes or ['all'])}", *_asking(mode, engine)]
    settings += [f"evaluate.max_cases={max_cases}"] if max_cases is not None else []
    if samples is None:
        unsampled = _task_data_rest(task, recipe, None, [*settings, "evaluate.samples=0"], list(models.values()))[2]
        samples = 0 if unsampled.evaluate.mode == "labels" else 5
    settings.append(f"evaluate.samples={samples}")
    contract, data_config, rest = _task_data_rest(task, recipe, mapping, settings, list(models.values()))
    from medjudge.commands.evaluate import evaluate_folder

    evaluate_folder(contract, data, models, out, console(), data_config, rest, where=where or [], parent=base)
    from medjudge.commands.report import rewrite
    from medjudge.reporting.terminal import print_outcome

    rewrite(out, console(), show_text=rest.report.show_text)
    print_outcome(out, console())


@app.command(rich_help_panel=MEASURE)
def score(
    verdicts: Annotated[
        list[str],
        typer.Argument(help="Files of verdicts: JSONL, JSON, CSV, Excel, Parquet; NAME=PATH names a file's judge."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.json, verdicts.jsonl and the page.")],
    gold: Annotated[
        str | None, typer.Option("--gold", help="A file of expert labels, or the verdict files' column of them.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="The task whose labels are used.")] = None,
    labels: Annotated[str | None, typer.Option(help="Or the labels themselves: `no,yes`, lowest first.")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="--labels lie on a scale.")] = False,
    positive: Annotated[str | None, typer.Option(help="The positive one of two --labels; default: the second.")] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="FIELD=COLUMN, or `FIELD=` for none. Fields: id, label (the verdict), gold, confidence, generator, "
            "group, judge, error. `a.b`, `a[0].b`, `a[*].b` reach inside, `a+b` joins two.",
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", help="NAME=COLUMN of one judge's verdicts, as often as a file has such columns."),
    ] = None,
    gold_mapping: Annotated[
        list[str] | None, typer.Option("--gold-map", help="FIELD=COLUMN of the file of expert labels.")
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="VALUE=LABEL where a program writes a label otherwise; `VALUE=`: it is no verdict."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Verdicts are scores: from this value on they are the positive label.")
    ] = None,
    gold_threshold: Annotated[float | None, typer.Option(help="The same for experts' scores.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE, in every file that has the column.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Labelled rows of --task: for baselines and leakage.")] = None,
    train_where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE of TRAIN.")] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="NAME=FAMILY of a judge or generator: is a judge kinder to its own?")
    ] = None,
    confidence_max: Annotated[float, typer.Option(help="What stands for certainty: 1, or 100.", min=1e-9)] = 1.0,
    reference: Annotated[str | None, typer.Option(help="The judge that the others are compared with.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every resampling.")] = 42,
    overrides: Overrides = None,
) -> None:
    """Measure any judge's verdicts against the experts: no model is needed, and any program may have made them.

    Which columns were read as what is printed first. Nothing is guessed where two readings are possible.

    Columns id, label and gold in one file:

    score v.jsonl --labels no,yes --out scored

    Other names, and a verdict inside an object:

    score v.json --labels no,yes --gold expert --map id=uid,label=result.verdict --out scored

    Experts in a file of their own:

    score v.csv --gold g.xlsx --gold-map id=case,gold=rating --labels 1,2,3 --ordered --out scored

    Two judges in two files, or in two columns of one file:

    score a=a.csv b=b.csv --labels no,yes --out scored

    score jury.csv --judge gpt=gpt_verdict --judge llama=llama_verdict --labels no,yes --out scored

    Other words for a label, or scores for labels:

    --alias Y=yes --alias N=no --alias "n/a="  or  --threshold 0.5
    """
    if (task is None) == (labels is None):
        raise ConfigError("name the scale of the labels: --task KIND, or --labels A,B,C; one of the two.")
    from rich.text import Text

    from medjudge.commands.score import ScoreOptions, label_scale, parse_judges, score_files
    from medjudge.data.sources import parse_options

    contract = (
        label_scale(labels, ordered=ordered, positive=positive)
        if labels is not None
        else _task_data_rest(task, None, None, overrides)[0]
    )
    options = ScoreOptions(
        columns=parse_options(mapping or [], "--map takes FIELD=COLUMN"),
        judges=parse_judges(judge or []),
        gold=gold,
        gold_columns=parse_options(gold_mapping or [], "--gold-map takes FIELD=COLUMN"),
        aliases=parse_options(alias or [], "--alias takes VALUE=LABEL"),
        threshold=threshold,
        gold_threshold=gold_threshold,
        where=where or [],
        train=train,
        train_where=train_where or [],
        families=parse_options(family or [], "--family takes NAME=FAMILY"),
        confidence_max=confidence_max,
        reference=reference,
        seed=seed,
    )
    screen = console()
    score_files(verdicts, contract, out, options, say=lambda line: screen.print(Text(line)))
    from medjudge.reporting.terminal import print_outcome

    print_outcome(out, screen)


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
        raise ConfigError("name a judge with --model NAME=PATH_OR_ID and a folder with --out; --list shows the sets.")
    models = _named(model)
    settings = _bench_recipe(recipe, mode, max_cases, [*(overrides or []), *_asking(None, engine)], models)
    names = [name.strip() for one in only or [] for name in one.split(",") if name.strip()]
    from medjudge.commands.bench import BenchOptions, run_benchmark

    options = BenchOptions(
        models=models,
        only=names,
        copies=_named(data or [], "--data", "NAME=PATH"),
        rubrics=_named(rubric or [], "--rubric", "NAME=PRESET_OR_TOML"),
        parent=base,
    )
    run_benchmark(settings, options, out, console())
    from medjudge.reporting.terminal import print_outcome

    print_outcome(out, console())


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
    recipe: Annotated[Path | None, typer.Option(help="Take task, fields and other settings from a recipe.")] = None,
    mapping: Mapped = None,
    where: Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE.")] = None,
    rubric: Annotated[
        list[str] | None, typer.Option("--rubric", help="NAME=PRESET_OR_TOML: what a benchmark set is judged by.")
    ] = None,
    max_cases: Annotated[int | None, typer.Option(help="At most so many rows, drawn by the seed.", min=1)] = None,
    overrides: Overrides = None,
) -> None:
    """Write tasks for lm-evaluation-harness: any rows, sets of the benchmark, or the four tasks on built-in rows."""
    settings = [*(overrides or []), *([f"evaluate.mode={mode}"] if mode is not None else [])]
    own = None
    if data is not None or task is not None:
        _, data_config, loaded = _task_data_rest(task, recipe, mapping, settings)
        own = loaded.model_copy(update={"data": data_config})
    base = own if own is not None and not bench else _bench_recipe(recipe, mode, None, overrides or [])
    from medjudge.commands.export import ExportOptions, export_lm_eval

    sets = {name: path if equals else None for name, equals, path in (one.partition("=") for one in bench or [])}
    options = ExportOptions(
        sets=sets,
        rubrics=_named(rubric or [], "--rubric", "NAME=PRESET_OR_TOML"),
        source=data,
        where=where or [],
        tokenizer=tokenizer,
        max_cases=max_cases,
    )
    export_lm_eval(own, base, options, out, console())


@app.command(rich_help_panel=TRAIN)
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    show_text: Annotated[
        bool | None,
        typer.Option(
            "--show-text/--no-text",
            help="Put prompt and completion of wrong answers on the page, which is then as confidential as the rows.",
        ),
    ] = None,
) -> None:
    """Write the page and the pictures of a run again, and print its table."""
    from medjudge.commands.report import rewrite
    from medjudge.reporting.terminal import print_outcome

    rewrite(run_dir, console(), show_text=show_text)
    print_outcome(run_dir, console())


@app.command(rich_help_panel=TRAIN)
def lineage(model_dir: Annotated[Path, typer.Argument(help="A folder with weights or an adapter.")]) -> None:
    """Show which weights a model was made from, and check that they are still the same."""
    from medjudge.commands.lineage import print_lineage

    if not print_lineage(model_dir, console()):
        raise typer.Exit(1)


@app.command(rich_help_panel=MORE)
def info() -> None:
    """Show versions, devices and optional parts, and what each part unlocks."""
    from medjudge.commands.info import print_info

    print_info(console())


def _asking(mode: str | None, engine: str | None) -> list[str]:
    """--mode and --engine as overrides."""
    asked = {"evaluate.mode": mode, "evaluate.engine": engine}
    return [f"{key}={value}" for key, value in asked.items() if value is not None]


def _task_data_rest(
    task: str | None,
    recipe: Path | None,
    mapping: list[str] | None,
    overrides: list[str] | None,
    models: list[str] | None = None,
) -> tuple[Any, Any, Any]:
    """(contract, data settings, whole recipe) from a recipe, --task, or what the models were trained under."""
    from medjudge.data.sources import parse_fields
    from medjudge.recipe import load_recipe, recipe_from_tree

    if recipe is None and task is None and not models:
        raise ConfigError("name the task with --task KIND, or give a recipe with --recipe FILE.")
    if recipe is not None:
        loaded = load_recipe(recipe, overrides or [])
        if task is not None and task != loaded.task.kind:
            raise ConfigError(f"--task is {task!r}, but {recipe} is for {loaded.task.kind!r}. Give one of the two.")
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


def _task_and_data(
    task: str | None, recipe: Path | None, mapping: list[str] | None, overrides: list[str] | None
) -> tuple[Any, Any]:
    return _task_data_rest(task, recipe, mapping, overrides)[:2]


def _bench_recipe(
    recipe: Path | None,
    mode: str | None,
    max_cases: int | None,
    overrides: list[str],
    models: dict[str, str] | None = None,
) -> Any:
    """The settings of a benchmark: a recipe's; or the models' own form and wording, and room for long passages."""
    from medjudge.recipe import load_recipe, recipe_from_tree

    asked = {"evaluate.mode": mode, "evaluate.max_cases": max_cases}
    settings = [*overrides, *(f"{key}={value}" for key, value in asked.items() if value is not None)]
    if recipe is not None:
        return load_recipe(recipe, settings)
    room = {"max_prompt_tokens": 8192, "max_completion_tokens": 1024}
    own = _settings_of(list((models or {}).values()), "rubric", overrides)
    task: dict[str, Any] = {"kind": "rubric", **(own or {}), **room}
    if own is None and mode == "labels":
        task["form"] = "score_only"  # feedback cannot be scored; --set task.form=feedback leaves it empty
    return recipe_from_tree({"name": "bench", "task": task}, settings, where="--set")


def _named(pairs: list[str], option: str = "--model", form: str = "NAME=PATH_OR_ID") -> dict[str, str]:
    named: dict[str, str] = {}
    for text in pairs:
        name, equals, where = text.partition("=")
        if not equals or not name or not where:
            raise ConfigError(f"{option} takes {form}, got {text!r}.")
        if option == "--model" and (why := model_name_trouble(name)) is not None:
            raise ConfigError(f"{option} names a model {shown(name)}: {why}.")
        if name in named:
            raise ConfigError(f"{option} names {name!r} twice: expected each name once.")
        named[name] = where
    return named


def main() -> None:
    """The console script: messages for errors a user can mend, and their exit code."""
    from medjudge.log import show_on
    from medjudge.machine import prepare_process
    from medjudge.network import offline

    prepare_process()
    with offline(), show_on(console()):
        run_guarded(app)


def run_guarded(command: Callable[[], Any]) -> None:
    """Runs `command`; a MedjudgeError becomes its message and exit code 1, an interrupt says how to go on."""
    try:
        with private_files():
            command()
    except MedjudgeError as error:
        message = str(error)
    except OSError as error:  # no space, no permission, a file where a folder should be
        message = write_failure(error) or (
            f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}. Nothing half-written was left."
        )
    except MemoryError:
        message = "out of memory. Lower `sft.micro_batch`, `grpo.micro_batch` or `evaluate.batch_tokens`."
    except Exception as error:  # some libraries raise no OSError where a file cannot be written
        if (message := write_failure(error) or "") == "":
            raise
    else:
        return
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(_wrapped(message, len("error: ")) if sys.stderr.isatty() else message, err=True)
    sys.exit(1)


def _wrapped(message: str, indent: int) -> str:
    """The message broken between words, at the width of the terminal; a path or a hash stays whole."""
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True)
    lines = message.split("\n")
    first = textwrap.TextWrapper(
        width, initial_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ).fill(lines[0])[indent:]
    return "\n".join([first, *(wrapper.fill(line) for line in lines[1:])])
