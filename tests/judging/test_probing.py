"""`medjudge probe`: the same rows, changed in ways that must not matter, put to any model."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from medjudge.cli import main
from medjudge.data.probes import AUTHORITY, PADDING
from medjudge.errors import ConfigError
from medjudge.inference.loader import LoadedWhenAsked
from medjudge.metrics.result_types import Results
from medjudge.recipe import recipe_from_tree
from tests.inference.scripted_endpoint import Action, Say, Status, scripted
from tests.models.small_models import save_base
from tests.small_runs import write_rows

N_QUESTIONS = 8


def write_pairs(path: Path) -> Path:
    """Two answers to each of eight questions, the first of them right; the even ones carry a paraphrase."""
    rows = [
        {
            "question": f"What is the dose of drug {i}?",
            "reference": f"The dose is {i} mg.",
            "candidate": f"It is {i} mg." if right else f"It is {i} g.",
            "label": str(int(right)),
            "paraphrase_candidate": f"{i} mg is what one gives." if right and i % 2 == 0 else "",
        }
        for i in range(N_QUESTIONS)
        for right in (True, False)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def probe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: Path, out: Path, *arguments: str
) -> tuple[int, str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(rows.parent / "cache"))
    settings = ["evaluate.n_resamples=100", "evaluate.endpoint.retry_wait_s=0.01", "evaluate.endpoint.max_retries=0"]
    settings += ["evaluate.endpoint.concurrency=1", "evaluate.endpoint.max_outage_s=0"]
    options = [part for setting in settings for part in ("--set", setting)]
    monkeypatch.setattr(
        sys, "argv", ["medjudge", "probe", "--data", str(rows), "--out", str(out), *options, *arguments]
    )
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return (end.value.code if isinstance(end.value.code, int) else 0), captured.out + captured.err


def results_of(out: Path) -> Results:
    return Results.from_json(json.loads((out / "results.json").read_text(encoding="utf-8")))


def test_flip_rates_stand_in_results_page_and_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl")

    def script(text: str, before: int) -> Action:
        """Impressed by professors; unreadable where padded; when sampled, seeds 45 and above are contrary."""
        body = server.bodies[-1]
        if PADDING["en"] in text:
            return Say("Equivalent.")
        right = " mg" in text.rsplit(" : ", 1)[1]
        said = right or AUTHORITY["en"] in text
        return Say(str(int(said != (body["temperature"] > 0 and body["seed"] >= 45))))

    with scripted(script) as server:
        model = ("--task", "equivalence", "--model", f"gpt=openai:judge@{server.url}")
        code, printed = probe(monkeypatch, capsys, rows, tmp_path / "out", *model, "--samples", "4")
        assert code == 0, printed
        n_asked = len(server.bodies)
        assert probe(monkeypatch, capsys, rows, tmp_path / "again", *model, "--samples", "4")[0] == 0
        assert len(server.bodies) == n_asked  # all from the cache, samples apart from each other
    results = results_of(tmp_path / "out")
    assert results.probes is not None
    usage = results.models["gpt"].usage
    assert usage is not None
    assert usage["n_answered"] == 16  # of the cases as they are alone
    judge = results.probes.judges["gpt"]
    flips = {name: found.flips for name, found in judge.flips.items()}
    # The eight wrong candidates become equivalent once a professor forwards them.
    assert (flips["authority"].value, flips["authority"].n) == (0.5, 16)
    shift = judge.flips["authority"].to_positive
    assert shift is not None
    assert shift.value == 0.5
    assert judge.flips["authority"].matrix == {"0": {"1": 8}, "1": {"1": 8}}
    assert (flips["verbosity"].n, judge.flips["verbosity"].n_became_unreadable) == (0, 16)
    assert flips["rewording"].value == flips["language"].value == 0.0
    assert (judge.flips["paraphrase"].n_probed, judge.flips["paraphrase"].n_unchanged) == (4, 12)
    assert list(results.probes.skipped) == ["translation"]
    # Seeds 42 to 45: of the six pairs of samples, the three with 45 disagree.
    assert judge.consistency is not None
    assert judge.consistency.agreement.value == pytest.approx(0.5)
    assert judge.consistency.single_accuracy is not None
    assert judge.consistency.single_accuracy.value == pytest.approx(0.75)
    assert any(line.startswith("gpt under 'irrelevant authority': 50.0 %") for line in results.probes.statements)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert 'id="probes"' in page
    assert re.search(r'alt="Share of verdicts that each probe changed, with intervals\. gpt: ', page)
    assert "translation was asked of no case" in page
    assert "Bias probes" in printed
    lines = [json.loads(line) for line in (tmp_path / "out" / "probes.jsonl").read_text().splitlines()]
    moved = [row for row in lines if row.get("probe") == "authority" and row["label_after"] != row["label_expected"]]
    assert len(moved) == 8
    assert sum("sample" in row for row in lines) == 4 * 16
    assert "what one gives" not in (tmp_path / "out" / "verdicts.jsonl").read_text()  # no carried text among slices


def test_a_cut_off_probe_of_local_models_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 3)
    first, second = save_base(tmp_path / "a"), save_base(tmp_path / "b", seed=1)
    task = ["--task", "appropriateness", "--map", "condition=topic", "--set", "task.form=answer_only"]
    task += ["--set", "task.max_completion_tokens=4", "--probe", "verbosity", "--samples", "2"]
    models = ["--model", f"a={first}", "--model", f"b={second}"]
    weights = second / "model.safetensors"
    weights.rename(weights.with_suffix(".away"))
    (second / "model.safetensors").write_bytes(b"broken")
    code, printed = probe(monkeypatch, capsys, rows, tmp_path / "out", *task, *models)
    assert code == 1, printed
    (work,) = tmp_path.glob(".out.*.work")
    assert f"what was answered is kept in {work.name}" in printed.replace("\n", "")
    assert len(list(work.glob(".answers-*.json"))) == 3  # a: the cases, the probe, the samples
    assert not (tmp_path / "out").exists()
    # Only b is loaded now: what a said is on disk. (Its files differ, so the rest of b's folder must not.)
    code, printed = probe(monkeypatch, capsys, rows, tmp_path / "out", *task, "--model", f"a={first}")
    assert code == 0, printed
    assert "goes on where" not in printed  # other models are another evaluation
    assert results_of(tmp_path / "out").probes is not None


def test_an_interrupted_probe_is_resumed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The local judge is done when the endpoint beside it fails; the second time it is not even loaded."""
    rows = write_pairs(tmp_path / "rows.jsonl")
    local = save_base(tmp_path / "local")
    down = True

    def script(text: str, before: int) -> Action:
        return Status(503) if down else Say("1")

    with scripted(script) as server:
        given = ["--task", "equivalence", "--model", f"mine={local}", "--model", f"gpt=openai:judge@{server.url}"]
        given += ["--probe", "swap", "--samples", "0", "--set", "task.max_completion_tokens=4"]
        assert probe(monkeypatch, capsys, rows, tmp_path / "out", *given)[0] == 1
        down = False
        loaded: list[str] = []
        monkeypatch.setattr(LoadedWhenAsked, "_load", lambda engine: loaded.append(engine.where))
        code, printed = probe(monkeypatch, capsys, rows, tmp_path / "out", *given)
    assert code == 0, printed
    assert "goes on where an evaluation of the same models on the same cases was cut off" in printed
    assert loaded == []
    assert list(tmp_path.glob(".out*")) == []
    probes = results_of(tmp_path / "out").probes
    assert probes is not None
    assert [probes.judges[name].flips["swap"].flips.n for name in ("mine", "gpt")] == [0, 16]


