"""What a report is made from, and the words that tables, figures and the page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medjudge.metrics.results import MetricResult, ModelResult, Results
from medjudge.metrics.statements import differs_from_chance, signed
from medjudge.metrics.variants import Variants

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "weighted_f1": "Weighted F1",
    "f1_positive": "Positive F1",
    "pearson": "Pearson r",
    "schema_pass_rate": "Schema pass",
    "valid_json_rate": "Valid JSON",
    "accuracy_on_schema": "Accuracy, readable only",
}
"""Metric -> its heading, in the order in which tables show them."""

READABILITY_METRICS = frozenset({"schema_pass_rate", "valid_json_rate", "accuracy_on_schema"})
"""Metrics about an answer's form. A baseline answers with labels, not text, so tables leave them out for it."""

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One answer of one model; its text only where the page is to show it, for it may quote what a patient said."""

    case_id: str
    gold: str | None
    label: str | None
    """None if the answer could not be read; `reason` then says why."""
    confidence: float | None = None
    reason: str | None = None
    prompt: str | None = None
    completion: str | None = None


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """All that a report shows. Only `title` and `results` are needed; what is absent leaves its section out."""

    title: str
    results: Results
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Stage -> the trainer's log entries, as transformers and TRL name their keys."""
    verdicts: Mapping[str, Sequence[VerdictRow]] = field(default_factory=dict)
    """Model -> its answers."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration."""
    commands: Sequence[str] = ()
    """What to type to get the same again."""
    versions: Mapping[str, str] = field(default_factory=dict)
    lint: Mapping[str, int] = field(default_factory=dict)
    """Finding -> number of rows."""
    data: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Split -> named counts, such as `{"cases": 5033, "groups": 660}`."""
    variants: Variants | None = None
    """Where the models are a recipe's variants: the table that lays them side by side."""
    preflight: Mapping[str, Any] = field(default_factory=dict)
    """What was proven before GRPO, as `preflight.json` holds it."""
    doctor: Mapping[str, Any] = field(default_factory=dict)
    """What the doctor saw while GRPO trained, as `doctor.json` holds it."""
    description: str = ""
    finished: str = ""
    """When the evaluation ended, as it is to be shown."""
    max_disagreements: int = 50
    """Wrong or unreadable answers listed per model."""


def metric_names(results: Results) -> list[str]:
    """The metrics that the task has, in the order of `METRIC_NAMES`; others after them."""
    present = {name for model in results.models.values() for name in model.metrics}
    return [*[name for name in METRIC_NAMES if name in present], *sorted(present - set(METRIC_NAMES))]


def metric_title(name: str) -> str:
    """The heading of a metric."""
    return METRIC_NAMES.get(name, name.replace("_", " "))


def shown_metric(model: ModelResult, name: str) -> MetricResult | None:
    """The metric if the model has it and it says something about this model."""
    if model.role == "baseline" and name in READABILITY_METRICS:
        return None
    return model.metrics.get(name)


def value_text(metric: MetricResult, name: str) -> str:
    """A metric as shown: a percentage with one decimal, Pearson's r with three; a dash where undefined."""
    return number_text(metric.value, name)


def number_text(value: float | None, name: str) -> str:
    """As `value_text`, for one number of the metric `name`."""
    if value is None:
        return DASH
    if name == "pearson":
        return f"{round(value, 3) + 0.0:.3f}".replace("-", MINUS)  # adding 0.0 makes -0.0 plain zero
    return f"{100 * value:.1f}"


def interval_text(metric: MetricResult, name: str) -> str:
    """Both ends of the interval, or an empty text where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{number_text(metric.low, name)} to {number_text(metric.high, name)}"


def points_text(value: float | None) -> str:
    """A difference in points with its sign: "+3.2"; a dash where undefined."""
    return DASH if value is None else signed(value).replace("-", MINUS)


def chance_text(name: str, results: Results) -> str:
    """How a model's accuracy stands to guessing: "above", "below" or "not distinguishable".

    A dash for baselines, which are not tested, and for results of an earlier program.
    """
    model = results.models[name]
    if model.role == "baseline" or not results.claims:
        return DASH
    if not differs_from_chance(name, results):
        return "not distinguishable"
    return "above" if (model.metrics["accuracy"].value or 0.0) > results.chance else "below"


def method_notes(results: Results) -> list[str]:
    """How the numbers were made: the small print under every table."""
    return [
        "Values in per cent, but Pearson's r.",
        f"Intervals of {100 * results.level:g} % count the {results.n_groups:,} groups: of shares of rows by Wilson "
        "with the groups' design effect, of F1 and r by a jackknife over groups, else by an expanded percentile "
        f"bootstrap over them ({results.n_resamples:,} resamples, seed {results.seed}).",
        "None stands where a value is undefined or the same in every resample.",
        "Unreadable answers count as wrong in every metric but those over readable answers.",
        "Macro-F1 averages over the labels that occur among gold labels or answers.",
        f"Chance is uniform guessing, expected accuracy {100 * results.chance:.1f} %; its row is one seeded draw.",
    ]
