"""The commands that need no training, as a person types them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from medjudge import __version__
from medjudge.cli import app, main
from medjudge.cli.entry import _wrapped
from medjudge.cli.train import _say_what_next
from medjudge.recipe import demo_recipe
from tests.models.small_models import save_adapter, save_base
from tests.small_runs import small_tree, write_rows, write_toml

README = Path(__file__).parent.parent / "README.md"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    code = end.value.code
    return (code if isinstance(code, int) else 0), captured.out + captured.err


def test_dry_run_says_what_would_happen_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = write_toml(tmp_path / "r.toml", small_tree(write_rows(tmp_path / "rows.jsonl"), tmp_path / "runs"))
    code, out = run(monkeypatch, capsys, "run", str(toml), "--dry-run")
    assert code == 0
    assert not (tmp_path / "runs").exists()
    # 150 rows, 60 % to train; GRPO: 4 prompts x 4 completions a step, 8 steps.
    assert re.search(r"train +90 +30", out)
    assert re.search(r"grpo +4 +16 +8 ", out)
    assert re.search(r"sft +8 +8 +180 ", out)
    assert "grpo adapter: rank 4, scale 2 (alpha / r), step 0.008 (learning rate x scale x rank)" in out
    assert "sft adapter" not in out  # tuned in full
    assert re.search(r"^prepare +run +", out, re.MULTILINE)
    assert re.search(r"^time: about .* on this machine", out, re.MULTILINE)


def test_evaluate_compares_models_and_writes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    train = write_rows(tmp_path / "train.jsonl", 30, seed=5)
    train.write_text(train.read_text().replace('"variant ', '"other '), encoding="utf-8")
    arguments = [
        *("evaluate", "--task", "appropriateness", "--data", str(rows), "--train", str(train)),
        *("--map", "condition=topic", "--model", f"base={base}", "--model", f"tuned={adapter}"),
        *("--set", "task.form=answer_only", "--set", "task.max_completion_tokens=8"),
        *("--set", "evaluate.n_resamples=100"),
    ]
    code, out = run(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "out"))
    assert code == 0, out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    baselines = {"majority", "chance", "surface", "embedding_linear", "embedding_svm"}
    assert {*results["models"], *results["skipped_baselines"]} == {"base", "tuned", *baselines}
    assert {"majority", "chance", "surface"} <= set(results["models"])
    assert results["models"]["tuned"]["n"] == 18
    assert results["models"]["tuned"]["lineage"]["parent"]["path"] == str(base.resolve())
    assert results["leakage"]["n_leaks"] == 0
    assert (tmp_path / "out" / "verdicts.jsonl").read_text().count("\n") == 18 * len(results["models"])
    assert "unparsed" in out
    code, out = run(monkeypatch, capsys, "report", str(tmp_path / "out"))
    assert code == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count(">best baseline<") == 1
    assert "<code>surface</code> logistic regression on TF-IDF" in page


def test_evaluate_refuses_an_adapter_on_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    other = save_base(tmp_path / "other", seed=9)
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    arguments = ["evaluate", "--task", "appropriateness", "--data", str(rows), "--map", "condition=topic"]
    code, out = run(
        monkeypatch, capsys, *arguments, "--model", f"a={adapter}", "--base", str(other), "--out", str(tmp_path / "out")
    )
    assert code == 1
    assert len(re.findall(r"[0-9a-f]{64}", out.replace("\n", ""))) >= 2
    assert not (tmp_path / "out").exists()


def test_lineage_shows_the_chain_and_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    code, out = run(monkeypatch, capsys, "lineage", str(adapter))
    assert code == 0
    assert "weights match" in out
    save_base(tmp_path / "base", seed=4)
    code, out = run(monkeypatch, capsys, "lineage", str(adapter))
    assert code == 1
    assert "expected" in out


def test_init_then_check_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    toml = tmp_path / "mine.toml"
    code, _ = run(monkeypatch, capsys, "init", "appropriateness", "--out", str(toml))
    assert code == 0
    code, out = run(monkeypatch, capsys, "check-data", str(rows), "--recipe", str(toml), "--map", "condition=topic")
    assert code == 0, out
    assert "150" in out


def test_init_of_a_task_with_labels_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml, rows = tmp_path / "mine.toml", tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"note": f"note {i}", "label": ("low", "High")[i % 2]}) for i in range(20)))
    words = ("init", "classification", "--labels", "low, high", "--fields", "note", "--out", str(toml))
    assert run(monkeypatch, capsys, *words)[0] == 0
    assert 'labels = ["low", "high"]\nfields = ["note"]\n' in toml.read_text()
    code, out = run(monkeypatch, capsys, "check-data", str(rows), "--recipe", str(toml))
    assert code == 0, out
    assert "10" in out


def test_info_names_versions_devices_and_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(monkeypatch, capsys, "info")
    assert code == 0
    for word in ("transformers", "cpu", "cores", "QLoRA"):
        assert word in out


def test_an_error_breaks_between_words_and_a_path_stays_whole() -> None:
    path = "/data/" + "folder/" * 12 + "rows.jsonl"
    message = f"cannot read the rows of the recipe from {path}: no such file. Name another.\nSecond line."
    text = f"error: {_wrapped(message, len('error: '))}"
    assert path in text
    assert text.split() == f"error: {message}".split()
    assert text.endswith("\nSecond line.")
    assert all(len(line) <= 80 for line in text.splitlines() if path not in line)


def test_the_demo_names_commands_that_are_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What the demo proposes at its end: every command and option exists, and takes the task's own recipe."""
    _say_what_next(demo_recipe("rubric", 42, tmp_path), "rubric")
    lines = re.findall(r"^ +medjudge (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(lines) == 7
    root: Any = typer.main.get_command(app)
    for line in lines:
        name, *words = line.split()
        known = {option for parameter in root.commands[name].params for option in parameter.opts}
        assert all(word in known for word in words if word.startswith("--")), line
    assert any(line.startswith("init rubric") for line in lines)
    assert any(f"report {tmp_path}/demo-rubric --show-text" in line for line in lines)


def test_help_says_where_to_begin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(monkeypatch, capsys, "--help")
    text = " ".join(out.split())
    assert code == 0
    for words in ("Train a judge", "Measure judges", "medjudge demo", "medjudge init TASK", "--dry-run"):
        assert words in text
    options = re.sub("[│─]", " ", run(monkeypatch, capsys, "run", "--help")[1])
    assert "prepare, base, sft, grpo" in " ".join(options.split())


def test_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, capsys, "--version") == (0, f"medjudge {__version__}\n")