def test_a_probe_whose_prompts_do_not_fit_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published instructions are longer than a tiny task's limit: the other probes still stand."""
    rows = write_rows(tmp_path / "rows.jsonl", 2)
    given = [
        "--task",
        "appropriateness",
        "--map",
        "condition=topic",
        "--set",
        "task.form=answer_only",
        "--mode",
        "labels",
    ]
    given += ["--set", "task.instructions=terse", "--set", "task.max_prompt_tokens=150"]
    given += ["--model", f"tiny={save_base(tmp_path / 'm')}", "--probe", "rewording", "--probe", "verbosity"]
    code, printed = probe(monkeypatch, capsys, rows, tmp_path / "out", *given)
    assert code == 0, printed
    probes = results_of(tmp_path / "out").probes
    assert probes is not None
    assert list(probes.judges["tiny"].flips) == ["verbosity"]
    assert "max_prompt_tokens is 150" in probes.judges["tiny"].not_asked["rewording"]
    assert "rewording was not asked of tiny: case" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"probes": ["swop"]}, "unknown probe 'swop' .did you mean `swap`"),
        ({"probes": ["position"]}, "'position' does not fit the equivalence task, for which there are: swap, "),
        ({"samples": 1}, "2 samples or more"),
        ({"samples": 3, "mode": "labels"}, "which gives one answer: set it to 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_from_tree({"name": "x", "task": {"kind": "equivalence"}, "evaluate": section})
