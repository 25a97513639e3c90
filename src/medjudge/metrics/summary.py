"""What an evaluation found, as one value: the content of `results.json`, and what the report and tables are made from.

Proportions and F1 are in [0, 1]; differences are in points (hundredths). A number that is undefined is None, never NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError, field_validator, model_validator

from medjudge.errors import DataError, RunError
from medjudge.metrics import findings
from medjudge.metrics.audit import N_PERMUTATIONS, Audit, JudgeRows, audit_judges
from medjudge.metrics.baselines import CHANCE, chance_accuracy
from medjudge.metrics.claims import Claim, decide, find_claim, n_tests, tests_of
from medjudge.metrics.classification import (
    PROPORTIONS,
    Outcomes,
    classification_metrics,
    code_outcomes,
    confusion_counts,
    count_options,
    due_cases,
    group_counts,
    metric_n,
    metrics_from_counts,
    per_class_metrics,
    take,
)
from medjudge.metrics.comparison import PERMUTATION, Pairing, mcnemar, pair, paired_differences, paired_permutation
from medjudge.metrics.group_tests import accuracy_against_chance, sign_flips
from medjudge.metrics.intervals import bootstrap_interval, clustered_wilson, resample_sums
from medjudge.metrics.metric_result import Frozen, TestResult, tested
from medjudge.metrics.metric_result import MetricResult as MetricResult
from medjudge.metrics.metric_result import measured as to_result
from medjudge.metrics.probes import Probes
from medjudge.metrics.reasoning import ReasoningResults
from medjudge.metrics.sentences import make_statements, with_probe_statements
from medjudge.metrics.stored import StoredLineage
from medjudge.metrics.unpaired import UnpairedResult, share_cases, unpaired_comparisons
from medjudge.records import Case, Judgement, Unparsed, Verdict

if TYPE_CHECKING:
    from medjudge.tasks.contract import TaskContract
    from medjudge.tasks.scale import LabelScale

_M = TypeVar("_M")
RESULTS_VERSION = 1
GENERATOR = "generator"
"""The slice that names the model whose answer is judged."""
AUDIT_RESAMPLES = 1000
UNPARSED = "unparsed"
"""The last column of a confusion matrix."""
COMPARED_METRICS = ("accuracy", "macro_f1", "f1_positive", "schema_pass_rate")
"""Metrics whose paired differences are computed, where the task has them."""


class ClassResult(Frozen):
    """One label of one model; None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


class Confusion(Frozen):
    """Counts of gold label (row) by what the judge said (column); the last column is `unparsed`."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _check_shape(self) -> Confusion:
        n_rows, n_columns = len(self.rows), len(self.columns)
        if n_columns < n_rows or [len(row) for row in self.counts] != [n_columns] * n_rows:
            raise ValueError(f"expected {n_rows} rows of {n_columns} counts")
        return self


def _with_accuracy(metrics: dict[str, _M]) -> dict[str, _M]:
    if "accuracy" not in metrics:
        raise ValueError("expected `accuracy`")
    return metrics


class PromptsResult(Frozen):
    """What shortening prompts to `max_prompt_tokens` took away, over the cases with a gold label."""

    n: int
    """Prompts of which it is known."""
    n_shortened: int
    n_words_cut: int
    whole: MetricResult | None
    """Accuracy where the prompt showed the case whole; None where no prompt did."""
    shortened: MetricResult | None
    """Accuracy where words were cut off; None where no prompt lost any."""


class ModelResult(Frozen):
    """How one model or baseline did."""

    role: Literal["model", "baseline"]
    n: int
    """Cases with a gold label that it was to answer, see `classification.due_cases`: what its numbers rest on."""
    n_unparsed: int
    """Of them, those without a verdict; they count as wrong."""
    unparsed_reasons: dict[str, int]
    n_truncated: int | None
    """Answers that the token limit cut off; None if not recorded."""
    n_missing: int
    """Cases with a gold label that it gave no row for. Those that it was to answer are in `n` and `n_unparsed`, under
    `absent`; in results of an earlier program they took no part in its numbers."""
    n_unmatched: int
    """Answers to cases that have no gold label or are not in the set."""
    metrics: dict[str, MetricResult]
    per_class: dict[str, ClassResult]
    confusion: Confusion
    chance_p: float
    """Two-sided p of its accuracy against uniform guessing, as `chance_test` has it."""
    lineage: dict[str, Any] | None
    seconds: float | None
    lenient: bool
    usage: dict[str, Any] | None = None
    """Of a model behind an endpoint: calls, tokens, cost and latency, as `inference.replies.Usage` counts them."""
    chance_test: TestResult | None = None
    """None in results of an earlier program."""
    unanswered: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)
    """Kind of `classification.KINDS` -> cases without a verdict; empty in results of an earlier program."""
    prompts: PromptsResult | None = None
    """How many prompts lost words; None where it is not known."""

    @property
    def n_answered(self) -> int:
        """Cases with a verdict."""
        return self.n - self.n_unparsed

    @property
    def n_right(self) -> int:
        """Cases with the expert's label."""
        return sum(row[place] for place, row in enumerate(self.confusion.counts))

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: dict[str, MetricResult]) -> dict[str, MetricResult]:
        return _with_accuracy(metrics)

    @field_validator("lineage")
    @classmethod
    def _check_lineage(cls, lineage: dict[str, Any] | None) -> dict[str, Any] | None:
        if lineage is not None:
            StoredLineage.model_validate(lineage)
        return lineage


