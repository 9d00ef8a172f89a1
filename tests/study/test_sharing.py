"""Several drivers on one home, a store that goes away under a real sweep, and faults told apart."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from little import driver, plan, results, run
from mlflow.store.tracking.dbmodels.models import SqlDataset
from sqlalchemy import event
from sqlalchemy.orm import Session

from study import schema
from study.cli import run as command
from study.custody import TAKEN, TWICE, Claim
from study.executors import ExecutorSettings, Failure
from study.executors.local import LocalExecutor
from study.executors.relay import Relay
from study.faults import store_trouble
from study.home import Home
from study.inspection import inspect
from study.journal import SUFFIX
from study.sink import MlflowSink
from study.tracking import Tracker, finished_keys, finished_runs, open_client, search
from study.verify import pick, verify
from trainables import checkpoint
from trainables.errors import StoreError, out_of_memory
from trainables.session import Report

FINISHED = f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and attributes.status = 'FINISHED'"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the little study has run once, undisturbed."""
    home = Home(tmp_path_factory.mktemp("shared") / "home")
    run(home, plan())
    return home


def test_two_runs_of_one_data_set_may_begin_together(tmp_path: Path) -> None:
    client = open_client(Home(tmp_path / "home"), create=True)
    experiment = client.create_experiment("little")
    sink = MlflowSink(client, experiment)
    one, other = (sink.create(name, {"experiment": experiment, "time": 0, "name": name, "tags": {}}) for name in "ab")
    used = {"name": "nyud", "digest": "0f", "source": {"folder": "x"}}
    between: list[str] = []

    def before_flush(session: Session, *_: object) -> None:
        if not between and any(isinstance(added, SqlDataset) for added in session.new):
            between.append(other)
            sink.apply(other, "inputs", used, None)

    event.listen(Session, "before_flush", before_flush)
    try:
        sink.apply(one, "inputs", used, None)
    finally:
        event.remove(Session, "before_flush", before_flush)
    assert between == [other]
    found = [client.get_run(run).inputs.dataset_inputs for run in (one, other)]
    assert [[each.dataset.name for each in inputs] for inputs in found] == [["nyud"], ["nyud"]]


def last(trial: Any) -> Report:
    return Report(trial.key, 2, 1.0, [], {"iterations": 2.0}, first=True, done=True)


