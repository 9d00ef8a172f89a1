"""What stands in each figure: values, lines, bands, and what is said to be missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from figure_records import BETAS, beta_study, every_study, grouped_study
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_records import SyntheticStore

from analysis.figures import FIGURES, canvas
from analysis.figures.affinity import symmetric_limit
from analysis.figures.bars import relative_changes
from analysis.figures.shelf import Shelf
from analysis.figures.times import e1_row, iteration_seconds, relative_published
from analysis.records import Records


@pytest.fixture(scope="module")
def full_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """For tests that only read."""
    return every_study(tmp_path_factory.mktemp("figures"), empty_store)


def draw(home: Path, name: str, study: str | None = None) -> Figure:
    with canvas.style():
        figure = FIGURES[name].draw(Shelf(name, home, None, FIGURES[name].studies, study))
        figure.draw_without_rendering()
    return figure


def texts(artist: Figure | Axes) -> list[str]:
    return [text.get_text() for text in artist.findobj(Text) if text.get_text()]


def panel(figure: Figure, title: str) -> Axes:
    found = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    assert len(found) == 1
    return found[0]


def data_lines(axes: Axes) -> list:
    """Lines over training: those that mark 0 have two points."""
    return [line for line in axes.lines if len(line.get_xdata()) == 3]


def bands(axes: Axes) -> list:
    return axes.findobj(PolyCollection)


def test_fig3_heat_maps_hold_the_mean_share(full_home: Path) -> None:
    figure = draw(full_home, "fig3")
    for title in ("(a) grouping frequency, vit_base (d1)", "(b) grouping frequency, vit_tiny (d3)"):
        (image,) = panel(figure, title).images
        assert image.get_clim() == (0.0, 1.0)
        shown = image.get_array()
        assert shown[0, 1] == pytest.approx(0.54)
        assert shown[1, 0] == pytest.approx(0.54)
        assert shown.mask.tolist() == [[True, False], [False, True]]
        assert "54" in texts(panel(figure, title))
    counts = panel(figure, "(c)")
    assert [line.get_label() for line in data_lines(counts)] == ["vit_base (d1)", "vit_tiny (d3)"]
    assert len(bands(counts)) == 2
    np.testing.assert_allclose(data_lines(counts)[0].get_ydata(), [2.0, 2.0, 1.0])
    pairs = panel(figure, "(d)")
    assert [line.get_label() for line in data_lines(pairs)] == ["De → Se", "Se → De"]
    np.testing.assert_allclose(data_lines(pairs)[0].get_ydata(), [-0.015, -0.0225, -0.03])


def test_fig3_says_that_a_second_backbone_is_missing(store: SyntheticStore) -> None:
    grouped_study(store, "table4_d5")
    said = " ".join(" ".join(texts(draw(store.home, "fig3"))).split())
    assert "(b) no other backbone is recorded (run: mtl-study run d3)" in said


def test_d_fig1_has_a_heat_map_per_backbone(full_home: Path) -> None:
    figure = draw(full_home, "d_fig1")
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles == ["vit_base (d1)", "vit_tiny (d3)"]


def curve_collections(figure: Figure) -> list[LineCollection]:
    """The curves of a grid of panels, a collection for each history; the first collection are the zero lines."""
    return [c for c in figure.axes[0].collections if isinstance(c, LineCollection)][1:]


def grid_lines(figure: Figure) -> list[dict[tuple[int, int], float]]:
    """The last value of each curve by (row, column), for each history; as exact as the heights that are said."""
    axes = figure.axes[0]
    size = len(axes.get_yticks())
    heights = [float(label.get_text().rpartition("±")[2]) for label in axes.get_xticklabels()]
    found = []
    for collection in curve_collections(figure):
        ends = {}
        for segment in collection.get_segments():
            x, y = segment[-1]
            column, row = int(x), size - 1 - int(y)
            ends[row, column] = (y - (size - 1 - row + 0.5)) / 0.46 * heights[column]
        found.append(ends)
    return found


@pytest.mark.parametrize(("name", "study"), [("d_fig3", "d1"), ("d_fig4", "table3_nyud"), ("d_fig5", "table3_pascal")])
def test_pair_grid_has_a_line_and_a_band_for_every_pair(full_home: Path, name: str, study: str) -> None:
    figure = draw(full_home, name, study)
    lines, bands = grid_lines(figure), [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    assert (len(lines), len(bands)) == (1, 1)
    (ends,) = lines
    assert ends == pytest.approx({(0, 0): 0.045, (0, 1): -0.03, (1, 0): 0.015, (1, 1): 0.045}, rel=0.01)
    assert len(bands[0].get_paths()) == 4
    # A band is inside its panel, and a column's panels agree in height: the larger curve reaches further.
    for path in bands[0].get_paths():
        (left, low), (right, high) = path.vertices.min(axis=0), path.vertices.max(axis=0)
        assert int(left) == int(right)
        assert int(low) == int(high)
    low, high = figure.axes[1].get_ylim()
    assert low == -high == pytest.approx(-0.045)


def test_pair_grid_has_a_line_for_every_backbone(full_home: Path) -> None:
    figure = draw(full_home, "d_fig3")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["vit_base (d1)", "vit_tiny (d3)"]
    ends = [line[0, 1] for line in grid_lines(figure)]
    np.testing.assert_allclose(ends, [1.5 * -0.02, 1.5 * (-0.02 + 0.1)], rtol=0.01)


def test_tints_are_of_the_sign_of_the_affinity(full_home: Path) -> None:
    figure = draw(full_home, "d_fig3", "d1")
    (mesh,) = (c for c in figure.axes[0].collections if isinstance(c, QuadMesh))
    mesh.update_scalarmappable()
    # Row 0 is at the top, and the mesh begins at the bottom.
    colours = mesh.get_facecolors().reshape(2, 2, 4)[::-1]
    own, worse, better = colours[0, 0], colours[0, 1], colours[1, 0]
    # Purple (more blue than red) above 0, orange below.
    assert own[2] > own[0]
    assert worse[0] > worse[2]
    assert better[2] > better[0]


@pytest.mark.parametrize(("values", "limit"), [([0.1, -0.3], 0.3), ([np.nan, 0.2], 0.2), ([np.nan], 1.0), ([], 1.0)])
def test_symmetric_limit(values: list[float], limit: float) -> None:
    assert symmetric_limit([np.array(values)]) == limit


def test_d_fig6_has_a_line_per_beta_in_order(full_home: Path) -> None:
    figure = draw(full_home, "d_fig6")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"β = {beta:g}" for beta in BETAS.values()]
    colours = [to_hex(c.get_color()[0]) for c in curve_collections(figure)]
    assert len(set(colours)) == 5
    # The largest beta comes first in the plan and has the smallest shift; smallest beta first, ends fall.
    ends = [line[0, 1] for line in grid_lines(figure)]
    np.testing.assert_allclose(ends, [1.5 * (-0.02 + 0.001 * place) for place in (4, 3, 2, 1, 0)], rtol=0.01)


def test_fig2_is_seconds_by_iterations_and_relates_to_gd(store: SyntheticStore) -> None:
    published = {"selective": {"table": "D.5", "row": "Ours"}}
    grouped_study(
        store, "table4_d5", {"selective": 0.0, "other": 0.0}, published=published, skip=("table4_d5-other-1",)
    )
    records = Records.load(store.home, "table4_d5")
    times = iteration_seconds(records)
    assert times["single"].mean == pytest.approx(2 * 0.5)  # two networks
    assert (times["joint"].mean, times["joint"].n) == (pytest.approx(0.25), 2)
    assert times["joint"].sd == pytest.approx(np.std([0.2, 0.3], ddof=1))
    assert times["selective"].mean == pytest.approx(0.45)
    assert times["other"].n == 1
    figure = draw(store.home, "fig2")
    ratios = sorted(line.get_xdata()[0] for line in panel(figure, "(b)").lines if line.get_marker() == "o")
    np.testing.assert_allclose(ratios, [1.0, 0.45 / 0.25, 0.6 / 0.25, 1.0 / 0.25])
    marks = [line.get_xdata()[0] for line in panel(figure, "(b)").lines if line.get_marker() == "D"]
    np.testing.assert_allclose(sorted(marks), [1.0, 1.02 / 0.33])
    assert "Not recorded: other: missing (seed 1)." in figure.get_supxlabel()


def test_fig2_names_rows_that_are_not_recorded(store: SyntheticStore) -> None:
    missing = ("table4_d5-joint-0", "table4_d5-joint-1")
    grouped_study(store, "table4_d5", skip=missing)
    figure = draw(store.home, "fig2")
    assert "not recorded" in texts(panel(figure, "(a)"))
    assert not [line for line in panel(figure, "(b)").lines if line.get_marker() == "o"]
    assert "GD is not recorded: no ratio measured" in texts(panel(figure, "(b)"))


def test_rows_are_found_in_table_e1(store: SyntheticStore) -> None:
    published = {
        "a": {"table": "4:grouping", "row": "selective"},
        "b": {"table": "2", "row": "PCGrad"},
        "c": {"table": "2", "row": "IMTL"},
    }
    grouped_study(store, "table2", {"a": 0.0, "b": 0.0, "c": 0.0}, published=published)
    rows = Records.load(store.home, "table2").plan.rows
    assert [e1_row(row) for row in rows] == [None, "GD", "Ours", "PCGrad", None]
    assert relative_published()["MGDA"] == pytest.approx(38.42 / 0.33)


def test_fig4_draws_delta_m_with_its_spread(store: SyntheticStore) -> None:
    names = {"selective": 0.0, "selective_forward": 0.0, "random_2": 0.0}
    published = {"selective": {"table": "D.5", "row": "Ours"}}
    grouped_study(store, "table4_d5", names, published=published, skip=("table4_d5-selective_forward-1",))
    beta_study(store)
    figure = draw(store.home, "fig4")
    order, groups, rates = (panel(figure, title) for title in ("(a)", "(b)", "(d)"))
    assert [label.get_text() for label in order.get_yticklabels()] == ["selective", "selective_forward"]
    assert [label.get_text() for label in groups.get_yticklabels()] == ["joint", "selective", "random_2"]
    assert [label.get_text() for label in rates.get_yticklabels()] == [f"β = {beta:g}" for beta in BETAS.values()]
    # Depth is 1.89 and 2.31 against 2.1, lower is better; semseg is the baseline's 42: Delta_m is +5 and -5.
    widths = [bar.get_width() for bar in order.patches]
    np.testing.assert_allclose(widths, [0.0, 5.0], atol=1e-9)
    (whisker,) = order.collections
    assert whisker.get_segments()[0][:, 0] == pytest.approx([-np.sqrt(50), np.sqrt(50)])
    assert [line.get_xdata().tolist()[0] for line in order.lines if line.get_marker() == "D"] == [-0.64]
    assert len(data_lines(panel(figure, "(c)"))) == 5
    assert "missing (seed 1)" in figure.get_supxlabel()


def test_fig4_says_which_study_to_run_for_a_panel(store: SyntheticStore) -> None:
    beta_study(store, 1)
    said = " ".join(" ".join(texts(draw(store.home, "fig4"))).split())
    assert "(a) order of the groups: not recorded (run: mtl-study run table4_d5)" in said
    assert "(b) grouping: not recorded (run: mtl-study run table4_d5)" in said


def test_curves_has_two_panels_per_task_and_a_line_per_row(store: SyntheticStore) -> None:
    grouped_study(store, "mine", {"selective": 0.0, "absent": 0.0}, skip=("mine-absent-0", "mine-absent-1"))
    figure = draw(store.home, "curves", "mine")
    losses, depth, missing, semseg = figure.axes
    assert losses.get_title(loc="left") == "depth\ntraining loss ↓"
    assert depth.get_title(loc="left") == "depth\nvalidation rmse ↓"
    assert semseg.get_title(loc="left") == "semseg\nvalidation miou ↑"
    assert texts(missing).count("not recorded") == 1
    for axes in (losses, depth, semseg):
        assert len(axes.lines) == len(bands(axes)) == 2
    np.testing.assert_allclose(losses.lines[0].get_ydata(), [3.05, 2.05, 1.05])
    np.testing.assert_allclose(semseg.lines[1].get_ydata(), [31.05, 41.05])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["joint", "selective"]
    assert "Without curves: Single task, absent." in figure.get_supxlabel()


def test_curves_of_many_rows_differ_in_colour_or_dashes() -> None:
    styles = {(canvas.colour(place), str(canvas.dashes(place))) for place in range(28)}
    assert len(styles) == 28


def test_bars_are_signed_so_that_right_is_better(store: SyntheticStore) -> None:
    grouped_study(store, "mine", {"good": 0.0, "absent": 0.0}, skip=("mine-absent-0", "mine-absent-1"))
    changes = relative_changes(Records.load(store.home, "mine"))
    assert changes["depth"]["joint"].mean == pytest.approx(0.0, abs=1e-9)
    assert changes["depth"]["joint"].sd == pytest.approx(np.std([10.0, -10.0], ddof=1))
    assert changes["semseg"]["joint"].mean == 0.0
    figure = draw(store.home, "bars", "mine")
    depth, semseg, mean = figure.axes[:3]
    assert [axes.get_title(loc="left") for axes in (depth, semseg, mean)] == [
        "depth (rmse ↓)",
        "semseg (miou ↑)",
        "Δm: mean of the tasks",
    ]
    assert [label.get_text() for label in depth.get_yticklabels()] == ["joint", "good", "absent"]
    assert len(depth.patches) == 2
    assert texts(depth).count("no value") == 1
    assert "Not recorded: absent: missing (seed 0, 1)." in figure.get_supxlabel()


def test_a_lower_metric_that_falls_points_right(store: SyntheticStore) -> None:
    grouped_study(store, "mine", skip=("mine-joint-1",))
    changes = relative_changes(Records.load(store.home, "mine"))
    assert changes["depth"]["joint"].mean == pytest.approx(10.0)  # 1.89 against 2.1
    assert np.isnan(changes["depth"]["joint"].sd)
