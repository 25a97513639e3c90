"""Multiple choice with four options: the judge names a letter, its confidence and a reason, as one JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeGuard

from pydantic import Field

from medjudge.records import Case, Judgement, Message, Unparsed, Verdict
from medjudge.tasks.answers import AnswerContract
from medjudge.tasks.contract import LabelFrame, RowError
from medjudge.tasks.text import (
    JsonError,
    ambiguous,
    chat,
    cut_at_word,
    describe,
    describe_label,
    is_missing,
    load_json,
    object_problem,
    objects_within,
    optional_text,
    printable,
    required_text,
    split_thinking,
    whole_number,
    with_thinking,
    without_tags,
)
from medjudge.tasks.thoughts import outside_thoughts

LETTERS = ("A", "B", "C", "D")
OPTIONS = ("opa", "opb", "opc", "opd")
KEYS = ("predicted_category", "confidence", "reason")
_SHOWN = re.compile(r"\S.{0,2}|[01][.,]\d{1,3}")
"""What a message repeats of a wrong value: a letter such as "E" or "(a)", a confidence such as "0.95"."""

PUBLISHED = (
    "You answer medical multiple-choice questions. Each question has four options, A to D, and exactly one is right. "
    "Weigh the options and reply with ONLY one JSON object in exactly this form:\n"
    '{"predicted_category": "<A|B|C|D>", "confidence": <0-1>, "reason": "<short explanation>"}\n'
    "Write nothing before or after the JSON: no markdown, no code fence, no further keys."
)
TERSE = 'Reply only with JSON: {"predicted_category": "<A|B|C|D>", "confidence": <0-1>, "reason": "<text>"}'

_LETTER_FIRST = re.compile(r'\{("predicted_category".*), ("reason": "<[a-z ]+>")\}')
"""The form in an instruction, whose last member `reason_first` puts first."""

# "Ans. is 'b' i.e., ", "Answer: d) ", "ANSWER: (A) ", "Ans. B. ": a letter counts only in brackets, quotes or before
# punctuation, so that "Ans. A tumour of .." keeps its article.
_STATED_FIRST = re.compile(
    r"""^\s*(?:the\s+)?(?:correct\s+)?ans(?:wer)?\b[\s.:\-]*(?:is\b)?[\s:]*(?:option\b)?\s*
    (?: [`'"‘“(\[]\s*[a-d]\s*\.?\s*[`'"’”)\]] | [a-d](?=\s*(?:[.:,)\](\-]|i\.?\s?e\b)) )
    [\s.:,)\]\-]*(?:i\.?\s?e\b[\s.:,]*)?""",
    re.IGNORECASE | re.VERBOSE,
)
_STATED_LAST = re.compile(
    r"\n\s*(?:the\s+)?(?:correct\s+)?answer\s*(?:is)?\s*:?\s*\(?[a-d]\)?\s*\.?\s*$", re.IGNORECASE
)
# A small letter counts only in brackets: "the answer is a matter of .." names none. "A or B" names both.
_LETTER = r"([A-D]|(?<=\()[a-d](?=\)))(?![\w'’])((?:\W{0,3}(?:or\b|and\b|/|&)\W{0,3}[A-Da-d](?![\w'’]))*)"
_ANSWER_WORDS = r"answer|category|(?:correct|right|best|final)\W{1,3}(?:option|choice)"
_STATED_LETTER, _NAMED_LETTER = (
    re.compile(rf"(?<![A-Za-z])(?i:{words})\b\W{{0,5}}(?i:is\b)?\W{{0,5}}(?i:option\b)?\W{{0,5}}{_LETTER}")
    for words in (_ANSWER_WORDS, f"{_ANSWER_WORDS}|option|choice")
)
_MORE_LETTERS = re.compile(r"(?<!\w)[A-Da-d](?!\w)")
_LONE_LETTER = re.compile(r"\W*([A-Da-d])\W*")
# Also in an object that is no JSON, such as one with quotes inside a text, and in one that is quoted itself.
_MEMBER = re.compile(r"""predicted_category[\s"'\\]{0,6}[:=]\s{0,4}\\?["']?([^"'\\,}\n]{0,40})""", re.IGNORECASE)
_BRACES = re.compile(r"\{[^{}]*(?:\}|\Z)")


class McqContract(AnswerContract):
    """Question and options in, `{"predicted_category", "confidence", "reason"}` out: the MedMCQA row and answer form.

    Source of the form: a public MedMCQA pipeline on Qwen3-0.6B; rows as in Pal et al. 2022 (arXiv:2203.14371).
    """

    kind: Literal["mcq"] = "mcq"
    instructions: Literal["published", "terse"] = "published"
    """`terse` is a one-line system prompt for tiny models, where every prompt token costs."""
    system_prompt: str | None = None
    """Takes the place of `instructions`; an empty text leaves the system turn out."""
    first_index: Literal[0, 1] = 0
    """What `cop` counts from: 0 as in the published rows, 1 where the data say 1-4."""
    target_confidence: float = Field(0.95, ge=0, le=1)
    """The confidence that every training answer states. The published 0.95 teaches overconfidence: the model learns to
    say 0.95 whether it is right or wrong. Set the accuracy that you expect, and calibrate before relying on it."""
    max_reason_chars: int | None = Field(250, ge=1)
    """Longest reason in a training answer, cut at a word boundary (250: the published limit); None does not cut."""
    max_reason_words: int | None = Field(None, ge=1)
    """As `max_reason_chars`, in words."""
    missing_reason: str = Field("The answer is {option}.", min_length=1)
    """The reason where a row has none. `{option}` stands for the right option's text, `{letter}` for its letter."""
    reason_first: bool = False
    """Whether the reason stands before the letter in the JSON, so that the letter can follow from it. The published
    form decides first and then explains. Either order is read; labels mode needs the letter first."""
    strip_stated_answer: bool = True
    """Take "Ans. is 'b' i.e.," off the start of an explanation and "Answer: (B)" off its end: the letter stands in
    `predicted_category`, and the explanation's own letter can belong to another order of the options."""

    fields: ClassVar[Mapping[str, str]] = {
        "question": "the question",
        "opa": "option A",
        "opb": "option B",
        "opc": "option C",
        "opd": "option D",
        "cop": "index of the right option (0-3, or 1-4 with first_index = 1), or its letter",
        "exp": "the expert's explanation",
    }
    optional_fields: ClassVar[frozenset[str]] = frozenset({"cop", "exp"})
    gold_field: ClassVar[str] = "cop"
    reason_field: ClassVar[str | None] = "exp"
    group_fields: ClassVar[tuple[str, ...]] = ("question",)
    answer_is_json: ClassVar[bool] = True
    rows_and_targets_only: ClassVar[frozenset[str]] = frozenset(
        {
            *("first_index", "target_confidence", "missing_reason", "strip_stated_answer"),
            *("max_reason_chars", "max_reason_words"),
        }
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters A to D."""
        return LETTERS

    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case of a row. A number as an option counts as its text. Raises RowError."""
        return Case(
            case_id=case_id,
            inputs={
                "question": required_text(row, "question"),
                **{name: required_text(row, name, numbers=True) for name in OPTIONS},
            },
            gold=self._read_gold(row.get("cop")),
            reason=optional_text(row, "exp"),
        )

    def _read_gold(self, value: object) -> str | None:
        if is_missing(value):
            return None
        if isinstance(value, str) and value.strip().upper() in LETTERS:
            return value.strip().upper()
        index = whole_number(value)
        if index is None or not 0 <= index - self.first_index < len(LETTERS):
            low, other = self.first_index, 1 - self.first_index
            expected = f"{low}-{low + 3} or A-D (`task.first_index = {other}` reads rows that count from {other})"
            raise RowError("cop", describe_label(value), expected)
        return LETTERS[index - self.first_index]

    def turns(self, case: Case) -> list[Message]:
        """System turn with the answer's form; user turn `Question: ..\\nA) ..\\nB) ..\\nC) ..\\nD) ..`."""
        if (system := self.system_prompt) is None:
            system = PUBLISHED if self.instructions == "published" else TERSE
            if self.reason_first:
                system = _LETTER_FIRST.sub(r"{\2, \1}", system)
        options = [f"{letter}) {case.inputs[name]}" for letter, name in zip(LETTERS, OPTIONS, strict=True)]
        return chat(system, "\n".join([f"Question: {case.inputs['question']}", *options]))

    def target(self, case: Case) -> str:
        """The JSON object with the gold letter, `target_confidence` and the shortened reason. Raises ValueError."""
        gold = self._gold_of(case)
        reason = self._reason(case, gold)
        answer = {"predicted_category": gold, "confidence": self.target_confidence}
        answer = {"reason": reason, **answer} if self.reason_first else {**answer, "reason": reason}
        return with_thinking(self.thinking, reason, json.dumps(answer, ensure_ascii=False))

    def _reason(self, case: Case, gold: str) -> str:
        text = case.reason or ""
        if self.strip_stated_answer:
            text = _STATED_LAST.sub("", _STATED_FIRST.sub("", text))
        text = cut_at_word(without_tags(text, ["think"]), self.max_reason_chars, self.max_reason_words)
        if text:
            return text
        option = without_tags(case.inputs[OPTIONS[LETTERS.index(gold)]], ["think"])
        text = self.missing_reason.replace("{letter}", gold).replace("{option}", option)
        return cut_at_word(text, self.max_reason_chars, self.max_reason_words)

    def label_frame(self) -> LabelFrame | None:
        """The letter inside `{"predicted_category": "`, where every answer in our format has it.

        None with thinking on or the reason first.

        The letter stands before confidence and reason, so its probability here is that of the free answer, given that
        the answer keeps the format. Verbalised confidence and reason are not asked for.
        """
        if self.thinking or self.reason_first:
            return None
        return LabelFrame(
            '{"predicted_category": "', {letter: f'{letter}", "confidence": ' for letter in LETTERS}, ends=False
        )

    def _read_strictly(self, case_id: str, completion: str) -> Judgement:
        """The verdict of a completion that is exactly one JSON object with the three keys and no other.

        `Unparsed.kind` is "format" where the completion is not JSON (NaN is not JSON), "schema" where its content is
        off: another type than an object, a missing, repeated or further key, a category other than A-D, a confidence
        that is no number in [0, 1] (true is no number), a reason that is no text or empty.
        """
        parts = split_thinking(completion, self.thinking)
        if isinstance(parts, str):
            return Unparsed(case_id, completion, parts)
        try:
            content = load_json(parts[1])
        except JsonError as error:
            return Unparsed(case_id, completion, error.reason, kind=error.kind)
        problem = _schema_problem(content)
        if problem is not None:
            return Unparsed(case_id, completion, problem, kind="schema")
        reason = printable(content["reason"]).strip()
        return Verdict(case_id, content["predicted_category"], float(content["confidence"]), reason)

    def _read_leniently(self, case_id: str, completion: str) -> Judgement | None:
        """The one letter that JSON objects, phrases such as "the answer is B", or a lone letter name."""
        text = outside_thoughts(completion)
        members = [value.strip(" ().").upper() for value in _MEMBER.findall(text) if not value.startswith("<")]
        prose = text
        for _ in range(4 if members else 0):  # what an object says of its letter is read; nested ones go from within
            prose = _BRACES.sub(_without_reasons, prose)
        if lone := _LONE_LETTER.fullmatch(text):
            letters = {lone.group(1).upper()}
        else:
            letters = {*members, *_letters(_STATED_LETTER if members else _NAMED_LETTER, prose)}
        if len(letters) > 1:
            return ambiguous(case_id, completion, letters, LETTERS)
        if (letter := next(iter(letters), "")) not in LETTERS:
            return None
        objects = [one for one in objects_within(text) if str(one.get("predicted_category")).strip().upper() == letter]
        stated = {float(value) for one in objects if _is_probability(value := one.get("confidence"))}
        reasons = [one["reason"] for one in objects if isinstance(one.get("reason"), str)]
        rationale = printable(reasons[0]).strip() if reasons else "" if members else printable(text)
        return Verdict(case_id, letter, stated.pop() if len(stated) == 1 else None, rationale)


def _without_reasons(group: re.Match[str]) -> str:
    """Nothing, unless braces without `predicted_category` state a letter of their own."""
    return group[0] if _STATED_LETTER.search(group[0]) and not _MEMBER.search(group[0]) else " "


def _letters(pattern: re.Pattern[str], text: str) -> set[str]:
    """The letters that a pattern names, each with its alternatives ("A or B")."""
    return {letter.upper() for first, more in pattern.findall(text) for letter in (first, *_MORE_LETTERS.findall(more))}


def _schema_problem(content: Any) -> str | None:
    if (problem := object_problem(content, KEYS)) is not None:
        return problem
    category, confidence, reason = (content[key] for key in KEYS)
    if not isinstance(category, str) or category not in LETTERS:
        return f"predicted_category is {_shape(category)}, expected one of A, B, C, D"
    if not _is_probability(confidence):
        return f"confidence is {_shape(confidence)}, expected a number in [0, 1]"
    if not isinstance(reason, str) or not reason.strip():
        return f"reason is {_shape(reason)}, expected a text that is not empty"
    return None


def _shape(value: Any) -> str:
    if type(value) in (int, float):
        return f"a number ({type(value).__name__}) off the range"
    return f"str {value!r}" if isinstance(value, str) and _SHOWN.fullmatch(value) else describe(value)


def _is_probability(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
