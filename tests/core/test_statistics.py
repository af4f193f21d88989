"""An estimate with its interval."""

import math

from mmmono.core.statistics import Interval


def test_an_interval_makes_cells_and_text() -> None:
    interval = Interval(0.5, 0.25, 0.75, method="percentile bootstrap")
    assert interval.bounded
    assert str(interval) == "0.500 [0.250, 0.750]"
    assert interval.columns("drop") == {"drop": 0.5, "drop_low": 0.25, "drop_high": 0.75}


def test_an_estimate_without_bounds_says_so() -> None:
    interval = Interval(0.5)
    assert not interval.bounded
    assert str(interval) == "0.500"
    assert math.isnan(interval.columns("drop")["drop_low"])
