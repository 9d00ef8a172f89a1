from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import SyntheticStore, cell, costs, plan, row

from analysis.claims import claims
from analysis.listing import listing
from analysis.records import Records
from analysis.report import RunLinks, report_html
from analysis.report.cost import cost_section, hours_name, total_hours
from analysis.report.curves import thinned
from analysis.report.plot import Axis, Dot, Line, axis_for, line_chart, nice_step, pareto
from analysis.report.verdicts import claims_section
from analysis.tables import rows_table
from analysis.tables.results import row_results
from study import schema
from trainables.errors import StoreError

DOTS = st.lists(st.tuples(st.integers(1, 9), st.integers(-9, 9)), min_size=1, max_size=12)


@given(DOTS)
def test_pareto_line_is_what_nothing_dominates(values):
    dots = [Dot(str(n), float(x), float(y), math.nan) for n, (x, y) in enumerate(values)]
    front = {(dot.x, dot.y) for dot in pareto(dots)}
    for dot in dots:
        dominated = any(o.x <= dot.x and o.y >= dot.y and (o.x, o.y) != (dot.x, dot.y) for o in dots)
        assert ((dot.x, dot.y) in front) != dominated


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.booleans())
def test_an_axis_reaches_every_value_in_order(values, log):
    axis = axis_for(np.array(values), 10.0, 110.0, log=log)
    places = [axis(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(10.0 <= place <= 110.0 for place in places)
    room = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - room <= tick <= axis.high + room for tick in axis.ticks())


def test_ticks_of_a_logarithmic_axis():
    axis = Axis(0.1, 100.0, 0.0, 90.0, log=True)
    assert axis.ticks(4) == pytest.approx([0.1, 1, 10, 100])
    assert axis(1.0) == pytest.approx(30.0)


@pytest.mark.parametrize(("raw", "step"), [(1.0, 1.0), (1.1, 2.0), (0.03, 0.05), (7, 10)])
def test_round_steps(raw, step):
    assert nice_step(raw) == pytest.approx(step)


@given(st.integers(1, 500), st.integers(2, 60))
def test_thinned_keeps_both_ends(size, most):
    kept = thinned(size, most)
    assert kept[0] == 0
    assert kept[-1] == size - 1
    assert len(kept) <= most


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        (["cpu x86_64", ""], "core-hours"),
        (["cuda A100"], "GPU-hours"),
        (["cpu", "cuda"], "device-hours"),
        ([], "device-hours"),
    ],
)
def test_hours_are_named_after_what_ran(devices, name):
    assert hours_name(pd.DataFrame({"device": devices}, dtype="str")) == name


def test_hours_are_of_the_devices_a_trial_held(store: SyntheticStore):
    rows = [row("shared", [cell("a-0", 0), cell("a-1", 1)]), row("two", [cell("b-0", 0)]), row("old", [cell("c-0", 0)])]
    store.study(plan([*rows, row("again", [cell("b-0", 0)])], baseline=None))
    for key, held in (("a-0", "0.25"), ("a-1", "0.25"), ("b-0", "2"), ("c-0", "")):
        tags = {schema.DEVICE: "cuda NVIDIA H200", **({schema.HELD: held} if held else {})}
        store.trial(key, {"depth/rmse": 1.0, "semseg/miou": 40.0}, tags=tags, metrics=costs(100, 7200.0))
    records = Records.load(store.home, "toy")
    assert {name: found.costs["device_hours"] for name, found in row_results(records).items()} == {
        "shared": 0.5,
        "two": 4.0,
        "old": 2.0,  # A record without the tag: one device.
        "again": 4.0,
    }
    # 2 x 0.5 + 4 + 2: the trial that two rows share counts once.
    assert total_hours(records) == "All 4 complete trials together: 7 GPU-hours."
    page = cost_section(records, rows_table(records), RunLinks())
    assert re.search(r"<th[^>]*>.*GPU-hours", page)
    assert "GPU-hours are of all the devices that a trial held" in page


