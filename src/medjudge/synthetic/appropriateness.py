"""Imaging orders to be judged, from a table of clinical situations, procedures and the principles that rate them.

`builtin/imaging/principles.jsonl` states general principles of imaging in the words of this project; `variants.jsonl`
holds the situations, each with wordings, patients, and procedures with label and deciding principle. The ratings are
written for training and testing judges: they are no guideline and not for use on patients.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.errors import DataError
from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.phrasing import capital
from medjudge.tasks.appropriateness import LABELS
from medjudge.tasks.normalise import normalise

PRINCIPLES_PATH = BUILTIN_DIR / "imaging" / "principles.jsonl"
VARIANTS_PATH = BUILTIN_DIR / "imaging" / "variants.jsonl"

SHARES = {"Usually Not Appropriate": 0.44, "May Be Appropriate": 0.22, "Usually Appropriate": 0.34}
"""Share of each label among drawn rows. Two in three rated pairs of the table are not appropriate, which would make
the majority answer hard to beat."""
MIXED_SHARE = 0.8
"""Of the rows of a label, those whose procedure has another label in another situation: there the case decides."""
MAX_SNIPPETS = 4
"""Evidence snippets of a row: the deciding principle and others of the situation or of its neighbours."""
MIN_RATED = 3
"""Rated procedures that a situation needs at least."""
LEVELS = {
    "Usually Appropriate": "This order is right for the patient.",
    "May Be Appropriate": "This order is an option for the patient.",
    "Usually Not Appropriate": "This order is wrong for the patient.",
}
"""The ratings in plain words."""
CONCLUSIONS = {
    "Usually Appropriate": (
        "{P}: therefore indicated here.",
        "This makes the following order the right choice for this patient: {p}.",
    ),
    "May Be Appropriate": (
        "{P}: therefore an option here, though not the first choice.",
        "This makes the following order an acceptable second choice for this patient: {p}.",
    ),
    "Usually Not Appropriate": (
        "{P}: therefore not indicated here.",
        "This speaks against the following order for this patient: {p}.",
    ),
}

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Principle:
    """A general principle of imaging, in one or two sentences."""

    id: str
    """The number by which reasons cite it."""
    key: str
    """The name by which ratings refer to it."""
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Rating:
    """A procedure in a situation, its label and the principle that decides it."""

    procedure: str
    label: str
    principle: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One clinical situation: a group of rows that stays on one side of a split."""

    id: str
    condition: str
    patients: tuple[str, ...]
    """Patients that it may be about, as `a 34-year-old man`."""
    situations: tuple[str, ...]
    """Wordings with `{p}`, or `{P}` at the start, in place of the patient."""
    ratings: tuple[Rating, ...]

    def wordings(self) -> tuple[str, ...]:
        """Every wording about every patient."""
        return tuple(
            situation.replace("{p}", patient).replace("{P}", capital(patient))
            for situation in self.situations
            for patient in self.patients
        )


def table_files() -> tuple[Path, ...]:
    """The files that the imaging table is made of."""
    return PRINCIPLES_PATH, VARIANTS_PATH


@cache
def load_principles() -> dict[str, Principle]:
    """Key -> principle, in the order of the file."""
    return {tree["key"]: Principle(**tree) for tree in _read(PRINCIPLES_PATH)}


@cache
def load_variants() -> tuple[Variant, ...]:
    """All situations, in the order of the file."""
    return tuple(
        Variant(
            id=tree["id"],
            condition=tree["condition"],
            patients=tuple(tree["patients"]),
            situations=tuple(tree["situations"]),
            ratings=tuple(
                Rating(procedure, label, principle)
                for label, rated in tree["ratings"].items()
                for procedure, principle in rated.items()
            ),
        )
        for tree in _read(VARIANTS_PATH)
    )


