"""The relative change of every task against the baseline row, for all rows of a study."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import canvas
from analysis.figures.shelf import Shelf, missing_notes, source_notes
from analysis.plan import PlanTask
from analysis.records import Records
from analysis.stats import Summary, summarize
from analysis.tables import columns as c
from analysis.tables import rows_table
from analysis.tables.results import row_results
from trainables.errors import StoreError

BETTER, WORSE = canvas.COLOURS[0], canvas.COLOURS[1]

_COLUMNS = 4


def bars_figure(shelf: Shelf) -> Figure:
    """A panel per task and one for their mean, Delta_m; a bar per row, to the right where it is better."""
    records = shelf.first
    plan = records.plan
    if plan.baseline is None:
        raise StoreError(f"figure {shelf.name}: study '{plan.study}' names no baseline row")
    rows = [row for row in plan.rows if row.id != plan.baseline]
    changes = relative_changes(records)
    if not any(summary.n for task in changes.values() for summary in task.values()):
        raise shelf.empty("row with its baseline", [records])
    table = rows_table(records)
    gains = {
        row_id: Summary(int(n), mean, sd, math.nan, math.nan)
        for row_id, n, mean, sd in zip(
            table.attrs["row_ids"], table[c.N], table[c.DELTA_M], table[c.DELTA_M_SD], strict=True
        )
    }
    lines = -(-(len(plan.tasks) + 1) // _COLUMNS)
    figure = canvas.new_figure(canvas.PAGE, lines * (0.14 * len(rows) + 0.55) + 0.7)
    panels = list(figure.subplots(lines, _COLUMNS, squeeze=False, sharey=True).flat)
    labels = [row.label for row in rows]
    for axes, task in zip(panels, plan.tasks, strict=False):
        _bars(axes, [changes[task.name][row.id] for row in rows], labels)
        axes.set_title(_title(task), loc="left", fontsize=6.5)
    mean = panels[len(plan.tasks)]
    _bars(mean, [gains[row.id] for row in rows], labels)
    mean.set_title("Δm: mean of the tasks", loc="left", fontsize=6.5, fontweight="bold")
    for axes in panels[len(plan.tasks) + 1 :]:
        axes.set_axis_off()
    used = len(plan.tasks) + 1
    for axes in panels[max(used - _COLUMNS, 0) : used]:
        axes.set_xlabel("change, %")
    label = plan.row(plan.baseline).label
    spread = (
        f"Change against the mean of {label} in percent, signed so that right of 0 is better; mean ± sample standard "
        "deviation over seeds. Every panel has its own x axis."
    )
    canvas.footer(figure, [*source_notes([records], spread=spread), *missing_notes(records, [r.id for r in plan.rows])])
    return figure


def relative_changes(records: Records) -> dict[str, dict[str, Summary]]:
    """Task name to row id to the change against the baseline's mean in percent, over seeds; positive is better.

    A seed that ended without a number makes the row's NaN, as in the tables.
    """
    plan = records.plan
    results = row_results(records)
    changes: dict[str, dict[str, Summary]] = {}
    for task in plan.tasks:
        base = summarize(results[plan.baseline].task_values(task.name)).mean if plan.baseline else math.nan
        sign = 1 if task.higher_is_better else -1
        known = math.isfinite(base) and base != 0
        changes[task.name] = {
            row.id: summarize(
                100 * sign * (value - base) / base for value in results[row.id].task_values(task.name) if known
            )
            for row in plan.rows
        }
    return changes


def _bars(axes: Axes, values: list[Summary], labels: list[str]) -> None:
    places = np.arange(len(values))[::-1]
    for place, value in zip(places, values, strict=True):
        if not math.isfinite(value.mean):
            canvas.say_no_value(axes, place, "no value")
        else:
            canvas.bar(axes, place, value.mean, value.sd, BETTER if value.mean >= 0 else WORSE)
    axes.axvline(0.0, color=canvas.INK, linewidth=0.8)
    canvas.bar_rows(axes, places, labels, 26)
    axes.tick_params(labelsize=6)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _title(task: PlanTask) -> str:
    return f"{canvas.shorten(task.name, 20)} ({canvas.text(task.metric)} {'↑' if task.higher_is_better else '↓'})"
