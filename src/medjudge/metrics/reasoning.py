"""How a judge's reasoning compares with the experts', beside its labels.

* alignment: sentence-embedding similarity as `rewards/embedding.py` computes it, 0 (another case's reason) to 1.
* judge_score: a judge model's mean mark, 0 to 10.
* entity precision, recall, F1: medical entities of the reasoning against those of the expert's, each once per case and
  counted over all cases (micro), so that a case without entities needs no rule of its own. The published pipeline
  matches entities by embedding, which gives unrelated ones .2 to .4, and leaves cases without entities out.
* citations_valid: share of the cited ids that the prompt's evidence holds; citing: share of the cases with evidence
  whose reasoning cites at all. Both are shown, since a judge that cites nothing makes nothing up.

An unparsed answer has no reasoning: it counts as alignment 0, mark 0 and no entity found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.intervals import bootstrap_sums
from medjudge.metrics.metric_result import Frozen, MetricResult, finite

FloatArray = NDArray[np.float64]

REASONING_METRICS = {
    "alignment": "Reasoning alignment",
    "judge_score": "Judge score /10",
    "entity_f1": "Entity F1",
    "entity_precision": "Entity precision",
    "entity_recall": "Entity recall",
    "citations_valid": "Citations that exist",
    "citing": "Cites at all",
}
"""Metric -> its heading, in the order of tables."""


@dataclass(frozen=True, slots=True)
class ReasoningNumbers:
    """One answer's reasoning in numbers; None where there is nothing to compare with, or nobody to ask."""

    alignment: float | None = None
    judge_score: float | None = None
    n_common: int | None = None
    """Entities that the reasoning shares with the expert's."""
    n_generated: int | None = None
    n_gold: int | None = None
    n_cited: int = 0
    n_valid: int = 0
    """Cited ids that the prompt's evidence holds."""
    has_evidence: bool = False

    def to_json(self) -> dict[str, float | int | bool | None]:
        """As `verdicts.jsonl` holds it."""
        return asdict(self)


class ReasoningDifference(Frozen):
    """Metric of `a` minus metric of `b` on the same cases, with its interval."""

    a: str
    b: str
    metrics: dict[str, MetricResult]


class ReasoningResults(Frozen):
    """The reasoning of every model."""

    models: dict[str, dict[str, MetricResult]]
    not_measured: dict[str, str]
    """Metric -> why it was not measured."""
    differences: tuple[ReasoningDifference, ...]
    facts: dict[str, str]
    """What was measured with: embedding model and its baseline, judge, entity extractor."""


def summarise_reasoning(
    numbers: Mapping[str, Sequence[ReasoningNumbers]],
    groups: Sequence[str],
    *,
    reference: str,
    level: float,
    n_resamples: int,
    seed: int,
    facts: Mapping[str, str],
    not_measured: Mapping[str, str],
) -> ReasoningResults:
    """Metrics with intervals over groups, and each model's differences from `reference` on the same resamples.

    numbers: model -> one entry per case, in the order of `groups`. not_measured: reasons known beforehand, by metric.
    """
    # The same codes and seed for every model: differences are taken on the same resamples.
    _, code = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = {name: _group_sums(_columns(rows), code) for name, rows in numbers.items()}
    estimates = partial(_estimates, level=level, n_resamples=n_resamples, seed=seed)
    models = {name: estimates(columns) for name, columns in sums.items()}
    differences = tuple(
        ReasoningDifference(a=name, b=reference, metrics=estimates(columns, sums[reference]))
        for name, columns in sums.items()
        if name != reference
    )
    undefined = {m for m in REASONING_METRICS if all(metrics[m].value is None for metrics in models.values())}
    return ReasoningResults(
        models=models,
        not_measured={m: not_measured.get(m) or _WHY[m] for m in REASONING_METRICS if m in undefined},
        differences=differences,
        facts=dict(facts),
    )


