"""Tasks for lm-evaluation-harness: `medjudge export lm-eval DIR`, then `lm_eval --include_path DIR --tasks NAME`.

A task is a folder that needs nothing beside it: the YAML file, the documents, and a `utils.py` that reads completions
with the contract's own parser, from an installed medjudge or from the copy of it that lies in the folder.
"""

from __future__ import annotations

import json
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge import artifacts
from medjudge.data.benchmarks import SETS, choose_sets, read_benchmark, set_contract
from medjudge.data.sources import parse_where, read_source
from medjudge.data.splits import seeded_sample
from medjudge.errors import ConfigError, DataError
from medjudge.files import BUILTIN_DIR
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.records import Case, Message
from medjudge.runs.output_folder import OutputFolder, Record
from medjudge.runs.provenance import data_files
from medjudge.settings.data import DataConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode_all, encode_labels, prompt_turns
from medjudge.tasks.rubric import RubricContract
from medjudge.tasks.tokenizers import decode, stop_text
from medjudge.version import __version__

BUILTIN_ROWS = {
    "mcq": "builtin:mcq",
    "equivalence": "builtin:equivalence",
    "rubric": "builtin:rubric",
    "appropriateness": "builtin:appropriateness",
    "pairwise": "builtin:pairwise",
}
"""What the tasks with built-in rows are exported with where no rows are named."""
N_BUILTIN = 500
DOCS, CONTRACT, UTILS, PARSER, README = "docs.jsonl", "contract.json", "utils.py", "parser.zip", "README.md"
PARSER_MODULES = ("records.py", "errors.py", "names.py", "settings/__init__.py", "settings/base.py", "tasks/*.py")
"""What reading a completion needs of this package; of others, pydantic."""

GENERATE_YAML = """\
task: {name}
custom_dataset: !function utils.docs
test_split: test
output_type: generate_until
description: system
doc_to_text: user
doc_to_target: gold
num_fewshot: 0
fewshot_delimiter: ""
target_delimiter: ""
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: {max_tokens}
process_results: !function utils.process_results
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: unparsed
    aggregation: mean
    higher_is_better: false
metadata:
  version: 1
"""
LABELS_YAML = """\
task: {name}
custom_dataset: !function utils.docs
test_split: test
output_type: multiple_choice
description: system
doc_to_text: user
doc_to_target: target
doc_to_choice: choices
num_fewshot: 0
fewshot_delimiter: ""
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""
UTILS_DOCS = '''\
"""Documents{and_parse} of an lm-evaluation-harness task. Written by `medjudge export lm-eval`."""

import json
{imports}from pathlib import Path

import datasets

HERE = Path(__file__).resolve().parent


def docs(**_):
    """The documents as the split `test`."""
    with (HERE / "docs.jsonl").open(encoding="utf-8", newline="\\n") as lines:
        return {{"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}}
'''
UTILS_PARSE = '''

try:
    from medjudge.tasks.catalog import TASKS
except ImportError:  # without medjudge: its parser lies here
    sys.path.append(str(HERE / "parser.zip"))
    from medjudge.tasks.catalog import TASKS

EXPORTED = json.loads((HERE / "contract.json").read_text(encoding="utf-8"))
CONTRACT = TASKS[EXPORTED["settings"]["kind"]].model_validate(EXPORTED["settings"])
if CONTRACT.fingerprint() != EXPORTED["fingerprint"]:
    raise RuntimeError(
        "this task was exported by medjudge " + EXPORTED["version"] + ", and the one that is installed reads answers "
        "differently. Export the task again, or run it where medjudge is not installed."
    )


def process_results(doc, results):
    """1 for the expert's label; an answer that cannot be read is wrong, and counted."""
    said = CONTRACT.parse(doc["case_id"], results[0])
    label = getattr(said, "label", None)
    return {"acc": float(label == doc["gold"]), "unparsed": float(label is None)}
