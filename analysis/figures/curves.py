"""Training and validation curves of every task, all rows of a study."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.figures import canvas
from analysis.figures.series import Array, draw_band, over_points
from analysis.figures.shelf import Shelf, missing_notes, source_notes
from analysis.records import Records
from study import schema

_PANELS = 4

_DECADES = 8.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic: losses fall fast at first."""


def curves_figure(shelf: Shelf) -> Figure:
    """Two panels per task: its training loss and its validation metric, a line per row."""
    records = shelf.first
    plan = records.plan
    wanted = [
        (task, name, title)
        for task in plan.tasks
        for name, title in (
            (schema.train_loss(task.name), "training loss"),
            (schema.metric(schema.VAL, task.name, task.metric), f"validation {task.metric}"),
        )
    ]
    recorded = set(records.metric_names)
    if not any(name in recorded for _, name, _ in wanted):
        raise shelf.empty("curve", [records])
    curves = records.curves_of([name for _, name, _ in wanted if name in recorded])
    lines = -(-len(wanted) // _PANELS)
    legend_lines = -(-len(plan.rows) // 4)
    figure = canvas.new_figure(canvas.PAGE, 1.25 * lines + 0.14 * legend_lines + 1.0)
    panels = list(figure.subplots(lines, _PANELS, squeeze=False).flat)
    shown: dict[str, Line2D] = {}
    for axes, (task, name, title) in zip(panels, wanted, strict=False):
        better = "higher" if task.higher_is_better else "lower"
        direction = "↑" if better == "higher" and not name.startswith(schema.TRAIN_LOSS) else "↓"
        axes.set_title(f"{canvas.shorten(task.name, 22)}\n{canvas.text(title)} {direction}", loc="left", fontsize=6.5)
        if name in curves:
            shown = draw_rows(axes, records, curves[name]) | shown
        else:
            canvas.say_missing(axes, "not recorded")
    for axes in panels[len(wanted) :]:
        axes.set_axis_off()
    ordered = [row for row in plan.rows if row.id in shown]
    canvas.legend_above(figure, [shown[row.id] for row in ordered], [row.label for row in ordered], 4)
    absent = [row.label for row in plan.rows if row.id not in shown]
    notes = source_notes(
        [records], spread="Over iterations; lines: mean over seeds, bands: ± 1 sample standard deviation."
    )
    missing = missing_notes(records, [row.id for row in plan.rows])
    canvas.footer(figure, [*notes, *missing, *([f"Without curves: {', '.join(absent)}."] if absent else [])])
    return figure


def draw_rows(axes: Axes, records: Records, curves: pd.DataFrame) -> dict[str, Line2D]:
    """One metric over training, as :meth:`analysis.records.Records.curves` gives it, a line and a band per row that has
    it; row id to line. The baseline is black."""
    by_row = dict(iter(curves.groupby("row", sort=False)))
    drawn: dict[str, Line2D] = {}
    others = [row.id for row in records.plan.rows if row.id != records.plan.baseline]
    for row in records.plan.rows:
        if row.id not in by_row:
            continue
        place = others.index(row.id) if row.id in others else 0
        colour = canvas.INK if row.id == records.plan.baseline else canvas.colour(place)
        line = draw_band(
            axes, over_points(by_row[row.id]), colour, "-" if colour == canvas.INK else canvas.dashes(place)
        )
        line.set_linewidth(0.9)
        drawn[row.id] = line
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    _scale(axes, curves["value"].to_numpy(dtype=float))
    axes.tick_params(labelsize=5.5)
    return drawn


def _scale(axes: Axes, values: Array) -> None:
    """A logarithmic y axis for values that span much, a linear one for the others."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > _DECADES * finite.min():
        # A band that reaches below 0 would stretch the axis without end.
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(0.8 * finite.min(), 1.25 * finite.max())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: canvas.number(value)))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
