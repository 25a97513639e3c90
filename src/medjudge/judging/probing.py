"""Puts judges to bias probes and to sampling: what is asked, and what the answers come to.

A probe's cases are made once and are the same for every judge. Their answers are held against those to the same cases
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjudge.data.probes import BESIDE_ATTACKS, PROBES, ProbedCase, named_probes, probe_cases
from medjudge.data.splits import seeded_sample
from medjudge.errors import DataError
from medjudge.judging.answer_store import Answer
from medjudge.judging.judge import Judge, Question, judgement_of
from medjudge.metrics.probes import (
    ConsistencyResult,
    JudgeProbes,
    ProbeResult,
    Probes,
    attack_rate,
    consistency_result,
    flip_rate,
    probe_result,
    self_consistency,
)
from medjudge.records import Case, Completion, Judgement, Verdict
from medjudge.settings.evaluate import EvaluateConfig
from medjudge.tasks.contract import TaskContract


@dataclass(frozen=True, slots=True)
class Probing:
    """What every judge is put to."""

    contract: TaskContract
    config: EvaluateConfig
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


def plan_probes(contract: TaskContract, config: EvaluateConfig, cases: Sequence[Case]) -> Probing | None:
    """The changed cases of every probe that `config` names; None where it names none and draws no samples."""
    if not config.probes and not config.samples:
        return None
    chosen = seeded_sample(cases, config.probe_cases, config.seed)
    names = named_probes(config.probes, contract)
    probed, skipped = {}, {}
    for name in names:
        # An rng of its own for each probe: naming one probe more must not change the others' cases.
        changed = probe_cases(name, chosen, contract, rng=np.random.default_rng(config.seed))
        if changed:
            probed[name] = changed
        else:
            skipped[name] = f"none of {len(chosen):,} cases can be changed so: {PROBES[name].change}."
    return Probing(contract, config, chosen, probed, skipped)


def put_to(judge: Judge, probing: Probing) -> Probed:
    """Asks one judge everything. What it was asked before a cut-off is not asked again."""
    answers, not_asked = {}, {}
    for name, changed in probing.probed.items():
        question = Question([one.case for one in changed], [one.contract for one in changed], f"probe {name}")
        try:
            answers[name] = judge.answers(question).first
        except DataError as error:  # longer instructions than the task's limit leaves room for, say
            not_asked[name] = str(error)
    config = probing.config
    samples: Sequence[Sequence[Answer]] = ()
    if config.samples:
        question = Question(probing.cases, None, "samples", config.samples, config.sample_temperature)
        samples = judge.answers(question).rows
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
        after = {probe: _read(probing.probed[probe], given) for probe, given in probed.probes.items()}
        beside = _beside(probing, before, after)
        flips = {probe: _flips(probing, probe, before, given, beside) for probe, given in after.items()}
        consistency = _consistency(probing, probed) if probed.samples else None
        judges[name] = JudgeProbes(flips=flips, consistency=consistency, not_asked=dict(probed.not_asked))
    return Probes(judges=judges, skipped=dict(probing.skipped))


def probe_rows(
    probing: Probing, judgements: Mapping[str, Sequence[Judgement]], answers: Mapping[str, Probed]
) -> Iterator[dict[str, Any]]:
    """One row per judge, probe and case, and one per sample: labels before and after, and what was written."""
    for name, probed in answers.items():
        before = {judgement.case_id: judgement for judgement in judgements[name]}
        for probe, answered in probed.probes.items():
            changed = probing.probed[probe]
            after = _read(changed, answered)
            for one, answer in zip(changed, answered, strict=True):
                first, second = before[one.case.case_id], after[one.case.case_id]
                expected = one.expected[first.label] if isinstance(first, Verdict) else None
                yield {
                    "model": name,
                    "probe": probe,
                    "case_id": one.case.case_id,
                    "label_before": first.label if isinstance(first, Verdict) else None,
                    "label_expected": expected,
                    **({"label_attacker": one.attacker} if one.attacker is not None else {}),
                    "label_after": second.label if isinstance(second, Verdict) else None,
                    "completion": answer.text if isinstance(answer, Completion) else None,
                }
        for case, drawn in zip(probing.cases, probed.samples, strict=bool(probed.samples)):
            for number, answer in enumerate(drawn):
                judgement = judgement_of(probing.contract, case, answer)
                yield {
                    "model": name,
                    "sample": number,
                    "case_id": case.case_id,
                    "label": judgement.label if isinstance(judgement, Verdict) else None,
                    "completion": answer.text if isinstance(answer, Completion) else None,
                }


def _read(changed: Sequence[ProbedCase], answers: Sequence[Answer]) -> dict[str, Judgement]:
    return {
        one.case.case_id: judgement_of(one.contract, one.case, answer)
        for one, answer in zip(changed, answers, strict=True)
    }


def _beside(
    probing: Probing, before: Mapping[str, Judgement], after: Mapping[str, Mapping[str, Judgement]]
) -> tuple[str, Mapping[str, bool]] | None:
    """The probe that attacks are held against, and which verdicts it changed; None where there is none."""
    for probe in BESIDE_ATTACKS:
        if probe not in after:
            continue
        changed = {}
        for one in probing.probed[probe]:
            first, second = before[one.case.case_id], after[probe][one.case.case_id]
            if isinstance(first, Verdict) and isinstance(second, Verdict):
                changed[one.case.case_id] = second.label != one.expected[first.label]
        if changed:
            return probe, changed
    return None


def _flips(
    probing: Probing,
    probe: str,
    before: Mapping[str, Judgement],
    after: Mapping[str, Judgement],
    beside: tuple[str, Mapping[str, bool]] | None,
) -> ProbeResult:
    config, changed = probing.config, probing.probed[probe]
    wanted = {one.case.case_id: one.attacker for one in changed if one.attacker is not None}
    groups = {one.case.case_id: one.case.group for one in changed}
    rate = flip_rate(
        before,
        after,
        {one.case.case_id: one.expected for one in changed},
        groups,
        # An attack wants one label of each case: what it does on balance says nothing.
        positive=None if wanted else probing.contract.positive,
        level=config.level,
        n_resamples=config.n_resamples,
        rng=np.random.default_rng(config.seed),
    )
    result = probe_result(rate, title=PROBES[probe].title, change=PROBES[probe].change, n_cases=len(probing.cases))
    if not wanted:
        return result
    attack = attack_rate(
        before,
        after,
        wanted,
        groups,
        beside=beside,
        level=config.level,
        n_resamples=config.n_resamples,
        rng=np.random.default_rng(config.seed),
    )
    return result.model_copy(update={"attack": attack})


def _consistency(probing: Probing, probed: Probed) -> ConsistencyResult:
    config, contract = probing.config, probing.contract
    place = {label: code for code, label in enumerate(contract.labels)}

    def code(case: Case, answer: Answer) -> int:
        judgement = judgement_of(contract, case, answer)
        # Unreadable answers are an outcome of their own, and agree with nothing, not even each other.
        return place[judgement.label] if isinstance(judgement, Verdict) else -1

    rows = list(zip(probing.cases, probed.samples, strict=True))
    # One case without gold leaves accuracy out: it would be of other cases than the consistency beside it.
    rated = all(case.gold is not None for case in probing.cases)
    agreement = self_consistency(
        np.array([[code(case, answer) for answer in drawn] for case, drawn in rows]),
        np.unique([case.group or f"case {case.case_id}" for case in probing.cases], return_inverse=True)[1],
        np.array([place[str(case.gold)] for case in probing.cases]) if rated else None,
        level=config.level,
        n_resamples=config.n_resamples,
        rng=np.random.default_rng(config.seed),
    )
    return consistency_result(agreement, temperature=config.sample_temperature)
