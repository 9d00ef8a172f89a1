"""Delta_m on the validation split over the compute spent: trunk passes, and seconds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures import canvas
from analysis.figures.series import Series, draw_band
from analysis.figures.shelf import Shelf, machine_notes, missing_notes, source_notes
from analysis.tables.at_cost import PASSES, SECONDS, reference_cost, validation_gains

_PANELS = ((PASSES, "(a) over trunk passes", "trunk passes"), (SECONDS, "(b) over seconds", "seconds of training"))


def equal_compute_figure(shelf: Shelf) -> Figure:
    """A line per row that trains all tasks in one network, with its seed band; upright lines where GD ends."""
    records = shelf.first
    plan = records.plan
    gains = validation_gains(records)
    if gains.empty:
        raise shelf.empty("Delta_m on the validation split", [records])
    by_row = dict(iter(gains.groupby("row", sort=False)))
    rows = [row for row in plan.rows if row.id in by_row]
    figure = canvas.new_figure(canvas.PAGE, 3.4 + 0.14 * -(-len(rows) // 4))
    shown: dict[str, Line2D] = {}
    for axes, (cost, title, label) in zip(figure.subplots(1, 2, sharey=True), _PANELS, strict=True):
        for place, row in enumerate(rows):
            line = draw_band(axes, over_cost(by_row[row.id], cost), canvas.colour(place), canvas.dashes(place))
            line.set_marker("o")
            line.set_markersize(2)
            shown[row.label] = line
        _mark_end(axes, reference_cost(records, cost))
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.axes[0].set_ylabel("Δm on validation, %")
    canvas.legend_above(figure, list(shown.values()), list(shown), 4)
    spread = (
        "Validation split, against the final validation metrics of the baseline. Lines: mean over seeds of Δm and of "
        "what was spent at each evaluation; bands: ± 1 sample standard deviation of Δm. Dashed: where GD ends. Before "
        "a line's end its runs have the learning rates of a longer run."
    )
    missing = missing_notes(records, [row.id for row in rows])
    canvas.footer(figure, [*source_notes([records], spread=spread), *machine_notes(records), *missing])
    return figure


def over_cost(gains: pd.DataFrame, cost: str) -> Series:
    """One row's lines of :func:`analysis.tables.at_cost.validation_gains` as mean and spread over seeds, evaluation by
    evaluation, along the mean of ``cost``."""
    points = gains.groupby("step", sort=True).agg(x=(cost, "mean"), mean=("delta_m", "mean"), sd=("delta_m", "std"))
    x, mean, sd = (points[name].to_numpy(dtype=np.float64) for name in ("x", "mean", "sd"))
    return Series(x, mean, sd, gains["seed"].nunique())


def _mark_end(axes: Axes, amount: float) -> None:
    if math.isfinite(amount):
        axes.axvline(amount, color=canvas.MUTED, linewidth=0.8, linestyle=canvas.DASHES[1])
