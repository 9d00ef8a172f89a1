from __future__ import annotations

import math
from pathlib import Path

import pytest
from pandas import DataFrame
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

from analysis.records import Records
from analysis.render import render
from analysis.tables import TABLES, make_table, rows_table


@pytest.fixture(scope="module")
def table(mixed_home: Path) -> DataFrame:
    return rows_table(Records.load(mixed_home, "toy"))


def test_columns(table):
    assert table.columns.tolist() == [
        "De",
        "Se",
        "delta_m",
        "delta_m_sd",
        "delta_m_ci95",
        "delta_m_paired_spread",
        "n",
        "published",
        "published_spread",
        "published_recomputed",
        "trunk_passes",
        "seconds",
        "note",
    ]
    assert table.index.tolist()[0] == "Single task"
    assert table.attrs["title"] == "A toy study"
    assert [entry["direction"] for entry in table.attrs["columns"]][:3] == ["down", "up", "up"]


def test_a_complete_row_by_hand(table):
    # Baseline: depth 2.1, semseg 42. Seed 0: depth 10 % better, semseg equal: +5.
    # Seed 1: depth 10 % worse, semseg 10 % better: 0.
    line = table.loc["gd"]
    assert (line["De"], line["Se"]) == pytest.approx((2.1, 44.1))
    assert line["delta_m"] == pytest.approx(2.5)
    assert line["delta_m_sd"] == pytest.approx(5 / math.sqrt(2))
    assert line["delta_m_ci95"] == pytest.approx(12.7062047 * 2.5)
    # Against the same seed: (5.5 + 5) / 2 = 5.25 and (-5 + 5) / 2 = 0.
    assert line["delta_m_paired_spread"] == pytest.approx(5.25 / math.sqrt(2))
    assert line["n"] == 2
    assert line["trunk_passes"] == 200
    assert line["seconds"] == 6
    assert line["note"] == ""


def test_the_baseline_row(table):
    line = table.loc["Single task"]
    assert (line["De"], line["Se"]) == pytest.approx((2.1, 42.0))
    assert line["delta_m"] == pytest.approx(0, abs=1e-12)
    assert line["trunk_passes"] == 200  # of a seed: one trial of 100 per task
    assert line["seconds"] == 10
    assert math.isnan(line["delta_m_paired_spread"])


def test_trials_of_other_studies_and_repeated_ones(table):
    assert table.loc["shared", "delta_m"] == pytest.approx(-25)
    assert table.loc["twice", "delta_m"] == pytest.approx(0, abs=1e-12)
    assert table.loc["shared", "n"] == table.loc["twice", "n"] == 2


def test_a_seed_that_is_not_there_yet_is_left_out_and_named(table):
    line = table.loc["partial"]
    assert line["delta_m"] == pytest.approx(5)
    assert line["n"] == 1
    assert math.isnan(line["delta_m_sd"])
    assert line["note"] == "missing (seed 1)"


def test_a_diverged_seed_makes_the_row_a_dash(table):
    line = table.loc["diverged"]
    assert line[["De", "Se", "delta_m"]].isna().all()
    assert line["n"] == 1
    assert line["note"] == "diverged (seed 1): losses not finite at iteration 7"


def test_rows_without_results(table):
    assert table.loc["absent", "note"] == "missing (seed 0, 1)"
    assert table.loc["unfinished", "note"] == "interrupted (seed 1); running (seed 0)"
    for name in ("absent", "unfinished"):
        assert table.loc[name, ["De", "Se", "delta_m", "seconds"]].isna().all()
        assert table.loc[name, "n"] == 0


def test_footnotes(table):
    first, second = table.attrs["footnotes"]
    assert first == "measured on scenes at profile cpu (vit_pico, cpu)"
    assert second.endswith("against the mean of Single task over 2 seeds")


@pytest.mark.parametrize(("passes", "said"), [(1000.0, True), (500.0, False)])
def test_rows_of_unequal_compute_are_said(store: SyntheticStore, passes: float, said: bool):
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0)]), row("b", [cell("b-0", 0)])]))
    store.baseline()
    for key, made in (("a-0", 400.0), ("b-0", passes)):
        store.trial(key, {"depth/rmse": 2.0, "semseg/miou": 42.0}, metrics=costs(made, 1.0))
    notes = rows_table(Records.load(store.home, "toy")).attrs["footnotes"]
    assert any(note.startswith("rows make from 400 to 1,000 trunk passes a seed") for note in notes) == said


