"""`medjudge score` with several experts per case, and with judges that give numbers: files in, numbers out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medjudge import artifacts
from medjudge.cli import main
from medjudge.commands.score import ScoreOptions, label_scale, score, score_files
from medjudge.data.columns import Rows
from medjudge.data.verdict_rows import read_verdicts
from medjudge.errors import ConfigError, DataError, MedjudgeError
from medjudge.metrics.result_types import Results
from tests.commands.format_files import write_csv
from tests.shared_data import shared_rows

BINARY = label_scale("no,yes")
# Votes of three experts. The majority is yes on a and b, no on c and d; e ties where cleo is silent.
VOTES = {"a": "yyy", "b": "yyn", "c": "nnn", "d": "nyn", "e": "yn-"}
WORD = {"y": "yes", "n": "no", "-": ""}
NAMES = ("ann", "bob", "cleo")
SAID = {"a": "yes", "b": "no", "c": "no", "d": "no", "e": "yes"}


def verdict_rows(**more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": i, "label": label, **{k: v[i] for k, v in more.items()}} for i, label in SAID.items()]


def columns_of(i: str) -> dict[str, str]:
    return {name: WORD[vote] for name, vote in zip(NAMES, VOTES[i], strict=True)}


def options(**given: Any) -> ScoreOptions:
    return ScoreOptions(**{"n_resamples": 100, **given})


def measured(rows: list[dict[str, Any]], **given: Any) -> Results:
    return score([Rows("v", rows)], BINARY, options(**given)).results


def refusal(rows: list[dict[str, Any]], **given: Any) -> str:
    with pytest.raises(MedjudgeError) as error:
        measured(rows, **given)
    return str(error.value)


def long_rows() -> list[dict[str, str]]:
    return [{"id": i, "rater": name, "gold": label} for name in NAMES for i in VOTES if (label := columns_of(i)[name])]


FORMS: dict[str, dict[str, Any]] = {
    "a column each": {
        "gold": Rows("g", [{"id": i, **columns_of(i)} for i in VOTES]),
        "gold_columns": {"gold": "ann,bob,cleo"},
    },
    "an object": {"gold": Rows("g", [{"id": i, "gold": {k: v for k, v in columns_of(i).items() if v}} for i in VOTES])},
    "a row each": {"gold": Rows("g", long_rows())},
    "a row each, other names": {
        "gold": Rows("g", [{"case": r["id"], "who": r["rater"], "said": r["gold"]} for r in long_rows()]),
        "gold_columns": {"id": "case", "rater": "who", "gold": "said"},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_page(form: str) -> None:
    results = measured(verdict_rows(), **FORMS[form])
    assert (results.n_cases, results.n_without_gold) == (4, 1)  # e ties
    assert results.models["v"].metrics["accuracy"].value == pytest.approx(3 / 4)
    experts = results.experts
    assert experts is not None
    assert (experts.n_cases, experts.n_raters, experts.n_ratings, experts.n_tied) == (5, 3, 14, 1)
    assert set(experts.raters) == set(NAMES)
    assert any("come from 14 ratings by 3 experts, by the rule majority; 1 without" in line for line in results.read_as)


def test_lists_and_columns_in_the_file_of_verdicts() -> None:
    lists = measured(verdict_rows(gold={i: [WORD[v] for v in votes] for i, votes in VOTES.items()}))
    columns = measured([{**row, **columns_of(row["id"])} for row in verdict_rows()], columns={"gold": "ann,bob,cleo"})
    named = measured([{**row, **columns_of(row["id"])} for row in verdict_rows()], gold="ann,bob,cleo")
    assert lists.experts is not None
    assert list(lists.experts.raters) == ["1", "2", "3"]
    for results in (lists, columns, named):
        assert results.models["v"].metrics["accuracy"].value == pytest.approx(3 / 4)
    # A row for each expert that repeats the one verdict.
    rows = [{**row, "label": SAID[row["id"]]} for row in long_rows()]
    assert measured(rows, columns={"rater": "rater"}).experts == columns.experts
    rows[0] = {**rows[0], "label": "no"}
    assert "has a second verdict for case 'a'" in refusal(rows, columns={"rater": "rater"})


def test_rules_and_ties() -> None:
    columns = FORMS["a column each"]
    higher = measured(verdict_rows(), **columns, gold_ties="higher")
    assert higher.n_cases == 5
    assert higher.models["v"].metrics["accuracy"].value == pytest.approx(4 / 5)
    settled = {"a": "no", "b": "no", "c": "", "d": "", "e": ""}
    gold = [{"id": i, **columns_of(i), "final": settled[i]} for i in VOTES]
    results = measured(
        verdict_rows(), gold=Rows("g", gold), gold_columns={"gold": "ann,bob,cleo", "adjudicated": "final"}
    )
    # Settled: a no, b no. All agree: c no. d and e have no label.
    assert results.n_cases == 3
    assert results.models["v"].metrics["accuracy"].value == pytest.approx(2 / 3)
    assert any("by 3 experts, by the rule adjudicated; 2 without" in line for line in results.read_as)
    with pytest.raises(ConfigError, match="no case has an adjudicated label"):
        measured(verdict_rows(), **columns, gold_rule="adjudicated")
    with pytest.raises(ConfigError, match="labels on a scale"):
        score([Rows("v", verdict_rows())], label_scale("no,yes,unclear"), options(**columns, gold_rule="median"))


def test_what_is_wrong_with_ratings_is_named() -> None:
    twice = [*long_rows(), {"id": "a", "rater": "ann", "gold": "no"}]
    assert "a rater has a second label for case 'a', expected one label of each rater" in refusal(
        verdict_rows(), gold=Rows("g", twice)
    )
    assert "names no rater, expected one in each row" in refusal(
        verdict_rows(), gold=Rows("g", [{**row, "rater": ""} for row in long_rows()])
    )
    without = [{"id": row["id"], "gold": row["gold"]} for row in long_rows()]
    assert "name the column that names them: --gold-map rater=COLUMN" in refusal(
        verdict_rows(), gold=Rows("g", without)
    )
    assert "no column 'dora'" in refusal(
        verdict_rows(), gold=FORMS["a column each"]["gold"], gold_columns={"gold": "ann,dora"}
    )
    off = [{"id": i, **columns_of(i), "cleo": "perhaps"} for i in VOTES]
    assert "5 of 15 values in column 'ann,bob,cleo' are no expert label" in refusal(
        verdict_rows(), gold=Rows("g", off), gold_columns={"gold": "ann,bob,cleo"}
    )


def test_one_command_from_files_to_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HealthBench's form: the physicians' labels of a criterion as a list, two or three of them."""
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.5
    rows = [
        {
            "completion_id": f"p{at // 2}",
            "criterion": f"k{at % 2}",
            "binary_labels": [bool((rng.random() < 0.15) != truth[at]) for _ in range(2 + at % 2)],
            "grader": bool((rng.random() < 0.2) != truth[at]),
        }
        for at in range(60)
    ]
    path = tmp_path / "meta_eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "scored"
    mapping = "id=completion_id+criterion,group=completion_id,label=grader,gold=binary_labels"
    arguments = ["score", str(path), "--labels", "false,true", "--map", mapping, "--gold-ties", "higher"]
    monkeypatch.setattr(sys, "argv", ["medjudge", *arguments, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert "Judges beside the experts" in printed
    page = (out / artifacts.REPORT).read_text(encoding="utf-8")
    for text in ("Several experts", "experts, each against the others", "Krippendorff", "Human ceiling: 3 experts"):
        assert text in page
    results = artifacts.read_as(out / artifacts.RESULTS, Results.from_json)
    assert results.experts is not None
    assert results.experts.judges["meta_eval"].n_cases <= 60
    assert (results.n_cases, results.n_groups) == (60, 30)


def test_three_clinicians_on_real_claims() -> None:
    """K-QA: individual votes in, the ceiling and a judge beside it out; the votes' majority is the published label."""
    rows = shared_rows("data", "kqa_claim_nli", "kqa_claim_nli.jsonl")
    verdicts = [
        {
            "id": f"{at}",
            "question": row["question"],
            "label": row["label"],
            "category": row["category"],
            "gold": row["annotator_labels"],
        }
        for at, row in enumerate(rows)
    ]
    scale = label_scale("Contradiction,Neutral,Entailment", ordered=True)
    scored = score([Rows("majority label", verdicts)], scale, options())
    results = scored.results
    assert results.models["majority label"].metrics["accuracy"].value == 1.0
    experts = results.experts
    assert experts is not None
    assert (experts.n_cases, experts.n_raters, experts.n_tied) == (297, 3, 0)
    assert results.n_groups == len({row["question"] for row in rows})
    unanimous = sum(len(set(row["annotator_labels"])) == 1 for row in rows)
    assert experts.slices["all"][0].disagreement.value == pytest.approx(1 - unanimous / 297)
    assert experts.ceiling is not None
    ceiling = experts.ceiling.statistics["accuracy"].value
    right = total = 0
    for row in rows:
        votes = row["annotator_labels"]
        for at in range(3):
            others = [vote for place, vote in enumerate(votes) if place != at]
            if others[0] == others[1]:
                total += 1
                right += votes[at] == others[0]
    assert ceiling == pytest.approx(right / total)
    assert experts.alternative["majority label"].winning_rate == 1.0


# --- numbers ----------------------------------------------------------------------------------------------------------


def scored_rows(n: int = 200, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(verdicts, gold): probabilities of `yes` by one judge, 60 groups."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=n)
    positive = seen + rng.normal(size=n) > 0
    probability = 1 / (1 + np.exp(-1.6 * seen))
    group = rng.integers(0, 60, n)
    gold = [{"id": i, "gold": "yes" if positive[i] else "no", "group": f"g{group[i]}"} for i in range(n)]
    return [{"id": i, "label": round(float(probability[i]), 4)} for i in range(n)], gold


def test_a_threshold_is_chosen_on_groups_that_nothing_else_sees(tmp_path: Path) -> None:
    verdicts, gold = scored_rows()
    paths = [write_csv(tmp_path / name, rows) for name, rows in (("j.csv", verdicts), ("g.csv", gold))]
    given = options(gold=paths[1], scores="probability", threshold_rule="sensitivity=0.95")
    out = tmp_path / "out"
    results = score_files([paths[0]], BINARY, out, given)
    assert results.scores is not None
    judge = results.scores.judges["j"]
    assert judge.threshold is not None
    assert results.scores.n_calibration + results.n_cases == 200
    assert results.scores.n_calibration_groups + results.n_groups == len({row["group"] for row in gold})
    rows = read_verdicts(out / artifacts.VERDICTS)
    own = [row for row in rows if row.model == "j"]
    kept = {row.case_id for row in own}
    assert len(own) == results.n_cases == judge.n
    # The groups that chose are whole, and the labels are those of the threshold.
    group = {str(row["id"]): row["group"] for row in gold}
    assert not {group[case_id] for case_id in kept} & {group[case_id] for case_id in group.keys() - kept}
    assert all((row.label == "yes") == (row.score is not None and row.score >= judge.threshold.value) for row in own)
    choosing = [row for row in verdicts if str(row["id"]) not in kept]
    truth = {row["id"]: row["gold"] == "yes" for row in gold}
    hits = [row["label"] >= judge.threshold.value for row in choosing if truth[row["id"]]]
    assert judge.threshold.sensitivity == pytest.approx(np.mean(hits))
    assert np.mean(hits) >= 0.95
    assert judge.auc is not None
    expected = roc_auc_score([row.gold == "yes" for row in own], [row.score for row in own])
    assert judge.auc.value == pytest.approx(expected)
    assert any(line.startswith("Thresholds were chosen by sensitivity=0.95 on") for line in results.statements)
    assert {"scores_roc.png", "scores_calibration.png"} <= {path.name for path in (out / "figures").iterdir()}
    # The order of the file changes neither the part nor the threshold.
    backwards = score([Rows("j", verdicts[::-1])], BINARY, options(gold=Rows("g", gold[::-1]), **_of(given))).results
    assert backwards.scores is not None
    assert backwards.scores.judges["j"].threshold == judge.threshold
    assert backwards.scores.judges["j"].auc == judge.auc


def _of(given: ScoreOptions) -> dict[str, Any]:
    return {"scores": given.scores, "threshold_rule": given.threshold_rule}


@pytest.mark.parametrize(
    ("kind", "change"),
    [("probability", lambda p: p), ("percent", lambda p: 100 * p), ("logit", lambda p: float(np.log(p / (1 - p))))],
)
def test_every_unit_of_a_probability_gives_the_same(kind: Any, change: Any) -> None:
    verdicts, gold = scored_rows()
    rows = [{**row, "label": change(row["label"])} for row in verdicts]
    results = score([Rows("j", rows)], BINARY, options(gold=Rows("g", gold), scores=kind)).results
    plain = score([Rows("j", verdicts)], BINARY, options(gold=Rows("g", gold), threshold=0.5)).results
    assert results.models["j"].metrics["accuracy"] == plain.models["j"].metrics["accuracy"]
    assert results.scores is not None
    probabilities = results.scores.judges["j"].probabilities
    assert probabilities is not None
    truth = {row["id"]: row["gold"] == "yes" for row in gold}
    assert probabilities.brier.value == pytest.approx(np.mean([(r["label"] - truth[r["id"]]) ** 2 for r in verdicts]))


def test_numbers_on_an_ordered_scale() -> None:
    """Experts' means between labels, a judge's decimals: nearest labels, correlations, limits of agreement."""
    rng = np.random.default_rng(1)
    truth = rng.uniform(1, 5, 80)
    rows: list[dict[str, Any]] = [
        {
            "id": i,
            "label": round(float(truth[i] + 0.3 + 0.2 * rng.normal()), 2),
            "gold": [round(float(np.clip(truth[i] + 0.4 * rng.normal(), 1, 5)), 1) for _ in range(3)],
        }
        for i in range(80)
    ]
    scale = label_scale("1,2,3,4,5", ordered=True)
    results = score([Rows("j", rows)], scale, options(scores="number", gold_rule="mean")).results
    assert results.scores is not None
    judge = results.scores.judges["j"]
    assert judge.auc is None
    assert judge.bland_altman is not None
    gap = [float(row["label"]) - float(np.mean(row["gold"])) for row in rows]
    assert judge.bland_altman.mean.value == pytest.approx(np.mean(gap))
    assert judge.correlations["spearman"].value is not None
    assert judge.correlations["spearman"].value > 0.9
    assert results.experts is not None
    assert results.experts.n_raters == 3
    lines = [line for line in results.statements if "mean difference" in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold_rule": "youden"}, "--threshold-rule chooses a threshold for scores: say what they are"),
        ({"scores": "number"}, "--scores number with two labels needs a threshold"),
        (
            {"scores": "probability", "threshold": 0.5, "threshold_rule": "youden"},
            "got --threshold and --threshold-rule",
        ),
        ({"scores": "probability", "threshold_rule": "best"}, "got threshold rule 'best', expected youden"),
        ({"scores": "percent"}, ""),
        ({"scores": "logit", "threshold_rule": "cost=5", "calibration_share": 0.01}, "expected positive and negative"),
    ],
)
def test_options_that_do_not_fit(given: dict[str, Any], message: str) -> None:
    verdicts, gold = scored_rows()
    if message:
        assert message in refusal(verdicts, gold=Rows("g", gold), **given)
    else:
        assert measured(verdicts, gold=Rows("g", gold), **given).scores is not None
    off = [{**row, "label": row["label"] + 0.5} for row in verdicts]
    assert "scores of v are not from 0 to 1, but from" in refusal(off, gold=Rows("g", gold), scores="probability")


def test_continuous_gold_makes_labels_by_its_own_threshold_and_is_compared_as_numbers() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(90).round(3)
    rows: list[dict[str, Any]] = [
        {"id": i, "label": float(np.clip(truth[i] + 0.1 * rng.normal(), 0, 1)), "gold": float(truth[i])}
        for i in range(90)
    ]
    results = measured(rows, scores="probability", gold_threshold=0.7)
    assert results.scores is not None
    judge = results.scores.judges["v"]
    assert judge.auc is not None
    assert judge.auc.value == pytest.approx(roc_auc_score(truth >= 0.7, [row["label"] for row in rows]))
    assert judge.correlations["pearson"].value == pytest.approx(np.corrcoef(truth, [r["label"] for r in rows])[0, 1])
    assert judge.bland_altman is not None
    assert judge.bland_altman.n == 90
    # Of a logit no unit is shared with the experts' numbers.
    logits = measured(rows, scores="logit", gold_threshold=0.7)
    assert logits.scores is not None
    assert set(logits.scores.judges["v"].correlations) == {"pearson", "spearman", "kendall_tau_b"}
    assert logits.scores.judges["v"].bland_altman is None
    with pytest.raises(ConfigError, match="none of them is positive"):
        score([Rows("v", rows)], label_scale("no,yes", ordered=True), options(scores="probability"))


def test_what_is_no_number_is_no_verdict() -> None:
    verdicts, gold = scored_rows()
    rows = [{**row, "label": "yes" if row["id"] < 5 else row["label"]} for row in verdicts]
    results = measured(rows, gold=Rows("g", gold), scores="probability")
    assert results.models["v"].n_unparsed == 5
    assert results.scores is not None
    assert results.scores.judges["v"].n_without == 5
    with pytest.raises(DataError, match="0 of 200 values in column 'label' are a label"):
        measured([{**row, "label": "yes"} for row in verdicts], gold=Rows("g", gold), scores="probability")
    with pytest.raises(ConfigError, match="expected numbers as labels, got bad, fair, good"):
        score([Rows("j", rows)], label_scale("bad,fair,good", ordered=True), options(scores="number"))


def test_the_written_verdicts_hold_the_ratings_and_are_read_again(tmp_path: Path) -> None:
    first = score_files(
        [write_csv(tmp_path / "v.csv", verdict_rows())],
        BINARY,
        tmp_path / "once",
        options(gold=write_csv(tmp_path / "g.csv", long_rows())),
    )
    path = tmp_path / "once" / artifacts.VERDICTS
    assert all(row.ratings for row in read_verdicts(path))
    again = score([str(path)], BINARY, options(columns={"gold": "ratings"})).results
    assert again.experts == first.experts
    assert again.models["v"].metrics["accuracy"] == first.models["v"].metrics["accuracy"]
