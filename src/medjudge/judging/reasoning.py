"""The models behind the reasoning rewards as measures: what an evaluation says of reasoning, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medjudge.metrics.entities import SPACY, EntityExtractor, SpacyEntities, TermList
from medjudge.metrics.reasoning import ReasoningNumbers
from medjudge.records import Rollout, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.embedding import embedding
from medjudge.rewards.llm import LlmReward, llm_reward
from medjudge.rewards.rules import count_citations
from medjudge.synthetic.terms import builtin_terms
from medjudge.tasks.citations import given_ids, without_unseen

HIGHEST_MARK = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """The reasoning of some models on the same cases."""

    numbers: Mapping[str, list[ReasoningNumbers]]
    """Model -> one entry per case."""
    facts: Mapping[str, str]
    """What was measured with."""
    not_measured: Mapping[str, str]
    """Metric -> why it was not asked for."""


def extractor_of(name: str) -> EntityExtractor:
    """`builtin`, or `spacy:PIPELINE`."""
    if name.startswith(SPACY):
        return SpacyEntities(name.removeprefix(SPACY))
    return TermList("builtin", builtin_terms())


def measure_reasoning(
    rollouts: Mapping[str, Sequence[Rollout]], context: RewardContext, entities: EntityExtractor
) -> Measured:
    """Alignment, marks, entities and citations of every model's answers.

    context: `settings.embedding` and `settings.llm` say with which models; the reasons of its `cases` tell how alike
    those of different cases are. Raises ConfigError where a part is not installed, ModelError where a judge fails.
    """
    numbers = {name: [_citations(rollout) for rollout in rows] for name, rows in rollouts.items()}
    facts: dict[str, str] = {}
    not_measured: dict[str, str] = {}
    has_reasons = any(rollout.case.reason for rows in rollouts.values() for rollout in rows)
    if has_reasons:
        similarity = embedding(context)
        for name, rows in rollouts.items():
            values = similarity(rows)
            numbers[name] = [replace(n, alignment=value) for n, value in zip(numbers[name], values, strict=True)]
            numbers[name] = _with_entities(numbers[name], rows, entities)
        facts["alignment"] = f"{context.settings.embedding.model}, 0 at cosine {similarity.baseline:.2f}"
        facts["entities"] = entities.name
    if context.settings.llm.judge is None:
        not_measured["judge_score"] = "no judge is named (`evaluate.llm.judge`)"
    elif has_reasons:
        marks = llm_reward(context)
        for name, rows in rollouts.items():
            numbers[name] = [
                replace(n, judge_score=None if value is None else HIGHEST_MARK * value)
                for n, value in zip(numbers[name], marks(rows), strict=True)
            ]
        facts["judge"] = _judge_facts(marks)
    return Measured(numbers, facts, not_measured)


def _citations(rollout: Rollout) -> ReasoningNumbers:
    n_cited, n_valid = count_citations(rollout)
    has_evidence = bool(given_ids(rollout.inputs.get("evidence", "")))
    return ReasoningNumbers(n_cited=n_cited, n_valid=n_valid, has_evidence=has_evidence)


def _with_entities(
    numbers: Sequence[ReasoningNumbers], rollouts: Sequence[Rollout], entities: EntityExtractor
) -> list[ReasoningNumbers]:
    generated = entities([without_unseen(_rationale(rollout), ()) for rollout in rollouts])
    gold = entities([without_unseen(rollout.case.reason or "", ()) for rollout in rollouts])
    return [
        replace(n, n_common=len(ours & theirs), n_generated=len(ours), n_gold=len(theirs)) if r.case.reason else n
        for n, r, ours, theirs in zip(numbers, rollouts, generated, gold, strict=True)
    ]


def _judge_facts(marks: LlmReward) -> str:
    report = marks.report()
    failed = f", {report['n_failed']:,} not marked" if report["n_failed"] else ""
    return f"{report['judge']}, {report['n_marked']:,} marked{failed}"


def _rationale(rollout: Rollout) -> str:
    return rollout.judgement.rationale if isinstance(rollout.judgement, Verdict) else ""
