"""Opening the records of a home, and reading runs from them page by page."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from study import environment
from study.home import Home
from study.migrate import read_format
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def open_client(home: Home, *, create: bool = False) -> MlflowClient:
    """MLflow's client on the home's SQLite file.

    Args:
        home: whose records.
        create: make the database where there is none.

    Raises:
        StoreError: there is no database and ``create`` is false, or the file is no usable MLflow database.
    """
    environment.quiet()
    if not home.database.exists():
        if not create:
            raise StoreError(f"no records at {home.path}: run a study first, or name its folder with --home")
        _create_database(home)
    read_format(home)
    _check_database(home.database)
    return _connect(home.database)


def _connect(path: Path) -> MlflowClient:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # It writes a traceback for every call that fails; ours say in one line what became of it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(tracking_uri=f"sqlite:///{path}")
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreError(f"{path}: cannot be opened by MLflow: {str(error).splitlines()[0]}") from None
    return client


def _create_database(home: Home) -> None:
    """Make the database beside its place and move it there whole.

    MLflow builds its tables step by step, and a second process that opens the file meanwhile makes both fail.
    """
    home.require()
    with tempfile.TemporaryDirectory(dir=home.path, prefix=".new-records-") as folder:
        path = Path(folder) / home.database.name
        _connect(path)
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
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
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
