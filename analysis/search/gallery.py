"""Every figure of a search, with its name and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures import canvas
from analysis.search import figures_axes as by_axes
from analysis.search import figures_progress as by_progress
from analysis.search.records import SearchRecords

Ways = Mapping[str, Sequence[SearchRecords]]
"""Label of a way to search to its repeats; the one that is asked about first, then the reference."""


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        stem: of its files.
        section: of the page it belongs to.
        title: one line.
        draw: makes it.
    """

    stem: str
    section: str
    title: str
    draw: Callable[[], Figure]


def pictures(records: SearchRecords, ways: Ways) -> Iterator[Picture]:
    """In the order of the page.

    Args:
        records: of the search.
        ways: what it is held against, itself first; empty for nothing.
    """
    yield Picture(
        "history", "progress", "Every trial, and the best so far", partial(by_progress.history_figure, records)
    )
    yield Picture("cost", "progress", "Best so far against cost", partial(by_progress.cost_figure, records))
    yield Picture("curves", "progress", "The objective over training", partial(by_progress.curves_figure, records))
    yield Picture("pareto", "progress", "Gain against cost", partial(by_progress.pareto_figure, records))
    if len(ways) > 1:
        everywhere = common_contenders(ways)
        yield Picture(
            "regret", "regret", "Ways to search at equal cost", partial(by_progress.regret_figure, ways, everywhere)
        )
    yield Picture("importance", "axes", "Which axes matter", partial(by_axes.importance_figure, records))
    for contender in records.plan.contenders:
        for stem, title, draw in (
            ("parallel", "every trial over the axes", by_axes.parallel_figure),
            ("slices", "every axis by itself", by_axes.slices_figure),
            ("contour", "the two axes that matter most", by_axes.contour_figure),
            ("interaction", "axes together", by_axes.interaction_figure),
        ):
            yield Picture(
                f"{stem}-{contender.id}", "axes", f"{contender.label}: {title}", partial(draw, records, contender)
            )


def common_contenders(ways: Ways) -> dict[str, str]:
    """Id to label of the contenders that every search has, in the order of the first."""
    every = [records for repeats in ways.values() for records in repeats]
    shared = set.intersection(*({entry.id for entry in records.plan.contenders} for records in every))
    return {entry.id: entry.label for entry in every[0].plan.contenders if entry.id in shared}


def draw_all(records: SearchRecords, ways: Ways, folder: Path) -> list[tuple[Picture, Path, Path]]:
    """Draw and write every figure, as PNG and SVG.

    Raises:
        StoreError: a file cannot be written, or a search that is compared has nothing to compare.
    """
    out = []
    for picture in pictures(records, ways):
        with canvas.style():
            png, svg = canvas.save(picture.draw(), folder, picture.stem, picture.title)
        out.append((picture, png, svg))
    return out
