"""Order, length and Bradley-Terry on judges whose leanings are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medjudge.metrics.preferences import EXPERTS, RIDGE, Preferences, coefficients, preferences
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.reporting.preference_tables import preference_grids
from medjudge.tasks.pairwise import OTHER_SIDE, swapped

STRENGTH = {"x": 1.0, "y": 0.0, "z": -1.0}


def cases_of(n: int = 600, seed: int = 0) -> list[Case]:
    """Pairs of three systems whose answers win by Bradley-Terry; lengths have nothing to do with it."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        a, b = rng.choice(list(STRENGTH), 2, replace=False)
        first_wins = rng.random() < 1 / (1 + math.exp(STRENGTH[b] - STRENGTH[a]))
        inputs = {
            "question": f"q{i}",
            "answer_a": " ".join(["w"] * int(rng.integers(1, 30))),
            "answer_b": " ".join(["w"] * int(rng.integers(1, 30))),
        }
        slices = {"system_a": str(a), "system_b": str(b)}
        case = Case(str(i), inputs, gold="A" if first_wins else "B", group=f"g{i // 2}", slices=slices)
        cases += [case, swapped(case)]
    return cases


CASES = cases_of()


def judged(labels: list[str]) -> list[Judgement]:
    return [Verdict(case.case_id, label) for case, label in zip(CASES, labels, strict=True)]


def longer(case: Case) -> str:
    a, b = (len(case.inputs[name].split()) for name in ("answer_a", "answer_b"))
    return "A" if a > b else "B" if b > a else "tie"


@pytest.fixture(scope="module")
def found() -> Preferences:
    gold = [str(case.gold) for case in CASES]
    rng = np.random.default_rng(1)
    judges: dict[str, list[Judgement]] = {
        "right": judged(gold),
        "first": judged(["A"] * len(CASES)),
        "longer": judged([longer(case) for case in CASES]),
        "leaning": judged(["A" if rng.random() < 0.3 else label for label in gold]),
        "silent": [Unparsed(case.case_id, "", "nothing") for case in CASES],
    }
    return preferences(CASES, judges, n_resamples=100)


def value(found: Preferences, judge: str, name: str) -> float | None:
    return found.judges[judge].metrics[name].value


def test_order(found: Preferences) -> None:
    assert [value(found, name, "consistency") for name in ("right", "first", "longer", "silent")] == [1, 0, 1, 0]
    assert [value(found, name, "both_right") for name in ("right", "first", "silent")] == [1, 0, 0]
    assert [value(found, name, "first_preferred") for name in ("right", "first", "longer")] == [0, 1, 0]
    assert value(found, "silent", "first_preferred") is None
    bias = found.judges["leaning"].metrics["first_preferred"]
    assert bias.value is not None
    # Three tenths of all verdicts are A whatever is right; the half of them that was A already changes nothing.
    assert bias.value == pytest.approx(0.3, abs=0.05)
    assert bias.low is not None
    assert bias.high is not None
    assert 0 < bias.low < bias.value < bias.high
    assert found.judges["right"].n_pairs == len(CASES) // 2


def test_length(found: Preferences) -> None:
    assert value(found, "longer", "longer_preferred") == 1
    assert value(found, EXPERTS, "longer_preferred") == pytest.approx(0.5, abs=0.06)
    effect = {name: value(found, name, "length_effect") or 0.0 for name in ("longer", "first", "leaning")}
    assert effect["longer"] > 3
    assert abs(effect["first"]) < 0.3
    assert abs(effect["leaning"]) < 0.3
    assert (value(found, "leaning", "place_effect") or 0) > 0.3


