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
   one.

Asked about facts, a small model then learns by heart which option goes with which question, and can tell nothing about
the facts that no question has asked. It can if it says a sentence first: what it has read comes back with the words in
which it was read. But which sentence goes with which question it learns by heart, too. So it practises on mock
questions, about any word or name: they can only be answered by repeating what is asked about. And in many answers other
words stand about the sentence and the letter, or both stand in a JSON object, never under the same keys: otherwise the
letter is found on the next line only, and not in whatever form fine-tuning asks for.

Last comes judging: candidates against references, outputs graded in words and then in points, imaging orders rated, all
about the set-aside part, while the rest goes on. The orders of the other part are stated: in sentences, and in lines
under words of no meaning, since what a small model remembers of a sentence hangs on how the sentence was laid out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeGuard

from medjudge.records import Case, Message
from medjudge.synthetic import appropriateness, equivalence, mcq, rubric
from medjudge.synthetic.answers import Direction, question, reasoned, reasonings, statement
from medjudge.synthetic.appropriateness import LEVELS
from medjudge.synthetic.facts import LANGUAGES, Fact, Language, load_facts
from medjudge.synthetic.partition import facts_of
from medjudge.synthetic.phrasing import PHRASINGS, fill
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import LETTERS, McqContract
from medjudge.tasks.mcq import OPTIONS as OPTION_FIELDS
from medjudge.tasks.rubric import RubricContract
from medjudge.tiny_base.documents import Document, MarkedChat, Span
from medjudge.tiny_base.lessons import EVERYTHING, JUDGING, LESSONS, PRACTICE, WORDS, Lesson, Numbers

WORD_LISTS_TOLD, NAME_LISTS_TOLD = 0.6, 0.4
"""Of the lists, those whose options are followed by their letter."""
N_WORDS_ASKED, N_NAMES_ASKED = 14, 7
N_ASKED_LATER = 4
N_MATCHES = 12
"""Lines of a document that each say whether they are what is asked for."""
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
VALUE_FIRST_SHARE = 0.7
"""Of the facts, those that one epoch also states value first."""
GUESSED_WEIGHT = 0.25
"""Of what a mock answer says of its subject: any option, of which the loss can teach no more than that."""
SET_APART_SHARE, AS_OBJECT_SHARE = 0.3, 0.3
"""Of the answers that say a sentence and an option, those with words of no meaning about both, and JSON objects."""
MAX_WORDS_BETWEEN = 3
BEFORE_WORDS = ("\n", "\n\n", "\n- ", " ", " (", " / ", '" ')
AFTER_WORDS = ("\n", ":", ": (", ': "', "=", '="', " ->")
LETTER_WEIGHT = 4.0
"""Of the letter that follows from what was said before it."""
LEVEL_WEIGHT = 5.0
"""Of the word that rates an imaging order."""
BETWEEN_LINES, BEFORE_LEVEL = ("\n", "\n", "\n\n", " ", "; ", " / "), ("\n", "\n\n", "", ":", " ->", ".")
ORDER_SET_APART_SHARE = 0.6
"""Of the listed orders, those with words of no meaning between the order and its rating, too."""
TASK_ORDERS_SHARE = 0.75
"""Of the stated orders, those of situations that no pretraining question asks about; it asks about the others."""
GRADED_SHARES: dict[rubric.Points, float] = {5: 0.6, 3: 0.2, 2: 0.2}
"""Of the graded outputs, those on each scale."""
FIND: dict[Language, tuple[str, ...]] = {
    "en": ("Which option says {}?", "Which option is {}?", "{}", "Find {}."),
    "fr": ("Quelle option dit : {} ?", "{}", "Trouvez : {}."),
}
YES, NO = " true", " false"
SAME: dict[Language, tuple[str, str]] = {
    "en": ("No, another answer.", "Yes, the same answer."),
    "fr": ("Non, une autre réponse.", "Oui, la même réponse."),
}


def words_epoch(rng: random.Random, number: int = 0) -> list[Document]:
    """Lists of words."""
    return _documents(WORDS, rng)


