"""Everything that a page shows, gathered from a run folder or from an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medjudge import artifacts
from medjudge.data.verdict_rows import read_verdicts
from medjudge.diagnostics.preflight import Preflight
from medjudge.errors import RunError
from medjudge.files import how_to_renew
from medjudge.metrics.result_types import Results
from medjudge.metrics.variants import Variants
from medjudge.reporting.inputs import ReportInputs, VerdictRow
from medjudge.reporting.notes import DoctorNotes, ManifestNotes
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import LOGGED
from medjudge.settings.evaluate import ReportConfig
from medjudge.tasks.catalog import Task
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.text import prompt_text


def gather(folder: Path, config: ReportConfig, *, versions: Mapping[str, str] | None = None) -> ReportInputs:
    """Everything that a page shows, from a run folder or from an evaluation's folder. What is absent is left out.

    versions: of the packages that measure at this moment, for a folder whose manifest is not written yet. Without them
    the page names those of the manifest, or none: what is installed today says nothing of older numbers.
    """
    evaluated = folder / "evaluate" if (folder / "evaluate").is_dir() else folder
    results = artifacts.read_as(evaluated / artifacts.RESULTS, Results.from_json)
    recipe = _read(evaluated / artifacts.RECIPE, {})
    manifest = _manifest(evaluated)
    data_path, doctor_path = folder / "prepare" / artifacts.DATA, folder / "grpo" / artifacts.DOCTOR
    doctor = _read(doctor_path, {})
    splits, lint = artifacts.parsed(data_path, _read(data_path, {}), _splits_and_lint)
    preflight = _preflight(folder / "grpo" / artifacts.PREFLIGHT)
    return ReportInputs(
        title=config.title or f"{recipe.get('name', evaluated.name)}: {results.task}",
        results=results,
        histories={stage: rows for stage in LOGGED if (rows := _history(folder / stage / artifacts.HISTORY))},
        verdicts=_verdicts(
            evaluated / artifacts.VERDICTS, results, _prompts(folder, evaluated, recipe) if config.show_text else None
        ),
        recipe=recipe,
        commands=artifacts.read_commands(folder / artifacts.COMMANDS),
        versions=versions_of(evaluated) or versions or {},
        lint=lint,
        data=splits,
        variants=_variants(evaluated),
        preflight=preflight,
        doctor=artifacts.parsed(doctor_path, doctor, DoctorNotes.model_validate).model_dump() if doctor else {},
        description=str(recipe.get("description", "")),
        finished=manifest.finished,
        shortened=_shortened(folder),
        max_disagreements=config.max_disagreements,
    )


def versions_of(folder: Path) -> dict[str, str] | None:
    """The packages that made what a folder holds, by its manifest; None where it has none."""
    return _manifest(folder).versions


def _splits_and_lint(data: Mapping[str, Any]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """(split -> counts, finding -> rows) of `data.json`. Raises TypeError, KeyError or ValueError for another form."""
    lint: Counter[str] = Counter()
    for counts in data.get("lint", {}).values():
        lint.update({str(code): int(count) for code, count in counts.items()})
    splits = data.get("splits", {}).items()
    return {name: {"cases": int(one["n_cases"]), "groups": int(one["n_groups"])} for name, one in splits}, dict(lint)


def _preflight(path: Path) -> dict[str, Any]:
    """What `preflight.json` holds; nothing where an older program wrote it in another form."""
    tree: dict[str, Any] = _read(path, {})
    if "checks" in tree:
        return artifacts.parsed(path, tree, Preflight.from_json).to_json()
    return {}


def _manifest(stage: Path) -> ManifestNotes:
    path = stage / artifacts.MANIFEST
    return artifacts.parsed(path, _read(path, {}), ManifestNotes.model_validate)


def _history(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _read(path, [])
    if not all(map(_is_log_entry, rows)):
        raise RunError(f"{path} is no training log: expected entries of numbers by name. {how_to_renew(path)}")
    return rows


def _is_log_entry(row: Any) -> bool:
    """Whether a page can draw it: no nested values, no whole number that no float holds, and a number as its step."""
    if not isinstance(row, dict) or any(isinstance(value, list | dict) for value in row.values()):
        return False
    numbers = [value for value in row.values() if isinstance(value, int)]
    return isinstance(row.get("step", 0), int | float) and all(abs(number) < 1e300 for number in numbers)


def _shortened(folder: Path) -> dict[str, str]:
    """Stage -> how many of its training prompts lost words; stages that cut none are left out."""
    lines: dict[str, str] = {}
    for stage in LOGGED:
        summary = _manifest(folder / stage).summary
        if isinstance(summary.n_prompts_shortened, int) and summary.n_prompts_shortened:
            lines[stage] = (
                f"{summary.n_prompts_shortened:,} of {summary.n_cases:,} training prompts were shortened, by "
                f"{summary.n_words_cut:,} words in all"
            )
    return lines


def _variants(evaluated: Path) -> Variants | None:
    path = evaluated / artifacts.VARIANTS
    return artifacts.read_as(path, Variants.model_validate) if path.exists() else None


def _prompts(folder: Path, evaluated: Path, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Case id -> the prompt before any chat template: as it was kept, or of a run from its split."""
    path = evaluated / artifacts.PROMPTS
    if path.exists():
        rows = list(artifacts.read_lines(path))
        return artifacts.parsed(path, rows, lambda rows: {str(row["case_id"]): str(row["prompt"]) for row in rows})
    split = artifacts.parsed(evaluated / artifacts.RECIPE, recipe, lambda tree: tree.get("evaluate", {}).get("split"))
    prepared = RunDir(folder).split(str(split))
    if not recipe or not prepared.exists:
        return {}
    contract = artifacts.parsed(evaluated / artifacts.RECIPE, recipe, _contract)
    return {case.case_id: prompt_text(contract.messages(case)) for case in prepared.read()}


def _contract(recipe: Mapping[str, Any]) -> TaskContract:
    """The task section of a kept recipe. The other sections are not read: an older program's page can be made."""
    contract: TaskContract = TypeAdapter(Task).validate_python(recipe["task"])
    return contract


def _verdicts(path: Path, results: Results, prompts: Mapping[str, str] | None = None) -> dict[str, list[VerdictRow]]:
    """Answers by model; baselines are left out. prompts: None leaves the text of prompts and completions out."""
    rows: dict[str, list[VerdictRow]] = {name: [] for name in results.of_role("model")}
    if not path.exists():
        return rows
    for row in read_verdicts(path):
        if row.model in rows:
            shown = (None, None) if prompts is None else (prompts.get(row.case_id), row.completion)
            rows[row.model].append(
                VerdictRow(row.case_id, row.gold, row.label, row.confidence, row.unparsed_reason, *shown)
            )
    return rows


def _read(path: Path, default: Any) -> Any:
    """The value of a file that may be absent. Raises RunError where it is not of the kind of `default`."""
    if not path.exists():
        return default
    value = artifacts.read_json(path)
    if not isinstance(value, type(default)):
        raise RunError(
            f"{path} holds a {type(value).__name__}, expected a {type(default).__name__}. {how_to_renew(path)}"
        )
    return value
