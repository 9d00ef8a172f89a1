"""Affinity and groups over training: heat maps of one moment, moved through training by a slider."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from analysis.escape import clean
from analysis.figures.affinity import ROW
from analysis.figures.series import over_seeds
from analysis.plan import PlanRow
from analysis.records import Records
from analysis.report.curves import legend_entry, row_lines, thinned
from analysis.report.markup import safe, section
from analysis.report.plot import RIGHT, START, Array, line_chart, number
from study import schema
from trainables.errors import StoreError

_FRAMES = 60
_NUMBERS = 400_000
"""Of all maps of all rows together; frames are left out until it is kept."""

_UNITS = 1000
"""Affinities are kept as whole numbers of a thousandth of their row's limit."""

_SIDE = 330
_MARGIN = 46
_MOST_WRITTEN = 14
"""Tasks up to which a cell has room for its number."""

_INVERTED = 55
"""Percent from which a cell's number is written in the colour of the page."""

_WANTED = ("iteration", "affinity", "group", "together", "tasks")


@dataclass(frozen=True)
class Film:
    """What a row's trials grouped, frame by frame.

    Attributes:
        row: its id.
        label: of the row.
        tasks: (K,) abbreviations.
        x: (T,) iterations.
        affinity: (T, K, K) from the first task to the second, mean over seeds; NaN where not tracked.
        together: (T, K, K) share of a frame's iterations in which two tasks shared a group, mean over seeds.
        groups: seed to (T, K): the position of each task's group, at the frame's end.
    """

    row: str
    label: str
    tasks: tuple[str, ...]
    x: Array
    affinity: Array
    together: Array
    groups: dict[int, Array]

    @property
    def limit(self) -> float:
        """The magnitude of affinity that has the full colour: all but the largest hundredth between two tasks."""
        apart = np.abs(self.affinity[:, ~np.eye(len(self.tasks), dtype=bool)])
        apart = apart[np.isfinite(apart)]
        return float(np.quantile(apart, 0.99)) if apart.size and apart.max() > 0 else 1.0


def grouping_section(records: Records) -> str:
    """Number of groups, affinity and groups of every row that has any; empty where none has."""
    found = films(records)
    if not found:
        return ""
    counted = schema.GROUP_COUNT in records.metric_names
    count = row_lines(records, records.curves(schema.GROUP_COUNT)) if counted else []
    tracked = [film for film in found if np.isfinite(film.affinity).any()] or found
    first = next((film for film in tracked if film.row == ROW), tracked[0])
    start = found.index(first)
    return section(
        "grouping",
        "Affinity and groups over training",
        [
            "<p>Affinity from a task (row) to another (column): the relative fall of the second task's loss over an "
            "update of the first task's group; mean over seeds. Grouped together: percent of the iterations since the "
            "frame before, mean over seeds. Full colour: the largest affinities between two tasks, over the whole "
            "training.</p>",
            _controls(found, start),
            f'<div class="maps">{_map("affinity", first)}{_map("together", first)}</div>',
            f'<div id="film-groups" aria-live="polite">{_groups(first, len(first.x) - 1)}</div>',
            _counts(count),
            f'<script type="application/json" id="films">{_data(found)}</script>',
        ],
    )