def test_a_number_of_devices_that_is_none_is_named(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    store.trial("a-0", {}, tags={schema.HELD: "many"}, metrics=costs(100, 7200.0))
    with pytest.raises(StoreError, match=r"its tag held is no number \('many'\)"):
        Records.load(store.home, "toy")


def test_claims_of_this_study_alone(mixed_home: Path):
    records = Records.load(mixed_home, "toy")
    columns = ("claim", "level", "study", "text", "verdict", "n", "difference", "low", "high", "p_claim", "more_seeds")
    nothing = dict.fromkeys(columns[5:], math.nan)
    numbers = {"n": 3.0, "difference": 2.5, "low": 1.0, "high": 4.0, "p_claim": 0.01, "more_seeds": math.nan}
    lines = []
    for claim, study in (("mine", "other, toy"), ("theirs", "other")):
        head = {"claim": claim, "level": "claim", "text": f"{claim}: <{claim}> holds", "verdict": "contradicted at cpu"}
        line = {"claim": claim, "level": "comparison", "study": study, "text": "> a - b", "verdict": "supported at cpu"}
        lines += [{**head, **nothing, "note": ""}, {**line, **numbers, "note": "why & how"}]
    frame = listing(lines, [*columns, "note"], name="claims", title="", shown={}, footnotes=["read with care"])
    page = claims_section(records, frame)
    assert "&lt;mine&gt; holds" in page
    assert "theirs" not in page
    assert '<span class="verdict contradicted"><span aria-hidden="true">✗</span> contradicted at cpu</span>' in page
    assert "+1 to +4" in page
    assert "why &amp; how" in page
    assert "read with care." in page
    assert claims_section(records, frame[frame["claim"] == "theirs"]) == ""


def test_a_study_the_paper_says_nothing_of_has_no_claims(mixed_home: Path):
    records = Records.load(mixed_home, "toy")
    page = report_html(records, verdicts=claims(mixed_home, "cpu"))
    assert 'id="claims"' not in page


def test_a_curve_of_one_point_is_seen():
    one = np.array([4.0])
    shown = line_chart("loss", [Line("gd", 0, one, np.array([0.5]), np.array([np.nan]))])
    (path,) = re.findall(r'<path class="line" d="([^"]+)"', shown)
    assert re.fullmatch(r"M[\d.]+ [\d.]+h-8", path)


@pytest.mark.slow
def test_a_page_of_many_rows_stays_under_5_mb(tmp_path, monkeypatch):
    tasks = [{"name": f"task{n}", "metric": "l1", "higher_is_better": False, "short": f"T{n}"} for n in range(11)]
    names = [task["name"] for task in tasks]
    single = row("single", [cell(f"single-{name}", 0, [name]) for name in names], "Single task")
    rows = [single, *(row(f"r{n}", [cell(f"r{n}-0", 0, names)]) for n in range(60))]
    store = SyntheticStore(tmp_path)
    store.study(plan(rows, tasks=tasks, seeds=[0]))
    values = {f"{name}/l1": 0.5 for name in names}
    for name in names:
        store.trial(f"single-{name}", {f"{name}/l1": 0.6})
    for n in range(60):
        store.trial(f"r{n}-0", values, metrics=costs(10 + n, 2.0))
    steps = np.arange(1, 401)

    def curves(self, name):
        """As 400 points of every row would be read."""
        mine = self.trials[self.trials["row"] != "single"]
        noise = np.random.default_rng(len(name)).uniform(size=(len(mine), len(steps)))
        parts = [
            mine.iloc[[n]].merge(pd.DataFrame({"step": steps, "value": noise[n]}), "cross") for n in range(len(mine))
        ]
        return pd.concat(parts)

    monkeypatch.setattr(Records, "curves_of", lambda self, names: {name: curves(self, name) for name in names})
    recorded = [f"train/loss/{name}" for name in names] + [f"val/{name}/l1" for name in names]
    monkeypatch.setattr(Records, "metric_names", recorded)
    page = report_html(Records.load(tmp_path, "toy"))
    assert page.count('class="line"') > 22 * 60
    assert 1_000_000 < len(page.encode()) < 5_000_000
