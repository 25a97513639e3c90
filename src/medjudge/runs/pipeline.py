"""Runs a recipe's stages in order: skips what is unchanged, resumes what was cut off, leaves nothing half."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from medjudge import artifacts
from medjudge.errors import ConfigError, RunError
from medjudge.files import write_failure
from medjudge.log import show_on
from medjudge.machine import fit_threads
from medjudge.models.sources import gguf_sha256, local_model
from medjudge.models.sources import source_files as model_files
from medjudge.names import STAGE_NAMES
from medjudge.network import offline
from medjudge.progress import roughly
from medjudge.recipe import Recipe
from medjudge.runs.output_folder import Record, is_held
from medjudge.runs.provenance import Files, data_files, record_command, weight_files
from medjudge.runs.ranks import is_first_rank, n_ranks, rank
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import STAGES, StageContext, is_active, reading_stages, training_stages
from medjudge.runs.summaries import stage_sentence
from medjudge.settings.base import without_transport
from medjudge.settings.data import SPLIT_SOURCES
from medjudge.settings.engine import local_name
from medjudge.settings.model import BUILTIN_BASES, SCRATCH_BASE
from medjudge.version import __version__

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
FIRST_RANK_S, POLL_S = 120.0, 0.2
"""Seconds that other ranks wait for the first to hold the run, and between two looks at what it does."""


def active_stages(recipe: Recipe, first: str | None = None, last: str | None = None) -> list[str]:
    """The recipe's stages from `first` to `last`, in order. Raises ConfigError for a range that holds none."""
    for name in (first, last):
        if name is not None and name not in STAGES:
            raise ConfigError(f"no stage is called {name!r}. Expected one of {', '.join(STAGES)}. Name one of these.")
    low = STAGE_NAMES.index(first) if first else 0
    high = STAGE_NAMES.index(last) if last else len(STAGE_NAMES) - 1
    names: list[str] = [name for name in STAGE_NAMES[low : high + 1] if is_active(name, recipe)]
    if not names:
        raise ConfigError(
            f"--from {first or STAGE_NAMES[0]} --until {last or STAGE_NAMES[-1]} holds no stage of the recipe, "
            "expected at least one. Name a wider range, or add the stage to `stages`."
        )
    return names


def check_upstream(recipe: Recipe, run_dir: RunDir, first: str) -> None:
    """Raises ConfigError if a stage before `first` was made under other settings: a later one would mix two recipes."""
    for name in active_stages(recipe, None, first)[:-1]:
        current, why = run_dir.is_current(name, stage_inputs(name, recipe, run_dir))
        if why == NOT_RUN:
            raise ConfigError(
                f"--from {first}: stage {name} has not run in {run_dir.path}, expected its results there. Take --from "
                f"{name}."
            )
        if not current:
            raise ConfigError(
                f"--from {first}: stage {name} of {run_dir.path} is not of this recipe ({why}), expected the same "
                f"settings. Take --from {name}."
            )


def stage_inputs(name: str, recipe: Recipe, run_dir: RunDir) -> dict[str, Any]:
    """Everything that a stage's result depends on, each under a name that `--dry-run` can print.

    Raises ConfigError if a stage before it has not run.
    """
    stage = STAGES[name]
    # Without what only changes how a server is reached: a higher timeout does not make results stale.
    tree = without_transport(recipe.model_dump(mode="json"))
    inputs: dict[str, Any] = {section: tree[section] for section in stage.sections}
    inputs |= {"seed": recipe.seed, "version": __version__, "contract": recipe.contract.fingerprint()}
    if name == "prepare":
        inputs |= {f"source {source}": _signature(source) for source in _sources(recipe)}
        inputs["splits used"] = {
            **{one.name: one.split_name(recipe) for one in reading_stages(recipe.stages)},
            "grpo prompts": [tree["grpo"][key] for key in ("epochs", "max_cases", "max_steps", "prompts_per_step")],
        }
    elif recipe.model.base != SCRATCH_BASE:
        inputs["base model"] = _signature(recipe.model.base)
    if name in ("base", "evaluate"):
        inputs["splits trained on"] = [one.split_name(recipe) for one in training_stages(STAGES)]
    if name == "evaluate":
        inputs |= {f"model {model}": _signature(path) for model, path in recipe.evaluate.extra_models.items()}
    if judge := _judge_of(name, recipe):
        inputs["judge"] = _signature(judge)
    for before in stage.after:
        if not is_active(before, recipe):
            continue
        manifest = run_dir.manifest(before)
        if manifest is None:
            raise ConfigError(
                f"stage {name} needs {before}, which has not run in {run_dir.path}: start with --from {before}."
            )
        # By content: a stage that ran again with the same results leaves those after it current.
        inputs[f"outputs of {before}"] = {
            path: entry["sha256"] for path, entry in manifest["outputs"].items() if Path(path).name not in NOT_INPUTS
        }
    return inputs


