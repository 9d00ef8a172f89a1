"""MLflow: the one place that writes records.

All writes happen in the driver, in batches. A run counts once it is FINISHED and tagged complete; both are written
last.
"""

from __future__ import annotations

import io
import json
import logging
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from study import provenance, schema
from study.addresses import mask
from study.custody import Claim, Custody
from study.faults import first_line
from study.home import Home
from study.journal import CREATE, END
from study.migrate import migrate
from study.parent import ParentRun
from study.pictures import LOGGED_IMAGES, affinity_pictures
from study.plan import Trial
from study.resources import held_tags
from study.store import exclusive, open_client, search
from trainables.config import data_fingerprint
from trainables.history import Point
from trainables.session import Report

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

_LONGEST_PARAM = 6000
_HOLD_SECONDS = 1.0
"""Reports of a trial that follow each other faster are written together, with the next one or the end of its run."""
_PARENT = "parent"
_SOURCE = {"mlflow.source.name": "mtl-study", "mlflow.source.type": "LOCAL"}
"""That MLflow shows where a run is from."""
_WHOLE = (
    f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and tags.{schema.STATUS} = '{schema.COMPLETE}'"
    " and attributes.status = 'FINISHED'"
)


def finished_keys(client: MlflowClient) -> set[str]:
    """Trial keys of every trial that is recorded whole, over all studies."""
    return set(finished_runs(client))


def finished_runs(client: MlflowClient) -> dict[str, Run]:
    """Trial key to run of every trial that is recorded whole, over all studies; the earliest where there are
    several."""
    done: dict[str, Run] = {}
    for run in search(client, _WHOLE):
        done.setdefault(run.data.tags[schema.TRIAL_KEY], run)
    return done


def diverged_reasons(client: MlflowClient) -> dict[str, str]:
    """Trial key to why it diverged, of every trial recorded so. It would do the same again."""
    query = f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and tags.{schema.STATUS} = '{schema.DIVERGED}'"
    runs = [run for run in search(client, query) if run.info.status == "FAILED"]
    return {run.data.tags[schema.TRIAL_KEY]: run.data.tags.get(schema.STATUS_REASON, "") for run in runs}


