"""Every answer of every judge on the cases of an evaluation, and what is measured of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medjudge import artifacts
from medjudge.data.leakage import LeakageReport
from medjudge.data.probes import CARRIED
from medjudge.data.verdict_rows import VerdictRow, write_verdicts
from medjudge.errors import ConfigError, DataError
from medjudge.inference.embeddings import embed_or_why_not
from medjudge.inference.endpoint import CHARACTERS_PER_TOKEN
from medjudge.inference.replies import thoughts_statement
from medjudge.judging.answer_store import AnswerStore
from medjudge.judging.calibrated import apply_to, fit_on, save_calibrator
from medjudge.judging.judge import Answers, Judge, JudgeSettings, Question, judgement_of
from medjudge.judging.label_words import labels_statements
from medjudge.judging.probing import Probed, Probing, plan_probes, probe_rows, put_to, summarise_probes
from medjudge.judging.reasoning import Measured, extractor_of, measure_reasoning
from medjudge.metrics.baselines import Baselines, every_baseline
from medjudge.metrics.calibrators import Calibrator
from medjudge.metrics.coverage import guard_sentence
from medjudge.metrics.preferences import Preferences, preferences
from medjudge.metrics.reasoning import ReasoningResults, summarise_reasoning
from medjudge.metrics.result_types import GuardResult, LabelsResult, Results
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, TrainingRows, summarise, with_claims
from medjudge.metrics.wording import counted
from medjudge.records import Case, Completion, Judgement, LabelScores, Rollout, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.settings.data import LeakageConfig
from medjudge.settings.evaluate import EvaluateConfig
from medjudge.settings.model import ModelConfig
from medjudge.settings.rewards import RewardSettings
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.pairwise import PairwiseContract
from medjudge.tasks.text import prompt_text

log = logging.getLogger(__name__)

CARRIED_PREFIXES = tuple(f"{kind}_" for kind in CARRIED)
"""Of slices that hold rewritten texts for a probe: text of a case, which the file of verdicts leaves out."""


LABELS_STATEMENT = (
    "Labels were scored, and no text was judged: what is said here of formats and unparsed answers holds for this way "
    "of asking alone. Each verdict's confidence is its label's probability."
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is evaluated, and how."""

    contract: TaskContract
    models: Mapping[str, str]
    """Name -> folder, hub id or endpoint; compared with `base` where there is one, else with the first."""
    cases: Sequence[Case]
    split: str
    """What the rows are called in results."""
    config: EvaluateConfig
    model: ModelConfig
    train: Sequence[Case] = ()
    """For baselines; () where the rows of the training are not known."""
    validation: Sequence[Case] = ()
    """Calibrators are fitted on these, where `config.calibrator` names a kind."""
    leakage: LeakageReport = field(
        default_factory=lambda: LeakageReport((), {}, LeakageConfig().near_duplicate_threshold)
    )
    """Of `train` into `cases`."""
    slices: tuple[str, ...] = ()
    show_text: bool = False
    """Whether prompts are written beside the results, for a page that shows them."""
    parent: str | None = None
    """The weights that adapters are loaded on."""
    uses_saved_calibrators: bool = True
    """Whether a calibrator that lies with a model is applied where none is fitted here."""

    @property
    def takes_saved_calibrators(self) -> bool:
        """Whether no calibrator is fitted here and those that lie with the models are applied."""
        return self.uses_saved_calibrators and (self.config.calibrator == "none" or not self.validation)


@dataclass(frozen=True, slots=True)
class Judged:
    """All that one judge gave, and what it was read as."""

    judge: Judge
    answers: Answers
    lineage: dict[str, Any] | None
    """Of a model folder what weights it holds; of an endpoint what can be known of it."""
    usage: dict[str, Any] | None
    """Calls, cost and latency of an endpoint, on the cases as they are: probes and calibration are not counted in."""
    judgements: list[Judgement]
    """With calibrated confidences, where there is a calibrator."""
    as_stated: list[Judgement]
    probed: Probed | None
    is_calibrated: bool
    calibrated: str
    """A sentence about the calibrator; "" where there is none."""

    @property
    def n_truncated(self) -> int:
        """Answers that the token limit cut off."""
        return sum(isinstance(answer, Completion) and not answer.stopped for answer in self.answers.first)


