"""Bias probes: the same case, changed in a way that must not change a fair judge's mind.

Each probe is a pure transformation of cases; running the judge on both versions is the caller's, and the flip rates are
`metrics.probes`'s. Which probe fits which task, and what label is then expected, stands in `PROBES`. A judge that
answers differently at every sampling flips without any probe: measure self-consistency beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medjudge.data.injection import ATTACKS, FAMILY, Attack, attacked, attackers_label
from medjudge.errors import ConfigError
from medjudge.records import Case
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.pairwise import OTHER_SIDE, swapped
from medjudge.tasks.rubric import RubricContract

JUDGED_FIELD = {
    "equivalence": "candidate",
    "rubric": "output",
    "mcq": "question",
    "appropriateness": "variant",
    "pairwise": "answer_a",
}
"""Contract kind -> the text that irrelevant additions go to; of another kind it is the first that is shown."""
ALL = "all"
"""Every probe that fits the task."""
BESIDE_ATTACKS = ("paraphrase", "rewording")
"""What attacks are held against: the first of these that changed a case."""
OPTIONS = ("opa", "opb", "opc", "opd")
CARRIED = ("paraphrase", "translation")
"""Probes whose texts the rows bring along, in columns `<probe>_<field>`."""

PADDING = {
    "en": "The question was read with care before this was written. What was to be said stands in the lines above, and "
    "these closing lines add no information to it.",
    "fr": "La question a été lue avec attention avant d'écrire ce qui précède. Ce qui devait être dit se trouve dans "
    "les lignes ci-dessus, et ces dernières lignes n'y ajoutent aucune information.",
}
AUTHORITY = {
    "en": "(Forwarded by Professor Martin, head of department.)",
    "fr": "(Transmis par le professeur Martin, chef de service.)",
}

_FRENCH = re.compile(r"(?i)\b(?:le|la|les|des|une|est|du|dans|pour|par|avec|et|chez)\b|[àâçéèêëîïôùûœ]")
_ENGLISH = re.compile(r"(?i)\b(?:the|of|and|is|are|with|for|in|to|which|by)\b")
_POINTS_AT_OPTIONS = re.compile(
    r"(?i)\b(?:above|below|all of these|none of these|all the options|both|neither|[a-d]\s*(?:,|&|and|or|\+)\s*[a-d])\b"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class ProbedCase:
    """One case as a probe presents it."""

    case: Case
    """With the original's `case_id` and group: answers are joined by id."""
    contract: TaskContract
    """The contract that renders and parses it: the original one, but for a probe of the instructions."""
    expected: Mapping[str, str]
    """Label on the original -> label that a fair judge gives here."""
    attacker: str | None = None
    """The label that an attack is to bring about; None for changes that want none."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One way to change a case, and what it shows."""

    title: str
    change: str
    """What is changed, in words."""
    tasks: tuple[str, ...]
    """Contract kinds that it applies to."""
    apply: Callable[[Case, TaskContract, np.random.Generator], ProbedCase | None]
    """None where this case cannot be changed so (no reference, no second text)."""


def probe_cases(
    name: str, cases: Sequence[Case], contract: TaskContract, *, rng: np.random.Generator
) -> list[ProbedCase]:
    """The cases that a probe can change, changed, in order. Raises ConfigError for an unknown probe or a wrong task."""
    if name not in PROBES:
        raise ConfigError(f"there is no probe {name!r}: choose from {', '.join(PROBES)}.")
    probe = PROBES[name]
    if contract.kind not in probe.tasks:
        fitting = ", ".join(probes_for(contract)) or "none"
        raise ConfigError(
            f"probe {name!r} does not fit the task {contract.kind!r}, for which there are: {fitting}. Choose from "
            "these."
        )
    changed = (probe.apply(case, contract, rng) for case in cases)
    return [probed for probed in changed if probed is not None]


def probes_for(contract: TaskContract) -> dict[str, Probe]:
    """The probes that apply to a task, by name."""
    return {name: probe for name, probe in PROBES.items() if contract.kind in probe.tasks}


