"""Figure 3 and figure D.1: which tasks are grouped together, in how many groups, and the affinity behind it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter

from analysis.figures import canvas
from analysis.figures.affinity import ROW, affinity_axes, draw_pair
from analysis.figures.series import BACKBONE_STUDIES, Grouping, by_backbone, draw_band, grouping
from analysis.figures.shelf import Shelf, missing_notes, source_notes

_BAND = "Lines: mean over seeds; bands: ± 1 sample standard deviation."
_SHARE = "Share of iterations in which two tasks shared a group, in percent, mean over seeds."


def fig3(shelf: Shelf) -> Figure:
    """Two heat maps of grouping frequency, the number of groups, and the affinity of three pairs over training."""
    found = _found(shelf)
    figure = canvas.new_figure(canvas.PAGE, 6.4)
    (left, right), (below_left, below_right) = figure.subplots(2, 2)
    image = draw_together(left, found[0])
    left.set_title(f"(a) grouping frequency, {canvas.text(found[0].label)}", loc="left")
    if len(found) > 1:
        image = draw_together(right, found[-1])
        right.set_title(f"(b) grouping frequency, {canvas.text(found[-1].label)}", loc="left")
    else:
        smallest = BACKBONE_STUDIES[-1]
        run = f" (run: {shelf.command(smallest)})" if smallest in shelf.studies else ""
        canvas.say_missing(right, f"(b) no other backbone is recorded{run}")
    _colorbar(figure, image, [left, right] if len(found) > 1 else [left])
    _counts(below_left, found)
    below_left.set_title("(c) number of groups", loc="left")
    pairs = chosen_pairs(found[0])
    affinity_axes(below_right)
    for place, (i, k) in enumerate(pairs):
        draw_pair(below_right, found[0], i, k, canvas.colour(place))
        if i != k:
            draw_pair(below_right, found[0], k, i, canvas.colour(place), canvas.DASHES[1])
    below_right.legend(ncols=2, loc="best")
    below_right.set_title(f"(d) affinity, {canvas.text(found[0].label)}", loc="left")
    named = "(d): A → B is the effect on B of a step of A; the pairs grouped most often, least often, and between."
    canvas.footer(figure, [*_notes(found), f"{_SHARE} {_BAND} {named}"])
    return figure


def d_fig1(shelf: Shelf) -> Figure:
    """A heat map of grouping frequency for every backbone."""
    found = _found(shelf)
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure = canvas.new_figure(canvas.PAGE if columns > 1 else 4.4, 3.6 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    images = []
    for panel, history in zip(panels, found, strict=False):
        images.append(draw_together(panel, history))
        panel.set_title(canvas.text(history.label), loc="left")
    for panel in list(panels)[len(found) :]:
        panel.set_axis_off()
    _colorbar(figure, images[0], list(figure.axes))
    alone = ["Other backbones are not recorded."] if len(found) == 1 else []
    canvas.footer(figure, [*_notes(found), _SHARE, *alone])
    return figure


def draw_together(axes: Axes, history: Grouping) -> AxesImage:
    """The (K, K) shares as a heat map with numbers, its diagonal (a task with itself) left empty."""
    size = len(history.tasks)
    shares = np.where(np.eye(size, dtype=bool), np.nan, history.together)
    image = axes.imshow(shares, cmap=canvas.SHARES, vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_facecolor(canvas.FAINT)
    axes.grid(visible=False)
    names = [canvas.text(short) for short in history.shorts]
    axes.set_xticks(range(size), names, rotation=45 if size > 6 else 0)
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for i in range(size):
        for k in range(size):
            if i != k and np.isfinite(shares[i, k]):
                ink = "white" if shares[i, k] > 0.55 else canvas.INK
                axes.text(k, i, f"{100 * shares[i, k]:.0f}", ha="center", va="center", fontsize=5.5, color=ink)
    return image


def chosen_pairs(history: Grouping) -> list[tuple[int, int]]:
    """Three pairs of tasks, by index: grouped most often, least often, and the one in the middle; fewer where there are
    fewer pairs. Ties go to the earlier tasks."""
    rows, columns = np.triu_indices(len(history.tasks), k=1)
    if not len(rows):
        return [(0, 0)]
    order = np.argsort(-history.together[rows, columns], kind="stable")
    places = dict.fromkeys((int(order[0]), int(order[-1]), int(order[len(order) // 2])))
    return [(int(rows[place]), int(columns[place])) for place in places]


def _counts(axes: Axes, found: list[Grouping]) -> None:
    for place, history in enumerate(found):
        line = draw_band(axes, history.count, canvas.colour(place), canvas.dashes(place))
        line.set_label(canvas.text(history.label))
    axes.set_xlabel("iteration")
    axes.set_ylabel("groups (mean of a window)")
    axes.set_ylim(bottom=0)
    axes.legend()


def _colorbar(figure: Figure, image: AxesImage, axes: list[Axes]) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=28, pad=0.01, format=PercentFormatter(xmax=1, decimals=0))
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)


def _found(shelf: Shelf) -> list[Grouping]:
    studies = shelf.all()
    found = by_backbone(studies, ROW, grouping)
    if not found:
        raise shelf.empty(f"complete trial of row '{ROW}'", studies)
    return found


def _notes(found: list[Grouping]) -> list[str]:
    missing = [note for history in found for note in missing_notes(history.records, [history.row.id])]
    return [*source_notes(history.records for history in found), *missing]
