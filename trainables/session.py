"""A trial as an executor runs it: take up its checkpoint, train in chunks, report after each, leave checkpoints behind.

Every executor - Ray Tune, plain worker processes, the foreground - drives the same :class:`Session`, so that they
give the same reports and the same bits.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables import checkpoint
from trainables.config import load_trial
from trainables.errors import CheckpointError, Diverged
from trainables.history import Point
from trainables.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTask:
    """A trial handed to a worker: plain data, so that it crosses process and machine borders.

    Attributes:
        key: trial key.
        config: the resolved trial config, as plain data.
        data_root: folder the data set was prepared in.
        checkpoint: file the trial leaves checkpoints in and takes them up from; ``None`` for none.
        device: ``cpu`` or ``cuda``.
        label: what people call the cell.
        report_evaluations: whether a chunk ends with every evaluation, so that the trial can be stopped there.
        save_evaluations: whether a checkpoint is left at each of them, so that it can go on from there. A trial that
            does go on reports where it stands before it trains: its driver may not have heard of that.
        cores: of the worker's machine that are this trial's share; ``None`` for all. Changes no result.
    """

    key: str
    config: Mapping[str, Any]
    data_root: str
    checkpoint: str | None = None
    device: str = "cpu"
    label: str = ""
    report_evaluations: bool = False
    save_evaluations: bool = False
    cores: int | None = None


@dataclass
class Report:
    """What a trial has to say after a chunk.

    Attributes:
        key: trial key.
        iteration: iterations done.
        progress: share of the budget spent.
        points: curve points not reported by this attempt before.
        costs: work done so far, over all attempts.
        first: whether it is the attempt's first report; its points then start from the trial's first iteration.
        done: the final metrics are among the points.
        diverged: why training left the finite numbers, in one line, if it did. The trial is over then, too.
        history: affinity and group arrays, with the last report.
        worker: where it ran: device, host, process id, torch threads.
        saved: whether a checkpoint of this very state was left.
    """

    key: str
    iteration: int
    progress: float
    points: list[Point]
    costs: dict[str, float]
    first: bool = False
    done: bool = False
    diverged: str | None = None
    history: dict[str, np.ndarray] | None = None
    worker: dict[str, str] = field(default_factory=dict)
    saved: bool = False

    @property
    def over(self) -> bool:
        """Whether no further report follows."""
        return self.done or self.diverged is not None


class Session:
    """One attempt at a trial.

    Args:
        task: what to train.
        checkpoint_seconds: about how often a checkpoint is left.

    Raises:
        UserError: the config, the data or the checkpoint is not right. A damaged checkpoint is logged and the trial
            starts over; one of another trial is an error.
    """

    def __init__(self, task: TrialTask, checkpoint_seconds: float = 30.0) -> None:
        self.task = task
        self.trainer = Trainer(load_trial(task.config), Path(task.data_root), task.device, task.cores)
        if self.trainer.key != task.key:
            raise CheckpointError(
                f"this worker computes the key {self.trainer.key[:12]} for trial {task.key[:12]}: "
                "driver and worker run different code or see different pretrained weights"
            )
        self._checkpoint_seconds = checkpoint_seconds
        self._saved_at = time.monotonic()
        self._first = True
        self._resumed = False
        if task.checkpoint and Path(task.checkpoint).exists():
            self._resume(Path(task.checkpoint))

    def _resume(self, path: Path) -> None:
        header = checkpoint.read_header(path)
        if header.key != self.task.key:
            raise CheckpointError(f"{path}: is of trial {header.key[:12]}, this config is trial {self.task.key[:12]}")
        try:
            self.trainer.load_state_dict(checkpoint.load(path, key=self.task.key, device=self.trainer.device))
            self._resumed = True
        except CheckpointError as error:
            logger.warning("%s; starting the trial over", error)

    def advance(self, seconds: float) -> Report:
        """Train for about ``seconds`` (at least one iteration) and report."""
        diverged = None
        try:
            if not (self._first and self._resumed and self.task.save_evaluations):
                self.trainer.advance(seconds=seconds, to_evaluation=self.task.report_evaluations)
        except Diverged as error:
            diverged = str(error)
        trainer = self.trainer
        over = trainer.done or diverged is not None
        report = Report(
            key=self.task.key,
            iteration=trainer.iteration,
            progress=trainer.progress,
            points=trainer.history.unsent(),
            costs=trainer.costs(),
            first=self._first,
            done=trainer.done,
            diverged=diverged,
            history=trainer.history.arrays() if over else None,
            worker=self._worker(),
        )
        self._first = False
        evaluated = any(p.step == report.iteration and p.name.startswith("val/") for p in report.points)
        due = time.monotonic() - self._saved_at >= self._checkpoint_seconds
        if not over and (due or (evaluated and self.task.save_evaluations)):
            self.save()
            report.saved = self.task.checkpoint is not None
        return report

    def save(self) -> None:
        """Leave a checkpoint now."""
        if self.task.checkpoint:
            path = Path(self.task.checkpoint)
            checkpoint.save(path, self.trainer.state_dict(), key=self.task.key, iteration=self.trainer.iteration)
        self._saved_at = time.monotonic()

    def _worker(self) -> dict[str, str]:
        device = self.trainer.device
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
        )
        return {
            "device": f"{device.type} {name}".strip(),
            "host": platform.node(),
            "pid": str(os.getpid()),
            "threads": str(torch.get_num_threads()),
        }
