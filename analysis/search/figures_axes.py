"""Figures of the axes of one contender: parallel coordinates, slices, the two that matter most, shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from analysis.figures import canvas
from analysis.search.figures_progress import DELTA_M, floor_of, mark_handles, marks, panels, room, source
from analysis.search.forest import Forest
from analysis.search.importance import importances, sample, shares
from analysis.search.plan import Axis, SearchContender, said, same, short_names
from analysis.search.records import WHOLE, SearchRecords
from study import schema

Array = NDArray[np.float64]

_GRID = 40
_ABSENT = -0.14
"""Where a line of parallel coordinates passes an axis its trial does not have."""

_MOST_LETTERS = 18


def varied(trials: pd.DataFrame, axes: Sequence[Axis]) -> list[Axis]:
    """The axes that take two values or more in the trials."""
    return [
        axis for axis in axes if len({same(point[axis.path]) for point in trials["point"] if axis.path in point}) > 1
    ]


def parallel_figure(records: SearchRecords, contender: SearchContender) -> Figure:
    """Every trial a line over the axes and Delta_m, coloured by it; an axis that a trial lacks is passed below."""
    trials = records.of_contender(contender.id)
    axes_shown = varied(trials, contender.axes)
    names = short_names(contender.axes)
    count = len(axes_shown)
    figure = canvas.new_figure(canvas.PAGE, 3.6)
    axes = figure.subplots()
    whole = trials[trials["status"].isin(WHOLE) & trials["delta_m"].notna()]
    if whole.empty or not axes_shown:
        canvas.say_missing(axes, "no trial went to its end")
        canvas.footer(figure, [source(records)])
        return figure
    low, high = floor_of(whole), float(whole["delta_m"].max())
    scale = Normalize(low, high if high > low else low + 1.0)
    colours = matplotlib.colormaps["viridis"]
    for line in trials.sort_values("delta_m", na_position="first").to_dict("records"):
        value, status = line["delta_m"], line["status"]
        places = [
            axis.place(line["point"][axis.path]) if axis.path in line["point"] else _ABSENT for axis in axes_shown
        ]
        is_whole = status in WHOLE and math.isfinite(value)
        end = float(np.clip(scale(value), 0.0, 1.0)) if is_whole else math.nan
        bad = status in (schema.DIVERGED, schema.FAILED)
        axes.plot(
            range(count + 1),
            [*places, end],
            color=colours(float(np.clip(scale(value), 0, 1))) if is_whole else canvas.COLOURS[1] if bad else "#b8c0c8",
            linewidth=1.1 if is_whole else 0.6,
            linestyle="-" if is_whole else ":" if bad else "-",
            alpha=0.9 if is_whole else 0.8,
            zorder=3 if is_whole else 2,
        )
    for place, axis in enumerate(axes_shown):
        axes.axvline(place, color=canvas.MUTED, linewidth=0.6, zorder=1)
        _parallel_ticks(axes, place, axis)
    axes.axvline(count, color=canvas.INK, linewidth=0.8, zorder=1)
    if any(axis.path not in point for axis in axes_shown for point in trials["point"]):
        axes.text(-0.08, _ABSENT, "absent", ha="right", va="center", fontsize=6, color=canvas.MUTED, style="italic")
    axes.set_xticks(range(count + 1), [*(canvas.shorten(names[a.path], 22) for a in axes_shown), DELTA_M], rotation=20)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set_yticks([])
    axes.set_ylim(_ABSENT - 0.06, 1.05)
    axes.set_xlim(-0.35, count + 0.05)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(ScalarMappable(scale, "viridis"), ax=axes, pad=0.01, fraction=0.03)
    bar.set_label(DELTA_M)
    bar.outline.set_visible(False)
    notes = [f"{contender.label}. {source(records)}", "Grey: stopped trials; dotted: diverged or failed."]
    canvas.footer(figure, notes)
    return figure


def _parallel_ticks(axes: Axes, place: int, axis: Axis) -> None:
    """What the places of one line mean, beside it."""
    if axis.kind == "choice":
        ticks = [((index + 0.5) / axis.cells, said(value)) for index, value in enumerate(axis.values)]
    else:
        ticks = [(at, canvas.number(axis.at(at))) for at in (0.0, 0.5, 1.0)]
    for at, text in ticks:
        axes.text(
            place - 0.04,
            at,
            canvas.shorten(text, _MOST_LETTERS),
            ha="right",
            va="center",
            fontsize=5.5,
            color=canvas.INK,
            zorder=5,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )


def slices_figure(records: SearchRecords, contender: SearchContender) -> Figure:
    """A panel per axis: every trial's Delta_m by its value, coloured by when it was tried."""
    trials = records.of_contender(contender.id)
    shown = varied(trials, contender.axes)
    names = short_names(contender.axes)
    figure, every = panels(max(1, len(shown)), 1.55, 4, extra=1.1)
    if not shown:
        canvas.say_missing(every[0], "no axis varies in the recorded trials")
        canvas.footer(figure, [source(records)])
        return figure
    floor = floor_of(trials)
    top = float(np.nanmax([*trials["delta_m"], floor]))
    numbers = trials["number"].to_numpy(dtype=np.float64)
    scale = Normalize(float(numbers.min()), float(max(numbers.max(), numbers.min() + 1)))
    for axes, axis in zip(every, shown, strict=True):
        mine = trials[[axis.path in point for point in trials["point"]]]
        values = [point[axis.path] for point in mine["point"]]
        marks(axes, _spread(axis, values), mine, floor, scale)
        value_axis(axes, axis, "x")
        axes.set_title(canvas.shorten(names[axis.path], 26), loc="left", fontsize=7)
        room(axes, floor, top)
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(DELTA_M)
        else:
            axes.tick_params(labelleft=False)
    bar = figure.colorbar(ScalarMappable(scale, "viridis"), ax=every, pad=0.01, fraction=0.02, aspect=40)
    bar.set_label("trial")
    bar.outline.set_visible(False)
    handles, labels = mark_handles()
    canvas.legend_above(figure, handles, labels, 4)
    some = [names[a.path] for a in shown if any(a.path not in point for point in trials["point"])]
    notes = [f"{contender.label}. {source(records)}"]
    canvas.footer(figure, [*notes, *([f"Only the trials that have the axis: {', '.join(some)}."] if some else [])])
    return figure