def test_a_complete_trial_without_a_number_is_not_averaged_away(store: SyntheticStore):
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0), cell("a-1", 1)])]))
    store.baseline()
    store.trial("a-0", {"depth/rmse": 2.0, "semseg/miou": math.nan})
    store.trial("a-1", {"depth/rmse": 2.0, "semseg/miou": 42.0})
    line = rows_table(Records.load(store.home, "toy")).loc["a"]
    assert line["De"] == 2.0
    assert line[["Se", "delta_m"]].isna().all()
    assert line["n"] == 1
    assert line["note"] == "no finite test value of semseg (seed 0)"


def test_a_baseline_task_that_is_missing_leaves_no_delta_m(store: SyntheticStore):
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0)])]))
    store.trial("single-depth-0", {"depth/rmse": 2.0})
    store.trial("a-0", {"depth/rmse": 2.0, "semseg/miou": 42.0})
    table = rows_table(Records.load(store.home, "toy"))
    assert table["delta_m"].isna().all()
    assert table.loc["a", "n"] == 1
    assert table.loc["Single task", "De"] == 2.0
    assert table.loc["Single task", "note"] == "missing (seed 0: 1 of 2 trials; seed 1: 2 of 2 trials)"
    assert "Delta_m is undefined: Single task has no value of semseg" in table.attrs["footnotes"]


def test_a_baseline_of_zero_leaves_no_delta_m(store: SyntheticStore):
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0)])]))
    store.baseline(semseg=(0.0, 0.0))
    store.trial("a-0", {"depth/rmse": 2.0, "semseg/miou": 1.0})
    table = rows_table(Records.load(store.home, "toy"))
    assert table["delta_m"].isna().all()
    assert "Delta_m is undefined: Single task has semseg 0" in table.attrs["footnotes"]


def test_without_a_baseline_row(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    store.trial("a-0", {"depth/rmse": 2.0, "semseg/miou": 1.0})
    table = rows_table(Records.load(store.home, "toy"))
    assert table.loc["a", "De"] == 2.0
    assert table["delta_m"].isna().all()
    assert "no baseline is named, so there is no Delta_m" in table.attrs["footnotes"]


def test_a_row_that_trains_a_part_of_the_tasks(store: SyntheticStore):
    store.study(plan([baseline_row(), row("a", [cell("a-0", 0, ["depth"])])]))
    store.baseline()
    store.trial("a-0", {"depth/rmse": 2.0})
    line = rows_table(Records.load(store.home, "toy")).loc["a"]
    assert (line["De"], line["n"], line["note"]) == (2.0, 0, "does not train semseg")
    assert math.isnan(line["delta_m"])


def test_several_cells_of_a_seed_are_one_result(store: SyntheticStore):
    store.study(plan([baseline_row(), row("a", [cell("a-d", 0, ["depth"]), cell("a-s", 0, ["semseg"])])]))
    store.baseline()
    store.trial("a-d", {"depth/rmse": 1.89})
    store.trial("a-s", {"semseg/miou": 46.2})
    line = rows_table(Records.load(store.home, "toy")).loc["a"]
    assert (line["delta_m"], line["n"]) == (pytest.approx(10), 1)


def test_differences_between_trials_are_said(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0), cell("a-1", 1)])], baseline=None))
    store.trial("a-0", {}, tags={"host": "one", "data_fingerprint": "x"})
    store.trial("a-1", {}, tags={"host": "two", "data_fingerprint": "y"})
    notes = rows_table(Records.load(store.home, "toy")).attrs["footnotes"]
    assert any("different data" in note for note in notes)
    assert any("their seconds do not compare" in note for note in notes)


def test_an_abbreviation_that_is_taken_gives_way_to_the_name(store: SyntheticStore):
    tasks = [
        {"name": "normal", "metric": "l1", "higher_is_better": False, "short": "n"},
        {"name": "edge", "metric": "l1", "higher_is_better": False, "short": "E"},
        {"name": "edge2", "metric": "l1", "higher_is_better": False, "short": "E"},
    ]
    store.study(plan([row("a", [cell("a-0", 0, ["normal", "edge", "edge2"])])], tasks=tasks, baseline=None))
    assert rows_table(Records.load(store.home, "toy")).columns.tolist()[:3] == ["normal", "E", "edge2"]


