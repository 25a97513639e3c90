"""Pure text helpers that the task contracts share: reading fields, shortening, and reading tagged blocks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, Literal

from medjudge.records import Judgement, Message, Unparsed, Verdict
from medjudge.tasks.contract import RowError
from medjudge.tasks.thoughts import split_thoughts

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

# A word; a run of more than 40 characters without a space (a long URL, Chinese text) counts as several.
_WORD = re.compile(r"\S{1,40}")
# A number, what it is out of, and what makes a range of it. "4.5" and "40 %" are no points of a scale.
_NUMBER = r"([-−]?\d{1,20})(?:\.0+)?(?:\s*(?:/|out\s+of)\s*(\d+))?(?![\d%]|\s%|[.,]\d)(\s*(?:[-–/]|to|or|and)\s*\d)?"


# --- reading a row ----------------------------------------------------------------------------------------------------


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None, an empty or blank string, or the NaN that table readers put in its place."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


LARGEST_SHOWN = 1000
"""Numbers from here on may be a date, or tell who a patient is: a message does not repeat them."""


def describe(value: object) -> str:
    """Type and size of a cell, never its text: "str of 12 characters", "list of 3", "int 7", "nothing"."""
    if isinstance(value, str):
        return f"str of {len(value)} characters" if value.strip() else "empty text"
    if is_missing(value):
        return "nothing"
    if isinstance(value, int | float):
        return f"{type(value).__name__} {value if abs(value) < LARGEST_SHOWN else 'out of any range'}"
    if isinstance(value, Mapping | Sequence):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def describe_label(value: object) -> str:
    """As `describe`, but a short string is shown: a label is not text of the case."""
    return f"str {value!r}" if isinstance(value, str) and 0 < len(value.strip()) <= 24 else describe(value)


def required_text(row: Mapping[str, object], name: str, *, numbers: bool = False) -> str:
    """The text of a field without outer white space. `numbers`: a number counts as its text (table readers make them).

    Raises RowError where the field is missing, empty, not text, or not valid Unicode.
    """
    text = optional_text(row, name, numbers=numbers)
    if text is None:
        raise RowError(name, "no such field" if name not in row else describe(row[name]), "text")
    return text


def optional_text(row: Mapping[str, object], name: str, *, numbers: bool = False) -> str | None:
    """As `required_text`, or None where the field is missing or empty."""
    value = row.get(name)
    if is_missing(value):
        return None
    if numbers and isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300:
        return str(value)
    if not isinstance(value, str):
        raise RowError(name, describe(value), "text")
    return checked_unicode(value.strip(), name)


def checked_unicode(text: str, name: str) -> str:
    """The text itself. Raises RowError if it holds half a surrogate pair, which no tokenizer and no file can take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(name, f"{describe(text)} with half a surrogate pair", "valid Unicode text") from None
    return text


def whole_number(value: object) -> int | None:
    """The whole number that a cell holds as int, integral float or digits; None for anything else, bools included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
        return int(value)
    return None


# --- writing prompts and targets --------------------------------------------------------------------------------------


def chat(system: str, user: str) -> list[Message]:
    """A system turn and a user turn; without a system text the user turn alone."""
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def prompt_text(messages: Sequence[Message]) -> str:
    """A prompt for a person to read: its turns under their roles, as no chat template would write them."""
    return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)


def one_line(text: str) -> str:
    """Every run of white space becomes one space."""
    return " ".join(text.split())


def cut_at_word(text: str, max_chars: int | None = None, max_words: int | None = None) -> str:
    """`text` on one line, shortened at a word boundary to at most so many characters and words; None is no limit.

    A first word longer than `max_chars` is cut inside, so that something is left.
    """
    words = text.split()
    if max_words is not None:
        words = words[:max_words]
    short = " ".join(words)
    if max_chars is None or len(short) <= max_chars:
        return short
    cut = short.rfind(" ", 0, max_chars + 1)
    return short[: cut if cut > 0 else max_chars].rstrip()


def n_words(text: str) -> int:
    """Words as `first_words` counts them."""
    return sum(1 for _ in _WORD.finditer(text))


def first_words(text: str, n: int) -> str:
    """The first `n` words with the white space between them as it stands; a run of over 40 characters is several."""
    end = 0
    for i, match in enumerate(_WORD.finditer(text)):
        if i == n:
            return text[:end]
        end = match.end()
    return text


def without_tags(text: str, names: Iterable[str]) -> str:
    """`text` without the opening and closing tags so named: an expert's words must not end a block early."""
    pattern = re.compile("|".join(rf"</?{name}>" for name in names))
    while (cleaned := pattern.sub("", text)) != text:  # again, because taking one out can join another
        text = cleaned
    return text


