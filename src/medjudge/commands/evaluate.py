"""`medjudge evaluate`: any models on any labelled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from medjudge import artifacts
from medjudge.data.leakage import LeakageReport, check_leakage, enforce_leakage
from medjudge.data.probes import CARRIED, named_probes
from medjudge.data.rows import Row, iter_rows
from medjudge.data.sources import parse_where, read_source
from medjudge.data.splits import seeded_sample
from medjudge.errors import DataError
from medjudge.judging.answer_store import model_identity
from medjudge.judging.evaluate_cases import Evaluation, evaluate_cases
from medjudge.machine import fit_threads
from medjudge.network import offline
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.runs.output_folder import KEY_LENGTH, OutputFolder, Record
from medjudge.runs.provenance import data_files, record_command, weight_files
from medjudge.settings.data import DataConfig
from medjudge.settings.endpoint import is_endpoint
from medjudge.settings.engine import local_name
from medjudge.tasks.contract import TaskContract
from medjudge.version import __version__

NAME = "evaluate"


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What `medjudge evaluate` takes beside the task, the rows and the models."""

    where: Sequence[str] = ()
    """`COLUMN=VALUE` of the rows that are evaluated; () takes the recipe's `data.where`."""
    train: str | None = None
    """The rows that the models were trained on: for leakage and baselines."""
    parent: str | None = None
    """The weights that adapters are loaded on, where they are not in their place."""


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
    options: EvaluateOptions | None = None,
) -> None:
    """Any models on any labelled rows. The folder `out_dir` appears whole or not at all."""
    options = options or EvaluateOptions()
    OutputFolder.new(out_dir, NAME)  # what lies there is refused before anything is read
    cases = _cases_of(data, contract, data_config, recipe, options.where)
    train_cases, leakage = _training_rows(options.train, contract, data_config, cases)
    _fit_threads(recipe, models, console)
    key = _key_of(recipe, models, cases, options.parent)
    folder = OutputFolder.new(out_dir, NAME, key=key)
    if folder.has_kept_work:
        console.print("  goes on where an evaluation of the same models on the same cases was cut off")
    files = data_files([data, options.train])  # as they are now: a long evaluation leaves time to change them
    inputs = {
        "asked": key,
        "version": __version__,
        "contract": contract.fingerprint(),
        "data": data,
        "cases": artifacts.sha256_json([case.to_json() for case in cases]),
        **{f"model {name}": where for name, where in models.items()},
    }
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
        parent=options.parent,
    )
    with folder.writing(inputs) as work:
        record_command(work)
        try:
            summary = evaluate_cases(evaluation, work)
        except BaseException:  # Ctrl-C too: the answers so far were paid for, and the same command takes them up
            if folder.has_kept_work:
                console.print(f"  answers so far are stored in {work.name}: the same command goes on from there")
            raise
        config = {**recipe.model_dump(mode="json"), "data": data_config.model_dump(mode="json")}
        files |= weight_files([*models.values(), options.parent])
        folder.finish(Record(inputs, config=config, seed=recipe.evaluate.seed, files=files, summary=summary))


def _cases_of(
    data: str, contract: TaskContract, data_config: DataConfig, recipe: Recipe, where: Sequence[str]
) -> Sequence[Case]:
    """The rows that are judged. Raises DataError where none has a gold label."""
    row_settings = data_config.model_copy(update={"slices": _with_carried(data, contract, data_config, recipe)})
    table = read_source(data, contract, row_settings, where=parse_where(where) if where else None)
    cases = seeded_sample(table.cases, recipe.evaluate.max_cases, recipe.evaluate.seed)
    if not any(case.gold is not None for case in cases):
        raise DataError(
            f"{data}: no row has a gold label in {contract.gold_field!r}, expected at least one: there is nothing to "
            f"measure against. Map the column that holds the expert's label: --map {contract.gold_field}=COLUMN."
        )
    return cases


def _training_rows(
    train: str | None, contract: TaskContract, data_config: DataConfig, cases: Sequence[Case]
) -> tuple[Sequence[Case], LeakageReport]:
    """The rows of `--train`, and what of them leaks into `cases`. Raises DataError above the limit."""
    limits = data_config.leakage
    if train is None:
        return (), LeakageReport((), {}, limits.near_duplicate_threshold)
    train_cases = read_source(train, contract, data_config).cases
    leakage = check_leakage(
        {"train": train_cases},
        {"evaluated": cases},
        near_duplicate_threshold=limits.near_duplicate_threshold,
        likeness_threshold=limits.likeness_threshold,
    )
    enforce_leakage(leakage, max_share=limits.max_share, allow=limits.allow)
    return train_cases, leakage


def _fit_threads(recipe: Recipe, models: Mapping[str, str], console: Console) -> None:
    """Threads for local models; endpoints need neither torch nor a choice."""
    local = [where for where in models.values() if not is_endpoint(where)]
    if not local:
        return
    from medjudge.models.load import quiet_libraries

    quiet_libraries()
    if (threads := fit_threads(recipe.model.device, recipe.model.threads, local_name(local[0]))) is not None:
        console.print(f"  [dim]{threads.sentence}[/]")


def _key_of(recipe: Recipe, models: Mapping[str, str], cases: Sequence[Case], parent: str | None) -> str:
    """Tells one evaluation from another: what decides the answers, and nothing of how they are counted."""
    config = recipe.evaluate
    return artifacts.sha256_json(
        [
            recipe.contract.fingerprint(),
            recipe.model.model_dump(mode="json"),
            [config.mode, config.seed, config.probe_cases, config.batch_tokens],
            {name: model_identity(where) for name, where in models.items()},
            model_identity(parent) if parent is not None else None,
            [case.to_json() for case in cases],
        ]
    )[:KEY_LENGTH]


def _with_carried(data: str, contract: TaskContract, config: DataConfig, recipe: Recipe) -> tuple[str, ...]:
    """The slices, and the columns of rewritten texts that rows carry for probes that are asked for."""
    probes = named_probes(recipe.evaluate.probes, contract)
    wanted = [kind for kind in CARRIED if kind in probes]
    if not wanted:
        return config.slices
    first = next((row for row in iter_rows(data) if isinstance(row, Row)), None)
    names = [f"{kind}_{name}" for kind in wanted for name in contract.fields]
    return (*config.slices, *(name for name in names if first is not None and name in first.values))
