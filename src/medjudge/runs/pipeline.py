"""Runs a recipe's stages in order: skips what is unchanged, resumes what was cut off, leaves nothing half."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from medjudge import artifacts
from medjudge.errors import ConfigError, RunError
from medjudge.files import BUILTIN_DIR, write_failure
from medjudge.machine import fit_threads
from medjudge.names import STAGE_NAMES
from medjudge.network import offline
from medjudge.progress import roughly
from medjudge.recipe import Recipe
from medjudge.rewards.composition import reward_plan
from medjudge.runs.run_dir import RunDir
from medjudge.runs.summaries import stage_sentence
from medjudge.settings.base import without_transport
from medjudge.settings.data import SPLIT_SOURCES
from medjudge.settings.engine import local_name
from medjudge.settings.model import SCRATCH_BASE, TINY_BASE
from medjudge.version import __version__


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the pipeline."""

    module: str
    """Imported only when the stage runs."""
    sections: tuple[str, ...]
    """Recipe sections that the stage depends on."""
    after: tuple[str, ...]
    """Stages whose outputs it reads."""
    title: str


STAGES: dict[str, Stage] = {
    "prepare": Stage("medjudge.stages.prepare", ("task", "data"), (), "expert rows -> checked, split cases"),
    "base": Stage("medjudge.stages.base", ("base", "model"), ("prepare",), "train a tiny model from random weights"),
    "sft": Stage(
        "medjudge.stages.sft",
        ("task", "model", "sft"),
        ("prepare", "base"),
        "supervised fine-tuning on task and format",
    ),
    "grpo": Stage("medjudge.stages.grpo", ("task", "model", "grpo"), ("prepare", "base", "sft"), "train on rewards"),
    "merge": Stage(
        "medjudge.stages.merge",
        ("task", "model", "merge"),
        ("prepare", "sft", "grpo"),
        "one model, checked against its adapters",
    ),
    "evaluate": Stage(
        "medjudge.stages.evaluate",
        ("task", "model", "evaluate"),
        ("prepare", "base", "sft", "grpo", "merge"),
        "agreement with the experts, with intervals",
    ),
    "report": Stage("medjudge.stages.report", ("report",), ("evaluate",), "page of outcome, tables and figures"),
}
"""In the order a project meets them."""

NOT_SHARED = ("evaluate", "report")
"""Stages that name the run itself: each run makes its own."""
COMPUTING = ("base", "sft", "grpo", "evaluate")
"""Stages that are long enough to look for their number of threads: the load of a machine changes between them."""
NOT_INPUTS = (
    artifacts.HISTORY,
    artifacts.PREFLIGHT,
    artifacts.TIMINGS,
    artifacts.DOCTOR,
    artifacts.JUDGES,
    artifacts.LINT,
)
"""Outputs of a stage that later stages do not read: a change in them alone makes nothing stale."""


NOT_RUN, RESUMES = "not run yet", "resumes where it was cut off"
"""What `RunDir.is_current` says of a stage that has no results and of one that was begun."""


def active_stages(recipe: Recipe, first: str | None = None, last: str | None = None) -> list[str]:
    """The recipe's stages from `first` to `last`, in order. Raises ConfigError for a range that holds none."""
    for name in (first, last):
        if name is not None and name not in STAGES:
            raise ConfigError(f"no stage is called {name!r}. Stages: {', '.join(STAGES)}.")
    low = STAGE_NAMES.index(first) if first else 0
    high = STAGE_NAMES.index(last) if last else len(STAGE_NAMES) - 1
    names: list[str] = [name for name in STAGE_NAMES[low : high + 1] if _is_active(name, recipe)]
    if not names:
        raise ConfigError(
            f"--from {first or STAGE_NAMES[0]} --until {last or STAGE_NAMES[-1]} holds no stage of the recipe."
        )
    return names


def _is_active(name: str, recipe: Recipe) -> bool:
    return name in recipe.stages and (name != "base" or recipe.model.base == SCRATCH_BASE)


def check_upstream(recipe: Recipe, run_dir: RunDir, first: str) -> None:
    """Raises ConfigError if a stage before `first` was made under other settings: a later one would mix two recipes."""
    for name in active_stages(recipe, None, first)[:-1]:
        current, why = run_dir.is_current(name, stage_inputs(name, recipe, run_dir))
        if why == NOT_RUN:
            raise ConfigError(f"--from {first}: stage {name} has not run in {run_dir.path}. Take --from {name}.")
        if not current:
            raise ConfigError(
                f"--from {first}: stage {name} of {run_dir.path} is not of this recipe ({why}). Take --from {name}."
            )


