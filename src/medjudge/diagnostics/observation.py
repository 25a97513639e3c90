"""A GRPO step from outside: its rollouts in a few numbers, and windows of steps added up.

What the doctor reads while a run trains, and the pre-flight of a sample. No torch.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

ALL = 0.98
"""From this share on, "all": one stray rollout in fifty changes nothing."""
SAME = 1e-6
"""Rewards closer than this are one reward: TRL's advantages come from float32."""
N_EVIDENCE = 3
"""Rollouts kept to show a finding."""
CLIP_CHARS = 200
"""Characters of a completion that are kept."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One rollout as the doctor sees it."""

    case_id: str
    group: int
    """Which prompt of the batch it answers."""
    text: str
    n_tokens: int
    stopped: bool
    """False if the token limit cut it off."""
    terms: Mapping[str, float | None]
    """What each term of the reward paid, as it enters the total."""
    total: float | None
    """None if the row cannot be rewarded."""
    unparsed: str | None = None
    """Why no verdict was read; None where one was."""
    correct: bool | None = None
    """None without a gold label."""
    advantage: float | None = None
    gold: str | None = None
    label: str | None = None
    """The label that was read; None where none was."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A rollout that shows a finding."""

    case_id: str
    why: str
    reward: float | None
    n_tokens: int
    completion: str
    """Clipped; empty where the recipe keeps completions out of the run folder."""


@dataclass(frozen=True, slots=True)
class TermFacts:
    """What one term of the reward paid in a step."""

    n: int
    """Rollouts that it could reward."""
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The rollouts of one step, in numbers."""

    n: int
    n_cases: int
    n_groups: int
    n_spread: int
    """Groups that hold two different rewards."""
    n_identical: int
    """Groups whose completions are one and the same text."""
    spread_by_term: Mapping[str, int]
    """Groups in which a term differs, by term."""
    n_mixed: int
    """Groups in which at least two terms differ."""
    n_cancelled: int
    """Those of them whose total differs by less than a tenth of its most differing term."""
    n_unparsed: int
    n_unparsed_truncated: int
    reasons: Mapping[str, int]
    """The commonest reasons of the unparsed."""
    prefix: str | None
    """What all unparsed completions begin with; None where all can be read."""
    n_truncated: int
    n_rated: int
    n_correct: int
    n_advantages: int
    """Rollouts with an advantage other than 0; -1 where advantages are not known."""
    reward: float | None
    terms: Mapping[str, TermFacts]
    tokens: float
    """Mean completion length."""
    repetition: float
    """Mean share of repeated word 4-grams."""
    evidence: Mapping[str, tuple[Evidence, ...]] = field(default_factory=dict)
    gold_groups: Mapping[str, int] = field(default_factory=dict)
    """Groups by the label that the expert gave their case."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """Completions to cases with a gold label by the label that they give."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One optimiser step."""

    step: int
    batch: BatchFacts | None
    """None where the step used an earlier step's rollouts again."""
    kl: float | None = None
    """Mean KL from the reference policy in nats per token; None where no reference is loaded."""
    entropy: float | None = None
    """Mean entropy in nats per token."""
    grad_norm: float | None = None
    """Before clipping."""
    not_finite: tuple[str, ...] = ()
    """Which of these were no numbers."""
    n_resampled: int = 0
    """Groups that were drawn anew because the first ones had no spread."""
    held_out: str | None = None
    """One character per held-out case, `1` right and `0` wrong; None where none was judged at this step."""

    @property
    def held_out_accuracy(self) -> float | None:
        """Share of the held-out cases judged right."""
        return self.held_out.count("1") / len(self.held_out) if self.held_out else None


# --- one step ---------------------------------------------------------------------------------------------------------


