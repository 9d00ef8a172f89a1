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

from trainables import checkpoint, saved_model
from trainables.company import ChildPeers, Launch, Leader, make_trainer
from trainables.config import TrialConfig, data_set_of
from trainables.errors import CheckpointError, Diverged
from trainables.history import Point
from trainables.log import TrialLog
from trainables.remote import Place, RemoteFile, place
from trainables.usage import Usage

logger = logging.getLogger(__name__)

_EXAMPLES = 8
"""Samples looked at for one that can be the saved model's example."""


@dataclass(frozen=True)
class TrialTask:
    """A trial handed to a worker: plain data, so that it crosses process and machine borders.

    Attributes:
        key: trial key.
        config: the resolved trial config, as plain data.
        data_root: folder the data set was prepared in.
        node_data: folder on the worker's node that the data set is brought to first; ``$NAME`` in it is the node's.
            ``None`` to read it where it is.
        checkpoint: path or URL of the file the trial leaves checkpoints in and takes them up from; ``None`` for none.
        device: ``cpu`` or ``cuda``.
        label: what people call the cell.
        report_evaluations: whether a chunk ends with every evaluation, so that the trial can be stopped there. A trial
            that goes on from a checkpoint reports where it stands before it trains: its driver may not have heard of
            that, or ended before it came to a verdict.
        save_evaluations: whether a checkpoint is left at each of them, so that it can go on from there.
        cores: of the worker's machine that are this trial's share; ``None`` for all. Changes no result.
        model: folder the trained network is left in (:mod:`trainables.saved_model`); ``None`` for none.
        processes: that train it together, each on its share of every batch and with ``cores`` of its own. Results are
            equal up to rounding.
        gpus: that the trial holds, or the share of one; 0 where it trains on a CPU. For the records alone.
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
    model: str | None = None
    node_data: str | None = None
    processes: int = 1
    gpus: float = 0.0

    def data(self, config: TrialConfig) -> Path:
        """The folder to open the data set in, on this node; brings it there if it is the node's own.

        Raises:
            DataError: it cannot be brought.
        """
        shared = Path(self.data_root)
        if self.node_data is None:
            return shared
        own = Path(os.path.expandvars(self.node_data)).expanduser()
        data_set_of(config).bring(config.data, own, shared)
        return own


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
        system: what the trial takes of its machine now, as :class:`trainables.usage.Usage` says it. No result.
        log: lines of its log since the report before.
        model: folder the trained network was left in, if it was.
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
    system: dict[str, float] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    model: str | None = None

    @property
    def over(self) -> bool:
        """Whether no further report follows."""
        return self.done or self.diverged is not None


class Session:
    """One attempt at a trial.

    Args:
        task: what to train.
        checkpoint_seconds: about how often a checkpoint is left.
        launch: starts the other processes of a trial that several train.

    Raises:
        UserError: the config, the data or the checkpoint is not right. A damaged checkpoint is logged and the trial
            starts over; one of another trial is an error.
    """

    def __init__(self, task: TrialTask, checkpoint_seconds: float = 30.0, launch: Launch = ChildPeers) -> None:
        self.task = task
        self.trainer = make_trainer(task, launch)
        if self.trainer.key != task.key:
            raise CheckpointError(
                f"this worker computes the key {self.trainer.key[:12]} for trial {task.key[:12]}: "
                "driver and worker run different code or see different pretrained weights"
            )
        self._checkpoint_seconds = checkpoint_seconds
        self._saved_at = time.monotonic()
        self._first = True
        self._resumed = False
        self._usage = Usage(self.trainer.device)
        self._log = TrialLog()
        worker = ", ".join(f"{name} {value}" for name, value in self._worker().items())
        self._log.say(f"trial {task.key[:12]} '{task.label}': {worker}, torch {torch.__version__}")
        self._checkpoint = None if task.checkpoint is None else place(task.checkpoint)
        if self._checkpoint is not None and self._checkpoint.exists():
            with self._log.listening():
                self._resume(self._checkpoint)

    def _resume(self, path: Place) -> None:
        header = checkpoint.read_header(path)
        if header.key != self.task.key:
            raise CheckpointError(f"{path}: is of trial {header.key[:12]}, this config is trial {self.task.key[:12]}")
        try:
            self.trainer.load_state_dict(checkpoint.load(path, key=self.task.key, device=self.trainer.device))
            self._resumed = True
            self._log.say(f"goes on from its checkpoint at iteration {self.trainer.iteration}")
        except CheckpointError as error:
            logger.warning("%s; starting the trial over", error)

    def advance(self, seconds: float) -> Report:
        """Train for about ``seconds`` (at least one iteration) and report."""
        with self._log.listening():
            return self._advance(seconds)

    def _advance(self, seconds: float) -> Report:
        diverged = None
        try:
            if not (self._first and self._resumed and self.task.report_evaluations):
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
            system=self._usage.sample(),
        )
        self._first = False
        self._log.progress(report.iteration, report.progress, report.points)
        evaluated = any(p.step == report.iteration and p.name.startswith("val/") for p in report.points)
        due = time.monotonic() - self._saved_at >= self._checkpoint_seconds
        if not over and (due or (evaluated and self.task.save_evaluations)):
            report.saved = self.save()
        if trainer.done and self.task.model:
            self._save_model(Path(self.task.model))
            report.model = self.task.model
        if over:
            self._log.say(diverged or f"done after {trainer.seconds:.1f} s of training")
            self.close()
        report.log = self._log.take()
        return report

    def close(self) -> None:
        """End the other processes, where there are some. Nothing is trained afterwards."""
        trainer = getattr(self, "trainer", None)
        if isinstance(trainer, Leader):
            trainer.close()

    def _save_model(self, folder: Path) -> None:
        """The network as it stands, with a sample of the validation split as its example."""
        config = self.trainer.config
        split = data_set_of(config).open(config.data, self.task.data(config), "val")
        # A batch is shorter by the samples that are damaged and to be skipped.
        found = split.batch(np.arange(min(_EXAMPLES, len(split))), ())[0]
        example = found[:1] if len(found) else torch.zeros(1, *found.shape[1:])
        saved_model.save(folder, self.trainer.network, config.model, example.numpy(), config.train.kernels)

    def save(self) -> bool:
        """Leave a checkpoint now; returns whether one was left. A store behind a URL that is away is no reason to stop
        training: the next checkpoint tries again."""
        file = self._checkpoint
        if file is None:
            return False
        iteration = self.trainer.iteration
        try:
            if checkpoint.ahead(file, key=self.task.key, iteration=iteration):
                logger.warning("no checkpoint at iteration %d: another worker's is further along", iteration)
                return False
            checkpoint.save(file, self.trainer.state_dict(), key=self.task.key, iteration=iteration)
        except OSError as error:
            if not isinstance(file, RemoteFile):
                raise
            logger.warning("no checkpoint at iteration %d: %s", iteration, error)
            return False
        finally:
            # From its end: one that takes long must not be due again at once.
            self._saved_at = time.monotonic()
        return True

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
            "processes": str(self.task.processes),
            "gpus": f"{self.task.gpus:g}",
        }
