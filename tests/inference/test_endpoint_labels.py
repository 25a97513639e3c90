"""Endpoints tell label probabilities in each dialect; what a server does not tell is bounded and said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from medjudge.errors import ConfigError, EndpointError
from medjudge.inference.endpoint_engine import EndpointEngine
from medjudge.inference.label_reading import LabelTexts
from medjudge.inference.local import LocalEngine
from medjudge.judging.judge import judgement_of
from medjudge.records import Case, Completion, LabelScores, Unparsed, Verdict
from medjudge.tasks.appropriateness import LABELS, AppropriatenessContract
from medjudge.tasks.contract import LabelFrame, TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract
from tests.inference.logprob_servers import Dialect, Model, Served, Server, Table, serving
from tests.inference.scripted_endpoint import client_of
from tests.inference.test_local import load

EQUIVALENCE = EquivalenceContract(instructions="terse", max_prompt_tokens=400)
CASE = Case("1", {"question": "What?", "reference": "fever", "candidate": "high temperature"})
ANY = {"END": 1.0}
BINARY = Table({"": {"1": 0.6, "0": 0.25, " 1": 0.05, "Yes": 0.1}, "1": ANY, "0": ANY, "Yes": ANY, " 1": ANY})


def engine_of(served: Served, tmp_path: Path, **settings: Any) -> EndpointEngine:
    return EndpointEngine(client_of(served.url, tmp_path / "cache", **{"max_retries": 0, **settings}))


def ask(
    table: Table, dialect: Dialect, contract: TaskContract, case: Case, tmp_path: Path, **settings: Any
) -> tuple[LabelScores | Completion, EndpointEngine, Served]:
    with serving(Server(table, dialect)) as served:
        engine = engine_of(served, tmp_path, **settings)
        (found,) = engine.label_logprobs(contract, [case])
    return found, engine, served


def scores_of(found: LabelScores | Completion) -> LabelScores:
    assert isinstance(found, LabelScores)
    return found


# --- each dialect -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "way"),
    [
        ("vllm-without-prompts", "continue"),
        ("llama", "continue"),
        ("llama-2024", "continue"),
        ("llama-cpp-python", "continue"),
        ("openai", "first"),
    ],
)
def test_the_likeliest_tokens_are_read_in_each_dialect(dialect: Dialect, way: str, tmp_path: Path) -> None:
    found, engine, _ = ask(BINARY, dialect, EQUIVALENCE, CASE, tmp_path)
    scores = scores_of(found)
    assert engine.client.labels_by == engine.client.record()["labels_by"] == way
    # " 1" is counted as "1", and said.
    assert scores.log_probs == pytest.approx({"0": math.log(0.25), "1": math.log(0.65)}, abs=1e-6)
    assert scores.probabilities == pytest.approx({"0": 0.25 / 0.9, "1": 0.65 / 0.9}, abs=1e-6)
    assert scores.mass == pytest.approx(0.9, abs=1e-6)
    assert scores.mass_otherwise_written == pytest.approx(0.05, abs=1e-6)
    assert (scores.bounded, scores.mass_most) == ((), None)


def test_vllm_scores_each_label_as_a_finished_answer(tmp_path: Path) -> None:
    table = Table({"": {"1": 0.6, "0": 0.25, "x": 0.15}, "1": {"END": 0.5, "0": 0.5}, "0": {"END": 0.8, "1": 0.2}})
    found, engine, served = ask(table, "vllm", EQUIVALENCE, CASE, tmp_path)
    assert engine.client.labels_by == "prompt"
    assert scores_of(found).log_probs == pytest.approx({"0": math.log(0.2), "1": math.log(0.3)})
    assert scores_of(found).mass == pytest.approx(0.5)
    assert [body["messages"][-1]["content"] for body in served.bodies] == ["0", "1"]
    assert all(body["prompt_logprobs"] == 0 and body["max_tokens"] == 1 for body in served.bodies)
    # The server sent the whole prompt back; nothing of it is kept.
    assert b"fever" not in (tmp_path / "cache").read_bytes()


def test_a_server_that_opens_another_turn_is_not_taken_for_one_that_continues(tmp_path: Path) -> None:
    found, engine, _ = ask(BINARY, "openai", EQUIVALENCE, CASE, tmp_path)
    assert engine.client.labels_by == "first"
    with serving(Server(BINARY, "openai")) as served, pytest.raises(EndpointError, match="scores no prompt, expected"):
        engine_of(served, tmp_path, label_scoring="prompt").label_logprobs(EQUIVALENCE, [CASE])
    assert scores_of(found).mass == pytest.approx(0.9)


# --- the format before the label --------------------------------------------------------------------------------------

CONTRACT = AppropriatenessContract(form="answer_only", instructions="terse", max_completion_tokens=24)
ORDER = Case("1", {"condition": "pain", "variant": "adult", "procedure": "CT"})


def answer_table(lead: str, labels: dict[str, float], after: str) -> Table:
    """`lead` is written token by token of one character, the labels in tokens of one word, and `after` as one."""
    rows: dict[str, dict[str, float]] = {lead[:i]: {lead[i]: 0.9, "Well": 0.1} for i in range(len(lead))}
    rest = 1 - sum(labels.values())
    for text in labels:
        state = lead
        words = [word if i == 0 else f" {word}" for i, word in enumerate(text.split(" "))]
        for i, word in enumerate(words):
            row = rows.setdefault(state, {})
            share = sum(p for other, p in labels.items() if (lead + other).startswith(state + word))
            total = sum(p for other, p in labels.items() if (lead + other).startswith(state)) + (rest if i == 0 else 0)
            row[word] = share / total
            state += word
        rows.setdefault(state, {})[after] = 1.0
        rows[state + after] = {"END": 1.0}
    rows[lead]["Other"] = rest
    rows |= {state + "Well": {"END": 1.0} for state in list(rows)}
    return Table({**rows, lead + "Other": {"END": 1.0}})


LIKELY = {LABELS[0]: 0.5, LABELS[1]: 0.3, LABELS[2]: 0.15}


@pytest.mark.parametrize("dialect", ["llama", "vllm-without-prompts", "openai"])
def test_labels_of_several_tokens_stand_behind_a_tag(dialect: Dialect, tmp_path: Path) -> None:
    table = answer_table("<answer>", LIKELY, "</answer>")
    found, engine, served = ask(table, dialect, CONTRACT, ORDER, tmp_path)
    scores = scores_of(found)
    assert max(scores.probabilities, key=lambda label: scores.probabilities[label]) == LABELS[0]
    if dialect == "openai":
        # The label that was written is told whole; of the others the first word alone, so a bound stands for them.
        assert scores.log_probs[LABELS[0]] == pytest.approx(math.log(0.5))
        assert LABELS[0] not in scores.bounded
    else:
        assert scores.log_probs == pytest.approx({label: math.log(p) for label, p in LIKELY.items()}, abs=1e-5)
        assert scores.mass == pytest.approx(0.95)
        assert any(body["messages"][-1]["content"] == "<answer>" for body in served.bodies)
    usage = engine.client.usage
    assert usage.prompt_tokens > 0
    assert usage.n_truncated == usage.n_failed == 0


def test_labels_that_share_words_and_cannot_be_told_are_bounded(tmp_path: Path) -> None:
    """The model writes one; the others share its first word or are not told by a server that continues nothing."""
    contract = RubricContract(points=10, form="score_only", instructions="terse", max_prompt_tokens=400)
    state = "<score>"
    rows: dict[str, dict[str, float]] = {state[:i]: {state[i]: 1.0} for i in range(len(state))}
    rows["<score>"] = {"1": 0.7, "2": 0.2, "3": 0.1}
    rows["<score>1"] = {"0": 0.6, "</score>": 0.4}
    rows |= {f"<score>{i}": {"</score>": 1.0} for i in (2, 3, 10)}
    rows |= {f"<score>{i}</score>": {"END": 1.0} for i in (1, 2, 3, 10)}
    case = Case("1", {"input": "q", "output": "r", "criteria": "c", "rubric": "1: bad"})
    labels = contract.labels
    found, _, _ = ask(Table(rows), "openai", contract, case, tmp_path / "a")
    scores = scores_of(found)
    expected = {"1": 0.28, "10": 0.42, "2": 0.2, "3": 0.1}
    for label, probability in expected.items():
        assert scores.log_probs[label] == pytest.approx(math.log(probability)), label
    assert set(scores.bounded) == set(labels) - set(expected)
    # What is not listed has at most what the list leaves over.
    assert all(scores.log_probs[label] <= math.log(1e-5) for label in scores.bounded)
    assert isinstance(judgement_of(contract, case, scores), Verdict)


def test_a_letter_inside_json_is_read_where_the_model_writes_it(tmp_path: Path) -> None:
    contract = McqContract(instructions="terse", max_prompt_tokens=400)
    case = Case("q", {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"})
    lead = '{"predicted_category": "'
    # The model spaces its JSON otherwise, and its tokeniser joins the last quote with the letter.
    written = ['{ "', "predicted_category", '":']
    rows: dict[str, dict[str, float]] = {}
    state = ""
    for token in written:
        rows[state] = {token: 1.0}
        state += token
    rows[state] = {' "B': 0.7, ' "A': 0.2, ' "': 0.1}
    rows |= {state + token: {'"}': 1.0} for token in rows[state]}
    rows |= {state + token + '"}': {"END": 1.0} for token in rows[state]}
    found, _, _ = ask(Table(rows), "openai", contract, case, tmp_path)
    scores = scores_of(found)
    assert LabelTexts.of(contract.label_frame() or LabelFrame("", {}, True)).lead == lead
    assert scores.log_probs["B"] == pytest.approx(math.log(0.7))
    assert scores.log_probs["A"] == pytest.approx(math.log(0.2))
    assert set(scores.bounded) == {"C", "D"}
    verdict = judgement_of(contract, case, scores)
    assert isinstance(verdict, Verdict)
    assert verdict.label == "B"


def test_a_thought_before_the_answer_is_passed_over(tmp_path: Path) -> None:
    rows = {"": {"<think>": 1.0}, "<think>": {"0 or 1?": 1.0}, "<think>0 or 1?": {"</think>": 1.0}}
    state = "<think>0 or 1?</think>"
    rows |= {state: {"\n\n": 1.0}, f"{state}\n\n": {"0": 0.8, "1": 0.2}, f"{state}\n\n0": ANY, "0": ANY, "1": ANY}
    found, engine, _ = ask(Table(rows), "llama", EQUIVALENCE, CASE, tmp_path, reasoning_tokens=50)
    assert scores_of(found).log_probs == pytest.approx({"0": math.log(0.8), "1": math.log(0.2)})
    assert engine.client.usage.n_thoughts_inline > 0


# --- what is not told -------------------------------------------------------------------------------------------------


def test_a_label_that_is_not_listed_is_bounded_and_not_nothing(tmp_path: Path) -> None:
    found, _, _ = ask(BINARY, "openai", EQUIVALENCE, CASE, tmp_path, top_logprobs=1)
    scores = scores_of(found)
    assert scores.bounded == ("0",)
    # One token of 0.6 leaves 0.4 at most.
    assert scores.log_probs == pytest.approx({"0": math.log(0.4), "1": math.log(0.6)})
    assert scores.mass == pytest.approx(0.6)
    assert scores.mass_most == pytest.approx(1.0)
    verdict = judgement_of(EQUIVALENCE, CASE, scores)
    assert isinstance(verdict, Verdict)
    assert verdict.label == "1"
    assert verdict.confidence == pytest.approx(0.6)


def test_no_label_among_the_listed_is_no_verdict(tmp_path: Path) -> None:
    table = Table({"": {"I": 0.5, "The": 0.3, "1": 0.1, "0": 0.1}, "I": ANY})
    found, _, _ = ask(table, "openai", EQUIVALENCE, CASE, tmp_path, top_logprobs=2)
    assert scores_of(found).mass == 0
    unparsed = judgement_of(EQUIVALENCE, CASE, found)
    assert isinstance(unparsed, Unparsed)
    assert "no label is among the likeliest tokens" in unparsed.reason


def test_a_server_without_log_probabilities_says_so(tmp_path: Path) -> None:
    with serving(Server(BINARY, "silent")) as served:
        with pytest.raises(EndpointError, match="sent an answer without log-probabilities, expected `logprobs`"):
            engine_of(served, tmp_path).label_logprobs(EQUIVALENCE, [CASE] * 50)
        assert len(served.bodies) < 6


def test_a_server_that_allows_fewer_says_so(tmp_path: Path) -> None:
    with (
        serving(Server(BINARY, "openai", most=5)) as served,
        pytest.raises(EndpointError, match="Lower `top_logprobs`"),
    ):
        # Named as a value that is refused; the code is OpenAI's.
        engine_of(served, tmp_path).label_logprobs(EQUIVALENCE, [CASE])
    with serving(Server(BINARY, "openai", most=5)) as served:
        (found,) = engine_of(served, tmp_path, top_logprobs=5).label_logprobs(EQUIVALENCE, [CASE])
    assert scores_of(found).mass == pytest.approx(0.9)


def test_reasoning_before_the_label_is_refused_and_nothing_is_asked(tmp_path: Path) -> None:
    with serving(Server(BINARY, "llama")) as served:
        with pytest.raises(ConfigError, match="answers with text before its label"):
            engine_of(served, tmp_path).label_logprobs(EquivalenceContract(thinking=True), [CASE])
        assert served.bodies == []


# --- kept, and equal to a local model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["vllm", "llama", "llama-2024", "openai"])
def test_probabilities_are_kept(dialect: Dialect, tmp_path: Path) -> None:
    table = Table({"": {"1": 0.6, "0": 0.25, "é": 0.15}, "1": ANY, "0": ANY})
    with serving(Server(table, dialect)) as served:
        first = engine_of(served, tmp_path).label_logprobs(EQUIVALENCE, [CASE])
        n = len(served.bodies)
        again = engine_of(served, tmp_path)
        assert again.label_logprobs(EQUIVALENCE, [CASE]) == first
        assert len(served.bodies) == n or dialect == "openai"  # a refused probe is asked again
        assert again.client.usage.n_new == 0


@pytest.fixture(scope="module")
def small() -> tuple[Any, Any]:
    return load("qwen3")


@pytest.mark.parametrize(
    "contract",
    [
        EQUIVALENCE,
        AppropriatenessContract(form="answer_only", instructions="terse", max_completion_tokens=12),
        McqContract(instructions="terse", max_prompt_tokens=400),
        RubricContract(points=3, form="feedback", system_prompt="Grade.", max_completion_tokens=90),
    ],
    ids=["digits", "tags", "json", "frame"],
)
def test_a_served_model_gives_the_probabilities_of_the_local_one(
    contract: TaskContract, small: tuple[Any, Any], tmp_path: Path
) -> None:
    fields = {
        "equivalence": [CASE],
        "appropriateness": [ORDER, Case("2", {**ORDER.inputs, "procedure": "MRI of the brain"})],
        "mcq": [Case("q", {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"})],
        "rubric": [Case("1", {"input": "q", "output": "r", "criteria": "c", "rubric": "1: bad"})],
    }
    cases = fields[contract.kind]
    local = LocalEngine(*small).label_logprobs(contract, cases)
    with serving(Server(Model(*small), "vllm")) as served:
        engine = engine_of(served, tmp_path)
        told = engine.label_logprobs(contract, cases)
    assert engine.client.labels_by == "prompt"
    for mine, theirs in zip(told, local, strict=True):
        assert scores_of(mine).log_probs == pytest.approx(dict(theirs.log_probs), abs=1e-4)
        assert scores_of(mine).probabilities == pytest.approx(dict(theirs.probabilities), abs=1e-4)
        assert scores_of(mine).mass == pytest.approx(theirs.mass, rel=1e-3)
    assert json.dumps(engine.client.record())


def test_a_continuing_server_ranks_labels_as_the_local_model_does(small: tuple[Any, Any], tmp_path: Path) -> None:
    """The first token of a digit is the whole label, so what the server lists is what a local pass gives."""
    model = Model(*small)
    with serving(Server(model, "llama", most=500)) as served:
        (found,) = engine_of(served, tmp_path, top_logprobs=500).label_logprobs(EQUIVALENCE, [CASE])
    state, _ = model.begin([dict(turn) for turn in EQUIVALENCE.messages(CASE)], continues=False)
    listed = model.listed(state)
    for label in "01":
        own = sum(math.exp(value) for token, value in listed if token.strip() == label.encode())
        spaced = [t for t, _ in listed if not t.strip() and t]
        # A space first, then the digit, is a longer way to the same label: at most the space's own probability.
        most = own + sum(math.exp(v) for t, v in listed if t in spaced)
        assert math.log(own) - 1e-4 <= scores_of(found).log_probs[label] <= math.log(most) + 1e-4