def stage_inputs(name: str, recipe: Recipe, run_dir: RunDir) -> dict[str, Any]:
    """Everything that a stage's result depends on, each under a name that `--dry-run` can print.

    Raises ConfigError if a stage before it has not run.
    """
    stage = STAGES[name]
    tree = without_transport(recipe.model_dump(mode="json"))
    inputs: dict[str, Any] = {section: tree[section] for section in stage.sections}
    inputs |= {"seed": recipe.seed, "version": __version__, "contract": recipe.contract.fingerprint()}
    if name == "prepare":
        inputs |= {f"source {source}": _signature(source) for source in _sources(recipe)}
        inputs["splits used"] = {
            **{stage: tree[stage]["split"] for stage in ("sft", "grpo", "evaluate") if stage in recipe.stages},
            "grpo prompts": [tree["grpo"][key] for key in ("epochs", "max_cases", "max_steps", "prompts_per_step")],
        }
    elif recipe.model.base != SCRATCH_BASE:
        inputs["base model"] = _signature(recipe.model.base)
    if name in ("base", "evaluate"):
        inputs["splits trained on"] = [recipe.sft.split, recipe.grpo.split]
    if name == "evaluate":
        inputs |= {f"model {model}": _signature(path) for model, path in recipe.evaluate.extra_models.items()}
    judges = {"grpo": recipe.grpo.reward_settings.llm.judge, "evaluate": recipe.evaluate.llm.judge}
    if judge := judges.get(name):
        inputs["judge"] = _signature(judge)
    for before in stage.after:
        if not _is_active(before, recipe):
            continue
        manifest = run_dir.manifest(before)
        if manifest is None:
            raise ConfigError(
                f"stage {name} needs {before}, which has not run in {run_dir.path}: start with --from {before}."
            )
        inputs[f"outputs of {before}"] = {
            path: entry["sha256"] for path, entry in manifest["outputs"].items() if Path(path).name not in NOT_INPUTS
        }
    return inputs


@offline()
def run_recipe(
    recipe: Recipe,
    console: Console,
    *,
    first: str | None = None,
    last: str | None = None,
    fresh: bool = False,
    force: bool = False,
    siblings: Sequence[RunDir] = (),
) -> Path:
    """Runs the stages `first` to `last`. Returns the run folder.

    fresh: forget those stages' earlier results and begun work. force: go on over a failed pre-flight, and record it.
    siblings: runs whose finished stages are taken over where they were made from the same inputs.
    """
    names = active_stages(recipe, first, last)
    run_dir = RunDir(recipe.run_dir)
    with run_dir.lock():
        if fresh:
            run_dir.discard_notes()
        check_upstream(recipe, run_dir, names[0])
        if {"sft", "grpo"} & set(names):
            from medjudge.models.adapters import check_adapters
            from medjudge.training.trl_arguments import check_arguments

            check_arguments(recipe)
            check_adapters(recipe, names)
        _check_parts(recipe, names)
        artifacts.write_json(run_dir.path / artifacts.RECIPE, recipe.model_dump(mode="json"))
        _record_command(run_dir.path)
        run_dir.allow_failed_preflight(force)
        for name in names:
            if fresh:
                run_dir.discard(name)
            _run_stage(name, recipe, run_dir, console, siblings)
    return run_dir.path


def _check_parts(recipe: Recipe, names: Sequence[str]) -> None:
    """A key or a package that is missing shows now, not after hours of training. Nothing is asked."""
    if "grpo" in names:
        reward_plan(recipe, ())
    for name, where in recipe.evaluate.extra_models.items():
        if "evaluate" in names and where.startswith("openai:"):
            from medjudge.inference.endpoint import EndpointClient
            from medjudge.settings.endpoint import parse_endpoint

            EndpointClient(parse_endpoint(where), recipe.evaluate.endpoint_of(name))


