from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.delta_m import delta_m, incomplete_tasks
from trainables.errors import ConfigError

DIRECTIONS = {"depth": False, "semseg": True}
positive = st.floats(0.01, 100)


def test_by_hand():
    # depth (lower is better): 10% better; semseg (higher is better): 25% worse.
    value = delta_m({"depth": 0.9, "semseg": 30.0}, {"depth": 1.0, "semseg": 40.0}, DIRECTIONS)
    assert value == pytest.approx((10 - 25) / 2)


@given(base=st.tuples(positive, positive), scale=st.tuples(positive, positive))
def test_depends_on_ratios_only(base, scale):
    baseline = {"depth": base[0], "semseg": base[1]}
    values = {"depth": base[0] * scale[0], "semseg": base[1] * scale[1]}
    assert delta_m(values, baseline, DIRECTIONS) == pytest.approx(50 * (scale[1] - scale[0]), abs=1e-6)


@given(values=st.tuples(positive, positive))
def test_the_baseline_is_zero(values):
    both = {"depth": values[0], "semseg": values[1]}
    assert delta_m(both, both, DIRECTIONS) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_missing_task_is_never_averaged_away(bad):
    good = {"depth": 1.0, "semseg": 40.0}
    assert math.isnan(delta_m({"depth": bad, "semseg": 40.0}, good, DIRECTIONS))
    assert math.isnan(delta_m(good, {"depth": 1.0, "semseg": bad}, DIRECTIONS))
    assert incomplete_tasks({"depth": bad, "semseg": 40.0}) == ("depth",)


def test_different_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"the baseline must name the same tasks, and differ in semseg$"):
        delta_m({"depth": 1.0, "semseg": 1.0}, {"depth": 1.0}, DIRECTIONS)
    with pytest.raises(ConfigError, match=r"the directions must name the same tasks, and differ in semseg$"):
        delta_m({"depth": 1.0}, {"depth": 1.0}, DIRECTIONS)


def test_a_zero_baseline_is_refused():
    with pytest.raises(ConfigError, match="the baseline of semseg is 0"):
        delta_m({"depth": 1.0, "semseg": 1.0}, {"depth": 1.0, "semseg": 0.0}, DIRECTIONS)


def test_no_task_is_refused():
    with pytest.raises(ConfigError, match="no task"):
        delta_m({}, {}, {})