'''


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported, and how."""

    sets: Mapping[str, str | None]
    """Sets of the benchmark -> local copy, or None for the hub's."""
    rubrics: Mapping[str, str]
    source: str | None = None
    """Rows of the recipe's task."""
    where: Sequence[str] = ()
    tokenizer: str | None = None
    """A model whose tokenizer shortens prompts and ends labels as ours does for it."""
    max_cases: int | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    name: str
    contract: TaskContract
    cases: Sequence[Case]
    source: str


@artifacts.private_files()
def export_lm_eval(
    recipe: Recipe | None, base: Recipe, options: ExportOptions, out_dir: Path, console: Console
) -> None:
    """Writes a folder per task and a README with the command. `out_dir` appears whole or not at all.

    recipe: of the task whose rows are exported; None exports the benchmark's sets, or without any the tasks on built-in
    rows. base: mode and settings for those.
    """
    folder = OutputFolder.new(out_dir, "export")
    tasks = _tasks(recipe, base, options, console)
    mode = (recipe or base).evaluate.mode
    tokenizer = _tokenizer(options.tokenizer, recipe or base)
    inputs: dict[str, str] = {
        "version": __version__,
        "mode": mode,
        **{f"task {task.name}": task.contract.fingerprint() for task in tasks},
        **{f"cases of {task.name}": artifacts.sha256_json([case.to_json() for case in task.cases]) for task in tasks},
    }
    sources = [task.source for task in tasks]
    with folder.writing(inputs) as work:
        for task in tasks:
            _write_task(task, mode, tokenizer, work / task.name)
            console.print(f"{task.name}: {len(task.cases):,} documents")
        names, model = [task.name for task in tasks], options.tokenizer
        here = lm_eval_command(tasks[0].contract, names, ".", model)
        artifacts.write_text(work / README, _readme(here, mode, tokenizer is not None))
        settings = (recipe or base).evaluate.model_dump(mode="json")
        seed = (recipe or base).evaluate.seed
        folder.finish(Record(inputs, config=settings, seed=seed, files=data_files(sources)))
    console.print(f"\n{lm_eval_command(tasks[0].contract, names, str(folder.final), model)}", soft_wrap=True)


def lm_eval_command(contract: TaskContract, names: Sequence[str], folder: str, model: str | None) -> str:
    """The harness's command that asks as we ask: our thinking mode, and no token before the rendered prompt."""
    # Its own `enable_thinking: true` would cut the thought off before the contract reads the completion.
    thinking = {"chat_template_args": {"enable_thinking": True}} if contract.thinking else {"enable_thinking": False}
    arguments = json.dumps({"pretrained": model or "MODEL", "add_bos_token": False, **thinking})
    return (
        f"lm_eval --model hf --model_args {shlex.quote(arguments)} --apply_chat_template "
        f"--include_path {shlex.quote(folder)} --tasks {','.join(names)}"
    )


# --- what is exported -------------------------------------------------------------------------------------------------


def _tasks(recipe: Recipe | None, base: Recipe, options: ExportOptions, console: Console) -> list[_Task]:
    tasks = []
    if recipe is not None:
        if options.source is None:
            raise ConfigError("got a recipe without rows, expected --data: name a file, a hub or a builtin data set.")
        tasks.append(_own_rows(recipe, options))
    if options.sets:
        tasks += _benchmark(base, options)
    if tasks:
        return tasks
    for kind, source in BUILTIN_ROWS.items():
        settings = {"kind": kind, **({"points": 5} if kind == "rubric" else {})}
        one = recipe_from_tree({"name": "export", "task": settings}, [], where="export")
        if base.evaluate.mode == "labels" and one.contract.label_frame() is None:
            console.print(f"{kind}: left out, it reasons before its label, which labels mode cannot score")
            continue
        cases = read_source(source, one.contract, DataConfig(max_rows=options.max_cases or N_BUILTIN)).cases
        tasks.append(_Task(f"medjudge_{kind}", one.contract, cases, source))
    return tasks


def _own_rows(recipe: Recipe, options: ExportOptions) -> _Task:
    source = str(options.source)
    where = parse_where(options.where) if options.where else None
    table = read_source(source, recipe.contract, recipe.data, where=where)
    return _rated(f"medjudge_{recipe.contract.kind}", recipe.contract, table.cases, source, options, recipe)


def _benchmark(base: Recipe, options: ExportOptions) -> list[_Task]:
    if not isinstance(base.task, RubricContract):
        raise ConfigError(
            f"the recipe is for {base.task.kind!r}, expected 'rubric': the benchmark's sets are for rubric judges. "
            "Name another recipe, or leave the sets out."
        )
    copies = {name: path for name, path in options.sets.items() if path is not None}
    own = {name for name in copies if name not in SETS and name in options.rubrics}
    tasks = []
    for one in choose_sets(list(options.sets), copies, own):
        contract = set_contract(one, base.task, options.rubrics.get(one.name))
        rows = read_benchmark(one, contract)
        name = "medjudge_" + one.name.replace("-", "_")
        tasks.append(_rated(name, contract, rows.table.cases, one.source, options, base))
    return tasks


def _rated(
    name: str, contract: TaskContract, cases: Sequence[Case], source: str, options: ExportOptions, recipe: Recipe
) -> _Task:
    rated = [case for case in cases if case.gold is not None]
    if not rated:
        raise DataError(
            f"{source}: no row has a gold label, expected at least one: the harness could not score any. Name rows "
            "that experts labelled."
        )
    return _Task(name, contract, seeded_sample(rated, options.max_cases, recipe.evaluate.seed), source)


def _tokenizer(model: str | None, recipe: Recipe) -> Any:
    if model is None:
        return None
    from medjudge.models.load import load_tokenizer, quiet_libraries, resolve

    quiet_libraries()
    return load_tokenizer(resolve(model), recipe.model.chat_template)


# --- files ------------------------------------------------------------------------------------------------------------


def _write_task(task: _Task, mode: str, tokenizer: Any, folder: Path) -> None:
    contract = task.contract
    rows = documents(contract, task.cases, mode, tokenizer)
    folder.mkdir()
    artifacts.write_lines(folder / DOCS, rows)
    template = GENERATE_YAML if mode == "generate" else LABELS_YAML
    artifacts.write_text(
        folder / f"{task.name}.yaml", template.format(name=task.name, max_tokens=contract.max_completion_tokens)
    )
    artifacts.write_json(
        folder / CONTRACT,
        {"version": __version__, "fingerprint": contract.fingerprint(), "settings": contract.model_dump(mode="json")},
    )
    parses = mode == "generate"
    utils = UTILS_DOCS.format(and_parse=" and parser" if parses else "", imports="import sys\n" if parses else "")
    artifacts.write_text(folder / UTILS, utils + (UTILS_PARSE if parses else ""))
    if parses:
        _write_parser(folder / PARSER)


def documents(contract: TaskContract, cases: Sequence[Case], mode: str, tokenizer: Any = None) -> list[dict[str, Any]]:
    """One document per case: id, system and user turn, gold label, in labels mode also what is scored.

    With a tokenizer, prompts are shortened to the contract's limit and a label ends with the model's end of turn, as
    when we ask that model ourselves; without one, neither can be. Raises ConfigError where the harness could not ask
    as we do.
    """
    prompts = [contract.messages(case) for case in cases]
    if tokenizer is not None:
        prompts = _fitted(contract, cases, tokenizer)
    choices = _choices(contract, cases, tokenizer) if mode == "labels" else None
    rows = []
    for case, turns in zip(cases, prompts, strict=True):
        texts = {turn["role"]: turn["content"] for turn in turns}
        row: dict[str, Any] = {
            "case_id": case.case_id,
            "system": texts.get("system", ""),
            "user": texts["user"],
            "gold": case.gold,
        }
        if choices is not None:
            row |= {"choices": choices, "target": contract.labels.index(str(case.gold))}
        rows.append(row)
    return rows


def _fitted(contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> list[list[Message]]:
    """The turns as this tokenizer's model sees them when we ask it."""
    prompts = []
    for case, encoded in zip(cases, encode_all(contract, cases, tokenizer, with_target=False), strict=True):
        shown = case if encoded.shown is None else replace(case, inputs=encoded.shown)
        turns = prompt_turns(contract, shown, tokenizer)
        _check_rendering(contract, turns, encoded.prompt_text, tokenizer)
        prompts.append(turns)
    return prompts


def _choices(contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> list[str]:
    """Label by label, the completion up to where the label is closed: with a tokenizer, up to our own last token."""
    frame = contract.label_frame()
    if frame is None:
        raise ConfigError(
            f"the {contract.kind} task here reasons before its label, expected a form that answers with the label "
            "alone: labels cannot be scored after a text. Take such a form, or leave labels out."
        )
    if tokenizer is not None and not frame.ends:
        [scored] = encode_labels(contract, encode_all(contract, cases[:1], tokenizer, with_target=False), tokenizer)
        return [decode(tokenizer, [*scored.forced, *ids], ()) for ids in scored.labels]
    end = stop_text(tokenizer) if tokenizer is not None else ""
    return [frame.forced + frame.continuations[label] + (end if frame.ends else "") for label in contract.labels]


def _check_rendering(contract: TaskContract, turns: list[Message], prompt: str, tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=contract.thinking
    )
    if rendered != prompt:
        raise ConfigError(
            "this tokenizer's chat template opens a thinking block after the prompt, which is part of the completion "
            "here but of the prompt in the harness: its answers would be read without their first tag. Set "
            "`task.thinking` to false, or take a template that leaves the block to the model."
        )


def _write_parser(path: Path) -> None:
    """The modules that read completions, as a zip that Python imports from; the same bytes for the same program."""
    package = BUILTIN_DIR.parent
    files = sorted(file for pattern in PARSER_MODULES for file in package.glob(pattern))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "medjudge/__init__.py", f'__version__ = "{__version__}"\n')
        for file in files:
            _add(archive, f"medjudge/{file.relative_to(package).as_posix()}", file.read_text(encoding="utf-8"))


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)


def _readme(command: str, mode: str, has_tokenizer: bool) -> str:
    scored = (
        "`acc` is the share of answers that hold the expert's label; `unparsed` those that hold none: they are wrong."
        if mode == "generate"
        else "`acc` is the share of cases whose likeliest label is the expert's."
    )
    limits = (
        "Prompts were shortened to the task's limit, and labels end with the model's end of turn, for this tokenizer."
        if has_tokenizer
        else "No tokenizer was named: prompts are whole, and labels are scored without the model's end of turn. "
        "`--tokenizer MODEL` makes both as medjudge does for that model."
    )
    return f"""\
# Tasks for lm-evaluation-harness

Exported by medjudge {__version__}. Needs `lm_eval` 0.4.13 or later, and no medjudge. In this folder:

```sh
{command}
```

{scored} {limits}

`enable_thinking` and `add_bos_token` in the command decide the prompt: without them, a model with a thinking mode is
asked in it, and some tokenizers put a token of their own before the rendered prompt.

The documents hold the rows' text: what their licence and your duty of care say of the rows holds for this folder.
"""
