"""One row of a plan, measured: its numbers seed by seed, what is missing and why, what it cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.delta_m import delta_m, incomplete_tasks
from analysis.plan import Plan, PlanRow
from analysis.records import DEVICE_HOURS, Records
from study import schema

_REASON_LENGTH = 100


@dataclass(frozen=True)
class RowResult:
    """What is measured of one row.

    Attributes:
        row: of the plan.
        seeds: seed to task to test metric. NaN where the trial ended without a finite number (it diverged, or the
            metric is absent from a complete run); no entry where the trial is not complete yet or failed.
        costs: cost name, ``device_hours`` among them, to the mean over the seeds whose trials are all complete, a
            seed's being the sum over its trials; NaN for none.
        notes: what is missing and why, one phrase each.
    """

    row: PlanRow
    seeds: Mapping[int, Mapping[str, float]]
    costs: Mapping[str, float]
    notes: tuple[str, ...]

    def task_values(self, task: str) -> list[float]:
        """One value per seed that ended, NaN where it ended without a number."""
        return [values[task] for values in self.seeds.values() if task in values]

    def full_seeds(self, plan: Plan) -> dict[int, dict[str, float]]:
        """The seeds with an entry for every task of the plan, tasks in its order."""
        names = [task.name for task in plan.tasks]
        return {
            seed: {name: values[name] for name in names}
            for seed, values in self.seeds.items()
            if all(name in values for name in names)
        }


def row_results(records: Records) -> dict[str, RowResult]:
    """Row id to its result, in the plan's order."""
    plan = records.plan
    wanted = pd.DataFrame({"task": [task.name for task in plan.tasks], "metric": [task.metric for task in plan.tasks]})
    test = records.metrics[records.metrics["split"] == schema.TEST].merge(wanted, on=["task", "metric"])
    found = {
        (row, seed, task): float(value)
        for row, seed, task, value in zip(*(test[c].tolist() for c in ("row", "seed", "task", "value")), strict=True)
    }
    by_row = dict(iter(records.trials.groupby("row", sort=False)))
    empty = records.trials.iloc[:0]
    return {row.id: _result(plan, row, by_row.get(row.id, empty), found) for row in plan.rows}


def gain(values: Mapping[str, float], baseline: Mapping[str, float], plan: Plan) -> float:
    """Delta_m of one seed in percent; NaN where the baseline of a task is 0 or no finite number."""
    if any(base == 0 for base in baseline.values()):
        return math.nan
    return delta_m(values, baseline, {task.name: task.higher_is_better for task in plan.tasks})


def _result(plan: Plan, row: PlanRow, trials: pd.DataFrame, found: Mapping[tuple[str, int, str], float]) -> RowResult:
    seeds: dict[int, dict[str, float]] = {cell.seed: {} for cell in row.cells}
    statuses = dict(zip(trials["trial_key"].tolist(), trials["status"].tolist(), strict=True))
    for cell in row.cells:
        status = statuses[cell.trial_key]
        for task in cell.tasks:
            if status == schema.DIVERGED:
                seeds[cell.seed][task] = math.nan
            elif status == schema.COMPLETE:
                value = found.get((row.id, cell.seed, task), math.nan)
                seeds[cell.seed][task] = value if math.isfinite(value) else math.nan
    return RowResult(row, seeds, _costs(trials), _notes(plan, row, trials, seeds))


def _costs(trials: pd.DataFrame) -> dict[str, float]:
    lacking = trials.loc[trials["status"] != schema.COMPLETE, "seed"]
    whole = trials[~trials["seed"].isin(lacking)]
    names = [*schema.COSTS, DEVICE_HOURS]
    sums = whole.groupby("seed")[names].sum(min_count=1)
    return {name: float(sums[name].mean()) for name in names}


def _notes(plan: Plan, row: PlanRow, trials: pd.DataFrame, seeds: Mapping[int, Mapping[str, float]]) -> tuple[str, ...]:
    notes = []
    for status, group in trials[trials["status"] != schema.COMPLETE].groupby("status", sort=True):
        notes.append(f"{status} ({_where(group, trials)}){_reason(group)}")
    trained = {task for cell in row.cells for task in cell.tasks}
    untrained = [task.name for task in plan.tasks if task.name not in trained]
    if untrained:
        notes.append(f"does not train {', '.join(untrained)}")
    diverged = set(trials.loc[trials["status"] == schema.DIVERGED, "seed"])
    for seed, values in seeds.items():
        absent = incomplete_tasks(values)
        if absent and seed not in diverged:
            notes.append(f"no finite test value of {', '.join(absent)} (seed {seed})")
    return tuple(notes)


def _where(group: pd.DataFrame, trials: pd.DataFrame) -> str:
    """``seed 0, 1`` for one trial a seed, ``seed 0: 3 of 11 trials`` for several."""
    totals = Counter(trials["seed"])
    if set(totals.values()) == {1}:
        return f"seed {', '.join(str(seed) for seed in group['seed'])}"
    counts = Counter(group["seed"])
    return "; ".join(f"seed {seed}: {count} of {totals[seed]} trials" for seed, count in counts.items())


def _reason(group: pd.DataFrame) -> str:
    reasons = [" ".join(str(reason).split()) for reason in group[schema.STATUS_REASON] if reason]
    if not reasons:
        return ""
    first = reasons[0]
    return f": {first if len(first) <= _REASON_LENGTH else first[: _REASON_LENGTH - 1] + '…'}"