def lessons_epoch(rng: random.Random, number: int) -> list[Document]:
    """Reading `number` (0, 1, ..) of the lessons, in random order: new wordings, options and candidates every time."""
    for lesson in LESSONS:
        if number < lesson.n_epochs:
            break
        number -= lesson.n_epochs
    return _documents(lesson, rng)


def practice_epoch(rng: random.Random, number: int = 0) -> list[Document]:
    """Mock questions and echoes beside statements: repeating and finding, with nothing to learn by heart."""
    return [_varied(document, rng) for document in _documents(PRACTICE, rng)]


def epoch(rng: random.Random, number: int = 0) -> list[Document]:
    """A reading of everything, in random order."""
    return [_varied(document, rng) for document in plain_epoch(rng)]


def judging_epoch(rng: random.Random, number: int = 0) -> list[Document]:
    """Judging what others answered, beside all that was learned before."""
    return [_varied(document, rng) for document in _documents(JUDGING, rng)]


def plain_epoch(rng: random.Random) -> list[Document]:
    """The same without words of no meaning, as the tokenizer sees it."""
    return _documents(EVERYTHING, rng)


def _documents(lesson: Lesson, rng: random.Random) -> list[Document]:
    documents = [
        *_statements(rng, lesson.stated_share),
        *_stated_orders(rng, lesson.stated_orders_share),
        *_questions(rng, lesson.numbers),
    ]
    rng.shuffle(documents)
    return documents


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
    spans = [Span(f"Question: {rng.choice(FIND['en']).format(asked)}\n")]
    for _ in range(N_MATCHES):
        is_right = rng.random() < 0.5
        letter = f"{rng.choice(LETTERS)})" if rng.random() < 0.5 else ""
        spans += [Span(f"{letter} {asked if is_right else rng.choice(others)}"), Span(YES if is_right else NO, 1.5)]
        spans.append(Span("\n"))
    return tuple(spans)


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
    row = _row(asked, options, place)
    return _chat(McqContract(system_prompt=""), row, _option(row))


def mock(rng: random.Random, language: Language) -> Document:
    """A question, its options and its answer as of a fact, but about words and names that belong together in no way."""
    relation = rng.choice(sorted(PHRASINGS[language]))
    options = rng.sample(_words_or_names(rng), len(LETTERS))
    place = rng.randrange(len(options))
    named = rng.choice(_words_or_names(rng))
    direction: Direction = "reverse" if rng.random() < mcq.REVERSE_SHARE else "forward"
    sentence = rng.choice(reasonings(relation, language, direction))
    if direction == "reverse":
        asked = fill(rng.choice(PHRASINGS[language][relation].reverse), value=named)
        before, place_of_option, after = fill(sentence, subject="{s}", value=named).partition("{s}")
    else:
        asked = fill(rng.choice(PHRASINGS[language][relation].questions), subject=named)
        before, place_of_option, after = fill(sentence, subject=named, value="{v}").partition("{v}")
    assert place_of_option, sentence
    before, gap = before.removesuffix(" "), " " if before.endswith(" ") else ""  # a space belongs to the word after it
    spans = (Span(before, 1.0), Span(gap + options[place], GUESSED_WEIGHT), Span(after, 1.0))
    return _chosen(_row(asked, options, place), spans)


def _words_or_names(rng: random.Random) -> Sequence[str]:
    return words() if rng.random() < WORD_SHARE else names()


def _row(question: str, options: Sequence[str], place: int) -> mcq.Row:
    """A multiple-choice row of which there is nothing to know."""
    return {"question": question, **dict(zip(OPTION_FIELDS, options, strict=True)), "cop": place, "exp": ""}


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
    return [contract.target(case_of(contract, row)) for contract, rows in drawn for row in rows]


