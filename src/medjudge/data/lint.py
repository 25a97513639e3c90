"""What looks wrong in rows that can be read: findings for a person to look at, never a reason to stop.

Each rule is a heuristic, and its docstring says which. Findings carry case ids and counts, and no text.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medjudge.records import Case
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.normalise import normalise

N_SHOWN = 5
"""Case ids that a printed finding shows; JSON holds all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that looks wrong, with every case in which it does."""

    code: str
    """A key of `RULES`."""
    message: str
    count: int
    """Cases concerned."""
    case_ids: tuple[str, ...]
    """All of them; empty where the finding is about the set as a whole."""


@dataclass(frozen=True, slots=True)
class LintReport:
    """What lint saw in one set of cases."""

    n_cases: int
    labels: Mapping[str, int]
    """Cases per label, in the contract's order, zeros included."""
    n_unlabelled: int
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def lint_cases(cases: Sequence[Case], contract: TaskContract) -> LintReport:
    """Every rule of `RULES` on `cases`; rules for multiple choice only where the task is one."""
    labels = Counter(case.gold for case in cases)
    return LintReport(
        n_cases=len(cases),
        labels={label: labels[label] for label in contract.labels},
        n_unlabelled=labels[None],
        findings=tuple(finding for rule in RULES.values() for finding in rule(cases, contract)),
    )


Rule = Callable[[Sequence[Case], TaskContract], Iterator[Finding]]


def _cases(code: str, message: str, case_ids: Sequence[str]) -> Iterator[Finding]:
    """One finding for these cases; none for no cases."""
    unique = tuple(dict.fromkeys(case_ids))
    if unique:
        yield Finding(code, message, len(unique), unique)


