"""What a trial says of itself: the lines of its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trainables.history import Point

_PROGRESS_SECONDS = 60.0
_EVALUATIONS = ("val/", "test/")


class TrialLog(logging.Handler):
    """Lines with the time (UTC) before them: what the trial says, and what is logged or warned of while it trains."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        self._told = time.monotonic()

    def say(self, text: str, *, level: str = "INFO") -> None:
        """One line."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        self._lines.append(f"{stamp}Z {level}: {' '.join(text.split())}")

    def progress(self, iteration: int, share: float, points: Sequence[Point]) -> None:
        """The evaluations among ``points``, a line each; without any, how far the trial is, once a minute."""
        evaluated: dict[int, list[str]] = {}
        for point in points:
            if point.name.startswith(_EVALUATIONS):
                evaluated.setdefault(point.step, []).append(f"{point.name}={point.value:.6g}")
        for step, values in evaluated.items():
            self.say(f"iteration {step}: {', '.join(values)}")
        if evaluated or time.monotonic() - self._told >= _PROGRESS_SECONDS:
            if not evaluated:
                self.say(f"iteration {iteration}: {100 * share:.1f} % of the budget spent")
            self._told = time.monotonic()

    def take(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take in warnings that are logged in the block."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """A warning; where nobody else listens it goes where Python puts it without handlers, too."""
        self.say(record.getMessage(), level=record.levelname)
        if logging.lastResort is not None and all(isinstance(h, TrialLog) for h in logging.getLogger().handlers):
            logging.lastResort.handle(record)
