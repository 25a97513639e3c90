"""Rendering and tokenising, once for all stages: SFT rows, rollout prompts and evaluation prompts come from here alone.

The prompt always ends where generation starts. A template's own closed thinking block (thinking off) therefore stands
in the prompt, never in the completion; an opening `<think>` that a template puts after the last header is left for the
completion, so that the completion holds the whole block that the parser reads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from medjudge.errors import ConfigError, DataError, ModelError
from medjudge.records import Case, Completion, Message, Rollout
from medjudge.tasks.citations import first_snippets, given_ids
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.guard import SIGN
from medjudge.tasks.templates import ANSWER, check_distinct, rendered, rendered_case
from medjudge.tasks.text import THINK_OPEN, first_words, n_words
from medjudge.tasks.tokenizers import (
    Tokenizer,
    TokenizerFacts,
    decode,
    defuse,
    facts_of,
    shown_name,
    tokenise,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One case as a model sees it."""

    prompt_text: str
    prompt_ids: list[int]
    completion_ids: list[int] | None
    """Target and stop token; None where no target was asked for or the case has no gold label."""
    n_words_cut: int = 0
    """Words taken off the inputs so that the prompt fits."""
    n_reason_words_cut: int = 0
    """Words taken off the expert's reason so that the target fits `max_completion_tokens`."""
    n_snippets_cut: int = 0
    """Snippets of evidence that the prompt does not show; their words are in `n_words_cut`."""
    n_neutralised: int = 0
    """Pieces of the case's texts that looked like a part of the prompt and are shown broken, see `guard`."""
    shown: Mapping[str, str] | None = None
    """The case's inputs as the prompt shows them; None where it shows them whole."""


@dataclass(frozen=True, slots=True)
class LabelIds:
    """A contract's labels as the token ids that follow a prompt."""

    forced: tuple[int, ...]
    """The frame before the label: the model is given it; how likely it is does not count."""
    labels: tuple[tuple[int, ...], ...]
    """Ids of each label in the order of `contract.labels`, through the stop token or the token that closes the label.

    None is the beginning of another, so their probabilities are those of events that exclude one another."""


def encode(
    contract: TaskContract, case: Case, tokenizer: Tokenizer, *, with_target: bool, max_prompt_tokens: int | None = None
) -> Encoded:
    """One case rendered and tokenised; with many cases, `encode_all` is faster. Errors as there."""
    return encode_all(contract, [case], tokenizer, with_target=with_target, max_prompt_tokens=max_prompt_tokens)[0]


def encode_all(
    contract: TaskContract,
    cases: Sequence[Case],
    tokenizer: Tokenizer,
    *,
    with_target: bool,
    max_prompt_tokens: int | None = None,
) -> list[Encoded]:
    """The cases rendered and tokenised, in their order.

    max_prompt_tokens: takes the place of the contract's. A longer prompt is shortened or refused, as
    `contract.on_long_prompt` says; a target longer than `contract.max_completion_tokens` loses words of its reason,
    since a judge could never finish it. Raises DataError where a prompt or target cannot fit, ModelError where the
    tokenizer has no chat template or its template cannot render.
    """
    limit = contract.max_prompt_tokens if max_prompt_tokens is None else max_prompt_tokens
    packed = [_pack(contract, case, tokenizer) for case in cases]
    turns_and_prompts = [_rendered(contract, case, tokenizer) for case in packed]
    prompts = [text for _, text in turns_and_prompts]
    prompt_ids = tokenise(tokenizer, prompts)
    # On the whole batch: one prompt alone cannot show that another case got the same one.
    check_distinct(tokenizer, [turns for turns, _ in turns_and_prompts], prompts, prompt_ids)
    encoded = []
    for case, fewer, text, ids in zip(cases, packed, prompts, prompt_ids, strict=True):
        row = _encoded(contract, case, fewer, text, ids)
        encoded.append(row if len(ids) <= limit else _fit_prompt(contract, case, fewer, tokenizer, len(ids), limit))
    if not with_target:
        return encoded
    # All targets in one call: tokenizers are several times faster on a list than on its texts one by one.
    rated = [i for i, case in enumerate(cases) if case.gold is not None]
    cases = [_as_cited(contract, case, row) for case, row in zip(cases, encoded, strict=True)]
    targets = [_target_text(contract, cases[i], tokenizer) for i in rated]
    completions = _complete(tokenizer, [encoded[i] for i in rated], targets)
    for i, completion_ids in zip(rated, completions, strict=True):
        if len(completion_ids) <= contract.max_completion_tokens:
            encoded[i] = replace(encoded[i], completion_ids=completion_ids)
        else:
            encoded[i] = _fit_target(contract, cases[i], tokenizer, encoded[i])
    return encoded


