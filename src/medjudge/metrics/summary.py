"""What an evaluation measured, as one value: `summarise` makes the content of `results.json`.

The order is fixed: answers are coded, every judge is measured by itself, judges are compared, and last all tests of the
page are corrected together, because what may be put into words depends on how many tests there are (`with_claims`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError
from medjudge.metrics.audit import JudgeRows, audit_judges
from medjudge.metrics.audit_sentences import audit_statements
from medjudge.metrics.baselines import Baselines, chance_accuracy
from medjudge.metrics.claims import decide, find_claim, n_tests, tests_of
from medjudge.metrics.classification import Outcomes, code_outcomes, confusion_counts, due_cases, per_class_metrics
from medjudge.metrics.estimates import JudgeEstimates, judge_estimates
from medjudge.metrics.experts import experts_result
from medjudge.metrics.group_tests import accuracy_against_chance
from medjudge.metrics.intervals import clustered_wilson
from medjudge.metrics.judge_pairs import compare_unpaired, compare_with_references
from medjudge.metrics.metric_result import MetricResult, finite, measured, tested
from medjudge.metrics.result_types import (
    Audit,
    Claim,
    ClassResult,
    Confusion,
    LabelsResult,
    ModelResult,
    PromptsResult,
    Results,
)
from medjudge.metrics.scores import ScoredCases, scores_result
from medjudge.metrics.sentences import make_statements, with_probe_statements
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.scale import LabelScale

GENERATOR = "generator"
"""The slice that names the model whose answer is judged."""
UNPARSED = "unparsed"
"""The last column of a confusion matrix."""


@dataclass(frozen=True, slots=True)
class JudgeFacts:
    """What is known of one judge's answers beside their labels; None where it was not recorded."""

    lineage: Mapping[str, Any] | None = None
    """`Lineage.to_json()`, or the record of an endpoint."""
    seconds: float | None = None
    """Wall time of answering all cases."""
    usage: Mapping[str, Any] | None = None
    """Of a model behind an endpoint: calls, tokens, cost and latency, as `inference.replies.Usage` counts them."""
    n_truncated: int | None = None
    """Answers that the token limit cut off."""
    words_cut: Mapping[str, int] | None = None
    """Case id -> words that its prompt lost to fit the token limit."""
    labels: LabelsResult | None = None
    """How much of the answers the labels are; None where none were scored."""


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What is known of the rows that models or baselines learnt from."""

    n: int | None = None
    """How many; None where there are none, or none are known."""
    leakage: Mapping[str, Any] = field(default_factory=dict)
    """`LeakageReport.to_json()`; empty where no check was made."""


@dataclass(frozen=True, slots=True)
class AnalysisOptions:
    """How judges are compared and how intervals are made."""

    reference: str | None = None
    """The model that all others are compared with, such as the base; None for none."""
    families: Mapping[str, str] = field(default_factory=dict)
    """Judge or generator -> the family it belongs to, for the self-preference contrast."""
    slices: Sequence[str] = ()
    """Those of the cases' slices that get a table, beside the generators."""
    level: float = 0.95
    """Of intervals; a test is claimed below 1 - level."""
    n_resamples: int = 2000
    seed: int = 42
    """Every draw comes from it."""


