"""A benchmark's numbers twice: as its authors' harness scores, and with what cannot be read counted as wrong.

The published scheme is that of Flow AI's evaluation of Flow-Judge-v0.1 (their fork of lm-evaluation-harness,
`lm_eval/tasks/flow_judge_evals/metrics.py`): the last `<score>` in a completion is taken, rows without a score on the
scale are dropped, and where more than a fifth is dropped every metric is written as 0. It is here so that a number can
be compared with a published one, not because it is right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from medjudge.errors import RunError
from medjudge.metrics.metric_result import Frozen, MetricResult
from medjudge.metrics.result_types import ClassResult, ModelResult, Results

MAX_DROPPED = 0.2
"""Share of rows that the published scheme drops before it writes 0."""
_LAST_SCORE = re.compile(r"<score>\s*(\d+)\s*</score>", re.ASCII)

METRICS = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall",
}
"""The published metrics by name. Precision, recall and F1 are those of label 1 on two points, else macro averages."""

IN_PERCENT = frozenset({"accuracy", "precision", "recall", "f1"})


class PublishedValues(Frozen):
    """One judge on one set, as the published scheme scores it."""

    n: int
    n_dropped: int
    is_zeroed: bool
    """Whether more than a fifth was dropped, so that the scheme writes 0 for every metric."""
    metrics: dict[str, float | None]
    """None where undefined: a correlation with a constant side."""


class JudgeOnSet(Frozen):
    """One judge on one set, scored both ways."""

    n: int
    n_unparsed: int
    honest: dict[str, MetricResult]
    """What could not be read counts as wrong."""
    published: PublishedValues
    usage: dict[str, Any] | None = None
    """Of an endpoint: calls, tokens, cost and latency."""
    unanswered: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)
    """Kind of `classification.KINDS` -> count of the cases without a verdict."""


class SetResult(Frozen):
    """One set of the benchmark."""

    title: str
    source: str
    licence: str
    points: int
    n_rows: int
    """Rows of the file."""
    n_cases: int
    """Cases judged; fewer than the rows where some are left out or a sample was drawn."""
    left_out: dict[str, int]
    """Why rows take no part -> how many."""
    judges: dict[str, JudgeOnSet]


class SuiteResults(Frozen):
    """The content of `suite.json`."""

    version: Literal[1] = 1
    models: tuple[str, ...]
    mode: str
    sets: dict[str, SetResult]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Any) -> SuiteResults:
        """The results in a parsed `suite.json`. Raises RunError if it is of another version or damaged."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise RunError(
                f"the benchmark's results cannot be read at {place!r}. Run `medjudge bench rubric` again."
            ) from None


def last_score(completion: str, labels: Sequence[str]) -> str | None:
    """The score that the published scheme reads: the last in tags, wherever it stands; None if it is off the scale."""
    scores = _LAST_SCORE.findall(completion)
    return scores[-1] if scores and scores[-1] in labels else None


def published_values(gold: Sequence[str], said: Sequence[str | None], labels: Sequence[str]) -> PublishedValues:
    """The published scheme over rows in order; `said` is None where no score was read.

    labels: the scale, lowest first. By scikit-learn and SciPy, as there.
    """
    pairs = [(labels.index(g), labels.index(s)) for g, s in zip(gold, said, strict=True) if s is not None]
    n_dropped = len(gold) - len(pairs)
    is_zeroed = not pairs or n_dropped > MAX_DROPPED * len(gold)
    metrics = dict.fromkeys(METRICS, 0.0) if is_zeroed else _metrics(np.array(pairs), len(labels))
    return PublishedValues(
        n=len(gold),
        n_dropped=n_dropped,
        is_zeroed=is_zeroed,
        metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
    )


def _metrics(pairs: np.ndarray[tuple[int, int], np.dtype[np.int64]], n_labels: int) -> dict[str, float]:
    from scipy.stats import kendalltau, pearsonr, spearmanr
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    gold, answer = pairs[:, 0], pairs[:, 1]
    average = {"average": "binary"} if n_labels == 2 else {"average": "macro", "labels": list(range(n_labels))}
    precision, recall, f1, _ = precision_recall_fscore_support(gold, answer, zero_division=0, **average)
    varies = bool(np.ptp(gold) and np.ptp(answer))
    return {
        "accuracy": float(accuracy_score(gold, answer)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "pearson": float(pearsonr(gold, answer).statistic) if varies else math.nan,
        "spearman": float(spearmanr(gold, answer).statistic) if varies else math.nan,
        "kendall": float(kendalltau(gold, answer).statistic) if varies else math.nan,
    }


def honest_values(name: str, results: Results) -> dict[str, MetricResult]:
    """The same metrics of one judge with what could not be read counted as wrong; without an interval where the
    evaluation made none. Correlations are over the rows that were read, and say how many.

    A label that nobody gave and nobody said has no part in a macro average.
    """
    model = results.models[name]
    statistics = results.audit.judges[name].statistics if results.audit is not None else {}
    values_by_metric = {"accuracy": model.metrics["accuracy"]}
    for metric in ("precision", "recall", "f1"):
        if results.positive is not None:
            value = getattr(model.per_class[results.positive], metric)
        else:
            values = [getattr(row, metric) or 0.0 for row in _occurring(model)]
            value = sum(values) / len(values)
        values_by_metric[metric] = MetricResult(value=value, low=None, high=None, n=model.n, method="none")
    f1 = model.metrics.get("f1_positive" if results.positive is not None else "macro_f1")
    values_by_metric |= {"f1": f1} if f1 is not None else {}
    known: Mapping[str, str] = {"pearson": "pearson", "spearman": "spearman", "kendall": "kendall_tau_b"}
    values_by_metric |= {
        metric: statistics[statistic] for metric, statistic in known.items() if statistic in statistics
    }
    return values_by_metric


def _occurring(model: ModelResult) -> list[ClassResult]:
    """The labels that occur among gold labels or verdicts."""
    confusion = model.confusion
    n_given = {label: sum(row[at] for row in confusion.counts) for at, label in enumerate(confusion.rows)}
    return [row for label, row in model.per_class.items() if row.support or n_given[label]]
