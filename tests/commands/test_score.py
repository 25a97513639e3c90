"""`medjudge score`: any program's verdict files, joined by id, measured without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from medjudge.cli import main
from medjudge.commands.score import ScoreOptions, label_scale, score
from medjudge.data.cells import Scale
from medjudge.data.verdict_files import Reading, read_gold, read_verdicts
from medjudge.errors import ConfigError, DataError, MedjudgeError
from medjudge.metrics.result_types import Results
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.normalise import normalise
from tests.commands.format_files import write_csv
from tests.shared_data import require_shared, shared_rows

BINARY = label_scale("no,yes")
COLUMNS = {"id": "uid", "label": "said", "gold": "truth"}

# Gold yes: 4 of 10. tool: yes on a b c (right) and e (wrong), nothing readable on d: accuracy 8/10.
GOLD = dict(zip("abcdefghij", ["yes"] * 4 + ["no"] * 6, strict=True))
SAID = {**GOLD, "d": "maybe", "e": "yes"}


def rows_of(said: dict[str, str]) -> list[dict[str, Any]]:
    return [{"uid": key, "said": label, "truth": GOLD[key]} for key, label in said.items()]


def accuracy(results: Results, name: str) -> float | None:
    return results.models[name].metrics["accuracy"].value


def options(**given: Any) -> ScoreOptions:
    return ScoreOptions(**{"columns": COLUMNS, "n_resamples": 100, **given})


def test_reasons_of_another_program_are_not_repeated(tmp_path: Path) -> None:
    """Such a column may quote what the judge wrote, which may quote the case."""
    path = tmp_path / "tool.jsonl"
    rows = [{**row, "unparsed_reason": "" if row["said"] else "cannot parse: Mrs Example"} for row in rows_of(SAID)]
    rows[0] |= {"said": "", "unparsed_reason": "cannot parse: Mrs Example"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = score([str(path)], BINARY, options()).results
    assert "no label was given" in results.models["tool"].unparsed_reasons
    assert "Example" not in json.dumps(results.to_json())


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_format_gives_the_same(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"tool.{form}"
    if form == "csv":
        write_csv(path, rows_of(SAID))
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(SAID)))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows_of(SAID)), path)
    results = score([str(path)], BINARY, options()).results
    tool = results.models["tool"]
    assert (tool.n, tool.n_unparsed) == (10, 1)
    assert accuracy(results, "tool") == pytest.approx(0.8)
    assert tool.unparsed_reasons == {"the label is not one of the scale": 1}
    assert results.audit is not None
    statistics = results.audit.judges["tool"].statistics
    assert statistics["tpr"].value == pytest.approx(3 / 4)  # the unreadable one is missed
    assert statistics["tnr"].value == pytest.approx(5 / 6)
    assert statistics["f1_positive"].value == pytest.approx(2 * 3 / (4 + 4))


def test_gold_in_a_file_of_its_own_says_what_found_no_partner(tmp_path: Path) -> None:
    said = [{"uid": key, "said": label} for key, label in {**SAID, "zz": "yes"}.items()]
    gold = [{"key": key, "expert": label} for key, label in GOLD.items()] + [{"key": "k", "expert": ""}]
    results = score(
        [write_csv(tmp_path / "tool.csv", said)],
        BINARY,
        options(
            columns={"id": "uid", "label": "said"},
            gold=write_csv(tmp_path / "gold.csv", gold),
            gold_columns={"id": "key", "gold": "expert"},
        ),
    ).results
    assert accuracy(results, "tool") == pytest.approx(0.8)
    assert (results.n_cases, results.n_without_gold) == (10, 1)
    assert any(
        line.startswith("1 verdict of tool found no case in the file of expert labels (such as 'zz')")
        for line in results.statements
    )


def test_two_judges_are_compared_with_one_correction(tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", rows_of(GOLD))
    b = write_csv(tmp_path / "b.csv", rows_of(SAID))
    results = score([a, f"other={b}"], BINARY, options()).results
    audit = results.audit
    assert audit is not None
    (pair,) = audit.pairs
    assert (pair.a, pair.b, pair.only_a, pair.only_b) == ("other", "a", 0, 2)
    assert pair.p == pytest.approx(0.5)  # 2 discordant rows, all one way: 2 * (1/2)^2
    # Exact permutation over 2 differing groups: the observed split and its mirror of 4.
    assert pair.tests["f1_positive"].p == pytest.approx(0.5)
    # The pair by accuracy, macro-F1, F1 and MCC; each of the two and the best baseline by two of them; both and chance.
    assert audit.n_tests == len(results.claims) == 4 + 4 + 2
    assert pair.adjusted_p == pair.tests["f1_positive"].adjusted_p == 1.0


def test_confidence_group_and_generator(tmp_path: Path) -> None:
    rows = [
        {**row, "sure": "90%", "llm": "m1" if i % 2 else "m2", "who": f"p{i // 2}"}
        for i, row in enumerate(rows_of(SAID))
    ]
    columns = {**COLUMNS, "confidence": "sure", "generator": "llm", "group": "who"}
    results = score([write_csv(tmp_path / "t.csv", rows)], BINARY, options(columns=columns)).results
    assert results.n_groups == 5
    assert results.audit is not None
    judge = results.audit.judges["t"]
    # m1: b d f h j, gold yes 2 of 5; m2: a c e g i, gold yes 2 of 5.
    assert [(row.generator, row.n) for row in judge.generators] == [("m1", 5), ("m2", 5)]
    assert judge.generators[0].always_positive_f1 == pytest.approx(2 * 0.4 / 1.4)
    assert judge.calibration is not None
    assert judge.calibration.n == 9
    assert judge.calibration.ece == pytest.approx(0.9 - 8 / 9)


def test_unrated_cases_correct_the_pass_rate(tmp_path: Path) -> None:
    rated = [{"id": f"r{i}", "label": "yes" if i < 12 else "no", "gold": "yes" if i < 10 else "no"} for i in range(20)]
    new = [{"id": f"n{i}", "label": "yes" if i < 6 else "no", "gold": ""} for i in range(10)]
    results = score([write_csv(tmp_path / "t.csv", rated + new)], BINARY, options(columns={})).results
    assert results.audit is not None
    correction = results.audit.judges["t"].correction
    assert correction is not None
    assert (correction.n_unrated, correction.n_rated) == (10, 20)
    # TPR 1, TNR .8, judged .6: (.6 + .8 - 1) / (1 + .8 - 1) = .5
    assert correction.rogan_gladen.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("cell", "label"),
    [("1", "1"), ("1.0", "1"), (1.0, "1"), (True, "1"), ("PASS", "1"), ("", None), (None, None), ("12", None)],
)
def test_labels_are_read_as_other_programs_write_them(cell: object, label: str | None) -> None:
    assert Scale(("0", "1"), {"PASS": "1"}).read(cell) == label


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"uid": "a", "said": "yes"}], {"id": "uid", "label": "said"}, "no column 'gold'"),
        ([{"uid": "a", "said": "yes", "truth": "??"}], COLUMNS, "1 of 1 values in column 'truth' are no expert label"),
        ([{"uid": "a", "said": "yes", "truth": "no"}] * 2, COLUMNS, "a second verdict for case 'a'"),
        ([{"uid": "a", "said": "yes", "truth": "no"}], {**COLUMNS, "label": "sayd"}, "no column 'sayd'"),
        ([{"uid": "a", "said": "y", "truth": "no", "c": 7}], {**COLUMNS, "confidence": "c"}, "--alias y=yes"),
        ([{"uid": "a", "said": "yes", "truth": "no", "c": 7}], {**COLUMNS, "confidence": "c"}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, rows: list[dict[str, Any]], columns: dict[str, str], message: str
) -> None:
    path = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(MedjudgeError, match=message):
        score([path], BINARY, options(columns=columns))


def test_no_partner_at_all_shows_ids_of_both_sides(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [{"id": "a", "label": "yes"}])
    gold = write_csv(tmp_path / "g.csv", [{"id": "b", "gold": "yes"}])
    with pytest.raises(DataError, match="ids there are like 'b', in the verdicts like 'a'"):
        score([path], BINARY, options(columns={}, gold=gold))


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", [{"id": "1", "label": "yes", "gold": "yes"}])
    b = write_csv(tmp_path / "b.csv", [{"id": "1", "label": "yes", "gold": "no"}])
    with pytest.raises(DataError, match="case '1' has another gold"):
        score([a, b], BINARY, options(columns={}))


def test_ids_joined_from_two_columns(tmp_path: Path) -> None:
    rows = [{"q": "1", "m": name, "label": "yes", "gold": "yes"} for name in ("x", "y")]
    path = write_csv(tmp_path / "t.csv", rows)
    assert list(read_verdicts(path, Scale(("no", "yes")), Reading({"id": "q+m"})).facts) == ["1|x", "1|y"]
    assert list(read_gold(path, Scale(("no", "yes")), columns={"id": "q+m"}).facts) == ["1|x", "1|y"]


@pytest.mark.parametrize("labels", ["yes", "yes,yes", "yes,"])
def test_a_scale_has_two_labels(labels: str) -> None:
    with pytest.raises(ConfigError, match="two different labels or more"):
        label_scale(labels)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code if isinstance(end.value.code, int) else 0


def test_the_command_writes_results_and_page_and_reads_its_own_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "tool.csv", rows_of(SAID))
    out = tmp_path / "out"
    mapping = ["--map", "id=uid,label=said"]
    assert run(monkeypatch, "score", path, "--labels", "no,yes", *mapping, "--gold", "truth", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert " ".join(printed.split()).startswith(f"{path} read as: verdict = said, gold = truth, id = uid,")
    assert "tool gives the experts' label in" in printed
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<h1>out: labels</h1>" in page
    assert "medjudge score" in page
    assert "read as: verdict = said, gold = truth, id = uid, group = each case alone" in page
    again = score([str(out / "verdicts.jsonl")], BINARY, options(columns={})).results
    assert accuracy(again, "tool") == pytest.approx(0.8)
    assert again.models["tool"].n_unparsed == 1
    assert again.models["always_positive"].role == "baseline"


def test_a_refusal_writes_nothing_and_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "tool.csv", rows_of({key: said[0].upper() for key, said in SAID.items()}))
    out = tmp_path / "out"
    arguments = [
        "score",
        path,
        "--labels",
        "no,yes",
        "--map",
        "id=uid,label=said",
        "--gold",
        "truth",
        "--out",
        str(out),
    ]
    assert run(monkeypatch, *arguments) == 1
    assert "--alias N=no" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["tool.csv"]


def test_help_shows_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "score", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("--map id=uid,label=result.verdict", "--judge gpt=gpt_verdict", "--alias Y=yes", "--threshold 0.5"):
        assert part in shown


def test_the_scale_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "score", "x.csv", "--out", str(tmp_path / "o")) == 1
    assert "--task KIND or --labels" in capsys.readouterr().err


def test_the_french_rows_by_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Embedding 800 long rows takes minutes on a shared core; `tests/metrics/test_learned.py` has these baselines.
    monkeypatch.setattr("medjudge.commands.score.embed_or_why_not", lambda settings: "left out here.")
    """Prevalence of 15 to 42 % and an always-positive F1 of .26 to .59, as the published counts give them."""
    rows = [
        {**row, "id": f"{row['question_id']}|{row['generator']}"}
        for row in shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")
        if row["split"] == "eval"
    ]
    assert len(rows) == 300
    said = [{"id": row["id"], "label": 1 if len(row["candidate"]) > 40 else 0} for row in rows]
    train = require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    results = score(
        [write_csv(tmp_path / "length.csv", said)],
        EquivalenceContract(),
        options(
            columns={}, gold=str(gold), gold_columns={"gold": "label"}, train=str(train), train_where=["split=train"]
        ),
    ).results
    assert results.audit is not None
    judge = results.audit.judges["length"]
    found = {row.generator: row for row in judge.generators}
    assert {name: row.n for name, row in found.items()} == dict.fromkeys(found, 60)
    rates = {name: row.prevalence.value for name, row in found.items() if row.prevalence}
    assert rates == pytest.approx(
        {
            "Gemma_3_4b_it": 25 / 60,
            "LLama_13b_chat_SFT": 18 / 60,
            "MedGemma_4b_it": 22 / 60,
            "Qwen_4B_sft": 9 / 60,
            "Qwen_4b_it": 23 / 60,
        }
    )
    f1 = [row.always_positive_f1 for row in found.values() if row.always_positive_f1 is not None]
    assert (round(min(f1), 2), round(max(f1), 2)) == (0.26, 0.59)
    assert all(row.minimum_detectable is not None for row in found.values())
    prevalence = next(test for test in judge.heterogeneity if test.outcome == "prevalence")
    assert prevalence.p < 0.01
    assert results.skipped_baselines == dict.fromkeys(("embedding_linear", "embedding_svm"), "left out here.")
    for name in ("token_f1", "surface"):
        assert results.models[name].role == "baseline"
        assert results.models[name].n == 300
    # The published training rows repeat 40 evaluated questions: none of those rows may have set a threshold.
    evaluated = {normalise(row["question"]) for row in rows}
    published = [row for row in shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl") if row["split"] == "train"]
    clean = [row for row in published if normalise(row["question"]) not in evaluated]
    assert 0 < len(clean) < len(published)
    assert any(line.startswith(f"Baselines were fitted on {len(clean):,} of ") for line in results.statements)


def scored(tmp_path: Path, gold: dict[str, str], **judges: dict[str, str | None]) -> Results:
    """Judges against a file of expert labels; a verdict of None stands there as an empty cell."""
    path = write_csv(tmp_path / "gold.csv", [{"id": key, "gold": label} for key, label in gold.items()])
    files = [
        f"{name}={write_csv(tmp_path / f'{name}.csv', [{'id': k, 'label': v or ''} for k, v in said.items()])}"
        for name, said in judges.items()
    ]
    return score(files, BINARY, options(columns={}, gold=path)).results


def test_rows_that_are_absent_and_rows_without_a_label_give_one_headline(tmp_path: Path) -> None:
    """B leaves out all but two of the hard half. A is right on 9 of 10 easy and 6 of 10 hard, B on 9 and 2 of 2."""
    gold = {f"c{i}": ("yes", "no")[i % 2] for i in range(20)}
    wrong = {"yes": "no", "no": "yes"}
    a = {key: label if i < 9 or 10 <= i < 16 else wrong[label] for i, (key, label) in enumerate(gold.items())}
    b = {key: label if i != 9 else wrong[label] for i, (key, label) in enumerate(gold.items()) if i < 12}
    (tmp_path / "absent").mkdir()
    (tmp_path / "empty").mkdir()
    absent = scored(tmp_path / "absent", gold, A=a, B=dict(b))
    empty = scored(tmp_path / "empty", gold, A=a, B={key: b.get(key) for key in gold})
    for results, kind in ((absent, "absent"), (empty, "failed")):
        assert accuracy(results, "A") == 0.75
        assert accuracy(results, "B") == 0.55
        assert results.models["B"].metrics["accuracy_on_schema"].value == pytest.approx(11 / 12)
        assert results.models["B"].unanswered == {kind: 8}
    line_absent, line_empty = absent.statements[0], empty.statements[0]
    assert line_absent == line_empty
    # On the 12 that both answered A is right on 9 + 2; on the 8 others on 4.
    assert "On the 12 cases that both answered, B is right in 91.7 % and A in 91.7 %: +0.0 points" in line_absent
    assert "On the 8 cases that only A answered, it is right in 50.0 %." in line_absent


def test_the_criterion_that_lacks_verdicts_is_named(tmp_path: Path) -> None:
    criteria = ("short", "safe", "right")
    keys = [(f"a{i}", criterion) for i in range(12) for criterion in criteria]
    gold = [{"id": i, "criterion": c, "gold": ("yes", "no")[k % 2]} for k, (i, c) in enumerate(keys)]
    said = [
        {"id": row["id"], "criterion": row["criterion"], "label": row["gold"]}
        for k, row in enumerate(gold)
        if row["criterion"] != "safe" or k < 12
    ]
    mapped = {"id": "id+criterion", "group": "id"}
    results = score(
        [f"judge={write_csv(tmp_path / 'said.csv', said)}"],
        BINARY,
        options(columns=mapped, gold=write_csv(tmp_path / "gold.csv", gold), gold_columns=mapped),
    ).results
    judge = results.models["judge"]
    assert (judge.n, judge.n_answered) == (36, 28)
    assert accuracy(results, "judge") == pytest.approx(28 / 36)
    assert judge.metrics["accuracy_on_schema"].value == 1
    assert results.audit is not None
    table = {row.generator: row.n - row.n_unparsed for row in results.audit.judges["judge"].slices["criterion"]}
    assert table == {"short": 12, "safe": 4, "right": 12}
    assert any("criterion 'safe': 4 of its 12 cases were answered" in line for line in results.statements)
