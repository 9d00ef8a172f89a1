"""A task: what its decoder puts out, how it is trained, how it is measured, and which direction is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(prediction (B, C, H, W) float, target as the data set gives it) -> scalar."""


class Metric(Protocol):
    """A streaming metric: fed batch by batch, merged over processes, computed once."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take in one batch: prediction (B, C, H, W) as the decoder gives it, target as the data set gives it."""
        ...

    def compute(self) -> float:
        """The value over everything taken in; NaN where nothing was."""
        ...

    def merge(self, other: Any) -> None:
        """Take in what another instance took in."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What was taken in, as tensors and numbers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        ...


class TaskSet(dict[str, Callable[..., "Task"]]):
    """A task set of another package: task name to what builds it from (tasks config, classes by label).

    Args:
        tasks: in the set's order.
        result_version: raised whenever the same config would give other bits; part of the trial key.
    """

    def __init__(self, tasks: Mapping[str, Callable[..., Task]], result_version: int = 1) -> None:
        super().__init__(tasks)
        self.result_version = result_version


def task_set_complaint(name: str, entry: Any) -> str:
    """What is wrong with a task set of another package; empty where nothing is."""
    fits = isinstance(entry, Mapping) and entry and all(isinstance(k, str) and callable(v) for k, v in entry.items())
    return "" if fits else "a trainables.tasks.TaskSet with at least one task is wanted"


@dataclass(frozen=True)
class FurtherMetric:
    """What is measured of a task beside its metric: recorded, and nothing else.

    Attributes:
        name: as it stands in records.
        make: a fresh streaming metric.
        higher_is_better: its direction.
    """

    name: str
    make: Callable[[], Metric]
    higher_is_better: bool


@dataclass(frozen=True)
class Task:
    """One task of a task set.

    Attributes:
        name: of the task in its task set, as published tables are keyed.
        label: the label of the data set it is trained on.
        channels: of its decoder's output.
        loss: prediction and target to a scalar. A mean over all there is in the batch, or over what counts of it; the
            latter divides by :func:`trainables.together.whole` of the count.
        metric: name of the one that Delta_m and searches rest on, as it stands in records (``l1``, ``rmse``, ...).
        make_metric: a fresh streaming metric.
        higher_is_better: the metric's direction.
        short: its abbreviation in the paper's tables.
        further: what else is measured.
    """

    name: str
    label: str
    channels: int
    loss: Loss
    metric: str
    make_metric: Callable[[], Metric]
    higher_is_better: bool
    short: str
    further: tuple[FurtherMetric, ...] = ()

    def make_metrics(self) -> dict[str, Metric]:
        """A fresh one of every metric by its name, the task's own first."""
        return {self.metric: self.make_metric(), **{metric.name: metric.make() for metric in self.further}}
