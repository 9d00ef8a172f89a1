"""Tables of studies that a search made, and of those that vary one knob at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import pytest
from figure_records import sensitivity_study
from scipy import stats as scipy_stats
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

from analysis.claims.evidence import Evidence
from analysis.figures.sensitivity import sensitivity_figure
from analysis.figures.shelf import Shelf
from analysis.plan import Plan
from analysis.records import Records
from analysis.render import FORMATS, render
from analysis.tables import make_table
from analysis.tables.sensitivity import knob_ranges, knobs_of
from analysis.tables.tuned import is_of_a_search
from study import schema

SEEDS = (0, 1, 2)


def row_of(store: SyntheticStore, row_id: str, label: str, gains: Sequence[float | None]) -> dict[str, object]:
    """A row whose seeds have these Delta_m against 2.1 and 42, in percent; ``None`` diverged."""
    for seed, gain in enumerate(gains):
        if gain is None:
            store.trial(f"{row_id}-{seed}", {}, status="diverged", mlflow_status="FAILED")
        else:
            test = {"depth/rmse": 2.1 * (1 - gain / 100), "semseg/miou": 42 * (1 + gain / 100)}
            store.trial(f"{row_id}-{seed}", test)
    return row(row_id, [cell(f"{row_id}-{seed}", seed) for seed in range(len(gains))], label)


def searched(
    store: SyntheticStore, contender: str, number: int, status: str, passes: float = 10.0, *, profile: str = "cpu"
) -> None:
    tags = {
        schema.CONTENDER: contender,
        schema.OPTUNA_STUDY: f"toy-{contender}",
        schema.OPTUNA_NUMBER: str(number),
        schema.PROFILE: profile,
    }
    points = {"val/depth/rmse": [(10, 0.1)], "val/semseg/miou": [(10, 99.0)], **costs(passes, passes / 10)}
    ended = {"diverged": "FAILED", "failed": "FAILED", "interrupted": "KILLED"}.get(status, "FINISHED")
    key, start = f"search-{contender}-{number}", 1000 + int(passes)
    store.trial(key, {}, status=status, mlflow_status=ended, tags=tags, metrics=points, start=start)


@pytest.fixture
def tuned_study(store: SyntheticStore) -> Records:
    rows = [
        row_of(store, "gd_default", "GD, default", (1.0, 2.0, 3.0)),
        row_of(store, "gd_tuned", "GD, tuned", (3.0, 5.0, 7.0)),
        row_of(store, "famo_default", "FAMO, default", (1.0, 1.0, 1.0)),
        row_of(store, "famo_tuned", "FAMO, tuned", (2.0, None, 2.0)),
        row_of(store, "uw_default", "UW, default", (0.5, 0.5, 0.5)),
    ]
    same = {**row("pcgrad_tuned", [cell("gd_default-0", 0)], "PCGrad, tuned")}
    rows += [row("pcgrad_default", [cell("gd_default-0", 0)], "PCGrad, default"), same]
    store.study(plan([baseline_row(), *rows], seeds=list(SEEDS)))
    store.baseline()
    for number, status in enumerate(("validated", "pruned", "pruned", "diverged", "failed")):
        searched(store, "gd", number, status, 10.0 * (number + 1))
    searched(store, "famo", 0, "interrupted", 4.0)
    searched(store, "famo", 0, "validated", 9.0)
    searched(store, "famo", 1, "validated", profile="smoke")
    return Records.load(store.home, "toy")


def test_default_beside_tuned_with_a_paired_interval(tuned_study: Records) -> None:
    table = make_table(tuned_study).set_index("contender")
    assert list(table.index) == ["gd", "famo", "uw", "pcgrad"]
    gd = table.loc["gd"]
    assert gd[["default", "default_sd", "tuned", "tuned_sd", "difference", "n"]].tolist() == pytest.approx(
        [2.0, 1.0, 5.0, 2.0, 3.0, 3]
    )
    half = scipy_stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3)  # Differences 2, 3, 4.
    assert (gd["low"], gd["high"]) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert math.isnan(table.loc["famo", "tuned"])
    assert math.isnan(table.loc["famo", "difference"])
    assert "tuned: diverged (seed 1)" in table.loc["famo", "note"]
    assert table.loc["famo", "n"] == 2
    assert math.isnan(table.loc["uw", "tuned"])
    assert table.loc["uw", "note"] == "tuned: no winner is recorded"
    assert table.loc["pcgrad", "difference"] == 0
    assert "the defaults won" in table.loc["pcgrad", "note"]


def test_what_the_search_took(tuned_study: Records) -> None:
    table = make_table(tuned_study).set_index("contender")
    names = ["trials", "whole", "stopped", "diverged", "failed", "trunk_passes", "seconds"]
    assert table.loc["gd", names].tolist() == [5, 1, 2, 1, 1, 150.0, 15.0]
    # An attempt that went on is one trial; a search at another profile does not count.
    assert table.loc["famo", names].tolist() == [1, 1, 0, 0, 0, 9.0, 0.9]
    assert table.loc["uw", "trials"] == 0
    assert math.isnan(table.loc["uw", "seconds"])


def test_trials_of_a_search_are_no_results(tuned_study: Records, store: SyntheticStore) -> None:
    assert len(tuned_study.trials) == 2 * 2 + 5 * 3 + 2
    assert not set(tuned_study.trials["status"]) & {"validated", "pruned"}
    assert tuned_study.metrics["value"].max() < 99
    gains = Evidence.load(store.home).gains("toy")
    assert gains.delta_m("gd_tuned") == pytest.approx({0: 3.0, 1: 5.0, 2: 7.0})


@pytest.mark.parametrize("form", FORMATS)
def test_the_tuned_table_renders(tuned_study: Records, form: str) -> None:
    text = render(make_table(tuned_study), form)
    assert "FAMO" in text
    assert "no winner is recorded" in text.replace("\n", " ") or form == "text"


@pytest.mark.parametrize(
    ("rows", "made"),
    [
        (["gd_default"], True),
        (["gd_default", "gd_tuned"], True),
        (["gd_tuned"], False),
        (["gd_default", "other"], False),
        ([], False),
    ],
)
def test_a_study_of_a_search_is_told_by_its_rows(rows: Sequence[str], made: bool) -> None:
    given = plan([baseline_row(), *(row(row_id, [cell(row_id, 0)]) for row_id in rows)])
    assert is_of_a_search(Plan.model_validate(given)) is made


@pytest.fixture
def moved(store: SyntheticStore) -> Records:
    sensitivity_study(store)
    return Records.load(store.home, "sensitivity_toy")


def test_knobs_are_told_apart(moved: Records) -> None:
    found = {(knob.default.id, knob.name): [value for value, _ in knob.values] for knob in knobs_of(moved.plan)}
    assert found == {
        ("gd", "optim_lr"): ["0.001", "1e-05"],
        ("gd", "method_lr"): ["0.1"],
        ("gd", "steps"): ["2"],
        ("gd", "of"): ["X"],
        ("gd_x", "mode"): ["a"],
    }


def test_range_of_every_knob_widest_first(moved: Records) -> None:
    ranges = knob_ranges(moved)
    lines = ranges[["method", "knob", "least", "least_at", "most", "most_at", "range"]].to_numpy().tolist()
    assert lines[0] == ["GD, of X", "mode", pytest.approx(2), "default", pytest.approx(8), "a", pytest.approx(6)]
    assert lines[1] == ["GD", "optim_lr", pytest.approx(-2), "0.001", pytest.approx(3), "1e-05", pytest.approx(5)]
    assert ranges["knob"].tolist() == ["mode", "optim_lr", "of", "method_lr", "steps"]
    assert math.isnan(ranges["range"].iloc[-1])
    assert ranges["lost"].tolist() == [0, 0, 0, 0, 1]


def test_the_table_says_the_ranges_under_its_rows(moved: Records) -> None:
    table = make_table(moved)
    assert isinstance(table, pd.DataFrame)
    assert "GD, lr 0.001" in table.index
    assert table.attrs["footnotes"][1] == (
        "GD, optim_lr: Delta_m moves by 5.00, from -2.00 (0.001) to +3.00 (1e-05), +1.00 at the default"
    )
    assert "GD, steps: fewer than two values have a Delta_m; 1 of its values without a number" in render(table)


def test_the_figure_has_a_dot_per_value(moved: Records, store: SyntheticStore) -> None:
    figure = sensitivity_figure(Shelf("sensitivity", store.home, None, (), "sensitivity_toy"))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "GD, of X, mode",
        "GD, optim_lr",
        "GD, of",
        "GD, method_lr",
    ]
    dots = {line.get_ydata()[0]: sorted(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"}
    assert dots[2] == pytest.approx([-2, 3])