def with_thinking(thinking: bool, thought: str | None, answer: str) -> str:
    """The answer, after a closed thinking block (Qwen3's own form) where the thinking mode is on."""
    if not thinking:
        return answer
    return f"{THINK_OPEN}\n{without_tags(thought or '', ['think']).strip()}\n{THINK_CLOSE}\n\n{answer}"


# --- reading completions ----------------------------------------------------------------------------------------------


def split_thinking(completion: str, thinking: bool, *, switch: str = "`task.thinking = true`") -> tuple[str, str] | str:
    """(thought, answer) of a completion, both stripped, or a sentence that says why it has not the contract's form.

    A block that nobody asked for is never taken off: stripping it in evaluation alone hides a prompt that was rendered
    in another mode than the training text. The sentence names the setting that reads such an answer; `switch`: the one
    that asks for the block.
    """
    text = completion.strip()
    split = split_thoughts(text)
    if not thinking:
        if not split.tag or split.tag.startswith("</"):  # a closing tag alone may be a word of the answer
            return "", text
        if not split.answer:
            end = "no answer follows it" if split.is_closed else "it does not end"
            return f"thinking is off, but a {split.tag} block stands first, and {end}"
        reader = (
            f"{switch} or `task.lenient = true` reads" if split.tag == THINK_OPEN else "`task.lenient = true` reads"
        )
        return f"thinking is off, but a {split.tag} block stands first: {reader} an answer that follows it"
    n_open, n_close = text.count(THINK_OPEN), text.count(THINK_CLOSE)
    if (n_open, n_close) == (0, 0):
        return (
            f"thinking is on: expected one {THINK_OPEN} tag, found 0: `task.thinking = false` reads answers without a "
            "thought, `task.lenient = true` with and without one"
        )
    for tag, n in ((THINK_OPEN, n_open), (THINK_CLOSE, n_close)):
        if n != 1:
            return f"thinking is on: expected one {tag} tag, found {n}"
    if not text.startswith(THINK_OPEN):
        return "thinking is on: expected the completion to begin with its <think> block, found text before it"
    thought, _, answer = text.removeprefix(THINK_OPEN).partition(THINK_CLOSE)
    return thought.strip(), answer.strip()


def naming_the_reader(judgement: Judgement) -> Judgement:
    """A strict judgement; where a thought whose opening tag stands in the prompt made it unreadable, it says so."""
    if isinstance(judgement, Verdict) or not (tag := split_thoughts(judgement.completion).tag).startswith("</"):
        return judgement
    reason = f"{judgement.reason}; a {tag} tag ends a thought: `task.lenient = true` reads an answer that follows it"
    return replace(judgement, reason=reason)


def read_blocks(text: str, names: Sequence[str]) -> list[str] | str:
    """The stripped contents of `<name>..</name>`, one block of each in this order, nothing else but white space.

    Returns a sentence where the text has another form. It names tags and counts, never contents.
    """
    for name in names:
        for tag in (f"<{name}>", f"</{name}>"):
            if (n_found := text.count(tag)) != 1:
                return f"expected one {tag} tag, found {n_found}"
    tags = [tag for name in names for tag in (f"<{name}>", f"</{name}>")]
    places = [text.index(tag) for tag in tags]
    if places != sorted(places):
        return f"expected the tags in the order {' '.join(tags)}"
    contents, end = [], 0
    for name in names:
        start = text.index(f"<{name}>")
        if text[end:start].strip():
            return f"expected nothing but white space before <{name}>, found {len(text[end:start].strip())} characters"
        close = text.index(f"</{name}>")
        contents.append(text[start + len(name) + 2 : close].strip())
        end = close + len(name) + 3
    if rest := text[end:].strip():
        return f"expected nothing after </{names[-1]}>, found {len(rest)} characters"
    return contents


