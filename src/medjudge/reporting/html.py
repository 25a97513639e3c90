"""The report: one HTML page that needs nothing beside it, and the pictures as files of their own.

The page shows ids, labels and numbers. Prompts and completions are on it only where somebody asked for them
(`report.show_text`): they hold what a patient said.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pydantic import ValidationError

from medjudge import artifacts
from medjudge.diagnostics.checks import CHECKS
from medjudge.metrics.baselines import BASELINES, EARLIER
from medjudge.metrics.claims import find_claim, n_tests
from medjudge.metrics.coverage import UNREADABLE, headlines, kinds_text, kinds_under, outcome_sentence
from medjudge.metrics.judge_pairs import best_model
from medjudge.metrics.result_types import ComparisonResult, Results
from medjudge.metrics.stored import StoredLeakage
from medjudge.metrics.wording import leakage_line, p_value
from medjudge.models.merge_proof import proof_sentences
from medjudge.reporting.audit_figures import audit_pictures
from medjudge.reporting.audit_tables import page_grids
from medjudge.reporting.expert_tables import expert_grids
from medjudge.reporting.figures import Picture, model_colors, result_pictures, training_pictures
from medjudge.reporting.fitting import kept_together
from medjudge.reporting.inputs import (
    DASH,
    ReportInputs,
    VerdictRow,
    chance_text,
    interval_text,
    main_metric,
    main_names,
    method_notes,
    metric_names,
    metric_title,
    not_run,
    number_text,
    points_text,
    value_text,
)
from medjudge.reporting.preference_tables import preference_grids
from medjudge.reporting.probe_tables import probe_grids, probe_pictures
from medjudge.reporting.reasoning_tables import reasoning_grids
from medjudge.reporting.score_figures import score_pictures
from medjudge.reporting.score_tables import score_grids
from medjudge.reporting.variants import variants_grid, variants_picture
from medjudge.version import __version__

FIGURES_DIR = "figures"


def write_report(report_inputs: ReportInputs, out_dir: Path) -> Path:
    """Writes `index.html` with its pictures inside, and each picture as a PNG in `figures/`. Returns the page's path.

    The page comes last, so that a page that exists is whole.
    """
    results = report_inputs.results
    colors = model_colors(results)
    pictures = result_pictures(results) + audit_pictures(results) + probe_pictures(results) + score_pictures(results)
    pictures += training_pictures(report_inputs.histories, colors)
    if report_inputs.variants is not None:
        pictures.insert(0, variants_picture(report_inputs.variants, colors))
    folder = out_dir / FIGURES_DIR
    artifacts.make_folder(folder)
    # The page names no other file, so that it can be sent on alone; the folder keeps the pictures for other uses.
    embedded = [Embedded(picture, picture.png()) for picture in pictures]
    for item in embedded:
        artifacts.write_bytes(folder / f"{item.picture.name}.png", item.png)
    path = out_dir / artifacts.REPORT
    artifacts.write_text(path, render_html(report_inputs, embedded))
    return path


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture and its PNG, as the page takes them."""

    picture: Picture
    png: bytes

    @property
    def src(self) -> str:
        """The PNG as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    def is_a(self, *prefixes: str) -> bool:
        """Whether the picture's name begins with one of `prefixes`."""
        return self.picture.name.startswith(prefixes)


def render_html(report_inputs: ReportInputs, pictures: Sequence[Embedded]) -> str:
    """The page as text; it names no other file and no other host."""
    environment = template_environment()
    results = report_inputs.results
    first = headlines(results)
    return environment.get_template("report.html.j2").render(
        inputs=report_inputs,
        results=results,
        version=__version__,
        level=f"{100 * results.level:g} %",
        outcome=outcome_sentence(results),
        headlines=first,
        statements=[line for line in results.statements if line not in first],
        leakage_line=leakage_line(results),
        leaks=_leak_rows(results.leakage),
        metrics=_metric_table(results),
        notes=method_notes(results),
        comparisons=_comparison_table(results),
        n_tests=n_tests(results.claims),
        baseline_words={**EARLIER, **BASELINES},
        best_baseline=best_model(results.models, "baseline"),
        not_run=not_run(results),
        result_pictures=[p for p in pictures if p.is_a("metrics", "differences")],
        confusions=[p for p in pictures if p.is_a("confusion_")],
        curves=[p for p in pictures if p.is_a("training_")],
        grids=page_grids(results),
        expert_grids=expert_grids(results),
        score_grids=score_grids(results),
        score_pictures=[p for p in pictures if p.is_a("scores_")],
        variants=variants_grid(report_inputs.variants) if report_inputs.variants else None,
        variant_pictures=[p for p in pictures if p.is_a("variants")],
        reasoning_grids=reasoning_grids(results.reasoning, results.level) if results.reasoning else [],
        preference_grids=preference_grids(results.preferences),
        probe_grids=probe_grids(results),
        probe_pictures=[p for p in pictures if p.is_a("probes")],
        forests=[p for p in pictures if p.is_a("generators_")],
        confidence_pictures=[p for p in pictures if p.is_a("reliability", "risk_coverage", "confidences")],
        per_class=_per_class(results),
        answers=_answer_tables(report_inputs),
        lineage=lineage_tree(results),
        checks=CHECKS,
        recipe=flatten(report_inputs.recipe),
        data_columns=list(dict.fromkeys(column for row in report_inputs.data.values() for column in row)),
    )