def open_judges(evaluation: Evaluation, store: AnswerStore) -> dict[str, Judge]:
    """A judge for each model, all made before the first is asked: a missing key or another contract shows at once."""
    for name in evaluation.config.endpoints:
        if name not in evaluation.models:
            raise ConfigError(
                f"`evaluate.endpoints` has settings for {name!r}, but the models are: {', '.join(evaluation.models)}. "
                "Name one of these, or take the settings out."
            )
    judges = {}
    for name, where in evaluation.models.items():
        settings = JudgeSettings.of(name, evaluation.model, evaluation.config, evaluation.parent)
        judges[name] = Judge(name, where, evaluation.contract, settings, store=store, doing="evaluate")
        if evaluation.takes_saved_calibrators:
            judges[name].check_saved_calibrator()
    return judges


def evaluate_cases(evaluation: Evaluation, out_dir: Path, judges: Mapping[str, Judge] | None = None) -> dict[str, Any]:
    """Answers, judgements, baselines, results; the files of an evaluation in `out_dir`. Returns the numbers of a line.

    judges: by the names of `models`, where a caller has made them itself; their store is then left as it is.
    """
    store = AnswerStore(out_dir)
    opened = judges if judges is not None else open_judges(evaluation, store)
    # All before the first is asked: where texts are sent must be known before any is sent.
    for judge in opened.values():
        judge.announce()
    probing = plan_probes(evaluation.contract, evaluation.config, evaluation.cases)
    judged = {name: _judge(judge, evaluation, probing) for name, judge in opened.items()}
    baselines = _baselines(evaluation)
    broken = [evaluation.contract.guarded_inputs(case).n_broken for case in evaluation.cases]
    guard = GuardResult(is_on=evaluation.contract.guard, n_cases=sum(n > 0 for n in broken), n_pieces=sum(broken))
    results = _summarise(evaluation, judged, baselines).model_copy(update={"guard": guard})
    if isinstance(evaluation.contract, PairwiseContract):
        results = results.model_copy(update={"preferences": _preferences(evaluation, judged)})
    measured = _measure_reasoning(evaluation, judged)
    if measured is not None:
        results = results.model_copy(update={"reasoning": _reasoning_results(evaluation, measured, results)})
    judgements = {name: one.judgements for name, one in judged.items()}
    probed = {name: one.probed for name, one in judged.items() if one.probed is not None}
    if probing is not None:
        results = with_claims(results.model_copy(update={"probes": summarise_probes(probing, judgements, probed)}))
    results = results.model_copy(
        update={
            "statements": (
                *results.statements,
                *(results.preferences.statements if results.preferences is not None else ()),
                *filter(None, (guard_sentence(guard, len(broken)),)),
                *_statements(evaluation, judged, baselines),
            )
        }
    )
    artifacts.write_json(out_dir / artifacts.RESULTS, results.to_json())
    write_verdicts(out_dir / artifacts.VERDICTS, _verdict_rows(evaluation, judged, baselines, measured, broken))
    if probing is not None:
        artifacts.write_lines(out_dir / artifacts.PROBES, probe_rows(probing, judgements, probed))
    if evaluation.show_text:  # the page is to show prompts, and nothing else keeps them outside of a run
        artifacts.write_lines(out_dir / artifacts.PROMPTS, _prompts(evaluation))
    if judges is None:
        # Last: until the results are written, a killed process finds its answers again.
        store.clear()
    return {
        "n_cases": results.n_cases,
        "n_prompts_shortened": {name: one.prompts.n_shortened for name, one in results.models.items() if one.prompts},
        **{f"accuracy {name}": round(r.metrics["accuracy"].value or 0.0, 4) for name, r in results.models.items()},
    }


# --- asking -----------------------------------------------------------------------------------------------------------


def _judge(judge: Judge, evaluation: Evaluation, probing: Probing | None) -> Judged:
    """Asks one judge everything, then lets its weights go."""
    answers = judge.answers(Question(evaluation.cases))
    # Read before probes and calibration: cost and latency are to be of the cases as they are.
    lineage, usage = judge.lineage, judge.usage
    probed = put_to(judge, probing) if probing is not None else None
    calibrator, sentence = _calibrator(judge, evaluation)
    # One model's weights at a time: two may not fit in memory.
    judge.close()
    # Kept beside the calibrated ones: both stand in the file of verdicts.
    as_stated = [
        judgement_of(evaluation.contract, case, answer)
        for case, answer in zip(evaluation.cases, answers.first, strict=True)
    ]
    judgements = apply_to(calibrator, as_stated) if calibrator is not None else as_stated
    return Judged(judge, answers, lineage, usage, judgements, as_stated, probed, calibrator is not None, sentence)


