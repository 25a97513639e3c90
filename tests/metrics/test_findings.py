"""Sentences of the audit that claim a direction."""

from types import SimpleNamespace

import pytest

from medjudge.metrics.findings import calibration_sentence


@pytest.mark.parametrize(
    ("mean_confidence", "p", "word"),
    [
        (0.75, 0.002, "is miscalibrated, neither way overall"),  # 2 points below .77, +-4.8 at n = 300
        (0.90, 0.002, "is overconfident"),
        (0.60, 0.002, "is underconfident"),
        (0.90, 0.40, "are not shown to be off"),
    ],
)
def test_over_or_underconfident_only_where_the_mean_is_off_by_more_than_chance(mean_confidence, p, word):
    found = SimpleNamespace(
        mean_confidence=mean_confidence, accuracy=0.77, n=300, ece=0.1, ece_if_calibrated=0.058, calibrated_p=p
    )
    assert word in calibration_sentence("judge", found, 0.05)
