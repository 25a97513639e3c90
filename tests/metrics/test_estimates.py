"""One number of one judge has one interval, wherever it is shown."""

import numpy as np
import pytest

from medjudge.errors import DataError
from medjudge.metrics.agreement import available_statistics
from medjudge.metrics.classification import classification_metrics, code_outcomes, take
from medjudge.metrics.estimates import judge_estimates
from medjudge.records import Case, Unparsed, Verdict


@pytest.fixture
def outcomes():
    rng = np.random.default_rng(2)
    cases = [Case(str(i), {}, gold=str(i % 2), group=f"g{i // 3}") for i in range(90)]
    said = [
        Unparsed(case.case_id, "", "none") if i % 10 == 0 else Verdict(case.case_id, str(int(rng.random() < 0.5)))
        for i, case in enumerate(cases)
    ]
    return code_outcomes(cases, said, labels=("0", "1"), positive="1", answer_is_json=True)


def test_a_name_in_both_tables_is_one_number_with_one_interval(outcomes):
    found = judge_estimates(outcomes, n_resamples=100)
    assert list(found.metrics) == list(classification_metrics(outcomes))
    assert list(found.statistics) == available_statistics(outcomes)
    both = found.metrics.keys() & found.statistics.keys()
    assert {"accuracy", "macro_f1", "f1_positive"} <= both
    assert all(found.metrics[name] is found.statistics[name] for name in both)
    assert found.metrics.keys() - both == {"valid_json_rate", "schema_pass_rate"}


def test_values_are_those_of_the_labels_and_ends_lie_around_them(outcomes):
    found = judge_estimates(outcomes, n_resamples=100)
    for name, value in classification_metrics(outcomes).items():
        metric = found.metrics[name]
        assert metric.value == pytest.approx(value)
        assert metric.low <= metric.value <= metric.high
    assert (found.metrics["accuracy"].n, found.metrics["accuracy_on_schema"].n) == (90, 81)


def test_draws_come_from_the_seed_alone(outcomes):
    one, same, other = (judge_estimates(outcomes, n_resamples=50, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.metrics["schema_pass_rate"] != other.metrics["schema_pass_rate"]


def test_no_rows_are_refused(outcomes):
    with pytest.raises(DataError, match="nothing to measure"):
        judge_estimates(take(outcomes, []))
