"""Open questions with a reference and a candidate from one of six simulated answer generators, in English or French.

The label is known by construction: a candidate is equivalent (1) if it commits to the reference's value, however it is
worded, and not (0) if it names another value, denies the right one, stays vague, does not commit or withdraws what it
said. The generators differ in verbosity, in how often they are right and in how they err, as real ones do.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from medjudge.synthetic.answers import Row, bare, draw_rows, incomplete, named, question, statement, wrong_fact
from medjudge.synthetic.facts import Fact, Language
from medjudge.synthetic.partition import Part
from medjudge.synthetic.phrasing import PHRASINGS, capital

NO_ERROR = "none"
"""The `error_kind` of every equivalent candidate."""
BARE_REFERENCE_SHARE = 0.7
"""Of the references, those that give the value alone; the others are a sentence."""


@dataclass(frozen=True, slots=True)
class AnswerGenerator:
    """A simulated system that answers questions. Ways and errors are weights, any unit."""

    positive_rate: float
    """Probability that an answer is equivalent."""
    ways: Mapping[str, float]
    """How it words what it asserts, right or wrong: keys of `_word`."""
    errors: Mapping[str, float]
    """What is amiss when it is not equivalent: keys of `_err`."""


GENERATORS: dict[str, AnswerGenerator] = {
    "terse": AnswerGenerator(
        0.55,
        ways={"verbatim": 4, "form": 3},
        errors={"wrong_entity": 6, "partial": 3, "no_answer": 1},
    ),
    "fluent": AnswerGenerator(
        0.45,
        ways={"sentence": 4, "asked": 2, "contrast": 1},
        errors={"wrong_entity": 5, "negation": 2, "partial": 2, "contradiction": 1},
    ),
    "lecturer": AnswerGenerator(
        0.40,
        ways={"explained": 5, "contrast": 1, "sentence": 1},
        errors={"wrong_entity": 5, "contradiction": 3, "negation": 1, "hedged": 1},
    ),
    "hedger": AnswerGenerator(
        0.20,
        ways={"sentence": 2, "contrast": 2, "asked": 1},
        errors={"hedged": 6, "partial": 2, "no_answer": 1, "wrong_entity": 2},
    ),
    "contrarian": AnswerGenerator(
        0.30,
        ways={"contrast": 5, "corrected": 4, "sentence": 1},
        errors={"wrong_entity": 5, "negation": 3, "contradiction": 3},
    ),
    "sloppy": AnswerGenerator(
        0.50,
        ways={"form": 5, "asked": 2, "sentence": 1},
        errors={"wrong_entity": 5, "partial": 3, "negation": 1, "hedged": 1},
    ),
}

ASKED: dict[Language, tuple[str, ...]] = {
    "en": ("{A}: {v}.", "I would answer {v}.", "The answer is {v}.", "{A} asked for: {v}.", "It has to be {v}."),
    "fr": ("{A} : {v}.", "Je répondrais : {v}.", "La réponse est : {v}.", "{A}, c'est : {v}.", "Ma réponse : {v}."),
}
CONTRAST: dict[Language, tuple[str, ...]] = {
    "en": ("{V}, not {r}.", "Not {r} but {v}.", "{V} rather than {r}.", "One may confuse it with {r}, but it is {v}."),
    "fr": (
        "{V}, et non {r}.",
        "Non pas {r}, mais {v}.",
        "{V}, plutôt que ceci : {r}.",
        "On peut hésiter avec {r}, mais la réponse est : {v}.",
    ),
}
CORRECTED: dict[Language, tuple[str, ...]] = {
    "en": (
        "At first sight {r}; on reflection the answer is {v}.",
        "I first thought of {r}, but the right answer is {v}.",
        "{R}? No: {v}.",
    ),
    "fr": (
        "À première vue : {r} ; à la réflexion : {v}.",
        "J'ai d'abord pensé « {r} », mais la bonne réponse est « {v} ».",
        "{R} ? Non : {v}.",
    ),
}
NEGATION: dict[Language, tuple[str, ...]] = {
    "en": (
        "It is certainly not {v}.",
        "Anything but {v}.",
        "{V} can be ruled out.",
        "People often say {v}, but wrongly.",
        "{V}: that has nothing to do with it.",
    ),
    "fr": (
        "Certainement pas {v}.",
        "Tout sauf {v}.",
        "Réponse à exclure : {v}.",
        "On cite souvent « {v} », mais à tort.",
        "{V} : cela n'a rien à voir.",
    ),
}
HEDGED: dict[Language, tuple[str, ...]] = {
    "en": (
        "Either {a} or {b}; I cannot decide.",
        "It could be {a}, it could be {b}.",
        "{A} or {b}, depending on the author.",
        "Hard to say: {a}, {b} or something else.",
        "Between {a} and {b} I would not commit myself.",
    ),
    "fr": (
        "Soit {a}, soit {b} ; je ne peux pas trancher.",
        "Peut-être {a}, peut-être {b}.",
        "{A} ou {b}, selon les auteurs.",
        "Difficile à dire : {a}, {b} ou autre chose.",
        "Entre {a} et {b}, je ne me prononce pas.",
    ),
}
CONTRADICTION: dict[Language, tuple[str, ...]] = {
    "en": (
        "{V}. That said, this is wrong: it is {r}.",
        "{S} But this is wrong, the answer is {r}.",
        "I would say {v}. No, I take that back: {r}.",
    ),
    "fr": (
        "{V}. Cela dit, c'est faux ; la réponse est : {r}.",
        "{S} Mais c'est faux, la réponse est : {r}.",
        "Je dirais {v}. Non, je me reprends : {r}.",
    ),
}
NO_ANSWER: dict[Language, tuple[str, ...]] = {
    "en": (
        "I do not know.",
        "The question cannot be answered without further tests.",
        "Please ask a specialist.",
        "There is not enough information here.",
        "I would have to look this up.",
    ),
    "fr": (
        "Je ne sais pas.",
        "On ne peut pas répondre sans autres examens.",
        "Demandez l'avis d'un spécialiste.",
        "Les informations sont insuffisantes.",
        "Il faudrait que je vérifie.",
    ),
}
VAGUE: dict[Language, tuple[str, ...]] = {
    "en": ("{V}.", "Some kind of answer along these lines: {v}.", "{V}, but which one I cannot say."),
    "fr": ("{V}.", "Quelque chose comme : {v}.", "{V}, sans plus de précision."),
}
REASONS: dict[Language, dict[str, str]] = {
    "en": {
        NO_ERROR: "The candidate commits to the reference answer, {v}.",
        "wrong_entity": "The candidate names {r} where the reference is {v}.",
        "negation": "The candidate denies the reference answer, {v}.",
        "partial": "The candidate stays too vague: the reference is {v}.",
        "hedged": "The candidate leaves the choice open and does not commit to {v}.",
        "contradiction": "The candidate names {v} and withdraws it in favour of {r}.",
        "no_answer": "The candidate gives no answer; the reference is {v}.",
    },
    "fr": {
        NO_ERROR: "La réponse candidate affirme bien la référence : {v}.",
        "wrong_entity": "La réponse candidate donne {r} alors que la référence est {v}.",
        "negation": "La réponse candidate nie la référence : {v}.",
        "partial": "La réponse candidate reste trop vague : la référence est {v}.",
        "hedged": "La réponse candidate ne tranche pas en faveur de la référence : {v}.",
        "contradiction": "La réponse candidate cite {v} puis se dédit en faveur de {r}.",
        "no_answer": "La réponse candidate ne répond pas ; la référence est {v}.",
    },
}


def generate(n: int, rng: random.Random, language: Language = "en", part: Part = "task") -> list[Row]:
    """`n` distinct rows in the fields of the `equivalence` contract, with `generator` and `error_kind`.

    The generators take turns, and every fact is asked once before any is asked again. Raises DataError where `n` rows
    cannot be drawn.
    """
    names = list(GENERATORS)

    def draw(fact: Fact, n_rows: int) -> Row:
        return _draw(fact, names[n_rows % len(names)], rng, language)

    return draw_rows(n, rng, draw, ("question", "reference", "candidate"), part)


def _draw(fact: Fact, name: str, rng: random.Random, language: Language) -> Row:
    generator = GENERATORS[name]
    other = wrong_fact(fact, rng)
    value = fact.value_in(language)
    sentence = rng.random() >= BARE_REFERENCE_SHARE
    if rng.random() < generator.positive_rate:
        error = NO_ERROR
        candidate = _word(_pick(generator.ways, rng), fact, fact, other, rng, language)
    else:
        error = _pick(generator.errors, rng)
        candidate = _err(error, generator, fact, other, rng, language)
    return {
        "question": question(fact, rng, language),
        "reference": statement(fact, value, rng, language) if sentence else bare(value),
        "candidate": candidate,
        "label": int(error == NO_ERROR),
        "reason": _put(REASONS[language][error], v=value, r=other.value_in(language)),
        "generator": name,
        "error_kind": error,
        "fact_id": fact.id,
        "relation": fact.relation,
        "language": language,
        "synthetic": True,
    }


def _word(way: str, fact: Fact, source: Fact, rejected: Fact, rng: random.Random, language: Language) -> str:
    """An answer to the question about `fact` that asserts the value of `source`, which is `fact` where it is right.

    rejected: the fact whose value a contrasting answer turns down.
    """
    value, phrasing = source.value_in(language), PHRASINGS[language][fact.relation]
    match way:
        case "verbatim":
            return bare(value)
        case "form":
            return _form(value, phrasing.article, rng, language)
        case "sentence":
            return statement(fact, value, rng, language)
        case "asked":
            return _put(rng.choice(ASKED[language]), a=phrasing.asked, v=named(source, language))
        case "explained":
            return f"{statement(fact, value, rng, language)} {source.explanation_in(language)}"
        case "contrast":
            return _put(rng.choice(CONTRAST[language]), v=named(source, language), r=named(rejected, language))
        case "corrected":
            return _put(rng.choice(CORRECTED[language]), v=named(source, language), r=named(rejected, language))
    raise AssertionError(f"no way {way!r} to word an answer")


def _err(
    error: str, generator: AnswerGenerator, fact: Fact, other: Fact, rng: random.Random, language: Language
) -> str:
    """An answer with this error; `other` gives the wrong value."""
    value, wrong = named(fact, language), named(other, language)
    match error:
        case "wrong_entity":
            # A contrasting answer turns down the right value as often as a second wrong one.
            rejected = wrong_fact(fact, rng)
            rejected = fact if rejected.value == other.value or rng.random() < 0.5 else rejected
            return _word(_pick(generator.ways, rng), fact, other, rejected, rng, language)
        case "negation":
            return _put(rng.choice(NEGATION[language]), v=value)
        case "partial":
            return _put(rng.choice(VAGUE[language]), v=rng.choice(incomplete(fact, language)))
        case "hedged":
            first, second = rng.sample([value, wrong], 2)
            return _put(rng.choice(HEDGED[language]), a=first, b=second)
        case "contradiction":
            said = statement(fact, fact.value_in(language), rng, language)
            return _put(rng.choice(CONTRADICTION[language]), s=said, v=value, r=wrong)
        case "no_answer":
            return rng.choice(NO_ANSWER[language])
    raise AssertionError(f"no error {error!r}")


def _form(value: str, article: str, rng: random.Random, language: Language) -> str:
    """The value in another form that leaves its words alone: small letters, an article, no accents, a lead-in."""
    forms = [value, value + ".", f"{'Answer' if language == 'en' else 'Réponse'}: {value}", value.upper(), f"= {value}"]
    if article:
        forms += [article + value, capital(article + value) + "."]
    if (plain := _without_accents(value)) != value:
        forms.append(plain)
    return rng.choice(forms)


def _without_accents(text: str) -> str:
    unified = text.replace("œ", "oe").replace("Œ", "Oe")
    return "".join(c for c in unicodedata.normalize("NFD", unified) if not unicodedata.combining(c))


def _pick(weights: Mapping[str, float], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _put(template: str, **texts: str) -> str:
    """`{v}` becomes the text under `v`, `{V}` the same with a capital."""
    for name, text in texts.items():
        template = template.replace("{" + name + "}", text).replace("{" + name.upper() + "}", capital(text))
    return template
