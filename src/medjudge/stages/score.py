"""Any judge's verdicts against the experts, without a model: `medjudge score VERDICTS --gold PATH`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from medjudge import artifacts
from medjudge.config import DataConfig, ReportConfig
from medjudge.data.leakage import LeakageReport, check_leakage
from medjudge.data.sources import parse_fields, parse_where, read_source
from medjudge.data.verdict_files import (
    Facts,
    Scale,
    VerdictFile,
    judge_name,
    merged,
    read_gold,
    read_verdicts,
    to_cases,
    verdict_line,
)
from medjudge.errors import ConfigError, DataError
from medjudge.metrics.baselines import BASELINES, Baselines, every_baseline
from medjudge.metrics.results import Results, summarise
from medjudge.metrics.statements import counted
from medjudge.records import Case, Judgement
from medjudge.rewards.reasoning import embed_or_why_not
from medjudge.rewards.settings import EmbeddingSettings
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.scale import LabelScale

N_SHOWN = 3
"""Ids without a partner that are shown."""


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """How files are read and what is measured."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> column of the verdict files."""
    gold: str | None = None
    """A file of expert labels, or the column of the verdict files that holds them; None: the column `gold`."""
    gold_columns: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    where: Sequence[str] = ()
    train: str | None = None
    """Labelled rows of the task, for baselines and the leakage check."""
    train_where: Sequence[str] = ()
    families: Mapping[str, str] = field(default_factory=dict)
    confidence_max: float = 1.0
    reference: str | None = None
    level: float = 0.95
    n_resamples: int = 2000
    seed: int = 42


@dataclass(frozen=True, slots=True)
class Scored:
    """What was read and what it measured."""

    results: Results
    cases: Sequence[Case]
    judgements: Mapping[str, Sequence[Judgement]]
    completions: Mapping[tuple[str, str], str]


@artifacts.private_files()
def score_files(
    paths: Sequence[str],
    contract: TaskContract | LabelScale,
    out_dir: Path,
    options: ScoreOptions,
) -> Results:
    """Writes `results.json`, `verdicts.jsonl` and the page. The folder `out_dir` appears whole or not at all."""
    out_dir = out_dir.absolute()
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ConfigError(f"--out {out_dir} is not an empty folder: name a new one, nothing is overwritten.")
    scored = score(paths, contract, options)
    work = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.work")
    artifacts.make_folder(work)
    try:
        artifacts.write_json(work / artifacts.COMMANDS, [shlex.join(["medjudge", *sys.argv[1:]])])
        artifacts.write_json(work / artifacts.RESULTS, scored.results.to_json())
        artifacts.write_text(work / artifacts.VERDICTS, _lines(scored))
        from medjudge.reporting.html import write_report
        from medjudge.stages.report import gather

        write_report(gather(work, ReportConfig(title=f"{out_dir.name}: {scored.results.task}")), work)
        if out_dir.exists():
            out_dir.rmdir()
        work.rename(out_dir)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return scored.results


def score(paths: Sequence[str], contract: TaskContract | LabelScale, options: ScoreOptions) -> Scored:
    """Reads, joins by case id and measures. Raises DataError where nothing can be joined."""
    if not paths:
        raise ConfigError("name one file of verdicts or more.")
    scale = Scale(contract.labels, options.aliases)
    gold_path = options.gold if options.gold is not None and Path(options.gold).expanduser().exists() else None
    columns = dict(options.columns)
    if options.gold is not None and gold_path is None:
        columns["gold"] = options.gold
    files = _read_files(paths, scale, columns, options, ids_needed=gold_path is not None or len(paths) > 1)
    facts: dict[str, Facts] = {}
    if gold_path is not None:
        facts = dict(_gold_facts(gold_path, scale, contract, options))
    elif not any("gold" in file.columns for file in files.values()):
        raise DataError(
            f"{paths[0]}: no column 'gold' with the experts' labels. Name the column or a file with --gold."
        )
    in_gold = set(facts)
    for path, file in files.items():
        for case_id, found in file.facts.items():
            if gold_path is None or case_id in in_gold:
                facts[case_id] = merged(case_id, facts.get(case_id), found, path)
    judgements = _by_judge(files)
    said = {judgement.case_id for answers in judgements.values() for judgement in answers}
    if gold_path is not None and not said & in_gold:
        raise DataError(
            f"no verdict has a partner in {gold_path}: ids there are like {_shown(in_gold)}, in the verdicts like "
            f"{_shown(said)}. Map the column that both share: --map id=COLUMN, --gold-map id=COLUMN."
        )
    cases = to_cases(facts)
    baselines, leakage, n_train = _baselines(cases, contract, options)
    baselines.judgements.update({name: judgements.pop(name) for name in list(judgements) if name in BASELINES})
    results = summarise(
        cases,
        judgements,
        contract=contract,
        split=Path(gold_path or paths[0]).name,
        baselines=baselines.judgements,
        skipped_baselines=baselines.skipped,
        reference=options.reference,
        level=options.level,
        n_resamples=options.n_resamples,
        seed=options.seed,
        leakage={**leakage.to_json(), "statement": leakage.summary_line},
        train_n=n_train,
        families=options.families,
    )
    partners = _without_partner(judgements, facts, in_gold)
    results = results.model_copy(update={"statements": (*results.statements, *partners, *baselines.notes)})
    completions = {key: text for file in files.values() for key, text in file.completions.items()}
    return Scored(results, cases, {**judgements, **baselines.judgements}, completions)