def _statements(rng: random.Random, share: float) -> Iterable[Document]:
    """A share of the facts in two wordings, and of a share of these the explanation; of a share the same in French."""
    for fact in rng.sample(load_facts(), round(share * len(load_facts()))):
        for language in LANGUAGES:
            if language == "en" or rng.random() < FRENCH_SHARE:
                for _ in range(N_WORDINGS):
                    yield statement(fact, fact.value_in(language), rng, language)
                if rng.random() < VALUE_FIRST_SHARE:
                    yield reasoned(fact, rng, language, "reverse")
                if rng.random() < EXPLAINED_SHARE:
                    yield fact.explanation_in(language)


def _stated_orders(rng: random.Random, share: float) -> Iterable[Document]:
    """Ratings of the imaging table as plain sentences: situation, procedure, what holds and why."""
    pairs = [(variant, rating) for variant in appropriateness.load_variants() for rating in variant.ratings]
    for variant, rating in rng.sample(pairs, round(share * len(pairs))):
        principle = appropriateness.load_principles()[rating.principle]
        wording = rng.choice(variant.wordings())
        level = LEVELS[rating.label].lower()
        yield f"{variant.condition}. {wording} {rating.procedure}: {level} {principle.text}"


def _orders(n: int, rng: random.Random) -> list[appropriateness.Row]:
    """Rated orders of both parts; labels in the shares of task rows, or the few that are right would hardly be read."""
    n_task = round(n * TASK_ORDERS_SHARE)
    return [
        *appropriateness.generate(n_task, rng, evidence=False, part="task", covering=True),
        *appropriateness.generate(n - n_task, rng, evidence=False, part="pretraining", covering=True),
    ]


def _stated(row: appropriateness.Row) -> Document:
    """A rated order as one sentence."""
    order = Span(f"{row['condition']}. {row['variant']} {row['procedure']}:", 1.0)
    return (order, *_rated(row, before=" ", level=LEVELS[str(row["appropriateness"])].lower()))


def _listed(row: appropriateness.Row, rng: random.Random) -> Document:
    """The same in lines under words of no meaning: what is remembered of an order should not hang on a layout."""
    gap, end = rng.choice(BETWEEN_LINES), rng.choice(BEFORE_LEVEL)
    spans: list[Span] = []
    for field in ("condition", "variant", "procedure"):
        label = f"{_some_words(rng, at_least=1)}:"
        spans += [Span(gap + label if spans else label), Span(f" {row[field]}", 1.0)]
    if rng.random() < ORDER_SET_APART_SHARE:
        end = rng.choice(BETWEEN_LINES) + _some_words(rng, at_least=1) + rng.choice(BEFORE_LEVEL)
    return (*spans, Span(end), *_rated(row, before="" if end.endswith("\n") else " "))


def _rated(row: appropriateness.Row, before: str = "", level: str | None = None) -> tuple[Span, ...]:
    """`This order is right for the patient.` and why: all the doubt lies in a word or two."""
    start, end = " order is", " for the patient."
    this, word = (level or LEVELS[str(row["appropriateness"])]).removesuffix(end).split(start)
    return Span(before + this + start, 1.0), Span(word, LEVEL_WEIGHT), Span(f"{end} {row['reasoning']}", 1.0)


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
            case "echo":
                yield from (echo(rng) for _ in range(n))
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
            case "graded":
                yield from _graded(n, rng)
            case "appropriateness":
                contract = AppropriatenessContract(system_prompt="")
                rows = appropriateness.generate(n, rng, evidence=False, part="pretraining")
                yield from (_chat(contract, row, str(row["opinion"])) for row in rows)
            case "rated":
                contract = AppropriatenessContract(system_prompt="")
                for row in appropriateness.generate(n, rng, evidence=False, part="pretraining"):
                    [asked] = contract.messages(case_of(contract, row))
                    yield MarkedChat((Span(asked["content"]),), _rated(row))
            case "stated orders":
                yield from (_stated(row) for row in _orders(n, rng))
            case "listed orders":
                yield from (_listed(row, rng) for row in _orders(n, rng))


def _open_questions(n: int, rng: random.Random, language: Language) -> Iterable[Document]:
    facts: Sequence[Fact] = facts_of("pretraining")
    for fact in rng.sample(facts, min(n, len(facts))):
        yield MarkedChat((Span(question(fact, rng, language)),), (Span(reasoned(fact, rng, language), 1.0),))