class DifferenceResult(Frozen):
    """Metric of `a` minus metric of `b` in points; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


class McNemarResult(Frozen):
    """Rows that only one of the two got right, and McNemar's two-sided p, which takes rows as independent.

    Whether the two differ is for `ComparisonResult.tests` and `claims` to say.
    """

    only_a: int
    only_b: int
    p: float
    method: str
    adjusted_p: float | None = None
    """The p of `ComparisonResult.tests["accuracy"]`, by Holm's method over all tests of the page; McNemar's own in
    results of an earlier program."""


class SharedCases(Frozen):
    """Two judges on the cases that both gave a verdict for, and on those that only one of them did."""

    n: int
    """Cases with a verdict from both."""
    accuracy_a: float | None
    accuracy_b: float | None
    differences: dict[str, DifferenceResult]
    """Metric of `a` minus metric of `b` on these cases; empty without one."""
    points: float
    """What these cases contribute to the difference in accuracy over all; the rest comes from the others."""
    n_only_a: int
    """Cases with a verdict from `a` alone."""
    accuracy_only_a: float | None
    n_only_b: int
    accuracy_only_b: float | None
    n_neither: int


class ComparisonResult(Frozen):
    """Two judges on the cases that both were to answer, a case without a verdict being wrong."""

    a: str
    b: str
    kind: Literal["reference", "consecutive", "baseline"]
    n: int
    n_unpaired: int
    """Cases that only one of the two was to answer."""
    differences: dict[str, DifferenceResult]
    mcnemar: McNemarResult
    tests: dict[str, TestResult] = {}  # noqa: RUF012  (pydantic copies it)
    """`accuracy`, `macro_f1` -> the test that counts groups; empty in results of an earlier program."""
    shared: SharedCases | None = None
    """None where both gave a verdict for every case, and in results of an earlier program."""

    @field_validator("differences")
    @classmethod
    def _check_differences(cls, differences: dict[str, DifferenceResult]) -> dict[str, DifferenceResult]:
        return _with_accuracy(differences)


class Results(Frozen):
    """Everything an evaluation measured."""

    version: Literal[1] = 1
    task: str
    split: str
    n_cases: int
    """Cases with a gold label."""
    n_groups: int
    n_without_gold: int
    train_n: int | None
    labels: tuple[str, ...]
    ordered: bool
    positive: str | None
    chance: float
    """Expected accuracy of uniform guessing."""
    contract: dict[str, Any]
    level: float
    n_resamples: int
    seed: int
    reference: str | None
    models: dict[str, ModelResult]
    """In the order in which the models were given, baselines last."""
    skipped_baselines: dict[str, str]
    comparisons: tuple[ComparisonResult, ...]
    leakage: dict[str, Any]
    statements: tuple[str, ...] = ()
    audit: Audit | None = None
    """The fuller analysis; None in results of an earlier program."""
    reasoning: ReasoningResults | None = None
    """The reasoning beside the labels; None where the recipe did not ask for it."""
    probes: Probes | None = None
    """How the judges bear changes that should not move them; None where none was asked for."""
    claims: tuple[Claim, ...] = ()
    """Every test of the page, corrected together, and what may be claimed; empty in results of an earlier program."""
    unpaired: tuple[UnpairedResult, ...] = ()
    """Judges that share no case."""
    read_as: tuple[str, ...] = ()
    """Of files by other programs: which columns were read as what, and the values found."""

    def of_role(self, role: Literal["model", "baseline"]) -> dict[str, ModelResult]:
        """The models, or the baselines, by name and in order."""
        return {name: model for name, model in self.models.items() if model.role == role}

    def comparison(self, a: str, b: str) -> ComparisonResult | None:
        """The comparison of `a` with `b`, if it was made."""
        return next((c for c in self.comparisons if (c.a, c.b) == (a, b)), None)

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Any) -> Results:
        """The results in a parsed `results.json`. Raises RunError if it is of another version or damaged."""
        version = value.get("version") if isinstance(value, Mapping) else None
        if version != RESULTS_VERSION:
            raise RunError(
                f"results are of version {version!r}, this program reads version {RESULTS_VERSION}. "
                "Run `medjudge evaluate` again."
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise RunError(f"results are damaged at {place!r}. Run `medjudge evaluate` again.") from None


def summarise(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    contract: TaskContract | LabelScale,
    split: str,
    baselines: Mapping[str, Sequence[Judgement]] | None = None,
    skipped_baselines: Mapping[str, str] | None = None,
    reference: str | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 42,
    leakage: Mapping[str, Any] | None = None,
    lineage: Mapping[str, Mapping[str, Any]] | None = None,
    seconds: Mapping[str, float] | None = None,
    n_truncated: Mapping[str, int] | None = None,
    train_n: int | None = None,
    usage: Mapping[str, Mapping[str, Any]] | None = None,
    families: Mapping[str, str] | None = None,
    slices: Sequence[str] = (),
    words_cut: Mapping[str, Mapping[str, int]] | None = None,
) -> Results:
    """Every metric with its interval, every comparison with its test, and what they say in words.

    judgements, baselines: name -> one judgement per case, in any order. Cases without a gold label are left out and
    counted. reference: the model that all others are compared with (the base); consecutive models are compared as well,
    and the most accurate model with the most accurate baseline.
    leakage: `LeakageReport.to_json()`. lineage: model name -> `Lineage.to_json()`.
    seconds, n_truncated, usage: by model name. families: judge or generator -> the family it belongs to, for the
    self-preference contrast. slices: those of the cases' slices that get a table, beside the generators.
    words_cut: model -> case id -> words that its prompt lost.
    A case that a judge was to answer and has no verdict for counts as wrong, whatever the reason: see `due_cases`.
    All intervals and differences are computed on the same resamples, drawn from `seed`.
    Raises DataError if no case has a gold label, no model is given, or an answer cannot be joined.
    """
    baselines = baselines or {}
    if not judgements:
        raise DataError("no model's judgements were given: there is nothing to summarise.")
    if both := sorted(set(judgements) & set(baselines)):
        raise DataError(f"{both[0]!r} names a model and a baseline: give the model another name.")
    if reference is not None and reference not in judgements:
        raise DataError(f"reference {reference!r} is not among the models: {', '.join(judgements)}.")

    gold_ids = {case.case_id for case in cases if case.gold is not None}
    due = due_cases(gold_ids, {name: {j.case_id for j in answers} for name, answers in judgements.items()})
    outcomes = {
        name: code_outcomes(
            cases,
            answers,
            labels=contract.labels,
            positive=contract.positive,
            ordered=contract.ordered,
            answer_is_json=contract.answer_is_json,
            due=due.get(name, frozenset()),
        )
        for name, answers in {**judgements, **baselines}.items()
    }
    audit = audit_judges(
        {name: judge_rows(cases, answers, outcomes[name], slices) for name, answers in judgements.items()},
        {name: outcomes[name] for name in baselines},
        level=level,
        n_resamples=min(n_resamples, AUDIT_RESAMPLES),
        seed=seed,
        families=families,
    )
    models = {
        name: _model_result(
            outcome,
            audit.judges[name].statistics,
            role="model" if name in judgements else "baseline",
            reasons=_reasons(judgements.get(name, ()), gold_ids),
            n_truncated=(n_truncated or {}).get(name),
            lineage=(lineage or {}).get(name),
            seconds=(seconds or {}).get(name),
            lenient=contract.lenient and name in judgements,
            usage=(usage or {}).get(name),
            level=level,
            n_resamples=n_resamples,
            seed=seed,
        ).model_copy(update={"prompts": _prompts(outcome, (words_cut or {}).get(name), level)})
        for name, outcome in outcomes.items()
    }
    comparisons = tuple(
        _compare(outcomes[a], outcomes[b], a, b, kind, level=level, seed=seed)
        for a, b, kind in _planned_comparisons(models, reference)
        if share_cases(outcomes[a], outcomes[b])
    )
    unpaired = unpaired_comparisons({name: outcomes[name] for name in judgements}, seed)
    results = Results(
        task=contract.kind,
        split=split,
        n_cases=len(gold_ids),
        n_groups=next(iter(outcomes.values())).n_groups,
        n_without_gold=len(cases) - len(gold_ids),
        train_n=train_n,
        labels=contract.labels,
        ordered=contract.ordered,
        positive=contract.positive,
        chance=chance_accuracy(contract.labels),
        contract={"fingerprint": contract.fingerprint(), "settings": contract.model_dump(mode="json")},
        level=level,
        n_resamples=n_resamples,
        seed=seed,
        reference=reference,
        models=models,
        skipped_baselines=dict(skipped_baselines or {}),
        comparisons=comparisons,
        unpaired=unpaired,
        leakage=_plain(leakage or {}),
        audit=audit,
    )
    return with_claims(results)


def with_claims(results: Results) -> Results:
    """The results with every test of the page corrected together, and the sentences that this allows.

    For results that are complete but for notes: whoever adds probes calls it again.
    """
    claims = decide(tests_of(results), results.level)

    def adjusted(a: str, b: str, what: str) -> float | None:
        claim = find_claim(claims, "difference", (a, b), what)
        return None if claim is None else claim.adjusted_p

    comparisons = tuple(
        c.model_copy(update={"mcnemar": c.mcnemar.model_copy(update={"adjusted_p": adjusted(c.a, c.b, "accuracy")})})
        for c in results.comparisons
    )
    update: dict[str, Any] = {"claims": claims, "comparisons": comparisons}
    if results.audit is not None:
        pairs = tuple(
            one.model_copy(
                update={
                    "adjusted_p": adjusted(one.a, one.b, "accuracy"),
                    "tests": {
                        name: test.model_copy(update={"adjusted_p": adjusted(one.a, one.b, name)})
                        for name, test in one.tests.items()
                    },
                }
            )
            for one in results.audit.pairs
        )
        audit = results.audit.model_copy(update={"pairs": pairs, "n_tests": n_tests(claims)})
        said = findings.of_audit(audit, claims, dict.fromkeys(results.of_role("model"), results.chance))
        update["audit"] = audit.model_copy(
            update={"statements": tuple(one.text for one in said), "about": tuple(one.about for one in said)}
        )
    if results.probes is not None:
        update["probes"] = with_probe_statements(results.probes, claims)
    results = results.model_copy(update=update)
    return results.model_copy(update={"statements": tuple(make_statements(results))})


def judge_rows(
    cases: Sequence[Case], judgements: Sequence[Judgement], outcomes: Outcomes, slices: Sequence[str] = ()
) -> JudgeRows:
    """One judge's outcomes with what the audit needs beside them, row by row, and its verdicts on unrated cases."""
    sliced = {case.case_id: case.slices for case in cases}
    named = {
        name: [sliced[case_id].get(name, "") for case_id in outcomes.case_ids]
        for name in dict.fromkeys((GENERATOR, *slices))
    }
    confidence = {j.case_id: j.confidence for j in judgements if isinstance(j, Verdict)}
    groups = {case.case_id: case.group for case in cases}
    measured_ids = set(outcomes.case_ids)
    unrated = [j for j in judgements if j.case_id not in measured_ids]
    return JudgeRows(
        outcomes,
        generators=named.pop(GENERATOR),
        confidence=np.array(
            [math.nan if (c := confidence.get(case_id)) is None else c for case_id in outcomes.case_ids], dtype=float
        ),
        unrated=[j.label if isinstance(j, Verdict) else None for j in unrated],
        unrated_groups=[groups.get(j.case_id) or f"case {j.case_id}" for j in unrated],
        rated_groups=[groups.get(case_id) or f"case {case_id}" for case_id in outcomes.case_ids],
        slices={name: values for name, values in named.items() if len(set(values) - {""}) > 1},
    )


