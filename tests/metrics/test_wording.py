"""Numbers in words."""

from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.wording import counted, listed, p_value, percent, signed, with_ends


def test_words():
    assert [p_value(p) for p in (0.00004, 0.0312, 0.0994, 0.62, 0.9999)] == [
        "p < .001",
        "p = .031",
        "p = .099",
        "p = .62",
        "p = 1",
    ]
    assert percent(0.2604) == "26.0 %"
    assert [signed(v) for v in (3.24, -0.04, 0.0, -2.0)] == ["+3.2", "+0.0", "+0.0", "-2.0"]
    assert percent(None) == "undefined"
    assert (counted(1, "case"), counted(1257, "case")) == ("1 case", "1,257 cases")
    assert (listed(["a"]), listed(["a", "b", "c"])) == ("a", "a, b and c")
    share = MetricResult(value=0.61, low=0.523, high=0.691, n=9, method="m")
    assert with_ends(share) == "61.0 % (52.3 to 69.1)"
    assert with_ends(share.model_copy(update={"low": None})) == "61.0 %"
