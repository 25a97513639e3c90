"""How many pages claim something false where nothing is true, and how often what is true is found.

    python benchmarks/false_claims.py [--sets 400] [--power-sets 100] [--design NAME ...] [--out false_claims.jsonl]

Every set is made by a design, goes through `summarise` and the probes as an evaluation does, and is read as a page: a
claim is a sentence that says so, a table's "yes", or a corrected p below 5 %. In a null set judges and a baseline are
equally accurate on every generator, their confidences are calibrated, one more judge guesses, no family is favoured and
the probe moves groups one way as often as the other; rows of a group resemble each other in the experts' labels and in
what is hard. In an effect set one judge is 10 points better, one is 15 points worse on one generator, one states
confidences 10 points too high and calls half of its own family's negatives positive, the guesser is right on 60 %, and
the probe moves a tenth of the verdicts towards positive.

Sets that are in --out already are not made again. Two processes; the sets depend on their number alone. Intervals and
tables that no claim reads are left out, which makes a set in half the time.
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
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.stats import norm

from medjudge.metrics import audit, estimates
from medjudge.metrics.baselines import Baselines
from medjudge.metrics.classification import Outcomes
from medjudge.metrics.intervals import Estimate, clustered_wilson
from medjudge.metrics.probes import JudgeProbes, Probes, flip_rate, probe_result
from medjudge.metrics.result_types import Results
from medjudge.metrics.summary import AnalysisOptions, summarise, with_claims
from medjudge.records import Case, Verdict
from medjudge.tasks.equivalence import EquivalenceContract

LEVEL = 0.95
GUESSER, BASELINE = "guesser", "rival"
KINDS = ("difference", "chance", "heterogeneity", "calibration", "self-preference", "probe")
N_RESAMPLES = 200
"""Of bootstrap intervals: no claim needs more, since its p decides first."""


@dataclass(frozen=True)
class Rows:
    """The rows that a set's judges judge."""

    group: NDArray[np.int64]
    generator: NDArray[np.int64]
    correlation: float
    """Of two rows of a group, in what makes them hard and in the expert's label, on the normal scale."""
    n_judges: int = 2
    is_sorted: bool = False
    """Whether the file is sorted by what makes groups hard, and then by generator."""


def few_rows(rng: np.random.Generator) -> Rows:
    """One row per group; generators of 150, 12, 5, 3, 2 and 1 rows."""
    return Rows(np.arange(173), np.repeat(np.arange(6), [150, 12, 5, 3, 2, 1]), 0.0)


def five_judges(rng: np.random.Generator) -> Rows:
    """Five judges on 30 groups of 20 rows; four generators within every group."""
    return Rows(np.repeat(np.arange(30), 20), np.arange(600) % 4, 0.5, n_judges=5)


def clustered(rng: np.random.Generator) -> Rows:
    """60 groups of 10 rows that resemble each other closely; every group by one of four generators."""
    group = np.repeat(np.arange(60), 10)
    return Rows(group, group % 4, 0.7)


def few_groups(rng: np.random.Generator) -> Rows:
    """3, 4, 5 or 6 groups of 40 rows; three generators within every group."""
    group = np.repeat(np.arange(int(rng.integers(3, 7))), 40)
    return Rows(group, np.arange(len(group)) % 3, 0.4)


def unequal(rng: np.random.Generator) -> Rows:
    """40 groups of 1 to 150 rows, most of them small; generators at random."""
    sizes = np.clip(rng.lognormal(2.0, 1.2, 40).astype(int), 1, 150)
    group = np.repeat(np.arange(40), sizes)
    return Rows(group, rng.integers(0, 3, len(group)), 0.5)


def sorted_file(rng: np.random.Generator) -> Rows:
    """600 groups of 2 rows, sorted by how hard they are and by generator."""
    group = np.repeat(np.arange(600), 2)
    return Rows(group, rng.integers(0, 3, 600)[group], 0.5, is_sorted=True)


DESIGNS: dict[str, Callable[[np.random.Generator], Rows]] = {
    "few rows per generator": few_rows,
    "five equal judges": five_judges,
    "clustered": clustered,
    "3 to 6 groups": few_groups,
    "unequal groups": unequal,
    "sorted file": sorted_file,
}


