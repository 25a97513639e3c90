"""What endpoints answered: counted, and kept on disk by content.

A killed run loses nothing, and a second pass costs nothing. Prompts are not stored, only their hash; answers are.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medjudge.errors import RunError
from medjudge.files import PRIVATE_FILE, make_folder
from medjudge.inference.token_probs import TokenProbs, probs_from_json, probs_to_json
from medjudge.settings.base import EndpointSettings
from medjudge.tasks.thoughts import split_thoughts

_KEYS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model behind an endpoint said to one prompt."""

    text: str
    finish: Literal["stop", "length", "refusal"]
    """`length`: the token limit cut it off. `refusal`: the model declined, or its provider's content filter did."""
    n_prompt_tokens: int | None
    """By the server's count, as the next; None if it sent none."""
    n_completion_tokens: int | None
    latency_s: float
    """Of the attempt that succeeded."""
    asked_at: str
    """UTC, to the second."""
    reported_model: str
    """What the server calls the model that answered; an alias often names a dated version here."""
    fingerprint: str | None = None
    """The server's `system_fingerprint`: where it changes, a seed no longer promises the same answer."""
    thought: str = ""
    """Reasoning that the server sent apart from the answer."""
    generated: tuple[TokenProbs, ...] | None = None
    """Log-probabilities at each token that the model wrote; None where the server sent none."""
    scored: TokenProbs | None = None
    """Those of the answer that the request itself held, token by token, and of the token that ends it; None where the
    server scored none. Nothing of the prompt before it is kept."""


def default_cache() -> Path:
    """The file that answers are kept in where no setting names another."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "medjudge" / "endpoints.sqlite"


class ReplyCache:
    """Key -> Reply in an SQLite file in WAL mode, which several processes may share. Use it from one thread."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        """Made by `open_cache`."""
        self._db, self._path = db, path

    def get(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies that are known, by key. Raises RunError if the file is damaged."""
        wanted = list(keys)
        replies: dict[str, Reply] = {}
        for start in range(0, len(wanted), _KEYS_PER_QUERY):
            # SQLite limits the parameters of one statement.
            some = wanted[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            with _readable(self._path):
                rows = self._db.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", some).fetchall()
                replies.update({key: _reply_from(json.loads(reply)) for key, reply in rows})
        return replies

    def put(self, key: str, reply: Reply) -> None:
        """Keeps a reply, on disk when this returns. A key that has one keeps the first."""
        with _readable(self._path):
            text = json.dumps(_reply_tree(reply), ensure_ascii=False)
            # The first reply stays: results that were made from it have to come out the same from the cache.
            self._db.execute("INSERT OR IGNORE INTO replies (key, reply) VALUES (?, ?)", (key, text))


def _reply_tree(reply: Reply) -> dict[str, Any]:
    """As JSON. Tokens are bytes, which JSON has none of."""
    tree = asdict(replace(reply, generated=None, scored=None))
    tree["generated"] = None if reply.generated is None else [probs_to_json(one) for one in reply.generated]
    return {**tree, "scored": None if reply.scored is None else probs_to_json(reply.scored)}


def _reply_from(tree: Any) -> Reply:
    """Raises TypeError or ValueError for anything but what `put` wrote."""
    tree = dict(tree)
    generated, scored = tree.pop("generated", None), tree.pop("scored", None)
    reply = Reply(
        **tree,
        generated=None if generated is None else tuple(probs_from_json(one) for one in generated),
        scored=None if scored is None else probs_from_json(scored),
    )
    texts = (reply.text, reply.asked_at, reply.reported_model, reply.thought, reply.fingerprint or "")
    counts = (reply.n_prompt_tokens or 0, reply.n_completion_tokens or 0)
    # Checked when read: SQLite would give back whatever another program wrote, and it would stand in results.
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(count, int) for count in counts):
        raise TypeError
    if reply.finish not in ("stop", "length", "refusal") or not isinstance(reply.latency_s, int | float):
        raise ValueError
    return reply


@contextlib.contextmanager
def open_cache(path: Path) -> Iterator[ReplyCache]:
    """The cache in a file, which is made where there is none. Raises RunError if it cannot be used."""
    with _readable(path):
        make_folder(path.parent)
        path.touch(mode=PRIVATE_FILE)  # an answer may quote its prompt
        # `touch` leaves the mode of a file that was there.
        if path.is_file() and path.stat().st_mode & 0o077:
            path.chmod(PRIVATE_FILE)
        # isolation_level=None commits each statement by itself: a killed run loses no reply that was paid for. 60 s:
        # several runs may share one file.
        db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
    try:
        with _readable(path):
            # Readers and one writer at a time do not block each other. WAL needs shared memory, hence no network
            # drives.
            db.execute("PRAGMA journal_mode=WAL")
            # In WAL mode NORMAL survives a killed process; only a power cut may lose the last replies, never the file.
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        yield ReplyCache(db, path)
    finally:
        db.close()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, RecursionError, RunError) as error:
        raise RunError(
            f"the cache of answers {path} cannot be used ({type(error).__name__}), expected a database of this "
            "program. Name another file (`cache` of the endpoint's settings), on a local disk; or delete it, and "
            "every answer is asked for again."
        ) from None