class Tracker:
    """Writes the records of one study or search.

    Writing goes straight to the store while it answers, and by way of the disk while it does not (:mod:`study.spool`).
    Several trackers may write in one home: each writes of the trials it has a lease of.

    Args:
        home: where.
        subject: what is run.
        executor: name of the executor, for the runs' tags.

    Raises:
        StoreError: the home or its records cannot be used.
    """

    def __init__(self, home: Home, subject: ParentRun, executor: str) -> None:
        self.home = home
        self.subject = subject
        self.executor = executor
        self._provenance = provenance.tags()
        # One driver at a time where something is made that has to be there once.
        with exclusive(home):
            migrate(home)
            self.client = open_client(home, create=True)
            self._experiment = self._find_experiment()
            self.custody = Custody(home, self.client, self._experiment, self._is_finished)
            try:
                self.recovered = self.custody.take_over()
                self.parent = self._find_parent()
            except BaseException:
                self.custody.close(0.0)
                raise
        self._runs: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        self._ended: dict[str, tuple[str, Trial]] = {}
        self._held: dict[str, list[list[Any]]] = {}
        self._wrote: dict[str, float] = {}
        self._files: dict[str, dict[str, bytes]] = {}
        self._logs: dict[str, list[str]] = {}

    # ---- study -----------------------------------------------------------------------------------

    def _find_experiment(self) -> str:
        study = self.subject.id
        found = self.client.get_experiment_by_name(study)
        if found is not None:
            if found.lifecycle_stage != "active":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        root = self.home.artifacts_uri
        location = f"{root}/{quote(study)}" if root else None
        description = f"{self.subject.title}\n\n{self.subject.about}".strip()
        return str(
            self.client.create_experiment(
                study, artifact_location=location, tags={"mlflow.note.content": description, schema.STUDY: study}
            )
        )

    def _find_parent(self) -> str:
        subject = self.subject
        digest = subject.digest()
        query = f"tags.{schema.KIND} = '{subject.kind}' and tags.{schema.PLAN_DIGEST} = '{digest}'"
        found = self.client.search_runs([self._experiment], query, max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self.custody.adopt(_PARENT, run_id)
            self.client.update_run(run_id, status="RUNNING")
            self.custody.write(_PARENT, "tags", {"tags": {schema.STATUS: schema.RUNNING}})
            return run_id
        tags = {
            **self._common_tags(subject.kind),
            schema.PLAN_DIGEST: digest,
            schema.STATUS: schema.RUNNING,
            "mlflow.note.content": self._note(),
        }
        run = self.client.create_run(self._experiment, run_name=f"{subject.id} | {subject.profile}", tags=tags)
        self.custody.adopt(_PARENT, str(run.info.run_id))
        self._artifact(_PARENT, subject.file, json.dumps(subject.document, indent=1).encode())
        return str(run.info.run_id)

    def _note(self) -> str:
        """What the MLflow UI shows beside the parent run; of a study, where its report is."""
        subject = self.subject
        if subject.kind != schema.STUDY_RUN:
            return subject.title
        report = self.home.report(subject.id, subject.profile)
        return f"{subject.title}\n\nReport: [{report.name}]({report.absolute().as_uri()})"

    def close(self, status: str, reason: str = "") -> None:
        """End the parent run, wait until the store has everything, and give up the trials; a run that is found
        finished again keeps its record.

        Raises:
            StoreError: the store is away for long; what waits is on the disk.
        """
        mlflow_status = "FINISHED" if status == schema.COMPLETE else "FAILED"
        try:
            self._end(_PARENT, None, status, mlflow_status, reason, always=True)
        finally:
            self.custody.close()

    def close_orphans(self, key: str | None = None) -> int:
        """Close trial runs (of one trial) left RUNNING by a driver that is gone; those of live drivers are left."""
        one = f" and tags.{schema.TRIAL_KEY} = '{key}'" if key else ""
        query = f"tags.{schema.KIND} = '{schema.TRIAL_RUN}' and attributes.status = 'RUNNING'{one}"
        # First the runs, then the leases: a run that is begun between the two is not seen.
        running = list(search(self.client, query))
        live = self.custody.leases.live() if running and key is None else set()
        orphans = [run for run in running if run.data.tags.get(schema.TRIAL_KEY) not in live]
        for run in orphans:
            self.custody.end(run.info.run_id, schema.INTERRUPTED, "KILLED", "its driver ended before it did")
        return len(orphans)

    # ---- who trains ------------------------------------------------------------------------------

    def claim(self, key: str) -> Claim:
        """Ask for a trial before it is trained, so that no other driver trains it meanwhile."""
        return self.custody.claim(key)

    def refused(self, trial: Trial) -> str:
        """Why the finished run of a trial must not count; empty where nothing is known against it (yet: see
        :meth:`unrecorded`)."""
        run, _ = self._ended.get(trial.key, ("", trial))
        reason = self.custody.spool.refused(run)
        if reason:
            del self._ended[trial.key]
        return reason

    def unrecorded(self) -> list[tuple[Trial, str]]:
        """Trials that seemed finished and whose runs were refused when they reached the store, with why."""
        found = [(trial, self.refused(trial)) for _, trial in list(self._ended.values())]
        return [(trial, reason) for trial, reason in found if reason]

    def _is_finished(self, key: str, beside: str = "") -> bool:
        query = f"{_WHOLE} and tags.{schema.TRIAL_KEY} = '{key}'"
        return any(run.info.run_id != beside for run in search(self.client, query))

    # ---- trials ----------------------------------------------------------------------------------

    def log(self, trial: Trial, report: Report, more: Sequence[Point] = ()) -> str:
        """Write one report, and ``more`` beside its points; opens the trial's run with its first, closes it with its
        last. Returns the run's id (this side's own while the store has given it none)."""
        if report.first or trial.key not in self._runs:
            self._open(trial, report)
        run = self._runs[trial.key]
        now = int(time.time() * 1000)
        metrics = [[p.name, p.value, now, p.step] for p in (*report.points, *more)]
        metrics += [[schema.cost(name), value, now, report.iteration] for name, value in report.costs.items()]
        metrics += [[schema.system(name), value, now, report.iteration] for name, value in report.system.items()]
        self._held.setdefault(run, []).extend(metrics)
        self._logs.setdefault(run, []).extend(report.log)
        if time.monotonic() - self._wrote.get(run, -_HOLD_SECONDS) >= _HOLD_SECONDS:
            self._write_held(run)
        if report.over:
            if report.history is not None:
                self._history(run, report.history, now)
            if report.model is not None:
                self.custody.write(run, "model", {"folder": report.model})
            if report.diverged:
                self._end(run, trial.key, schema.DIVERGED, "FAILED", report.diverged)
            else:
                status = schema.COMPLETE if trial.config.record.test else schema.VALIDATED
                self._end(run, trial.key, status, "FINISHED", "")
                self._ended[trial.key] = (run, trial)
            del self._runs[trial.key]
        return self.custody.spool.run_id(run)

    def log_gains(self, gains: Callable[[Mapping[str, Run]], Mapping[str, float]]) -> None:
        """Write Delta_m beside finished trials where it is another than before: more seeds of the baseline change it.
        While the store is away it is left out; the next invocation writes it.

        Args:
            gains: finished runs by trial key, to Delta_m by trial key.
        """
        try:
            finished = finished_runs(self.client)
        except Exception as error:
            if not self.custody.temporary(error):
                raise
            logger.warning("Delta_m is not beside the runs yet: %s", first_line(error))
            return
        now = int(time.time() * 1000)
        for key, value in gains(finished).items():
            run_id, metrics = str(finished[key].info.run_id), finished[key].data.metrics
            if metrics.get(schema.DELTA_M) != value:
                point = [schema.DELTA_M, value, now, int(metrics.get(schema.cost("iterations"), 0))]
                self.custody.adopt(run_id, run_id)
                self.custody.write(run_id, "metrics", {"metrics": [point]})

    def _write_held(self, run: str) -> None:
        metrics = self._held.pop(run, [])
        if metrics:
            self.custody.write(run, "metrics", {"metrics": metrics})
            self._wrote[run] = time.monotonic()

    def prune(self, trial: Trial, reason: str) -> None:
        """Close the run of a trial that was stopped because others are better."""
        self._end(self._runs.pop(trial.key), trial.key, schema.PRUNED, "FINISHED", reason)

    def suspend(self, trial: Trial, reason: str) -> None:
        """Close the run, if it has one, of a trial that was stopped, to be taken up later from its checkpoint."""
        if trial.key not in self._runs:
            self.custody.let_go(trial.key)
            return
        self._end(self._runs.pop(trial.key), trial.key, schema.INTERRUPTED, "KILLED", reason)

    def fail(self, trial: Trial, reason: str, traceback: str) -> None:
        """Close the trial's run (opening one if it never reported) as failed, with why."""
        if trial.key not in self._runs:
            self._open(trial, None)
        run = self._runs.pop(trial.key)
        if traceback:
            self._files.setdefault(run, {})[schema.TRACEBACK_FILE] = mask(traceback).encode()
        self._end(run, trial.key, schema.FAILED, "FAILED", reason)

    def close_open(self, status: str, reason: str) -> None:
        """Close every trial run that is still open, as killed."""
        for key, run in self._runs.items():
            self._end(run, key, status, "KILLED", reason)
        self._runs.clear()

    def _open(self, trial: Trial, report: Report | None) -> None:
        stale = self._runs.pop(trial.key, None)
        if stale is not None:
            reason = "its worker ended; another attempt took over"
            self._end(stale, None, schema.INTERRUPTED, "KILLED", reason)
        elif not self.custody.leases.owns(trial.key):
            self.claim(trial.key)
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
            **held_tags(worker),
            schema.ATTEMPT: str(attempt),
            **trial.tags,
            "mlflow.parentRunId": self.parent,
        }
        run = uuid.uuid4().hex
        now = int(time.time() * 1000)
        body = {"experiment": self._experiment, "name": trial.label, "tags": tags, "time": now, "key": trial.key}
        self.custody.write(run, CREATE, body)
        plain = config.to_dict()
        params = {name: str(value)[:_LONGEST_PARAM] for name, value in flatten(plain).items()}
        self.custody.write(run, "params", {"params": params})
        data = {"name": config.data.name, "digest": tags[schema.DATA_FINGERPRINT], "source": config.data.to_dict()}
        self.custody.write(run, "inputs", data)
        self._artifact(run, schema.CONFIG_FILE, json.dumps(plain, indent=1).encode())
        self._runs[trial.key] = run

    def _common_tags(self, kind: str) -> dict[str, str]:
        return {
            schema.KIND: kind,
            schema.SCHEMA: str(schema.SCHEMA_VERSION),
            schema.STUDY: self.subject.id,
            schema.PROFILE: self.subject.profile,
            **_SOURCE,
            **self._provenance,
        }

    def _end(
        self, run: str, key: str | None, status: str, mlflow_status: str, reason: str, *, always: bool = False
    ) -> None:
        """End a run; with ``key``, its trial is over here, too. ``always`` writes an empty reason over an old one."""
        self._write_held(run)
        self._wrote.pop(run, None)
        self._write_files(run)
        tags = {schema.STATUS: status, **({schema.STATUS_REASON: reason} if reason or always else {})}
        body: dict[str, Any] = {"status": mlflow_status, "tags": tags, "time": int(time.time() * 1000)}
        if status in (schema.COMPLETE, schema.VALIDATED) and key is not None:
            body.update(key=key, counts=True)
        self.custody.write(run, END, body)
        if key is not None:
            self.custody.let_go(key)

    # ---- artifacts -------------------------------------------------------------------------------

    def _artifact(self, run: str, name: str, content: bytes) -> None:
        self.custody.write(run, "artifact", {"name": name}, content)

    def _history(self, run: str, arrays: Mapping[str, np.ndarray], now: int) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})
        pictures = affinity_pictures(arrays, run, now)
        self._files.setdefault(run, {}).update({schema.HISTORY_FILE: buffer.getvalue(), **pictures})
        if pictures:
            self.custody.write(run, "tags", {"tags": {LOGGED_IMAGES: "True"}})

    def _write_files(self, run: str) -> None:
        """What a run leaves at its end, in one go."""
        files = self._files.pop(run, {})
        if lines := self._logs.pop(run, []):
            files[schema.LOG_FILE] = mask("\n".join(lines) + "\n").encode()
        if files:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as packed:
                for name, content in files.items():
                    packed.writestr(name, content)
            self.custody.write(run, "files", {}, buffer.getvalue())


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