def _graded(n: int, rng: random.Random) -> Iterable[Document]:
    """Rubric rows of every scale: what is good or bad about the output, and then how many points that makes."""
    for points, share in GRADED_SHARES.items():
        grader = RubricContract(system_prompt="", points=points)
        for row in rubric.generate(round(share * n), rng, points, part="pretraining"):
            [asked] = grader.messages(case_of(grader, row))
            score = (Span(str(row["score"]), LETTER_WEIGHT), Span(" points", 1.0))
            yield MarkedChat((Span(asked["content"]),), (Span(str(row["feedback"]), 1.0), Span("\n", 1.0), *score))


def _chosen(row: mcq.Row, reasoning: tuple[Span, ...]) -> MarkedChat:
    """A question, and an answer that says first what it knows and then which option that is."""
    [asked] = McqContract(system_prompt="").messages(case_of(McqContract(), row))
    letter, rest = _option(row)[:1], _option(row)[1:]
    answer = (*reasoning, Span("\n", 1.0), Span(letter, LETTER_WEIGHT), Span(rest, 1.0))
    return MarkedChat((Span(asked["content"]),), answer)


def _varied(document: Document, rng: random.Random) -> Document:
    """The document; if it says a sentence and an option, often in another form, whose other words are only read."""
    if not isinstance(document, MarkedChat) or not _chooses(document.answer):
        return document
    *sentence, line_break, letter, rest = document.answer
    form = rng.random()
    if form < AS_OBJECT_SHARE:
        head, between, tail = _object(rng)
        answer = (Span(head), *sentence, Span(between), letter, Span(tail))
    elif form < AS_OBJECT_SHARE + SET_APART_SHARE:
        between = rng.choice(BEFORE_WORDS) + _some_words(rng) + rng.choice(AFTER_WORDS)
        gap = " " if between[-1] in ":=>" else ""
        answer = (*sentence, Span(between), Span(gap + letter.text, letter.weight), rest)
        if rng.random() < 0.5:
            answer = (Span(_some_words(rng) + rng.choice(AFTER_WORDS)), *answer)
    else:
        answer = (*sentence, line_break, letter, rest)
    return MarkedChat(document.asked, answer)


def _object(rng: random.Random) -> tuple[str, str, str]:
    """What stands before the sentence, between it and the letter, and after that, in a JSON object with any keys."""
    keys = [_some_words(rng, at_least=1) for _ in range(4)]
    more = [f', "{key}": {round(rng.random(), rng.choice((1, 2)))}' for key in keys[2 : rng.randint(2, 4)]]
    rng.shuffle(more)
    n_before = rng.randint(0, len(more)) if rng.random() < 0.3 else 0
    between = f'"{"".join(more[:n_before])}, "{keys[1]}": "'
    return f'{{"{keys[0]}": "', between, f'"{"".join(more[n_before:])}}}'


def _chooses(answer: str | tuple[Span, ...]) -> TypeGuard[tuple[Span, ...]]:
    return not isinstance(answer, str) and len(answer) > 2 and answer[-2].weight == LETTER_WEIGHT


def _some_words(rng: random.Random, at_least: int = 0) -> str:
    return rng.choice((" ", "_")).join(rng.sample(words(), rng.randint(at_least, MAX_WORDS_BETWEEN)))


def _options(row: mcq.Row) -> list[str]:
    return [str(row[name]) for name in OPTION_FIELDS]


def _option(row: mcq.Row) -> str:
    """The right option, with its letter."""
    place = int(str(row["cop"]))
    return f"{LETTERS[place]}) {row[OPTION_FIELDS[place]]}"


def _chat(contract: TaskContract, row: mcq.Row, answer: str) -> Document:
    return [*contract.messages(case_of(contract, row)), {"role": "assistant", "content": answer}]


def case_of(contract: TaskContract, row: mcq.Row) -> Case:
    """The case of a drawn row, whose other columns the contract does not know."""
    return contract.read_case({key: value for key, value in row.items() if key in contract.fields}, "pretraining")
