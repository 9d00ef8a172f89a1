from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from study.search import waiting
from study.search.waiting import WaitingStorage
from trainables.errors import StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "optuna.db"


@pytest.fixture
def storage(path: Path) -> WaitingStorage:
    # A lock is waited for by the storage, hardly by SQLite.
    return WaitingStorage(f"sqlite:///{path}", {"connect_args": {"timeout": 0.01}})


@pytest.fixture
def study(storage: WaitingStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="a", sampler=optuna.samplers.RandomSampler(0))


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Nobody may read or write the database for a while."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(seconds, connection.execute, ("COMMIT",))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        connection.close()


def test_it_waits_for_a_database_that_is_locked(path: Path, study: optuna.Study) -> None:
    started = time.monotonic()
    with locked(path, 1.0):
        trial = study.ask()
        assert time.monotonic() - started > 0.9
    for act in (
        lambda: trial.suggest_float("x", 0.0, 1.0),
        lambda: trial.report(1.0, 1),
        lambda: trial.set_user_attr("a", 1),
        lambda: study.tell(trial, 2.0),
    ):
        with locked(path, 0.3):
            act()
    (told,) = study.get_trials()
    assert (told.state, told.value, told.user_attrs, told.intermediate_values) == (
        TrialState.COMPLETE,
        2.0,
        {"a": 1},
        {1: 1.0},
    )


def lost_once(monkeypatch: pytest.MonkeyPatch, name: str, *, came_through: bool) -> list[int]:
    """The connection is lost in the first call of a method, after it came through or before; the calls are counted."""
    original, calls = getattr(RDBStorage, name), list[int]()

    def method(self: RDBStorage, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return original(self, *args, **options)
        if came_through:
            original(self, *args, **options)
        raise OperationalError("COMMIT", None, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(RDBStorage, name, method)
    return calls


@pytest.mark.parametrize("came_through", [True, False])
def test_an_end_whose_answer_was_lost_is_told_once(
    study: optuna.Study, came_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask()
    calls = lost_once(monkeypatch, "set_trial_state_values", came_through=came_through)
    study.tell(trial, 3.0)
    assert len(calls) == 2
    assert [(t.state, t.value) for t in study.get_trials()] == [(TrialState.COMPLETE, 3.0)]
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [4.0])


@pytest.mark.parametrize("came_through", [True, False])
def test_a_value_whose_answer_was_lost_is_set_again(
    study: optuna.Study, came_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask()
    calls = lost_once(monkeypatch, "set_trial_intermediate_value", came_through=came_through)
    trial.report(0.5, 3)
    assert len(calls) == 2
    assert study.get_trials()[0].intermediate_values == {3: 0.5}


def test_a_trial_that_may_have_been_made_is_not_made_again(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = lost_once(monkeypatch, "_create_new_trial", came_through=True)
    with pytest.raises(StoreError, match=r"server closed the connection unexpectedly.*; run the search again"):
        study.ask()
    assert len(calls) == 1
    assert len(study.get_trials()) == 1


def test_what_waiting_does_not_mend_is_one_line(
    path: Path, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trial_user_attributes")
    with pytest.raises(StoreError) as refused:
        trial.set_user_attr("a", 1)
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.2)
    with locked(path, 1.0), pytest.raises(StoreError, match="database is locked"):
        trial.report(1.0, 1)
    assert "no such table" in str(refused.value)
    assert "\n" not in str(refused.value)
