"""Any OpenAI-compatible chat endpoint as a judge: `openai:MODEL@URL`.

Calls run in parallel within the endpoint's limits, are retried within bounds, and each answer is kept on disk before
anyone uses it. A call that fails after all retries is a `Failure` among the answers, never an empty text and never an
exception that loses the others. Retries are ours and not the `openai` client's, because each attempt has to pass the
rate limit and to be counted. No prompt goes into an error or a log, and of a server's own words, which may quote one,
only what `server_words.py` lets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import hashlib
import json
import logging
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from medjudge.errors import ConfigError, EndpointError
from medjudge.inference.replies import Reply, ReplyCache, Usage, default_cache, open_cache
from medjudge.inference.server_replies import read_reply
from medjudge.inference.server_words import known_code, known_parameter, wait_words
from medjudge.records import Message
from medjudge.settings.base import ANSWER_SETTINGS, LABEL_SETTINGS, EndpointSettings
from medjudge.settings.endpoint import Endpoint

KEY_VERSION = 1
"""Raised when the meaning of a cache key changes, so that old answers are not taken for new ones."""
FEWEST_COUNTED = 20
"""The share of failed calls is taken over at least so many: one failure among the first three says little."""
LONGEST_BACKOFF_S = 30.0
CHARACTERS_PER_TOKEN = 4
"""For the estimate before a request; the server's own count then corrects it."""

_REFUSAL_CODES = frozenset({"content_filter", "content_policy_violation"})
_PARAMETER_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
_REFUSED_REQUEST = frozenset({400, 422, 500, 501})
"""What servers answer to a request that they do not understand."""
_CLIENT_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
"""Loggers of the client and of what it stands on: at lower levels they hold requests, answers and headers."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed after all retries."""

    reason: str
    """Status, error code or kind of the last attempt, without text of the prompt."""


