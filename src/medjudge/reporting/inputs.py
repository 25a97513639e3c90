"""What a report is made from, and the words that tables, figures and the page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medjudge.metrics.claims import differs_from_chance
from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import ModelResult, Results
from medjudge.metrics.variants import Variants
from medjudge.metrics.wording import signed

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "accuracy_on_schema": "Answered only",
    "schema_pass_rate": "Coverage",
    "macro_f1": "Macro-F1",
    "weighted_f1": "Weighted F1",
    "f1_positive": "Positive F1",
    "ppv": "PPV",
    "npv": "NPV",
    "kappa": "Kappa",
    "kappa_quadratic": "Quadratic kappa",
    "pearson": "Pearson r",
    "valid_json_rate": "Valid JSON",
}
"""Metric -> its heading, in the order in which tables show them."""

COEFFICIENTS = frozenset({"pearson", "kappa", "kappa_quadratic"})
"""Metrics that are no shares: shown with three decimals."""

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
    shortened: Mapping[str, str] = field(default_factory=dict)
    """Stage -> how many of its training prompts lost words, where any did."""
    max_disagreements: int = 50
    """Wrong or unreadable answers listed per model."""


def metric_names(results: Results) -> list[str]:
    """The metrics that the task has, in the order of `METRIC_NAMES`; others after them."""
    present = {name for model in results.models.values() for name in model.metrics}
    return [*[name for name in METRIC_NAMES if name in present], *sorted(present - set(METRIC_NAMES))]


def main_names(results: Results) -> list[str]:
    """The columns of the main table: what tells judges apart, with kappa, PPV and NPV where there are two labels."""
    names = [name for name in metric_names(results) if name not in ("weighted_f1", "valid_json_rate")]
    statistics = next(iter(results.audit.judges.values())).statistics if results.audit else {}
    added = {"kappa_quadratic" if results.ordered else "kappa", "ppv", "npv"} & statistics.keys()
    wanted = {*names, *added}
    return [name for name in METRIC_NAMES if name in wanted] + [name for name in names if name not in METRIC_NAMES]


def main_metric(results: Results, model: str, name: str) -> MetricResult | None:
    """A cell of the main table, if it says something about this model."""
    metric = shown_metric(results.models[model], name)
    if metric is None and name not in READABILITY_METRICS and results.audit is not None:
        judge = results.audit.judges.get(model)
        return None if judge is None else judge.statistics.get(name)
    return metric


def metric_title(name: str) -> str:
    """The heading of a metric."""
    return METRIC_NAMES.get(name, name.replace("_", " "))


def shown_metric(model: ModelResult, name: str) -> MetricResult | None:
    """The metric if the model has it and it says something about this model."""
    if model.role == "baseline" and name in READABILITY_METRICS:
        return None
    return model.metrics.get(name)


def value_text(metric: MetricResult, name: str) -> str:
    """A metric as shown: a percentage with one decimal, a coefficient with three; a dash where undefined."""
    return number_text(metric.value, name)


def number_text(value: float | None, name: str) -> str:
    """As `value_text`, for one number of the metric `name`."""
    if value is None:
        return DASH
    if name in COEFFICIENTS:
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
    """How a model's accuracy compares with guessing: "above", "below" or "not distinguishable".

    A dash for baselines, which are not tested, for models without any verdict and for results of an earlier program.
    """
    model = results.models[name]
    if model.role == "baseline" or not results.claims or not model.n_answered:
        return DASH
    if not differs_from_chance(name, results):
        return "not distinguishable"
    return "above" if (model.metrics["accuracy"].value or 0.0) > results.chance else "below"


def not_run(results: Results) -> list[tuple[str, str]]:
    """(names, reason) of the baselines that were left out, those of one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in results.skipped_baselines.items():
        names.setdefault(reason, []).append(name)
    return [(", ".join(same), reason) for reason, same in names.items()]


def method_notes(results: Results) -> list[str]:
    """How the numbers were made: the small print under every table."""
    return [
        "Values in per cent; kappa and r are coefficients.",
        "Coverage is the share of cases with a verdict. A case without one, whether unreadable, refused, cut off, "
        "failed or absent (no row), counts as wrong in every number but those of answered cases: answered only, PPV, "
        "NPV, kappa and r.",
        "Every judge is expected to answer every case with an expert label; judges without a common case, those of "
        "their own set.",
        f"Intervals of {100 * results.level:g} % count the {results.n_groups:,} groups: shares of rows by Wilson's "
        "method with the groups' design effect, F1 and r by a jackknife over groups, others by an expanded percentile "
        f"bootstrap over groups ({results.n_resamples:,} resamples, seed {results.seed}).",
        "No interval is given where a value is undefined or the same in every resample.",
        "Macro-F1 averages over the labels that occur among gold labels or answers.",
        f"Chance is uniform guessing, expected accuracy {100 * results.chance:.1f} %; its row is one seeded draw.",
    ]
