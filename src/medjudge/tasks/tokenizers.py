"""What a tokenizer and its chat template are like, found out once: how turns end, and which tokens control them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from medjudge.errors import ModelError
from medjudge.records import Message
from medjudge.tasks.guard import SIGN
from medjudge.tasks.templates import ANSWER, prove, rendered, takes_system

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


# The contracts' own tags are text to be read back, also where a tokenizer counts one among its special tokens.
_OWN_TAG = re.compile(r"</?(?:think|answer|feedback|score)>")


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What follows from a tokenizer and its chat template, found out once."""

    made_from: tuple[object, object]
    stop_ids: tuple[int, ...]
    stop_text: str
    takes_system: bool
    special: re.Pattern[str] | None
    """Control tokens that may not come from the text of a case."""


_FACTS: WeakKeyDictionary[Any, TokenizerFacts] = WeakKeyDictionary()


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


def stop_token_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that end a completion: first the one that every target ends with, then the end-of-sequence token if another.

    The first is read off the chat template: the control token that follows an assistant turn's content, such as
    `<|im_end|>` (Qwen3, Phi-4), `<|end|>` (Phi-3), `<|eot_id|>` (Llama 3).
    """
    return list(facts_of(tokenizer).stop_ids)


def stop_text(tokenizer: Tokenizer) -> str:
    """What every target ends with, as text."""
    return facts_of(tokenizer).stop_text


def tokenise(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, control tokens in it read as such, none added."""
    if not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    bos_id, bos = getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "bos_token", None)
    if bos_id is None or not bos:
        return [list(row) for row in ids]
    return [list(row[_n_added(row, bos_id, text, bos) :]) for row, text in zip(ids, texts, strict=True)]


def _n_added(ids: Sequence[int], bos_id: int, text: str, bos: str) -> int:
    """BOS ids before those that the text itself spells: some tokenizers add one whatever the arguments say."""
    n_ids = next((i for i, token in enumerate(ids) if token != bos_id), len(ids))
    n_spelt = 0
    while text.startswith(bos, n_spelt * len(bos)):
        n_spelt += 1
    return max(0, n_ids - n_spelt)


def facts_of(tokenizer: Tokenizer) -> TokenizerFacts:
    """The facts of a tokenizer, kept while it lives. Raises ModelError where it has no template or stop token."""
    made_from = (getattr(tokenizer, "chat_template", None), getattr(tokenizer, "eos_token", None))
    try:
        known = _FACTS.get(tokenizer)
    except TypeError:  # a stand-in that cannot be hashed or weakly referenced is looked at each time
        return _find_facts(tokenizer, made_from)
    if known is None or known.made_from != made_from:
        known = _FACTS[tokenizer] = _find_facts(tokenizer, made_from)
    return known


def _find_facts(tokenizer: Tokenizer, made_from: tuple[object, object]) -> TokenizerFacts:
    if not made_from[0]:
        raise ModelError(
            f"tokenizer {shown_name(tokenizer)} has no chat template, expected one. Set `model.chat_template` to a "
            'Jinja template, or to "plain" for the built-in one.'
        )
    has_system = takes_system(tokenizer)
    prove(tokenizer, with_system=has_system)
    stop_ids = _find_stop_ids(tokenizer)
    stop_text = tokenizer.convert_ids_to_tokens(stop_ids[0])
    return TokenizerFacts(made_from, stop_ids, str(stop_text), has_system, _control_tokens(tokenizer))


def _find_stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    eos = getattr(tokenizer, "eos_token_id", None)
    turn_end = None
    try:
        turns: list[Message] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": ANSWER}]
        tail = rendered(tokenizer, turns, add_generation_prompt=False).rpartition(ANSWER)[2]
        control = {*tokenizer.get_added_vocab().values(), *getattr(tokenizer, "all_special_ids", ())}
        turn_end = next((token for token in tokenise(tokenizer, [tail])[0] if token in control), None) if tail else None
    except ModelError:
        pass  # a template that renders no finished answers: the model's own end token stands in
    stop_ids = tuple(dict.fromkeys(token for token in (turn_end, eos) if token is not None))
    if not stop_ids:
        raise ModelError(
            f"tokenizer {shown_name(tokenizer)} has no token that ends an answer, expected one. "
            "Set `eos_token` in its tokenizer_config.json."
        )
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


def defuse(text: str, facts: TokenizerFacts) -> str:
    """The text with every control token in it broken as `guard` breaks pieces: no row may end a turn or open one.

    On top of the contract's guard, which does not know the tokenizer, and also where that is off."""
    if facts.special is None:
        return text
    return facts.special.sub(lambda found: f"{found[0][0]}{SIGN}{found[0][1:]}", text)


def shown_name(tokenizer: Tokenizer) -> str:
    """What messages call a tokenizer: where it was loaded from, or its class."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
