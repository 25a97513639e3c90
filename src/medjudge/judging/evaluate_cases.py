"""Every answer of every judge on the cases of an evaluation, and what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from medjudge import artifacts
from medjudge.data.leakage import LeakageReport
from medjudge.data.probes import CARRIED
from medjudge.data.verdict_rows import VerdictRow, write_verdicts
from medjudge.errors import DataError
from medjudge.inference.embeddings import embed_or_why_not
from medjudge.inference.endpoint import CHARACTERS_PER_TOKEN
from medjudge.inference.replies import thoughts_statement
from medjudge.judging.calibrated import apply_to, fit_on, read_calibrator, save_calibrator
from medjudge.judging.judge import Answer, Contestant, Question, endpoint_clients
from medjudge.judging.judge import judgement_of as judgement_of
from medjudge.judging.probing import Probed, plan_probes, probe_rows, put_to, summarise_probes
from medjudge.judging.reasoning import Measured, extractor_of, measure_reasoning
from medjudge.metrics.baselines import Baselines, every_baseline
from medjudge.metrics.calibrators import Calibrator
from medjudge.metrics.reasoning import ReasoningResults, summarise_reasoning
from medjudge.metrics.result_types import Results
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, TrainingRows, summarise, with_claims
from medjudge.metrics.wording import counted
from medjudge.recipe import Recipe
from medjudge.records import Case, Completion, Judgement, Rollout, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.settings.rewards import RewardSettings
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.text import prompt_text

CARRIED_PREFIXES = tuple(f"{kind}_" for kind in CARRIED)
"""Of slices that hold rewritten texts for a probe: text of a case, which the file of verdicts leaves out."""


LABELS_STATEMENT = (
    "Labels were scored, no text was written: every case has a verdict, and what is said here of formats and unparsed "
    "answers holds for this way of asking alone. Each verdict's confidence is its label's probability."
)


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """What one model said of the cases, in their order."""

    answers: list[Answer]
    lineage: dict[str, Any] | None
    """Of a model folder what weights it holds; of an endpoint what can be known of it."""
    usage: dict[str, Any] | None = None
    """Calls, cost and latency of an endpoint."""
    seconds: float = 0.0


def evaluate_cases(
    recipe: Recipe,
    models: Mapping[str, str],
    cases: Sequence[Case],
    train: Sequence[Case],
    leakage: LeakageReport,
    out_dir: Path,
    console: Console,
    *,
    split: str,
    parent: str | None = None,
    answered: Mapping[str, ModelAnswers] | None = None,
    validation: Sequence[Case] = (),
    is_run: bool = False,
) -> dict[str, Any]:
    """Answers, judgements, baselines, results; the two files. `answered`: models that need not be asked any more."""
    contract, config = recipe.contract, recipe.evaluate
    clients = endpoint_clients(recipe, models, console)
    probing = plan_probes(recipe, cases)
    asked: dict[str, Contestant] = {}
    told: dict[str, ModelAnswers] = {}
    probed: dict[str, Probed] = {}
    calibrators: dict[str, Calibrator] = {}
    calibrated: list[str] = []
    for name, where in models.items():
        if answered is not None and name in answered:
            told[name] = answered[name]
            continue
        one = asked[name] = Contestant(name, where, recipe, out_dir, console, client=clients.get(name), parent=parent)
        answers = [row[0] for row in one.answers(Question(cases, [contract] * len(cases)))]
        told[name] = ModelAnswers(answers, one.lineage, one.usage, one.seconds)
        if probing is not None:
            probed[name] = put_to(one, probing)
        calibrator, sentence = _calibrator(one, recipe, validation, saved=not is_run)
        calibrators |= {name: calibrator} if calibrator is not None else {}
        calibrated += [sentence] if sentence else []
        one.close()
    said = {name: told[name].answers for name in models}
    judgements = {
        name: [judgement_of(contract, case, answer) for case, answer in zip(cases, done, strict=True)]
        for name, done in said.items()
    }
    as_stated = judgements
    judgements = {
        name: apply_to(calibrators[name], said_of) if name in calibrators else said_of
        for name, said_of in judgements.items()
    }
    rng = np.random.default_rng(config.seed)
    baselines = (
        every_baseline(
            train,
            cases,
            kind=contract.kind,
            labels=contract.labels,
            positive=contract.positive,
            question_fields=contract.group_fields,
            rng=rng,
            embed=lambda: embed_or_why_not(config.embedding, recipe.model.device),
        )
        if config.baselines
        else Baselines()
    )
    results = summarise(
        cases,
        judgements,
        contract=contract,
        split=split,
        baselines=baselines,
        facts={name: _facts(cases, one) for name, one in told.items()},
        training=TrainingRows(len(train) or None, {**leakage.to_json(), "statement": leakage.summary_line}),
        options=AnalysisOptions(
            reference="base" if "base" in models else next(iter(models)),
            slices=recipe.data.slices,
            level=config.level,
            n_resamples=config.n_resamples,
            seed=config.seed,
        ),
    )
    measured = _measure_reasoning(recipe, cases, train, judgements, said)
    if measured is not None:
        results = results.model_copy(update={"reasoning": _reasoning_results(recipe, cases, measured, results)})
    if probing is not None:
        results = with_claims(results.model_copy(update={"probes": summarise_probes(probing, judgements, probed)}))
    notes = (*baselines.notes, *([LABELS_STATEMENT] if config.mode == "labels" else []))
    notes += (*_sent_whole(contract, cases, list(clients)), *_thoughts(contract, told), *calibrated)
    results = results.model_copy(update={"statements": (*results.statements, *notes)})
    artifacts.write_json(out_dir / artifacts.RESULTS, results.to_json())
    rows = [
        replace(
            VerdictRow.of(name, _without_carried(case), judgement, answer),
            confidence_as_stated=_confidence(as_stated[name][i]) if name in calibrators else None,
            reasoning=measured.numbers[name][i].to_json() if measured is not None else None,
        )
        for name in models
        for i, (case, judgement, answer) in enumerate(zip(cases, judgements[name], said[name], strict=True))
    ]
    rows += [
        VerdictRow.of(name, _without_carried(case), judgement, role="baseline")
        for name, guesses in baselines.judgements.items()
        for case, judgement in zip(cases, guesses, strict=True)
    ]
    write_verdicts(out_dir / artifacts.VERDICTS, rows)
    if probing is not None:
        artifacts.write_lines(out_dir / artifacts.PROBES, probe_rows(probing, judgements, probed))
    if recipe.report.show_text:  # the page is to show prompts, and nothing else keeps them outside of a run
        prompts = ({"case_id": c.case_id, "prompt": prompt_text(contract.messages(c))} for c in cases)
        artifacts.write_lines(out_dir / artifacts.PROMPTS, prompts)
    for one in asked.values():
        one.forget()
    return {
        "n_cases": results.n_cases,
        "n_prompts_shortened": {name: one.prompts.n_shortened for name, one in results.models.items() if one.prompts},
        **{f"accuracy {name}": round(r.metrics["accuracy"].value or 0.0, 4) for name, r in results.models.items()},
    }


def _facts(cases: Sequence[Case], one: ModelAnswers) -> JudgeFacts:
    return JudgeFacts(
        lineage=one.lineage,
        seconds=round(one.seconds, 2),
        usage=one.usage,
        n_truncated=sum(isinstance(answer, Completion) and not answer.stopped for answer in one.answers),
        words_cut={case.case_id: answer.n_words_cut for case, answer in zip(cases, one.answers, strict=True)},
    )


def _calibrator(
    judge: Contestant, recipe: Recipe, validation: Sequence[Case], *, saved: bool
) -> tuple[Calibrator | None, str]:
    """The judge's calibrator and a sentence about it: fitted on `validation`, or else the one saved with the model."""
    config, contract = recipe.evaluate, recipe.contract
    if config.calibrator != "none" and validation:
        answers = judge.answers(Question(validation, [contract] * len(validation), config.calibration_split))
        said = [judgement_of(contract, case, row[0]) for case, row in zip(validation, answers, strict=True)]
        try:
            calibrator = fit_on(config.calibrator, validation, said)
        except DataError as error:
            return None, f"{judge.name}'s confidences were not calibrated: {error}"
        if judge.folder is not None and judge.lineage is not None:  # not into a hub's cache
            save_calibrator(
                judge.folder,
                calibrator,
                mode=config.mode,
                weights_sha256=judge.weights_sha256,
                contract=contract,
                data=config.calibration_split,
            )
        return calibrator, _told(judge.name, calibrator, f"the split {config.calibration_split!r}")
    if not saved or judge.folder is None:
        return None, ""
    found = read_calibrator(judge.folder, mode=config.mode, weights_sha256=judge.weights_sha256, contract=contract)
    return found, "" if found is None else _told(judge.name, found, "the rows named in its calibration.json")


