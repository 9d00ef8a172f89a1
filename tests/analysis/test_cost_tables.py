from __future__ import annotations

import math

import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.records import Records
from analysis.render import render
from analysis.report import report_html
from analysis.tables import e1, make_table, table1
from study import schema

FULL = {"depth/rmse": 2.0, "semseg/miou": 42.0}


def record(store: SyntheticStore, key: str, **costs: float) -> None:
    numbers = {"iterations": 10.0, "seconds": 1.0, **costs}
    store.trial(key, FULL, metrics={schema.cost(name): [(10, value)] for name, value in numbers.items()})


@pytest.fixture
def measured(store: SyntheticStore) -> Records:
    published = [{"table": "2", "row": "GD"}], [{"table": "2", "row": "PCGrad"}]
    rows = [
        baseline_row(),
        {**row("gd", [cell("gd-0", 0)]), "published": published[0]},
        {**row("pcgrad", [cell("pc-0", 0), cell("pc-1", 1)]), "published": published[1]},
        row("absent", [cell("none", 0)]),
    ]
    store.study(plan(rows, study="e1"))
    store.baseline()
    record(store, "gd-0", forward_passes=10, backward_passes=10, optimizer_steps=10, peak_memory_bytes=100.0)
    phases = {"seconds_forward": 0.5, "seconds_gradient_manipulation": 1.0}
    for key, seconds in (("pc-0", 3.0), ("pc-1", 5.0)):
        work = {"forward_passes": 10.0, "backward_passes": 20.0, "optimizer_steps": 10.0, "peak_memory_bytes": 150.0}
        record(store, key, **{**work, "seconds": seconds, **phases})
    return Records.load(store.home, "e1")


def test_e1_gives_milliseconds_of_an_iteration_and_ratios_to_gd(measured: Records) -> None:
    table = e1(measured).set_index("row")
    assert list(table.index) == ["gd", "pcgrad", "absent"]
    assert table.loc["pcgrad", "forward"] == pytest.approx(50.0)
    assert table.loc["pcgrad", "total"] == pytest.approx(400.0)
    assert table.loc["pcgrad", "ratio"] == pytest.approx(4.0)
    assert table.loc["pcgrad", "n"] == 2
    assert table.loc["pcgrad", "manipulation_share"] == pytest.approx(25.0)
    assert table.loc["gd", "published_ratio"] == 1.0
    assert table.loc["pcgrad", "published_ratio"] == pytest.approx(14.2, abs=0.1)
    assert math.isnan(table.loc["absent", "ratio"])
    assert table.loc["absent", "n"] == 0


def test_table1_counts_passes_and_compares_memory(measured: Records) -> None:
    table = table1(measured).set_index("row")
    assert table.loc["pcgrad", ["forward", "backward", "steps"]].tolist() == [1.0, 2.0, 1.0]
    assert table.loc["pcgrad", "memory_ratio"] == pytest.approx(1.5)


def test_single_task_trials_are_no_line(measured: Records) -> None:
    assert "Single task" not in list(table1(measured)["row"])


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "json"])
def test_cost_tables_render_in_every_format(measured: Records, form: str) -> None:
    assert "pcgrad" in render(make_table(measured), form)


def test_the_report_of_a_cost_table_shows_results(measured: Records) -> None:
    assert "<table" in report_html(measured)


def test_memory_of_a_cpu_is_a_dash(store: SyntheticStore) -> None:
    store.study(plan([row("gd", [cell("gd-0", 0)])], study="table1", baseline=None))
    record(store, "gd-0", forward_passes=10, backward_passes=10, optimizer_steps=10)
    text = render(make_table(Records.load(store.home, "table1")), "text")
    assert text.splitlines()[4].split() == ["gd", "1", "1.00", "1.00", "1.00", "-"]
