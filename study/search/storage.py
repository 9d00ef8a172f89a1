"""Where Optuna keeps its studies: a SQLite file in the home, or a database by URL."""

from __future__ import annotations

import os
import warnings
from typing import Any

import optuna

from study.addresses import mask, sql_url
from study.home import Home
from study.search.waiting import WaitingStorage
from study.store import exclusive
from trainables.errors import StoreError

_SCHEMA = "mtl_study_optuna"
VARIABLE = "MTL_STUDY_OPTUNA"
"""Names the storage where ``--storage`` does not; the place for a URL with a password in it."""


def storage_url(home: Home, given: str | None = None) -> str:
    """The storage named, or the environment's, or the database of the records where that is PostgreSQL, or the home's
    own file."""
    named = given or os.environ.get(VARIABLE)
    if named:
        return sql_url(named)
    if home.embedded or home.served:
        return f"sqlite:///{home.path / 'optuna.db'}"
    return _in_schema(home.tracking_uri)


def _in_schema(url: str) -> str:
    """In a schema of its own: MLflow's tables and Optuna's have names in common."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    options = parsed.query.get("options", "")
    before = options if isinstance(options, str) else " ".join(options)
    changed = parsed.update_query_dict({"options": f"{before} -csearch_path={_SCHEMA}".strip()})
    return changed.render_as_string(hide_password=False)


def open_storage(home: Home, given: str | None = None) -> optuna.storages.BaseStorage:
    """Open, or make, the storage.

    ``journal:PATH`` is Optuna's journal file, for file systems on which SQLite's locks do not hold; everything else
    is a URL as SQLAlchemy takes it.

    Raises:
        StoreError: it cannot be opened; one line, without the URL's password.
    """
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(home, given)
    home.require()
    try:
        if not (given or os.environ.get(VARIABLE) or home.embedded or home.served):
            # Of two drivers that make the tables at once, one fails.
            with exclusive(home):
                _make_schema(url)
                return WaitingStorage(url, _engine(url))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if url.startswith("journal:"):
                backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
                return optuna.storages.JournalStorage(backend)
            return WaitingStorage(url, _engine(url))
    except (OSError, ValueError, ImportError, RuntimeError, SQLAlchemyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"search storage {mask(url)}: cannot be opened: {mask(first)}") from None


def _make_schema(url: str) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10}).begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}"))


def _engine(url: str) -> dict[str, Any]:
    # Wait for another process's write instead of failing at once.
    return {"connect_args": {"timeout": 20}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
