from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_records import SyntheticStore
from synthetic_search import CONFIG, FORWARD, RANDOM, SearchStore, document, every_ending, single_tasks

from analysis.search import SearchRecords, contenders_table, recorded_searches, regret, trials_table, ways_to_search
from analysis.search.incumbent import front, progress
from analysis.search.plan import Axis, point_in, short_names
from analysis.store import Store
from study import schema
from trainables.errors import ConfigError, StoreError


@pytest.fixture
def searches(store: SyntheticStore) -> SearchStore:
    return SearchStore(store)


def test_trials_are_counted_by_how_they_ended(searches: SearchStore) -> None:
    every_ending(searches)
    records = SearchRecords.load(searches.store.home, "tune")
    (row,) = contenders_table(records).to_dict("records")
    assert [row[name] for name in ("trials", "whole", "pruned", "diverged", "failed", "unfinished")] == [
        7,
        4,
        1,
        1,
        1,
        0,
    ]
    assert row["without_run"] == 1  # number 6
    assert (row["trunk_passes"], row["seconds"]) == (87.0, pytest.approx(8.7))
    assert (row["best"], row["best_trial"], row["default"], row["gain"]) == (4.0, 5, -5.0, 9.0)


def test_a_diverged_trial_has_no_number_and_the_reason_is_kept(searches: SearchStore) -> None:
    every_ending(searches)
    trials = SearchRecords.load(searches.store.home, "tune").trials.set_index("number")
    assert math.isnan(trials.loc[3, "delta_m"])
    assert trials.loc[1, "delta_m"] == -90.0
    assert trials.loc[5, "point"] == {**RANDOM, "method.window": 5}


def test_curves_have_every_evaluation_of_all_attempts(searches: SearchStore) -> None:
    made = document()
    searches.search(made)
    searches.trial(made, 0, [-30.0], RANDOM, status=schema.INTERRUPTED, start=1000)
    searches.trial(made, 0, [-31.0, -5.0], RANDOM, start=2000)
    records = SearchRecords.load(searches.store.home, "tune")
    assert len(records.trials) == 1
    assert records.trials["status"].tolist() == [schema.VALIDATED]
    assert set(records.curves["step"]) == {5, 10}
    assert records.curves["value"].tolist()[-1] == -5.0


def test_a_search_that_goes_on_with_a_larger_budget_has_all_its_trials(searches: SearchStore) -> None:
    first, second = document(), document(budget={"trials": 20, "trunk_passes": None})
    searches.search(first, start=1000)
    searches.trial(first, 0, [1.0], RANDOM)
    run = searches.search(second, start=5000)
    searches.trial(second, 1, [2.0], FORWARD)
    records = SearchRecords.load(searches.store.home, "tune")
    assert records.run.run_id == run
    assert sorted(records.trials["number"]) == [0, 1]


def test_the_latest_search_is_read_unless_a_run_is_named(searches: SearchStore) -> None:
    first = searches.search(document(), start=1000)
    second = searches.search(document(sampler="random", pruner="none"), start=2000)
    home = searches.store.home
    assert SearchRecords.load(home, "tune").run.run_id == second
    assert SearchRecords.load(home, "tune", run=first[:10]).plan.way == "tpe+asha"
    assert [entry.run_id for entry in recorded_searches(Store(home))] == [first, second]
    with pytest.raises(StoreError, match="run 'zzz' of search 'tune': there is none"):
        SearchRecords.load(home, "tune", run="zzz")
    with pytest.raises(StoreError, match="did you mean 'tune'"):
        SearchRecords.load(home, "tun")
    with pytest.raises(StoreError, match=r"profile of search 'tune'.*cpu"):
        SearchRecords.load(home, "tune", "cpi")


