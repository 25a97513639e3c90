"""A chat endpoint on loopback, from the standard library alone, whose answers and faults a function decides."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from medjudge.inference.endpoint import EndpointClient
from medjudge.settings.base import EndpointSettings
from medjudge.settings.endpoint import Endpoint


@dataclass(frozen=True)
class Say:
    """A chat completion."""

    text: str | None
    finish: str = "stop"
    n_in: int | None = 10
    n_out: int = 2
    refusal: str | None = None
    thought: str | None = None

    def body(self, model: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        if self.thought is not None:
            message["reasoning_content"] = self.thought
        usage = {"prompt_tokens": self.n_in, "completion_tokens": self.n_out, "total_tokens": 0}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": f"{model}-2025-04-14",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
            **({"usage": usage} if self.n_in is not None else {}),
        }


@dataclass(frozen=True)
class Status:
    """An HTTP error, its body as OpenAI's own servers write it; or any other body under any status."""

    code: int
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass(frozen=True)
class Drop:
    """The connection is closed without an answer."""


@dataclass(frozen=True)
class Hang:
    """No answer for so long."""

    seconds: float


Action = Say | Status | Drop | Hang
Script = Callable[[str, int], Action]
"""(text of the last turn, how often it was asked before) -> what the server does."""


@dataclass
class Scripted:
    """What the server saw."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    """Last turns that got a completion."""
    n_in_flight: int = 0
    most_in_flight: int = 0

    @property
    def asked(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextlib.contextmanager
def scripted(script: Script, port: int = 0) -> Iterator[Scripted]:
    """The server for a `with` block."""
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            text = body["messages"][-1]["content"]
            with lock:
                before = seen.asked.count(text)
                seen.bodies.append(body)
                seen.headers.append({key.lower(): value for key, value in self.headers.items()})
                seen.n_in_flight += 1
                seen.most_in_flight = max(seen.most_in_flight, seen.n_in_flight)
            try:
                self.act(script(text, before), body["model"], text)
            finally:
                with lock:
                    seen.n_in_flight -= 1

        def act(self, action: Action, model: str, text: str) -> None:
            if self.path != "/v1/chat/completions":
                action = Status(404)
            match action:
                case Say():
                    with lock:
                        seen.answered.append(text)
                    self.send(200, json.dumps(action.body(model)).encode(), {})
                case Status(code, error, headers, raw):
                    content = json.dumps({"error": {"message": f"about {text}", **error}}).encode()
                    self.send(code, raw if raw is not None else content, headers)
                case Drop():
                    self.close_connection = True
                case Hang(seconds):
                    over.wait(seconds)
                    self.close_connection = True

        def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the client went away

    server = Server(("127.0.0.1", port), Handler)
    seen = Scripted(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def client_of(url: str, cache: Any, **settings: Any) -> EndpointClient:
    """A client with short waits and a cache of its own."""
    short: dict[str, Any] = {"retry_wait_s": 0.01, "timeout_s": 5, "max_outage_s": 0, "cache": cache, "api_key_env": ""}
    return EndpointClient(Endpoint("judge", url), EndpointSettings(**{**short, **settings}))


def user(text: str) -> list[Any]:
    """A prompt of one turn."""
    return [{"role": "user", "content": text}]