def lint_table(variants: Sequence[Variant], principles: dict[str, Principle]) -> list[str]:
    """What is wrong with an imaging table, one sentence per finding; empty if nothing is.

    Found: repeated ids, procedures and wordings, labels and principles that do not exist, principles that nothing uses,
    wordings without exactly one patient, situations with fewer than `MIN_RATED` rated procedures, and what
    `_lint_ratings` finds.
    """
    findings = [f"{key}: number {p.id} is used twice" for key, p in principles.items() if _count(principles, p.id) > 1]
    ids = [variant.id for variant in variants]
    findings += [f"{name}: id repeats" for name in sorted(set(ids)) if ids.count(name) > 1]
    worded: dict[str, str] = {}
    for variant in variants:
        procedures = [normalise(rating.procedure) for rating in variant.ratings]
        findings += [f"{variant.id}: {name} is rated twice" for name in set(procedures) if procedures.count(name) > 1]
        if len(procedures) < MIN_RATED:
            findings.append(f"{variant.id}: only {len(procedures)} procedures are rated")
        for rating in variant.ratings:
            if rating.label not in LABELS:
                findings.append(f"{variant.id}: {rating.procedure}: no label {rating.label!r}")
            if rating.principle not in principles:
                findings.append(f"{variant.id}: {rating.procedure}: no principle {rating.principle!r}")
        for situation in variant.situations:
            if situation.count("{p}") + situation.count("{P}") != 1:
                findings.append(f"{variant.id}: a wording needs one patient: {situation!r}")
        for wording in variant.wordings():
            other = worded.setdefault(normalise(wording), variant.id)
            if other != variant.id:
                findings.append(f"{variant.id}, {other}: one wording for two situations: {wording!r}")
        findings += _lint_ratings(variant, principles)
    used = {rating.principle for variant in variants for rating in variant.ratings}
    return findings + [f"principle {key!r} decides nothing" for key in principles if key not in used]


SECOND_BEST = re.compile(r"\b(acceptable|useful|second best|in its place)\b")
"""What the principle of an order that may be appropriate says of it."""
KINDS = tuple(
    (re.compile(order, re.IGNORECASE), re.compile(said, re.IGNORECASE))
    for order, said in (
        (r"\bCT\b|tomosynthesis", r"\bCT\b|\bPET\b|tomosynthesis"),
        (r"\bMRI?\b", r"\b(MRI?|MRCP)\b"),
        (r"ultraso|sonohyst", r"ultraso"),
        (r"echocardiography", r"echocardiography"),
        (r"radiogra|\bfilm\b", r"\bfilms?\b|radiogra|\brib views\b"),
        (r"scintigraphy", r"scintigraphy|nuclear"),
        (r"catheter", r"catheter"),
        (r"mammography", r"mammography"),
        (r"\bstress\b", r"\bstress\b"),
        (r"gastrointestinal series|barium|salpingography", r"\bseries\b|barium|salpingography|X-ray"),
        (r"ERCP", r"ERCP"),
        (r"cystourethrography", r"cystourethrography"),
        (r"calcium score", r"calcium score"),
        (r"absorptiometry", r"absorptiometry"),
        (r"\bcontrast\b|angiography|aortography|urography", r"contrast medium|enhance"),
    )
)
"""Kinds of imaging: how the name of an order says them, and how a principle that decides about it does."""
CT_SCAN = r"^(Low-dose |Multiphase )?CT (?!angiogr|perfus|myelogr|arthrogr|urogr|enterogr|venogr|pulmon)"
STUDIES = (
    (r"unenhanced CT|CT( scans?)? without contrast medium", CT_SCAN + r".*\bwithout IV\b"),
    (r"CT angiography", r"CT angiography"),
    (r"(?<!unenhanced )CT( scans?)?\b(?! angiography|( scans?)? without contrast)", CT_SCAN),
    (r"MRI|MRCP", r"^MRI "),
    (r"ultrasonography", r"(?<!enhanced )ultrasonography\b"),
    (r"echocardiography", r"^Transthoracic echocardiography"),
    (r"films?|radiographs?", r"^(?!Repeat).*radiography"),
    (r"(perfusion )?scintigraphy", r"scintigraphy"),
    (r"mammography", r"mammography"),
    (r"stress test", r"^Stress "),
)
"""How a case names a study, and the orders that would be that study again."""
RESULT = (
    r"(normal|negative|positive|clear|unclear|equivocal|conclusive|inconclusive|done|without (a )?(finding|fracture)"
    r"|shows?|showed|found|does not explain|left)"
)
REGIONS = {"head": "head|brain", "neck": "neck|cervical"}
"""Where a case says of which part a study was: how orders name the part, if otherwise."""