def _read_files(
    paths: Sequence[str], scale: Scale, columns: Mapping[str, str], options: ScoreOptions, *, ids_needed: bool
) -> dict[str, VerdictFile]:
    files: dict[str, VerdictFile] = {}
    for text in paths:
        name, path = _named(text)
        if path in files:
            raise ConfigError(f"{path} is named twice: expected each file once.")
        files[path] = read_verdicts(
            path,
            scale,
            columns=columns,
            judge=name,
            where=None if Path(options.gold or "").exists() else parse_where(options.where),
            confidence_max=options.confidence_max,
            ids_needed=ids_needed,
        )
    return files


def _named(text: str) -> tuple[str, str]:
    """(judge, path) of `NAME=PATH` or `PATH`."""
    name, equals, path = text.partition("=")
    if equals and name and path and not Path(text).exists():
        return name, path
    return judge_name(text), text


def _gold_facts(
    path: str, scale: Scale, contract: TaskContract | LabelScale, options: ScoreOptions
) -> Mapping[str, Facts]:
    inputs: list[str] = []
    groups: tuple[str, ...] = ()
    if isinstance(contract, TaskContract):
        inputs = [name for name in contract.fields if name not in (contract.gold_field, contract.reason_field)]
        groups = contract.group_fields
    return read_gold(
        path,
        scale,
        columns=options.gold_columns,
        where=parse_where(options.where),
        inputs=inputs,
        group_fields=groups,
    ).facts


def _by_judge(files: Mapping[str, VerdictFile]) -> dict[str, list[Judgement]]:
    judgements: dict[str, list[Judgement]] = {}
    for path, file in files.items():
        for name, answers in file.judgements.items():
            if name in judgements:
                raise DataError(
                    f"{path}: a judge {name!r} stands in an earlier file too. Give each file's judge a name: NAME=PATH."
                )
            judgements[name] = answers
    return judgements


def _baselines(
    cases: Sequence[Case], contract: TaskContract | LabelScale, options: ScoreOptions
) -> tuple[Baselines, LeakageReport, int | None]:
    """Baselines and leakage, as far as training rows allow."""
    leakage = LeakageReport((), {}, DataConfig().leakage.near_duplicate_threshold)
    train: Sequence[Case] = ()
    if options.train is not None:
        if not isinstance(contract, TaskContract):
            raise ConfigError("--train holds rows of a task: name it with --task.")
        config = DataConfig(fields=_train_fields(contract, options.gold_columns))
        train = read_source(options.train, contract, config, where=parse_where(options.train_where)).cases
        if any(case.inputs for case in cases):
            leakage = check_leakage({"train": train}, {"evaluated": [case for case in cases if case.inputs]})
    rated = [case for case in cases if case.gold is not None]
    if not rated:
        raise DataError("no case has an expert label: there is nothing to measure against. Check --gold.")
    found = every_baseline(
        train,
        cases,
        kind=contract.kind,
        labels=contract.labels,
        positive=contract.positive,
        question_fields=contract.group_fields if isinstance(contract, TaskContract) else (),
        rng=np.random.default_rng(options.seed),
        embed=lambda: embed_or_why_not(EmbeddingSettings()),
    )
    return Baselines(dict(found.judgements), dict(found.skipped), found.notes), leakage, len(train) or None


def _train_fields(contract: TaskContract, gold_columns: Mapping[str, str]) -> dict[str, str]:
    """The mapping of the expert file, in the words of the task."""
    renamed = {contract.gold_field if name == "gold" else name: column for name, column in gold_columns.items()}
    return {name: column for name, column in renamed.items() if name in contract.fields}


def _without_partner(
    judgements: Mapping[str, Sequence[Judgement]], facts: Mapping[str, Facts], in_gold: set[str]
) -> list[str]:
    """What found no partner, in words."""
    sentences = []
    for name, answers in judgements.items():
        alone = [judgement.case_id for judgement in answers if in_gold and judgement.case_id not in in_gold]
        if alone:
            sentences.append(
                f"{counted(len(alone), 'verdict')} of {name} found no case in the file of expert labels (such as "
                f"{_shown(alone)}): left out of its agreement."
            )
    return sentences


def _shown(ids: Sequence[str] | set[str]) -> str:
    return ", ".join(repr(case_id) for case_id in sorted(ids)[:N_SHOWN])


def _lines(scored: Scored) -> str:
    cases = {case.case_id: case for case in scored.cases}
    lines = []
    for name, answers in scored.judgements.items():
        for judgement in answers:
            case = cases.get(judgement.case_id) or Case(judgement.case_id, {})
            line = verdict_line(name, case, judgement, scored.completions.get((name, judgement.case_id)))
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """`["id=uid,label=pred"]` -> {"id": "uid", "label": "pred"}: as `--map` takes it, also several at once."""
    return parse_fields([part for pair in pairs for part in pair.split(",")])


def label_scale(labels: str, ordered: bool = False, positive: str | None = None) -> LabelScale:
    """The scale of `--labels a,b,c`. Of two labels the second is positive unless `positive` names the first."""
    names = tuple(part.strip() for part in labels.split(","))
    if positive is None and len(names) == 2 and not ordered:
        positive = names[1]
    try:
        return LabelScale(labels=names, ordered=ordered, positive=positive)
    except ValidationError as error:
        raise ConfigError(f"--labels: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from None
