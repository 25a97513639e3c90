"""The model card: Hugging Face metadata, test results, and the topics of TRIPOD-LLM as far as the run knows them.

Every claim is one of the results' statements or a number of its tables. What a run cannot know is left
to its authors. Topics: Gallifant et al. (2025), The TRIPOD-LLM reporting guideline,
doi:10.1038/s41591-024-03425-5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medjudge import __version__, artifacts
from medjudge.metrics.agreement import STATISTICS
from medjudge.metrics.measured import MetricResult
from medjudge.metrics.results import Results
from medjudge.metrics.statements import leakage_line
from medjudge.reporting.audit_tables import in_percent, number
from medjudge.reporting.inputs import ReportInputs

TO_ADD = "*To be added by the authors: a run does not know it.*"
HEADLINE = ("accuracy", "macro_f1", "f1_positive", "kappa", "kappa_quadratic", "mcc")
"""Of `agreement.STATISTICS`: what stands in the metadata, where the task has it."""


def write_card(inputs: ReportInputs, out_dir: Path) -> Path | None:
    """Writes the card of the run's last model beside the page; None, and no file, where no model was evaluated."""
    name = next(reversed(inputs.results.of_role("model")), None)
    if name is None:
        return None
    path = out_dir / artifacts.CARD
    artifacts.write_text(path, render_card(inputs, name))
    return path


def render_card(inputs: ReportInputs, name: str) -> str:
    """The card of one evaluated model, as Markdown with a YAML head."""
    parts = [
        f"# {inputs.title}",
        inputs.description,
        "**For research use.** Not a medical device. Nothing here has been validated for clinical decisions.",
        f"This card describes `{name}`. Its claims come from the test results of one run, by medjudge {__version__}.",
        "## What the tests support",
        _bullets([*inputs.results.statements, *_audit_lines(inputs.results, name)]),
        "## Results",
        _result_table(inputs.results, name),
        "## TRIPOD-LLM",
        "\n\n".join(f"**{topic}.** {text}" for topic, text in tripod_topics(inputs, name).items()),
    ]
    return f"---\n{_metadata(inputs, name)}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _audit_lines(results: Results, name: str) -> list[str]:
    """The audit's and the probes' sentences that speak of this model, and those of the rows that every model shares."""
    audit, probes = results.audit, results.probes
    said = zip(audit.statements, audit.about, strict=False) if audit else ()  # an earlier program noted no subjects
    lines = [line for line, about in said if name in about or not about]
    return [*lines, *(probes.judges[name].statements if probes is not None and name in probes.judges else ())]


def _statistics(results: Results, name: str) -> Mapping[str, MetricResult]:
    return results.audit.judges[name].statistics if results.audit else results.models[name].metrics


def _metadata(inputs: ReportInputs, name: str) -> str:
    """YAML, every value written as JSON, which YAML reads as it is."""
    results = inputs.results
    model = results.models[name]
    found = _statistics(results, name)
    metrics = [
        {"type": key, "value": found[key].value, "name": STATISTICS[key].title}
        for key in HEADLINE
        if key in found and found[key].value is not None
    ]
    head: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["medical", "llm-as-a-judge", "medjudge", "research-only"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "text-classification", "name": results.task},
                        "dataset": {"type": "private", "name": inputs.title, "split": results.split},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    base = (model.lineage or {}).get("base")
    if isinstance(base, str) and "/" in base and not base.startswith(("/", ".")):
        head = {"base_model": base, **head}
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n" for key, value in head.items())


def _result_table(results: Results, name: str) -> str:
    model = results.models[name]
    lines = [f"n = {model.n:,}, unparsed {model.n_unparsed:,}.", "", "| statistic | value | interval | n |"]
    lines.append("|---|---|---|---|")
    for key, metric in _statistics(results, name).items():
        if key not in STATISTICS:
            continue
        percent = in_percent(key)
        ends = ""
        if metric.low is not None and metric.high is not None:
            ends = f"{number(metric.low, percent)} to {number(metric.high, percent)}"
        title = STATISTICS[key].title + (", %" if percent else "")
        lines.append(f"| {title} | {number(metric.value, percent)} | {ends} | {metric.n:,} |")
    return "\n".join(lines)


