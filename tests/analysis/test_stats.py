from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import summarize
from trainables.errors import ConfigError


def test_three_values_by_hand():
    summary = summarize([1.0, 2.0, 3.0])
    # Student's t at .975 with 2 degrees of freedom is 4.302653 in every printed table.
    assert (summary.n, summary.mean, summary.sd) == (3, 2.0, 1.0)
    assert summary.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert summary.low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8))
def test_agrees_with_the_standard_library(values):
    summary = summarize(values)
    assert summary.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert summary.sd == pytest.approx(statistics.stdev(values), abs=1e-9)
    assert summary.low <= summary.mean <= summary.high


def test_one_value_has_no_spread():
    summary = summarize([5.0])
    assert (summary.n, summary.mean) == (1, 5.0)
    assert math.isnan(summary.sd)
    assert math.isnan(summary.half_width)


def test_no_value_is_nan():
    summary = summarize([])
    assert summary.n == 0
    assert math.isnan(summary.mean)


def test_nan_is_not_skipped():
    assert math.isnan(summarize([1.0, math.nan]).mean)
    assert math.isnan(summarize([1.0, math.nan]).sd)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_is_a_fraction(confidence):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        summarize([1.0, 2.0], confidence)
