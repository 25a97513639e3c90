"""What a chat completion holds, in the shapes that servers give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medjudge.inference.replies import Reply
from medjudge.inference.server_words import known_count, known_name
from medjudge.inference.token_probs import read_generated, read_scored
from medjudge.tasks.text import printable


def read_reply(response: Any, body: Mapping[str, Any], key: str, asked_at: str, latency_s: float) -> Reply | str:
    """The first choice of a chat completion, or a sentence that says why there is none."""
    choices = getattr(response, "choices", None)
    choices = choices if isinstance(choices, list) and choices else [None]
    message = getattr(choices[0], "message", None)
    if message is None:
        return "the server sent no chat completion"
    refusal, (text, within) = getattr(message, "refusal", None), _parts(getattr(message, "content", None))
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or within
    ended = getattr(choices[0], "finish_reason", None)
    usage = getattr(response, "usage", None)
    return Reply(
        text=_text(refusal or text),
        finish="refusal" if refusal or ended == "content_filter" else "length" if ended == "length" else "stop",
        n_prompt_tokens=known_count(getattr(usage, "prompt_tokens", None)),
        n_completion_tokens=known_count(getattr(usage, "completion_tokens", None)),
        latency_s=round(latency_s, 3),
        asked_at=asked_at,
        reported_model=known_name(getattr(response, "model", None), body, key),
        fingerprint=known_name(getattr(response, "system_fingerprint", None), body, key) or None,
        thought=_text(thought),
        generated=read_generated(response),
        scored=read_scored(response, body),
    )


def _parts(content: object) -> tuple[object, str]:
    """(answer, thought) of a message's content, which some servers send as a list of typed parts."""
    if not isinstance(content, list):
        return content, ""
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in texts:
            inner, thought = _parts(part.get(kind))
            texts[kind].append(_text(inner) or thought)
    return "".join(texts["text"]), "".join(texts["thinking"])


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""