def repeats(procedure: str, situation: str) -> bool:
    """Whether an order asks for a study of a part of the body whose result a case already gives."""
    for study, order in STUDIES:
        if not re.search(order, procedure, re.IGNORECASE):
            continue
        told = re.search(
            rf"\b(on|by|two) (the |an? )?({study})\b|\b({study})\b[^,;.]*\b{RESULT}\b"
            rf"|\b{RESULT} (\w+ ){{0,2}}({study})\b",
            situation,
        )
        part = re.search(rf"\b({study}) of the (?P<part>\w+)", situation)
        if told and (not part or re.search(REGIONS.get(part["part"], part["part"]), procedure, re.IGNORECASE)):
            return True
    return False


NEEDS_CONTRAST = re.compile(r"^(MRI|MR angiography|MR venography|Cardiac MRI|CT (head|chest|abdomen|neck|pelvis))\b")


def _lint_ratings(variant: Variant, principles: dict[str, Principle]) -> list[str]:
    """Ratings that their principle does not carry, and orders that leave open whether contrast medium is given.

    Where no imaging is needed, every rating has to give that reason and not a fault of the machine; elsewhere a
    principle has to name the kind of imaging that is ordered. Where an order may be appropriate, its principle has to
    say that it is acceptable or useful. No order that is or may be appropriate repeats a study whose result the case
    gives.
    """
    findings = []
    labels = {rating.label for rating in variant.ratings}
    reasons = {rating.principle for rating in variant.ratings}
    if labels == {"Usually Not Appropriate"} and len(reasons) > 1:
        findings.append(f"{variant.id}: no imaging is needed, but the ratings give {len(reasons)} reasons")
    for rating in variant.ratings:
        principle = principles.get(rating.principle)
        if rating.label == "May Be Appropriate" and principle and not SECOND_BEST.search(principle.text):
            findings.append(f"{variant.id}: {rating.procedure}: {rating.principle} does not say that it is acceptable")
        if NEEDS_CONTRAST.match(rating.procedure) and "contrast" not in rating.procedure:
            findings.append(f"{variant.id}: {rating.procedure}: with or without contrast medium?")
        said = [text for order, text in KINDS if order.search(rating.procedure)]
        if not said:
            findings.append(f"{variant.id}: {rating.procedure}: of no known kind of imaging")
        elif principle and len(reasons) > 1 and not any(text.search(principle.text) for text in said):
            findings.append(f"{variant.id}: {rating.procedure}: {rating.principle} does not speak of it")
        if rating.label != "Usually Not Appropriate":
            findings += [
                f"{variant.id}: {rating.procedure}: the case says that it is done: {situation!r}"
                for situation in variant.situations
                if repeats(rating.procedure, situation)
            ]
    return findings


def generate(n: int, rng: random.Random, *, evidence: bool = True) -> list[Row]:
    """`n` distinct rows in the fields of the `appropriateness` contract.

    evidence: add snippets (the deciding principle among others of the situation and its neighbours) and cite it in the
    reasoning. Labels come in the proportions of `SHARES`. Most rows are about procedures that have several labels, each
    of these procedures as often as the next, so that the name of an order says little about its rating.
    Raises DataError where `n` rows cannot be drawn.
    """
    pairs: dict[str, list[tuple[Variant, Rating]]] = defaultdict(list)
    labels: dict[str, set[str]] = defaultdict(set)
    for variant in load_variants():
        for rating in variant.ratings:
            pairs[rating.label].append((variant, rating))
            labels[rating.procedure].add(rating.label)
    mixed = frozenset(procedure for procedure, found in labels.items() if len(found) > 1)
    rows: list[Row] = []
    for label, wanted in _counts(n).items():
        rows += _draw_label(pairs[label], mixed, wanted, rng, evidence)
    rng.shuffle(rows)
    return rows


def _counts(n: int) -> dict[str, int]:
    """Rows per label; what rounding leaves goes to the first label."""
    counts = {label: int(n * share) for label, share in SHARES.items()}
    counts[next(iter(counts))] += n - sum(counts.values())
    return counts


