"""Studies from Python: the same answers as the command line, as data frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_records import SyntheticStore, costs

import study
from study import Study
from study.plan import make_plan
from study.spec import load_spec
from study.tracking import Tracker
from trainables.errors import ConfigError, StoreError

TASKS = ["depth_euclidean", "edge_texture", "normal", "reshading", "keypoints2d", "depth_zbuffer"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study ``table4_d5`` at profile smoke with invented numbers for its first two rows."""
    from study import schema
    from study.home import Home

    home = Home(tmp_path_factory.mktemp("api") / "home")
    planned = make_plan(load_spec("table4_d5"), "smoke", 1, {"tasks.include": TASKS})
    Tracker(home, planned.parent_run(), "test").close(schema.COMPLETE)
    store = SyntheticStore(home.path)
    for row in planned.rows[:2]:
        for trial in row.trials:
            numbers = {f"{task}/l1": 0.5 for task in trial.tasks}
            store.trial(trial.key, numbers, study="table4_d5", metrics=costs(10, 1.0), tags={schema.SEED: "0"})
    return home.path


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, study; assert not any(m.startswith('study.') for m in sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(study.__file__).parents[1])
    with pytest.raises(AttributeError, match="no attribute 'Studies'"):
        _ = study.Studies


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel4_d5", "unknown study 'tabel4_d5'; did you mean 'table4_d5'"),
        ("tune_selectiv", "did you mean 'tune_selective'"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Study(name)


def test_bundles_and_profiles_are_told_apart_from_studies() -> None:
    from study.spec import bundles

    name = next(iter(bundles()))
    with pytest.raises(ConfigError, match=f"{name} is a bundle of"):
        Study(name)
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        Study("d4", profile="smok")


def test_searches_are_searched_and_studies_are_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tuned is a search: use \.search"):
        Study("tuned", tmp_path).run()
    with pytest.raises(ConfigError, match=r"d4 is no search: use \.run"):
        Study("d4", tmp_path).search()
    assert (Study("tuned").is_search, Study("d4").is_search) == (True, False)


def test_the_plan_needs_no_records(tmp_path: Path) -> None:
    frame = Study("table4_d5", tmp_path / "none", profile="smoke", seeds=2).plan()
    assert frame.attrs["seeds"] == [0, 1]
    assert frame["left"].sum() == frame.attrs["left"] > 0
    assert not (tmp_path / "none").exists()


def test_tables_records_and_pages_come_from_the_records(recorded: Path) -> None:
    here = Study("table4_d5", home=recorded)
    table = here.table()
    assert isinstance(table, pd.DataFrame)
    assert table.attrs["study"] == "table4_d5"
    assert set(here.records().trials["status"]) == {"complete", "missing"}
    assert here.status()["state"].value_counts().to_dict().keys() == {"complete", "missing"}
    page = here._repr_html_()
    assert "<table" in page
    assert table.index[0] in page
    assert repr(here) == f"Study('table4_d5', home={str(recorded)!r})"
    assert here.figure("bars").axes


def test_rows_are_explained_and_compared_by_their_own_names(recorded: Path) -> None:
    here = Study("table4_d5", home=recorded)
    first, second = [row.id for row in here.records().plan.rows[:2]]
    assert here.explain(first).uses[0].row == first
    found = here.compare(first, second).metrics.set_index("metric")["difference"]
    assert set(found[found.index.str.startswith("test/")]) == {0.0}
    assert found["cost/trunk_passes"] == -50.0  # six networks of one task each, against one of six
    assert set(here.claims()["level"]) <= {"claim", "comparison"}


def test_what_is_not_recorded_is_one_line_and_shows_its_plan(tmp_path: Path) -> None:
    here = Study("d4", home=tmp_path / "none", profile="smoke")
    with pytest.raises(StoreError, match="no records in"):
        here.table()
    with pytest.raises(ConfigError, match="unknown figure 'bras'; did you mean 'bars'"):
        here.figure("bras")
    assert "not recorded yet; its plan" in here._repr_html_()
    assert "not recorded yet" in Study("tuned", home=tmp_path / "none")._repr_html_()
