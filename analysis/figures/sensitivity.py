"""How far Delta_m moves with each knob of a study that varies one at a time."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from analysis.figures import canvas
from analysis.figures.shelf import Shelf, missing_notes, source_notes
from analysis.tables import columns as c
from analysis.tables import rows_table
from analysis.tables.sensitivity import knob_ranges, knobs_of


def sensitivity_figure(shelf: Shelf) -> Figure:
    """A line per method and knob, the widest range on top: a dot per value, the default marked."""
    records = shelf.first
    table = rows_table(records)
    gains = dict(zip(table.attrs["row_ids"], table[c.DELTA_M], strict=True))
    ranges = knob_ranges(records).dropna(subset=["range"])
    if ranges.empty:
        raise shelf.empty("knob with two values", [records])
    knobs = {(knob.default.label, knob.name): knob for knob in knobs_of(records.plan)}
    figure = canvas.new_figure(canvas.PAGE, 0.26 * len(ranges) + 1.4)
    axes = figure.subplots()
    places = np.arange(len(ranges))[::-1]
    marks: dict[str, Artist] = {}
    for place, line in zip(places, ranges.to_dict("records"), strict=True):
        knob = knobs[line["method"], line["knob"]]
        axes.plot([line["least"], line["most"]], [place, place], color=canvas.FAINT, linewidth=3, zorder=1)
        tried = [(value, gains[row.id]) for value, row in knob.values]
        dots = [gain for _, gain in tried if math.isfinite(gain)]
        marks["one value"] = axes.plot(dots, [place] * len(dots), "o", color=canvas.COLOURS[0], markersize=4)[0]
        if math.isfinite(line["default"]):
            ring = canvas.COLOURS[1]
            marks["default"] = axes.plot(
                line["default"], place, "D", zorder=3, color="white", markeredgecolor=ring, markersize=6
            )[0]
        for side, where, shift in (("least", "right", -5), ("most", "left", 5)):
            axes.annotate(
                canvas.shorten(line[f"{side}_at"], 14),
                (line[side], place),
                xytext=(shift, 0),
                textcoords="offset points",
                ha=where,
                va="center",
                fontsize=5.5,
                color=canvas.MUTED,
            )
    canvas.bar_rows(axes, places, [f"{line.method}, {line.knob}" for line in ranges.itertuples()], 40)
    axes.margins(x=0.12)
    axes.set_xlabel("Δm, %: mean over seeds")
    canvas.legend_above(figure, list(marks.values()), list(marks), 2)
    rows = [row.id for row in records.plan.rows]
    said = "Each dot is one value of the knob, the others at their defaults; the ends are named."
    canvas.footer(figure, [*source_notes([records], spread=said), *missing_notes(records, rows)])
    return figure
