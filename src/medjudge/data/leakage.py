"""Whether held-out cases stand in the training data: the check that no number is printed without.

Five kinds. The first three compare whole inputs, and each pair of cases counts under the strictest kind that it meets:

- `exact`: the same inputs.
- `normalised`: the same after `text.normalise` (case, punctuation, white space, Unicode form).
- `near_duplicate`: *each* field has at least the threshold's Jaccard similarity of word 5-shingles; or the texts are
  alike letter by letter (`likeness`), which finds small edits of short texts. One field that differs, such as another
  procedure for one vignette or another candidate for one question, makes another case.
- `group`: the same group key (question, variant, patient), whatever else differs.
- `conflict`: exact or normalised, but with another label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from medjudge.data.likeness import Inputs, like_pairs
from medjudge.errors import DataError
from medjudge.records import Case
from medjudge.tasks.normalise import normalise

K = TypeVar("K")

NOTHING_FOUND = "no exact, normalised or near-duplicate case, no shared group and no conflicting label found"
KINDS = ("exact", "normalised", "near_duplicate", "group", "conflict")
N_LISTED = 20
"""Pairs of case ids that a report lists per kind; all are counted."""
MAX_CANDIDATES = 200
"""Near-duplicates kept per held-out text."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Held-out cases that meet a training case in one of the `KINDS`. Labels are compared where both have one."""

    n_cases: int
    """Held-out cases with at least one such training case."""
    share: float
    """Of all held-out cases, in [0, 1]."""
    n_cases_same_label: int
    """Held-out cases of which such a training case has the same label: the answer itself can be learned by heart."""
    n_cases_other_label: int
    n_pairs: int
    n_pairs_same_label: int
    n_pairs_other_label: int
    case_ids: tuple[str, ...]
    """All of the `n_cases` held-out cases."""
    pairs: tuple[tuple[str, str], ...]
    """(held-out case id, training case id), the first `N_LISTED`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One split against another."""

    train: str
    held_out: str
    n_train: int
    n_held_out: int
    enforced: bool
    """False where an overlap is told but is no leak, as between `train` and `grpo`."""
    overlaps: Mapping[str, Overlap]
    """By kind, all of `KINDS`."""
    same_field: Mapping[str, int]
    """Input field -> held-out cases whose normalised text of that field occurs in the training cases. For information:
    a criterion or a procedure recurs by nature, a question should not."""

    def case_ids(self, *, without: Collection[str] = ()) -> set[str]:
        """The held-out cases hit by any kind that is not in `without`."""
        return {case_id for kind, over in self.overlaps.items() if kind not in without for case_id in over.case_ids}

    def line(self) -> str:
        """The comparison as one sentence."""
        found = [_phrase(kind, over) for kind, over in self.overlaps.items() if over.n_cases]
        head = f"{self.train} vs {self.held_out}: "
        if not found:
            return head + f"{NOTHING_FOUND} in {self.n_held_out} held-out cases against {self.n_train}"
        n_hit = len(self.case_ids())
        what = "leak" if self.enforced else "overlap (allowed here)"
        return (
            head
            + f"{n_hit} of {self.n_held_out} held-out cases {what} ({_percent(n_hit, self.n_held_out)}): "
            + ("; ".join(found))
        )


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """All comparisons that were made."""

    comparisons: tuple[Comparison, ...]
    conflicts_within: Mapping[str, tuple[str, ...]]
    """Split -> ids of its cases whose normalised inputs occur in it with another label too."""
    near_duplicate_threshold: float
    likeness_threshold: float | None = None
    """None in a report of a version that did not compare letters."""

    @property
    def n_leaks(self) -> int:
        """Held-out cases hit, over the enforced comparisons; a case hit from two training splits counts in both."""
        return sum(len(c.case_ids()) for c in self.comparisons if c.enforced)

    @property
    def summary_line(self) -> str:
        """What was compared and found, for tables and reports."""
        if not self.comparisons:
            return "Leakage: not checked, there were no training cases and held-out cases to compare."
        near = f"near-duplicate by word 5-shingles from {self.near_duplicate_threshold:g}"
        if self.likeness_threshold is not None:
            near += f" or by char 3-gram cosine from {self.likeness_threshold:g}"
        kinds = f"exact, normalised, {near}, group, conflicting label"
        clean = [one for one in self.comparisons if not one.case_ids()]
        lines = [one.line() for one in self.comparisons if one not in clean]
        if len(clean) == 1:
            lines.append(clean[0].line())
        elif clean:  # said once for all of them
            pairs = ", ".join(
                f"{one.train} vs {one.held_out} ({one.n_held_out} against {one.n_train})" for one in clean
            )
            lines.append(f"{pairs}: {NOTHING_FOUND} in the held-out cases")
        return f"Leakage ({kinds}): " + ". ".join(lines) + "."

    def joined(self, other: LeakageReport) -> LeakageReport:
        """Both reports as one."""
        return replace(
            self,
            comparisons=self.comparisons + other.comparisons,
            conflicts_within={**self.conflicts_within, **other.conflicts_within},
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, with `summary_line` and `n_leaks` added for readers."""
        return {**asdict(self), "n_leaks": self.n_leaks, "summary_line": self.summary_line}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> LeakageReport:
        """What `to_json` wrote."""
        return cls(
            comparisons=tuple(
                Comparison(**{**item, "overlaps": {kind: _overlap_from(o) for kind, o in item["overlaps"].items()}})
                for item in tree["comparisons"]
            ),
            conflicts_within={name: tuple(ids) for name, ids in tree["conflicts_within"].items()},
            near_duplicate_threshold=tree["near_duplicate_threshold"],
            likeness_threshold=tree.get("likeness_threshold"),
        )


def check_leakage(
    train: Mapping[str, Sequence[Case]],
    held_out: Mapping[str, Sequence[Case]],
    *,
    near_duplicate_threshold: float = 0.9,
    likeness_threshold: float = 0.85,
    enforced: bool = True,
) -> LeakageReport:
    """Every split of `train` against every split of `held_out`.

    near_duplicate_threshold: Jaccard similarity in (0, 1] that each field must reach. A changed word breaks five
    shingles, so at 0.9 a field of fewer than about a hundred words must agree in all of them.
    likeness_threshold: cosine of character 3-grams in (0, 1] that the whole texts must reach, see `likeness`; 0.85
    finds 98 to 100 % of single typing errors, left-out words and prefixes (`benchmarks/leakage.py`).
    enforced: whether an overlap is a leak, for `enforce_leakage`.
    """
    sides = {name: _Side.of(cases) for name, cases in {**train, **held_out}.items()}
    comparisons = tuple(
        _compare(first, second, sides[first], sides[second], near_duplicate_threshold, likeness_threshold, enforced)
        for first in train
        for second in held_out
    )
    within = {name: ids for name, side in sides.items() if (ids := side.conflicts())}
    return LeakageReport(comparisons, within, near_duplicate_threshold, likeness_threshold)


def enforce_leakage(report: LeakageReport, *, max_share: float = 0.0, allow: Collection[str] = ()) -> None:
    """Raises DataError if, in an enforced comparison, more than `max_share` of the held-out cases leak.

    A case counts once, however many kinds hit it; kinds in `allow` do not count.
    """
    for comparison in report.comparisons:
        leaked = comparison.case_ids(without=allow)
        if not comparison.enforced or len(leaked) <= max_share * comparison.n_held_out:
            continue
        kinds = [kind for kind, over in comparison.overlaps.items() if over.n_cases and kind not in allow]
        found = "; ".join(_phrase(kind, comparison.overlaps[kind]) for kind in kinds)
        named = ", ".join(f'"{kind}"' for kind in sorted({*kinds, *allow}, key=KINDS.index))
        raise DataError(
            f"{len(leaked)} of {comparison.n_held_out} cases of {comparison.held_out!r} "
            f"({_percent(len(leaked), comparison.n_held_out)}) leak from {comparison.train!r}; the limit is "
            f"{max_share:.1%} (`data.leakage.max_share`). Found: {found}.\n"
            f"Ways out: split one `data.source` by group (`data.group_by`), so that whole questions, variants or "
            f"patients stay on one side; remove these cases (`medjudge check-data PATH --against PATH` lists them); or "
            f"allow the kinds by name, which every report then says: `data.leakage.allow = [{named}]`."
        )


def _phrase(kind: str, over: Overlap) -> str:
    labels = f", {over.n_cases_same_label} with the same label" if kind != "conflict" else ""
    return f"{kind} {over.n_cases}{labels}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _overlap_from(tree: Mapping[str, Any]) -> Overlap:
    pairs = tuple((held_out, train) for held_out, train in tree["pairs"])
    return Overlap(**{**tree, "case_ids": tuple(tree["case_ids"]), "pairs": pairs})


@dataclass(frozen=True, slots=True)
class _Side:
    """A split with its inputs in exact and in normalised form, one entry per case."""

    cases: Sequence[Case]
    exact: Sequence[Inputs]
    normal: Sequence[Inputs]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> _Side:
        exact = [tuple(sorted(case.inputs.items())) for case in cases]
        known: dict[str, str] = {}
        for inputs in exact:
            for _, text in inputs:
                if text not in known:
                    known[text] = normalise(text)
        return cls(cases, exact, [tuple((field, known[text]) for field, text in inputs) for inputs in exact])

    def conflicts(self) -> tuple[str, ...]:
        """Ids of the cases that share normalised inputs with a case of another label."""
        labels: dict[Inputs, set[str]] = defaultdict(set)
        for case, inputs in zip(self.cases, self.normal, strict=True):
            if case.gold is not None:
                labels[inputs].add(case.gold)
        return tuple(
            case.case_id for case, inputs in zip(self.cases, self.normal, strict=True) if len(labels[inputs]) > 1
        )


def _compare(
    train_name: str,
    held_out_name: str,
    train: _Side,
    held_out: _Side,
    threshold: float,
    likeness: float,
    enforced: bool,
) -> Comparison:
    by_exact, by_normal = _index(train.exact), _index(train.normal)
    by_group = _index([case.group for case in train.cases])
    # Cases without a group are not one group.
    by_group.pop("", None)
    near = _near_duplicates(train, held_out, threshold, likeness)
    partners: dict[str, list[Sequence[int]]] = {kind: [] for kind in KINDS}
    for position, case in enumerate(held_out.cases):
        exact = by_exact.get(held_out.exact[position], [])
        same = by_normal.get(held_out.normal[position], [])
        partners["exact"].append(exact)
        # Each kind names its own pairs: an exact copy is not listed a second time as a normalised one.
        partners["normalised"].append([i for i in same if train.exact[i] != held_out.exact[position]])
        partners["near_duplicate"].append(near.get(position, []))
        partners["group"].append(by_group.get(case.group, []))
        partners["conflict"].append([i for i in same if _labels_differ(case, train.cases[i])])
    return Comparison(
        train=train_name,
        held_out=held_out_name,
        n_train=len(train.cases),
        n_held_out=len(held_out.cases),
        enforced=enforced,
        overlaps={kind: _overlap(held_out.cases, train.cases, found) for kind, found in partners.items()},
        same_field=_same_field(train, held_out),
    )


def _labels_differ(one: Case, other: Case) -> bool:
    return one.gold is not None and other.gold is not None and one.gold != other.gold


def _index(keys: Iterable[K]) -> dict[K, list[int]]:
    found: dict[K, list[int]] = {}
    for position, key in enumerate(keys):
        found.setdefault(key, []).append(position)
    return found


def _overlap(held_out: Sequence[Case], train: Sequence[Case], partners: Sequence[Sequence[int]]) -> Overlap:
    """partners: for each held-out case the positions of the training cases that it meets."""
    case_ids: list[str] = []
    pairs: list[tuple[str, str]] = []
    n_pairs = n_same = n_other = n_cases_same = n_cases_other = 0
    for case, positions in zip(held_out, partners, strict=True):
        if not positions:
            continue
        case_ids.append(case.case_id)
        pairs += [(case.case_id, train[i].case_id) for i in positions[: N_LISTED - len(pairs)]]
        same = sum(case.gold is not None and train[i].gold == case.gold for i in positions)
        other = sum(_labels_differ(case, train[i]) for i in positions)
        n_pairs, n_same, n_other = n_pairs + len(positions), n_same + same, n_other + other
        n_cases_same, n_cases_other = n_cases_same + (same > 0), n_cases_other + (other > 0)
    return Overlap(
        n_cases=len(case_ids),
        share=len(case_ids) / len(held_out) if held_out else 0.0,
        n_cases_same_label=n_cases_same,
        n_cases_other_label=n_cases_other,
        n_pairs=n_pairs,
        n_pairs_same_label=n_same,
        n_pairs_other_label=n_other,
        case_ids=tuple(case_ids),
        pairs=tuple(pairs),
    )


def _same_field(train: _Side, held_out: _Side) -> dict[str, int]:
    known = {pair for inputs in train.normal for pair in inputs}
    counts: dict[str, int] = {}
    for inputs in held_out.normal:
        for pair in inputs:
            counts[pair[0]] = counts.get(pair[0], 0) + (pair in known)
    return counts


def _near_duplicates(train: _Side, held_out: _Side, threshold: float, likeness: float) -> dict[int, list[int]]:
    """Position in `held_out` -> positions in `train` that are near-duplicates but not equal after normalisation.

    Of each held-out text at most `MAX_CANDIDATES` texts.
    """
    at_train, at_held_out = _index(train.normal), _index(held_out.normal)
    train_inputs, held_out_inputs = list(at_train), list(at_held_out)
    partners: dict[int, list[int]] = {}
    for held, position in like_pairs(train_inputs, held_out_inputs, likeness, threshold):
        of_one = partners.setdefault(held, [])
        # Bounded: a template text that all cases share would pair every case with every other.
        if held_out_inputs[held] != train_inputs[position] and len(of_one) < MAX_CANDIDATES:
            of_one.append(position)
    return {
        position: sorted({i for number in numbers for i in at_train[train_inputs[number]]})
        for held, numbers in partners.items()
        if numbers
        for position in at_held_out[held_out_inputs[held]]
    }
