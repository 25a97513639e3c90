"""A judge model behind an endpoint that fails one time in five: is a scoring lost, doubled, or paid for twice?

    pip install 'medjudge[endpoints,serve]'
    python benchmarks/llm_judge_faults.py [--scorings 500]

The server is real: `transformers serve` with a Llama-shaped model of some thousand random weights, made on the spot. A
proxy before it breaks a fifth of all requests (HTTP 500, 429 with Retry-After, a connection dropped before the model is
asked, one dropped after it has answered, silence beyond the client's timeout) and enforces a limit of its own; half way
through, the server is killed and started again. A model of random weights writes no JSON: the proxy puts marks derived
from the prompt's hash in the place of the text that the model generated, and each is checked against its prompt. The
last pass leaves the model's own text alone: unreadable replies are counted failures, never marks of 0.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from medjudge.errors import ModelError
from medjudge.inference.endpoint import EndpointClient
from medjudge.inference.endpoint_engine import EndpointEngine
from medjudge.inference.replies import open_cache
from medjudge.records import Case, Completion, Rollout, Verdict
from medjudge.rewards.llm import LlmReward, ReasoningScorer, reasoning_case
from medjudge.settings.base import EndpointSettings
from medjudge.settings.endpoint import Endpoint
from medjudge.tasks.marks import Marks, ReasoningContract

FAULTS = ("HTTP 500", "HTTP 429", "dropped before", "dropped after", "silence")
FAULT_RATE = 0.2
TIMEOUT_S = 45.0
REQUESTS_PER_MINUTE = 180
SERVER_LIMIT_PER_S = 8
WORDS = (
    "effusion",
    "fracture",
    "contrast",
    "radiation",
    "tumour",
    "fever",
    "acute",
    "chronic",
    "lung",
    "renal",
    "stone",
)


# --- the server -------------------------------------------------------------------------------------------------------


def make_model(folder: Path) -> None:
    """A Llama-shaped model with random weights, and a tokenizer trained on a few words."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    from medjudge.tiny_base.tiny import build_tokenizer

    tokenizer = build_tokenizer([" ".join(WORDS)] * 50, 400)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Server:
    """`transformers serve` as a process of its own."""

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        """Starts nothing yet."""
        self.folder, self.port, self.log = folder, port, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server answers."""
        command = [str(Path(sys.executable).with_name("transformers")), "serve", str(self.folder)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--host", "127.0.0.1", "--device", "cpu"],
                stdout=log,
                stderr=log,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            )
        while True:
            if self.process.poll() is not None:
                sys.exit(f"transformers serve ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.5)

    def kill(self) -> None:
        """As `kill -9` does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


# --- the proxy --------------------------------------------------------------------------------------------------------


