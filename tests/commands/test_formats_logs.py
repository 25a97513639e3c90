"""Logs of evaluation programs as `score` reads them: hand-made files of six cases, and what they must give."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from medjudge.data import shapes
from medjudge.records import Verdict
from medjudge.tasks.equivalence import EquivalenceContract
from tests.commands.format_files import (
    GOLD,
    RIGHT,
    SAID,
    accuracy,
    by_case,
    gold_of,
    read,
    refusal,
    said,
    unanswered,
    write_json,
    write_lines,
)

GRADE = {"yes": "C", "no": "I", None: math.nan}

# --- inspect_ai -------------------------------------------------------------------------------------------------------


def sample(i: int, **more: Any) -> dict[str, Any]:
    scores = {"model_graded_qa": {"value": GRADE[SAID[i]], "answer": "-"}, "clinician": {"value": GRADE[GOLD[i]]}}
    base = {"id": f"c{i}", "epoch": 1, "input": f"q{i}", "target": "t", "output": {"model": ("m1", "m2")[i % 2]}}
    return {**base, "scores": scores, "metadata": {}, **more}


def archive(path: Path, samples: list[dict[str, Any]], *, zstd: bool = False) -> str:
    """A log as inspect_ai packs it; with zstd by hand, as Python's zipfile does not write it."""
    entries = {"header.json": {"version": 2, "eval": {"task": "t"}}}
    entries |= {f"samples/{one['id']}_epoch_{one['epoch']}.json": one for one in samples}
    if not zstd:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, value in entries.items():
                packed.writestr(name, json.dumps(value))
        return str(path)
    out, directory = io.BytesIO(), b""
    for name, value in entries.items():
        text, at = json.dumps(value).encode(), out.tell()
        data = pyarrow.compress(text, codec="zstd", asbytes=True)
        fields = struct.pack("<HHHHHIII", 63, 0, 93, 0, 0, zlib.crc32(text), len(data), len(text))
        out.write(b"PK\x03\x04" + fields + struct.pack("<HH", len(name), 4) + name.encode() + b"\0\0\0\0" + data)
        end = struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, at)
        directory += b"PK\x01\x02" + struct.pack("<H", 63) + fields + end + name.encode()
    start = out.tell()
    sizes = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), start, 0)
    path.write_bytes(out.getvalue() + directory + b"PK\x05\x06" + sizes)
    return str(path)


@pytest.mark.parametrize("form", ["log.eval", "log.json", "log.zip", "packed.eval"])
def test_inspect_ai(tmp_path: Path, form: str) -> None:
    samples = [sample(i) for i in range(6)]
    if form == "log.json":
        path = write_json(tmp_path / form, {"version": 2, "eval": {"task": "t"}, "results": {}, "samples": samples})
    else:
        path = archive(tmp_path / form, samples, zstd=form == "packed.eval")
    scored = read(path, "I,C")
    assert said(scored, "model_graded_qa") == by_case(("C", "I", "I", "I", "I", None))
    assert gold_of(scored) == by_case(("C", "I", "C", "I", "C", "I"))
    assert accuracy(scored, "model_graded_qa") == RIGHT
    assert unanswered(scored, "model_graded_qa") == {"failed": 1}
    assert scored.cases[1].slices["generator"] == "m2"
    assert "recognised as a log of inspect_ai" in scored.results.read_as[0]
    # The same by the words of a pair, and under a name of one's own.
    assert accuracy(read(f"mine={path}", "no,yes"), "mine") == RIGHT


def test_inspect_ai_asks_which_scorer_is_the_experts(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(6)]
    for one in samples:
        one["scores"]["second"] = one["scores"].pop("clinician")
    path = archive(tmp_path / "log.eval", samples)
    message = refusal(path, "I,C")
    assert "--gold model_graded_qa or --gold second" in message
    assert accuracy(read(path, "I,C", gold="second"), "model_graded_qa") == RIGHT


def test_inspect_ai_epochs_are_repeats_and_ties_are_named(tmp_path: Path) -> None:
    # c0: C C I -> C; c1: I I I -> I; c2: C I -> tie; the others once.
    epochs = {0: "CCI", 1: "III", 2: "CI", 3: "I", 4: "I", 5: "I"}
    samples = []
    for i, grades in epochs.items():
        for epoch, grade in enumerate(grades, start=1):
            one = sample(i, epoch=epoch)
            one["scores"]["model_graded_qa"]["value"] = grade
            samples.append(one)
    scored = read(archive(tmp_path / "log.eval", samples), "I,C")
    assert said(scored, "model_graded_qa") == by_case(("C", "I", None, "I", "I", "I"), missing="(tied)")
    assert accuracy(scored, "model_graded_qa") == 4 / 6  # c2 has no verdict, c4 is wrong
    repeats = scored.results.repeats["model_graded_qa"]
    assert (repeats.n_cases, repeats.n_verdicts, repeats.tied) == (3, 8, ("c2",))
    assert repeats.consistent.value == pytest.approx(1 / 3)
    assert repeats.pairwise == pytest.approx((1 / 3 + 1 + 0) / 3)
    sentence = next(line for line in scored.results.statements if "8 verdicts on 3 cases" in line)
    assert "1 case ties and has no verdict ('c2')" in sentence