def _spread(axis: Axis, values: Sequence[object]) -> list[float]:
    """Where values are drawn: a range's on its scale, a choice's around its index so that equal ones can be seen."""
    if axis.kind != "choice":
        return [float(str(value)) for value in values]
    seen: dict[int, int] = {}
    out = []
    for value in values:
        index = axis.index(value)
        turn = seen[index] = seen.get(index, -1) + 1
        # Steps of the golden ratio fill an interval evenly, however many there are.
        out.append(index + 0.5 * ((turn * 0.6180339887) % 1.0 - 0.5))
    return out


def value_axis(axes: Axes, axis: Axis, which: str) -> None:
    """Scale, ends and ticks of a drawn axis for an axis of the space."""
    drawn = axes.xaxis if which == "x" else axes.yaxis
    limits = axes.set_xlim if which == "x" else axes.set_ylim
    if axis.kind == "choice":
        drawn.set_major_locator(FixedLocator(list(range(axis.cells))))
        drawn.set_ticklabels([canvas.shorten(said(value), _MOST_LETTERS) for value in axis.values])
        limits(-0.5, axis.cells - 0.5)
        crowded = which == "x" and sum(len(said(value)) for value in axis.values) > 16
        if crowded:
            axes.tick_params(axis="x", labelrotation=25)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
        return
    margin = 0.03
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        drawn.set_major_locator(LogLocator(numticks=4))
        drawn.set_major_formatter(FuncFormatter(lambda value, _: canvas.number(value)))
        drawn.set_minor_formatter(NullFormatter())
        limits(axis.at(-margin), axis.at(1 + margin))
        return
    limits(axis.at(-margin), axis.at(1 + margin))
    drawn.set_major_locator(MaxNLocator(4, integer=axis.kind == "int"))


def contour_figure(records: SearchRecords, contender: SearchContender) -> Figure:
    """The surface of Delta_m over the two axes that matter most, and the whole trials on it.

    The surface is that of a random forest, its mean over all other axes.
    """
    trials = records.of_contender(contender.id)
    names = short_names(contender.axes)
    figure = canvas.new_figure(canvas.PAGE * 0.7, 3.4)
    axes = figure.subplots()
    taken = sample(trials, contender.axes)
    told = {axis.path: place for place, axis in enumerate(taken.axes)}
    ranked = [entry.axis for entry in importances(trials, contender.axes) if not entry.condition and entry.method]
    if len(ranked) < 2:
        canvas.say_missing(axes, "too few whole trials, or fewer than two axes that all of them have")
        canvas.footer(figure, [source(records)])
        return figure
    first, second = ranked[:2]
    values = np.maximum(taken.values, floor_of(trials))
    forest = Forest.fit(taken.places, values)
    sides = [_cells(axis) for axis in (first, second)]
    surface = forest.surface(told[first.path], told[second.path], sides[0][0], sides[1][0])
    scale = Normalize(float(values.min()), float(values.max()))
    mesh = axes.pcolormesh(sides[0][1], sides[1][1], surface, cmap="viridis", norm=scale, rasterized=True)
    points = [[_spread(axis, [p[axis.path] for p in taken.points])] for axis in (first, second)]
    axes.scatter(
        points[0][0],
        points[1][0],
        c=values,
        s=22,
        cmap="viridis",
        norm=scale,
        edgecolors="white",
        linewidths=0.7,
        zorder=3,
    )
    best = int(np.argmax(taken.values))
    axes.scatter(
        points[0][0][best], points[1][0][best], s=70, facecolors="none", edgecolors=canvas.COLOURS[1], zorder=4
    )
    for axis, which in ((first, "x"), (second, "y")):
        value_axis(axes, axis, which)
    # The ranges' own ends: beyond them there is no surface.
    axes.set_xlim(sides[0][1][0], sides[0][1][-1])
    axes.set_ylim(sides[1][1][0], sides[1][1][-1])
    axes.set_xlabel(canvas.text(names[first.path]))
    axes.set_ylabel(canvas.text(names[second.path]))
    axes.grid(visible=False)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label(DELTA_M)
    bar.outline.set_visible(False)
    canvas.footer(
        figure,
        [
            f"{contender.label}. {source(records)}",
            f"Surface: random forest on {len(taken.values)} whole trials, mean over the other axes. Ringed: the best.",
        ],
    )
    return figure


