"""Where Optuna keeps its studies: a SQLite file in the home, or a database by URL."""

from __future__ import annotations

import os
import warnings

import optuna

from study.addresses import mask
from study.home import Home
from trainables.errors import StoreError

VARIABLE = "MTL_STUDY_OPTUNA"
"""Names the storage where ``--storage`` does not; the place for a URL with a password in it."""


def storage_url(home: Home, given: str | None = None) -> str:
    """The storage named, or the environment's, or the home's own file."""
    return given or os.environ.get(VARIABLE) or f"sqlite:///{home.path / 'optuna.db'}"


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if url.startswith("journal:"):
                backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
                return optuna.storages.JournalStorage(backend)
            return optuna.storages.RDBStorage(url, engine_kwargs=_engine(url))
    except (OSError, ValueError, ImportError, RuntimeError, SQLAlchemyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"search storage {mask(url)}: cannot be opened: {mask(first)}") from None


def _engine(url: str) -> dict[str, object]:
    # Wait for another process's write instead of failing at once.
    return {"connect_args": {"timeout": 20}} if url.startswith("sqlite:") else {"pool_pre_ping": True}
