"""Pairwise preference: which of two answers to a question is the better one, or are they equally good?

A judge may prefer what stands first. So every row is asked in both orders, as two cases of one group: SFT sees each
verdict on either side equally often, and an evaluation knows whether a verdict outlives the exchange of the answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from medjudge.records import Case, Message
from medjudge.tasks.contract import RowError
from medjudge.tasks.tagged import TaggedAnswerContract, fold_label
from medjudge.tasks.text import chat, describe_label, is_missing, optional_text, required_text

A, B, TIE = "A", "B", "tie"
SWAPPED = "~swapped"
"""What the id of a case ends with that shows the answers of another case in the other order."""
ORDER = "order"
"""The slice that says in which order a case shows its row's answers: `as given` or `swapped`."""
OTHER_SIDE = {A: B, B: A, TIE: TIE}
_SAID = {
    **dict.fromkeys(("a", "answer_a", "model_a", "response_a", "candidate_a", "left"), A),
    **dict.fromkeys(("b", "answer_b", "model_b", "response_b", "candidate_b", "right"), B),
    **dict.fromkeys(("tie", "draw", "equal", "both", "same", "tie (bothbad)", "tie (both bad)"), TIE),
}
"""How data sets write who won. Numbers are not among them: some count from 0, some from 1."""

PUBLISHED = {
    "en": """\
You compare two answers to a medical question. Judge what they say, above all whether it is right{reference}, and not \
which stands first, how long they are or how they are written.
{criteria}
The verdicts:
- A: answer A is better.
- B: answer B is better.
{tie}
Form of your reply, with nothing around it:
{thought}<answer>one of: {labels}</answer>
""",
    "fr": """\
Vous comparez deux réponses à une question médicale. Jugez ce qu'elles disent, et d'abord si c'est juste{reference}, \
et non laquelle vient en premier, leur longueur ou leur style.
{criteria}
Les verdicts :
- A : la réponse A est meilleure.
- B : la réponse B est meilleure.
{tie}
Forme de votre réponse, sans rien d'autre :
{thought}<answer>un de : {labels}</answer>
""",
}
TERSE = {
    "en": "Which answer is better? {criteria}Reply: {thought}<answer>{labels}</answer>",
    "fr": "Quelle réponse est la meilleure ? {criteria}Répondez : {thought}<answer>{labels}</answer>",
}
_WORDS = {
    "en": {
        "reference": ", held against the reference",
        "tie": "- tie: they are equally good, or equally bad.\n",
        "thought": "<think>your reasons</think>\n",
    },
    "fr": {
        "reference": ", au regard de la référence",
        "tie": "- tie : elles se valent, en bien ou en mal.\n",
        "thought": "<think>vos raisons</think>\n",
    },
}
_TITLES = {
    "en": {"question": "Question", "reference": "Reference answer", "answer_a": "Answer A", "answer_b": "Answer B"},
    "fr": {
        "question": "Question",
        "reference": "Réponse de référence",
        "answer_a": "Réponse A",
        "answer_b": "Réponse B",
    },
}
_NAMED = re.compile(r"(?i)\b((?:answer|response|candidate|assistant|model|option|réponse|candidat)s?\s+\(?)([AB])\b")


