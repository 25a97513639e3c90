import json

import numpy as np
import pytest

from medjudge.errors import DataError
from medjudge.metrics.baselines import Baselines, trivial_baselines
from medjudge.metrics.claims import is_clear
from medjudge.metrics.judge_pairs import best_model
from medjudge.metrics.result_types import DifferenceResult, Results
from medjudge.metrics.summary import AnalysisOptions, JudgeFacts, TrainingRows, summarise, with_claims
from medjudge.metrics.wording import NO_LEAKAGE_CHECK
from medjudge.records import Case, Unparsed, Verdict
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract


def cases_of(labels, n, seed=0, per_group=2):
    rng = np.random.default_rng(seed)
    return [
        Case(f"c{i}", {"q": f"word{i % 7}"}, gold=str(rng.choice(labels)), group=f"g{i // per_group}") for i in range(n)
    ]


def answers(cases, labels, share_right, share_unparsed=0.0, seed=1):
    rng = np.random.default_rng(seed)
    said = []
    for case in cases:
        right, unparsed, other = rng.random(3)
        if unparsed < share_unparsed:
            said.append(Unparsed(case.case_id, "??", "not JSON", kind="format"))
        else:
            said.append(Verdict(case.case_id, case.gold if right < share_right else labels[int(other * len(labels))]))
    return said


@pytest.fixture(scope="module")
def results():
    contract = McqContract()
    cases = [*cases_of(contract.labels, 400), Case("unrated", {"q": "x"})]
    rated = cases[:-1]
    baselines = trivial_baselines(
        rated[:50], cases, labels=contract.labels, positive=None, rng=np.random.default_rng(3)
    )
    models = {
        "base": answers(rated, contract.labels, 0.0, 1.0),
        "sft": answers(rated, contract.labels, 0.5, 0.02, seed=2),
        "grpo": answers(rated, contract.labels, 0.5, 0.0, seed=3),
    }
    return summarise(
        cases,
        models,
        contract=contract,
        split="test",
        facts={
            "base": JudgeFacts(n_truncated=400),
            "sft": JudgeFacts({"weights_sha256": "ab"}, 1.5, n_truncated=0),
            "grpo": JudgeFacts(n_truncated=0),
        },
        baselines=baselines,
        training=TrainingRows(50, {"summary_line": "Leakage: none.", "share": float("nan"), "pairs": (("a", "b"),)}),
        options=AnalysisOptions(reference="base", n_resamples=500),
    )


def test_round_trip_without_nan(results):
    text = json.dumps(results.to_json(), allow_nan=False)
    assert Results.from_json(json.loads(text)) == results


def test_counts_and_roles(results):
    assert (results.n_cases, results.n_groups, results.n_without_gold) == (400, 200, 1)
    assert list(results.of_role("model")) == ["base", "sft", "grpo"]
    assert list(results.of_role("baseline")) == ["majority", "chance"]
    base = results.models["base"]
    assert (base.n, base.n_unparsed, base.unparsed_reasons, base.n_truncated) == (400, 400, {"not JSON": 400}, 400)
    assert results.models["majority"].n == 400
    assert results.models["majority"].n_unmatched == 1  # the case without a gold label
    assert results.models["sft"].n_truncated == 0
    assert results.models["sft"].lineage == {"weights_sha256": "ab"}
    assert results.models["sft"].seconds == 1.5
    assert sum(map(sum, base.confusion.counts)) == 400
    assert base.confusion.columns[-1] == "unparsed"
    assert results.contract["fingerprint"] == McqContract().fingerprint()


def test_each_interval_holds_its_value_and_names_its_method(results):
    for model in results.models.values():
        for name, metric in model.metrics.items():
            if metric.value is None or (metric.value == 0 and name.endswith("_f1")):  # an F1 of 0 has no spread
                assert metric.low is metric.high is None, name
            else:
                assert metric.low <= metric.value <= metric.high, name
    sft = results.models["sft"].metrics
    assert sft["accuracy"].method == "Wilson, n = rows / design effect"
    assert sft["macro_f1"].method == "jackknife over groups, t on a transformed scale"
    assert sft["schema_pass_rate"].method == "expanded percentile bootstrap over groups"
    at_base = results.models["base"].metrics
    assert at_base["accuracy"].method == "Wilson, n = groups"
    assert at_base["accuracy"].high == pytest.approx(1.959964**2 / (200 + 1.959964**2))
    assert at_base["accuracy_on_schema"].value is None
    assert at_base["accuracy_on_schema"].n == 0


def test_comparisons_are_with_the_reference_consecutive_and_with_the_best_baseline(results):
    made = [(c.a, c.b, c.kind) for c in results.comparisons]
    assert made[:3] == [("sft", "base", "reference"), ("grpo", "base", "reference"), ("grpo", "sft", "consecutive")]
    assert made[3][0] == best_model(results.models, "model")
    assert {(a, kind) for a, _, kind in made[3:]} == {(name, "baseline") for name in ("base", "sft", "grpo")}
    assert len(made) == 6
    difference = results.comparison("sft", "base").differences["accuracy"]
    expected = results.models["sft"].metrics["accuracy"].value - 0
    assert difference.value == pytest.approx(100 * expected)
    assert difference.low <= difference.value <= difference.high


