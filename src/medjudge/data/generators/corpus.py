"""What `builtin:tiny` reads before it is shipped: statements of every fact, questions about the set-aside part alone.

A document is plain text, a chat whose assistant turns the model learns to give, or spans of text of which some are
learned. The prompts are the contracts' own, and the answers are said in words ("B) axillary nerve", "Yes, the same
answer."): the model knows the tasks as an instructed model does, and none of the formats that fine-tuning teaches.

Naming the letter of the right option takes several things at once: an option must remember its letter, question and
option must be compared, and the letter carried to the answer. From questions alone a small model learns none of them
in tens of thousands. So they are taught one after the other, on lists without any medicine, with many answers per row:

1. words: four words with a letter each, then words again: which letter had this one? In many lists each option tells
   its letter once more, which teaches the first of the three by itself.
2. names, and the same asked as in a chat.
3. matches: one word is asked for, then word after word, is it that one? As often yes as no.
4. finding: a question that names an option, as multiple choice asks it; in many rows each option says whether it is the
   one. And mock questions: about any word or name, with an answer that repeats it in a sentence, gives any option as
   its value, and finds that option's letter.

Multiple choice is answered by a sentence and then the option. From questions about facts alone a model learns by heart
which sentence goes with which of them, and says one of those to every other question; mock questions can only be
answered by repeating what is asked about, and then the sentence that was read of it comes by itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from medjudge.data.facts import LANGUAGES, Fact, Language, load_facts
from medjudge.data.generators import appropriateness, equivalence, mcq, rubric
from medjudge.data.generators.answers import question, reasoned, statement, subject_first
from medjudge.data.generators.parts import facts_of
from medjudge.data.generators.phrasing import PHRASINGS, fill
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


@dataclass(frozen=True, slots=True)
class MarkedChat:
    """A chat of one turn whose question has something to learn, too."""

    asked: tuple[Span, ...]
    answer: str | tuple[Span, ...]
    """Text is learned as a chat's answer is."""


Document = str | list[Message] | tuple[Span, ...] | MarkedChat

N_STATED_ORDERS = 70
"""Rated pairs of the imaging table that one epoch states."""
Numbers = Mapping[tuple[str, Language], int]
"""Documents of each kind and language in one epoch."""

N_QUESTIONS: Numbers = {
    ("mock", "en"): 500,
    ("mock", "fr"): 100,
    ("mcq", "en"): 700,
    ("mcq", "fr"): 120,
    ("find", "en"): 100,
    ("find", "fr"): 30,
    ("open", "en"): 300,
    ("open", "fr"): 60,
    ("equivalence", "en"): 120,
    ("equivalence", "fr"): 60,
    ("rubric", "en"): 60,
    ("appropriateness", "en"): 80,
    ("names", "en"): 50,
    ("later", "en"): 50,
}
"""In every epoch but the first ones. Questions are about the set-aside part."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Some of the first epochs."""

    n_epochs: int
    numbers: Numbers
    stated_share: float = 0.0
    """Of the facts, those that one of these epochs states."""