def facts_of(rollouts: Sequence[Observed], *, keep_completions: bool = True) -> BatchFacts:
    """The rollouts of one step in numbers, with a few of them as evidence. `rollouts` holds at least one."""
    groups = [list(group) for _, group in itertools.groupby(rollouts, key=lambda r: r.group)]
    unparsed = [r for r in rollouts if r.unparsed is not None]
    rated = [r for r in rollouts if r.correct is not None]
    totals = [r.total for r in rollouts if r.total is not None]
    mixed = [group for group in groups if sum(_differs(_term(group, name)) for name in group[0].terms) >= 2]
    return BatchFacts(
        n=len(rollouts),
        n_cases=len({r.case_id for r in rollouts}),
        n_groups=len(groups),
        n_spread=sum(_differs([r.total for r in group]) for group in groups),
        n_identical=sum(len({r.text for r in group}) == 1 for group in groups),
        spread_by_term={name: sum(_differs(_term(group, name)) for group in groups) for name in rollouts[0].terms},
        n_mixed=len(mixed),
        n_cancelled=sum(map(_cancels, mixed)),
        n_unparsed=len(unparsed),
        n_unparsed_truncated=sum(not r.stopped for r in unparsed),
        reasons=dict(Counter(str(r.unparsed) for r in unparsed).most_common(5)),
        prefix=common_prefix([r.text for r in unparsed])[:CLIP_CHARS] if unparsed else None,
        n_truncated=sum(not r.stopped for r in rollouts),
        n_rated=len(rated),
        n_correct=sum(r.correct is True for r in rated),
        n_advantages=-1 if rollouts[0].advantage is None else sum(abs(r.advantage or 0.0) > SAME for r in rollouts),
        reward=statistics.fmean(totals) if totals else None,
        terms={name: _term_facts(_term(rollouts, name)) for name in rollouts[0].terms},
        tokens=statistics.fmean(r.n_tokens for r in rollouts),
        repetition=statistics.fmean(repeated_share(r.text) for r in rollouts),
        evidence=_evidence(rollouts, groups, keep_completions),
        gold_groups=dict(Counter(str(group[0].gold) for group in groups if group[0].gold is not None)),
        answers=dict(Counter(str(r.label) for r in rollouts if r.gold is not None and r.label is not None)),
    )