def ambiguous(case_id: str, completion: str, found: Iterable[str | None], labels: Sequence[str]) -> Unparsed:
    """For lenient reading: an answer that gives several verdicts. Names those on the scale and counts the others."""
    verdicts = set(found)
    on_scale = [label for label in labels if label in verdicts]
    others = len(verdicts) - len(on_scale)
    named = ", ".join([*on_scale, *([f"{others} off the scale or unreadable"] if others else [])])
    return Unparsed(case_id, completion, f"ambiguous: the answer gives different verdicts ({named})")


def stated_scores(text: str, words: str, top: str) -> set[str | None]:
    """The numbers that a text states as a score: "Score: 4", "rating of 4/5". None stands for one that is no point.

    words: what a score is called, as alternatives of a pattern. top: the scale's highest point; "4/10" is none of a
    scale to 5, and neither is a range ("4-5").
    """
    pattern = re.compile(rf"\b(?:{words})\b\W{{0,4}}?(?:is|of)?\W{{0,4}}?{_NUMBER}", re.IGNORECASE | re.ASCII)
    return {_point(match, top) for match in pattern.finditer(text)}


def lone_score(text: str, top: str) -> str | None:
    """The number that is all of a text, as `stated_scores` reads it."""
    match = re.fullmatch(rf"[^\w+-]{{0,20}}{_NUMBER}\W{{0,20}}", text.strip(), re.IGNORECASE | re.ASCII)
    return None if match is None else _point(match, top)


def _point(match: re.Match[str], top: str) -> str | None:
    number, outof, more = match.groups()
    return None if more or outof not in (None, top) else number


def printable(text: str) -> str:
    """`text` with half surrogate pairs (JSON's \\ud800) replaced, so that it can be written to a file."""
    return text.encode("utf-8", "replace").decode("utf-8")


class JsonError(Exception):
    """Why a text is not the JSON that it should be, without text of it."""

    def __init__(self, reason: str, kind: Literal["format", "schema"]) -> None:
        """`kind`: as `Unparsed.kind`."""
        super().__init__(reason)
        self.reason = reason
        self.kind: Literal["format", "schema"] = kind


def load_json(text: str) -> Any:
    """The value of a text that is one JSON value, NaN and the like refused. Raises JsonError.

    An object that gives one key twice is refused as well: which of the two counts would be a guess.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise JsonError(f"not one JSON object: {_complaint(error)}", "format") from None


def object_problem(content: object, keys: Sequence[str]) -> str | None:
    """Why a JSON value is not an object with these keys and no other; None if it is one. Repeats none of its text."""
    if not isinstance(content, dict):
        return f"expected a JSON object, found {type(content).__name__}"
    if missing := [key for key in keys if key not in content]:
        return f"the JSON object lacks {', '.join(missing)}"
    if len(content) > len(keys):
        return f"the JSON object has {len(content) - len(keys)} key(s) beside {', '.join(keys)}"
    return None


def objects_within(text: str) -> list[dict[str, Any]]:
    """The JSON objects that begin anywhere in `text`, also within others; at most 50 beginnings are tried.

    A key that an object gives twice with different values is None there: which of the two counts would be a guess.
    """
    decoder, objects, start = json.JSONDecoder(object_pairs_hook=_agreeing), [], -1
    for _ in range(50):
        start = text.find("{", start + 1)
        if start < 0:
            break
        try:
            objects.append(decoder.raw_decode(text, start)[0])
        except (ValueError, RecursionError):
            continue
    return objects


def _agreeing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        content[key] = value if content.get(key, value) == value else None
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise JsonError("the JSON object repeats a key", "schema")
    return dict(pairs)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _complaint(error: Exception) -> str:
    """The parser's complaint without text of the completion."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos}" if error.doc else "the completion is empty"
    return "a number that JSON does not have" if "not JSON" in str(error) else "a number too long to read"
