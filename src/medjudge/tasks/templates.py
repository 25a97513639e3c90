"""What a chat template does with the turns that it is given, and the proof that it carries them.

A template that leaves a turn out, cuts it or changes its letters gives every case the same or a damaged prompt, and
neither training nor evaluation would notice. So each template is shown a probe before its first prompt, and each prompt
is looked through for its turns. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from medjudge.errors import ModelError
from medjudge.records import Message

ANSWER = "medjudge-probe"
"""Stands for an answer in a finished conversation."""
# Capitals, quotes, markup, digits, blank lines, accents: what a template may change.
_SYSTEM = 'Head5Kv: Reply in CAPITALS, in "quotes" & <tags>.\nNothing else. 8WnTail'
_USER = (
    "Head3Qx: 37.5 °C, <b>\"dose\"</b> & 'signs' {{ name }} [1]\n\n  An indented LINE,\ta tab, é, 和.\n"
    + " ".join(f"w{i}" for i in range(800))
    + "\nIs it right? 6ZpTail"
)
_N_SHOWN = 12
"""Characters at a turn's head and tail that tell whether it was cut."""


def rendered(tokenizer: Any, turns: Sequence[Message], **options: Any) -> str:
    """The turns as the tokenizer's template writes them. Any exception of the template is raised as ModelError.

    The message has the template's own words only for turns without text of a case: `rendered_case` keeps them out.
    """
    try:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, **options))
    # Not the template's doing, and not mended by another template.
    except MemoryError:
        raise
    except Exception as error:  # a template is a program: it may raise whatever Python can
        said = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"{named(tokenizer)} cannot render a prompt: {type(error).__name__}: {said}") from None


def rendered_case(tokenizer: Any, turns: Sequence[Message], case_id: str, **options: Any) -> str:
    """As `rendered`, for turns with text of a case, which the prompt has to carry. No ModelError holds that text."""
    try:
        text = str(tokenizer.apply_chat_template(list(turns), tokenize=False, **options))
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"{named(tokenizer)} cannot render the prompt of case {case_id} ({type(error).__name__}), though it "
            f"renders others. {_REMEDY}"
        ) from None
    if (problem := missing_turn(turns, text)) is not None:
        raise ModelError(f"{named(tokenizer)} {problem} of case {case_id}. {_REMEDY}")
    return text


_REMEDY = (
    "Every word of a case must reach the model. Give the model folder the chat template that its makers publish "
    "(chat_template.jinja, or `chat_template` in tokenizer_config.json); without any, `model.chat_template` is used."
)


def takes_system(tokenizer: Any) -> bool:
    """Whether a system turn comes out of the template as it went in; some refuse the role, some drop it."""
    turns = _turns(with_system=True)
    try:
        return (
            missing_turn(turns, rendered(tokenizer, turns, add_generation_prompt=True, enable_thinking=False)) is None
        )
    except ModelError:
        return False


def prove(tokenizer: Any, *, with_system: bool) -> None:
    """Raises ModelError where the template does not carry what it is given, or leaves the answer unopened.

    with_system: whether prompts have a system turn; else its text leads the user turn.
    """
    turns = _turns(with_system=with_system)
    text = rendered(tokenizer, turns, add_generation_prompt=True, enable_thinking=False)
    if (problem := missing_turn(turns, text)) is not None:
        raise ModelError(f"{named(tokenizer)} {problem}. {_REMEDY}")
    if (opening := _unopened(tokenizer, turns, text)) is not None:
        raise ModelError(
            f"{named(tokenizer)} ignores `add_generation_prompt`: a finished conversation has {opening!r} between "
            "prompt and answer, and a prompt lacks it, so the model would have to open its own turn. Mend the "
            "template: it should end with `{% if add_generation_prompt %}` and that text."
        )


def missing_turn(turns: Sequence[Message], text: str) -> str | None:
    """What a prompt does to the first turn that it does not hold whole and in order; None where it holds all.

    White space around a turn may be taken off, as the templates of Llama 3 and Gemma do.
    """
    at = 0
    for turn in turns:
        content = turn["content"].strip()
        place = text.find(content, at)
        if place < 0:
            return f"{_damage(content, text, at)} the {turn['role']} turn"
        at = place + len(content)
    return None


def check_distinct(
    tokenizer: Any, turns: Sequence[Sequence[Message]], prompts: Sequence[str], ids: Sequence[Sequence[int]]
) -> None:
    """Raises ModelError where different turns became one prompt, or all of several prompts the same ids."""
    seen: dict[str, Sequence[Message]] = {}
    for own, prompt in zip(turns, prompts, strict=True):
        if seen.setdefault(prompt, own) != own:
            raise ModelError(f"{named(tokenizer)} gives different cases one prompt. {_REMEDY}")
    # What a tokenizer without the words does: every prompt becomes the same row of unknown tokens.
    if len(seen) > 1 and all(row == ids[0] for row in ids):
        raise ModelError(
            f"tokenizer {_name(tokenizer)} gives {len(seen):,} different prompts the same {len(ids[0]):,} ids: it does "
            "not know their words. Take the tokenizer that belongs to the model."
        )


def named(tokenizer: Any) -> str:
    """The template and its tokenizer, as messages name them."""
    template = getattr(tokenizer, "chat_template", None)
    text = template if isinstance(template, str) else json.dumps(template, default=str)
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    return f"the chat template of tokenizer {_name(tokenizer)} ({len(text):,} characters, sha256 {digest})"


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _turns(*, with_system: bool) -> list[Message]:
    if with_system:
        return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    return [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]


def _damage(content: str, text: str, at: int) -> str:
    """A verb for what became of a turn."""
    if content in text[:at]:
        return "puts another turn before"
    # From the mildest change to the worst, so that the message names the least that explains the damage.
    if content.lower() in text.lower():
        return "changes upper and lower case in"
    if "".join(content.split()) in "".join(text.split()):
        return "changes white space in"
    head, rest = text.find(content[:_N_SHOWN]), text
    if has_head := head >= 0:  # what follows the part that is as it was
        pairs = zip(content, text[head:], strict=False)
        rest = text[head + next((i for i, (a, b) in enumerate(pairs) if a != b), len(content)) :]
    has_tail = content[-_N_SHOWN:] in rest
    if has_head != has_tail:
        return "cuts off the end of" if has_head else "cuts off the start of"
    return "changes the words of" if has_head else "leaves out"


def _unopened(tokenizer: Any, turns: Sequence[Message], prompt: str) -> str | None:
    """What opens an answer in a finished conversation and no prompt asks for; None where prompts end as they should.

    Templates whose user turn ends with its own mark, such as `[/INST]`, need no opening and ignore the request rightly.
    """
    answered: list[Message] = [*turns, {"role": "assistant", "content": ANSWER}]
    try:
        if rendered(tokenizer, turns, add_generation_prompt=False, enable_thinking=False) != prompt:
            return None
        before, found, _ = rendered(tokenizer, answered, add_generation_prompt=False, enable_thinking=False).rpartition(
            ANSWER
        )
    except ModelError:
        return None
    opening = before.removeprefix(prompt) if found and before.startswith(prompt) else ""
    return opening if opening.strip() and "<think>" not in opening else None
