"""Classification with labels and fields of the user's own: the recipe says what is shown and what may be answered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from medjudge.errors import did_you_mean
from medjudge.names import shown
from medjudge.records import Case, Message
from medjudge.tasks.contract import RowError
from medjudge.tasks.evidence import read_evidence
from medjudge.tasks.tagged import TaggedAnswerContract, fold_label
from medjudge.tasks.text import (
    chat,
    describe_label,
    is_missing,
    one_line,
    optional_text,
    required_text,
)

GOLD, REASON = "label", "reason"

PUBLISHED = {
    "en": """\
You classify medical texts. {question}

{which}
{labels}

{form}, with nothing around it:
{thought}<answer>the label, exactly as written above</answer>
""",
    "fr": """\
Vous classez des textes médicaux. {question}

{which}
{labels}

{form}, sans rien d'autre :
{thought}<answer>l'étiquette, exactement comme ci-dessus</answer>
""",
}
TERSE = {
    "en": "{question} Reply: {thought}<answer>label</answer>. Labels: {labels}.",
    "fr": "{question} Répondez : {thought}<answer>étiquette</answer>. Étiquettes : {labels}.",
}
_WORDS = {
    "en": {
        "question": "Read what is given ({titles}) and decide which label fits.",
        "which": "Give exactly one of these labels:",
        "ordered": "Give exactly one of these labels, which are in order from lowest to highest:",
        "form": "Form of your reply",
        "thought": "<think>your reasons</think>\n",
        "definition": ": ",
    },
    "fr": {
        "question": "Lisez ce qui est donné ({titles}) et décidez quelle étiquette convient.",
        "which": "Donnez exactement une de ces étiquettes :",
        "ordered": "Donnez exactement une de ces étiquettes, rangées de la plus basse à la plus haute :",
        "form": "Forme de votre réponse",
        "thought": "<think>vos raisons</think>\n",
        "definition": " : ",
    },
}

_TAG = re.compile(r"</?\w+>|<\|")


class ClassificationContract(TaggedAnswerContract):
    """The fields that the recipe names in, `<answer>one of its labels</answer>` out."""

    kind: Literal["classification"] = "classification"
    label_set: tuple[str, ...] = Field(alias="labels")
    """What may be answered: two labels or more, each of one word or several, lowest first where `ordered`."""
    definitions: Mapping[str, str] = Field(default_factory=dict)
    """Label -> the sentence that says what it means, shown beside it. Labels may go without."""
    is_ordered: bool = Field(False, alias="ordered")
    """Whether the labels lie on a scale, lowest first: near misses then count as such, and `ordinal` rewards them."""
    positive_label: str | None = Field(None, alias="positive")
    """Of two labels the one that counts as positive (sensitivity, predictive values); none of more than two."""
    shown_fields: tuple[str, ...] = Field(alias="fields")
    """The fields that the model is shown, in this order, by their names in the rows or in `[data.fields]`. The first
    makes the groups where `data.group_by` names none."""
    optional: tuple[str, ...] = ()
    """Those of `fields` that a row may lack; the prompt then leaves them out."""
    titles: Mapping[str, str] = Field(default_factory=dict)
    """Field -> its heading in the prompt; otherwise the field's name with a capital."""
    question: str | None = Field(None, min_length=1)
    """What is to be decided, such as "Does the evidence support the claim?"."""
    language: Literal["en", "fr"] = "en"
    """Language of the instructions around labels, definitions and question, which are shown as they are."""
    instructions: Literal["published", "terse"] = "published"
    """`terse` is a one-line system prompt without definitions for tiny models, where every prompt token costs."""
    system_prompt: str | None = None
    """Takes the place of `instructions`; an empty text leaves the system turn out."""

    gold_field: ClassVar[str] = GOLD
    reason_field: ClassVar[str | None] = REASON
    needed: ClassVar[Mapping[str, Any]] = {
        "labels": ["supports", "refutes", "not enough information"],
        "fields": ["claim", "evidence"],
    }

    @model_validator(mode="before")
    @classmethod
    def _one_label_per_case(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("multiple"):
            raise ValueError(
                "`multiple` asks for several labels per case, which this task does not have: expected one label. Make "
                'a recipe per label with `labels = ["no", "yes"]`, each on a column of its own'
            )
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> ClassificationContract:
        if len(self.label_set) < 2:
            raise ValueError(
                f"`labels` has {len(self.label_set)}, expected two or more: name all that an answer may be"
            )
        if not self.shown_fields:
            raise ValueError("`fields` is empty, expected the columns that the model is shown: name one or more")
        for label in self.label_set:
            if not label.strip() or label != one_line(label) or _TAG.search(label):
                raise ValueError(
                    f"`labels` has {shown(label)}, expected a text of one line without outer blanks or tags: correct it"
                )
        if same := _repeated(self.label_set):
            raise ValueError(
                f"`labels` has {' and '.join(map(shown, same))}, which are one label but for capitals or the form of "
                "their characters: expected different labels. Rename one"
            )
        for field in self.shown_fields:
            if field in (GOLD, REASON) or not field.strip() or set(field) & {"{", "}"}:
                raise ValueError(
                    f"`fields` has {shown(field)}, expected the name of an input: `{GOLD}` and `{REASON}` are the "
                    "expert's label and reasons, and a name has no braces. Give it another name and map its column "
                    "under [data.fields]"
                )
        if len(set(self.shown_fields)) < len(self.shown_fields):
            raise ValueError("`fields` names a field twice, expected each once: take one out")
        for name, keys, known in (
            ("definitions", self.definitions, self.label_set),
            ("titles", self.titles, self.shown_fields),
            ("optional", self.optional, self.shown_fields),
            ("positive", [self.positive_label] if self.positive_label is not None else [], self.label_set),
        ):
            if (other := next((key for key in keys if key not in known), None)) is not None:
                raise ValueError(
                    f"`{name}` names {shown(other)}{did_you_mean(other, known)}, expected one of {', '.join(known)}: "
                    "correct it"
                )
        if self.positive_label is not None and len(self.label_set) != 2:
            raise ValueError(f"`positive` is for two labels, got {len(self.label_set)}: leave it out")
        if set(self.optional) == set(self.shown_fields):
            raise ValueError("`optional` names all fields, expected one that every row has: take one out")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """As the recipe has them."""
        return self.label_set

    @property
    def ordered(self) -> bool:
        """As the recipe says."""
        return self.is_ordered

    @property
    def positive(self) -> str | None:
        """As the recipe says; None where it does not, or of more than two labels."""
        return self.positive_label

    @property
    def fields(self) -> Mapping[str, str]:
        """The inputs that the recipe names, and the expert's label and reasons."""
        inputs = {name: f"shown under the heading {self._title(name)!r}" for name in self.shown_fields}
        reason = "why, in the expert's words (used only with thinking on)"
        return {**inputs, GOLD: f"one of {', '.join(self.labels)}", REASON: reason}

    @property
    def optional_fields(self) -> frozenset[str]:
        """Label, reasons and those of `optional`."""
        return frozenset({GOLD, REASON, *self.optional})

    @property
    def group_fields(self) -> tuple[str, ...]:
        """The first field."""
        return self.shown_fields[:1]

    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case of a row. A list of texts or snippets is written as one text, a line each. Raises RowError."""
        cells = {name: self._read_input(row, name) for name in self.shown_fields}
        return Case(
            case_id=case_id,
            inputs={name: text for name, text in cells.items() if text is not None},
            gold=self._read_gold(row.get(GOLD)),
            reason=optional_text(row, REASON),
        )

    def _read_input(self, row: Mapping[str, object], name: str) -> str | None:
        value = row.get(name)
        is_nested = isinstance(value, list | tuple | Mapping)
        text = read_evidence(value, name) if is_nested else optional_text(row, name, numbers=True)
        return text if text is not None or name in self.optional else required_text({**row, name: None}, name)

    def _read_gold(self, value: object) -> str | None:
        if is_missing(value):
            return None
        label = self.by_folded().get(fold_label(text)) if (text := _label_text(value)) is not None else None
        if label is None:
            near = did_you_mean(text or "", self.labels)
            raise RowError(
                GOLD,
                describe_label(value),
                f"one of {', '.join(self.labels)}{near}; [data.values.{GOLD}] may rename the rows' labels",
            )
        return label

    def _title(self, name: str) -> str:
        plain = name.replace("_", " ")
        return self.titles.get(name) or plain[:1].upper() + plain[1:]

    def turns(self, case: Case) -> list[Message]:
        """System turn with question, labels and the answer's form; user turn with the fields under their headings."""
        given = [name for name in self.shown_fields if name in case.inputs]
        if (system := self.system_prompt) is None:
            system = self._instructions()
        return chat(system, "\n\n".join(f"{self._title(name)}: {case.inputs[name]}" for name in given))

    def _instructions(self) -> str:
        words = _WORDS[self.language]
        titles = ", ".join(self._title(name) for name in self.shown_fields)
        question = self.question or words["question"].format(titles=titles)
        thought = words["thought"] if self.thinking else ""
        if self.instructions == "terse":
            labels = " | ".join(self.labels)
            return TERSE[self.language].format(question=question, thought=thought.strip(), labels=labels)
        lines = []
        for label in self.labels:
            definition = one_line(self.definitions.get(label, ""))
            lines.append(f"- {label}{words['definition']}{definition}" if definition else f"- {label}")
        return PUBLISHED[self.language].format(
            question=question,
            which=words["ordered" if self.ordered else "which"],
            labels="\n".join(lines),
            form=words["form"],
            thought=thought,
        )


def _repeated(labels: tuple[str, ...]) -> list[str]:
    """The labels of the first kind that occurs more than once."""
    counts = Counter(map(fold_label, labels))
    return [
        label for label in labels if counts[fold_label(label)] > 1 and fold_label(label) == counts.most_common(1)[0][0]
    ]


def _label_text(value: object) -> str | None:
    """A cell of labels as text: numbers and truth values as other formats write them; None for what nests."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None