def test_readme_commands_are_real() -> None:
    """Every `medjudge` line of the README names a command and options that exist; every recipe it names is there."""
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text.split("##")[0] or "make demo" in "".join(text.splitlines(keepends=True)[:40])
    assert "make test" in "".join(text.splitlines(keepends=True)[:40])
    from medjudge.cli import app

    pages = (text, (README.parent / "docs" / "benchmark.md").read_text(encoding="utf-8"))
    code = "\n".join(block for page in pages for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    lines = re.findall(r"^(?:\.venv/bin/)?medjudge (.*)$", code, re.MULTILINE)
    assert lines
    for line in lines:
        words = line.partition(" #")[0].split()
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        for option in (word for word in words if word.startswith("--")):
            assert option in known, f"{line}: {option}"
    for recipe in re.findall(r"recipes/\w+\.toml", text):
        assert (README.parent / recipe).exists(), recipe


def test_every_number_option_wants_a_finite_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`nan` passes `min=` and `max=`, and would fail at the first comparison or in a written file."""
    root: Any = typer.main.get_command(app)
    found = [
        (name, parameter.opts[0])
        for name, command in root.commands.items()
        for parameter in command.params
        if parameter.type_descriptor.annotation is float
    ]
    assert len(found) >= 3
    for name, option in found:
        for value in ("nan", "inf", "-inf"):
            positional = ["v.jsonl", "--out", "o"] if name == "score" else []
            code, out = run(monkeypatch, capsys, name, *positional, f"{option}={value}")
            assert code != 0, (name, option, value)
            assert option in out, (name, option, value)