def test_statements_say_what_the_tests_say(results):
    text = "\n".join(results.statements)
    accuracy = 100 * results.models["sft"].metrics["accuracy"].value
    assert f"sft is {accuracy:.1f} points more accurate than base (95 % interval" in text
    assert "grpo is not distinguishable from sft in accuracy" in text
    assert "its accuracy of 0.0 % comes from missing verdicts alone" in text
    assert (
        "400 of base's 400 answers (100.0 %) could not be read and count as wrong; commonest reason: not JSON" in text
    )
    assert "Every answer of grpo could be read." in text
    assert "(400); 400 hit the token limit; its accuracy" in text
    assert "Left out: 1 case without an expert label." in text
    assert results.statements[-1] == "Leakage: none."


def test_deterministic_by_seed_and_independent_of_what_else_is_measured():
    contract = AppropriatenessContract()
    cases = cases_of(contract.labels, 60)
    said = answers(cases, contract.labels, 0.5)
    one = summarise(
        cases, {"m": said}, contract=contract, split="test", options=AnalysisOptions(n_resamples=200, seed=7)
    )
    two = summarise(
        list(reversed(cases)),
        {"x": said[::-1], "m": said},
        contract=contract,
        split="test",
        options=AnalysisOptions(n_resamples=200, seed=7),
    )
    other = summarise(
        cases, {"m": said}, contract=contract, split="test", options=AnalysisOptions(n_resamples=200, seed=8)
    )
    repeated = summarise(
        cases, {"m": said}, contract=contract, split="test", options=AnalysisOptions(n_resamples=200, seed=7)
    )
    assert one == repeated
    assert one.comparisons == other.comparisons == ()
    assert one.models["m"].metrics["accuracy"] == other.models["m"].metrics["accuracy"]  # nothing drawn in it
    assert two.models["m"].metrics["accuracy"] == one.models["m"].metrics["accuracy"]
    assert "pearson" in one.models["m"].metrics


def test_a_number_has_one_interval_and_a_pair_one_corrected_p(results):
    """What the metrics table and the agreement table both show is the same; so is what is said of two judges."""
    audit = results.audit
    for name, model in results.models.items():
        shared = set(model.metrics) & set(audit.judges[name].statistics)
        assert {"accuracy", "macro_f1"} <= shared
        assert all(model.metrics[key] == audit.judges[name].statistics[key] for key in shared)
    for pair in audit.pairs:
        comparison = results.comparison(pair.a, pair.b)
        assert comparison.mcnemar.adjusted_p == pair.adjusted_p >= comparison.tests["accuracy"].p == pair.p
    # Six pairs: three of models, and each of them with the best baseline; accuracy and macro-F1 of each, kappa of the
    # first three; and three models against chance.
    assert len(results.claims) == 2 * 6 + 3 + 3
    assert audit.n_tests == len(results.claims) - 2  # a model that nobody can read has no kappa to compare
    claims = ("more accurate than", "less accurate than", "not distinguishable from", "points more of the")
    assert not [line for line in audit.statements if any(claim in line for claim in claims)]


def test_a_claim_needs_the_corrected_p(results):
    """.02 alone would do; beside two tests of .03 it is .06."""
    comparison = results.comparison("grpo", "sft")
    tests = {"accuracy": comparison.tests["accuracy"].model_copy(update={"p": 0.02})}
    differences = {"accuracy": DifferenceResult(value=3.0, low=0.5, high=5.5)}
    near = comparison.model_copy(update={"tests": tests, "differences": differences})
    alone = results.model_copy(update={"comparisons": (near,), "models": {}, "audit": None})
    assert is_clear(near, with_claims(alone))
    others = tuple(
        near.model_copy(update={"a": name, "tests": {"accuracy": tests["accuracy"].model_copy(update={"p": 0.03})}})
        for name in "xy"
    )
    assert not is_clear(near, with_claims(alone.model_copy(update={"comparisons": (near, *others)})))
    assert not is_clear(near, alone.model_copy(update={"claims": ()}))  # results of an earlier program


def test_guessing_is_not_distinguishable_from_chance():
    contract = McqContract()
    cases = cases_of(contract.labels, 200)
    results = summarise(cases, {"grpo": answers(cases, contract.labels, 0.0)}, contract=contract, split="test")
    assert any("is not distinguishable from chance (25.0 %), p = " in line for line in results.statements)
    assert results.comparisons == ()
    assert NO_LEAKAGE_CHECK in results.statements


def test_a_worse_model_is_said_to_be_worse_with_positive_points():
    contract = McqContract()
    cases = cases_of(contract.labels, 200)
    results = summarise(
        cases,
        {"base": answers(cases, contract.labels, 0.9), "sft": answers(cases, contract.labels, 0.2)},
        contract=contract,
        split="test",
        options=AnalysisOptions(reference="base"),
    )
    difference = results.comparisons[0].differences["accuracy"]
    assert difference.high < 0
    line = results.statements[0]
    assert f"sft is {-difference.value:.1f} points less accurate than base" in line
    assert f"interval {-difference.high:.1f} to {-difference.low:.1f};" in line


