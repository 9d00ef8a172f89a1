"""Figure 2: the time one batch takes by method, beside the published Table E.1."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis import reference
from analysis.figures import canvas
from analysis.figures.shelf import Shelf, machine_notes, missing_notes, source_notes
from analysis.plan import PlanRow
from analysis.records import Records
from analysis.stats import Summary, summarize
from study import schema

GD = "GD"

_SAME_METHOD = {("4:grouping", "joint"): GD, ("4:grouping", "selective"): "Ours"}
"""Rows of Table 4 that are methods of Table E.1 under another name."""


def fig2(shelf: Shelf) -> Figure:
    """Seconds per iteration of every row, and the same relative to GD beside the published ones."""
    records = shelf.first
    times = iteration_seconds(records)
    measured = {row_id: time for row_id, time in times.items() if time.n}
    if not measured:
        raise shelf.empty("complete trial with its seconds", [records])
    rows = sorted(records.plan.rows, key=lambda row: times[row.id].mean if times[row.id].n else math.inf)
    names = {row.id: e1_row(row) or "" for row in rows}
    base = next((measured[row.id].mean for row in rows if names[row.id] == GD and row.id in measured), math.nan)
    published = relative_published()

    figure = canvas.new_figure(canvas.PAGE, 0.24 * len(rows) + 1.5)
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))[::-1]
    for axes in (left, right):
        canvas.bar_rows(axes, places, [_label(records, row) for row in rows], 50)
    right.tick_params(labelleft=False)
    drawn = []
    for place, row in zip(places, rows, strict=True):
        time = times[row.id]
        if not time.n:
            canvas.say_no_value(left, place, "not recorded")
            continue
        spread = 0.0 if math.isnan(time.sd) else time.sd
        canvas.bar(left, place, time.mean, time.sd, canvas.COLOURS[0])
        left.annotate(
            f"{canvas.number(time.mean)} s",
            (time.mean + spread, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6,
        )
        if math.isfinite(base):
            drawn.append(right.plot(time.mean / base, place, "o", color=canvas.COLOURS[0], markersize=4.5)[0])
    left.set_xlim(right=1.18 * max(time.mean + np.nan_to_num(time.sd) for time in measured.values()))
    left.set_xlabel("seconds per iteration, measured")
    left.set_title("(a) time per batch", loc="left")
    marks = [
        right.plot(
            published[name], place, "D", color="white", markeredgecolor=canvas.COLOURS[1], markersize=6.5, zorder=1
        )[0]
        for place, row in zip(places, rows, strict=True)
        if (name := names[row.id]) in published
    ]
    right.set_title("(b) relative to GD", loc="left")
    if marks or drawn:
        right.set_xscale("log")
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        right.xaxis.set_minor_locator(NullLocator())
        right.axvline(1.0, color=canvas.MUTED, linewidth=0.8)
        right.set_xlabel("time per iteration / time of GD")
    if not drawn:
        canvas.say_no_value(right, len(rows) - 0.55, "GD is not recorded: no ratio measured")
    handles = [*drawn[:1], *marks[:1]]
    labels = [*["measured"] * bool(drawn), *["published, Table E.1: ViT-L, 11 tasks"] * bool(marks)]
    canvas.legend_above(figure, handles, labels, 2)
    notes = source_notes(
        [records], spread="Mean and sample standard deviation over seeds, loading of batches included."
    )
    canvas.footer(figure, [*notes, *machine_notes(records), *missing_notes(records, [row.id for row in rows])])
    return figure


def iteration_seconds(records: Records) -> dict[str, Summary]:
    """Row id to the seconds of one iteration over seeds: ``cost/seconds`` by ``cost/iterations``.

    A row of several networks takes what all of them take together; a seed with one of them missing does not count.
    """
    times: dict[str, Summary] = {}
    for row in records.plan.rows:
        trials = records.trials[records.trials["row"] == row.id]
        seeds = []
        for _, group in trials.groupby("seed", sort=True):
            rates = group["seconds"] / group["iterations"]
            if (group["status"] == schema.COMPLETE).all() and np.isfinite(rates).all():
                seeds.append(float(rates.sum()))
        times[row.id] = summarize(seeds)
    return times


def e1_row(row: PlanRow) -> str | None:
    """What Table E.1 calls the row's method, by the names the paper gives the row elsewhere; ``None`` where it has
    none."""
    known = set(reference.step_seconds()["row"])
    names = [_SAME_METHOD.get((place.table, place.row), place.row) for place in row.published]
    return next((name for name in names if name in known), None)


def relative_published() -> Mapping[str, float]:
    """Row of Table E.1 to its total time over GD's."""
    table = reference.step_seconds()
    totals = table[table["phase"] == "total"].set_index("row")["seconds"]
    return {str(row): float(seconds / totals[GD]) for row, seconds in totals.items()}


def _label(records: Records, row: PlanRow) -> str:
    networks = max((sum(cell.seed == seed for cell in row.cells) for seed in records.plan.seeds), default=1)
    several = f" ({networks} networks)" if networks > 1 else ""
    return canvas.shorten(row.label, 34) + several
