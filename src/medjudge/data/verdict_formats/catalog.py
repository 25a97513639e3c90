"""Every reader of another program's file, and which of them a file is for. Recognition reads the file, not its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medjudge.data.rows import Row
from medjudge.data.verdict_formats import (
    benchmarks,
    deepeval,
    graders,
    health,
    inspect_ai,
    lm_eval,
    openai,
    people,
    preferences,
    promptfoo,
    traces,
)
from medjudge.data.verdict_formats.layout import N_LOOKED_AT, NO_VERDICT, Asked, Format, Layout
from medjudge.errors import ConfigError, DataError, did_you_mean

AUTO, PLAIN = "auto", "rows"
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        inspect_ai.FORMAT,
        lm_eval.FORMAT,
        promptfoo.FORMAT,
        deepeval.FORMAT,
        openai.BATCH,
        openai.EVALS_LOG,
        openai.EVALS_API,
        preferences.ALPACA_EVAL,
        preferences.MT_BENCH_SINGLE,
        preferences.MT_BENCH_PAIR,
        preferences.MT_BENCH_VOTES,
        people.ARGILLA,
        people.LABEL_STUDIO,
        traces.LANGFUSE,
        traces.PHOENIX,
        traces.MLFLOW,
        health.HELM,
        health.HEALTHBENCH,
        graders.PROMETHEUS,
        benchmarks.REWARD_BENCH,
        benchmarks.JUDGE_BENCH,
        benchmarks.LLMBAR,
        graders.RAGAS,
        graders.RAGAS_ANNOTATED,
        graders.CJE,
    )
}
"""By the name that `--format` takes, in the order in which they are listed."""
PLAIN_LINE = (PLAIN, "any table of verdicts", "medjudge score v.csv --labels no,yes --map label=COLUMN --gold COLUMN")


def check_name(name: str) -> None:
    """Raises ConfigError for a format that there is not."""
    known = [AUTO, PLAIN, *FORMATS]
    if name not in known:
        raise ConfigError(
            f"--format {name}: there is no such format{did_you_mean(name, known)}. Expected one of {', '.join(known)}: "
            "see medjudge score --list-formats."
        )


def listing() -> list[tuple[str, str, str]]:
    """(name, what it is, the shortest command) of every format, that of plain rows last."""
    return [*((one.name, one.title, one.command) for one in FORMATS.values()), PLAIN_LINE]


def unpacked(tree: Mapping[str, Any]) -> list[Any] | None:
    """The rows in a JSON object that a known program wrote, else None."""
    for one in FORMATS.values():
        if (rows := one.container(tree)) is not None:
            return rows
    return None


def recognised(rows: Sequence[Row], source: str, chosen: str = AUTO) -> tuple[Format, str] | None:
    """The format of a file and what shows it; None for plain rows.

    chosen: a format's name settles it. Raises DataError where two readings are possible.
    """
    if chosen == PLAIN or not rows:
        return None
    if chosen != AUTO:
        return FORMATS[chosen], "as --format says"
    first = [row.values for row in rows[:N_LOOKED_AT]]
    fitting = {name: reason for name, one in FORMATS.items() if (reason := one.recognise(first))}
    if not fitting:
        return None
    # Our own columns beside those of another program: either may be meant.
    own = all({"label", "gold"} <= row.keys() for row in first)
    names = [*fitting, *([PLAIN] if own else [])]
    if len(names) > 1:
        reasons = [f"{FORMATS[name].title} ({reason})" for name, reason in fitting.items()]
        reasons += ["plain rows (they have label and gold)"] if own else []
        raise DataError(
            f"{source}: it can be read as {' or as '.join(reasons)}. Say which: "
            f"{' or '.join(f'--format {name}' for name in names)}."
        )
    name, reason = next(iter(fitting.items()))
    return FORMATS[name], reason


def laid_out(rows: list[Row], asked: Asked, source: str, chosen: str = AUTO) -> tuple[Format, Layout] | None:
    """The rows as their program means them, None for plain rows. Raises DataError where two readings are possible."""
    known = recognised(rows, source, chosen)
    if known is None:
        return None
    one, reason = known
    layout = one.read(rows, asked, source)
    if all(NO_VERDICT in row.values for row in layout.rows):
        raise DataError(
            f"{source}: it is {one.title} ({reason}), but holds no verdict. Expected at least one: name another file, "
            f"or read it as plain rows with --format {PLAIN}."
        )
    if asked.gold_elsewhere:
        layout.columns["gold"] = ""
    layout.notes.insert(0, f"{source} recognised as {one.title} ({one.name}): {reason}.")
    return one, layout
