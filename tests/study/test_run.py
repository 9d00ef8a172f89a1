"""A small study on real components: data, worker processes, SQLite, MLflow, the table."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from little import console, driver, plan, results, run

from analysis.records import Records
from analysis.tables import make_table
from study import schema
from study.cost import expected_passes
from study.executors import Failure
from study.home import Home
from study.overview import plan_overview, status_overview
from study.plan import Plan
from study.tracking import Tracker, finished_keys, flatten, open_client, search
from trainables import checkpoint
from trainables.errors import CheckpointError, DataError, StoreError
from trainables.session import Report


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Any, str]:
    """A home in which the little study has run once."""
    home = Home(tmp_path_factory.mktemp("done") / "home")
    outcome, shown = run(home, plan(seeds=2))
    return home, outcome, shown


def test_everything_trains_once_and_is_recorded_whole(done: tuple[Home, Any, str]) -> None:
    home, outcome, shown = done
    assert (outcome.found, outcome.trained, outcome.failures) == (0, 10, [])
    assert "[10/10]" in shown
    client = open_client(home)
    assert finished_keys(client) == {trial.key for trial in plan(seeds=2).trials}
    runs = list(search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert len(runs) == 10
    for found in runs:
        tags, tasks = found.data.tags, found.data.params["tasks.include"]
        assert found.info.status == "FINISHED"
        assert tags[schema.STATUS] == schema.COMPLETE
        assert tags[schema.METHOD] in {"gd", "single_task", "selective"}
        assert tags[schema.DATA_FINGERPRINT]
        assert tags["mlflow.parentRunId"]
        for task in ("normal", "reshading", "depth_zbuffer"):
            assert (f"test/{task}/l1" in found.data.metrics) == (task in tasks)
            assert (f"train/loss/{task}" in found.data.metrics) == (task in tasks)
        assert found.data.metrics["cost/iterations"] == 6
    parents = list(search(client, f"tags.{schema.KIND} = '{schema.STUDY_RUN}'"))
    assert [p.info.status for p in parents] == ["FINISHED"]


def test_work_done_is_the_work_expected_where_it_is_known(done: tuple[Home, Any, str]) -> None:
    runs = {run.data.tags[schema.TRIAL_KEY]: run for run in search(open_client(done[0]), "tags.kind = 'trial'")}
    for trial in plan(seeds=2).trials:
        if trial.config.method.name != "selective":
            passes = runs[trial.key].data.metrics[schema.cost("trunk_passes")]
            assert passes == expected_passes(trial.config) == 12


def test_curves_are_whole_and_have_no_point_twice(done: tuple[Home, Any, str]) -> None:
    client = open_client(done[0])
    for found in search(client, f"tags.{schema.METHOD} = 'selective'"):
        steps = [m.step for m in client.get_metric_history(found.info.run_id, "val/normal/l1")]
        assert steps == [3, 6]
        assert [m.step for m in client.get_metric_history(found.info.run_id, "groups/count")] == [2, 4, 6]


def test_affinity_and_grouping_history_is_an_artifact(done: tuple[Home, Any, str]) -> None:
    records = Records.load(done[0].path, "little")
    for row in records.trials.itertuples():
        if row.label == "Selective":
            history = records.history(row.trial_key)
            assert history["affinity"].shape == (3, 3, 3)
            assert np.isfinite(history["affinity"]).all()


def test_run_again_nothing_trains(done: tuple[Home, Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("study.executors.local.LocalExecutor.run", never)
    before = results(done[0])
    outcome, _ = run(done[0], plan(seeds=2))
    assert (outcome.found, outcome.trained) == (10, 0)
    assert results(done[0]) == before
    client = open_client(done[0])
    assert len(list(search(client, f"tags.{schema.KIND} = '{schema.STUDY_RUN}'"))) == 1


def test_the_table_has_delta_m_and_the_published_numbers(done: tuple[Home, Any, str]) -> None:
    table = make_table(Records.load(done[0].path, "little"))
    assert table.loc["Single", "delta_m"] == pytest.approx(0.0, abs=1e-9)
    assert list(table["n"]) == [2, 2, 2]
    assert table.loc["GD", "published"] == -6.35
    frame = Records.load(done[0].path, "little").metrics
    test = frame[frame.split == "test"].groupby(["label", "task"]).value.mean()
    gains = [(test["Single", t] - test["GD", t]) / test["Single", t] for t in ("normal", "reshading", "depth_zbuffer")]
    assert table.loc["GD", "delta_m"] == pytest.approx(100 * float(np.mean(gains)), rel=1e-6)


def test_plan_and_status_count_what_is_finished_and_left(done: tuple[Home, Any, str]) -> None:
    overview = plan_overview([plan(seeds=3)], done[0], workers=2)
    assert (overview.named, overview.distinct, overview.finished, overview.left) == (15, 15, 10, 5)
    assert overview.measured
    assert overview.seconds > 0
    status = status_overview(done[0], "little", None)
    assert status.counts == {"complete": 10}
    assert status.state == "complete"
    assert {trial.unit for trial in status.trials} == {"core-hours"}
    assert status.hours["core-hours"] == pytest.approx(sum(trial.seconds for trial in status.trials) / 3600)
    assert (status.seconds_left, status.expected_end) == (0.0, None)
    overview.print(console())
    status.print(console())


def test_more_seeds_train_only_what_is_new(done: tuple[Home, Any, str], tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    run(home, plan(seeds=1))
    outcome, _ = run(home, plan(seeds=2))
    assert (outcome.found, outcome.trained) == (5, 5)
    # Two plans, two parents; the newer one has the rows of both seeds, trained under either.
    assert results(home) == results(done[0])


def test_an_interrupted_run_closes_its_records_and_goes_on_later(done: tuple[Home, Any, str], tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    interrupt_after(home, plan(seeds=2), events=9)
    client = open_client(home)
    states = {r.data.tags[schema.STATUS] for r in search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")}
    assert states <= {schema.COMPLETE, schema.INTERRUPTED}
    assert status_overview(home, "little", None).state == schema.INTERRUPTED
    outcome, _ = run(home, plan(seeds=2))
    assert outcome.found + outcome.trained == 10
    assert results(home) == results(done[0])


def interrupt_after(home: Home, planned: Plan, events: int) -> None:
    original: Callable[..., Any] = Tracker.log
    seen = 0

    def log(self: Tracker, *args: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > events:
            raise KeyboardInterrupt
        original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "log", log)
        outcome, _ = run(home, planned)
    assert outcome.interrupted


def test_a_killed_driver_leaves_orphans_that_are_closed_and_taken_over(
    done: tuple[Home, Any, str], tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    with driver(home.path, seeds=2) as running:
        wait_for_a_finished_trial(home)
        running.send_signal(signal.SIGKILL)
    client = open_client(home)
    left = [r for r in search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'") if r.info.status == "RUNNING"]
    finished = finished_keys(client)
    assert 0 < len(finished) < 10
    outcome, shown = run(home, plan(seeds=2))
    assert (outcome.found, outcome.trained) == (len(finished), 10 - len(finished))
    for orphan in left:
        again = client.get_run(orphan.info.run_id)
        assert again.info.status == "KILLED"
        assert again.data.tags[schema.STATUS_REASON] == "its driver ended before it did"
    if left:
        assert f"closed {len(left)} runs" in shown
    complete = [
        r.data.tags[schema.TRIAL_KEY]
        for r in search(client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and tags.{schema.STATUS} = 'complete'")
    ]
    assert sorted(complete) == sorted(trial.key for trial in plan(seeds=2).trials)
    assert results(home) == results(done[0])


def wait_for_a_finished_trial(home: Home) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if home.database.exists():
            try:
                if finished_keys(open_client(home)):
                    return
            except StoreError:  # being created
                time.sleep(0.05)
        time.sleep(0.05)
    raise AssertionError("no trial finished in time")


def test_a_diverged_trial_is_said_and_not_counted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    outcome, shown = run(home, plan(**{"optim.lr": 1e30}))
    assert outcome.trained == 0
    assert len(outcome.failures) == 5
    assert all(reason.startswith("diverged by iteration") for _, reason in outcome.failures)
    assert "diverged by iteration" in shown
    client = open_client(home)
    assert finished_keys(client) == set()
    assert status_overview(home, "little", None).counts == {"diverged": 5}
    table = make_table(Records.load(home.path, "little"))
    assert table["delta_m"].isna().all()
    assert all("diverged" in note for note in table["note"])


def test_a_failed_trial_has_its_traceback_in_the_record(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    planned = plan()
    tracker = Tracker(home, planned.parent_run(), "test")
    tracker.fail(planned.trials[0], "ValueError: bad", "Traceback...\nValueError: bad\n")
    (found,) = search(tracker.client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")
    assert (found.info.status, found.data.tags[schema.STATUS]) == ("FAILED", schema.FAILED)
    text = Path(tracker.client.download_artifacts(found.info.run_id, schema.TRACEBACK_FILE)).read_text()
    assert text.endswith("ValueError: bad\n")


def test_a_second_attempt_closes_the_first_ones_run(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    planned = plan()
    tracker = Tracker(home, planned.parent_run(), "test")
    trial = planned.trials[0]
    for _ in range(2):
        tracker.log(trial, Report(trial.key, 1, 0.5, [], {"iterations": 1.0}, first=True))
    tracker.log(trial, Report(trial.key, 2, 1.0, [], {"iterations": 2.0}, done=True))
    runs = list(search(tracker.client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert sorted((r.info.status, r.data.tags[schema.ATTEMPT]) for r in runs) == [("FINISHED", "2"), ("KILLED", "1")]
    assert finished_keys(tracker.client) == {trial.key}


def test_an_error_in_the_middle_leaves_the_study_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Tracker, *args: Any) -> None:
        raise RuntimeError("the store is gone")

    monkeypatch.setattr(Tracker, "log", broken)
    home = Home(tmp_path / "home")
    with pytest.raises(RuntimeError, match="the store is gone"):
        run(home, plan())
    assert status_overview(home, "little", None).state == schema.FAILED


def test_a_checkpoint_of_another_config_stops_the_run_before_it_trains(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    trial = plan().trials[0]
    checkpoint.save(home.checkpoint(trial.key), {}, key="other", iteration=1)
    with pytest.raises(
        CheckpointError, match=r"is a checkpoint of another config, not of 'Single \| normal \| seed 0'"
    ):
        run(home, plan())


def test_a_damaged_data_file_stops_the_run_before_it_trains(done: tuple[Home, Any, str], tmp_path: Path) -> None:
    import shutil

    home = Home(tmp_path / "home")
    shutil.copytree(done[0].data, home.data)
    victim = next(home.data.rglob("train/normal.npy"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"train/normal\.npy"):
        run(home, plan())
    assert finished_keys(open_client(home)) == set()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.database.write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"mlflow\.db: not a usable database \(file is not a database\)"):
        run(home, plan())


def test_no_records_are_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no records at"):
        open_client(Home(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_event_is_recorded_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_all(self: Any, source: Any, on_event: Any) -> None:
        while (task := source.next()) is not None:
            on_event(Failure(task.key, "RuntimeError: boom", "Traceback"))

    monkeypatch.setattr("study.executors.local.LocalExecutor.run", fail_all)
    outcome, shown = run(Home(tmp_path / "home"), plan())
    assert [reason for _, reason in outcome.failures] == ["RuntimeError: boom"] * 5
    assert "GD | seed 0: FAILED: RuntimeError: boom" in shown


def test_flatten_gives_dotted_paths() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1]}}, "e": None}) == {"a.b": 1, "a.c.d": [1], "e": None}


def test_processes_that_open_a_fresh_home_at_once_all_succeed(tmp_path: Path) -> None:
    code = "import sys, pathlib; from study.home import Home; from study.tracking import open_client\n"
    code += "print(len(open_client(Home(pathlib.Path(sys.argv[1])), create=True).search_experiments()))"
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=120)[0] for process in running] == ["1\n"] * 3
    assert sorted(p.name for p in (tmp_path / "home").iterdir() if not p.name.startswith("mlflow.db-")) == ["mlflow.db"]
