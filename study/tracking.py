"""MLflow: the one place that writes records.

All writes happen in the driver, in batches. A run counts once it is FINISHED and tagged complete; both are written
last.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study import environment, provenance, schema
from study.home import Home
from study.parent import ParentRun
from study.plan import Trial
from trainables.config import data_fingerprint
from trainables.errors import StoreError
from trainables.history import Point
from trainables.session import Report

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

_BATCH = 1000  # MLflow's limit of metrics in one call
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000


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
    _check_database(home.database)
    return _connect(home.database)


def _connect(path: Path) -> MlflowClient:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
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


def finished_keys(client: MlflowClient) -> set[str]:
    """Trial keys of every trial that is recorded whole, over all studies."""
    return set(finished_runs(client))


def finished_runs(client: MlflowClient) -> dict[str, Run]:
    """Trial key to run of every trial that is recorded whole, over all studies; the earliest where there are
    several."""
    done: dict[str, Run] = {}
    trial, complete = f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'", f"tags.{schema.STATUS} = '{schema.COMPLETE}'"
    query = f"{trial} and {complete} and attributes.status = 'FINISHED'"
    for run in search(client, query):
        done.setdefault(run.data.tags[schema.TRIAL_KEY], run)
    return done


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


class Tracker:
    """Writes the records of one study or search.

    Args:
        home: where.
        subject: what is run.
        executor: name of the executor, for the runs' tags.
    """

    def __init__(self, home: Home, subject: ParentRun, executor: str) -> None:
        self.home = home
        self.subject = subject
        self.executor = executor
        self.client = open_client(home, create=True)
        self._provenance = provenance.tags()
        self._experiment = self._find_experiment()
        self.parent = self._find_parent()
        self._runs: dict[str, str] = {}
        self._attempts: dict[str, int] = {}

    # ---- study -----------------------------------------------------------------------------------

    def _find_experiment(self) -> str:
        study = self.subject.id
        found = self.client.get_experiment_by_name(study)
        if found is not None:
            if found.lifecycle_stage != "active":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = (self.home.artifacts / study).as_uri()
        description = f"{self.subject.title}\n\n{self.subject.about}".strip()
        return str(
            self.client.create_experiment(
                study, artifact_location=location, tags={"mlflow.note.content": description, schema.STUDY: study}
            )
        )

    def _find_parent(self) -> str:
        digest = self.subject.digest()
        query = f"tags.{schema.KIND} = '{self.subject.kind}' and tags.{schema.PLAN_DIGEST} = '{digest}'"
        found = self.client.search_runs([self._experiment], query, max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
            self.client.set_tag(run_id, schema.STATUS, schema.RUNNING)
            return run_id
        subject = self.subject
        tags = {
            **self._common_tags(subject.kind),
            schema.PLAN_DIGEST: digest,
            schema.STATUS: schema.RUNNING,
            "mlflow.note.content": subject.title,
        }
        run = self.client.create_run(self._experiment, run_name=f"{subject.id} | {subject.profile}", tags=tags)
        self._artifact(run.info.run_id, subject.file, json.dumps(subject.document, indent=1).encode())
        return str(run.info.run_id)

    def close(self, status: str, reason: str = "") -> None:
        """End the parent run; a run that is found finished again keeps its record."""
        self.client.set_tag(self.parent, schema.STATUS, status)
        self.client.set_tag(self.parent, schema.STATUS_REASON, reason[:_LONGEST_TAG])
        self.client.set_terminated(self.parent, "FINISHED" if status == schema.COMPLETE else "FAILED")

    def close_orphans(self) -> int:
        """Close trial runs left RUNNING by a driver that is gone (the caller holds the home's lock, so none is
        alive)."""
        orphans = list(
            search(self.client, f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and attributes.status = 'RUNNING'")
        )
        for run in orphans:
            self._end(run.info.run_id, schema.INTERRUPTED, "KILLED", "its driver ended before it did")
        return len(orphans)

    # ---- trials ----------------------------------------------------------------------------------

    def log(self, trial: Trial, report: Report, more: Sequence[Point] = ()) -> str:
        """Write one report, and ``more`` beside its points; opens the trial's run with its first, closes it with its
        last. Returns the run's id."""
        if report.first or trial.key not in self._runs:
            self._open(trial, report)
        run_id = self._runs[trial.key]
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(p.name, p.value, now, p.step) for p in (*report.points, *more)]
        metrics += [Metric(schema.cost(name), value, now, report.iteration) for name, value in report.costs.items()]
        for start in range(0, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        if not report.over:
            return run_id
        if report.history is not None:
            self._arrays(run_id, schema.HISTORY_FILE, report.history)
        if report.diverged:
            self._end(run_id, schema.DIVERGED, "FAILED", report.diverged)
        else:
            status = schema.COMPLETE if trial.config.record.test else schema.VALIDATED
            self._end(run_id, status, "FINISHED", "")
        del self._runs[trial.key]
        return run_id

    def prune(self, trial: Trial, reason: str) -> None:
        """Close the run of a trial that was stopped because others are better."""
        self._end(self._runs.pop(trial.key), schema.PRUNED, "FINISHED", reason)

    def suspend(self, trial: Trial, reason: str) -> None:
        """Close the run of a trial that was stopped at a checkpoint, to be taken up later."""
        self._end(self._runs.pop(trial.key), schema.INTERRUPTED, "KILLED", reason)

    def fail(self, trial: Trial, reason: str, traceback: str) -> None:
        """Close the trial's run (opening one if it never reported) as failed, with why."""
        if trial.key not in self._runs:
            self._open(trial, None)
        run_id = self._runs.pop(trial.key)
        if traceback:
            self._artifact(run_id, schema.TRACEBACK_FILE, traceback.encode())
        self._end(run_id, schema.FAILED, "FAILED", reason)

    def close_open(self, status: str, reason: str) -> None:
        """Close every trial run that is still open, as killed."""
        for run_id in self._runs.values():
            self._end(run_id, status, "KILLED", reason)
        self._runs.clear()

    def _open(self, trial: Trial, report: Report | None) -> None:
        stale = self._runs.pop(trial.key, None)
        if stale is not None:
            self._end(stale, schema.INTERRUPTED, "KILLED", "its worker ended; another attempt took over")
        attempt = self._attempts[trial.key] = self._attempts.get(trial.key, 0) + 1
        config = trial.config
        worker = dict(report.worker) if report else {}
        tags = {
            **self._common_tags(schema.TRIAL_RUN),
            schema.STATUS: schema.RUNNING,
            schema.TRIAL_KEY: trial.key,
            schema.CELL_KEY: trial.cell_key,
            schema.CELL: trial.label,
            schema.SEED: str(trial.seed),
            schema.METHOD: config.method.name,
            schema.BACKBONE: config.model.backbone,
            schema.DATA: config.data.name,
            schema.TASK_SET: config.tasks.set,
            schema.DATA_FINGERPRINT: data_fingerprint(config),
            schema.EXECUTOR: self.executor,
            schema.DEVICE: worker.get("device", "unknown"),
            schema.HOST: worker.get("host", "unknown"),
            schema.ATTEMPT: str(attempt),
            **trial.tags,
            "mlflow.parentRunId": self.parent,
        }
        run = self.client.create_run(self._experiment, run_name=trial.label, tags=tags)
        run_id = str(run.info.run_id)
        plain = config.to_dict()
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in flatten(plain).items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])
        self._artifact(run_id, schema.CONFIG_FILE, json.dumps(plain, indent=1).encode())
        self._runs[trial.key] = run_id

    def _common_tags(self, kind: str) -> dict[str, str]:
        return {
            schema.KIND: kind,
            schema.SCHEMA: str(schema.SCHEMA_VERSION),
            schema.STUDY: self.subject.id,
            schema.PROFILE: self.subject.profile,
            **self._provenance,
        }

    def _end(self, run_id: str, status: str, mlflow_status: str, reason: str) -> None:
        self.client.set_tag(run_id, schema.STATUS, status)
        if reason:
            self.client.set_tag(run_id, schema.STATUS_REASON, reason[:_LONGEST_TAG])
        self.client.set_terminated(run_id, mlflow_status)

    # ---- artifacts -------------------------------------------------------------------------------

    def _artifact(self, run_id: str, name: str, content: bytes) -> None:
        with _named_file(name) as path:
            path.write_bytes(content)
            self.client.log_artifact(run_id, str(path))

    def _arrays(self, run_id: str, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        with _named_file(name) as path:
            np.savez_compressed(path, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
            self.client.log_artifact(run_id, str(path))


@contextmanager
def _named_file(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / name


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as one level of dotted paths."""
    out: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, Mapping):
            out.update(flatten(inner, path))
        else:
            out[path] = inner
    return out
