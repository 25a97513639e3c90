"""How a judge's labels compare with the experts', with unreadable and missing answers counted as wrong.

Every metric here is a function of one table: gold label by what the judge said, where the last two columns hold the
cases without a verdict. `classification_metrics` computes them with scikit-learn and SciPy from the labels;
`metrics_from_counts` computes the same numbers from many such tables at once, which is what a bootstrap needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.records import Case, Judgement, Unparsed, Verdict

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

PROPORTIONS = frozenset({"accuracy", "valid_json_rate", "schema_pass_rate", "accuracy_on_schema"})
"""Metrics that are a share of rows."""
ABSENT = "absent"
"""The kind of a case that a judge was to answer and gave no row for; the other kinds are those of `Unparsed`."""
KINDS = ("format", "schema", "truncated", "refused", "failed", "tied", ABSENT)
"""Why a case has no verdict, in the order in which tables name them."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One judge's answers beside the experts' labels, coded as integers and joined by case id."""

    labels: tuple[str, ...]
    """The contract's K labels."""
    case_ids: tuple[str, ...]
    gold: IntArray
    """(n,) codes 0..K-1."""
    predicted: IntArray
    """(n,) codes 0..K-1; K: unreadable by content (`schema`); K + 1: no verdict for any other reason."""
    groups: IntArray
    """(n,) codes 0..n_groups-1 of the groups that are resampled together."""
    n_groups: int
    positive: int | None = None
    """Code of the positive label of a two-label task."""
    ordered: bool = False
    answer_is_json: bool = False
    n_missing: int = 0
    """Cases with a gold label that this judge said nothing about, whether or not it was to."""
    n_unmatched: int = 0
    """Answers whose case is not among the cases with a gold label."""
    kinds: tuple[str, ...] = ()
    """(n,) one of `KINDS` where there is no verdict, "" where there is one; () where it was not noted."""

    @property
    def parsed(self) -> NDArray[np.bool_]:
        """(n,) whether the answer held a verdict."""
        return np.asarray(self.predicted < len(self.labels))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) whether the answer is the expert's label; never True for an unreadable one."""
        return np.asarray(self.predicted == self.gold)

    @property
    def unanswered(self) -> dict[str, int]:
        """Kind -> count of the rows without a verdict, in the order of `KINDS`; kinds that do not occur are absent."""
        counts = Counter(self.kinds)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}


def due_cases(case_ids: AbstractSet[str], answered: Mapping[str, AbstractSet[str]]) -> dict[str, AbstractSet[str]]:
    """Judge -> the cases that it was to answer, which is what its numbers rest on.

    case_ids: the cases with a gold label. answered: judge -> the cases that it gave a row for. Judges that share a
    case, directly or through others, were asked the same: if all of them were, every case is each one's to answer, and
    what a judge left out counts as wrong. Where judges fall into sets without a common case (two weeks, two sites),
    each set answers for the cases that the set covers, and none for another set's.
    """
    # Judges that share a case, directly or through others, are joined into one set: its connected components.
    sets: list[tuple[set[str], set[str]]] = []  # judges, cases
    for judge, given in answered.items():
        judges, covered = {judge}, set(given & case_ids)
        apart = []
        for one in sets:
            if one[1] & covered:
                judges, covered = one[0] | judges, one[1] | covered
            else:
                apart.append(one)
        sets = [*apart, (judges, covered)]
    if sum(bool(covered) for _, covered in sets) < 2:
        return dict.fromkeys(answered, case_ids)
    return {judge: covered for judges, covered in sets for judge in judges}


