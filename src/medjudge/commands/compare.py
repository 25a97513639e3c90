"""Lay the variants of a recipe side by side: the last step of `medjudge run` on a recipe with `[variants.*]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from medjudge import artifacts
from medjudge.data.verdict_rows import VerdictRow, read_verdicts, write_verdicts
from medjudge.errors import DataError
from medjudge.metrics.baselines import Baselines
from medjudge.metrics.reasoning import ReasoningNumbers, ReasoningResults, summarise_reasoning
from medjudge.metrics.result_types import Results
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, TrainingRows, summarise
from medjudge.metrics.variants import VariantRow, Variants, step_times
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.runs.output_folder import OutputFolder, Record
from medjudge.runs.provenance import record_command
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import STAGES, training_stages


@dataclass(frozen=True, slots=True)
class Compared:
    """One model of the comparison: where its answers stand."""

    variant: str
    recipe: Recipe
    results: Results
    model: str
    """Its name in the variant's own results."""
    rows: Mapping[str, VerdictRow]
    """By case id."""


@artifacts.private_files()
def compare_variants(recipe: Recipe, variants: Mapping[str, Recipe], not_trained: Mapping[str, str]) -> Path:
    """Writes `runs/NAME/compare` whole: results, answers and `compare.json`. Returns the folder.

    Raises DataError if no variant was evaluated, or if variants were evaluated on different cases.
    """
    compared = _compared(recipe, {n: v for n, v in variants.items() if n not in not_trained})
    first = next(iter(compared.values()))
    cases = _cases(first, compared)
    results = _results(recipe, first, compared, cases)
    table = _table(results, compared, not_trained)
    inputs = {name: RunDir(one.recipe.run_dir).manifest("evaluate") for name, one in compared.items()}
    outputs = {name: manifest["outputs"] if manifest else None for name, manifest in inputs.items()}
    folder = OutputFolder.of_stage(recipe.run_dir, artifacts.COMPARE)
    with folder.writing(outputs) as work:
        artifacts.write_json(work / artifacts.RESULTS, results.to_json())
        artifacts.write_json(work / artifacts.VARIANTS, table.model_dump(mode="json"))
        artifacts.write_json(work / artifacts.RECIPE, recipe.model_dump(mode="json"))
        record_command(work)
        rows = (replace(row, model=name) for name, one in compared.items() for row in one.rows.values())
        write_verdicts(work / artifacts.VERDICTS, rows)
        settings = recipe.evaluate.model_dump(mode="json")
        folder.finish(Record(outputs, config=settings, seed=recipe.evaluate.seed))
    return folder.final


def _compared(recipe: Recipe, variants: Mapping[str, Recipe]) -> dict[str, Compared]:
    """The variants' trained models by variant name; before them the untrained models that the first one evaluated."""
    found: dict[str, Compared] = {}
    for name, variant in variants.items():
        path = variant.run_dir / "evaluate" / artifacts.RESULTS
        if variant.task.kind != recipe.task.kind or not path.exists():
            continue
        results = artifacts.read_as(path, Results.from_json)
        by_model = _verdict_rows(path.with_name(artifacts.VERDICTS))
        made = [stage.name for stage in training_stages(results.models)]
        trained = made[-1] if made else None  # the model that a variant stands for: the one trained last
        before = [model for model in results.of_role("model") if model != trained] if not found else []
        for model in [*before, trained] if trained else before:
            key = name if model == trained else model
            found[key] = Compared(name, variant, results, model, by_model[model])
    if not found:
        raise DataError(f"no variant of {recipe.name} was evaluated: there is nothing to lay side by side.")
    return found


def _verdict_rows(path: Path) -> dict[str, dict[str, VerdictRow]]:
    """Model -> case id -> row."""
    rows: dict[str, dict[str, VerdictRow]] = {}
    for row in read_verdicts(path):
        rows.setdefault(row.model, {})[row.case_id] = row
    return rows


def _cases(first: Compared, compared: Mapping[str, Compared]) -> list[Case]:
    """The cases that all variants were evaluated on."""
    for name, one in compared.items():
        if one.rows.keys() != first.rows.keys():
            raise DataError(
                f"variant {name} was evaluated on other cases than {first.variant}: give variants the same `data`, "
                "`evaluate.split`, `evaluate.max_cases` and `evaluate.seed`."
            )
    split = RunDir(first.recipe.run_dir).split(first.recipe.evaluate.split)
    return [case for case in split.read() if case.case_id in first.rows]


