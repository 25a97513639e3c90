"""An endpoint is asked within its limits, its faults are borne, told apart and counted, no answer is paid for twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from medjudge.errors import ConfigError, EndpointError, RunError
from medjudge.inference.endpoint import EndpointClient, Failure, _retry_after_s
from medjudge.inference.endpoint_engine import EndpointEngine
from medjudge.inference.replies import Reply, ReplyCache, Usage, cost_usd, open_cache, thoughts_statement
from medjudge.inference.server_replies import read_reply
from medjudge.inference.server_words import known_name
from medjudge.judging.judge import judgement_of
from medjudge.records import Case, Completion, Unparsed
from medjudge.settings.base import EndpointSettings, without_transport
from medjudge.settings.endpoint import Endpoint, parse_endpoint
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.rubric import RubricContract
from tests.inference.scripted_endpoint import Action, Drop, Hang, Say, Script, Status, client_of, scripted, user


def texts(answers: list[Any]) -> list[str | None]:
    return [answer.text if isinstance(answer, Reply) else None for answer in answers]


def always(action: Action) -> Script:
    return lambda text, before: action


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "model", "url", "loopback"),
    [
        ("openai:gpt-5-mini@https://api.openai.com/v1/", "gpt-5-mini", "https://api.openai.com/v1", False),
        ("openai:qwen3:0.6b@http://localhost:11434/v1", "qwen3:0.6b", "http://localhost:11434/v1", True),
        ("openai:/models/a@b@http://127.0.0.2:8000/v1", "/models/a@b", "http://127.0.0.2:8000/v1", True),
        ("openai:m@http://[::1]:8000/v1", "m", "http://[::1]:8000/v1", True),
        ("openai:m@http://gpu-7:8000/v1", "m", "http://gpu-7:8000/v1", False),
    ],
)
def test_an_endpoint_is_named_by_model_and_url(where: str, model: str, url: str, loopback: bool) -> None:
    endpoint = parse_endpoint(where)
    assert (endpoint.model, endpoint.url, endpoint.is_loopback) == (model, url, loopback)


@pytest.mark.parametrize(
    "where",
    ["openai:gpt-5-mini", "openai:@http://x/v1", "openai:m@ftp://x/v1", "openai:m@http:///v1", "openai:m@localhost:1"],
)
def test_an_endpoint_without_a_full_url_is_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="expected openai:MODEL@URL"):
        parse_endpoint(where)


@pytest.mark.parametrize("url", ["http://me:secret@x/v1", "http://x/v1?key=secret", "http://x/v1#secret"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="environment variable") as refused:
        parse_endpoint(f"openai:m@{url}")
    assert "secret" not in str(refused.value)


def test_keys_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    far = Endpoint("m", "https://far.example/v1")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        EndpointClient(far, EndpointSettings())
    EndpointClient(far, EndpointSettings(api_key_env=""))
    monkeypatch.setenv("MY_KEY", " k-1\n")
    with scripted(always(Say("1"))) as server:
        client_of(server.url, tmp_path / "a", api_key_env="MY_KEY").ask([user("q")], max_tokens=1)
        client_of(server.url, tmp_path / "b", api_key_env="OPENAI_API_KEY").ask([user("q")], max_tokens=1)
    assert [headers["authorization"] for headers in server.headers] == ["Bearer k-1", "Bearer none"]


# --- one request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {"temperature": 0.0, "seed": 42, "max_tokens": 7}),
        ({"temperature": "default", "seed": "default"}, {"max_tokens": 7}),
        (
            {"temperature": 0.7, "seed": 1, "reasoning_tokens": 100, "limit_key": "max_completion_tokens"},
            {"temperature": 0.7, "seed": 1, "max_completion_tokens": 107},
        ),
        (
            {"extra": {"chat_template_kwargs": {"enable_thinking": False}}},
            {"temperature": 0.0, "seed": 42, "max_tokens": 7, "chat_template_kwargs": {"enable_thinking": False}},
        ),
    ],
)
def test_the_request_says_what_the_settings_say(tmp_path: Path, settings: dict[str, Any], sent: dict[str, Any]) -> None:
    with scripted(always(Say("1"))) as server:
        client_of(server.url, tmp_path / "c", **settings).ask([user("q")], max_tokens=7)
    assert server.bodies == [{"model": "judge", "messages": user("q"), **sent}]


def test_extra_may_not_repeat_a_setting() -> None:
    with pytest.raises(ValidationError, match="max_tokens, seed: set by the task"):
        EndpointSettings(extra={"seed": 1, "max_tokens": 2})


def test_openai_itself_is_asked_with_the_newer_name_of_the_limit() -> None:
    settings = EndpointSettings(api_key_env="")
    names = {
        url: EndpointClient(Endpoint("m", url), settings)._limit_key()
        for url in ("https://api.openai.com/v1", "https://x.openai.azure.com/openai/v1", "http://localhost:1/v1")
    }
    assert list(names.values()) == ["max_completion_tokens", "max_completion_tokens", "max_tokens"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Say("0"), ("0", "stop")),
        (Say("0", finish="length"), ("0", "length")),
        (Say("", finish="content_filter"), ("", "refusal")),
        (Say(None, refusal="I cannot help with that."), ("I cannot help with that.", "refusal")),
        (Say("half a pair \ud83d"), ("half a pair ?", "stop")),
        (Status(400, {"code": "content_filter"}), ("", "refusal")),
    ],
)
def test_answer_truncation_and_refusal_are_told_apart(
    tmp_path: Path, action: Action, expected: tuple[str, str]
) -> None:
    with scripted(always(action)) as server:
        client = client_of(server.url, tmp_path / "c")
        [reply] = client.ask([user("q")], max_tokens=1)
        [again] = client_of(server.url, tmp_path / "c").ask([user("q")], max_tokens=1)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish) == expected
    assert again == reply
    assert len(server.bodies) == 1
    assert (client.usage.n_truncated, client.usage.n_refused) == (expected[1] == "length", expected[1] == "refusal")


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "reason", "n_requests"),
    [
        (Status(400, {"code": "context_length_exceeded"}), "HTTP 400 context_length_exceeded", 1),
        (Status(400, {"code": "a patient said: ouch"}), "HTTP 400", 1),
        (Status(403), "HTTP 403", 1),
        (Status(500), "HTTP 500, 3 attempts", 3),
        (Status(429), "HTTP 429, 3 attempts", 3),
        (
            Status(429, headers={"retry-after": "600"}),
            "HTTP 429, and the server asks for a wait of 600 s",
            1,
        ),
        (Status(200, raw=b"{not json"), "the answer cannot be read (JSONDecodeError), 3 attempts", 3),
        (Status(200, raw=b"{}"), "the server sent no chat completion, 3 attempts", 3),
        (Status(200, raw=b'{"choices": []}'), "the server sent no chat completion, 3 attempts", 3),
        (Status(200, raw=b"<html>", headers={"content-type": "text/html"}), "the server sent no chat completion, 3", 3),
        (Hang(2), "no answer within 0.2 s, 3 attempts", 3),
        (Drop(), "connection failed (RemoteProtocolError), 3 attempts", 3),
    ],
)
def test_a_call_that_fails_for_good_is_a_failure_among_the_answers(
    tmp_path: Path, action: Action, reason: str, n_requests: int
) -> None:
    def script(text: str, before: int) -> Action:
        return action if text == "bad" else Say(text)

    with scripted(script) as server:
        settings = {"max_retries": 2, "timeout_s": 0.2 if isinstance(action, Hang) else 5}
        client = client_of(server.url, tmp_path / "c", **settings)
        client.ask([user("first")], max_tokens=1)
        answers = client.ask([user("a"), user("bad"), user("b")], max_tokens=1)
    assert texts(answers) == ["a", None, "b"]
    assert isinstance(answers[1], Failure)
    assert answers[1].reason.startswith(reason)
    assert server.asked.count("bad") == n_requests
    usage = client.usage
    assert (usage.n_prompts, usage.n_answered, usage.n_failed) == (4, 3, 1)
    assert (usage.n_requests, usage.n_retries) == (3 + n_requests, n_requests - 1)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (Status(401), r"refuses the key \(HTTP 401\)"),
        (Status(429, {"code": "insufficient_quota"}), r"has no quota left \(HTTP 429 insufficient_quota\)"),
        (Status(404, {"code": "model_not_found"}), r"is not found .* mostly ends in /v1"),
        (
            Status(400, {"code": "unsupported_value", "param": "temperature"}),
            r'refuses the parameter temperature .* `temperature = "default"`',
        ),
    ],
)
def test_what_must_fail_for_every_call_stops_at_once(tmp_path: Path, action: Action, message: str) -> None:
    with scripted(always(action)) as server:
        client = client_of(server.url, tmp_path / "c", concurrency=2)
        with pytest.raises(EndpointError, match=message):
            client.ask([user(f"q{i}") for i in range(50)], max_tokens=1)
    assert len(server.bodies) <= 2


@pytest.mark.parametrize(("max_outage_s", "n_requests"), [(60.0, 8), (0.0, 3)])
def test_a_server_that_restarts_is_waited_for(tmp_path: Path, max_outage_s: float, n_requests: int) -> None:
    def script(text: str, before: int) -> Action:
        return Drop() if text == "in the restart" and before < 7 else Say(text)

    with scripted(script) as server:
        client = client_of(server.url, tmp_path / "c", max_retries=2, max_outage_s=max_outage_s)
        client.ask([user("first")], max_tokens=1)
        [answer] = client.ask([user("in the restart")], max_tokens=1)
    assert isinstance(answer, Reply) == (max_outage_s > 0)
    assert server.asked.count("in the restart") == n_requests


def test_a_prompt_that_breaks_its_connection_is_not_waited_for(tmp_path: Path) -> None:
    """Others are answered meanwhile, so the server is not down: attempts count."""
    with scripted(lambda text, before: Drop() if text == "bad" else Hang(0.05) if before == 0 else Say(text)) as server:
        client = client_of(server.url, tmp_path / "c", max_retries=2, max_outage_s=5, concurrency=2, retry_wait_s=0.1)
        answers = client.ask([user("bad"), *(user(str(i)) for i in range(15))], max_tokens=1)
    assert isinstance(answers[0], Failure)
    assert texts(answers[1:]) == [str(i) for i in range(15)]


def test_a_server_that_is_not_there_is_named_soon(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    client = client_of(url, tmp_path / "c", max_retries=2, max_outage_s=600, concurrency=2)
    with pytest.raises(EndpointError, match=r"cannot reach 'judge' at 127.0.0.1:\d+: connection failed .*, 3 attempts"):
        client.ask([user(f"q{i}") for i in range(50)], max_tokens=1)
    assert client.usage.n_requests <= 6


def test_too_many_failures_stop_the_run_and_lose_no_answer(tmp_path: Path) -> None:
    broken = True

    def script(text: str, before: int) -> Action:
        return Status(500) if broken and int(text) % 2 else Say(text)

    prompts = [user(str(i)) for i in range(40)]
    with scripted(script) as server:
        client = client_of(server.url, tmp_path / "c", max_retries=1, max_failed_share=0.1, concurrency=3)
        with pytest.raises(EndpointError, match=r"5 of 40 calls .*: 5 x HTTP 500, 2 attempts") as stopped:
            client.ask(prompts, max_tokens=1)
        assert "asks only for the rest" in str(stopped.value)
        answered = set(server.answered)
        assert 0 < len(answered) < 20
        broken = False
        again = client_of(server.url, tmp_path / "c")
        assert texts(again.ask(prompts, max_tokens=1)) == [str(i) for i in range(40)]
    assert again.usage.n_from_cache == len(answered)
    assert set(Counter(server.answered).values()) == {1}


def test_the_failed_share_is_taken_over_all_calls_of_a_client(tmp_path: Path) -> None:
    def script(text: str, before: int) -> Action:
        return Status(400) if text.startswith("bad") else Say(text)

    with scripted(script) as server:
        client = client_of(server.url, tmp_path / "c", max_failed_share=0.1)
        # 10 % of the least 20 bears two failures; of 40 four.
        client.ask([user("bad 1"), user("bad 2")], max_tokens=1)
        client.ask([user(f"{i}") for i in range(36)], max_tokens=1)
        client.ask([user("bad 3"), user("bad 4")], max_tokens=1)
        with pytest.raises(EndpointError, match="5 of 41 calls"):
            client.ask([user("bad 5")], max_tokens=1)


def test_nothing_of_a_prompt_stands_in_errors_or_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = "Mrs. Example has pain"
    with scripted(lambda text, before: Status(400, {"code": f"about {text}", "param": text})) as server:
        client = client_of(server.url, tmp_path / "c", max_failed_share=0.0)
        with pytest.raises(EndpointError) as stopped:
            client.ask([user(secret)], max_tokens=1)
    assert "Mrs" not in str(stopped.value) + caplog.text
    assert stopped.value.__cause__ is None


ECHO = "Mrs Example 1951"
"""What a server that repeats a prompt says."""
API_KEY = "sk-live-0123456789abcdef"


class Echo(Say):
    """An answer whose other fields repeat the prompt and the key."""

    def body(self, model: str) -> dict[str, Any]:
        tree = super().body(model)
        usage = {"prompt_tokens": 10**40, "completion_tokens": ECHO}
        return tree | {"model": f"judge-{API_KEY}", "system_fingerprint": ECHO, "id": ECHO, "usage": usage}


ECHOES: dict[str, Action] = {
    "a message, code, type and parameter": Status(
        400, {"message": ECHO, "code": "Mrs_Example_1951", "type": "Example", "param": "Mrs.Example"}
    ),
    "the key as a code": Status(403, {"code": API_KEY, "message": f"Incorrect API key {API_KEY}"}),
    "a refused parameter": Status(400, {"code": "unsupported_value", "param": "Example"}),
    "an unknown code beside a known type": Status(429, {"code": "Example", "type": "rate_limit_error"}),
    "a wait of many digits": Status(429, headers={"retry-after": "19510000000000000"}),
    "another form of the body": Status(500, raw=json.dumps([ECHO, {"error": ECHO}]).encode()),
    "no JSON": Status(200, raw=f"{{{ECHO}".encode()),
    "choices that are an object": Status(200, raw=json.dumps({"choices": {"Mrs Example": ECHO}}).encode()),
    "choices that are a text": Status(200, raw=json.dumps({"choices": ECHO}).encode()),
    "an error with status 200": Status(200, raw=json.dumps({"error": {"message": ECHO}}).encode()),
    "a header": Status(500, headers={"x-request-id": ECHO, "retry-after": "0"}),
    "an answer": Echo("1"),
}


@pytest.mark.parametrize("name", ECHOES)
def test_a_server_that_repeats_prompt_and_key_leaves_no_trace(
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", API_KEY)
    notes: list[str] = []
    with scripted(always(ECHOES[name])) as server:
        client = client_of(server.url, tmp_path / "c", max_retries=1, max_failed_share=1.0, api_key_env="MY_KEY")
        client.on_note = notes.append
        try:
            said = repr(client.ask([user(ECHO)], max_tokens=1))
        except EndpointError as error:
            said = str(error)
    streams = capfd.readouterr()
    kept = [json.dumps(client.record()), json.dumps(client.usage.to_json(client.settings)), said, *notes]
    kept += [caplog.text, streams.out, streams.err]
    kept += [path.read_bytes().decode("utf-8", "replace") for path in tmp_path.iterdir()]
    for text in kept:
        for word in ("Example", "1951", API_KEY[8:20], "Mrs"):
            assert word not in text, word


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_prompt_elsewhere(tmp_path: Path, code: int) -> None:
    with scripted(always(Say("1"))) as other:
        to = {"location": f"{other.url}/chat/completions"}
        with scripted(always(Status(code, headers=to))) as server:
            client = client_of(server.url, tmp_path / "c", max_retries=3)
            with pytest.raises(EndpointError, match=f"redirect, which is not followed .HTTP {code}.*name that one"):
                client.ask([user("what the patient said")], max_tokens=1)
    assert len(server.bodies) == 1
    assert other.bodies == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "context_length_exceeded"}, "HTTP 400 context_length_exceeded"),
        ({"code": 400, "type": "BadRequestError"}, "HTTP 400 badrequesterror"),
        ({"code": "anything_else"}, "HTTP 400"),
        ({"code": "unsupported_value", "param": "seed"}, "refuses the parameter seed "),
        ({"code": "unsupported_value", "param": "messages[0].content"}, r"refuses the parameter \(not named\) "),
    ],
)
def test_known_codes_and_sent_parameters_are_told(tmp_path: Path, error: dict[str, Any], reason: str) -> None:
    with scripted(always(Status(400, error))) as server:
        client = client_of(server.url, tmp_path / "c", max_failed_share=1.0)
        try:
            [answer] = client.ask([user("q")], max_tokens=1)
            assert isinstance(answer, Failure)
            said = answer.reason
        except EndpointError as stopped:
            said = str(stopped)
    assert re.search(f"{reason}$" if reason.startswith("HTTP") else reason, said), said


@pytest.mark.parametrize(
    ("asked", "said", "kept"),
    [
        ("gpt-5-mini", "gpt-5-mini-2025-08-07", "gpt-5-mini-2025-08-07"),
        ("judge", "meta-llama/Llama-3.3-70B", "meta-llama/Llama-3.3-70B"),
        ("qwen3:0.6b", "qwen3:0.6b", "qwen3:0.6b"),
        ("aspirin-judge", "aspirin-judge-v2", "aspirin-judge-v2"),  # a word of the prompt, but of the asked name, too
        ("judge", "aspirin", "unnamed-"),
        ("judge", "two words", "unnamed-"),
        ("judge", "x" * 200, "unnamed-"),
        ("judge", "sk-abc", "unnamed-"),
        ("judge", 7, ""),
        ("judge", None, ""),
    ],
)
def test_names_of_models_are_kept_where_they_repeat_nothing(asked: str, said: object, kept: str) -> None:
    body = {"model": asked, "messages": user("Does aspirin help?")}
    name = known_name(said, body, "secret")
    assert name.startswith(kept)
    assert len(name) == len(kept) + (8 if kept == "unnamed-" else 0)


def test_the_cache_is_closed_to_others_also_where_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir(mode=0o755)
    path = tmp_path / "deep" / "c"
    path.touch(mode=0o644)
    path.chmod(0o644)
    with scripted(always(Say("1"))) as server:
        client_of(server.url, path).ask([user("q")], max_tokens=1)
        client_of(server.url, tmp_path / "new" / "c").ask([user("q")], max_tokens=1)
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("reply", ["[]", '{"text": 5}', "null", '{"a": 1}', "{", '{"text": "1", "finish": "no"}'])
def test_a_kept_answer_of_another_form_is_named(tmp_path: Path, reply: str) -> None:
    with open_cache(tmp_path / "c") as cache:
        cache._db.execute("INSERT INTO replies VALUES ('k', ?)", (reply,))
        with pytest.raises(RunError, match=r"the cache of answers .* cannot be used"):
            cache.get(["k"])


# --- limits -----------------------------------------------------------------------------------------------------------


def test_requests_are_spaced_and_never_more_than_allowed_are_under_way(tmp_path: Path) -> None:
    with scripted(lambda text, before: Hang(0.3) if before == 0 else Say(text)) as server:
        client = client_of(server.url, tmp_path / "c", concurrency=3, requests_per_minute=1500)
        started = time.monotonic()
        client.ask([user(str(i)) for i in range(6)], max_tokens=1)
        wall_s = time.monotonic() - started
    assert 2 <= server.most_in_flight <= 3
    # 12 requests, 6 of them retries, leave 40 ms apart; a busy machine only makes it longer.
    assert len(server.bodies) == 12
    assert wall_s >= 11 * 0.04


def test_tokens_are_estimated_and_then_counted(tmp_path: Path) -> None:
    with scripted(always(Say("x", n_in=90, n_out=10))) as server:
        client = client_of(server.url, tmp_path / "c", concurrency=1, tokens_per_minute=60_000)
        started = time.monotonic()
        client.ask([user(f"{i}") for i in range(4)], max_tokens=1)
        wall_s = time.monotonic() - started
    # Each answer took 100 tokens = 0.1 s at 1,000 a second, though the estimate was about 1.
    assert wall_s >= 0.3


@pytest.mark.parametrize("headers", [{"retry-after": "0.4"}, {"retry-after-ms": "400"}])
def test_all_calls_wait_as_long_as_the_server_asks(tmp_path: Path, headers: dict[str, str]) -> None:
    times: list[float] = []

    def script(text: str, before: int) -> Action:
        times.append(time.monotonic())
        return Status(429, headers=headers) if len(times) == 1 else Say(text)

    with scripted(script) as server:
        client = client_of(server.url, tmp_path / "c", concurrency=1)
        assert texts(client.ask([user("0"), user("1")], max_tokens=1)) == ["0", "1"]
    assert server.asked == ["0", "0", "1"]
    assert times[1] - times[0] >= 0.39


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "2"}, 2, 2),
        ({"retry-after": "1.5"}, 1.5, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25, 0.25),
        ({"retry-after": format_datetime(datetime.now(UTC) + timedelta(hours=1))}, 3000, 3600),
        ({"retry-after": "-3"}, 0, 0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], low: float, high: float) -> None:
    seconds = _retry_after_s(headers)
    assert seconds is not None
    assert low <= seconds <= high


@pytest.mark.parametrize("headers", [{}, {"retry-after": "soon"}, {"retry-after": "inf"}, {"retry-after": "nan"}])
def test_no_wait_is_read_where_none_is_named(headers: dict[str, str]) -> None:
    assert _retry_after_s(headers) is None


# --- the cache --------------------------------------------------------------------------------------------------------


def test_equal_prompts_are_asked_once_and_order_is_kept(tmp_path: Path) -> None:
    done: list[int] = []
    with scripted(lambda text, before: Say(text.upper())) as server:
        client = client_of(server.url, tmp_path / "c")
        client.on_progress = done.append
        answers = client.ask([user(t) for t in ("b", "a", "b", "c", "a", "b")], max_tokens=1)
        assert texts(answers) == ["B", "A", "B", "C", "A", "B"]
        assert client.ask([], max_tokens=1) == []
    assert sorted(server.asked) == ["a", "b", "c"]
    assert sum(done) == 6


def test_only_what_decides_an_answer_makes_a_new_key(tmp_path: Path) -> None:
    same: list[dict[str, Any]] = [{}, {"concurrency": 1, "timeout_s": 9.0, "max_failed_share": 0.5, "api_key_env": "X"}]
    other: list[dict[str, Any]] = [{"temperature": 0.5}, {"seed": 1}, {"extra": {"top_k": 1}}, {"reasoning_tokens": 5}]
    with scripted(always(Say("1"))) as server:
        for settings in same:
            client_of(server.url, tmp_path / "c", **settings).ask([user("q")], max_tokens=1)
        assert len(server.bodies) == 1
        for settings in other:
            client_of(server.url, tmp_path / "c", **settings).ask([user("q")], max_tokens=1)
        client_of(server.url, tmp_path / "c").ask([user("q")], max_tokens=2)
        client_of(server.url, tmp_path / "c").ask([[{"role": "system", "content": "s"}, *user("q")]], max_tokens=1)
        model = EndpointClient(Endpoint("other", server.url), EndpointSettings(cache=tmp_path / "c"))
        model.ask([user("q")], max_tokens=1)
        assert len(server.bodies) == 1 + len(other) + 3


def test_prompts_are_not_stored_and_the_file_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.sqlite"
    with scripted(always(Say("1"))) as server:
        client_of(server.url, path).ask([user("Mrs. Example has pain")], max_tokens=1)
    assert path.stat().st_mode & 0o077 == 0
    assert all(b"Example" not in file.read_bytes() for file in path.parent.iterdir())


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(RunError, match=r"c\.sqlite cannot be used"):
        client_of("http://127.0.0.1:9/v1", path).ask([user("q")], max_tokens=1)


def test_a_full_disk_ends_the_run_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []

    def put(self: ReplyCache, key: str, reply: Reply) -> None:
        if len(kept) == 3:
            raise RunError("the disk is full")
        kept.append(key)

    monkeypatch.setattr(ReplyCache, "put", put)
    with scripted(lambda text, before: Say(text)) as server:
        client = client_of(server.url, tmp_path / "c", concurrency=4)
        with pytest.raises(RunError, match="the disk is full"):
            client.ask([user(str(i)) for i in range(30)], max_tokens=1)
    assert client.usage.n_answered == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.inference.scripted_endpoint import client_of, user

done = 0
def die(n):
    global done
    done += n
    if done == 10:
        os.kill(os.getpid(), signal.SIGKILL)

client = client_of(sys.argv[1], Path(sys.argv[2]), concurrency=4)
client.on_progress = die
client.ask([user(str(i)) for i in range(30)], max_tokens=1)
"""