PUBLISHED_ROWS = [
    row("joint", [cell("j-0", 0)], "Joint", {"table": "4:grouping", "row": "joint"}),
    row("random_2", [cell("r2-0", 0)], "Random 2", {"table": "D.5", "row": "Random (M=2)"}),
    row("random_3", [cell("r3-0", 0)], "Random 3", {"table": "D.5", "row": "Random (M=3)"}),
    row("typo", [cell("t-0", 0)], "Typo", {"table": "D.5", "row": "Randm (M=2)"}),
]


def test_published_numbers_and_their_footnotes(store: SyntheticStore):
    store.study(plan([baseline_row(), *PUBLISHED_ROWS], study="table4_d5", task_set="taskonomy"))
    store.trial("r2-0", {}, metrics={"groups/count": [(5, 4.0), (10, 2.0)]})
    table = make_table(Records.load(store.home, "table4_d5"))
    joint = table.loc["Joint"]
    assert (joint["published"], joint["published_spread"]) == (-8.65, 0.229)
    assert joint["published_recomputed"] == pytest.approx(-8.65, abs=0.01)
    assert table.loc["Random 2", "published_recomputed"] == pytest.approx(-4.228, abs=0.001)
    assert table.loc[["Single task", "Typo"], "published"].isna().all()
    per_backbone = table.loc["Random 2", ["published", "published_vit_b", "published_vit_l"]]
    assert per_backbone.tolist()[:2] == [-4.24, -4.24]
    assert math.isnan(per_backbone["published_vit_l"])
    notes = table.attrs["footnotes"]
    assert "published numbers of different settings (ViT-L, ViT-B) do not compare with each other" in notes
    assert notes[0] == (
        "measured on scenes at profile cpu (vit_pico, cpu); published: Taskonomy, ViT-L (Table 4), ViT-B (Table D.5), "
        "40,000 iterations: compare orders, not values"
    )
    assert "Table D.5, Random (M=2), Random (M=3): how often random groups are redrawn is not described" in notes
    assert any("Typo: unknown row of published table 'D.5'" in note and "'Random (M=2)'" in note for note in notes)
    assert table["groups"].tolist()[2] == 3.0
    assert math.isnan(joint["groups"])


def test_a_row_published_for_two_backbones_shows_both(store: SyntheticStore):
    both = [{"table": "4:grouping", "row": "selective"}, {"table": "D.5", "row": "Ours"}]
    store.study(plan([row("ours", [cell("o-0", 0)], "Ours", both)], baseline=None))
    table = rows_table(Records.load(store.home, "toy"))
    line = table.loc["Ours"]
    assert (line["published"], line["published_vit_l"], line["published_vit_b"]) == (-1.42, -1.42, -0.64)
    assert line["published_spread_vit_l"] == 0.208
    assert line["published_recomputed_vit_b"] == pytest.approx(-0.636, abs=0.001)
    shown = render(table, "markdown").splitlines()
    assert shown[2].startswith("| | De ↓ | Se ↑ | Delta\\_m % ↑ | n | published ViT-L % | published ViT-B % |")
    assert "| -1.42 ± 0.21 | -0.64 |" in shown[4]


def test_one_setting_needs_no_columns_of_its_own(store: SyntheticStore):
    place = {"table": "D.5", "row": "Heterogeneous"}
    store.study(plan([row("h", [cell("h-0", 0)], published=place)], baseline=None))
    table = rows_table(Records.load(store.home, "toy"))
    assert not [name for name in table if name.startswith("published_vit")]
    assert "| published % | recomputed % |" in render(table, "markdown")


def test_a_published_table_of_several_data_sets_goes_by_the_task_set(store: SyntheticStore):
    rows = [row("a", [cell("a-0", 0)], published={"table": "3", "row": "GD"})]
    store.study(plan(rows, baseline=None, task_set="pascal_context"), start=1000, end=1000)
    assert rows_table(Records.load(store.home, "toy")).loc["a", "published"] == -9.06
    store.study(plan(rows, baseline=None), start=3000, end=3000)
    table = rows_table(Records.load(store.home, "toy"))
    assert math.isnan(table.loc["a", "published"])
    assert any("name the data set" in note for note in table.attrs["footnotes"])


def test_nothing_measured_yet(store: SyntheticStore):
    store.study(plan([baseline_row(), *PUBLISHED_ROWS], study="table4_d5"))
    table = TABLES["table4_d5"](Records.load(store.home, "table4_d5"))
    assert table.attrs["footnotes"][0].startswith("nothing measured yet at profile cpu")
    assert table["groups"].isna().all()


def test_a_study_without_a_table_of_its_own_gets_the_rows(mixed_home, table):
    assert make_table(Records.load(mixed_home, "toy")).equals(table)
