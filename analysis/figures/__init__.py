"""Figures by name, drawn from the records with matplotlib.

A new figure is one function ``Shelf -> Figure`` and one line in :data:`FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from matplotlib.figure import Figure

from analysis.figures import canvas
from analysis.figures.ablations import BETA_STUDIES, fig4
from analysis.figures.affinity import backbones_figure, betas_figure
from analysis.figures.bars import bars_figure
from analysis.figures.curves import curves_figure
from analysis.figures.equal_compute import equal_compute_figure
from analysis.figures.groups import d_fig1, fig3
from analysis.figures.sensitivity import sensitivity_figure
from analysis.figures.series import BACKBONE_STUDIES
from analysis.figures.shelf import Shelf
from analysis.figures.times import fig2
from trainables.errors import ConfigError, unknown

__all__ = ["FIGURES", "FigureKind", "make_figure"]


@dataclass(frozen=True)
class FigureKind:
    """One figure.

    Attributes:
        about: one line.
        studies: ids of the studies it may be drawn from, most wanted first; empty for any study.
        draw: makes it.
    """

    about: str
    studies: tuple[str, ...]
    draw: Callable[[Shelf], Figure]


_ABLATIONS = ("table4_d5", "table4", "d5")

FIGURES: Mapping[str, FigureKind] = MappingProxyType(
    {
        "fig2": FigureKind("Figure 2: time per batch by method", (*BACKBONE_STUDIES, *_ABLATIONS), fig2),
        "fig3": FigureKind(
            "Figure 3: grouping frequency, number of groups, affinity of three pairs",
            (*BACKBONE_STUDIES, *_ABLATIONS),
            fig3,
        ),
        "fig4": FigureKind("Figure 4: effect of order, grouping and decay rate", (*_ABLATIONS, *BETA_STUDIES), fig4),
        "d_fig1": FigureKind("Figure D.1: grouping frequency by backbone", (*BACKBONE_STUDIES, *_ABLATIONS), d_fig1),
        "d_fig3": FigureKind(
            "Figure D.3: affinity of every pair over training, Taskonomy",
            (*BACKBONE_STUDIES, *_ABLATIONS),
            backbones_figure,
        ),
        "d_fig4": FigureKind(
            "Figure D.4: affinity of every pair over training, NYUD-v2", ("table3_nyud",), backbones_figure
        ),
        "d_fig5": FigureKind(
            "Figure D.5: affinity of every pair over training, PASCAL-Context", ("table3_pascal",), backbones_figure
        ),
        "d_fig6": FigureKind(
            "Figure D.6: affinity of every pair over training, by decay rate", BETA_STUDIES, betas_figure
        ),
        "equal_compute": FigureKind(
            "Delta_m on the validation split over trunk passes and over seconds",
            ("equal_compute",),
            equal_compute_figure,
        ),
        "curves": FigureKind("Training and validation curves of every task of a study", (), curves_figure),
        "sensitivity": FigureKind("How far each knob moves Delta_m around the defaults", (), sensitivity_figure),
        "bars": FigureKind("Change of every task against single-task networks, by row of a study", (), bars_figure),
    }
)


def make_figure(name: str, home: Path, profile: str | None, folder: Path, *, study: str | None = None) -> list[Path]:
    """Draw a figure from the records and write it as PNG and SVG.

    Args:
        name: one of :data:`FIGURES`.
        home: the folder with the records.
        profile: which records; without it, those of the profile planned last.
        folder: where to write; made where needed.
        study: draw from this study instead of the figure's own. A figure of any study needs it where several are
            recorded.

    Returns:
        the files: ``fig3-cpu.png``, ``fig3-cpu.svg``; with a study's id where it may be of any
        (``bars-table4_d5-cpu.png``).

    Raises:
        ConfigError: no such figure, or the study has to be named.
        StoreError: nothing to draw is recorded, the records cannot be read, or the files cannot be written.
    """
    if name not in FIGURES:
        raise ConfigError(unknown("figure", name, FIGURES))
    kind = FIGURES[name]
    shelf = Shelf(name, Path(home), profile, kind.studies, study)
    with canvas.style():
        figure = kind.draw(shelf)
        named = f"-{shelf.first.plan.study}" if study is not None or not kind.studies else ""
        return canvas.save(figure, Path(folder), f"{name}{named}-{shelf.profile}", kind.about)
