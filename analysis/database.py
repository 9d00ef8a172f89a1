"""The database of an MLflow store, read by SQL: MLflow's client makes objects of all it reads, of which ten thousand
runs have a million. Nothing here writes to it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from analysis.addresses import first_line, inner_line
from analysis.run import Run
from study import schema
from trainables.errors import StoreError

_AT_ONCE = 500
"""Runs asked for in one query: SQLite takes a limited number of parameters."""
_OF_A_KIND = (
    "SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
    "WHERE runs.lifecycle_stage = 'active' AND tags.key = :kind_tag AND tags.value = :kind"
)
_RUN = "run_uuid, experiment_id, status, start_time, end_time, artifact_uri"

Row = tuple[Any, ...]
Query = tuple[str, Mapping[str, str]]


class Database:
    """MLflow's tables in an SQLite file or in PostgreSQL. Of MLflow's other versions it reads those that have the
    columns it asks for.

    Args:
        address: the file, or the URL with its driver.
        name: of it, for messages.

    Raises:
        StoreError: there is no such database, or it has no tables of MLflow's or no experiment. MLflow would fill it.
    """

    def __init__(self, address: Path | str, name: str) -> None:
        self._address, self._name = address, name
        try:
            self._read(("SELECT version_num FROM alembic_version", {}))
            any_experiment = self._read(("SELECT 1 FROM experiments LIMIT 1", {}))
        except StoreError as error:
            raise StoreError(f"{name}: not a store of MLflow records ({inner_line(error)})") from error
        if not any_experiment[0]:
            raise StoreError(f"{name}: no study is recorded in it")

    def experiments(self) -> dict[str, str]:
        """As :meth:`analysis.store.Store.experiments`."""
        found = "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active' ORDER BY experiment_id"
        return {name: str(number) for name, number in self._read((found, {}))[0]}

    def runs(self, kind: str) -> list[Run]:
        """Every run of a kind that is not deleted, oldest first; of runs begun together, by their ids. All tables are
        read as they are at one moment."""
        wanted = {"kind_tag": schema.KIND, "kind": kind}
        value = "CASE WHEN is_nan THEN NULL ELSE value END"
        runs, tags, metrics = self._read(
            (f"SELECT {_RUN} FROM runs WHERE run_uuid IN ({_OF_A_KIND})", wanted),
            (f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN ({_OF_A_KIND})", wanted),
            (f"SELECT run_uuid, key, {value} FROM latest_metrics WHERE run_uuid IN ({_OF_A_KIND})", wanted),
        )
        tags_of: dict[str, dict[str, str]] = {row[0]: {} for row in runs}
        metrics_of: dict[str, dict[str, float]] = {row[0]: {} for row in runs}
        for run_id, name, text in tags:
            tags_of[run_id][name] = text
        for run_id, name, number in metrics:
            metrics_of[run_id][name] = math.nan if number is None else number
        found = [
            Run(run_id, str(experiment), status, start, end, folder, tags_of[run_id], metrics_of[run_id])
            for run_id, experiment, status, start, end, folder in runs
        ]
        return sorted(found, key=lambda run: (run.start_time is None, run.start_time or 0, run.run_id))

    def params(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """As :meth:`analysis.store.Store.params`."""
        found: dict[str, dict[str, str]] = {run_id: {} for run_id in run_ids}
        for start in range(0, len(run_ids), _AT_ONCE):
            runs = _named(run_ids, start)
            ids = ", ".join(f":{name}" for name in runs)
            for run_id, name, text in self._read(
                (f"SELECT run_uuid, key, value FROM params WHERE run_uuid IN ({ids})", runs)
            )[0]:
                found[run_id][name] = text
        return found

    def points(self, run_ids: Sequence[str], names: Sequence[str]) -> list[Row]:
        """Every point of some metrics of many runs: places of run and name, step, timestamp, value; ``None`` for
        NaN."""
        return [row for start in range(0, len(run_ids), _AT_ONCE) for row in self._points(run_ids, start, names)]

    def _points(self, run_ids: Sequence[str], start: int, names: Sequence[str]) -> list[Row]:
        runs = _named(run_ids, start)
        metrics = {f"name{place}": name for place, name in enumerate(names)}
        # The name is compared in a way that no index serves: the one that finds the points of a run is to be used.
        place = " ".join(f"WHEN :name{place} THEN {place}" for place in range(len(names)))
        query = (
            f"WITH places(id, run) AS (VALUES {_places(runs)}) SELECT * FROM "
            f"(SELECT run, CASE key {place} END AS name, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END "
            "FROM places CROSS JOIN metrics "
            "WHERE metrics.run_uuid = places.id) AS found WHERE name IS NOT NULL"
        )
        return self._read((query, {**runs, **metrics}))[0]

    def _read(self, *queries: Query) -> list[list[Row]]:
        """The rows of each query, all of one moment; the database is opened for reading alone."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return self._of_file(queries) if isinstance(self._address, Path) else self._of_server(queries)
        # SQLite quotes a damaged schema as it is, which need not be text.
        except (sqlite3.Error, SQLAlchemyError, ImportError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._name}: the records cannot be read ({first_line(error)})") from error

    def _of_file(self, queries: Iterable[Query]) -> list[list[Row]]:
        uri = f"{Path(self._address).as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            return [connection.execute(query, dict(values)).fetchall() for query, values in queries]

    def _of_server(self, queries: Iterable[Query]) -> list[list[Row]]:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        engine = create_engine(str(self._address), poolclass=NullPool, connect_args={"connect_timeout": 10})
        with engine.connect() as there:
            there.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            return [[tuple(row) for row in there.execute(text(query), dict(values))] for query, values in queries]


def _named(run_ids: Sequence[str], start: int) -> dict[str, str]:
    """The runs of one query, from ``start`` on, by the names of parameters that end in their places."""
    return {f"run{place}": run_ids[place] for place in range(start, min(start + _AT_ONCE, len(run_ids)))}


def _places(parameters: Iterable[str]) -> str:
    """Rows of a parameter whose name ends in its place, and that place."""
    return ", ".join(f"(:{name}, {name.lstrip('abcdefghijklmnopqrstuvwxyz')})" for name in parameters)
