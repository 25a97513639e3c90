"""Commands that train a judge, in the order a project meets them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medjudge.cli.app import (
    TRAIN,
    Force,
    Mapped,
    Overrides,
    RecipeFile,
    app,
    console,
    task_data_rest,
)

if TYPE_CHECKING:
    from medjudge.recipe import Recipe


_STAGES = "prepare, base, sft, grpo, merge, evaluate or report"


@app.command(rich_help_panel=TRAIN)
def init(
    kind: Annotated[
        str,
        typer.Argument(
            help="The task: mcq, equivalence, rubric, appropriateness, pairwise, classification (labels and fields of "
            "your own), or one that you have added (docs/extend.md)."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write it; default KIND.toml.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="classification: what may be answered, apart by commas.", metavar="A,B,..")
    ] = None,
    fields: Annotated[
        str | None, typer.Option(help="classification: columns that are shown, apart by commas.", metavar="X,Y,..")
    ] = None,
) -> None:
    """Write a commented recipe to start from."""
    from medjudge.commands.init import write_recipe

    listed = {"labels": labels, "fields": fields}
    settings = {name: [part.strip() for part in text.split(",")] for name, text in listed.items() if text is not None}
    path = write_recipe(kind, out or Path(f"{kind}.toml"), settings)
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

    contract, data, _ = task_data_rest(task, recipe, mapping, overrides)
    report = check(path, contract, data, against=against, where=where or [], against_where=against_where or [])
    print_check(report, console())
    if not report.ok:
        raise typer.Exit(1)


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
    task: Annotated[str, typer.Option("--task", help="equivalence, mcq, rubric or appropriateness.")] = "equivalence",
    seed: Annotated[int, typer.Option(help="Seed of the trainings; the rows and their splits stay.")] = 42,
    runs_dir: Annotated[Path, typer.Option("--out", help="Where run folders go.")] = Path("runs"),
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier demo of this task and seed.")] = False,
    force: Force = False,
) -> None:
    """Train and compare a small judge on built-in synthetic data: minutes on two cores, no hub, no GPU.

    SmolLM2-135M is fine-tuned, sharpened by GRPO, merged, and compared with
    itself and with baselines on facts that none of its training asked
    about. The recipe is `recipes/demo.toml` of the repository.
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
