"""Charts of lines and of points in SVG, drawn for a page that gives them colour in CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from analysis.escape import clean

COLOURS = 7
"""Of the page's series, ``c0`` to ``c6``; dashes ``d0`` to ``d3`` tell apart what they repeat."""

DASHES = 4

START, RIGHT = 44, 18
"""Pixels left and right of the lines in :func:`line_chart`, for what is drawn over it."""

_DECADES = 8.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic: losses fall fast at first."""

_LABEL = 6.3
"""Pixels of a letter, about."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """From values to pixels: ``low`` at ``start``, ``high`` at ``end``; both finite, and above 0 where ``log``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels; a value outside ends at the edge."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, max(value, self._floor)))
        share = (at - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    @property
    def _floor(self) -> float:
        return self.low if self.log else -math.inf

    def ticks(self, most: int = 5) -> list[float]:
        """Round values of the axis, about ``most``."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1, 2, 5), (1,)):
                found = [f * 10.0**p for p in powers for f in factors if self.low <= f * 10.0**p <= self.high]
                if len(found) <= most:
                    return found
            return found[:: -(-len(found) // most)]
        step = nice_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice_step(raw: float) -> float:
    """1, 2 or 5 times a power of ten, not under ``raw``, which is more than 0."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def axis_for(values: Array, start: float, end: float, *, log: bool = False) -> Axis:
    """An axis that reaches every finite one of ``values`` (any shape) with a little room."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if log and low > 0 and high > _DECADES * low:
        return Axis(low / 1.1, high * 1.1, start, end, log=True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room, start, end)


def number(value: float) -> str:
    """Few digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


@dataclass(frozen=True)
class Line:
    """A line over training.

    Attributes:
        label: of its row.
        place: of its row, which gives its colour and dashes.
        x: (T,) iterations.
        mean: (T,) over seeds.
        sd: (T,) NaN where there is none.
    """

    label: str
    place: int
    x: Array
    mean: Array
    sd: Array


def line_chart(title: str, lines: Sequence[Line], width: int = 290, height: int = 170, *, log: bool = True) -> str:
    """Lines with bands of mean ± sd over iterations; the description gives every line's last value.

    Where ``log`` is set, values that span much get a logarithmic axis.
    """
    x = Axis(0.0, float(max(line.x.max() for line in lines)) or 1.0, START, width - RIGHT)
    y = axis_for(np.concatenate([line.mean for line in lines]), height - 22, 8, log=log)
    ends = "; ".join(f"{line.label} {number(float(line.mean[-1]))}" for line in lines)
    last = f"{x.high:,.0f}"
    parts = [_open(width, height, f"{title}, over iterations 0 to {last}. At the end: {ends}"), *_grid(x, y, 3, 4)]
    for line in lines:
        kind = f"series c{line.place % COLOURS} d{line.place // COLOURS % DASHES}"
        band = _band(x, y, line) if np.isfinite(line.sd).any() else ""
        path = _path(x, y, line.x, line.mean)
        if path and len(line.x) == 1:
            path += "h-8"  # One evaluation, at the end: a line of its own length would not be seen.
        tip = f"<title>{escape(clean(line.label))}</title>"
        parts.append(f'<g class="{kind}" data-row="{line.place}">{tip}{band}<path class="line" d="{path}"/></g>')
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Dot:
    """A point of a scatter chart; ``sd`` is of ``y``, ``hollow`` for what is not compared."""

    label: str
    x: float
    y: float
    sd: float
    hollow: bool = False


def scatter_chart(title: str, x_name: str, y_name: str, dots: Sequence[Dot], front: Sequence[Dot]) -> str:
    """Points with their names and spreads, and a line of steps through ``front``, which is ordered by ``x``."""
    width, height = 520, 400
    spreads = np.array([[dot.y - _zero(dot.sd), dot.y + _zero(dot.sd)] for dot in dots])
    x = axis_for(np.array([dot.x for dot in dots]), 56, width - 16, log=True)
    y = axis_for(spreads, height - 44, 14)
    best = ", ".join(dot.label for dot in front)
    parts = [_open(width, height, f"{title}. On the Pareto line: {best}"), *_grid(x, y, 5, 6)]
    parts.append(
        f'<text class="tick" x="{(x.start + x.end) / 2:.0f}" y="{height - 6}" '
        f'text-anchor="middle">{escape(x_name)}</text>'
    )
    parts.append(
        f'<text class="tick" transform="translate(13 {(y.start + y.end) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_name)}</text>'
    )
    steps = f"M{x(front[0].x):.1f} {y.start:.1f}V{y(front[0].y):.1f}" if front else ""
    steps += "".join(f"H{x(dot.x):.1f}V{y(dot.y):.1f}" for dot in front[1:])
    parts.append(f'<path class="front" d="{steps}H{x.end:.1f}"/>' if steps else "")
    for dot, (left, middle, anchor) in zip(dots, _label_places(dots, x, y), strict=True):
        at, level = x(dot.x), y(dot.y)
        tip = f"{dot.label}: {x_name} {dot.x:,.4g}, {y_name} {dot.y:+.2f}" + (
            f" ± {dot.sd:.2f}" if math.isfinite(dot.sd) else ""
        )
        whisker = (
            f'<path class="spread" d="M{at:.1f} {y(dot.y - dot.sd):.1f}V{y(dot.y + dot.sd):.1f}"/>'
            if math.isfinite(dot.sd)
            else ""
        )
        leader = f'<path class="leader" d="M{at:.1f} {level:.1f}L{left:.1f} {middle - 4:.1f}"/>'
        kind = "dot hollow" if dot.hollow else "dot on-front" if dot in front else "dot"
        parts.append(
            f"<g><title>{escape(clean(tip))}</title>{whisker}{leader if abs(middle - 4 - level) > 8 else ''}"
            f'<circle class="{kind}" cx="{at:.1f}" cy="{level:.1f}" r="5"/>'
            f'<text x="{left:.1f}" y="{middle:.1f}" text-anchor="{anchor}">{escape(clean(dot.label))}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def pareto(dots: Sequence[Dot]) -> list[Dot]:
    """The points no other is as cheap as and better than, or cheaper than and as good as; cheapest first."""
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, -dot.y)):
        if not front or dot.y > front[-1].y:
            front.append(dot)
    return front