def _draw_label(
    pairs: list[tuple[Variant, Rating]],
    mixed: frozenset[str],
    n: int,
    rng: random.Random,
    evidence: bool,
) -> list[Row]:
    """`n` rows of one label. Procedures take turns, first the `mixed` ones up to their share, and so do their pairs."""
    by_procedure: dict[str, list[tuple[Variant, Rating]]] = defaultdict(list)
    for variant, rating in rng.sample(pairs, len(pairs)):
        by_procedure[rating.procedure].append((variant, rating))
    free = {
        procedure: [(v, r, text) for texts in _rounds(found, rng) for v, r, text in texts]
        for procedure, found in sorted(by_procedure.items())
    }
    groups = [sorted(mixed & set(free)), sorted(set(free) - mixed)]
    wanted = [round(n * MIXED_SHARE), n]
    rows: list[Row] = []
    for group, limit in [*zip(groups, wanted, strict=True), (groups[0], n)]:
        while len(rows) < limit and any(free[procedure] for procedure in group):
            for procedure in rng.sample(group, len(group)):
                if free[procedure] and len(rows) < limit:
                    variant, rating, text = free[procedure].pop(0)
                    rows.append(_row(variant, rating, text, rng, evidence))
    if len(rows) < n:
        label = pairs[0][1].label
        raise DataError(f"no more than {len(rows)} distinct rows of label {label!r} can be drawn, asked for {n}.")
    return rows


def _rounds(found: list[tuple[Variant, Rating]], rng: random.Random) -> list[list[tuple[Variant, Rating, str]]]:
    """Every wording of every pair, in rounds of one wording per pair."""
    texts = [(variant, rating, rng.sample(variant.wordings(), len(variant.wordings()))) for variant, rating in found]
    longest = max(len(wordings) for _, _, wordings in texts)
    return [
        [(variant, rating, wordings[at]) for variant, rating, wordings in texts if at < len(wordings)]
        for at in range(longest)
    ]


def _row(variant: Variant, rating: Rating, text: str, rng: random.Random, evidence: bool) -> Row:
    principle = load_principles()[rating.principle]
    conclusion = concluded(rating.procedure, rating.label, rng)
    reasoning = f"{principle.text}{f' [{principle.id}]' if evidence else ''} {conclusion}"
    row: Row = {
        "condition": variant.condition,
        "variant": text,
        "procedure": rating.procedure,
        "appropriateness": rating.label,
        "reasoning": reasoning,
        "opinion": f"{LEVELS[rating.label]} {reasoning}",
    }
    if evidence:
        row["evidence"] = _snippets(variant, principle, rng)
    return {
        **row,
        "variant_id": variant.id,
        "principle": principle.key,
        "relation": "imaging",
        "language": "en",
        "synthetic": True,
    }


def concluded(procedure: str, label: str, rng: random.Random) -> str:
    """A sentence that gives a procedure its rating."""
    return rng.choice(CONCLUSIONS[label]).replace("{P}", procedure).replace("{p}", _inside(procedure))


def _snippets(variant: Variant, principle: Principle, rng: random.Random) -> list[dict[str, str]]:
    """The deciding principle among others, half of them of neighbouring situations: which one holds, the case tells."""
    own = sorted({rating.principle for rating in variant.ratings} - {principle.key})
    near = sorted(_near_principles(variant) - {principle.key, *own})
    n_near = min(len(near), 2)
    chosen = [*rng.sample(near, n_near), *rng.sample(own, min(len(own), MAX_SNIPPETS - 1 - n_near))]
    keys = [principle.key, *chosen]
    snippets = [load_principles()[key] for key in rng.sample(keys, len(keys))]
    return [{"id": one.id, "title": one.title, "text": one.text} for one in snippets]


@cache
def _near_principles(variant: Variant) -> frozenset[str]:
    """Principles of the situations that share most procedures with this one."""
    procedures = {rating.procedure for rating in variant.ratings}

    def shared(other: Variant) -> int:
        return len(procedures & {rating.procedure for rating in other.ratings}) + 3 * (
            other.condition == variant.condition
        )

    others = sorted((o for o in load_variants() if o.id != variant.id), key=lambda one: (-shared(one), one.id))
    return frozenset(rating.principle for other in others[:3] for rating in other.ratings)


def _inside(procedure: str) -> str:
    """A procedure's name inside a sentence: `CT ...` keeps its capitals, `Ultrasonography ...` loses its first."""
    return procedure[:1].lower() + procedure[1:] if procedure[1:2].islower() else procedure


def _read(path: Path) -> list[dict[str, Any]]:
    return list(artifacts.read_lines(path))


def _count(principles: dict[str, Principle], number: str) -> int:
    return sum(principle.id == number for principle in principles.values())