LESSONS = (
    Lesson(10, {("words", "en"): 1280}),
    Lesson(4, {("words", "en"): 450, ("names", "en"): 1000, ("later", "en"): 500}),
    Lesson(5, {("matches", "en"): 1200, ("told", "en"): 200, ("later", "en"): 120, ("names", "en"): 80}),
    Lesson(
        6,
        {
            ("told", "en"): 600,
            ("mock", "en"): 500,
            ("mock", "fr"): 60,
            ("find", "en"): 300,
            ("find", "fr"): 100,
            ("matches", "en"): 400,
            ("later", "en"): 150,
            ("names", "en"): 100,
            ("verdicts", "en"): 200,
        },
        stated_share=0.15,
    ),
)
N_FIRST_EPOCHS = sum(lesson.n_epochs for lesson in LESSONS)
WORD_LISTS_TOLD, NAME_LISTS_TOLD = 0.6, 0.4
"""Of the lists, those whose options are followed by their letter."""
N_WORDS_ASKED, N_NAMES_ASKED = 14, 7
N_ASKED_LATER = 4
N_MATCHES = 12
"""Lines of a document, each of which says whether it is what is asked for."""
WORD_SHARE = 0.7
"""Of lists and finds, those of single words; the others are of names."""
LETTER_ASKED_SHARE = 0.75
"""Of the lookups in lists of names, those that ask for the letter; the others ask for the name."""
MIN_WORD, MAX_NAME = 4, 32
"""Letters of a word in a list, at least; of a name, at most."""
N_WORDINGS = 2
"""Sentences that state a fact, in one epoch."""
EXPLAINED_SHARE = 0.5
"""Of the facts, those whose explanation one epoch holds."""
FRENCH_SHARE = 0.25
"""Of the facts, those that one epoch also states in French."""
PRACTICE_STATED_SHARE = 0.25
"""Of the facts, those that are stated between mock questions."""
LETTER_WEIGHT = 4.0
"""Of the letter that follows from what was said before it."""
FIND: dict[Language, tuple[str, ...]] = {
    "en": ("Which option says {}?", "Which option is {}?", "{}", "Find {}."),
    "fr": ("Quelle option dit : {} ?", "{}", "Trouvez : {}."),
}
YES, NO = " true", " false"
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
    documents: list[Document] = []
    for lesson in LESSONS:
        if 0 <= number < lesson.n_epochs:
            documents = [*_statements(rng, share=lesson.stated_share), *_questions(rng, lesson.numbers)]
        number -= lesson.n_epochs
    if number >= 0:
        documents = [*_statements(rng), *_stated_orders(rng), *_questions(rng, N_QUESTIONS)]
    rng.shuffle(documents)
    return documents


def practice(rng: random.Random, number: int = 0) -> list[Document]:
    """Mock questions and echoes beside statements of some facts: repeating and finding, nothing to learn by heart."""
    documents: list[Document] = list(_statements(rng, PRACTICE_STATED_SHARE))
    documents += [mock(rng, "en") for _ in range(1300)]
    documents += [mock(rng, "fr") for _ in range(150)]
    return documents + [echo(rng) for _ in range(350)]


def practised_epoch(rng: random.Random, number: int = 0) -> list[Document]:
    """An epoch of everything, with more mock questions and some echoes, so that the skill is not forgotten."""
    documents = epoch(rng)
    documents += [mock(rng, "en") for _ in range(300)]
    return documents + [echo(rng) for _ in range(100)]


def echo(rng: random.Random) -> Document:
    """A row of words and names, and three times the same row from somewhere in it to its end."""
    parts = [rng.choice(_words_or_names(rng)) for _ in range(rng.randint(3, 7))]
    spans = [Span(" " + " ".join(parts) + "\n")]
    for _ in range(3):
        start = rng.randrange(len(parts))
        spans.append(Span(" " + parts[start]))
        if start + 1 < len(parts):
            spans.append(Span(" " + " ".join(parts[start + 1 :]), 1.0))
        spans.append(Span("\n", 1.0))
    return tuple(spans)


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


def matches(rng: random.Random) -> Document:
    """One word or name is asked for; line after line, is it that one? As often as not."""
    asked, *others = rng.sample(_words_or_names(rng), 7)
    return _judged(rng.choice(FIND["en"]).format(asked), asked, others, rng, N_MATCHES)


def later(rng: random.Random) -> Document:
    """Options first, and then several times, as in a chat: which letter has this one?"""
    options = rng.sample(_words_or_names(rng), len(LETTERS))
    turns: list[Message] = []
    for number in range(N_ASKED_LATER):
        place = rng.randrange(len(options))
        asked = rng.choice(FIND["en"]).format(options[place])
        head = "".join(f"{letter}) {option}\n" for letter, option in zip(LETTERS, options, strict=True))
        turns += [
            {"role": "user", "content": head + asked if number == 0 else asked},
            {"role": "assistant", "content": f"{LETTERS[place]}) {options[place]}"},
        ]
    return turns


