"""What `builtin:tiny` reads before it is shipped: statements of every fact, questions about the set-aside part alone.

A document is plain text, a chat whose assistant turns the model learns to give, or spans of text of which some are
learned. The prompts are the contracts' own, and the answers are said in words ("B) axillary nerve", "Yes, the same
answer."): the model knows the tasks as an instructed model does, and none of the formats that fine-tuning teaches.

Naming the letter of an option takes three things at once: the option must remember its letter, the question must find
the option, and the letter must be carried over. From questions alone a small model learns none of them in tens of
thousands. So the first epochs are lists without any medicine: which letter stood before this word? In many of them each
option is followed by its letter once more, which teaches the first of the three by itself; the others then follow.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from medjudge.data.facts import LANGUAGES, Fact, Language, load_facts
from medjudge.data.generators import appropriateness, equivalence, mcq, rubric
from medjudge.data.generators.answers import question, statement
from medjudge.data.generators.parts import facts_of
from medjudge.records import Case, Message
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import LETTERS, McqContract
from medjudge.tasks.mcq import OPTIONS as OPTION_FIELDS
from medjudge.tasks.rubric import RubricContract


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a document."""

    text: str
    weight: float = 0.0
    """Of its tokens' loss; 0 is only read."""


Document = str | list[Message] | tuple[Span, ...]

N_STATED_ORDERS = 100
"""Rated pairs of the imaging table that one epoch states."""
N_QUESTIONS = {  # rows of each kind about the set-aside part in one epoch
    ("mcq", "en"): 1700,
    ("mcq", "fr"): 150,
    ("find", "en"): 300,
    ("find", "fr"): 40,
    ("open", "en"): 440,
    ("open", "fr"): 100,
    ("equivalence", "en"): 120,
    ("equivalence", "fr"): 80,
    ("rubric", "en"): 50,
    ("appropriateness", "en"): 100,
    ("verdicts", "en"): 400,
    ("names", "en"): 150,
}
N_WORD_EPOCHS = 9
"""Epochs of nothing but lists of words."""
N_WORD_LISTS = 1280
N_READING_EPOCHS = 7
"""Epochs, after those, of lists and easy questions."""
N_READING = {
    ("words", "en"): 250,
    ("names", "en"): 900,
    ("find", "en"): 400,
    ("find", "fr"): 60,
    ("verdicts", "en"): 500,
    ("mcq", "en"): 250,
}
READING_STATED_SHARE = 0.3
"""Of the facts, those that one of these epochs states."""
N_FIRST_EPOCHS = N_WORD_EPOCHS + N_READING_EPOCHS
WORD_LISTS_TOLD, NAME_LISTS_TOLD = 0.6, 0.4
"""Of the lists, those whose options are followed by their letter."""
N_WORDS_ASKED, N_NAMES_ASKED = 14, 7
LETTER_ASKED_SHARE = 0.75
"""Of the lookups in lists of names, those that ask for the letter; the others ask for the name."""
MIN_WORD, MAX_NAME = 4, 32
"""Letters of a word in a list, at least; of a name, at most."""
FRENCH_SHARE = 0.25
"""Of the facts, those that one epoch also states in French."""
IT_IS: dict[Language, str] = {"en": "It is {}.", "fr": "C'est : {}."}
FIND = {"en": "Which option says {}?", "fr": "Quelle option dit : {} ?"}
SAME: dict[Language, tuple[str, str]] = {
    "en": ("No, another answer.", "Yes, the same answer."),
    "fr": ("Non, une autre réponse.", "Oui, la même réponse."),
}
LEVELS = {
    "Usually Appropriate": "This order is right for the patient.",
    "May Be Appropriate": "This order is an option for the patient.",
    "Usually Not Appropriate": "This order is wrong for the patient.",
}