def test_a_killed_run_loses_no_answer_that_it_had(tmp_path: Path) -> None:
    cache, root = tmp_path / "c.sqlite", Path(__file__).parents[2]
    with scripted(lambda text, before: Say(f"answer {text}")) as server:
        path = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", KILLED, server.url, str(cache)], env={**os.environ, "PYTHONPATH": path}, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        first = set(server.asked)
        assert len(first) < 30
        client = client_of(server.url, cache)
        answers = client.ask([user(str(i)) for i in range(30)], max_tokens=1)
    assert texts(answers) == [f"answer {i}" for i in range(30)]
    assert client.usage.n_from_cache >= 10
    assert client.usage.n_requests == 30 - client.usage.n_from_cache


def test_sixty_scorings_under_faults_a_limit_and_a_restart(tmp_path: Path) -> None:
    """None lost, none doubled, the second pass free; `benchmarks/llm_judge_faults.py` is the long form."""
    faults = itertools.cycle([Status(500), Status(429, headers={"retry-after": "0.05"}), Drop(), Hang(1.0)])
    restart = threading.Event()
    lock = threading.Lock()
    n_faults = 0

    def script(text: str, before: int) -> Action:
        nonlocal n_faults
        if len(server.answered) >= 30:
            restart.set()
        with lock:
            if (7 * int(text) + before) % 5 == 0:  # a fifth of all attempts
                n_faults += 1
                return next(faults)
        return Say(f"score {text}")

    port, prompts, answers = free_port(), [user(str(i)) for i in range(60)], []
    client = client_of(
        f"http://127.0.0.1:{port}/v1",
        tmp_path / "c",
        timeout_s=0.4,
        concurrency=6,
        requests_per_minute=6000,
        retry_wait_s=0.1,
        max_retries=4,
        max_outage_s=30,
    )
    worker = threading.Thread(target=lambda: answers.extend(client.ask(prompts, max_tokens=8)))
    with scripted(script, port) as server:
        worker.start()
        assert restart.wait(30)
    before_restart = server
    time.sleep(0.2)
    with scripted(script, port) as server:
        worker.join(60)
        second = client_of(server.url, tmp_path / "c")
        n_requests = len(server.bodies)
        assert second.ask(prompts, max_tokens=8) == answers
        assert len(server.bodies) == n_requests
    assert texts(answers) == [f"score {i}" for i in range(60)]
    assert n_faults >= 12
    # An answer on its way when the server goes down may be lost with it; it is then asked for again, but kept once.
    delivered = Counter(before_restart.answered + server.answered)
    assert set(delivered) == {str(i) for i in range(60)}
    assert sum(delivered.values()) <= 60 + 6
    assert (second.usage.n_from_cache, second.usage.n_requests) == (60, 0)
    with open_cache(tmp_path / "c") as cache:
        assert cache._db.execute("SELECT COUNT(*) FROM replies").fetchone() == (60,)


