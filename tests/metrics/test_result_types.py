"""The types of `results.json`: what is written, what is read of earlier versions, and what is refused."""

import pytest
from pydantic import ValidationError

from medjudge.errors import RunError
from medjudge.metrics import metric_result
from medjudge.metrics.comparison import Difference
from medjudge.metrics.group_tests import GroupTest
from medjudge.metrics.intervals import Estimate
from medjudge.metrics.metric_result import MetricResult, measured
from medjudge.metrics.result_types import (
    CalibrationResult,
    DifferenceResult,
    GeneratorResult,
    JudgeAudit,
    PowerResult,
    Results,
    SelectiveResult,
)
from medjudge.metrics.selective import SelectiveRule

NAN = float("nan")


def test_a_measure_becomes_its_stored_form_with_none_for_nan():
    assert measured(Estimate(0.5, NAN, NAN, 4, "none")) == MetricResult(
        value=0.5, low=None, high=None, n=4, method="none"
    )
    assert metric_result.tested(GroupTest(NAN, 1, "t")).p is None
    assert DifferenceResult.model_validate(Difference(NAN, -1.0, 2.0)).model_dump() == {
        "value": None,
        "low": -1,
        "high": 2,
    }
    rule = SelectiveRule(None, 0.1, 0.1, "a promise", "learn-then-test", 9, 0.0, NAN)
    stored = SelectiveResult.model_validate(rule)
    assert (stored.threshold, stored.error, stored.promise, stored.abstention) == (None, None, "a promise", {})
    assert "delta" not in SelectiveResult.model_fields  # a file that has it is not ours


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="extra_forbidden"):
        MetricResult.model_validate({"value": 1.0, "low": 1.0, "high": 1.0, "n": 1, "method": "m", "hihg": 1.0})


def test_fields_that_earlier_versions_lacked_or_had_more_of_are_read():
    power = {"n": 9, "design_effect": 1.0, "minimum_detectable": None, "power": 0.8, "alpha": 0.05}
    assert PowerResult.model_validate({**power, "effect": 0.1, "rows_needed": 40}).rows_needed == 40
    row = {"generator": "x", "n": 9, "n_groups": 3, "n_unparsed": 0, "prevalence": None, "positive_rate": None}
    row |= {"always_positive_f1": None, "statistics": {}, "minimum_detectable": None}
    audit = JudgeAudit.model_validate({"statistics": {}, "power": power, "generators": [row]})
    assert audit.generators == (GeneratorResult.model_validate(row),)
    assert (audit.generators[0].unanswered, audit.generators[0].answered_only) == ({}, None)


def test_calibration_is_written_in_the_order_of_its_parts():
    names = list(CalibrationResult.model_fields)
    assert names[0] == "n"
    assert names.index("bins") < names.index("coverage") < names.index("selective") < names.index("direction_test")


@pytest.mark.parametrize(
    ("tree", "message"), [({"version": 2}, "version 2"), ([], "version None"), ({"version": 1}, "damaged at 'task'")]
)
def test_refuses_foreign_results(tree, message):
    with pytest.raises(RunError, match=message):
        Results.from_json(tree)
