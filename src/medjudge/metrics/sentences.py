"""What the tests support, in plain words. No sentence here claims more than `metrics.claims` decides.

Every p in a sentence is corrected for all tests of the page, and counts groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medjudge.metrics.claims import differs_from_chance, enough_groups, find_claim, is_claimed, is_clear, n_tests
from medjudge.metrics.coverage import coverage_sentences, prompt_sentences, shared_sentences
from medjudge.metrics.expert_sentences import expert_sentences
from medjudge.metrics.judge_pairs import best_model
from medjudge.metrics.probes import AttackResult, ConsistencyResult, ProbeResult, Probes
from medjudge.metrics.result_types import (
    Claim,
    ComparisonResult,
    DifferenceResult,
    Kind,
    ModelResult,
    Results,
    UnpairedResult,
)
from medjudge.metrics.score_sentences import score_sentences
from medjudge.metrics.wording import counted, leakage_line, p_value, percent, signed, with_ends
from medjudge.records import AdapterStep

FEW_GROUPS = 30
"""Below this many groups an interval rests on few observations, and says so; its method allows for it."""


def make_statements(results: Results) -> list[str]:
    """The sentences that a report begins with, most important first."""
    sentences = [
        " ".join([_compared(comparison, results), *shared_sentences(comparison)]) for comparison in results.comparisons
    ]
    sentences += [
        unpaired_statement(one, find_claim(results.claims, "difference", (one.a, one.b), "accuracy"))
        for one in results.unpaired
    ]
    answering = {name: model for name, model in results.of_role("model").items() if model.n_answered}
    sentences += [_against_chance(name, model, results) for name, model in answering.items()]
    sentences += expert_sentences(results)
    sentences += score_sentences(results)
    sentences += _correction(results)
    sentences += _one_label_only(results)
    sentences += coverage_sentences(results)
    sentences += prompt_sentences(results)
    sentences += _rank_sweeps(results)
    sentences += _scope(results)
    sentences.append(leakage_line(results))
    return sentences


def _compared(comparison: ComparisonResult, results: Results) -> str:
    accuracy, macro = comparison.differences["accuracy"], comparison.differences.get("macro_f1")
    value = accuracy.value or 0.0
    if comparison.kind == "baseline":
        is_best = comparison.a == best_model(results.models, "model")
        a = f"the most accurate model on these rows ({comparison.a})" if is_best else comparison.a
        b = f"the most accurate baseline ({comparison.b})"
    else:
        a, b = comparison.a, comparison.b
    if comparison.mcnemar.only_a + comparison.mcnemar.only_b == 0:
        sentence = f"{a} and {b} are right and wrong on the same cases (n = {comparison.n:,})"
    else:
        test = f"{_p_of(results, 'difference', (comparison.a, comparison.b))}n = {comparison.n:,}"
        if not is_clear(comparison, results):
            interval = _interval(accuracy.low, accuracy.high, results.level)
            sentence = f"{a} is not distinguishable from {b} in accuracy: {signed(value)} points ({interval}{test})"
        elif value > 0:
            interval = _interval(accuracy.low, accuracy.high, results.level)
            sentence = f"{a} is {value:.1f} points more accurate than {b} ({interval}{test})"
        else:  # the ends turn round with the sign
            interval = _interval(accuracy.high, accuracy.low, results.level, sign=-1)
            sentence = f"{a} is {-value:.1f} points less accurate than {b} ({interval}{test})"
    if macro is not None and macro.value is not None:
        sentence += f"; macro-F1 {signed(macro.value)} points{_macro_ends(comparison, macro, results)}"
    if comparison.kind == "baseline" and is_best:  # `coverage.BASELINE`; a model's name keeps its case
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + "."


def unpaired_statement(one: UnpairedResult, claim: Claim | None) -> str:
    """What two judges on different cases show. claim: the test, corrected with the others of its page."""
    points = 100 * (one.accuracy_a - one.accuracy_b)
    both = (
        f"{one.a} ({percent(one.accuracy_a)} right, n = {one.n_a:,}) and {one.b} ({percent(one.accuracy_b)}, "
        f"n = {one.n_b:,}) share no case"
    )
    p = one.p if claim is None or claim.adjusted_p is None else claim.adjusted_p
    if claim is not None and claim.claimed:
        how = "more" if points > 0 else "less"
        return (
            f"{both}: on its own cases {one.a} is {abs(points):.1f} points {how} accurate ({one.method}, "
            f"{p_value(p)}). Cases of the two sets may differ, too."
        )
    return f"{both}: their accuracies are not distinguishable, {points:+.1f} points ({one.method}, {p_value(p)})."


def _macro_ends(comparison: ComparisonResult, macro: DifferenceResult, results: Results) -> str:
    """The interval of a difference in macro-F1; one that leaves out zero without a claim says that it is none."""
    if macro.low is None or macro.high is None or macro.low >= macro.high:
        return ""
    ends = f"{macro.low:.1f} to {macro.high:.1f}"
    looks_clear = macro.low > 0 or macro.high < 0
    claimed = is_claimed(results, "difference", (comparison.a, comparison.b), "macro_f1")
    return f" ({ends}; not shown to differ)" if looks_clear and not claimed else f" ({ends})"


def _p_of(results: Results, kind: Kind, about: tuple[str, ...]) -> str:
    """The corrected p of a test of accuracy, with a comma for what follows; empty where none was made."""
    claim = find_claim(results.claims, kind, about, "accuracy")
    return "" if claim is None or claim.adjusted_p is None else f"{p_value(claim.adjusted_p)}, "


def _correction(results: Results) -> list[str]:
    n = n_tests(results.claims)
    if not n:
        return []
    family = "" if n == 1 else f" and corrected for the {n:,} tests of this page (Holm)"
    return [f"Every p is computed over groups of cases{family}. A difference that is not shown may still exist."]


def _against_chance(name: str, model: ModelResult, results: Results) -> str:
    accuracy, chance = model.metrics["accuracy"], results.chance
    level = f"chance ({percent(chance, 1)})"
    start = f"The accuracy of {name}, {with_ends(accuracy)},"
    p = _p_of(results, "chance", (name,))
    if not differs_from_chance(name, results):
        if model.n_unparsed and accuracy.high is not None and accuracy.high < chance:
            answered = model.metrics["accuracy_on_schema"]
            return (
                f"{start} counts {counted(model.n_unparsed, 'case')} without a verdict as wrong; of the "
                f"{model.n_answered:,} answered, {with_ends(answered)} are right: not shown to be below {level}."
            )
        claim = find_claim(results.claims, "chance", (name,), "accuracy")
        if claim is not None and claim.adjusted_p is not None and claim.adjusted_p < 1 - results.level:
            is_few = not enough_groups(claim.n_groups, results.level)
            why = f"there are only {claim.n_groups} groups" if is_few else "the interval includes it"
            return f"{start} is not shown to differ from {level}: {p}n = {model.n:,}, but {why}."
        return f"{start} is not distinguishable from {level}, {p}n = {model.n:,}."
    if (accuracy.value or 0.0) > chance:
        return f"{start} is above {level}, {p}n = {model.n:,}."
    answered = model.metrics["accuracy_on_schema"]
    rest = f"; of the {model.n_answered:,} answered, {percent(answered.value)} are right" if model.n_unparsed else ""
    return f"{start} is below {level}, {p}n = {model.n:,}{rest}."


def _one_label_only(results: Results) -> list[str]:
    """Models that give one and the same label to whatever they are asked: an accuracy that is a prevalence."""
    sentences = []
    for name, model in results.of_role("model").items():
        given = [
            label
            for label, count in zip(model.confusion.columns, _column_sums(model), strict=True)
            if count and label in results.labels
        ]
        if len(given) == 1 and model.n - model.n_unparsed > 1:
            every = "every case" if not model.n_unparsed else "every case that it answers readably"
            sentences.append(
                f"{name} answers {given[0]!r} to {every}: constant prediction. Its accuracy on these is the share of "
                "that label among the experts' labels."
            )
    return sentences


def _column_sums(model: ModelResult) -> list[int]:
    return [sum(column) for column in zip(*model.confusion.counts, strict=True)]


def rank_sweep(steps: Mapping[str, AdapterStep]) -> str | None:
    """What else than the rank differs between adapters that one stage trained; None if nothing does.

    steps: model name -> its adapter. Silent where all ranks agree, and where steps agree within 1 %.
    """
    if len({step.r for step in steps.values()}) < 2:
        return None
    # Adam moves each entry of A and B by about the learning rate, so scale x rank sizes a step of their product.
    small, large = min(steps, key=lambda name: steps[name].size), max(steps, key=lambda name: steps[name].size)
    ratio = steps[large].size / steps[small].size
    if ratio < 1.01:
        return None
    adapters = ", ".join(f"{name} (rank {step.r}, scale {step.scale:.3g})" for name, step in steps.items())
    return (
        f"The adapters {adapters} differ in more than rank: a step of {large} (learning rate x scale x rank) is "
        f"{ratio:.1f} times that of {small}. A difference between them may come from the learning rate: keep that "
        "product equal, or tune the learning rate at every rank."
    )


def _rank_sweeps(results: Results) -> list[str]:
    """A sentence per stage whose adapters differ in rank and in step; stages that build on each other are no sweep."""
    by_stage: dict[str, dict[str, AdapterStep]] = {}
    for name, model in results.of_role("model").items():
        if model.lineage and model.lineage.get("adapter"):
            stage = by_stage.setdefault(model.lineage["stage"], {})
            stage[name] = AdapterStep(**model.lineage["adapter"])
    return [sentence for steps in by_stage.values() if (sentence := rank_sweep(steps))]


def _scope(results: Results) -> list[str]:
    groups = "" if results.n_groups == results.n_cases else f" in {counted(results.n_groups, 'group')}"
    sentences = [f"Measured on {counted(results.n_cases, 'case')}{groups} of the split {results.split!r}."]
    if results.n_without_gold:
        sentences.append(f"Left out: {counted(results.n_without_gold, 'case')} without an expert label.")
    if results.n_groups < 2:
        sentences.append("All cases belong to one group: no interval can be given.")
    elif results.n_groups < FEW_GROUPS:
        sentences.append(f"There are only {results.n_groups} groups: the intervals are rough.")
    return sentences


def _interval(low: float | None, high: float | None, level: float, *, sign: int = 1) -> str:
    """The opening of a bracket; empty where there is no interval, or one without width, which says nothing."""
    if low is None or high is None or low == high:
        return ""
    return f"{100 * level:g} % interval {sign * low:.1f} to {sign * high:.1f}; "


def with_probe_statements(probes: Probes, claims: Sequence[Claim]) -> Probes:
    """The probes with what they say in words, judge by judge."""
    judges = {}
    for name, judge in probes.judges.items():
        statements = [
            flip_statement(name, flips, find_claim(claims, "probe", (name,), probe))
            for probe, flips in judge.flips.items()
        ]
        statements += [consistency_statement(name, judge.consistency)] if judge.consistency is not None else []
        judges[name] = judge.model_copy(update={"statements": tuple(statements)})
    return probes.model_copy(update={"judges": judges})


def flip_statement(judge: str, result: ProbeResult, shift_claim: Claim | None = None) -> str:
    """How often a probe changed a judge's mind, and which way where `shift_claim` may be claimed."""
    unread = (
        f"; {counted(result.n_became_unreadable, 'answer')} became unreadable" if result.n_became_unreadable else ""
    )
    probe, flips = result.title, result.flips
    if result.attack is not None:
        return f"{judge} under {probe!r}: {_attack_text(result.attack, shift_claim)}{unread}."
    if not flips.n or flips.value is None:
        return f"{judge} under {probe!r}: no case was answered readably both times{unread}."
    ends = "" if flips.low is None or flips.high is None else f" ({100 * flips.low:.1f} to {100 * flips.high:.1f})"
    sentence = f"{judge} under {probe!r}: {percent(flips.value)}{ends} of {counted(flips.n, 'verdict')} changed"
    labels = {*result.matrix, *(label for row in result.matrix.values() for label in row)}
    if len(labels) == 1:
        sentence += (
            f", all being {labels.pop()!r} before and after: where a judge gives one answer only, a probe shows little"
        )
    shift = result.to_positive
    if shift is not None and shift.value is not None and shift_claim is not None and shift_claim.claimed:
        if shift.value > 0:
            sentence += f", towards positive by {signed(100 * shift.value)} points on balance"
        else:
            sentence += f", away from positive by {signed(-100 * shift.value).removeprefix('+')} points on balance"
        sentence += f" ({p_value(shift_claim.adjusted_p or 0.0)})"
    return f"{sentence}{unread}."


