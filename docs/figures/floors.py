"""Draws `floors.svg`, the picture of docs/architecture.md: `python docs/figures/floors.py`."""

from __future__ import annotations

from html import escape
from pathlib import Path

FLOORS: tuple[tuple[str, str, str], ...] = (  # from the top: modules, what they are, what passes there
    ("cli api", "what a person calls", ""),
    ("commands", "score, evaluate, bench, export, ..", ""),
    ("stages", "prepare, sft, grpo, merge, ..", ""),
    ("reporting", "tables, figures, page, card", "6d"),
    ("runs", "folders, manifests, resume", "c"),
    ("judging", "Judge: asks, parses, calibrates", "4"),
    ("training", "SFT, GRPO, all-action; TRL", ""),
    ("recipe", "all settings, checked together", "a"),
    ("diagnostics", "pre-flight and doctor", ""),
    ("rewards", "rules, embeddings, judge models", ""),
    ("inference", "engines: prompts to completions", "3"),
    ("models", "loading, adapters, lineage", ""),
    ("metrics", "numbers in, numbers out", "5"),
    ("data", "sources, splits, leakage", "1"),
    ("synthetic", "the fact base and its rows", ""),
    ("tasks", "contracts: render, parse", "2"),
    ("settings", "typed sections of a recipe", "b"),
    ("machine progress", "threads and memory, bars", ""),
    ("artifacts records", "what crosses a seam; hashes", ""),
    ("network files", "offline; whole, private files", ""),
    ("names log", "names of files and runs; news", ""),
    ("errors version", "what can go wrong", ""),
)
COLOURS = {"front": "#dbe7f6", "run": "#e3f1df", "model": "#fdeacc", "measure": "#f0e3f5", "ground": "#ececec"}
BANDS = {"front": 4, "run": 2, "model": 6, "measure": 5, "ground": 5}
"""Floors of each colour, from the top: their numbers add up to all."""
WIDTH, ROW, GAP = 440, 28, 3


def draw() -> str:
    """The picture."""
    colours = [COLOURS[band] for band, n in BANDS.items() for _ in range(n)]
    height = len(FLOORS) * (ROW + GAP) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>The floors of the package: imports run downward only</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
    ]
    for place, ((names, meaning, passing), colour) in enumerate(zip(FLOORS, colours, strict=True)):
        top = 6 + place * (ROW + GAP)
        parts.append(f'<rect x="6" y="{top}" width="{WIDTH - 12}" height="{ROW}" rx="4" fill="{colour}"/>')
        label = " ".join(names.split())
        parts.append(f'<text x="14" y="{top + 18}" font-weight="600" fill="#1c2733">{escape(label)}</text>')
        parts.append(f'<text x="158" y="{top + 18}" fill="#333f4c">{escape(meaning)}</text>')
        for number, mark in enumerate(passing):
            x, fill = WIDTH - 24 - 24 * number, "#1f5fa8" if mark.isdigit() else "#9a4a00"
            parts.append(f'<circle cx="{x}" cy="{top + ROW / 2:g}" r="9.5" fill="{fill}"/>')
            text = (
                f'<text x="{x}" y="{top + 18.5:g}" text-anchor="middle" font-weight="600" fill="#ffffff">{mark}</text>'
            )
            parts.append(text)
    legend = "imports run downward    1 to 6: a row    a to d: a setting"
    parts.append(f'<text x="14" y="{height - 12}" fill="#333f4c" xml:space="preserve">{escape(legend)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