def template_environment() -> Environment:
    """Jinja over this package's templates: everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("medjudge.reporting"),
        autoescape=select_autoescape(["j2"], default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["together"] = kept_together
    return environment


def _metric_table(results: Results) -> dict[str, Any]:
    names = main_names(results)
    rows = []
    for name, model in results.models.items():
        cells = []
        for metric_name in names:
            metric = main_metric(results, name, metric_name)
            if metric is None:
                cells.append((DASH, "", ""))
                continue
            why = f"{metric.method}, n = {metric.n:,}"
            cells.append((value_text(metric, metric_name), interval_text(metric, metric_name), why))
        rows.append(
            {
                "name": name,
                "model": model,
                "kinds": kinds_under(model.unanswered),
                "cells": cells,
                "chance": chance_text(name, results),
            }
        )
    return {"columns": [metric_title(name) for name in names], "rows": rows}


def _comparison_table(results: Results) -> dict[str, Any]:
    made = {name for comparison in results.comparisons for name in comparison.differences}
    names = [name for name in metric_names(results) if name in made]
    any_shared = any(comparison.shared for comparison in results.comparisons)
    rows = []
    for comparison in results.comparisons:
        cells = []
        for name in names:
            d = comparison.differences.get(name)
            if d is None:
                cells.append((DASH, ""))
            else:
                has_ends = d.low is not None and d.high is not None and d.low < d.high
                cells.append(
                    (points_text(d.value), f"{points_text(d.low)} to {points_text(d.high)}" if has_ends else "")
                )
        # Not `clear`: in a template that would be the dict's own method.
        claim = find_claim(results.claims, "difference", (comparison.a, comparison.b), "accuracy")
        row = {"comparison": comparison, "cells": cells, "shared": [_shared_cell(comparison)] if any_shared else []}
        if claim is None or claim.p is None or claim.adjusted_p is None:  # results of an earlier program
            rows.append({**row, "differs": DASH, "p": DASH, "adjusted": DASH, "method": ""})
            continue
        differs = "yes" if claim.claimed else "not shown"
        shown_p = {"p": p_value(claim.p), "adjusted": p_value(claim.adjusted_p)}
        rows.append({**row, "differs": differs, "method": claim.method, **shown_p})
    heads = ("Accuracy, both answered",) if any_shared else ()
    return {"columns": [metric_title(name) for name in names], "shared_columns": heads, "rows": rows}


def _shared_cell(comparison: ComparisonResult) -> tuple[str, tuple[str, ...]]:
    """The difference on the cases that both answered, and what these and the other cases add to the whole one."""
    shared, total = comparison.shared, comparison.differences["accuracy"].value
    if shared is None:  # both answered every case
        return DASH, ("both answered all",)
    difference = shared.differences.get("accuracy")
    under = [f"n = {shared.n:,}"]
    if difference is not None and difference.low is not None and difference.high is not None:
        under.insert(0, f"{points_text(difference.low)} to {points_text(difference.high)}")
    parts = (points_text(shared.points), points_text((total or 0.0) - shared.points))
    return points_text(difference.value if difference else None), (*under, f"adds {parts[0]}, the others {parts[1]}")


def _per_class(results: Results) -> list[dict[str, Any]]:
    tables = []
    for name, model in results.of_role("model").items():
        rows = [
            (
                label,
                row.support,
                number_text(row.precision, "precision"),
                number_text(row.recall, "recall"),
                number_text(row.f1, "f1"),
            )
            for label, row in model.per_class.items()
        ]
        tables.append({"name": name, "model": model, "kinds": _other_kinds(model.unanswered), "rows": rows})
    return tables


def _answer_tables(report_inputs: ReportInputs) -> list[dict[str, Any]]:
    """Wrong and unreadable answers per model: unreadable ones first, then the most confident errors."""
    tables = []
    models = report_inputs.results.models
    for name, rows in report_inputs.verdicts.items():
        wrong = [row for row in rows if row.gold is not None and row.label != row.gold]
        wrong.sort(key=_worst_first)
        tables.append(
            {
                "name": name,
                "n": sum(row.gold is not None for row in rows),
                "n_wrong": sum(row.label is not None for row in wrong),
                "n_unparsed": sum(row.label is None for row in wrong),
                "kinds": _other_kinds(models[name].unanswered) if name in models else "",
                "rows": wrong[: report_inputs.max_disagreements],
                "has_text": any(row.prompt or row.completion for row in wrong[: report_inputs.max_disagreements]),
            }
        )
    return [table for table in tables if table["n"]]


def _other_kinds(unanswered: Mapping[str, int]) -> str:
    """The kinds in words where there are others than unreadable."""
    return "" if set(unanswered) <= UNREADABLE else f" ({kinds_text(unanswered)})"


def _worst_first(row: VerdictRow) -> tuple[bool, float, str]:
    return row.label is not None, -(row.confidence or 0.0), row.case_id


def _leak_rows(leakage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per pair of splits from `LeakageReport.to_json()`; nothing for a report of another shape."""
    try:
        comparisons = StoredLeakage.model_validate(leakage).comparisons
    except ValidationError:
        return []
    return [
        {
            "train": pair.train,
            "held_out": pair.held_out,
            "n_train": pair.n_train,
            "n_held_out": pair.n_held_out,
            "kinds": {kind.replace("_", " "): overlap.n_cases for kind, overlap in pair.overlaps.items()},
        }
        for pair in comparisons
    ]


