"""The page of a run: `medjudge report RUN_DIR`, or the last stage of `medjudge run RECIPE`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from medjudge import artifacts
from medjudge.config import Recipe, ReportConfig
from medjudge.data.store import read_split
from medjudge.errors import RunError
from medjudge.metrics.coverage import outcome_sentence
from medjudge.metrics.published import SuiteResults
from medjudge.metrics.results import Results
from medjudge.metrics.variants import Variants
from medjudge.reporting.card import write_card
from medjudge.reporting.html import write_report
from medjudge.reporting.inputs import ReportInputs, VerdictRow
from medjudge.reporting.suite import left_out_text, suite_grids, usage_lines, write_suite_page
from medjudge.reporting.tables import audit_tables, grid_table, results_tables, usage_table
from medjudge.reporting.variants import variants_grid
from medjudge.tasks.text import prompt_text

TRAINED = ("base", "sft", "grpo")
"""Stages that may have left a training log."""


def run(recipe: Recipe, out_dir: Path, run_dir: Path, console: Console) -> dict[str, Any]:
    """Writes `index.html` and `figures/` from what the other stages left."""
    inputs = gather(run_dir, recipe.report)
    write_card(inputs, out_dir)
    path = write_report(inputs, out_dir)
    return {"n_bytes": path.stat().st_size}


def rewrite(folder: Path, console: Console, *, show_text: bool | None = None) -> None:
    """Writes the page of a run folder, or of a folder that `medjudge evaluate` made, again.

    show_text: takes the place of `report.show_text`.
    """
    if (folder / artifacts.COMPARE / artifacts.RESULTS).exists():  # a recipe with variants
        folder = folder / artifacts.COMPARE
    if (folder / artifacts.SUITE).exists():  # made by `medjudge bench`
        suite = SuiteResults.from_json(artifacts.read_json(folder / artifacts.SUITE))
        for name, one in suite.sets.items():
            write_report(gather(folder / name, ReportConfig(title=f"{name}: {one.title}")), folder / name)
        write_suite_page(suite, folder, _read(folder / artifacts.COMMANDS, []))
        return
    if (folder / artifacts.RESULTS).exists():  # made by `medjudge evaluate`
        write_report(gather(folder, ReportConfig(show_text=bool(show_text))), folder)
        return
    if not (folder / "evaluate" / artifacts.RESULTS).exists():
        raise RunError(
            f"{folder} holds no {artifacts.RESULTS}. Name a run folder that was evaluated, such as runs/demo, "
            "or the --out folder of `medjudge evaluate` or `medjudge bench`."
        )
    tree = artifacts.read_json(folder / artifacts.RECIPE)
    config = ReportConfig.model_validate(tree["report"])
    config = config if show_text is None else config.model_copy(update={"show_text": show_text})
    run_dir = artifacts.RunDir(folder)
    with run_dir.lock():
        out = folder / "report"
        out.mkdir(exist_ok=True)
        inputs = gather(folder, config)
        write_card(inputs, out)
        write_report(inputs, out)


def gather(folder: Path, config: ReportConfig) -> ReportInputs:
    """Everything that a page shows, from a run folder or from an evaluation's folder. What is absent is left out."""
    evaluated = folder / "evaluate" if (folder / "evaluate").is_dir() else folder
    results = Results.from_json(artifacts.read_json(evaluated / artifacts.RESULTS))
    recipe = _read(evaluated / artifacts.RECIPE, {})
    manifest = _read(evaluated / artifacts.MANIFEST, {})
    data = _read(folder / "prepare" / artifacts.DATA, {})
    preflight = _read(folder / "grpo" / artifacts.PREFLIGHT, {})
    lint: Counter[str] = Counter()
    for counts in data.get("lint", {}).values():
        lint.update(counts)
    return ReportInputs(
        title=config.title or f"{recipe.get('name', evaluated.name)}: {results.task}",
        results=results,
        histories={stage: history for stage in TRAINED if (history := _read(folder / stage / artifacts.HISTORY, []))},
        verdicts=_verdicts(
            evaluated / artifacts.VERDICTS, results, _prompts(folder, evaluated, recipe) if config.show_text else None
        ),
        recipe=recipe,
        commands=_read(folder / artifacts.COMMANDS, []),
        versions=manifest.get("versions", artifacts.package_versions()),
        lint=dict(lint),
        data={
            name: {"cases": split["n_cases"], "groups": split["n_groups"]}
            for name, split in data.get("splits", {}).items()
        },
        variants=Variants.model_validate(variants) if (variants := _read(evaluated / artifacts.VARIANTS, {})) else None,
        preflight=preflight if "checks" in preflight else {},  # an older run's file has another form
        doctor=_read(folder / "grpo" / artifacts.DOCTOR, {}),
        description=recipe.get("description", ""),
        finished=manifest.get("finished", ""),
        shortened=_shortened(folder),
        max_disagreements=config.max_disagreements,
    )