def page(name: str, number: int, *, effect: bool) -> Results:
    """Set `number` of a design as a page's results."""
    rng = np.random.default_rng([list(DESIGNS).index(name), number, effect])
    rows = DESIGNS[name](rng)
    n, n_groups = len(rows.group), int(rows.group.max()) + 1
    hard = rng.standard_normal(n_groups)

    def latent(own_share: float) -> NDArray[np.float64]:
        """Standard normal, alike within groups; groups partly hard for every judge, partly for this one."""
        of_group = np.sqrt(1 - own_share) * hard + np.sqrt(own_share) * rng.standard_normal(n_groups)
        return np.sqrt(rows.correlation) * of_group[rows.group] + np.sqrt(1 - rows.correlation) * rng.standard_normal(n)

    gold = norm.cdf(latent(1.0)) < 0.4
    order = np.lexsort((rows.generator, hard[rows.group])) if rows.is_sorted else np.arange(n)
    ids = [f"{row:05d}" for row in range(n)]
    cases = [
        Case(
            ids[i],
            {"q": "x"},
            str(int(gold[i])),
            group=f"g{rows.group[i]}",
            slices={"generator": f"m{rows.generator[i]}"},
        )
        for i in order
    ]

    def verdicts(right: NDArray[np.bool_], said: NDArray[np.float64]) -> list[Verdict]:
        label = np.where(right, gold, ~gold)
        return [Verdict(ids[i], str(int(label[i])), float(said[i])) for i in order]

    def judge(number: int) -> list[Verdict]:
        confidence = np.round(rng.choice([0.55, 0.65, 0.75, 0.85, 0.95], n) + rng.uniform(-0.04, 0.04, n), 2)
        if effect and number == rows.n_judges - 1:
            confidence = np.minimum(confidence + 0.1, 0.99)
        share, said = confidence, confidence
        if effect and number == 0:
            said = np.minimum(confidence + 0.1, 1.0)
            share = np.where((rows.generator == 0) & ~gold, 0.5, share)
        if effect and number == 1 % rows.n_judges:
            share = share - np.where(rows.generator == 0, 0.15, 0.0)
        return verdicts(norm.cdf(latent(0.5)) < share, said)

    judges = {f"judge{k}": judge(k) for k in range(rows.n_judges)}
    guess = rng.random(n) < (0.6 if effect else 0.5)
    judges[GUESSER] = verdicts(guess, np.full(n, 0.5))
    families = {"judge0": "own", "m0": "own"} | {f"m{k}": f"other{k}" for k in range(1, int(rows.generator.max()) + 1)}
    results = summarise(
        cases,
        judges,
        contract=EquivalenceContract(),
        split=name,
        baselines=Baselines({BASELINE: judge(-1)}),
        options=AnalysisOptions(families=families, level=LEVEL, n_resamples=N_RESAMPLES, seed=number),
    )
    probes = {name: _probe(said, cases, rng, effect) for name, said in judges.items() if name != GUESSER}
    return with_claims(results.model_copy(update={"probes": Probes(judges=probes, skipped={})}))


def _probe(said: list[Verdict], cases: list[Case], rng: np.random.Generator, effect: bool) -> JudgeProbes:
    """A probe that moves a fifth of the groups' verdicts up or down, group by group."""
    groups = {case.case_id: case.group for case in cases}
    # As likely up as verdicts are positive: then as many move up as down, whatever the share of positives.
    positive = 1.0 if effect else float(np.mean([one.label == "1" for one in said]))
    way = {group: "1" if rng.random() < positive else "0" for group in sorted(set(groups.values()))}
    moves = rng.random(len(said)) < 0.2
    after = [
        Verdict(one.case_id, way[groups[one.case_id]]) if move else one for one, move in zip(said, moves, strict=True)
    ]
    found = flip_rate(
        {one.case_id: one for one in said},
        {one.case_id: one for one in after},
        {one.case_id: {"0": "0", "1": "1"} for one in said},
        groups,
        positive="1",
        level=LEVEL,
        n_resamples=N_RESAMPLES,
        rng=rng,
    )
    flips = {"padding": probe_result(found, title="padding", change="two sentences", n_cases=len(said))}
    return JudgeProbes(flips=flips, consistency=None, not_asked={})


SENTENCES = {
    "difference": r"points (?:more|less) accurate than",
    "chance": r"is (?:above|below) chance",
    "heterogeneity": r"(?<!shown to )(?:differs|differ) between generators",
    "calibration": r"is (?:overconfident|underconfident|miscalibrated)",
    "self-preference": r"favours its own family",
    "probe": r"(?:towards|away from) positive by",
}


