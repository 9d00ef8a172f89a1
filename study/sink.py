"""MLflow as the spool sees it: every operation may be repeated and says the same thing once."""

from __future__ import annotations

import io
import json
import logging
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import schema
from study.addresses import mask
from study.faults import first_line
from study.served import log_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

logger = logging.getLogger(__name__)

_BATCH = 1000  # MLflow's limit of metrics in one call
_PARAMS = 100  # likewise of parameters, and of tags
_LONGEST_TAG = 8000
_LONGEST_DIGEST = 36
_TEMPORARY = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
_PROBE = "spool.probe"


class MlflowSink:
    """See :class:`study.spool.Sink`.

    Args:
        client: of the tracking store.
        experiment: id of the experiment that runs are created in and looked for.
    """

    def __init__(self, client: MlflowClient, experiment: str | None = None) -> None:
        self._client = client
        self._experiment = experiment

    def find(self, run: str) -> str | None:
        """See :class:`study.spool.Sink`."""
        experiments = [e.experiment_id for e in self._client.search_experiments()]
        found = self._client.search_runs(experiments, f"tags.`{schema.SPOOL_ID}` = '{run}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def create(self, run: str, body: Mapping[str, Any]) -> str:
        """A run with ``name``, ``tags`` and ``time`` (milliseconds) in ``experiment``."""
        tags = {**body["tags"], schema.SPOOL_ID: run}
        made = self._client.create_run(body["experiment"], body["time"], tags, run_name=body["name"])
        return str(made.info.run_id)

    def apply(self, run_id: str, kind: str, body: Mapping[str, Any], blob: bytes | None) -> None:
        """``params``, ``metrics`` (name, value, milliseconds, step), ``tags``, ``inputs`` (``name``, ``digest``,
        ``source`` of a data set), ``artifact`` (``name``), ``files`` (a zip of several), ``model`` (``folder``),
        ``end``."""
        from mlflow.entities import Metric, Param

        if kind == "params":
            params = [Param(name, value) for name, value in body["params"].items()]
            for start in range(0, len(params), _PARAMS):
                self._client.log_batch(run_id, params=params[start : start + _PARAMS])
        elif kind == "metrics":
            metrics = [Metric(name, value, stamp, step) for name, value, stamp, step in body["metrics"]]
            for start in range(0, len(metrics), _BATCH):
                self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        elif kind == "tags":
            self._tag(run_id, body["tags"])
        elif kind == "inputs":
            log_data_sets(self._client, run_id, [_data_set(body)])
        elif kind == "artifact":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / body["name"]
                path.write_bytes(blob or b"")
                self._client.log_artifact(run_id, str(path))
        elif kind == "files":
            with tempfile.TemporaryDirectory() as folder:
                with zipfile.ZipFile(io.BytesIO(blob or b"")) as files:
                    files.extractall(folder)
                self._client.log_artifacts(run_id, folder)
        elif kind == "model":
            self._model(run_id, Path(body["folder"]))
        else:
            tags = body.get("tags") or {schema.STATUS: schema.INTERRUPTED, schema.STATUS_REASON: body["reason"]}
            self._tag(run_id, tags)
            self._client.set_terminated(run_id, body["status"], body.get("time"))

    def _model(self, run_id: str, folder: Path) -> None:
        """Its run is whole without it: what is wrong with a model is said, and the run goes on."""
        try:
            log_model(self._client, run_id, folder)
        except Exception as error:
            if self.temporary(error) and folder.is_dir():
                raise
            logger.warning("run %s has no model: %s", run_id, first_line(error))

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        made = [RunTag(name, mask(value)[:_LONGEST_TAG]) for name, value in tags.items()]
        for start in range(0, len(made), _PARAMS):
            self._client.log_batch(run_id, tags=made[start : start + _PARAMS])

    def points(self, run_id: str, names: list[str]) -> dict[str, int]:
        """See :class:`study.spool.Sink`."""
        return {name: len(self._client.get_metric_history(run_id, name)) for name in names}

    def takes_writes(self) -> bool:
        """See :class:`study.spool.Sink`."""
        if self._experiment is None:
            return False
        try:
            self._client.set_experiment_tag(self._experiment, _PROBE, "1")
        except Exception as error:  # noqa: BLE001 - the question is whether it raises
            logger.debug("the store takes no writes: %s", error)
            return False
        return True

    def temporary(self, error: Exception) -> bool:
        """See :class:`study.spool.Sink`."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if isinstance(error, MlflowException):
            return str(error.error_code) in _TEMPORARY or _cut(error.__cause__)
        # What requests and urllib3 raise derives from OSError.
        return isinstance(error, (OSError, SQLAlchemyError))


def _cut(error: BaseException | None) -> bool:
    """Whether a database's error is of the connection. MLflow calls such a one a bad request, but for one kind."""
    from sqlalchemy.exc import DBAPIError, InterfaceError

    return isinstance(error, InterfaceError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def log_data_sets(client: MlflowClient, run_id: str, used: list[DatasetInput]) -> None:
    """Say what a run was trained on, beside others that may be saying the same.

    MLflow first looks whether the experiment has the data set, then adds it: of two writers that looked before either
    added, one is refused. Its second attempt finds the other's.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, datasets=used)
    except MlflowException as error:
        logger.debug("data sets of run %s, once more after: %s", run_id, first_line(error))
        client.log_inputs(run_id, datasets=used)


def _data_set(body: Mapping[str, Any]) -> DatasetInput:
    """As MLflow's UI shows what a run was trained on."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps(body["source"], sort_keys=True)
    data_set = Dataset(body["name"], body["digest"][:_LONGEST_DIGEST], "mtl-study", source)
    return DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])
