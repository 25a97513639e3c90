"""The rubric-judge benchmark: `medjudge bench rubric --model mine=PATH --data halubench=FILE --out DIR`.

Stands beside the pipeline: its folder is a run with a stage per set. A finished set that nothing has changed is
skipped, and answers are stored as they come, so a run that was cut off goes on and another judge costs its own
answers alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge import artifacts
from medjudge.data.benchmarks import SETS, BenchmarkRows, Chosen, choose_sets, read_benchmark, set_contract
from medjudge.data.splits import seeded_sample
from medjudge.data.verdict_rows import read_verdicts
from medjudge.errors import ConfigError, DataError
from medjudge.inference.loader import LoadedWhenAsked
from medjudge.judging.answer_store import AnswerStore
from medjudge.judging.evaluate_cases import Evaluation, evaluate_cases
from medjudge.judging.judge import Judge, JudgeSettings, Question
from medjudge.machine import fit_threads
from medjudge.metrics.coverage import prompt_sentences
from medjudge.metrics.published import (
    JudgeOnSet,
    SetResult,
    SuiteResults,
    honest_values,
    last_score,
    published_values,
)
from medjudge.metrics.result_types import Results
from medjudge.names import file_name_trouble, shown
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.reporting.gather import gather
from medjudge.reporting.html import write_report
from medjudge.reporting.suite import write_suite_page
from medjudge.runs.output_folder import Record, manifest_of, renew_pages
from medjudge.runs.provenance import data_files, file_entry, record_command, weight_files
from medjudge.runs.run_dir import RunDir
from medjudge.settings.base import without_transport
from medjudge.settings.endpoint import is_endpoint
from medjudge.settings.engine import local_name
from medjudge.settings.evaluate import ReportConfig
from medjudge.tasks.rubric import RubricContract
from medjudge.version import __version__

log = logging.getLogger(__name__)

NOT_INPUTS = frozenset({"split", "models", "extra_models", "endpoints", "batch_tokens"})
"""Settings of `[evaluate]` that do not matter here, or that stand among a set's inputs in another form."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a command asks for beside its recipe."""

    models: Mapping[str, str]
    """Name -> folder, hub id or endpoint. Others are compared with `base` where there is one, else with the first."""
    only: Sequence[str] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    """Set -> local copy."""
    rubrics: Mapping[str, str] = field(default_factory=dict)
    """Set -> preset or TOML file."""
    parent: str | None = None
    """The weights that adapters are loaded on."""


RESERVED_SETS = frozenset({"figures", artifacts.COMMANDS, artifacts.SUITE, artifacts.REPORT, artifacts.MANIFEST})
"""What lies in a benchmark's folder beside the folders of its sets."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One set with what it is judged under."""

    chosen: Chosen
    recipe: Recipe
    rows: BenchmarkRows
    cases: tuple[Case, ...]
    inputs: Mapping[str, Any]
    """Everything that its results depend on."""

    @property
    def name(self) -> str:
        return self.chosen.name


def run_benchmark(recipe: Recipe, options: BenchOptions, out_dir: Path, console: Console) -> SuiteResults:
    """Judges the chosen sets with every model. Writes a folder per set, `suite.json` and the page.

    All rows are read before the first model is asked. Raises ConfigError or DataError for what cannot work.
    """
    out_dir = out_dir.absolute()
    _check_folder(out_dir)
    engines = _engines(recipe, options)
    jobs = [_job(one, recipe, options) for one in _choose(options)]
    run_dir = RunDir(out_dir)
    with run_dir.lock():
        record_command(out_dir)
        pending = []
        for job in jobs:
            current, why = run_dir.is_current(job.name, job.inputs)
            if current:
                console.print(f"[dim]{job.name:24} unchanged, skipped[/]")
            else:
                pending.append(job)
                console.print(f"[bold]{job.name:24}[/] {len(job.cases):,} cases [dim]({why})[/]")
        judges = _judges(pending, engines, options, AnswerStore(out_dir / artifacts.ANSWERS))
        _ask_local_models(pending, judges)
        for job in pending:
            _finish(job, options, run_dir, judges[job.name])
        suite = _collect(jobs, options, run_dir)
        _write_suite(suite, jobs, run_dir)
    return suite