def _calibrator(judge: Judge, evaluation: Evaluation) -> tuple[Calibrator | None, str]:
    """The judge's calibrator and a sentence about it: fitted on `validation`, or else the one saved with the model."""
    config, validation = evaluation.config, evaluation.validation
    if config.calibrator != "none" and validation:
        judgements, _ = judge.judge(validation, config.calibration_split)
        try:
            calibrator = fit_on(config.calibrator, validation, judgements)
        except DataError as error:
            return None, f"{judge.name}'s confidences were not calibrated: {error}"
        if judge.folder is not None and judge.lineage is not None:  # not into a hub's cache
            _save(judge, judge.folder, calibrator, evaluation)
        return calibrator, _calibrated_sentence(judge.name, calibrator, f"the split {config.calibration_split!r}")
    calibrator_or_none = judge.saved_calibrator() if evaluation.takes_saved_calibrators else None
    if calibrator_or_none is None:
        return None, ""
    rows = "the rows named in its calibration.json"
    return calibrator_or_none, _calibrated_sentence(judge.name, calibrator_or_none, rows)


def _save(judge: Judge, folder: Path, calibrator: Calibrator, evaluation: Evaluation) -> None:
    """With the model, for later commands. These results need no file, so a model that cannot be written is no error."""
    try:
        save_calibrator(
            folder,
            calibrator,
            mode=evaluation.config.mode,
            weights_sha256=judge.weights_sha256,
            contract=evaluation.contract,
            data=evaluation.config.calibration_split,
        )
    except OSError as error:
        why = error.strerror or type(error).__name__
        log.warning("%s: its calibrator is used here, but not saved in %s: %s", judge.name, folder, why)


def _calibrated_sentence(name: str, calibrator: Calibrator, rows: str) -> str:
    return (
        f"{name}'s confidences are calibrated ({calibrator.kind}, fitted on {counted(calibrator.n, 'verdict')} of "
        f"{rows}); the file of verdicts has them as stated, too."
    )


# --- measuring --------------------------------------------------------------------------------------------------------


def _baselines(evaluation: Evaluation) -> Baselines:
    contract, config = evaluation.contract, evaluation.config
    if not config.baselines:
        return Baselines()
    return every_baseline(
        evaluation.train,
        evaluation.cases,
        kind=contract.kind,
        labels=contract.labels,
        positive=contract.positive,
        question_fields=contract.group_fields,
        # A fresh rng: baselines must not move with what was drawn before them.
        rng=np.random.default_rng(config.seed),
        embed=lambda: embed_or_why_not(config.embedding, evaluation.model.device),
    )


def _summarise(evaluation: Evaluation, judged: Mapping[str, Judged], baselines: Baselines) -> Results:
    config = evaluation.config
    return summarise(
        evaluation.cases,
        {name: one.judgements for name, one in judged.items()},
        contract=evaluation.contract,
        split=evaluation.split,
        baselines=baselines,
        facts={name: _facts(evaluation.cases, one) for name, one in judged.items()},
        training=TrainingRows(
            len(evaluation.train) or None,
            {**evaluation.leakage.to_json(), "statement": evaluation.leakage.summary_line},
        ),
        options=AnalysisOptions(
            # Against the base where there is one: the differences then say what training added.
            reference="base" if "base" in judged else next(iter(judged)),
            slices=evaluation.slices,
            level=config.level,
            n_resamples=config.n_resamples,
            seed=config.seed,
        ),
    )


def _preferences(evaluation: Evaluation, judged: Mapping[str, Judged]) -> Preferences:
    config = evaluation.config
    return preferences(
        evaluation.cases,
        {name: one.judgements for name, one in judged.items()},
        level=config.level,
        n_resamples=config.n_resamples,
        seed=config.seed,
    )


def _facts(cases: Sequence[Case], one: Judged) -> JudgeFacts:
    return JudgeFacts(
        lineage=one.lineage,
        seconds=round(one.answers.seconds, 2),
        usage=one.usage,
        n_truncated=one.n_truncated,
        labels=_labels_result(one),
        words_cut={case.case_id: answer.n_words_cut for case, answer in zip(cases, one.answers.first, strict=True)},
    )


