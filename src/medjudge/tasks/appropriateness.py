"""Appropriateness of an imaging order: is the procedure right for this condition and variant? Three ordered classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from medjudge.records import Case, Judgement, Message, Unparsed, Verdict
from medjudge.tasks.answers import AnswerContract
from medjudge.tasks.citations import given_ids, without_unseen
from medjudge.tasks.contract import RowError
from medjudge.tasks.evidence import line_of, read_evidence
from medjudge.tasks.text import (
    THINK_OPEN,
    ambiguous,
    chat,
    cut_at_word,
    describe_label,
    is_missing,
    one_line,
    optional_text,
    read_blocks,
    required_text,
    split_thinking,
    without_tags,
)
from medjudge.tasks.thoughts import outside_thoughts, split_thoughts

LABELS = ("Usually Not Appropriate", "May Be Appropriate", "Usually Appropriate")
_BY_FOLDED = {label.casefold(): label for label in LABELS}

PUBLISHED = """\
You are a radiology decision-support assistant. You are given a clinical condition, a variant of it (the patient's \
exact situation) and an imaging procedure. Judge how appropriate the procedure is for exactly this situation.
{evidence}
The three ratings:
- Usually Appropriate: the procedure is indicated; its benefit outweighs its risk.
- May Be Appropriate: it can be a reasonable alternative, or benefit and risk are about even.
- Usually Not Appropriate: it is unlikely to help, or its risk outweighs its benefit.

{form}"""
EVIDENCE = """
Abstracts from the literature are given, each after its citation number in square brackets. Use only what bears on \
this situation, cite it by number, such as [7], and cite nothing that is not given. If none of it bears on this \
situation, say so.
"""
FORM = {
    "reasoning": """\
Reason step by step in sentences that each stand on their own, about this situation only. Then give the rating. Form \
of your reply, with nothing around it:
<think>your reasoning</think>
<answer>one of: Usually Appropriate, May Be Appropriate, Usually Not Appropriate</answer>""",
    "answer_only": """\
Give the rating and nothing else. Form of your reply, with nothing around it:
<answer>one of: Usually Appropriate, May Be Appropriate, Usually Not Appropriate</answer>""",
}
TERSE = {
    "reasoning": "Is the procedure appropriate? Reply: <think>reasons</think><answer>rating</answer>",
    "answer_only": "Is the procedure appropriate? Reply: <answer>rating</answer>",
}

_SPACED_LABELS = "|".join(r"\s+".join(label.split()) for label in LABELS)
_LABEL_IN_PROSE = re.compile(rf"(?<!\bnot\s)(?:{_SPACED_LABELS})", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_PLACEHOLDER = re.compile(r"\s*one\s+of\b", re.IGNORECASE)
"""How the instruction writes a rating that is yet to be given; some models repeat it before they answer."""


class AppropriatenessContract(AnswerContract):
    """Condition, variant, procedure and optional evidence in, `<think>..</think><answer>..</answer>` out.

    Labels and situations are those of the ACR Appropriateness Criteria; the form is that of "Reinforcement Learning for
    Clinical Reasoning: Aligning LLMs with ACR Imaging Appropriateness Criteria"; the wording is our own.
    """

    kind: Literal["appropriateness"] = "appropriateness"
    thinking: bool = False
    """Whether the chat template's own thinking mode is on. Where a recipe does not say, it follows `form`: the answer's
    own <think> block would come twice if the template closed an empty one in the prompt."""
    form: Literal["reasoning", "answer_only"] = "reasoning"
    """`answer_only` asks for `<answer>..</answer>` alone, without thinking."""
    instructions: Literal["published", "terse"] = "published"
    """`terse` is a one-line system prompt for tiny models, where every prompt token costs."""
    system_prompt: str | None = None
    """Takes the place of `instructions`; an empty text leaves the system turn out."""
    max_evidence_tokens: int | None = Field(None, ge=0)
    """Evidence is packed into so many tokens, snippet by snippet in the row's order; what was cut is counted. 0 shows
    none, None as much as fits `max_prompt_tokens`."""
    max_reason_chars: int | None = Field(None, ge=1)
    """Longest reasoning in a training answer, cut at a word boundary; None leaves it to `max_completion_tokens`."""
    missing_reason: str = Field("The expert rating is {label}.", min_length=1)
    """The reasoning where a row has none; `{label}` stands for the rating. It claims nothing that the row does not."""

    fields: ClassVar[Mapping[str, str]] = {
        "condition": "the clinical condition or topic",
        "variant": "the patient's situation",
        "procedure": "the imaging procedure",
        "evidence": "a text, snippets {title, abstract or text, id}, or citation id -> abstract",
        "appropriateness": "the expert's rating, one of the three labels",
        "reasoning": "the expert's reasons: a text or a list of statements",
    }
    optional_fields: ClassVar[frozenset[str]] = frozenset({"evidence", "appropriateness", "reasoning"})
    gold_field: ClassVar[str] = "appropriateness"
    reason_field: ClassVar[str | None] = "reasoning"
    group_fields: ClassVar[tuple[str, ...]] = ("variant",)
    ordered: ClassVar[bool] = True
    packed_field: ClassVar[str | None] = "evidence"
    rows_and_targets_only: ClassVar[frozenset[str]] = frozenset({"max_reason_chars", "missing_reason"})

    @model_validator(mode="before")
    @classmethod
    def _thinking_follows_form(cls, data: Any) -> Any:
        if isinstance(data, dict) and "thinking" not in data:
            return {**data, "thinking": data.get("form", "reasoning") == "reasoning"}
        return data

    @model_validator(mode="after")
    def _no_thinking_without_its_block(self) -> AppropriatenessContract:
        if self.thinking and self.form == "answer_only":
            raise ValueError('`thinking` is on, but form "answer_only" has no <think> block: use form = "reasoning"')
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The three ratings, lowest first."""
        return LABELS

    @property
    def has_think_block(self) -> bool:
        """Where the form is "reasoning"."""
        return self.form == "reasoning"

    @property
    def packed_tokens(self) -> int | None:
        """`max_evidence_tokens`."""
        return self.max_evidence_tokens

    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case of a row. Snippets without a text are left out. Raises RowError."""
        inputs = {name: required_text(row, name) for name in ("condition", "variant", "procedure")}
        if evidence := read_evidence(row.get("evidence"), "evidence"):
            inputs["evidence"] = evidence
        return Case(
            case_id=case_id,
            inputs=inputs,
            gold=_read_gold(row.get("appropriateness")),
            reason=_read_reason(row),
        )

    def turns(self, case: Case) -> list[Message]:
        """System turn with the ratings and the answer's form; user turn with one line per field, abstracts last."""
        given = case.inputs
        if (system := self.system_prompt) is None:
            published = PUBLISHED.replace("{form}", FORM[self.form])
            published = published.replace("{evidence}", EVIDENCE if "evidence" in given else "")
            system = published if self.instructions == "published" else TERSE[self.form]
        lines = [
            f"Clinical condition: {given['condition']}",
            f"Variant: {given['variant']}",
            f"Procedure: {given['procedure']}",
        ]
        if "evidence" in given:
            lines.append(f"Abstracts:\n{given['evidence']}")
        return chat(system, "\n".join(lines))

    def target(self, case: Case) -> str:
        """Reasoning (the row's, or `missing_reason`) and rating; the rating alone in the answer-only form.

        Citations of evidence that the prompt does not show are taken out: a judge that learns to write them has learned
        to make them up.
        """
        gold = self._gold_of(case)
        answer = f"<answer>{gold}</answer>"
        if self.form == "answer_only":
            return answer
        reason = without_unseen(case.reason or "", given_ids(case.inputs.get("evidence", "")))
        reason = without_tags(reason, ["think", "answer"]).strip()
        if self.max_reason_chars is not None and len(reason) > self.max_reason_chars:
            reason = cut_at_word(reason, self.max_reason_chars)
        return f"<think>{reason or self.missing_reason.replace('{label}', gold)}</think>\n{answer}"

    def _read_strictly(self, case_id: str, completion: str) -> Judgement:
        """The verdict of one think and one answer block in this order (or one answer block), and nothing else.

        The label must be one of the three in full; white space and case do not matter.
        """
        text = completion
        if self.form == "answer_only":
            parts = split_thinking(completion, thinking=False, switch='`task.form = "reasoning"`')
            if isinstance(parts, str):
                return Unparsed(case_id, completion, parts)
            text = parts[1]
        blocks = read_blocks(text, ("think", "answer") if self.form == "reasoning" else ("answer",))
        if isinstance(blocks, str):
            return Unparsed(case_id, completion, f"{blocks}{self._reader(text)}")
        label = _BY_FOLDED.get(one_line(blocks[-1]).casefold())
        if label is None:
            problem = f"the <answer> block holds {len(blocks[-1])} characters that are none of the three labels"
            return Unparsed(case_id, completion, problem, kind="schema")
        return Verdict(case_id, label, rationale=blocks[0] if self.form == "reasoning" else "")

    def _reader(self, text: str) -> str:
        """Which setting reads an answer that has only its thought not as the form wants it."""
        if self.form != "reasoning" or THINK_OPEN in text or "<answer>" not in text:
            return ""
        if split_thoughts(text).tag:
            return ": `task.lenient = true` reads other forms of thoughts"
        return (
            ': `task.form = "answer_only"` reads answers without a thought, `task.lenient = true` with and without one'
        )

    def _read_leniently(self, case_id: str, completion: str) -> Judgement | None:
        """The one label that answer blocks name, with what follows them, or else the text outside of thoughts."""
        text = outside_thoughts(completion)
        blocks = [block for block in _ANSWER.finditer(text) if not _PLACEHOLDER.match(block[1])]
        places = [*(block[1] for block in blocks), _ANSWER.sub(" ", text[blocks[0].start() :])] if blocks else [text]
        labels = {
            _BY_FOLDED[one_line(label).casefold()] for place in places for label in _LABEL_IN_PROSE.findall(place)
        }
        # An answer block without a label is an answer that cannot be read, whatever stands beside it.
        if any(not _LABEL_IN_PROSE.search(block[1]) for block in blocks):
            return ambiguous(case_id, completion, {*labels, None}, LABELS) if labels else None
        if len(labels) > 1:
            return ambiguous(case_id, completion, labels, LABELS)
        return Verdict(case_id, labels.pop(), rationale=completion.strip()) if labels else None

    def closed_completions(self) -> Mapping[str, str] | None:
        """The answer block of each label in the answer-only form; None where reasoning precedes it."""
        return {label: f"<answer>{label}</answer>" for label in LABELS} if self.form == "answer_only" else None


def _read_gold(value: object) -> str | None:
    if is_missing(value):
        return None
    label = _BY_FOLDED.get(one_line(value).casefold()) if isinstance(value, str) else None
    if label is None:
        raise RowError("appropriateness", describe_label(value), f"one of {', '.join(LABELS)}")
    return label


def _read_reason(row: Mapping[str, object]) -> str | None:
    """The reasons as one text; a list of statements is joined with spaces."""
    value = row.get("reasoning")
    if isinstance(value, Sequence) and not isinstance(value, str):
        statements = [line_of(statement, "reasoning") for statement in value]
        return " ".join(statement for statement in statements if statement) or None
    return optional_text(row, "reasoning")
