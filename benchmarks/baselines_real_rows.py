"""What the baselines of every report come to on real rows, in five folds by question.

`python benchmarks/baselines_real_rows.py --data DIR [--n 4000] [--without-embeddings] [SET ..]` reads
`DIR/FOLDER/FILE` of each named set (JSON lines, gzip or not), and prints accuracy and macro-F1 of every baseline over
the five held-out folds. Of larger sets n rows are drawn by whole questions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from medjudge.inference.embeddings import embed_or_why_not
from medjudge.metrics.baselines import every_baseline
from medjudge.metrics.surface import group_folds
from medjudge.records import Case
from medjudge.settings.rewards import EmbeddingSettings

N_FOLDS = 5


@dataclass(frozen=True, slots=True)
class RowSet:
    """Where the rows of a set lie, and which task they are of."""

    path: str
    kind: str
    fields: Mapping[str, str]
    """Field of the task -> column."""
    gold: str
    group: str
    labels: tuple[str, ...]
    """Lowest first, where they are ordered."""
    where: Mapping[str, str] | None = None


ANSWER = {"candidate": "candidate", "reference": "reference", "question": "question"}
SETS = {
    "fr_oeqa_judge": RowSet(
        "fr_oeqa_judge/fr_oeqa_judge.jsonl", "equivalence", ANSWER, "label", "question", ("0", "1")
    ),
    "fr_oeqa_judge, rated": RowSet(
        "fr_oeqa_judge/fr_oeqa_judge.jsonl", "equivalence", ANSWER, "label", "question", ("0", "1"), {"split": "eval"}
    ),
    "evouna": RowSet(
        "evouna_answer_equivalence/evouna_answer_equivalence.jsonl.gz",
        *("equivalence", ANSWER, "label", "question", ("0", "1")),
    ),
    "healthver": RowSet(
        "healthver_evidence/healthver_evidence.jsonl",
        "rubric",
        {"output": "claim", "reference": "evidence", "input": "question"},
        *("label", "question", ("Refutes", "Neutral", "Supports")),
    ),
    "halueval_qa": RowSet(
        "halueval_qa/halueval_qa.jsonl",
        "rubric",
        {"output": "answer", "reference": "knowledge", "input": "question"},
        *("label", "question", ("0", "1")),
    ),
    "kqa": RowSet(
        "kqa_claim_nli/kqa_claim_nli.jsonl",
        "rubric",
        {"output": "answer", "reference": "claim", "input": "question"},
        *("label", "question", ("Contradiction", "Neutral", "Entailment")),
    ),
    "ragtruth_qa": RowSet(
        "ragtruth_qa_test/ragtruth_qa_test.jsonl",
        "rubric",
        {"output": "response", "reference": "passages", "input": "query"},
        *("hallucinated", "query", ("1", "0")),
    ),
    "pubmedqa": RowSet(
        "pubmedqa_labeled/pubmedqa_labeled.jsonl",
        "rubric",
        {"output": "question", "reference": "contexts"},
        *("final_decision", "question", ("no", "maybe", "yes")),
    ),
    "acr": RowSet(
        "acr_appropriateness/acr_appropriateness.jsonl.gz",
        "appropriateness",
        {"procedure": "procedure", "variant": "variant", "condition": "topic"},
        "appropriateness",
        "variant",
        ("Usually Not Appropriate", "May Be Appropriate", "Usually Appropriate"),
    ),
}


def read_rows(data: Path, chosen: RowSet) -> list[Case]:
    """The labelled rows of a set as cases."""
    path = data / chosen.path
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Case(
            f"{at}",
            {field: _text(row[column]) for field, column in chosen.fields.items()},
            gold=str(row[chosen.gold]),
            group=_text(row[chosen.group]),
        )
        for at, row in enumerate(rows)
        if all(row[name] == value for name, value in (chosen.where or {}).items())
    ]


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def drawn(cases: list[Case], n: int, seed: int) -> list[Case]:
    """All cases, or so many whole groups as hold n of them."""
    names = sorted({case.group for case in cases})
    sizes = dict.fromkeys(names, 0)
    for case in cases:
        sizes[case.group] += 1
    kept, total = set(), 0
    for at in np.random.default_rng(seed).permutation(len(names)):
        if total >= n:
            break
        kept.add(names[at])
        total += sizes[names[at]]
    return [case for case in cases if case.group in kept]


def cross_validated(cases: list[Case], chosen: RowSet, embed: Any, seed: int) -> Iterator[tuple[str, float, float]]:
    """(baseline, accuracy, macro-F1) over the cases of all folds, each judged by what the other folds teach."""
    gold = {case.case_id: str(case.gold) for case in cases}
    said: dict[str, dict[str, str]] = {}
    for fold in group_folds([case.group for case in cases], N_FOLDS, seed):
        found = every_baseline(
            [case for case, held_out in zip(cases, fold, strict=True) if not held_out],
            [case for case, held_out in zip(cases, fold, strict=True) if held_out],
            kind=chosen.kind,
            labels=chosen.labels,
            positive=None,
            rng=np.random.default_rng(seed),
            embed=lambda: embed,
        )
        for name, answers in found.judgements.items():
            said.setdefault(name, {}).update({answer.case_id: answer.label for answer in answers})  # type: ignore[union-attr]
        for line in (*found.notes[1:], *(f"{name}: not run: {why}" for name, why in found.skipped.items())):
            print(f"  {line}", flush=True)
    for name, by_case in said.items():
        pairs = [(gold[case_id], label) for case_id, label in by_case.items()]
        truth, labels = zip(*pairs, strict=True)
        yield name, accuracy_score(truth, labels), f1_score(truth, labels, average="macro", labels=chosen.labels)


def main() -> None:
    """Prints a table per set, then all of them as a table of accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SETS))
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets' folders")
    parser.add_argument("--n", type=int, default=4000, help="rows of a larger set, by whole questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-embeddings", action="store_true")
    options = parser.parse_args()
    embed: Any = "left out by --without-embeddings." if options.without_embeddings else None
    embed = embed or embed_or_why_not(EmbeddingSettings())
    for name in options.names:
        start = time.time()
        cases = drawn(read_rows(options.data, SETS[name]), options.n, options.seed)
        print(f"\n{name}: {len(cases):,} rows of {len({case.group for case in cases}):,} questions", flush=True)
        for baseline, accuracy, macro_f1 in cross_validated(cases, SETS[name], embed, options.seed):
            print(f"  {baseline:<18} accuracy {accuracy:.3f}  macro-F1 {macro_f1:.3f}")
        print(f"  {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
