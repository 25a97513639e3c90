"""What the tiny base may read: every fact as a statement, questions about the set-aside part alone."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest

from medjudge.synthetic import appropriateness
from medjudge.synthetic.answers import reasonings
from medjudge.synthetic.facts import LANGUAGES, Language, facts_by_relation, holds, load_facts
from medjudge.synthetic.partition import block_ids, facts_of, part_ids, relatives
from medjudge.synthetic.sets import GENERATORS
from medjudge.tiny_base import corpus
from medjudge.tiny_base.documents import Document, MarkedChat, Span
from medjudge.tiny_base.lessons import EVERYTHING, JUDGING, LESSONS, PRACTICE

Epoch = Callable[[random.Random, int], list[Document]]


@cache
def read() -> list[Document]:
    return corpus.epoch(random.Random(0))


def test_parts_divide_every_relation_about_one_to_two() -> None:
    assert len(facts_of("pretraining")) + len(facts_of("task")) == len(load_facts())
    for relation, facts in facts_by_relation().items():
        share = Counter(part_ids()[fact.id] for fact in facts)["pretraining"] / len(facts)
        assert 0.2 < share < 0.45, relation
    blocks = {part: {block_ids()[fact.id] for fact in facts_of(part)} for part in ("pretraining", "task")}
    assert not blocks["pretraining"] & blocks["task"]
    assert all(part_ids()[other.id] == part_ids()[fact.id] for fact in load_facts() for other in relatives(fact))


@pytest.mark.parametrize("name", GENERATORS)
def test_no_row_of_a_set_asks_about_what_the_base_was_asked(name: str) -> None:
    asked = {fact.id for fact in facts_of("pretraining")} | {v.id for v in appropriateness.variants_of("pretraining")}
    column = "fact_id" if GENERATORS[name].group_by == ("block_id",) else GENERATORS[name].group_by[0]
    assert not asked & {row[column] for row in GENERATORS[name].rows(500)}


def test_every_fact_is_stated_in_english() -> None:
    texts = {document for document in read() if isinstance(document, str)}
    stated = " ".join(texts).lower()
    assert all(fact.subject.lower() in stated and fact.value.lower() in stated for fact in load_facts())
    explained = sum(fact.explanation in texts for fact in load_facts())
    assert explained / len(load_facts()) == pytest.approx(corpus.EXPLAINED_SHARE, abs=0.06)


def test_questions_are_about_the_set_aside_part_alone() -> None:
    """Question and answer together name subject and value of a set-aside fact; no pair of the other part fits them."""
    numbers = EVERYTHING.numbers
    assert sum(not isinstance(document, str) for document in read()) == sum(numbers.values())
    chats = [document for document in read() if isinstance(document, MarkedChat)]
    opened = [chat for chat in chats if not chat.asked[0].text.startswith("Question: ")]
    assert len(opened) == numbers["open", "en"] + numbers["open", "fr"]
    left = facts_of("task")
    for chat in opened[:150]:
        question, answer = chat.asked[0].text, last(chat)
        assert not any(
            holds(question, f.subject) and holds(answer, f.value) and len(f.subject) > 12 for f in left
        ) or any(holds(question, f.subject) and holds(answer, f.value) for f in facts_of("pretraining"))


def test_an_answer_says_what_it_knows_and_then_the_option_that_is_it() -> None:
    documents = corpus.plain_epoch(random.Random(0))
    chats = [document for document in documents if isinstance(document, MarkedChat)]
    choices = [chat for chat in chats if chat.asked[0].text.startswith("Question: ")]
    numbers = EVERYTHING.numbers
    assert len(choices) == sum(numbers[kind, language] for kind in ("mcq", "mock") for language in LANGUAGES)
    for chat in choices:
        reasoning, option = last(chat).split("\n")
        assert option in chat.asked[0].text.splitlines()
        assert holds(reasoning, option[3:])
        assert [span.weight for span in chat.answer if isinstance(span, Span)][-2] == corpus.LETTER_WEIGHT


def test_forms_vary_and_the_letter_stays() -> None:
    forms: Counter[str] = Counter()
    for document in read():
        if not isinstance(document, MarkedChat) or isinstance(document.answer, str):
            continue
        (letter, *more) = [span.text.strip() for span in document.answer if span.weight == corpus.LETTER_WEIGHT] or [""]
        if not letter:
            continue
        options = {line[0]: line[3:] for line in document.asked[0].text.splitlines()[-4:]}
        answer = last(document)
        assert (more, letter in options) == ([], True)
        try:
            answered = json.loads(answer)
        except json.JSONDecodeError:
            forms[
                "plain" if answer.count("\n") == 1 and answer.endswith(f"\n{letter}) {options[letter]}") else "words"
            ] += 1
            assert holds(answer, options[letter])
        else:
            forms["object"] += 1
            assert letter in answered.values()
            assert not set(answered) & {"predicted_category", "confidence", "reason"}
            assert any(holds(value, options[letter]) for value in answered.values() if isinstance(value, str))
    shares = {form: n / forms.total() for form, n in forms.items()}
    assert shares["object"] == pytest.approx(corpus.AS_OBJECT_SHARE, abs=0.03)
    assert shares["words"] == pytest.approx(corpus.SET_APART_SHARE, abs=0.06)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mock_answer_repeats_what_is_asked_about_and_guesses_the_rest(language: Language) -> None:
    for seed in range(30):
        document = corpus.mock(random.Random(seed), language)
        assert isinstance(document, MarkedChat)
        question, *options = document.asked[0].text.removeprefix("Question: ").splitlines()
        spans = [span for span in document.answer if isinstance(span, Span)]
        (guessed,) = (span.text.strip() for span in spans if span.weight == corpus.GUESSED_WEIGHT)
        assert last(document).splitlines()[-1] in options
        assert last(document).endswith(f") {guessed}")
        repeated = [w for w in corpus.words() + corpus.names() if holds(question, w) and holds(spans[0].text, w)]
        assert repeated


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_relation_has_sentences_for_both_directions(language: Language) -> None:
    for relation in facts_by_relation():
        for direction, first, then in (("forward", "{s}", "{v}"), ("reverse", "{v}", "{s}")):
            for text in reasonings(relation, language, direction):  # type: ignore[arg-type]  # a Literal, by its name
                assert 0 <= text.lower().index(first) < text.lower().index(then)


@pytest.mark.parametrize("draw", [corpus.epoch, corpus.judging_epoch])
def test_no_chat_shows_an_answer_format_that_fine_tuning_teaches(draw: Epoch) -> None:
    for document in draw(random.Random(0), 0):
        if not isinstance(document, str):
            answer = last(document)
            marks = ("predicted_category", '"confidence"', '"reason"', "<answer>", "<score>", "<feedback>")
            assert not any(mark in answer for mark in marks)
            assert answer not in ("0", "1")


def test_a_grade_follows_from_what_was_said_of_the_output() -> None:
    documents = corpus.judging_epoch(random.Random(0))
    assert sum(not isinstance(document, str) for document in documents) == sum(JUDGING.numbers.values())
    chats = [document for document in documents if isinstance(document, MarkedChat)]
    graded = [chat for chat in chats if "# OUTPUT" in chat.asked[0].text]
    scales: Counter[tuple[str, ...]] = Counter()
    for chat in graded:
        (score,) = (span.text.strip() for span in chat.answer if span.weight == corpus.LETTER_WEIGHT)
        scale = {line[8]: line[11:] for line in chat.asked[0].text.splitlines() if line.startswith("- Score ")}
        scales[tuple(scale)] += 1
        says_right = any(word in last(chat) for word in ("The main answer, ", "is what was asked for"))
        assert ("main question is right" in scale[score]) == says_right
        assert any(fact.value.lower() in chat.asked[0].text.lower() for fact in facts_of("pretraining"))
    assert scales == {tuple("12345"): 150, tuple("123"): 50, tuple("01"): 50}


def test_orders_of_all_situations_are_stated_and_those_of_task_rows_never_asked_about() -> None:
    task = {wording for variant in appropriateness.variants_of("task") for wording in variant.wordings()}
    stated: set[tuple[str, str, str]] = set()
    for seed in range(3):
        for document in corpus.judging_epoch(random.Random(seed)):
            if isinstance(document, MarkedChat):
                assert not any(wording in document.asked[0].text for wording in task)
            elif isinstance(document, tuple) and any(span.weight == corpus.LEVEL_WEIGHT for span in document):
                text = text_of(document)
                stated |= {
                    (variant.id, rating.procedure, rating.label)
                    for variant in appropriateness.load_variants()
                    if any(wording in text for wording in variant.wordings())
                    for rating in variant.ratings
                    if re.search(rf"{re.escape(rating.procedure)}(?!\w| with)", text.partition("his order is")[0])
                    and appropriateness.LEVELS[rating.label][1:] in text
                }
    pairs = {(v.id, r.procedure, r.label) for v in appropriateness.load_variants() for r in v.ratings}
    favoured = {pair for pair in pairs if pair[2] != "Usually Not Appropriate"}
    assert favoured <= stated <= pairs
    assert len(stated) > 0.9 * len(pairs)


def test_an_epoch_is_drawn_by_its_seed() -> None:
    assert corpus.epoch(random.Random(5)) == corpus.epoch(random.Random(5))
    assert corpus.epoch(random.Random(5)) != corpus.epoch(random.Random(6))


def last(document: Document) -> str:
    match document:
        case MarkedChat(answer=answer):
            return answer if isinstance(answer, str) else "".join(span.text for span in answer)
        case tuple():
            return document[-1].text
    assert isinstance(document, list)
    return str(document[-1]["content"])


def text_of(document: Document) -> str:
    assert isinstance(document, tuple)
    return "".join(span.text for span in document)


@pytest.mark.parametrize("draw", [corpus.word_list, corpus.name_list])
def test_a_list_says_of_each_option_the_letter_that_it_has(draw: Callable[[random.Random], Document]) -> None:
    for seed in range(20):
        lines = text_of(draw(random.Random(seed))).splitlines()
        options = {line[0]: line.removesuffix(f" {line[0]}")[3:] for line in lines[:4]}
        assert list(options) == list("ABCD")
        for line in lines[4:]:
            letter, option = (line[0], line[3:]) if line[1:3] == ") " else (line[-1], line[1:-2])
            assert options[letter] == option


def test_lessons_come_in_order_and_the_first_states_no_fact() -> None:
    first = corpus.words_epoch(random.Random(0))
    assert all(isinstance(document, tuple) for document in first)
    assert {span.weight for document in first if isinstance(document, tuple) for span in document} == {0.0, 1.0, 2.0}
    number = 0
    for lesson in LESSONS:
        documents = corpus.lessons_epoch(random.Random(0), number)
        assert sum(not isinstance(document, str) for document in documents) == sum(lesson.numbers.values())
        number += lesson.n_epochs
    again = corpus.lessons_epoch(random.Random(0), number + 3)
    assert sum(not isinstance(document, str) for document in again) == sum(LESSONS[-1].numbers.values())


def test_practice_repeats_and_reads_half_of_the_facts() -> None:
    documents = corpus.practice_epoch(random.Random(0))
    assert sum(not isinstance(document, str) for document in documents) == sum(PRACTICE.numbers.values())
    texts = " ".join(document for document in documents if isinstance(document, str)).lower()
    stated = sum(fact.subject.lower() in texts and fact.value.lower() in texts for fact in load_facts())
    assert 0.5 <= stated / len(load_facts()) < 0.8


def test_an_echo_is_a_part_of_the_row_before_it() -> None:
    for seed in range(10):
        row, *echoes = text_of(corpus.echo(random.Random(seed))).splitlines()
        assert len(echoes) == 3
        assert all(row.endswith(echo) for echo in echoes)


def test_of_four_options_one_is_called_right() -> None:
    lesson = LESSONS[-1]
    documents = corpus.lessons_epoch(random.Random(0), sum(each.n_epochs for each in LESSONS))
    marked = [document for document in documents if isinstance(document, MarkedChat)]
    told = [document for document in marked if any(span.weight for span in document.asked)]
    assert len(told) == lesson.numbers["verdicts", "en"] + lesson.numbers["told", "en"]
    for document in told:
        said = [span.text for span in document.asked if span.weight]
        assert sorted(said) == [corpus.NO, corpus.NO, corpus.NO, corpus.YES]
        assert document.asked[1 + 2 * said.index(corpus.YES)].text.strip() == document.answer


@pytest.mark.parametrize("seed", range(10))
def test_a_match_is_the_word_that_was_asked_for(seed: int) -> None:
    document = corpus.matches(random.Random(seed))
    assert isinstance(document, tuple)
    asked = document[0].text
    judged = {span.text.lstrip("ABCD)").strip(): after.text for span, after in pairwise(document) if after.weight}
    assert sum(said == corpus.YES for said in judged.values()) <= 1
    assert all((option in asked) or said == corpus.NO for option, said in judged.items())
    assert len(set(judged.values())) == 2


def test_what_is_found_is_the_option_that_was_named() -> None:
    for seed in range(10):
        chat = corpus.find(random.Random(seed), "en")
        assert isinstance(chat, list)
        question, *options = str(chat[0]["content"]).removeprefix("Question: ").splitlines()
        assert str(chat[1]["content"]) in options
        assert str(chat[1]["content"])[3:] in question


def test_later_questions_are_answered_by_the_options_before_them() -> None:
    for seed in range(10):
        chat = corpus.later(random.Random(seed))
        assert isinstance(chat, list)
        options = str(chat[0]["content"]).splitlines()[:4]
        for asked, said in zip(chat[::2], chat[1::2], strict=True):
            assert str(said["content"]) in options
            assert str(said["content"])[3:] in str(asked["content"])