def _write_suite(suite: SuiteResults, jobs: Sequence[_Job], run_dir: RunDir) -> None:
    """The table of all sets and its page, and the manifest of both; each set's folder has one of its own."""
    path = run_dir.path
    artifacts.remove(path / artifacts.MANIFEST)  # of an earlier command: it names another table
    artifacts.write_json(path / artifacts.SUITE, suite.model_dump(mode="json"))
    manifests = {name: manifest for name in suite.sets if (manifest := run_dir.manifest(name)) is not None}
    versions = _measured_by(manifests)
    write_suite_page(suite, path, artifacts.read_commands(path / artifacts.COMMANDS), versions)
    record = Record(
        {name: manifest["inputs_sha256"] for name, manifest in manifests.items()},
        config={name: manifest["config"] for name, manifest in manifests.items()},
        seed=jobs[0].recipe.evaluate.seed,
        files={place: entry for manifest in manifests.values() for place, entry in manifest.get("files", {}).items()},
        summary={"sets": list(suite.sets)},
    )
    outputs = {artifacts.SUITE: file_entry(path / artifacts.SUITE)}
    artifacts.write_json(path / artifacts.MANIFEST, manifest_of("bench", record, outputs) | {"versions": versions})
    renew_pages(path)


def _measured_by(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Package -> the version that the sets were measured with; all of them where an update came between two sets.

    What is installed today measured only those sets that this command did not skip.
    """
    versions: dict[str, dict[str, None]] = {}
    for manifest in manifests.values():
        for package, version in manifest["versions"].items():
            versions.setdefault(package, {})[version] = None
    return {package: ", ".join(several) for package, several in versions.items()}


def _check_folder(out_dir: Path) -> None:
    if out_dir.exists() and not out_dir.is_dir():
        raise ConfigError(f"--out {out_dir} is a file, expected a folder: name another.")
    begun = (out_dir / artifacts.COMMANDS).exists() and (out_dir / ".lock").exists()
    if out_dir.exists() and any(out_dir.iterdir()) and not begun:
        raise ConfigError(
            f"--out {out_dir} is not empty and holds no benchmark, expected a new folder or one of a benchmark: name "
            "another."
        )


# --- rows and contracts -----------------------------------------------------------------------------------------------


def _choose(options: BenchOptions) -> list[Chosen]:
    copies, rubrics = options.copies, options.rubrics
    own = {name for name in copies if name not in SETS and name in rubrics}
    for name in own:
        if (why := file_name_trouble(name, RESERVED_SETS)) is not None:
            raise ConfigError(f"--data: a set cannot be called {shown(name)}: {why}. Give it another name.")
    chosen = choose_sets(options.only, copies, own)
    if unused := [name for name in rubrics if name not in {one.name for one in chosen}]:
        raise ConfigError(
            f"--rubric names {', '.join(unused)}, which is not among the sets that are judged: expected one of "
            f"{', '.join(one.name for one in chosen)}. Leave it out, or judge that set too (--only)."
        )
    if both := [one.name for one in chosen if one.name in rubrics and one.benchmark.preset is None and not one.is_own]:
        raise ConfigError(
            f"--rubric {both[0]}: each row of this set brings a rubric of its own, expected none here. Leave the "
            "option out."
        )
    return chosen


def _job(one: Chosen, recipe: Recipe, options: BenchOptions) -> _Job:
    if not isinstance(recipe.task, RubricContract):
        raise ConfigError(
            f"the recipe is for {recipe.task.kind!r}, expected 'rubric': this benchmark is for rubric judges. Name "
            "another recipe."
        )
    contract = set_contract(one, recipe.task, options.rubrics.get(one.name))
    own = recipe.model_copy(update={"name": one.name, "task": contract})
    rows = read_benchmark(one, contract)
    rated = [case for case in rows.table.cases if case.gold is not None]
    if not rated:
        raise DataError(
            f"{one.source}: no row has a score, expected at least one to measure {one.name} against. Take a file that "
            "holds the experts' scores, or leave the set out."
        )
    cases = seeded_sample(rated, recipe.evaluate.max_cases, recipe.evaluate.seed)
    tree = without_transport(own.model_dump(mode="json"))
    inputs = {
        "version": __version__,
        "task": tree["task"],
        "model": tree["model"],
        "evaluate": {key: value for key, value in tree["evaluate"].items() if key not in NOT_INPUTS},
        "cases": artifacts.sha256_json([case.to_json() for case in cases]),
        "parent": options.parent,
        **{f"model {name}": _identity(where) for name, where in options.models.items()},
        "endpoints": without_transport({name: own.evaluate.endpoint_of(name).model_dump() for name in options.models}),
        "order": list(options.models),
    }
    return _Job(one, own, rows, cases, inputs)


def _identity(where: str) -> list[str | None]:
    return [where, None if is_endpoint(where) else artifacts.path_signature(Path(local_name(where)))]


# --- judges -----------------------------------------------------------------------------------------------------------


def _settings(recipe: Recipe, name: str, options: BenchOptions) -> JudgeSettings:
    """any_scale: that a judge is asked on other scales and rubrics than its own is what a benchmark is for."""
    return JudgeSettings.of(name, recipe.model, recipe.evaluate, options.parent, any_scale=True)


def _engines(recipe: Recipe, options: BenchOptions) -> dict[str, LoadedWhenAsked]:
    """One engine per model for all sets. What an endpoint lacks shows before a local model has answered for hours."""
    return {
        name: LoadedWhenAsked(where, _settings(recipe, name, options).load) for name, where in options.models.items()
    }


def _judges(
    jobs: Sequence[_Job], engines: Mapping[str, LoadedWhenAsked], options: BenchOptions, store: AnswerStore
) -> dict[str, dict[str, Judge]]:
    """Set -> model -> its judge under the set's contract; one that was trained for another form is refused here."""
    return {
        job.name: {
            name: Judge(
                name,
                where,
                job.recipe.contract,
                _settings(job.recipe, name, options),
                store=store,
                doing=job.name,
                # An endpoint is counted set by set, so each set has a client of its own.
                engine=None if is_endpoint(where) else engines[name],
            )
            for name, where in options.models.items()
        }
        for job in jobs
    }


def _ask_local_models(jobs: Sequence[_Job], judges: Mapping[str, Mapping[str, Judge]]) -> None:
    """Leaves their answers in the store. A model is loaded once for all sets, and only where an answer is missing."""
    if not jobs:
        return
    local = [name for name, judge in judges[jobs[0].name].items() if not is_endpoint(judge.where)]
    if local:
        model, where = jobs[0].recipe.model, judges[jobs[0].name][local[0]].where
        if (threads := fit_threads(model.device, model.threads, local_name(where))) is not None:
            log.info(threads.sentence)
    for name in local:
        for job in jobs:
            judges[job.name][name].answers(Question(job.cases))
        judges[jobs[0].name][name].close()


# --- results ----------------------------------------------------------------------------------------------------------


def _finish(job: _Job, options: BenchOptions, run_dir: RunDir, judges: Mapping[str, Judge]) -> None:
    """Endpoints are asked, everything is measured, and the set's folder moves into place."""
    work = run_dir.begin(job.name, job.inputs)
    artifacts.write_json(work / artifacts.RECIPE, job.recipe.model_dump(mode="json"))
    artifacts.write_json(work / artifacts.COMMANDS, artifacts.read_commands(run_dir.path / artifacts.COMMANDS))
    evaluation = Evaluation(
        contract=job.recipe.contract,
        models=options.models,
        cases=job.cases,
        split=job.name,
        config=job.recipe.evaluate,
        model=job.recipe.model,
        slices=job.recipe.data.slices,
        show_text=job.recipe.report.show_text,
        parent=options.parent,
        uses_saved_calibrators=False,  # fitted for the judge's own scale and rubric
    )
    summary = evaluate_cases(evaluation, work, judges)
    results = artifacts.read_as(work / artifacts.RESULTS, Results.from_json)
    notes = [*filter(None, (judge.contract_note for judge in judges.values())), *prompt_sentences(results)]
    result = _set_result(job, results, work)
    artifacts.write_json(work / artifacts.SET, {"notes": notes, "result": result.model_dump(mode="json")})
    title = ReportConfig(title=f"{job.name}: {job.chosen.benchmark.title}")
    write_report(gather(work, title, versions=artifacts.package_versions()), work)
    run_dir.finish(
        job.name,
        Record(
            job.inputs,
            config=job.recipe.model_dump(mode="json"),
            seed=job.recipe.evaluate.seed,
            files=data_files([job.chosen.source]) | weight_files([*options.models.values(), options.parent]),
            summary=summary,
        ),
    )


def _set_result(job: _Job, results: Results, work: Path) -> SetResult:
    answered: dict[str, list[str | None]] = {name: [] for name in results.of_role("model")}
    gold: dict[str, list[str]] = {name: [] for name in answered}
    for row in read_verdicts(work / artifacts.VERDICTS):
        if row.model in answered:
            gold[row.model].append(str(row.gold))  # rows without a score are not judged
            label = row.label if row.completion is None else last_score(row.completion, results.labels)
            answered[row.model].append(label)
    left_out = dict(job.rows.left_out)
    if n_bad := len(job.rows.table.rejected):
        left_out[f"cannot be read, such as {job.rows.table.rejected[0]}"] = n_bad
    if n_unrated := sum(case.gold is None for case in job.rows.table.cases):
        left_out["without a score"] = n_unrated
    if n_not_drawn := len(job.rows.table.cases) - n_unrated - len(job.cases):
        left_out["not drawn (--max-cases)"] = n_not_drawn
    return SetResult(
        title=job.chosen.benchmark.title,
        source=job.chosen.source,
        licence=job.chosen.benchmark.licence,
        points=len(results.labels),
        n_rows=job.rows.table.n_rows + sum(job.rows.left_out.values()),
        n_cases=len(job.cases),
        left_out=left_out,
        judges={
            name: JudgeOnSet(
                n=results.models[name].n,
                n_unparsed=results.models[name].n_unparsed,
                unanswered=results.models[name].unanswered,
                honest=honest_values(name, results),
                published=published_values(gold[name], answered[name], results.labels),
                usage=results.models[name].usage,
            )
            for name in answered
        },
    )


def _collect(jobs: Sequence[_Job], options: BenchOptions, run_dir: RunDir) -> SuiteResults:
    """The sets of this command, and those of earlier ones in the folder where the same models were judged alike."""
    asked = {key: jobs[0].inputs[key] for key in jobs[0].inputs if key.startswith("model ") or key == "order"}
    mode = jobs[0].recipe.evaluate.mode
    results = {}
    own = [job.name for job in jobs]
    for path in sorted(run_dir.path.glob(f"*/{artifacts.SET}")):
        name = path.parent.name
        inputs = (run_dir.manifest(name) or {}).get("inputs", {})
        alike = inputs.get("evaluate", {}).get("mode") == mode and all(inputs.get(key) == asked[key] for key in asked)
        if name in own or alike:
            results[name] = artifacts.read_as(
                path, lambda tree: (SetResult.model_validate(tree["result"]), tree["notes"])
            )
    known = list(SETS)
    order = sorted(results, key=lambda name: (known.index(name) if name in known else len(known), name))
    return SuiteResults(
        models=tuple(options.models),
        mode=mode,
        sets={name: results[name][0] for name in order},
        notes=tuple(f"{name}: {note}" for name in order for note in results[name][1]),
    )