def test_defaults_trained_elsewhere_are_found_and_judged_by_this_searchs_baseline(searches: SearchStore) -> None:
    single_tasks(searches.store, "tune")
    made = document()
    searches.search(made)
    searches.trial(made, 1, [3.0], FORWARD)
    numbers = {"val/depth/rmse": [(10, 1.8)], "val/semseg/miou": [(10, 44.0)], "cost/trunk_passes": [(10, 30.0)]}
    run = searches.store.trial("elsewhere", {}, study="other", metrics={**numbers, "objective/delta_m": [(10, -99.0)]})
    for name, value in flat(CONFIG).items():
        searches.store.client.log_param(run, name, value if name != "record.eval_every" else "999")
    records = SearchRecords.load(searches.store.home, "tune")
    default = records.trials.iloc[0]
    assert (default["number"], default["found"], default["run_id"]) == (0, True, run)
    assert default["delta_m"] == pytest.approx(10.0)  # 10 % less error, 10 % more mIoU
    assert default["point"] == {"optim.lr": 0.001, "method.order": "random", "method.window": 3}
    (row,) = contenders_table(records).to_dict("records")
    assert (row["trials"], row["without_run"], row["default"]) == (2, 0, pytest.approx(10.0))


def test_another_seed_is_not_the_default(searches: SearchStore) -> None:
    made = document()
    searches.search(made)
    searches.trial(made, 1, [3.0], FORWARD)
    run = searches.store.trial("elsewhere", {}, study="other", metrics={"objective/delta_m": [(10, 1.0)]})
    for name, value in flat({**CONFIG, "seed": 0}).items():
        searches.store.client.log_param(run, name, value)
    assert SearchRecords.load(searches.store.home, "tune").trials["number"].tolist() == [1]


def test_delta_m_is_recomputed_where_the_tasks_themselves_are_sought(searches: SearchStore) -> None:
    single_tasks(searches.store, "tune")
    made = document(objective={"name": "tasks", "of": "trunk_passes"})
    searches.search(made)
    tags = {
        schema.OPTUNA_STUDY: made["contenders"][0]["optuna_study"],
        schema.OPTUNA_NUMBER: "0",
        schema.POINT: json.dumps(FORWARD),
    }
    metrics = {"val/depth/rmse": [(10, 1.6)], "val/semseg/miou": [(10, 40.0)]}
    searches.store.trial("a", {}, study="tune", status=schema.VALIDATED, tags=tags, metrics=metrics)
    records = SearchRecords.load(searches.store.home, "tune")
    assert (records.names, records.maximize) == (("depth/rmse", "semseg/miou"), (False, True))
    assert records.trials["delta_m"].tolist() == pytest.approx([10.0])
    assert records.trials["values"].tolist() == [(1.6, 40.0)]


def test_best_so_far_counts_the_cost_of_every_trial_and_the_value_of_whole_ones(searches: SearchStore) -> None:
    every_ending(searches)
    made = progress(SearchRecords.load(searches.store.home, "tune").of_contender("toy"))
    assert made.cost.tolist() == [20, 25, 40, 47, 47, 67, 87]
    assert made.best.tolist() == [-5, -5, 2, 2, 2, 4, 4]
    assert made.reached(2.0) == 40
    assert math.isnan(made.reached(4.1))
    assert np.array_equal(made.at(np.array([0.0, 39.0, 40.0, 99.0])), [np.nan, -5, 2, 4], equal_nan=True)


def test_regret_at_equal_cost_against_random_search(searches: SearchStore) -> None:
    """Ours has +4 after 20 passes; random ends with +4 (mean of 3 and 5), which both had after 40 of 60."""
    ours = document(seed=1)
    searches.search(ours, start=5000)
    searches.trial(ours, 0, [0.0], FORWARD)
    searches.trial(ours, 1, [4.0], RANDOM)
    for seed, best in ((0, 3.0), (1, 5.0)):
        made = document(sampler="random", pruner="none", seed=seed)
        searches.search(made, start=1000 + seed)
        for number, value in enumerate([0.0, 1.0, 1.0, best, -1.0, -2.0]):
            searches.trial(made, number, [value], {**FORWARD, "optim.lr": 1e-3 + 1e-5 * number})
    home = searches.store.home
    records = SearchRecords.load(home, "tune")
    ways = ways_to_search(records, home, ["random"])
    assert {label: len(repeats) for label, repeats in ways.items()} == {"tpe+asha": 1, "random+none": 2}
    found = regret(ways["tpe+asha"], ways["random+none"], "toy")
    assert (found.target, found.reference_cost, found.reference_total, found.search_cost) == (4.0, 40.0, 60.0, 20.0)
    assert found.ratio == pytest.approx(0.5)
    assert found.best == 5.0
    assert found.grid[-1] == 20.0
    assert found.search_regret[-1] == pytest.approx(1.0)
    assert found.reference_regret[-1] == pytest.approx(4.0)


