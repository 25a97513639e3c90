"""What a page may claim: every test that a sentence, a table or a figure could turn into a claim, decided together.

A page with forty tests, each at 5 %, claims something false on most sets where nothing is true. So all of them are one
family, corrected by Holm's method, on p values that count groups. One rule decides: a test is claimed where its
corrected p is below 1 - level, the interval shown beside it (if there is one) leaves out the value that the hypothesis
names, and it rests on enough groups for a sign test to reject. Whatever puts a difference into words or marks it asks
here, and has no rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from medjudge.metrics.comparison import PERMUTATION, adjust_p
from medjudge.metrics.expert_results import ExpertsResult
from medjudge.metrics.group_tests import sign_test_floor
from medjudge.metrics.metric_result import TestResult, finite
from medjudge.metrics.result_types import Audit, Claim, ComparisonResult, Kind, ModelResult, Results
from medjudge.metrics.score_results import ScoresResult

PREVALENCE = "prevalence"
"""The rate that no judge changes: its differences between generators are tested once, for the rows alone."""
AUC = "auc"
PROBABILITY = "probability"
"""Of scores that are probabilities: their mean against the share of positives."""
ANSWERED = "answered"
"""The share of cases with a verdict, tested where some have none."""


def claim_of(
    kind: Kind,
    about: tuple[str, ...],
    what: str,
    test: TestResult,
    *,
    interval: tuple[float | None, float | None] = (None, None),
    null: float = 0.0,
) -> Claim:
    """A test that awaits the others of its page: `decide` corrects it. interval: what is shown beside it."""
    low, high = interval
    return Claim(
        kind=kind,
        about=about,
        what=what,
        p=test.p,
        n_groups=test.n_groups,
        method=test.method,
        low=low,
        high=high,
        null=null,
    )


def tests_of(results: Results) -> list[Claim]:
    """Every test of these results that a page could turn into a claim; not yet corrected."""
    tests = _of_comparisons(results)
    for name, model in results.of_role("model").items():
        if model.chance_test is not None:
            ends = _ends_beside_chance(model, results.chance)
            tests.append(claim_of("chance", (name,), "accuracy", model.chance_test, interval=ends, null=results.chance))
    for one in results.unpaired:
        tests.append(claim_of("difference", (one.a, one.b), "accuracy", TestResult.model_validate(one)))
    if results.audit is not None:
        tests += _of_audit(results.audit)
    if results.scores is not None:
        tests += _of_scores(results.scores)
    if results.experts is not None:
        tests += _of_experts(results.experts)
    for name, judge in results.probes.judges.items() if results.probes is not None else ():
        for probe, flips in judge.flips.items():
            if flips.shift_test is not None and flips.to_positive is not None:
                ends = (flips.to_positive.low, flips.to_positive.high)
                tests.append(claim_of("probe", (name,), probe, flips.shift_test, interval=ends))
            attack = flips.attack
            if attack is not None and attack.beyond is not None and attack.beyond_test is not None:
                ends = (attack.beyond.low, attack.beyond.high)
                tests.append(claim_of("probe", (name,), probe, attack.beyond_test, interval=ends))
    return tests


def _ends_beside_chance(model: ModelResult, chance: float) -> tuple[float | None, float | None]:
    """The interval that decides with the test: that of accuracy. Below chance what was answered must be below it, too,
    for cases without a verdict count as wrong and show no knowledge to be worse than guessing."""
    accuracy = model.metrics["accuracy"]
    if not model.n_unparsed or (accuracy.value or 0.0) >= chance or accuracy.high is None:
        return accuracy.low, accuracy.high
    answered = model.metrics["accuracy_on_schema"]
    if not model.n_answered or answered.high is None:
        return chance, chance
    return accuracy.low, max(accuracy.high, answered.high)


def _of_comparisons(results: Results) -> list[Claim]:
    tests = []
    for one in results.comparisons:
        for what, test in one.tests.items():
            difference = one.differences.get(what)
            ends = (None, None) if difference is None else (difference.low, difference.high)
            if one.kind == "baseline" and difference is not None and test.p is not None:
                # The baseline was picked as the best of several on these rows: Bonferroni's correction for the choice
                # where it makes the difference look large. No model is picked: each has a test of the family.
                picked_from = 1 if (difference.value or 0.0) > 0 else len(results.of_role("baseline"))
                test = test.model_copy(update={"p": min(1.0, picked_from * test.p)})
            tests.append(claim_of("difference", (one.a, one.b), what, test, interval=ends))
    return tests


def _of_experts(experts: ExpertsResult) -> list[Claim]:
    tests = []
    for name, judge in experts.judges.items():
        ends = (judge.difference.low, judge.difference.high)
        tests.append(claim_of("ceiling", (name,), "accuracy", judge.test, interval=ends))
    for name, one in experts.alternative.items():
        tests.append(claim_of("annotators", (name,), "winning_rate", one.test))
    return tests


def _of_scores(scores: ScoresResult) -> list[Claim]:
    tests = []
    for name, judge in scores.judges.items():
        if judge.auc is not None and judge.auc_test is not None:
            ends = (judge.auc.low, judge.auc.high)
            tests.append(claim_of("chance", (name,), AUC, judge.auc_test, interval=ends, null=0.5))
        if judge.probabilities is not None:
            tests.append(claim_of("calibration", (name,), PROBABILITY, judge.probabilities.test))
    for one in scores.differences:
        ends = (one.difference.low, one.difference.high)
        tests.append(claim_of("difference", (one.a, one.b), AUC, one.test, interval=ends))
    return tests


def _of_audit(audit: Audit) -> list[Claim]:
    tests = []
    for pair in audit.pairs:
        tests.append(claim_of("difference", (pair.a, pair.b), "accuracy", TestResult.model_validate(pair)))
        for what, one in pair.tests.items():
            test = TestResult(p=one.p, n_groups=one.n_groups, method=PERMUTATION)
            ends = (one.difference.low, one.difference.high)
            tests.append(claim_of("difference", (pair.a, pair.b), what, test, interval=ends))
    shares: list[tuple[int, dict[str, float]]] = []
    for name, judge in audit.judges.items():
        for rate in judge.heterogeneity:
            test = TestResult.model_validate(rate)
            if rate.outcome != PREVALENCE:
                tests.append(claim_of("heterogeneity", (name,), rate.outcome, test))
            elif (rate.n, rate.rates) not in shares:  # no judge changes it: the same rows are tested once
                about = () if not shares else (name,)
                shares.append((rate.n, rate.rates))
                tests.append(claim_of("heterogeneity", about, rate.outcome, test))
        if judge.calibration is not None:
            both = {"ece": judge.calibration.ece_test, "direction": judge.calibration.direction_test}
            tests += [claim_of("calibration", (name,), what, one) for what, one in both.items() if one is not None]
        preference = judge.self_preference
        if preference is not None and preference.test is not None:
            gap = preference.positive_rate_error
            what = "positive_rate_error"
            tests.append(claim_of("self-preference", (name,), what, preference.test, interval=(gap.low, gap.high)))
    return tests


def decide(tests: Iterable[Claim], level: float) -> tuple[Claim, ...]:
    """The tests of one page, corrected together and decided. Of a test that occurs twice the first counts."""
    # A pair may be tested by two tables of a page; twice in the family, it would cost the others twice.
    once: dict[tuple[Kind, tuple[str, ...], str], Claim] = {}
    for test in tests:
        once.setdefault(_key(test.kind, test.about, test.what), test)
    family = list(once.values())
    adjusted = adjust_p({str(i): float("nan") if test.p is None else test.p for i, test in enumerate(family)})
    decided = []
    for i, test in enumerate(family):
        p = finite(adjusted[str(i)])
        claimed = p is not None and p < 1 - level and enough_groups(test.n_groups, level) and _leaves_out(test)
        decided.append(test.model_copy(update={"adjusted_p": p, "claimed": claimed}))
    return tuple(decided)


def n_tests(claims: Sequence[Claim]) -> int:
    """The size of the family: what could be tested."""
    return sum(claim.p is not None for claim in claims)


def find_claim(claims: Sequence[Claim], kind: Kind, about: tuple[str, ...], what: str) -> Claim | None:
    """The test of this page; None where it was not made. The two judges of a difference may come in either order."""
    wanted = _key(kind, about, what)
    return next((claim for claim in claims if _key(claim.kind, claim.about, claim.what) == wanted), None)


def is_claimed(results: Results, kind: Kind, about: tuple[str, ...], what: str) -> bool:
    """Whether a page of these results may claim it; never for results of a program that decided otherwise."""
    claim = find_claim(results.claims, kind, about, what)
    return claim is not None and claim.claimed


def is_clear(comparison: ComparisonResult, results: Results) -> bool:
    """Whether a page may say that the two judges' accuracies differ."""
    return is_claimed(results, "difference", (comparison.a, comparison.b), "accuracy")


def differs_from_chance(name: str, results: Results) -> bool:
    """Whether a page may say that a model's accuracy differs from guessing."""
    return is_claimed(results, "chance", (name,), "accuracy")


def enough_groups(n_groups: int, level: float) -> bool:
    """Whether groups that all agree could reject at all: 6 of them at 95 %."""
    return sign_test_floor(n_groups) < 1 - level


def _leaves_out(test: Claim) -> bool:
    return test.low is None or test.high is None or test.low > test.null or test.high < test.null


def _key(kind: Kind, about: tuple[str, ...], what: str) -> tuple[Kind, tuple[str, ...], str]:
    return kind, tuple(sorted(about)), what
