"""What the embedding rewards pay for reasoning that is right, unrelated, off the subject, or padded.

    python benchmarks/embedding_reward.py [--rows 600] [--cases 50]

Built-in imaging orders; the offline embedding model of the `embeddings` extra.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

from medjudge.models.load import quiet_libraries
from medjudge.records import Case, Completion, Rollout, Verdict
from medjudge.rewards.composition import BatchReward, RewardContext, build_reward
from medjudge.synthetic.sets import GENERATORS
from medjudge.tasks.appropriateness import AppropriatenessContract

STORY = "Once upon a time there was a little girl. She liked to play with her red ball. The sun was warm."


def main() -> None:
    """Prints one line per kind of reasoning."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=600)
    options.add_argument("--cases", type=int, default=50)
    given = options.parse_args()
    quiet_libraries()
    contract = AppropriatenessContract()
    rows = GENERATORS["appropriateness"].rows(given.rows)
    cases = [replace(contract.read_case(row, str(i)), group=str(row["variant_id"])) for i, row in enumerate(rows)]
    judged, others = cases[: given.cases], cases[-given.cases :]
    context = RewardContext(contract, cases)
    rewards = {name: build_reward(name, context) for name in ("embedding", "embedding_published")}
    kinds: dict[str, Callable[[Case, Case], str]] = {
        "the expert's own": lambda case, other: str(case.reason),
        "another case's": lambda case, other: str(other.reason),
        "a children's story": lambda case, other: STORY,
        "the expert's and another case's": lambda case, other: f"{case.reason} {other.reason}",
        "the first half of the expert's": lambda case, other: str(case.reason)[: len(str(case.reason)) // 2],
    }
    print(f"baseline taken off: {rewards['embedding'].report()['baseline']}")
    print(f"{'reasoning':34}{'embedding':>12}{'embedding_published':>22}")
    for kind, make in kinds.items():
        rollouts = [_said(case, make(case, other)) for case, other in zip(judged, others, strict=True)]
        paid = [_mean(reward, rollouts) for reward in rewards.values()]
        print(f"{kind:34}{paid[0]:12.3f}{paid[1]:22.3f}")


def _said(case: Case, text: str) -> Rollout:
    return Rollout(case, Verdict(case.case_id, str(case.gold), rationale=text), Completion(text, 1, True))


def _mean(reward: BatchReward, rollouts: list[Rollout]) -> float:
    return statistics.fmean(value for value in reward(rollouts) if value is not None)


if __name__ == "__main__":
    main()