def _told(name: str, calibrator: Calibrator, rows: str) -> str:
    return (
        f"{name}'s confidences are calibrated ({calibrator.kind}, fitted on {counted(calibrator.n, 'verdict')} of "
        f"{rows}); the file of verdicts has them as stated, too."
    )


def _confidence(judgement: Judgement) -> float | None:
    return judgement.confidence if isinstance(judgement, Verdict) else None


def _sent_whole(contract: TaskContract, cases: Sequence[Case], endpoints: Sequence[str]) -> tuple[str, ...]:
    """Says that an endpoint saw more than a local model would, where it did."""
    if not endpoints:
        return ()
    characters = [sum(len(turn["content"]) for turn in contract.messages(case)) for case in cases]
    n_long = sum(n / CHARACTERS_PER_TOKEN > contract.max_prompt_tokens for n in characters)
    if not n_long:
        return ()
    return (
        f"Prompts go to endpoints ({', '.join(endpoints)}) whole: `max_prompt_tokens` binds models of this machine "
        f"only. By {CHARACTERS_PER_TOKEN} characters a token {n_long:,} of {counted(len(cases), 'prompt')} are longer "
        f"than its {contract.max_prompt_tokens:,}, so the endpoints saw more of those cases.",
    )


def _thoughts(contract: TaskContract, told: Mapping[str, ModelAnswers]) -> tuple[str, ...]:
    """Says how endpoints sent their thoughts, where any did."""
    usages = {name: one.usage for name, one in told.items() if one.usage is not None}
    sentence = thoughts_statement(usages, has_think_block=contract.has_think_block)
    return () if sentence is None else (sentence,)


