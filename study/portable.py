"""A run of the records as plain data, and back: what an archive holds of it, checked field by field."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from study import schema
from study.parcel import check_name
from trainables.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LONGEST_TAG = 8000
_LONGEST_PARAM = 6000
_KEY = re.compile(r"[\w.\-:/ ]{1,250}")
_EXPERIMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


def _key(name: str) -> str:
    """As MLflow allows names of tags, params and metrics, and none that could be taken for a path elsewhere."""
    if _KEY.fullmatch(name) is None or ".." in name.split("/") or name.startswith("/"):
        raise ValueError(f"the name {name[:80]!r} is not allowed")
    return name


def _experiment(name: str) -> str:
    if _EXPERIMENT.fullmatch(name) is None:
        raise ValueError(f"the name {name[:80]!r} of a study is not allowed")
    return name


Key = Annotated[str, AfterValidator(_key)]
Experiment = Annotated[str, AfterValidator(_experiment)]
Tag = Annotated[str, Field(max_length=_LONGEST_TAG)]
Milliseconds = Annotated[int, Field(ge=0, lt=2**53)]
Value = tuple[float, Milliseconds, Annotated[int, Field(ge=-(2**53), lt=2**53)]]
"""Value, time in milliseconds, step."""


class ExperimentRecord(BaseModel):
    """A study's experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Experiment
    tags: dict[Key, Tag]


class DataRecord(BaseModel):
    """A data set that a run was trained on, as MLflow keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=500)]
    digest: Annotated[str, Field(max_length=36)]
    source_type: Annotated[str, Field(max_length=36)]
    source: Annotated[str, Field(max_length=65535)]


class RunRecord(BaseModel):
    """A run that ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """In the home it comes from."""
    experiment: Experiment
    name: Annotated[str, Field(max_length=_LONGEST_TAG)]
    status: Literal["FINISHED", "FAILED", "KILLED"]
    """MLflow's."""
    start: Milliseconds
    end: Milliseconds
    tags: dict[Key, Tag]
    params: dict[Key, Annotated[str, Field(max_length=_LONGEST_PARAM)]]
    metrics: dict[Key, tuple[Value, ...]]
    artifacts: tuple[Annotated[str, AfterValidator(check_name)], ...]
    """Paths below the run's folder."""
    data: tuple[DataRecord, ...] = ()

    @property
    def trial_key(self) -> str:
        """Of its trial; empty for a study's run."""
        return self.tags.get(schema.TRIAL_KEY, "")

    @property
    def origin(self) -> str:
        """The id it had where it was made, through however many archives it went."""
        return self.tags.get(schema.IMPORTED, self.run_id)

    @property
    def complete(self) -> bool:
        """Whether it counts as its trial's result."""
        return self.status == "FINISHED" and self.tags.get(schema.STATUS) == schema.COMPLETE


def record_of(client: MlflowClient, run: Run, experiment: str, artifacts: list[str]) -> RunRecord:
    """Read a run with all points of its metrics. One that is going on is written down as ended."""
    going_on = run.info.status not in ("FINISHED", "FAILED", "KILLED")
    tags = dict(run.data.tags)
    if going_on:
        tags[schema.STATUS] = schema.INTERRUPTED
    metrics = {
        name: tuple(
            (point.value, point.timestamp, point.step)
            for point in sorted(
                client.get_metric_history(run.info.run_id, name), key=lambda p: (p.step, p.timestamp, p.value)
            )
        )
        for name in sorted(run.data.metrics)
    }
    start = run.info.start_time or 0
    return RunRecord(
        run_id=run.info.run_id,
        experiment=experiment,
        name=run.info.run_name or "",
        status="KILLED" if going_on else run.info.status,
        start=start,
        end=run.info.end_time or start,
        tags=tags,
        params=dict(run.data.params),
        metrics=metrics,
        artifacts=tuple(artifacts),
        data=tuple(
            DataRecord(name=each.name, digest=each.digest, source_type=each.source_type, source=each.source)
            for each in ((entry.dataset for entry in run.inputs.dataset_inputs) if run.inputs else ())
        ),
    )


def last_values(record: RunRecord) -> dict[str, float]:
    """Each metric's last value, as MLflow picks it: by step, then time, then value."""
    return {
        name: max(series, key=lambda point: (point[2], point[1], point[0]))[0]
        for name, series in record.metrics.items()
        if series
    }


def encode(value: Any) -> bytes:
    """As JSON, numbers that are not finite as text."""
    return json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def load_record(content: bytes, kind: Any, where: str) -> Any:
    """What ``content`` (JSON) says, as ``kind``; raises :class:`StoreError` naming the field that is wrong."""
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{where}: {place + ': ' if place else ''}{first['msg']}; nothing was taken from it") from None