def repeated_share(text: str, n: int = 4) -> float:
    """Share of a text's word n-grams that occurred before in it, in [0, 1); 0 for a text of fewer than n words."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def common_prefix(texts: Sequence[str]) -> str:
    """What all the texts begin with, character by character; empty for no texts."""
    low, high = min(texts, default=""), max(texts, default="")
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def shown(text: str | None, limit: int = 60) -> str:
    """A text in quotes with its line breaks spelt out, cut to `limit` characters."""
    return repr(text if text is None or len(text) <= limit else text[:limit] + "…")


def _term(rollouts: Iterable[Observed], name: str) -> list[float | None]:
    return [r.terms[name] for r in rollouts]


def _range(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def _differs(values: Iterable[float | None]) -> bool:
    return _range(values) > SAME


def _cancels(group: Sequence[Observed]) -> bool:
    most = max(_range(_term(group, name)) for name in group[0].terms)
    return _range([r.total for r in group]) < most / 10


def _term_facts(values: Sequence[float | None]) -> TermFacts:
    known = [value for value in values if value is not None]
    return TermFacts(len(known), statistics.fmean(known), min(known), max(known)) if known else TermFacts(0, 0, 0, 0)


def _evidence(
    rollouts: Sequence[Observed], groups: Sequence[Sequence[Observed]], keep_completions: bool
) -> dict[str, tuple[Evidence, ...]]:
    """The first few rollouts of each kind, from different cases."""
    kinds: dict[str, Iterable[tuple[Observed, str]]] = {
        "unparsed": ((r, str(r.unparsed)) for r in rollouts if r.unparsed is not None),
        "truncated": ((r, f"cut off after {r.n_tokens} tokens") for r in rollouts if not r.stopped),
        "wrong": ((r, "parsed, wrong") for r in rollouts if r.correct is False and r.unparsed is None),
        "right": ((r, "right") for r in rollouts if r.correct),
        "alike": ((group[0], _alike(group)) for group in groups if not _differs([r.total for r in group])),
        "spread": ((group[0], "a group with spread") for group in groups if _differs([r.total for r in group])),
        "cancelled": ((group[0], _payments(group)) for group in groups if len(group) > 1),
        "longest": ((r, f"{r.n_tokens} tokens") for r in sorted(rollouts, key=lambda r: -r.n_tokens)),
        "repetitive": (
            (r, f"{repeated_share(r.text):.0%} of its word 4-grams repeated")
            for r in sorted(rollouts, key=lambda r: -repeated_share(r.text))
        ),
        "best_paid_wrong": (
            (r, "wrong, and well paid")
            for r in sorted(rollouts, key=lambda r: -(r.total if r.total is not None else -math.inf))
            if r.correct is False
        ),
        **{
            other_label(gold): [
                (r, "another label") for r in rollouts if r.gold == gold and r.label not in (gold, None)
            ]
            for gold in dict.fromkeys(r.gold for r in rollouts if r.gold is not None)
        },
    }
    evidence: dict[str, tuple[Evidence, ...]] = {}
    for kind, candidates in kinds.items():
        chosen: dict[str, Evidence] = {}
        for r, why in candidates:
            # Clipped: evidence is for a person to recognise the habit, and completions may repeat text of the case.
            text = r.text[:CLIP_CHARS] if keep_completions else ""
            chosen.setdefault(r.case_id, Evidence(r.case_id, why, r.total, r.n_tokens, text))
            if len(chosen) == N_EVIDENCE:
                break
        if chosen:
            evidence[kind] = tuple(chosen.values())
    return evidence


def other_label(gold: str) -> str:
    """The kind of evidence that shows what is answered in place of a label."""
    return f"not {gold}"


def _alike(group: Sequence[Observed]) -> str:
    n_texts = len({r.text for r in group})
    texts = "one text" if n_texts == 1 else f"{n_texts} texts"
    return f"{len(group)} completions, {texts}, one reward"


def _payments(group: Sequence[Observed]) -> str:
    low, high = min(group, key=_first_payment), max(group, key=_first_payment)
    return " against ".join(
        " + ".join(f"{name} {value:g}" for name, value in r.terms.items() if value is not None) for r in (low, high)
    )


def _first_payment(r: Observed) -> float:
    return next((value for value in r.terms.values() if value is not None), 0.0)


# --- a window of steps ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Some consecutive steps with rollouts, added up."""

    steps: tuple[StepFacts, ...]

    @property
    def batches(self) -> list[BatchFacts]:
        """The rollouts of its steps."""
        return [step.batch for step in self.steps if step.batch is not None]

    def count(self, name: str) -> int:
        """The sum of one of `BatchFacts`' counts."""
        return sum(getattr(batch, name) for batch in self.batches)

    def share(self, name: str, of: str) -> float:
        """One count as a share of another; 0 where that is 0."""
        whole = self.count(of)
        return self.count(name) / whole if whole else 0.0

    def tally(self, name: str) -> Counter[str]:
        """The sum of one of `BatchFacts`' counts by label."""
        total: Counter[str] = Counter()
        for batch in self.batches:
            total.update(getattr(batch, name))
        return total

    def mean(self, name: str) -> float:
        """The mean over steps of one of `BatchFacts`' means."""
        return statistics.fmean(getattr(batch, name) for batch in self.batches)

    def evidence(self, kind: str) -> tuple[Evidence, ...]:
        """The newest evidence of a kind, from different cases."""
        chosen: dict[str, Evidence] = {}
        for batch in reversed(self.batches):
            for row in batch.evidence.get(kind, ()):
                chosen.setdefault(row.case_id, row)
        return tuple(chosen.values())[:N_EVIDENCE]
