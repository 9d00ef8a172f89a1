"""The study's table, as a table to sort, and every seed behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis import sheet
from analysis.chart import delta_m_chart
from analysis.escape import DASH, clean
from analysis.plan import Plan
from analysis.records import Records
from analysis.report.markup import Cell, Head, RunLinks, details, hidden, notes, safe, section, table
from analysis.stats import Summary, summarize
from analysis.tables import columns as c
from analysis.tables.results import RowResult, gain, row_results
from study import schema

_LEGEND = (
    "Bold: best of its column; underlined: second best, the baseline aside. ↑ higher is better, ↓ lower is better. A "
    "number opens its run in MLflow, a mean the comparison of its runs. 95% interval: Student's t over seeds."
)

_SPREADS = '<label><input type="checkbox" class="spreads"> Spread of every task over seeds</label>'


def results_section(records: Records, frame: pd.DataFrame, links: RunLinks) -> str:
    """The table (``frame``, of :mod:`analysis.tables`), its notes, Delta_m as bars, and the seeds one by one."""
    shown = sheet.sheet_of(frame)
    results = row_results(records)
    chart = delta_m_chart(frame)
    figure = f"<figure><figcaption>Delta_m by row, in percent; right of 0 is better</figcaption>{chart}</figure>"
    return section(
        "results",
        "Results",
        [
            _means(records, frame, shown, results, links),
            notes(shown.notes, "ol"),
            notes([*(f"{note}." for note in shown.footnotes), _LEGEND]),
            figure if chart else "",
            _seeds(records, shown, results, links),
        ],
    )


def _means(
    records: Records, frame: pd.DataFrame, shown: sheet.Sheet, results: dict[str, RowResult], links: RunLinks
) -> str:
    plan = records.plan
    names = {(clean(entry["header"]), entry["role"]): entry["name"] for entry in frame.attrs["columns"]}
    tasks = {column: task for task, column in c.task_columns(plan).items()}
    runs = _runs(records)
    heads, columns = [Head("row", words=True)], []
    # What is compared first: the tasks may be more than a screen is wide.
    for column in sorted(shown.columns, key=lambda column: column.role == c.TASK):
        name = names[column.header, column.role]
        heads.append(Head(column.header, column.direction))
        cells = []
        for row_id, value, cell in zip(frame.attrs["row_ids"], frame[name], column.cells, strict=True):
            task = tasks.get(name) if column.role == c.TASK else None
            spread = summarize(results[row_id].task_values(task)).sd if task else math.nan
            html = safe(cell.text)
            if column.role in (c.TASK, c.DELTA_M, c.GROUPS, c.TRUNK_PASSES, c.SECONDS, c.N) and cell.text != DASH:
                html = links.link(runs.get((row_id, task), []), html)
            if cell.spread:
                html += f" ± {safe(cell.spread)}"
            elif math.isfinite(spread):
                html += f'<span class="sd"> ± {spread:.2g}</span>'
            if cell.rank is not sheet.Rank.OTHER:
                html += hidden(f", {'best' if cell.rank is sheet.Rank.BEST else 'second best'}")
            cells.append(Cell(html, float(value), "" if cell.rank is sheet.Rank.OTHER else cell.rank.value))
        columns.append(cells)
        if column.role == c.DELTA_M:
            heads.append(Head("95% interval"))
            columns.append([_interval(*pair) for pair in zip(frame[c.DELTA_M], frame[c.DELTA_M_CI95], strict=True)])
    rows: list[tuple[str, Sequence[Cell]]] = []
    for place, (label, mark) in enumerate(zip(shown.labels, shown.marks, strict=True)):
        note = f"<sup>{hidden('note ')}{mark}</sup>" if mark else ""
        kind = "baseline" if label == frame.attrs["baseline"] else ""
        rows.append((kind, [Cell(safe(label) + note), *(column[place] for column in columns)]))
    return table("main-table", f"{shown.title}: means over seeds", heads, rows, tools=_SPREADS, searched=True)


def _interval(mean: float, half: float) -> Cell:
    if not math.isfinite(half):
        return Cell(DASH, math.nan)
    return Cell(f"{mean - half:+.2f} to {mean + half:+.2f}", mean - half)


def _runs(records: Records) -> dict[tuple[str, str | None], list[tuple[str, str]]]:
    """Row and task to the complete runs behind their number; every run of the row under no task."""
    found: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    for row, tasks, experiment, run in complete[["row", "tasks", "experiment_id", "run_id"]].itertuples(
        index=False, name=None
    ):
        for task in (None, *tasks):
            found.setdefault((row, task), []).append((experiment, run))
    return found


def _seeds(records: Records, shown: sheet.Sheet, results: dict[str, RowResult], links: RunLinks) -> str:
    """Every number of every seed, linked to the run that gave it."""
    plan = records.plan
    runs = {
        (row, seed, task): (experiment, run, status)
        for row, seed, tasks, experiment, run, status in records.trials[
            ["row", "seed", "tasks", "experiment_id", "run_id", "status"]
        ].itertuples(index=False, name=None)
        for task in tasks
    }
    columns = [column for column in shown.columns if column.role == c.TASK]
    styles = [_style([cell.text for cell in column.cells]) for column in columns]
    baseline = _baseline(plan, results)
    rows: list[tuple[str, Sequence[Cell]]] = []
    for row in plan.rows:
        full = results[row.id].full_seeds(plan)
        for seed in sorted({cell.seed for cell in row.cells}):
            values = results[row.id].seeds.get(seed, {})
            cells = [Cell(safe(row.label)), Cell(str(seed), float(seed))]
            for task, style in zip(plan.tasks, styles, strict=True):
                value = values.get(task.name, math.nan)
                experiment, run, status = runs.get((row.id, seed, task.name), ("", "", "not trained"))
                html = format(value, style) if math.isfinite(value) else safe(status)
                cells.append(Cell(links.link([(experiment, run)], html), value))
            value = gain(full[seed], baseline, plan) if baseline and seed in full else math.nan
            cells.append(Cell(f"{value:+.2f}" if math.isfinite(value) else DASH, value))
            rows.append(("", cells))
    heads = [Head("row", words=True), Head("seed"), *(Head(column.header, column.direction) for column in columns)]
    heads.append(Head("Delta_m %", "up"))
    body = table("seed-table", "Test metrics of every seed", heads, rows, searched=True)
    return details(f"Every seed: {len(rows)} lines", body)


def _baseline(plan: Plan, results: dict[str, RowResult]) -> dict[str, float]:
    if plan.baseline is None:
        return {}
    means: dict[str, Summary] = {
        task.name: summarize(results[plan.baseline].task_values(task.name)) for task in plan.tasks
    }
    return {task: summary.mean for task, summary in means.items()}


def _style(texts: Sequence[str]) -> str:
    """The format the column's means are shown in."""
    text = next((text for text in texts if text != DASH), "")
    if "e" in text:
        return ".3e"
    return f".{len(text.partition('.')[2])}f" if text else ".4g"