def best_model(models: Mapping[str, ModelResult], role: str) -> str | None:
    """The model (or baseline) that is right on most cases, of equals the one that answers more; None if there is none.

    A case that a model did not answer is not right, so one that answers few is never the best.
    A lucky draw of `chance` is no baseline to beat: models are tested against chance's exact accuracy instead.
    """
    names = [name for name, model in models.items() if model.role == role and (name, role) != (CHANCE, "baseline")]
    return max(names, key=lambda name: (models[name].n_right, models[name].n_answered), default=None)


def _planned_comparisons(
    models: Mapping[str, ModelResult], reference: str | None
) -> list[tuple[str, str, Literal["reference", "consecutive", "baseline"]]]:
    """Which pairs are compared, later model first; none twice."""
    names = [name for name, model in models.items() if model.role == "model"]
    planned: dict[tuple[str, str], Literal["reference", "consecutive", "baseline"]] = {}
    if reference is not None:
        planned.update({(name, reference): "reference" for name in names if name != reference})
    for earlier, later in pairwise(names):
        if (earlier, later) not in planned:
            planned.setdefault((later, earlier), "consecutive")
    model, baseline = best_model(models, "model"), best_model(models, "baseline")
    if model is not None and baseline is not None:
        planned[model, baseline] = "baseline"
    return [(a, b, kind) for (a, b), kind in planned.items()]