def tripod_topics(inputs: ReportInputs, name: str) -> dict[str, str]:
    """Topic of TRIPOD-LLM -> what the run says of it, or that its authors must."""
    results, recipe = inputs.results, inputs.recipe
    model = results.models[name]
    labels = ", ".join(results.labels)
    settings = results.contract.get("settings", {})
    return {
        "Title": f"A language model that judges (task `{results.task}`), measured against expert labels.",
        "Background and intended use": f"Research on automatic judgement. {TO_ADD}",
        "Objectives": f"Agreement of `{name}` with the experts' labels ({labels}) on held-out cases, beside baselines.",
        "Data": _data_topic(inputs),
        "Analytical methods": (
            f"{100 * results.level:g} % intervals resample {results.n_groups:,} groups of cases; McNemar's test and a "
            "paired permutation of groups compare judges, with Holm's correction; unreadable answers count as "
            f"wrong. Seed {results.seed}."
        ),
        "LLM output": f"One of {labels}; {model.n_unparsed:,} of {model.n:,} answers could not be read.",
        "Annotation": f"Expert labels came with the rows. Who rated them, and how well they agree: {TO_ADD}",
        "Prompting": (
            f"One task contract renders and reads every prompt (sha256 `{str(results.contract['fingerprint'])[:12]}`); "
            f"at most {settings.get('max_prompt_tokens', 'unknown')} prompt and "
            f"{settings.get('max_completion_tokens', 'unknown')} completion tokens."
        ),
        "Summarization": "Not part of the task.",
        "Instruction tuning and alignment": _training_topic(recipe, model.lineage),
        "Compute": _compute_topic(inputs, name),
        "Ethical approval": TO_ADD,
        "Open science": (
            "Program: medjudge, Apache-2.0. Commands: "
            + ("; ".join(f"`{command}`" for command in inputs.commands) or TO_ADD)
            + f" Funding, conflicts of interest, protocol, registration and data availability: {TO_ADD}"
        ),
        "Public involvement": TO_ADD,
        "Participants": (
            f"{results.n_cases:,} cases with an expert label in {results.n_groups:,} groups; "
            f"{results.n_without_gold:,} without one were left out. Demographics: {TO_ADD}"
        ),
        "Performance": "The sentences and the table above.",
        "LLM updating": f"Weights sha256 `{str((model.lineage or {}).get('weights_sha256', 'unknown'))[:12]}`.",
        "Limitations": (
            f"{leakage_line(results)} Results hold for the rows that were measured and for rows like them. "
            "No use in care has been studied."
        ),
        "Usability in context": TO_ADD,
    }


def _data_topic(inputs: ReportInputs) -> str:
    splits = "; ".join(
        f"{split}: " + ", ".join(f"{count:,} {word}" for word, count in counts.items())
        for split, counts in inputs.data.items()
    )
    source = inputs.recipe.get("data", {}).get("source") if inputs.recipe else None
    said = f"Source `{Path(str(source)).name if str(source).startswith('/') else source}`. " if source else ""
    said += f"Splits: {splits}. " if splits else ""
    return f"{said}{leakage_line(inputs.results)} Collection, dates and representativeness: {TO_ADD}"


def _training_topic(recipe: Mapping[str, Any], lineage: Mapping[str, Any] | None) -> str:
    stages = recipe.get("stages") if recipe else None
    said = f"Stages: {', '.join(map(str, stages))}. " if stages else ""
    chain = [str(one.get("stage") or one.get("kind")) for one in (lineage or {}).get("ancestry") or []]
    return said + (f"The weights descend from: {' -> '.join(chain)}." if chain else f"Training: {TO_ADD}")


def _compute_topic(inputs: ReportInputs, name: str) -> str:
    seconds = inputs.results.models[name].seconds
    said = "" if seconds is None else f"{seconds:,.1f} s to judge {inputs.results.models[name].n:,} cases. "
    versions = ", ".join(f"{package} {version}" for package, version in inputs.versions.items())
    return f"{said}{f'Made with {versions}.' if versions else TO_ADD}"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