# --- counts -----------------------------------------------------------------------------------------------------------


def test_cost_and_latency_by_hand() -> None:
    usage = Usage()
    for i, latency_s in enumerate([0.4, 0.1, 0.3, 0.2]):
        n_in = None if i == 3 else 1000
        usage.count(Reply("1", "stop", n_in, 500, latency_s, f"2026-01-0{i + 1}T00:00:00Z", "m"), from_cache=i == 0)
    settings = EndpointSettings(usd_per_million_in=2.0, usd_per_million_out=8.0)
    found = usage.to_json(settings)
    # 3 x 1,000 tokens in at $2 and 4 x 500 out at $8 a million: 0.006 + 0.016; without the first, 0.004 + 0.012.
    assert found["cost_usd"] == pytest.approx(0.022)
    assert found["new_cost_usd"] == pytest.approx(0.016)
    assert (found["n_without_count"], found["n_from_cache"], found["n_answered"]) == (1, 1, 4)
    assert (found["latency_median_s"], found["latency_p95_s"]) == (0.2, 0.4)
    assert (usage.first_asked_at, usage.last_asked_at) == ("2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z")
    assert cost_usd(5, 5, EndpointSettings(usd_per_million_in=1.0)) is None
    empty = Usage().to_json(settings)
    assert (empty["cost_usd"], empty["latency_median_s"]) == (0.0, None)