def films(records: Records) -> list[Film]:
    """Of the rows whose complete trials kept a history, in the plan's order; damaged histories are left out."""
    plan = records.plan
    shorts = {task.name: clean(task.short or task.name) for task in plan.tasks}
    done = records.trials[records.trials["status"] == schema.COMPLETE]
    frames = max(2, min(_FRAMES, _NUMBERS // (2 * len(plan.tasks) ** 2 * max(len(plan.rows), 1))))
    found = []
    for row in plan.rows:
        histories: dict[int, dict[str, Any]] = {}
        names: tuple[str, ...] = ()
        for seed, key in done.loc[done["row"] == row.id, ["seed", "trial_key"]].itertuples(index=False, name=None):
            history = _history(records, key)
            if history is None or (names and names != tuple(map(str, history["tasks"]))):
                continue
            names = tuple(map(str, history["tasks"]))
            histories[int(seed)] = history
        if histories and len(names) > 1:
            known = tuple(shorts.get(name, clean(name)) for name in names)
            found.append(_film(row, known, histories, frames))
    return found


def _history(records: Records, key: str) -> dict[str, Any] | None:
    try:
        return records.whole_history(key, _WANTED)
    except StoreError:
        return None


def _film(row: PlanRow, tasks: tuple[str, ...], histories: dict[int, dict[str, Any]], frames: int) -> Film:
    def mean(name: str) -> tuple[Array, Array]:
        series = over_seeds([(history["iteration"].astype(float), history[name]) for history in histories.values()])
        return series.x, series.mean

    x, affinity = mean("affinity")
    _, together = mean("together")
    keep = thinned(len(x), frames)
    groups = {}
    for seed, history in histories.items():
        places = np.searchsorted(history["iteration"], x[keep], side="right") - 1
        groups[seed] = history["group"][np.maximum(places, 0)]
    return Film(row.id, row.label, tasks, x[keep], affinity[keep], together[keep], groups)


def _controls(found: Sequence[Film], start: int) -> str:
    options = "".join(
        f'<option value="{place}"{" selected" if place == start else ""}>{safe(film.label)}</option>'
        for place, film in enumerate(found)
    )
    last = len(found[start].x) - 1
    return (
        '<div class="tools film scripted">'
        f'<label>Row <select id="film-row">{options}</select></label>'
        '<button type="button" id="film-play" aria-pressed="false">Play</button>'
        f'<label class="grow">Iteration '
        f'<input type="range" id="film-frame" min="0" max="{last}" value="{last}" step="1"></label>'
        f'<output id="film-at" for="film-frame">{found[start].x[-1]:,.0f}</output></div>'
    )


def _map(kind: str, film: Film) -> str:
    """The last frame as a heat map; the script redraws its cells."""
    size = len(film.tasks)
    side = _SIDE / size
    values = (film.affinity if kind == "affinity" else film.together)[-1]
    titles = {"affinity": "Affinity, row to column", "together": "Grouped together, percent"}
    parts = [
        f'<svg class="plot map" id="map-{kind}" viewBox="0 0 {_SIDE + _MARGIN + 4} {_SIDE + _MARGIN + 4}" role="img" '
        f'aria-label="{titles[kind]}, {size} by {size} tasks, moved by the slider over it">'
    ]
    for place, task in enumerate(film.tasks):
        at = _MARGIN + side * (place + 0.5)
        parts.append(f'<text x="{_MARGIN - 5}" y="{at + 4:.1f}" text-anchor="end">{escape(task[:6])}</text>')
        parts.append(f'<text x="{at:.1f}" y="{_MARGIN - 7}" text-anchor="middle">{escape(task[:6])}</text>')
    for row in range(size):
        for column in range(size):
            value = float(values[row, column])
            style, opacity, text, tip = _look(kind, value, film.limit, row == column)
            left, top, wide = _MARGIN + side * column, _MARGIN + side * row, side - 1
            name = f"{film.tasks[row]} {'→' if kind == 'affinity' else 'with'} {film.tasks[column]}"
            parts.append(
                f'<rect class="cell {style}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{wide:.1f}"'
                f' fill-opacity="{opacity:.2f}" data-name="{escape(name)}">'
                f"<title>{escape(f'{name}: {tip}')}</title></rect>"
            )
            if kind == "together" and size <= _MOST_WRITTEN:
                ink = "value on" if text and float(text) > _INVERTED else "value"
                parts.append(
                    f'<text class="{ink}" x="{left + side / 2:.1f}" y="{top + side / 2 + 4:.1f}" '
                    f'text-anchor="middle">{text}</text>'
                )
    key = _key(film.limit) if kind == "affinity" else ""
    return f"<figure><figcaption>{titles[kind]}</figcaption>{''.join(parts)}</svg>{key}</figure>"


def _look(kind: str, value: float, limit: float, itself: bool) -> tuple[str, float, str, str]:
    """Class, opacity, number in the cell and words of a cell. A task with itself is not what grouping is about."""
    tip = "not tracked" if not math.isfinite(value) else number(value) if kind == "affinity" else f"{100 * value:.0f} %"
    if itself or not math.isfinite(value):
        return ("self", 1.0, "", tip)
    if kind == "together":
        return ("share", value, f"{100 * value:.0f}", tip)
    return ("pos" if value >= 0 else "neg", min(abs(value) / limit, 1.0), "", tip)


def _key(limit: float) -> str:
    """What the colours of affinity mean."""
    return (
        f'<p class="key"><span class="swatch neg"></span> <span id="film-low">−{number(limit)}</span> hinders'
        f'<span class="swatch pos"></span> <span id="film-high">{number(limit)}</span> helps</p>'
    )


def _groups(film: Film, frame: int) -> str:
    lines = []
    for seed, positions in film.groups.items():
        groups: dict[int, list[str]] = {}
        for task, position in zip(film.tasks, positions[frame], strict=True):
            groups.setdefault(int(position), []).append(task)
        shown = " ".join(f'<span class="group">{safe(", ".join(groups[place]))}</span>' for place in sorted(groups))
        lines.append(f'<p><span class="seed">seed {seed}</span> {shown}</p>')
    return "".join(lines)


def _counts(lines: Sequence[Any]) -> str:
    if not lines:
        return ""
    width = 760
    end = width - RIGHT
    high = max(float(line.x.max()) for line in lines)
    chart = line_chart("Number of groups", lines, width, 190, log=False).removesuffix("</svg>")
    cursor = f'<path id="film-cursor" data-start="{START}" data-end="{end}" data-high="{high:g}" d="M{end} 8V168"/>'
    legend = "".join(legend_entry(line.place, line.label) for line in lines)
    return (
        "<figure><figcaption>Number of groups, mean over a frame's iterations and seeds</figcaption>"
        f'<fieldset class="legend" data-for="count-panel"><legend>Rows shown</legend>{legend}</fieldset>'
        f'<div id="count-panel">{chart}{cursor}</svg></div></figure>'
    )


def _data(found: Sequence[Film]) -> str:
    """The films for the script; no "<", so that nothing in them ends the element they are in."""
    out = []
    for film in found:
        units = np.clip(film.affinity / film.limit * _UNITS, -(10**6), 10**6).round()
        out.append(
            {
                "tasks": film.tasks,
                "x": [int(step) for step in film.x],
                "limit": film.limit,
                "affinity": [_whole(frame) for frame in units],
                "together": [_whole(frame) for frame in (100 * film.together).round()],
                "groups": {str(seed): positions.tolist() for seed, positions in film.groups.items()},
            }
        )
    return json.dumps(out, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _whole(frame: Array) -> list[int | None]:
    return [int(value) if math.isfinite(value) else None for value in frame.ravel()]
