"""What every figure shares: sizes and colours, footers, and files that come out the same each time they are drawn."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.escape import clean
from analysis.files import write_whole

PAGE = 7.2
"""Inches: the width of a printed page's text, for which every figure is sized."""

COLUMN = 3.5
"""Inches: the width of one of two columns."""

DPI = 200

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4f24")
"""Told apart under the common kinds of colour blindness (Okabe and Ito), the yellow left out on white paper."""

DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
"""Line styles, which tell apart what the colours repeat."""

INK = "#1b1f24"
MUTED = "#57606a"
FAINT = "#d8dee4"

SHARES = "Blues"
"""The colour map of shares from 0 to 1."""

SIGNED = "PuOr"
"""The diverging colour map, for values around 0: orange below, purple above."""

_STYLE: Mapping[Any, Any] = MappingProxyType(
    {
        "font.family": ["DejaVu Sans", "sans-serif"],
        "font.size": 7.5,
        "axes.titlesize": 8,
        "axes.labelsize": 7.5,
        "xtick.labelsize": 6.5,
        "ytick.labelsize": 6.5,
        "legend.fontsize": 6.5,
        "legend.framealpha": 0.8,
        "legend.edgecolor": "none",
        "lines.linewidth": 1.2,
        "axes.linewidth": 0.6,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "text.color": INK,
        # Hinted letters differ in width between the two files, which share one layout.
        "text.hinting": "no_hinting",
        # Labels come from study files: a dollar sign there is a dollar sign.
        "text.parse_math": False,
        # Text stays text: it can be searched, selected and read aloud.
        "svg.fonttype": "none",
        "svg.hashsalt": "mtl-study",
    }
)


@contextmanager
def style() -> Iterator[None]:
    """Draw by this module's settings and by no others: a user's matplotlibrc does not show."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colour(place: int) -> str:
    """Of the line at ``place``; repeated after all were given."""
    return COLOURS[place % len(COLOURS)]


def dashes(place: int) -> Any:
    """The line style of the line at ``place``: another one each time the colours begin anew."""
    return DASHES[place // len(COLOURS) % len(DASHES)]


def text(value: object) -> str:
    """A label as it may be drawn: one line, and not hidden by matplotlib for a leading underscore."""
    shown = clean(str(value))
    return f" {shown}" if shown.startswith("_") else shown


def shorten(value: object, length: int) -> str:
    """:func:`text`, cut to ``length`` characters."""
    shown = text(value)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def number(value: float) -> str:
    """For ticks and notes: few digits, a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


def footer(figure: Figure, notes: Sequence[str]) -> None:
    """Say under the figure where it comes from, one note after another, wrapped to its width."""
    width = int(figure.get_figwidth() * 22)
    lines = [line for note in notes for line in textwrap.wrap(text(note), width)]
    # The layout keeps the place of a supxlabel free; a plain text it would draw over.
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6, color=MUTED, linespacing=1.35)


def legend_above(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int) -> None:
    """One legend for all panels, over them."""
    if handles:
        figure.legend(
            handles, [text(label) for label in labels], loc="outside upper center", ncols=min(columns, len(handles))
        )


def say_missing(axes: Axes, message: str) -> None:
    """A panel without records: its frame, and what to run for it."""
    axes.set_axis_off()
    axes.set_in_layout(True)
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text(message), 34),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=MUTED,
        style="italic",
    )


def say_no_value(axes: Axes, place: float, message: str) -> None:
    """A row of a bar chart without a number, at ``place`` of its y axis."""
    axes.text(
        0.03,
        place,
        text(message),
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=6,
        color=MUTED,
        style="italic",
    )


def bar(axes: Axes, place: float, value: float, spread: float, fill: str) -> Artist:
    """A bar from 0 to ``value`` at ``place`` of the y axis, with a whisker of ``spread`` to both sides unless it is
    NaN."""
    error = {"elinewidth": 0.8, "capsize": 1.5, "ecolor": INK}
    whisker = spread if math.isfinite(spread) else None
    return axes.barh(place, value, xerr=whisker, height=0.64, color=fill, error_kw=error).patches[0]


def bar_rows(axes: Axes, places: NDArray[np.int64], labels: Sequence[str], length: int) -> None:
    """Name the rows of a horizontal bar chart."""
    axes.set_yticks(places, [shorten(label, length) for label in labels])
    axes.set_ylim(-0.7, len(places) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def save(figure: Figure, folder: Path, stem: str, title: str) -> list[Path]:
    """Write ``STEM.png`` and ``STEM.svg``, each in one step, and return their paths.

    The same figure gives the same bytes: no date, no random ids.

    Raises:
        StoreError: the folder or a file cannot be written.
    """
    # Laid out once: both files then agree, and the layout is most of the work of a figure of many panels.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    png, svg = io.BytesIO(), io.BytesIO()
    # Not by `savefig`, which draws everything once more before it draws.
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None, "Title": text(title)})
    described = {"Date": None, "Creator": "mtl-study", "Title": text(title)}
    FigureCanvasSVG(figure).print_svg(svg, metadata=described)
    return [
        write_whole(folder / f"{stem}.png", png.getvalue(), "figure"),
        write_whole(folder / f"{stem}.svg", svg.getvalue(), "figure"),
    ]
