"""Rendering and tokenising, once for all stages: SFT rows, rollout prompts and evaluation prompts come from here alone.

The prompt always ends where generation starts. A template's own closed thinking block (thinking off) therefore stands
in the prompt, never in the completion; an opening `<think>` that a template puts after the last header is left for the
completion, so that the completion holds the whole block that the parser reads.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from medjudge.errors import ConfigError, DataError, ModelError
from medjudge.records import Case, Completion, Message, Rollout
from medjudge.tasks.citations import first_snippets, given_ids
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.templates import ANSWER, check_distinct, prove, rendered, rendered_case, takes_system
from medjudge.tasks.text import THINK_OPEN, first_words, n_words

Tokenizer = Any
"""Any transformers tokenizer. What is used of it: a call on a list of texts, `decode`, `apply_chat_template`,
`chat_template`, `eos_token`, `pad_token_id`, `get_added_vocab`, `all_special_tokens`."""

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
"""For tokenizers that have no chat template (`model.chat_template = "plain"`): roles in plain text, turns ended by the
tokenizer's end-of-sequence token. It has no thinking mode."""


def plain_chat_template(tokenizer: Tokenizer) -> str:
    """`PLAIN_CHAT_TEMPLATE` after what the tokenizer puts before any text by itself, such as its BOS."""
    bare, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    prefix = "".join(tokenizer.convert_ids_to_tokens(whole[: starts[0]])) if bare and starts else ""
    return (f"{{{{ {json.dumps(prefix, ensure_ascii=False)} }}}}" if prefix else "") + PLAIN_CHAT_TEMPLATE


T = TypeVar("T")
# The contracts' own tags are text to be read back, also where a tokenizer counts one among its special tokens.
_OWN_TAG = re.compile(r"</?(?:think|answer|feedback|score)>")


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


@dataclass(frozen=True, slots=True)
class _Facts:
    """What follows from a tokenizer and its chat template, found out once."""

    made_from: tuple[object, object]
    stop_ids: tuple[int, ...]
    stop_text: str
    takes_system: bool
    special: re.Pattern[str] | None
    """Control tokens that may not come from the text of a case."""


_FACTS: WeakKeyDictionary[Any, _Facts] = WeakKeyDictionary()


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
    prompt_ids = _tokenise(tokenizer, prompts)
    check_distinct(tokenizer, [turns for turns, _ in turns_and_prompts], prompts, prompt_ids)
    encoded = []
    for case, fewer, text, ids in zip(cases, packed, prompts, prompt_ids, strict=True):
        row = _encoded(contract, case, fewer, text, ids)
        encoded.append(row if len(ids) <= limit else _fit_prompt(contract, case, fewer, tokenizer, len(ids), limit))
    if not with_target:
        return encoded
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
    special = _facts(tokenizer).special
    known: dict[str, LabelIds] = {}
    found = []
    for prompt in encoded:
        places = [match.start() for match in special.finditer(prompt.prompt_text)] if special else []
        tail = prompt.prompt_text[places[-1] :] if places else prompt.prompt_text
        if tail not in known:
            known[tail] = _label_ids(contract, prompt, tokenizer)
        found.append(known[tail])
    return found


def decode(tokenizer: Tokenizer, completion_ids: Sequence[int], stop_ids: Sequence[int]) -> str:
    """The text of a completion as a parser should see it.

    The first stop token and all after it are dropped, padding at the end too; every other special token stays as text,
    because a parser that never sees it would accept what a server's client must not.
    """
    ids = list(completion_ids)
    stop = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    ids = ids[:stop]
    pad = getattr(tokenizer, "pad_token_id", None)
    while ids and ids[-1] == pad:
        ids.pop()
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


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


