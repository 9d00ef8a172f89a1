"""Delta_m beside every trial, for whoever sorts runs in the MLflow UI. Tables compute their own from the metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from study import schema
from study.best import Gain
from study.plan import Plan, Trial
from trainables.config import tasks_of

if TYPE_CHECKING:
    from mlflow.entities import Run


def gains(plan: Plan, finished: Mapping[str, Run], gain: Gain) -> dict[str, float]:
    """Trial key to Delta_m on the test split, against the mean of the baseline's trials; of every finished trial that
    this study trained, the baseline's own left out, where all of its tasks have a usable baseline.

    Args:
        plan: of the study.
        finished: trial key to run.
        gain: how a trial is held against its baseline.
    """
    alone: dict[str, list[float]] = {}
    rows = [(row.id == plan.spec.baseline, trial) for row in plan.rows for trial in row.trials if trial.key in finished]
    for is_baseline, trial in rows:
        if is_baseline:
            for task, value in _tested(trial, finished[trial.key]).items():
                alone.setdefault(task, []).append(value)
    baseline = {task: fmean(values) for task, values in alone.items()}
    found: dict[str, float] = {}
    for is_baseline, trial in rows:
        run = finished[trial.key]
        if is_baseline or run.data.tags.get(schema.STUDY) != plan.spec.id:
            continue
        values = _tested(trial, run)
        usable = all(math.isfinite(value) and baseline.get(task, 0.0) != 0.0 for task, value in values.items())
        if usable and values:
            better = {task.name: task.higher_is_better for task in tasks_of(trial.config)}
            found[trial.key] = gain(values, {task: baseline[task] for task in values}, better)
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _tested(trial: Trial, run: Run) -> dict[str, float]:
    """Task name to its metric on the test split."""
    return {
        task.name: run.data.metrics.get(schema.metric(schema.TEST, task.name, task.metric), math.nan)
        for task in tasks_of(trial.config)
    }