def summarise(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    contract: TaskContract | LabelScale,
    split: str,
    baselines: Baselines | None = None,
    facts: Mapping[str, JudgeFacts] | None = None,
    training: TrainingRows | None = None,
    options: AnalysisOptions | None = None,
    scored: ScoredCases | None = None,
) -> Results:
    """Every metric with its interval, every comparison with its test, and what they say in words.

    judgements: model -> one judgement per case, in any order; so are those of the baselines. Cases without a gold label
    are left out and counted. facts: by model. scored: where verdicts carry scores that are measured, too. Models are
    compared with the reference and with the one before them, and the most accurate model with the most accurate
    baseline.
    A case that a judge was to answer and has no verdict for counts as wrong, whatever the reason: see `due_cases`.
    Raises DataError if no case has a gold label, no model is given, or an answer cannot be joined.
    """
    baselines, facts = baselines or Baselines(), facts or {}
    training, options = training or TrainingRows(), options or AnalysisOptions()
    level, seed = options.level, options.seed
    _check_names(judgements, baselines, options.reference)

    gold_ids = {case.case_id for case in cases if case.gold is not None}
    outcomes = _outcomes(cases, {**judgements, **baselines.judgements}, contract, _due(gold_ids, judgements))
    of_models = {name: outcomes[name] for name in judgements}
    sampling: dict[str, Any] = {"level": level, "n_resamples": options.n_resamples, "seed": seed}
    estimates = {name: judge_estimates(one, **sampling) for name, one in outcomes.items()}
    audit = audit_judges(
        {name: judge_rows(cases, judgements[name], one, options.slices) for name, one in of_models.items()},
        estimates,
        {name: outcomes[name] for name in baselines.judgements},
        **sampling,
        families=options.families,
    )
    models = {}
    for name, one in outcomes.items():
        known = facts.get(name, JudgeFacts())
        models[name] = _model_result(one, estimates[name], known, judgements.get(name), contract.lenient, level)
    return with_claims(
        Results(
            task=contract.kind,
            split=split,
            n_cases=len(gold_ids),
            n_groups=next(iter(outcomes.values())).n_groups,
            n_without_gold=len(cases) - len(gold_ids),
            train_n=training.n,
            **_task_fields(contract),
            **sampling,
            reference=options.reference,
            models=models,
            skipped_baselines=dict(baselines.skipped),
            comparisons=compare_with_references(models, outcomes, options.reference, level=level, seed=seed),
            unpaired=compare_unpaired(of_models, seed),
            leakage=_plain(training.leakage),
            audit=audit,
            experts=experts_result(cases, judgements, contract=contract, slices=options.slices, **sampling),
            scores=None if scored is None else scores_result(cases, judgements, scored, contract=contract, **sampling),
        )
    )


def _task_fields(contract: TaskContract | LabelScale) -> dict[str, Any]:
    """What results keep of the task beside its kind."""
    return {
        "labels": contract.labels,
        "ordered": contract.ordered,
        "positive": contract.positive,
        "chance": chance_accuracy(contract.labels),
        "contract": {"fingerprint": contract.fingerprint(), "settings": contract.model_dump(mode="json")},
    }


def _check_names(judgements: Mapping[str, object], baselines: Baselines, reference: str | None) -> None:
    if not judgements:
        raise DataError(
            "no model's judgements were given, expected one model or more: there is nothing to summarise. Give its "
            "judgements under its name."
        )
    if both := sorted(set(judgements) & set(baselines.judgements)):
        raise DataError(
            f"{both[0]!r} names a model and a baseline, expected one of the two: give the model another name."
        )
    if reference is not None and reference not in judgements:
        raise DataError(
            f"reference {reference!r} is not among the models, expected one of {', '.join(judgements)}. Name one of "
            "them."
        )


def _due(gold_ids: set[str], judgements: Mapping[str, Sequence[Judgement]]) -> Mapping[str, AbstractSet[str]]:
    return due_cases(gold_ids, {name: {one.case_id for one in answers} for name, answers in judgements.items()})


def _outcomes(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    contract: TaskContract | LabelScale,
    due: Mapping[str, AbstractSet[str]],
) -> dict[str, Outcomes]:
    """Every judge's and baseline's answers, coded from the same cases. A baseline without an answer has no row."""
    return {
        name: code_outcomes(
            cases,
            answers,
            labels=contract.labels,
            positive=contract.positive,
            ordered=contract.ordered,
            answer_is_json=contract.answer_is_json,
            due=due.get(name, frozenset()),
        )
        for name, answers in judgements.items()
    }


def with_claims(results: Results) -> Results:
    """The results with every test of the page corrected together, and the sentences that this allows.

    For results that are complete except for notes: code that adds probes calls it again.
    """
    claims = decide(tests_of(results), results.level)
    comparisons = tuple(
        one.model_copy(
            update={"mcnemar": one.mcnemar.model_copy(update={"adjusted_p": _adjusted(claims, one.a, one.b)})}
        )
        for one in results.comparisons
    )
    update: dict[str, Any] = {"claims": claims, "comparisons": comparisons}
    if results.audit is not None:
        chance = dict.fromkeys(results.of_role("model"), results.chance)
        update["audit"] = _audit_with_claims(results.audit, claims, chance)
    if results.probes is not None:
        update["probes"] = with_probe_statements(results.probes, claims)
    results = results.model_copy(update=update)
    return results.model_copy(update={"statements": tuple(make_statements(results))})


