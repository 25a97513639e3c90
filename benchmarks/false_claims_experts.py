"""How many pages with several experts, or with scores, claim something false where nothing is true.

    python benchmarks/false_claims_experts.py [--sets 200] [--out false_claims_experts.jsonl]

As `false_claims.py`, of what that program does not make: several ratings per case, and judges that give numbers. A set
is a page. Of the pages with experts, two judges err exactly as an expert does (so neither is above or below the human
ceiling, nor do they differ), and one is worse by so much that in the alternative annotator test an expert leads it by
epsilon: it may take nobody's place. Of the pages with scores, two judges rank equally well and state calibrated
probabilities, and one guesses. Rows of a group resemble each other in truth and in what is hard.

How often the worse judge is found to be below the ceiling, and an equal one to be a possible substitute, stands beside.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from false_claims import LEVEL, N_RESAMPLES, leave_out_what_no_claim_reads
from medjudge.data.ratings import GoldRule
from medjudge.metrics.alternative_annotator import EPSILON
from medjudge.metrics.result_types import Results
from medjudge.metrics.scores import ScoredCases
from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.records import Case, Verdict
from medjudge.tasks.scale import LabelScale

SCALE = LabelScale(labels=("no", "yes"), positive="yes")
SKILL = 0.85
"""Correlation of what an expert sees with the truth."""
WORSE, GUESSER = "worse", "guesser"


@dataclass(frozen=True)
class Design:
    """Rows of a page."""

    group: NDArray[np.int64]
    correlation: float
    """Of two rows of a group, in truth and in what each rater gets wrong."""
    n_experts: int
    share_rated: float = 1.0
    """Share of the cases that each expert rated."""


def alone(rng: np.random.Generator) -> Design:
    """150 cases, each a group of its own; three experts."""
    return Design(np.arange(150), 0.0, 3)


def clustered(rng: np.random.Generator) -> Design:
    """40 groups of 6; three experts."""
    return Design(np.repeat(np.arange(40), 6), 0.6, 3)


def few_groups(rng: np.random.Generator) -> Design:
    """6 to 10 groups of 25; three experts."""
    return Design(np.repeat(np.arange(int(rng.integers(6, 11))), 25), 0.4, 3)


def unequal(rng: np.random.Generator) -> Design:
    """40 groups of 1 to 60 rows, most of them small; two experts."""
    return Design(np.repeat(np.arange(40), np.clip(rng.lognormal(1.6, 1.0, 40).astype(int), 1, 60)), 0.5, 2)


def gaps(rng: np.random.Generator) -> Design:
    """60 groups of 4; six experts, each of whom rated half of the cases."""
    return Design(np.repeat(np.arange(60), 4), 0.4, 6, 0.5)


DESIGNS: dict[str, Callable[[np.random.Generator], Design]] = {
    "alone": alone,
    "clustered": clustered,
    "6 to 10 groups": few_groups,
    "unequal, two experts": unequal,
    "gaps": gaps,
}


def latent(design: Design, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n,) standard normal, alike within groups."""
    n_groups = int(design.group.max()) + 1
    shared = np.sqrt(design.correlation) * rng.standard_normal(n_groups)[design.group]
    return shared + np.sqrt(1 - design.correlation) * rng.standard_normal(len(design.group))


def seen(truth: NDArray[np.float64], skill: float, design: Design, rng: np.random.Generator) -> NDArray[np.float64]:
    """What a rater of this skill sees of the truth."""
    return np.asarray(skill * truth + np.sqrt(1 - skill**2) * latent(design, rng))


@cache
def worse_skill(n_experts: int) -> float:
    """The skill at which an expert leads the judge by epsilon in the alternative annotator test, for full ratings."""
    design = Design(np.arange(200_000), 0.0, n_experts)
    low, high = 0.0, SKILL
    for _ in range(18):
        middle, rng = (low + high) / 2, np.random.default_rng(0)
        truth = latent(design, rng)
        said = np.stack([seen(truth, SKILL, design, rng) > 0 for _ in range(n_experts)])
        judge = seen(truth, middle, design, rng) > 0
        own = (said[1:] == said[0]).sum(0)
        judged = (said[1:] == judge).sum(0)
        lead = float((own >= judged).mean() - (judged >= own).mean())
        low, high = (middle, high) if lead > EPSILON else (low, middle)
    return low


def experts_page(name: str, number: int) -> Results:
    """A page with several ratings per case."""
    rng = np.random.default_rng([list(DESIGNS).index(name), number, 0])
    design = DESIGNS[name](rng)
    n, truth = len(design.group), latent(design, rng)
    ratings = [seen(truth, SKILL, design, rng) > 0 for _ in range(design.n_experts)]
    rated = rng.random((design.n_experts, n)) < design.share_rated
    rule = GoldRule(SCALE.labels)
    cases = []
    for at in range(n):
        own = {f"e{r}": SCALE.labels[int(ratings[r][at])] for r in range(design.n_experts) if rated[r, at]}
        cases.append(Case(f"c{at}", {}, rule.gold(own), group=f"g{design.group[at]}", ratings=own))
    skills = {"a": SKILL, "b": SKILL, WORSE: worse_skill(min(design.n_experts, 3))}
    judgements = {
        judge: [
            Verdict(f"c{at}", SCALE.labels[int(said)]) for at, said in enumerate(seen(truth, skill, design, rng) > 0)
        ]
        for judge, skill in skills.items()
    }
    return summarise(cases, judgements, contract=SCALE, split=name, options=_options(number))