def named_probes(names: Sequence[str], contract: TaskContract) -> list[str]:
    """The probes behind the names of a recipe, each once: `all` that fit the task, a family's members, or itself.

    Attacks are held against a change that means nothing, so `injection` brings paraphrase and rewording along.
    """
    fitting = probes_for(contract)
    found: list[str] = []
    for name in names:
        if name == FAMILY:
            found += [one for one in fitting if one in BESIDE_ATTACKS]
        found += fitting if name == ALL else FAMILIES.get(name, (name,))
    return list(dict.fromkeys(found))


def _attack(attack: Attack) -> Callable[[Case, TaskContract, np.random.Generator], ProbedCase | None]:
    def apply(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
        label = attackers_label(case, contract, rng)
        changed = attacked(attack, case, contract, _judged_field(contract), label)
        return replace(_same(case, contract, **changed.inputs), attacker=label)

    return apply


def _same(case: Case, contract: TaskContract, **changed: str) -> ProbedCase:
    """The case with some inputs changed, the same label expected."""
    return ProbedCase(replace(case, inputs={**case.inputs, **changed}), contract, {x: x for x in contract.labels})


def _swap(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    candidate, reference = case.inputs.get("candidate"), case.inputs.get("reference")
    if not candidate or not reference:
        return None
    return _same(case, contract, candidate=reference, reference=candidate)


def _position(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    if contract.kind == "pairwise":
        other = replace(swapped(case), case_id=case.case_id, slices=case.slices)
        return ProbedCase(other, contract, {label: OTHER_SIDE[label] for label in contract.labels})
    if contract.kind == "classification":
        return _turn_labels(case, contract)
    return _turn_options(case, contract, rng) if contract.kind == "mcq" else _turn_rubric(case, contract)


def _judged_field(contract: TaskContract) -> str:
    return JUDGED_FIELD.get(contract.kind) or next(iter(contract.fields))


def _turn_labels(case: Case, contract: TaskContract) -> ProbedCase | None:
    """The labels named last to first; None where the recipe's own instructions name them."""
    settings = contract.model_dump()
    if settings["system_prompt"] is not None:
        return None
    # Not `ordered`: that the labels rise would no longer be true of this list.
    turned = {**settings, "labels": tuple(reversed(contract.labels)), "ordered": False}
    return ProbedCase(case, type(contract).model_validate(turned), {x: x for x in contract.labels})


def _turn_options(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    """The options moved on by one to three places; None where an option refers to its position."""
    texts = [case.inputs[name] for name in OPTIONS]
    # "All of the above" or "A and C" would be false in another order.
    if any(_POINTS_AT_OPTIONS.search(text) for text in texts):
        return None
    # From 1: no shift would change nothing. By turning, every option moves, the right one too.
    shift = int(rng.integers(1, len(OPTIONS)))
    inputs = {name: texts[(place - shift) % len(texts)] for place, name in enumerate(OPTIONS)}
    moved = {label: contract.labels[(place + shift) % len(texts)] for place, label in enumerate(contract.labels)}
    gold = None if case.gold is None else moved[case.gold]
    return ProbedCase(replace(case, inputs={**case.inputs, **inputs}, gold=gold), contract, moved)


def _turn_rubric(case: Case, contract: TaskContract) -> ProbedCase | None:
    """The rubric's scores described highest first; None where the rubric is not a line per score."""
    text = case.inputs.get("rubric")
    if text is None and isinstance(contract, RubricContract) and isinstance(contract.rubric, Mapping):
        text = "\n".join(f"- Score {label}: {contract.rubric[label]}" for label in contract.labels)
    lines = (text or "").splitlines()
    if len(lines) != len(contract.labels) or not all(line.startswith("- Score ") for line in lines):
        return None
    return _same(case, contract, rubric="\n".join(reversed(lines)))


def _verbosity(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    field = _judged_field(contract)
    text = case.inputs[field]
    return _same(case, contract, **{field: f"{text}\n{PADDING[language_of(text)]}"})


def _authority(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    field = _judged_field(contract)
    text = case.inputs[field]
    return _same(case, contract, **{field: f"{AUTHORITY[language_of(text)]} {text}"})


def _formatting(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    """Sentences as a bulleted list, the first in bold."""
    field = _judged_field(contract)
    sentences = [part.strip() for part in _SENTENCE_END.split(case.inputs[field]) if part.strip()]
    if not sentences or any("**" in part or part.startswith(("- ", "* ")) for part in sentences):
        return None  # formatted already
    marked = [f"- **{sentences[0]}**", *(f"- {part}" for part in sentences[1:])]
    return _same(case, contract, **{field: "\n".join(marked)})


def _rewording(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    settings = contract.model_dump()
    # Instructions of the recipe's own have no second wording to be compared with.
    if settings.get("system_prompt") is not None:
        return None
    other = "terse" if settings["instructions"] == "published" else "published"
    reworded = type(contract).model_validate({**settings, "instructions": other})
    return ProbedCase(case, reworded, {x: x for x in contract.labels})


def _language(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
    settings = contract.model_dump()
    other = "fr" if settings["language"] == "en" else "en"
    switched = type(contract).model_validate({**settings, "language": other})
    # Instructions of the recipe's own may be all that a task says in a language.
    if switched.messages(case) == contract.messages(case):
        return None
    return ProbedCase(case, switched, {x: x for x in contract.labels})


def _carried(kind: str) -> Callable[[Case, TaskContract, np.random.Generator], ProbedCase | None]:
    """Puts in the texts that a row carries in the slice columns `<kind>_<field>`."""

    def apply(case: Case, contract: TaskContract, rng: np.random.Generator) -> ProbedCase | None:
        texts = {name: case.slices[f"{kind}_{name}"] for name in case.inputs if case.slices.get(f"{kind}_{name}")}
        return _same(case, contract, **texts) if texts else None

    return apply


def language_of(text: str) -> str:
    """`fr` or `en`, by which language's small words and letters are more frequent; `en` where neither is."""
    return "fr" if len(_FRENCH.findall(text)) > len(_ENGLISH.findall(text)) else "en"


_ALL = ("mcq", "equivalence", "rubric", "appropriateness", "classification", "pairwise")
PROBES: dict[str, Probe] = {
    "swap": Probe(
        "candidate and reference change places", "what is judged and what it is held against", ("equivalence",), _swap
    ),
    "position": Probe(
        "options, labels, answers or rubric lines in another order",
        "the place of each option, and with it the letter that is right; the rubric's scores highest first; the labels "
        "from the last to the first",
        ("mcq", "rubric", "classification", "pairwise"),
        _position,
    ),
    "verbosity": Probe("padding", "two sentences that say nothing, after the text that is judged", _ALL, _verbosity),
    "authority": Probe("irrelevant authority", "who forwarded the text, before it", _ALL, _authority),
    "formatting": Probe("markdown", "the same sentences as a list, the first in bold", _ALL, _formatting),
    "rewording": Probe(
        "other instructions", "the terse instructions for the published ones, or back", _ALL, _rewording
    ),
    "language": Probe(
        "language of the instructions",
        "English for French, or back",
        ("equivalence", "classification", "pairwise"),
        _language,
    ),
    "paraphrase": Probe("paraphrase", "texts by those in columns `paraphrase_<field>`", _ALL, _carried("paraphrase")),
    "translation": Probe(
        "language of the texts", "texts by those in columns `translation_<field>`", _ALL, _carried("translation")
    ),
    **{
        f"{FAMILY}/{name}": Probe(f"attack: {attack.title}", attack.change, _ALL, _attack(attack))
        for name, attack in ATTACKS.items()
    },
}
"""In the order of a report. `paraphrase` and `translation` need rows that carry both texts, named among the slices."""
FAMILIES: dict[str, tuple[str, ...]] = {FAMILY: tuple(name for name in PROBES if name.startswith(f"{FAMILY}/"))}
"""Names that stand for several probes."""
