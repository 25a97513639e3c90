"""Puts judges to bias probes and to sampling: what is asked, and what the answers come to.

A probe's cases are made once and are the same for every judge. Their answers are held against those to the same cases
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjudge.data.probes import PROBES, ProbedCase, probe_cases, probes_for
from medjudge.data.splits import seeded_sample
from medjudge.errors import DataError
from medjudge.judging.judge import Answer, Contestant, Question, judgement_of
from medjudge.metrics.probes import (
    ConsistencyResult,
    JudgeProbes,
    ProbeResult,
    Probes,
    consistency_result,
    flip_rate,
    probe_result,
    self_consistency,
)
from medjudge.recipe import Recipe
from medjudge.records import Case, Completion, Judgement, Verdict

ALL = "all"
"""Every probe that fits the task."""


@dataclass(frozen=True, slots=True)
class Probing:
    """What every judge is put to."""

    recipe: Recipe
    cases: Sequence[Case]
    """Those that are probed and sampled."""
    probed: Mapping[str, Sequence[ProbedCase]]
    """Probe -> the cases that it can change, changed."""
    skipped: Mapping[str, str]
    """Probe -> why it can change none."""


@dataclass(frozen=True, slots=True)
class Probed:
    """One judge's answers to what it was put to."""

    probes: Mapping[str, Sequence[Answer]]
    samples: Sequence[Sequence[Answer]]
    """(n_cases, k); empty where none was drawn."""
    not_asked: Mapping[str, str]
    """Probe -> why this model cannot be asked so: the changed prompts do not fit it."""


def plan_probes(recipe: Recipe, cases: Sequence[Case]) -> Probing | None:
    """The changed cases of every probe that the recipe names; None where it names none and draws no samples."""
    config = recipe.evaluate
    if not config.probes and not config.samples:
        return None
    chosen = seeded_sample(cases, config.probe_cases, config.seed)
    names = list(probes_for(recipe.contract)) if ALL in config.probes else list(dict.fromkeys(config.probes))
    probed, skipped = {}, {}
    for name in names:
        changed = probe_cases(name, chosen, recipe.contract, rng=np.random.default_rng(config.seed))
        if changed:
            probed[name] = changed
        else:
            skipped[name] = f"none of {len(chosen):,} cases can be changed so: {PROBES[name].change}."
    return Probing(recipe, chosen, probed, skipped)


def put_to(contestant: Contestant, probing: Probing) -> Probed:
    """Asks one model everything. What it was asked before a cut-off is not asked again."""
    answers, not_asked = {}, {}
    for name, changed in probing.probed.items():
        question = Question([one.case for one in changed], [one.contract for one in changed], f"probe {name}")
        try:
            answers[name] = [row[0] for row in contestant.answers(question)]
        except DataError as error:  # longer instructions than the task's limit leaves room for, say
            not_asked[name] = str(error)
    config = probing.recipe.evaluate
    samples: Sequence[Sequence[Answer]] = ()
    if config.samples:
        contracts = [probing.recipe.contract] * len(probing.cases)
        samples = contestant.answers(
            Question(probing.cases, contracts, "samples", config.samples, config.sample_temperature)
        )
    return Probed(answers, samples, not_asked)


def summarise_probes(
    probing: Probing, judgements: Mapping[str, Sequence[Judgement]], answers: Mapping[str, Probed]
) -> Probes:
    """Flip rates and self-consistency of every judge, without the sentences: `summary.with_claims` makes them.

    judgements: judge -> its verdicts on the cases as they are.
    """
    judges = {}
    for name, probed in answers.items():
        before = {judgement.case_id: judgement for judgement in judgements[name]}
        flips = {
            probe: _flips(probing, probe, before, _read(probing.probed[probe], said))
            for probe, said in probed.probes.items()
        }
        consistency = _consistency(probing, probed) if probed.samples else None
        judges[name] = JudgeProbes(flips=flips, consistency=consistency, not_asked=dict(probed.not_asked))
    return Probes(judges=judges, skipped=dict(probing.skipped))


def probe_rows(
    probing: Probing, judgements: Mapping[str, Sequence[Judgement]], answers: Mapping[str, Probed]
) -> Iterator[dict[str, Any]]:
    """One row per judge, probe and case, and one per sample: labels before and after, and what was written."""
    for name, probed in answers.items():
        before = {judgement.case_id: judgement for judgement in judgements[name]}
        for probe, said in probed.probes.items():
            changed = probing.probed[probe]
            after = _read(changed, said)
            for one, answer in zip(changed, said, strict=True):
                first, second = before[one.case.case_id], after[one.case.case_id]
                expected = one.expected[first.label] if isinstance(first, Verdict) else None
                yield {
                    "model": name,
                    "probe": probe,
                    "case_id": one.case.case_id,
                    "label_before": first.label if isinstance(first, Verdict) else None,
                    "label_expected": expected,
                    "label_after": second.label if isinstance(second, Verdict) else None,
                    "completion": answer.text if isinstance(answer, Completion) else None,
                }
        for case, drawn in zip(probing.cases, probed.samples, strict=bool(probed.samples)):
            for number, answer in enumerate(drawn):
                judgement = judgement_of(probing.recipe.contract, case, answer)
                yield {
                    "model": name,
                    "sample": number,
                    "case_id": case.case_id,
                    "label": judgement.label if isinstance(judgement, Verdict) else None,
                    "completion": answer.text if isinstance(answer, Completion) else None,
                }


def _read(changed: Sequence[ProbedCase], said: Sequence[Answer]) -> dict[str, Judgement]:
    return {
        one.case.case_id: judgement_of(one.contract, one.case, answer)
        for one, answer in zip(changed, said, strict=True)
    }


def _flips(
    probing: Probing, probe: str, before: Mapping[str, Judgement], after: Mapping[str, Judgement]
) -> ProbeResult:
    config, changed = probing.recipe.evaluate, probing.probed[probe]
    found = flip_rate(
        before,
        after,
        {one.case.case_id: one.expected for one in changed},
        {one.case.case_id: one.case.group for one in changed},
        positive=probing.recipe.contract.positive,
        level=config.level,
        n_resamples=config.n_resamples,
        rng=np.random.default_rng(config.seed),
    )
    told = PROBES[probe]
    return probe_result(found, title=told.title, change=told.change, n_cases=len(probing.cases))


def _consistency(probing: Probing, probed: Probed) -> ConsistencyResult:
    config, contract = probing.recipe.evaluate, probing.recipe.contract
    place = {label: code for code, label in enumerate(contract.labels)}

    def code(case: Case, answer: Answer) -> int:
        judgement = judgement_of(contract, case, answer)
        return place[judgement.label] if isinstance(judgement, Verdict) else -1

    rows = list(zip(probing.cases, probed.samples, strict=True))
    rated = all(case.gold is not None for case in probing.cases)
    found = self_consistency(
        np.array([[code(case, answer) for answer in drawn] for case, drawn in rows]),
        np.unique([case.group or f"case {case.case_id}" for case in probing.cases], return_inverse=True)[1],
        np.array([place[str(case.gold)] for case in probing.cases]) if rated else None,
        level=config.level,
        n_resamples=config.n_resamples,
        rng=np.random.default_rng(config.seed),
    )
    return consistency_result(found, temperature=config.sample_temperature)
