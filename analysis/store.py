"""Reading an MLflow store: its studies, and every run of a kind in few queries. Nothing here writes to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd

from study import schema
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
_PAGE = 1000
_AT_ONCE = 500
"""Runs asked for in one query: SQLite takes a limited number of parameters."""


class Store:
    """The MLflow store of a home folder, opened for reading.

    MLflow creates or fills a database that is absent or empty, so the file is looked at first, read-only, and refused
    where MLflow would have to write. Experiments and runs are read once, however often they are asked for: what is
    recorded later is seen by another ``Store``.

    Raises:
        StoreError: there is no store in ``home``, or MLflow cannot read it.
    """

    def __init__(self, home: Path) -> None:
        self.path = (Path(home) / DATABASE).resolve()
        if not self.path.is_file():
            raise StoreError(f"no records in {home}: {DATABASE} is not there (run a study first, or name another home)")
        _check_initialised(self.path)
        self._experiments: dict[str, str] | None = None
        self._runs: dict[tuple[str, ...], list[Run]] = {}
        from mlflow import MlflowClient

        with _reading(self.path):
            self._client: MlflowClient = MlflowClient(tracking_uri=f"sqlite:///{self.path}")

    def experiments(self) -> dict[str, str]:
        """Experiment name to id, of all that are not deleted."""
        if self._experiments is None:
            with _reading(self.path):
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
            with _reading(self.path):
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

    def metric_histories(self, run_ids: Sequence[str], name: str) -> pd.DataFrame:
        """Every point of one metric of many runs, as :meth:`metric_history` gives those of one: ``run_id``, ``step``,
        ``value``, by run and step. MLflow's client reads one run at a time; this asks its database."""
        rows: list[tuple[str, int, int, float]] = []
        try:
            with closing(_read_only(self.path)) as connection:
                for start in range(0, len(run_ids), _AT_ONCE):
                    some = run_ids[start : start + _AT_ONCE]
                    marks = ", ".join("?" * len(some))
                    query = (
                        "SELECT run_uuid, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END FROM metrics "
                        f"WHERE run_uuid IN ({marks}) AND key = ?"
                    )
                    rows += connection.execute(query, [*some, name]).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: the records cannot be read ({error})") from error
        frame = pd.DataFrame(rows, columns=["run_id", "step", "timestamp", "value"])
        frame = frame.astype({"step": "int64", "timestamp": "int64", "value": "float64"})
        last = frame.sort_values(["run_id", "step", "timestamp"], kind="stable").drop_duplicates(
            ["run_id", "step"], keep="last"
        )
        return last[["run_id", "step", "value"]].reset_index(drop=True)

    def metric_history(self, run_id: str, name: str) -> list[Metric]:
        """Every point of one metric of one run, by step; of points logged twice for a step, the later one."""
        with _reading(self.path):
            points = self._client.get_metric_history(run_id, name)
        last = {point.step: point for point in sorted(points, key=lambda point: (point.step, point.timestamp))}
        return list(last.values())

    def artifact(self, run: Run, name: str) -> Path:
        """The file of one artifact, not to be changed.

        Records hold absolute paths; in a home that was copied or moved the file is looked for where it lies now.

        Raises:
            StoreError: it is not there, or is not kept on this machine.
        """
        recorded = urlsplit(run.info.artifact_uri)
        if recorded.scheme not in ("", "file"):
            raise StoreError(f"run {run.info.run_id}: its artifacts are at {run.info.artifact_uri}, not in a folder")
        folder = Path(url2pathname(recorded.path))
        study_run_artifacts = folder.parts[-3:]
        for place in (folder, self.path.parent.joinpath(ARTIFACTS, *study_run_artifacts)):
            if (place / name).is_file():
                return place / name
        raise StoreError(f"run {run.info.run_id}: its artifact {name} is not there ({folder / name})")


def _pages(query: Callable[[str | None], Any]) -> list[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = query(token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)


def _check_initialised(path: Path) -> None:
    """Raise StoreError unless the database has MLflow's tables and an experiment, so that opening it writes nothing."""
    try:
        with closing(_read_only(path)) as connection:
            connection.execute("SELECT version_num FROM alembic_version").fetchone()
            any_experiment = connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: not a store of MLflow records ({error})") from error
    if any_experiment is None:
        raise StoreError(f"{path}: no study is recorded in it")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what MLflow and its database raise into one line that names the store."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreError(f"{path}: the records cannot be read ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
