"""What a search seeks: numbers from the validation split and the cost of a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from study import schema
from study.cost import expected_passes
from study.search.spec import ObjectiveConfig
from trainables.config import TrialConfig
from trainables.tasks import Task

Gain = Callable[[Mapping[str, float], Mapping[str, float], Mapping[str, bool]], float]
"""(values, baseline, higher is better), each by task, to one number where more is better: Delta_m."""

FLOOR = -100.0
"""Delta_m, in percent, that a diverged trial is given: as if every task had become as much worse as it is good. Low
enough to be avoided, a number all the same, so that the sampler learns from it."""


@dataclass(frozen=True)
class Judgement:
    """A trial at one of its evaluations.

    Attributes:
        iteration: at which it was made.
        values: what the search seeks, in the objective's order.
        delta_m: in percent, on the validation split; the choice of the winner rests on it whatever is sought.
    """

    iteration: int
    values: tuple[float, ...]
    delta_m: float


class Objective:
    """Turns a trial's validation metrics into what the sampler is told.

    Args:
        config: what is sought.
        gain: Delta_m.
        tasks: of the search's trials.
        baseline: task name to its metric on the validation split, of single-task networks.
    """

    def __init__(
        self, config: ObjectiveConfig, gain: Gain, tasks: Sequence[Task], baseline: Mapping[str, float]
    ) -> None:
        self.config = config
        self.baseline = dict(baseline)
        self._gain = gain
        self._tasks = tuple(tasks)
        self._better = {task.name: task.higher_is_better for task in tasks}

    @property
    def names(self) -> tuple[str, ...]:
        """What each value is."""
        if self.config.name == "tasks":
            return tuple(f"{task.name}/{task.metric}" for task in self._tasks)
        return ("delta_m", self.config.of) if self.config.name == "cost" else ("delta_m",)

    @property
    def directions(self) -> tuple[str, ...]:
        """``maximize`` or ``minimize`` for each value."""
        if self.config.name == "tasks":
            return tuple("maximize" if task.higher_is_better else "minimize" for task in self._tasks)
        return ("maximize", "minimize") if self.config.name == "cost" else ("maximize",)

    def judge(self, metrics: Mapping[str, float], costs: Mapping[str, float], iteration: int) -> Judgement | None:
        """The judgement of one evaluation; ``None`` where a task's metric is missing or no finite number.

        Args:
            metrics: record name (``val/normal/l1``) to value; only those of the validation split are looked at.
            costs: by the names of :data:`study.schema.COSTS`.
            iteration: of the evaluation.
        """
        values = {t.name: metrics.get(schema.metric(schema.VAL, t.name, t.metric), math.nan) for t in self._tasks}
        if not all(math.isfinite(value) for value in values.values()):
            return None
        delta_m = self._gain(values, self.baseline, self._better)
        if not math.isfinite(delta_m):
            return None
        if self.config.name == "tasks":
            return Judgement(iteration, tuple(values[task.name] for task in self._tasks), delta_m)
        if self.config.name == "cost":
            return Judgement(iteration, (delta_m, float(costs[self.config.of])), delta_m)
        return Judgement(iteration, (delta_m,), delta_m)

    def worst(self, config: TrialConfig, costs: Mapping[str, float]) -> tuple[float, ...]:
        """What a diverged trial is given. Its cost is that of the whole trial: stopping early is no merit then."""
        if self.config.name == "tasks":
            return tuple(
                0.0 if task.higher_is_better else self.baseline[task.name] * (1 - FLOOR / 100) for task in self._tasks
            )
        if self.config.name == "delta_m":
            return (FLOOR,)
        whole, passes = expected_passes(config), max(1.0, float(costs.get("trunk_passes", 0.0)))
        if self.config.of == "seconds":
            return (FLOOR, float(costs.get("seconds", 0.0)) * max(1.0, whole / passes))
        return (FLOOR, max(whole, passes))