def _model_result(
    outcomes: Outcomes,
    measured: Mapping[str, MetricResult],
    *,
    role: Literal["model", "baseline"],
    reasons: dict[str, int],
    n_truncated: int | None,
    lineage: Mapping[str, Any] | None,
    seconds: float | None,
    lenient: bool,
    usage: Mapping[str, Any] | None,
    level: float,
    n_resamples: int,
    seed: int,
) -> ModelResult:
    values = classification_metrics(outcomes)
    counts = group_counts(outcomes)
    counts = counts[counts.sum((1, 2)) > 0]
    # A fresh generator per model: all see the same resamples, whatever else stands in the table.
    drawn = metrics_from_counts(
        resample_sums(counts, n_resamples, np.random.default_rng(seed)), **count_options(outcomes)
    )
    metrics = {}
    for name, value in values.items():
        if name in measured:  # one interval for one number, wherever it is shown
            metrics[name] = measured[name]
            continue
        interval = bootstrap_interval(
            value, drawn[name], level=level, n_groups=len(counts), proportion=name in PROPORTIONS
        )
        metrics[name] = MetricResult(
            value=_finite(value),
            low=_finite(interval.low),
            high=_finite(interval.high),
            n=metric_n(outcomes, name),
            method=interval.method,
        )
    confusion = confusion_counts(outcomes)
    chance_test = accuracy_against_chance(outcomes.correct, outcomes.groups, chance_accuracy(outcomes.labels))
    return ModelResult(
        role=role,
        n=len(outcomes.gold),
        n_unparsed=int((~outcomes.parsed).sum()),
        unparsed_reasons=reasons,
        n_truncated=n_truncated,
        n_missing=outcomes.n_missing,
        n_unmatched=outcomes.n_unmatched,
        metrics=metrics,
        per_class={
            label: ClassResult(
                precision=_finite(row["precision"]),
                recall=_finite(row["recall"]),
                f1=_finite(row["f1"]),
                support=int(row["support"]),
            )
            for label, row in per_class_metrics(outcomes).items()
        },
        confusion=Confusion(
            rows=outcomes.labels,
            columns=(*outcomes.labels, UNPARSED),
            counts=tuple(tuple(int(cell) for cell in row) for row in confusion),
        ),
        chance_p=chance_test.p,
        chance_test=tested(chance_test),
        lineage=None if lineage is None else _plain(lineage),
        seconds=seconds,
        lenient=lenient,
        usage=None if usage is None else _plain(usage),
        unanswered=outcomes.unanswered,
    )