def _measure_reasoning(
    recipe: Recipe,
    cases: Sequence[Case],
    train: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    answers: Mapping[str, Sequence[Answer]],
) -> Measured | None:
    """The reasoning of every model's completions; None where the recipe does not ask for it, or nothing was written."""
    config = recipe.evaluate
    if not config.reasoning or config.mode == "labels":
        return None
    rollouts = {
        name: [
            Rollout(case, judgement, answer)
            for case, judgement, answer in zip(cases, judgements[name], done, strict=True)
            if isinstance(answer, Completion)
        ]
        for name, done in answers.items()
    }
    settings = RewardSettings(embedding=config.embedding, llm=config.llm)
    known = [case for case in train if case.reason] or cases
    context = RewardContext(recipe.contract, known, settings, config.seed, recipe.model.device)
    return measure_reasoning(rollouts, context, extractor_of(config.entities))


def _reasoning_results(recipe: Recipe, cases: Sequence[Case], measured: Measured, results: Results) -> ReasoningResults:
    config = recipe.evaluate
    return summarise_reasoning(
        measured.numbers,
        [case.group or case.case_id for case in cases],
        reference=str(results.reference),
        level=config.level,
        n_resamples=config.n_resamples,
        seed=config.seed,
        facts=measured.facts,
        not_measured=measured.not_measured,
    )


def _without_carried(case: Case) -> Case:
    kept = {name: value for name, value in case.slices.items() if not name.startswith(CARRIED_PREFIXES)}
    return replace(case, slices=kept)
