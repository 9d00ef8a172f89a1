"""Delta_m by row as a bar chart in SVG, drawn for a page that sets its colours in CSS."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

import pandas as pd

from analysis.sheet import clean
from analysis.tables import columns as c

_WIDTH = 860
_LABELS = 230
_ROW = 30
_TOP = 34
_BOTTOM = 30
_RIGHT = 70
_TICKS = 6

STYLE = """
.chart { width: 100%; height: auto; font: 13px system-ui, sans-serif; }
.chart text { fill: var(--ink); }
.chart .axis { stroke: var(--faint); stroke-width: 1; }
.chart .zero { stroke: var(--ink); stroke-width: 1.5; }
.chart .bar { fill: var(--bar); }
.chart .spread { stroke: var(--ink); stroke-width: 1.5; fill: none; }
.chart .published { fill: var(--page); stroke: var(--mark); stroke-width: 2.5; }
.chart .tick { fill: var(--muted); font-size: 12px; }
"""
"""For the page's style sheet; it uses its variables ink, muted, faint, page, bar, mark."""


def delta_m_chart(table: pd.DataFrame) -> str:
    """One bar per row with its seed spread, the published value as a diamond; empty where there is nothing to draw.

    Measured and published differ in shape as well as in colour, so that the chart reads without colour.
    """
    rows = [
        (clean(str(label)), float(mean), float(spread), float(published))
        for label, mean, spread, published in zip(
            table.index, table[c.DELTA_M], table[c.DELTA_M_SD], table[c.PUBLISHED], strict=True
        )
        if label != table.attrs["baseline"]
    ]
    ends = [value for row in rows for value in _extent(*row[1:])]
    if not any(math.isfinite(mean) for _, mean, _, _ in rows):
        return ""
    step = _step(max(*ends, 0.0) - min(*ends, 0.0))
    low, high = math.floor(min(*ends, 0.0) / step) * step, math.ceil(max(*ends, 0.0) / step) * step
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def x(value: float) -> float:
        return _LABELS + (value - low) / (high - low) * (_WIDTH - _LABELS - _RIGHT)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Delta_m by row, in percent">',
        "<title>Delta_m by row, in percent; higher is better</title>",
        *_legend(),
    ]
    for place in range(round((high - low) / step) + 1):
        value = low + place * step
        kind = "zero" if abs(value) < step / 2 else "axis"
        parts.append(
            f'<line class="{kind}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
        )
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{height - 10}" text-anchor="middle">{value:g}</text>')
    for place, (label, mean, spread, published) in enumerate(rows):
        middle = _TOP + _ROW * (place + 0.5)
        shown = label if len(label) <= 34 else label[:33] + "…"
        parts.append(f'<text x="{_LABELS - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(shown)}</text>')
        if math.isfinite(mean):
            parts += _bar(x, mean, spread, middle)
        else:
            parts.append(f'<text class="tick" x="{x(0) + 6:.1f}" y="{middle + 4:.1f}">no value</text>')
        if math.isfinite(published):
            parts.append(f"<g><title>published {published:+.2f}</title>{_diamond(x(published), middle)}</g>")
    parts.append("</svg>")
    return "\n".join(parts)


def _extent(mean: float, spread: float, published: float) -> list[float]:
    half = spread if math.isfinite(spread) else 0.0
    return [value for value in (mean - half, mean + half, published) if math.isfinite(value)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, for about six ticks."""
    if span <= 0:
        return 1.0
    raw = span / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def _legend() -> list[str]:
    return [
        f'<rect class="bar" x="{_LABELS}" y="8" width="22" height="12"/>',
        f'<text x="{_LABELS + 30}" y="19">measured, with the spread over seeds</text>',
        _diamond(_LABELS + 290, 14),
        f'<text x="{_LABELS + 304}" y="19">published</text>',
    ]


def _bar(x: Callable[[float], float], mean: float, spread: float, middle: float) -> list[str]:
    left, right = sorted((x(0.0), x(mean)))
    has_spread = math.isfinite(spread)
    tip = f"{mean:+.2f}" + (f" ± {spread:.2f}" if has_spread else "")
    parts = [
        f"<g><title>measured {tip}</title>"
        f'<rect class="bar" x="{left:.1f}" y="{middle - 8:.1f}" width="{max(right - left, 1):.1f}" height="16"/>'
    ]
    if has_spread:
        low, high = x(mean - spread), x(mean + spread)
        ends = "".join(f"M{end:.1f} {middle - 5:.1f}v10" for end in (low, high))
        parts.append(f'<path class="spread" d="M{low:.1f} {middle:.1f}H{high:.1f}{ends}"/>')
    parts.append("</g>")
    return [*parts, f'<text class="tick" x="{_WIDTH - 4}" y="{middle + 4:.1f}" text-anchor="end">{mean:+.2f}</text>']


def _diamond(x: float, y: float) -> str:
    return f'<path class="published" d="M{x - 6:.1f} {y:.1f}l6 -6l6 6l-6 6Z"/>'
