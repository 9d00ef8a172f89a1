"""When a search ends early: hours, GPU-hours, Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True)
class Limits:
    """Of one invocation, beside the budget of each contender; whichever comes first.

    Attributes:
        hours: of wall time; trials that run then go to their end.
        gpu_hours: of training, times the share of a GPU a trial holds.
    """

    hours: float | None = None
    gpu_hours: float | None = None


class Patience:
    """Whether trials are still to be started, and whether those that run are to be stopped.

    Inside :meth:`listening`, the first Ctrl-C lets running trials finish, the second stops each at its next
    checkpoint, the third raises ``KeyboardInterrupt``.

    Args:
        limits: of this invocation.
        gpus: share of a GPU a trial holds, 0 on a CPU.
        say: takes a line for the user.
    """

    def __init__(self, limits: Limits, gpus: float, say: Callable[[str], None]) -> None:
        self._limits = limits
        self._gpus = gpus
        self._say = say
        self._started = time.monotonic()
        self.presses = 0
        self.gpu_seconds = 0.0

    @property
    def interrupted(self) -> bool:
        """Whether the user wants an end."""
        return self.presses > 0

    @property
    def suspending(self) -> bool:
        """Whether running trials are to stop at their next checkpoint."""
        return self.presses > 1

    def used(self, seconds: float) -> None:
        """Count the training of a trial that ended."""
        self.gpu_seconds += seconds * self._gpus

    def out_of(self) -> str:
        """What has run out, in words; empty while nothing has."""
        if self.interrupted:
            return "stopped by the user"
        hours, gpu_hours = self._limits.hours, self._limits.gpu_hours
        if hours is not None and time.monotonic() - self._started >= hours * 3600:
            return f"its {hours:g} hours are over"
        if gpu_hours is not None and self.gpu_seconds >= gpu_hours * 3600:
            return f"its {gpu_hours:g} GPU-hours are used"
        return ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count Ctrl-C for the length of the block."""
        words = {
            1: "finishing the trials that run; Ctrl-C again stops them at their next checkpoint",
            2: "stopping each trial at its next checkpoint; Ctrl-C again stops at once",
        }

        def press(_signal: int, _frame: FrameType | None) -> None:
            self.presses += 1
            if self.presses > 2:
                raise KeyboardInterrupt
            self._say(words[self.presses])

        before = signal.signal(signal.SIGINT, press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
