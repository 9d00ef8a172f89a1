"""What a search shows while it goes: one line for each trial that ends, with the best so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from study import schema
from study.progress import duration
from study.search.contest import Contest
from study.search.entries import DELTA_M, PASSES, POINT, REASON, SECONDS, STATUS


class SearchView:
    """Lines on a console.

    Args:
        console: standard error, as a rule.
        contests: of the search.
    """

    def __init__(self, console: Console, contests: Sequence[Contest]) -> None:
        self.console = console
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


def short(point: str) -> str:
    """A point (JSON) as ``lr=0.0012, order=random``."""
    values = json.loads(point)
    parts = (f"{path.rpartition('.')[2]}={_number(value)}" for path, value in values.items())
    return ", ".join(parts)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outcome(attributes: Mapping[str, Any]) -> str:
    return f"Delta_m {attributes[DELTA_M]:+.2f} % on validation" if DELTA_M in attributes else "no number"
