from __future__ import annotations

import math

import pytest

from analysis import reference as ref
from analysis.reference import _delta_m
from trainables.errors import ConfigError

ROWS = [
    (table, row, dataset)
    for table, dataset, row, printed in _delta_m()[["table", "dataset", "row", "delta_m_percent"]].itertuples(
        index=False
    )
    if not math.isnan(printed) and not math.isnan(ref.recomputed_delta_m(table, row, dataset))
]
DISCREPANT = {
    ("D.1", "FAMO"): (-7.08, -7.21),
    ("D.2", "FAMO"): (-11.11, -11.23),
    ("D.3", "FAMO"): (-9.22, -9.33),
    ("D.2", "IMTL-L"): (-8.76, -8.90),
    ("D.3", "IMTL"): (-7.46, -7.55),
}


def test_every_printed_value_with_task_numbers_is_recomputed():
    printed = _delta_m()["delta_m_percent"].notna().sum()
    assert len(ROWS) == printed - 3  # Table 4's forward, backward and separate have no task numbers anywhere


@pytest.mark.parametrize(("table", "row", "dataset"), ROWS)
def test_recomputed_agrees_except_in_five_rows(table, row, dataset):
    gap = ref.published_delta_m(table, row, dataset) - ref.recomputed_delta_m(table, row, dataset)
    if (table, row) in DISCREPANT:
        assert -0.145 < gap < -0.085
    else:
        assert abs(gap) < (0.015 if table in ("2", "3", "4:grouping") else 0.055)


@pytest.mark.parametrize(("place", "values"), DISCREPANT.items())
def test_the_five_rows(place, values):
    assert ref.recomputed_delta_m(*place) == pytest.approx(values[0], abs=0.005)
    assert ref.published_delta_m(*place) == values[1]
    assert "delta_m" in {error.kind for error in ref.known_errors(*place)}


def test_no_other_row_is_marked_discrepant():
    assert {(e.table, e.row) for e in ref.all_known_errors() if e.kind == "delta_m"} == set(DISCREPANT)


@pytest.mark.parametrize(("table", "row"), [("D.2", "IMTL-L"), ("D.3", "IMTL")])
def test_repeated_rows(table, row):
    assert ref.published_tasks(table, row) == ref.published_tasks(table, "Nash-MTL")
    assert "repeated" in {error.kind for error in ref.known_errors(table, "Nash-MTL")}


def test_known_errors_speak_of_rows_that_exist():
    for error in ref.all_known_errors():
        if error.table != "text" and error.row:
            ref.published_delta_m(error.table, error.row)
        assert error.note
        assert error.kind in ("delta_m", "repeated", "base", "text", "unstated", "doubtful")


def test_the_gain_claimed_at_batch_4_is_not_the_tables():
    gain = ref.published_delta_m("D.6", "Ours(4)") - ref.published_delta_m("D.6", "GD(4)")
    assert gain == pytest.approx(4.69)
    assert any("5.27" in error.note for error in ref.known_errors("D.6", "Ours(4)"))


def test_table_errors_reach_every_row():
    assert any("Table D.1" in error.note for error in ref.known_errors("D.5", "Ours"))


def test_bases():
    assert ref.single_task_base("D.5") == ref.published_tasks("D.1", "Single Task")
    assert ref.single_task_base("2")["normal"] == 0.2169
    assert ref.single_task_base("4:grouping") == {}


def test_spread_backbone_and_dashes():
    assert ref.published_spread("4:grouping", "separate") == 0.651
    assert math.isnan(ref.published_spread("D.5", "Ours"))
    assert math.isnan(ref.published_delta_m("2", "MGDA"))
    assert math.isnan(ref.recomputed_delta_m("2", "MGDA"))
    assert math.isnan(ref.recomputed_delta_m("2", "Single Task"))
    assert ref.published_backbone("D.5", "Ours") == "ViT-B"
    assert ref.published_backbone("3", "GD", "nyud") == ""


def test_seconds():
    seconds = ref.step_seconds().set_index(["row", "phase"])["seconds"]
    assert seconds["Ours", "total"] == 1.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("D.55", "Ours"), "unknown published table 'D.55'; did you mean 'D.5'"),
        (("D.5", "Our"), "unknown row of published table 'D.5' 'Our'; did you mean 'Ours'"),
        (("3", "GD"), "covers nyud, pascal_context: name the data set"),
        (("3", "GD", "nyu"), "unknown data set of published table '3' 'nyu'; did you mean 'nyud'"),
    ],
)
def test_unknown_places_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ref.published_delta_m(*arguments)