def code_outcomes(
    cases: Sequence[Case],
    judgements: Sequence[Judgement],
    *,
    labels: Sequence[str],
    positive: str | None = None,
    ordered: bool = False,
    answer_is_json: bool = False,
    due: AbstractSet[str] = frozenset(),
) -> Outcomes:
    """Joins answers to cases by id and codes them. Cases without a gold label take no part.

    due: ids of the cases that the judge was to answer, as `due_cases` gives them; those that it gave no answer to are
    rows without a verdict, of the kind `absent`.
    A case's group is its `group`, or its own id where that is empty. Group codes number the groups of all `cases` with
    a gold label, so two judges coded from the same cases share them.
    Raises DataError for no case with a gold label, a repeated id, or a label that is not one of `labels`.
    """
    code = {label: index for index, label in enumerate(labels)}
    known = _rated(cases, code)
    group_code: dict[str, int] = {}
    for case in known.values():
        # Over all rated cases, answered or not, so that two judges' groups have the same codes.
        group_code.setdefault(_group(case), len(group_code))

    answers, kinds, n_unmatched = _coded(judgements, code, known)
    n_missing = len(known) - len(answers)
    if due and not answers:
        raise DataError(
            f"none of {len(judgements):,} answers belongs to a case with an expert label, expected at least one: there "
            "is nothing to measure. Check that case ids mean the same on both sides."
        )
    for case_id in known.keys() & due - answers.keys():
        answers[case_id], kinds[case_id] = len(code) + 1, ABSENT
    judged = [case for case in known.values() if case.case_id in answers]
    return Outcomes(
        labels=tuple(labels),
        case_ids=tuple(case.case_id for case in judged),
        gold=np.array([code[str(case.gold)] for case in judged], dtype=np.int64),
        predicted=np.array([answers[case.case_id] for case in judged], dtype=np.int64),
        groups=np.array([group_code[_group(case)] for case in judged], dtype=np.int64),
        n_groups=len(group_code),
        positive=None if positive is None else code[positive],
        ordered=ordered,
        answer_is_json=answer_is_json,
        n_missing=n_missing,
        n_unmatched=n_unmatched,
        kinds=tuple(kinds.get(case.case_id, "") for case in judged),
    )


def _rated(cases: Sequence[Case], code: Mapping[str, int]) -> dict[str, Case]:
    """Case id -> case, of those with an expert label. Raises DataError as `code_outcomes`."""
    known: dict[str, Case] = {}
    for case in cases:
        if case.gold is None:
            continue
        if case.case_id in known:
            raise DataError(
                f"case {case.case_id!r} occurs twice, expected once. Metrics join by case id: give each case its own."
            )
        if case.gold not in code:
            raise DataError(
                f"case {case.case_id!r}: expert label {case.gold!r} is not one of {', '.join(map(repr, code))}. "
                "Correct the row, or the task's labels."
            )
        known[case.case_id] = case
    if not known:
        raise DataError(
            f"none of {len(cases)} cases has an expert label: there is nothing to measure against. Expected one or "
            "more: name the field that holds it."
        )
    return known


def _coded(
    judgements: Sequence[Judgement], code: Mapping[str, int], known: Mapping[str, Case]
) -> tuple[dict[str, int], dict[str, str], int]:
    """Case id -> coded answer, case id -> why there is no verdict, and the number of answers to cases not in `known`.

    Raises DataError as `code_outcomes`.
    """
    answers: dict[str, int] = {}
    kinds: dict[str, str] = {}
    n_unmatched = 0
    for judgement in judgements:
        if judgement.case_id in answers:
            raise DataError(
                f"two judgements for case {judgement.case_id!r}: expected one per case and judge. Keep one of them."
            )
        match judgement:
            case Verdict(label=label) if label in code:
                answer = code[label]
            case Verdict(label=label):
                raise DataError(
                    f"case {judgement.case_id!r}: judged {label!r}, expected one of {', '.join(map(repr, code))}. "
                    "Correct the verdict, or the task's labels."
                )
            case Unparsed(kind=kind):
                # Two columns beyond the labels: readable outer form without a label, and nothing readable at all.
                answer = len(code) + (kind != "schema")
                kinds[judgement.case_id] = kind
        # Counted and not refused: a file of verdicts may hold cases that no expert rated.
        if judgement.case_id in known:
            answers[judgement.case_id] = answer
        else:
            n_unmatched += 1
    return answers, kinds, n_unmatched


def _group(case: Case) -> str:
    # The marker keeps a case id apart from a group of the same name.
    return f"group {case.group}" if case.group else f"case {case.case_id}"


