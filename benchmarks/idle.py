"""Trials that train nothing: what they cost is what a sweep costs beside its training. Imported by workers."""

from __future__ import annotations

import os
import platform
import time

import numpy as np

from study import schema
from trainables.history import Point
from trainables.session import Report, Session, TrialTask


class IdleSession(Session):
    """A trial that sleeps, and reports as a real one does.

    It takes ``train.budget.amount`` chunks, and tells as many curve points in each as there are tasks, and an array at
    the end.

    Args:
        task: whose budget counts.
        checkpoint_seconds: not used; there is nothing to keep.
    """

    def __init__(self, task: TrialTask, checkpoint_seconds: float = 30.0) -> None:
        self.task = task
        self._amount = int(task.config["train"]["budget"]["amount"])
        self._names = list(task.config["tasks"]["include"])
        self._iteration = 0
        self._slept = 0.0

    def advance(self, seconds: float) -> Report:
        """Sleep for ``seconds`` and report one iteration."""
        started = time.perf_counter()
        if seconds > 0:
            time.sleep(seconds)
        self._slept += time.perf_counter() - started
        self._iteration += 1
        done = self._iteration >= self._amount
        values = [1.0 / (index + self._iteration) for index in range(len(self._names))]
        return Report(
            key=self.task.key,
            iteration=self._iteration,
            progress=self._iteration / self._amount,
            points=[
                Point(schema.train_loss(name), self._iteration, value)
                for name, value in zip(self._names, values, strict=True)
            ],
            costs={"seconds": self._slept, "iterations": float(self._iteration)},
            first=self._iteration == 1,
            done=done,
            history={"losses": np.array(values)} if done else None,
            worker={"device": "cpu", "host": platform.node(), "pid": str(os.getpid()), "threads": "1"},
        )

    def save(self) -> None:
        """Nothing: it has no state."""