def _prompts(outcomes: Outcomes, words_cut: Mapping[str, int] | None, level: float) -> PromptsResult | None:
    """What shortening took away; None where nothing is known of the judge's prompts."""
    cut = np.array([-1 if words_cut is None else words_cut.get(case_id, -1) for case_id in outcomes.case_ids])
    if not (cut >= 0).any():
        return None

    def accuracy(rows: NDArray[np.bool_]) -> MetricResult | None:
        if not rows.any():
            return None
        return to_result(clustered_wilson(outcomes.correct[rows], outcomes.groups[rows], level=level))

    return PromptsResult(
        n=int((cut >= 0).sum()),
        n_shortened=int((cut > 0).sum()),
        n_words_cut=int(cut[cut > 0].sum()),
        whole=accuracy(cut == 0),
        shortened=accuracy(cut > 0),
    )


def _compare(
    a: Outcomes,
    b: Outcomes,
    name_a: str,
    name_b: str,
    kind: Literal["reference", "consecutive", "baseline"],
    *,
    level: float,
    seed: int,
) -> ComparisonResult:
    pairing = pair(a, b)
    right_a, right_b = pairing.a.correct, pairing.b.correct
    test = mcnemar(int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()))
    # A baseline answers with labels, not text: whether it can be read is no question.
    metrics = tuple(name for name in COMPARED_METRICS if kind != "baseline" or name != "schema_pass_rate")
    differences = paired_differences(pairing, metrics, level=level)
    accuracy = sign_flips(right_a.astype(np.float64) - right_b, pairing.a.groups)
    macro = paired_permutation(pairing, ["macro_f1"], n_resamples=N_PERMUTATIONS, rng=np.random.default_rng(seed))[
        "macro_f1"
    ]
    return ComparisonResult(
        a=name_a,
        b=name_b,
        kind=kind,
        n=len(right_a),
        n_unpaired=len(pairing.only_a) + len(pairing.only_b),
        differences={
            metric: DifferenceResult(value=_finite(d.value), low=_finite(d.low), high=_finite(d.high))
            for metric, d in differences.items()
        },
        mcnemar=McNemarResult(only_a=test.only_a, only_b=test.only_b, p=test.p, method=test.method),
        tests={
            "accuracy": tested(accuracy),
            "macro_f1": TestResult(p=_finite(macro.p), n_groups=macro.n_groups, method=PERMUTATION),
        },
        shared=_shared(pairing, metrics, level),
    )