def told(rng: random.Random) -> Document:
    """A question that names one of its options, each of which says whether it is the one; then the answer."""
    options = rng.sample(_words_or_names(rng), len(LETTERS))
    place = rng.randrange(len(options))
    return _told(rng.choice(FIND["en"]).format(options[place]), options, place)


def find(rng: random.Random, language: Language) -> Document:
    """A question that names one of its options, asked as the contract asks."""
    options = rng.sample(_words_or_names(rng), len(LETTERS))
    place = rng.randrange(len(options))
    asked = rng.choice(FIND[language]).format(options[place])
    row = {"question": asked, **dict(zip(OPTION_FIELDS, options, strict=True)), "cop": place, "exp": ""}
    return _chat(McqContract(system_prompt=""), row, _option(row))


def mock(rng: random.Random, language: Language) -> Document:
    """A question, its options and its answer as of a fact, but about words and names that belong together in no way.

    What the sentence says of its subject is only read: there is nothing to know about it.
    """
    relation = rng.choice(sorted(PHRASINGS[language]))
    options = rng.sample(_words_or_names(rng), len(LETTERS))
    place = rng.randrange(len(options))
    if rng.random() >= mcq.REVERSE_SHARE:
        subject = rng.choice(_words_or_names(rng))
        asked = fill(rng.choice(PHRASINGS[language][relation].questions), subject=subject)
        pairs = [(subject, options[place])]
    else:
        value, *others = rng.sample(_words_or_names(rng), len(LETTERS))
        asked = fill(rng.choice(PHRASINGS[language][relation].reverse), value=value)
        pairs = list(zip(options, [*others[:place], value], strict=False))
    spans: list[Span] = []
    for subject, value in pairs:
        head, _, tail = rng.choice(subject_first(relation, language)).partition("{v}")
        head, gap = head.removesuffix(" "), " " if head.endswith(" ") else ""  # a space belongs to the word after it
        spans += [Span((" " if spans else "") + fill(head, subject=subject), 1.0), Span(gap + value), Span(tail, 1.0)]
    row = {"question": asked, **dict(zip(OPTION_FIELDS, options, strict=True)), "cop": place, "exp": ""}
    return _chosen(row, tuple(spans))


def _words_or_names(rng: random.Random) -> Sequence[str]:
    return words() if rng.random() < WORD_SHARE else names()


def _judged(question: str, right: str, wrong: Sequence[str], rng: random.Random, n_lines: int) -> tuple[Span, ...]:
    """A question and candidate answers, each judged; one as often as not the right one."""
    spans = [Span(f"Question: {question}\n")]
    for _ in range(n_lines):
        is_right = rng.random() < 0.5
        letter = f"{rng.choice(LETTERS)})" if rng.random() < 0.5 else ""
        spans += [Span(f"{letter} {right if is_right else rng.choice(wrong)}"), Span(YES if is_right else NO, 1.5)]
        spans.append(Span("\n"))
    return tuple(spans)


def _told(question: str, options: Sequence[str], place: int) -> MarkedChat:
    spans = [Span(f"Question: {question}")]
    for number, (letter, option) in enumerate(zip(LETTERS, options, strict=True)):
        judged = Span(YES, 3.0) if number == place else Span(NO, 1.0)
        spans += [Span(f"\n{letter}) {option}"), judged]
    return MarkedChat(tuple(spans), f"{LETTERS[place]}) {options[place]}")


def answer_formats(rng: random.Random, n: int = 150) -> list[str]:
    """Answers in the formats that fine-tuning teaches, for the tokenizer alone: there they should cost few tokens."""
    drawn: list[tuple[TaskContract, list[mcq.Row]]] = [
        (McqContract(), mcq.generate(n, rng, part="pretraining")),
        (RubricContract(), rubric.generate(n, rng, part="pretraining")),
        (AppropriatenessContract(), appropriateness.generate(n, rng, part="pretraining")),
    ]
    return [contract.target(_case(contract, row)) for contract, rows in drawn for row in rows]