def _results(recipe: Recipe, first: Compared, compared: Mapping[str, Compared], cases: Sequence[Case]) -> Results:
    config = recipe.evaluate
    reference = first.variant
    baselines = _verdict_rows(first.recipe.run_dir / "evaluate" / artifacts.VERDICTS)
    results = summarise(
        cases,
        {name: [one.rows[case.case_id].judgement() for case in cases] for name, one in compared.items()},
        contract=recipe.contract,
        split=first.results.split,
        baselines=Baselines(
            {
                name: [baselines[name][case.case_id].judgement() for case in cases]
                for name in first.results.of_role("baseline")
            },
            first.results.skipped_baselines,
        ),
        facts={name: _facts(one) for name, one in compared.items()},
        training=TrainingRows(first.results.train_n, first.results.leakage),
        options=AnalysisOptions(
            reference=reference if reference in compared else next(iter(compared)),
            slices=recipe.data.slices,
            level=config.level,
            n_resamples=config.n_resamples,
            seed=config.seed,
        ),
    )
    return results.model_copy(update={"reasoning": _reasoning(recipe, first, compared, cases, results)})


def _numbers(row: VerdictRow) -> ReasoningNumbers:
    """Numbers that an earlier version measured otherwise are left out, as unknown ones."""
    known = {one.name for one in fields(ReasoningNumbers)}
    return ReasoningNumbers(**{name: value for name, value in (row.reasoning or {}).items() if name in known})  # type: ignore[arg-type]


def _facts(one: Compared) -> JudgeFacts:
    """What the variant's own evaluation recorded; its `usage` is left there, being that run's."""
    model = one.results.models[one.model]
    words_cut = {case_id: row.n_words_cut for case_id, row in one.rows.items() if row.n_words_cut is not None}
    return JudgeFacts(model.lineage, model.seconds, n_truncated=model.n_truncated, words_cut=words_cut)


def _reasoning(
    recipe: Recipe,
    first: Compared,
    compared: Mapping[str, Compared],
    cases: Sequence[Case],
    results: Results,
) -> ReasoningResults | None:
    """The reasoning of all variants on the same resamples; None where it was not measured."""
    rows = [row for one in compared.values() for row in one.rows.values()]
    if first.results.reasoning is None or not all(row.reasoning is not None for row in rows):
        return None
    config = recipe.evaluate
    return summarise_reasoning(
        {name: [_numbers(one.rows[case.case_id]) for case in cases] for name, one in compared.items()},
        [case.group or case.case_id for case in cases],
        reference=str(results.reference),
        level=config.level,
        n_resamples=config.n_resamples,
        seed=config.seed,
        facts=first.results.reasoning.facts,
        not_measured=first.results.reasoning.not_measured,
    )


def _table(results: Results, compared: Mapping[str, Compared], not_trained: Mapping[str, str]) -> Variants:
    trained = {name: one for name, one in compared.items() if one.model in STAGES and STAGES[one.model].by_rewards}
    reference = str(results.reference)
    times = step_times(
        {name: _seconds(one.recipe.run_dir / one.model / artifacts.TIMINGS) for name, one in trained.items()},
        reference,
        level=results.level,
        n_resamples=results.n_resamples,
        seed=results.seed,
    )
    rows = []
    for name, one in compared.items():
        model = results.models[name]
        told = results.reasoning.models[name] if results.reasoning is not None else {}
        labels = {metric: model.metrics[metric] for metric in ("macro_f1", "weighted_f1")}
        per_step, relative = times.get(name, (None, None))
        rows.append(
            VariantRow(
                name=name,
                n=model.n,
                n_unparsed=model.n_unparsed,
                unanswered=model.unanswered,
                metrics={**labels, **told},
                seconds_per_step=per_step,
                relative_time=relative,
                rewards=dict(one.recipe.grpo.rewards) if name in trained else {},
            )
        )
    return Variants(
        reference=reference,
        rows=tuple(rows),
        not_trained=dict(not_trained),
        not_measured=results.reasoning.not_measured if results.reasoning is not None else {},
        level=results.level,
    )


def _seconds(path: Path) -> list[float]:
    return artifacts.read_as(path, lambda values: [float(value) for value in values]) if path.exists() else []