def _shortened(folder: Path) -> dict[str, str]:
    """Stage -> how many of its training prompts lost words; stages that cut none are left out."""
    lines = {}
    for stage in TRAINED:
        summary = _read(folder / stage / artifacts.MANIFEST, {}).get("summary", {})
        if summary.get("n_prompts_shortened"):
            lines[stage] = (
                f"{summary['n_prompts_shortened']:,} of {summary['n_cases']:,} training prompts were shortened, by "
                f"{summary.get('n_words_cut', 0):,} words in all"
            )
    return lines


def print_outcome(folder: Path, console: Console) -> None:
    """The table and the statements of a run, and where its page lies; nothing where it was not evaluated."""
    if (folder / artifacts.SUITE).exists():
        _print_suite(folder, console)
        return
    evaluated = next((f for f in (folder / "evaluate", folder / artifacts.COMPARE) if f.is_dir()), folder)
    path = evaluated / artifacts.RESULTS
    if not path.exists():
        return
    results = Results.from_json(artifacts.read_json(path))
    console.print()
    console.print(Text(outcome_sentence(results), style="bold"))
    if variants := _read(evaluated / artifacts.VARIANTS, {}):
        console.print()
        console.print(grid_table(variants_grid(Variants.model_validate(variants))))
    console.print()
    for main in results_tables(results, console.width):
        console.print(main)
        console.print()
    if (table := usage_table(results)) is not None:
        console.print(table)
        console.print()
    for table in audit_tables(results):
        console.print(table)
        console.print()
    probed = results.probes.statements if results.probes else ()
    for statement in (*results.statements, *probed, *(results.audit.statements if results.audit else ())):
        console.print(Padding.indent(Text(f"- {statement}"), 1))
    pages = (folder / "report" / artifacts.REPORT, evaluated / artifacts.REPORT)
    page = next((page for page in pages if page.exists()), None)
    console.print(f"\nreport: {page}" if page else f"\nresults: {path}", soft_wrap=True)


def _print_suite(folder: Path, console: Console) -> None:
    """The benchmark's tables, and where its pages lie."""
    suite = SuiteResults.from_json(artifacts.read_json(folder / artifacts.SUITE))
    for grid in suite_grids(suite):
        console.print()
        console.print(grid_table(grid, whole=True))
    for name, one in suite.sets.items():
        if one.left_out:
            console.print(Padding.indent(Text(f"- {name}: left out: {left_out_text(one)}"), 1))
    for note in (*suite.notes, *usage_lines(suite)):
        console.print(Padding.indent(Text(f"- {note}"), 1))
    console.print(f"\nreport: {folder / artifacts.REPORT}", soft_wrap=True)


def _prompts(folder: Path, evaluated: Path, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Case id -> the prompt before any chat template: as it was kept, or of a run from its split."""
    path = evaluated / artifacts.PROMPTS
    if path.exists():
        with path.open(encoding="utf-8", newline="\n") as lines:
            return {row["case_id"]: row["prompt"] for row in map(json.loads, lines)}
    split = recipe.get("evaluate", {}).get("split")
    path = folder / "prepare" / f"{split}{artifacts.SPLIT_SUFFIX}"
    if not recipe or not path.exists():
        return {}
    contract = Recipe.model_validate(recipe).contract
    return {case.case_id: prompt_text(contract.messages(case)) for case in read_split(path)}


def _verdicts(path: Path, results: Results, prompts: Mapping[str, str] | None = None) -> dict[str, list[VerdictRow]]:
    """Answers by model; baselines are left out. prompts: None leaves the text of prompts and completions out."""
    rows: dict[str, list[VerdictRow]] = {name: [] for name in results.of_role("model")}
    if not path.exists():
        return rows
    with path.open(encoding="utf-8", newline="\n") as lines:  # a completion may hold other characters that break lines
        for line in lines:
            row: Mapping[str, Any] = json.loads(line)
            if row["model"] in rows:
                text = (prompts.get(row["case_id"]), row.get("completion")) if prompts is not None else (None, None)
                rows[row["model"]].append(
                    VerdictRow(
                        row["case_id"], row["gold"], row["label"], row["confidence"], row["unparsed_reason"], *text
                    )
                )
    return rows


def _read(path: Path, default: Any) -> Any:
    return artifacts.read_json(path) if path.exists() else default
