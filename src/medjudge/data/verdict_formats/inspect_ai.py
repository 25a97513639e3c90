"""Logs of inspect_ai: `.eval` archives and JSON logs. Each scorer scores a sample; experts are a scorer, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medjudge.data.cells import id_text
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    PEOPLE,
    Asked,
    Format,
    Layout,
    Values,
    added,
    get,
    gold_path,
    having,
    items,
    objects,
    or_none,
)
from medjudge.errors import DataError

VALUE, NAME, ERROR, EXPERT, CASE = "scores.value", "scores.name", "score error", "expert's score", "id and epoch"
NO_ANSWER = "N"
"""What a scorer writes where the sample has no answer; it is no verdict."""


def _container(tree: Values) -> list[Any] | None:
    is_log = "samples" in tree and isinstance(tree.get("eval"), dict) and isinstance(tree["samples"], list)
    return tree["samples"] if is_log else None


def _recognise(rows: Sequence[Values]) -> str:
    # A sample that ended in an error has no scores.
    scored = [row for row in rows if not row.get("error")]
    if not all(isinstance(row.get("scores"), dict) for row in scored):
        return ""
    return having("id", "epoch", "scores", "target")(scored) and having("id", "epoch", "target")(rows)


def _read(rows: list[Row], asked: Asked, source: str) -> Layout:
    names = list(dict.fromkeys(name for row in rows for name in items(row.values.get("scores"))))
    expert = _expert(names, rows, asked, source)
    judges = [name for name in names if name != expert]
    if expert is None:
        judges = [name for name in names if not PEOPLE.search(name)] or names
    edited = [row for row in rows if any(_edits(row, name) for name in judges)]
    by_edit = asked.gold == "edits" or (
        expert is None and asked.gold is None and not asked.gold_elsewhere and bool(edited) and len(edited) == len(rows)
    )
    laid: list[Row] = []
    for row in rows:
        for name in judges:
            value, given = _values(row, name)
            cells = value if isinstance(value, dict) else {"": value}
            error = row.values.get("error") if name not in items(row.values.get("scores")) else None
            for key, cell in cells.items():
                answer = None if cell == NO_ANSWER and NO_ANSWER not in asked.labels else or_none(cell)
                computed = {VALUE: answer, NAME: f"{name}.{key}" if key else name, ERROR: error}
                if by_edit:
                    computed[EXPERT] = _part(given, key)
                elif expert is not None:
                    computed[EXPERT] = _part(or_none(_values(row, expert)[1]), key)
                laid.append(added(row, computed))
    columns = {"id": "id", "label": VALUE, "judge": NAME, "error": ERROR, "repeat": "epoch", "confidence": ""}
    if by_edit or expert is not None:
        columns["gold"] = EXPERT
    elif path := gold_path(rows, ["metadata"], asked, source):
        columns["gold"] = path
    # The same question with another answer is another case, where experts judged each answer.
    gold = columns.get("gold")
    if gold and _differs(laid, gold):
        laid = [added(row, {CASE: f"{plain(row.values.get('id'))}|{plain(row.values.get('epoch'))}"}) for row in laid]
        columns |= {"id": CASE, "group": "id", "repeat": ""}
    if any(get(row.values, "output.model") for row in rows):
        columns["generator"] = "output.model"
    notes = []
    if edited and not by_edit:
        notes.append(
            f"{source}: people edited {len(edited):,} of {len(rows):,} scores; the scorer's own value is read. With "
            "--gold edits the edited values are the experts' labels, of these samples alone: rarely a fair sample."
        )
    same = {f"scores.{name}.value": VALUE for name in judges[:1]} if len(judges) == 1 else {}
    if expert is not None:
        same |= {expert: EXPERT, f"scores.{expert}.value": EXPERT}
    if by_edit:
        same["edits"] = EXPERT
    return Layout(laid, columns, same, notes, meaning="sides")


def _expert(names: list[str], rows: list[Row], asked: Asked, source: str) -> str | None:
    """The scorer that is the experts; None where they are elsewhere. Raises DataError where it is open which."""
    if asked.gold is not None:
        bare = asked.gold.removeprefix("scores.").removesuffix(".value")
        return bare if bare in names else None
    if asked.gold_elsewhere:
        return None
    people = [name for name in names if PEOPLE.search(name)]
    if len(people) == 1 and len(names) > 1:
        return people[0]
    if len(names) > 1 and gold_path(rows, ["metadata"], asked, source) is None:
        shown = ", ".join(names[:8])
        raise DataError(
            f"{source}: it has the scorers {shown}, and which of them is the experts is not said. Name it: "
            f"{' or '.join(f'--gold {name}' for name in names[:2])}, or a file of expert labels."
        )
    return None


def _edits(row: Row, name: str) -> bool:
    """Whether a person has edited a score."""
    return any(edit.get("provenance") for edit in objects(get(row.values.get("scores"), f"{name}.history", [])))


def _values(row: Row, name: str) -> tuple[Any, Any]:
    """(what the scorer said, what stands there now): they differ where a person edited the score."""
    score = items(items(row.values.get("scores")).get(name))
    now = score.get("value")
    history = objects(score.get("history"))
    if not any(edit.get("provenance") for edit in history):
        return now, now
    # Of a score that a person added the scorer itself said nothing.
    return (None if history[0].get("provenance") else history[0].get("value")), now


def _part(value: Any, key: str) -> Any:
    return items(value).get(key) if key and isinstance(value, dict) else value


def _differs(rows: list[Row], gold: str) -> bool:
    """Whether experts gave epochs of one sample different labels."""
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        label = plain(get(row.values, gold))
        key = (id_text(row.values.get("id")), plain(row.values.get(NAME)))
        if label and found.setdefault(key, label) != label:
            return True
    return False


FORMAT = Format(
    "inspect_ai",
    "a log of inspect_ai",
    "medjudge score log.eval --labels I,C [--gold SCORER]",
    _recognise,
    _read,
    _container,
)
