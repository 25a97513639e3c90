"""Expert-labelled rows become checked, split cases.

    medjudge run RECIPE --until prepare

Reads the sources, deals them into splits, lints each split, and compares what is learned from with what is held out. A
leak beyond the recipe's limit stops the run before a step is trained.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from medjudge import artifacts
from medjudge.data.leakage import LeakageReport, check_leakage, enforce_leakage
from medjudge.data.lint import lint_cases
from medjudge.data.rows import source_files
from medjudge.data.sources import CaseTable, read_source
from medjudge.data.splits import TRAIN_LIKE, check_split, split_cases
from medjudge.data.store import Split
from medjudge.errors import ConfigError
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.runs.stages import STAGES, StageContext, reading_stages, training_stages
from medjudge.settings.data import SPLIT_SOURCES, DataConfig
from medjudge.tasks.contract import TaskContract

ALL = "all"
"""The name of a single source that is split."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes splits, lint, leakage and what was read into `out_dir`; returns what `data.json` holds.

    Raises DataError for sources, rows or splits that cannot be used and for a leak beyond `data.leakage.max_share`;
    ConfigError where the recipe names no source, or a stage a split that does not come to be.
    """
    recipe, out_dir = context.recipe, context.out_dir
    data = recipe.data
    sources = _sources(data)
    _check_stage_splits(recipe, sources)
    tables = _read_all(sources, recipe)
    splits = _split(tables, data)
    for stage in training_stages(recipe.stages):
        if stage.by_rewards:
            _check_grpo_steps(recipe, splits[stage.split_name(recipe)])
    leakage = _leakage(splits, recipe)
    artifacts.write_json(out_dir / artifacts.LEAKAGE, leakage.to_json())
    enforce_leakage(leakage, max_share=data.leakage.max_share, allow=data.leakage.allow)

    for name, cases in splits.items():
        Split.of(out_dir, name).write(cases)
    rejected = [asdict(bad) for table in tables.values() for bad in table.rejected]
    if rejected:
        artifacts.write_lines(out_dir / artifacts.REJECTED, rejected)
    lint = {name: lint_cases(cases, recipe.contract) for name, cases in splits.items()}
    artifacts.write_json(out_dir / artifacts.LINT, {name: report.to_json() for name, report in lint.items()})
    summary = {
        "splits": {name: _describe(cases, recipe.contract) for name, cases in splits.items()},
        "sources": {name: _provenance(sources[name], table) for name, table in tables.items()},
        "n_unused": sum(len(t.cases) for t in tables.values()) - len({id(c) for part in splits.values() for c in part}),
        "seed": data.seed,
        "contract": recipe.contract.fingerprint(),
        "leakage": leakage.summary_line,
        "lint": {name: {f.code: f.count for f in report.findings} for name, report in lint.items()},
    }
    artifacts.write_json(out_dir / artifacts.DATA, summary)
    return summary


def prepare_splits(recipe: Recipe) -> dict[str, tuple[Case, ...]]:
    """The splits that `run` would write, without writing them: what a plan counts."""
    sources = _sources(recipe.data)
    _check_stage_splits(recipe, sources)
    return _split(_read_all(sources, recipe), recipe.data)


def _check_grpo_steps(recipe: Recipe, cases: Sequence[Case]) -> None:
    """Raises ConfigError where GRPO could not make one step: better now than after hours of SFT."""
    grpo = recipe.grpo
    n_rated = sum(case.gold is not None for case in cases)
    n_prompts = min(n_rated, grpo.max_cases or n_rated) * grpo.epochs
    if grpo.max_steps < 0 and n_prompts < grpo.prompts_per_step:
        raise ConfigError(
            f"split {grpo.split!r} gives grpo {n_prompts:g} prompts, expected enough for one step of "
            f"`grpo.prompts_per_step` = {grpo.prompts_per_step}. Lower it, or raise `grpo.epochs` or `grpo.max_cases`."
        )


def _sources(data: DataConfig) -> dict[str, str]:
    """Source per split, or the one source to be split under `ALL`."""
    if data.source:
        return {ALL: data.source}
    by_split = {name: source for name in SPLIT_SOURCES if (source := getattr(data, name))}
    if not by_split:
        raise ConfigError(
            "the recipe names no rows, expected a source: set `data.source`, or `data.train` and `data.test`."
        )
    return by_split


def _check_stage_splits(recipe: Recipe, sources: Mapping[str, str]) -> None:
    """Raises ConfigError where a stage of the run wants a split that will not exist."""
    names = list(recipe.data.splits) if ALL in sources else list(sources)
    for stage in reading_stages(recipe.stages):
        if (wanted := stage.split_name(recipe)) not in names:
            raise ConfigError(
                f"`{stage.name}.split` is {wanted!r}, but the data give {', '.join(names)}. Name one of these, or "
                f"leave {stage.name!r} out of `stages`."
            )


def _read_all(sources: Mapping[str, str], recipe: Recipe) -> dict[str, CaseTable]:
    data = recipe.data
    return {
        name: read_source(source, recipe.contract, data, where={**data.where, **data.where_by_split.get(name, {})})
        for name, source in sources.items()
    }


def _split(tables: Mapping[str, CaseTable], data: DataConfig) -> dict[str, tuple[Case, ...]]:
    if ALL in tables:
        return split_cases(tables[ALL].cases, splits=data.splits, seed=data.seed, stratify_by=data.stratify_by)
    for name, table in tables.items():
        check_split(name, table.cases)
    return {name: table.cases for name, table in tables.items()}


def _leakage(splits: Mapping[str, Sequence[Case]], recipe: Recipe) -> LeakageReport:
    """Splits to learn from against those held out; among the former an overlap is reported, not enforced."""
    limits = recipe.data.leakage
    check = partial(
        check_leakage,
        near_duplicate_threshold=limits.near_duplicate_threshold,
        likeness_threshold=limits.likeness_threshold,
    )
    learned_from = {*TRAIN_LIKE, *(stage.split_name(recipe) for stage in training_stages(STAGES))}
    train = {name: cases for name, cases in splits.items() if name in learned_from}
    held_out = {name: cases for name, cases in splits.items() if name not in learned_from}
    report = check(train, held_out)
    for (first, cases), (second, others) in itertools.combinations(train.items(), 2):
        report = report.joined(check({first: cases}, {second: others}, enforced=False))
    return report


def _describe(cases: Sequence[Case], contract: TaskContract) -> dict[str, Any]:
    counts = Counter(case.gold for case in cases)
    n_labelled = len(cases) - counts[None]
    return {
        "n_cases": len(cases),
        "n_groups": len({case.group or case.case_id for case in cases}),
        "n_unlabelled": counts[None],
        "labels": {
            label: {"n": counts[label], "share": counts[label] / n_labelled if n_labelled else 0.0}
            for label in contract.labels
        },
    }


def _provenance(source: str, table: CaseTable) -> dict[str, Any]:
    return {
        "source": source,
        "files": {str(path): artifacts.sha256_file(path) for path in source_files(source)},
        "n_rows": table.n_rows,
        "n_filtered": table.n_filtered,
        "n_duplicates": table.n_duplicates,
        "n_rejected": len(table.rejected),
        "n_tied": table.n_tied,
        "n_cases": len(table.cases),
    }
