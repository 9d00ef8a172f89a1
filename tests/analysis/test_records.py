from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import SyntheticStore, baseline_row, cell, plan, row

from analysis.records import Records
from analysis.store import Store
from study import schema
from trainables.errors import ConfigError, StoreError


@pytest.fixture(scope="module")
def mixed(mixed_home: Path) -> Records:
    return Records.load(mixed_home, "toy")


def statuses(records: Records, name: str) -> list[str]:
    return records.trials.loc[records.trials["row"] == name, "status"].tolist()


def value(records: Records, key: str, task: str) -> float:
    frame = records.metrics
    return frame.loc[(frame["trial_key"] == key) & (frame["task"] == task) & (frame["split"] == "test"), "value"].item()


def test_one_row_per_trial_of_the_plan(mixed):
    assert len(mixed.trials) == 4 + 7 * 2
    assert mixed.trials["trial_key"].tolist()[:2] == ["single-depth-0", "single-semseg-0"]
    assert mixed.trials["tasks"].tolist()[0] == ("depth",)
    assert "of-no-study" not in set(mixed.trials["trial_key"])


def test_statuses(mixed):
    assert statuses(mixed, "gd") == ["complete", "complete"]
    assert statuses(mixed, "partial") == ["complete", "missing"]
    assert statuses(mixed, "absent") == ["missing", "missing"]
    assert statuses(mixed, "unfinished") == ["running", "interrupted"]


def test_divergence_stands_over_later_attempts(mixed):
    assert statuses(mixed, "diverged") == ["complete", "diverged"]
    assert "losses not finite" in mixed.trials.loc[mixed.trials["trial_key"] == "diverged-1", "status_reason"].item()


def test_a_trial_of_another_study_counts(mixed):
    shared = mixed.trials.set_index("trial_key")
    assert shared.loc["shared-0", "experiment_id"] != shared.loc["shared-1", "experiment_id"]
    assert value(mixed, "shared-0", "semseg") == 21.0


def test_of_several_complete_runs_the_earliest_finished_counts(mixed):
    assert value(mixed, "twice-0", "depth") == 2.1


def test_only_complete_trials_have_metrics(mixed):
    assert set(mixed.metrics["trial_key"]) == set(mixed.trials.loc[mixed.trials["status"] == "complete", "trial_key"])


def test_tags_and_costs_are_columns(mixed):
    line = mixed.trials.set_index("trial_key").loc["gd-1"]
    assert (line["method"], line["backbone"], line["data"], line["device"]) == ("gd", "vit_pico", "scenes", "cpu")
    assert (line["trunk_passes"], line["seconds"], line["git_commit"]) == (300, 7, "")
    assert math.isnan(line["samples"])


def test_loading_writes_nothing(mixed_home):
    before = hashlib.sha256((mixed_home / "mlflow.db").read_bytes()).hexdigest()
    files = sorted(str(path) for path in mixed_home.rglob("*"))
    Records.load(mixed_home, "toy")
    assert hashlib.sha256((mixed_home / "mlflow.db").read_bytes()).hexdigest() == before
    assert sorted(str(path) for path in mixed_home.rglob("*")) == files


