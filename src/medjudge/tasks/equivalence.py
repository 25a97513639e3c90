"""Answer equivalence: does a candidate answer say what the reference says? The judge answers 0 or 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from medjudge.records import Case, Judgement, Message, Unparsed, Verdict
from medjudge.tasks.answers import AnswerContract
from medjudge.tasks.contract import RowError
from medjudge.tasks.text import (
    ambiguous,
    chat,
    describe_label,
    is_missing,
    optional_text,
    required_text,
    split_thinking,
    stated_scores,
    whole_number,
    with_thinking,
)
from medjudge.tasks.thoughts import outside_thoughts

# The system turn of the published training file, its final line break included: "Who Judges the Judge? Evaluating
# LLM-as-a-Judge for French Medical open-ended QA", HeaLing 2026, https://aclanthology.org/2026.healing-1.12/
PUBLISHED_EN = """\
You are a medical evaluator tasked with assessing whether a candidate answer is equivalent to the ground truth.
Assign a score strictly according to the criteria below. Do not include any explanations, comments, or extra text in \
your response.

Scoring criteria:
Score 0: Not equivalent
Score 1: Equivalent

Definition of equivalence:
Two answers are considered equivalent if the essential expected information is covered. Minor differences in wording, \
or additional or missing details, are acceptable as long as the candidate answer would be considered an acceptable \
response to the question.

Return only the score (0 or 1).
"""
PUBLISHED_FR = """\
Vous êtes un évaluateur médical. Vous jugez si une réponse candidate équivaut à la réponse de référence.
Attribuez un score en suivant strictement les critères ci-dessous. N'ajoutez ni explication, ni commentaire, ni aucun \
autre texte.

Critères de notation :
Score 0 : réponse non équivalente
Score 1 : réponse équivalente

Définition de l'équivalence :
Deux réponses sont équivalentes si l'essentiel de l'information attendue s'y trouve. De légères différences de \
formulation, des précisions en plus ou en moins sont acceptables, pourvu que la réponse candidate puisse être admise \
comme réponse à la question.

Répondez uniquement par le score (0 ou 1).
"""
TERSE = {
    "en": "Is the candidate answer equivalent to the ground truth? Reply 1 (yes) or 0 (no).",
    "fr": "La réponse candidate équivaut-elle à la référence ? Répondez 1 (oui) ou 0 (non).",
}
USER = {
    "en": "Question : {question}, Ground truth answer : {reference}, candidate answer : {candidate}",  # as published
    "fr": "Question : {question}\nRéponse de référence : {reference}\nRéponse candidate : {candidate}",
}

_SCORE_WORDS = "score|label|answer|verdict|rating|grade"
_LONE_DIGIT = re.compile(r"(?<![\w.,/-])[01](?![\w%/]|[.,]\d|-\d)")


class EquivalenceContract(AnswerContract):
    """Question, reference and candidate in, `0` or `1` out: the published form of the French medical QA judge.

    Source: "Who Judges the Judge? Evaluating LLM-as-a-Judge for French Medical open-ended QA", HeaLing 2026.
    """

    kind: Literal["equivalence"] = "equivalence"
    language: Literal["en", "fr"] = "en"
    """Language of the instructions and of the field names around the texts; `en` is the published prompt to the letter
    (English instructions around French texts)."""
    instructions: Literal["published", "terse"] = "published"
    """`terse` is a one-line system prompt for tiny models, where every prompt token costs."""
    system_prompt: str | None = None
    """Takes the place of `instructions`; an empty text leaves the system turn out."""

    fields: ClassVar[Mapping[str, str]] = {
        "question": "the question, with its clinical context",
        "reference": "the expert's answer",
        "candidate": "the answer to be judged",
        "label": "1 = equivalent, 0 = not",
        "reason": "why, in the expert's words (used only with thinking on)",
    }
    optional_fields: ClassVar[frozenset[str]] = frozenset({"label", "reason"})
    gold_field: ClassVar[str] = "label"
    reason_field: ClassVar[str | None] = "reason"
    group_fields: ClassVar[tuple[str, ...]] = ("question",)

    @property
    def labels(self) -> tuple[str, ...]:
        """`0` not equivalent, `1` equivalent."""
        return ("0", "1")

    @property
    def positive(self) -> str:
        """`1`, equivalent."""
        return "1"

    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case of a row. A number as an answer counts as its text. Raises RowError."""
        return Case(
            case_id=case_id,
            inputs={
                "question": required_text(row, "question"),
                "reference": required_text(row, "reference", numbers=True),
                "candidate": required_text(row, "candidate", numbers=True),
            },
            gold=_read_gold(row.get("label")),
            reason=optional_text(row, "reason"),
        )

    def turns(self, case: Case) -> list[Message]:
        """System turn with the definition of equivalence; user turn with the three texts."""
        if (system := self.system_prompt) is None:
            published = {"en": PUBLISHED_EN, "fr": PUBLISHED_FR}
            system = (published if self.instructions == "published" else TERSE)[self.language]
        return chat(system, USER[self.language].format_map(case.inputs))

    def target(self, case: Case) -> str:
        """The digit; with thinking on, after a block that holds the row's reason (empty if it has none)."""
        gold = self._gold_of(case)
        return with_thinking(self.thinking, case.reason, gold)

    def _read_strictly(self, case_id: str, completion: str) -> Judgement:
        """The verdict of a completion that is `0` or `1` and nothing else but white space."""
        parts = split_thinking(completion, self.thinking)
        if isinstance(parts, str):
            return Unparsed(case_id, completion, parts)
        thought, answer = parts
        if answer in self.labels:
            return Verdict(case_id, answer, rationale=thought)
        if re.fullmatch(r"-?[0-9]{1,3}", answer):
            return Unparsed(case_id, completion, f"label {answer} is off the scale 0, 1", kind="schema")
        return Unparsed(case_id, completion, f"expected 0 or 1 alone, found {len(answer)} characters")

    def _read_leniently(self, case_id: str, completion: str) -> Judgement | None:
        """The one digit 0 or 1 that stands alone outside of thoughts, or is stated as the score."""
        text = outside_thoughts(completion)
        labels = {*_LONE_DIGIT.findall(text), *stated_scores(text, _SCORE_WORDS, self.labels[-1])}
        if len(labels) > 1:
            return ambiguous(case_id, completion, labels, self.labels)
        return Verdict(case_id, label, rationale=text) if (label := next(iter(labels), None)) in self.labels else None

    def closed_completions(self) -> Mapping[str, str] | None:
        """The digits themselves; None with thinking on, where text precedes them."""
        return None if self.thinking else {"0": "0", "1": "1"}


def _read_gold(value: object) -> str | None:
    if is_missing(value):
        return None
    number = int(value) if isinstance(value, bool) else whole_number(value)
    if number not in (0, 1):
        raise RowError("label", describe_label(value), "0 or 1")
    return str(number)
