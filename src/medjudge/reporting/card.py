"""The model card: Hugging Face metadata, test results, and the items of TRIPOD-LLM as far as the run knows them.

Every claim is one of the results' statements or a number of its tables. What a run cannot know is left to its authors.
All 19 main items of the checklist are there, with what each asks in our own words: Gallifant et al. (2025), The
TRIPOD-LLM reporting guideline for studies using large language models, doi:10.1038/s41591-024-03425-5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.metrics.agreement import STATISTICS
from medjudge.metrics.coverage import kinds_text, outcome_sentence
from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import ModelResult, Results
from medjudge.metrics.wording import leakage_line
from medjudge.models.merge_proof import proof_sentences
from medjudge.reporting.audit_tables import in_percent, number
from medjudge.reporting.inputs import ReportInputs

TO_ADD = "*To be added by the authors: a run does not know it.*"
HEADLINE = ("accuracy", "macro_f1", "f1_positive", "ppv", "npv", "kappa", "kappa_quadratic", "mcc")
"""Of `agreement.STATISTICS`: what the metadata hold, where the task has it."""


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
    version = inputs.versions.get("medjudge")
    made_by = f"medjudge {version}" if version else "a version of medjudge that was not noted"
    parts = [
        f"# {inputs.title}",
        inputs.description,
        "**For research use.** Not a medical device. Nothing here has been validated for clinical decisions.",
        f"This card describes `{name}`. Its claims come from the test results of one run, by {made_by}.",
        f"**{outcome_sentence(inputs.results)}**",
        "## What the tests support",
        _bullets([*inputs.results.statements, *_audit_lines(inputs.results, name)]),
        "## Results",
        _result_table(inputs.results, name),
        "## TRIPOD-LLM",
        "Item numbers are those of the checklist (Gallifant et al. 2025).",
        "\n\n".join(_item(topic, points) for topic, points in tripod_items(inputs, name).items()),
    ]
    return f"---\n{_metadata(inputs, name)}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _audit_lines(results: Results, name: str) -> list[str]:
    """The audit's and the probes' sentences that speak of this model, and those of the rows that every model shares."""
    audit, probes = results.audit, results.probes
    with_subjects = (
        zip(audit.statements, audit.about, strict=False) if audit else ()
    )  # an earlier program noted no subjects
    lines = [line for line, about in with_subjects if name in about or not about]
    return [*lines, *(probes.judges[name].statements if probes is not None and name in probes.judges else ())]


def _statistics(results: Results, name: str) -> Mapping[str, MetricResult]:
    return results.audit.judges[name].statistics if results.audit else results.models[name].metrics


def _metadata(inputs: ReportInputs, name: str) -> str:
    """YAML, every value written as JSON, which YAML reads as it is."""
    results = inputs.results
    model = results.models[name]
    statistics = _statistics(results, name)
    metrics = [
        {"type": key, "value": statistics[key].value, "name": STATISTICS[key].title}
        for key in HEADLINE
        if key in statistics and statistics[key].value is not None
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
    kinds = f" ({kinds_text(model.unanswered)})" if model.unanswered else ""
    answered = f"{model.n:,} cases, {model.n_answered:,} answered, unparsed {model.n_unparsed:,}{kinds}."
    lines = [f"n = {answered} Cases without a verdict count as wrong.", "", "| statistic | value | interval | n |"]
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


def _item(topic: str, points: Mapping[str, str]) -> str:
    return "\n".join([f"**{topic}**\n", *(f"- {asked}: {answer}" for asked, answer in points.items())])


@dataclass(frozen=True, slots=True)
class _Subject:
    """The model that a card describes, and the words that several items of the checklist share."""

    inputs: ReportInputs
    name: str

    @property
    def results(self) -> Results:
        return self.inputs.results

    @property
    def model(self) -> ModelResult:
        return self.results.models[self.name]

    @property
    def lineage(self) -> Mapping[str, Any]:
        return self.model.lineage or {}

    @property
    def labels(self) -> str:
        return ", ".join(self.results.labels)

    @property
    def training(self) -> str:
        return _training_topic(self.inputs.recipe, self.lineage)


def tripod_items(inputs: ReportInputs, name: str) -> dict[str, dict[str, str]]:
    """Item of TRIPOD-LLM -> what it asks -> what the run says of it, or that its authors must."""
    subject = _Subject(inputs, name)
    return {
        **_introduction(subject),
        **_data_items(subject),
        **_method_items(subject),
        **_open_science(subject),
        **_result_items(subject),
    }


def _introduction(subject: _Subject) -> dict[str, dict[str, str]]:
    """Items 1 to 4: title, abstract, background, objectives."""
    results, model = subject.results, subject.model
    name, labels = subject.name, subject.labels
    accuracy = _statistics(results, name)["accuracy"]
    headline = f"accuracy {number(accuracy.value, True)} %, n = {accuracy.n:,}"
    return {
        "1 Title": {
            "what was done": f"A language model that judges (task `{results.task}`), measured against expert labels.",
            "population": TO_ADD,
        },
        "2 Abstract": {
            "setting, data, model, task, measures": (
                f"`{name}` gives one of {labels} to {model.n:,} cases of the split {results.split!r}."
            ),
            "main result": f"{headline}; the sentences above say whether that is more than chance or a baseline.",
            "wider implications, registration": TO_ADD,
        },
        "3 Background": {
            "healthcare context, rationale, existing approaches": TO_ADD,
            "target population, intended use and users": f"Research on automatic judgement only. {TO_ADD}",
        },
        "4 Objectives": {
            "development, tuning or evaluation": (
                f"Agreement of `{name}` with the experts' labels on held-out cases, beside baselines. "
                f"{subject.training}"
            )
        },
    }


def _data_items(subject: _Subject) -> dict[str, dict[str, str]]:
    """Item 5: the data."""
    results, model = subject.results, subject.model
    inputs = subject.inputs
    return {
        "5 Data": {
            "sources, by split": _data_topic(inputs),
            "distribution": _distribution(results),
            "oldest and newest text": TO_ADD,
            "preparation and quality checks": _checks_topic(inputs),
            "missing and imbalanced data": (
                f"{results.n_without_gold:,} cases without an expert label were left out; {model.n_unparsed:,} of "
                f"{model.n:,} cases have no verdict and count as wrong. Balanced accuracy and macro-F1 are shown with "
                "accuracy."
            ),
            "leakage": leakage_line(results),
        },
    }


def _method_items(subject: _Subject) -> dict[str, dict[str, str]]:
    """Items 6 to 13: methods, output, annotation, prompts, training, compute, ethics."""
    results, model = subject.results, subject.model
    name, labels = subject.name, subject.labels
    settings = results.contract.get("settings", {})
    baselines = ", ".join(results.of_role("baseline")) or "none"
    others = ", ".join(other for other in results.of_role("model") if other != name) or "no other model"
    calibration = results.audit.judges[name].calibration if results.audit else None
    return {
        "6 Analytical methods": {
            "name, version, last use": _version_topic(name, subject.lineage, subject.inputs.finished),
            "building steps and inference settings": (
                f"{subject.training} No sampling; at most {settings.get('max_prompt_tokens', 'unknown')} prompt and "
                f"{settings.get('max_completion_tokens', 'unknown')} completion tokens; seed {results.seed}."
            ),
            "output before and after processing": f"Text or label scores, read as one of {labels} by one contract.",
            "thresholds and probabilities": (
                "No threshold is applied to the verdicts."
                if calibration is None or not calibration.varies
                else "Confidences as stated or as the label's probability; thresholds for wanted error rates by "
                "learn-then-test and conformal risk control are in the report."
            ),
            "metrics": (
                f"{100 * results.level:g} % intervals count {results.n_groups:,} groups of cases; sign flips and "
                "permutations of groups compare judges, and one correction by Holm's method covers every test."
            ),
            "relevance of the metrics to use": TO_ADD,
        },
        "7 LLM output": {
            "outcome and how it is computed": (
                f"One of {labels}; {model.n_unparsed:,} of {model.n:,} answers could not be read."
            ),
            "assessors, instructions, agreement among them": TO_ADD,
            "compared with": f"{others}; baselines: {baselines}.",
        },
        "8 Annotation": {
            "guidelines, with examples": TO_ADD,
            "number of annotators, share rated by more than one": TO_ADD,
            "their background, agreement among them": TO_ADD,
        },
        "9 Prompting": {
            "design and selection": (
                "One task contract renders and reads every prompt (sha256 "
                f"`{str(results.contract['fingerprint'])[:12]}`)."
            ),
            "data used to develop prompts": TO_ADD,
        },
        "10 Summarization": {"preparation of texts": "Not part of the task."},
        "11 Instruction tuning and alignment": {
            "instructions, interface, raters": f"{subject.training} Raters: {TO_ADD}"
        },
        "12 Compute": {"time, machines, cost": _compute_topic(subject.inputs, name)},
        "13 Ethical approval": {"committee, consent or waiver": TO_ADD},
    }


def _open_science(subject: _Subject) -> dict[str, dict[str, str]]:
    """Items 14 and 15: funding, code, public involvement."""
    inputs = subject.inputs
    return {
        "14 Open science": {
            "funding": TO_ADD,
            "conflicts of interest": TO_ADD,
            "protocol": TO_ADD,
            "registration": TO_ADD,
            "data": TO_ADD,
            "code": (
                "medjudge, Apache-2.0. Commands: "
                + ("; ".join(f"`{command}`" for command in inputs.commands) or TO_ADD)
            ),
        },
        "15 Public involvement": {"in design, conduct, reporting": TO_ADD},
    }


def _result_items(subject: _Subject) -> dict[str, dict[str, str]]:
    """Items 16 to 19: participants, performance, updating, discussion."""
    results, name = subject.results, subject.name
    return {
        "16 Participants": {
            "flow": (
                f"{results.n_cases:,} cases with an expert label in {results.n_groups:,} groups; "
                f"{results.n_without_gold:,} without one were left out."
            ),
            "characteristics, dates, by setting": TO_ADD,
            "development against evaluation data": TO_ADD,
            "cases and outcomes per analysis": f"n is given with every number; {_distribution(results)}",
        },
        "17 Performance": {"by the metrics above": "The sentences and the table above."},
        "18 LLM updating": {
            "updated model and its results": (
                f"None; weights sha256 `{str(subject.lineage.get('weights_sha256', 'unknown'))[:12]}`."
            )
        },
        "19 Discussion": {
            "interpretation": "The sentences above, and no others.",
            "fairness": _fairness_topic(results, name),
            "limitations": (
                "Results hold for the rows that were measured and for rows like them. No use in care has been studied. "
                f"{leakage_line(results)}"
            ),
            "known challenges of these data": TO_ADD,
            "intended use, input, oversight": f"Research; a person decides. {TO_ADD}",
            "poor or missing input": (
                f"A prompt that is too long loses words: {_shortened(results, name)}; a row that "
                "lacks a field is refused."
            ),
            "expertise asked of users": TO_ADD,
            "next steps": TO_ADD,
        },
    }


def _shortened(results: Results, name: str) -> str:
    prompts = results.models[name].prompts
    return "not counted here" if prompts is None else f"{prompts.n_shortened:,} of {prompts.n:,} did"


def _distribution(results: Results) -> str:
    """Cases by expert label."""
    model = next(iter(results.models.values()))
    counts = ", ".join(f"{label} {row.support:,}" for label, row in model.per_class.items())
    return f"by expert label: {counts}."


def _checks_topic(inputs: ReportInputs) -> str:
    findings = ", ".join(f"{what} ({count:,})" for what, count in inputs.lint.items())
    checked = f"Rows were linted: {findings}. " if findings else ""
    return f"{checked}Splits keep groups together. Anything done before that: {TO_ADD}"


def _version_topic(name: str, lineage: Mapping[str, Any], finished: str) -> str:
    if lineage.get("kind") == "endpoint":
        return f"`{lineage.get('model')}`, asked {lineage.get('first_asked_at')} to {lineage.get('last_asked_at')}."
    base = str(lineage.get("base") or "")
    origin = f"base `{Path(base).name if base.startswith(('/', '.')) else base}`, " if base else ""
    when = f"; evaluated {finished}" if finished else ""
    return f"`{name}`: {origin}weights sha256 `{str(lineage.get('weights_sha256', 'unknown'))[:12]}`{when}."


def _fairness_topic(results: Results, name: str) -> str:
    """What was measured of it: generators and probes. Patients' groups a run does not know."""
    audit = results.audit.judges[name] if results.audit else None
    parts = []
    if audit is not None and audit.heterogeneity:
        parts.append("differences between generators are tested above")
    if results.probes is not None and name in results.probes.judges:
        parts.append("bias probes are shown above")
    return f"{'; '.join(parts).capitalize() + '. ' if parts else ''}Between groups of patients: {TO_ADD}"


