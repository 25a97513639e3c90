"""A judge: a model under a task contract, with its calibrator, and with its answers on disk where a run wants them.

Evaluation, benchmark, calibration, probes and the Python face all ask through it. A judge is asked one question after
the other (the cases as they are, the same cases changed by a probe, several samples of each), and a question that was
answered before a cut-off is not asked again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.errors import ConfigError
from medjudge.inference.loader import LoadedWhenAsked, LoadSettings
from medjudge.judging import answer_store
from medjudge.judging.answer_store import Answer, AnswerStore, Part, model_identity
from medjudge.judging.calibrated import Mode, read_calibrator
from medjudge.metrics.calibrators import Calibrator
from medjudge.models.contract import agreed_contract, check_contract, trained_under
from medjudge.progress import Bar
from medjudge.records import Case, Completion, Judgement, LabelScores, Unparsed, Verdict
from medjudge.settings.endpoint import is_endpoint
from medjudge.settings.engine import local_name
from medjudge.settings.evaluate import EvaluateConfig
from medjudge.settings.model import ModelConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.thoughts import split_thoughts
from medjudge.version import __version__

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a judge is loaded and asked."""

    load: LoadSettings = field(default_factory=LoadSettings)
    mode: Mode = "generate"
    any_scale: bool = False
    """Whether a rubric judge may be asked on a scale that it was not trained on, as a benchmark does."""

    @classmethod
    def of(
        cls,
        name: str,
        model: ModelConfig,
        config: EvaluateConfig,
        parent: str | None = None,
        *,
        any_scale: bool = False,
    ) -> JudgeSettings:
        """Those of one model of an evaluation. parent: the weights that an adapter is loaded on."""
        load = LoadSettings(
            model=model,
            engine=config.engine,
            batch_tokens=config.batch_tokens,
            seed=config.seed,
            parent=parent,
            endpoint=config.endpoint_of(name),
        )
        return cls(load, config.mode, any_scale)


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge is asked in one call: every case under its contract, once or several times."""

    cases: Sequence[Case]
    contracts: Sequence[TaskContract] | None = None
    """(n_cases,): the contract that renders each case; None asks all under the judge's own."""
    title: str = ""
    """Beside the model's name while it is asked."""
    n_samples: int = 1
    temperature: float | None = None
    """Of sampling; None asks for the likeliest answer."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A judge's answers to one question, in the order of its cases."""

    rows: list[list[Answer]]
    """(n_cases, n_samples)."""
    seconds: float

    @property
    def first(self) -> list[Answer]:
        """The first, or only, answer to each case."""
        return [row[0] for row in self.rows]


