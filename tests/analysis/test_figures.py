from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_records import BETAS, EVIL, every_study, grouped_study, history
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.figures import FIGURES, canvas, make_figure
from analysis.figures.series import by_backbone, draw_band, grouping, over_points, over_seeds
from analysis.records import Records
from trainables.errors import ConfigError, StoreError


@pytest.fixture(scope="module")
def full_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """For tests that only read."""
    return every_study(tmp_path_factory.mktemp("figures"), empty_store)


@pytest.fixture(scope="module")
def planned_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Studies that were planned and of which no trial was begun."""
    home = tmp_path_factory.mktemp("planned")
    store = SyntheticStore(home, empty_store)
    for study in ("table2", "table4_d5", "table3_nyud", "table3_pascal", "d4", "equal_compute"):
        row_id = next(iter(BETAS)) if study == "d4" else "selective"
        store.study(plan([baseline_row(), row(row_id, [cell(f"{study}-0", 0)])], study=study))
    return home


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_writes_the_same_png_and_svg_each_time(
    full_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(canvas, "DPI", 50)  # for speed
    own = {"sensitivity": "sensitivity_toy"}
    study = None if FIGURES[name].studies else own.get(name, "table4_d5")
    stem = f"{name}-{study}-cpu" if study else f"{name}-cpu"
    first = make_figure(name, full_home, None, tmp_path / "a", study=study)
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "figure.facecolor": "red"}):
        second = make_figure(name, full_home, "cpu", tmp_path / "b", study=study)
    assert [path.name for path in first] == [f"{stem}.png", f"{stem}.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(first[1]).getroot().tag.endswith("svg")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(path.name for path in first)
    footer = "".join(ElementTree.parse(first[1]).getroot().itertext())
    assert re.search(r"Study \w+, profile cpu: scenes \(taskonomy tasks\), .*[12] seeds?", footer)


def test_labels_are_text_in_the_svg_and_escaped(full_home: Path, tmp_path: Path) -> None:
    svg = make_figure("bars", full_home, None, tmp_path, study="table4_d5")[1]
    assert "<b>" not in svg.read_text()
    texts = "".join(ElementTree.parse(svg).getroot().itertext())
    assert EVIL in texts
    assert "depth (rmse ↓)" in texts


def test_drawing_leaves_the_settings_of_matplotlib_alone(full_home: Path, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    make_figure("d_fig1", full_home, None, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_grouping_weighs_windows_by_their_iterations(full_home: Path) -> None:
    found = grouping(Records.load(full_home, "d1"), "selective")
    assert found is not None
    # Windows of 4, 4 and 2 iterations: seed 0 has .5, .25, 1, seed 1 has .5, .45, 1.
    seeds = [0.4 * 0.5 + 0.4 * 0.25 + 0.2, 0.4 * 0.5 + 0.4 * 0.45 + 0.2]
    np.testing.assert_allclose(found.together, [[1.0, np.mean(seeds)], [np.mean(seeds), 1.0]])
    np.testing.assert_allclose(found.count.mean, [2.0, 2.0, 1.0])
    np.testing.assert_allclose(found.count.sd, [0.0, np.sqrt(0.5), 0.0])
    np.testing.assert_allclose(found.affinity.pair(0, 1).mean, np.array([0.5, 0.75, 1.0]) * -0.02 * 1.5)
    np.testing.assert_allclose(found.affinity.pair(1, 0).mean, np.array([0.5, 0.75, 1.0]) * 0.01 * 1.5)


def test_grouping_puts_the_tasks_in_the_order_of_the_plan(store: SyntheticStore) -> None:
    store.study(plan([baseline_row(), row("selective", [cell("a-0", 0)])]))
    arrays = history(names=("semseg", "depth"))
    store.history(store.trial("a-0", {}), arrays)
    found = grouping(Records.load(store.home, "toy"), "selective")
    assert found is not None
    assert (found.tasks, found.shorts) == (("depth", "semseg"), ("De", "Se"))
    np.testing.assert_allclose(found.affinity.pair(0, 1).mean, arrays["affinity"][:, 1, 0])


def test_a_backbone_is_drawn_once(store: SyntheticStore) -> None:
    for study in ("d1", "d2", "d3"):
        grouped_study(store, study, backbone="vit_tiny" if study == "d3" else "vit_pico")
    found = by_backbone([Records.load(store.home, study) for study in ("d1", "d2", "d3")], "selective", grouping)
    assert [history.label for history in found] == ["vit_pico (d1)", "vit_tiny (d3)"]


values = st.lists(st.floats(-100, 100), min_size=2, max_size=5)


@given(values)
def test_over_seeds_is_the_mean_and_the_sample_standard_deviation(numbers: list[float]) -> None:
    series = over_seeds([(np.array([1.0, 2.0]), np.array([number, 2 * number])) for number in numbers])
    np.testing.assert_allclose(series.mean, [np.mean(numbers), 2 * np.mean(numbers)], atol=1e-9)
    np.testing.assert_allclose(series.sd, [np.std(numbers, ddof=1), 2 * np.std(numbers, ddof=1)], atol=1e-9)


def test_over_seeds_with_different_points_averages_those_that_have_one() -> None:
    series = over_seeds([(np.array([1, 2]), np.array([1.0, 3.0])), (np.array([2, 3]), np.array([5.0, np.nan]))])
    np.testing.assert_array_equal(series.x, [1, 2, 3])
    np.testing.assert_allclose(series.mean, [1.0, 4.0, np.nan])
    np.testing.assert_allclose(series.sd, [np.nan, np.sqrt(2), np.nan])


def test_over_points_is_over_seeds_of_a_frame() -> None:
    seeds = {3: ([1, 2], [1.0, 3.0]), 7: ([2, 3], [5.0, np.nan])}
    points = [
        (seed, step, value)
        for seed, (steps, values) in seeds.items()
        for step, value in zip(steps, values, strict=True)
    ]
    series = over_points(pd.DataFrame(points[::-1], columns=["seed", "step", "value"]))
    expected = over_seeds([(np.array(steps), np.array(values)) for steps, values in seeds.values()])
    for name in ("x", "mean", "sd", "seeds"):
        np.testing.assert_array_equal(getattr(series, name), getattr(expected, name))


def test_a_band_needs_two_seeds() -> None:
    axes = Figure().subplots()
    seed = (np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    draw_band(axes, over_seeds([seed]), "black")
    assert not axes.findobj(PolyCollection)
    draw_band(axes, over_seeds([seed, seed]), "black")
    assert len(axes.findobj(PolyCollection)) == 1


def test_unknown_figure_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown figure 'fig22'; did you mean 'fig2'"):
        make_figure("fig22", tmp_path, None, tmp_path)


@pytest.mark.parametrize("name", FIGURES)
def test_without_records_a_figure_says_so_in_one_line(mixed_home: Path, tmp_path: Path, name: str) -> None:
    kind = FIGURES[name]
    with pytest.raises(StoreError) as caught:
        make_figure(name, mixed_home, "gpu", tmp_path / "out")
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    assert "profile gpu" in message
    assert all(study in message for study in kind.studies)
    assert not kind.studies or f"mtl-study run {kind.studies[0]} --profile gpu" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FIGURES)
def test_a_planned_study_without_results_is_not_drawn(planned_home: Path, tmp_path: Path, name: str) -> None:
    studies = FIGURES[name].studies
    study = studies[0] if studies else "table2"
    with pytest.raises(
        StoreError, match=f"figure {name}: no .* in {study} at profile cpu.* \\(run: mtl-study run {study}"
    ):
        make_figure(name, planned_home, None, tmp_path, study=None if studies else study)


def test_no_store_at_all(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no records in"):
        make_figure("fig3", tmp_path, None, tmp_path)


def test_a_figure_of_any_study_wants_its_name_where_there_are_several(full_home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"figure curves: name the study \(recorded: d1, d3, d4, .*table4_d5\)"):
        make_figure("curves", full_home, None, tmp_path)
    with pytest.raises(StoreError, match="unknown recorded study 'table4'; did you mean 'table4_d5'"):
        make_figure("curves", full_home, None, tmp_path, study="table4")


def test_a_figure_of_the_only_study_needs_no_name(store: SyntheticStore, tmp_path: Path) -> None:
    grouped_study(store, "mine")
    store.client.delete_experiment(store.experiment("baseline"))
    assert make_figure("curves", store.home, None, tmp_path)[0].name == "curves-mine-cpu.png"


@pytest.mark.parametrize("damage", ["together", "affinity", "tasks"])
def test_a_damaged_history_is_named(store: SyntheticStore, tmp_path: Path, damage: str) -> None:
    store.study(plan([baseline_row(), row("selective", [cell("a-0", 0)])], study="d1"))
    arrays = history()
    del arrays[damage]
    store.history(store.trial("a-0", {}, study="d1"), arrays)
    with pytest.raises(StoreError, match=rf"trial a-0: its history.npz lacks {damage}"):
        make_figure("fig3", store.home, None, tmp_path)


def test_a_history_of_a_wrong_shape_is_named(store: SyntheticStore, tmp_path: Path) -> None:
    store.study(plan([baseline_row(), row("selective", [cell("a-0", 0)])], study="d1"))
    store.history(store.trial("a-0", {}, study="d1"), {**history(), "together": np.ones((3, 2))})
    with pytest.raises(StoreError, match=r"trial a-0: together in its history.npz has shape \(3, 2\)"):
        make_figure("fig3", store.home, None, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(full_home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"figure .*d_fig1-cpu.png: cannot be written"):
        make_figure("d_fig1", full_home, None, tmp_path / "file")
