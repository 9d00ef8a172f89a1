"""Names in the records, what is said of one, and two held against each other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, costs, plan, row

from analysis.compare import DELTA_M, Comparison, compare, difference
from analysis.explain import Explanation, explain
from analysis.store import Store
from analysis.subjects import Directory
from study import schema
from trainables.errors import ConfigError, StoreError


def directory(home: Path, profile: str | None = None) -> Directory:
    return Directory(Store(home), profile)


def explained(home: Path, name: str) -> Explanation:
    return explain(directory(home), name, lambda config: config, lambda study, profile: None)


def number(found: Comparison, metric: str, row: str = "") -> dict[str, Any]:
    lines = found.metrics[(found.metrics["metric"] == metric) & (found.metrics["row"] == row)]
    assert len(lines) == 1
    return {str(name): value for name, value in lines.iloc[0].items()}


@pytest.fixture
def pair(store: SyntheticStore) -> Path:
    """Rows a and b over seeds 0, 1, 2; depth differs by -0.1, -0.2, -0.3, and b has a fourth seed."""
    rows = [row(name, [cell(f"{name}-{s}", s, cell_key=f"cell-{name}") for s in range(4)]) for name in ("aa", "bb")]
    store.study(plan([baseline_row(), *rows]))
    store.baseline()
    for seed in range(4):
        for name, depth in (("aa", 2.0), ("bb", 2.0 - 0.1 * (seed + 1))):
            if (name, seed) == ("aa", 3):
                continue
            run = store.trial(f"{name}-{seed}", {"depth/rmse": depth, "semseg/miou": 42.0}, metrics=costs(100, 5.0))
            config = {"seed": seed, "method": {"name": "gd" if name == "aa" else "pcgrad"}, "optim": {"lr": 1e-3}}
            store.artifact(run, schema.CONFIG_FILE, json.dumps(config).encode())
    return store.home


@pytest.mark.parametrize(
    ("name", "kind", "keys"),
    [
        ("toy", "study", None),
        ("toy@cpu", "study", None),
        ("toy/aa", "cell", 4),
        ("AA", "cell", 4),
        ("cell-aa", "cell", 4),
        ("aa-2", "trial", 1),
        ("toy/single", "row", 4),
    ],
)
def test_a_name_means_one_thing(name: str, kind: str, keys: int | None, pair: Path) -> None:
    found = directory(pair).find(name)
    assert found.kind == kind
    assert keys in (None, len(found.keys))


def test_a_run_is_found_by_the_beginning_of_its_id(pair: Path) -> None:
    run = directory(pair).runs["aa-1"][0].run_id
    found = directory(pair).find(run[:12])
    assert (found.kind, found.keys, found.run_id) == ("run", ("aa-1",), run)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tyo", r"no run, cell or study is called 'tyo'; did you mean 'toy'\?"),
        ("toy/bbb", r"unknown row of study 'toy' 'bbb'; did you mean 'bb'\?"),
        ("toy@cpx", r"'cpx'; did you mean 'cpu'\?"),
        ("single-", r"'single-' may be any of trial single-depth"),
    ],
)
def test_a_name_that_means_nothing_or_too_much_is_refused(name: str, message: str, pair: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        directory(pair).find(name)


def test_a_profile_without_records_is_named(pair: Path) -> None:
    with pytest.raises(StoreError, match="did you mean 'cpu'"):
        directory(pair, "cpuu").find("toy")


def test_labels_of_the_ui_are_names_even_of_trials_in_no_plan(store: SyntheticStore) -> None:
    store.study(plan([baseline_row()]))
    for seed in (0, 1):
        tags = {schema.CELL: f"Tuned | seed {seed}", schema.CELL_KEY: "feed", schema.SEED: str(seed)}
        store.trial(f"key-{seed}", {"depth/rmse": 2.0}, study="other", tags=tags)
    found = directory(store.home).find("tuned")
    assert (found.kind, found.keys) == ("cell", ("key-0", "key-1"))
    assert directory(store.home).find("Tuned | seed 1").keys == ("key-1",)


def test_numbers_are_paired_by_seed_with_the_t_interval(pair: Path) -> None:
    found = number(compare(directory(pair), "aa", "bb"), "test/depth/rmse")
    # Differences -0.1, -0.2, -0.3: mean -0.2, sd 0.1, t(0.975, 2) = 4.302653.
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found["n"] == 3
    assert found["difference"] == pytest.approx(-0.2)
    assert (found["low"], found["high"]) == (pytest.approx(-0.2 - half, abs=1e-6), pytest.approx(-0.2 + half, abs=1e-6))
    assert found["better"] == ""


def test_the_better_one_is_named_where_the_interval_excludes_zero_and_the_order_only_turns_the_sign(pair: Path) -> None:
    there = compare(directory(pair), "aa", "bb", confidence=0.8)
    back = compare(directory(pair), "bb", "aa", confidence=0.8)
    ours, theirs = number(there, "test/depth/rmse"), number(back, "test/depth/rmse")
    assert (ours["better"], theirs["better"]) == ("b", "a")
    assert (ours["difference"], ours["low"]) == (pytest.approx(-theirs["difference"]), pytest.approx(-theirs["high"]))
    # The baseline's means are 2.1 and 42: depth alone differs, so Delta_m is half of its gain.
    gain = number(there, DELTA_M)
    assert gain["a"] == pytest.approx(100 * 0.1 / 2.1 / 2)
    assert gain["difference"] == pytest.approx(100 * 0.2 / 2.1 / 2)
    assert gain["better"] == "b"


def test_configs_differ_where_they_do_and_seeds_of_replicates_are_no_difference(pair: Path) -> None:
    found = compare(directory(pair), "aa", "bb")
    assert found.config[["field", "a", "b"]].to_numpy().tolist() == [["method.name", "gd", "pcgrad"]]
    assert "a: seed 3 does not count: was never begun" in found.metrics.attrs["footnotes"]
    one = compare(directory(pair), "aa-0", "aa-1")
    assert one.config["field"].tolist() == ["seed"]
    assert number(one, "test/depth/rmse")["n"] == 0


def test_studies_are_compared_row_by_row(pair: Path) -> None:
    store = SyntheticStore(pair)
    rows = [row("aa", [cell(f"more-{seed}", seed) for seed in range(2)]), row("cc", [cell("cc-0", 0)])]
    store.study(plan([baseline_row(), *rows], study="second"))
    for seed in range(2):
        store.trial(f"more-{seed}", {"depth/rmse": 1.5, "semseg/miou": 42.0}, study="second")
    found = compare(directory(pair), "toy", "second")
    assert number(found, "test/depth/rmse", "aa")["difference"] == pytest.approx(-0.5)
    assert number(found, "test/depth/rmse", "single")["difference"] == 0
    notes = found.metrics.attrs["footnotes"]
    assert {"only toy@cpu has the row bb", "only second@cpu has the row cc"} <= set(notes)
    with pytest.raises(ConfigError, match="is a study and toy@cpu/aa a cell"):
        compare(directory(pair), "second", "toy/aa")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["b"]["name"] == "second@cpu"
    assert "b - a" in found.to_text()


def test_difference_of_nested_configs() -> None:
    a, b = {"x": {"y": 1, "z": [1]}, "same": None}, {"x": {"y": 2, "w": 0, "z": [1]}, "same": None}
    assert difference(a, b) == {"x.y": (1, 2), "x.w": ("(none)", 0)}


def test_an_explanation_has_every_run_and_why_it_failed(mixed_home: Path) -> None:
    found = explained(mixed_home, "diverged-1")
    assert found.status == {"diverged": 1}
    assert [(a.status, a.counts, a.reason) for a in found.attempts] == [
        ("diverged", False, "losses not finite at iteration 7"),
        ("interrupted", False, ""),
    ]
    assert [(use.study, use.row, use.seed) for use in found.uses] == [("toy", "diverged", 1)]
    twice = explained(mixed_home, "twice-0")
    assert [(a.study, a.counts) for a in twice.attempts if a.status == "complete"] == [("toy", False), ("other", True)]
    assert explained(mixed_home, "toy/absent").status == {"missing": 2}
    json.dumps(found.to_dict())


def test_an_explanation_names_the_traceback_the_cost_and_the_way_back(store: SyntheticStore) -> None:
    store.study(plan([baseline_row(), row("gd", [cell("boom", 0)])]))
    reason = {"status_reason": "ValueError: no"}
    failed = store.trial("boom", {}, status="failed", mlflow_status="FAILED", tags=reason, metrics=costs(10, 3.0))
    store.artifact(failed, schema.TRACEBACK_FILE, b"Traceback\n  here\nValueError: no\n\n")
    whole = store.trial("boom", {"depth/rmse": 2.0}, metrics=costs(100, 5.0), start=3000, end=4000)
    store.artifact(whole, schema.CONFIG_FILE, b'{"seed": 0, "optim": {"lr": 0.1}}')
    base = {"seed": 3, "optim": {"lr": 0.01}}
    found = explain(
        directory(store.home), "boom", lambda c: {"optim": {"lr": 0.1}}, lambda s, p: base, home_option=" -h"
    )
    first = found.attempts[0]
    assert (first.error, Path(first.traceback).name, first.reason) == (
        "ValueError: no",
        "traceback.txt",
        "ValueError: no",
    )
    assert (found.costs["seconds"], found.wasted) == (5.0, 3.0)
    assert found.config == {"optim.lr": 0.1}
    assert found.changes == {"toy@cpu": {"optim.lr": (0.01, 0.1)}}
    assert found.repeat[0].startswith("mtl-study trial /")
    assert found.repeat[1] == "mtl-study run toy --profile cpu -h"