def _by_field(code: str, message: str, hits: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """One finding per field; `{field}` in the message stands for it."""
    for field, case_ids in hits.items():
        yield from _cases(code, message.format(field=field), case_ids)


def _texts(cases: Sequence[Case]) -> Iterator[tuple[str, str, str]]:
    """(case id, field, text) over all inputs and reasons."""
    for case in cases:
        for field, text in case.inputs.items():
            yield case.case_id, field, text
        if case.reason:
            yield case.case_id, "reason", case.reason


def _labels(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """No label, one label only, labels that never occur, cases without a label."""
    counts = Counter(case.gold for case in cases)
    unlabelled = counts.pop(None, 0)
    if cases and not counts:
        yield Finding("no_labels", f"no case has a label (field {contract.gold_field!r})", unlabelled, ())
    elif unlabelled:
        ids = [case.case_id for case in cases if case.gold is None]
        yield from _cases("unlabelled", "no expert label: neither trained on nor scored", ids)
    if len(counts) == 1:
        message = f"all labels are {next(iter(counts))!r}: nothing to learn and nothing to measure"
        yield Finding("one_class", message, len(cases) - unlabelled, ())
    elif counts and (absent := [label for label in contract.labels if not counts[label]]):
        yield Finding("absent_labels", f"labels that never occur: {', '.join(absent)}", 0, ())


def _conflicting_labels(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """The same inputs, after normalisation, with different labels."""
    labels: dict[tuple[tuple[str, str], ...], set[str]] = defaultdict(set)
    keys = [tuple((field, normalise(text)) for field, text in sorted(case.inputs.items())) for case in cases]
    for case, key in zip(cases, keys, strict=True):
        if case.gold is not None:
            labels[key].add(case.gold)
    ids = [case.case_id for case, key in zip(cases, keys, strict=True) if len(labels[key]) > 1]
    yield from _cases("conflicting_labels", "the same inputs occur with another label", ids)


def _duplicate_options(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """Two options of a question that are the same after normalisation."""
    if contract.kind != "mcq":
        return
    ids = []
    for case in cases:
        options = [normalise(text) for field, text in case.inputs.items() if field in OPTION_FIELDS]
        if len(set(options)) < len(options):
            ids.append(case.case_id)
    yield from _cases("duplicate_options", "two options are the same text", ids)


def _short_fields(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """Fields without a letter or digit, and group fields (question, variant) of fewer than 5 such characters."""
    empty: dict[str, list[str]] = defaultdict(list)
    short: dict[str, list[str]] = defaultdict(list)
    for case_id, field, text in _texts(cases):
        n_signs = sum(map(str.isalnum, text[:200]))
        if n_signs == 0:
            empty[field].append(case_id)
        elif n_signs < 5 and field in contract.group_fields:
            short[field].append(case_id)
    yield from _by_field("empty_field", "{field} has no letter or digit", empty)
    yield from _by_field("short_field", "{field} has fewer than 5 letters and digits", short)


MOJIBAKE = re.compile(r"\ufffd|Ã[\x80-\xbf©¨ªª®´»¢§¹]|â€[™œ\x9d“”¦]|Â[°±²³µ·»«]")
"""The replacement character, and UTF-8 that was read as Latin-1 or Windows-1252."""


def _broken_encoding(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    hits: dict[str, list[str]] = defaultdict(list)
    for case_id, field, text in _texts(cases):
        if not text.isascii() and MOJIBAKE.search(text):
            hits[field].append(case_id)
    yield from _by_field("broken_encoding", "{field} holds characters of a wrong decoding", hits)


CJK = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"}
# fmt: off
SCRIPTS = {
    "LATIN", "CYRILLIC", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL",
    "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "ARMENIAN",
    "ETHIOPIC", "KHMER", "MONGOLIAN",
}
# fmt: on
"""First words of Unicode names. Greek is left out: alpha, beta and mu are part of medical text in any script."""


class _Script(dict[str, str]):
    """Letter -> its script, `""` for what belongs to none. Filled as letters are met."""

    def __missing__(self, character: str) -> str:
        word = unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""
        self[character] = found = "CJK" if word in CJK else word if word in SCRIPTS else ""
        return found


_SCRIPT = _Script()


def _mixed_scripts(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """A text in one script with stray letters of another: tokens that a generator dropped in, or look-alike letters."""
    hits: dict[str, list[str]] = defaultdict(list)
    met: dict[str, set[str]] = defaultdict(set)
    for case_id, field, text in _texts(cases):
        if text.isascii():
            continue
        scripts = {_SCRIPT[character] for character in set(text)} - {""}
        if len(scripts) > 1:
            hits[field].append(case_id)
            met[field] |= scripts
    for field, case_ids in hits.items():
        yield from _cases("mixed_scripts", f"{field} mixes scripts: {', '.join(sorted(met[field]))}", case_ids)


ENDINGS = ".!?…。؟\"'»”’)]}*`|:;%"
OPEN_ENDING = re.compile(
    r"(?:[,\-–—(\[/]|\b(?:a|an|the|of|and|or|to|in|with|for|is|are|was|by|de|du|des|la|le|les|un|une|et|ou|à|au|aux|en|"
    r"dans|par|pour|avec|est|sont|que|qui|der|die|das|und|oder|mit))$",
    re.IGNORECASE,
)
BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("«", "»"), ("“", "”"))
MIN_TRUNCATED_CHARS = 60


def _truncated(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """Texts that seem cut off.

    A text counts if it has at least 60 characters, does not end in punctuation, and one of these holds: it ends in an
    open comma, dash, article or conjunction; it leaves a bracket, `**` or code fence open; or it is one of at least
    five texts of its field that pile up at its greatest length (within 1 %), as a length limit leaves them. Where a
    field's texts mostly end without punctuation (titles, options), an open bracket says nothing. Questions of multiple
    choice are left out: "The drug of choice is" is a whole one.
    """
    texts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case_id, field, text in _texts(cases):
        if contract.kind != "mcq" or field == "reason":
            texts[field].append((case_id, text.rstrip()))
    hits: dict[str, list[str]] = {}
    for field, found in texts.items():
        unique = {text for _, text in found}
        longest = max(map(len, unique))
        piled = {text for text in unique if len(text) >= 0.99 * longest}
        at_limit = piled if len(piled) >= 5 and longest >= 2 * statistics.median(map(len, unique)) else set()
        prose = 2 * sum(text.endswith(tuple(ENDINGS)) for text in unique) > len(unique)
        cut = {text for text in unique if _is_cut(text, text in at_limit, prose)}
        hits[field] = [case_id for case_id, text in found if text in cut]
    yield from _by_field("truncated", "{field} seems cut off", hits)


def _is_cut(text: str, at_limit: bool, prose: bool) -> bool:
    if len(text) < MIN_TRUNCATED_CHARS or text.endswith(tuple(ENDINGS)):
        return False
    unclosed = any(text.count(opening) > text.count(closing) for opening, closing in BRACKETS)
    odd = text.count("**") % 2 == 1 or text.count("```") % 2 == 1
    return at_limit or OPEN_ENDING.search(text) is not None or (prose and (unclosed or odd))


def _gold_letters(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """Gold letters that are far from even: the commonest at least a quarter over its even share, and p < .001.

    The test is chi-square against even letters. A first or last letter that never occurs among 20 cases points to an
    index read from the wrong end (`first_index`).
    """
    counts = Counter(case.gold for case in cases if case.gold is not None)
    n_labelled, letters = counts.total(), contract.labels
    if contract.kind != "mcq" or n_labelled < 20 or len(counts) < 2:
        return
    for letter in (letters[0], letters[-1]):
        if not counts[letter]:
            message = (
                f"{letter} is never the answer: does the answer column count from 0 or from 1 (`task.first_index`)?"
            )
            yield Finding("first_index", message, n_labelled, ())
    from scipy.stats import chisquare

    letter, most = counts.most_common(1)[0]
    p_value = float(chisquare([counts[label] for label in letters]).pvalue)
    if most / n_labelled >= 1.25 / len(letters) and p_value < 0.001:
        message = (
            f"always answering {letter} is right in {most / n_labelled:.1%} of cases ({1 / len(letters):.0%} if even)"
        )
        yield Finding("letter_imbalance", message, most, ())


OPTION_FIELDS = ("opa", "opb", "opc", "opd")
NAMED_ANSWER = re.compile(
    r"\b(?:ans(?:wer)?|option|choice)\b\.?(?:\s+(?:is|are|option|choice))*\s*[:\-]*\s*['\"‘’“(\[]*([a-d])['\"‘’”)\]]*(?![\w'’])",
    re.IGNORECASE,
)
"""`Ans. is 'b'`, `Answer: (C)`, `the correct option is D`; not the article in "the answer a patient gives"."""


def _other_option(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """Explanations whose last named answer is not the gold letter: they would teach the wrong one."""
    if contract.kind != "mcq":
        return
    ids = []
    for case in cases:
        named = [letter.upper() for letter in NAMED_ANSWER.findall(case.reason or "")]
        if case.gold is not None and named and named[-1] != case.gold:
            ids.append(case.case_id)
    yield from _cases("reason_names_other_option", "the explanation ends on another option than the label", ids)


MIN_PHRASE_GROUPS = 20
"""Groups (questions, situations) in which a phrase must stand to say something of the labels."""
MAX_CHANCE = 1e-6
"""Chance, were phrase and label independent, at which a phrase that meets one label alone is reported."""
_WORD = re.compile(r"\w+")


def _label_phrases(cases: Sequence[Case], contract: TaskContract) -> Iterator[Finding]:
    """Phrases of three words that stand with one label alone: a judge can learn them in place of the task.

    A phrase counts once per group, so that a question that many cases share is no phrase. Reported are those that meet
    at least 20 groups, where so pure a phrase has a chance below one in a million given the label's share.
    """
    if contract.kind == "mcq":
        return
    labels = Counter(case.gold for case in cases if case.gold is not None)
    total = labels.total()
    for field in {name: None for case in cases for name in case.inputs}:
        groups: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        ids: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for case in cases:
            if case.gold is None or field not in case.inputs:
                continue
            words = _WORD.findall(case.inputs[field].casefold())
            for phrase in set(zip(words, words[1:], words[2:], strict=False)):
                groups[phrase][case.gold].add(case.group or case.case_id)
                ids[phrase].append(case.case_id)
        pure = {
            phrase: next(iter(found))
            for phrase, found in groups.items()
            if len(found) == 1
            and (n := len(next(iter(found.values())))) >= MIN_PHRASE_GROUPS
            and (labels[next(iter(found))] / total) ** n < MAX_CHANCE
        }
        for label in sorted(set(pure.values())):
            hits = [case_id for phrase, one in pure.items() if one == label for case_id in ids[phrase]]
            n_phrases = sum(one == label for one in pure.values())
            message = f"{field}: {n_phrases} phrases of three words stand with label {label!r} alone"
            yield from _cases("label_phrases", message, hits)


RULES: dict[str, Rule] = {
    "labels": _labels,
    "conflicting_labels": _conflicting_labels,
    "label_phrases": _label_phrases,
    "duplicate_options": _duplicate_options,
    "short_fields": _short_fields,
    "broken_encoding": _broken_encoding,
    "mixed_scripts": _mixed_scripts,
    "truncated": _truncated,
    "gold_letters": _gold_letters,
    "other_option": _other_option,
}
