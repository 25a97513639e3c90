"""`medjudge score`: verdicts that any program has made, against the experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medjudge.cli.app import (
    MEASURE,
    Overrides,
    app,
    console,
    finite,
    task_data_rest,
)
from medjudge.errors import ConfigError


def _list_formats(asked: bool) -> None:
    """Prints every format with its shortest command, and ends the program."""
    if not asked:
        return
    from medjudge.data.verdict_formats.catalog import listing

    for name, title, command in listing():
        typer.echo(f"{name}: {title}\n    {command} --out scored")
    typer.echo("Square brackets: where the file holds the experts' labels under another name. See docs/score.md.")
    raise typer.Exit


# Names of the options, so that the command below can be read at a glance.
Verdicts = Annotated[
    list[str],
    typer.Argument(
        help="Files of verdicts: tables, or what another program wrote (--list-formats); NAME=PATH names the judge."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for results.json, verdicts.jsonl and the page.")]
Gold = Annotated[
    str | None, typer.Option("--gold", help="A file of expert labels, or the verdict files' column of them.")
]
Format = Annotated[
    str, typer.Option("--format", help="Whose files these are: `auto`, `rows`, or a name of --list-formats.")
]
ListFormats = Annotated[
    bool,
    typer.Option(
        "--list-formats", help="List the formats, with a command each, and stop.", is_eager=True, callback=_list_formats
    ),
]
Task = Annotated[str | None, typer.Option("--task", help="The task whose labels are used.")]
Labels = Annotated[str | None, typer.Option(help="Or the labels themselves: `no,yes`, lowest first.")]
Ordered = Annotated[bool, typer.Option("--ordered", help="--labels lie on a scale.")]
Positive = Annotated[str | None, typer.Option(help="The positive one of two --labels; default: the second.")]
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="FIELD=COLUMN, or `FIELD=` for none. Fields: id, label (the verdict), gold, confidence, generator, "
        "group, judge, error, repeat. `a.b`, `a[0].b`, `a[*].b` reach inside, `a+b` joins two.",
    ),
]
Judge = Annotated[
    list[str] | None,
    typer.Option("--judge", help="NAME=COLUMN of one judge's verdicts, as often as a file has such columns."),
]
GoldMapping = Annotated[list[str] | None, typer.Option("--gold-map", help="FIELD=COLUMN of the file of expert labels.")]
Alias = Annotated[
    list[str] | None,
    typer.Option(help="VALUE=LABEL where a program writes a label otherwise; `VALUE=`: it is no verdict."),
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Verdicts are scores: from this value on they are the positive label.", callback=finite),
]
GoldThreshold = Annotated[float | None, typer.Option(help="The same for experts' scores.", callback=finite)]
Scores = Annotated[
    Literal["probability", "percent", "logit", "number"] | None,
    typer.Option(help="Verdicts are scores and measured as such: AUC, calibration, correlation. What they are."),
]
ThresholdRule = Annotated[
    str | None,
    typer.Option(help="With --scores: youden, sensitivity=0.95, specificity=0.9, cost=5; on a part of the cases."),
]
CalibrationShare = Annotated[
    float, typer.Option(help="Share of the groups that chooses the threshold.", min=0.05, max=0.95, callback=finite)
]
GoldRule = Annotated[
    Literal["majority", "adjudicated", "mean", "median"] | None,
    typer.Option("--gold-rule", help="What makes one label of several experts' ratings; default: majority."),
]
GoldTies = Annotated[
    Literal["leave_out", "higher", "lower"], typer.Option("--gold-ties", help="What a tie of experts becomes.")
]
Where = Annotated[
    list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE, in every file that has the column.")
]
Train = Annotated[str | None, typer.Option(help="Labelled rows of --task: for baselines and leakage.")]
TrainWhere = Annotated[list[str] | None, typer.Option(help="Keep rows with COLUMN=VALUE of TRAIN.")]
Family = Annotated[
    list[str] | None, typer.Option(help="NAME=FAMILY of a judge or generator: is a judge kinder to its own?")
]
ConfidenceMax = Annotated[float, typer.Option(help="What stands for certainty: 1, or 100.", min=1e-9, callback=finite)]
MinRead = Annotated[
    float,
    typer.Option(
        help="Share of a judge's filled cells that must be labels; with less, nothing is measured.",
        min=0.0,
        max=1.0,
        callback=finite,
    ),
]
Reference = Annotated[str | None, typer.Option(help="The judge that the others are compared with.")]
Seed = Annotated[int, typer.Option(help="Seed of every resampling.")]

HELP = """Measure any judge's verdicts against the experts: no model is needed, and any program may have made them.

