"""The store of records: how runs are read of a database, and how of a server."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing

import pytest
from odd_runs import assert_read_alike, write_odd_runs
from synthetic_records import SyntheticStore

from analysis.server import Server
from analysis.store import Store
from study import schema
from trainables.errors import StoreError


def test_a_database_is_read_as_the_client_reads_it(store: SyntheticStore, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = write_odd_runs(store.client)
    assert_read_alike(Store(store.home), store.client, counted)
    monkeypatch.setattr("analysis.database._AT_ONCE", 2)
    monkeypatch.setattr("analysis.server._PAGE", 2)
    assert_read_alike(Store(store.home), store.client, counted)


def test_runs_of_some_experiments(store: SyntheticStore) -> None:
    first, second = (store.trial("a", {}, study=name, start=start) for name, start in (("one", 2), ("two", 1)))
    opened = Store(store.home)
    ids = opened.experiments()
    assert [run.run_id for run in opened.runs([ids["one"]], schema.TRIAL_RUN)] == [first]
    assert [run.run_id for run in opened.runs([ids["one"], ids["two"]], schema.TRIAL_RUN)] == [second, first]
    assert opened.runs([], schema.TRIAL_RUN) == []


def test_a_database_is_read_once_and_without_the_client(store: SyntheticStore) -> None:
    store.trial("a-0", {"depth/rmse": 1.0})
    opened = Store(store.home)
    every = list(opened.experiments().values())
    before = opened.runs(every, schema.TRIAL_RUN)
    store.trial("a-1", {"depth/rmse": 1.0})
    assert opened.runs(every, schema.TRIAL_RUN) == before
    assert len(Store(store.home).runs(every, schema.TRIAL_RUN)) == 2
    assert "_client" not in vars(opened)


def test_reading_leaves_the_file_as_it_was(store: SyntheticStore) -> None:
    run = store.trial("a-0", {"depth/rmse": 1.0})
    file = store.home / "mlflow.db"
    before = file.read_bytes()
    opened = Store(store.home)
    assert len(opened.runs(list(opened.experiments().values()), schema.TRIAL_RUN)) == 1
    assert opened.params([run]) == {run: {}}
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("ALTER TABLE runs RENAME COLUMN lifecycle_stage TO stage", "no such column"),
        ("ALTER TABLE latest_metrics RENAME COLUMN is_nan TO nan", "no such column: is_nan"),
        ("DROP TABLE tags", "no such table: tags"),
    ],
)
def test_a_database_without_a_column_or_table_is_one_line(store: SyntheticStore, change: str, what: str) -> None:
    store.trial("a-0", {"depth/rmse": 1.0})
    with closing(sqlite3.connect(store.home / "mlflow.db")) as connection:
        connection.execute(change)
        connection.commit()
    opened = Store(store.home)
    with pytest.raises(StoreError, match=rf"mlflow\.db: the records cannot be read \(.*{what}") as caught:
        opened.runs(list(opened.experiments().values()), schema.TRIAL_RUN)
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_asked_for_may_be_missing(store: SyntheticStore) -> None:
    """Records of MLflow's other versions, which its client refuses, are read."""
    store.trial("a-0", {"depth/rmse": 1.0})
    with closing(sqlite3.connect(store.home / "mlflow.db")) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN deleted_time")
        connection.execute("UPDATE alembic_version SET version_num = 'another'")
        connection.commit()
    opened = Store(store.home)
    (run,) = opened.runs(list(opened.experiments().values()), schema.TRIAL_RUN)
    assert run.metrics == {"test/depth/rmse": 1.0}


def test_more_runs_than_a_page_of_a_server(store: SyntheticStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.server._PAGE", 3)
    runs = [store.trial(f"a-{n}", {}, study=f"study-{n % 4}", start=1000 + n) for n in range(8)]
    assert [run.run_id for run in Server(store.client, "here").runs(schema.TRIAL_RUN)] == runs


def test_histories_of_many_runs_are_the_client_s(store: SyntheticStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.database._AT_ONCE", 2)
    name, series = "val/depth/rmse", [(1, 3.0), (2, math.nan), (3, -math.inf), (3, 5.0)]
    runs = [store.trial(f"a-{n}", {}, metrics={name: [(s, v + n) for s, v in series]}) for n in range(5)]
    found = Store(store.home).metric_histories(runs, [name])[name]
    assert sorted(set(found["run_id"])) == sorted(runs)
    for run in runs:
        logged = sorted(store.client.get_metric_history(run, name), key=lambda point: (point.step, point.timestamp))
        last = {point.step: point.value for point in logged}
        many = found[found["run_id"] == run][["step", "value"]].itertuples(index=False, name=None)
        assert repr(list(last.items())) == repr(list(many))  # NaN is no NaN's equal