def test_the_record_pretends_nothing(tmp_path: Path) -> None:
    with scripted(always(Say("1"))) as server:
        client = client_of(server.url, tmp_path / "c", seed=7)
        client.ask([user("q"), user("r")], max_tokens=1)
    record = client.record()
    assert record["answered_by"] == {"judge-2025-04-14 fp_1": 2}
    assert record["parameters"] == {"temperature": 0.0, "seed": 7, "reasoning_tokens": 0, "extra": {}}
    assert record["url"] == server.url
    assert "weights_sha256" not in record


def test_only_answer_settings_make_a_stage_stale() -> None:
    dumped = EndpointSettings(concurrency=3, seed=5).model_dump(mode="json")
    tree = {"evaluate": {"endpoint": dumped, "endpoints": {"a": dumped}, "seed": 1}, "x": [1]}
    kept = {"temperature": 0.0, "seed": 5, "reasoning_tokens": 0, "extra": {}}
    kept |= {"top_logprobs": 20, "label_scoring": "auto"}
    assert without_transport(tree) == {
        "evaluate": {"endpoint": kept, "endpoints": {"a": kept}, "seed": 1},
        "x": [1],
    }


# --- as a judge -------------------------------------------------------------------------------------------------------


def test_a_running_event_loop_is_no_obstacle(tmp_path: Path) -> None:
    async def notebook() -> list[Any]:
        return client.ask([user("a"), user("b")], max_tokens=1)

    with scripted(lambda text, before: Say(text)) as server:
        client = client_of(server.url, tmp_path / "c")
        assert texts(asyncio.run(notebook())) == ["a", "b"]


