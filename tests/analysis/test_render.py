from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from pandas import DataFrame
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.records import Records
from analysis.render import FORMATS, WIDTH, escape_latex, render
from analysis.tables import rows_table
from trainables.errors import ConfigError


@pytest.fixture(scope="module")
def table(mixed_home: Path) -> DataFrame:
    return rows_table(Records.load(mixed_home, "toy"))


@pytest.fixture
def hostile(store: SyntheticStore) -> DataFrame:
    """Labels and reasons with every character some format gives a meaning."""
    label = "a|b & 50% of $x_1 #{~^} <b>*β*\\ \x1b[31m\nnext"
    rows = [baseline_row(), row("a", [cell("a-0", 0)], label), row("b", [cell("b-0", 0)])]
    store.study(plan(rows, title="Title_with & <script>alert(1)</script>"))
    store.baseline()
    reason = {"status_reason": "<img src=x>\nsecond | line"}
    store.trial("a-0", {}, status="diverged", mlflow_status="FAILED", tags=reason)
    store.trial("b-0", {"depth/rmse": 2.0, "semseg/miou": 44.0})
    return rows_table(Records.load(store.home, "toy"))


def test_text(table):
    assert render(table).splitlines()[:12] == [
        "A toy study",
        "",
        "                 De ↓    Se ↑     Delta_m % ↑  n  trunk passes  seconds",
        "-----------------------------------------------------------------------",
        "Single task     2.100  42.00     0.00  ± 0.00  2           200       10",
        "gd              2.100  44.10    +2.50  ± 3.54  2           200        6",
        "shared          2.100  21.00   -25.00  ± 0.00  2             -        -",
        "twice           2.100  42.00     0.00  ± 0.00  2             -        -",
        "partial (1)     2.100  46.20*   +5.00*         1             -        -",
        "diverged (2)        -      -        -          1             -        -",
        "absent (3)          -      -        -          0             -        -",
        "unfinished (4)      -      -        -          0             -        -",
    ]


def test_text_says_why_there_is_a_dash(table):
    text = render(table)
    assert "(1) partial: missing (seed 1)\n" in text
    assert "(2) diverged: diverged (seed 1): losses not finite at iteration 7\n" in text
    assert "measured on scenes at profile cpu" in text
    assert "* best of its column, the baseline aside" in text


def test_equal_values_share_no_best(table):
    # Every row that has depth has the same one: a mark on all of them would say nothing.
    assert not re.search(r"2\.100\*", render(table))


def test_eleven_tasks_fit_a_terminal(store: SyntheticStore):
    names = [f"task_{place}" for place in range(11)]
    tasks = [{"name": name, "metric": "l1", "higher_is_better": False, "short": f"T{name[5:]}"} for name in names]
    published = {"table": "D.5", "row": "Random (M=2)"}
    rows = [
        row("base", [cell("base-0", 0, names)], "Single task"),
        row("a", [cell("a-0", 0, names)], "Selective, backward order (M=11)", published),
    ]
    store.study(plan(rows, tasks=tasks, baseline="base"))
    for key in ("base-0", "a-0"):
        store.trial(key, {f"{name}/l1": 0.0155 + place / 100 for place, name in enumerate(names)})
    text = render(rows_table(Records.load(store.home, "toy")))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    lines = text.splitlines()
    summary, tasks_block = (next(i for i, line in enumerate(lines) if name in line) for name in ("Delta_m %", "T10"))
    assert summary < tasks_block
    assert "0.0155" in lines[tasks_block + 2]
    assert "-4.24" in lines[summary + 3]


def test_markdown(table):
    lines = render(table, "markdown").splitlines()
    assert lines[2] == "| | De ↓ | Se ↑ | Delta\\_m % ↑ | n | trunk passes | seconds |"
    assert lines[3] == "|---|---:|---:|---:|---:|---:|---:|"
    assert "| gd | 2.100 | 44.10 | +2.50 ± 3.54 | 2 | 200 | 6 |" in lines
    assert "| partial (1) | 2.100 | **46.20** | **+5.00** | 1 | - | - |" in lines


