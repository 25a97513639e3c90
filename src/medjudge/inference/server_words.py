"""What is kept of a server's own words, apart from the answer itself: values of closed lists, and names of models.

A server may quote the prompt, which holds what a patient said, or the key, in any text that it sends: an error's
message, code or parameter, the name of the model, a fingerprint, a header. None of it is kept as it came.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

KNOWN_CODES = frozenset(
    {
        "api_error",
        "authentication_error",
        "bad_gateway",
        "badrequesterror",
        "billing_hard_limit_reached",
        "billing_not_active",
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "deploymentnotfound",
        "engine_overloaded",
        "exceed_context_size_error",
        "insufficient_quota",
        "internal_error",
        "internal_server_error",
        "internalservererror",
        "invalid_api_key",
        "invalid_organization",
        "invalid_prompt",
        "invalid_request_error",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "model_not_found",
        "not_found",
        "not_found_error",
        "notfounderror",
        "overloaded",
        "overloaded_error",
        "permission_denied",
        "permission_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "request_too_large",
        "requests",
        "responsibleaipolicyviolation",
        "server_error",
        "service_unavailable",
        "string_above_max_length",
        "timeout",
        "timeout_error",
        "tokens",
        "too_many_requests",
        "unavailable_error",
        "unknown_parameter",
        "unsupported_country_region_territory",
        "unsupported_model",
        "unsupported_parameter",
        "unsupported_value",
    }
)
"""Codes and types of errors of OpenAI's API, Azure's, vLLM's, llama.cpp's and Anthropic's, in small letters."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")
_WORD = re.compile(r"[^\W_]{3,}")
MOST_TOKENS = 10**9
"""A count beyond it is none."""


def known_code(*values: object) -> str | None:
    """The first of an error's code and type that stands in the list."""
    for value in values:
        if isinstance(value, str) and value.lower() in KNOWN_CODES:
            return value.lower()
    return None


def known_parameter(value: object, body: Mapping[str, Any]) -> str | None:
    """An error's parameter, if it is one that was sent: `temperature`, `extra_body`'s keys."""
    sent = {*body, *body.get("extra_body", {}), "max_tokens", "max_completion_tokens"} - {"limit", "extra_body"}
    return value if isinstance(value, str) and value in sent else None


def known_name(value: object, body: Mapping[str, Any], key: str) -> str:
    """What a server calls the model that answered, or its build; empty where it sent none.

    Kept where it has the form of a name and holds neither the key nor a word of the prompt (except words of the model
    that was asked for). Another text is represented by its hash, so that a change still shows.
    """
    if not isinstance(value, str) or not value.strip():
        return ""
    name = str(body.get("model", ""))
    prompt = " ".join(str(turn.get("content", "")) for turn in body.get("messages", ())).lower()
    # A model may be called by a word that the prompt holds too, such as `medical`.
    own = set(_WORD.findall(name.lower()))
    quoted = set(_WORD.findall(prompt)) & (set(_WORD.findall(value.lower())) - own)
    holds_key = (key != "none" and key in value) or value.lower().startswith(("sk-", "bearer"))
    if _NAME.fullmatch(value) and not quoted and not holds_key:
        return value
    return f"unnamed-{hashlib.sha256(value.encode('utf-8', errors='replace')).hexdigest()[:8]}"


def known_count(value: object) -> int | None:
    """A number of tokens; None for anything else."""
    # True is an int in Python, and would count as one token.
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if is_count else None  # type: ignore[return-value]


def wait_words(seconds: float) -> str:
    """How long a server asks to wait for."""
    return f"{seconds:.0f} s" if seconds <= 86_400 else "more than a day"
