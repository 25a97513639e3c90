"""Judges that give numbers, for `medjudge score --scores`: thresholds, and the part of the cases that chooses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

import numpy as np

from medjudge.data.cells import number
from medjudge.data.verdict_cells import Facts
from medjudge.errors import ConfigError, DataError
from medjudge.metrics.score_results import ScoreKind, ThresholdResult
from medjudge.metrics.scores import RANGES, ScoredCases
from medjudge.metrics.thresholds import FORMS, ThresholdRule, choose_threshold
from medjudge.metrics.wording import counted
from medjudge.records import Case, Judgement, Verdict

MIDDLE: dict[ScoreKind, float] = {"probability": 0.5, "percent": 50.0, "logit": 0.0}
"""The threshold of a probability of a half: what is taken where none is given."""
_STREAM = 7
"""The calibration part has draws of its own, which do not move with others of the same seed."""


@dataclass(frozen=True, slots=True)
class NumberOptions:
    """How verdicts that are numbers are read and turned into labels."""

    kind: ScoreKind
    threshold: float | None = None
    rule: str | None = None
    """As `ThresholdRule.parse` takes it."""
    calibration_share: float = 0.5
    """Of the groups: they choose the threshold and are left out of everything else."""

    def check(self, n_labels: int, positive: str | None) -> None:
        """Raises ConfigError for options that exclude each other, or where no threshold can come about."""
        if self.rule is not None:
            ThresholdRule.parse(self.rule)
        if self.rule is not None and self.threshold is not None:
            raise ConfigError("got --threshold and --threshold-rule, expected one of them: leave the other out.")
        if n_labels > 2 and (self.rule is not None or self.threshold is not None):
            raise ConfigError(
                f"a threshold makes two labels of numbers, the scale has {n_labels}: scores are then read as the "
                "nearest label. Leave --threshold and --threshold-rule out."
            )
        if n_labels == 2 and positive is None:
            raise ConfigError(
                "--scores with two labels says how likely the positive one is, and none of them is positive: name it "
                "with --positive LABEL, or leave --ordered out, which makes it the second."
            )
        if n_labels == 2 and self.rule is None and self.threshold is None and self.kind not in MIDDLE:
            raise ConfigError(
                "--scores number with two labels needs a threshold, expected --threshold VALUE chosen before looking "
                f"at these rows, or --threshold-rule RULE ({FORMS}), which chooses it on a part of them."
            )

    @property
    def read_at(self) -> float:
        """The threshold at which verdicts are read at first."""
        return self.threshold if self.threshold is not None else MIDDLE.get(self.kind, 0.0)


@dataclass(frozen=True, slots=True)
class Thresholded:
    """Cases and verdicts that are measured, and what is known of the scores."""

    cases: list[Case]
    judgements: dict[str, list[Judgement]]
    scored: ScoredCases
    statements: list[str] = field(default_factory=list)


def with_thresholds(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    numbers: Mapping[str, float],
    options: NumberOptions,
    labels: tuple[str, ...],
    positive: str | None,
    seed: int,
) -> Thresholded:
    """Verdicts with the labels that the threshold gives, on the cases that did not choose it.

    numbers: case id -> the expert's number. Raises DataError for scores that are not of their kind, and where the
    calibration part has cases of one label only.
    """
    _check_range(judgements, options.kind)
    as_they_are = {name: list(answers) for name, answers in judgements.items()}
    if len(labels) > 2 or positive is None:
        return Thresholded(list(cases), as_they_are, ScoredCases(options.kind, numbers))
    if options.rule is None:
        given = ThresholdResult(value=options.read_at, rule="given")
        thresholds = dict.fromkeys(_with_scores(judgements), given)
        statement = f"Scores from {options.read_at:g} on are {positive!r}: the threshold was given."
        return Thresholded(list(cases), as_they_are, ScoredCases(options.kind, numbers, thresholds), [statement])
    rule = ThresholdRule.parse(options.rule)
    choosing = _calibration_part(cases, options.calibration_share, seed)
    by_id = {case.case_id: case for case in cases}
    other = next(label for label in labels if label != positive)
    thresholds, relabelled, sentences = {}, {}, []
    for name, answers in as_they_are.items():
        if name not in _with_scores(judgements):
            relabelled[name] = [one for one in answers if one.case_id not in choosing]
            continue
        own = [
            (one.score, by_id[one.case_id].gold == positive)
            for one in answers
            if isinstance(one, Verdict) and one.score is not None and one.case_id in choosing
            if by_id[one.case_id].gold is not None
        ]
        chosen = choose_threshold([score for score, _ in own], [is_positive for _, is_positive in own], rule)
        thresholds[name] = ThresholdResult(
            value=chosen.threshold,
            rule=str(rule),
            n=chosen.n,
            n_positive=chosen.n_positive,
            sensitivity=chosen.sensitivity,
            specificity=chosen.specificity,
        )
        relabelled[name] = [
            _relabelled(one, chosen.threshold, positive, other) for one in answers if one.case_id not in choosing
        ]
        sentences.append(f"{name} from {chosen.threshold:.4g} on")
    rest = [case for case in cases if case.case_id not in choosing]
    groups = {case.group or case.case_id for case in cases if case.case_id in choosing}
    rated = [by_id[case_id] for case_id in choosing if by_id[case_id].gold is not None]
    scored = ScoredCases(options.kind, numbers, thresholds, str(rule), len(rated), len(groups))
    return Thresholded(
        rest,
        relabelled,
        scored,
        [
            f"Thresholds were chosen by {rule} on {counted(len(rated), 'case')} of {counted(len(groups), 'group')}, "
            f"which take no part in any other number here: {positive!r} is {'; '.join(sentences)}."
        ],
    )


def _with_scores(judgements: Mapping[str, Sequence[Judgement]]) -> list[str]:
    return [
        name
        for name, answers in judgements.items()
        if any(isinstance(one, Verdict) and one.score is not None for one in answers)
    ]


def _relabelled(judgement: Judgement, threshold: float, positive: str, other: str) -> Judgement:
    if not isinstance(judgement, Verdict) or judgement.score is None:
        return judgement
    return replace(judgement, label=positive if judgement.score >= threshold else other)


def _calibration_part(cases: Sequence[Case], share: float, seed: int) -> set[str]:
    """The ids of the cases of that share of the groups, drawn by the seed whatever the order of the file."""
    groups = sorted({case.group or case.case_id for case in cases})
    if len(groups) < 2:
        raise DataError(
            "--threshold-rule: all cases are one group, expected two or more to split. Give a --threshold, or name the "
            "column of groups: --map group=COLUMN."
        )
    n = min(max(1, round(share * len(groups))), len(groups) - 1)
    order = np.random.default_rng([seed, _STREAM]).permutation(len(groups))
    chosen = {groups[at] for at in order[:n]}
    return {case.case_id for case in cases if (case.group or case.case_id) in chosen}


def _check_range(judgements: Mapping[str, Sequence[Judgement]], kind: ScoreKind) -> None:
    low, high = RANGES[kind]
    for name, answers in judgements.items():
        scores = [one.score for one in answers if isinstance(one, Verdict) and one.score is not None]
        outside = [score for score in scores if not low <= score <= high]
        if outside:
            raise DataError(
                f"--scores {kind}: {len(outside):,} of {len(scores):,} scores of {name} are not from {low:g} to "
                f"{high:g}, but from {min(scores):g} to {max(scores):g}. Say what they are: --scores percent (0 to "
                "100), logit or number."
            )


def experts_numbers(
    facts: Mapping[str, Facts], labels: Sequence[str], *, ordered: bool, of_median: bool = False
) -> dict[str, float]:
    """Case id -> the expert's number: what they wrote (of several experts the mean, or the median), else the label's
    own number, else its place on an ordered scale from 1 on. Cases without any are absent."""
    own = [value for label in labels if (value := number(label)) is not None]
    are_numbers = len(own) == len(labels)
    place = dict(zip(labels, own if are_numbers else range(1, len(labels) + 1), strict=True))
    middle = median if of_median else fmean
    found: dict[str, float] = {}
    for case_id, known in facts.items():
        if known.numbers:
            found[case_id] = float(middle(list(known.numbers.values())))
        elif known.gold is not None and (are_numbers or ordered):
            found[case_id] = float(middle([place[label] for label in known.ratings.values() or (known.gold,)]))
    return found