def _judge_of(name: str, recipe: Recipe) -> str | None:
    """The model that marks answers in a stage, where the recipe names one."""
    if STAGES[name].by_rewards:
        return recipe.grpo.reward_settings.llm.judge
    return recipe.evaluate.llm.judge if name == "evaluate" else None


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
    with run_dir.lock(), show_on(console):
        if not is_first_rank():
            _follow(names, recipe, run_dir, console, force=force)
            return run_dir.path
        if fresh:
            run_dir.discard_notes()
        check_upstream(recipe, run_dir, names[0])
        _check_trainings(recipe, names)
        _check_parts(recipe, names)
        artifacts.write_json(run_dir.path / artifacts.RECIPE, recipe.model_dump(mode="json"))
        record_command(run_dir.path)
        for name in names:
            if fresh:
                run_dir.output(name).discard()
            _run_stage(name, recipe, run_dir, console, siblings, force=force)
            run_dir.announce(name, "done")
    return run_dir.path


def _check_trainings(recipe: Recipe, names: Sequence[str]) -> None:
    """What TRL or an adapter would refuse is refused before the first stage runs."""
    if training_stages(names):
        from medjudge.training.adapter_check import check_adapters
        from medjudge.training.trl_arguments import check_arguments

        check_arguments(recipe)
        check_adapters(recipe, names)


def _check_parts(recipe: Recipe, names: Sequence[str]) -> None:
    """A key or a package that is missing shows now, not after hours of training. Nothing is asked."""
    if any(STAGES[name].by_rewards for name in names):
        recipe.reward_plan(())
    for name, where in recipe.evaluate.extra_models.items():
        if "evaluate" in names and where.startswith("openai:"):
            from medjudge.inference.endpoint import EndpointClient
            from medjudge.settings.endpoint import parse_endpoint

            EndpointClient(parse_endpoint(where), recipe.evaluate.endpoint_of(name))


def _run_stage(
    name: str, recipe: Recipe, run_dir: RunDir, console: Console, siblings: Sequence[RunDir], *, force: bool
) -> None:
    inputs, output = stage_inputs(name, recipe, run_dir), run_dir.output(name)
    # Before siblings: what lies in this run costs nothing, not even links.
    current, why = output.is_current(inputs)
    if current:
        console.print(f"[dim]{name:9} unchanged, skipped[/]")
        return
    for sibling in siblings:
        if not STAGES[name].is_of_the_run and sibling.is_current(name, inputs)[0]:
            output.adopt(sibling.output(name))
            console.print(f"[dim]{name:9} the same as that of {sibling.path.name}, taken from there[/]")
            return
    work = output.begin(inputs)
    # A kill may cut a checkpoint in half; the trainer would take the last one it sees.
    damaged = artifacts.drop_damaged_checkpoints(work)
    why = resume_words(work, artifacts.latest_checkpoint(work)) if why == RESUMES else why
    console.print(f"[bold]{name:9}[/] {STAGES[name].title}" + (f" [dim]({why})[/]" if why != NOT_RUN else ""))
    for line in damaged:
        console.print(f"          [yellow]{line}[/]")
    if STAGES[name].computes:
        _settle_threads(recipe, work, console)
    run_dir.announce(name, "runs")
    with _watched(name, run_dir, console):
        context = StageContext(recipe, work, run_dir, console, force=force)
        # Imported here: torch is loaded once there is something to compute.
        summary = importlib.import_module(STAGES[name].module).run(context)
    output.finish(_record(name, recipe, inputs, summary))
    manifest = output.manifest() or {}
    several = f" in {manifest['sittings']} sessions" if manifest["sittings"] > 1 else ""
    _note(f"{stage_sentence(name, summary)} It took {roughly(manifest['wall_s'])}{several}.", console)


