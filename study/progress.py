"""What a run shows while it goes: live in a terminal, one line per finished trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from study.best import BestSoFar
from study.plan import Plan, Trial
from trainables.data.base import Progress as BuildProgress
from trainables.session import Report

_MOST_BARS = 12
_LINE_SECONDS = 30.0


def duration(seconds: float) -> str:
    """``1 h 04 min``, ``3 min 20 s``, ``12 s``."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


class StudyProgress:
    """Counts, running trials, time to go.

    ``best``, once set, is asked for the best row so far.

    Args:
        console: where it is shown (standard error, so that a table on standard output stays clean).
        plan: what is run.
        found: trials the records had already.
        expected: seconds each pending trial is expected to train, by key.
        workers: trials at a time.
    """

    def __init__(self, console: Console, plan: Plan, found: int, expected: dict[str, float], workers: int) -> None:
        self.console = console
        self.total = len(plan.trials)
        self.found = found
        self.workers = max(1, workers)
        self.best: BestSoFar | None = None
        self._values: dict[str, dict[str, float]] = {}
        self._left = dict(expected)
        self._expected = dict(expected)
        self.done = 0
        self.failed = 0
        self._spent = 0.0
        self._estimated = 0.0
        self._started = time.monotonic()
        self._said = 0.0
        self._last: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
        )
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it for the length of the block."""
        if self.console.is_terminal:
            with Live(get_renderable=self._render, console=self.console, refresh_per_second=4) as live:
                self._live = live
                yield
            self._live = None
        else:
            yield

    def report(self, trial: Trial, report: Report) -> None:
        """Take in a report."""
        if trial.key in self._expected:
            self._left[trial.key] = self._expected[trial.key] * (1.0 - report.progress)
        self._last[trial.key] = report.progress
        values = self._values.setdefault(trial.key, {})
        values.update((point.name, point.value) for point in report.points)
        if report.over:
            self._left.pop(trial.key, None)
            self._spent += report.costs["seconds"]
            self._estimated += self._expected.get(trial.key, 0.0)
            self.done += 1
            if report.diverged:
                self.failed += 1
                self._line(trial, report.diverged)
            else:
                if self.best is not None:
                    self.best.add(trial, values)
                self._line(trial, f"done in {duration(report.costs['seconds'])}")
            del self._values[trial.key]
        self._bar(trial, report.progress, over=report.over)
        self._heartbeat()

    def fail(self, trial: Trial, reason: str) -> None:
        """Take in a failure."""
        self._left.pop(trial.key, None)
        self.done += 1
        self.failed += 1
        self._bar(trial, 1.0, over=True)
        self._line(trial, f"FAILED: {reason}")

    def to_go(self) -> float:
        """Seconds until the end, at the pace of the trials that are through."""
        pace = self._spent / self._estimated if self._estimated > 0 else 1.0
        left = sorted(self._left.values(), reverse=True)
        return max(sum(left) / self.workers, left[0] if left else 0.0) * pace

    def _counts(self) -> str:
        finished = self.found + self.done
        parts = [f"{finished}/{self.total} trials", f"{self.found} found finished"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        running = sum(1 for key in self._last if key in self._left)
        parts.append(f"{running} running")
        parts.append(f"about {duration(self.to_go())} to go")
        if self.best is not None and str(self.best):
            parts.append(str(self.best))
        return ", ".join(parts)

    def _line(self, trial: Trial, what: str) -> None:
        self.console.print(
            f"[{self.found + self.done}/{self.total}] {trial.label}: {what} (about {duration(self.to_go())} to go)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _heartbeat(self) -> None:
        now = time.monotonic()
        if self._live is None and now - max(self._said, self._started) >= _LINE_SECONDS:
            self._said = now
            self.console.print(self._counts(), markup=False, highlight=False, soft_wrap=True)

    def _bar(self, trial: Trial, progress: float, *, over: bool) -> None:
        if over:
            task = self._bars.pop(trial.key, None)
            if task is not None:
                self._progress.remove_task(task)
            return
        if trial.key not in self._bars and len(self._bars) < _MOST_BARS:
            self._bars[trial.key] = self._progress.add_task(trial.label, total=1.0)
        if trial.key in self._bars:
            self._progress.update(self._bars[trial.key], completed=progress)

    def _render(self) -> Group:
        return Group(Text(self._counts()), self._progress)


@contextmanager
def build_bar(console: Console, what: str) -> Iterator[BuildProgress]:
    """A progress bar for building a data set; elsewhere than in a terminal, a line at each tenth. Silent where
    nothing is built."""
    if console.is_terminal:
        with Progress(
            TextColumn(f"{what}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), console=console
        ) as bar:
            task = bar.add_task(what, total=None, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        return
    said = -1

    def line(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // max(1, total)
        if tenth > said:
            said = tenth
            console.print(f"{what}: {done}/{total}", markup=False, highlight=False)

    yield line
