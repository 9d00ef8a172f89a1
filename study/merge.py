"""Records from an archive into a home, merged by trial key.

A trial that is finished here keeps its record. An equal key is to mean an equal result: where the archive says
otherwise, the two are reported and nothing of that trial is taken.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from study import schema
from study.archive import EXPERIMENTS, PARENTS, RUNS
from study.home import Home
from study.migrate import migrate
from study.parcel import Limits, Parcel, opened
from study.portable import ExperimentRecord, RunRecord, last_values, load_record
from study.sink import log_data_sets
from study.store import exclusive, has_records, open_client, search
from study.tracking import finished_runs
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PARENT_TAG = "mlflow.parentRunId"
_METRICS_AT_ONCE = 1000
_PARAMS_AT_ONCE = 100
SAME = 1e-6
"""Relative difference of results of one trial on two CPUs: processors differ in the last digits."""


@dataclass(frozen=True)
class Conflict:
    """One trial with two results.

    Attributes:
        key: trial key.
        label: of the cell.
        what: the first number that differs, or ``outcome``.
        here: as recorded here.
        there: as in the archive.
    """

    key: str
    label: str
    what: str
    here: str
    there: str

    def __str__(self) -> str:
        return f"{self.label or 'trial'} ({self.key[:12]}): {self.what} is {self.here} here and {self.there} there"


@dataclass
class Imported:
    """What came of an archive.

    Attributes:
        studies: study and search runs taken over.
        trials: finished trials taken over.
        others: runs taken over that ended otherwise: failed, diverged, pruned, of a search.
        present: runs that were here, and trials finished here already.
        conflicts: trials of which nothing was taken.
    """

    studies: int = 0
    trials: int = 0
    others: int = 0
    present: int = 0
    conflicts: list[Conflict] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def import_archive(home: Home, path: Path, *, limits: Limits | None = None, dry: bool = False) -> Imported:
    """Merge an archive into a home.

    The archive is checked whole before the home is touched. A run counts once it is written whole, as always: what an
    interrupted import leaves counts for nothing and the next import begins it anew.

    Args:
        home: the target; made where there is none.
        path: the archive.
        limits: what is too much.
        dry: only say what would come of it.

    Raises:
        StoreError: the archive is damaged, not to be trusted, or of a newer version; or the home cannot be written.
    """
    with opened(path, limits) as parcel:
        experiments = _experiments(parcel)
        records = _records(parcel, {record.name for record in experiments})
        if dry and not has_records(home):
            return _Merge(None, home, parcel, experiments, dry=True).all(records)
        if dry:
            return _Merge(open_client(home), home, parcel, experiments, dry=True).all(records)
        with exclusive(home):
            migrate(home)
            return _Merge(open_client(home, create=True), home, parcel, experiments, dry=False).all(records)


def _experiments(parcel: Parcel) -> list[ExperimentRecord]:
    found = load_record(parcel.read(EXPERIMENTS), list[ExperimentRecord], f"{parcel.path}: {EXPERIMENTS}")
    return list(found)


def _records(parcel: Parcel, experiments: set[str]) -> list[RunRecord]:
    """Every run, checked before the first is written."""
    records = []
    ids = load_record(parcel.read(RUNS), list[str], f"{parcel.path}: {RUNS}")
    for run_id in ids:
        name = f"runs/{run_id}/run.json"
        record: RunRecord = load_record(parcel.read(name), RunRecord, f"{parcel.path}: {name}")
        absent = [each for each in record.artifacts if f"runs/{run_id}/artifacts/{each}" not in parcel.files]
        if record.run_id != run_id or record.experiment not in experiments or absent:
            raise StoreError(f"{parcel.path}: {name}: does not fit the archive it is in; nothing was taken from it")
        if record.tags.get(schema.SCHEMA) != str(schema.SCHEMA_VERSION):
            raise StoreError(
                f"{parcel.path}: its records have layout {record.tags.get(schema.SCHEMA, 'unknown')}, this version "
                f"reads layout {schema.SCHEMA_VERSION}; nothing was taken from it"
            )
        records.append(record)
    return records


class _Merge:
    """One archive into one home."""

    def __init__(
        self,
        client: MlflowClient | None,
        home: Home,
        parcel: Parcel,
        experiments: Sequence[ExperimentRecord],
        *,
        dry: bool,
    ) -> None:
        self._client = client
        self._home = home
        self._parcel = parcel
        self._dry = dry
        self._experiments = {record.name: record for record in experiments}
        self._ids: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        here = list(search(client, f"tags.{schema.KIND} != ''")) if client else []
        self._here = {run.data.tags.get(schema.IMPORTED, run.info.run_id): run.info.run_id for run in here}
        self._here |= {run.info.run_id: run.info.run_id for run in here}
        self._plans = {
            (run.data.tags[schema.KIND], run.data.tags.get(schema.STUDY, ""), digest): run.info.run_id
            for run in here
            if (digest := run.data.tags.get(schema.PLAN_DIGEST))
        }
        self._finished = finished_runs(client) if client else {}
        self._diverged = {
            run.data.tags.get(schema.TRIAL_KEY, "")
            for run in here
            if run.data.tags.get(schema.STATUS) == schema.DIVERGED and run.info.status == "FAILED"
        }

    def all(self, records: Sequence[RunRecord]) -> Imported:
        done = Imported()
        parents = [record for record in records if record.tags.get(schema.KIND) in PARENTS]
        for record in parents:
            self._parent(record, done)
        refused = set()
        for record in (each for each in records if each.tags.get(schema.KIND) == schema.TRIAL_RUN):
            conflict = self._conflict(record)
            if conflict is not None and record.trial_key not in refused:
                refused.add(record.trial_key)
                done.conflicts.append(conflict)
        for record in (each for each in records if each.tags.get(schema.KIND) == schema.TRIAL_RUN):
            if record.trial_key in refused:
                continue
            if record.origin in self._here or record.trial_key in self._finished:
                done.present += 1
                continue
            self._write(record)
            if record.complete:
                done.trials += 1
            else:
                done.others += 1
        return done

    def _parent(self, record: RunRecord, done: Imported) -> None:
        digest = record.tags.get(schema.PLAN_DIGEST, "")
        place = (record.tags[schema.KIND], record.tags.get(schema.STUDY, ""), digest)
        found = self._here.get(record.origin) or (self._plans.get(place) if digest else None)
        if found is not None:
            self._parents[record.run_id] = found
            done.present += 1
            return
        self._parents[record.run_id] = self._write(record)
        done.studies += 1

    def _conflict(self, record: RunRecord) -> Conflict | None:
        """What is recorded here and cannot be true beside ``record``."""
        key, label = record.trial_key, record.tags.get(schema.CELL, "")
        run = self._finished.get(key)
        if record.tags.get(schema.STATUS) == schema.DIVERGED and run is not None:
            return Conflict(key, label, "outcome", schema.COMPLETE, schema.DIVERGED)
        if not record.complete:
            return None
        if run is None:
            diverged = key in self._diverged and record.origin not in self._here
            return Conflict(key, label, "outcome", schema.DIVERGED, schema.COMPLETE) if diverged else None
        there = last_values(record)
        devices = (run.data.tags.get(schema.DEVICE, ""), record.tags.get(schema.DEVICE, ""))
        differs = _first_difference(run.data.metrics, there, _tolerance(devices))
        return Conflict(key, label, *differs) if differs else None

    def _write(self, record: RunRecord) -> str:
        """Copy a run; the tags and the state by which it counts are written last."""
        if self._dry or self._client is None:
            return record.run_id
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        client = self._client
        parent = self._parents.get(record.tags.get(_PARENT_TAG, ""))
        last = {schema.STATUS: record.tags.get(schema.STATUS, schema.INTERRUPTED), schema.IMPORTED: record.origin}
        tags = {name: value for name, value in record.tags.items() if name not in (*last, _PARENT_TAG)}
        tags |= {schema.STATUS: schema.RUNNING, **({_PARENT_TAG: parent} if parent else {})}
        experiment = self._experiment(record.experiment)
        run_id = str(client.create_run(experiment, record.start, tags, run_name=record.name).info.run_id)
        params = [Param(name, value) for name, value in record.params.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])
        points = [
            Metric(name, value, stamp, step) for name, series in record.metrics.items() for value, stamp, step in series
        ]
        for start in range(0, len(points), _METRICS_AT_ONCE):
            client.log_batch(run_id, metrics=points[start : start + _METRICS_AT_ONCE])
        if record.data:
            used = [Dataset(each.name, each.digest, each.source_type, each.source) for each in record.data]
            context = [InputTag("mlflow.data.context", "training")]
            log_data_sets(client, run_id, [DatasetInput(each, context) for each in used])
        for name in record.artifacts:
            self._artifact(run_id, record.run_id, name)
        client.set_tag(run_id, schema.STATUS, last[schema.STATUS])
        client.set_terminated(run_id, record.status, record.end)
        # Last of all: by it the next import knows that this one is whole.
        client.set_tag(run_id, schema.IMPORTED, last[schema.IMPORTED])
        return run_id

    def _artifact(self, run_id: str, origin: str, name: str) -> None:
        folder, _, plain = name.rpartition("/")
        with tempfile.TemporaryDirectory() as there:
            path = Path(there) / plain
            with path.open("xb") as file:
                self._parcel.copy(f"runs/{origin}/artifacts/{name}", file)
            assert self._client is not None
            self._client.log_artifact(run_id, str(path), folder or None)

    def _experiment(self, name: str) -> str:
        if name not in self._ids:
            assert self._client is not None
            found = self._client.get_experiment_by_name(name)
            if found is None:
                root = self._home.artifacts_uri
                location = f"{root}/{quote(name)}" if root else None
                tags = dict(self._experiments[name].tags)
                self._ids[name] = str(self._client.create_experiment(name, artifact_location=location, tags=tags))
            else:
                if found.lifecycle_stage != "active":
                    self._client.restore_experiment(found.experiment_id)
                self._ids[name] = str(found.experiment_id)
        return self._ids[name]


def _tolerance(devices: Sequence[str]) -> float:
    from study.verify import GPU_TOLERANCE

    return GPU_TOLERANCE if any(device.startswith("cuda") for device in devices) else SAME


def _first_difference(
    here: Mapping[str, float], there: Mapping[str, float], tolerance: float
) -> tuple[str, str, str] | None:
    """Name and both values of the first result that is not the same; costs and Delta_m are no results."""
    results = (f"{schema.TEST}/", f"{schema.VAL}/", f"{schema.TRAIN_LOSS}/")
    for name in sorted({*here, *there}):
        if not name.startswith(results) or not schema.decided(name):
            continue
        ours, theirs = here.get(name), there.get(name)
        if ours is None or theirs is None:
            return name, "absent" if ours is None else f"{ours:.6g}", "absent" if theirs is None else f"{theirs:.6g}"
        same = math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=1e-12) or (math.isnan(ours) and math.isnan(theirs))
        if not same:
            return name, f"{ours:.9g}", f"{theirs:.9g}"
    return None
