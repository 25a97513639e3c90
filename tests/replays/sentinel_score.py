"""Sentinel score: a reply that could not be read is stored as score -1, and averaged.

Published: flow-judge (github.com/flowaicom/flow-judge, pull request 5, "allow for parsing errors without crashing
execution"): with `fail_on_parse_error=False`, the default, an unreadable reply becomes feedback "Error", score -1.
What happened: -1 is a number like any other to whoever takes a mean or a correlation of the score column. No verdict
changes, and both move: down, or up if the replies that break are those to bad answers.
What stops it here: `Unparsed` has no label and no score. A metric over labels takes the rows that have one and says how
many; a judge that writes -1 itself is off the scale, hence unparsed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from medjudge.metrics.classification import Outcomes
from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.rubric import RubricContract
from tests.replays.common import Guard

CONTRACT = RubricContract(points=5, form="score_only", criteria="Is it safe?", rubric="1 unsafe to 5 safe")
GOLD = [1 + i % 5 for i in range(100)]
SAID = [min(5, max(1, gold + (-2, 0, 2)[i // 5 % 3])) for i, gold in enumerate(GOLD)]
"""A middling judge: two points too low, right, two points too high in turn, as far as the scale goes."""
CASES = [Case(f"case-{i:03d}", {"output": f"advice {i}"}, gold=str(gold)) for i, gold in enumerate(GOLD)]


def replies(broken: Sequence[int]) -> list[str]:
    return ["<score>" if i in broken else f"<score>{said}</score>" for i, said in enumerate(SAID)]


def published_scores(judgements: Sequence[Judgement]) -> list[int]:
    """The score column: -1 where nothing could be read."""
    return [int(j.label) if isinstance(j, Verdict) else -1 for j in judgements]


def measured(broken: Sequence[int]) -> tuple[float, float, float, int]:
    """(mean score with -1 in it, r with -1 in it, r as this package reports it, over how many replies)."""
    judgements = [CONTRACT.parse(case.case_id, text) for case, text in zip(CASES, replies(broken), strict=True)]
    scores = published_scores(judgements)
    verdicts = [(gold, int(j.label)) for gold, j in zip(GOLD, judgements, strict=True) if isinstance(j, Verdict)]
    found = summarise(
        CASES, {"judge": judgements}, contract=CONTRACT, split="test", options=AnalysisOptions(n_resamples=100)
    ).models["judge"]
    pearson = found.metrics["pearson"]
    assert pearson.value is not None
    by_hand = float(pearsonr(*zip(*verdicts, strict=True)).statistic)
    assert pearson.value == pytest.approx(by_hand), "a reply without a score entered the correlation"
    assert (found.n_unparsed, pearson.n) == (len(broken), len(CASES) - len(broken))
    return float(np.mean(scores)), float(pearsonr(GOLD, scores).statistic), pearson.value, pearson.n


def replay(folder: Path) -> list[str]:
    on_bad = [i for i, gold in enumerate(GOLD) if gold == 1][:15]
    on_good = [i for i, gold in enumerate(GOLD) if gold == 5][:15]
    mean, r, *_ = measured([])
    lines = [f"published | all {len(CASES)} replies readable: mean score {mean:.2f}, r {r:+.2f}"]
    for where, broken in (("best", on_good), ("worst", on_bad)):
        mean, r, our_r, n = measured(broken)
        assert (r < our_r - 0.1) if where == "best" else (r > our_r + 0.1), "the sentinel does not move r"
        lines += [
            f"published | {len(broken)} replies to the {where} answers unreadable: mean score {mean:.2f}, r {r:+.2f}",
            f"medjudge  | the same replies: r {our_r:+.2f} over the {n} that hold a score, {len(broken)} unparsed",
        ]
    off_scale = CONTRACT.parse("case-000", "<score>-1</score>")
    assert isinstance(off_scale, Unparsed)
    assert not hasattr(off_scale, "label")
    return [*lines, f"medjudge  | a judge that writes <score>-1</score> itself: unparsed, {off_scale.reason}"]


def _everything_is_a_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outcomes, "parsed", property(lambda outcomes: np.ones(len(outcomes.gold), dtype=bool)))


GUARDS = (
    Guard(
        "unparsed replies enter the metrics by their code number",
        _everything_is_a_number,
        "a reply without a score entered the correlation",
    ),
)
