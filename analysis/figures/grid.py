"""Many small panels on one pair of axes: a hundred of matplotlib's own take seconds to lay out and draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colors import Colormap, Normalize
from numpy.typing import NDArray

from analysis.figures import canvas
from analysis.figures.series import Array, Series

_WIDE, _HIGH = 0.9, 0.92
"""Of a panel that its curves may take; the rest is the gap to the next."""


class CurveGrid:
    """K x K panels of curves around 0, row 0 at the top.

    The axes run from 0 to K: panel (row, column) is the unit square whose lower left corner is (column, K - 1 - row).

    Args:
        axes: to draw on; their own ticks and frame are taken away.
        names: (K,) of rows and columns, as they are shown.
        heights: (K,) the value at the top of each column's panels; said under the column's name.
        span: first and last x of every panel.
    """

    def __init__(self, axes: Axes, names: list[str], heights: Array, span: tuple[float, float]) -> None:
        self._axes = axes
        self._heights = heights
        self._span = span
        self._size = size = len(names)
        axes.set_xlim(0, size)
        axes.set_ylim(0, size)
        axes.grid(visible=False)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0, labelsize=6.5, labelcolor=canvas.INK)
        axes.xaxis.tick_top()
        middles = np.arange(size) + 0.5
        tops = [canvas.number(float(height)) for height in heights]
        axes.set_xticks(middles, [f"{name}\n±{top}" for name, top in zip(names, tops, strict=True)])
        axes.set_yticks(middles[::-1], names)
        zeros = [[(c, r + 0.5), (c + 1, r + 0.5)] for r in range(size) for c in range(size)]
        axes.add_collection(LineCollection(zeros, colors=canvas.MUTED, linewidths=0.5, zorder=1.5), autolim=False)

    def tint(self, values: Array, colours: Colormap, limit: float) -> QuadMesh:
        """Fill the panels by (K, K) ``values``, from -``limit`` to ``limit``; white where one is NaN."""
        edges = np.arange(self._size + 1)
        return self._axes.pcolormesh(
            *(edges, edges, np.ma.masked_invalid(values[::-1])),
            cmap=colours,
            norm=Normalize(-limit, limit),
            edgecolors="white",
            linewidth=1.6,
            zorder=1,
        )

    def draw(self, curves: dict[tuple[int, int], Series], colour: str) -> None:
        """A curve with its seed band in each of some panels.

        Args:
            curves: by (row, column), each (T,).
            colour: of all of them.
        """
        first, last = self._span
        lines: list[Array] = []
        dots: list[Array] = []
        bands: list[Array] = []
        for (row, column), series in curves.items():
            x = (series.x - first) / (last - first) if last > first else np.full(series.x.shape, 0.5)
            place = _Place(self._size, row, column, float(self._heights[column]))
            points = place.of(x, series.mean)
            lines.append(points)
            if len(x) < 3:
                dots.append(points)
            for low, high in _runs(np.isfinite(series.sd) & np.isfinite(series.mean)):
                part = slice(low, high)
                above = place.of(x[part], series.mean[part] + series.sd[part])
                under = place.of(x[part], series.mean[part] - series.sd[part])
                bands.append(np.concatenate([above, under[::-1]]))
        axes = self._axes
        axes.add_collection(PolyCollection(bands, facecolors=colour, alpha=0.18, linewidths=0, zorder=2), autolim=False)
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=0.9, capstyle="round", zorder=3), autolim=False
        )
        if dots:
            axes.plot(*np.concatenate(dots).T, linestyle="", marker="o", markersize=2, color=colour, zorder=3)


class _Place:
    """Where a panel is.

    Args:
        size: panels in a row.
        row: from the top.
        column: from the left.
        height: the value at its top.
    """

    def __init__(self, size: int, row: int, column: int, height: float) -> None:
        self._left, self._middle, self._height = column, size - 1 - row + 0.5, height

    def of(self, x: Array, values: Array) -> Array:
        """(T, 2) points from x in [0, 1] and values around 0."""
        across = self._left + 0.5 + _WIDE * (x - 0.5)
        return np.column_stack([across, self._middle + 0.5 * _HIGH * values / self._height])


def _runs(where: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Beginnings and ends of what is true in a row, two or more of them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(np.int8), [0]])))
    pairs: Any = edges.reshape(-1, 2)
    return [(int(low), int(high)) for low, high in pairs if high - low > 1]