def _adjusted(claims: Sequence[Claim], a: str, b: str, what: str = "accuracy") -> float | None:
    claim = find_claim(claims, "difference", (a, b), what)
    return None if claim is None else claim.adjusted_p


def _audit_with_claims(audit: Audit, claims: Sequence[Claim], chance: Mapping[str, float]) -> Audit:
    pairs = tuple(
        one.model_copy(
            update={
                "adjusted_p": _adjusted(claims, one.a, one.b),
                "tests": {
                    name: test.model_copy(update={"adjusted_p": _adjusted(claims, one.a, one.b, name)})
                    for name, test in one.tests.items()
                },
            }
        )
        for one in audit.pairs
    )
    audit = audit.model_copy(update={"pairs": pairs, "n_tests": n_tests(claims)})
    statements = audit_statements(audit, claims, chance)
    return audit.model_copy(
        update={
            "statements": tuple(one.text for one in statements),
            "about": tuple(one.about for one in statements),
        }
    )


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
    # Cases on which experts tie are rated, and no sample of those that nobody rated.
    measured_ids = {*outcomes.case_ids, *(case.case_id for case in cases if case.ratings)}
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


def _model_result(
    outcomes: Outcomes,
    estimates: JudgeEstimates,
    facts: JudgeFacts,
    answers: Sequence[Judgement] | None,
    lenient: bool,
    level: float,
) -> ModelResult:
    """One judge by itself. answers: what the model said; None of a baseline, whose labels were never read from text."""
    chance_test = accuracy_against_chance(outcomes.correct, outcomes.groups, chance_accuracy(outcomes.labels))
    return ModelResult(
        role="baseline" if answers is None else "model",
        n=len(outcomes.gold),
        n_unparsed=int((~outcomes.parsed).sum()),
        unparsed_reasons=_reasons(answers or (), set(outcomes.case_ids)),
        n_truncated=facts.n_truncated,
        n_missing=outcomes.n_missing,
        n_unmatched=outcomes.n_unmatched,
        metrics=estimates.metrics,
        per_class={label: ClassResult(**row) for label, row in per_class_metrics(outcomes).items()},
        confusion=Confusion(
            rows=outcomes.labels,
            columns=(*outcomes.labels, UNPARSED),
            counts=tuple(tuple(map(int, row)) for row in confusion_counts(outcomes)),
        ),
        chance_p=chance_test.p,
        chance_test=tested(chance_test),
        lineage=None if facts.lineage is None else _plain(facts.lineage),
        seconds=facts.seconds,
        lenient=lenient and answers is not None,
        usage=None if facts.usage is None else _plain(facts.usage),
        unanswered=outcomes.unanswered,
        prompts=_prompts(outcomes, facts.words_cut, level),
        labels=facts.labels,
    )


def _prompts(outcomes: Outcomes, words_cut: Mapping[str, int] | None, level: float) -> PromptsResult | None:
    """What shortening took away; None where nothing is known of the judge's prompts."""
    cut = np.array([-1 if words_cut is None else words_cut.get(case_id, -1) for case_id in outcomes.case_ids])
    if not (cut >= 0).any():
        return None

    def accuracy(rows: NDArray[np.bool_]) -> MetricResult | None:
        if not rows.any():
            return None
        return measured(clustered_wilson(outcomes.correct[rows], outcomes.groups[rows], level=level))

    return PromptsResult(
        n=int((cut >= 0).sum()),
        n_shortened=int((cut > 0).sum()),
        n_words_cut=int(cut[cut > 0].sum()),
        whole=accuracy(cut == 0),
        shortened=accuracy(cut > 0),
    )


def _reasons(judgements: Sequence[Judgement], case_ids: set[str]) -> dict[str, int]:
    """Reason -> count over the unreadable answers that are measured, commonest first."""
    counts = Counter(j.reason for j in judgements if isinstance(j, Unparsed) and j.case_id in case_ids)
    return dict(counts.most_common())


def _plain(value: Any) -> Any:
    """`value` as JSON holds it: mappings and sequences as dicts and lists, a number that is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return finite(value) if isinstance(value, float) else value