def test_a_search_going_on_is_no_repeat_of_itself_and_other_homes_are_read(
    searches: SearchStore, tmp_path_factory: pytest.TempPathFactory, empty_store: object
) -> None:
    first, second = document(), document(budget={"trials": 20, "trunk_passes": None})
    searches.search(first, start=1000)
    searches.search(second, start=5000)
    searches.trial(first, 0, [1.0], RANDOM)
    other = SearchStore(SyntheticStore(tmp_path_factory.mktemp("other"), empty_store))  # type: ignore[arg-type]
    made = document(sampler="random", pruner="none")
    other.search(made)
    other.trial(made, 0, [0.5], RANDOM)
    records = SearchRecords.load(searches.store.home, "tune")
    ways = ways_to_search(records, searches.store.home, [str(other.store.home)])
    assert {label: len(repeats) for label, repeats in ways.items()} == {"tpe+asha": 1, "random+none": 1}
    with pytest.raises(ConfigError, match=r"--against randon: .*recorded search"):
        ways_to_search(records, searches.store.home, ["randon"])
    with pytest.raises(ConfigError, match=r"nothing but tpe\+asha itself"):
        ways_to_search(records, searches.store.home, ["tpe"])


def test_trials_are_listed_best_first_with_a_column_per_axis(searches: SearchStore) -> None:
    every_ending(searches)
    table = trials_table(SearchRecords.load(searches.store.home, "tune"))
    assert table["number"].tolist()[:4] == [5, 2, 7, 0]
    assert table.set_index("number").loc[2, "optim.lr"] == 2e-3
    assert pd.isna(table.set_index("number").loc[2, "method.window"])


def test_a_damaged_record_is_named(searches: SearchStore) -> None:
    made = document()
    del made["sampler"]
    searches.search(made)
    with pytest.raises(StoreError, match=r"search\.json: not a search of this layout: sampler"):
        SearchRecords.load(searches.store.home, "tune")


def test_short_names_tell_axes_apart() -> None:
    axes = [Axis(path, "choice", (1, 2)) for path in ("optim.lr", "head.lr", "method.beta", "method.grouping")]
    assert short_names(axes) == {
        "optim.lr": "optim.lr",
        "head.lr": "head.lr",
        "method.beta": "beta",
        "method.grouping": "grouping",
    }


def test_a_component_is_the_choice_that_names_it() -> None:
    axes = [
        Axis("grouping", "choice", ("joint", "adaptive")),
        Axis("grouping.cut", "choice", ({"name": "fixed", "k": 2}, {"name": "fixed", "k": 3})),
        Axis("grouping.groups", "int", low=2, high=6, when={"grouping": ["joint"]}),
    ]
    config = {"grouping": {"name": "adaptive", "groups": 3, "cut": {"name": "fixed", "k": 3, "soft": False}}}
    assert point_in(axes, config) == {"grouping": "adaptive", "grouping.cut": {"name": "fixed", "k": 3}}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    on = front(np.array(points, dtype=np.float64).reshape(-1, 2), (True, False))
    for place, (gain, cost) in enumerate(points):
        beaten = any(g >= gain and c <= cost and (g > gain or c < cost) for g, c in points)
        assert on[place] == (not beaten)


def flat(value: dict[str, object], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, inner in value.items():
        out |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": str(inner)}
    return out
