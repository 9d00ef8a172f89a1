"""Reading an MLflow store: its studies, and every run of a kind in few queries. Nothing here writes to it."""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study import schema
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

TRACKING = "MTL_STUDY_TRACKING"
"""Names the records where they are not in the home."""
DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
_PAGE = 1000
_AT_ONCE = 500
"""Runs asked for in one query: SQLite takes a limited number of parameters."""


class Store:
    """The MLflow store of a home, opened for reading: the file in its folder, or a database or server by URL.

    MLflow creates or fills a database that is absent or empty, so the file is looked at first, read-only, and refused
    where MLflow would have to write. Experiments and runs are read once, however often they are asked for: what is
    recorded later is seen by another ``Store``.

    Args:
        home: the folder.
        tracking: URL of records that are not in it (``postgresql://``, ``http(s)://`` of an MLflow server); empty for
            those in the folder. ``None`` for what ``MTL_STUDY_TRACKING`` says.

    Raises:
        StoreError: there is no store in ``home`` or at the URL, or MLflow cannot read it.
    """

    def __init__(self, home: Path, tracking: str | None = None) -> None:
        self.home = Path(home).resolve()
        given = (os.environ.get(TRACKING, "") if tracking is None else tracking).strip()
        self._remote = _with_driver(given)
        self.name = _shown(given) if given else str(self.home / DATABASE)
        """Of the store, for messages: without a password."""
        if not given and not self._file.is_file():
            raise StoreError(f"no records in {home}: {DATABASE} is not there (run a study first, or name another home)")
        if not self._served:
            self._check_initialised()
        self._experiments: dict[str, str] | None = None
        self._runs: dict[tuple[str, ...], list[Run]] = {}
        self._fetched: tempfile.TemporaryDirectory[str] | None = None
        from mlflow import MlflowClient

        with self._reading():
            self._client: MlflowClient = MlflowClient(tracking_uri=self._remote or f"sqlite:///{self._file}")

    @property
    def _file(self) -> Path:
        return self.home / DATABASE

    @property
    def _served(self) -> bool:
        return self._remote.startswith("http")

    def experiments(self) -> dict[str, str]:
        """Experiment name to id, of all that are not deleted."""
        if self._experiments is None:
            with self._reading():
                found: list[Experiment] = _pages(
                    lambda token: self._client.search_experiments(max_results=_PAGE, page_token=token)
                )
            self._experiments = {experiment.name: experiment.experiment_id for experiment in found}
        return dict(self._experiments)

    def runs(self, experiment_ids: list[str], kind: str) -> list[Run]:
        """Every run of a kind (``study`` or ``trial``) that is not deleted, oldest first, with last metrics and tags.

        Oldest first, so that runs begun while the pages are read come after those still to be read.
        """
        wanted = (kind, *sorted(experiment_ids))
        if wanted not in self._runs:
            with self._reading():
                found: list[Run] = _pages(
                    lambda token: self._client.search_runs(
                        experiment_ids,
                        filter_string=f"tags.{schema.KIND} = '{kind}'",
                        max_results=_PAGE,
                        order_by=["attributes.start_time ASC"],
                        page_token=token,
                    )
                )
            self._runs[wanted] = list({run.info.run_id: run for run in found}.values())
        return list(self._runs[wanted])

    def metric_histories(self, run_ids: Sequence[str], names: Collection[str]) -> dict[str, pd.DataFrame]:
        """Every point of some metrics of many runs, by the metric's name, as :meth:`metric_history` gives those of one:
        ``run_id``, ``step``, ``value``, by run and step. MLflow's client reads one run at a time; this asks its
        database, which finds the points of a run together and so is asked for all names at once."""
        wanted = list(dict.fromkeys(names))
        if self._served:
            with self._reading():
                rows = [
                    (run, place, point.step, point.timestamp, point.value)
                    for (run, run_id), (place, name) in itertools.product(enumerate(run_ids), enumerate(wanted))
                    for point in self._client.get_metric_history(run_id, name)
                ]
        else:
            rows = [row for start in range(0, len(run_ids), _AT_ONCE) for row in self._points(run_ids, start, wanted)]
        # Run and name by their places: numbers are read, sorted and compared much faster than ids.
        points = np.array(rows, dtype=np.float64).reshape(-1, 5)
        ids = pd.Series(run_ids, dtype="str")
        by_id = np.argsort(np.argsort(np.array(run_ids, dtype=str)))
        return {name: _histories(points[points[:, 1] == place], ids, by_id) for place, name in enumerate(wanted)}

    def _points(self, run_ids: Sequence[str], start: int, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Of the runs from ``start`` on: places of run and name, step, timestamp, value; ``None`` for NaN."""
        runs = {f"run{place}": run_ids[place] for place in range(start, min(start + _AT_ONCE, len(run_ids)))}
        metrics = {f"name{place}": name for place, name in enumerate(names)}
        # The name is compared in a way that no index serves: the one that finds the points of a run is to be used.
        place = " ".join(f"WHEN :name{place} THEN {place}" for place in range(len(names)))
        query = (
            f"WITH places(id, run) AS (VALUES {_places(runs)}) SELECT * FROM "
            f"(SELECT run, CASE key {place} END AS name, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END "
            "FROM places CROSS JOIN metrics "
            "WHERE metrics.run_uuid = places.id) AS found WHERE name IS NOT NULL"
        )
        return self._query(query, {**runs, **metrics})

    def metric_history(self, run_id: str, name: str) -> list[Metric]:
        """Every point of one metric of one run, by step; of points logged twice for a step, the later one."""
        with self._reading():
            points = self._client.get_metric_history(run_id, name)
        last = {point.step: point for point in sorted(points, key=lambda point: (point.step, point.timestamp))}
        return list(last.values())

    def artifact(self, run: Run, name: str) -> Path:
        """The file of one artifact, not to be changed.

        Records hold absolute paths; in a home that was copied or moved the file is looked for where it lies now. What
        is not in a folder is fetched, and kept as long as the store is.

        Raises:
            StoreError: it is not there, or cannot be fetched.
        """
        recorded = urlsplit(run.info.artifact_uri)
        if recorded.scheme not in ("", "file"):
            return self._fetch(run, name)
        folder = Path(url2pathname(recorded.path))
        study_run_artifacts = folder.parts[-3:]
        for place in (folder, self.home.joinpath(ARTIFACTS, *study_run_artifacts)):
            if (place / name).is_file():
                return place / name
        raise StoreError(f"run {run.info.run_id}: its artifact {name} is not there ({folder / name})")

    def _fetch(self, run: Run, name: str) -> Path:
        if self._fetched is None:
            self._fetched = tempfile.TemporaryDirectory(prefix="mtl-study-artifacts-")
        folder = Path(self._fetched.name) / run.info.run_id
        if not (folder / name).is_file():
            folder.mkdir(exist_ok=True)
            try:
                self._client.download_artifacts(run.info.run_id, name, str(folder))
            except Exception as error:  # Whatever a file system of fsspec's or MLflow's raises.
                at = _shown(run.info.artifact_uri)
                raise StoreError(
                    f"run {run.info.run_id}: its artifact {name} cannot be fetched from {at} ({_first_line(error)})"
                ) from error
        return folder / name

    def _query(self, query: str, values: Mapping[str, str]) -> list[tuple[Any, ...]]:
        """Rows of a query of the database, which is opened for reading alone."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        try:
            if not self._remote:
                with closing(sqlite3.connect(f"{self._file.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
                    return connection.execute(query, dict(values)).fetchall()
            engine = create_engine(self._remote, poolclass=NullPool, connect_args={"connect_timeout": 10})
            with engine.connect() as there:
                there.execute(text("SET TRANSACTION READ ONLY"))
                return [tuple(row) for row in there.execute(text(query), dict(values))]
        # SQLite quotes a damaged schema as it is, which need not be text.
        except (sqlite3.Error, SQLAlchemyError, ImportError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.name}: the records cannot be read ({_first_line(error)})") from error

    def _check_initialised(self) -> None:
        """Raise StoreError unless the database has MLflow's tables and an experiment, so that opening it writes
        nothing."""
        try:
            self._query("SELECT version_num FROM alembic_version", {})
            any_experiment = self._query("SELECT 1 FROM experiments LIMIT 1", {})
        except StoreError as error:
            raise StoreError(f"{self.name}: not a store of MLflow records ({_inner(error)})") from error
        if not any_experiment:
            raise StoreError(f"{self.name}: no study is recorded in it")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what MLflow and its database raise into one line that names the store."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, ImportError) as error:
            raise StoreError(f"{self.name}: the records cannot be read ({_first_line(error)})") from error


def _pages(query: Callable[[str | None], Any]) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = query(token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _with_driver(url: str) -> str:
    """``url`` with the PostgreSQL driver that is asked for in ``pyproject.toml``."""
    scheme, colon, rest = url.partition("://")
    return f"postgresql+psycopg{colon}{rest}" if scheme in ("postgres", "postgresql") else url


def _shown(url: str) -> str:
    """``url`` without what lets a reader in: user, password and query."""
    scheme, colon, rest = url.partition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2].partition('?')[0]}"


def _inner(error: Exception) -> str:
    return _first_line(error.__cause__) if isinstance(error.__cause__, Exception) else str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _places(parameters: Iterable[str]) -> str:
    """Rows of a parameter whose name ends in its place, and that place."""
    return ", ".join(f"(:{name}, {name.lstrip('abcdefghijklmnopqrstuvwxyz')})" for name in parameters)


def _histories(points: NDArray[np.float64], ids: pd.Series, by_id: NDArray[np.int64]) -> pd.DataFrame:
    """Of (N, 5) run, name, step, timestamp and value, the latest for each run and step, runs in the order of their
    ids."""
    run, step = points[:, 0].astype(np.int64), points[:, 2]
    order = np.lexsort((points[:, 3], step, by_id[run]))
    run, step, value = run[order], step[order], points[order, 4]
    last = np.append((run[1:] != run[:-1]) | (step[1:] != step[:-1]), [True])[: len(run)]
    found = {"run_id": ids.take(run[last]).to_numpy(), "step": step[last].astype(np.int64), "value": value[last]}
    return pd.DataFrame(found).astype({"run_id": "str"})
