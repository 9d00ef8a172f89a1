from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from matplotlib.collections import PathCollection
from synthetic_records import SyntheticStore
from synthetic_search import FORWARD, RANDOM, SearchStore, document, every_ending

from analysis.figures import canvas
from analysis.search import SearchRecords, top_configs, ways_to_search, write_search_report
from analysis.search.figures_progress import _BAD, history_figure, marks
from study.cli.search_reading import search_report, shorten
from trainables.config import TrialConfig, load_trial
from trainables.errors import ConfigError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    path = tmp_path_factory.mktemp("searched")
    searches = SearchStore(SyntheticStore(path, empty_store))
    made = document(sampler="random", pruner="none")
    searches.search(made, start=500)
    for number, value in enumerate([-5.0, 0.0, 3.0, 1.0]):
        searches.trial(made, number, [value], {**FORWARD, "optim.lr": 1e-3 * (number + 1)})
    every_ending(searches)
    return path


def test_the_page_holds_every_figure_and_needs_nothing_from_elsewhere(home: Path, tmp_path: Path) -> None:
    records = SearchRecords.load(home, "tune")
    ways = ways_to_search(records, home, ["random"])
    page = write_search_report(records, tmp_path / "report", dict, against=ways, top=2)
    text = page.read_text(encoding="utf-8")
    stems = ["history", "cost", "curves", "pareto", "regret", "importance"]
    stems += [f"{name}-toy" for name in ("parallel", "slices", "contour", "interaction")]
    for stem in stems:
        svg = (page.parent / f"{stem}.svg").read_bytes()
        assert f"base64,{base64.b64encode(svg).decode()}" in text
        assert (page.parent / f"{stem}.png").stat().st_size > 5000
    assert "A &lt;toy&gt; search" in text
    assert "<toy>" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:|top/|http://127\.0\.0\.1|[a-z-]+\.(?:png|svg)")', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in text
    assert (
        "random+none ends with Delta_m +3.00 %, reached after 30 of 40 trunk passes; tpe+asha has it after 67" in text
    )
    assert sorted(path.name for path in (page.parent / "top").iterdir()) == ["toy-1.yaml", "toy-2.yaml"]
    assert (page.parent / "trials.csv").read_text(encoding="utf-8").count("\n") == 7


def test_a_search_without_a_whole_trial_has_a_report(store: SyntheticStore, tmp_path: Path) -> None:
    searches = SearchStore(store)
    made = document()
    searches.search(made)
    searches.trial(made, 0, [-30.0], RANDOM, status="diverged")
    page = write_search_report(SearchRecords.load(store.home, "tune"), tmp_path, dict)
    assert "No trial went to its end" in page.read_text(encoding="utf-8")
    empty = document("empty")
    searches.search(empty)
    assert write_search_report(SearchRecords.load(store.home, "empty"), tmp_path / "empty", dict).is_file()


def test_diverged_and_failed_trials_are_marked(home: Path) -> None:
    records = SearchRecords.load(home, "tune")
    with canvas.style():
        axes = history_figure(records).axes[0]
        crosses = [entry for entry in axes.collections if isinstance(entry, PathCollection) and _is_cross(entry)]
    assert [sorted(entry.get_offsets()[:, 0].tolist()) for entry in crosses if len(entry.get_offsets())] == [[3.0, 4.0]]


def _is_cross(entry: PathCollection) -> bool:
    from matplotlib.colors import to_rgba

    return any(tuple(colour) == to_rgba(_BAD) for colour in entry.get_facecolors())


def test_what_is_far_below_is_drawn_at_the_edge(home: Path) -> None:
    trials = SearchRecords.load(home, "tune").trials
    with canvas.style():
        axes = canvas.new_figure(3, 3).subplots()
        marks(axes, [float(number) for number in trials["number"]], trials, floor=-10.0)
    drawn = [point for entry in axes.collections for point in entry.get_offsets().tolist()]
    assert [1.0, -10.0] in drawn  # of -90
    assert all(value >= -10 for _, value in drawn)


