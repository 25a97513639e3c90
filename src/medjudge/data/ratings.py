"""Several experts' ratings of a case, and the one label that a rule makes of them.

The ratings stay with the case (`Case.ratings`); the label is what accuracy and training compare with. Where a rule has
no answer (a tie), the case has no label and is counted, unless a side was chosen beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from medjudge.errors import ConfigError
from medjudge.records import Case
from medjudge.settings.data import GoldRuleName, GoldTies


@dataclass(frozen=True, slots=True)
class GoldRule:
    """How the ratings of a case become its label."""

    labels: tuple[str, ...]
    """Of the scale, lowest first where they are ordered."""
    rule: GoldRuleName = "majority"
    """`majority`: the label with most votes. `adjudicated`: the adjudicator's label; where there is none, that of
    experts who all agree. `mean`, `median`: of the labels' positions, rounded to the nearest."""
    ties: GoldTies = "leave_out"
    """Of labels with equally many votes, or on both sides of a half: none, or the last (first) of them in `labels`."""
    ordered: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError for positions of labels that lie on no scale."""
        if self.rule in ("mean", "median") and not self.ordered and len(self.labels) > 2:
            raise ConfigError(
                f"gold rule {self.rule!r} wants labels on a scale, got {', '.join(self.labels)} without an order. Say "
                "that they are ordered, or take the rule majority or adjudicated."
            )

    def gold(self, ratings: Mapping[str, str], adjudicated: str | None = None) -> str | None:
        """The label of these ratings; None at a tie that is left out, and where nobody rated."""
        if self.rule == "adjudicated":
            if adjudicated is not None:
                return adjudicated
            return next(iter(ratings.values())) if len(set(ratings.values())) == 1 else None
        candidates = self._candidates(list(ratings.values()))
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        if self.ties == "leave_out":
            return None
        return candidates[-1 if self.ties == "higher" else 0]

    def _candidates(self, given: Sequence[str]) -> list[str]:
        """The labels that the rule leaves, in the order of the scale: one, or several at a tie."""
        if not given:
            return []
        if self.rule == "majority":
            counts = Counter(given)
            most = max(counts.values())
            return [label for label in self.labels if counts[label] == most]
        places = sorted(self.labels.index(label) for label in given)
        # Twice the value, in whole numbers: a half is then told from what rounding makes of one.
        if self.rule == "median":
            doubled, parts = places[(len(places) - 1) // 2] + places[len(places) // 2], 2
        else:
            doubled, parts = sum(places), len(places)
        whole, rest = divmod(doubled, parts)
        if 2 * rest == parts:
            return [self.labels[whole], self.labels[whole + 1]]
        return [self.labels[whole + (2 * rest > parts)]]


def entries(cell: object) -> dict[str, object]:
    """Rater -> its cell, of a list (raters are places, `1`, `2`, ..) or an object; empty for any other cell.

    A list of one entry is that entry, as everywhere in files of verdicts: no set of ratings.
    """
    if isinstance(cell, Mapping):
        return {str(name): value for name, value in cell.items()}
    if isinstance(cell, list | tuple) and len(cell) > 1:
        return {str(place): value for place, value in enumerate(cell, start=1)}
    return {}


@dataclass(frozen=True, slots=True)
class RatedView:
    """A case with one of the labels that experts gave it, as a training sees it."""

    case: Case
    """Its id is the original's where experts agree, so that what is known of the case holds for it."""
    case_id: str
    """Of the original."""
    n: int
    """Experts who gave this label."""


def one_view_each(cases: Iterable[Case]) -> list[RatedView]:
    """Every case once for each label that experts gave it; without ratings once, without any label not at all."""
    views: list[RatedView] = []
    for case in cases:
        counts = Counter(case.ratings.values())
        if len(counts) > 1:
            for place, (label, n) in enumerate(counts.items(), start=1):
                view = replace(case, gold=label, case_id=f"{case.case_id} rating {place}")
                views.append(RatedView(view, case.case_id, n))
        elif (gold := next(iter(counts), case.gold)) is not None:
            views.append(RatedView(replace(case, gold=gold), case.case_id, max(1, counts.total())))
    return views


def with_some_label(case: Case, labels: Sequence[str]) -> Case:
    """The case with a label where experts tie: the lowest of those that most of them gave. Else as it is."""
    if not is_tied(case):
        return case
    return replace(case, gold=GoldRule(tuple(labels), "majority", "lower").gold(case.ratings))


def is_tied(case: Case) -> bool:
    """Whether experts rated the case and the rule gave it no label."""
    return bool(case.ratings) and case.gold is None


def ratings_sentence(cases: Iterable[Case], rule: GoldRule) -> str:
    """How labels came about, in words; empty where no case has several ratings."""
    rated = [case for case in cases if case.ratings]
    if not any(len(case.ratings) > 1 for case in rated):
        return ""
    raters = {rater for case in rated for rater in case.ratings}
    n_ratings = sum(len(case.ratings) for case in rated)
    n_tied = sum(map(is_tied, rated))
    ties = f"{n_tied:,} without a label under it are left out"
    if rule.rule != "adjudicated" and rule.ties != "leave_out":
        ties = f"ties go to the {rule.ties} label"
    return (
        f"Labels of {len(rated):,} cases come from {n_ratings:,} ratings by {len(raters):,} experts, by the rule "
        f"{rule.rule}; {ties}."
    )
