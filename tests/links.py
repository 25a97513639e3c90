"""Checks links of all markdown files that point into the project, files and headings: `python -m tests.links`.

Addresses of the web are left alone: nothing is fetched.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {".venv", ".git", ".cache", "site", "build", "dist", "node_modules", "runs"}
MARKDOWN = MarkdownIt("commonmark").enable("table")


def markdown_files(root: Path = ROOT) -> list[Path]:
    """The project's own markdown files."""
    return sorted(path for path in root.rglob("*.md") if not SKIPPED & set(path.relative_to(root).parts))


def walk(tokens: Iterable[Token]) -> Iterator[Token]:
    """All tokens, also those within a line."""
    for token in tokens:
        yield token
        yield from walk(token.children or ())


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a file's headings; of equal headings the later ones are numbered."""
    tokens = MARKDOWN.parse(path.read_text(encoding="utf-8"))
    seen: Counter[str] = Counter()
    found = set()
    for token, content in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(part.content for part in walk(content.children or ()))
            anchor = slug(text)
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return frozenset(found)


def broken_links(path: Path) -> Iterator[str]:
    """A sentence for each link of a file that leads nowhere."""
    for token in walk(MARKDOWN.parse(path.read_text(encoding="utf-8"))):
        target = token.attrGet("href") if token.type == "link_open" else token.attrGet("src")
        if not isinstance(target, str) or re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / unquote(name)).resolve() if name else path
        if not other.exists():
            yield f"{target}: there is no such file"
        elif anchor and other.suffix == ".md" and unquote(anchor) not in anchors(other):
            yield f"{target}: no heading of {other.name} has this anchor"


def main() -> int:
    """Prints every broken link with its file; 1 if there is one."""
    files = markdown_files()
    broken = [f"{path.relative_to(ROOT)}: {sentence}" for path in files for sentence in broken_links(path)]
    sys.stdout.write("".join(f"{line}\n" for line in broken) or f"links: {len(files)} markdown files are whole\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
