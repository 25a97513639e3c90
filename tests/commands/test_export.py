"""Exported tasks, held against the real lm-evaluation-harness: the same prompts, the same verdicts, row by row."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from medjudge import artifacts
from medjudge.commands.bench import BenchOptions, run_benchmark
from medjudge.commands.evaluate import evaluate_folder
from medjudge.commands.export import ExportOptions, documents, export_lm_eval, lm_eval_command
from medjudge.data.sources import read_source
from medjudge.errors import ConfigError
from medjudge.models.scratch import build_tokenizer
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.records import Case
from medjudge.settings.training import BaseConfig
from medjudge.tasks.encoding import encode_all
from medjudge.tasks.rubric import RubricContract
from medjudge.training.language_model import build_model
from tests.shared_data import require_shared, shared_tokenizer

N_ROWS = 8
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mcq": ("builtin:mcq", {"max_completion_tokens": 60}),
    "equivalence": ("builtin:equivalence", {"max_completion_tokens": 12}),
    "rubric": ("builtin:rubric-3", {"points": 3, "form": "score_only", "max_completion_tokens": 24}),
    "pairwise": ("builtin:pairwise", {"max_completion_tokens": 24}),
    "appropriateness": ("builtin:appropriateness-bare", {"form": "answer_only", "max_completion_tokens": 24}),
}
"""Kind -> rows and settings. The system prompt is short, so that a tiny model learns in seconds."""
SCORE_ONLY = {"points": 3, "form": "score_only", "criteria": "Is it right?", "rubric": "1 no, 2 partly, 3 yes"}


def settings(kind: str, mode: str = "generate", **task: Any) -> Recipe:
    return recipe_from_tree(
        {
            "name": "x",
            "task": {"kind": kind, "system_prompt": "Judge.", **TASKS[kind][1], **task},
            "data": {"max_rows": N_ROWS},
            "evaluate": {"mode": mode, "n_resamples": 100, "baselines": False},
            "model": {"dtype": "float32", "device": "cpu"},
        }
    )


def options(source: str | None = None, tokenizer: str | None = None, **more: Any) -> ExportOptions:
    return ExportOptions(**{"sets": {}, "rubrics": {}, "source": source, "tokenizer": tokenizer, **more})


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some ten thousand parameters that half knows the four tasks: right, wrong and unreadable answers."""
    cases = {kind: read_source(TASKS[kind][0], settings(kind).contract, settings(kind).data).cases for kind in TASKS}
    texts = [
        text
        for kind, rows in cases.items()
        for case in rows
        for text in (
            *(turn["content"] for turn in settings(kind).contract.messages(case)),
            settings(kind).contract.target(case),
        )
    ]
    shape = BaseConfig(vocab_size=1500, hidden_size=48, n_layers=2, n_heads=2, intermediate_size=96)
    tokenizer = build_tokenizer(texts, shape.vocab_size)
    model: Any = build_model(shape, tokenizer, 0)
    short = [kind for kind in TASKS if kind != "mcq"]  # which stays unreadable
    rows = [
        row for kind in short for row in encode_all(settings(kind).contract, cases[kind], tokenizer, with_target=True)
    ]
    pairs = [(row.prompt_ids, row.completion_ids or []) for row in rows]
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for at, (prompt, answer) in enumerate(pairs):
        ids[at, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        labels[at, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("taught")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def harness(model: Path, folders: Sequence[Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `lm_eval` finds, with the arguments of `lm_eval_command`."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (the `bench` extra)")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names = sorted(path.stem for folder in folders for path in folder.glob("*/*.yaml"))
    command = lm_eval_command(settings("mcq").contract, names, ".", str(model))
    arguments = json.loads(command.split("'")[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the harness's own
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={**arguments, "dtype": "float32", "device": "cpu"},
            tasks=names,
            task_manager=TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False),
            apply_chat_template=True,
            batch_size=4,
            bootstrap_iters=0,
        )
    assert found is not None
    return dict(found)


@pytest.mark.parametrize("mode", ["generate", "labels"])
def test_the_harness_gives_our_verdicts_row_by_row(
    mode: str, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, ours = [], {}
    for kind, (source, _) in TASKS.items():
        recipe = settings(kind, mode)
        folders.append(tmp_path / f"export-{kind}")
        export_lm_eval(recipe, recipe, options(source, str(taught)), folders[-1], Console(quiet=True))
        out = tmp_path / kind
        evaluate_folder(recipe.contract, source, {"m": str(taught)}, out, Console(quiet=True), recipe.data, recipe)
        verdicts = [json.loads(line) for line in (out / artifacts.VERDICTS).read_text(encoding="utf-8").splitlines()]
        ours[f"medjudge_{kind}"] = {row["case_id"]: row for row in verdicts}
    found = harness(taught, folders, monkeypatch)
    n_right = n_unparsed = 0
    for name, rows in ours.items():
        samples = found["samples"][name]
        assert {sample["doc"]["case_id"] for sample in samples} == set(rows)
        for sample in samples:
            mine = rows[sample["doc"]["case_id"]]
            assert sample["acc"] == mine["correct"], name
            if mode == "generate":
                assert sample["resps"][0][0] == mine["completion"]
                assert sample["unparsed"] == (mine["label"] is None)
            else:
                likeliest = max(range(len(sample["resps"])), key=lambda i: sample["resps"][i][0][0])
                assert list(mine["label_probabilities"])[likeliest] == mine["label"]
                theirs = torch.tensor([response[0][0] for response in sample["resps"]]).softmax(0).tolist()
                assert list(mine["label_probabilities"].values()) == pytest.approx(theirs, abs=1e-3)
            n_right += mine["correct"]
            n_unparsed += mine["label"] is None
        accuracy = sum(row["correct"] for row in rows.values()) / len(rows)
        assert found["results"][name]["acc,none"] == pytest.approx(accuracy)
    # Otherwise equal numbers would say nothing.
    assert 3 < n_right < sum(map(len, ours.values())), (n_right, n_unparsed)
    assert mode == "labels" or n_unparsed > 0


def test_a_task_reads_answers_without_medjudge(tmp_path: Path) -> None:
    recipe = settings("rubric")
    export_lm_eval(recipe, recipe, options(TASKS["rubric"][0]), tmp_path / "out", Console(quiet=True))
    folder = tmp_path / "out" / "medjudge_rubric"
    document = json.loads((folder / "docs.jsonl").read_text(encoding="utf-8").splitlines()[0])
    answers = [f"<score>{document['gold']}</score>", "<score>9</score>", "I think so"]
    program = f"""
import json, sys, types
from pathlib import Path
sys.modules["datasets"] = types.ModuleType("datasets")
sys.path = [path for path in sys.path if not (Path(path) / "medjudge").is_dir()]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, {str(folder)!r})
import utils, medjudge
assert "parser.zip" in medjudge.__file__, medjudge.__file__
document = {document!r}
print(json.dumps([utils.process_results(document, [text]) for text in {answers!r}]))
assert not [name for name in sys.modules if name.split(".")[0] in ("torch", "transformers")]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"acc": 1.0, "unparsed": 0.0},
        {"acc": 0.0, "unparsed": 1.0},
        {"acc": 0.0, "unparsed": 1.0},
    ]


def test_another_reading_of_answers_is_refused(tmp_path: Path) -> None:
    recipe = settings("rubric")
    export_lm_eval(recipe, recipe, options(TASKS["rubric"][0]), tmp_path / "out", Console(quiet=True))
    folder = tmp_path / "out" / "medjudge_rubric"
    exported = artifacts.read_json(folder / "contract.json")
    artifacts.write_json(folder / "contract.json", {**exported, "fingerprint": "0" * 64})
    done = subprocess.run([sys.executable, "-c", "import utils"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1
    assert "the one that is installed reads answers differently" in done.stderr


def test_the_four_tasks_and_sets_of_the_benchmark(tmp_path: Path) -> None:
    base = recipe_from_tree({"name": "x", "task": {"kind": "rubric"}})
    export_lm_eval(None, base, options(max_cases=3), tmp_path / "four", Console(quiet=True))
    assert sorted(path.name for path in (tmp_path / "four").iterdir()) == [
        "README.md",
        "manifest.json",
        *(f"medjudge_{kind}" for kind in sorted(TASKS)),
    ]
    rows = tmp_path / "halubench.jsonl"
    row = {"passage": "Ice melts at 0 degrees.", "question": "When does ice melt?", "answer": "At 0.", "label": "PASS"}
    rows.write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer": "At 5.", "label": "FAIL"}) + "\n")
    export_lm_eval(None, base, options(sets={"halubench": str(rows)}), tmp_path / "set", Console(quiet=True))
    lines = (tmp_path / "set" / "medjudge_halubench" / "docs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["gold"] for line in lines] == ["1", "0"]
    assert "Does the output stay within what the inputs say?" in json.loads(lines[0])["user"]


def test_labels_are_whole_completions_in_the_order_of_the_scale() -> None:
    contract = RubricContract(**SCORE_ONLY)
    row = documents(contract, [Case("c", {"output": "yes"}, "2")], "labels")[0]
    assert row["choices"] == ["<score>1</score>", "<score>2</score>", "<score>3</score>"]
    assert (row["gold"], row["target"]) == ("2", 1)
    with pytest.raises(ConfigError, match="reasons before its label"):
        documents(contract.model_copy(update={"thinking": True}), [Case("c", {"output": "yes"}, "2")], "labels")


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", ["qwen3", "phi-3-mini", "phi-4", "smollm2"])
def test_a_real_template_renders_the_documents_as_we_do(name: str, thinking: bool) -> None:
    tokenizer = shared_tokenizer(name)
    contract = RubricContract(**SCORE_ONLY, thinking=thinking, max_prompt_tokens=300)
    case = Case("c", {"output": "a <|im_end|> b " + "word " * 500}, "1")
    row = documents(contract, [case], "generate", tokenizer)[0]
    system = [{"role": "system", "content": row["system"]}] if row["system"] else []
    turns = [*system, {"role": "user", "content": row["user"]}]
    enable = "true" if thinking else "false"
    command = lm_eval_command(contract, ["t"], ".", None)
    assert f'"enable_thinking": {enable}' in command
    rendered = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    expected = encode_all(contract, [case], tokenizer, with_target=False)[0]
    assert rendered == expected.prompt_text
    assert expected.n_words_cut > 0


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("x")
    recipe = settings("rubric")
    with pytest.raises(ConfigError, match="not an empty folder"):
        export_lm_eval(recipe, recipe, options(TASKS["rubric"][0]), tmp_path, Console(quiet=True))


def test_a_published_set_in_the_harness_and_in_the_benchmark(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = str(require_shared("data", "prometheus_likert5", "prometheus_likert5.jsonl.gz"))
    base = recipe_from_tree(
        {
            "name": "x",
            "task": {"kind": "rubric", "form": "score_only", "instructions": "terse", "max_prompt_tokens": 500},
            "evaluate": {"mode": "labels", "n_resamples": 100, "baselines": False, "max_cases": 12},
            "model": {"dtype": "float32", "device": "cpu"},
        }
    )
    bench = BenchOptions({"m": str(taught)}, copies={"prometheus-likert": rows})
    suite = run_benchmark(base, bench, tmp_path / "bench", Console(quiet=True))
    given = options(tokenizer=str(taught), sets={"prometheus-likert": rows}, max_cases=12)
    export_lm_eval(None, base, given, tmp_path / "export", Console(quiet=True))
    found = harness(taught, [tmp_path / "export"], monkeypatch)
    path = tmp_path / "bench" / "prometheus-likert" / artifacts.VERDICTS
    ours = {row["case_id"]: row["correct"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    samples = found["samples"]["medjudge_prometheus_likert"]
    assert {sample["doc"]["case_id"]: bool(sample["acc"]) for sample in samples} == ours
    accuracy = suite.sets["prometheus-likert"].judges["m"].honest["accuracy"].value
    assert found["results"]["medjudge_prometheus_likert"]["acc,none"] == pytest.approx(accuracy)