def take(outcomes: Outcomes, rows: ArrayLike) -> Outcomes:
    """The outcomes of these row numbers alone, group codes unchanged."""
    index = np.asarray(rows, dtype=np.int64)
    return replace(
        outcomes,
        case_ids=tuple(outcomes.case_ids[row] for row in index),
        gold=outcomes.gold[index],
        predicted=outcomes.predicted[index],
        groups=outcomes.groups[index],
        kinds=tuple(outcomes.kinds[row] for row in index) if outcomes.kinds else (),
    )


def classification_metrics(outcomes: Outcomes) -> dict[str, float]:
    """Every metric that the task has, by name; each in [0, 1] but `pearson` in [-1, 1]; nan where undefined.

    accuracy, schema_pass_rate (share that held a verdict), valid_json_rate (share with readable outer form; only where
    answers are JSON): over all n rows. accuracy_on_schema and pearson (ordered labels, as positions 0..K-1): over the
    rows that held a verdict, nan without one; pearson is nan too if either side is constant.
    macro_f1, weighted_f1: over labels that occur among gold or verdicts, as scikit-learn averages; an unreadable answer
    is a class of its own that enters no average, but costs its gold label recall. f1_positive: two-label tasks.
    Raises DataError on zero rows.
    """
    _check_rows(outcomes)
    from scipy.stats import pearsonr
    from sklearn.metrics import accuracy_score, f1_score

    n_labels = len(outcomes.labels)
    gold, parsed = outcomes.gold, outcomes.parsed
    predicted = np.minimum(outcomes.predicted, n_labels)
    any_parsed = bool(parsed.any())
    metrics = {"accuracy": float(accuracy_score(gold, predicted))}
    if outcomes.answer_is_json:
        metrics["valid_json_rate"] = float(np.mean(outcomes.predicted <= n_labels))
    metrics["schema_pass_rate"] = float(parsed.mean())
    metrics["accuracy_on_schema"] = (
        float(accuracy_score(gold[parsed], predicted[parsed])) if any_parsed else float("nan")
    )
    occurring = [code for code in range(n_labels) if (gold == code).any() or (predicted == code).any()]
    for average in ("macro", "weighted"):
        metrics[f"{average}_f1"] = float(
            f1_score(gold, predicted, labels=occurring, average=average, zero_division=np.nan)
        )
    if outcomes.positive is not None:
        metrics["f1_positive"] = float(
            f1_score(gold, predicted, labels=[outcomes.positive], average="macro", zero_division=np.nan)
        )
    if outcomes.ordered:
        x, y = gold[parsed], predicted[parsed]
        # SciPy warns where a side is constant, and gives nan as here.
        varies = any_parsed and bool(np.ptp(x)) and bool(np.ptp(y))
        metrics["pearson"] = float(pearsonr(x, y).statistic) if varies else float("nan")
    return metrics


def metric_n(outcomes: Outcomes, metric: str) -> int:
    """The number of rows behind a metric: those with a verdict for `accuracy_on_schema` and `pearson`, else all."""
    return int(outcomes.parsed.sum()) if metric in ("accuracy_on_schema", "pearson") else len(outcomes.gold)


def per_class_metrics(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """Label -> precision, recall, f1 (each in [0, 1]) and support (rows with this gold label).

    nan where undefined: precision of a label never given, recall of one without support, F1 of one that has neither.
    """
    _check_rows(outcomes)
    from sklearn.metrics import precision_recall_fscore_support

    codes = list(range(len(outcomes.labels)))
    predicted = np.minimum(outcomes.predicted, len(codes))
    precision, recall, f1, support = precision_recall_fscore_support(
        outcomes.gold, predicted, labels=codes, average=None, zero_division=np.nan
    )
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for label, p, r, f, s in zip(outcomes.labels, precision, recall, f1, support, strict=True)
    }


