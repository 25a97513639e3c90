"""Thoughts as models and servers write them, separated from the answer that follows.

A contract holds completions to its own form and strips nothing in silence. Two readers go further: lenient reading, and
the client of an endpoint, whose server alone decides whether thoughts come in the text, apart from it, or not at all.
Sources of the forms: the chat templates and model cards of the models named beside them. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThoughtSplit:
    """A completion as thought and answer, both stripped."""

    thought: str
    answer: str
    tag: str = ""
    """The tag that the thought was known by, such as `<think>`; a closing one where no tag opens it. Empty: none."""
    is_closed: bool = True
    """False where the thought does not end, so that no answer follows."""


@dataclass(frozen=True, slots=True)
class _Form:
    opening: str
    closing: str
    opens: re.Pattern[str]
    closes: re.Pattern[str]
    is_tag: bool
    """False for plain words, which are a thought only at the start of a text and where both stand."""


def _form(opening: str, closing: str, *, is_tag: bool = True) -> _Form:
    starts = rf"\s*(?:<\|start\|>assistant\s*)?{re.escape(opening)}"
    opens, closes = (re.compile(pattern, re.IGNORECASE) for pattern in (starts, re.escape(closing)))
    return _Form(opening, closing, opens, closes, is_tag)


_FORMS = (
    *(_form(f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "thoughts", "reasoning")),
    _form("<seed:think>", "</seed:think>"),  # Seed-OSS
    _form("[THINK]", "[/THINK]"),  # Magistral
    _form("◁think▷", "◁/think▷"),  # Kimi
    _form("<unused94>", "<unused95>"),  # MedGemma
    _form("<|channel>thought", "<channel|>"),  # Gemma 4
    _form("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    _form("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    _form("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    _form("analysis", "assistantfinal", is_tag=False),  # gpt-oss, its control tokens left out by the server
    _form("Here is my thought process:", "Here is my response:", is_tag=False),  # Granite 3.2
)
_OPENED_IN_PROMPTS = frozenset({"</think>", "</seed:think>"})
"""What ends a thought that some chat templates begin, such as those of DeepSeek-R1 and Qwen3-Thinking."""
_ENDS_OF_TURN = re.compile(r"(?:<\|return\|>|<\|end\|>)\s*\Z")  # after gpt-oss's final message


def split_thoughts(text: str) -> ThoughtSplit:
    """The thoughts at the start of a completion, and what follows them.

    A single closing tag without an opening one ends a thought too, since some chat templates open it in the prompt.
    Thoughts after the start are left where they are: the text before them is an answer, or cannot be interpreted.
    """
    thoughts: list[str] = []
    tag, at = "", 0
    while (opened := _opened(text, at)) is not None:
        form, start = opened
        tag = tag or form.opening
        close = form.closes.search(text, start)
        if close is None:
            thoughts.append(text[start:])
            return ThoughtSplit(_joined(thoughts), "", tag, is_closed=False)
        thoughts.append(text[start : close.start()])
        at = close.end()
    if not tag:
        for form in _FORMS:
            ends = list(form.closes.finditer(text)) if form.closing in _OPENED_IN_PROMPTS else []
            if len(ends) == 1 and text[ends[0].end() :].strip() and not form.opens.search(text):
                tag, at = form.closing, ends[0].end()
                thoughts.append(text[: ends[0].start()])
                break
    return ThoughtSplit(_joined(thoughts), _ENDS_OF_TURN.sub("", text[at:]).strip() if tag else text.strip(), tag)


def outside_thoughts(text: str) -> str:
    """What of a completion stands outside of every thought; a thought that does not end runs to the end."""
    rest = split_thoughts(text).answer
    for form in _FORMS:
        if form.is_tag and (form.opens.search(rest) or form.closes.search(rest)):
            rest = _without(form, rest)
    return rest.strip()


def _opened(text: str, at: int) -> tuple[_Form, int] | None:
    """The form of the thought that begins at `at`, and where its text begins."""
    for form in _FORMS:
        match = form.opens.match(text, at)
        if match is not None and (form.is_tag or form.closes.search(text, match.end())):
            return form, match.end()
    return None


def _without(form: _Form, text: str) -> str:
    pieces, at = [], 0
    while (start := form.opens.search(text, at)) is not None:
        pieces.append(text[at : start.start()])
        close = form.closes.search(text, start.end())
        if close is None:
            at = len(text)
            break
        at = close.end()
    pieces.append(text[at:])
    rest = " ".join(pieces)
    closes = list(form.closes.finditer(rest))
    return rest[closes[-1].end() :] if closes else rest


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