class EndpointClient:
    """Asks one endpoint. Its rate limit, its counts and its share of failures hold over all calls of `ask`."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: EndpointSettings,
        *,
        on_progress: Callable[[int], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """on_progress is called with the number of prompts done; on_note what is being waited for, in a few words.

        Raises ConfigError if the `openai` package is not there, or a remote endpoint has no key.
        """
        try:
            import openai
        except ImportError:
            raise ConfigError(
                "endpoints need the `openai` package, which is not installed. Install it: pip install "
                "'medjudge[endpoints]'."
            ) from None
        for name in _CLIENT_LOGGERS:
            # These loggers write whole URLs, and at lower levels requests.
            logging.getLogger(name).setLevel(logging.ERROR)
        self.endpoint, self.settings = endpoint, settings
        self.on_progress, self.on_note = on_progress, on_note
        self.usage = Usage()
        self._openai: Any = openai
        self._api_key = _api_key(endpoint, settings)
        self._pacer = _Pacer(settings.requests_per_minute, settings.tokens_per_minute)
        self._cache_path = settings.cache or default_cache()
        self._counted: set[str] = set()
        self.labels_by: str | None = None
        """How labels are scored (`inference.endpoint_labels`), once they are."""

    def ask(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        sample: int = 0,
        temperature: float | None = None,
        fields: Mapping[str, Any] | None = None,
        reasons: bool = True,
        is_probe: bool = False,
    ) -> list[Reply | Failure]:
        """One answer per prompt, in the order of the prompts; equal prompts are asked once. Notebooks may call it too.

        sample: numbers independent answers to the same prompts; each has a seed and a place in the cache of its own.
        temperature: takes the place of the settings', unless they send none. fields: further ones of the request, such
        as `logprobs`. reasons: whether `reasoning_tokens` are added to `max_tokens`. is_probe: a server that refuses
        the request gives a `Failure` that is not counted: it was asked what it can do.
        Raises EndpointError if the endpoint cannot be reached at all, refuses key, model or parameters, or more calls
        fail after all retries than the settings allow. What was answered until then is on disk and is not asked for
        again.
        """
        keys, bodies = [], {}
        for messages in prompts:
            body = self._body(messages, max_tokens, sample, temperature)
            if not reasons:
                body["limit"] = max_tokens
            body["extra_body"] |= fields or {}
            key = self._key(body, sample)
            keys.append(key)
            bodies[key] = body
        answers = _run(self._ask_all(bodies, Counter(keys), is_probe=is_probe))
        return [answers[key] for key in keys]

    def record(self) -> dict[str, Any]:
        """What can be said of a model that lies elsewhere: names, dates, parameters. No weights are hashed."""
        sent = ANSWER_SETTINGS - (LABEL_SETTINGS if self.labels_by is None else frozenset())
        settings = self.settings.model_dump(mode="json", include=set(sent))
        return {
            "kind": "endpoint",
            "model": self.endpoint.model,
            "url": self.endpoint.url,
            "parameters": settings,
            **({} if self.labels_by is None else {"labels_by": self.labels_by}),
            "answered_by": dict(self.usage.models.most_common()),
            "first_asked_at": self.usage.first_asked_at,
            "last_asked_at": self.usage.last_asked_at,
        }

    # --- one request --------------------------------------------------------------------------------------------------

    def _body(
        self, messages: Sequence[Message], max_tokens: int, sample: int, temperature: float | None
    ) -> dict[str, Any]:
        """The request without the name of its token limit."""
        settings = self.settings
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": [dict(turn) for turn in messages]}
        if settings.temperature != "default":
            body["temperature"] = settings.temperature if temperature is None else temperature
        if settings.seed != "default":
            body["seed"] = settings.seed + sample
        return {**body, "limit": max_tokens + settings.reasoning_tokens, "extra_body": dict(settings.extra)}

    def _key(self, body: Mapping[str, Any], sample: int = 0) -> str:
        # A server that is sent no seed is sent equal bodies for different samples.
        numbered = {"sample": sample} if sample else {}
        content = json.dumps({"version": KEY_VERSION, "url": self.endpoint.url, **body, **numbered}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _limit_key(self) -> str:
        if self.settings.limit_key != "auto":
            return self.settings.limit_key
        return "max_completion_tokens" if self.endpoint.is_openai else "max_tokens"

    # --- many requests ------------------------------------------------------------------------------------------------

    async def _ask_all(
        self, bodies: Mapping[str, dict[str, Any]], times: Mapping[str, int], *, is_probe: bool
    ) -> dict[str, Reply | Failure]:
        with open_cache(self._cache_path) as cache:
            known = cache.get(bodies)
            for key, reply in known.items():
                self._count(key, reply, from_cache=True)
                self._advance(times[key])
            todo = [key for key in bodies if key not in known]
            answers: dict[str, Reply | Failure] = dict(known)
            if not todo:
                return answers
            async with self._open_api() as api:
                batch = _Batch(api, cache, n_expected=self.usage.n_prompts + len(todo), is_probe=is_probe)
                queue = iter(todo)

                async def work() -> None:
                    for key in queue:
                        answers[key] = await self._answer(key, bodies[key], batch)
                        self._advance(times[key])
                        if batch.stop.is_set():
                            return

                workers = [asyncio.create_task(work()) for _ in range(min(self.settings.concurrency, len(todo)))]
                try:
                    await asyncio.gather(*workers)
                finally:  # one that cannot write its answer down must not leave the others at work
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
            if batch.error is not None:
                raise batch.error
            return answers

    def _open_api(self) -> Any:
        timeout = self._openai.Timeout(self.settings.timeout_s, connect=min(10.0, self.settings.timeout_s))
        # A redirect would take the text of a case to an address that no setting names. A proxy of the environment is
        # for other hosts, also where `no_proxy` was forgotten.
        http_client = self._openai.DefaultAsyncHttpxClient(
            follow_redirects=False, trust_env=not self.endpoint.is_loopback
        )
        return self._openai.AsyncOpenAI(
            base_url=self.endpoint.url,
            api_key=self._api_key,
            max_retries=0,
            timeout=timeout,
            http_client=http_client,
        )

    async def _answer(self, key: str, body: dict[str, Any], batch: _Batch) -> Reply | Failure:
        """The reply to one prompt, kept on disk; or why there is none after all attempts."""
        n_attempts = n_tries = 0
        outage_s = 0.0
        while True:
            # Counted before the attempt: if another call is answered meanwhile, the server is not out of reach.
            n_answers = self.usage.n_new
            outcome = await self._attempt(body, batch)
            n_tries += 1
            if isinstance(outcome, Reply):
                batch.cache.put(key, outcome)
                self._count(key, outcome, from_cache=False)
                return outcome
            if batch.is_probe and outcome.refused:
                return Failure(outcome.reason)
            if outcome.fatal is not None:
                batch.give_up(outcome.fatal)
            if batch.stop.is_set():
                return Failure(outcome.reason)
            # Out of reach for every call, though it has answered before: a restart, which is no fault of this prompt.
            is_outage = outcome.unreachable and 0 < n_answers == self.usage.n_new
            if not is_outage or outage_s >= self.settings.max_outage_s:
                n_attempts += 1
            if not outcome.retry or n_attempts > self.settings.max_retries:
                return self._failed(outcome, n_tries, batch)
            self.usage.n_retries += 1
            self._note(f"{self.usage.n_retries:,} retries, last after: {outcome.reason}")
            # Many calls fail together; what they wait is drawn, so that they do not come back together.
            backoff_s = min(self.settings.retry_wait_s * 2 ** min(n_tries - 1, 20), LONGEST_BACKOFF_S)
            backoff_s *= random.uniform(0.5, 1.0)
            outage_s += backoff_s if is_outage else 0.0
            await batch.sleep(backoff_s)

    async def _attempt(self, body: dict[str, Any], batch: _Batch) -> Reply | _Trouble:
        limit = body["limit"]
        estimate = sum(len(turn["content"]) for turn in body["messages"]) / CHARACTERS_PER_TOKEN + limit
        await self._pacer.turn(estimate, batch)
        if batch.stop.is_set():
            return _Trouble("stopped")
        self.usage.n_requests += 1
        request = {name: value for name, value in body.items() if name != "limit"} | {self._limit_key(): limit}
        asked_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        started = time.monotonic()
        try:
            # The client's own timeout is for each read: a server that drips would hold a call for ever.
            async with asyncio.timeout(self.settings.timeout_s):
                response = await batch.api.chat.completions.create(**request)
        except self._openai.APIStatusError as error:
            return self._status_trouble(error, body, asked_at, time.monotonic() - started)
        except (self._openai.APITimeoutError, TimeoutError):
            return _Trouble(f"no answer within {self.settings.timeout_s:g} s", retry=True)
        except self._openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__ if error.__cause__ is not None else "connection error"
            return _Trouble(f"connection failed ({cause})", retry=True, unreachable=True)
        except OSError as error:
            return _Trouble(f"connection failed ({type(error).__name__})", retry=True, unreachable=True)
        except Exception as error:  # whatever a library raises over an odd body; its text may quote that body
            return _Trouble(f"the answer cannot be read ({type(error).__name__})", retry=True)
        reply = read_reply(response, body, self._api_key, asked_at, time.monotonic() - started)
        if isinstance(reply, Reply):
            self._pacer.correct(estimate, (reply.n_prompt_tokens or 0) + (reply.n_completion_tokens or 0))
            return reply
        return _Trouble(reply, retry=True)

    def _status_trouble(self, error: Any, body: Mapping[str, Any], asked_at: str, latency_s: float) -> Reply | _Trouble:
        """What an HTTP error means for this call and for the others."""
        status, code = error.status_code, known_code(error.code, error.type)
        parameter = known_parameter(error.param, body)
        reason = f"HTTP {status}" + (f" {code}" if code else "")
        # A content filter answers with an error: it is the model's refusal to judge, not a failed call.
        if code in _REFUSAL_CODES:
            return Reply("", "refusal", None, None, round(latency_s, 3), asked_at, self.endpoint.model)
        if (fatal := self._fatal(status, code, parameter)) is not None:
            words = f"{self.name} {fatal[0]} ({reason}). {fatal[1]}"
            return _Trouble(reason, fatal=words, refused=status in _REFUSED_REQUEST)
        if status not in (408, 409, 425, 429) and status < 500:
            return _Trouble(reason, refused=status in _REFUSED_REQUEST)
        asked_s = _retry_after_s(error.response.headers)
        if asked_s is not None and asked_s > self.settings.max_retry_after_s:
            return _Trouble(f"{reason}, and the server asks for a wait of {wait_words(asked_s)}")
        if asked_s is not None:
            self._pacer.pause(asked_s)
        return _Trouble(reason, retry=True, refused=status in _REFUSED_REQUEST)

    def _fatal(self, status: int, code: str | None, parameter: str | None) -> tuple[str, str] | None:
        """(what the server says, what to do) where every other call must fail in the same way."""
        variable = self.settings.api_key_env or "the variable that `api_key_env` names"
        if code == "insufficient_quota":
            return "has no quota left", f"Check the account of the key in {variable}."
        if status == 401 or code == "invalid_api_key":
            return "refuses the key", f"Check the key in {variable}."
        if 300 <= status < 400:
            return (
                "answers with a redirect, which is not followed",
                "Prompts go only to the address that is named. If you trust the place that it redirects to, name that "
                "one: mostly https for http, or another host.",
            )
        if status == 404 or code == "model_not_found":
            return "is not found", "Check the model's name and the URL, which mostly ends in /v1."
        if code in _PARAMETER_CODES:
            return (
                f"refuses the parameter {parameter or '(not named)'}",
                'Set the endpoint\'s `temperature = "default"` or `seed = "default"` to send none, or change '
                "`limit_key` or `extra`. If it is `logprobs` or `top_logprobs`, lower `top_logprobs`, or take mode "
                "generate: this model tells no probabilities of labels.",
            )
        return None

    # --- counting -----------------------------------------------------------------------------------------------------

    def _count(self, key: str, reply: Reply, *, from_cache: bool) -> None:
        if key not in self._counted:
            self._counted.add(key)
            self.usage.count(reply, from_cache=from_cache)

    def spent(self) -> dict[str, Any]:
        """What `usage` counts, as JSON, and which prompts it has counted: for a run that is cut off."""
        usage = {**vars(self.usage), "reasons": dict(self.usage.reasons), "models": dict(self.usage.models)}
        return {"usage": usage, "counted": sorted(self._counted)}

    def restore_spent(self, spent: Mapping[str, Any]) -> None:
        """Goes on counting from what an earlier process had spent; a prompt that it asked for counts once."""
        usage = spent["usage"]
        self.usage = Usage(**{**usage, "reasons": Counter(usage["reasons"]), "models": Counter(usage["models"])})
        self._counted = set(spent["counted"])

    def _failed(self, trouble: _Trouble, n_attempts: int, batch: _Batch) -> Failure:
        usage, settings = self.usage, self.settings
        reason = trouble.reason + (f", {n_attempts} attempts" if n_attempts > 1 else "")
        usage.count_failure(reason)
        if trouble.unreachable and not usage.n_answered:
            batch.give_up(f"cannot reach {self.name}: {reason}. Is the server up, and is the URL right?")
        elif usage.n_failed > settings.max_failed_share * max(batch.n_expected, FEWEST_COUNTED):
            why = "; ".join(f"{count} x {text}" for text, count in usage.reasons.most_common(3))
            batch.give_up(
                f"{usage.n_failed:,} of {batch.n_expected:,} calls to {self.name} failed for good, more than the "
                f"share of {settings.max_failed_share:g} that `max_failed_share` allows: {why}. The answers that came "
                "are kept: the same command asks only for the rest. Lower `concurrency`, set `requests_per_minute`, "
                "or raise `timeout_s` or `max_retries`."
            )
        return Failure(reason)

    @property
    def name(self) -> str:
        """Model and host, for people."""
        return f"{self.endpoint.model!r} at {self.endpoint.host}"

    def _advance(self, n: int) -> None:
        if self.on_progress is not None:
            self.on_progress(n)

    def _note(self, text: str) -> None:
        if self.on_note is not None:
            self.on_note(text)


# --- what one `ask` shares between its workers ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why an attempt brought no reply."""

    reason: str
    retry: bool = False
    unreachable: bool = False
    fatal: str | None = None
    """A message for the user, where every other call must fail in the same way."""
    refused: bool = False
    """The server does not take a request of this form."""


