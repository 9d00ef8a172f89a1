"""Same key, same result: finished trials trained again and compared with their records."""

from __future__ import annotations

import io
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from study import schema
from study.home import Home
from study.tracking import finished_runs, open_client
from trainables.config import TrialConfig, data_set_of, load_trial, tasks_of, trial_key
from trainables.errors import StoreError, UserError
from trainables.session import Report, Session, TrialTask

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

GPU_TOLERANCE = 0.05
"""Relative difference of a metric that another order of summation is allowed over a whole training."""
_CHUNK_SECONDS = 5.0

SAME, CLOSE, DIFFERENT, UNCHECKED = "same", "close", "different", "unchecked"


@dataclass(frozen=True)
class Verdict:
    """What came of one trial.

    Attributes:
        key: trial key.
        label: of its cell.
        result: ``same`` bits; ``close`` within the tolerance, on a GPU or of several processes; ``different``;
            ``unchecked``.
        detail: which value differs most, or why it could not be compared.
        values: how many were compared.
    """

    key: str
    label: str
    result: str
    detail: str
    values: int = 0

    @property
    def right(self) -> bool:
        """Whether nothing speaks against the record."""
        return self.result in (SAME, CLOSE)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def pick(home: Home, study: str | None, sample: int | None, seed: int) -> list[Run]:
    """Finished trials of a study, or of all: ``sample`` of them, drawn with ``seed``, in the order of their keys.

    Raises:
        StoreError: there are no records, or no finished trial to compare with.
    """
    runs = finished_runs(open_client(home))
    found = sorted(
        (run for run in runs.values() if study in (None, run.data.tags.get(schema.STUDY))),
        key=lambda run: run.data.tags[schema.TRIAL_KEY],
    )
    if not found:
        raise StoreError(f"{home.path}: no finished trial{f' of {study}' if study else ''} to verify")
    if sample is None or sample >= len(found):
        return found
    chosen = random.Random(seed).sample(range(len(found)), sample)
    return [found[index] for index in sorted(chosen)]


def verify(
    home: Home,
    study: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    on_report: Callable[[str, Report], None] | None = None,
) -> Iterator[Verdict]:
    """Train a sample of finished trials again, in this process, and say of each whether it comes out as recorded.

    Training curves, evaluations and the history of affinity and groups are compared, bit for bit on a CPU and within
    :data:`GPU_TOLERANCE` on a GPU, or where several processes trained the trial; seconds and memory are not. Nothing is
    recorded.

    Args:
        home: whose records.
        study: id; all studies without one.
        sample: how many trials; all without it.
        seed: of the sample.
        on_report: called with a trial's label and every report of it.

    Raises:
        StoreError: there is nothing to verify.
    """
    client = open_client(home)
    for run in pick(home, study, sample, seed):
        yield _verify_one(client, run, home, on_report)


