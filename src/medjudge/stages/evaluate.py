"""Judge the held-out cases with every model of a run, and compare: `medjudge run RECIPE --from evaluate`.

`medjudge evaluate` does the same for any models and any labelled rows.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from medjudge import artifacts
from medjudge.config import DataConfig, Recipe
from medjudge.data.leakage import LeakageReport, check_leakage, enforce_leakage
from medjudge.data.sources import parse_where, read_source
from medjudge.data.splits import seeded_sample
from medjudge.data.store import read_split
from medjudge.errors import ConfigError, DataError
from medjudge.inference.endpoint import EndpointClient, EndpointEngine, is_endpoint, parse_endpoint
from medjudge.metrics.baselines import Baselines, every_baseline
from medjudge.metrics.reasoning import ReasoningResults, summarise_reasoning
from medjudge.metrics.results import Results, summarise
from medjudge.progress import Bar
from medjudge.records import Case, Completion, Judgement, LabelScores, Rollout, Unparsed, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.measures import Measured, extractor_of, measure_reasoning
from medjudge.rewards.settings import RewardSettings
from medjudge.tasks.contract import TaskContract

LABELS_STATEMENT = (
    "Labels were scored, no text was written: every case has a verdict, and what is said here of formats and unparsed "
    "answers holds for this way of asking alone. Each verdict's confidence is its label's probability."
)


def run(recipe: Recipe, out_dir: Path, run_dir: Path, console: Console) -> dict[str, Any]:
    """Every model of the run on `evaluate.split`. Writes `results.json` and `verdicts.jsonl`."""
    from medjudge.modeling.chain import named_models
    from medjudge.modeling.load import quiet_libraries

    quiet_libraries()
    config = recipe.evaluate
    path = run_dir / "prepare" / f"{config.split}{artifacts.SPLIT_SUFFIX}"
    if not path.exists():
        raise ConfigError(f"`evaluate.split` is {config.split!r}, but the data were split without one.")
    cases = seeded_sample(read_split(path), config.max_cases, config.seed)
    found, missing = named_models(recipe, run_dir)
    for name, why in missing.items():
        console.print(f"          [dim]{name} is not compared: {why}[/]")
    models = {**{name: str(folder) for name, folder in found.items()}, **config.extra_models}
    if not models:
        raise ConfigError("`evaluate.models` and `evaluate.extra_models` leave no model to evaluate.")
    train = [
        case
        for split in dict.fromkeys([recipe.sft.split, recipe.grpo.split])
        if (run_dir / "prepare" / f"{split}{artifacts.SPLIT_SUFFIX}").exists()
        for case in read_split(run_dir / "prepare" / f"{split}{artifacts.SPLIT_SUFFIX}")
    ]
    leakage = LeakageReport.from_json(artifacts.read_json(run_dir / "prepare" / artifacts.LEAKAGE))
    # The settings behind the numbers lie beside them, whatever the run's recipe says later.
    artifacts.write_json(out_dir / artifacts.RECIPE, recipe.model_dump(mode="json"))
    return evaluate_cases(recipe, models, cases, train, leakage, out_dir, console, split=config.split)


def evaluate_folder(
    contract: TaskContract,
    data: str,
    models: Mapping[str, str],
    out_dir: Path,
    console: Console,
    data_config: DataConfig,
    recipe: Recipe,
    *,
    where: Sequence[str] = (),
    train: str | None = None,
    parent: str | None = None,
) -> None:
    """Any models on any labelled rows. The folder `out_dir` appears whole or not at all."""
    out_dir = out_dir.absolute()
    if out_dir.exists() and not out_dir.is_dir():
        raise ConfigError(f"--out {out_dir} is a file: name a folder.")
    if out_dir.exists() and any(out_dir.iterdir()):
        raise ConfigError(f"--out {out_dir} is not empty: name a new folder, nothing is overwritten.")
    table = read_source(data, contract, data_config, where=parse_where(where) if where else None)
    if not any(case.gold is not None for case in table.cases):
        raise DataError(
            f"{data}: no row has a gold label in {contract.gold_field!r}: there is nothing to measure against."
        )
    train_cases: Sequence[Case] = ()
    leakage = LeakageReport((), {}, data_config.leakage.near_duplicate_threshold)
    if train is not None:
        train_cases = read_source(train, contract, data_config).cases
        leakage = check_leakage(
            {"train": train_cases},
            {"evaluated": table.cases},
            near_duplicate_threshold=data_config.leakage.near_duplicate_threshold,
        )
        enforce_leakage(leakage, max_share=data_config.leakage.max_share, allow=data_config.leakage.allow)
    if not all(is_endpoint(where) for where in models.values()):
        from medjudge.modeling.load import quiet_libraries

        quiet_libraries()
    work = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.work")
    work.mkdir(parents=True)
    try:
        artifacts.write_json(work / artifacts.COMMANDS, [shlex.join(["medjudge", *sys.argv[1:]])])
        evaluate_cases(
            recipe, models, table.cases, train_cases, leakage, work, console, split=Path(data).name, parent=parent
        )
        if out_dir.exists():
            out_dir.rmdir()
        work.rename(out_dir)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
) -> dict[str, Any]:
    """Answers, judgements, baselines, results; the two files. `answered`: models that need not be asked any more."""
    contract, config = recipe.contract, recipe.evaluate
    clients = _endpoint_clients(recipe, models, console)
    said = {
        name: (answered or {}).get(name)
        or _answer_once(name, where, clients.get(name), recipe, cases, out_dir, console, parent)
        for name, where in models.items()
    }
    answers = {name: one.answers for name, one in said.items()}
    judgements = {
        name: [judgement_of(contract, case, answer) for case, answer in zip(cases, done, strict=True)]
        for name, done in answers.items()
    }
    rng = np.random.default_rng(config.seed)
    baselines = (
        every_baseline(train, cases, kind=contract.kind, labels=contract.labels, positive=contract.positive, rng=rng)
        if config.baselines
        else Baselines({}, {})
    )
    results = summarise(
        cases,
        judgements,
        contract=contract,
        split=split,
        baselines=baselines.judgements,
        skipped_baselines=baselines.skipped,
        reference="base" if "base" in models else next(iter(models)),
        level=config.level,
        n_resamples=config.n_resamples,
        seed=config.seed,
        leakage={**leakage.to_json(), "statement": leakage.summary_line},
        lineage={name: one.lineage for name, one in said.items() if one.lineage is not None},
        seconds={name: round(one.seconds, 2) for name, one in said.items()},
        n_truncated={
            name: sum(isinstance(answer, Completion) and not answer.stopped for answer in done)
            for name, done in answers.items()
        },
        usage={name: one.usage for name, one in said.items() if one.usage is not None},
        train_n=len(train) or None,
    )
    measured = _measure_reasoning(recipe, cases, train, judgements, answers)
    if measured is not None:
        results = results.model_copy(update={"reasoning": _reasoning_results(recipe, cases, measured, results)})
    notes = (*baselines.notes, *([LABELS_STATEMENT] if config.mode == "labels" else []))
    results = results.model_copy(update={"statements": (*results.statements, *notes)})
    artifacts.write_json(out_dir / artifacts.RESULTS, results.to_json())
    rows = [
        _verdict_row(name, case, judgement, answer)
        | ({"reasoning": measured.numbers[name][i].to_json()} if measured is not None else {})
        for name in models
        for i, (case, judgement, answer) in enumerate(zip(cases, judgements[name], answers[name], strict=True))
    ]
    rows += [
        _verdict_row(name, case, judgement, None)
        for name, guesses in baselines.judgements.items()
        for case, judgement in zip(cases, guesses, strict=True)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    artifacts.write_text(out_dir / artifacts.VERDICTS, text)
    for name in models:
        _kept(out_dir, name).unlink(missing_ok=True)
    return {
        "n_cases": results.n_cases,
        "n_prompts_shortened": {name: sum(a.n_words_cut > 0 for a in done) for name, done in answers.items()},
        **{f"accuracy {name}": round(r.metrics["accuracy"].value or 0.0, 4) for name, r in results.models.items()},
    }


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


Answer = Completion | LabelScores
"""What a model said of a case in mode `generate`, or in mode `labels`."""


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
    if not completion.stopped and judgement.kind == "format":
        return replace(judgement, reason=f"cut off at the token limit: {judgement.reason}", kind="truncated")
    return judgement


def _kept(out_dir: Path, name: str) -> Path:
    """Where one model's answers wait for the others'."""
    return out_dir / f".answers-{artifacts.sha256_json(name)[:12]}.json"


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """What one model said of the cases, in their order."""

    answers: list[Answer]
    lineage: dict[str, Any] | None
    """Of a model folder what weights it holds; of an endpoint what can be known of it."""
    usage: dict[str, Any] | None = None
    """Calls, cost and latency of an endpoint."""
    seconds: float = 0.0


def _answer_once(
    name: str,
    where: str,
    client: EndpointClient | None,
    recipe: Recipe,
    cases: Sequence[Case],
    out_dir: Path,
    console: Console,
    parent: str | None,
) -> ModelAnswers:
    """The answers of one model; what a cut-off evaluation had finished comes from its work folder.

    An endpoint's answers lie in a cache of their own, and what failed there is asked for again.
    """
    started = time.monotonic()
    if client is not None:
        return replace(_ask(name, client, recipe, cases, console), seconds=time.monotonic() - started)
    path = _kept(out_dir, name)
    kind = LabelScores if recipe.evaluate.mode == "labels" else Completion
    if path.exists():
        kept = artifacts.read_json(path)
        return ModelAnswers(**{**kept, "answers": [kind(**answer) for answer in kept["answers"]]})
    answers = replace(_answer(name, where, recipe, cases, console, parent), seconds=time.monotonic() - started)
    artifacts.write_json(path, asdict(answers))
    return answers


def _endpoint_clients(recipe: Recipe, models: Mapping[str, str], console: Console) -> dict[str, EndpointClient]:
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


def _ask(name: str, client: EndpointClient, recipe: Recipe, cases: Sequence[Case], console: Console) -> ModelAnswers:
    """Completions of a model behind an endpoint."""
    with Bar(f"evaluate {name}", len(cases), console) as bar:
        client.on_progress, client.on_note = bar.advance, bar.note
        completions = EndpointEngine(client).generate(recipe.contract, cases)
    return ModelAnswers([*completions], client.record(), client.usage.to_json(client.settings))


def _answer(
    name: str, where: str, recipe: Recipe, cases: Sequence[Case], console: Console, parent: str | None
) -> ModelAnswers:
    """One model's answers, and its lineage if it has one. The model is let go before the next is loaded."""
    from medjudge.inference.engine import Engine, fit_for_inference
    from medjudge.modeling.lineage import load_any
    from medjudge.modeling.load import resolve

    folder = resolve(where)
    is_adapter = (folder / "adapter_config.json").exists()
    model, tokenizer, lineage = load_any(folder, recipe.model, parent=parent if is_adapter else None)
    if is_adapter and lineage is None:
        console.print(f"  {name}: this adapter has no {artifacts.LINEAGE}, so its parent could not be checked.")
    if lineage is not None and lineage.contract_sha256 not in (None, recipe.contract.fingerprint()):
        raise ConfigError(
            f"{where} was trained under contract {str(lineage.contract_sha256)[:16]}, but this evaluation asks under "
            f"{recipe.contract.fingerprint()[:16]}: the `[task]` settings differ. Evaluate with the recipe that it "
            "was trained with (--recipe), or train it under this one."
        )
    model = fit_for_inference(model)
    with Bar(f"evaluate {name}", len(cases), console) as bar:
        engine = Engine(model, tokenizer, batch_tokens=recipe.evaluate.batch_tokens, on_progress=bar.advance)
        answers: list[Answer] = (
            [*engine.label_logprobs(recipe.contract, cases)]
            if recipe.evaluate.mode == "labels"
            else [*engine.generate(recipe.contract, cases)]
        )
    return ModelAnswers(answers, lineage.to_json() if lineage is not None else None)


def _verdict_row(name: str, case: Case, judgement: Judgement, answer: Answer | None) -> dict[str, Any]:
    is_verdict = isinstance(judgement, Verdict)
    completion = answer if isinstance(answer, Completion) else None
    scores = answer if isinstance(answer, LabelScores) else None
    return {
        "model": name,
        "case_id": case.case_id,
        "group": case.group,
        "gold": case.gold,
        "label": judgement.label if isinstance(judgement, Verdict) else None,
        "confidence": judgement.confidence if isinstance(judgement, Verdict) else None,
        "correct": is_verdict and case.gold is not None and judgement.label == case.gold,  # type: ignore[union-attr]
        "unparsed_reason": judgement.reason if isinstance(judgement, Unparsed) else None,
        "unparsed_kind": judgement.kind if isinstance(judgement, Unparsed) else None,
        "completion": completion.text if completion is not None else None,
        "n_tokens": completion.n_tokens if completion is not None else None,
        "stopped": completion.stopped if completion is not None else None,
        "label_probabilities": dict(scores.probabilities) if scores is not None else None,
        "label_mass": scores.mass if scores is not None else None,
        "n_words_cut": answer.n_words_cut if answer is not None else None,
        "slices": dict(case.slices),
    }
