"""Delta_m on the validation split against what training has cost so far: rows at equal passes and at equal seconds.

A run is evaluated every so many iterations, and its costs are recorded with every report. Here the two are put side by
side, with straight lines between what is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records import Records
from analysis.tables.cost import REFERENCE
from study import schema

PASSES, SECONDS = "trunk_passes", "seconds"
COSTS = (PASSES, SECONDS)
"""What rows are held equal in."""


@dataclass(frozen=True)
class Reading:
    """A row's Delta_m where each of its seeds had spent some amount.

    Attributes:
        values: one per complete seed, in percent; NaN where it was not evaluated before it had spent more.
        early: seeds that ended before: theirs is the final value.
        late: seeds whose first evaluation came after.
    """

    values: tuple[float, ...]
    early: int
    late: int


def validation_gains(records: Records) -> pd.DataFrame:
    """One line per evaluation of a complete trial on all tasks: ``row``, ``seed``, ``step`` (iteration), ``delta_m``
    (percent, against the mean of the baseline's final validation metrics) and what was spent until then,
    ``trunk_passes`` and ``seconds`` (of training, evaluation excluded).

    By row, seed and step. Evaluations without a number for every task are left out; none are left where the baseline
    has no validation metrics.
    """
    columns = ["row", "seed", "step", "delta_m", *COSTS]
    plan = records.plan
    every = {task.name for task in plan.tasks}
    trials = records.trials
    whole = trials[(trials["status"] == schema.COMPLETE) & trials["tasks"].map(lambda names: set(names) == every)]
    names = [schema.metric(schema.VAL, task.name, task.metric) for task in plan.tasks]
    wanted = [*names, *(schema.cost(name) for name in COSTS)]
    base = _baseline(records)
    if (
        whole.empty
        or not all(math.isfinite(value) and value for value in base)
        or set(wanted) - {*records.metric_names}
    ):
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})
    curves = records.curves_of(wanted)
    total: pd.Series | None = None
    for task, name, alone in zip(plan.tasks, names, base, strict=True):
        values = curves[name].set_index(["run_id", "step"])["value"]
        values = values[~values.index.duplicated()]  # A run that several rows share.
        gain = (100 if task.higher_is_better else -100) * (values - alone) / alone
        total = gain if total is None else total + gain
    assert total is not None  # A plan has tasks.
    evaluated = (total[np.isfinite(total)] / len(names)).rename("delta_m").reset_index()
    evaluated = evaluated.sort_values(["run_id", "step"], kind="stable", ignore_index=True)
    for name in COSTS:
        evaluated[name] = _spent(curves[schema.cost(name)], evaluated)
    found = whole[["row", "seed", "run_id"]].merge(evaluated.dropna(subset=[*COSTS]), on="run_id")
    return found[columns].sort_values(["row", "seed", "step"], kind="stable", ignore_index=True)


def _baseline(records: Records) -> list[float]:
    """The baseline's final validation metric of each task, mean over its seeds; NaN for one that has none."""
    plan, metrics = records.plan, records.metrics
    mine = metrics[(metrics["row"] == plan.baseline) & (metrics["split"] == schema.VAL)]
    means = mine.groupby(["task", "metric"])["value"].agg(lambda values: values.mean(skipna=False))
    return [float(means.get((task.name, task.metric), math.nan)) for task in plan.tasks]


def _spent(curve: pd.DataFrame, evaluated: pd.DataFrame) -> NDArray[np.float64]:
    """A cost of this curve at every evaluation, between the reports before and after it; NaN for a run without any."""
    reports = curve.drop_duplicates(["run_id", "step"])
    reports = reports.sort_values(["run_id", "step"], kind="stable")
    runs = reports["run_id"].to_numpy(dtype=object)
    steps, values = (reports[column].to_numpy(dtype=np.float64) for column in ("step", "value"))
    at = evaluated["step"].to_numpy(dtype=np.float64)
    ids = evaluated["run_id"].to_numpy(dtype=object)
    out = np.full(len(at), math.nan)
    places = {str(run): part for run, part in _runs_of(runs)}
    for run, own in _runs_of(ids):
        if run in places:
            part = places[run]
            out[own] = np.interp(at[own], [0.0, *steps[part]], [0.0, *values[part]], right=math.nan)
    return out


def _runs_of(ids: NDArray[np.object_]) -> list[tuple[str, slice]]:
    """Each id of a sorted array with its places."""
    names, starts = np.unique(ids, return_index=True)
    ends = [*starts[1:], len(ids)]
    return [(str(name), slice(int(start), int(end))) for name, start, end in zip(names, starts, ends, strict=True)]


def reference_cost(records: Records, name: str) -> float:
    """What the row :data:`analysis.tables.cost.REFERENCE` spends in full, mean over its complete seeds; NaN without."""
    trials = records.trials
    mine = trials[(trials["row"] == REFERENCE) & (trials["status"] == schema.COMPLETE)]
    return float(mine[name].mean()) if len(mine) else math.nan


def readings(gains: pd.DataFrame, rows: Sequence[str], name: str, amount: float) -> dict[str, Reading]:
    """Row to Delta_m where ``amount`` of the cost ``name`` was spent, from :func:`validation_gains`; rows without an
    evaluation are left out. ``math.inf`` reads the final values."""
    wanted = gains[gains["row"].isin(rows)]
    out: dict[str, Reading] = {}
    for row, mine in wanted.groupby("row", sort=False):
        _, starts = np.unique(mine["seed"].to_numpy(), return_index=True)
        costs, values = (mine[column].to_numpy(dtype=np.float64) for column in (name, "delta_m"))
        found, early, late = [], 0, 0
        for start, end in zip(starts, [*starts[1:], len(mine)], strict=True):
            cost, value = costs[start:end], values[start:end]
            found.append(
                float(np.interp(amount, cost, value, left=math.nan)) if amount < cost[-1] else float(value[-1])
            )
            early += bool(cost[-1] < amount * (1 - 1e-9))
            late += bool(amount < cost[0])
        out[str(row)] = Reading(tuple(found), early, late)
    return out
