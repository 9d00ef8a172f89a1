"""Reading an MLflow store: its studies, and every run of a kind in few queries. Nothing here writes to it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.addresses import first_line, shown, with_driver
from analysis.database import Database
from analysis.run import Run
from analysis.server import Server
from study import schema
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKING = "MTL_STUDY_TRACKING"
"""Names the records where they are not in the home."""
DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"


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
        StoreError: there is no store in ``home`` or at the URL, or it cannot be read.
    """

    def __init__(self, home: Path, tracking: str | None = None) -> None:
        self.home = Path(home).resolve()
        given = (os.environ.get(TRACKING, "") if tracking is None else tracking).strip()
        self._remote = with_driver(given)
        file = self.home / DATABASE
        self.name = shown(given) if given else str(file)
        """Of the store, for messages: without a password."""
        if not given and not file.is_file():
            raise StoreError(f"no records in {home}: {DATABASE} is not there (run a study first, or name another home)")
        self._records: Database | Server
        if self._remote.startswith("http"):
            self._records = Server(self._client, self.name)
        else:
            self._records = Database(self._remote or file, self.name)
        self._experiments: dict[str, str] | None = None
        self._runs: dict[str, list[Run]] = {}
        self._params: dict[str, dict[str, str]] = {}
        self._fetched: tempfile.TemporaryDirectory[str] | None = None

    @cached_property
    def _client(self) -> MlflowClient:
        """Only where it is needed: it loads much, and looks at the database in its own way."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._remote or f"sqlite:///{self.home / DATABASE}")

    def experiments(self) -> dict[str, str]:
        """Experiment name to id, of all that are not deleted."""
        if self._experiments is None:
            self._experiments = self._records.experiments()
        return dict(self._experiments)

    def runs(self, experiment_ids: Collection[str], kind: str) -> list[Run]:
        """Every run of a kind (``study`` or ``trial``) that is not deleted, oldest first, with last metrics and
        tags."""
        if kind not in self._runs:
            self._runs[kind] = self._records.runs(kind)
        wanted = set(experiment_ids)
        return [run for run in self._runs[kind] if run.experiment_id in wanted]

    def params(self, run_ids: Collection[str]) -> dict[str, dict[str, str]]:
        """Of each run, what it recorded as its parameters, by name; none for a run that is not there."""
        absent = [run_id for run_id in run_ids if run_id not in self._params]
        self._params |= self._records.params(absent)
        return {run_id: self._params[run_id] for run_id in run_ids}

    def metric_histories(self, run_ids: Sequence[str], names: Collection[str]) -> dict[str, pd.DataFrame]:
        """Every point of some metrics of many runs, by the metric's name: ``run_id``, ``step``, ``value``, by run and
        step; of points logged twice for a step, the later one. A database finds the points of a run together and so
        is asked for all names at once."""
        wanted = list(dict.fromkeys(names))
        # Run and name by their places: numbers are read, sorted and compared much faster than ids.
        points = np.array(self._records.points(run_ids, wanted), dtype=np.float64).reshape(-1, 5)
        ids = pd.Series(run_ids, dtype="str")
        by_id = np.argsort(np.argsort(np.array(run_ids, dtype=str)))
        return {name: _histories(points[points[:, 1] == place], ids, by_id) for place, name in enumerate(wanted)}

    def artifact(self, run: Run, name: str) -> Path:
        """The file of one artifact, not to be changed.

        Records hold absolute paths; in a home that was copied or moved the file is looked for where it lies now. What
        is not in a folder is fetched, and kept as long as the store is.

        Raises:
            StoreError: it is not there, or cannot be fetched.
        """
        recorded = urlsplit(run.artifact_uri)
        if recorded.scheme not in ("", "file"):
            return self._fetch(run, name)
        folder = Path(url2pathname(recorded.path))
        study_run_artifacts = folder.parts[-3:]
        for place in (folder, self.home.joinpath(ARTIFACTS, *study_run_artifacts)):
            if (place / name).is_file():
                return place / name
        raise StoreError(f"run {run.run_id}: its artifact {name} is not there ({folder / name})")

    def config(self, run: Run) -> dict[str, Any]:
        """The resolved trial config that a run recorded, nested.

        Raises:
            StoreError: it is not there, or is none.
        """
        try:
            value = json.loads(self.artifact(run, schema.CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"run {run.run_id}: its {schema.CONFIG_FILE} cannot be read ({error})") from None
        if not isinstance(value, dict):
            raise StoreError(f"run {run.run_id}: its {schema.CONFIG_FILE} is no trial config")
        return value

    def _fetch(self, run: Run, name: str) -> Path:
        if self._fetched is None:
            self._fetched = tempfile.TemporaryDirectory(prefix="mtl-study-artifacts-")
        folder = Path(self._fetched.name) / run.run_id
        if not (folder / name).is_file():
            folder.mkdir(exist_ok=True)
            try:
                self._client.download_artifacts(run.run_id, name, str(folder))
            except Exception as error:  # Whatever a file system of fsspec's or MLflow's raises.
                at = shown(run.artifact_uri)
                raise StoreError(
                    f"run {run.run_id}: its artifact {name} cannot be fetched from {at} ({first_line(error)})"
                ) from error
        return folder / name


def _histories(points: NDArray[np.float64], ids: pd.Series, by_id: NDArray[np.int64]) -> pd.DataFrame:
    """Of (N, 5) run, name, step, timestamp and value, the latest for each run and step, runs in the order of their
    ids."""
    run, step = points[:, 0].astype(np.int64), points[:, 2]
    order = np.lexsort((points[:, 3], step, by_id[run]))
    run, step, value = run[order], step[order], points[order, 4]
    last = np.append((run[1:] != run[:-1]) | (step[1:] != step[:-1]), [True])[: len(run)]
    found = {"run_id": ids.take(run[last]).to_numpy(), "step": step[last].astype(np.int64), "value": value[last]}
    return pd.DataFrame(found).astype({"run_id": "str"})