def _run_stage(name: str, recipe: Recipe, run_dir: RunDir, console: Console, siblings: Sequence[RunDir]) -> None:
    inputs = stage_inputs(name, recipe, run_dir)
    current, why = run_dir.is_current(name, inputs)
    if current:
        console.print(f"[dim]{name:9} unchanged, skipped[/]")
        return
    for sibling in siblings:
        if name not in NOT_SHARED and sibling.is_current(name, inputs)[0]:
            run_dir.adopt(name, sibling)
            console.print(f"[dim]{name:9} the same as that of {sibling.path.name}, taken from there[/]")
            return
    work = run_dir.begin(name, inputs)
    damaged = artifacts.drop_damaged_checkpoints(work)
    why = resume_words(work, artifacts.latest_checkpoint(work)) if why == RESUMES else why
    console.print(f"[bold]{name:9}[/] {STAGES[name].title}" + (f" [dim]({why})[/]" if why != NOT_RUN else ""))
    for line in damaged:
        console.print(f"          [yellow]{line}[/]")
    if name in COMPUTING:
        _settle_threads(recipe, work, console)
    artifacts.begin_sitting(work)
    # A training or an evaluation shows its own bar; the other stages are short, but not so short as to say nothing.
    quiet_stage = name in ("prepare", "merge", "report") and console.is_interactive
    with console.status(f"{name} ...") if quiet_stage else contextlib.nullcontext():
        try:
            summary = importlib.import_module(STAGES[name].module).run(recipe, work, run_dir.path, console)
        except KeyboardInterrupt:
            console.print(
                f"stopped. With the same command {name} {resume_words(work, artifacts.latest_checkpoint(work))}."
            )
            raise
        except Exception as error:
            if (message := write_failure(error)) is not None:
                run_dir.drop_useless_work(name)
                raise RunError(f"{name}: {message}") from None
            # torch.OutOfMemoryError is a RuntimeError; torch itself is not imported here.
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise RunError(
                f"{name}: out of GPU memory. Lower `sft.micro_batch`, `grpo.micro_batch`, `evaluate.batch_tokens`, or "
                "set `model.gradient_checkpointing = true`."
            ) from None
        finally:
            artifacts.note_sitting(work)
    seconds = artifacts.sittings(work)
    wall_s, several = sum(seconds), f" in {len(seconds)} sittings" if len(seconds) > 1 else ""
    sections = STAGES[name].sections
    config = {key: value for key, value in recipe.model_dump(mode="json").items() if key in sections}
    run_dir.finish(name, config=config, inputs=inputs, summary=summary, seed=recipe.seed, wall_s=wall_s)
    _note(f"{stage_sentence(name, summary)} It took {roughly(wall_s)}{several}.", console)


def resume_words(work: Path, checkpoint: Path | None) -> str:
    """Where a stage that was cut off goes on, given its last whole checkpoint."""
    if checkpoint is not None:
        return f"goes on after step {int(checkpoint.name.rpartition('-')[2]):,}"
    if any(work.glob(f"{artifacts.ANSWERS}*")):
        return "goes on after the models that have answered"
    return "starts again from its beginning: it was cut off before its first checkpoint"


def _note(text: str, console: Console) -> None:
    """A remark on the stage that runs, indented under its name."""
    console.print(Padding.indent(Text(text, "dim"), 10))


def _settle_threads(recipe: Recipe, work: Path, console: Console) -> None:
    """Takes as many threads as are fastest now; a stage that was cut off goes on with as many as it began with."""
    path = work / artifacts.THREADS
    try:
        kept = int(artifacts.read_json(path)["n"]) if path.exists() else None
    except (RunError, KeyError, TypeError, ValueError):
        kept = None
    base = BUILTIN_DIR / "tiny" if recipe.model.base == TINY_BASE else recipe.model.base
    model = recipe.base.hidden_size if recipe.model.base == SCRATCH_BASE else base
    threads = fit_threads(recipe.model.device, recipe.model.threads, model, kept=kept)
    if threads is not None:
        artifacts.write_json(path, threads.to_json())
        _note(threads.sentence, console)


def _record_command(run_dir: Path) -> None:
    """Keeps the commands that touched this run, the newest last, for the report."""
    path = run_dir / artifacts.COMMANDS
    commands = artifacts.read_commands(path)
    command = shlex.join(["medjudge", *sys.argv[1:]])
    if command not in commands:
        artifacts.write_json(path, [*commands, command][-20:])


def _sources(recipe: Recipe) -> list[str]:
    return [source for name in ("source", *SPLIT_SOURCES) if (source := getattr(recipe.data, name))]


def _signature(source: str) -> str:
    """What tells that a source changed: contents of a file, size and time of a folder's files, else its name."""
    from medjudge.data.rows import BUILTIN, source_files

    source = local_name(source)
    if source == TINY_BASE:
        return artifacts.sha256_file(BUILTIN_DIR / "tiny" / "model.safetensors")
    if source.startswith(BUILTIN):
        return artifacts.sha256_json([artifacts.sha256_file(p) for p in source_files(source)])
    return artifacts.path_signature(Path(source)) or source