def epoch(rng: random.Random, number: int = N_FIRST_EPOCHS) -> list[Document]:
    """Reading `number` (0, 1, ..) of everything, in random order: new wordings, options and candidates every time."""
    if number < N_WORD_EPOCHS:
        documents: list[Document] = [word_list(rng) for _ in range(N_WORD_LISTS)]
    elif number < N_FIRST_EPOCHS:
        documents = [*_statements(rng, share=READING_STATED_SHARE), *_questions(rng, N_READING)]
    else:
        documents = [*_statements(rng), *_stated_orders(rng), *_questions(rng, N_QUESTIONS)]
    rng.shuffle(documents)
    return documents


def word_list(rng: random.Random) -> Document:
    """Four words with a letter each, and then words again, each with the letter that it had."""
    return _list(rng.sample(words(), len(LETTERS)), rng, N_WORDS_ASKED, told=WORD_LISTS_TOLD, letters_asked=1.0)


def name_list(rng: random.Random) -> Document:
    """The same with names from the fact base, or asked the other way round: which name has this letter?"""
    drawn = rng.sample(names(), len(LETTERS))
    return _list(drawn, rng, N_NAMES_ASKED, told=NAME_LISTS_TOLD, letters_asked=LETTER_ASKED_SHARE)


@cache
def words() -> tuple[str, ...]:
    """Every word that the names of the fact base hold."""
    return tuple(sorted({word for name in _all_names() for word in re.findall(rf"[^\W\d_]{{{MIN_WORD},}}", name)}))


@cache
def names() -> tuple[str, ...]:
    """Every short subject and value of the fact base, in both languages."""
    return tuple(sorted({name for name in _all_names() if len(name) <= MAX_NAME}))


def _all_names() -> Iterable[str]:
    for fact in load_facts():
        yield from (fact.subject, fact.value, fact.subject_fr, fact.value_fr)


def _list(
    options: Sequence[str], rng: random.Random, n_asked: int, *, told: float, letters_asked: float
) -> tuple[Span, ...]:
    tells = rng.random() < told
    spans: list[Span] = []
    for letter, option in zip(LETTERS, options, strict=True):
        spans += [Span(f"{letter}) {option}"), *([Span(f" {letter}", 1.0)] if tells else []), Span("\n")]
    for _ in range(n_asked):
        place = rng.randrange(len(options))
        letter, option = LETTERS[place], options[place]
        if rng.random() < letters_asked:
            spans += [Span(f" {option}"), Span(f" {letter}", 2.0), Span("\n")]
        else:
            spans += [Span(f"{letter})"), Span(f" {option}", 0.5), Span("\n")]
    return tuple(spans)


def _verdicts(row: mcq.Row) -> Document:
    """A question whose options are each followed by whether they are right: four things to learn instead of one."""
    spans = [Span(f"Question: {row['question']}\n")]
    for place, (letter, name) in enumerate(zip(LETTERS, OPTION_FIELDS, strict=True)):
        spans += [Span(f"{letter}) {row[name]}\n"), Span(str(place == row["cop"]).lower(), 3.0), Span("\n")]
    return (*spans, Span(_option(row), 2.0))


def answer_formats(rng: random.Random, n: int = 150) -> list[str]:
    """Answers in the formats that fine-tuning teaches, for the tokenizer alone: there they should cost few tokens."""
    drawn: list[tuple[TaskContract, list[mcq.Row]]] = [
        (McqContract(), mcq.generate(n, rng, part="pretraining")),
        (RubricContract(), rubric.generate(n, rng, part="pretraining")),
        (AppropriatenessContract(), appropriateness.generate(n, rng, part="pretraining")),
    ]
    return [contract.target(_case(contract, row)) for contract, rows in drawn for row in rows]


def _statements(rng: random.Random, share: float = 1.0) -> Iterable[Document]:
    """Every fact in a sentence and in its explanation, in English and for a share of the facts in French."""
    for fact in rng.sample(load_facts(), round(share * len(load_facts()))):
        for language in LANGUAGES:
            if language == "en" or rng.random() < FRENCH_SHARE:
                yield statement(fact, fact.value_in(language), rng, language)
                yield fact.explanation_in(language)


