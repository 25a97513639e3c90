"""The rubric benchmark as a command: tiny and endpoint judges, both kinds of numbers, and going on where it stopped."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from medjudge import artifacts
from medjudge.cli import main
from medjudge.inference.loader import LoadedWhenAsked
from medjudge.judging import answer_store
from medjudge.runs import output_folder
from tests.inference.logprob_servers import Server, Table, serving
from tests.inference.scripted_endpoint import Action, Say, Status, scripted
from tests.models.small_models import save_base
from tests.shared_data import require_shared

QUICK = ("--set", "evaluate.n_resamples=100", "--set", "evaluate.endpoint.retry_wait_s=0.01")
QUICK += ("--set", "evaluate.endpoint.max_retries=0", "--set", "task.instructions=terse")


def write_halubench(path: Path, n: int = 10) -> Path:
    rows = [
        {
            "passage": f"Patient {i} takes drug {i}.",
            "question": "Which drug?",
            "answer": f"Drug {i if i % 2 else i + 1}.",
            "label": "PASS" if i % 2 else "FAIL",
            "source_ds": "covidQA" if i < n - 2 else "DROP",
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def right_answer(text: str) -> str:
    drugs = re.findall(r"[Dd]rug (\d+)", text)
    return f"<feedback>Held against the passage.</feedback>\n<score>{int(drugs[0] == drugs[1])}</score>"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return (end.value.code if isinstance(end.value.code, int) else 0), captured.out + captured.err

    def bench(*arguments: str) -> tuple[int, str]:
        return command("bench", "rubric", "--out", str(tmp_path / "out"), *QUICK, *arguments)

    bench.command = command  # type: ignore[attr-defined]
    return bench


def suite(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out" / artifacts.SUITE).read_text(encoding="utf-8")))


def test_both_numbers_stand_side_by_side(tmp_path: Path, run: Any) -> None:
    rows = write_halubench(tmp_path / "rows.jsonl")

    def script(text: str, before: int) -> Action:
        # Patient 0 gets no score at all, patient 1 the right one with words around it, which only the scheme reads.
        if "Patient 0 " in text:
            return Say("I cannot say.")
        return Say(f"Sure: {right_answer(text)}") if "Patient 1 " in text else Say(right_answer(text))

    with scripted(script) as server:
        code, printed = run(
            *("--data", f"halubench-covidqa={rows}", "--set", "task.max_completion_tokens=20"),
            *("--model", f"tiny={save_base(tmp_path / 'tiny')}", "--model", f"gpt=openai:judge@{server.url}"),
        )
    assert code == 0, printed
    one = suite(tmp_path)["sets"]["halubench-covidqa"]
    assert (one["n_rows"], one["n_cases"], one["left_out"]) == (10, 8, {"of another subset of HaluBench": 2})
    gpt, tiny = one["judges"]["gpt"], one["judges"]["tiny"]
    assert (gpt["n"], gpt["n_unparsed"]) == (8, 2)
    assert gpt["honest"]["accuracy"]["value"] == pytest.approx(6 / 8)
    assert gpt["honest"]["accuracy"]["low"] < 6 / 8 < gpt["honest"]["accuracy"]["high"]
    assert gpt["honest"]["recall"]["value"] == pytest.approx(3 / 4)
    assert (gpt["published"]["n_dropped"], gpt["published"]["is_zeroed"]) == (1, False)
    assert gpt["published"]["metrics"]["accuracy"] == 1.0
    assert (tiny["n_unparsed"], tiny["published"]["is_zeroed"]) == (8, True)
    for name in (artifacts.RESULTS, artifacts.VERDICTS, artifacts.REPORT, artifacts.MANIFEST):
        assert (tmp_path / "out" / "halubench-covidqa" / name).exists()
    manifest = artifacts.read_json(tmp_path / "out" / artifacts.MANIFEST)
    assert (manifest["stage"], manifest["summary"]) == ("bench", {"sets": ["halubench-covidqa"]})
    assert {artifacts.SUITE, artifacts.REPORT} <= manifest["outputs"].keys()
    own = artifacts.read_json(tmp_path / "out" / "halubench-covidqa" / artifacts.MANIFEST)
    assert set(own["files"]) == {str(rows), str(tmp_path / "tiny" / "model.safetensors")}
    page = (tmp_path / "out" / artifacts.REPORT).read_text(encoding="utf-8")
    numpy = artifacts.package_versions()["numpy"]
    assert f"numpy {numpy}" in page
    assert 'href="halubench-covidqa/index.html"' in page
    assert "(100.0)" in page
    assert "(0 *)" in page
    assert "Patient" not in page + printed
    assert "75.0" in printed
    assert "gpt: 8 answers (0 from cache), 0 failed, no prices set" in printed
    assert "of another subset of HaluBench (2)" in printed
    with pytest.MonkeyPatch.context() as patch:  # other packages are installed now
        patch.setattr(artifacts, "version", lambda name: "77.7.7")
        code, again = run.command("report", str(tmp_path / "out"))
    assert code == 0, again
    assert "(100.0)" in again
    for folder in (tmp_path / "out", tmp_path / "out" / "halubench-covidqa"):
        page = (folder / artifacts.REPORT).read_text(encoding="utf-8")
        assert f"numpy {numpy}" in page
        assert "77.7.7" not in page


def test_labels_mode_scores_the_scores_alone(tmp_path: Path, run: Any) -> None:
    rows = write_halubench(tmp_path / "rows.jsonl")
    model = f"tiny={save_base(tmp_path / 'tiny')}"
    code, printed = run("--mode", "labels", "--data", f"halubench={rows}", "--model", model, "--max-cases", "6")
    assert code == 0, printed
    one = suite(tmp_path)["sets"]["halubench"]
    assert one["left_out"] == {"not drawn (--max-cases)": 4}
    judge = one["judges"]["tiny"]
    assert (judge["n"], judge["n_unparsed"], judge["published"]["n_dropped"]) == (6, 0, 0)
    assert judge["published"]["metrics"]["accuracy"] == judge["honest"]["accuracy"]["value"]
    recipe = artifacts.read_json(tmp_path / "out" / "halubench" / artifacts.RECIPE)
    assert (recipe["task"]["form"], recipe["task"]["points"]) == ("score_only", 2)


def test_labels_mode_reads_an_endpoint_too(tmp_path: Path, run: Any) -> None:
    rows = write_halubench(tmp_path / "rows.jsonl")
    lead = "<score>"
    table = Table({"": {lead: 1.0}, lead: {"1": 0.7, "0": 0.2, "x": 0.1}, f"{lead}1": {"</score>": 1.0}})
    with serving(Server(table, "openai")) as server:
        endpoint = f"gpt=openai:judge@{server.url}"
        code, printed = run("--mode", "labels", "--data", f"halubench={rows}", "--model", endpoint, "--max-cases", "6")
    assert code == 0, printed
    judge = suite(tmp_path)["sets"]["halubench"]["judges"]["gpt"]
    assert (judge["n"], judge["n_unparsed"]) == (6, 0)
    assert judge["usage"]["prompt_tokens"] > 0
    results = artifacts.read_json(tmp_path / "out" / "halubench" / artifacts.RESULTS)
    assert results["models"]["gpt"]["labels"]["outside"] == pytest.approx(0.1, abs=1e-6)


def test_a_cut_off_run_goes_on_and_a_finished_one_is_skipped(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_store, "PART", 4)
    rows = write_halubench(tmp_path / "rows.jsonl")
    arguments = ["--mode", "labels", "--data", f"halubench={rows}", "--model", f"a={save_base(tmp_path / 'a')}"]
    asked: list[int] = []
    real = LoadedWhenAsked.label_logprobs

    def ask(engine: LoadedWhenAsked, contract: Any, cases: Any) -> Any:
        if len(asked) == 2:
            raise MemoryError
        asked.append(len(cases))
        return real(engine, contract, cases)

    monkeypatch.setattr(LoadedWhenAsked, "label_logprobs", ask)
    code, _ = run(*arguments)
    assert (code, asked) == (1, [4, 4])
    assert not (tmp_path / "out" / artifacts.SUITE).exists()
    asked.clear()
    code, printed = run(*arguments)
    assert (code, asked) == (0, [2]), printed
    assert "halubench a: goes on after 8 of 10 answers" in printed
    first = suite(tmp_path)
    asked.clear()
    code, printed = run(*arguments)
    assert (code, asked) == (0, [])
    assert "unchanged, skipped" in printed
    assert suite(tmp_path) == first
    # Another judge: only its own cases are judged.
    monkeypatch.setattr(answer_store, "PART", 200)
    code, printed = run(*arguments, "--model", f"b={save_base(tmp_path / 'b', seed=1)}")
    assert (code, asked) == (0, [10]), printed
    assert list(suite(tmp_path)["sets"]["halubench"]["judges"]) == ["a", "b"]
    assert suite(tmp_path)["sets"]["halubench"]["judges"]["a"] == first["sets"]["halubench"]["judges"]["a"]


def test_an_endpoint_that_fails_stops_the_run_and_loses_nothing(tmp_path: Path, run: Any) -> None:
    rows = write_halubench(tmp_path / "rows.jsonl", n=40)
    down = True

    def script(text: str, before: int) -> Action:
        return Status(503) if down and len(server.answered) >= 15 else Say(right_answer(text))

    with scripted(script) as server:
        arguments = ["--data", f"halubench={rows}", "--model", f"gpt=openai:judge@{server.url}"]
        arguments += ["--set", "evaluate.endpoint.concurrency=1"]
        code, printed = run(*arguments)
        assert code == 1
        assert "calls to 'judge'" in printed
        down = False
        code, printed = run(*arguments)
        assert code == 0, printed
        assert len(server.answered) == 40
    judge = suite(tmp_path)["sets"]["halubench"]["judges"]["gpt"]
    assert judge["honest"]["accuracy"]["value"] == judge["published"]["metrics"]["accuracy"] == 1.0


def test_sets_of_earlier_commands_stay_on_the_page(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_halubench(tmp_path / "rows.jsonl")
    model = ("--mode", "labels", "--model", f"a={save_base(tmp_path / 'a')}")
    assert run(*model, "--data", f"halubench-drop={rows}")[0] == 0
    old = artifacts.package_versions()["numpy"]
    for module in (artifacts, output_folder):  # NumPy is updated between the two commands
        monkeypatch.setattr(module, "package_versions", lambda: {"numpy": "99.9"})
    assert "unchanged" in run(*model, "--data", f"halubench-drop={rows}")[1]
    assert artifacts.read_json(tmp_path / "out" / artifacts.MANIFEST)["versions"]["numpy"] == old
    assert "99.9" not in (tmp_path / "out" / artifacts.REPORT).read_text(encoding="utf-8")
    assert run(*model, "--data", f"halubench-covidqa={rows}")[0] == 0
    manifest = artifacts.read_json(tmp_path / "out" / artifacts.MANIFEST)
    assert manifest["versions"]["numpy"] == f"99.9, {old}"
    assert set(manifest["files"]) == {str(rows), str(tmp_path / "a" / "model.safetensors")}
    assert list(manifest["config"]) == ["halubench-covidqa", "halubench-drop"]
    assert list(suite(tmp_path)["sets"]) == ["halubench-covidqa", "halubench-drop"]
    other = ("--mode", "labels", "--model", f"b={save_base(tmp_path / 'b', seed=1)}")
    assert run(*other, "--data", f"halubench-covidqa={rows}")[0] == 0
    assert list(suite(tmp_path)["sets"]) == ["halubench-covidqa"]


def test_rows_and_a_rubric_of_ones_own(tmp_path: Path, run: Any) -> None:
    rows = tmp_path / "mine.jsonl"
    given = [{"input": f"q{i}", "output": f"a{i}", "score": 1 + i % 3} for i in range(6)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    rubric = tmp_path / "kind.toml"
    rubric.write_text('criteria = "Is it kind?"\n[rubric]\n1 = "curt"\n2 = "plain"\n3 = "kind"\n')
    model = ("--mode", "labels", "--model", f"a={save_base(tmp_path / 'a')}")
    code, printed = run(*model, "--data", f"mine={rows}", "--rubric", f"mine={rubric}")
    assert code == 0, printed
    assert suite(tmp_path)["sets"]["mine"]["points"] == 3
    recipe = artifacts.read_json(tmp_path / "out" / "mine" / artifacts.RECIPE)
    assert recipe["task"]["criteria"] == "Is it kind?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "halubench=ROWS"], "name a judge with --model NAME=PATH_OR_ID"),
        (["--model", "a=A", "--data", "halubench=ROWS", "--only", "flow-3"], "--data names halubench, which --only"),
        (["--model", "a=A", "--data", "halubench=nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--model", "a=A", "--only", "halubnch"], "no set 'halubnch' in the benchmark"),
        (["--model", "a=A", "--only", "feedbackqa"], "--data feedbackqa=PATH"),
        (
            ["--model", "a=A", "--data", "halubench=ROWS", "--rubric", "halubench=harm_3point"],
            "has 3 points, but the set",
        ),
        (["--model", "a=A", "--data", "flow-3=ROWS", "--rubric", "flow-3=harm_3point"], "brings a rubric of its own"),
        (["--model", "a=A", "--data", "halubench=ROWS", "--rubric", "flow-3=harm_3point"], "--rubric names flow-3"),
        (["--model", "a=openai:m@https://far.example/v1", "--data", "halubench=ROWS"], "OPENAI_API_KEY is not set"),
        (
            ["--model", "a=A", "--data", "halubench=ROWS", "--set", "task.kind=mcq"],
            "this benchmark is for rubric judges",
        ),
    ],
)
def test_what_cannot_work_is_said_before_a_model_is_loaded(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rows = write_halubench(tmp_path / "rows.jsonl")
    code, printed = run(*(one.replace("ROWS", str(rows)) for one in arguments))
    assert code == 1
    assert message in printed.replace("\n", " ")
    assert "Patient" not in printed


def test_another_folder_is_not_written_into(tmp_path: Path, run: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    code, printed = run("--model", "a=A", "--data", f"halubench={write_halubench(tmp_path / 'rows.jsonl')}")
    assert code == 1
    assert "is not empty and holds no benchmark" in printed.replace("\n", " ")


def test_the_suite_is_listed(run: Any) -> None:
    code, printed = run.command("bench", "rubric", "--list")
    assert code == 0
    for text in ("ragtruth-data2txt *", "hub:PatronusAI/HaluBench:test", "CC BY-NC 2.0", "faithfulness_binary"):
        assert text in printed.replace("\n", "")


def test_the_suite_runs_on_real_rows_with_a_tiny_and_an_endpoint_judge(tmp_path: Path, run: Any) -> None:
    files = {
        "ragtruth-qa": "ragtruth_qa_test/ragtruth_qa_test.jsonl",
        "halubench": "halubench_sample/halubench_sample.jsonl",
        "prometheus-likert": "prometheus_likert5/prometheus_likert5.jsonl.gz",
        "feedbackqa": "feedbackqa_health/feedbackqa_health.jsonl.gz",
    }
    data = [
        part
        for name, file in files.items()
        for part in ("--data", f"{name}={require_shared('data', *file.split('/'))}")
    ]

    def script(text: str, before: int) -> Action:
        return Say(f"<feedback>Length {len(text)}.</feedback>\n<score>1</score>") if len(text) % 3 else Say("No.")

    with scripted(script) as server:
        code, printed = run(
            *data,
            *("--model", f"tiny={save_base(tmp_path / 'tiny')}", "--model", f"gpt=openai:judge@{server.url}"),
            *("--max-cases", "8", "--set", "task.max_completion_tokens=12", "--set", "task.max_prompt_tokens=600"),
        )
    assert code == 0, printed
    found = suite(tmp_path)["sets"]
    assert list(found) == list(files)
    for name, one in found.items():
        gpt, tiny = one["judges"]["gpt"], one["judges"]["tiny"]
        path = tmp_path / "out" / name / artifacts.VERDICTS
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        mine = [row for row in rows if row["model"] == "gpt"]
        assert gpt["n_unparsed"] == sum(row["label"] is None for row in mine) == gpt["published"]["n_dropped"]
        right = sum(row["gold"] == "1" and row["label"] == "1" for row in mine)
        assert gpt["honest"]["accuracy"]["value"] == pytest.approx(right / 8)
        if not gpt["published"]["is_zeroed"]:
            kept = 8 - gpt["published"]["n_dropped"]
            assert gpt["published"]["metrics"]["accuracy"] == pytest.approx(right / kept)
        assert tiny["n"] == 8
