"""AlpacaEval and MT-Bench: which of two answers is better, as A, B or tie, and the scores of MT-Bench."""

from __future__ import annotations

from collections.abc import Sequence

from medjudge.data.cells import id_text, tidy
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    Asked,
    Format,
    Layout,
    Values,
    added,
    entries,
    finite,
    gold_path,
    having,
    majority,
    tied_experts,
)

BETTER, PROBABILITY, CASE, JUDGE, SCORE, FAILED, VOTES = (
    "better answer",
    "its probability",
    "pair",
    "judge's name",
    "judge's score",
    "failure",
    "experts' vote",
)
PAIR_NOTE = "A is the first answer of a pair, B the second."


def side_of(preference: float | None) -> str | None:
    """1 is the first answer, 2 the second, 1.5 a tie; a weighted annotator writes what lies between."""
    if preference is None or not 1 <= preference <= 2:
        return None
    return "tie" if preference == 1.5 else "A" if preference < 1.5 else "B"


def _read_alpaca(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    given = [finite(row.values.get("preference")) for row in rows]
    weighted = any(value is not None and value not in (1, 1.5, 2) for value in given)
    for row, value in zip(rows, given, strict=True):
        side = side_of(value)
        # Probability of the second answer is preference - 1; the verdict's is the larger share.
        sure = None if side is None or value is None or not weighted else max(value - 1, 2 - value)
        laid.append(added(row, {BETTER: side, PROBABILITY: sure, FAILED: "" if side else "no preference"}))
    columns = {
        "id": "instruction" if _one_per(rows, "instruction") else CASE,
        "label": BETTER,
        "confidence": PROBABILITY,
        "error": FAILED,
        "generator": "",
    }
    if columns["id"] == CASE:
        parts = ("instruction", "generator_1", "generator_2")
        laid = [added(row, {CASE: "|".join(id_text(row.values.get(part)) for part in parts)}) for row in laid]
        columns["group"] = "instruction"
    if any(row.values.get("annotator") for row in rows):
        columns["judge"] = "annotator"
    if path := gold_path(rows, [""], asked, source):
        columns["gold"] = path
    notes = [f"{source}: {PAIR_NOTE} A preference between 1 and 2 is read as the nearer one, 1.5 as a tie."]
    return Layout(laid, columns, {"preference": BETTER}, notes, meaning="pair")


def _is_alpaca(rows: Sequence[Values]) -> str:
    """Also a file of people's preferences, which may hold no more than these two columns."""
    given = [row.get("preference") for row in rows]
    amounts = [value for value in map(finite, given) if value is not None]
    if not amounts or not all(1 <= value <= 2 for value in amounts):
        return ""
    if any(value is not None and finite(value) is None and plain(value) for value in given):
        return ""
    return having("instruction", "preference")(rows)


def _one_per(rows: list[Row], path: str) -> bool:
    """Whether each annotator has one row for each value."""
    keys = [(plain(row.values.get("annotator")), id_text(row.values.get(path))) for row in rows]
    return len(set(keys)) == len(keys)


def _judge_name(row: Row) -> str:
    judge = row.values.get("judge")
    return plain(entries(judge)[0]) if entries(judge) else plain(judge)


def _read_single(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for row in rows:
        score = finite(row.values.get("score"))
        failed = score is None or score < 0
        parts = [plain(row.values.get("question_id")), plain(row.values.get("model")), plain(row.values.get("turn"))]
        computed = {SCORE: None if failed else row.values.get("score"), FAILED: "no score" if failed else ""}
        laid.append(added(row, {**computed, CASE: "|".join(parts), JUDGE: _judge_name(row)}))
    columns = {
        "id": CASE,
        "label": SCORE,
        "judge": JUDGE,
        "error": FAILED,
        "generator": "model",
        "group": "question_id",
        "confidence": "",
    }
    if path := gold_path(rows, [""], asked, source):
        columns["gold"] = path
    notes = [f"{source}: a case is question_id|model|turn; a score of -1 is a judge that failed."]
    return Layout(laid, columns, {"score": SCORE}, notes)


def _ordered(row: Row, first: str, second: str) -> tuple[str, bool]:
    """(the pair's name, whether its models changed places): both orders of two models are one case."""
    a, b = plain(row.values.get(first)), plain(row.values.get(second))
    names = sorted((a, b))
    return "|".join([plain(row.values.get("question_id")), *names, plain(row.values.get("turn"))]), [a, b] != names


def _winner(text: object, swapped: bool) -> str | None:
    word = tidy(plain(text)).casefold()
    if word.startswith("tie"):
        return "tie"
    side = {"model_1": "A", "model_a": "A", "model_2": "B", "model_b": "B"}.get(word)
    return {"A": "B", "B": "A"}.get(side or "", side) if swapped else side


def _read_pair(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for row in rows:
        name, swapped = _ordered(row, "model_1", "model_2")
        games = [_winner(row.values.get(f"g{number}_winner"), swapped) for number in (1, 2)]
        # One order that failed leaves no verdict, as in the benchmark's own count.
        failed = None in games
        side = None if failed else games[0] if games[0] == games[1] else "tie"
        laid.append(added(row, {BETTER: side, FAILED: "error" if failed else "", CASE: name, JUDGE: _judge_name(row)}))
    columns = {
        "id": CASE,
        "label": BETTER,
        "judge": JUDGE,
        "error": FAILED,
        "group": "question_id",
        "confidence": "",
        "generator": "",
    }
    changed = [
        row for row in laid if row.values[BETTER] == "tie" and row.values["g1_winner"] != row.values["g2_winner"]
    ]
    notes = [
        f"{source}: a case is question_id|model|model|turn, the models by name; {PAIR_NOTE} Orders that disagree are a "
        f"tie, as in the benchmark: {len(changed):,} of {len(laid):,}."
    ]
    if path := gold_path(rows, [""], asked, source):
        columns["gold"] = path
    return Layout(laid, columns, {"winner": BETTER}, notes, meaning="pair")


def _read_votes(rows: list[Row], asked: Asked, source: str) -> Layout:
    votes: dict[str, list[str | None]] = {}
    first: dict[str, Row] = {}
    for row in rows:
        name, swapped = _ordered(row, "model_a", "model_b")
        votes.setdefault(name, []).append(_winner(row.values.get("winner"), swapped))
        first.setdefault(name, row)
    laid, n_tied = [], 0
    for name, given in votes.items():
        vote, tied = majority(given)
        n_tied += tied
        laid.append(added(first[name], {VOTES: vote, CASE: name}))
    notes = [f"{source}: the experts' label is what most of them say; {PAIR_NOTE}", *tied_experts(n_tied, len(laid))]
    columns = {"id": CASE, "gold": VOTES, "group": "question_id", "judge": "", "generator": "", "label": ""}
    return Layout(laid, columns, {"winner": VOTES}, notes, meaning="pair")


ALPACA_EVAL = Format(
    "alpaca_eval",
    "annotations of AlpacaEval",
    "medjudge score annotations.json --labels A,B --gold human.json",
    _is_alpaca,
    _read_alpaca,
)
MT_BENCH_SINGLE = Format(
    "mt_bench_single",
    "MT-Bench scores of single answers",
    "medjudge score single.jsonl --labels 1,2,3,4,5,6,7,8,9,10 --ordered --gold gold.csv",
    having("question_id", "model", "judge", "judgment", "score", "turn"),
    _read_single,
)
MT_BENCH_PAIR = Format(
    "mt_bench_pair",
    "MT-Bench judgements of pairs",
    "medjudge score pair.jsonl --labels A,B,tie --gold votes.jsonl",
    having("question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge"),
    _read_pair,
)
MT_BENCH_VOTES = Format(
    "mt_bench_votes",
    "MT-Bench votes of experts",
    "medjudge score pair.jsonl --labels A,B,tie --gold votes.jsonl",
    having("question_id", "model_a", "model_b", "winner", "judge", "turn"),
    _read_votes,
)
