"""Texts of a case that would end their own section of the prompt, broken so that they cannot: one place for all tasks.

What a contract's prompt is made of (its tags, its headings, the form of its answers) is read off the prompt itself, so
a new task or a recipe's own instructions need no list here; the marks of chat templates are added to it. Each such
piece in a text of a case gets the sign `¦`: `<¦/output>`, `¦# OUTPUT`, `<¦|im_end|>`. A reader sees what stood there,
and `restored` gives the text back exactly. Text without such pieces stays as it is, but that its own `¦` is doubled.
What an attack says in plain words is not touched: the probe `injection` measures what it does. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

SIGN = "¦"
"""What breaks a piece: rare in texts, visible in every font, and no word, space or bracket to a tokenizer."""

_HIDDEN = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")
"""Letters of Unicode's block of tags, which no font shows and models read. After a black flag they make a flag."""
_BROKEN = re.compile(rf"{SIGN}(?:({SIGN})|u\{{(e00[0-7][0-9a-f])\}})?")

_LOOKALIKES = str.maketrans(
    "‹〈⟨❮˂ᐸ≺›〉⟩❯˃ᐳ≻∕⁄⧸аеорсухіѕԁһјϲοα│∣ǀ",
    "<<<<<<<>>>>>>>///aeopcyxisdhjcoa|||",
)
"""Brackets, strokes and the Cyrillic and Greek letters that look like Latin ones."""
_OPEN = r"(?:<|&(?:amp;)*(?:lt|#0*60|#x0*3c);?|\\u003c|\\x3c|%3c)"
_CLOSE = r"(?:>|&(?:amp;)*(?:gt|#0*62|#x0*3e);?|\\u003e|\\x3e|%3e)"
# Tags that chat templates give a meaning to, whatever the task.
_CHAT_TAGS = (
    *("think", "thinking", "thoughts?", "reasoning", "seed:think", "system", "user", "assistant", "human"),
    *(
        "tools?",
        "tool_calls?",
        "tool_response",
        "s",
        "bos",
        "eos",
        "pad",
        "unk",
        "start_of_turn",
        "end_of_turn",
        r"unused\d+",
    ),
)
_CHAT = re.compile(
    r"<\|[^\n<>|]{1,60}\|?>"  # <|im_end|>, <|eot_id|>, <|channel>, DeepSeek's <｜User｜> once folded
    r"|<[\w:/-]{1,40}\|>"
    r"|<<\s{0,3}/?\s{0,3}sys\s{0,3}>>"
    r"|\[\s{0,3}/?\s{0,3}(?:inst|system_prompt|available_tools|tool_calls|tool_results|think)\s{0,3}\]"
    r"|◁/?think▷",
    re.IGNORECASE,
)
_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_LINE_START = rf"(?:(?<=[{_BREAKS}])|<br\s{{0,3}}/?>)[^\S\n]*(?:[>*_~`|-][^\S\n]?){{0,6}}"
# The turns of a template in plain words: a role alone on its line.
_ROLE = rf"(?:system|user|assistant)[^\S\n]*:[^\S\n]*(?=[{_BREAKS}]|\Z)"
_BLANK = "\u115f\u1160\u3164\uffa0"  # letters to Unicode, nothing to the eye
_FIRST_SLOT = 0xE100
_SLOT = re.compile("\ue000([\ue100-\uf8ff])\ue001")
_LONGEST_HEADING = 80


@dataclass(frozen=True, slots=True)
class Guarded:
    """The texts of a case as a prompt shows them."""

    texts: Mapping[str, str]
    n_broken: int
    """Pieces that were broken; 0 where every text stands as it was."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a prompt is made of, around the texts of its case."""

    delimiters: tuple[re.Pattern[str], ...]
    """Each match begins with what makes it a delimiter: the sign goes behind its first character."""
    headings: tuple[re.Pattern[str], ...]
    """The sign goes before the group."""
    own_lines: frozenset[int]
    """Numbers of the fields that begin on a line of their own."""


def slots(names: Sequence[str]) -> dict[str, str]:
    """A stand-in for the text of each field, by which `layout_of` tells the prompt from the case."""
    return {name: f"\ue000{chr(_FIRST_SLOT + i)}\ue001" for i, name in enumerate(names)}