def test_inspect_ai_epochs_with_other_truths_are_cases_of_one_group(tmp_path: Path) -> None:
    samples = [sample(i, epoch=epoch) for i in range(6) for epoch in (1, 2)]
    for one in samples:
        if one["epoch"] == 2 and one["id"] == "c0":
            one["scores"]["clinician"]["value"] = "I"
    scored = read(archive(tmp_path / "log.eval", samples), "I,C")
    assert (scored.results.n_cases, scored.results.n_groups) == (12, 6)
    assert accuracy(scored, "model_graded_qa") == 5 / 12


def test_inspect_ai_edits_by_people(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(6)]
    for i, one in enumerate(samples):
        del one["scores"]["clinician"]
        score = one["scores"]["model_graded_qa"]
        edit = {"value": GRADE[GOLD[i]], "provenance": {"author": "a"}}
        score |= {"history": [{"value": score["value"]}, edit], "value": edit["value"]}
    scored = read(archive(tmp_path / "log.eval", samples), "I,C")
    assert accuracy(scored, "model_graded_qa") == RIGHT
    # With edits of a part of the samples the scorer's own value is read, and the experts must be named.
    samples[0]["scores"]["model_graded_qa"] = {"value": "C"}
    path = archive(tmp_path / "part.eval", samples)
    assert "no column 'gold'" in refusal(path, "I,C")
    part = read(path, "I,C", gold="edits")
    assert gold_of(part)["c0"] == "C"
    assert said(part, "model_graded_qa")["c2"] == "I"


def test_inspect_ai_samples_that_ended_in_an_error_failed(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(6)]
    del samples[0]["scores"]
    samples[0] |= {"error": {"message": "timed out"}, "metadata": {}}
    samples[1]["scores"]["model_graded_qa"]["value"] = "N"
    scored = read(archive(tmp_path / "log.eval", samples), "I,C")
    assert unanswered(scored, "model_graded_qa") == {"failed": 2}  # case 0 has no expert either
    assert gold_of(scored)["c0"] is None


def test_an_archive_that_unpacks_to_too_much_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for zstd in (False, True):
        path = archive(tmp_path / f"{zstd}.eval", [sample(0, target="a" * 2**20)], zstd=zstd)
        assert Path(path).stat().st_size < 2**14
        monkeypatch.setattr(shapes, "LARGEST_SAMPLE", 2**16)
        assert "it unpacks to more than" in refusal(path, "I,C")
        monkeypatch.setattr(shapes, "LARGEST_SAMPLE", 2**28)
        monkeypatch.setattr(shapes, "MOST_UNPACKED", 2**16)
        assert "it unpacks to more than" in refusal(path, "I,C")


# --- lm-eval ----------------------------------------------------------------------------------------------------------


def doc(i: int, resps: Any, target: str, **more: Any) -> dict[str, Any]:
    base = {"doc_id": i, "doc": {"question": f"q{i}", "choices": ["no", "yes"]}, "target": target, "resps": [resps]}
    return {**base, "filtered_resps": resps, "filter": "none", **more}


def test_lm_eval_answers_and_filters(tmp_path: Path) -> None:
    rows = [
        doc(i, [SAID[i] or "[invalid]"] if name == "strict" else ["yes"], GOLD[i], filter=name)
        for i in range(6)
        for name in ("strict", "loose")
    ]
    path = write_lines(tmp_path / "s.jsonl", rows)
    message = refusal(path)
    assert "--where filter=strict or --where filter=loose" in message
    scored = read(f"m={path}", where=["filter=strict"])
    assert said(scored, "m") == by_case(SAID, "", "(schema)")
    assert accuracy(scored, "m") == RIGHT
    assert accuracy(read(f"m={path}", where=["filter=loose"]), "m") == 0.5


