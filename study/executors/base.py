"""What an executor is: it runs trials somewhere and passes on what they report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from trainables.data.loader import usable_cores
from trainables.session import Report, Session, TrialTask


@dataclass(frozen=True)
class Failure:
    """A trial that ended without its final metrics, after its retries.

    Attributes:
        key: trial key.
        reason: one line.
        traceback: of the last attempt; empty where a process was killed.
    """

    key: str
    reason: str
    traceback: str = ""


class Verdict(Enum):
    """What becomes of a trial after a report that is not its last."""

    GO = "go"
    STOP = "stop"


OnEvent = Callable[[Report | Failure], Verdict | None]
"""Called in the driver, one event at a time, in the order they arrive; ``None`` is :attr:`Verdict.GO`. After
:attr:`Verdict.STOP` nothing more is heard of the trial. What it raises ends the run."""


class Source(Protocol):
    """Where an executor gets its trials from.

    Attributes:
        threads: CPU threads a trial takes.
        cuda: whether trials train on a GPU.
        adaptive: whether the next trial depends on what earlier ones reported. Such a source is asked only when a
            worker is free; one that is not may be asked ahead of time.
    """

    threads: int
    cuda: bool
    adaptive: bool

    def next(self) -> TrialTask | None:
        """The next trial; ``None`` where there is none now. ``None`` while no trial runs ends the run."""
        ...


class Listed:
    """A source whose trials are known beforehand; see :class:`Source`.

    Args:
        tasks: in the order they are to be started.
    """

    adaptive = False

    def __init__(self, tasks: Sequence[TrialTask]) -> None:
        self.threads = max((int(task.config["train"]["threads"]) for task in tasks), default=1)
        self.cuda = any(task.device == "cuda" for task in tasks)
        self._left = deque(tasks)

    def next(self) -> TrialTask | None:
        """The next of the list."""
        return self._left.popleft() if self._left else None


class Executor(Protocol):
    """Runs trials. Every one ends with a report that is ``over``, with a verdict that stops it, or with one
    :class:`Failure`."""

    name: str

    def run(self, source: Source, on_event: OnEvent) -> None:
        """Run all that ``source`` gives, started in that order, and return when each has ended."""
        ...


@dataclass(frozen=True)
class ExecutorSettings:
    """How trials are run. Nothing here changes a result.

    Attributes:
        workers: trials at a time; on a joined cluster, 0 for as many as fit.
        chunk_seconds: about how often a running trial reports; ``None`` for every 5 s, or less often where more than
            200 trials at a time would have the driver write more than 40 reports a second (``docs/scale.md``).
        checkpoint_seconds: about how often it leaves a checkpoint.
        max_failures: retries of a trial whose worker died or raised, each from its last checkpoint.
        gpus_per_trial: share of a GPU a trial takes, where its device is ``cuda``.
        processes: that train each trial together, each on its share of every batch: on a GPU one a GPU, else one for
            each core that the trial's threads take.
        cluster: where Ray runs, as :func:`study.cluster.connect.connect` takes it.
        measure_gpus: whether the share of a GPU is measured for each kind of trial (:mod:`study.packing`).
        measure_workers: whether ``workers`` is a limit, lowered to the trials that have cores and memory.
        gpus: the share of a GPU of each trial, where they differ; instead of ``gpus_per_trial``.
        session: what a worker trains a trial with; importable there. Another than the default serves to measure what
            trials cost beside their training.
        save_models: whether the networks of a study's trials are kept beside their runs, as MLflow models; those that a
            search tries are not.
    """

    workers: int = 1
    chunk_seconds: float | None = None
    checkpoint_seconds: float = 30.0
    max_failures: int = 1
    gpus_per_trial: float = 1.0
    processes: int = 1
    cluster: str = "local"
    measure_gpus: bool = False
    measure_workers: bool = False
    gpus: Callable[[TrialTask], float] | None = None
    session: type[Session] = Session
    save_models: bool = False

    @property
    def report_seconds(self) -> float:
        """About how often a running trial reports, decided."""
        if self.chunk_seconds is not None:
            return self.chunk_seconds
        return max(_REPORT_SECONDS, self.workers / _REPORTS_PER_SECOND)


_REPORT_SECONDS = 5.0
"""A trial waits while its report is written, on Ray for a twentieth of a second."""
_REPORTS_PER_SECOND = 40.0
"""Of all trials: about two fifths of a core of the driver."""


def share(settings: ExecutorSettings, threads: int, cores: int | None = None) -> int:
    """Cores that each process of the trials at a time may use for itself: at least its threads.

    Args:
        settings: how many trials there are at a time.
        threads: CPU threads a trial takes.
        cores: of all machines; ``None`` for those of this one.
    """
    return max(threads, (cores or usable_cores()) // max(settings.workers * settings.processes, 1))


def gpus_of(settings: ExecutorSettings, task: TrialTask) -> float:
    """Share of a GPU that a trial takes: none where it trains on the CPU."""
    if task.device != "cuda":
        return 0.0
    return settings.gpus_per_trial if settings.gpus is None else settings.gpus(task)