def test_last_value_of_a_metric_and_its_curve(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    points = {
        "val/depth/rmse": [(10, 3.0), (20, 2.5), (20, 2.4)],
        "val/depth/other": [(10, 1.0)],
        "groups/count": [(0, 4.0), (10, 2.0)],
        "test/elsewhere/rmse": [(20, 1.0)],
    }
    store.trial("a-0", {"depth/rmse": math.inf, "semseg/miou": math.nan}, metrics=points)
    records = Records.load(store.home, "toy")
    frame = records.metrics.set_index(["split", "task", "metric"])["value"]
    assert frame["val", "depth", "rmse"] == 2.4
    assert frame["test", "depth", "rmse"] == math.inf  # MLflow keeps it as the largest float
    assert math.isnan(frame["test", "semseg", "miou"])
    assert "elsewhere" not in set(records.metrics["task"])
    assert records.trials["groups"].tolist() == [2.0]
    curve = records.curves("val/depth/rmse")
    assert curve[["step", "value"]].to_numpy().tolist() == [[10, 3.0], [20, 2.4]]  # logged twice at 20: the later one
    with pytest.raises(ConfigError, match="unknown metric 'val/depth/rms'; did you mean 'val/depth/rmse'"):
        records.curves("val/depth/rms")


def test_history(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0), cell("b-0", 1)])], baseline=None))
    run = store.trial("a-0", {})
    arrays = {"count": np.array([4, 2]), "tasks": np.array(["depth", "semseg"])}
    store.history(run, arrays)
    bare = store.trial("b-0", {})
    records = Records.load(store.home, "toy")
    history = records.history("a-0")
    assert history["count"].tolist() == [4, 2]
    assert history["tasks"].tolist() == ["depth", "semseg"]
    with pytest.raises(StoreError, match=r"history\.npz is not there"):
        records.history("b-0")
    with pytest.raises(StoreError, match="trial nothing: no complete run"):
        records.history("nothing")
    store.artifact(bare, schema.HISTORY_FILE, b"not a zip")
    with pytest.raises(StoreError, match=r"history\.npz is damaged"):
        records.history("b-0")


def test_history_never_unpickles(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    store.history(store.trial("a-0", {}), {"tasks": np.array([{"an": "object"}], dtype=object)})
    with pytest.raises(StoreError, match="damaged"):
        Records.load(store.home, "toy").history("a-0")


def test_profiles(store: SyntheticStore):
    store.study(plan([baseline_row()], profile="cpu", title="first"), start=1000, end=2000)
    store.study(plan([baseline_row()], profile="smoke", title="second"), start=3000, end=4000)
    store.study(plan([baseline_row()], profile="cpu", title="third"), start=1500, end=2500)
    assert Records.load(store.home, "toy").plan.title == "second"
    assert Records.load(store.home, "toy", "cpu").plan.title == "third"
    with pytest.raises(StoreError, match="profile of study 'toy' in the records 'smok'; did you mean 'smoke'"):
        Records.load(store.home, "toy", "smok")


def test_deleted_runs_do_not_count(store: SyntheticStore):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    store.client.delete_run(store.trial("a-0", {"depth/rmse": 1.0}))
    assert Records.load(store.home, "toy").trials["status"].tolist() == ["missing"]


def test_trials_of_several_studies_fill_one(store: SyntheticStore):
    store.study(plan([row("a", [cell(f"a-{seed}", seed) for seed in range(8)])], baseline=None))
    for seed in range(8):
        store.trial(f"a-{seed}", {"depth/rmse": float(seed)}, study=f"study-{seed % 4}", start=1000 + seed)
    records = Records.load(store.home, "toy")
    assert [value(records, f"a-{seed}", "depth") for seed in range(8)] == list(range(8))


def test_unknown_study_is_named(mixed_home):
    with pytest.raises(StoreError, match=r"unknown study 'toi'; did you mean 'toy'\? \(allowed: toy\)"):
        Records.load(mixed_home, "toi")


def test_an_experiment_without_a_plan_is_no_study(mixed_home):
    with pytest.raises(StoreError, match="unknown study 'other'"):
        Records.load(mixed_home, "other")


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match=r"no records in .*: mlflow\.db is not there"):
        Records.load(tmp_path, "toy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"plain text, long enough to be read as a header of a database"])
def test_a_file_that_is_no_store_is_left_alone(tmp_path, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(StoreError, match="not a store of MLflow records"):
        Records.load(tmp_path, "toy")
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_another_layout_is_refused(store: SyntheticStore):
    store.study(plan([baseline_row()]), layout="2")
    with pytest.raises(StoreError, match="have layout 2, this version reads layout 1"):
        Records.load(store.home, "toy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema: "),
        ({"baseline": "nobody"}, "baseline 'nobody' is no row"),
        (
            {"rows": [row("a", [cell("x", 0), cell("y", 0)])], "baseline": None},
            "row 'a' trains 'depth' twice at seed 0",
        ),
        ({"rows": [row("a", [cell("x", 0, ["dept"])])], "baseline": None}, "trains 'dept', which is no task"),
        ({"rows": [row("a", []), row("a", [])], "baseline": None}, "row 'a' is listed twice"),
        ({"tasks": []}, "tasks: "),
    ],
)
def test_a_damaged_plan_is_one_line(store: SyntheticStore, changes, message):
    store.study({**plan([baseline_row()]), **changes})
    with pytest.raises(StoreError, match=message) as caught:
        Records.load(store.home, "toy")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("plan.json: ")