def test_the_engine_answers_cases_in_their_order(tmp_path: Path) -> None:
    contract = EquivalenceContract(max_completion_tokens=4)
    cases = [Case(str(i), {"question": f"q{i}", "reference": "r", "candidate": f"candidate {i}"}) for i in range(5)]

    def script(text: str, before: int) -> Action:
        i = next(i for i in range(5) if f"candidate {i}" in text)
        return [Say("0"), Say("1"), Say("1 because", finish="length"), Say("", finish="content_filter"), Status(400)][i]

    with scripted(script) as server:
        completions = EndpointEngine(client_of(server.url, tmp_path / "c")).generate(contract, cases)
    assert completions == [
        Completion("0", 2, stopped=True),
        Completion("1", 2, stopped=True),
        Completion("1 because", 2, stopped=False),
        Completion("", 2, stopped=True, refused=True),
        Completion("", 0, stopped=True, failure="HTTP 400"),
    ]
    assert {tuple(turn["role"] for turn in body["messages"]) for body in server.bodies} == {("system", "user")}


@pytest.mark.parametrize(
    ("form", "said", "expected"),
    [
        ("reasoning", Say("<answer>A</answer>", thought="why"), "<think>\nwhy\n</think>\n\n<answer>A</answer>"),
        ("reasoning", Say("<think>w</think><answer>A</answer>", thought="x"), "<think>w</think><answer>A</answer>"),
        ("answer_only", Say("<answer>A</answer>", thought="why"), "<answer>A</answer>"),
    ],
)
def test_thoughts_that_a_server_took_off_are_put_back_where_the_contract_wants_them(
    tmp_path: Path, form: Any, said: Say, expected: str
) -> None:
    case = Case("1", {"condition": "c", "variant": "v", "procedure": "p"})
    with scripted(always(said)) as server:
        engine = EndpointEngine(client_of(server.url, tmp_path / "c"))
        [completion] = engine.generate(AppropriatenessContract(form=form), [case])
    assert completion.text == expected