@contextlib.contextmanager
def _watched(name: str, run_dir: RunDir, console: Console) -> Iterator[None]:
    """Notes how long a stage runs, and turns what may break it into a sentence."""
    output = run_dir.output(name)
    # A training or an evaluation shows its own bar; the other stages are short, but not so short as to say nothing.
    is_quiet = not STAGES[name].computes and console.is_interactive
    with console.status(f"{name} ...") if is_quiet else contextlib.nullcontext():
        try:
            yield
        except KeyboardInterrupt:
            words = resume_words(output.work, artifacts.latest_checkpoint(output.work))
            console.print(f"stopped. With the same command {name} {words}.")
            raise
        except Exception as error:
            # Wherever it happened: a full disk surfaces as another exception in each library.
            if (message := write_failure(error)) is not None:
                output.drop_useless_work()
                raise RunError(f"{name}: {message}") from None
            # torch.OutOfMemoryError is a RuntimeError; torch itself is not imported here.
            if type(error).__name__ != "OutOfMemoryError":
                raise
            raise RunError(
                f"{name}: out of GPU memory, expected batches that fit. Lower `sft.micro_batch`, `grpo.micro_batch`, "
                "`evaluate.batch_tokens`, or set `model.gradient_checkpointing = true`."
            ) from None
        finally:
            artifacts.note_sitting(output.work)


def _record(name: str, recipe: Recipe, inputs: Mapping[str, Any], summary: Mapping[str, Any]) -> Record:
    stage, tree = STAGES[name], recipe.model_dump(mode="json")
    trl: dict[str, Any] = {}
    if stage.trains:
        from medjudge.training.trl_arguments import settings_in_force

        trl = settings_in_force(name, recipe)
    return Record(
        inputs=inputs,
        config={key: value for key, value in tree.items() if key in stage.sections},
        seed=recipe.seed,
        files=_files(name, recipe),
        summary=summary,
        trl=trl,
    )


def _files(name: str, recipe: Recipe) -> Files:
    """What a stage read from outside of the run: what it read of earlier stages stands with its hash in the inputs."""
    if name == "prepare":
        return data_files(_sources(recipe))
    if not STAGES[name].computes:
        return {}
    base = None if recipe.model.base == SCRATCH_BASE else recipe.model.base
    files = weight_files([base], recipe.model.revision)
    return files | (weight_files(recipe.evaluate.extra_models.values()) if name == "evaluate" else {})


# --- several processes ------------------------------------------------------------------------------------------------


def _follow(names: Sequence[str], recipe: Recipe, run_dir: RunDir, console: Console, *, force: bool) -> None:
    """What a process beside the first one does: it trains where the first trains, and waits for all else.

    It takes no lock, and writes no recipe, manifest or result.
    """
    # Trainers' arguments open the processes' connection to each other, where all of them have to meet.
    _check_trainings(recipe, names)
    for name in names:
        # Several processes share a training's batches; every other stage is the first one's alone.
        enough = ("done", "runs") if STAGES[name].trains else ("done",)
        state = _wait(run_dir, name, enough)
        if state == "runs":
            context = StageContext(recipe, run_dir.work(name), run_dir, console, force=force, is_first_rank=False)
            importlib.import_module(STAGES[name].module).run(context)
            _wait(run_dir, name, ("done",))


def _wait(run_dir: RunDir, name: str, states: Collection[str]) -> str:
    """What the first process says of a stage, once it is one of `states`. Raises RunError if it has ended."""
    seen_s = time.monotonic()
    while (state := run_dir.announced(name)) not in states:
        # The first process is alive: a stage may take days, so only its absence is timed.
        if is_held(run_dir.path):
            seen_s = time.monotonic()
        elif time.monotonic() - seen_s > FIRST_RANK_S:
            raise RunError(
                f"process {rank()} of {n_ranks()} waited {FIRST_RANK_S:.0f} s for the first process of {run_dir.path}, "
                "expected it to hold that folder: it has ended. Look at its message, and start all of them again."
            )
        time.sleep(POLL_S)
    return state


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
        n_stored = int(artifacts.read_json(path)["n"]) if path.exists() else None
    # A damaged note costs a new measurement, not the run.
    except (RunError, KeyError, TypeError, ValueError):
        n_stored = None
    model: int | str | Path = recipe.base.hidden_size
    if recipe.model.base != SCRATCH_BASE:
        model = local_model(recipe.model.base, recipe.model.revision).folder or recipe.model.base
    threads = fit_threads(recipe.model.device, recipe.model.threads, model, kept=n_stored)
    if threads is not None:
        artifacts.write_json(path, threads.to_json())
        _note(threads.sentence, console)


def _sources(recipe: Recipe) -> list[str]:
    return [source for name in ("source", *SPLIT_SOURCES) if (source := getattr(recipe.data, name))]


def _signature(source: str) -> str:
    """What tells that a source changed: contents of a file, size and time of a folder's files, else its name."""
    from medjudge.data.rows import BUILTIN, source_files

    source = local_name(source)
    if files := model_files(source):
        return gguf_sha256(files[0])
    if source in BUILTIN_BASES:
        return source
    if source.startswith(BUILTIN):
        return artifacts.sha256_json([artifacts.sha256_file(p) for p in source_files(source)])
    return artifacts.path_signature(Path(source)) or source