def claimed(results: Results) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Kind, judges and statistic of everything that the page claims, or shows as corrected p below 5 %."""
    for claim in results.claims:
        if claim.claimed or (claim.adjusted_p is not None and claim.adjusted_p < 1 - LEVEL):
            yield claim.kind, claim.about, claim.what


def sentences(results: Results) -> Counter[str]:
    """Kind -> sentences that claim, read as text."""
    said = [*results.statements, *(results.audit.statements if results.audit else ())]
    said += results.probes.statements if results.probes else ()
    return Counter(kind for line in said for kind, pattern in SENTENCES.items() if re.search(pattern, line))


def is_false(kind: str, about: tuple[str, ...]) -> bool:
    """Whether a null page's claim is false: the guesser does differ from the judges, and they from chance."""
    if kind == "difference":
        return GUESSER not in about
    return kind != "chance" or about == (GUESSER,)


def false_kinds(results: Results) -> list[str]:
    """The kinds of false claims on a null page. A sentence that claims without a claim behind it is false, too."""
    rows = list(claimed(results))
    kinds = {kind for kind, about, _ in rows if is_false(kind, about)}
    behind = Counter(kind for kind, _, _ in rows)
    kinds |= {f"sentence: {kind}" for kind, n in sentences(results).items() if n > behind[kind]}
    return sorted(kinds)


def true_kinds(results: Results) -> list[str]:
    """The kinds of the effects that an effect page finds."""
    rows = set(claimed(results))
    best = f"judge{len(results.of_role('model')) - 2}"
    looked_for = {
        "difference": any(kind == "difference" and best in about and what == "accuracy" for kind, about, what in rows),
        "chance": ("chance", (GUESSER,), "accuracy") in rows,
        "heterogeneity": ("heterogeneity", ("judge1",), "accuracy") in rows,
        "calibration": ("calibration", ("judge0",), "direction") in rows,
        "self-preference": ("self-preference", ("judge0",), "positive_rate_error") in rows,
        "probe": any(kind == "probe" for kind, _, _ in rows),
    }
    return [kind for kind, is_found in looked_for.items() if is_found]


def leave_out_what_no_claim_reads() -> None:
    """Statistics with intervals but accuracy's, tables by generator, thresholds and who waits for a person."""

    def accuracy_alone(outcomes: Outcomes, *, level: float, **_: object) -> dict[str, Estimate]:
        return {"accuracy": clustered_wilson(outcomes.correct, outcomes.groups, level=level)}

    vars(estimates).update(agreement_estimates=accuracy_alone)
    vars(audit).update(generator_table=lambda *_, **__: [], _abstention=lambda *_: {}, MAX_ERRORS=())


def one_set(name: str, number: int, effect: bool) -> dict[str, object]:
    """A set as a line of the file."""
    gc.freeze()  # statsmodels collects garbage at every correction
    leave_out_what_no_claim_reads()
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    results = page(name, number, effect=effect)
    kinds = true_kinds(results) if effect else false_kinds(results)
    return {"design": name, "set": number, "effect": effect, "kinds": kinds, "n_tests": len(results.claims)}


def tables(lines: list[dict[str, object]]) -> str:
    """The two tables in Markdown: false claims in null sets, claims of true effects."""
    parts = []
    for effect, title in (
        (False, "Null sets: share of pages with a false claim, %"),
        (True, "Effect sets: share found, %"),
    ):
        parts.append(
            f"{title}\n\n| design | sets | tests | any | {' | '.join(KINDS)} |\n|---|{'---|' * (len(KINDS) + 3)}"
        )
        for name in DESIGNS:
            of = [line for line in lines if line["design"] == name and line["effect"] == effect]
            if not of:
                continue
            n = len(of)
            by_kind = Counter(str(kind).removeprefix("sentence: ") for line in of for kind in set(line["kinds"]))
            cells = [f"{100 * by_kind[kind] / n:.1f}" for kind in KINDS]
            any_kind = f"{100 * sum(bool(line['kinds']) for line in of) / n:.1f}"
            n_tests = np.mean([line["n_tests"] for line in of])
            parts.append(f"| {name} | {n} | {n_tests:.0f} | {any_kind} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    """Makes the sets that are missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--power-sets", type=int, default=100)
    parser.add_argument("--design", nargs="*", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--out", type=Path, default=Path("false_claims.jsonl"))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    made = {(line["design"], line["set"], line["effect"]) for line in lines}
    wanted = [
        (name, number, effect)
        for effect, n_sets in ((False, options.sets), (True, options.power_sets))
        for number in range(n_sets)
        for name in options.design
    ]
    started = time.monotonic()
    with ProcessPoolExecutor(options.processes) as pool, options.out.open("a") as file:
        for done in as_completed([pool.submit(one_set, *one) for one in wanted if one not in made]):
            lines.append(done.result())
            file.write(json.dumps(lines[-1]) + "\n")
            file.flush()
    print(tables([line for line in lines if (line["design"], line["set"], line["effect"]) in set(wanted)]))
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
