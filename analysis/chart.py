"""Delta_m by row as a bar chart in SVG, drawn for a page that sets its colours in CSS."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

import pandas as pd

from analysis.escape import clean
from analysis.tables import columns as c

_WIDTH = 860
_LABELS = 230
_ROW = 30
_TOP = 34
_LEGEND_ROW = 20
_BOTTOM = 30
_RIGHT = 70
_TICKS = 6
_LONGEST_LABEL = 34

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
    """One bar per row with its seed spread, a mark for each published value; empty where there is nothing to draw.

    Measured and published differ in shape as well as in colour, and so do the settings numbers were published for.
    """
    table = table[table.index != table.attrs["baseline"]]
    sources = [
        entry for entry in table.attrs["columns"] if entry["role"] == c.PUBLISHED and table[entry["name"]].notna().any()
    ]
    ends = [0.0, *_ends(table, [entry["name"] for entry in sources])]
    if not table[c.DELTA_M].notna().any():
        return ""
    step = _step(max(ends) - min(ends))
    low, high = math.floor(min(ends) / step) * step, math.ceil(max(ends) / step) * step
    top = _TOP + _LEGEND_ROW * (max(len(sources) - 1, 0) // 2)
    height = top + _ROW * len(table) + _BOTTOM

    def x(value: float) -> float:
        return _LABELS + (value - low) / (high - low) * (_WIDTH - _LABELS - _RIGHT)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Delta_m by row, in percent">',
        "<title>Delta_m by row, in percent; higher is better</title>",
        *_legend([clean(entry["header"]) for entry in sources]),
    ]
    for place in range(round((high - low) / step) + 1):
        value = low + place * step
        kind, left = "zero" if abs(value) < step / 2 else "axis", f"{x(value):.1f}"
        parts.append(f'<line class="{kind}" x1="{left}" x2="{left}" y1="{top}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{left}" y="{height - 10}" text-anchor="middle">{value:g}</text>')
    for place, (name, mean, spread) in enumerate(zip(table.index, table[c.DELTA_M], table[c.DELTA_M_SD], strict=True)):
        middle = top + _ROW * (place + 0.5)
        label = clean(str(name))
        shown = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
        parts.append(f'<text x="{_LABELS - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(shown)}</text>')
        if math.isfinite(mean):
            parts += _bar(x, mean, spread, middle)
        else:
            parts.append(f'<text class="tick" x="{_WIDTH - 4}" y="{middle + 4:.1f}" text-anchor="end">no value</text>')
        for number, entry in enumerate(sources):
            value = table[entry["name"]].iloc[place]
            if math.isfinite(value):
                tip = escape(f"{clean(entry['header']).removesuffix(' %')}: {value:+.2f}")
                parts.append(f"<g><title>{tip}</title>{_mark(number, x(value), middle)}</g>")
    parts.append("</svg>")
    return "\n".join(parts)


def _ends(table: pd.DataFrame, published: list[str]) -> list[float]:
    """Every number the axis must reach."""
    half = table[c.DELTA_M_SD].fillna(0.0)
    ends = pd.concat([table[c.DELTA_M] - half, table[c.DELTA_M] + half, *(table[name] for name in published)])
    return ends.dropna().tolist()


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, for about six ticks."""
    if span <= 0:
        return 1.0
    raw = span / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def _legend(published: list[str]) -> list[str]:
    parts = [
        f'<rect class="bar" x="{_LABELS}" y="8" width="22" height="12"/>',
        f'<text x="{_LABELS + 30}" y="19">measured, with the spread over seeds</text>',
    ]
    for number, name in enumerate(published):
        left, middle = _LABELS + 290 + 160 * (number % 2), 14 + _LEGEND_ROW * (number // 2)
        parts += [_mark(number, left, middle), f'<text x="{left + 14}" y="{middle + 5}">{escape(name)}</text>']
    return parts


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


def _mark(number: int, x: float, y: float) -> str:
    """A diamond, a circle, a square, and around again."""
    paths = (
        f"M{x - 6:.1f} {y:.1f}l6 -6l6 6l-6 6Z",
        f"M{x - 5:.1f} {y:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
        f"M{x - 5:.1f} {y - 5:.1f}h10v10h-10Z",
    )
    return f'<path class="published" d="{paths[number % len(paths)]}"/>'