@dataclass
class _Batch:
    api: Any
    cache: ReplyCache
    n_expected: int
    """Prompts of the client's life up to the end of this call."""
    is_probe: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    turnstile: asyncio.Lock = field(default_factory=asyncio.Lock)
    error: EndpointError | None = None

    def give_up(self, message: str) -> None:
        """Lets no worker begin anything new; what is under way may end, since it is paid for."""
        self.error = self.error or EndpointError(message)
        self.stop.set()

    async def sleep(self, seconds: float) -> None:
        """Waits so long, or until there is nothing to wait for."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), seconds)


class _Pacer:
    """Spaces requests evenly under the two limits, and holds all back while the server asks for a pause."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._s_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._s_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._request_from_s = self._token_from_s = self._resume_from_s = 0.0

    async def turn(self, n_tokens: float, batch: _Batch) -> None:
        """Returns when a request of about so many tokens may leave."""
        async with batch.turnstile:
            while not batch.stop.is_set():
                now = time.monotonic()
                due_s = max(self._request_from_s, self._token_from_s, self._resume_from_s)
                if due_s <= now:
                    self._request_from_s = now + self._s_per_request
                    self._token_from_s = now + self._s_per_token * n_tokens
                    return
                await batch.sleep(due_s - now)

    def correct(self, n_estimated: float, n_tokens: int) -> None:
        """Puts the server's count in the place of an estimate."""
        if n_tokens:
            self._token_from_s += self._s_per_token * (n_tokens - n_estimated)

    def pause(self, seconds: float) -> None:
        """Holds everything back for so long."""
        self._resume_from_s = max(self._resume_from_s, time.monotonic() + seconds)


# --- what a server's headers and this machine's environment say ------------------------------------------------------


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait for: `retry-after-ms`, or `Retry-After` as seconds or as a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
            return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(KeyError, ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return None


def _api_key(endpoint: Endpoint, settings: EndpointSettings) -> str:
    name = settings.api_key_env
    key = os.environ.get(name, "").strip() if name else ""
    if not key and name and not endpoint.is_loopback:
        raise ConfigError(
            f"{endpoint.model!r} at {endpoint.host} needs a key, but the environment variable {name} is not set. Set "
            'it, name another one (`api_key_env`), or `api_key_env = ""` for a server that wants none.'
        )
    return key or "none"


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The coroutine's result; beside a running event loop, as notebooks have one, in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
