from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import audit as audit_module
from analysis.audit import audit
from analysis.delta_m import delta_m
from analysis.listing import listing
from analysis.printed import base_of, higher_is_better, printed_rows
from analysis.reference import all_known_errors, published_tasks, recomputed_delta_m
from analysis.render import FORMATS, WIDTH, render
from analysis.rounding import Interval, Printed, chance_of_gap, decimals, gain_interval, gain_rounding_widths
from analysis.statements import Statement, check_statements, statements
from trainables.errors import ConfigError

MADE = ("delta_m", "repeated", "base", "text")
"""Kinds of known errors that follow from the numbers; the others take judgement."""


def rows_of(kind: str) -> set[tuple[str, str]]:
    found = audit()
    return {(line.table, line.row) for line in found[found["kind"] == kind].itertuples()}


def test_the_five_rows_are_found_and_no_other():
    assert rows_of("delta_m") == {
        ("D.1", "FAMO"),
        ("D.2", "FAMO"),
        ("D.3", "FAMO"),
        ("D.2", "IMTL-L"),
        ("D.3", "IMTL"),
    }


def test_what_an_interval_alone_proves():
    # Worst-case rounding leaves room for four of the five; only chance rules those out.
    found = audit().query("kind == 'delta_m'")
    certain = found[found["certainty"] == "impossible"]
    assert [(line.table, line.row) for line in certain.itertuples()] == [("D.2", "IMTL-L")]
    assert (found["chance"] < 1e-5).all()
    for line in found.itertuples():
        assert line.low < line.recomputed < line.high
        assert (line.low - 0.005 <= line.printed <= line.high + 0.005) == (line.certainty == "improbable")


def test_repeated_rows():
    pairs = {("D.2", "IMTL-L"), ("D.2", "Nash-MTL"), ("D.3", "IMTL"), ("D.3", "Nash-MTL")}
    assert rows_of("repeated") == pairs


@pytest.mark.parametrize("kind", MADE)
def test_every_known_error_that_follows_from_the_numbers_is_found(kind):
    known = [(error.table, error.row) for error in all_known_errors() if error.kind == kind]
    assert known
    assert set(known) <= rows_of(kind)


def test_the_text_against_itself_and_the_tables():
    notes = audit().query("kind == 'text'")["note"].tolist()
    assert sum("5.27" in note and "4.69" in note for note in notes) == 1
    assert sum("edge_occlusion" in note for note in notes) == 1
    assert sum("Section 5" in note and "Appendix D" in note and "groups" in note for note in notes) == 1
    assert not any("5.71" in note and "batch" in note for note in notes)


def test_phases_that_do_not_add_up():
    (line,) = audit().query("kind == 'total'").itertuples()
    assert (line.row, line.printed) == ("GradDrop", 2.57)
    assert line.recomputed == pytest.approx(0.030 + 2.05 + 0.411 + 0.059)


@pytest.mark.parametrize(("text", "places"), [("0.0160", 4), ("0.016", 3), ("-8.65", 2), ("53", 0)])
def test_decimals(text, places):
    assert decimals(text) == places


def test_a_column_has_one_number_of_decimals():
    rows = {(row.table, row.dataset, row.row): row for row in printed_rows()}
    single = rows["2", "taskonomy", "Single Task"].tasks
    assert single["depth_zbuffer"] == Printed(0.016, 4)
    assert single["keypoints3d"] == Printed(0.082, 3)
    assert single["segment_unsup2d"] == Printed(0.17, 4)
    assert rows["D.5", "taskonomy", "Random (M=6)"].delta_m == Printed(-13.2, 2)
    assert rows["2", "taskonomy", "MGDA"].numbers is None
    assert rows["4:grouping", "taskonomy", "separate"].tasks == {}


def test_bases():
    rows = {(row.table, row.row): row for row in printed_rows()}
    assert base_of(rows["D.5", "Ours"]) == rows["D.1", "Single Task"]
    assert base_of(rows["D.2", "Ours"]) == rows["D.2", "Single Task"]


def test_recomputed_values_agree_with_the_reference():
    for entry in audit_module._recomputed():
        row = entry.row
        assert entry.value == pytest.approx(recomputed_delta_m(row.table, row.row, row.dataset), abs=1e-9)
        assert published_tasks(row.table, row.row, row.dataset) == {
            task: number.value for task, number in (row.numbers or {}).items()
        }


def test_an_altered_number_is_found(monkeypatch):
    def altered():
        return tuple(
            replace(row, delta_m=Printed(-4.22, 2)) if (row.table, row.row) == ("D.1", "PCGrad") else row
            for row in printed_rows()
        )

    monkeypatch.setattr(audit_module, "printed_rows", altered)
    found = audit_module.audit().query("kind == 'delta_m' and row == 'PCGrad'")
    assert found["certainty"].tolist() == ["impossible"]


@given(
    st.lists(st.tuples(st.floats(0.5, 9), st.floats(0.5, 9), st.booleans()), min_size=1, max_size=6),
    st.lists(st.floats(-1, 1), min_size=12, max_size=12),
)
def test_the_interval_holds_whatever_the_numbers_were_rounded_from(tasks, errors):
    values = [Printed(round(value, 2), 2) for value, _, _ in tasks]
    bases = [Printed(round(base, 2), 2) for _, base, _ in tasks]
    up = [higher for _, _, higher in tasks]
    true = {str(i): value.value + errors[i] * value.half_unit for i, value in enumerate(values)}
    base = {str(i): value.value + errors[6 + i] * value.half_unit for i, value in enumerate(bases)}
    gain = delta_m(true, base, {str(i): higher for i, higher in enumerate(up)})
    interval = gain_interval(values, bases, up)
    assert interval.low - 1e-9 <= gain <= interval.high + 1e-9
    centre = delta_m(
        {str(i): value.value for i, value in enumerate(values)},
        {str(i): value.value for i, value in enumerate(bases)},
        {str(i): higher for i, higher in enumerate(up)},
    )
    reach = sum(gain_rounding_widths(values, bases))
    assert max(interval.high - centre, centre - interval.low) == pytest.approx(reach, rel=0.03)


