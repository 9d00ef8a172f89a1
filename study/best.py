"""The best row while a study runs, by the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from study import schema
from study.plan import Plan, Trial
from trainables.config import tasks_of

Gain = Callable[[Mapping[str, float], Mapping[str, float], Mapping[str, bool]], float]
"""(values, baseline, higher is better), each by task, to one number where more is better: Delta_m."""


class BestSoFar:
    """Takes in finished trials and says which is best against the baseline of the same seed.

    Args:
        plan: what is run.
        gain: how a trial is held against its baseline.
    """

    def __init__(self, plan: Plan, gain: Gain) -> None:
        self._gain = gain
        rows = {trial.key: row.id for row in plan.rows for trial in row.trials}
        self._baseline_keys = {key for key, row in rows.items() if row == plan.spec.baseline}
        self._baseline: dict[int, dict[str, float]] = {}
        self._waiting: list[tuple[Trial, dict[str, float]]] = []
        self._better: dict[str, bool] = {}
        self.best: tuple[float, str] | None = None

    def add(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """A finished trial and its last metrics by record name."""
        values = {}
        for task in tasks_of(trial.config):
            value = metrics.get(schema.metric(schema.VAL, task.name, task.metric), math.nan)
            self._better[task.name] = task.higher_is_better
            values[task.name] = value
        if trial.key in self._baseline_keys:
            self._baseline.setdefault(trial.seed, {}).update(values)
        else:
            self._waiting.append((trial, values))
        self._settle()

    def _settle(self) -> None:
        left = []
        for trial, values in self._waiting:
            baseline = self._baseline.get(trial.seed, {})
            if not baseline.keys() >= values.keys() or not all(baseline[task] for task in values):
                left.append((trial, values))
                continue
            gain = self._gain(values, {task: baseline[task] for task in values}, self._better)
            if math.isfinite(gain) and (self.best is None or gain > self.best[0]):
                self.best = (gain, trial.label)
        self._waiting = left

    def __str__(self) -> str:
        if self.best is None:
            return ""
        return f"best so far: {self.best[1]}, Delta_m {self.best[0]:+.2f} % on the validation split"
