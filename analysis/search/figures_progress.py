"""Figures of how a search went: its trials in order, what they cost, their curves, the trade-off, regret."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis.figures import canvas
from analysis.figures.series import draw_band
from analysis.search.incumbent import best_trial, front, progress
from analysis.search.overview import default_delta_m
from analysis.search.records import WHOLE, SearchRecords
from analysis.search.regret import regret, series
from study import schema

Array = NDArray[np.float64]

DELTA_M = "Δm % (validation)"
COST_WORDS = {"trunk_passes": "trunk passes", "seconds": "seconds", "iterations": "iterations"}
_COLUMNS = 3
_MOST_PAIRS = 10
_BAD = "#d55e00"


def panels(count: int, height: float, columns: int = _COLUMNS, extra: float = 0.9) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels and its axes; those left over in the last line are not shown."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = canvas.new_figure(canvas.PAGE, height * lines + extra)
    every = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in every[count:]:
        axes.set_axis_off()
    return figure, every[:count]


def source(records: SearchRecords) -> str:
    """Where a figure comes from, for its footer."""
    plan = records.plan
    return (
        f"Search {plan.search}, profile {plan.profile}: {plan.way}, {len(records.trials)} trials, "
        f"run {records.run.run_id[:8]}."
    )


def floor_of(trials: pd.DataFrame) -> float:
    """The lowest Delta_m that is drawn to scale: a trial that has gone astray by a thousand percent would hide all
    others. What is lower, or has no number, is drawn at it."""
    values = np.sort(trials["delta_m"].dropna().to_numpy(dtype=np.float64))
    values = values[np.isfinite(values)]
    if not values.size:
        return -1.0
    reach = 3 * (values[-1] - float(np.median(values)))
    return float(max(values[0], values[-1] - reach)) if reach > 0 else float(values[0])


def marks(axes: Axes, x: Sequence[float], trials: pd.DataFrame, floor: float, scale: Normalize | None = None) -> None:
    """Each trial's Delta_m at ``x``: a disc for a whole trial (coloured by its number on ``scale``), a ring for a
    stopped one, a cross for one that diverged or failed. Triangles at the bottom are below the axis."""
    place = np.asarray(x, dtype=np.float64)
    value = trials["delta_m"].to_numpy(dtype=np.float64)
    status = trials["status"].to_numpy()
    whole = np.isin(status, WHOLE)
    below = np.isfinite(value) & (value < floor)
    shown = np.isfinite(value) & ~below
    colours: dict[str, Any] = {"c": canvas.colour(0)}
    if scale is not None:
        colours = {"c": trials["number"].to_numpy(dtype=np.float64)[whole & shown], "cmap": "viridis", "norm": scale}
    axes.scatter(place[whole & shown], value[whole & shown], s=12, zorder=3, linewidths=0, **colours)
    rest = shown & ~whole
    axes.scatter(place[rest], value[rest], s=11, facecolors="none", edgecolors=canvas.MUTED, linewidths=0.7, zorder=2)
    edge = [canvas.colour(0) if is_whole else canvas.MUTED for is_whole in whole[below]]
    axes.scatter(
        place[below], np.full(below.sum(), floor), s=12, marker="v", facecolors="none", edgecolors=edge, linewidths=0.7
    )
    bad = np.isin(status, (schema.DIVERGED, schema.FAILED)) & ~np.isfinite(value)
    axes.scatter(place[bad], np.full(bad.sum(), floor), s=14, marker="x", color=_BAD, linewidths=0.9, zorder=3)


def mark_handles() -> tuple[list[Artist], list[str]]:
    """For a legend of :func:`marks`."""
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 0.7, "linestyle": ""}
    return [
        Line2D([], [], marker="o", color=canvas.colour(0), linestyle="", markersize=3.5),
        Line2D([], [], marker="o", markeredgecolor=canvas.MUTED, markersize=3.5, **ring),
        Line2D([], [], marker="x", color=_BAD, linestyle="", markersize=3.5),
        Line2D([], [], marker="v", markeredgecolor=canvas.MUTED, markersize=3.5, **ring),
    ], ["whole trial", "stopped (pruned)", "diverged or failed", "below the axis"]


def room(axes: Axes, floor: float, top: float) -> None:
    """A y axis from a little below ``floor`` to a little above ``top``."""
    height = max(top - floor, 0.05 * abs(top), 1e-6)
    axes.set_ylim(top - 1.06 * height, top + 0.08 * height)


def history_figure(records: SearchRecords) -> Figure:
    """A panel per contender: every trial's Delta_m by Optuna's number, and the best so far."""
    contenders = records.plan.contenders
    figure, every = panels(len(contenders), 1.7)
    for axes, contender in zip(every, contenders, strict=True):
        trials = records.of_contender(contender.id).sort_values("number")
        axes.set_title(canvas.shorten(contender.label, 34), loc="left")
        if trials.empty:
            canvas.say_missing(axes, "no trial is recorded")
            continue
        floor = floor_of(trials)
        marks(axes, list(trials["number"].astype(float)), trials, floor)
        whole = trials["delta_m"].where(trials["status"].isin(WHOLE)).to_numpy(dtype=np.float64)
        best = np.fmax.accumulate(whole)
        axes.step(trials["number"], np.where(best < floor, np.nan, best), where="post", color=canvas.INK, linewidth=1)
        _default_line(axes, default_delta_m(trials), floor)
        room(axes, floor, float(np.nanmax([*trials["delta_m"], floor])))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _outer_labels(every, "trial", DELTA_M)
    handles, labels = mark_handles()
    lines = [Line2D([], [], color=canvas.INK), Line2D([], [], color=canvas.MUTED, linestyle=":")]
    canvas.legend_above(figure, [*lines, *handles], ["best whole trial so far", "defaults", *labels], 6)
    canvas.footer(figure, [source(records)])
    return figure


def cost_figure(records: SearchRecords) -> Figure:
    """Best so far against trunk passes and against seconds, a line per contender."""
    figure, every = panels(2, 2.6, 2)
    shown: dict[str, Line2D] = {}
    for axes, cost in zip(every, ("trunk_passes", "seconds"), strict=True):
        low, high = math.inf, -math.inf
        for place, contender in enumerate(records.plan.contenders):
            trials = records.of_contender(contender.id)
            made = progress(trials, cost)
            if not math.isfinite(made.final):
                continue
            (line,) = axes.step(
                made.cost, made.best, where="post", color=canvas.colour(place), linestyle=canvas.dashes(place)
            )
            shown[contender.label] = line
            low, high = min(low, float(np.nanmin(made.best))), max(high, made.final)
            axes.plot(made.cost[-1], made.final, marker="|", color=canvas.colour(place), markersize=6)
        axes.set_xlabel(COST_WORDS[cost])
        axes.set_xlim(left=0)
        if not shown:
            canvas.say_missing(axes, "no trial went to its end")
        else:
            room(axes, low, high)
    every[0].set_ylabel(f"best {DELTA_M} so far")
    canvas.legend_above(figure, list(shown.values()), list(shown), 4)
    note = "Cost: of all trials that had ended, those that were stopped or diverged included; one seed each."
    canvas.footer(figure, [source(records), note])
    return figure


def curves_figure(records: SearchRecords) -> Figure:
    """A panel per contender: the objective of every trial at each of its evaluations."""
    contenders = records.plan.contenders
    figure, every = panels(len(contenders), 1.7)
    up = records.maximize[0]
    for axes, contender in zip(every, contenders, strict=True):
        axes.set_title(canvas.shorten(contender.label, 34), loc="left")
        trials = records.of_contender(contender.id)
        curves = records.curves[records.curves["contender"] == contender.id]
        if curves.empty:
            canvas.say_missing(axes, "no evaluation is recorded")
            continue
        best = best_trial(trials)
        status = dict(zip(trials["number"], trials["status"], strict=True))
        for number, curve in curves.groupby("number"):
            _curve(axes, curve, status[number], best=best is not None and number == best["number"])
        last = curves.groupby("number")["value"].last().to_numpy(dtype=np.float64)
        good, middle = (last.max(), float(np.median(last))) if up else (last.min(), float(np.median(last)))
        finite = curves["value"][np.isfinite(curves["value"])]
        reach = 4 * abs(good - middle)
        low = float(max(finite.min(), good - reach)) if up and reach else float(finite.min())
        high = float(finite.max()) if up or not reach else float(min(finite.max(), good + reach))
        room(axes, low, high)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    name = DELTA_M if records.names[0] == "delta_m" else f"{records.names[0]} (validation)"
    _outer_labels(every, "iteration", name)
    handles: list[Artist] = [
        Line2D([], [], color=canvas.colour(0), linewidth=1.8),
        Line2D([], [], color=canvas.colour(5), linewidth=0.8),
        Line2D([], [], color=canvas.MUTED, linewidth=0.7, marker="o", markersize=3, markerfacecolor="white"),
        Line2D([], [], color=_BAD, linewidth=0.8, marker="x", markersize=3.5),
    ]
    canvas.legend_above(figure, handles, ["best trial", "whole", "stopped (pruned)", "diverged or failed"], 4)
    canvas.footer(figure, [source(records), "What lies far from the best is cut off."])
    return figure


def _curve(axes: Axes, curve: pd.DataFrame, status: str, *, best: bool) -> None:
    x, y = curve["step"].to_numpy(), curve["value"].to_numpy(dtype=np.float64)
    if best:
        axes.plot(x, y, color=canvas.colour(0), linewidth=1.8, zorder=4)
        return
    stopped, bad = status == schema.PRUNED, status in (schema.DIVERGED, schema.FAILED)
    colour = _BAD if bad else canvas.MUTED if stopped else canvas.colour(5)
    axes.plot(x, y, color=colour, linewidth=0.7 if stopped else 0.8, alpha=0.75, zorder=2)
    if bad or stopped:
        style: dict[str, Any] = (
            {"marker": "x", "markersize": 3.5} if bad else {"marker": "o", "markersize": 3, "mfc": "white"}
        )
        axes.plot(x[-1:], y[-1:], color=colour, markeredgewidth=0.7, zorder=3, **style)


def pareto_figure(records: SearchRecords) -> Figure:
    """Delta_m against trunk passes, and every pair of the objective's values where there are several; what no other
    trial beats is joined."""
    views = [(("delta_m", "trunk_passes"), (True, False))]
    several = [pair for pair in itertools.combinations(range(len(records.names)), 2) if len(records.names) > 1]
    if len(several) > _MOST_PAIRS:
        several = [(place, place + 1) for place in range(len(records.names) - 1)]
    for a, b in several:
        names = (records.names[a], records.names[b])
        if names != ("delta_m", "trunk_passes"):
            views.append((names, (records.maximize[a], records.maximize[b])))
    figure, every = panels(len(views), 2.5, 2 if len(views) > 1 else 1)
    shown: dict[str, Artist] = {}
    whole = records.trials[records.trials["status"].isin(WHOLE)]
    for axes, (names, better) in zip(every, views, strict=True):
        values = np.column_stack([_column(records, whole, name) for name in names]) if len(whole) else np.empty((0, 2))
        for place, contender in enumerate(records.plan.contenders):
            mine = (whole["contender"] == contender.id).to_numpy()
            if mine.any():
                shown[contender.label] = axes.scatter(
                    values[mine, 1], values[mine, 0], s=13, color=canvas.colour(place), alpha=0.8, linewidths=0
                )
        best = values[front(values, better)]
        best = best[np.argsort(best[:, 1])]
        axes.step(best[:, 1], best[:, 0], where="post" if not better[1] else "pre", color=canvas.INK, linewidth=0.9)
        axes.scatter(best[:, 1], best[:, 0], s=26, facecolors="none", edgecolors=canvas.INK, linewidths=0.8, zorder=3)
        arrows = ["↑ better" if good else "↓ better" for good in better]
        axes.set_xlabel(canvas.text(f"{_words(names[1])} ({'→' if better[1] else '←'} better)"))
        axes.set_ylabel(canvas.text(f"{_words(names[0])} ({arrows[0]})"))
        if not len(whole):
            canvas.say_missing(axes, "no trial went to its end")
        elif names[0] == "delta_m":
            room(axes, max(floor_of(whole), float(np.nanmin(values[:, 0]))), float(np.nanmax(values[:, 0])))
    handles = [*shown.values(), Line2D([], [], color=canvas.INK, marker="o", markerfacecolor="none", markersize=4)]
    canvas.legend_above(figure, handles, [*shown, "no trial is better in both"], 4)
    canvas.footer(figure, [source(records), "Whole trials; far below the best they are cut off."])
    return figure


def _column(records: SearchRecords, trials: pd.DataFrame, name: str) -> Array:
    if name in trials.columns:
        return trials[name].to_numpy(dtype=np.float64)
    place = records.names.index(name)
    return np.array([values[place] for values in trials["values"]], dtype=np.float64)


def _words(name: str) -> str:
    return {"delta_m": DELTA_M, **COST_WORDS}.get(name, name)


def regret_figure(ways: Mapping[str, Sequence[SearchRecords]], contenders: Mapping[str, str]) -> Figure:
    """Ways to search side by side at equal cost: best so far and regret against trunk passes, a line of panels per
    contender.

    Args:
        ways: label to repeats, the one that is asked about first, the reference second.
        contenders: id to label of those that every search has.
    """
    figure = canvas.new_figure(canvas.PAGE, 2.4 * len(contenders) + 0.9)
    every = figure.subplots(len(contenders), 2, squeeze=False)
    shown: dict[str, Line2D] = {}
    labels = list(ways)
    for (left, right), (contender, title) in zip(every, contenders.items(), strict=True):
        finals, lows = [], []
        for place, (label, repeats) in enumerate(ways.items()):
            made = [progress(records.of_contender(contender)) for records in repeats]
            grid = np.linspace(0.0, min(each.total for each in made), 201)
            line = series(made, grid)
            shown[f"{label} ({len(repeats)} repeat{'' if len(repeats) == 1 else 's'})"] = draw_band(
                left, line, canvas.colour(place), canvas.dashes(place)
            )
            finals.append(max(each.final for each in made))
            lows.append(float(np.nanmedian(line.mean)))
            if place:
                against = regret(ways[labels[0]], repeats, contender)
                right.plot(against.grid, against.reference_regret, drawstyle="steps-post", color=canvas.colour(place))
                if place == 1:
                    right.plot(against.grid, against.search_regret, drawstyle="steps-post", color=canvas.colour(0))
                    left.axhline(against.target, color=canvas.MUTED, linestyle=":", linewidth=0.8)
        low, high = min(lows), max(finals)
        room(left, low - 0.6 * max(high - low, 1e-6), high)
        left.set_title(canvas.shorten(title, 40), loc="left")
        left.set_ylabel(f"best {DELTA_M} so far")
        right.set_ylabel("regret, points of Δm")
        right.set_yscale("symlog", linthresh=1.0)
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: canvas.number(value)))
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xlabel("trunk passes")
            axes.set_xlim(left=0)
    canvas.legend_above(figure, list(shown.values()), list(shown), 3)
    canvas.footer(
        figure,
        [
            "Lines: mean over repeats, from where each of them has a whole trial; bands: ± 1 sample standard "
            "deviation. Dotted: what the reference ends with. Regret: distance to the best of any repeat of the two "
            "compared, up to what both have spent."
        ],
    )
    return figure


def _default_line(axes: Axes, value: float, floor: float) -> None:
    if math.isfinite(value) and value >= floor:
        axes.axhline(value, color=canvas.MUTED, linestyle=":", linewidth=0.8, zorder=1)


def _outer_labels(every: Sequence[Axes], x: str, y: str) -> None:
    """Name the axes at the edges of a grid of panels."""
    for axes in every:
        place = axes.get_subplotspec()
        if place is None:
            continue
        if place.is_first_col():
            axes.set_ylabel(y)
        axes.set_xlabel(x)
