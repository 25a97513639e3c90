"""Sentences about who answered what: cases without a verdict, by kind and by slice; what two judges know apart from
what they answer; prompts that lost words; and the one sentence that a page begins with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medjudge.metrics.claims import differs_from_chance, is_claimed, is_clear
from medjudge.metrics.classification import ABSENT
from medjudge.metrics.judge_pairs import best_model
from medjudge.metrics.result_types import ComparisonResult, GeneratorResult, GuardResult, ModelResult, Results
from medjudge.metrics.wording import counted, leakage_line, listed, percent, signed, with_ends

KIND_WORDS = {
    "format": "unreadable",
    "schema": "unreadable",
    "truncated": "cut off",
    "refused": "refused",
    "failed": "failed",
    "tied": "tied",
    ABSENT: "absent",
}
"""Kind -> its word in tables and sentences."""
UNREADABLE = frozenset({"format", "schema", "truncated"})
MAX_VALUES = 3
"""Values of a slice that a sentence names."""
MAX_HEADLINES = 7
EVERY_ANSWER = "Every answer of "
BASELINE = "The most accurate model on these rows"
"""How the sentence on the best model and the best baseline begins."""


def kind_counts(unanswered: Mapping[str, int]) -> dict[str, int]:
    """Word -> count: the kinds as tables show them."""
    counts: dict[str, int] = {}
    for kind, count in unanswered.items():
        word = KIND_WORDS.get(kind, kind)
        counts[word] = counts.get(word, 0) + count
    return counts


def kinds_text(unanswered: Mapping[str, int]) -> str:
    """`{"failed": 3, "absent": 40}` -> "3 failed, 40 absent"."""
    return ", ".join(f"{count:,} {word}" for word, count in kind_counts(unanswered).items())


def kinds_under(unanswered: Mapping[str, int]) -> list[str]:
    """The lines under a number of cases without a verdict: the kind alone where there is one, else each counted."""
    counts = kind_counts(unanswered)
    return list(counts) if len(counts) == 1 else [f"{count:,} {word}" for word, count in counts.items()]


def outcome_sentence(results: Results) -> str:
    """The outcome in one sentence: the model that is right most often, of how many, and what that is beside others."""
    models = results.of_role("model")
    name = best_model(results.models, "model")
    if name is None:
        return "No model was measured."
    model = models[name]
    rank = _rank(name, results) if len(models) > 1 and _same_cases(results) else ""
    answered = ""
    if model.n_unparsed:
        answered = f" ({model.n_answered:,} of {model.n:,} answered, the others count as wrong)"
    sentence = (
        f"{name} gives the experts' label in {with_ends(model.metrics['accuracy'])} of "
        f"{counted(model.n, 'case')}{answered}{rank}"
    )
    if not model.n_answered:
        return (
            f"{name} has no verdict on any of {counted(model.n, 'case')}: its agreement with the experts could not be "
            "measured."
        )
    beside = [_against(name, model, results)]
    if results.reference is not None and results.reference != name:
        beside += [_against_reference(results.comparison(name, results.reference), results)]
    parts = [part for part in beside if part]
    return f"{sentence}: {' and '.join(parts)}." if parts else f"{sentence}."


def _rank(name: str, results: Results) -> str:
    """That a model is right most often, and of which other this is not shown."""
    models = results.of_role("model")
    others = sorted((other for other in models if other != name), key=lambda other: -models[other].n_right)
    if models[others[0]].n_right == models[name].n_right:
        return f", as many as {others[0]}"
    open_to = [other for other in others if not is_claimed(results, "difference", (name, other), "accuracy")]
    unlike = f" here, not shown to differ from {open_to[0]}" if open_to else ""
    return f", the highest of {len(models):,} models{unlike}"


def _same_cases(results: Results) -> bool:
    return all(model.n == results.n_cases for model in results.of_role("model").values())


def _against(name: str, model: ModelResult, results: Results) -> str:
    if not differs_from_chance(name, results):
        return f"not distinguishable from chance ({percent(results.chance)})"
    where = "above" if (model.metrics["accuracy"].value or 0.0) > results.chance else "below"
    return f"{where} chance ({percent(results.chance)})"


def _against_reference(comparison: ComparisonResult | None, results: Results) -> str:
    if comparison is None:
        return ""
    if not results.models[comparison.b].n_answered:
        return f"{comparison.b} has no verdict"
    value = comparison.differences["accuracy"].value or 0.0
    if not is_clear(comparison, results):
        return f"not distinguishable from {comparison.b} ({signed(value)} points)"
    return f"{abs(value):.1f} points {'above' if value > 0 else 'below'} {comparison.b}"


def headlines(results: Results, n: int = MAX_HEADLINES) -> list[str]:
    """The findings that a reader is to see first, in their order: comparisons, gaps, cut prompts and the leakage check.

    At most n of `results.statements`; the others are no less true.
    """
    lines = list(results.statements)
    gaps = {*coverage_sentences(results), *prompt_sentences(results)}
    gaps = {line for line in gaps if not line.startswith(EVERY_ANSWER)}
    last = leakage_line(results)
    first = lines[:2] + [line for line in lines if line.startswith(BASELINE)][:1]
    first += [line for line in lines if line in gaps][: n - len(first) - 1]
    chosen = list(dict.fromkeys([*first, *lines]))
    chosen = [line for line in chosen if line != last][: n - 1]
    return [line for line in lines if line in chosen] + [last]


def shared_sentences(comparison: ComparisonResult) -> list[str]:
    """What a difference is made of, where one of two judges left cases without a verdict: the cases that both
    answered, and how each fares on those that the other left."""
    shared, total = comparison.shared, comparison.differences["accuracy"].value or 0.0
    if shared is None:
        return []
    a, b = comparison.a, comparison.b
    if shared.n:
        difference = shared.differences["accuracy"]
        ends = ""
        if difference.low is not None and difference.high is not None and difference.low < difference.high:
            untested = "; not tested by itself" if difference.low > 0 or difference.high < 0 else ""
            ends = f" ({difference.low:.1f} to {difference.high:.1f}{untested})"
        sentences = [
            f"A case without a verdict counts as wrong here. On the {counted(shared.n, 'case')} that both answered, "
            f"{a} is right in {percent(shared.accuracy_a)} and {b} in {percent(shared.accuracy_b)}: "
            f"{signed(difference.value or 0.0)} points{ends}. Of the {signed(total)} points in all, "
            f"{signed(shared.points)} come from these cases and {signed(total - shared.points)} from those that only "
            "one of them answered."
        ]
    else:
        sentences = [
            "A case without a verdict counts as wrong here. No case was answered by both, so the difference comes from "
            "missing answers alone."
        ]
    alone = [
        f"on the {counted(n, 'case')} that only {name} answered, it is right in {percent(accuracy)}"
        for name, n, accuracy in (
            (a, shared.n_only_a, shared.accuracy_only_a),
            (b, shared.n_only_b, shared.accuracy_only_b),
        )
        if n
    ]
    if shared.n_neither:
        alone.append(f"{counted(shared.n_neither, 'case')} neither answered")
    if alone:
        text = "; ".join(alone)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    return sentences


def coverage_sentences(results: Results) -> list[str]:
    """How many cases have no verdict, why, and where they lie."""
    models = results.of_role("model")
    sentences = []
    for name, model in models.items():
        if model.n_unparsed:
            sentences.append(_unanswered(name, model))
            sentences += _concentrated(name, results)
        elif model.n_truncated:
            sentences.append(f"Of {name}'s {model.n:,} answers, {model.n_truncated:,} hit the token limit.")
        n_left_out = model.n_missing - model.unanswered.get(ABSENT, 0)
        if n_left_out and not any(name in (one.a, one.b) for one in results.unpaired):
            sentences.append(f"{name}: its numbers leave out {counted(n_left_out, 'case')} that it has no answer for.")
    readable = [name for name, model in models.items() if not model.n_unparsed]
    if readable:
        sentences.append(f"{EVERY_ANSWER}{listed(readable)} could be read.")
    if any(model.lenient for model in models.values()):
        sentences.append("Answers were read leniently: forms that the task contract does not name were accepted.")
    return sentences


def _unanswered(name: str, model: ModelResult) -> str:
    share = percent(model.n_unparsed / model.n)
    if set(model.unanswered) <= UNREADABLE:  # an earlier program noted no kinds
        parts = [f"{model.n_unparsed:,} of {name}'s {model.n:,} answers ({share}) could not be read and count as wrong"]
    else:
        kinds = kinds_text(model.unanswered)
        parts = [f"{model.n_unparsed:,} of {name}'s {model.n:,} cases ({share}) have no verdict and count as wrong"]
        parts[0] += f": {kinds}"
    reason, count = next(iter(model.unparsed_reasons.items()), ("", 0))
    parts += [f"commonest reason: {reason} ({count:,})"] if reason else []
    parts += [f"{model.n_truncated:,} hit the token limit"] if model.n_truncated else []
    answered = model.metrics["accuracy_on_schema"]
    if model.n_answered:
        parts.append(f"of the {model.n_answered:,} answered, {percent(answered.value)} are right")
    else:
        parts.append(f"its accuracy of {percent(model.metrics['accuracy'].value)} comes from missing verdicts alone")
    return "; ".join(parts) + "."


def _concentrated(name: str, results: Results) -> list[str]:
    """Which generators, and which values of other slices, the cases without a verdict belong to, where it is uneven."""
    if results.audit is None or name not in results.audit.judges:
        return []
    judge = results.audit.judges[name]
    sentences = []
    for slice_name, rows in {"generator": judge.generators, **judge.slices}.items():
        left = sorted((row for row in rows if row.n_unparsed), key=lambda row: (-row.n_unparsed / row.n, row.generator))
        if len(rows) < 2 or not left or len({row.n_unparsed / row.n for row in rows}) == 1:
            continue
        n_left = sum(row.n_unparsed for row in left)
        # All gaps in one value: that is a fault of one generator or site, and is said as such.
        if len(left) == 1 and n_left > 1:
            word = _word(rows)
            sentences.append(
                f"All {n_left:,} {word} of {name} belong to the {slice_name} {left[0].generator!r}: "
                f"{left[0].n - left[0].n_unparsed:,} of its {counted(left[0].n, 'case')} were answered."
            )
            continue
        shown = ", ".join(f"{row.generator!r} {row.n - row.n_unparsed:,} of {row.n:,}" for row in left[:MAX_VALUES])
        more = f"; {len(left) - MAX_VALUES:,} others lack some" if len(left) > MAX_VALUES else ""
        whole = len(rows) - len(left)
        rest = f"; {whole:,} without a gap" if whole else ""
        sentences.append(f"{name} answered, by {slice_name}: {shown}{more}{rest}.")
    return sentences


def _word(rows: Iterable[GeneratorResult]) -> str:
    """What to call cases without a verdict, after their kinds."""
    kinds = {kind for row in rows for kind in row.unanswered}
    return "unreadable answers" if kinds <= UNREADABLE else "cases without a verdict"


def guard_sentence(guard: GuardResult, n_cases: int) -> str | None:
    """What became of texts that look like a part of the prompt; None where there are none and the guard is on."""
    share = f"{guard.n_cases:,} of {counted(n_cases, 'case')}"
    if guard.is_on and not guard.n_cases:
        return None
    if guard.is_on:
        return (
            f"{share} hold text that looks like a part of the prompt, such as a closing tag, a heading or a turn's "
            f"mark: prompts show it broken by a sign ({counted(guard.n_pieces, 'place')}), so it ends no section. The "
            "file of verdicts says which."
        )
    return (
        f"The guard is off (`task.guard = false`): {share} hold text that looks like a part of the prompt, and it "
        "reached the models as it stands. These numbers are a measurement of that, not of the judges' worth."
    )


def prompt_sentences(results: Results) -> list[str]:
    """How many prompts lost words, and how the model does on whole and on cut ones."""
    limit = results.contract.get("settings", {}).get("max_prompt_tokens")
    to_fit = f" to fit `max_prompt_tokens` ({limit:,})" if isinstance(limit, int) else ""
    sentences = []
    for name, model in results.of_role("model").items():
        prompts = model.prompts
        if prompts is None or not prompts.n_shortened or prompts.shortened is None:
            continue
        whole = f"agreement on whole prompts {with_ends(prompts.whole)}, " if prompts.whole else "none was whole; "
        sentences.append(
            f"{name}: {prompts.n_shortened:,} of {counted(prompts.n, 'prompt')} were shortened{to_fit}, by "
            f"{counted(prompts.n_words_cut, 'word')} in all; {whole}"
            f"{'on cut ones' if prompts.whole else 'agreement on cut ones'} {with_ends(prompts.shortened)}."
        )
    return sentences
