"""Cases are dealt into splits: whole groups, the same for the same seed, whatever the order of the rows."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medjudge.errors import DataError
from medjudge.records import Case
from medjudge.tasks.pairwise import pair_id

Size = float | int | tuple[int, int]
TRAIN_LIKE = ("train", "grpo")
"""Splits that a model learns from, and that therefore need two labels at least."""
_REST = ""
"""The name of what no split asked for."""


def split_cases(
    cases: Sequence[Case], *, splits: Mapping[str, Size], seed: int, stratify_by: str | None = None
) -> dict[str, tuple[Case, ...]]:
    """Deals `cases` into `splits`.

    A size is a share of the cases (0.2), a number of cases (400), or a range `(first, past_last)`. Shares and numbers
    deal whole groups, as near to the sizes as whole groups allow; which split a group falls into hangs on the seed and
    on the groups' names and sizes, never on the order of the rows. With `stratify_by`, `"label"` or a key of the
    cases' `slices`, each split also comes near to the shares that its values have among all cases.

    Ranges are the published form: all cases are permuted by `numpy.random.default_rng(seed).permutation(n)`, which is
    what `datasets.Dataset.shuffle(seed=seed)` does, and cut. They ignore groups and `stratify_by`.

    Each split keeps the order of `cases` (ranges: the order of the permutation). Raises DataError for a split without
    cases, for sizes beyond what there is, and for a `train` or `grpo` split in which fewer than two labels occur.
    """
    if not splits:
        raise DataError(
            "`data.splits` names no split. Expected at least `train` and `test`: give each a share, such as "
            "{train = 0.8, test = 0.2}."
        )
    ranges = {name: size for name, size in splits.items() if isinstance(size, tuple)}
    if ranges:
        dealt = _cut_ranges(cases, ranges, seed)
    else:
        sizes = {name: size for name, size in splits.items() if not isinstance(size, tuple)}
        dealt = _deal_groups(cases, _wanted(len(cases), sizes), seed, stratify_by)
    for name, part in dealt.items():
        check_split(name, part)
    return dealt


def check_split(name: str, cases: Sequence[Case]) -> None:
    """Raises DataError for a split without cases, or one to learn from in which fewer than two labels occur."""
    if not cases:
        raise DataError(
            f"split {name!r} has no cases, expected at least one. Whole groups stay together: give it a larger "
            "share, or group by a finer column."
        )
    if name in TRAIN_LIKE:
        labels = sorted({case.gold for case in cases if case.gold is not None})
        if len(labels) < 2:
            got = f"only the label {labels[0]!r}" if labels else "no label at all"
            raise DataError(
                f"split {name!r} has {got} in {len(cases)} cases, expected at least two. Check the "
                f'label column (`[data.fields]`) and `data.where`, or set `data.stratify_by = "label"`.'
            )


def _cut_ranges(cases: Sequence[Case], ranges: Mapping[str, tuple[int, int]], seed: int) -> dict[str, tuple[Case, ...]]:
    units = _units(cases)
    order = [i for unit in np.random.default_rng(seed).permutation(len(units)) for i in units[unit]]
    for name, (first, past_last) in ranges.items():
        if not 0 <= first < past_last <= len(cases):
            raise DataError(
                f"`splits.{name}` is [{first}, {past_last}], but there are {len(cases)} cases. "
                f"Expected 0 <= first < past_last <= {len(cases)}: correct the range."
            )
    by_start = sorted(ranges.items(), key=lambda item: item[1])
    for (name, (_, end)), (other, (start, _)) in itertools.pairwise(by_start):
        # GRPO may go on with cases that SFT has seen; nothing else may share cases.
        if start < end and not {name, other} <= set(TRAIN_LIKE):
            raise DataError(
                f"`splits.{name}` and `splits.{other}` overlap: the same case would be in both, expected each in one. "
                "Begin one range where the other ends."
            )
    return {name: tuple(cases[i] for i in order[first:past]) for name, (first, past) in ranges.items()}


def _units(cases: Sequence[Case]) -> list[list[int]]:
    """The places of what is drawn together: the two orders of a pair; of other tasks each case alone."""
    rows: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        rows.setdefault(pair_id(case.case_id), []).append(i)
    return list(rows.values())


def _wanted(n_cases: int, sizes: Mapping[str, float | int]) -> dict[str, int]:
    """Cases per split, with what no split asks for under `_REST`; shares rounded so that a whole stays whole."""
    exact = {name: size * n_cases if isinstance(size, float) else float(size) for name, size in sizes.items()}
    total = sum(exact.values())
    if total > n_cases + 1e-6:
        sizes_shown = ", ".join(f"{name} {size:g}" for name, size in sizes.items())
        raise DataError(
            f"`data.splits` asks for {total:g} cases ({sizes_shown}), but there are {n_cases}: expected no more "
            "than these. Ask for fewer, or give shares."
        )
    wanted = {name: int(size + 1e-9) for name, size in exact.items()}
    # Largest remainders first: 0.7/0.1/0.2 of 11 cases is 8/1/2, not 7/1/2 and one left over.
    spare = round(total) - sum(wanted.values())
    for name in sorted(exact, key=lambda name: wanted[name] - exact[name])[:spare]:
        wanted[name] += 1
    for name, number in wanted.items():
        if number == 0:
            raise DataError(
                f"`splits.{name}` is {sizes[name]:g} of {n_cases} cases, which is none: expected at least one. Give it "
                "more."
            )
    return {**wanted, _REST: n_cases - sum(wanted.values())}


def _deal_groups(
    cases: Sequence[Case], wanted: Mapping[str, int], seed: int, stratify_by: str | None
) -> dict[str, tuple[Case, ...]]:
    """Large groups before small ones, each to the split that stays nearest to its wanted number of cases per stratum.

    The cost of a split is the sum over strata of (have - want)^2 / want, in cases: it fills all splits in proportion,
    and a large group goes where it distorts least. Groups of about one size (within a power of two) come in an order
    drawn with the seed; the small ones, dealt last, fill what the large ones left open.
    """
    strata_of = [_stratum(case, stratify_by) for case in cases]
    strata = sorted(set(strata_of))
    shares = np.array([strata_of.count(stratum) for stratum in strata]) / max(len(cases), 1)
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(case.group or f"case {case.case_id}", []).append(index)
    order = sorted(groups, key=lambda group: (-len(groups[group]).bit_length(), _lot(seed, group)))

    names = [name for name in wanted if wanted[name]]
    want = np.array([wanted[name] * shares for name in names])  # (n_splits, n_strata)
    room = np.array([wanted[name] for name in names])
    have = np.zeros_like(want)
    chosen: dict[int, str] = {}
    for group in order:
        counts = Counter(strata_of[index] for index in groups[group])
        added = np.array([counts[stratum] for stratum in strata], dtype=float)
        cost = (added * (added + 2 * (have - want)) / np.maximum(want, 1e-9)).sum(axis=1)
        fits = have.sum(axis=1) + added.sum() <= room
        best = int(np.argmin(np.where(fits, cost, np.inf) if fits.any() else cost))
        have[best] += added
        for index in groups[group]:
            chosen[index] = names[best]
    return {
        name: tuple(case for index, case in enumerate(cases) if chosen[index] == name)
        for name in wanted
        if name != _REST
    }


def _stratum(case: Case, stratify_by: str | None) -> str:
    if stratify_by is None:
        return ""
    return (case.gold or "") if stratify_by == "label" else case.slices[stratify_by]


def _lot(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def seeded_sample(cases: Sequence[Case], n: int | None, seed: int) -> tuple[Case, ...]:
    """`n` of the cases, drawn without replacement and kept in their order; all where `n` is None or not fewer.

    The two orders of one pair are drawn together, so that of such cases one less may be drawn.
    """
    if n is None or n >= len(cases):
        return tuple(cases)
    units = _units(cases)
    order = np.random.default_rng(seed).choice(len(units), min(n, len(units)), replace=False)
    # Row by row until the next would be too many; of other tasks each row is one case, and all are taken.
    ends = np.cumsum([len(units[i]) for i in order])
    chosen = [i for unit in order[ends <= max(n, ends[0])] for i in units[unit]] if len(order) else []
    return tuple(cases[i] for i in sorted(chosen))
