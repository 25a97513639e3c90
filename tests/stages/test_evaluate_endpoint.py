"""Models behind endpoints stand in an evaluation beside local ones: same cases, same contract, and what they cost."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.inference.scripted_endpoint import Action, Say, Status, scripted
from tests.models.small_models import save_base
from tests.small_runs import LABELS, small_tree, write_rows

from medjudge.cli import main
from medjudge.errors import ConfigError
from medjudge.recipe import recipe_from_tree

LABEL_OF = dict(zip(("CT contrast", "MRI plain", "Radiography"), LABELS, strict=True))


def right_answer(text: str) -> str:
    """What the expert says to the order in a prompt (`tests.small_runs.write_rows`)."""
    found = re.search(r"Procedure: (.+)", text)
    assert found is not None
    return f"<answer>{LABEL_OF[found[1]]}</answer>"


def evaluate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: Path, out: Path, *arguments: str
) -> tuple[int, str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(rows.parent / "cache"))
    fixed = ["evaluate", "--task", "appropriateness", "--data", str(rows), "--map", "condition=topic"]
    settings = ["task.form=answer_only", "task.instructions=terse", "task.max_completion_tokens=8"]
    settings += ["evaluate.n_resamples=100", "evaluate.endpoint.retry_wait_s=0.01", "evaluate.endpoint.max_retries=1"]
    options = [part for setting in settings for part in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["medjudge", *fixed, *options, "--out", str(out), *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return (end.value.code if isinstance(end.value.code, int) else 0), captured.out + captured.err


def verdicts(out: Path, model: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["model"] == model]


def test_an_endpoint_is_compared_with_a_local_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 8)

    def script(text: str, before: int) -> Action:
        # Of the 24 cases: variant 0 is refused, cut off, and fails for good; the others are answered rightly.
        if "variant 0 " not in text:
            return Say(right_answer(text), n_in=100, n_out=4)
        odd: dict[str, Action] = {
            LABELS[0]: Say("", finish="content_filter", n_in=100, n_out=0),
            LABELS[1]: Say("<answer>May Be", finish="length", n_in=100, n_out=8),
            LABELS[2]: Status(500),
        }
        return odd[right_answer(text)[8:-9]]

    with scripted(script) as server:
        code, printed = evaluate(
            monkeypatch,
            capsys,
            rows,
            tmp_path / "out",
            *("--model", f"base={save_base(tmp_path / 'base')}", "--model", f"gpt=openai:judge@{server.url}"),
            *("--set", "evaluate.endpoint.usd_per_million_in=10", "--set", "evaluate.endpoint.usd_per_million_out=100"),
        )
    assert code == 0, printed
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    gpt = results["models"]["gpt"]
    assert (gpt["n"], gpt["n_unparsed"], gpt["n_truncated"]) == (24, 3, 1)
    assert gpt["metrics"]["accuracy"]["value"] == pytest.approx(21 / 24)
    assert gpt["unparsed_reasons"] == {
        "the model or its provider refused to answer": 1,
        "cut off at the token limit: expected one </answer> tag, found 0": 1,
        "the call failed: HTTP 500, 2 attempts": 1,
    }
    usage = gpt["usage"]
    assert [usage[key] for key in ("n_answered", "n_failed", "n_refused", "n_truncated")] == [23, 1, 1, 1]
    assert (usage["n_requests"], usage["n_retries"]) == (25, 1)
    # 23 answers of 100 tokens in at $10 a million; 21 x 4 + 8 tokens out at $100 a million.
    assert usage["cost_usd"] == pytest.approx(0.023 + 0.0092)
    assert gpt["lineage"]["kind"] == "endpoint"
    assert gpt["lineage"]["answered_by"] == {"judge-2025-04-14 fp_1": 23}
    assert results["models"]["base"]["usage"] is None
    kinds = {row["unparsed_kind"] for row in verdicts(tmp_path / "out", "gpt")}
    assert kinds == {None, "refused", "truncated", "failed"}
    assert "refused / cut off / failed" in printed
    assert "1 / 1 / 1" in printed
    assert "$0.0322 ($0.0322)" in printed
    assert "is sent to" not in printed  # loopback


def test_a_cut_off_evaluation_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 12)
    down = True

    def script(text: str, before: int) -> Action:
        return Status(503) if down and len(server.answered) >= 10 else Say(right_answer(text))

    with scripted(script) as server:
        model = ("--model", f"gpt=openai:judge@{server.url}", "--set", "evaluate.endpoint.concurrency=1")
        code, printed = evaluate(monkeypatch, capsys, rows, tmp_path / "out", *model)
        assert code == 1
        assert "2 of 36 calls to 'judge'" in printed
        assert "2 x HTTP 503, 2 attempts" in printed
        assert list(tmp_path.glob("*out*")) == []
        down = False
        code, printed = evaluate(monkeypatch, capsys, rows, tmp_path / "out", *model)
        assert code == 0, printed
        n_requests = len(server.bodies)
        evaluate(monkeypatch, capsys, rows, tmp_path / "again", *model)
    assert len(server.answered) == 36
    assert len(server.bodies) == n_requests
    usage = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["gpt"]["usage"]
    assert (usage["n_from_cache"], usage["n_requests"]) == (10, 26)
    again = json.loads((tmp_path / "again" / "results.json").read_text())["models"]["gpt"]
    assert (again["usage"]["n_from_cache"], again["usage"]["n_requests"]) == (36, 0)
    assert again["metrics"]["accuracy"]["value"] == 1.0


def test_what_cannot_work_is_said_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 2)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    local = ("--model", f"base={save_base(tmp_path / 'base')}")
    for model, message in {
        "openai:gpt-5-mini": "expected openai:MODEL@URL",
        "openai:gpt-5-mini@https://far.example/v1": "OPENAI_API_KEY is not set",
    }.items():
        code, printed = evaluate(monkeypatch, capsys, rows, tmp_path / "out", *local, "--model", f"gpt={model}")
        assert code == 1
        assert message in printed.replace("\n", " ")
        assert "cases in" not in printed
    code, printed = evaluate(
        monkeypatch, capsys, rows, tmp_path / "out", *local, "--set", "evaluate.endpoints.gtp.seed=1"
    )
    assert code == 1
    assert "settings for 'gtp', but the models are: base" in printed


def test_a_recipe_names_endpoints_and_what_differs_between_them(tmp_path: Path) -> None:
    evaluate_section: dict[str, Any] = {
        "extra_models": {
            "gpt": "openai:gpt-5-mini@https://api.openai.com/v1",
            "local": "openai:q@http://localhost:1/v1",
        },
        "endpoint": {"concurrency": 4, "seed": 7},
        "endpoints": {"gpt": {"temperature": "default", "usd_per_million_in": 0.25, "concurrency": 2}},
    }
    config = recipe_from_tree(small_tree(tmp_path / "x", tmp_path, evaluate=evaluate_section)).evaluate
    gpt, local = config.endpoint_of("gpt"), config.endpoint_of("local")
    assert (gpt.temperature, gpt.seed, gpt.concurrency, gpt.usd_per_million_in) == ("default", 7, 2, 0.25)
    assert (local.temperature, local.seed, local.concurrency, local.usd_per_million_in) == (0.0, 7, 4, None)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"extra_models": {"gpt": "openai:gpt-5-mini"}}, "expected openai:MODEL@URL"),
        ({"endpoint": {"concurency": 2}}, r"`evaluate\.endpoint\.concurency` \(did you mean `concurrency`\?\)"),
        ({"endpoints": {"gpt": {"sed": 2}}}, r"`evaluate\.endpoints\.gpt\.sed` \(did you mean `seed`\?\)"),
        ({"endpoint": {"temperature": -1}}, r"`evaluate\.endpoint\.temperature"),
        ({"endpoint": {"extra": {"n": 4}}}, "n: set by the task or by settings of their own"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_from_tree(small_tree(tmp_path / "x", tmp_path, evaluate=section))
