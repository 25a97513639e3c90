"""Log-probabilities of tokens in a server's answer, in the shapes that servers give them.

OpenAI, vLLM, Ollama and llama.cpp since December 2024 send `choices[0].logprobs.content`; older builds of llama.cpp
send `completion_probabilities`, with probabilities in place of logarithms; llama-cpp-python and others the older form
of completions (`tokens`, `token_logprobs`, `top_logprobs`). Of a prompt vLLM alone tells them (`prompt_logprobs`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TokenProbs = tuple[tuple[bytes, float], ...]
"""(token, natural logarithm of its probability). Of a token that was generated: itself first, then the likeliest ones
at its place. Bytes, since a token may hold a part of a character."""

FLOOR = -9000.0
"""OpenAI and vLLM write -9999 for "not known"."""
_MOST_BYTES = 200
_SPACES = {"Ġ": " ", "▁": " ", "Ċ": "\n"}
"""How vocabularies spell a space and a line break, and with them servers that send no bytes."""


def read_generated(response: Any) -> tuple[TokenProbs, ...] | None:
    """One entry per token that the model wrote; None where the answer holds none, or in a shape that is not known."""
    choices = getattr(response, "choices", None)
    tree = _tree(getattr(choices[0], "logprobs", None)) if isinstance(choices, list) and choices else None
    try:
        if isinstance(tree, Mapping) and isinstance(tree.get("content"), list):
            return tuple(_place(one) for one in tree["content"]) or None
        if isinstance(tree, Mapping) and isinstance(tree.get("tokens"), list):
            return _of_completions(tree) or None
        native = getattr(response, "completion_probabilities", None)
        if isinstance(native, list):
            return tuple(_place(_tree(one)) for one in native) or None
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    return None


def read_scored(response: Any, body: Mapping[str, Any]) -> TokenProbs | None:
    """Of the answer that ends the request's messages, and of the token after it, which ends the turn.

    None where the server scored no prompt, or its tokens do not spell that answer: then nothing of them is kept.
    """
    places = getattr(response, "prompt_logprobs", None)
    if not isinstance(places, list) or body["messages"][-1]["role"] != "assistant":
        return None
    answer = body["messages"][-1]
    try:
        # With `prompt_logprobs = 0` each place holds one token, the prompt's own; where it holds more, that is first.
        firsts = [next(iter(_tree(place).values())) if place else None for place in places]
        row = [
            (b"", 0.0) if one is None else (_bytes_of(one, "decoded_token"), float(one["logprob"])) for one in firsts
        ]
    except (TypeError, ValueError, KeyError, AttributeError, StopIteration):
        return None
    # A vocabulary of SentencePiece decodes a token alone without its leading space, so spaces tell nothing.
    wanted, ends = _squeezed(answer["content"].encode()), []
    joined = b""
    for token, _ in row:
        joined += _squeezed(token)
        ends.append(len(joined))
    start = joined.rfind(wanted)
    starts = [0, *ends[:-1]]
    if start < 0 or start not in starts or start + len(wanted) not in ends:
        return None
    first = max(i for i, at in enumerate(starts) if at == start and ends[i] > start)
    last = ends.index(start + len(wanted))
    while last + 1 < len(row) and not _squeezed(row[last + 1][0]) and row[last + 1][0]:
        last += 1  # spaces that end the answer
    return tuple(row[first : last + 2]) if last + 1 < len(row) else None


def probs_to_json(probs: TokenProbs) -> list[list[Any]]:
    """Each byte as one character."""
    return [[token.decode("latin-1"), log_prob] for token, log_prob in probs]


def probs_from_json(tree: Any) -> TokenProbs:
    """What `probs_to_json` wrote. Raises TypeError or ValueError for anything else."""
    probs = tuple((token.encode("latin-1"), log_prob) for token, log_prob in tree if isinstance(token, str))
    if len(probs) != len(tree) or not all(isinstance(log_prob, int | float) for _, log_prob in probs):
        raise TypeError
    return probs


def _place(tree: Any) -> TokenProbs:
    """One generated token and the likeliest ones at its place."""
    listed = next(tree[key] for key in ("top_logprobs", "top_probs", "probs", "token") if tree.get(key) is not None)
    others = [_entry(one) for one in listed] if isinstance(listed, list) else []
    if "logprob" in tree or "prob" in tree:
        chosen = _entry(tree)
    else:  # llama.cpp before December 2024: the token as `content`, its probability only in the list
        token = _bytes_of(tree, "content")
        chosen = next((one for one in others if one[0] == token), (token, -math.inf))
    return _unique(chosen, others)


def _entry(tree: Any) -> tuple[bytes, float]:
    token = _bytes_of(tree, "tok_str" if "tok_str" in tree else "token")
    if tree.get("logprob") is not None:
        return token, float(tree["logprob"])
    return token, math.log(tree["prob"]) if tree["prob"] > 0 else -math.inf


def _of_completions(tree: Mapping[str, Any]) -> tuple[TokenProbs, ...]:
    tops = tree.get("top_logprobs") or [{}] * len(tree["tokens"])
    return tuple(
        _unique(
            (_spelt(token), float(log_prob)), [(_spelt(other), float(value)) for other, value in (top or {}).items()]
        )
        for token, log_prob, top in zip(tree["tokens"], tree["token_logprobs"], tops, strict=True)
    )


def _unique(chosen: tuple[bytes, float], others: Sequence[tuple[bytes, float]]) -> TokenProbs:
    """The chosen token first and once; without entries that tell no probability."""
    rest = list(others)
    for i, (token, log_prob) in enumerate(rest):
        if token == chosen[0] and (chosen[1] <= FLOOR or abs(log_prob - chosen[1]) < 1e-6):
            chosen = rest.pop(i)
            break
    return (chosen, *((token, value) for token, value in rest if value > FLOOR))


def _bytes_of(tree: Any, name: str) -> bytes:
    raw = tree.get("bytes")
    if isinstance(raw, list) and raw:
        return bytes(raw)[:_MOST_BYTES]
    return _spelt(tree.get(name) or "")


def _spelt(token: str) -> bytes:
    plain = _SPACES.get(token[:1], token[:1]) + token[1:] if len(token) > 1 or token in _SPACES else token
    return plain.encode("utf-8", errors="replace")[:_MOST_BYTES]


def _squeezed(text: bytes) -> bytes:
    return b"".join(text.split())


def _tree(value: Any) -> Any:
    """Plain data of what the client has made a class of."""
    return value.model_dump() if hasattr(value, "model_dump") else value