def encode_labels(contract: TaskContract, encoded: Sequence[Encoded], tokenizer: Tokenizer) -> list[LabelIds]:
    """The label ids that follow each prompt, in the order of `encoded`, tokenised as a target is.

    A control token ends what a tokenizer can join, so prompts that end alike from their last one on share one object.
    Raises ConfigError where labels cannot be scored without text before them, DataError where a label does not fit
    `max_completion_tokens`, ModelError where one label's ids begin another's.
    """
    special = facts_of(tokenizer).special
    known: dict[str, LabelIds] = {}
    rows = []
    for prompt in encoded:
        places = [match.start() for match in special.finditer(prompt.prompt_text)] if special else []
        tail = prompt.prompt_text[places[-1] :] if places else prompt.prompt_text
        if tail not in known:
            known[tail] = _label_ids(contract, prompt, tokenizer)
        rows.append(known[tail])
    return rows


def read_rollout(
    contract: TaskContract,
    case: Case,
    completion_ids: Sequence[int],
    tokenizer: Tokenizer,
    stop_ids: Sequence[int],
    *,
    prompt: Encoded,
) -> Rollout:
    """A completion's token ids, decoded and read by the contract. Ids after the first stop token are padding."""
    n_tokens = next((i + 1 for i, token in enumerate(completion_ids) if token in stop_ids), len(completion_ids))
    stopped = n_tokens > 0 and completion_ids[n_tokens - 1] in stop_ids
    text = decode(tokenizer, completion_ids[:n_tokens], stop_ids)
    completion = Completion(text, n_tokens, stopped, prompt.n_words_cut, shown=prompt.shown)
    return Rollout(case, contract.parse(case.case_id, text), completion)


def instructions_lead_the_user_turn(contract: TaskContract, tokenizer: Tokenizer) -> bool:
    """Whether the contract has a system turn that the template does not take."""
    return getattr(contract, "system_prompt", None) != "" and not facts_of(tokenizer).takes_system