def test_a_judge_with_one_label_for_everything_is_named():
    contract = McqContract()
    cases = cases_of(contract.labels, 40)
    said = {
        "stuck": [Verdict(case.case_id, "B") for case in cases],
        "sft": answers(cases, contract.labels, 0.5),
    }
    results = summarise(cases, said, contract=contract, split="test")
    assert [line for line in results.statements if "constant prediction" in line] == [
        "stuck answers 'B' to every case: constant prediction. Its accuracy on these is the share of that label among "
        "the experts' labels."
    ]


def test_judges_that_agree_on_every_case():
    contract = McqContract()
    cases = cases_of(contract.labels, 30)
    said = answers(cases, contract.labels, 0.5)
    results = summarise(
        cases, {"sft": said, "grpo": said}, contract=contract, split="test", options=AnalysisOptions(reference="sft")
    )
    assert results.statements[0].startswith("grpo and sft are right and wrong on the same cases (n = 30)")


@pytest.mark.parametrize(("n_groups", "claimed"), [(4, False), (10, True)])
def test_a_difference_without_spread_needs_enough_groups(n_groups, claimed):
    """All wrong against all right in every group: a sign test over G groups has p = 2^(1 - G), 1/8 and 1/512 here."""
    contract = McqContract()
    cases = [Case(str(i), {"q": "x"}, gold="A", group=f"g{i % n_groups}") for i in range(40)]
    models = {"base": [Verdict(c.case_id, "B") for c in cases], "sft": [Verdict(c.case_id, "A") for c in cases]}
    results = summarise(cases, models, contract=contract, split="test", options=AnalysisOptions(reference="base"))
    line = results.statements[0]
    assert line.startswith("sft is 100.0 points more accurate" if claimed else "sft is not distinguishable from base")
    assert "interval" not in line


def test_rows_that_resemble_each_other_do_not_make_a_claim():
    """Three groups of 40 equal rows: McNemar, blind to groups, rejects; the interval over groups does not."""
    contract = EquivalenceContract()
    cases = [Case(f"{g}.{i}", {"q": "x"}, gold="1", group=f"g{g}") for g in range(3) for i in range(40)]
    a = [Verdict(case.case_id, "1" if case.group == "g0" else "0") for case in cases]
    b = [Verdict(case.case_id, "0") for case in cases]
    results = summarise(
        cases, {"b": b, "a": a}, contract=contract, split="test", options=AnalysisOptions(reference="b")
    )
    assert results.comparisons[0].mcnemar.p < 0.001
    assert "a is not distinguishable from b" in results.statements[0]
    assert any("only 3 groups" in line for line in results.statements)


def test_lenient_reading_is_said():
    contract = McqContract(lenient=True)
    cases = cases_of(contract.labels, 10)
    results = summarise(
        cases,
        {"m": answers(cases, contract.labels, 0.5)},
        contract=contract,
        split="test",
        options=AnalysisOptions(n_resamples=100),
    )
    assert results.models["m"].lenient
    assert any("leniently" in line for line in results.statements)


def test_missing_answers_count_as_wrong():
    contract = McqContract()
    cases = cases_of(contract.labels, 20)
    said = answers(cases, contract.labels, 0.5)
    results = summarise(
        cases,
        {"base": said, "sft": said[:15]},
        contract=contract,
        split="test",
        options=AnalysisOptions(reference="base", n_resamples=100),
    )
    sft = results.models["sft"]
    assert (sft.n, sft.n_missing, sft.n_unparsed, sft.n_answered) == (20, 5, 5, 15)
    assert (results.comparisons[0].n, results.comparisons[0].n_unpaired) == (20, 0)
    assert any("5 of sft's 20 cases (25.0 %) have no verdict" in line for line in results.statements)


def test_one_group_gives_values_without_intervals():
    contract = McqContract()
    cases = cases_of(contract.labels, 6, per_group=6)
    results = summarise(
        cases,
        {"m": answers(cases, contract.labels, 0.5)},
        contract=contract,
        split="test",
        options=AnalysisOptions(n_resamples=100),
    )
    metric = results.models["m"].metrics["accuracy"]
    assert metric.value is not None
    assert metric.low is metric.high is None
    assert any("one group" in line for line in results.statements)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"judgements": {}}, "no model's judgements"),
        ({"options": AnalysisOptions(reference="nobody")}, "'nobody' is not among the models, expected one of m"),
        ({"baselines": Baselines({"m": []})}, "names a model and a baseline"),
        ({"cases": []}, "none of 0 cases"),
    ],
)
def test_refuses_what_it_cannot_summarise(keywords, message):
    contract = McqContract()
    cases = cases_of(contract.labels, 3)
    given = {"cases": cases, "judgements": {"m": answers(cases, contract.labels, 1.0)}, **keywords}
    with pytest.raises(DataError, match=message):
        summarise(given.pop("cases"), given.pop("judgements"), contract=contract, split="test", **given)