@lru_cache(maxsize=256)
def layout_of(system: str, user: str, answer: str) -> Layout:
    """The layout of a prompt that was written with `slots` for texts. `answer`: one in the contract's form."""
    tags = re.findall(r"</?\s*([A-Za-z][\w-]*)\s*/?>", f"{system}\n{user}\n{answer}")
    names = "|".join([*(re.escape(name) for name in dict.fromkeys(tags)), *_CHAT_TAGS])
    delimiters = [
        re.compile(
            rf"{_OPEN}\s{{0,9}}[/\\]\s{{0,9}}(?:{names})(?![\w-])"
            rf"|{_OPEN}\s{{0,9}}(?:{names})(?:[\s/:=][^<>]{{0,200}}?)?{_CLOSE}",
            re.IGNORECASE,
        ),
        _CHAT,
    ]
    # The keys of an answer in JSON: an object in a text would be a verdict that somebody gave already.
    if keys := re.findall(r'"(\w+)": ', answer if answer.lstrip().startswith("{") else answer.rpartition("\n")[2]):
        delimiters.append(
            re.compile(rf"""["'“”]\s{{0,3}}(?:{"|".join(keys)})\s{{0,3}}["'“”]\s{{0,3}}:""", re.IGNORECASE)
        )
    at_line = [_ROLE]
    anywhere: list[str] = []
    for fragment, is_inline in _fragments(user):
        if (pattern := _heading(fragment)) is not None:
            (anywhere if is_inline else at_line).append(pattern)
    headings = [re.compile(rf"{_LINE_START}({'|'.join(dict.fromkeys(at_line))})")]
    if anywhere:
        headings.append(re.compile(rf"(?<![\w{SIGN}])({'|'.join(dict.fromkeys(anywhere))})"))
    own_lines = (ord(found[1]) - _FIRST_SLOT for found in _SLOT.finditer(user) if user[: found.start()].endswith("\n"))
    return Layout(tuple(delimiters), tuple(headings), frozenset(own_lines))


def guarded(texts: Mapping[str, str], layout: Layout) -> Guarded:
    """The texts with all that could be taken for a part of the prompt broken. Fields are numbered as in `slots`."""
    shown, total = {}, 0
    for i, (name, text) in enumerate(texts.items()):
        shown[name], n_broken = _broken(text, layout, starts_line=i in layout.own_lines)
        total += n_broken
    return Guarded(shown, total)


def restored(text: str) -> str:
    """The text that stands behind a guarded one."""
    return _BROKEN.sub(lambda found: chr(int(found[2], 16)) if found[2] else found[1] or "", text)


def _broken(text: str, layout: Layout, *, starts_line: bool) -> tuple[str, int]:
    folded, places = _folded(text)
    lead = int(starts_line)
    folded = "\n" * lead + folded
    cuts = {places[found.start() - lead] + 1 for pattern in layout.delimiters for found in pattern.finditer(folded)}
    cuts |= {places[found.start(1) - lead] for pattern in layout.headings for found in pattern.finditer(folded)}
    hidden = {i for found in _HIDDEN.finditer(text) for i in range(*found.span())}
    cuts -= hidden  # these are written out, which breaks the piece as well
    if not cuts and not hidden:
        return text.replace(SIGN, 2 * SIGN), 0
    pieces = []
    for i, character in enumerate(text):
        if i in cuts:
            pieces.append(SIGN)
        pieces.append(f"{SIGN}u{{{ord(character):x}}}" if i in hidden else 2 * SIGN if character == SIGN else character)
    return "".join(pieces), len(cuts) + len(hidden)


def _fragments(user: str) -> list[tuple[str, bool]]:
    """What stands before each text on its line, or alone on the line above, and lines of Markdown headings; and whether
    it stands within a line."""
    found = []
    at = 0
    for slot in _SLOT.finditer(user):
        before = user[at : slot.start()]
        line = before.rpartition("\n")[2]
        is_inline = at > 0 and "\n" not in before
        if not line.strip():
            line = before.rstrip().rpartition("\n")[2]
            is_inline = False
        if line.strip() and len(line) <= _LONGEST_HEADING:
            found.append((line, is_inline))
        at = slot.end()
    found += [(line, False) for line in re.findall(r"(?m)^#+ .*$", user) if not _SLOT.search(line)]
    return found


def _heading(fragment: str) -> str | None:
    """A pattern for a heading however it is spaced; None for what has no word or is a tag."""
    text = _folded(fragment)[0].strip(" \t,;")
    words = re.findall(r"\w+", text)
    if not words or text.startswith("<"):
        return None
    if text.startswith("#"):  # its first words are enough to be taken for it
        most = r"\s+".join(map(re.escape, words[:2]))
        end = r"\b" if len(words) > 1 else rf"[^\S\n]*(?=[*_]{{0,3}}[^\S\n]*(?:[:{_BREAKS}]|\Z))"
        return rf"(?i:#{{1,6}}[^\S\n]*{most}{end})"
    parts = re.findall(r"\w+|[^\w\s]", text)
    pattern = re.escape(parts[0])
    for last, part in pairwise(parts):
        is_word = re.match(r"\w", last) and re.match(r"\w", part)
        pattern += (r"[^\S\n]+" if is_word else r"[^\S\n]*") + re.escape(part)
    # "a) fever, b) cough" is a list of its own: a single letter counts as the prompt writes it.
    return pattern if len("".join(words)) == 1 else rf"(?i:{pattern})"


class _Fold(dict[str, str]):
    """Character -> what it looks like to a reader: NFKD, look-alikes as what they imitate, no accents, nothing for what
    is invisible."""

    def __missing__(self, character: str) -> str:
        parts = unicodedata.normalize("NFKD", character)
        seen = (c for c in parts if unicodedata.category(c) not in ("Cf", "Mn") and c not in _BLANK)
        self[character] = folded = "".join(seen).translate(_LOOKALIKES)
        return folded


_FOLD = _Fold()


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """The text as it looks, and for each of its characters the place that it comes from."""
    if text.isascii():
        return text, range(len(text) + 1)
    pieces = [_FOLD[character] for character in text]
    return "".join(pieces), [i for i, piece in enumerate(pieces) for _ in piece]