@pytest.mark.parametrize("widths", [[1.0] * 22, [1.0, 1.0, *[0.1] * 10], [0.3] * 3])
def test_the_chance_of_a_gap_is_a_bound_and_not_a_loose_one(widths):
    errors = np.random.default_rng(0).uniform(-1, 1, (200_000, len(widths))) * widths
    sums = np.abs(errors.sum(axis=1))
    for quantile in (0.9, 0.99, 0.999):
        gap = float(np.quantile(sums, quantile))
        assert (sums >= gap).mean() <= chance_of_gap(gap, widths) <= 25 * (1 - quantile)


def test_the_chance_of_a_gap_at_its_ends():
    assert chance_of_gap(0.0, [1.0, 2.0]) == 1
    assert chance_of_gap(3.0, [1.0, 2.0]) == 0
    assert chance_of_gap(-2.5, [1.0, 2.0]) == chance_of_gap(2.5, [1.0, 2.0]) > 0


def test_intervals():
    assert Interval(0, 1).overlaps(Interval(1, 2))
    assert not Interval(0, 1).overlaps(Interval(1.001, 2))
    assert Printed(-7.21, 2).interval.low == pytest.approx(-7.215)


BATCH = Statement("s", "here", "gain", "D.6", "taskonomy", "Ours(4)", "GD(4)", "4.69", "a gain")


@pytest.mark.parametrize(
    ("changes", "contradicted"),
    [
        ({}, False),
        ({"value": "4.70"}, False),  # 4.705 - 0.015: both printed numbers may round that way
        ({"value": "4.72"}, True),
        ({"kind": "best", "row": "GD(16)"}, True),
        ({"kind": "best", "row": "Ours(16)"}, False),
        ({"kind": "every_task", "row": "Ours(4)"}, False),
        ({"kind": "every_task", "row": "GD(4)", "other": "Ours(4)"}, True),
        ({"kind": "steadiest", "table": "2", "row": "Ours"}, True),
        ({"kind": "steadiest", "table": "2", "row": "DWA"}, False),
        ({"kind": "gain_grows", "table": "D.3 D.1", "row": "Ours", "other": "GD"}, False),
        ({"kind": "gain_grows", "table": "D.1 D.3", "row": "Ours", "other": "GD"}, True),
        ({"kind": "tasks", "value": " ".join(task for name, task in higher_is_better() if name == "taskonomy")}, False),
        ({"kind": "tasks", "value": "normal"}, True),
    ],
)
def test_statements_by_kind(changes, contradicted):
    found, checked = check_statements((replace(BATCH, **changes),))
    assert (len(found), checked) == (int(contradicted), 1)


def test_two_statements_of_one_thing():
    says = replace(BATCH, kind="says", row="it", value="more")
    assert check_statements((says, says))[0] == []
    (finding,) = check_statements((says, replace(says, place="there", value="fewer")))[0]
    assert finding.note == "here: a gain; there: a gain"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gian"}, "statement 's': unknown kind 'gian'; did you mean 'gain'"),
        ({"row": "Ours(5)"}, r"statement 's': unknown row of Table D.6 'Ours\(5\)'; did you mean"),
        ({"table": "2", "row": "MGDA", "other": "GD"}, "statement 's': Table 2 prints a dash"),
    ],
)
def test_a_wrong_statement_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_statements((replace(BATCH, **changes),))


def test_statements_have_ids_of_their_own():
    ids = [statement.id for statement in statements()]
    assert len(ids) == len(set(ids)) > 10


def test_every_format():
    found = audit()
    text = render(found)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "GradDrop" in text
    data = json.loads(render(found, "json"), parse_constant=pytest.fail)
    assert [row["row"] for row in data["rows"]] == found["row"].tolist()
    assert data["rows"][0]["chance"] == found["chance"][0]
    lines = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert float(lines[0]["low"]) == found["low"][0]
    latex = render(found, "latex")
    body = latex[latex.index(r"\endhead") : latex.index(r"\bottomrule")]
    assert {line.count(" & ") for line in body.splitlines() if line.endswith(r"\\")} == {9}
    table = [line for line in render(found, "markdown").splitlines() if line.startswith("|")]
    assert len(table) == len(found) + 2
    assert {line.count("|") for line in table} == {11}
    with pytest.raises(ConfigError, match="unknown format"):
        render(found, "xml")


def test_a_listing_of_hostile_text():
    lines = [
        {"a": "x|y_1\n\x1b[31m", "b": math.nan, "c": "w " * 200},
        {"a": "x|y_1\n\x1b[31m", "b": -1.5, "c": "[1] 50% & more"},
    ]
    shown = {"a": ("A", ""), "b": ("B", "+.1f"), "c": ("C", "")}
    frame = listing(lines, ["a", "b", "c"], name="n", title="T_1", shown=shown, footnotes=["one"])
    text = render(frame)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(char.isprintable() for line in text.split("\n") for char in line)
    assert "| x\\|y\\_1 \\[31m | - |" in render(frame, "markdown")
    assert r"{}[1] 50\% \& more \\" in render(frame, "latex")
    assert json.loads(render(frame, "json"))["rows"][0]["b"] is None


def test_rendering_an_empty_listing():
    frame = listing([], ["a"], name="n", title="Nothing", shown={"a": ("A", "")})
    for format in FORMATS:
        assert render(frame, format)