def stop_token_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that end a completion: first the one that every target ends with, then the end-of-sequence token if another.

    The first is read off the chat template: the control token that follows an assistant turn's content, such as
    `<|im_end|>` (Qwen3, Phi-4), `<|end|>` (Phi-3), `<|eot_id|>` (Llama 3).
    """
    return list(_facts(tokenizer).stop_ids)


def instructions_lead_the_user_turn(contract: TaskContract, tokenizer: Tokenizer) -> bool:
    """Whether the contract has a system turn that the template does not take."""
    return getattr(contract, "system_prompt", None) != "" and not _facts(tokenizer).takes_system


def stop_text(tokenizer: Tokenizer) -> str:
    """What every target ends with, as text."""
    return _facts(tokenizer).stop_text


def render_prompt(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> str:
    """The prompt as text, ending where generation starts.

    Raises ModelError where the template cannot render it, or the prompt does not hold the turns whole and in order.

    Where a template refuses or drops the system role, the system text leads the user turn. A control token spelt out in
    a case's text ("<|im_end|>") is broken with a space: no row may end a turn or open one.
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
    return _tokenise(tokenizer, [prompt.prompt_text + answer])[0][: len(prompt.prompt_ids)] != prompt.prompt_ids


def prompt_turns(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> list[Message]:
    """The turns of a prompt as the tokenizer's template is given them: control tokens broken, a system turn only where
    the template takes one."""
    facts = _facts(tokenizer)
    turns: list[Message] = [{**turn, "content": _defuse(turn["content"], facts)} for turn in contract.messages(case)]
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
    if shown is case:
        return Encoded(text, ids, None)
    name = contract.packed_field or ""
    whole = {key: value for key, value in case.inputs.items() if key != name or contract.packed_tokens != 0}
    n_cut = sum(map(n_words, whole.values())) - sum(map(n_words, shown.inputs.values()))
    n_snippets = len(given_ids(whole.get(name, ""))) - len(given_ids(shown.inputs.get(name, "")))
    return Encoded(text, ids, None, n_words_cut=n_cut, n_snippets_cut=n_snippets, shown=shown.inputs)


def _pack(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> Case:
    """The case with as much evidence as `contract.packed_tokens` takes; the case itself where all of it does."""
    name, limit = contract.packed_field, contract.packed_tokens
    if name is None or limit is None or name not in case.inputs:
        return case

    def fits(fewer: Case) -> bool:
        text = fewer.inputs.get(name)
        return text is None or len(_tokenise(tokenizer, [text])[0]) <= limit

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
        return _encoded(contract, case, shown, text, _tokenise(tokenizer, [text])[0])

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
    found: T | None = None
    low, high = 0, too_many
    while high - low > 1:
        middle = (low + high) // 2
        row = make(middle)
        if fits(row):
            found, low = row, middle
        else:
            high = middle
    return found


# --- tokens -----------------------------------------------------------------------------------------------------------


def _tokenise(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, control tokens in it read as such, none added."""
    if not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    bos_id, bos = getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "bos_token", None)
    if bos_id is None or not bos:
        return [list(row) for row in ids]
    return [list(row[_n_added(row, bos_id, text, bos) :]) for row, text in zip(ids, texts, strict=True)]


def _n_added(ids: Sequence[int], bos_id: int, text: str, bos: str) -> int:
    """BOS ids before those that the text itself spells: some tokenizers add one whatever they are told."""
    n_ids = next((i for i, token in enumerate(ids) if token != bos_id), len(ids))
    n_spelt = 0
    while text.startswith(bos, n_spelt * len(bos)):
        n_spelt += 1
    return max(0, n_ids - n_spelt)


def _target_text(contract: TaskContract, case: Case, tokenizer: Tokenizer) -> str:
    return _defuse(contract.target(case), _facts(tokenizer))


def _complete(tokenizer: Tokenizer, prompts: Sequence[Encoded], targets: Sequence[str]) -> list[list[int]]:
    """Ids of each target and its stop token as they follow the prompt's ids.

    Prompt and target are tokenised as one text, as in a served conversation. Where the tokenizer then joins the end of
    the prompt with the start of the target, the prompt's own ids win, since generation starts from them.
    """
    facts = _facts(tokenizer)
    texts = [prompt.prompt_text + target + facts.stop_text for prompt, target in zip(prompts, targets, strict=True)]
    completions = []
    for prompt, target, whole in zip(prompts, targets, _tokenise(tokenizer, texts), strict=True):
        n = len(prompt.prompt_ids)
        if whole[:n] == prompt.prompt_ids and whole[-1] == facts.stop_ids[0]:
            completions.append(whole[n:])
        else:
            completions.append(_complete_apart(tokenizer, target, facts))
    return completions


def _complete_apart(tokenizer: Tokenizer, target: str, facts: _Facts) -> list[int]:
    ids = [*_tokenise(tokenizer, [target])[0], facts.stop_ids[0]]
    if decode(tokenizer, ids, facts.stop_ids) != target:
        raise ModelError(
            f"tokenizer {_name(tokenizer)} joins the end of the prompt with the start of the answer, and does not give "
            "the answer back when it is tokenised apart: the trained and the generated text would differ. Set "
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
    texts = [_defuse(frame.forced + frame.continuations[label], _facts(tokenizer)) for label in contract.labels]
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
        raise ModelError(f"tokenizer {_name(tokenizer)} gives one label ids that begin another's: use mode generate.")
    return LabelIds(tuple(rows[0][:n_forced]), labels)


def _n_common(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common beginning."""
    columns = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


# --- what a tokenizer and its template are like -----------------------------------------------------------------------


def _facts(tokenizer: Tokenizer) -> _Facts:
    made_from = (getattr(tokenizer, "chat_template", None), getattr(tokenizer, "eos_token", None))
    try:
        known = _FACTS.get(tokenizer)
    except TypeError:  # a stand-in that cannot be hashed or weakly referenced is looked at each time
        return _find_facts(tokenizer, made_from)
    if known is None or known.made_from != made_from:
        known = _FACTS[tokenizer] = _find_facts(tokenizer, made_from)
    return known


def _find_facts(tokenizer: Tokenizer, made_from: tuple[object, object]) -> _Facts:
    if not made_from[0]:
        raise ModelError(
            f"tokenizer {_name(tokenizer)} has no chat template. Set `model.chat_template` to a Jinja template, "
            'or to "plain" for the built-in one.'
        )
    has_system = takes_system(tokenizer)
    prove(tokenizer, with_system=has_system)
    stop_ids = _find_stop_ids(tokenizer)
    stop_text = tokenizer.convert_ids_to_tokens(stop_ids[0])
    return _Facts(made_from, stop_ids, str(stop_text), has_system, _control_tokens(tokenizer))


def _find_stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    eos = getattr(tokenizer, "eos_token_id", None)
    turn_end = None
    try:
        turns: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": ANSWER}]
        tail = rendered(tokenizer, turns, add_generation_prompt=False).rpartition(ANSWER)[2]
        control = {*tokenizer.get_added_vocab().values(), *getattr(tokenizer, "all_special_ids", ())}
        turn_end = (
            next((token for token in _tokenise(tokenizer, [tail])[0] if token in control), None) if tail else None
        )
    except ModelError:
        pass  # a template that renders no finished answers: the model's own end token stands in
    stop_ids = tuple(dict.fromkeys(token for token in (turn_end, eos) if token is not None))
    if not stop_ids:
        raise ModelError(f"tokenizer {_name(tokenizer)} has no token that ends an answer. Set its `eos_token`.")
    return stop_ids


def _control_tokens(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {
        *getattr(tokenizer, "all_special_tokens", ()),
        *(t.content for t in added if getattr(t, "special", False)),
    }
    # A special token that is a plain word or letter is ordinary text in a row.
    spelt = sorted(t for t in tokens if len(t) > 2 and t[0] in "<[|" and not _OWN_TAG.fullmatch(t))
    return re.compile("|".join(re.escape(token) for token in spelt)) if spelt else None


def _defuse(text: str, facts: _Facts) -> str:
    if facts.special is None:
        return text
    return facts.special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _name(tokenizer: Tokenizer) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