def _data_topic(inputs: ReportInputs) -> str:
    splits = "; ".join(
        f"{split}: " + ", ".join(f"{count:,} {word}" for word, count in counts.items())
        for split, counts in inputs.data.items()
    )
    source = inputs.recipe.get("data", {}).get("source") if inputs.recipe else None
    known = f"Source `{Path(str(source)).name if str(source).startswith('/') else source}`. " if source else ""
    known += f"Splits: {splits}. " if splits else ""
    return f"{known}Collection and representativeness: {TO_ADD}"


def _training_topic(recipe: Mapping[str, Any], lineage: Mapping[str, Any] | None) -> str:
    stages = recipe.get("stages") if recipe else None
    text = f"Stages: {', '.join(map(str, stages))}. " if stages else ""
    chain = [str(one.get("stage") or one.get("kind")) for one in (lineage or {}).get("ancestry") or []]
    merge = (lineage or {}).get("merge")
    proof = "".join(f" {line[:1].upper()}{line[1:]}." for line in proof_sentences(merge)) if merge else ""
    return text + (f"The weights descend from: {' -> '.join(chain)}.{proof}" if chain else f"Training: {TO_ADD}")


def _compute_topic(inputs: ReportInputs, name: str) -> str:
    seconds = inputs.results.models[name].seconds
    time = "" if seconds is None else f"{seconds:,.1f} s to judge {inputs.results.models[name].n:,} cases. "
    versions = ", ".join(f"{package} {version}" for package, version in inputs.versions.items())
    return f"{time}{f'Made with {versions}.' if versions else TO_ADD}"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