class Judge:
    """One model, named by a folder, a hub id, `vllm:` of either, or an endpoint. `close` lets go of its weights."""

    def __init__(
        self,
        name: str,
        where: str,
        contract: TaskContract,
        settings: JudgeSettings | None = None,
        *,
        store: AnswerStore | None = None,
        doing: str = "",
        engine: LoadedWhenAsked | None = None,
    ) -> None:
        """Compares the contract with the model's own; nothing is loaded before the first question.

        contract: `contract_for` finds the model's own. store: where answers wait; None keeps none. doing: before the
        name while it is asked. engine: shared with other judges that are the same model under other contracts.
        Raises ConfigError where the model was trained for another task, label set or answer form, where an endpoint
        lacks its key; ModelError where there is no such model.
        """
        self.name, self.where, self.settings = name, where, settings or JudgeSettings()
        self.contract = contract
        self.contract_note = check_contract(trained_under(where), contract, any_scale=self.settings.any_scale)
        """Names the settings that differ from those that the model was trained under; None where none does."""
        # A missing key or library shows here, before any judge is asked.
        self.engine = engine or LoadedWhenAsked(where, self.settings.load)
        self.engine.on_load = self._tell_of_template
        self._store, self._doing = store, doing
        self._lineage: dict[str, Any] | None = None

    @property
    def lineage(self) -> dict[str, Any] | None:
        """Of a model folder what weights gave the answers; of an endpoint what can be known of it."""
        return self._lineage or self.engine.lineage

    @property
    def usage(self) -> dict[str, Any] | None:
        """Calls, cost and latency of an endpoint."""
        return self.engine.usage

    @property
    def folder(self) -> Path | None:
        """Where a local model lies, and its calibrator beside the weights; None for an endpoint or a hub id.

        None for a built-in model and a GGUF file, too: their folder in the cache belongs to all.
        """
        folder = Path(local_name(self.where))
        return folder if not is_endpoint(self.where) and folder.is_dir() else None

    @property
    def weights_sha256(self) -> str:
        """Of the weights in `folder`, as its lineage names them or as they are."""
        if self.lineage is not None:
            return str(self.lineage["weights_sha256"])
        from medjudge.models.lineage import recorded_sha256

        return recorded_sha256(Path(local_name(self.where)))

    def answers(self, question: Question) -> Answers:
        """Asks what is not in the store. An endpoint's answers lie in a cache of their own; failures are retried."""
        contracts = question.contracts or [self.contract] * len(question.cases)
        question = replace(question, contracts=contracts)
        store = None if is_endpoint(self.where) else self._store
        key = self._key(question) if store is not None else ""
        kind = LabelScores if self.settings.mode == "labels" else Completion
        parts = list(store.parts(key, kind)) if store is not None else []
        done, total = sum(len(part.answers) for part in parts), len(question.cases)
        if parts:
            # Of the stored answers: the folder may hold other weights by now, but those gave these answers.
            self._lineage = parts[0].lineage
        if 0 < done < total:
            log.info("%s: goes on after %s of %s answers", self._title(question), f"{done:,}", f"{total:,}")
        if done < total:
            parts += self._ask_rest(question, done, store, key)
        return Answers([row for part in parts for row in part.answers], sum(part.seconds for part in parts))

    def judge(self, cases: Sequence[Case], title: str = "") -> tuple[list[Judgement], list[Answer]]:
        """(judgements, the answers that they were read from), one per case."""
        answers = self.answers(Question(cases, title=title)).first
        return [judgement_of(self.contract, case, a) for case, a in zip(cases, answers, strict=True)], answers

    def saved_calibrator(self) -> Calibrator | None:
        """What `medjudge calibrate` saved with the model for this way of asking; None where there is none.

        Raises ConfigError for one that belongs to other weights or another contract.
        """
        if self.folder is None:
            return None
        if not (self.folder / artifacts.CALIBRATION).exists():  # hashing weights takes a while
            return None
        return read_calibrator(
            self.folder, mode=self.settings.mode, weights_sha256=self.weights_sha256, contract=self.contract
        )

    def check_saved_calibrator(self) -> None:
        """Raises ConfigError for a saved calibrator of another contract, before anything is asked or loaded."""
        if self.folder is not None:
            read_calibrator(self.folder, mode=self.settings.mode, weights_sha256=None, contract=self.contract)

    def announce(self) -> None:
        """Logs what may be a reason to stop: where texts go, settings that the model was not trained with, no guard."""
        if self.engine.client is not None and not self.engine.client.endpoint.is_loopback:
            log.info("%s: the text of the cases is sent to %s", self.name, self.engine.client.endpoint.host)
        for warning in filter(None, (self.contract_note, self.contract.guard_warning)):
            log.warning(warning)

    def close(self) -> None:
        """Lets the weights go, before the next model's are loaded."""
        self.engine.close()

    # --- asking -------------------------------------------------------------------------------------------------------

    def _ask_rest(self, question: Question, done: int, store: AnswerStore | None, key: str) -> list[Part]:
        self.engine.load()  # before the clock: what loading takes is no speed of the judge
        total = len(question.cases)
        # Without a store nothing is saved on the way, and one batch of all cases is the fastest.
        size = answer_store.PART if store is not None else total
        parts = []
        # Over all cases, those of earlier sessions included: the bar shows what is left of the whole.
        with Bar(self._title(question), total) as bar:
            bar.advance(done)
            self.engine.on_progress = bar.advance
            if self.engine.client is not None:
                self.engine.client.on_note = bar.note
            for start in range(done, total, size):
                started = time.monotonic()
                rows = self._ask(question, start, min(total, start + size))
                part = Part(rows, self.engine.lineage, time.monotonic() - started)
                if store is not None:
                    store.write(key, start, part)
                parts.append(part)
        self._lineage = parts[0].lineage if not is_endpoint(self.where) else None
        return parts

    def _ask(self, question: Question, start: int, end: int) -> list[list[Answer]]:
        """(n_cases, n_samples) answers to the cases from `start` to `end`, one batch per contract."""
        contracts = (question.contracts or ())[start:end]
        places: dict[str, list[int]] = {}
        for i, contract in enumerate(contracts):
            # By fingerprint: probes make a contract per case, and equal ones are asked in one batch.
            places.setdefault(contract.fingerprint(), []).append(i)
        by_place: dict[int, list[Answer]] = {}
        for rows in places.values():
            cases = [question.cases[start + i] for i in rows]
            # The seed moves with the part, or all parts would draw with the same random numbers.
            answers = self._ask_alike(contracts[rows[0]], cases, question, seed=self.settings.load.seed + start)
            by_place |= dict(zip(rows, answers, strict=True))
        return [by_place[i] for i in range(end - start)]

    def _ask_alike(
        self, contract: TaskContract, cases: Sequence[Case], question: Question, *, seed: int
    ) -> list[list[Answer]]:
        if question.temperature is not None:
            drawn = self.engine.sample(contract, cases, question.n_samples, temperature=question.temperature, seed=seed)
            return [list(row) for row in drawn]
        ask: Callable[[TaskContract, Sequence[Case]], Sequence[Answer]] = (
            self.engine.label_logprobs if self.settings.mode == "labels" else self.engine.generate
        )
        return [[answer] for answer in ask(contract, cases)]

    def _key(self, question: Question) -> str:
        """Of all that decides the answers to a question."""
        load = self.settings.load
        # Thousands of cases share a few contracts, and a fingerprint serialises the whole contract.
        known = {id(contract): contract.fingerprint() for contract in question.contracts or ()}
        decides = {
            "model": [model_identity(self.where), load.parent, load.model.model_dump(mode="json")],
            "engine": "vllm" if self.engine.uses_vllm else "transformers",
            "mode": self.settings.mode,
            "contracts": [known[id(contract)] for contract in question.contracts or ()],
            "cases": [[case.case_id, dict(case.inputs)] for case in question.cases],
            "samples": [question.n_samples, question.temperature, load.seed],
            # A new version may render or decode otherwise; asking again is cheaper than a mixture.
            "version": __version__,
        }
        return artifacts.sha256_json(decides)[:16]

    def _title(self, question: Question) -> str:
        return f"{self._doing} {self.name}".strip() + (f", {question.title}" if question.title else "")

    def _tell_of_template(self, tokenizer: Any) -> None:
        from medjudge.tasks.encoding import instructions_lead_the_user_turn

        if instructions_lead_the_user_turn(self.contract, tokenizer):
            log.info("%s: its chat template takes no system turn, so the instructions lead the user turn", self.where)