def test_figures_are_the_same_bytes_each_time(home: Path, tmp_path: Path) -> None:
    records = SearchRecords.load(home, "tune")
    written = []
    for turn in ("a", "b"):
        with canvas.style():
            written.append([path.read_bytes() for path in canvas.save(history_figure(records), tmp_path, turn, "same")])
    assert written[0] == written[1]


REAL: dict[str, Any] = {
    "seed": 1000,
    "optim": {"lr": 0.003},
    "train": {"batch_size": 4},
    "method": {"name": "selective", "beta": 0.02, "grouping": {"name": "separate"}},
    "record": {"eval_every": 5, "test": False},
}


def test_the_best_configs_are_trials_that_can_be_run(store: SyntheticStore, tmp_path: Path) -> None:
    searches = SearchStore(store)
    made = document()
    searches.search(made)
    config = load_trial(REAL)
    searches.trial(made, 0, [1.0], FORWARD, config={**config.to_dict(), "seed": 7})
    run = searches.trial(made, 1, [2.0], {**FORWARD, "optim.lr": 0.003}, config=config.to_dict())
    first, _ = top_configs(SearchRecords.load(store.home, "tune"), tmp_path, 5, shorten)
    text = first.read_text(encoding="utf-8")
    assert first.name == "toy-1.yaml"
    assert text.startswith("# Trial 1 of search tune (tpe+asha, profile cpu), Toy & co\n")
    assert f"# MLflow run {run}: Delta_m +2.00 % on the validation split\n" in text
    # As the search trained it, and tested: nothing else differs, and no default is written out.
    loaded = load_trial(yaml.safe_load(text))
    assert loaded == config.model_copy(update={"record": config.record.model_copy(update={"test": True})})
    assert set(yaml.safe_load(text)) == set(loaded.canonical())
    assert "weight_decay" not in text


def test_a_config_of_another_version_is_written_as_it_was_recorded(store: SyntheticStore, tmp_path: Path) -> None:
    searches = SearchStore(store)
    made = document()
    searches.search(made)
    searches.trial(made, 0, [1.0], FORWARD, config={"gone": 1, "record": {"test": False}})
    (path,) = top_configs(SearchRecords.load(store.home, "tune"), tmp_path, 1, shorten)
    text = path.read_text(encoding="utf-8")
    assert "# every field as recorded, because this version refuses the config:" in text
    assert yaml.safe_load(text) == {"gone": 1, "record": {"test": True}}


def test_a_label_with_a_line_break_stays_in_its_comment(store: SyntheticStore, tmp_path: Path) -> None:
    searches = SearchStore(store)
    made = document()
    made["contenders"][0]["label"] = "Toy\nmethod: {name: evil}"
    searches.search(made)
    searches.trial(made, 0, [1.0], FORWARD, config=TrialConfig().to_dict())
    (path,) = top_configs(SearchRecords.load(store.home, "tune"), tmp_path, 1, shorten)
    assert load_trial(yaml.safe_load(path.read_text(encoding="utf-8"))).method.name == "gd"


def test_the_command_prints_tables_lists_and_the_page(home: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> str:
        outcome = CliRunner().invoke(search_report, [*arguments, "--home", str(home)], catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    found = json.loads(said("tune", "--json"))
    assert (found["search"], found["rows"][0]["best"], found["rows"][0]["diverged"]) == ("tune", 4.0, 1)
    listed = said("--list")
    assert "tpe (seed 0)" in listed
    assert "random (seed 0)" in listed
    assert "tpe+asha has it after 67" in said("tune", "--format", "text", "--against", "random")
    page = Path(said("tune", "--out", str(tmp_path), "--top", "1").strip())
    assert page == tmp_path / "index.html"
    with pytest.raises(ConfigError, match="name a search"):
        CliRunner().invoke(search_report, ["--home", str(home)], catch_exceptions=False)
