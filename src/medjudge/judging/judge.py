"""A model that is asked: a folder, a hub id or an endpoint. Loaded when first needed; what it said is kept on disk.

A contestant is asked one question after the other (the cases as they are, the same cases changed by a probe, several
samples of each), and a question that was answered before a cut-off is not asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge import artifacts
from medjudge.errors import ConfigError
from medjudge.inference.endpoint import EndpointClient, EndpointEngine
from medjudge.progress import Bar
from medjudge.recipe import Recipe
from medjudge.records import Case, Completion, Judgement, LabelScores, Unparsed, Verdict
from medjudge.settings.endpoint import is_endpoint, parse_endpoint
from medjudge.settings.model import ModelConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.thoughts import split_thoughts

Answer = Completion | LabelScores
"""What a model said of a case in mode `generate`, or in mode `labels`."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked at one go: every case under its contract, once or several times."""

    cases: Sequence[Case]
    contracts: Sequence[TaskContract]
    """(n_cases,): the contract that renders each case."""
    title: str = ""
    """Beside the model's name while it is asked; names the answers that are kept."""
    n_samples: int = 1
    temperature: float | None = None
    """Of sampling; None asks for the likeliest answer."""


class Contestant:
    """One model of an evaluation. `close` lets go of its weights."""

    def __init__(
        self,
        name: str,
        where: str,
        recipe: Recipe,
        keep_in: Path,
        console: Console,
        *,
        client: EndpointClient | None = None,
        parent: str | None = None,
    ) -> None:
        """keep_in: the folder of answers that wait for the others'. parent: load an adapter on these weights.

        client: asks an endpoint; its answers lie in a cache of their own.
        """
        self.name, self.where, self.recipe = name, where, recipe
        self.seconds = 0.0
        """Spent on the cases as they are, loading included."""
        self._keep_in, self._console, self._client, self._parent = keep_in, console, client, parent
        self._engine: Any = None
        self._lineage: dict[str, Any] | None = None

    @property
    def lineage(self) -> dict[str, Any] | None:
        """Of a model folder what weights it holds; of an endpoint what can be known of it."""
        return self._client.record() if self._client is not None else self._lineage

    @property
    def folder(self) -> Path | None:
        """Where a local model lies, beside whose weights a calibrator can be kept; None for an endpoint or a hub id."""
        folder = Path(self.where)
        return folder if self._client is None and folder.is_dir() else None

    @property
    def weights_sha256(self) -> str:
        """Of the weights in `folder`, as its lineage names them or as they are."""
        if self._lineage is not None:
            return str(self._lineage["weights_sha256"])
        from medjudge.models.lineage import recorded_sha256

        return recorded_sha256(Path(self.where))

    @property
    def usage(self) -> dict[str, Any] | None:
        """Calls, cost and latency of an endpoint."""
        return None if self._client is None else self._client.usage.to_json(self._client.settings)

    def answers(self, question: Question) -> list[list[Answer]]:
        """(n_cases, n_samples) answers; what a cut-off evaluation had finished comes from its work folder.

        An endpoint's answers lie in a cache of their own, and what failed there is asked for again.
        """
        started = time.monotonic()
        if self._client is not None:
            answers = self._ask_endpoint(self._client, question)
            self.seconds += time.monotonic() - started if not question.title else 0.0
            return answers
        path = self._kept(question)
        kind = LabelScores if self.recipe.evaluate.mode == "labels" else Completion
        if (kept := artifacts.read_kept(path)) is not None:
            self._lineage = kept["lineage"]
            self.seconds += kept["seconds"]
            return [[kind(**answer) for answer in row] for row in kept["answers"]]
        artifacts.remove(path)  # damaged: the model is asked again
        answers = self._ask_model(question)
        seconds = time.monotonic() - started if not question.title else 0.0
        self.seconds += seconds
        kept = {"lineage": self._lineage, "seconds": seconds, "answers": [[asdict(a) for a in row] for row in answers]}
        artifacts.write_kept(path, kept)
        return answers

    def close(self) -> None:
        """Lets the weights go, before the next model's are loaded."""
        self._engine = None

    def forget(self) -> None:
        """Removes the answers that were kept: what they were kept for is written."""
        for path in self._keep_in.glob(f".answers-{self._key}-*.json"):
            path.unlink()

    @property
    def _key(self) -> str:
        return artifacts.sha256_json(self.name)[:12]

    def _kept(self, question: Question) -> Path:
        asked = artifacts.sha256_json([question.title, question.n_samples, question.temperature])[:12]
        return self._keep_in / f".answers-{self._key}-{asked}.json"

    def _ask_endpoint(self, client: EndpointClient, question: Question) -> list[list[Answer]]:
        with self._bar(question, len(question.cases) * question.n_samples) as bar:
            client.on_progress, client.on_note = bar.advance, bar.note
            engine = EndpointEngine(client)
            rounds = [
                _by_contract(
                    question,
                    lambda contract, cases, sample=sample: engine.generate(  # type: ignore[misc]
                        contract, cases, sample=sample, temperature=question.temperature
                    ),
                )
                for sample in range(question.n_samples)
            ]
        return [list(row) for row in zip(*rounds, strict=True)]

    def _ask_model(self, question: Question) -> list[list[Answer]]:
        engine = self._loaded()
        with self._bar(question, len(question.cases)) as bar:
            engine.on_progress = bar.advance
            if question.temperature is not None:
                return _by_contract(question, lambda contract, cases: self._sampled(contract, cases, question))
            if self.recipe.evaluate.mode == "labels":
                ask: Callable[[TaskContract, Sequence[Case]], Sequence[Answer]] = engine.label_logprobs
            else:
                ask = engine.generate
            return [[answer] for answer in _by_contract(question, ask)]

    def _sampled(self, contract: TaskContract, cases: Sequence[Case], question: Question) -> list[list[Completion]]:
        import torch

        from medjudge.inference.rollouts import Sampling

        generator = torch.Generator().manual_seed(self.recipe.evaluate.seed)
        sampling = Sampling(temperature=question.temperature or 1.0)
        drawn: list[list[Completion]] = self._loaded().sample(contract, cases, question.n_samples, sampling, generator)
        return drawn

    def _loaded(self) -> Any:
        """The engine; its model is loaded now if it is not yet."""
        if self._engine is not None:
            return self._engine
        from medjudge.inference.local import Engine

        model, tokenizer, lineage = load_judge(
            self.where, self.recipe.model, self.recipe.contract, parent=self._parent, console=self._console
        )
        self._lineage = lineage.to_json() if lineage is not None else None
        self._engine = Engine(model, tokenizer, batch_tokens=self.recipe.evaluate.batch_tokens)
        return self._engine

    def _bar(self, question: Question, n: int) -> Bar:
        return Bar(f"evaluate {self.name}{f', {question.title}' if question.title else ''}", n, self._console)