class PairwiseContract(TaggedAnswerContract):
    """Question, optional reference and two answers in, `<answer>A</answer>`, `B` or `tie` out."""

    kind: Literal["pairwise"] = "pairwise"
    ties: bool = True
    """Whether `tie` may be answered."""
    orders: Literal["both", "as_given"] = "both"
    """`both` makes two cases of each row, one with the answers exchanged. `as_given` is for rows that hold both orders
    already; consistency is then not measured."""
    criteria: str | None = Field(None, min_length=1)
    """What makes an answer the better one, where it is more than being right."""
    language: Literal["en", "fr"] = "en"
    """Language of the instructions and of the headings above the texts."""
    instructions: Literal["published", "terse"] = "published"
    """`terse` is a one-line system prompt for tiny models, where every prompt token costs."""
    system_prompt: str | None = None
    """Takes the place of `instructions`; an empty text leaves the system turn out."""

    fields: ClassVar[Mapping[str, str]] = {
        "question": "the question, with its clinical context",
        "reference": "a reference answer",
        "answer_a": "one answer",
        "answer_b": "the other answer",
        "label": "which is better: A, B or tie (also model_a, model_b)",
        "reason": "why, in the expert's words (used only with thinking on)",
    }
    optional_fields: ClassVar[frozenset[str]] = frozenset({"reference", "label", "reason"})
    gold_field: ClassVar[str] = "label"
    reason_field: ClassVar[str | None] = "reason"
    group_fields: ClassVar[tuple[str, ...]] = ("question",)
    rows_and_targets_only: ClassVar[frozenset[str]] = frozenset({"orders"})

    @property
    def labels(self) -> tuple[str, ...]:
        """`A`, `B`, and `tie` where there are ties."""
        return (A, B, TIE) if self.ties else (A, B)

    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case of a row in its own order. A number as an answer counts as its text. Raises RowError."""
        inputs = {
            "question": required_text(row, "question"),
            "reference": optional_text(row, "reference", numbers=True),
            "answer_a": required_text(row, "answer_a", numbers=True),
            "answer_b": required_text(row, "answer_b", numbers=True),
        }
        return Case(
            case_id=case_id,
            inputs={name: text for name, text in inputs.items() if text is not None},
            gold=self._read_gold(row.get("label")),
            reason=optional_text(row, "reason"),
        )

    def _read_gold(self, value: object) -> str | None:
        if is_missing(value):
            return None
        label = _SAID.get(fold_label(value)) if isinstance(value, str) else None
        if label not in self.labels:
            raise RowError(
                "label", describe_label(value), f"one of {', '.join(self.labels)}; [data.values.label] may rename it"
            )
        return label

    def presentations(self, case: Case) -> Sequence[Case]:
        """The case as given and with the answers exchanged; the first alone with `orders = "as_given"`."""
        if self.orders == "as_given":
            return (case,)
        return replace(case, slices={**case.slices, ORDER: "as given"}), swapped(case)

    def turns(self, case: Case) -> list[Message]:
        """System turn with the verdicts and the answer's form; user turn with the texts under their headings."""
        if (system := self.system_prompt) is None:
            words, labels = _WORDS[self.language], self.labels
            thought = words["thought"] if self.thinking else ""
            if self.instructions == "terse":
                criteria = f"{self.criteria} " if self.criteria else ""
                system = TERSE[self.language].format(
                    criteria=criteria, thought=thought.strip(), labels="|".join(labels)
                )
            else:
                system = PUBLISHED[self.language].format(
                    reference=words["reference"] if "reference" in case.inputs else "",
                    criteria=f"{self.criteria}\n" if self.criteria else "",
                    tie=words["tie"] if self.ties else "",
                    thought=thought,
                    labels=", ".join(labels),
                )
        colon = " : " if self.language == "fr" else ": "
        titles = _TITLES[self.language]
        texts = [f"{title}{colon}{case.inputs[name]}" for name, title in titles.items() if name in case.inputs]
        return chat(system, "\n\n".join(texts))


def swapped(case: Case) -> Case:
    """The case with its answers, its labels and every pair of slices `.._a`, `.._b` exchanged.

    In the expert's reasons "answer A" becomes "answer B", and back.
    """
    a, b = case.inputs["answer_a"], case.inputs["answer_b"]
    slices = {_other_name(name, case.slices): value for name, value in case.slices.items()}
    return replace(
        case,
        case_id=case.case_id + SWAPPED,
        inputs={**case.inputs, "answer_a": b, "answer_b": a},
        gold=None if case.gold is None else OTHER_SIDE[case.gold],
        reason=None if case.reason is None else _NAMED.sub(_other_letter, case.reason),
        slices={**slices, ORDER: "swapped"},
        ratings={rater: OTHER_SIDE[label] for rater, label in case.ratings.items()},
    )


def pair_id(case_id: str) -> str:
    """The id of the row that a case shows, the same for both orders; of a case of another task its own."""
    return case_id.removesuffix(SWAPPED)


def twin_id(case_id: str) -> str:
    """The id of the case that shows the same answers in the other order."""
    return pair_id(case_id) if case_id.endswith(SWAPPED) else case_id + SWAPPED


def _other_name(name: str, names: Mapping[str, str]) -> str:
    other = name[:-2] + {"_a": "_b", "_b": "_a"}.get(name[-2:], name[-2:])
    return other if other in names else name


def _other_letter(match: re.Match[str]) -> str:
    letter = match[2]
    turned = OTHER_SIDE[letter.upper()]
    return match[1] + (turned if letter.isupper() else turned.lower())