_NO_REASONS = "no evaluated row has the expert's reasoning"
_WHY = {
    **dict.fromkeys(REASONING_METRICS, _NO_REASONS),
    "citations_valid": "nothing was cited",
    "citing": "no prompt showed evidence",
}

# Columns of the sums, and the metrics as (numerator, denominator) of them.
_COLUMNS = (
    *("n_aligned", "alignment", "n_marked", "judge_score", "n_common", "n_generated", "n_gold", "n_both"),
    *("n_cited", "n_valid", "n_evidence", "n_citing", "n_told"),
)
_RATIOS = {
    "alignment": ("alignment", "n_aligned"),
    "judge_score": ("judge_score", "n_marked"),
    "entity_f1": ("n_common", "n_both"),
    "entity_precision": ("n_common", "n_generated"),
    "entity_recall": ("n_common", "n_gold"),
    "citations_valid": ("n_valid", "n_cited"),
    "citing": ("n_citing", "n_evidence"),
}
_ROWS = {  # metric -> the column that counts the cases behind it
    "alignment": "n_aligned",
    "judge_score": "n_marked",
    "entity_f1": "n_told",
    "entity_precision": "n_told",
    "entity_recall": "n_told",
    "citations_valid": "n_citing",
    "citing": "n_evidence",
}


def _columns(rows: Sequence[ReasoningNumbers]) -> FloatArray:
    """(n_cases, n_columns)."""
    table = [
        (
            *(r.alignment is not None, r.alignment or 0.0, r.judge_score is not None, r.judge_score or 0.0),
            *(r.n_common or 0, r.n_generated or 0, r.n_gold or 0, ((r.n_generated or 0) + (r.n_gold or 0)) / 2),
            *(r.n_cited, r.n_valid, r.has_evidence, r.has_evidence and r.n_cited > 0, r.n_gold is not None),
        )
        for r in rows
    ]
    return np.array(table, dtype=np.float64).reshape(len(rows), len(_COLUMNS))


def _group_sums(columns: FloatArray, code: NDArray[np.int64]) -> FloatArray:
    sums = np.zeros((int(code.max()) + 1 if len(code) else 0, columns.shape[1]))
    np.add.at(sums, code, columns)
    return sums


def _metrics(sums: FloatArray) -> dict[str, FloatArray]:
    """(..., n_columns) -> metric -> (...); nan where the denominator is 0."""
    at = {name: i for i, name in enumerate(_COLUMNS)}
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: np.where(sums[..., at[below]] > 0, sums[..., at[above]] / sums[..., at[below]], np.nan)
            for name, (above, below) in _RATIOS.items()
        }


def _estimates(
    a: FloatArray, b: FloatArray | None = None, *, level: float, n_resamples: int, seed: int
) -> dict[str, MetricResult]:
    """Every metric of `a`, or of `a` minus `b`, with its interval."""
    both = np.stack([a, a if b is None else b], axis=1)  # (n_groups, 2, n_columns)

    def statistics(sums: FloatArray) -> dict[str, FloatArray]:
        first = _metrics(sums[..., 0, :])
        if b is None:
            return first
        second = _metrics(sums[..., 1, :])
        return {name: first[name] - second[name] for name in first}

    values = statistics(both.sum(0))
    if len(both):
        # A new `rng` from the seed each time: all models are measured on the same resamples.
        intervals = bootstrap_sums(
            both, statistics, n_resamples=n_resamples, rng=np.random.default_rng(seed), level=level
        )
    counts = dict(zip(_COLUMNS, a.sum(0), strict=True))
    return {
        name: MetricResult(
            value=finite(float(values[name])),
            low=finite(intervals[name].low) if len(both) else None,
            high=finite(intervals[name].high) if len(both) else None,
            n=int(counts[_ROWS[name]]),
            method=intervals[name].method if len(both) else "",
        )
        for name in REASONING_METRICS
    }
