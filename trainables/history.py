"""What a trial writes down while it trains: curves thinned to what a plot needs, and the history of affinity and
groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.methods import StepLog


@dataclass(frozen=True)
class Point:
    """One value of a curve: ``step`` is the number of iterations done."""

    name: str
    step: int
    value: float


class History:
    """Curves and snapshots of one trial, whole from its first iteration.

    Every ``stride`` iterations it closes a window and adds one point to each curve: the mean over the window. For
    methods with groups it also keeps the affinity map and the groups at the window's end, and how often each two
    tasks shared a group in it.

    Args:
        tasks: names, in index order.
        stride: iterations of a window.
    """

    def __init__(self, tasks: Sequence[str], stride: int) -> None:
        self.tasks = tuple(tasks)
        self.stride = stride
        self.points: list[Point] = []
        self._sent = 0
        size = len(self.tasks)
        self._losses: Tensor | None = None
        self._scalars: dict[str, float] = {}
        self._together = torch.zeros(size, size, dtype=torch.float64)
        self._group_count = 0
        self._window = 0
        self._snapshots: list[dict[str, Any]] = []

    def add(self, iteration: int, log: StepLog) -> Tensor | None:
        """Take in one iteration (``iteration`` counts those done). Returns the window's mean losses (K,) when one is
        closed."""
        losses = log.losses.detach()
        self._losses = losses.double() if self._losses is None else self._losses + losses
        for name, value in log.scalars.items():
            self._scalars[name] = self._scalars.get(name, 0.0) + value
        if log.groups is not None:
            # A group may be stepped more than once in an iteration; it is one group all the same.
            groups = set(log.groups)
            self._group_count += len(groups)
            for group in groups:
                index = torch.tensor(group)
                self._together[index[:, None], index] += 1
        self._window += 1
        if self._window < self.stride:
            return None
        return self.close_window(iteration, log)

    def close_window(self, iteration: int, log: StepLog) -> Tensor | None:
        """End the current window early (at the end of training). Does nothing on an empty one."""
        if self._window == 0 or self._losses is None:
            return None
        mean = (self._losses / self._window).cpu()
        for task, value in zip(self.tasks, mean.tolist(), strict=True):
            self.points.append(Point(f"train/loss/{task}", iteration, value))
        for name, total in sorted(self._scalars.items()):
            self.points.append(Point(name, iteration, total / self._window))
        if log.groups is not None:
            self.points.append(Point("groups/count", iteration, self._group_count / self._window))
            position = [0] * len(self.tasks)
            for place, group in enumerate(log.groups):
                for task_index in group:
                    position[task_index] = place
            affinity = log.affinity if log.affinity is not None else torch.full_like(self._together, math.nan)
            self._snapshots.append(
                {
                    "iteration": iteration,
                    "affinity": affinity.double().cpu().clone(),
                    "group": position,
                    "count": self._group_count / self._window,
                    "together": self._together / self._window,
                }
            )
        self._losses, self._scalars, self._window, self._group_count = None, {}, 0, 0
        self._together = torch.zeros_like(self._together)
        return mean

    def record(self, name: str, step: int, value: float) -> None:
        """Add one point, of an evaluation."""
        self.points.append(Point(name, step, value))

    def mean_groups(self) -> float | None:
        """The number of groups, mean over all iterations of closed windows; ``None`` for a method without groups."""
        ends = [snapshot["iteration"] for snapshot in self._snapshots]
        if not ends:
            return None
        starts = [0, *ends[:-1]]
        counts = (snapshot["count"] for snapshot in self._snapshots)
        return (
            math.fsum(count * (end - start) for count, start, end in zip(counts, starts, ends, strict=True)) / ends[-1]
        )

    def unsent(self) -> list[Point]:
        """Points added since the last call; all of them after :meth:`load_state_dict`."""
        new = self.points[self._sent :]
        self._sent = len(self.points)
        return new

    def arrays(self) -> dict[str, np.ndarray] | None:
        """``iteration`` (T,), ``affinity`` (T, K, K), ``group`` (T, K), ``count`` (T,), ``together`` (T, K, K),
        ``tasks`` (K,); ``None`` for a method without groups."""
        if not self._snapshots:
            return None
        return {
            "iteration": np.array([s["iteration"] for s in self._snapshots], dtype=np.int64),
            "affinity": np.stack([s["affinity"].numpy() for s in self._snapshots]),
            "group": np.array([s["group"] for s in self._snapshots], dtype=np.int64),
            "count": np.array([s["count"] for s in self._snapshots]),
            "together": np.stack([s["together"].numpy() for s in self._snapshots]),
            "tasks": np.array(self.tasks),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything, the open window included."""
        return {
            "points": [[p.name, p.step, p.value] for p in self.points],
            "losses": self._losses,
            "scalars": dict(self._scalars),
            "together": self._together.clone(),
            "group_count": self._group_count,
            "window": self._window,
            "snapshots": [dict(s) for s in self._snapshots],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave. All points count as unsent: their reader may have lost them."""
        self.points = [Point(name, step, value) for name, step, value in state["points"]]
        self._sent = 0
        self._losses = state["losses"]
        self._scalars = dict(state["scalars"])
        self._together = state["together"].clone()
        self._group_count = state["group_count"]
        self._window = state["window"]
        self._snapshots = [dict(s) for s in state["snapshots"]]
