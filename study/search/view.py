"""What a search shows while it goes: one line for each trial that ends, with the best so far; events for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from study import schema
from study.plan import Trial
from study.progress import EVENT_SECONDS, Emit, duration
from study.search.contest import Contest
from study.search.entries import DELTA_M, PASSES, POINT, REASON, RUN_ID, SECONDS, STATUS, TRIAL_KEY
from trainables.session import Report


class SearchView:
    """Lines on a console.

    Args:
        console: standard error, as a rule.
        contests: of the search.
        emit: takes events, for machines: ``progress`` (each trial at most once a second), ``trial`` of each that ends,
            ``contender`` at the end.
    """

    def __init__(self, console: Console, contests: Sequence[Contest], emit: Emit | None = None) -> None:
        self.console = console
        self._emit = emit
        self._emitted: dict[str, float] = {}
        self._contests = {contest.contender.id: contest for contest in contests}
        self._said = {contest.contender.id: self._ended(contest) for contest in contests}

    @staticmethod
    def _ended(contest: Contest) -> set[int]:
        return {trial.number for trial in contest.trials() if trial.state.is_finished()}

    def refresh(self, contest: Contest) -> None:
        """Say what ended since the last call."""
        said = self._said[contest.contender.id]
        for trial in contest.trials():
            if trial.state.is_finished() and trial.number not in said:
                said.add(trial.number)
                self._line(contest, trial)
                self._event_of(contest, trial)

    def progress(self, contest: Contest, trial: Trial, report: Report) -> None:
        """A trial has reported."""
        now = time.monotonic()
        if self._emit is not None and now - self._emitted.get(trial.key, -EVENT_SECONDS) >= EVENT_SECONDS:
            self._emitted[trial.key] = now
            about = {"contender": contest.contender.id, "trial": trial.label, "key": trial.key}
            done = {"progress": report.progress, "iteration": report.iteration}
            self._emit({"event": "progress", "time": round(time.time(), 3), **about, **done})

    def _event_of(self, contest: Contest, trial: FrozenTrial) -> None:
        if self._emit is None:
            return
        attributes: Mapping[str, Any] = trial.user_attrs
        best = contest.best()
        event = {
            "event": "trial",
            "time": round(time.time(), 3),
            "contender": contest.contender.id,
            "number": trial.number,
            "point": json.loads(attributes.get(POINT, "{}")),
            "key": attributes.get(TRIAL_KEY, ""),
            "run": attributes.get(RUN_ID, ""),
            "status": attributes.get(STATUS) or schema.FAILED,
            "reason": attributes.get(REASON, ""),
            "delta_m": attributes.get(DELTA_M),
            "trunk_passes": attributes.get(PASSES),
            "seconds": attributes.get(SECONDS),
            "share_spent": round(contest.share_spent(), 4),
            "best": None if best is None else {"delta_m": best.user_attrs[DELTA_M], "number": best.number},
        }
        self._emit(event)

    def _line(self, contest: Contest, trial: FrozenTrial) -> None:
        attributes: Mapping[str, Any] = trial.user_attrs
        status = attributes.get(STATUS, "")
        words = attributes.get(REASON) or _outcome(attributes)
        if status == schema.DIVERGED:
            words = f"DIVERGED: {words}"
        elif status == schema.FAILED or not status:
            words = f"FAILED: {words}"
        best = contest.best()
        so_far = f"; best {best.user_attrs[DELTA_M]:+.2f} % (trial {best.number})" if best is not None else ""
        share = f"{100 * contest.share_spent():.0f} %"
        took = f" in {duration(attributes[SECONDS])}" if SECONDS in attributes else ""
        where = f"[{contest.contender.id} {share}] trial {trial.number} ({short(attributes.get(POINT, '{}'))})"
        self.say(f"{where}: {words}{took}{so_far}")

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def summary(self) -> None:
        """What each contender spent and found."""
        for contest in self._contests.values():
            best, passes = contest.best(), contest.spent(PASSES)
            count = int(contest.spent("trials"))
            found = f"best Delta_m {best.user_attrs[DELTA_M]:+.2f} % on validation" if best else "no whole trial"
            self.say(f"{contest.contender.label}: {count} trials, {passes:.0f} trunk passes; {found}")
            if self._emit is not None:
                winner = {"delta_m": best.user_attrs[DELTA_M], "number": best.number} if best else None
                spent = {"trials": count, "trunk_passes": passes}
                self._emit({"event": "contender", "contender": contest.contender.id, **spent, "best": winner})


def short(point: str) -> str:
    """A point (JSON) as ``lr=0.0012, order=random``."""
    values = json.loads(point)
    parts = (f"{path.rpartition('.')[2]}={_number(value)}" for path, value in values.items())
    return ", ".join(parts)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outcome(attributes: Mapping[str, Any]) -> str:
    return f"Delta_m {attributes[DELTA_M]:+.2f} % on validation" if DELTA_M in attributes else "no number"