def _shared(pairing: Pairing, metrics: tuple[str, ...], level: float) -> SharedCases | None:
    """The difference apart from who answered: what the two know, where both say something."""
    in_a, in_b = pairing.a.parsed, pairing.b.parsed
    both = in_a & in_b
    if both.all():
        return None
    right_a, right_b = pairing.a.correct, pairing.b.correct
    rows = np.flatnonzero(both)
    differences = {}
    if len(rows):
        on_both = Pairing(take(pairing.a, rows), take(pairing.b, rows), (), ())
        differences = paired_differences(
            on_both, tuple(name for name in metrics if name != "schema_pass_rate"), level=level
        )

    def share(right: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
        return float(right[of].mean()) if of.any() else None

    return SharedCases(
        n=len(rows),
        accuracy_a=share(right_a, both),
        accuracy_b=share(right_b, both),
        differences={
            metric: DifferenceResult(value=_finite(d.value), low=_finite(d.low), high=_finite(d.high))
            for metric, d in differences.items()
        },
        points=100 * float(right_a[both].sum() - right_b[both].sum()) / len(both),
        n_only_a=int((in_a & ~in_b).sum()),
        accuracy_only_a=share(right_a, in_a & ~in_b),
        n_only_b=int((in_b & ~in_a).sum()),
        accuracy_only_b=share(right_b, in_b & ~in_a),
        n_neither=int((~in_a & ~in_b).sum()),
    )


def _reasons(judgements: Sequence[Judgement], gold_ids: set[str]) -> dict[str, int]:
    """Reason -> count over the unreadable answers that are measured, commonest first."""
    counts = Counter(j.reason for j in judgements if isinstance(j, Unparsed) and j.case_id in gold_ids)
    return dict(counts.most_common())


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """`value` as JSON holds it: mappings and sequences as dicts and lists, a number that is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _finite(value) if isinstance(value, float) else value