def test_latex(table):
    text = render(table, "latex")
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{table}[t]\n")
    assert text.endswith("\\end{table}")
    assert r"gd & $2.100$ & $\underline{44.10}$ & $\underline{+2.50} \pm 3.54$ & $2$ & $200$ & $6$ \\" in text
    assert r"partial\textsuperscript{1} & $2.100$ & $\mathbf{46.20}$ & $\mathbf{+5.00}$ & $1$ & -- & -- \\" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {6}
    assert r"\begin{tabular}{lrrrrrr}" in text


def test_latex_escapes():
    assert escape_latex(r"50% of $x_1 & #{~^}\ é") == (
        r"50\% of \$x\_1 \& \#\{\textasciitilde{}\textasciicircum{}\}\textbackslash{} é"
    )
    assert escape_latex("Δ ± β ↑ → ﬁ") == r"$\Delta$ $\pm$ $\beta$ $\uparrow$ ? fi"


def test_latex_of_hostile_text_is_balanced(hostile):
    text = render(hostile, "latex")
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert r"a\textbar{}b \& 50\% of \$x\_1 \#\{\textasciitilde{}\textasciicircum{}\}" in text
    assert not set("#_~^") & set(plain.replace(r"$\Delta_m$", ""))


def test_markdown_of_hostile_text_keeps_its_cells(hostile):
    lines = [line for line in render(hostile, "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {8}
    assert "<script>" not in render(hostile, "markdown").replace("\\<script\\>", "")


def test_control_characters_do_not_reach_a_terminal(hostile):
    for format in ("text", "markdown", "latex"):
        assert all(char.isprintable() for line in render(hostile, format).split("\n") for char in line)


def test_csv_is_complete_and_exact(table):
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert list(lines[0]) == ["row", *table.columns]
    assert float(lines[1]["delta_m"]) == table.loc["gd", "delta_m"]
    assert lines[6]["delta_m"] == ""


def test_json_is_complete_and_strict(table):
    data = json.loads(render(table, "json"), parse_constant=pytest.fail)
    assert data["title"] == "A toy study"
    assert data["rows"][1]["id"] == "gd"
    assert data["rows"][1]["delta_m"] == table.loc["gd", "delta_m"]
    assert data["rows"][6]["delta_m"] is None
    assert data["columns"][0] == {"name": "De", "header": "De", "role": "task", "direction": "down", "spread": ""}
    assert data["footnotes"] == table.attrs["footnotes"]


def test_rendering_changes_nothing(table):
    before, attrs = table.copy(), json.dumps(table.attrs)
    for format in FORMATS:
        render(table, format)
    assert table.equals(before)
    assert json.dumps(table.attrs) == attrs


def test_unknown_format_is_named(table):
    with pytest.raises(ConfigError, match=r"unknown format 'markdwn'; did you mean 'markdown'"):
        render(table, "markdwn")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.0155, 0.0161), ("0.01550", "0.01610")),
        ((38.31, 9.5), ("38.31", "9.50")),
        ((12345.6, 1.0), ("12346", "1")),
        ((0.0, 0.0), ("0", "0")),
        ((1e-9, 2e-9), ("1.000e-09", "2.000e-09")),
    ],
)
def test_digits_of_a_task(store: SyntheticStore, values, shown):
    tasks = [{"name": "depth", "metric": "rmse", "higher_is_better": False, "short": "De"}]
    rows = [row(name, [cell(name, 0, ["depth"])]) for name in ("a", "b")]
    store.study(plan(rows, tasks=tasks, baseline=None))
    for name, value in zip(("a", "b"), values, strict=True):
        store.trial(name, {"depth/rmse": value})
    lines = render(rows_table(Records.load(store.home, "toy")), "markdown").splitlines()
    assert [lines[place].split(" | ")[1].strip("*") for place in (4, 5)] == list(shown)
