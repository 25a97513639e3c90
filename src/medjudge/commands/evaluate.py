"""`medjudge evaluate`: any models on any labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from medjudge import artifacts
from medjudge.data.leakage import LeakageReport, check_leakage, enforce_leakage
from medjudge.data.probes import CARRIED
from medjudge.data.rows import Row, iter_rows
from medjudge.data.sources import parse_where, read_source
from medjudge.data.splits import seeded_sample
from medjudge.errors import DataError
from medjudge.judging.evaluate_cases import Evaluation, evaluate_cases
from medjudge.judging.probing import ALL
from medjudge.machine import fit_threads
from medjudge.network import offline
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.runs.output_folder import OutputFolder, Record
from medjudge.runs.provenance import data_files, record_command, weight_files
from medjudge.settings.data import DataConfig
from medjudge.settings.endpoint import is_endpoint
from medjudge.settings.engine import local_name
from medjudge.tasks.contract import TaskContract
from medjudge.version import __version__

NAME = "evaluate"


@artifacts.private_files()
@offline()
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
    OutputFolder.new(out_dir, NAME)  # what lies there is refused before anything is read
    kept = data_config.model_copy(update={"slices": _with_carried(data, contract, data_config, recipe)})
    table = read_source(data, contract, kept, where=parse_where(where) if where else None)
    cases = seeded_sample(table.cases, recipe.evaluate.max_cases, recipe.evaluate.seed)
    if not any(case.gold is not None for case in cases):
        raise DataError(
            f"{data}: no row has a gold label in {contract.gold_field!r}: there is nothing to measure against."
        )
    train_cases: Sequence[Case] = ()
    leakage = LeakageReport((), {}, data_config.leakage.near_duplicate_threshold)
    if train is not None:
        train_cases = read_source(train, contract, data_config).cases
        leakage = check_leakage(
            {"train": train_cases},
            {"evaluated": cases},
            near_duplicate_threshold=data_config.leakage.near_duplicate_threshold,
            likeness_threshold=data_config.leakage.likeness_threshold,
        )
        enforce_leakage(leakage, max_share=data_config.leakage.max_share, allow=data_config.leakage.allow)
    if local := [where for where in models.values() if not is_endpoint(where)]:
        from medjudge.models.load import quiet_libraries

        quiet_libraries()
        if (threads := fit_threads(recipe.model.device, recipe.model.threads, local_name(local[0]))) is not None:
            console.print(f"  [dim]{threads.sentence}[/]")
    asked = _asked(recipe, models, cases, parent)
    folder = OutputFolder.new(out_dir, NAME, key=asked)
    if folder.has_kept_work:
        console.print("  goes on where an evaluation of the same models on the same cases was cut off")
    inputs = {
        "asked": asked,
        "version": __version__,
        "contract": contract.fingerprint(),
        "data": data,
        "cases": artifacts.sha256_json([case.to_json() for case in cases]),
        **{f"model {name}": where for name, where in models.items()},
    }
    with folder.writing(inputs) as work:
        record_command(work)
        try:
            evaluation = Evaluation(
                contract=contract,
                models=models,
                cases=cases,
                split=Path(data).name,
                config=recipe.evaluate,
                model=recipe.model,
                train=train_cases,
                leakage=leakage,
                slices=data_config.slices,
                show_text=recipe.report.show_text,
                parent=parent,
            )
            summary = evaluate_cases(evaluation, work)
        except BaseException:
            if folder.has_kept_work:
                console.print(f"  what was answered is kept in {work.name}: the same command goes on from there")
            raise
        config = {**recipe.model_dump(mode="json"), "data": data_config.model_dump(mode="json")}
        files = data_files([data, train]) | weight_files([*models.values(), parent], recipe.model.revision)
        folder.finish(Record(inputs, config=config, seed=recipe.evaluate.seed, files=files, summary=summary))


def _asked(recipe: Recipe, models: Mapping[str, str], cases: Sequence[Case], parent: str | None) -> str:
    """Tells one evaluation from another: what decides the answers, and nothing of how they are counted."""
    config = recipe.evaluate
    return artifacts.sha256_json(
        [
            recipe.contract.fingerprint(),
            recipe.model.model_dump(mode="json"),
            [config.mode, config.seed, config.probe_cases, config.batch_tokens],
            {name: [where, _files_of(where)] for name, where in models.items()},
            [parent, _files_of(parent or "")],
            [case.to_json() for case in cases],
        ]
    )[:12]


def _files_of(where: str) -> list[tuple[str, int, int]]:
    """Size and time of a model folder's files; nothing of what is no folder."""
    folder = Path(local_name(where))
    if is_endpoint(where) or not folder.is_dir():
        return []
    return [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()) if p.is_file()]


def _with_carried(data: str, contract: TaskContract, config: DataConfig, recipe: Recipe) -> tuple[str, ...]:
    """The slices, and the columns of rewritten texts that rows carry for probes that are asked for."""
    wanted = [kind for kind in CARRIED if {kind, ALL} & set(recipe.evaluate.probes)]
    if not wanted:
        return config.slices
    first = next((row for row in iter_rows(data) if isinstance(row, Row)), None)
    names = [f"{kind}_{name}" for kind in wanted for name in contract.fields]
    return (*config.slices, *(name for name in names if first is not None and name in first.values))
