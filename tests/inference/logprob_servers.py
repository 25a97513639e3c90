"""Servers on loopback that tell log-probabilities in the dialects of vLLM, llama.cpp, OpenAI and others.

What they predict is a table that a test writes, or a real model.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol

import torch

END = b"<|im_end|>"
Dialect = Literal["vllm", "vllm-without-prompts", "llama", "llama-2024", "llama-cpp-python", "openai", "silent"]
Listed = list[tuple[bytes, float]]


class Brain(Protocol):
    """What predicts."""

    def begin(self, messages: Sequence[Mapping[str, Any]], *, continues: bool) -> tuple[Any, int]:
        """(state before the first new token, prompt tokens)."""

    def listed(self, state: Any) -> Listed:
        """All tokens with their log-probabilities, the likeliest first; `END` ends the turn."""

    def after(self, state: Any, token: bytes) -> Any: ...

    def scored(self, messages: Sequence[Mapping[str, Any]]) -> Listed:
        """The tokens of a finished conversation."""


@dataclass
class Table:
    """Answer so far -> the probabilities of the next token; for all prompts alike."""

    rows: Mapping[str, Mapping[str, float]]

    def begin(self, messages: Sequence[Mapping[str, Any]], *, continues: bool) -> tuple[Any, int]:
        begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        if continues:
            return begun.encode(), 20 + len(begun)
        return b"", 20 + (len(begun) + 6 if begun else 0)

    def listed(self, state: bytes) -> Listed:
        row = self.rows.get(state.decode(), {"END": 1.0})
        listed = [(END if token == "END" else token.encode(), math.log(p)) for token, p in row.items()]
        return sorted(listed, key=lambda one: -one[1])

    def after(self, state: bytes, token: bytes) -> bytes:
        return state + token

    def scored(self, messages: Sequence[Mapping[str, Any]]) -> Listed:
        row: Listed = [(turn["content"].encode(), -1.0) for turn in messages[:-1]] + [(b"<|assistant|>", -0.1)]
        state, rest = b"", messages[-1]["content"].encode()
        while rest:
            token, log_prob = max(
                (one for one in self.listed(state) if rest.startswith(one[0])), key=lambda one: len(one[0])
            )
            row.append((token, log_prob))
            state, rest = state + token, rest[len(token) :]
        return [*row, next(one for one in self.listed(state) if one[0] == END), (b"\n", -0.2)]


class Model:
    """A real model, its tokens scored by itself."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.vocabulary = [tokenizer.decode([i]).encode() for i in range(len(tokenizer))]

    def _ids(self, messages: Sequence[Mapping[str, Any]], **options: bool) -> list[int]:
        # Thinking is off in the contracts that are scored.
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, enable_thinking=False, **options)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def _log_probs(self, ids: Sequence[int]) -> torch.Tensor:
        scores: torch.Tensor = self.model(torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)
        return scores

    def begin(self, messages: Sequence[Mapping[str, Any]], *, continues: bool) -> tuple[Any, int]:
        ids = self._ids(
            messages, **({"continue_final_message": True} if continues else {"add_generation_prompt": True})
        )
        return ids, len(ids)

    def listed(self, state: Sequence[int]) -> Listed:
        row = self._log_probs(state)[-1, : len(self.vocabulary)]
        order = row.argsort(descending=True).tolist()
        return [(self.vocabulary[i], float(row[i])) for i in order]

    def after(self, state: Sequence[int], token: bytes) -> list[int]:
        return [*state, self.vocabulary.index(token)]

    def scored(self, messages: Sequence[Mapping[str, Any]]) -> Listed:
        ids = self._ids(messages)
        rows = self._log_probs(ids)
        return [(self.vocabulary[i], 0.0 if k == 0 else float(rows[k - 1, i])) for k, i in enumerate(ids)]


@dataclass
class Served:
    """Where it is, and what it was asked."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Server:
    """A brain that speaks a dialect."""

    brain: Brain
    dialect: Dialect
    most: int = 20
    """The `top_logprobs` that it allows."""

    def respond(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        messages, dialect = body["messages"], self.dialect
        unknown = {"prompt_logprobs", "add_generation_prompt", "continue_final_message"} & body.keys()
        if dialect == "openai" and unknown:
            return 400, _error("unknown_parameter", unknown.pop())
        if body.get("top_logprobs", 0) > self.most:
            return 400, _error("invalid_value", "top_logprobs")
        if dialect == "vllm" and "prompt_logprobs" in body:
            row = self.brain.scored(messages)
            scored = [None if i == 0 else {str(i): _vllm_place(*one)} for i, one in enumerate(row)]
            return 200, {**_completion("x", len(row), 1, "length"), "prompt_logprobs": scored}
        begun = messages[-1]["role"] == "assistant"
        continues = begun and (
            bool(body.get("continue_final_message")) if dialect.startswith("vllm") else dialect != "openai"
        )
        state, n_prompt = self.brain.begin(messages, continues=continues)
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        places: list[Listed] = []
        text, finish = b"", "length"
        for _ in range(limit):
            listed = self.brain.listed(state)
            token = listed[0][0]
            places.append(listed)
            if token == END:
                finish = "stop"
                break
            text, state = text + token, self.brain.after(state, token)
        answer = _completion(text.decode("utf-8", errors="replace"), n_prompt, len(places), finish)
        if dialect == "silent" or not body.get("logprobs"):
            return 200, answer
        if dialect == "openai" and finish == "stop":
            places.pop()
        return 200, _with_places(answer, places, body["top_logprobs"], dialect)


def _with_places(answer: dict[str, Any], places: Sequence[Listed], k: int, dialect: Dialect) -> dict[str, Any]:
    if dialect == "llama-2024":
        rows = [
            {"content": _text(p[0][0]), "probs": [{"tok_str": _text(t), "prob": math.exp(v)} for t, v in p[:k]]}
            for p in places
        ]
        return {**answer, "completion_probabilities": rows}
    logprobs: dict[str, Any]
    if dialect == "llama-cpp-python":
        logprobs = {
            "tokens": [_text(place[0][0]) for place in places],
            "token_logprobs": [place[0][1] for place in places],
            "top_logprobs": [{_text(token): value for token, value in place[:k]} for place in places],
            "text_offset": [0] * len(places),
        }
    else:
        entries = [[_entry(i, *one, dialect) for i, one in enumerate(place[:k])] for place in places]
        logprobs = {"content": [{**entry[0], "top_logprobs": entry} for entry in entries]}
    return {**answer, "choices": [{**answer["choices"][0], "logprobs": logprobs}]}


def _entry(i: int, token: bytes, log_prob: float, dialect: Dialect) -> dict[str, Any]:
    if dialect == "llama":  # control tokens are written as nothing; each entry has the token's number
        token = b"" if token == END else token
        return {"id": i, "token": _text(token), "bytes": list(token), "logprob": log_prob}
    return {"token": _text(token), "bytes": list(token), "logprob": log_prob}


def _vllm_place(token: bytes, log_prob: float) -> dict[str, Any]:
    return {"logprob": log_prob, "rank": 1, "decoded_token": _text(token)}


def _text(token: bytes) -> str:
    return token.decode("utf-8", errors="replace")


def _completion(text: str, n_in: int, n_out: int, finish: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, "logprobs": None}
    usage = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    head = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge"}
    return {**head, "choices": [choice], "usage": usage}


def _error(code: str, parameter: str) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "invalid_request_error", "code": code, "param": parameter}}


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Served]:
    """The server for a `with` block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                seen.bodies.append(body)
                status, tree = server.respond(body)
            content = json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    seen = Served(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
