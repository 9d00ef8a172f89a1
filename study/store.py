"""Opening the records of a home, and reading runs from them page by page."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from study import environment
from study.faults import first_line
from study.home import Home
from study.migrate import read_format
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from sqlalchemy import Engine


_MAKING = 7310868735401228
_WAIT_SECONDS = 300


def has_records(home: Home) -> bool:
    """Whether there is something to read; where MLflow would make its tables first, there is not.

    Raises:
        StoreError: the database does not answer.
    """
    if home.embedded:
        return home.database.exists()
    if home.served:
        return True
    from sqlalchemy import inspect

    with _database(home) as engine:
        return bool(inspect(engine).has_table("alembic_version"))


@contextmanager
def exclusive(home: Home) -> Iterator[None]:
    """Keep other drivers out for a moment, those of other homes with the same database, too.

    Raises:
        StoreError: another one is in for long, or the database does not answer.
    """
    with home.critical():
        if home.embedded or home.served:
            yield
            return
        from sqlalchemy import text

        with _database(home) as engine, engine.connect() as connection:
            connection.execute(text(f"SET lock_timeout = '{_WAIT_SECONDS}s'"))
            connection.execute(text(f"SELECT pg_advisory_lock({_MAKING})"))
            # Of the session: it ends with the connection, however the driver ends.
            try:
                yield
            finally:
                connection.execute(text(f"SELECT pg_advisory_unlock({_MAKING})"))


@contextmanager
def _database(home: Home) -> Iterator[Engine]:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        engine = create_engine(
            home.tracking_uri,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": 10},
        )
        yield engine
    except (SQLAlchemyError, ImportError) as error:
        raise StoreError(f"{home.records}: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"{error}: PostgreSQL needs the extra 'postgres': pip install -c constraints.txt 'mtl-study[postgres]'"
    return first_line(error)


def open_client(home: Home, *, create: bool = False) -> MlflowClient:
    """MLflow's client on the home's records: its SQLite file, or the database or server its URL names.

    Args:
        home: whose records.
        create: make the database's tables where there are none.

    Raises:
        StoreError: there is no database and ``create`` is false, or it is no usable one of MLflow's.
    """
    environment.quiet()
    if not home.embedded:
        if not create and not has_records(home):
            raise StoreError(f"no records at {home.records}: run a study first")
        read_format(home)
        return _connect(home.tracking_uri, home.records)
    if not home.database.exists():
        if not create:
            raise StoreError(f"no records at {home.path}: run a study first, or name its folder with --home")
        _create_database(home)
    read_format(home)
    _check_database(home.database)
    return _connect(f"sqlite:///{home.database}", str(home.database))


def _connect(uri: str, shown: str) -> MlflowClient:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # It writes a traceback for every call that fails; ours say in one line what became of it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise StoreError(f"{shown}: cannot be opened by MLflow: {_why(error)}") from None
    return client


def _create_database(home: Home) -> None:
    """Make the database beside its place and move it there whole.

    MLflow builds its tables step by step, and a second process that opens the file meanwhile makes both fail.
    """
    home.require()
    with tempfile.TemporaryDirectory(dir=home.path, prefix=".new-records-") as folder:
        path = Path(folder) / home.database.name
        _connect(f"sqlite:///{path}", str(path))
        with closing(sqlite3.connect(path)) as connection:
            # Readers (the MLflow UI) do not hold up the writer in this mode; it stays with the file.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(FileExistsError):  # another process was first
            os.link(path, home.database)


def _check_database(path: Path) -> None:
    if not path.exists():
        return
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes a damaged schema as it is
        raise StoreError(f"{path}: not a usable database ({error}); move it away to start new records") from None


def search(client: MlflowClient, query: str) -> Iterator[Run]:
    """Every run of every experiment that fits, oldest first, page by page."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    token: str | None = None
    while True:
        page = client.search_runs(
            experiments, query, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