class Proxy:
    """Passes chat completions on, breaks some, and counts what it did by the hash of the prompt."""

    def __init__(self, upstream_port: int, *, seed: int = 0) -> None:
        """Listens from now on."""
        self.upstream_port = upstream_port
        self.fault_rate, self.makes_marks = FAULT_RATE, True
        self.rng, self.lock, self.over = random.Random(seed), threading.Lock(), threading.Event()
        self.on_delivered = lambda n: None
        self.outcomes: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.arrivals: deque[float] = deque()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy.handle(self, self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self.listener = Listener(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.listener.server_port}/v1"

    @property
    def n_requests(self) -> int:
        """All that arrived, broken ones too."""
        return len(self.arrivals)

    def handle(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        """One request."""
        outcome, status, body, headers = self.answer(content)
        if status == 200 and is_closed(handler.connection):
            outcome, status = "answered too late", None
        with self.lock:
            self.outcomes[outcome] += 1
        if status is None:
            handler.close_connection = True
            return
        handler.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        if status == 200:
            with self.lock:
                self.delivered[prompt_hash(json.loads(content)["messages"])] += 1
                n = sum(self.delivered.values())
            self.on_delivered(n)

    def answer(self, content: bytes) -> tuple[str, int | None, bytes, dict[str, str]]:
        """(what happened, status or None for a dropped connection, body, headers)."""
        error = json.dumps({"error": {"message": "injected"}}).encode()
        with self.lock:
            now = time.monotonic()
            self.arrivals.append(now)
            n_within_1_s = sum(now - t < 1 for t in list(self.arrivals)[-2 * SERVER_LIMIT_PER_S :])
            fault = self.rng.choice(FAULTS) if self.rng.random() < self.fault_rate else None
        if n_within_1_s > SERVER_LIMIT_PER_S:
            return "over the server's limit", 429, error, {"retry-after": "1"}
        if fault == "HTTP 500":
            return fault, 500, error, {}
        if fault == "HTTP 429":
            return fault, 429, error, {"retry-after-ms": "300"}
        if fault == "dropped before":
            return fault, None, b"", {}
        if fault == "silence":
            self.over.wait(TIMEOUT_S + 2)
            return fault, None, b"", {}
        try:
            status, body = self.ask_upstream(content)
        except (OSError, http.client.HTTPException):
            return "server down", None, b"", {}
        if status != 200:
            return f"the server said HTTP {status}", status, body, {}
        messages = json.loads(content)["messages"]
        with self.lock:
            self.completed[prompt_hash(messages)] += 1
        if fault == "dropped after":
            return fault, None, b"", {}
        return "answered", 200, with_marks(body, messages) if self.makes_marks else body, {}

    def ask_upstream(self, content: bytes) -> tuple[int, bytes]:
        """(status, body) from the server itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream_port, timeout=60)
        try:
            connection.request("POST", "/v1/chat/completions", content, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the client waits no longer."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


def prompt_hash(messages: list[Any]) -> str:
    """What a prompt is counted by."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def marks_of(messages: list[Any]) -> Marks:
    """Marks that follow from the prompt alone."""
    digest = bytes.fromhex(prompt_hash(messages))
    return Marks(digest[0] % 11, digest[1] % 11, digest[2] % 11)


def with_marks(body: bytes, messages: list[Any]) -> bytes:
    """The server's completion with marks in the place of its text."""
    tree, marks = json.loads(body), marks_of(messages)
    names = ("medical_concepts", "logic_alignment", "supporting_evidence")
    tree["choices"][0]["message"]["content"] = json.dumps({name: getattr(marks, name) for name in names})
    tree["choices"][0]["finish_reason"] = "stop"
    return json.dumps(tree).encode()


# --- the scorings -----------------------------------------------------------------------------------------------------


def make_rollouts(n: int) -> list[Rollout]:
    """Different reasonings of a policy, each beside an expert's."""
    rng = random.Random(1)

    def text(k: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(k))

    rollouts = []
    for i in range(n):
        case = Case(f"case-{i}", {"condition": text(3), "variant": f"{i} {text(6)}"}, gold="1", reason=text(15))
        completion = Completion("", 1, stopped=True)
        rollouts.append(Rollout(case, Verdict(case.case_id, "1", rationale=text(12)), completion))
    return rollouts


def make_reward(url: str, model: Path, cache: Path, **over: Any) -> tuple[LlmReward, EndpointClient]:
    """The reward as a run has it, and the client behind it."""
    settings = EndpointSettings(
        cache=cache,
        concurrency=8,
        timeout_s=TIMEOUT_S,
        max_retries=6,
        requests_per_minute=REQUESTS_PER_MINUTE,
        usd_per_million_in=0.15,
        usd_per_million_out=0.60,
    )
    client = EndpointClient(Endpoint(str(model), url), settings)
    scorer = ReasoningScorer(EndpointEngine(client), ReasoningContract(max_completion_tokens=16), **over)
    return LlmReward(scorer, client), client


def main() -> None:
    """Runs the passes, prints what was counted, and exits with 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorings", type=int, default=500)
    n = parser.parse_args().scorings
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_model(root / "model")
        server = Server(root / "model", free_port(), root / "serve.log")
        server.start()
        proxy = Proxy(server.port)
        try:
            ok = run(n, root, server, proxy)
        finally:
            proxy.over.set()
            server.kill()
    sys.exit(0 if ok else 1)


def run(n: int, root: Path, server: Server, proxy: Proxy) -> bool:
    """All passes. Returns whether every claim holds."""
    restarts: list[float] = []

    def restart_half_way(n_delivered: int) -> None:
        if n_delivered == n // 2:
            restarts.append(time.monotonic())
            server.kill()
            server.start()
            restarts.append(time.monotonic())

    proxy.on_delivered = restart_half_way
    rollouts, cache = make_rollouts(n), root / "cache.sqlite"
    reward, client = make_reward(proxy.url, root / "model", cache)
    started = time.monotonic()
    values = reward(rollouts)
    first_s = time.monotonic() - started
    time.sleep(0.5)  # the proxy counts an answer after it has sent it

    contract = reward.scorer.contract
    prompts = [contract.messages(reasoning_case(rollout)) for rollout in rollouts]
    expected = [marks_of([dict(turn) for turn in prompt]).share for prompt in prompts]
    with open_cache(cache) as kept:
        n_rows = kept._db.execute("SELECT COUNT(*) FROM replies").fetchone()[0]
    per_minute = most_within(proxy.arrivals, 60.0)
    print(
        f"first pass: {n} scorings in {first_s:.0f} s, of which the server was down {restarts[1] - restarts[0]:.0f} s"
    )
    print("  what the proxy did: " + ", ".join(f"{count} x {name}" for name, count in proxy.outcomes.most_common()))
    print(f"  usage: {json.dumps(client.usage.to_json(client.settings))}")
    n_lost = proxy.outcomes["dropped after"] + proxy.outcomes["answered too late"]
    n_broken = sum(proxy.outcomes[name] for name in FAULTS)
    checks = {
        f"{n_broken} of {proxy.n_requests} requests broken by the proxy ({n_broken / proxy.n_requests:.0%})": True,
        f"marked {sum(v is not None for v in values)} of {n}, failed {values.count(None)}": None not in values,
        "every value is the one that its own prompt stands for": values == expected,
        f"distinct prompts answered {len(proxy.delivered)}, rows in the cache {n_rows}": len(proxy.delivered)
        == n_rows
        == n,
        f"most answers delivered for one prompt: {max(proxy.delivered.values())}": max(proxy.delivered.values()) == 1,
        f"completions upstream {proxy.completed.total()} = {proxy.delivered.total()} delivered + {n_lost} lost on the "
        "way": proxy.completed.total() == proxy.delivered.total() + n_lost,
        f"most requests within a minute: {per_minute}, allowed {REQUESTS_PER_MINUTE}": per_minute
        <= REQUESTS_PER_MINUTE + 1,
    }

    n_before = proxy.n_requests
    again, second = make_reward(proxy.url, root / "model", cache)
    started = time.monotonic()
    same = again(rollouts) == values
    checks[
        f"second pass: {proxy.n_requests - n_before} requests, new cost "
        f"${second.usage.to_json(second.settings)['new_cost_usd']:.4f}, {time.monotonic() - started:.1f} s, same values"
    ] = same and proxy.n_requests == n_before

    proxy.fault_rate, proxy.makes_marks = 0.0, False
    own, _ = make_reward(proxy.url, root / "model", root / "own.sqlite", max_failed_share=1.0)
    n_own = 10
    unread = own(rollouts[:n_own])
    report = own.report()
    print(f"the model's own text: {json.dumps(report)}")
    checks[f"the model's own text: {report['n_failed']} of {n_own} counted as failed, none as 0"] = (
        unread == [None] * n_own and report["n_failed"] == n_own and report["n_asked_again"] == n_own
    )
    strict, _ = make_reward(proxy.url, root / "model", root / "own.sqlite")
    try:
        strict(rollouts[:n_own])
        checks["a judge that never keeps to the form stops the run"] = False
    except ModelError as error:
        print(f"and under the default limit: {error}")
        checks["a judge that never keeps to the form stops the run"] = True
    for claim, holds in checks.items():
        print(f"  {'ok  ' if holds else 'FAIL'} {claim}")
    return all(checks.values())


def most_within(times: deque[float], seconds: float) -> int:
    """The largest number of events in any window of so many seconds."""
    window: deque[float] = deque()
    most = 0
    for t in times:
        window.append(t)
        while t - window[0] > seconds:
            window.popleft()
        most = max(most, len(window))
    return most


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


if __name__ == "__main__":
    main()