def judgement_of(contract: TaskContract, case: Case, answer: Answer) -> Judgement:
    """The verdict in a completion, or the likeliest label (the first of equals) with its probability.

    A completion that holds none says whether it was cut off, refused, or never came.
    """
    if isinstance(answer, Completion):
        return _read(contract, case, answer)
    label = max(contract.labels, key=lambda label: answer.probabilities[label])
    return Verdict(case.case_id, label, answer.probabilities[label])


def _read(contract: TaskContract, case: Case, completion: Completion) -> Judgement:
    if completion.failure is not None:
        return Unparsed(case.case_id, "", f"the call failed: {completion.failure}", kind="failed")
    judgement = contract.parse(case.case_id, completion.text)
    if isinstance(judgement, Verdict):
        return judgement
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


def load_judge(
    where: str, config: ModelConfig, contract: TaskContract, *, parent: str | None, console: Console
) -> tuple[Any, Any, Any]:
    """(model, tokenizer, lineage) of a folder or hub id, fit to answer. Raises ConfigError for another contract's."""
    from medjudge.inference.local import fit_for_inference
    from medjudge.models.lineage import load_any
    from medjudge.models.load import resolve
    from medjudge.tasks.encoding import instructions_lead_the_user_turn

    folder = resolve(where)
    is_adapter = (folder / "adapter_config.json").exists()
    model, tokenizer, lineage = load_any(folder, config, parent=parent if is_adapter else None)
    if is_adapter and lineage is None:
        console.print(f"  {where}: this adapter has no {artifacts.LINEAGE}, so its parent could not be checked.")
    if lineage is not None and lineage.contract_sha256 not in (None, contract.fingerprint()):
        raise ConfigError(
            f"{where} was trained under contract {str(lineage.contract_sha256)[:16]}, but this evaluation asks under "
            f"{contract.fingerprint()[:16]}: the `[task]` settings or the program's version differ. Evaluate with the "
            "recipe that it was trained with (`medjudge evaluate --recipe`), or train it under this one."
        )
    if instructions_lead_the_user_turn(contract, tokenizer):
        console.print(
            f"  {where}: its chat template takes no system turn, so the instructions lead the user turn", soft_wrap=True
        )
    return fit_for_inference(model), tokenizer, lineage


def endpoint_clients(recipe: Recipe, models: Mapping[str, str], console: Console) -> dict[str, EndpointClient]:
    """A client for each model that is an endpoint, all made before the first is asked: a missing key shows at once."""
    config = recipe.evaluate
    for name in config.endpoints:
        if name not in models:
            raise ConfigError(
                f"`evaluate.endpoints` has settings for {name!r}, but the models are: {', '.join(models)}."
            )
    if config.mode == "labels" and (named := [name for name, where in models.items() if is_endpoint(where)]):
        raise ConfigError(
            f"`evaluate.mode` is labels, but an endpoint ({', '.join(named)}) gives no probabilities of labels: "
            "take generate."
        )
    clients = {}
    for name, where in models.items():
        if is_endpoint(where):
            clients[name] = client = EndpointClient(parse_endpoint(where), config.endpoint_of(name))
            if not client.endpoint.is_loopback:
                console.print(f"  {name}: the text of the cases is sent to {client.endpoint.host}")
    return clients


def _by_contract(question: Question, ask: Callable[[TaskContract, Sequence[Case]], Sequence[Any]]) -> list[Any]:
    """Asks the cases of each contract at one go; the answers in the order of the cases."""
    places: dict[str, list[int]] = {}
    for i, contract in enumerate(question.contracts):
        places.setdefault(contract.fingerprint(), []).append(i)
    found: dict[int, Any] = {}
    for rows in places.values():
        answers = ask(question.contracts[rows[0]], [question.cases[i] for i in rows])
        found |= dict(zip(rows, answers, strict=True))
    return [found[i] for i in range(len(question.cases))]