@dataclass
class Usage:
    """What an endpoint was asked and what that took, over all calls of a client; each prompt counts once."""

    n_answered: int = 0
    n_from_cache: int = 0
    """Of the answered, those that an earlier run had asked for."""
    n_failed: int = 0
    n_refused: int = 0
    n_truncated: int = 0
    n_thoughts_inline: int = 0
    """Answers with thoughts in their text."""
    n_thoughts_apart: int = 0
    """Answers with thoughts in a field of their own."""
    n_without_thoughts: int = 0
    n_requests: int = 0
    """Attempts in this run."""
    n_retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    n_without_count: int = 0
    """Answers for which the server sent no token counts: they stand in no cost."""
    new_prompt_tokens: int = 0
    """Tokens of the answers that this run asked for."""
    new_completion_tokens: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why calls failed after all retries."""
    models: Counter[str] = field(default_factory=Counter)
    """What the server calls the model that answered, with its fingerprint."""
    first_asked_at: str | None = None
    last_asked_at: str | None = None
    latencies_s: list[float] = field(default_factory=list)
    """One per answer, as it was first given."""

    def count(self, reply: Reply, *, from_cache: bool) -> None:
        """Adds one answered prompt."""
        self.n_answered += 1
        self.n_from_cache += from_cache
        self.n_refused += reply.finish == "refusal"
        # Label requests end after a token or two by design.
        self.n_truncated += reply.finish == "length" and reply.generated is None and reply.scored is None
        is_inline, is_apart = bool(split_thoughts(reply.text).tag), bool(reply.thought)
        self.n_thoughts_inline += is_inline
        self.n_thoughts_apart += is_apart
        self.n_without_thoughts += not (is_inline or is_apart)
        n_in, n_out = reply.n_prompt_tokens, reply.n_completion_tokens
        self.n_without_count += n_in is None or n_out is None
        self.prompt_tokens += n_in or 0
        self.completion_tokens += n_out or 0
        if not from_cache:
            self.new_prompt_tokens += n_in or 0
            self.new_completion_tokens += n_out or 0
        self.latencies_s.append(reply.latency_s)
        self.models[f"{reply.reported_model} {reply.fingerprint or ''}".strip()] += 1
        self.first_asked_at = min(self.first_asked_at or reply.asked_at, reply.asked_at)
        self.last_asked_at = max(self.last_asked_at or reply.asked_at, reply.asked_at)

    def count_failure(self, reason: str) -> None:
        """Adds one prompt whose call failed after all retries."""
        self.n_failed += 1
        self.reasons[reason] += 1

    @property
    def n_new(self) -> int:
        """Answers that this run asked for."""
        return self.n_answered - self.n_from_cache

    @property
    def n_prompts(self) -> int:
        """Distinct prompts, answered or failed."""
        return self.n_answered + self.n_failed

    def to_json(self, settings: EndpointSettings) -> dict[str, Any]:
        """Counts, cost in US dollars (None without prices) and latency in seconds (None without answers)."""
        ordered = sorted(self.latencies_s)
        return {
            "n_prompts": self.n_prompts,
            "n_answered": self.n_answered,
            "n_from_cache": self.n_from_cache,
            "n_requests": self.n_requests,
            "n_retries": self.n_retries,
            "n_failed": self.n_failed,
            "n_refused": self.n_refused,
            "n_truncated": self.n_truncated,
            "n_thoughts_inline": self.n_thoughts_inline,
            "n_thoughts_apart": self.n_thoughts_apart,
            "n_without_thoughts": self.n_without_thoughts,
            "failures": dict(self.reasons.most_common()),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "n_without_count": self.n_without_count,
            "cost_usd": cost_usd(self.prompt_tokens, self.completion_tokens, settings),
            "new_cost_usd": cost_usd(self.new_prompt_tokens, self.new_completion_tokens, settings),
            "latency_median_s": _quantile(ordered, 0.5),
            "latency_p95_s": _quantile(ordered, 0.95),
        }


def thoughts_statement(usages: Mapping[str, Mapping[str, Any]], *, has_think_block: bool) -> str | None:
    """How endpoints sent their thoughts; None where none sent any and the contract has no block for them.

    usages: name -> what `Usage.to_json` gives. Counts are of distinct prompts.
    """
    counts = []
    for name, usage in usages.items():
        ways = {
            "in the text": usage["n_thoughts_inline"],
            "in a field apart": usage["n_thoughts_apart"],
            "without": usage["n_without_thoughts"],
        }
        if ways["in the text"] or ways["in a field apart"] or (has_think_block and usage["n_answered"]):
            listed = ", ".join(f"{n:,} {way}" for way, n in ways.items() if n)
            counts.append(f"{name} {listed} (of {usage['n_answered']:,} answers)")
    if not counts:
        return None
    return (
        f"How endpoints sent their thoughts: {'; '.join(counts)}. That is a setting of the server and no part of a "
        "verdict, so answers were read in each of these ways."
    )


def cost_usd(n_prompt: int, n_completion: int, settings: EndpointSettings) -> float | None:
    """Tokens times the settings' prices; None unless both prices are set."""
    price_in, price_out = settings.usd_per_million_in, settings.usd_per_million_out
    if price_in is None or price_out is None:
        return None
    return (n_prompt * price_in + n_completion * price_out) / 1e6


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The least of the sorted values that at least `share` of them do not exceed (nearest rank); None without any."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3) if ordered else None