def _labels_result(one: Judged) -> LabelsResult | None:
    if one.judge.settings.mode != "labels":
        return None
    scores = [answer for answer in one.answers.first if isinstance(answer, LabelScores)]
    most = [s.mass if s.mass_most is None else s.mass_most for s in scores]
    n = max(1, len(scores))
    return LabelsResult(
        n=len(scores),
        n_without=len(one.answers.first) - len(scores),
        outside=1 - sum(s.mass for s in scores) / n,
        outside_least=1 - sum(most) / n,
        n_bounded=sum(bool(s.bounded) for s in scores),
        otherwise_written=sum(s.mass_otherwise_written for s in scores) / n,
    )


def _statements(evaluation: Evaluation, judged: Mapping[str, Judged], baselines: Baselines) -> Iterator[str]:
    """What a reader of the numbers must know, beside what the tests support."""
    yield from baselines.notes
    if evaluation.config.mode == "labels":
        yield LABELS_STATEMENT
        for name, one in judged.items():
            yield from labels_statements(name, _labels_result(one), one.judge.engine.client)
    endpoints = [name for name, one in judged.items() if one.judge.engine.client is not None]
    yield from _sent_whole(evaluation.contract, evaluation.cases, endpoints)
    usages = {name: one.usage for name, one in judged.items() if one.usage is not None}
    thoughts = thoughts_statement(usages, has_think_block=evaluation.contract.has_think_block)
    if thoughts is not None:
        yield thoughts
    for one in judged.values():
        yield from filter(None, (one.calibrated, one.judge.contract_note))


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


def _measure_reasoning(evaluation: Evaluation, judged: Mapping[str, Judged]) -> Measured | None:
    """The reasoning of every model's completions; None where it is not asked for, or nothing was written."""
    config = evaluation.config
    if not config.reasoning or config.mode == "labels":
        return None
    rollouts = {
        name: [
            Rollout(case, judgement, answer)
            for case, judgement, answer in zip(evaluation.cases, one.judgements, one.answers.first, strict=True)
            if isinstance(answer, Completion)
        ]
        for name, one in judged.items()
    }
    settings = RewardSettings(embedding=config.embedding, llm=config.llm)
    # The similarity of unrelated reasons is estimated on other cases than those measured, where there are any.
    known = [case for case in evaluation.train if case.reason] or evaluation.cases
    context = RewardContext(evaluation.contract, known, settings, config.seed, evaluation.model.device)
    return measure_reasoning(rollouts, context, extractor_of(config.entities))


def _reasoning_results(evaluation: Evaluation, measured: Measured, results: Results) -> ReasoningResults:
    config = evaluation.config
    return summarise_reasoning(
        measured.numbers,
        [case.group or case.case_id for case in evaluation.cases],
        reference=str(results.reference),
        level=config.level,
        n_resamples=config.n_resamples,
        seed=config.seed,
        facts=measured.facts,
        not_measured=measured.not_measured,
    )


# --- writing ----------------------------------------------------------------------------------------------------------


def _verdict_rows(
    evaluation: Evaluation,
    judged: Mapping[str, Judged],
    baselines: Baselines,
    measured: Measured | None,
    broken: Sequence[int],
) -> Iterator[VerdictRow]:
    """One row per model and case, then one per baseline and case."""
    cases = [_without_carried(case) for case in evaluation.cases]
    for name, one in judged.items():
        for i, (case, judgement, answer) in enumerate(zip(cases, one.judgements, one.answers.first, strict=True)):
            yield replace(
                VerdictRow.of(name, case, judgement, answer),
                confidence_as_stated=_confidence(one.as_stated[i]) if one.is_calibrated else None,
                reasoning=measured.numbers[name][i].to_json() if measured is not None else None,
                n_neutralised=(broken[i] or None) if evaluation.contract.guard else None,
            )
    for name, guesses in baselines.judgements.items():
        for case, judgement in zip(cases, guesses, strict=True):
            yield VerdictRow.of(name, case, judgement, role="baseline")


def _without_carried(case: Case) -> Case:
    # Rewritten texts for probes travel with a case as slices. They are text of the case, and no property of it.
    slices = {name: value for name, value in case.slices.items() if not name.startswith(CARRIED_PREFIXES)}
    return replace(case, slices=slices)


def _prompts(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for case in evaluation.cases:
        yield {"case_id": case.case_id, "prompt": prompt_text(evaluation.contract.messages(case))}


def _confidence(judgement: Judgement) -> float | None:
    return judgement.confidence if isinstance(judgement, Verdict) else None
