"""Rubric grading: a text is judged on written criteria, with feedback and a score on a scale of 2 to 10 points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from medjudge.records import Case, Judgement, Message, Unparsed, Verdict
from medjudge.tasks.answers import AnswerContract
from medjudge.tasks.contract import LabelFrame, RowError
from medjudge.tasks.text import (
    ambiguous,
    chat,
    checked_unicode,
    cut_at_word,
    describe,
    describe_label,
    is_missing,
    lone_score,
    optional_text,
    read_blocks,
    required_text,
    split_thinking,
    stated_scores,
    whole_number,
    with_thinking,
    without_tags,
)
from medjudge.tasks.thoughts import outside_thoughts

LONGEST_SCALE = 10
SCALES: Mapping[int, tuple[str, ...]] = {
    2: ("0", "1"),
    **{points: tuple(str(point) for point in range(1, points + 1)) for points in range(3, LONGEST_SCALE + 1)},
}

PUBLISHED = """\
You grade work that an AI system has produced. You are given the inputs of its task where there are any, the output to \
be graded, the evaluation criteria and a scoring rubric.

How to grade:
1. Read the criteria and what the rubric says of each score.
2. Read the inputs, then the output.
3. Hold the output against each score's description and find the one that fits best.
4. Mind small details: a small difference can decide between two neighbouring scores.
{steps}
Keep strictly to the criteria and the rubric."""
STEPS = {
    "feedback": """\
5. Write feedback that names what in the output speaks for the score, in terms of the rubric.
6. Then give the score.

Form of your reply, with nothing around it:
<feedback>your reasons</feedback>
<score>one of {labels}</score>
""",
    "score_only": """\
5. Give the score.