def test_bradley_terry_finds_the_strengths_that_made_the_wins(found: Preferences) -> None:
    for judge in ("right", EXPERTS):
        systems = found.judges[judge].systems
        for name, strength in STRENGTH.items():
            for one in (systems[name].strength, systems[name].strength_length):
                assert one.value == pytest.approx(strength, abs=0.25)
                assert one.low is not None
                assert one.high is not None
                assert one.low < strength < one.high
        assert sum(one.strength.value or 0 for one in systems.values()) == pytest.approx(0, abs=1e-6)
        wins = [
            (case.gold == "A") == (case.slices["system_a"] == "x")
            for case in CASES
            if "x" in (case.slices["system_a"], case.slices["system_b"])
        ]
        assert systems["x"].win_rate.value == pytest.approx(np.mean(wins))
    assert all(abs(one.strength.value or 0) < 1e-6 for one in found.judges["first"].systems.values())


def test_control_for_length_takes_it_out_of_the_strength() -> None:
    """A judge that prefers the longer answer alone: a system that writes more wins, but not at equal length."""
    rng = np.random.default_rng(3)
    cases = []
    for i in range(300):
        words = [int(rng.integers(4, 30)), int(rng.integers(1, 26))]
        inputs = {"question": f"q{i}", "answer_a": "w " * words[0], "answer_b": "w " * words[1]}
        case = Case(str(i), inputs, group=str(i), slices={"system_a": "long", "system_b": "short"})
        cases += [case, swapped(case)]
    rates = [1 / (1 + math.exp(-(len(c.inputs["answer_a"]) - len(c.inputs["answer_b"])) / 12)) for c in cases]
    labels = ["A" if rng.random() < rate else "B" for rate in rates]
    own = preferences(cases, {"j": [Verdict(c.case_id, x) for c, x in zip(cases, labels, strict=True)]}, n_resamples=50)
    assert EXPERTS not in own.judges  # nobody rated these
    long = own.judges["j"].systems["long"]
    assert (long.strength.low or 0) > 0
    assert (long.strength_length.low or 1) < 0 < (long.strength_length.high or -1)


def test_a_system_that_never_loses_has_a_finite_strength() -> None:
    cases = [c for c in CASES if {"x", "y"} == {c.slices["system_a"], c.slices["system_b"]}]
    labels = ["A" if c.slices["system_a"] == "x" else "B" for c in cases]
    own = preferences(cases, {"j": [Verdict(c.case_id, x) for c, x in zip(cases, labels, strict=True)]}, n_resamples=20)
    assert 1 < (own.judges["j"].systems["x"].strength.value or 0) < 20


def test_sentences_and_tables(found: Preferences) -> None:
    first = next(line for line in found.statements if line.startswith("first "))
    assert "0.0 %" in first
    assert "Its verdicts for the first place less those for the second: +100.0 %." in first
    assert any(line.startswith("right gives one verdict in both orders on 100.0 %") for line in found.statements)
    grids = preference_grids(found)
    assert [grid.caption for grid in grids][:2] == ["Order and length", "Systems by right"]
    assert [head for head, _ in grids[1].rows] == ["x", "y", "z"]
    assert preference_grids(None) == []


def test_the_regression_is_that_of_a_library() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    design, weights = rng.normal(size=(200, 3)), rng.integers(0, 4, size=(5, 200)).astype(np.float64)
    wins = rng.choice([0.0, 0.5, 1.0], 200)
    fitted = coefficients(design, wins, weights)
    for own, found in zip(weights, fitted, strict=True):
        model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=5000)
        doubled = np.concatenate([own * wins, own * (1 - wins)])
        model.fit(np.concatenate([design, design]), np.repeat([1, 0], 200), sample_weight=doubled)
        assert found == pytest.approx(model.coef_[0], abs=1e-4)
    apart = coefficients(np.ones((50, 1)), np.ones(50), np.ones((1, 50)))[0, 0]
    assert 50 * (1 - 1 / (1 + math.exp(-apart))) == pytest.approx(RIDGE * apart)  # where the slope is nought


def test_rows_in_one_order_alone_say_nothing_of_order() -> None:
    given = CASES[::2]
    own = preferences(given, {"j": [Verdict(c.case_id, OTHER_SIDE[str(c.gold)]) for c in given]}, n_resamples=20)
    assert own.judges["j"].n_pairs == 0
    assert own.judges["j"].metrics["consistency"].value is None
    assert own.statements == ()
