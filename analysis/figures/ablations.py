"""Figure 4: what the order of the groups, the way tasks are grouped and the decay rate of the affinity change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import canvas
from analysis.figures.affinity import affinity_axes, beta_label, beta_rows, by_beta, draw_pair, ramp
from analysis.figures.groups import chosen_pairs
from analysis.figures.series import grouping
from analysis.figures.shelf import Shelf, missing_notes, source_notes
from analysis.plan import Plan, PlanRow
from analysis.records import Records
from analysis.tables import columns as c
from analysis.tables import rows_table

ORDER_STUDIES = ("table4_d5", "table4")
GROUPING_STUDIES = ("table4_d5", "table4", "d5")
BETA_STUDIES = ("d4",)

_SELECTIVE = "selective"
_MEASURED = "measured"
_MARKS = ("D", "o", "s")


def fig4(shelf: Shelf) -> Figure:
    """Delta_m by order (a), grouping (b) and decay rate (d), and the affinity of one pair by decay rate (c)."""
    order, groups, betas = (shelf.get(*names) for names in (ORDER_STUDIES, GROUPING_STUDIES, BETA_STUDIES))
    panels: list[tuple[Records | None, list[PlanRow]]] = [
        (order, order_rows(order.plan) if order else []),
        (groups, grouping_rows(groups.plan) if groups else []),
        (betas, beta_rows(betas.plan) if betas else []),
    ]
    used = list({id(records): records for records, _ in panels if records is not None}.values())
    heights = [max(len(rows), 4) for _, rows in panels[:2]]
    figure = canvas.new_figure(canvas.PAGE, 0.24 * max(sum(heights), 12) + 2.0)
    columns = figure.add_gridspec(1, 2)
    left = columns[0].subgridspec(2, 1, height_ratios=heights)
    right = columns[1].subgridspec(2, 1, height_ratios=[1.2, 1])
    axes_a, axes_b, axes_c, axes_d = (figure.add_subplot(part[place]) for part in (left, right) for place in (0, 1))
    titles = ("(a) order of the groups", "(b) grouping", "(d) decay rate β of the affinity")
    marks: dict[str, Artist] = {}
    tables = {id(records): rows_table(records) for records in used}
    for axes, title, (records, rows), studies in zip(
        (axes_a, axes_b, axes_d), titles, panels, (ORDER_STUDIES, GROUPING_STUDIES, BETA_STUDIES), strict=True
    ):
        if records is None or not rows:
            canvas.say_missing(axes, f"{title}: not recorded (run: {shelf.command(studies[0])})")
            continue
        labels = [beta_label(row) if axes is axes_d else row.label for row in rows]
        marks |= delta_m_bars(axes, tables[id(records)], [row.id for row in rows], labels)
        axes.set_title(title, loc="left")
    curves = _beta_curves(axes_c, shelf, betas)
    if not curves and _MEASURED not in marks:
        raise shelf.empty("measured row of an order, a grouping or a decay rate", used or [shelf.first])
    canvas.legend_above(figure, list(marks.values()), list(marks), 4)
    missing = [
        note
        for records in used
        for note in missing_notes(records, dict.fromkeys(r.id for its, rows in panels if its is records for r in rows))
    ]
    spread = "Δm against single-task networks: mean ± sample standard deviation over seeds."
    published = " Published: on Taskonomy, 40,000 iterations." if len(marks) > 1 else ""
    canvas.footer(figure, [*source_notes(used), *missing, spread + published])
    return figure


def order_rows(plan: Plan) -> list[PlanRow]:
    """The rows that differ in the order of the groups."""
    return [row for row in plan.rows if row.id == _SELECTIVE or row.id.startswith(f"{_SELECTIVE}_")]


def grouping_rows(plan: Plan) -> list[PlanRow]:
    """The rows that differ in the way tasks are grouped: all but the baseline and the other orders."""
    others = {row.id for row in order_rows(plan)} - {_SELECTIVE}
    return [row for row in plan.rows if row.id not in others and row.id != plan.baseline]


def delta_m_bars(axes: Axes, table: pd.DataFrame, row_ids: Sequence[str], labels: Sequence[str]) -> dict[str, Artist]:
    """A bar per row with its seed spread and its published values; the legend's entries by label.

    Args:
        axes: to draw in.
        table: of :func:`analysis.tables.rows_table`.
        row_ids: to draw, top to bottom.
        labels: of the rows.
    """
    entries: dict[str, Artist] = {}
    sources = [e for e in table.attrs["columns"] if e["role"] == c.PUBLISHED]
    places = np.arange(len(row_ids))[::-1]
    lines = table.iloc[[table.attrs["row_ids"].index(row_id) for row_id in row_ids]]
    for place, mean, spread in zip(places, lines[c.DELTA_M], lines[c.DELTA_M_SD], strict=True):
        if not math.isfinite(mean):
            canvas.say_no_value(axes, place, "no value")
            continue
        entries[_MEASURED] = canvas.bar(axes, place, mean, spread, canvas.COLOURS[0])
    for number, entry in enumerate(sources):
        values = lines[entry["name"]].to_numpy()
        if np.isfinite(values).any():
            (marks,) = axes.plot(
                values,
                places,
                linestyle="",
                marker=_MARKS[number % len(_MARKS)],
                markersize=4.5,
                color="white",
                markeredgecolor=canvas.COLOURS[1],
            )
            entries[entry["header"].removesuffix(" %")] = marks
    axes.axvline(0.0, color=canvas.INK, linewidth=0.8)
    canvas.bar_rows(axes, places, labels, 28)
    axes.set_xlabel("Δm, %")
    return entries


def _beta_curves(axes: Axes, shelf: Shelf, records: Records | None) -> bool:
    """Whether there was anything to draw."""
    found = by_beta(records) if records is not None else []
    if not found:
        canvas.say_missing(axes, f"(c) affinity by decay rate: not recorded (run: {shelf.command(BETA_STUDIES[0])})")
        return False
    groups = grouping(found[0].records, found[0].row.id)
    source, target = chosen_pairs(groups)[0] if groups is not None else (0, 0)
    affinity_axes(axes)
    for history, colour in zip(found, ramp(len(found)), strict=True):
        draw_pair(axes, history, source, target, colour).set_label(canvas.text(beta_label(history.row)))
    pair = f"{found[0].shorts[source]} → {found[0].shorts[target]}"
    axes.set_title(f"(c) affinity {canvas.text(pair)} by decay rate", loc="left")
    axes.legend()
    return True
