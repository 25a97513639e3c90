"""Sentences of the audit that claim a direction."""

from types import SimpleNamespace

import pytest

from medjudge.metrics.audit_sentences import calibration_sentence
from medjudge.metrics.claims import Claim


def claim(what, claimed):
    p = 0.002 if claimed else 0.4
    return Claim(
        kind="calibration", about=("judge",), what=what, p=p, n_groups=99, method="", adjusted_p=p, claimed=claimed
    )


@pytest.mark.parametrize(
    ("mean_confidence", "ece", "direction", "word"),
    [
        (0.75, True, False, "is miscalibrated, not shown to be so in one direction"),
        (0.90, True, True, "is overconfident"),
        (0.90, False, True, "is overconfident"),
        (0.60, True, True, "is underconfident"),
        (0.90, False, False, "is not shown to be miscalibrated"),
    ],
)
def test_over_or_underconfident_only_where_the_test_of_the_mean_is_claimed(mean_confidence, ece, direction, word):
    found = SimpleNamespace(
        mean_confidence=mean_confidence,
        accuracy=0.77,
        n=300,
        n_without=0,
        varies=True,
        ece=0.1,
        ece_if_calibrated=0.058,
    )
    assert word in calibration_sentence("judge", found, claim("ece", ece), claim("direction", direction))