@dataclass
class LineageNode:
    """One set of weights in the family tree of the evaluated models."""

    weights_sha256: str
    words: list[str]
    """What it is: stage, kind, name."""
    evaluated_as: list[str] = field(default_factory=list)
    """The names under which these very weights were evaluated."""
    facts: list[str] = field(default_factory=list)
    children: list[LineageNode] = field(default_factory=list)


def lineage_tree(results: Results) -> list[LineageNode]:
    """The evaluated models' weights as trees, oldest first, from their `Lineage.to_json()`.

    Weights that are ancestors of several models are shown once. Models without a lineage are left out.
    """
    roots: list[LineageNode] = []
    for name, model in results.models.items():
        lineage = model.lineage
        if not lineage or not lineage.get("weights_sha256"):
            continue
        level = roots
        for ancestor in lineage.get("ancestry") or []:
            level = _node(level, ancestor).children
        node = _node(level, lineage)
        node.evaluated_as.append(name)
        if not node.facts:
            node.facts = _facts(lineage)
    return roots


def _node(level: list[LineageNode], record: Mapping[str, Any]) -> LineageNode:
    sha = str(record.get("weights_sha256") or "")
    for node in level:
        if node.weights_sha256 == sha:
            return node
    stage, kind = str(record.get("stage") or ""), str(record.get("kind") or "")
    words = [stage] if stage == kind or not kind else [stage, kind]
    if name := record.get("base" if kind == "base" and "base" in record else "name"):
        words.append(Path(str(name)).name if str(name).startswith(("/", ".")) else str(name))
    level.append(LineageNode(sha, list(dict.fromkeys(word for word in words if word))))
    return level[-1]


def _facts(lineage: Mapping[str, Any]) -> list[str]:
    facts = []
    if revision := lineage.get("base_revision"):
        facts.append(f"base revision {str(revision)[:12]}")
    for key, word in (("recipe_sha256", "recipe"), ("data_sha256", "data"), ("contract_sha256", "contract")):
        if lineage.get(key):
            facts.append(f"{word} {str(lineage[key])[:12]}")
    merge = lineage.get("merge")
    return [*facts, *(proof_sentences(merge) if isinstance(merge, Mapping) else [])]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """`{"sft": {"epochs": 3}}` -> [("sft.epochs", "3")]: the form that `--set` takes."""
    lines: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            lines += flatten(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False, default=str)))
    return lines