def _stated_orders(rng: random.Random) -> Iterable[Document]:
    """Ratings of the imaging table as plain sentences: situation, procedure, what holds and why."""
    pairs = [(variant, rating) for variant in appropriateness.load_variants() for rating in variant.ratings]
    for variant, rating in rng.sample(pairs, N_STATED_ORDERS):
        principle = appropriateness.load_principles()[rating.principle]
        wording = rng.choice(variant.wordings())
        yield f"{variant.condition}. {wording} {rating.procedure}: {LEVELS[rating.label].lower()} {principle.text}"


def _questions(rng: random.Random, numbers: Mapping[tuple[str, str], int]) -> Iterable[Document]:
    for (kind, language), n in numbers.items():
        match kind:
            case "mcq":
                rows = mcq.generate(n, rng, "fr" if language == "fr" else "en", part="pretraining")
                yield from (_chat(McqContract(system_prompt=""), row, _option(row)) for row in rows)
            case "verdicts":
                yield from (_verdicts(row) for row in mcq.generate(n, rng, part="pretraining"))
            case "words":
                yield from (word_list(rng) for _ in range(n))
            case "names":
                yield from (name_list(rng) for _ in range(n))
            case "find":
                yield from _finding(n, rng, "fr" if language == "fr" else "en")
            case "open":
                yield from _open_questions(n, rng, "fr" if language == "fr" else "en")
            case "equivalence":
                spoken: Language = "fr" if language == "fr" else "en"
                judge = EquivalenceContract(system_prompt="", language=spoken)
                rows = equivalence.generate(n, rng, spoken, part="pretraining")
                yield from (_chat(judge, row, SAME[spoken][int(str(row["label"]))]) for row in rows)
            case "rubric":
                grader = RubricContract(system_prompt="")
                rows = rubric.generate(n, rng, part="pretraining")
                yield from (_chat(grader, row, f"{row['score']} points. {row['feedback']}") for row in rows)
            case "appropriateness":
                contract = AppropriatenessContract(system_prompt="")
                rows = appropriateness.generate(n, rng, evidence=False, part="pretraining")
                yield from (
                    _chat(contract, row, f"{LEVELS[str(row['appropriateness'])]} {row['reasoning']}") for row in rows
                )


def _open_questions(n: int, rng: random.Random, language: Language) -> Iterable[Document]:
    facts: Sequence[Fact] = facts_of("pretraining")
    for fact in rng.sample(facts, min(n, len(facts))):
        yield [
            {"role": "user", "content": question(fact, rng, language)},
            {"role": "assistant", "content": IT_IS[language].format(fact.value_in(language))},
        ]


def _finding(n: int, rng: random.Random, language: Language) -> Iterable[Document]:
    """Which option says this? The four options of a question, each asked for in turn: practice without any medicine."""
    contract = McqContract(system_prompt="")
    for row in mcq.generate(n, rng, language, part="pretraining"):
        options = [str(row[name]) for name in OPTION_FIELDS]
        turns: list[Message] = []
        for place in rng.sample(range(len(options)), len(options)):
            asked = FIND[language].format(options[place])
            if turns:
                turns.append({"role": "user", "content": asked})
            else:
                turns += contract.messages(_case(contract, {**row, "question": asked}))
            turns.append({"role": "assistant", "content": f"{LETTERS[place]}) {options[place]}"})
        yield turns


def _option(row: mcq.Row) -> str:
    """The right option, with its letter."""
    place = int(str(row["cop"]))
    return f"{LETTERS[place]}) {row[OPTION_FIELDS[place]]}"


def _chat(contract: TaskContract, row: mcq.Row, answer: str) -> Document:
    return [*contract.messages(_case(contract, row)), {"role": "assistant", "content": answer}]


def _case(contract: TaskContract, row: mcq.Row) -> Case:
    return contract.read_case({key: value for key, value in row.items() if key in contract.fields}, "pretraining")