WAYS_OF_SERVING = {
    "without": Say("1"),
    "a block in the text": Say("<think>\nPerhaps 0.\n</think>\n\n1"),
    "an empty block": Say("<think>\n\n</think>\n\n1"),
    "another model's block": Say("[THINK]Perhaps 0.[/THINK]1"),
    "the block opened in the prompt": Say("Perhaps 0.\n</think>\n1"),
    "a field apart": Say("1", thought="Perhaps 0."),
}


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("way", WAYS_OF_SERVING)
def test_a_server_may_send_thoughts_as_it_likes(tmp_path: Path, way: str, thinking: bool) -> None:
    contract, case = (
        EquivalenceContract(thinking=thinking),
        Case("1", {"question": "q", "reference": "r", "candidate": "c"}),
    )
    with scripted(always(WAYS_OF_SERVING[way])) as server:
        client = client_of(server.url, tmp_path / "c")
        [completion] = EndpointEngine(client).generate(contract, [case])
    judgement = judgement_of(contract, case, completion)
    assert getattr(judgement, "label", None) == "1", judgement
    usage = client.usage.to_json(client.settings)
    counted = (usage["n_thoughts_inline"], usage["n_thoughts_apart"], usage["n_without_thoughts"])
    assert counted == {"without": (0, 0, 1), "a field apart": (0, 1, 0)}.get(way, (1, 0, 0))
    said = thoughts_statement({"gpt": usage}, has_think_block=thinking)
    assert (said is None) == (way == "without" and not thinking)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (Say(None, thought="It is 1"), "format", "thoughts, but no answer"),
        (Say("", finish="length", thought="It is 1"), "truncated", "`reasoning_tokens`"),
        (Say("<think>It is 1", finish="length"), "truncated", "`reasoning_tokens`"),
        (Say("0 <think>or</think> 1"), "format", "expected"),
    ],
)
def test_a_thought_is_no_answer(tmp_path: Path, said: Say, kind: str, words: str, thinking: bool) -> None:
    contract, case = (
        EquivalenceContract(thinking=thinking),
        Case("1", {"question": "q", "reference": "r", "candidate": "c"}),
    )
    with scripted(always(said)) as server:
        [completion] = EndpointEngine(client_of(server.url, tmp_path / "c")).generate(contract, [case])
    judgement = judgement_of(contract, case, completion)
    assert isinstance(judgement, Unparsed)
    assert judgement.kind == kind
    assert words in judgement.reason


def test_a_tag_within_an_endpoints_answer_is_a_word_of_it(tmp_path: Path) -> None:
    text = "<feedback>It writes </think> in the letter.</feedback><score>3</score>"
    with scripted(always(Say(text))) as server:
        engine = EndpointEngine(client_of(server.url, tmp_path / "c"))
        [completion] = engine.generate(RubricContract(), [Case("1", {"output": "o", "criteria": "c", "rubric": "r"})])
    assert completion.text == text


def test_content_in_typed_parts_is_read() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "why"}]}, {"type": "text", "text": "1"}]
    message = SimpleNamespace(content=parts)
    reply = read_reply(
        SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="stop")]), {}, "", "", 0.0
    )
    assert isinstance(reply, Reply)
    assert (reply.text, reply.thought) == ("1", "why")