def test_lm_eval_options_by_likelihood(tmp_path: Path) -> None:
    pairs = [
        [["-2.0", "False"], ["-1.0", "True"]],
        [["-0.5", "False"], ["-0.5", "False"]],
        [["-1", "True"], ["-3", "False"]],
    ]
    rows = [doc(i, pair, target) for i, (pair, target) in enumerate(zip(pairs, ("1", "0", "yes"), strict=True))]
    path = write_lines(tmp_path / "s.jsonl", rows * 1)
    scored = read(f"m={path}", min_read=0.2)
    # Equal likelihoods choose nothing.
    assert said(scored, "m") == {"0": "yes", "1": "(failed)", "2": "no"}
    assert gold_of(scored) == {"0": "yes", "1": "no", "2": "yes"}
    confidence = {one.case_id: one.confidence for one in scored.judgements["m"] if isinstance(one, Verdict)}
    assert confidence["0"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert confidence["2"] == pytest.approx(1 / (1 + math.exp(-2)))
    by_number = read(f"m={path}", "0,1")
    assert said(by_number, "m")["0"] == "1"
    assert gold_of(by_number) == {"0": "1", "1": "0", "2": "1"}
    by_letter = read(f"m={path}", "A,B")
    assert said(by_letter, "m") == {"0": "B", "1": "(failed)", "2": "A"}


def test_lm_eval_repeated_answers_are_joined(tmp_path: Path) -> None:
    rows = [doc(i, [["yes", "yes", "no"]], GOLD[i]) for i in range(6)]
    scored = read(f"m={write_lines(tmp_path / 's.jsonl', rows)}")
    assert set(said(scored, "m").values()) == {"yes"}
    assert scored.results.repeats["m"].consistent.value == 0
    assert scored.results.repeats["m"].pairwise == pytest.approx(1 / 3)


# --- promptfoo, DeepEval ----------------------------------------------------------------------------------------------


def graded(i: int) -> dict[str, Any]:
    """Case 5 failed in its grader, which promptfoo writes as a fail."""
    part = {"pass": SAID[i] == "yes", "score": float(SAID[i] == "yes"), "assertion": {"type": "llm-rubric"}}
    part |= {"metadata": {"graderError": True}} if SAID[i] is None else {}
    return {
        "promptIdx": 0,
        "testIdx": i,
        "testCase": {"description": f"c{i}", "vars": {"question": f"q{i}"}, "metadata": {"expert": GOLD[i]}},
        "provider": {"id": "openai:m", "label": ""},
        "vars": {"question": f"q{i}"},
        "success": SAID[i] == "yes",
        "failureReason": 0,
        "gradingResult": {"pass": SAID[i] == "yes", "score": 0.0, "componentResults": [part]},
    }


@pytest.mark.parametrize("lines", [True, False])
def test_promptfoo(tmp_path: Path, lines: bool) -> None:
    rows = [graded(i) for i in range(6)]
    path = (
        write_lines(tmp_path / "r.jsonl", rows)
        if lines
        else write_json(
            tmp_path / "r.json", {"evalId": "e", "results": {"version": 3, "results": rows, "prompts": [{}]}}
        )
    )
    for labels, yes, no in (("no,yes", "yes", "no"), ("fail,pass", "pass", "fail")):
        scored = read(f"p={path}", labels)
        assert said(scored, "p") == by_case((yes, no, no, no, no, None))
        assert accuracy(scored, "p") == RIGHT
    # The path by which one would name the verdict oneself leads to the same.
    same = read(f"p={path}", columns={"label": "gradingResult.pass"}, gold="testCase.metadata.expert")
    assert accuracy(same, "p") == RIGHT


def test_promptfoo_two_providers_are_two_cases_of_a_test(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        for name in ("a", "b"):
            row = graded(i)
            row["provider"]["id"] = name
            row["testCase"].pop("description")
            rows.append(row)
    scored = read(f"p={write_lines(tmp_path / 'r.jsonl', rows)}")
    assert (scored.results.n_cases, scored.results.n_groups) == (12, 6)
    assert set(said(scored, "p")) >= {"0|a", "5|b"}


def test_deepeval_each_metric_is_a_judge(tmp_path: Path) -> None:
    cases = []
    for i in range(6):
        failed = {"score": None, "success": False, "error": "timed out"}
        first = {"score": 0.9, "success": SAID[i] == "yes", "error": None} if SAID[i] else failed
        second = {"name": "Faithful", "score": [0.2, 0.7][GOLD[i] == "yes"], "success": GOLD[i] == "yes"}
        metrics = [{"name": "Correct [GEval]", **first}, second]
        cases.append({"name": f"c{i}", "input": f"q{i}", "actualOutput": "a", "order": i, "metricsData": metrics})
        cases[-1]["metadata"] = {"expert": GOLD[i]}
    tree = {"testCases": cases, "conversationalTestCases": [], "metricsScores": [{"metric": "m"}], "testPassed": 3}
    path = write_json(tmp_path / "run.json", tree)
    scored = read(path)
    assert said(scored, "Correct [GEval]") == by_case(SAID)
    assert (accuracy(scored, "Correct [GEval]"), accuracy(scored, "Faithful")) == (RIGHT, 1.0)
    # A threshold reads the scores: 0.9 of the first metric is always above it.
    at = read(path, threshold=0.5, where=["metricsData.name=Faithful"])
    assert list(at.results.of_role("model")) == ["Faithful"]
    assert accuracy(at, "Faithful") == 1.0


# --- OpenAI -----------------------------------------------------------------------------------------------------------


def batch(i: int, text: str | None, **choice: Any) -> dict[str, Any]:
    answer = {"index": 0, "message": {"content": text}, "finish_reason": "stop", **choice}
    response = {"status_code": 200, "body": {"model": "m", "choices": [answer]}}
    return {"id": f"b{i}", "custom_id": f"c{i}", "response": response, "error": None}


def test_openai_batch_keeps_kinds_apart(tmp_path: Path) -> None:
    tops = [{"token": "yes", "logprob": math.log(0.6)}, {"token": " no", "logprob": math.log(0.2)}]
    rows = [
        batch(0, "Yes", logprobs={"content": [{"token": "Yes", "logprob": math.log(0.6), "top_logprobs": tops}]}),
        batch(1, "no"),
        {"id": "b2", "custom_id": "c2", "response": None, "error": {"code": "x", "message": "m"}},
        batch(3, None, message={"content": None, "refusal": "I cannot help with that"}),
        batch(4, "I think that", finish_reason="length"),
        batch(5, "perhaps"),
        *(batch(i, "yes") for i in range(6, 12)),
    ]
    # The experts' file may call the case as the program does.
    gold = write_lines(tmp_path / "g.jsonl", [{"custom_id": f"c{i}", "gold": "yes"} for i in range(13)])
    scored = read(f"b={write_lines(tmp_path / 'b.jsonl', rows)}", gold=gold)
    kinds = {"schema": 1, "truncated": 1, "refused": 1, "failed": 1, "absent": 1}
    assert unanswered(scored, "b") == kinds
    assert accuracy(scored, "b") == 7 / 13
    first = scored.judgements["b"][0]
    assert isinstance(first, Verdict)
    assert first.confidence == pytest.approx(0.6 / 0.8)
    assert "1 cut off, 1 refused, 1 failed, 1 absent" in " ".join(scored.results.statements)


def test_openai_batch_is_read_with_the_tasks_parser(tmp_path: Path) -> None:
    rows = [batch(i, {"yes": "1", "no": "0", None: "no idea"}[SAID[i]]) for i in range(6)]
    gold = write_lines(tmp_path / "g.jsonl", [{"id": f"c{i}", "gold": int(GOLD[i] == "yes")} for i in range(6)])
    scored = read(f"b={write_lines(tmp_path / 'b.jsonl', rows)}", gold=gold, scale=EquivalenceContract())
    assert accuracy(scored, "b") == RIGHT
    assert set(unanswered(scored, "b")) <= {"format", "schema"}


def test_openai_evals_log(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"spec": {"eval_name": "e", "run_id": "r"}}, {"final_report": {"accuracy": 0.5}}]
    for i in range(6):
        base = {"run_id": "r", "sample_id": f"c{i}"}
        rows.append({**base, "event_id": 2 * i, "type": "sampling", "data": {"sampled": ["-"]}})
        data = {"picked": SAID[i], "expected": GOLD[i], "correct": SAID[i] == GOLD[i]}
        rows.append({**base, "event_id": 2 * i + 1, "type": "match", "data": data})
    scored = read(f"e={write_lines(tmp_path / 'log.jsonl', rows)}")
    assert said(scored, "e") == by_case(SAID)
    assert accuracy(scored, "e") == RIGHT
    for row in rows[3::2]:
        row |= {"type": "metrics", "data": {"choice": row["data"]["picked"], "score": 1}}
    gold = write_lines(tmp_path / "g.jsonl", [{"id": f"c{i}", "gold": GOLD[i]} for i in range(6)])
    assert accuracy(read(f"e={write_lines(tmp_path / 'log.jsonl', rows)}", gold=gold), "e") == RIGHT


def test_openai_evals_api(tmp_path: Path) -> None:
    items = [
        {
            "datasource_item_id": i,
            "datasource_item": {"question": "q", "expert": GOLD[i]},
            "run_id": "r",
            "results": [
                {
                    "name": "grader",
                    "type": "label_model",
                    "score": 1.0,
                    "passed": None if SAID[i] is None else SAID[i] == "yes",
                }
            ],
        }
        for i in range(6)
    ]
    scored = read(write_json(tmp_path / "items.json", {"object": "list", "data": items}))
    assert said(scored, "grader") == by_case(SAID, "")
    assert accuracy(scored, "grader") == RIGHT
