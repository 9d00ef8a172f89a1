"""What an executor is: it runs trials somewhere and passes on what they report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trainables.session import Report, TrialTask


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


OnEvent = Callable[[Report | Failure], None]
"""Called in the driver, one event at a time, in the order they arrive. What it raises ends the run."""


class Executor(Protocol):
    """Runs trials. Every one ends with a report that is ``over`` or with one :class:`Failure`."""

    name: str

    def run(self, tasks: Sequence[TrialTask], on_event: OnEvent) -> None:
        """Run all ``tasks``, started in their order, and return when each has ended."""
        ...


@dataclass(frozen=True)
class ExecutorSettings:
    """How trials are run. Nothing here changes a result.

    Attributes:
        workers: trials at a time.
        chunk_seconds: about how often a running trial reports.
        checkpoint_seconds: about how often it leaves a checkpoint.
        max_failures: retries of a trial whose worker died or raised, each from its last checkpoint.
        gpus_per_trial: share of a GPU a trial takes, where its device is ``cuda``.
    """

    workers: int = 1
    chunk_seconds: float = 2.0
    checkpoint_seconds: float = 30.0
    max_failures: int = 1
    gpus_per_trial: float = 1.0
