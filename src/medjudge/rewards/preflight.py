"""Proof, before the first step, that the reward can be earned.

Gold answers are rendered, tokenised and decoded by the very functions that rollouts use, then parsed and rewarded. A
reward that a perfect policy cannot earn (published failure 1: a think block that the parser had never heard of) stops
the run here, with the cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medjudge.errors import DataError
from medjudge.records import Case, Unparsed
from medjudge.rewards.rules import REWARDS, score, total_reward
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import decode, encode_all, stop_token_ids


@dataclass(frozen=True, slots=True)
class Preflight:
    """What gold answers earn on the real template."""

    n_cases: int
    n_at_maximum: int
    maximum: float
    n_prompts_cut: int
    causes: Mapping[str, int]
    """Why gold answers fell short -> number of cases."""
    example_case_ids: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every gold answer earns the maximum."""
        return self.n_at_maximum == self.n_cases

    def to_json(self) -> dict[str, Any]:
        """The findings as a JSON object."""
        return {**asdict(self), "causes": dict(self.causes), "passed": self.passed}


def check_gold(
    contract: TaskContract, cases: Sequence[Case], tokenizer: Any, weights: Mapping[str, float]
) -> Preflight:
    """What the gold answers of `cases` (all with gold) earn after the round trip through template and tokenizer."""
    maximum = sum(weight * REWARDS[name].maximum for name, weight in weights.items() if weight > 0)
    maximum += sum(weight * REWARDS[name].minimum for name, weight in weights.items() if weight < 0)
    stop_ids = stop_token_ids(tokenizer)
    causes: Counter[str] = Counter()
    examples: list[str] = []
    n_at_maximum = n_cut = 0
    for case, encoded in zip(cases, encode_all(contract, cases, tokenizer, with_target=True), strict=True):
        completion_ids = encoded.completion_ids or []
        n_cut += encoded.n_words_cut > 0
        judgement = contract.parse(case.case_id, decode(tokenizer, completion_ids, stop_ids))
        earned = total_reward(score(judgement, case, weights), weights)
        if earned is not None and abs(earned - maximum) < 1e-9:
            n_at_maximum += 1
            continue
        cause = judgement.reason if isinstance(judgement, Unparsed) else "it parses to a label other than the gold one"
        causes[f"the gold answer earns {earned} of {maximum:g}: {cause}"] += 1
        examples.append(case.case_id)
    return Preflight(len(cases), n_at_maximum, maximum, n_cut, dict(causes.most_common()), tuple(examples[:5]))


def require_earnable(result: Preflight) -> None:
    """Raises DataError if a perfect policy could not earn the maximum."""
    if result.passed:
        return
    why = "; ".join(f"{count} x {cause}" for cause, count in list(result.causes.items())[:3])
    raise DataError(
        f"pre-flight: {result.n_at_maximum} of {result.n_cases} gold answers earn the maximum, {result.maximum:g}. "
        f"{why}. First cases: {', '.join(result.example_case_ids)}. "
        "A policy cannot learn what the expert's own answer does not earn: raise the limit or mend the contract."
    )
