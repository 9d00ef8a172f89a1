"""Records, leases and searches in a real PostgreSQL."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from little import driver, plan, run
from odd_runs import assert_read_alike, write_odd_runs
from postgres_server import PASSWORD, make_database, server

from analysis import store as analysis_store
from analysis.records import Records
from analysis.store import Store
from study import addresses, schema
from study.cli import run as command
from study.cluster.connect import refuse_embedded
from study.home import Home
from study.inspection import inspect
from study.search.storage import open_storage, storage_url
from study.store import exclusive, has_records, open_client, search
from study.tracking import Tracker, finished_keys
from trainables.errors import ConfigError, StoreError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    try:
        with server() as url:
            yield url
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh database, named by the environment."""
    url = make_database(postgres, f"records_{uuid.uuid4().hex[:8]}")
    monkeypatch.setenv(addresses.TRACKING, url)
    return url


def metrics_of(home: Path, tracking: str | None = None) -> dict[tuple[Any, ...], float]:
    frame = Records.read(Store(home, tracking), "little").metrics
    return {(r.trial_key, r.split, r.task, r.metric): r.value for r in frame.itertuples()}


def test_a_study_has_the_same_table_as_in_sqlite(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = Home.locate(tmp_path / "there"), Home(tmp_path / "here")
    assert not has_records(there)
    with pytest.raises(StoreError, match="no records at postgresql"):
        open_client(there)
    for home in (there, here):
        outcome, _ = run(home, plan())
        assert (outcome.trained, outcome.failures) == (5, [])
    assert metrics_of(there.path) == metrics_of(here.path, tracking="")
    assert not there.database.exists()
    assert not (there.path / "leases.db").exists()
    again, _ = run(there, plan())
    assert (again.found, again.trained) == (5, 0)

    shown = []
    for home, tracking in ((there, database), (here, "")):
        os.environ[addresses.TRACKING] = tracking  # the fixture takes it back
        assert command(["table", "little", "--format", "csv", "--home", str(home.path)]) == 0
        table = pd.read_csv(io.StringIO(capsys.readouterr().out))
        shown.append(table[[name for name in table if "second" not in name]])
    pd.testing.assert_frame_equal(shown[0], shown[1])
    assert len(shown[0]) >= 3

    os.environ[addresses.TRACKING] = database
    store, alone = Store(there.path), Store(here.path, tracking="")
    name = schema.cost("iterations")
    for each in (store, alone):
        runs = each.runs(list(each.experiments().values()), schema.TRIAL_RUN)
        histories = each.metric_histories([run.run_id for run in runs], [name])[name]
        assert set(histories["run_id"]) == {run.run_id for run in runs if name in run.metrics} != set()
        assert each.artifact(runs[0], schema.CONFIG_FILE).is_file()
    levels = {seen.name: seen.level for seen in inspect(there)}
    assert "wrong" not in levels.values()


def test_runs_are_read_as_the_client_reads_them(database: str, tmp_path: Path) -> None:
    client = open_client(Home.locate(tmp_path), create=True)
    counted = write_odd_runs(client)
    assert_read_alike(Store(tmp_path), client, counted)
    import psycopg

    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE latest_metrics RENAME COLUMN is_nan TO nan")
    opened = Store(tmp_path)
    with pytest.raises(StoreError, match=r'the records cannot be read \(.*"is_nan" does not exist') as caught:
        opened.runs(list(opened.experiments().values()), schema.TRIAL_RUN)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_two_drivers_with_homes_of_their_own_train_nothing_twice(database: str, tmp_path: Path) -> None:
    drivers = [driver(tmp_path / name) for name in ("one", "two")]
    said = [each.communicate(timeout=280)[0].split(maxsplit=2) for each in drivers]
    assert sum(int(trained) for _, trained, _ in said) == 5
    assert [int(found) + int(trained) for found, trained, _ in said] == [5, 5]
    assert [failures.strip() for *_, failures in said] == ["[]", "[]"]
    client = open_client(Home.locate(tmp_path / "one"))
    whole = f"tags.{schema.KIND} = 'trial' and attributes.status = 'FINISHED'"
    assert sorted(r.data.tags[schema.TRIAL_KEY] for r in search(client, whole)) == sorted(finished_keys(client))


def test_a_live_driver_of_another_home_is_not_taken_for_gone(database: str, tmp_path: Path) -> None:
    planned = plan()
    one, two = (Tracker(Home.locate(tmp_path / name), planned.parent_run(), "test") for name in ("one", "two"))
    key = planned.trials[0].key
    lease = one.custody.leases.acquire(key)
    assert lease is not None
    assert two.custody.leases.acquire(key) is None
    one.custody.leases.release(key)
    taken = two.custody.leases.acquire(key)
    assert taken is not None
    assert taken.token == lease.token + 1
    for tracker in (one, two):
        tracker.close(schema.COMPLETE)


def test_a_search_goes_on_where_it_was(database: str, tmp_path: Path) -> None:
    import optuna
    from contests import SPEC

    spec = tmp_path / "little.yaml"
    spec.write_text(SPEC.replace("trials: 12", "trials: 2"))
    home = Home.locate(tmp_path / "home")
    arguments = ["search", str(spec), "--executor", "local", "--workers", "1", "--quiet", "--no-final"]

    def proposed() -> list[tuple[int, Any, Any]]:
        storage = open_storage(home)
        return sorted(
            (trial.number, trial.params, trial.value)
            for name in optuna.get_all_study_names(storage)
            for trial in optuna.load_study(study_name=name, storage=storage).get_trials()
        )

    assert command([*arguments, "--home", str(home.path)]) == 0
    first = proposed()
    assert len(first) >= 2
    # From another machine: another home, nothing in it.
    assert command([*arguments, "--trials", "3", "--home", str(tmp_path / "elsewhere")]) == 0
    more = proposed()
    assert more[: len(first)] == first
    assert len(more) > len(first)
    assert not list(tmp_path.rglob("*.db"))


def test_no_message_and_no_file_holds_the_password(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home.locate(tmp_path / "home")
    Tracker(home, plan().parent_run(), "test").close(schema.COMPLETE)
    monkeypatch.setenv(addresses.TRACKING, database + "_missing")
    assert command(["status", "little", "--home", str(home.path)]) == 2
    assert command(["table", "little", "--home", str(home.path)]) == 2
    assert command(["table", "little", "--home", str(home.path), "--tracking", database]) == 2
    said = capsys.readouterr()
    assert "does not exist" in said.err
    assert "belongs into $MTL_STUDY_TRACKING" in said.err
    for secret in (PASSWORD, "s3cret"):
        assert secret not in said.err + said.out
        assert not [path for path in home.path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_making_things_waits_for_drivers_of_other_homes(database: str, tmp_path: Path) -> None:
    import psycopg

    with exclusive(Home.locate(tmp_path / "one")), psycopg.connect(database) as other:
        held = other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted").fetchone()
        assert held == (1,)
    with psycopg.connect(database) as other:
        assert other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_addresses_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert analysis_store.TRACKING == addresses.TRACKING
    monkeypatch.setenv(addresses.TRACKING, "postgres://me@db/x")
    monkeypatch.setenv(addresses.ARTIFACTS, "s3://bucket/mtl/")
    home = Home.locate(tmp_path)
    assert home.tracking_uri == home.leases_url == "postgresql+psycopg://me@db/x"
    assert home.artifacts_uri == "s3://bucket/mtl"
    assert storage_url(home).startswith("postgresql+psycopg://me@db/x?options=")
    refuse_embedded(home.tracking_uri, machines=3)
    monkeypatch.delenv(addresses.ARTIFACTS)
    monkeypatch.setenv(addresses.TRACKING, "http://tracking:5000")
    home = Home.locate(tmp_path)
    assert home.artifacts_uri is None
    assert home.leases_url == storage_url(home).replace("optuna", "leases")
    for wrong in ("mysql://a@b/c", "sqlite:///x.db", "/a/folder", "http://"):
        monkeypatch.setenv(addresses.TRACKING, wrong)
        with pytest.raises(ConfigError, match=r"MTL_STUDY_TRACKING=.*is wanted"):
            Home.locate(tmp_path)