def scores_page(name: str, number: int) -> Results:
    """A page with judges that state probabilities."""
    rng = np.random.default_rng([list(DESIGNS).index(name), number, 1])
    design = DESIGNS[name](rng)
    truth, skill = latent(design, rng), 0.7
    gold = truth > 0
    cases = [
        Case(f"c{at}", {}, SCALE.labels[int(label)], group=f"g{group}")
        for at, (label, group) in enumerate(zip(gold, design.group, strict=True))
    ]

    def stated(of: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(norm.cdf(skill * seen(of, skill, design, rng) / np.sqrt(1 - skill**2)))

    judges = {"a": stated(truth), "b": stated(truth), GUESSER: stated(latent(design, rng))}
    judgements = {
        judge: [Verdict(f"c{at}", SCALE.labels[int(p >= 0.5)], score=float(p)) for at, p in enumerate(values)]
        for judge, values in judges.items()
    }
    scored = ScoredCases("probability")
    return summarise(cases, judgements, contract=SCALE, split=name, options=_options(number), scored=scored)


def _options(number: int) -> AnalysisOptions:
    return AnalysisOptions(level=LEVEL, n_resamples=N_RESAMPLES, seed=number)


def claimed(results: Results) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Kind, judges and statistic of what a page claims, or shows as corrected p below 5 %."""
    for claim in results.claims:
        if claim.claimed or (claim.adjusted_p is not None and claim.adjusted_p < 1 - LEVEL):
            yield claim.kind, claim.about, claim.what


def is_false(kind: str, about: tuple[str, ...], what: str) -> bool:
    """Whether a claim is false. The worse judge does differ, the guesser ranks by chance and is not calibrated."""
    if kind == "chance":
        return about == (GUESSER,)
    if kind == "annotators":
        return about == (WORSE,)
    if kind == "calibration":
        return about != (GUESSER,)
    return not {WORSE, GUESSER} & set(about)


SENTENCES = {
    "ceiling": r"is (?:above|below) the human ceiling",
    "annotators": r"^By the alternative annotator test .* may take the place",
    "chance": r"is (?:above|below) chance",
    "calibration": r"are too (?:high|low)|is (?:overconfident|underconfident|miscalibrated)",
    "difference": r"points (?:more|less) accurate than|is (?:higher|lower) than that of",
}


def unclaimed(results: Results) -> list[str]:
    """Kinds of which the page has more claiming sentences than claims behind them."""
    said = [*results.statements, *(results.audit.statements if results.audit else ())]
    in_words = Counter(kind for line in said for kind, pattern in SENTENCES.items() if re.search(pattern, line))
    behind = Counter(claim.kind for claim in results.claims if claim.claimed)
    return [f"sentence: {kind}" for kind, n in in_words.items() if n > behind[kind]]


def one_set(name: str, number: int) -> dict[str, object]:
    """A set as a line of the file: half of the sets have several experts, half have scores."""
    gc.freeze()
    leave_out_what_no_claim_reads()
    is_experts = number % 2 == 0
    results = (experts_page if is_experts else scores_page)(name, number)
    rows = list(claimed(results))
    false = {f"{kind} {what}" for kind, about, what in rows if is_false(kind, about, what)}
    kinds = sorted(false | {*unclaimed(results)})
    found = [
        label
        for label, is_found in {
            "worse below ceiling": ("ceiling", (WORSE,), "accuracy") in rows,
            "equal may replace": ("annotators", ("a",), "winning_rate") in rows,
            "ranks above chance": ("chance", ("a",), "auc") in rows,
        }.items()
        if is_found
    ]
    kind = "experts" if is_experts else "scores"
    return {"design": name, "set": number, "page": kind, "kinds": kinds, "found": found, "tests": len(results.claims)}


def table(lines: list[dict[str, object]]) -> str:
    """The table in Markdown."""
    parts = ["| design | page | sets | tests | any false, % | false | found, % |", "|---|---|---|---|---|---|---|"]
    for name in DESIGNS:
        for kind in ("experts", "scores"):
            of = [line for line in lines if line["design"] == name and line["page"] == kind]
            if of:
                parts.append(_row(name, kind, of))
    parts.append(_row("all", "", lines))
    return "\n".join(parts)


def _row(name: str, kind: str, of: list[dict[str, object]]) -> str:
    n = len(of)
    false = Counter(str(one) for line in of for one in line["kinds"])  # type: ignore[attr-defined]
    found = Counter(str(one) for line in of for one in line["found"])  # type: ignore[attr-defined]
    shares = ", ".join(f"{one} {100 * count / n:.0f}" for one, count in sorted(found.items())) if kind else ""
    share = f"{100 * sum(bool(line['kinds']) for line in of) / n:.1f}"
    kinds = ", ".join(f"{one} {count}" for one, count in false.items())
    n_tests = np.mean([float(str(line["tests"])) for line in of])
    return f"| {name} | {kind} | {n} | {n_tests:.0f} | {share} | {kinds} | {shares} |"


def main() -> None:
    """Makes the sets that are missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="of all designs together")
    parser.add_argument("--out", type=Path, default=Path("false_claims_experts.jsonl"))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    made = {(line["design"], line["set"]) for line in lines}
    wanted = [(name, number) for number in range(options.sets // len(DESIGNS)) for name in DESIGNS]
    started = time.monotonic()
    with ProcessPoolExecutor(options.processes) as pool, options.out.open("a") as file:
        for done in as_completed([pool.submit(one_set, *one) for one in wanted if one not in made]):
            lines.append(done.result())
            file.write(json.dumps(lines[-1]) + "\n")
            file.flush()
    print(table([line for line in lines if (line["design"], line["set"]) in set(wanted)]))
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