Form of your reply, with nothing around it:
<score>one of {labels}</score>
""",
}
TERSE = {
    "feedback": "Grade the output by the rubric. Reply: <feedback>..</feedback><score>{labels}</score>",
    "score_only": "Grade the output by the rubric. Reply: <score>{labels}</score>",
}

_SCORE_TAG = re.compile(r"<score>(.*?)(?:</score>|\Z)", re.IGNORECASE | re.DOTALL)
_SCORE_WORDS = "score|rating|grade"
_PLACEHOLDER = re.compile(r"\s*one\s+of\b", re.IGNORECASE)
"""How the instruction writes a score that is yet to be given; some models repeat it before they answer."""
_FEEDBACK = re.compile(r"<feedback>(.*?)</feedback>", re.IGNORECASE | re.DOTALL)


class RubricContract(AnswerContract):
    """Task input, output, criteria and rubric in, `<feedback>..</feedback><score>n</score>` out.

    Sections and answer form follow Flow-Judge (Flow AI 2024, https://github.com/flowaicom/flow-judge); the wording is
    our own. Binary scales run from 0 to 1, the others from 1, as there.
    """

    kind: Literal["rubric"] = "rubric"
    points: int = Field(5, ge=2, le=LONGEST_SCALE)
    """Points of the scale: 2 (0-1), or 3 to 10, which count from 1 (1-3, 1-5, 1-10)."""
    form: Literal["feedback", "score_only"] = "feedback"
    """`score_only` asks for `<score>n</score>` alone: one prefill decides it, but nothing is explained."""
    criteria: str | None = Field(None, min_length=1)
    """What to judge, for all rows; a row's own `criteria` goes before it."""
    rubric: Mapping[str, str] | str | None = None
    """Score -> description, or the rubric as a text, for all rows; a row's own rubric goes before it."""
    instructions: Literal["published", "terse"] = "published"
    """`terse` is a one-line system prompt for tiny models, where every prompt token costs."""
    system_prompt: str | None = None
    """Takes the place of `instructions`; an empty text leaves the system turn out."""
    max_reason_chars: int | None = Field(None, ge=1)
    """Longest feedback in a training answer, cut at a word boundary; None leaves it to `max_completion_tokens`."""
    missing_reason: str = Field("The output fits the description of score {label}.", min_length=1)
    """The feedback where a row has none; `{label}` stands for the score."""

    fields: ClassVar[Mapping[str, str]] = {
        "input": "the inputs of the judged task: a text, or name -> text",
        "reference": "a reference output",
        "output": "the text to be judged",
        "criteria": "what to judge (may stand in the recipe instead)",
        "rubric": "a text, score -> description, or descriptions lowest first (may stand in the recipe instead)",
        **{
            f"score{n}": f"the rubric's description of score {n}, where `rubric` is absent"
            for n in range(LONGEST_SCALE + 1)
        },
        "score": "the expert's score",
        "feedback": "the expert's reasons",
    }
    optional_fields: ClassVar[frozenset[str]] = frozenset(fields) - {"output"}
    gold_field: ClassVar[str] = "score"
    reason_field: ClassVar[str | None] = "feedback"
    group_fields: ClassVar[tuple[str, ...]] = ("input",)
    ordered: ClassVar[bool] = True
    rows_and_targets_only: ClassVar[frozenset[str]] = frozenset({"max_reason_chars", "missing_reason"})

    @model_validator(mode="after")
    def _rubric_covers_scale(self) -> RubricContract:
        self._settled_rubric()  # raises RowError, a ValueError, where a score is missing or off the scale
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The scale's points, lowest first. Two points lie on an ordinal scale as any two labels do."""
        return SCALES[self.points]

    @property
    def positive(self) -> str | None:
        """`1` on the two-point scale, else None."""
        return "1" if self.points == 2 else None

    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case of a row. Criteria and rubric that the recipe gives for all rows are not repeated in its inputs.

        A rubric that is not one text must describe every score of the scale and no other. Raises RowError.
        """
        rubric, criteria = self._read_rubric(row)
        criteria = optional_text(row, "criteria") or criteria
        for name, found, settled in (("criteria", criteria, self.criteria), ("rubric", rubric, self.rubric)):
            if found is None and settled is None:
                raise RowError(name, "nothing", f"a value in the row, or `task.{name}` in the recipe for all rows")
        inputs = {
            "input": _read_input(row),
            "reference": optional_text(row, "reference", numbers=True),
            "output": required_text(row, "output", numbers=True),
            "criteria": criteria,
            "rubric": rubric,
        }
        return Case(
            case_id=case_id,
            inputs={name: text for name, text in inputs.items() if text is not None},
            gold=self._read_gold(row.get("score")),
            reason=optional_text(row, "feedback"),
        )

    def _read_rubric(self, row: Mapping[str, object]) -> tuple[str | None, str | None]:
        """(rubric, criteria) of the row's `rubric`, or of its columns score0..score5; None for what it lacks."""
        value = row.get("rubric")
        if is_missing(value):
            columns = {f"score{n}": row.get(f"score{n}") for n in self.labels}
            if all(is_missing(description) for description in columns.values()):
                return None, None
            value = columns
        if isinstance(value, str):
            return optional_text(row, "rubric"), None
        if isinstance(value, Mapping):
            criteria = value.get("criteria")
            points = {key: text for key, text in value.items() if key != "criteria"}
            return self._write_rubric(points), optional_text({"criteria": criteria}, "criteria")
        if isinstance(value, Sequence):
            if all(isinstance(point, Mapping) for point in value):
                return self._write_rubric({p.get("score"): p.get("description") for p in value}), None
            if len(value) == len(self.labels):
                return self._write_rubric(dict(zip(self.labels, value, strict=True))), None
        raise RowError("rubric", describe(value), f"a text, or descriptions of the scores {', '.join(self.labels)}")

    def _write_rubric(self, points: Mapping[Any, object]) -> str:
        """One line per score, lowest first. Keys may be 1, "1", "score1", "score1_description". Raises RowError."""
        descriptions: dict[str, str] = {}
        for key, description in points.items():
            digits = re.fullmatch(r"(?:score)?[ _]?(\d{1,2})(?:_description)?", str(key).strip().lower(), re.ASCII)
            if digits is None or digits.group(1) not in self.labels:
                raise RowError(
                    "rubric", "a score off the scale", f"descriptions of the scores {', '.join(self.labels)}"
                )
            if not isinstance(description, str) or is_missing(description):
                raise RowError("rubric", f"{describe(description)} for score {digits.group(1)}", "a description")
            descriptions[digits.group(1)] = checked_unicode(description.strip(), "rubric")
        if missing := [label for label in self.labels if label not in descriptions]:
            raise RowError("rubric", f"no description of score {', '.join(missing)}", "one for every score")
        return "\n".join(f"- Score {label}: {descriptions[label]}" for label in self.labels)

    def _read_gold(self, value: object) -> str | None:
        if is_missing(value):
            return None
        number = int(value) if isinstance(value, bool) and self.points == 2 else whole_number(value)
        if str(number) not in self.labels:
            raise RowError("score", describe_label(value), f"one of {', '.join(self.labels)}")
        return str(number)

    def turns(self, case: Case) -> list[Message]:
        """System turn with the way to grade and the answer's form; user turn with the sections in Flow-Judge's tags."""
        if (system := self.system_prompt) is None:
            labels = ", ".join(self.labels) if self.instructions == "published" else "|".join(self.labels)
            lines = (
                PUBLISHED.replace("{steps}", STEPS[self.form]) if self.instructions == "published" else TERSE[self.form]
            )
            system = lines.replace("{labels}", labels)
        given = case.inputs
        sections = []
        if "input" in given or "reference" in given:
            reference = (
                f"<reference_answer>\n{given['reference']}\n</reference_answer>" if "reference" in given else None
            )
            parts = [part for part in (given.get("input"), reference) if part is not None]
            sections.append("# INPUT\n<inputs>\n" + "\n".join(parts) + "\n</inputs>")
        sections.append(f"# OUTPUT\n<output>\n{given['output']}\n</output>")
        sections.append(
            "# EVALUATION CRITERIA AND SCORING RUBRIC\n"
            f"<evaluation_criteria>\n{given.get('criteria') or self.criteria}\n</evaluation_criteria>\n\n"
            f"<scoring_rubric>\n{given.get('rubric') or self._settled_rubric()}\n</scoring_rubric>"
        )
        return chat(system, "\n\n".join(sections))

    def _settled_rubric(self) -> str | None:
        return self._write_rubric(dict(self.rubric)) if isinstance(self.rubric, Mapping) else self.rubric

    def target(self, case: Case) -> str:
        """Feedback (the row's, or `missing_reason`) and score; the score alone in the score-only form."""
        gold = self._gold_of(case)
        score = f"<score>{gold}</score>"
        if self.form == "score_only":
            return with_thinking(self.thinking, case.reason, score)
        reason = without_tags(case.reason or "", ["feedback", "score", "think"]).strip()
        if self.max_reason_chars is not None and len(reason) > self.max_reason_chars:
            reason = cut_at_word(reason, self.max_reason_chars)
        reason = reason or self.missing_reason.replace("{label}", gold)
        return with_thinking(self.thinking, reason, f"<feedback>{reason}</feedback>\n{score}")

    def _read_strictly(self, case_id: str, completion: str) -> Judgement:
        """The verdict of one feedback and one score block in this order (or one score block), and nothing else.

        The score must be a point of the scale as written ("3", not "3.0" or "3/5").
        """
        parts = split_thinking(completion, self.thinking)
        if isinstance(parts, str):
            return Unparsed(case_id, completion, parts)
        thought, answer = parts
        blocks = read_blocks(answer, ("feedback", "score") if self.form == "feedback" else ("score",))
        if isinstance(blocks, str):
            return Unparsed(case_id, completion, blocks)
        score = blocks[-1]
        # A number is shown, any other text only counted: it may be text of the case.
        if score not in self.labels:
            got = score if re.fullmatch(r"-?[0-9]{1,3}", score) else f"a text of {len(score)} characters"
            return Unparsed(case_id, completion, f"score is {got}, expected one of {self._scale()}", kind="schema")
        return Verdict(case_id, score, rationale=blocks[0] if self.form == "feedback" else thought)

    def _read_leniently(self, case_id: str, completion: str) -> Judgement | None:
        """The one score that tags outside of thoughts name, or else a phrase such as "score: 4".

        Feedback may speak of other scores; beside tags, a phrase counts where it begins a line outside of feedback.
        """
        text = outside_thoughts(completion)
        top = self.labels[-1]
        given = [body for body in _SCORE_TAG.findall(text) if not _PLACEHOLDER.match(body)]
        beside = _SCORE_TAG.sub(" ", _FEEDBACK.sub(" ", text))
        if given:
            scores = {lone_score(body, top) for body in given} | stated_scores(
                beside, rf"(?m:^)\W*(?:final\s+)?(?:{_SCORE_WORDS})", top
            )
        else:
            scores = stated_scores(beside, _SCORE_WORDS, top) or stated_scores(text, _SCORE_WORDS, top)
        if len(scores) > 1:
            return ambiguous(case_id, completion, scores, self.labels)
        if (score := next(iter(scores), None)) not in self.labels or score is None:
            return None
        feedback = _FEEDBACK.search(text)
        return Verdict(case_id, score, rationale=feedback.group(1).strip() if feedback else text)

    def _scale(self) -> str:
        return ", ".join(self.labels)

    def closed_completions(self) -> Mapping[str, str] | None:
        """The score block of each label in the score-only form; None where feedback or thinking precedes it."""
        if self.form == "feedback" or self.thinking:
            return None
        return {label: f"<score>{label}</score>" for label in self.labels}

    def label_frame(self) -> LabelFrame | None:
        """The score inside `<score>`, after an empty feedback block in the feedback form; None with thinking on.

        An empty block is not what a judge with feedback was taught to write: its score here is its first impression,
        not the one that its own feedback would have led to. Compare both modes before relying on this one.
        """
        if self.form == "score_only" or self.thinking:
            return super().label_frame()
        scores = {label: f"{label}</score>" for label in self.labels}
        return LabelFrame("<feedback></feedback>\n<score>", scores, ends=True)


def _read_input(row: Mapping[str, object]) -> str | None:
    """The task input: a text, or several named ones under a heading each."""
    value = row.get("input")
    if isinstance(value, Mapping):
        named = {str(name): optional_text(value, name, numbers=True) for name in value}
        return "\n\n".join(f"{name}:\n{text}" for name, text in named.items() if text is not None) or None
    return optional_text(row, "input", numbers=True)