def _label_places(dots: Sequence[Dot], x: Axis, y: Axis) -> list[tuple[float, float, str]]:
    """Beside each point, at the side where there is room, moved down until it covers no other name."""
    places: dict[int, tuple[float, float, str]] = {}
    taken: list[tuple[float, float, float]] = []
    for index in sorted(range(len(dots)), key=lambda index: y(dots[index].y)):
        at, wide = x(dots[index].x), _LABEL * len(dots[index].label)
        right = at + 10 + wide <= x.end
        left, middle = (at + 10 if right else at - 10), y(dots[index].y) + 4
        span = (left, left + wide) if right else (left - wide, left)
        while clash := [
            low for start, end, low in taken if start < span[1] and end > span[0] and abs(low - middle) < 14
        ]:
            middle = max(clash) + 14
        taken.append((*span, middle))
        places[index] = (left, middle, "start" if right else "end")
    return [places[index] for index in range(len(dots))]


def _zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _open(width: int, height: int, description: str) -> str:
    return f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(clean(description))}">'


def _grid(x: Axis, y: Axis, columns: int, lines: int) -> list[str]:
    parts = []
    for value in y.ticks(lines):
        level = y(value)
        parts.append(f'<path class="axis" d="M{x.start:.0f} {level:.1f}H{x.end:.0f}"/>')
        parts.append(
            f'<text class="tick" x="{x.start - 5:.0f}" y="{level + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for value in x.ticks(columns):
        parts.append(
            f'<text class="tick" x="{x(value):.1f}" y="{y.start + 16:.0f}" text-anchor="middle">{_short(value)}</text>'
        )
    return parts


def _short(value: float) -> str:
    return number(value) if abs(value) < 1000 else f"{value / 1000:g}k"


def _path(x: Axis, y: Axis, xs: Array, ys: Array) -> str:
    """A line that breaks where a value is not finite."""
    parts, pen = [], "M"
    for at, value in zip(xs, ys, strict=True):
        if math.isfinite(value):
            parts.append(f"{pen}{x(at):.1f} {y(value):.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _band(x: Axis, y: Axis, line: Line) -> str:
    known = np.isfinite(line.sd) & np.isfinite(line.mean)
    xs, mean, sd = line.x[known], line.mean[known], line.sd[known]
    upper = _path(x, y, xs, mean + sd)
    lower = _path(x, y, xs[::-1], (mean - sd)[::-1]).replace("M", "L", 1)
    return f'<path class="band" d="{upper}{lower}Z"/>'