# --- what is checked before a judge is asked, and how an answer is read -----------------------------------------------


def contract_for(models: Sequence[str], kind: str | None = None) -> TaskContract | None:
    """The contract that these models were trained under, which none of the settings need repeat.

    kind: of the task, where it is named: folders here that were trained for it then tell their settings, and None says
    that none does, or that they differ. Raises ConfigError where no kind is named, and no model tells its contract or
    two differ.
    """
    # With the task named, nothing is downloaded before the other arguments have been checked.
    folders = [where for where in models if kind is None or Path(local_name(where)).is_dir()]
    trained = [trained_under(where) for where in folders]
    contract = agreed_contract(trained, kind)
    if contract is None and kind is None:
        raise ConfigError(
            f"{', '.join(models)}: no {artifacts.CONTRACT} says what the task is, expected one. An endpoint, a hub id "
            "and a folder from elsewhere hold none: name the task (--task KIND, or a recipe's [task])."
        )
    return contract


def judgement_of(contract: TaskContract, case: Case, answer: Answer) -> Judgement:
    """The verdict in a completion, or the likeliest label (the first of equals) with its probability.

    A completion that holds none says whether it was cut off, refused, or never came.
    """
    if isinstance(answer, Completion):
        return _read(contract, case, answer)
    if len(answer.bounded) == len(contract.labels):
        reason = "no label is among the likeliest tokens that the server told: raise `top_logprobs` if it allows more"
        return Unparsed(case.case_id, "", reason, kind="format")
    # `max` takes the first of equals: the order of the contract decides, not that of a dict.
    told = [label for label in contract.labels if label not in answer.bounded]
    label = max(told, key=lambda label: answer.probabilities[label])
    return Verdict(case.case_id, label, answer.probabilities[label])


def _read(contract: TaskContract, case: Case, completion: Completion) -> Judgement:
    if completion.failure is not None:
        return Unparsed(case.case_id, "", f"the call failed: {completion.failure}", kind="failed")
    judgement = contract.parse(case.case_id, completion.text)
    if isinstance(judgement, Verdict):
        return judgement
    # A refusal before all else: its text may hold a label, in a sentence that declines to give one.
    if completion.refused:
        return replace(judgement, reason="the model or its provider refused to answer", kind="refused")
    if completion.thoughts != "none" and not split_thoughts(completion.text).answer:
        if completion.stopped:
            return replace(judgement, reason="the server sent thoughts, but no answer after them")
        reason = "cut off at the token limit before the end of the thoughts: raise the endpoint's `reasoning_tokens`"
        return replace(judgement, reason=reason, kind="truncated")
    if not completion.stopped and judgement.kind == "format":
        return replace(judgement, reason=f"cut off at the token limit: {judgement.reason}", kind="truncated")
    return judgement
