"""Figures D.3 to D.6: the tracked affinity of every pair of tasks over training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from analysis.figures import canvas
from analysis.figures.grid import CurveGrid
from analysis.figures.series import Affinity, Array, Series, affinity, by_backbone, draw_band
from analysis.figures.shelf import Shelf, missing_notes, source_notes
from analysis.plan import Plan, PlanRow
from analysis.records import Records

ROW = "selective"
"""The row of the paper's own method: adaptive groups in random order."""

_BETA_ROWS = "beta"


def backbones_figure(shelf: Shelf) -> Figure:
    """A panel for every pair of tasks, a line for every backbone that is recorded (figures D.3, D.4, D.5)."""
    studies = shelf.all()
    found = [history for history in by_backbone(studies, ROW, affinity) if history.tracked]
    if not found:
        raise shelf.empty(f"tracked affinity of row '{ROW}'", studies)
    colours = [canvas.INK, *(canvas.colour(place) for place in range(len(found) - 1))]
    figure = pair_grid(found, [history.label for history in found], colours)
    missing = [note for history in found for note in missing_notes(history.records, [history.row.id])]
    canvas.footer(figure, [*source_notes(history.records for history in found), *missing, _read(found[0])])
    return figure


def betas_figure(shelf: Shelf) -> Figure:
    """A panel for every pair of tasks, a line for every decay rate beta (figure D.6)."""
    records = shelf.first
    rows = beta_rows(records.plan)
    found = by_beta(records)
    if not found:
        raise shelf.empty("tracked affinity of a row 'beta_...'", [records])
    figure = pair_grid(found, [beta_label(history.row) for history in found], ramp(len(found)), len(found) // 2)
    missing = missing_notes(records, [row.id for row in rows])
    canvas.footer(figure, [*source_notes([records]), *missing, _read(found[0])])
    return figure


def beta_rows(plan: Plan) -> list[PlanRow]:
    """The rows that vary the decay rate, smallest beta first; in the plan's order where beta is no number."""
    rows = [row for row in plan.rows if row.id.startswith(_BETA_ROWS)]
    return sorted(rows, key=lambda row: _beta(row) or 0.0)


def by_beta(records: Records) -> list[Affinity]:
    """Of :func:`beta_rows`, those with a tracked affinity."""
    found = (affinity(records, row.id) for row in beta_rows(records.plan))
    return [history for history in found if history is not None and history.tracked]


def beta_label(row: PlanRow) -> str:
    """``β = 1e-05``, or the row's label where beta is not among its axes."""
    beta = _beta(row)
    return row.label if beta is None else f"β = {beta:g}"


def ramp(size: int) -> list[str]:
    """Colours of an ordered quantity, light to dark: dark enough to see on white, far enough apart to tell."""
    places = np.linspace(0.85, 0.0, size) if size > 1 else np.array([0.4])
    return [to_hex(colour) for colour in colormaps["viridis"](places)]


def affinity_axes(axes: Axes) -> None:
    """Label the axes of affinity over training, and mark 0."""
    axes.axhline(0.0, color=canvas.MUTED, linewidth=0.7)
    axes.set_xlabel("iteration")
    axes.set_ylabel("affinity")


def draw_pair(axes: Axes, history: Affinity, source: int, target: int, colour: str, dashes: Any = "-") -> Line2D:
    """The affinity of one pair, tasks by index, as a line with its seed band, labelled ``A → B``."""
    line = draw_band(axes, history.affinity.pair(source, target), colour, dashes)
    line.set_label(canvas.text(f"{history.shorts[source]} → {history.shorts[target]}"))
    return line


def symmetric_limit(values: Iterable[Array]) -> float:
    """The largest finite magnitude, for limits around 0; 1 where nothing but 0 is there."""
    largest = max((float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in values), default=0.0)
    return largest or 1.0


def pair_grid(found: Sequence[Affinity], labels: Sequence[str], colours: Sequence[str], tinted: int = 0) -> Figure:
    """K x K panels, sources down, targets across. The y axes of a column agree and are symmetric around 0.

    Each panel is tinted by the affinity of history ``tinted`` at the end of training, on one scale for all panels,
    symmetric around 0.
    """
    tasks, shorts = found[tinted].tasks, [canvas.text(short) for short in found[tinted].shorts]
    size = len(tasks)
    side = min(canvas.PAGE / size, 1.4)
    figure = canvas.new_figure(max(side * size + 0.6, 4.5), side * size * 0.95 + 1.2)
    last = found[tinted].affinity.mean[-1]
    heights = np.array([1.08 * _reach(found, name) for name in tasks])
    axes = figure.subplots()
    ends = [history.affinity.x[place] for history in found for place in (0, -1)]
    grid = CurveGrid(axes, shorts, heights, (float(min(ends)), float(max(ends))))
    tint = grid.tint(last, _pale(canvas.SIGNED), symmetric_limit([last]))
    for history, line_colour in zip(found, colours, strict=True):
        grid.draw(_pairs(history, tasks), line_colour)
    bar = figure.colorbar(tint, ax=axes, shrink=0.6, aspect=32, pad=0.01)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: canvas.number(value)))
    bar.ax.grid(visible=False)
    bar.set_label("panel tint: affinity at the end" + (f", {canvas.text(labels[tinted])}" if len(found) > 1 else ""))
    canvas.legend_above(figure, [Line2D([], [], color=line_colour) for line_colour in colours], labels, 4)
    return figure


def _reach(found: Sequence[Affinity], target: str) -> float:
    """How far from 0 any curve or band of a target's column comes."""
    shown = [(history.affinity, history.tasks.index(target)) for history in found if target in history.tasks]
    return symmetric_limit(np.abs(series.mean[:, :, k]) + np.nan_to_num(series.sd[:, :, k]) for series, k in shown)


def _pairs(history: Affinity, tasks: Sequence[str]) -> dict[tuple[int, int], Series]:
    """The affinity of each pair that a history has, by the places of source and target in ``tasks``."""
    own = {name: place for place, name in enumerate(history.tasks)}
    known = [(place, own[name]) for place, name in enumerate(tasks) if name in own]
    return {(i, k): history.affinity.pair(source, target) for i, source in known for k, target in known}


def _read(history: Affinity) -> str:
    span = f"0 to {history.affinity.x[-1]:,.0f}"
    return (
        f"Row A, column B: affinity A → B, the relative fall of B's loss over a step of A's group, over iterations "
        f"{span}. A column's panels share the y limits under its name, around 0. Lines: mean over seeds; bands: ± 1 "
        "sample standard deviation."
    )


def _beta(row: PlanRow) -> float | None:
    values = [value for axis, value in row.axes.items() if axis.rpartition(".")[2] == "beta"]
    return float(values[0]) if values and isinstance(values[0], int | float) else None


def _pale(name: str) -> Colormap:
    """A colour map mixed with white, so that lines on it are seen."""
    colours = colormaps[name](np.linspace(0, 1, 255))
    return ListedColormap(0.5 * colours + 0.5)
