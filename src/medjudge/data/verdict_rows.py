"""The rows of `verdicts.jsonl`: one typed row, written here and read here.

The file of an evaluation, of a benchmark's set, of `medjudge score` and of a comparison of variants has one form. Rows
of earlier versions, which lack the later fields, are read; a row that is damaged is named by its line and its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from medjudge import artifacts
from medjudge.errors import DataError, RunError
from medjudge.files import how_to_renew
from medjudge.records import Case, Completion, Judgement, LabelScores, Unparsed, Verdict

Role = Literal["model", "baseline"]
ROLES: tuple[Role, ...] = ("model", "baseline")


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What one judge said of one case, beside the expert's label. Field names are the keys of the file."""

    model: str
    case_id: str
    gold: str | None
    label: str | None
    """None where the answer could not be read; `unparsed_reason` then says why."""
    confidence: float | None
    """In [0, 1], calibrated where a calibrator was used."""
    unparsed_reason: str | None
    role: Role | None = None
    """None in files of versions that did not note it."""
    group: str = ""
    correct: bool = False
    unparsed_kind: str | None = None
    completion: str | None = None
    """The whole answer; None where labels were scored, and for baselines."""
    n_tokens: int | None = None
    stopped: bool | None = None
    label_probabilities: Mapping[str, float] | None = None
    label_mass: float | None = None
    """Probability that the answer is one of the labels, in [0, 1]; as far as an endpoint told it."""
    label_mass_most: float | None = None
    """The most that `label_mass` can be; None, and then absent from the file, where every label was told."""
    labels_bounded: Sequence[str] | None = None
    """Labels that an endpoint did not tell: the most that they can be stands in `label_probabilities`. Absent likewise.
    """
    n_words_cut: int | None = None
    """Words that the prompt lost so that it fits; None where it is not known."""
    slices: Mapping[str, str] = field(default_factory=dict)
    confidence_as_stated: float | None = None
    """Before calibration; None, and then absent from the file, where no calibrator was used."""
    reasoning: Mapping[str, float | int | bool | None] | None = None
    """What was measured of the reasoning; None, and then absent from the file, where it was not measured."""

    score: float | None = None
    """The number that a threshold made the label of; None, and then absent from the file, where there was none."""

    ratings: Mapping[str, str] | None = None
    """Rater -> label, of which `gold` is made; None, and then absent from the file, where one label was given."""

    n_neutralised: int | None = None
    """Pieces of the case's texts that the prompt showed broken (`task.guard`); None, and then absent from the file,
    where none was."""

    @classmethod
    def of(
        cls,
        model: str,
        case: Case,
        judgement: Judgement,
        answer: Completion | LabelScores | None = None,
        *,
        role: Role = "model",
    ) -> VerdictRow:
        """The row of a judgement. answer: what it was read in, where that is known."""
        verdict = judgement if isinstance(judgement, Verdict) else None
        unparsed = judgement if isinstance(judgement, Unparsed) else None
        completion = answer if isinstance(answer, Completion) else None
        scores = answer if isinstance(answer, LabelScores) else None
        return cls(
            model=model,
            role=role,
            case_id=case.case_id,
            group=case.group,
            gold=case.gold,
            label=verdict.label if verdict else None,
            confidence=verdict.confidence if verdict else None,
            correct=verdict is not None and case.gold is not None and verdict.label == case.gold,
            unparsed_reason=unparsed.reason if unparsed else None,
            unparsed_kind=unparsed.kind if unparsed else None,
            completion=completion.text if completion else None,
            n_tokens=completion.n_tokens if completion else None,
            stopped=completion.stopped if completion else None,
            label_probabilities=dict(scores.probabilities) if scores else None,
            label_mass=scores.mass if scores else None,
            label_mass_most=scores.mass_most if scores else None,
            labels_bounded=list(scores.bounded) or None if scores else None,
            n_words_cut=answer.n_words_cut if answer else None,
            slices=dict(case.slices),
            score=verdict.score if verdict else None,
            ratings=dict(case.ratings) or None,
        )

    def judgement(self) -> Judgement:
        """The row as a judgement; the rationale stays in the completion."""
        if self.label is None:
            kind = cast(Any, self.unparsed_kind or "format")
            return Unparsed(self.case_id, self.completion or "", self.unparsed_reason or "", kind)
        return Verdict(self.case_id, self.label, self.confidence)

    def to_json(self) -> dict[str, Any]:
        """The row as the file holds it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if name not in _ONLY_WHERE_KNOWN or value is not None}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> VerdictRow:
        """What `to_json` wrote, now or in an earlier version; unknown keys are left out.

        Raises DataError that names the field, what it holds by kind, and what it should hold.
        """
        if missing := [name for name in _REQUIRED if name not in tree]:
            raise DataError(f"the row lacks {', '.join(missing)}, expected {', '.join(_REQUIRED)}")
        known = {name: tree[name] for name in _CHECKS if name in tree}
        for name, value in known.items():
            is_right, expected = _CHECKS[name]
            if not is_right(value):
                raise DataError(f"`{name}` holds a {type(value).__name__}, expected {expected}")
        return cls(**known)


def write_verdicts(path: Path, rows: Iterable[VerdictRow]) -> None:
    """Writes the rows in their order, whole or not at all."""
    artifacts.write_lines(path, (row.to_json() for row in rows))


def read_verdicts(path: Path) -> list[VerdictRow]:
    """All rows of a file. Raises RunError, with line and field, for a damaged row, or where its stage wrote others."""
    rows = []
    for number, tree in enumerate(artifacts.read_lines(path), start=1):
        try:
            rows.append(VerdictRow.from_json(tree))
        except DataError as error:
            raise RunError(f"{path}:{number}: {error}. {how_to_renew(path)}") from None
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _or_none(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _maps_to(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


_REQUIRED = ("model", "case_id", "gold", "label", "confidence", "unparsed_reason")
_ONLY_WHERE_KNOWN = frozenset(
    {
        "role",
        "confidence_as_stated",
        "reasoning",
        "score",
        "ratings",
        "n_neutralised",
        "label_mass_most",
        "labels_bounded",
    }
)
_TEXT, _TEXT_OR_NULL = (_is(str), "a text"), (_or_none(_is(str)), "a text or null")
_NUMBER_OR_NULL = (_or_none(_is_number), "a number or null")
_COUNT_OR_NULL = (_or_none(_is(int)), "a whole number or null")
_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "model": _TEXT,
    "case_id": _TEXT,
    "gold": _TEXT_OR_NULL,
    "label": _TEXT_OR_NULL,
    "confidence": _NUMBER_OR_NULL,
    "unparsed_reason": _TEXT_OR_NULL,
    "role": (lambda value: value is None or value in ROLES, "model or baseline"),
    "group": _TEXT,
    "correct": (_is(bool), "true or false"),
    "unparsed_kind": _TEXT_OR_NULL,
    "completion": _TEXT_OR_NULL,
    "n_tokens": _COUNT_OR_NULL,
    "stopped": (_or_none(_is(bool)), "true, false or null"),
    "label_probabilities": (_or_none(_maps_to(_is_number)), "an object of numbers or null"),
    "label_mass": _NUMBER_OR_NULL,
    "label_mass_most": _NUMBER_OR_NULL,
    "labels_bounded": (
        lambda value: value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value)),
        "a list of texts or null",
    ),
    "n_words_cut": _COUNT_OR_NULL,
    "n_neutralised": _COUNT_OR_NULL,
    "score": _NUMBER_OR_NULL,
    "ratings": (_or_none(_maps_to(_is(str))), "an object of texts or null"),
    "slices": (_maps_to(_is(str)), "an object of texts"),
    "confidence_as_stated": _NUMBER_OR_NULL,
    "reasoning": (
        _or_none(_maps_to(lambda value: value is None or isinstance(value, bool) or _is_number(value))),
        "an object of numbers or null",
    ),
}
"""Field -> (whether a value is of its kind, the kind in words)."""