def _cells(axis: Axis) -> tuple[Array, Array]:
    """Places of the middles of cells along an axis, and where their edges are drawn."""
    count = axis.cells or _GRID
    middles = (np.arange(count) + 0.5) / count
    edges = np.arange(count + 1) / count
    if axis.kind == "choice":
        return middles, np.arange(count + 1, dtype=np.float64) - 0.5
    return middles, np.array([axis.at(float(edge)) for edge in edges])


def importance_figure(records: SearchRecords) -> Figure:
    """A panel per contender: the share of each axis in the variance of Delta_m."""
    contenders = records.plan.contenders
    entries = {c.id: importances(records.of_contender(c.id), c.axes) for c in contenders}
    told = {key: [entry for entry in found if entry.method] for key, found in entries.items()}
    most = max((len(found) for found in told.values()), default=1)
    figure, every = panels(len(contenders), 0.17 * max(most, 3) + 0.5, 2)
    for axes, contender in zip(every, contenders, strict=True):
        axes.set_title(canvas.shorten(contender.label, 40), loc="left")
        found = told[contender.id]
        if not found:
            canvas.say_missing(axes, "too few whole trials")
            continue
        names = short_names(contender.axes)
        places = np.arange(len(found))[::-1].astype(np.int64)
        for place, entry in zip(places, found, strict=True):
            fill = canvas.colour(5) if entry.condition else canvas.colour(0)
            canvas.bar(axes, float(place), 100 * entry.share, math.nan, fill)
            note = f"{100 * entry.share:.1f}" + (f" (of {entry.trials} trials)" if entry.condition else "")
            axes.annotate(
                note, (100 * entry.share, place), xytext=(2, 0), textcoords="offset points", va="center", fontsize=5.5
            )
        canvas.bar_rows(axes, places, [names[entry.axis.path] for entry in found], 30)
        axes.set_xlim(0, max(30.0, 118 * max(entry.share for entry in found)))
        axes.set_xlabel(f"share of variance, % ({found[0].method}, {found[0].trials} whole trials)")
    handles = [Line2D([], [], marker="s", linestyle="", color=canvas.colour(place)) for place in (0, 5)]
    canvas.legend_above(figure, handles, ["axes that all trials have", "axes that some have, among those"], 2)
    canvas.footer(figure, [source(records), "Of each axis alone; the rest is interactions and noise."])
    return figure


def interaction_figure(records: SearchRecords, contender: SearchContender) -> Figure:
    """Shares of axes (diagonal) and of pairs beyond their two axes, as a matrix."""
    taken = sample(records.of_contender(contender.id), contender.axes)
    names = short_names(contender.axes)
    found = shares(taken)
    size = len(taken.axes) if found is not None else 4
    figure = canvas.new_figure(min(canvas.PAGE, 2.3 + 0.55 * size), 1.7 + 0.42 * size)
    axes = figure.subplots()
    if found is None or size < 2:
        canvas.say_missing(axes, "too few whole trials, or fewer than two axes that all of them have")
        canvas.footer(figure, [source(records)])
        return figure
    matrix = 100 * (found.pairs + np.diag(found.main))
    image = axes.imshow(matrix, cmap=canvas.SHARES, vmin=0, vmax=max(10.0, float(matrix.max())))
    for row in range(size):
        for column in range(size):
            dark = matrix[row, column] > 0.6 * max(10.0, float(matrix.max()))
            axes.text(
                column,
                row,
                f"{matrix[row, column]:.1f}",
                ha="center",
                va="center",
                fontsize=6,
                color="white" if dark else canvas.INK,
                fontweight="bold" if row == column else "normal",
            )
    labels = [canvas.shorten(names[axis.path], 22) for axis in taken.axes]
    axes.set_xticks(range(size), labels, rotation=30, ha="right")
    axes.set_yticks(range(size), labels)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("share of variance, %")
    bar.outline.set_visible(False)
    canvas.footer(
        figure,
        [
            f"{contender.label}. {source(records)}",
            f"{found.method}, {len(taken.values)} whole trials. Diagonal: an axis alone; elsewhere: two together "
            "beyond each alone.",
        ],
    )
    return figure
