"""Rows read at equal passes and at equal seconds, by numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from figure_records import compute_study
from matplotlib.colors import to_hex
from synthetic_records import SyntheticStore, cell, plan, row

from analysis.figures.equal_compute import equal_compute_figure
from analysis.figures.shelf import Shelf
from analysis.records import Records
from analysis.render import FORMATS, render
from analysis.tables import make_table
from analysis.tables.at_cost import readings, validation_gains


@pytest.fixture
def records(store: SyntheticStore) -> Records:
    compute_study(store)
    return Records.load(store.home, "equal_compute")


def test_gains_and_costs_at_every_evaluation(records: Records) -> None:
    slow = validation_gains(records).query("row == 'slow' and seed == 1")
    assert slow["step"].tolist() == [5, 10]
    assert slow["delta_m"].tolist() == pytest.approx([0.0, 4.0])
    assert slow["trunk_passes"].tolist() == [20, 40]
    assert slow["seconds"].tolist() == [10, 20]


def test_the_table_reads_rows_where_they_had_spent_what_gd_spends(records: Records) -> None:
    table = make_table(records)
    found = {name: dict(zip(table.attrs["row_ids"], table[name], strict=True)) for name in table.columns}
    # slow has 20 passes at its first evaluation, and 5 s before it.
    assert found["val_delta_m"]["slow"] == pytest.approx(3.5)
    assert found["val_delta_m_sd"]["slow"] == pytest.approx(math.sqrt(0.5))
    assert found["val_at_gd_passes"]["slow"] == pytest.approx(-0.5)
    assert math.isnan(found["val_at_gd_seconds"]["slow"])
    assert "first evaluated after GD's seconds" in found["note"]["slow"]
    # GD and quick are at their ends at 20 passes, quick before 5 s.
    assert found["val_at_gd_passes"]["gd"] == found["val_at_gd_seconds"]["gd"] == pytest.approx(-1.5)
    assert found["val_at_gd_passes"]["quick"] == found["val_at_gd_seconds"]["quick"] == pytest.approx(1.5)
    assert found["note"]["quick"] == "ended before GD's seconds: final value there"
    assert found["note"]["gd"] == ""
    # A seed that diverged is not averaged away, several networks are no row of it.
    assert math.isnan(found["val_delta_m"]["lost"])
    assert math.isnan(found["val_delta_m"]["single"])
    assert "seconds: of training without evaluation, as measured on cpu of here" in table.attrs["footnotes"]


@pytest.mark.parametrize(("amount", "value"), [(15.0, -0.5), (17.5, 0.75), (20.0, 2.0), (25.0, 2.0), (5.0, math.nan)])
def test_between_evaluations_lines_are_straight(amount: float, value: float) -> None:
    gains = pd.DataFrame(
        {"row": ["a"] * 3, "seed": [0] * 3, "delta_m": [-3.0, -0.5, 2.0], "seconds": [10.0, 15.0, 20.0]}
    )
    reading = readings(gains, ["a"], "seconds", amount)["a"]
    assert reading.values == pytest.approx((value,), nan_ok=True)
    assert (reading.early, reading.late) == (int(amount == 25.0), int(amount == 5.0))


def test_evaluations_lie_between_reports(store: SyntheticStore) -> None:
    single = [cell("s", 0)]
    store.study(plan([row("single", single), row("gd", [cell("g", 0)])]))
    ends = {"val/depth/rmse": [(10, 2.0)], "val/semseg/miou": [(10, 40.0)]}
    store.trial("s", {}, metrics={**ends, "cost/seconds": [(10, 1.0)], "cost/trunk_passes": [(10, 1.0)]})
    halves = {name: [(5, points[0][1]), *points] for name, points in ends.items()}
    reports = {"cost/seconds": [(4, 4.0), (6, 8.0), (10, 20.0)], "cost/trunk_passes": [(4, 4.0), (6, 6.0), (10, 10.0)]}
    store.trial("g", {}, metrics={**halves, **reports})
    gains = validation_gains(Records.load(store.home, "toy")).query("row == 'gd'")
    assert gains["seconds"].tolist() == [6.0, 20.0]
    assert gains["trunk_passes"].tolist() == [5.0, 10.0]
    assert gains["delta_m"].tolist() == [0.0, 0.0]


def test_without_gd_or_curves_the_table_says_so(store: SyntheticStore) -> None:
    store.study(plan([row("single", [cell("s", 0)]), row("a", [cell("a-0", 0)])], study="equal_compute"))
    store.trial("a-0", {"depth/rmse": 2.0})
    table = make_table(Records.load(store.home, "equal_compute"))
    assert table["val_delta_m"].isna().all()
    assert "no curve on the validation split to read at equal passes or seconds" in table.attrs["footnotes"]
    assert "val Delta_m" not in render(table)


@pytest.mark.parametrize("form", FORMATS)
def test_it_renders_in_every_format(records: Records, form: str) -> None:
    text = render(make_table(records), form)
    assert ("val_at_gd_passes" if form in ("csv", "json") else "val at GD") in text
    assert "-1.5" in text or "-1.49999" in text


def test_the_figure_draws_each_row_at_its_own_cost(store: SyntheticStore) -> None:
    compute_study(store)
    figure = equal_compute_figure(Shelf("equal_compute", store.home, None, ("equal_compute",)))
    passes, seconds = figure.axes
    assert [line.get_xdata().tolist() for line in passes.lines[:2]] == [[10, 20], [20, 40]]
    slow = seconds.lines[1]
    assert slow.get_xdata().tolist() == [10, 20]
    assert slow.get_ydata().tolist() == pytest.approx([-0.5, 3.5])
    ends = [line for axes in (passes, seconds) for line in axes.lines if to_hex(line.get_color()) == "#57606a"]
    assert [line.get_xdata()[0] for line in ends] == [20, 5]
