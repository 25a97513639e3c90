"""What `builtin:tiny` reads before it is shipped: statements of every fact, questions about the set-aside part alone.

A document is plain text, or a chat whose last turn the model learns to give. The prompts are the contracts' own, and
the answers are said in words ("B) axillary nerve", "Yes, the same answer."): the model knows the tasks as an instructed
model does, and none of the answer formats that fine-tuning teaches.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

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

Document = str | list[Message]

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
}
N_FIRST_EPOCHS = 5
N_FIRST_FINDS = 1500
FIRST_STATED_SHARE = 0.25
"""Of the facts, those that one of the first epochs states."""
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
    """Reading `number` (0, 1, ..) of everything, in random order: new wordings, options and candidates every time.

    The first ones hold little but practice in reading options: a small model learns to name the letter of an option
    only after thousands of examples, and until then no question teaches it any medicine.
    """
    if number < N_FIRST_EPOCHS:
        documents = [*_finding(N_FIRST_FINDS, rng, "en"), *_statements(rng, share=FIRST_STATED_SHARE)]
    else:
        documents = [*_statements(rng), *_stated_orders(rng), *_questions(rng)]
    rng.shuffle(documents)
    return documents


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


def _questions(rng: random.Random) -> Iterable[Document]:
    for (kind, language), n in N_QUESTIONS.items():
        match kind:
            case "mcq":
                rows = mcq.generate(n, rng, "fr" if language == "fr" else "en", part="pretraining")
                yield from (_chat(McqContract(system_prompt=""), row, _option(row)) for row in rows)
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
