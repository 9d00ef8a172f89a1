"""What a run shows while it goes: live in a terminal, one line per finished trial elsewhere, events for machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from study.best import BestSoFar
from study.plan import Plan, Trial
from trainables.data.base import Progress as BuildProgress
from trainables.session import Report

_MOST_BARS = 12
_MOST_FAILURES = 3
_LINE_SECONDS = 30.0
EVENT_SECONDS = 1.0
"""Between two events of one running trial."""

Emit = Callable[[Mapping[str, Any]], None]
"""Takes an event: plain data, ``event`` its kind."""


def duration(seconds: float) -> str:
    """``1 h 04 min``, ``3 min 20 s``, ``12 s``."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


@dataclass
class _Row:
    """One row of the live table; counts are of trials."""

    label: str
    total: int
    done: int = 0
    failed: int = 0


class StudyProgress:
    """Counts, rows, running trials, failures, time to go.

    ``best``, once set, is asked for the best row so far.

    Args:
        console: where it is shown (standard error, so that a table on standard output stays clean).
        plan: what is run.
        found: trials the records had already.
        expected: seconds each pending trial is expected to train, by key.
        workers: trials at a time.
        emit: takes events, for machines: ``start``, ``progress`` (each trial at most once a second), ``done``,
            ``diverged``, ``failed``.
    """

    def __init__(
        self,
        console: Console,
        plan: Plan,
        found: int,
        expected: dict[str, float],
        workers: int,
        emit: Emit | None = None,
    ) -> None:
        self.console = console
        self.plan = plan
        self.total = len(plan.trials)
        self.found = found
        self.workers = max(1, workers)
        self.best: BestSoFar | None = None
        self._emit = emit
        self._emitted: dict[str, float] = {}
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
        self._rows: dict[str, _Row] = {}
        self._rows_of: dict[str, list[_Row]] = {}
        for row in plan.rows:
            here = sum(trial.key not in expected for trial in row.trials)
            self._rows[row.id] = _Row(row.label, len(row.trials), done=here)
            for trial in row.trials:
                self._rows_of.setdefault(trial.key, []).append(self._rows[row.id])
        self._failures: list[str] = []
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
        )
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it for the length of the block."""
        self._event(
            "start",
            study=self.plan.spec.id,
            profile=self.plan.profile,
            trials=self.total,
            found=self.found,
            left=len(self._expected),
            workers=self.workers,
        )
        if self.console.is_terminal and not self.console.is_dumb_terminal:
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
            self._over(trial, report.diverged or "")
            if report.diverged:
                self._line(trial, report.diverged)
                self._event("diverged", trial, reason=report.diverged, **self._so_far())
            else:
                if self.best is not None:
                    self.best.add(trial, values)
                self._line(trial, f"done in {duration(report.costs['seconds'])}")
                self._event("done", trial, seconds=report.costs["seconds"], **self._so_far())
            del self._values[trial.key]
        elif self._emit is not None:
            self._event_of_progress(trial, report)
        self._bar(trial, report.progress, over=report.over)
        self._heartbeat()

    def fail(self, trial: Trial, reason: str) -> None:
        """Take in a failure."""
        self._left.pop(trial.key, None)
        self._over(trial, reason)
        self._bar(trial, 1.0, over=True)
        self._line(trial, f"FAILED: {reason}")
        self._event("failed", trial, reason=reason, **self._so_far())

    def to_go(self) -> float:
        """Seconds until the end, at the pace of the trials that are through."""
        pace = self._spent / self._estimated if self._estimated > 0 else 1.0
        left = sorted(self._left.values(), reverse=True)
        return max(sum(left) / self.workers, left[0] if left else 0.0) * pace

    def _over(self, trial: Trial, reason: str) -> None:
        """Count a trial that is through; ``reason`` where it is without a result."""
        self.done += 1
        for row in self._rows_of.get(trial.key, ()):
            row.done += 1
            row.failed += bool(reason)
        if reason:
            self.failed += 1
            self._failures.append(f"{trial.label}: {reason}")

    # ---- for people ------------------------------------------------------------------------------

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
        failures = [Text(f"  failed: {failure}", style="red") for failure in self._failures[-_MOST_FAILURES:]]
        return Group(self._table(), *failures, Text(self._counts()), self._progress)

    def _table(self) -> Table:
        """Rows by how many of their trials are through; as many as the terminal has room for, those at work first."""
        running = {id(row) for key in self._last if key in self._left for row in self._rows_of.get(key, ())}
        rows = list(self._rows.values())
        room = max(3, self.console.size.height - len(self._bars) - _MOST_FAILURES - 6)
        if len(rows) > room:
            order = sorted(rows, key=lambda row: (id(row) not in running, row.done == row.total))
            chosen = {id(row) for row in order[: room - 1]}
            rows = [row for row in rows if id(row) in chosen]
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"{self.plan.spec.id} at profile {self.plan.profile}")
        table.title_justify = "left"
        table.add_column("row", overflow="ellipsis", no_wrap=True)
        table.add_column("done", justify="right")
        table.add_column("")
        for row in rows:
            state = f"{row.failed} failed" if row.failed else "running" if id(row) in running else ""
            table.add_row(Text(row.label), f"{row.done}/{row.total}", Text(state, style="red" if row.failed else ""))
        hidden = len(self._rows) - len(rows)
        if hidden:
            table.add_row(Text(f"and {hidden} rows more"), "", "")
        return table

    # ---- for machines ----------------------------------------------------------------------------

    def _event_of_progress(self, trial: Trial, report: Report) -> None:
        now = time.monotonic()
        if now - self._emitted.get(trial.key, -EVENT_SECONDS) >= EVENT_SECONDS:
            self._emitted[trial.key] = now
            self._event("progress", trial, progress=report.progress, iteration=report.iteration)

    def _so_far(self) -> dict[str, Any]:
        """What an event that ends a trial says of the whole."""
        best = self.best.best if self.best is not None else None
        return {
            "over": self.found + self.done,
            "trials": self.total,
            "to_go": round(self.to_go(), 1),
            "best": {"delta_m": best[0], "trial": best[1]} if best else None,
        }

    def _event(self, kind: str, trial: Trial | None = None, **fields: Any) -> None:
        if self._emit is None:
            return
        about = {"trial": trial.label, "key": trial.key, "seed": trial.seed} if trial is not None else {}
        self._emit({"event": kind, "time": round(time.time(), 3), **about, **fields})


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