def _statements(rng: random.Random, share: float = 1.0) -> Iterable[Document]:
    """Every fact in two wordings, and of a share of the facts the explanation; of a share the same in French."""
    for fact in rng.sample(load_facts(), round(share * len(load_facts()))):
        for language in LANGUAGES:
            if language == "en" or rng.random() < FRENCH_SHARE:
                for _ in range(N_WORDINGS):
                    yield statement(fact, fact.value_in(language), rng, language)
                if rng.random() < EXPLAINED_SHARE:
                    yield fact.explanation_in(language)


def _stated_orders(rng: random.Random) -> Iterable[Document]:
    """Ratings of the imaging table as plain sentences: situation, procedure, what holds and why."""
    pairs = [(variant, rating) for variant in appropriateness.load_variants() for rating in variant.ratings]
    for variant, rating in rng.sample(pairs, N_STATED_ORDERS):
        principle = appropriateness.load_principles()[rating.principle]
        wording = rng.choice(variant.wordings())
        yield f"{variant.condition}. {wording} {rating.procedure}: {LEVELS[rating.label].lower()} {principle.text}"


def _questions(rng: random.Random, numbers: Numbers) -> Iterable[Document]:
    for (kind, language), n in numbers.items():
        match kind:
            case "words":
                yield from (word_list(rng) for _ in range(n))
            case "names":
                yield from (name_list(rng) for _ in range(n))
            case "later":
                yield from (later(rng) for _ in range(n))
            case "matches":
                yield from (matches(rng) for _ in range(n))
            case "told":
                yield from (told(rng) for _ in range(n))
            case "mock":
                yield from (mock(rng, language) for _ in range(n))
            case "find":
                yield from (find(rng, language) for _ in range(n))
            case "verdicts":
                for row in mcq.generate(n, rng, language, part="pretraining"):
                    yield _told(str(row["question"]), _options(row), int(str(row["cop"])))
            case "mcq":
                for row in mcq.generate(n, rng, language, part="pretraining"):
                    yield _chosen(row, (Span(str(row["reasoning"]), 1.0),))
            case "open":
                yield from _open_questions(n, rng, language)
            case "equivalence":
                judge = EquivalenceContract(system_prompt="", language=language)
                rows = equivalence.generate(n, rng, language, part="pretraining")
                yield from (_chat(judge, row, SAME[language][int(str(row["label"]))]) for row in rows)
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
        yield MarkedChat((Span(question(fact, rng, language)),), (Span(reasoned(fact, rng, language), 1.0),))


def _chosen(row: mcq.Row, reasoning: tuple[Span, ...]) -> MarkedChat:
    """A question, and an answer that says first what it knows and then which option that is."""
    [asked] = McqContract(system_prompt="").messages(_case(McqContract(), row))
    letter, rest = _option(row)[:1], _option(row)[1:]
    answer = (*reasoning, Span("\n", 1.0), Span(letter, LETTER_WEIGHT), Span(rest, 1.0))
    return MarkedChat((Span(asked["content"]),), answer)


def _options(row: mcq.Row) -> list[str]:
    return [str(row[name]) for name in OPTION_FIELDS]


def _option(row: mcq.Row) -> str:
    """The right option, with its letter."""
    place = int(str(row["cop"]))
    return f"{LETTERS[place]}) {row[OPTION_FIELDS[place]]}"


def _chat(contract: TaskContract, row: mcq.Row, answer: str) -> Document:
    return [*contract.messages(_case(contract, row)), {"role": "assistant", "content": answer}]


def _case(contract: TaskContract, row: mcq.Row) -> Case:
    return contract.read_case({key: value for key, value in row.items() if key in contract.fields}, "pretraining")
