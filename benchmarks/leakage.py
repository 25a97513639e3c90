"""What the leakage check finds of edited copies, what it finds that is none, and how long 100,000 by 20,000 rows take.

    python benchmarks/leakage.py                          # questions made of Zipf-distributed words
    python benchmarks/leakage.py --rows ROWS.jsonl        # recall and false alarms on your own (opa .. opd)
    python benchmarks/leakage.py --train 100000 --held-out 20000

Every row is copied with one edit of its question and looked for among all rows; a copy of a row that finds its row is
found. False alarms are the rows that find another row than themselves.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medjudge.data.leakage import check_leakage
from medjudge.data.likeness import like_pairs
from medjudge.records import Case

OPTIONS = ("opa", "opb", "opc", "opd")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Row = dict[str, str]


def made_words(n: int, rng: np.random.Generator) -> list[str]:
    """Words of two to five syllables, some with accents."""
    syllables = [c + v for c in "bcdfglmnprstv" for v in ("a", "e", "i", "o", "u", "é", "in", "or")]
    return ["".join(rng.choice(syllables, rng.integers(2, 6))) for _ in range(n)]


def made_rows(n: int, rng: np.random.Generator) -> list[Row]:
    """n questions of 6 to 30 words with four options of 1 to 4."""
    words = np.array(made_words(20_000, rng))
    chance = 1 / np.arange(10, len(words) + 10)
    sizes = np.column_stack([rng.integers(6, 31, n), rng.integers(1, 5, (n, 4))])
    drawn = rng.choice(words, sizes.sum(), p=chance / chance.sum())
    texts = [" ".join(part) for part in np.split(drawn, np.cumsum(sizes.ravel())[:-1])]
    return [dict(zip(("question", *OPTIONS), texts[5 * i : 5 * i + 5], strict=True)) for i in range(n)]


def typing_error(text: str, rng: np.random.Generator) -> str:
    """A letter replaced, left out, added or exchanged with the next one."""
    at, letter = int(rng.integers(len(text))), str(rng.choice(list(LETTERS)))
    rest = text[at + 1 :]
    return text[:at] + [letter + rest, rest, letter + text[at:], rest[:1] + text[at] + rest[1:]][int(rng.integers(4))]


def word_left_out(text: str, rng: np.random.Generator) -> str:
    """One word less; a text of one word stays."""
    words = text.split()
    at = int(rng.integers(len(words)))
    return " ".join(words[:at] + words[at + 1 :]) or text


def without_accents(text: str) -> str:
    """Letters without their accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


EDITS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "typing error": typing_error,
    "word left out": word_left_out,
    "prefix": lambda text, rng: f"Question: {text}",
    "no accents": lambda text, rng: without_accents(text),
}


def cases(rows: list[Row], name: str) -> list[Case]:
    """Rows as cases, each a group of its own."""
    return [Case(f"{name}{i}", row, "A", group=f"{name}{i}") for i, row in enumerate(rows)]


def print_recall(rows: list[Row], rng: np.random.Generator) -> None:
    """Found copies by edit, and false alarms."""
    print("| edit | copies found |\n|---|---|")
    known = [tuple(sorted(row.items())) for row in rows]
    for name, edit in EDITS.items():
        copies = [{**row, "question": edit(row["question"], rng)} for row in rows]
        found = {i for i, j in like_pairs(known, [tuple(sorted(row.items())) for row in copies], 0.85) if i == j}
        print(f"| {name} | {len(found) / len(rows):.4f} |", flush=True)
    others = {i for i, j in like_pairs(known, known, 0.85) if known[i] != known[j]}
    print(f"| none: finds another row | {len(others) / len(rows):.4f} |\n")


def main() -> None:
    """Print recall and false alarms, then the time of one comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--held-out", type=int, default=20_000)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    if given.rows:
        read = [json.loads(line) for line in given.rows.read_text().splitlines()]
        rows = [{name: str(row[name]) for name in ("question", *OPTIONS)} for row in read]
    else:
        rows = made_rows(3000, rng)
    print_recall(rows, rng)
    made = made_rows(given.train + given.held_out, rng)
    train, held_out = cases(made[: given.train], "t"), cases(made[given.train :], "h")
    wall, used = time.perf_counter(), time.process_time()
    report = check_leakage({"train": train}, {"test": held_out})
    wall, used = time.perf_counter() - wall, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{given.train:,} by {given.held_out:,} rows: {wall:.0f} s ({used:.0f} s of one core), {peak:.1f} GB at most")
    print(report.summary_line)


if __name__ == "__main__":
    main()