def confusion_counts(outcomes: Outcomes) -> IntArray:
    """(K, K + 1): rows are gold labels, columns the judge's labels and, last, `unparsed`."""
    _check_rows(outcomes)
    n_labels = len(outcomes.labels)
    counts = np.zeros((n_labels, n_labels + 1), dtype=np.int64)
    np.add.at(counts, (outcomes.gold, np.minimum(outcomes.predicted, n_labels)), 1)
    return counts


def group_counts(outcomes: Outcomes) -> FloatArray:
    """(n_groups, K, K + 2): the table of gold by answer, one per group. The sum over groups is that of all rows."""
    n_labels = len(outcomes.labels)
    n_columns = n_labels + 2
    # One bincount over flat cells is an order of magnitude faster than np.add.at on three axes.
    cell = (outcomes.groups * n_labels + outcomes.gold) * n_columns + outcomes.predicted
    flat = np.bincount(cell, minlength=outcomes.n_groups * n_labels * n_columns)
    return flat.reshape(outcomes.n_groups, n_labels, n_columns).astype(np.float64)


def metrics_from_counts(
    counts: FloatArray, *, positive: int | None = None, ordered: bool = False, answer_is_json: bool = False
) -> dict[str, FloatArray]:
    """The numbers of `classification_metrics` for many tables at once.

    counts: (..., K, K + 2) as `group_counts` lays them out. Returns (...) per metric; nan where undefined.
    """
    counts = np.asarray(counts, dtype=np.float64)
    n_labels = counts.shape[-2]
    verdicts = counts[..., :n_labels]
    with np.errstate(divide="ignore", invalid="ignore"):
        n = counts.sum((-2, -1))
        n_parsed = verdicts.sum((-2, -1))
        hits = np.diagonal(verdicts, axis1=-2, axis2=-1)
        support, given = counts.sum(-1), verdicts.sum(-2)
        f1 = 2 * hits / (support + given)
        occurs = support + given > 0
        # A label that neither side uses has no F1 and no part in the mean, as in scikit-learn.
        f1_or_zero = np.where(occurs, f1, 0.0)
        metrics = {"accuracy": hits.sum(-1) / n}
        if answer_is_json:
            metrics["valid_json_rate"] = 1 - counts[..., n_labels + 1].sum(-1) / n
        metrics["schema_pass_rate"] = n_parsed / n
        metrics["accuracy_on_schema"] = hits.sum(-1) / n_parsed
        metrics["macro_f1"] = f1_or_zero.sum(-1) / occurs.sum(-1)
        metrics["weighted_f1"] = (f1_or_zero * support).sum(-1) / n
        if positive is not None:
            metrics["f1_positive"] = f1[..., positive]
        if ordered:
            metrics["pearson"] = _pearson_from_counts(verdicts)
    return metrics


def _pearson_from_counts(table: FloatArray) -> FloatArray:
    """Pearson's r of positions 0..K-1 from (..., K, K) tables; nan where a side is constant or the table is empty."""
    position = np.arange(table.shape[-1], dtype=np.float64)
    n = table.sum((-2, -1))
    rows, columns = table.sum(-1), table.sum(-2)
    sum_x, sum_y = rows @ position, columns @ position
    sum_xy = np.einsum("...ij,i,j->...", table, position, position)
    # Whole-number sums are exact in float64, so a constant side gives a variance of exactly zero.
    var_x = n * (rows @ position**2) - sum_x**2
    var_y = n * (columns @ position**2) - sum_y**2
    scale = np.sqrt(var_x * var_y)
    return np.asarray(np.where(scale > 0, (n * sum_xy - sum_x * sum_y) / np.where(scale > 0, scale, 1.0), np.nan))


def count_options(outcomes: Outcomes) -> Mapping[str, Any]:
    """The keyword arguments with which `metrics_from_counts` gives the metrics of these outcomes."""
    return {"positive": outcomes.positive, "ordered": outcomes.ordered, "answer_is_json": outcomes.answer_is_json}


def _check_rows(outcomes: Outcomes) -> None:
    if not len(outcomes.gold):
        raise DataError(
            "no judgement belongs to a case with an expert label, expected at least one: there is nothing to measure. "
            "Check that case ids mean the same on both sides."
        )