def _verify_one(client: MlflowClient, run: Run, home: Home, on_report: Callable[[str, Report], None] | None) -> Verdict:
    tags = run.data.tags
    key, label = tags[schema.TRIAL_KEY], tags.get(schema.CELL, "")
    device = "cuda" if tags.get(schema.DEVICE, "").startswith("cuda") else "cpu"
    try:
        config = load_trial(json.loads(_artifact(client, run, schema.CONFIG_FILE)))
        if trial_key(config) != key:
            return Verdict(key, label, UNCHECKED, "code, data or weights give this config another key now")
        if device == "cuda" and not torch.cuda.is_available():
            return Verdict(key, label, UNCHECKED, "was trained on a GPU, there is none here")
        data_set_of(config).prepare(config.data, home.data, workers=1)
        session = Session(TrialTask(key, config.to_dict(), str(home.data), None, device, label))
    except (UserError, ValueError) as error:
        return Verdict(key, label, UNCHECKED, str(error))
    while True:
        report = session.advance(_CHUNK_SECONDS)
        if on_report is not None:
            on_report(label, report)
        if report.over:
            break
    if report.diverged:
        return Verdict(key, label, DIFFERENT, report.diverged)
    now = {(p.name, p.step): p.value for p in session.trainer.history.points}
    recorded = {}
    for name in sorted(name for name in run.data.metrics if schema.decided(name)):
        for point in client.get_metric_history(run.info.run_id, name):
            recorded[name, point.step] = point.value
    detail, worst = _compare(recorded, _known_then(config, recorded, now))
    if report.history is not None:
        try:
            detail, worst = max((detail, worst), _compare_arrays(client, run, report.history), key=lambda pair: pair[1])
        except StoreError as error:
            return Verdict(key, label, UNCHECKED, str(error), len(recorded))
    if worst == 0.0:
        return Verdict(key, label, SAME, "", len(recorded))
    # Several processes sum up in another order than this one, too.
    rounded = device == "cuda" or tags.get(schema.PROCESSES, "1") != "1"
    tolerance = GPU_TOLERANCE if rounded else 0.0
    return Verdict(key, label, CLOSE if worst <= tolerance else DIFFERENT, detail, len(recorded))


def _known_then(
    config: TrialConfig, recorded: Mapping[tuple[str, int], float], now: dict[tuple[str, int], float]
) -> dict[tuple[str, int], float]:
    """``now`` without the further metrics of tasks that older versions did not measure."""
    names = {name for name, _ in recorded}
    further = {
        schema.metric(split, task.name, metric.name)
        for task in tasks_of(config)
        for metric in task.further
        for split in (schema.VAL, schema.TEST)
    }
    return {point: value for point, value in now.items() if point[0] not in further - names}


def _compare(recorded: dict[tuple[str, int], float], now: dict[tuple[str, int], float]) -> tuple[str, float]:
    """The value that differs most, in words, and its relative difference; infinite where one is missing."""
    worst, detail = 0.0, ""
    for name, step in sorted(recorded.keys() | now.keys()):
        before, after = recorded.get((name, step)), now.get((name, step))
        apart = math.inf if before is None or after is None else _apart(before, after)
        if apart > worst:
            worst, detail = apart, f"{name} at {step}: {before} in the records, {after} now"
    return detail, worst


def _apart(before: float, after: float) -> float:
    if before == after or (math.isnan(before) and math.isnan(after)):
        return 0.0
    if not (math.isfinite(before) and math.isfinite(after)):
        return math.inf
    return abs(before - after) / max(abs(before), abs(after))


def _compare_arrays(client: MlflowClient, run: Run, now: dict[str, np.ndarray]) -> tuple[str, float]:
    worst, detail = 0.0, ""
    content = io.BytesIO(_artifact(client, run, schema.HISTORY_FILE))
    with np.load(content, allow_pickle=False) as recorded:
        for name, values in now.items():
            before = recorded.get(name)
            if before is None or before.shape != values.shape:
                return f"{schema.HISTORY_FILE}: {name} has another shape", math.inf
            if values.dtype.kind != "f":
                apart = 0.0 if np.array_equal(before, values) else math.inf
            else:
                scale = np.maximum(np.maximum(np.abs(before), np.abs(values)), np.finfo(np.float64).tiny)
                differs = ~((before == values) | (np.isnan(before) & np.isnan(values)))
                apart = float(np.max(np.where(differs, np.abs(before - values) / scale, 0.0), initial=0.0))
            if not apart <= worst:
                worst, detail = apart, f"{schema.HISTORY_FILE}: {name} differs"
    return detail, worst


def _artifact(client: MlflowClient, run: Run, name: str) -> bytes:
    from mlflow.exceptions import MlflowException

    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run.info.run_id, name, folder)).read_bytes()
    except (MlflowException, OSError) as error:
        raise StoreError(f"run {run.info.run_id}: its artifact {name} is not there ({error})") from None