def test_two_drivers_train_every_trial_once(done: Home, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    drivers = [driver(home.path) for _ in range(2)]
    said = [each.communicate(timeout=240)[0].split(maxsplit=2) for each in drivers]
    assert sum(int(trained) for _, trained, _ in said) == 5
    assert [int(found) + int(trained) for found, trained, _ in said] == [5, 5]
    assert [failures.strip() for *_, failures in said] == ["[]", "[]"]
    runs = list(search(open_client(home), FINISHED))
    assert sorted(r.data.tags[schema.TRIAL_KEY] for r in runs if r.data.tags[schema.KIND] == "trial") == sorted(
        finished_keys(open_client(home))
    )
    assert results(home) == results(done)


def test_a_trial_is_one_drivers_until_it_is_over(tmp_path: Path) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    trial = planned.trials[0]
    one, two = (Tracker(home, planned.parent_run(), "test") for _ in range(2))
    assert one.claim(trial.key) is Claim.OURS
    assert two.claim(trial.key) is Claim.BUSY
    one.log(trial, Report(trial.key, 1, 0.5, [], {"iterations": 1.0}, first=True))
    assert two.close_orphans() == 0
    one.log(trial, Report(trial.key, 2, 1.0, [], {"iterations": 2.0}, done=True))
    assert two.claim(trial.key) is Claim.FINISHED
    assert two.custody.finished_or_free([trial.key]) == ({trial.key}, set())
    for tracker in (one, two):
        tracker.close(schema.COMPLETE)


def test_a_driver_that_lost_a_trial_leaves_no_run_that_counts(tmp_path: Path) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    trial = planned.trials[0]
    one, two = (Tracker(home, planned.parent_run(), "test") for _ in range(2))
    one.log(trial, Report(trial.key, 1, 0.5, [], {"iterations": 1.0}, first=True))
    with one.custody.leases._transaction() as (connection, _):  # It stalls, and its lease runs out.
        connection.execute(one.custody.leases._table.update().values(expires=1.0))
    assert two.close_orphans() == 1
    two.log(trial, last(trial))
    assert one.custody.leases.renew() == {trial.key}
    one.log(trial, Report(trial.key, 2, 1.0, [], {"iterations": 2.0}, done=True))
    assert one.refused(trial) == TAKEN
    assert two.refused(trial) == ""
    runs = list(search(two.client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    for tracker in (one, two):
        tracker.close(schema.COMPLETE)


@pytest.mark.parametrize("standing", ["before the mark", "after the mark", "not at all"])
def test_a_driver_that_stands_still_around_its_mark_leaves_one_run_that_counts(
    standing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question whether a trial is finished and the mark, another driver finishes it."""
    home, planned = Home(tmp_path / "home"), plan()
    trial = planned.trials[0]
    one, two = (Tracker(home, planned.parent_run(), "test") for _ in range(2))
    leases, sink = one.custody.leases, one.custody._sink
    one.log(trial, Report(trial.key, 1, 0.5, [], {"iterations": 1.0}, first=True))
    apply = sink.apply

    def other() -> None:
        with leases._transaction() as (connection, _):
            connection.execute(leases._table.update().values(expires=1.0))
        leases._sure[trial.key] = 0.0
        two.log(trial, last(trial))

    def stalled(run_id: str, kind: str, body: Any, blob: bytes | None) -> None:
        counts = kind == "end" and body.get("counts", False)
        if counts and standing == "before the mark":
            other()
        apply(run_id, kind, body, blob)
        if counts and standing == "after the mark":
            other()

    monkeypatch.setattr(sink, "apply", stalled)
    one.log(trial, Report(trial.key, 2, 1.0, [], {"iterations": 2.0}, done=True))
    runs = list(search(one.client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert sum(run.info.status == "FINISHED" for run in runs) == 1
    assert one.refused(trial) == (TWICE if standing == "before the mark" else "")
    for tracker in (one, two):
        tracker.close(schema.COMPLETE)


@pytest.mark.parametrize("killed", [False, True])
def test_an_end_whose_answer_is_lost_is_delivered_again_and_counts(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has marked the run as finished, and its driver does not know: it is no other run's result."""
    home, planned = Home(tmp_path / "home"), plan()
    trial = planned.trials[0]
    earlier = Tracker(home, planned.parent_run(), "test")  # So that the records are asked whether it is finished.
    assert earlier.claim(trial.key) is Claim.OURS
    earlier.close(schema.INTERRUPTED)
    tracker = Tracker(home, planned.parent_run(), "test")
    assert tracker.claim(trial.key) is Claim.OURS
    sink = tracker.custody._sink
    apply, lost = sink.apply, []

    def answer_lost(run_id: str, kind: str, body: Any, blob: bytes | None) -> None:
        apply(run_id, kind, body, blob)
        if kind == "end" and body.get("counts", False) and (killed or not lost):
            lost.append(run_id)
            raise ConnectionResetError("no answer")

    monkeypatch.setattr(sink, "apply", answer_lost)
    tracker.log(trial, last(trial))
    assert lost
    if killed:  # A driver that ends here leaves its journal to the next one.
        tracker.custody.spool.stop()
        tracker.custody.leases.presence._file.close()
        tracker.custody.leases.presence.close()
        tracker = Tracker(home, planned.parent_run(), "test")
    else:
        assert tracker.custody.spool.flush(60.0)
        assert tracker.refused(trial) == ""
    tracker.close(schema.COMPLETE)
    runs = list(search(open_client(home), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_trials_that_begin_and_end_while_leases_and_records_are_away_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with both in one PostgreSQL that is started again."""
    home, planned = Home(tmp_path / "home"), plan()
    tracker = Tracker(home, planned.parent_run(), "test")
    leases, sink = tracker.custody.leases, tracker.custody._sink
    before, first, second = planned.trials[:3]
    tracker.log(before, Report(before.key, 1, 0.5, [], {"iterations": 1.0}, first=True))
    transaction, create, apply = leases._transaction, sink.create, sink.apply
    away = threading.Event()
    away.set()

    def refusing(original: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if away.is_set():
                raise StoreError("connection refused")
            return original(*args, **options)

        return call

    monkeypatch.setattr(leases, "_transaction", refusing(transaction))
    monkeypatch.setattr(sink, "create", refusing(create))
    monkeypatch.setattr(sink, "apply", refusing(apply))
    tracker.log(before, Report(before.key, 2, 1.0, [], {"iterations": 2.0}, done=True))
    for trial in (first, second):
        assert tracker.claim(trial.key) is Claim.OURS
        tracker.log(trial, last(trial))
    # Suspended and taken up again meanwhile: what is trained is not given back with what is over.
    third = planned.trials[3]
    assert tracker.claim(third.key) is Claim.OURS
    tracker.log(third, Report(third.key, 1, 0.5, [], {"iterations": 1.0}, first=True))
    tracker.suspend(third, "its node was lost")
    assert tracker.claim(third.key) is Claim.OURS
    away.clear()
    tracker.log(third, last(third))
    assert tracker.custody.spool.flush(60.0)
    assert [tracker.refused(trial) for trial in (before, first, second, third)] == [""] * 4
    tracker.close(schema.COMPLETE)
    assert finished_keys(open_client(home)) == {trial.key for trial in (before, first, second, third)}
    assert {seen.name: seen.level for seen in inspect(home)}["leases"] == "ok"


def test_leases_of_dead_drivers_are_given_back_by_the_next_one(tmp_path: Path) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    dead = Tracker(home, planned.parent_run(), "test")
    assert dead.claim(planned.trials[0].key) is Claim.OURS
    dead.custody.leases.presence._file.close()
    tracker = Tracker(home, planned.parent_run(), "test")
    assert tracker.custody.leases.all() == []
    tracker.close(schema.COMPLETE)


def test_a_lease_that_could_not_be_given_back_is_given_back_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    tracker = Tracker(home, planned.parent_run(), "test")
    leases = tracker.custody.leases
    transaction = leases._transaction
    one, two = planned.trials[:2]
    assert tracker.claim(one.key) is Claim.OURS

    def away() -> Any:
        raise StoreError("connection refused")

    monkeypatch.setattr(leases, "_transaction", away)
    tracker.custody.let_go(one.key)
    monkeypatch.setattr(leases, "_transaction", transaction)
    assert leases.live() == {one.key}
    assert tracker.claim(two.key) is Claim.OURS
    tracker.custody.let_go(two.key)
    assert leases.live() == set()
    tracker.close(schema.COMPLETE)


def test_a_store_that_is_locked_for_a_while_loses_nothing(
    done: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write fails for a while in the middle of a real sweep; training goes on meanwhile."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    away = threading.Event()
    reports, refused = 0, 0

    def failing(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal refused
            if away.is_set():
                refused += 1
                raise MlflowException("server closed the connection", error_code=14)
            return original(*args, **kwargs)

        return call

    for name in ("create_run", "log_batch", "set_tag", "set_terminated", "log_artifact", "set_experiment_tag"):
        monkeypatch.setattr(MlflowClient, name, failing(getattr(MlflowClient, name)))
    log = Tracker.log

    def counted(self: Tracker, *args: Any) -> str:
        nonlocal reports
        reports += 1
        if reports in (3, 20):
            away.set() if reports == 3 else away.clear()
        return log(self, *args)

    monkeypatch.setattr(Tracker, "log", counted)
    home = Home(tmp_path / "home")
    outcome, _ = run(home, plan())
    assert refused > 0
    assert (outcome.trained, outcome.failures) == (5, [])
    assert results(home) == results(done)
    assert list(home.spool.glob("*")) == []
    trials = [r for r in search(open_client(home), FINISHED) if schema.SPOOL_ID in r.data.tags]
    assert len({r.data.tags[schema.SPOOL_ID] for r in trials}) == len(trials) == 5


def test_what_waits_when_the_driver_ends_is_delivered_by_the_next_and_not_trained_again(
    done: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    tracker = Tracker(home, planned.parent_run(), "test")
    trial = planned.trials[0]
    with monkeypatch.context() as patch:

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise ConnectionError("connection refused")

        for name in ("create", "apply", "find"):
            patch.setattr(MlflowSink, name, refuse)
        tracker.log(trial, last(trial))
        with pytest.raises(
            StoreError, match=r"the store is away \(connection refused\): \d+ changes to the records wait"
        ):
            tracker.custody.close(0.0)
    assert len(list(home.spool.glob(f"*{SUFFIX}"))) == 1
    outcome, shown = run(home, planned)
    assert "records that waited for the store" in shown
    assert (outcome.found, outcome.trained) == (1, 4)
    assert list(home.spool.glob("*")) == []


def test_a_leftover_of_a_trial_that_was_finished_since_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    trial = planned.trials[0]
    one = Tracker(home, planned.parent_run(), "test")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowSink, "apply", lambda *args: (_ for _ in ()).throw(ConnectionError("gone")))
        one.log(trial, last(trial))
        with pytest.raises(StoreError):
            one.custody.close(0.0)
        spooled = next(home.spool.glob(f"*{SUFFIX}"))
        aside = spooled.rename(home.path / spooled.name)
        blobs = spooled.with_suffix(".blobs").rename(home.path / "aside.blobs")
    two = Tracker(home, planned.parent_run(), "test")
    two.log(trial, last(trial))
    aside.rename(spooled)
    blobs.rename(spooled.with_suffix(".blobs"))
    assert two.custody.take_over() > 0
    runs = list(search(two.client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert sorted((r.info.status, r.data.tags.get(schema.STATUS_REASON, "")) for r in runs) == [
        ("FINISHED", ""),
        ("KILLED", TWICE),
    ]
    two.close(schema.COMPLETE)


def test_an_unreadable_checkpoint_is_set_aside_and_its_trial_starts_over(
    done: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    path = home.checkpoint(planned.trials[0].key)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING):
        outcome, _ = run(home, planned)
    assert (outcome.trained, outcome.failures) == (5, [])
    assert "its trial starts over" in caplog.text
    assert path.with_name(path.name + ".damaged").read_bytes() == b"nonsense"
    assert results(home) == results(done)


def test_a_diverged_trial_is_not_trained_again_and_can_be_repeated_alone(tmp_path: Path) -> None:
    home, planned = Home(tmp_path / "home"), plan(**{"optim.lr": 1e30})
    first, _ = run(home, planned)
    assert len(first.failures) == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalExecutor, "run", lambda *args: pytest.fail("something was trained"))
        again, _ = run(home, planned)
    assert sorted(again.failures) == sorted(first.failures)
    assert all(path.is_file() for path in again.configs.values())
    assert again.configs.keys() == {trial.label for trial in planned.trials}


def test_for_want_of_memory_a_trial_is_tried_once_more_alone(
    done: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    original = LocalExecutor.run
    rounds: list[ExecutorSettings] = []
    greedy = {trial.key: trial.label for trial in planned.trials[:2]}

    def run_short(self: LocalExecutor, source: Any, on_event: Any) -> None:
        rounds.append(self.settings)
        tasks = []
        while (task := source.next()) is not None:
            tasks.append(task)
        for task in tasks:
            if task.key in greedy and (len(rounds) == 1 or task.key == planned.trials[0].key):
                on_event(Failure(task.key, "OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB.", "T"))
            else:
                one = iter([task])
                source_of_one = type("One", (), {"threads": 1, "cuda": False, "adaptive": False})()
                source_of_one.next = lambda one=one: next(one, None)
                original(self, source_of_one, on_event)

    monkeypatch.setattr(LocalExecutor, "run", run_short)
    outcome, shown = run(home, planned)
    assert len(rounds) == 2
    assert (rounds[1].workers, rounds[1].gpus_per_trial) == (1, 1.0)
    assert outcome.trained == 4
    ((label, reason),) = outcome.failures
    assert label == planned.trials[0].label
    assert reason.startswith(
        "alone on its device, too: OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB"
    )
    assert "out of memory, tried again alone later" in shown


def test_a_lost_node_is_no_failure_of_its_trials(done: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, planned = Home(tmp_path / "home"), plan()
    original = LocalExecutor.run
    rounds = 0

    def run_on_a_node_that_goes(self: LocalExecutor, source: Any, on_event: Any) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            for _ in range(2):
                on_event(Failure(source.next().key, "The actor died because its node has died. Node Id: abc"))
        original(self, source, on_event)

    monkeypatch.setattr(LocalExecutor, "run", run_on_a_node_that_goes)
    outcome, _ = run(home, planned)
    assert (outcome.trained, outcome.failures) == (5, [])


def test_ray_counts_no_retry_for_a_lost_node(tmp_path: Path) -> None:
    first = "Failure # 1 (occurred at noon)\nThe actor died because its node has died. Node Id: abc\n"
    second = "Failure # 2 (occurred at one)\nValueError: bad\n"
    own = "Failure # 1 (occurred at noon)\nTraceback (most recent call last):\n  # node x failed\nValueError: bad\n"
    relay = Relay(lambda event: None)
    for text, left in ((first, 0), (second, 1), (first + second, 1), (second + first, 0), (own, 1)):
        path = tmp_path / "error.txt"
        path.write_text(text)
        trial = SimpleNamespace(run_metadata=SimpleNamespace(num_failures=1), error_file=str(path))
        relay.on_trial_recover(0, [], trial)
        assert trial.run_metadata.num_failures == left


def test_each_failure_is_listed_with_the_command_that_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    more = ["--set", "optim.lr=1e30", "--set", "tasks.include=[normal]", "--profile", "smoke", "--home", str(home)]
    spec = tmp_path / "one.yaml"
    spec.write_text("id: one\ntitle: One\nbaseline: gd\nrows:\n  - {id: gd, label: GD, set: {method: gd}}\n")
    assert command(["run", str(spec), "--executor", "local", "--workers", "1", "--seeds", "1", *more]) == 1
    _, err = capsys.readouterr()
    (again,) = re.findall(r"to repeat it: mtl-study (trial \S+ --home \S+)", err)
    assert "failed: GD | seed 0: diverged by iteration" in err
    assert command(again.split()) == 1
    assert "error: diverged by iteration" in capsys.readouterr().err
    assert command(["verify", "--home", str(home)]) == 2


@pytest.mark.parametrize(
    ("reason", "memory"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", True),
        ("MemoryError: ", True),
        (
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
            True,
        ),
        ("its worker process ended with exit code -9", False),
        ("ValueError: memory of the method is too short", False),
    ],
)
def test_want_of_memory_is_told_from_other_failures(reason: str, memory: bool) -> None:
    assert out_of_memory(reason) is memory


def test_what_a_database_says_is_one_line() -> None:
    assert store_trouble(ValueError("x")) == ""
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.Error) as caught:
        connection.execute("SELECT * FROM nowhere")
    assert store_trouble(caught.value) == "the records cannot be used: no such table: nowhere"


def test_verify_finds_the_same_bits_and_notices_a_change(done: Home) -> None:
    verdicts = list(verify(done, "little"))
    assert [verdict.result for verdict in verdicts] == ["same"] * 5
    assert all(verdict.values >= 6 for verdict in verdicts)
    assert [r.info.run_id for r in pick(done, None, 2, seed=0)] == [r.info.run_id for r in pick(done, None, 2, seed=0)]
    assert len({r.info.run_id for seed in range(6) for r in pick(done, None, 2, seed)}) > 2
    with pytest.raises(StoreError, match="no finished trial of other to verify"):
        pick(done, "other", None, 0)


def test_verify_tells_a_changed_record(done: Home, tmp_path: Path) -> None:
    import shutil

    home = Home(tmp_path / "home")
    shutil.copytree(done.path, home.path)
    key, changed = sorted(finished_runs(open_client(home)).items())[0]
    name = next(name for name in changed.data.metrics if name.startswith("test/"))
    with closing(sqlite3.connect(home.database)) as connection, connection:
        for table in ("metrics", "latest_metrics"):
            connection.execute(
                f"UPDATE {table} SET value = value * (1 + 1e-12) WHERE run_uuid = ? AND key = ?",
                (changed.info.run_id, name),
            )
    first, *rest = verify(home)
    assert (first.key, first.result) == (key, "different")
    assert first.detail.startswith(f"{name} at 6: ")
    assert {verdict.result for verdict in rest} == {"same"}


def test_verify_leaves_no_checkpoint_and_no_record(done: Home) -> None:
    assert not list((done.path / "checkpoints").rglob("*.ckpt"))
    runs = list(search(open_client(done), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'"))
    assert len(runs) == 5
    assert not checkpoint.previous(done.checkpoint("0" * 64)).exists()