def test_a_lost_plan_is_one_line(store: SyntheticStore):
    run = store.study(plan([baseline_row()]))
    for path in store.home.rglob(schema.PLAN_FILE):
        path.unlink()
    with pytest.raises(StoreError, match=f"run {run}: its artifact plan.json is not there"):
        Records.load(store.home, "toy")


def test_a_home_that_was_moved_still_reads(store: SyntheticStore, tmp_path):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    store.history(store.trial("a-0", {}), {"count": np.array([3])})
    store.home.rename(tmp_path / "elsewhere")
    assert Records.load(tmp_path / "elsewhere", "toy").history("a-0")["count"].tolist() == [3]


def test_artifacts_that_cannot_be_fetched_are_named(store: SyntheticStore):
    store.client.create_experiment("toy", artifact_location="s3://bucket/toy")
    store.client.create_run(
        store.experiment("toy"), tags={"kind": "study", "schema": "1", "profile": "cpu", "status": "complete"}
    )
    with pytest.raises(StoreError, match=r"plan\.json cannot be fetched from s3://bucket/toy/"):
        Records.load(store.home, "toy")


def test_what_a_later_writer_adds_is_passed_over(store: SyntheticStore):
    store.study(json.loads(json.dumps({**plan([baseline_row()]), "about": "more", "data": {"name": "scenes"}})))
    assert Records.load(store.home, "toy").plan.row("single").label == "Single task"


def test_mean_groups_is_the_recorded_number_or_the_mean_of_the_curve(store: SyntheticStore):
    cells = [cell(f"a-{seed}", seed) for seed in range(3)]
    store.study(plan([row("a", cells)], baseline=None))
    curve = {"groups/count": [(8, 4.0), (10, 1.0)]}
    store.trial("a-0", {}, metrics={**curve, "cost/mean_groups": [(10, 3.25)]})
    store.trial("a-1", {}, metrics=curve)
    store.trial("a-2", {})
    means = Records.load(store.home, "toy").trials["mean_groups"]
    assert means.tolist()[:2] == [3.25, pytest.approx((8 * 4 + 2 * 1) / 10)]
    assert math.isnan(means[2])


@pytest.mark.parametrize(
    ("status", "counted"),
    [("validated", "missing"), ("pruned", "missing"), ("interrupted", "missing"), ("diverged", "diverged")],
)
def test_a_trial_of_a_search_stands_for_no_cell(store: SyntheticStore, status: str, counted: str):
    store.study(plan([row("a", [cell("a-0", 0)])], baseline=None))
    ended = "FAILED" if status == "diverged" else "FINISHED"
    store.trial("a-0", {"depth/rmse": 1.0}, status=status, mlflow_status=ended, tags={schema.CONTENDER: "a"})
    records = Records.load(store.home, "toy")
    assert records.trials["status"].tolist() == [counted]
    assert records.metrics.empty


def test_a_store_reads_runs_once_for_all_its_studies(store: SyntheticStore, monkeypatch):
    for study in ("one", "two"):
        store.study(plan([row("a", [cell("a-0", 0)])], study=study, baseline=None))
    store.trial("a-0", {"depth/rmse": 1.0}, study="one")
    opened = Store(store.home)
    asked = []
    read = opened._records.runs
    monkeypatch.setattr(opened._records, "runs", lambda kind: asked.append(kind) or read(kind))
    both = [Records.read(opened, study) for study in ("one", "two")]
    assert [value(records, "a-0", "depth") for records in both] == [1.0, 1.0]
    assert sorted(asked) == [schema.STUDY_RUN, schema.TRIAL_RUN]
