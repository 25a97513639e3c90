"""The task contract: the one place that renders a prompt, writes a target and reads a completion.

SFT, rollouts, rewards, evaluation and serving all go through it. A contract is itself the `[task]` section of a recipe:
its settings are its fields, so what a recipe says and what a completion is held to cannot drift apart.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from medjudge.records import Case, Judgement, Message
from medjudge.settings.base import Settings
from medjudge.tasks.guard import Guarded, guarded, layout_of, slots

CONTRACT_VERSION = 1
"""Raised whenever a contract's text or parser changes, so that old artifacts can be distinguished from new ones."""
LENIENT_VERSION = 2
"""The same for lenient reading, which is part of a contract only where `lenient` is set."""


class RowError(ValueError):
    """A row that a contract cannot read. `data.sources` adds file and line. Never carries text of the row."""

    def __init__(self, field: str, got: str, expected: str) -> None:
        """`field`: the contract's field name; `got`, `expected`: short descriptions such as "int 7", "0-3"."""
        super().__init__(f"field {field!r}: got {got}, expected {expected}")
        self.field, self.got, self.expected = field, got, expected


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """Where in a completion the label stands, so that labels can be scored without a completion being written."""

    forced: str
    """What stands before the label in every answer; the model is given it, and is not asked how likely it is."""
    continuations: Mapping[str, str]
    """Label -> what follows `forced`: the label and the text that closes it."""
    ends: bool
    """Whether the completion ends there, so that the stop token belongs to the label's continuation."""


class TaskContract(Settings, ABC):
    """What one task puts into a prompt and accepts as an answer. Subclasses are pure: no I/O, no chance, no torch."""

    kind: str
    thinking: bool = False
    """Whether the chat template's own thinking mode is on. A template without one ignores it."""
    lenient: bool = False
    """Also accept answers that the contract does not name, such as a letter in prose or one behind a thought. An answer
    that gives different verdicts stays unparsed. Every report then says that reading was lenient."""
    max_prompt_tokens: int = Field(2048, ge=16)
    max_completion_tokens: int = Field(256, ge=1)
    guard: bool = True
    """Whether texts of a case that look like a part of the prompt (`</output>`, "# OUTPUT", a turn's mark) are broken
    by a visible sign before a model is shown them. Off only to measure what such texts do; every report says so."""
    on_long_prompt: Literal["truncate", "error"] = "truncate"
    """`truncate` shortens the longest input field at a word boundary until the prompt fits, and counts it."""

    gold_field: ClassVar[str]
    reason_field: ClassVar[str | None] = None
    needed: ClassVar[Mapping[str, Any]] = {}
    """An example of each setting that has no default, as `init` writes it."""
    answer_is_json: ClassVar[bool] = False
    rows_and_targets_only: ClassVar[frozenset[str]] = frozenset()
    """Settings that say how rows are read or targets written, not what is asked or accepted."""
    packed_field: ClassVar[str | None] = None
    """The input whose snippets are packed into what room there is, before any other field loses a word."""

    # A constant of the class for most tasks, and for one whose shape the recipe gives a property of its settings.
    @property
    @abstractmethod
    def fields(self) -> Mapping[str, str]:
        """Field name -> what it holds, in the order of the prompt. `[data.fields]` maps columns onto these."""

    @property
    def optional_fields(self) -> frozenset[str]:
        """Fields that a row may lack."""
        return frozenset()

    @property
    @abstractmethod
    def group_fields(self) -> tuple[str, ...]:
        """Inputs that make a group where the recipe names no `data.group_by`."""

    @property
    def ordered(self) -> bool:
        """Whether `labels` lie on an ordinal scale, lowest first."""
        return False

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """The closed label set, lowest first where `ordered`."""

    @property
    def positive(self) -> str | None:
        """The positive label of a two-label task, else None."""
        return None

    @property
    def has_think_block(self) -> bool:
        """Whether a completion begins with a <think> block."""
        return self.thinking

    @abstractmethod
    def read_case(self, row: Mapping[str, object], case_id: str) -> Case:
        """The case that a row describes; `row` is keyed by field names. `group` and `slices` are the caller's to add.

        Raises RowError for a missing or off-type field or a label that is off the scale. A missing gold label is None.
        """

    def presentations(self, case: Case) -> Sequence[Case]:
        """The ways in which a row's case is asked, each as a case of the same group: one, but for tasks where how a
        row is presented must not matter."""
        return (case,)

    def messages(self, case: Case) -> list[Message]:
        """The chat prompt: a system turn and a user turn. No text of the case can end its section of it."""
        return self.turns(replace(case, inputs=self.guarded_inputs(case).texts) if self.guard else case)

    @abstractmethod
    def turns(self, case: Case) -> list[Message]:
        """As `messages`, with the texts of the case as they stand: a subclass writes it, and `messages` calls it."""

    @property
    def guard_warning(self) -> str | None:
        """What a person must know where the guard is off; None where it is on."""
        if self.guard:
            return None
        return (
            "`task.guard = false`: texts of the cases reach the model as they stand, and one that holds the prompt's "
            "own marks can end its section or fake a verdict. That is for measurement only: numbers and judges of such "
            "a task are not to be relied on."
        )

    def guarded_inputs(self, case: Case) -> Guarded:
        """The case's inputs as a guarded prompt shows them, and how many pieces of them were broken."""
        empty = Case(case.case_id, slots(tuple(case.inputs)), gold=self.labels[0])
        said = {turn["role"]: turn["content"] for turn in self.turns(empty)}
        return guarded(case.inputs, layout_of(said.get("system", ""), said["user"], self.target(empty)))

    @abstractmethod
    def target(self, case: Case) -> str:
        """The expert's answer in our format: what SFT teaches. Raises ValueError if the case has no gold label."""

    @abstractmethod
    def parse(self, case_id: str, completion: str) -> Judgement:
        """The verdict in a completion, or why there is none. Reads the completion only."""

    @property
    def packed_tokens(self) -> int | None:
        """The most tokens that `packed_field` may take of the prompt; None leaves it to `max_prompt_tokens`."""
        return None

    def closed_completions(self) -> Mapping[str, str] | None:
        """Label -> its whole completion, where the label is all that is answered; None where text precedes it."""
        return None

    def label_frame(self) -> LabelFrame | None:
        """How labels are scored in one forward pass; None where the label follows from reasoning written before it.

        Where the label is all that is answered, its probability is that of the whole completion. Elsewhere it is
        conditional on the frame before the label, and a subclass says what that leaves out.
        """
        closed = self.closed_completions()
        return None if closed is None else LabelFrame("", closed, ends=True)

    def fingerprint(self) -> str:
        """sha256 over what is asked and accepted, and the contract version. Stored in every artifact.

        A model trained on rows that count options from 1 may be evaluated on rows that count from 0.
        """
        # How rows are read and targets written does not change what a model is asked, so artifacts stay comparable.
        # The guard changes no ordinary prompt: only what it is off for is set apart.
        left_out = {*self.rows_and_targets_only, *(("guard",) if self.guard else ())}
        settings = self.model_dump(mode="json", exclude=left_out)
        # Only where it is on: a change of lenient reading must not set apart artifacts that never used it.
        versions = {"version": CONTRACT_VERSION, **({"lenient_version": LENIENT_VERSION} if self.lenient else {})}
        content = json.dumps({**versions, **settings}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
