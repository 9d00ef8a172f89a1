"""Training and validation curves with seed bands; rows can be shown and hidden."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.figures.series import over_points
from analysis.records import Records
from analysis.report.markup import safe, section
from analysis.report.plot import COLOURS, DASHES, Array, Line, line_chart
from study import schema

_POINTS = 120
"""Of a line; more could not be seen."""
_NUMBERS = 50_000
"""Of the points of all lines of the page: about 2 MB with their bands. Lines get fewer each until it is kept."""


def curves_section(records: Records) -> str:
    """Two panels per task, a line per row; empty where no curve is recorded."""
    plan = records.plan
    titles = {}
    for task in plan.tasks:
        validation = "↑" if task.higher_is_better else "↓"
        titles[schema.train_loss(task.name)] = f"{task.name}: training loss ↓"
        titles[schema.metric(schema.VAL, task.name, task.metric)] = (
            f"{task.name}: validation {task.metric} {validation}"
        )
    curves = records.curves_of([name for name in titles if name in records.metric_names])
    panels, drawn = [], set()
    points = max(2, min(_POINTS, _NUMBERS // (2 * len(plan.tasks) * max(len(plan.rows), 1))))
    for name, curve in curves.items():
        lines = row_lines(records, curve, points)
        if lines:
            drawn |= {line.place for line in lines}
            chart = line_chart(titles[name].rstrip(" ↑↓"), lines)
            panels.append(f"<figure><figcaption>{safe(titles[name])}</figcaption>{chart}</figure>")
    if not panels:
        return ""
    legend = "".join(legend_entry(place, row.label) for place, row in enumerate(plan.rows) if place in drawn)
    return section(
        "curves",
        "Training curves",
        [
            "<p>Over iterations. Lines: mean over seeds; bands: ± sample standard deviation. Scales are logarithmic "
            "where values span much.</p>",
            f'<fieldset class="legend" data-for="curve-panels"><legend>Rows shown</legend>{legend}</fieldset>',
            f'<div class="panels" id="curve-panels">{"".join(panels)}</div>',
        ],
    )


def row_lines(records: Records, curve: pd.DataFrame, points: int = _POINTS) -> list[Line]:
    """A metric over training, as :meth:`analysis.records.Records.curves` gives it: a line of at most ``points`` for
    every row that has it."""
    by_row = dict(iter(curve.groupby("row", sort=False)))
    lines = []
    for place, row in enumerate(records.plan.rows):
        if row.id not in by_row:
            continue
        series = over_points(by_row[row.id])
        if np.isfinite(series.mean).any():
            keep = thinned(len(series.x), points)
            lines.append(Line(row.label, place, series.x[keep], series.mean[keep], series.sd[keep]))
    return lines


def thinned(size: int, most: int) -> Array:
    """At most ``most`` of ``size`` indices, evenly apart, the last one among them."""
    return np.unique(np.linspace(size - 1, 0, min(size, most)).round().astype(int))


def legend_entry(place: int, label: str) -> str:
    """A box that shows or hides the lines of a row, with a sample of them."""
    kind = f"series c{place % COLOURS} d{place // COLOURS % DASHES}"
    sample = (
        f'<svg class="sample" viewBox="0 0 28 10" aria-hidden="true"><g class="{kind}">'
        '<path class="line" d="M0 5H28"/></g></svg>'
    )
    return f'<label><input type="checkbox" checked data-row="{place}"> {sample}{safe(label)}</label>'
