"""What the MLflow UI has to show of a run: its name, tags to group by, the data set, the way to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study import schema
from study.archive import export
from study.home import Home
from study.merge import import_archive
from study.plan import make_plan
from study.spec import parse_spec
from study.store import open_client, search
from study.tracking import Tracker
from trainables.history import Point
from trainables.session import Report

SPEC = """
id: little
title: A little study
profile: smoke
base: {tasks: {include: [normal, reshading]}}
baseline: gd
rows:
  - {id: gd, label: GD, set: {method: gd}}
  - {id: beta, label: "selective | beta={method.beta}", set: {method: selective}, axes: {method.beta: [1e-3]}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("ui") / "home")
    plan = make_plan(parse_spec(SPEC, "little.yaml"), seeds=1)
    tracker = Tracker(home, plan.parent_run(), "test")
    for trial in plan.trials:
        points = [Point(f"{split}/{task}/l1", 4, 0.25) for task in trial.tasks for split in ("val", "test")]
        tracker.log(trial, Report(trial.key, 4, 1.0, points, {"iterations": 4.0}, first=True, done=True))
    tracker.close(schema.COMPLETE)
    return home


def runs(home: Home, kind: str) -> dict[str, Any]:
    return {run.info.run_name: run for run in search(open_client(home), f"tags.{schema.KIND} = '{kind}'")}


def test_runs_are_named_like_their_cells_and_can_be_grouped(home: Home) -> None:
    found = runs(home, schema.TRIAL_RUN)
    assert set(found) == {"GD | seed 0", "selective | beta=0.001 | seed 0"}
    tags = found["selective | beta=0.001 | seed 0"].data.tags
    expected = {"study": "little", "method": "selective", "profile": "smoke", "status": "complete", "seed": "0"}
    assert expected.items() <= tags.items()
    assert {"backbone", "cell", "cell_key"} <= tags.keys()


def test_the_data_set_is_an_input_of_the_run(home: Home) -> None:
    run = runs(home, schema.TRIAL_RUN)["GD | seed 0"]
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "scenes"
    assert run.data.tags[schema.DATA_FINGERPRINT].startswith(used.dataset.digest)
    assert '"image_size": 32' in used.dataset.source
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]


def test_the_parent_run_says_where_the_report_is(home: Home) -> None:
    (parent,) = runs(home, schema.STUDY_RUN).values()
    report = home.report("little", "smoke")
    assert parent.data.tags["mlflow.note.content"] == f"A little study\n\nReport: [{report.name}]({report.as_uri()})"


def test_an_archive_carries_names_parents_and_data_sets(home: Home, tmp_path: Path) -> None:
    export(home, tmp_path / "all.zip")
    there = Home(tmp_path / "there")
    import_archive(there, tmp_path / "all.zip")
    (parent,) = runs(there, schema.STUDY_RUN).values()
    for name, run in runs(there, schema.TRIAL_RUN).items():
        origin = runs(home, schema.TRIAL_RUN)[name]
        assert run.data.params == origin.data.params
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags[schema.IMPORTED] == origin.info.run_id
        assert [each.dataset.source for each in run.inputs.dataset_inputs] == [
            each.dataset.source for each in origin.inputs.dataset_inputs
        ]
