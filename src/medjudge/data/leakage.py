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

import numpy as np

from medjudge.data.likeness import Inputs, like_pairs
from medjudge.data.text import normalise
from medjudge.errors import DataError
from medjudge.records import Case

K = TypeVar("K")

NOTHING_FOUND = "no exact, normalised or near-duplicate case, no shared group and no conflicting label found"
KINDS = ("exact", "normalised", "near_duplicate", "group", "conflict")
N_LISTED = 20
"""Pairs of case ids that a report lists per kind; all are counted."""
SHINGLE_WORDS = 5
N_PERMUTATIONS = 128
MINHASH_SCHEME = "affine32"
MAX_CANDIDATES = 200
"""Near-duplicate candidates compared per held-out case, the likeliest first: bounds the work where all texts share one
long preamble."""
RECALL = 0.999
"""Chance that a pair exactly at the threshold becomes a candidate; above the threshold it is greater."""


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
    by_group.pop("", None)
    near = _near_duplicates(train, held_out, threshold)
    for position, likes in _likes(train, held_out, likeness).items():
        near[position] = sorted({*near.get(position, []), *likes})
    partners: dict[str, list[Sequence[int]]] = {kind: [] for kind in KINDS}
    for position, case in enumerate(held_out.cases):
        exact = by_exact.get(held_out.exact[position], [])
        same = by_normal.get(held_out.normal[position], [])
        partners["exact"].append(exact)
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


def _near_duplicates(train: _Side, held_out: _Side, threshold: float) -> dict[int, list[int]]:
    """Position in `held_out` -> positions in `train` that are near-duplicates but not equal after normalisation.

    MinHash proposes, true Jaccard decides. If each field reaches the threshold, so does any union of fields; hence only
    the fields that tell cases apart are hashed, and a rubric that all cases share does not make all pairs candidates.
    """
    from datasketch import MinHash, MinHashLSH

    at_train, at_held_out = _index(train.normal), _index(held_out.normal)
    if not at_train or not at_held_out:
        return {}
    telling = _telling_fields([*at_train, *at_held_out])
    permutations = MinHash(N_PERMUTATIONS, scheme=MINHASH_SCHEME).permutations
    shingled: dict[str, frozenset[str]] = {}
    signatures: dict[tuple[str, str], np.ndarray[Any, Any]] = {}

    def shingles(text: str) -> frozenset[str]:
        if text not in shingled:
            shingled[text] = _shingles(text)
        return shingled[text]

    def signature(inputs: Inputs) -> Any:
        """MinHash of a union of sets is the smallest of their MinHashes: each field's text is hashed once."""
        for field, text in inputs:
            if field in telling and (field, text) not in signatures:
                one = MinHash(N_PERMUTATIONS, permutations=permutations, scheme=MINHASH_SCHEME)
                one.update_batch([f"{field}\0{shingle}".encode() for shingle in shingles(text)])
                signatures[field, text] = one.hashvalues
        values = [signatures[pair] for pair in inputs if pair[0] in telling]
        if not values:
            return None
        return MinHash(hashvalues=np.minimum.reduce(values), permutations=permutations, scheme=MINHASH_SCHEME)

    index = MinHashLSH(num_perm=N_PERMUTATIONS, params=_bands(threshold))
    train_inputs = list(at_train)
    hashes = np.zeros((len(train_inputs), N_PERMUTATIONS), dtype=np.uint32)
    for number, inputs in enumerate(train_inputs):
        if (hashed := signature(inputs)) is not None:
            index.insert(number, hashed)
            hashes[number] = hashed.hashvalues
    found: dict[int, list[int]] = {}
    for inputs, positions in at_held_out.items():
        if (hashed := signature(inputs)) is None:
            continue
        candidates = np.array(sorted(index.query(hashed)), dtype=int)
        if len(candidates) > MAX_CANDIDATES:
            estimates = (hashes[candidates] == hashed.hashvalues).mean(axis=1)
            candidates = candidates[np.argsort(-estimates, kind="stable")[:MAX_CANDIDATES]]
        for number in candidates.tolist():
            other = train_inputs[number]
            if other != inputs and _alike(inputs, other, shingles, threshold):
                for position in positions:
                    found.setdefault(position, []).extend(at_train[other])
    return found


def _likes(train: _Side, held_out: _Side, threshold: float) -> dict[int, list[int]]:
    """As `_near_duplicates`, by `likeness.like_pairs`; at most `MAX_CANDIDATES` texts per held-out text."""
    at_train, at_held_out = _index(train.normal), _index(held_out.normal)
    train_inputs, held_out_inputs = list(at_train), list(at_held_out)
    partners: dict[int, list[int]] = {}
    for held, position in like_pairs(train_inputs, held_out_inputs, threshold):
        of_one = partners.setdefault(held, [])
        if held_out_inputs[held] != train_inputs[position] and len(of_one) < MAX_CANDIDATES:
            of_one.append(position)
    return {
        position: [i for number in numbers for i in at_train[train_inputs[number]]]
        for held, numbers in partners.items()
        if numbers
        for position in at_held_out[held_out_inputs[held]]
    }


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows per band of the LSH index: the most selective ones that keep `RECALL` at the threshold.

    datasketch's own choice weighs candidates against misses and misses a good part of the pairs at the threshold.
    """
    for n_rows in range(N_PERMUTATIONS, 1, -1):
        n_bands = N_PERMUTATIONS // n_rows
        if 1 - (1 - threshold**n_rows) ** n_bands >= RECALL and n_bands >= 2:
            return n_bands, n_rows
    return N_PERMUTATIONS, 1


def _telling_fields(inputs: Sequence[Inputs]) -> set[str]:
    """The fields with at least a tenth as many distinct texts as the most varied one."""
    texts: dict[str, set[str]] = defaultdict(set)
    for one in inputs:
        for field, text in one:
            texts[field].add(text)
    most = max((len(found) for found in texts.values()), default=0)
    return {field for field, found in texts.items() if 10 * len(found) >= most}


def _shingles(text: str) -> frozenset[str]:
    """Runs of `SHINGLE_WORDS` words; a shorter text is one shingle."""
    words = text.split()
    last = max(len(words) - SHINGLE_WORDS, 0)
    return frozenset(" ".join(words[i : i + SHINGLE_WORDS]) for i in range(last + 1))


def _alike(one: Inputs, other: Inputs, shingles: Any, threshold: float) -> bool:
    if [field for field, _ in one] != [field for field, _ in other]:
        return False
    for (_, a), (_, b) in sorted(zip(one, other, strict=True), key=lambda pair: len(pair[0][1])):
        if a == b:
            continue
        first, second = shingles(a), shingles(b)
        shared = len(first & second)
        if shared < threshold * (len(first) + len(second) - shared):
            return False
    return True
