"""Models behind endpoints stand in an evaluation beside local ones: same cases, same contract, and what they cost."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.inference.logprob_servers import END, Server, Table, serving
from tests.inference.scripted_endpoint import Action, Say, Status, scripted
from tests.models.small_models import save_base
from tests.small_runs import LABELS, small_tree, write_rows

from medjudge.cli import main
from medjudge.data.sources import read_source
from medjudge.errors import ConfigError
from medjudge.judging.evaluate_cases import Evaluation, evaluate_cases
from medjudge.recipe import recipe_from_tree
from medjudge.settings.base import EndpointSettings
from medjudge.settings.data import DataConfig
from medjudge.settings.evaluate import EvaluateConfig
from medjudge.settings.model import ModelConfig
from medjudge.tasks.appropriateness import AppropriatenessContract

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


class Knowing(Table):
    """Says the expert's label of each prompt with nine tenths, and leaves two labels to share a first word."""

    def begin(self, messages: Any, *, continues: bool) -> tuple[Any, int]:
        state, n = super().begin(messages, continues=continues)
        answers = right_answer(next(turn["content"] for turn in messages[::-1] if turn["role"] == "user"))
        return (answers[8:-9], state), n

    def listed(self, state: Any) -> Any:
        label, written = state
        lead = b"<answer>"
        if not written.startswith(lead):
            return [(lead, -0.1)]
        begun = written.removeprefix(lead).decode()
        rest = {name.removeprefix(begun): 0.9 if name == label else 0.04 for name in LABELS if name.startswith(begun)}
        words: dict[str, float] = {}
        for text, share in rest.items():
            word = re.match(r" ?[^ ]*", text)
            words[word[0] if word else ""] = words.get(word[0] if word else "", 0.0) + share
        total = 1.0 if not begun else sum(words.values())
        listed = [(text.encode() or b"</answer>", math.log(share / total)) for text, share in words.items()]
        return sorted(listed or [(END, 0.0)], key=lambda one: -one[1])

    def after(self, state: Any, token: bytes) -> Any:
        return state[0], state[1] + token


def test_labels_of_an_endpoint_stand_beside_those_of_a_local_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    prices = ("--set", "evaluate.endpoint.usd_per_million_in=10", "--set", "evaluate.endpoint.usd_per_million_out=100")
    local = ("--model", f"base={save_base(tmp_path / 'base')}")
    with serving(Server(Knowing({}), "llama")) as server:
        longer = ("--set", "task.max_completion_tokens=16")
        models = (*local, "--model", f"gpt=openai:judge@{server.url}", "--mode", "labels", *longer)
        code, printed = evaluate(monkeypatch, capsys, rows, tmp_path / "out", *models, *prices)
        assert code == 0, printed
        n_requests = len(server.bodies)
        code, _ = evaluate(monkeypatch, capsys, rows, tmp_path / "again", *models, *prices)
        assert (code, len(server.bodies)) == (0, n_requests)
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    gpt = results["models"]["gpt"]
    assert gpt["metrics"]["accuracy"]["value"] == 1.0
    assert gpt["lineage"]["labels_by"] == "continue"
    assert gpt["labels"]["outside"] == pytest.approx(0.02, abs=1e-6)
    assert (gpt["labels"]["n"], gpt["labels"]["n_without"], gpt["labels"]["n_bounded"]) == (12, 0, 0)
    assert results["models"]["base"]["labels"]["outside"] > 0.99
    assert gpt["usage"]["cost_usd"] > 0
    assert "Probability outside the labels" in printed
    assert any("gpt: 2.00 % of the probability is outside the labels" in line for line in results["statements"])
    for row in verdicts(tmp_path / "out", "gpt"):
        assert row["label_mass"] == pytest.approx(0.98, abs=1e-6)
        assert row["confidence"] == pytest.approx(0.9 / 0.98, abs=1e-6)
        assert "labels_bounded" not in row
    again = json.loads((tmp_path / "again" / "results.json").read_text(encoding="utf-8"))["models"]["gpt"]
    assert again["labels"] == gpt["labels"]
    assert again["usage"]["new_cost_usd"] == 0


def test_confidences_of_an_endpoint_are_calibrated(tmp_path: Path) -> None:
    contract = AppropriatenessContract(form="answer_only", instructions="terse", max_completion_tokens=16)
    cases = read_source(
        str(write_rows(tmp_path / "rows.jsonl", 4)), contract, DataConfig(fields={"condition": "topic"})
    ).cases
    with serving(Server(Knowing({}), "openai")) as server:
        evaluation = Evaluation(
            contract=contract,
            models={"gpt": f"openai:judge@{server.url}"},
            cases=cases,
            split="test",
            config=EvaluateConfig(
                mode="labels",
                calibrator="temperature",
                n_resamples=100,
                baselines=False,
                endpoint=EndpointSettings(cache=tmp_path / "cache"),
            ),
            model=ModelConfig(),
            validation=cases,
        )
        (tmp_path / "out").mkdir()
        evaluate_cases(evaluation, tmp_path / "out")
    for row in verdicts(tmp_path / "out", "gpt"):
        assert row["confidence_as_stated"] < row["confidence"] <= 1
    statements = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["statements"]
    assert any("gpt's confidences are calibrated (temperature" in line for line in statements)


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