Files of inspect_ai, lm-eval, promptfoo and many others are recognised.

What was read as what is printed first. Nothing is guessed where two readings are possible.

A file of another program, and the list of them:

score log.eval --labels I,C --out scored

score --list-formats

Columns id, label and gold in one file:

score v.jsonl --labels no,yes --out scored

Other names, and a verdict inside an object:

score v.json --labels no,yes --gold expert --map id=uid,label=result.verdict --out scored

Experts in a file of their own:

score v.csv --gold g.xlsx --gold-map id=case,gold=rating --labels 1,2,3 --ordered --out scored

Two judges in two files, or in two columns of one file:

score a=a.csv b=b.csv --labels no,yes --out scored

score jury.csv --judge gpt=gpt_verdict --judge llama=llama_verdict --labels no,yes --out scored

Several experts, a column each (or a list in one column; or a row each, with rater=COLUMN):

score v.csv --gold g.csv --gold-map gold=ann,bob,cleo --labels no,yes --out scored

Other words for a label, or scores for labels:

--alias Y=yes --alias N=no --alias "n/a="  or  --threshold 0.5

Scores as scores, with a threshold chosen on half of the groups and reported on the other half:

score v.csv --labels no,yes --scores probability --threshold-rule sensitivity=0.95 --out scored
"""


@app.command(rich_help_panel=MEASURE, help=HELP)
def score(
    verdicts: Verdicts,
    out: Out,
    form: Format = "auto",
    list_formats: ListFormats = False,
    gold: Gold = None,
    task: Task = None,
    labels: Labels = None,
    ordered: Ordered = False,
    positive: Positive = None,
    mapping: Mapping = None,
    judge: Judge = None,
    gold_mapping: GoldMapping = None,
    alias: Alias = None,
    threshold: Threshold = None,
    gold_threshold: GoldThreshold = None,
    scores: Scores = None,
    threshold_rule: ThresholdRule = None,
    calibration_share: CalibrationShare = 0.5,
    gold_rule: GoldRule = None,
    gold_ties: GoldTies = "leave_out",
    where: Where = None,
    train: Train = None,
    train_where: TrainWhere = None,
    family: Family = None,
    confidence_max: ConfidenceMax = 1.0,
    min_read: MinRead = 0.5,
    reference: Reference = None,
    seed: Seed = 42,
    overrides: Overrides = None,
) -> None:
    """Measure any judge's verdicts against the experts."""
    if (task is None) == (labels is None):
        raise ConfigError(
            f"got {'neither' if task is None else 'both'} of --task and --labels, expected one: name the scale of "
            "the labels with --task KIND or --labels A,B,C."
        )
    from rich.text import Text

    from medjudge.commands.score import ScoreOptions, label_scale, parse_judges, score_files
    from medjudge.data.sources import parse_options

    contract = (
        label_scale(labels, ordered=ordered, positive=positive)
        if labels is not None
        else task_data_rest(task, None, None, overrides)[0]
    )
    options = ScoreOptions(
        columns=parse_options(mapping or [], "--map takes FIELD=COLUMN"),
        judges=parse_judges(judge or []),
        gold=gold,
        gold_columns=parse_options(gold_mapping or [], "--gold-map takes FIELD=COLUMN"),
        aliases=parse_options(alias or [], "--alias takes VALUE=LABEL"),
        threshold=threshold,
        gold_threshold=gold_threshold,
        scores=scores,
        threshold_rule=threshold_rule,
        calibration_share=calibration_share,
        gold_rule=gold_rule,
        gold_ties=gold_ties,
        where=where or [],
        train=train,
        train_where=train_where or [],
        families=parse_options(family or [], "--family takes NAME=FAMILY"),
        confidence_max=confidence_max,
        format=form,
        min_read=min_read,
        reference=reference,
        seed=seed,
    )
    screen = console()
    score_files(verdicts, contract, out, options, say=lambda line: screen.print(Text(line)))
    from medjudge.reporting.terminal import print_outcome

    print_outcome(out, screen)