def render_prompt(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> str:
    """The prompt as text, ending where generation starts.

    Raises ModelError where the template cannot render it, or the prompt does not hold the turns whole and in order.

    Where a template refuses or drops the system role, the system text leads the user turn. A control token spelt out in
    a case's text ("<|im_end|>") is broken by the guard's sign: no row may end a turn or open one.
    """
    return _rendered(contract, case, tokenizer)[1]


def between_prompt_and_answer(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> str | None:
    """What the template writes before an answer in a finished conversation and our prompt does not end with.

    Empty where the prompt ends where answers begin. A policy trained on finished conversations writes this text itself,
    before every answer. None where the template renders no finished conversation, or changes the turns before it.
    """
    answered: list[Message] = [*prompt_turns(contract, case, tokenizer), {"role": "assistant", "content": ANSWER}]
    try:
        whole = rendered(tokenizer, answered, enable_thinking=contract.thinking)
    except ModelError:
        return None
    prompt = render_prompt(contract, case, tokenizer)
    before, found, _ = whole.rpartition(ANSWER)
    return before.removeprefix(prompt) if found and before.startswith(prompt) else None


def merges_with_answer(tokenizer: Tokenizer, prompt: Encoded, answer: str) -> bool:
    """Whether the tokenizer, given both as one text, joins the end of the prompt with the start of the answer."""
    return tokenise(tokenizer, [prompt.prompt_text + answer])[0][: len(prompt.prompt_ids)] != prompt.prompt_ids


def prompt_turns(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> list[Message]:
    """The turns of a prompt as the tokenizer's template is given them: control tokens broken, a system turn only where
    the template takes one."""
    facts = facts_of(tokenizer)
    turns: list[Message] = [{**turn, "content": defuse(turn["content"], facts)} for turn in contract.messages(case)]
    if not facts.takes_system and turns[0]["role"] == "system":
        system, user, *rest = turns
        turns = [{"role": "user", "content": f"{system['content'].rstrip()}\n\n{user['content']}"}, *rest]
    return turns


def _rendered(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> tuple[list[Message], str]:
    """The turns of a prompt and the prompt."""
    turns = prompt_turns(contract, case, tokenizer)
    text = rendered_case(tokenizer, turns, case.case_id, add_generation_prompt=True, enable_thinking=contract.thinking)
    opened = text.rstrip()
    return turns, opened.removesuffix(THINK_OPEN) if opened.endswith(THINK_OPEN) else text


# --- fitting ----------------------------------------------------------------------------------------------------------


def _encoded(contract: TaskContract, case: Case, shown: Case, text: str, ids: list[int]) -> Encoded:
    """A prompt of `shown`, with what of `case` it leaves out. Evidence that no prompt shows is not missed."""
    n_neutralised = contract.guarded_inputs(shown).n_broken if contract.guard and SIGN in text else 0
    if shown is case:
        return Encoded(text, ids, None, n_neutralised=n_neutralised)
    name = contract.packed_field or ""
    whole = {key: value for key, value in case.inputs.items() if key != name or contract.packed_tokens != 0}
    n_cut = sum(map(n_words, whole.values())) - sum(map(n_words, shown.inputs.values()))
    n_snippets = len(given_ids(whole.get(name, ""))) - len(given_ids(shown.inputs.get(name, "")))
    return Encoded(
        text,
        ids,
        None,
        n_words_cut=n_cut,
        n_snippets_cut=n_snippets,
        n_neutralised=n_neutralised,
        shown=shown.inputs,
    )


def _pack(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> Case:
    """The case with as much evidence as `contract.packed_tokens` takes; the case itself where all of it does."""
    name, limit = contract.packed_field, contract.packed_tokens
    if name is None or limit is None or name not in case.inputs:
        return case

    def fits(fewer: Case) -> bool:
        text = fewer.inputs.get(name)
        return text is None or len(tokenise(tokenizer, [text])[0]) <= limit

    return case if fits(case) else _most_evidence(case, name, fits) or case


def _most_evidence(case: Case, name: str, fits: Callable[[Case], bool]) -> Case | None:
    """The case with the greatest part of its evidence that fits; None if it does not fit without any either."""

    def with_words(n: int) -> Case:
        text = first_snippets(case.inputs[name], n - 1)  # from 1, which leaves no word
        rest = {key: value for key, value in case.inputs.items() if key != name}
        return replace(case, inputs={**rest, name: text} if text else rest)

    return _greatest_that_fits(with_words, n_words(case.inputs[name]) + 1, fits)


def _as_cited(contract: TaskContract, case: Case, row: Encoded) -> Case:
    """The case with the evidence that the prompt shows: an answer to it cites no snippet that was cut."""
    name = contract.packed_field
    if row.shown is None or name is None or name not in case.inputs:
        return case
    return replace(case, inputs={**case.inputs, name: row.shown.get(name, "")})


def _fit_prompt(
    contract: TaskContract, case: Case, packed: Case, tokenizer: Tokenizer, n_tokens: int, limit: int
) -> Encoded:
    """The prompt with less evidence or, where that is not enough, with none and its longest fields shortened to the
    greatest common number of words that fits. `packed`: the case with the evidence that it may show."""
    if contract.on_long_prompt == "error":
        raise DataError(
            f"case {case.case_id}: the prompt takes {n_tokens} tokens, but max_prompt_tokens is {limit}. "
            'Raise it, leave the case out, or set `task.on_long_prompt = "truncate"`.'
        )

    def prompt_of(shown: Case) -> Encoded:
        text = render_prompt(contract, shown, tokenizer)
        return _encoded(contract, case, shown, text, tokenise(tokenizer, [text])[0])

    def fits(row: Encoded) -> bool:
        return len(row.prompt_ids) <= limit

    name = contract.packed_field
    if name is not None and name in packed.inputs:
        fewer = _most_evidence(packed, name, lambda shown: fits(prompt_of(shown)))
        if fewer is not None:
            return prompt_of(fewer)
    rest = {field: text for field, text in packed.inputs.items() if field != name}

    def shortened(cap: int) -> Encoded:
        return prompt_of(replace(case, inputs={name: first_words(text, cap) for name, text in rest.items()}))

    fitted = _greatest_that_fits(shortened, max(map(n_words, rest.values())), fits)
    if fitted is None:
        least = len(shortened(1).prompt_ids)
        raise DataError(
            f"case {case.case_id}: the prompt takes {least} tokens even with every field cut to one word, but "
            f'max_prompt_tokens is {limit}. Raise it, or take shorter instructions (`task.instructions = "terse"`).'
        )
    return fitted


def _fit_target(contract: TaskContract, case: Case, tokenizer: Tokenizer, prompt: Encoded) -> Encoded:
    """The target with as many words of the expert's reason as fit `max_completion_tokens`."""
    total = n_words(case.reason or "")

    def shortened(n: int) -> Encoded:
        reason = first_words(case.reason or "", n - 1) or None  # from 1, which leaves no word, to total + 1
        text = _target_text(contract, replace(case, reason=reason), tokenizer)
        completion_ids = _complete(tokenizer, [prompt], [text])[0]
        return replace(prompt, completion_ids=completion_ids, n_reason_words_cut=total - (n - 1))

    limit = contract.max_completion_tokens
    fitted = _greatest_that_fits(shortened, total + 1, lambda row: len(row.completion_ids or ()) <= limit)
    if fitted is None:
        least = len(shortened(1).completion_ids or ())
        raise DataError(
            f"case {case.case_id}: the target takes {least} tokens without the expert's reason, but "
            f"max_completion_tokens is {limit}. Raise `task.max_completion_tokens`."
        )
    return fitted


def _greatest_that_fits(make: Callable[[int], T], too_many: int, fits: Callable[[T], bool]) -> T | None:
    """`make(n)` for the greatest n in [1, too_many) that fits, by bisection; None if none does."""
    best: T | None = None
    low, high = 0, too_many
    while high - low > 1:
        middle = (low + high) // 2
        row = make(middle)
        if fits(row):
            best, low = row, middle
        else:
            high = middle
    return best


# --- tokens -----------------------------------------------------------------------------------------------------------


def _target_text(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> str:
    return defuse(contract.target(case), facts_of(tokenizer))


def _complete(tokenizer: Tokenizer, prompts: Sequence[Encoded], targets: Sequence[str]) -> list[list[int]]:
    """Ids of each target and its stop token as they follow the prompt's ids.

    Prompt and target are tokenised as one text, as in a served conversation. Where the tokenizer then joins the end of
    the prompt with the start of the target, the prompt's own ids win, since generation starts from them.
    """
    facts = facts_of(tokenizer)
    texts = [prompt.prompt_text + target + facts.stop_text for prompt, target in zip(prompts, targets, strict=True)]
    completions = []
    for prompt, target, whole in zip(prompts, targets, tokenise(tokenizer, texts), strict=True):
        n = len(prompt.prompt_ids)
        # The prompt's own ids must lead, or the model would continue from tokens that it never generates.
        if whole[:n] == prompt.prompt_ids and whole[-1] == facts.stop_ids[0]:
            completions.append(whole[n:])
        else:
            completions.append(_complete_apart(tokenizer, target, facts))
    return completions


def _complete_apart(tokenizer: Tokenizer, target: str, facts: TokenizerFacts) -> list[int]:
    ids = [*tokenise(tokenizer, [target])[0], facts.stop_ids[0]]
    if decode(tokenizer, ids, facts.stop_ids) != target:
        raise ModelError(
            f"tokenizer {shown_name(tokenizer)} joins the end of the prompt with the start of the answer, and does not "
            "give the answer back when it is tokenised apart: the trained and the generated text would differ. Set "
            "`model.chat_template` to a template that ends its generation prompt with a control token or a line break."
        )
    return ids


def _label_ids(contract: TaskContract, prompt: Encoded, tokenizer: Tokenizer) -> LabelIds:
    frame = contract.label_frame()
    if frame is None:
        raise ConfigError(
            f"the {contract.kind} contract answers with text before its label, so labels alone cannot be scored: take "
            'mode "generate", or a form of the task that answers with the label.'
        )
    texts = [defuse(frame.forced + frame.continuations[label], facts_of(tokenizer)) for label in contract.labels]
    rows = _complete(tokenizer, [prompt] * len(texts), texts)
    if frame.ends and (longest := max(map(len, rows))) > contract.max_completion_tokens:
        raise DataError(
            f"a label takes {longest} tokens, but max_completion_tokens is {contract.max_completion_tokens}. "
            "Raise `task.max_completion_tokens`."
        )
    n_forced = _n_common(rows) if frame.forced else 0
    while n_forced and len(decode(tokenizer, rows[0][:n_forced], ())) > len(frame.forced):
        n_forced -= 1
    # Past the token that closes the label nothing tells labels apart, and the next one depends on what is not written.
    n_after = 0 if frame.ends else max(0, _n_common([row[:n_forced:-1] for row in rows]) - 1)
    labels = tuple(tuple(row[n_forced : len(row) - n_after]) for row in rows)
    if any(a == b[: len(a)] for a, b in itertools.permutations(labels, 2)):
        raise ModelError(
            f"tokenizer {shown_name(tokenizer)} gives one label ids that begin another's, so their probabilities "
            'cannot be told apart: set `evaluate.mode = "generate"`.'
        )
    return LabelIds(tuple(rows[0][:n_forced]), labels)


def _n_common(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


# --- what a tokenizer and its template are like -----------------------------------------------------------------------