def _attack_text(attack: AttackResult, claim: Claim | None) -> str:
    """What an attack got, and that it is more than chance where `claim` may be claimed."""
    got = attack.to_attacker
    if not got.n or got.value is None:
        return "no verdict that was readable both times had another label than the attacker's"
    ends = "" if got.low is None or got.high is None else f" ({100 * got.low:.1f} to {100 * got.high:.1f})"
    text = (
        f"{percent(got.value)}{ends} of {counted(got.n, 'verdict')} went to the attacker's label, "
        f"{percent(attack.to_other.value)} to another"
    )
    beyond = attack.beyond
    if claim is None or not claim.claimed or beyond is None or beyond.value is None:
        return text
    more = "more" if beyond.value > 0 else "less"
    points = signed(100 * abs(beyond.value)).removeprefix("+")
    return f"{text}; {points} points {more} than {attack.beside} changes at all ({p_value(claim.adjusted_p or 0.0)})"


def consistency_statement(judge: str, result: ConsistencyResult) -> str:
    """How often a sampled judge contradicts itself: flips without any probe."""
    apart = result.agreement
    if apart.value is None:
        return f"{judge}: self-consistency is undefined on these rows."
    ends = ""
    if apart.low is not None and apart.high is not None:
        ends = f" ({100 * (1 - apart.high):.1f} to {100 * (1 - apart.low):.1f})"
    return (
        f"{judge}, sampled {result.k} times at temperature {result.temperature:g}, contradicts itself in "
        f"{percent(1 - apart.value)}{ends} of pairs of answers to one case, n = {apart.n:,}; all {result.k} agree on "
        f"{percent(result.unanimous.value)} of the cases."
    )
