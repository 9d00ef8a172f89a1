"""The part of a run that trains: trials are claimed one by one, so that other drivers may work on the same ones."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from study import schema
from study.custody import TAKEN, TWICE, Claim
from study.executors import Executor, Failure, Verdict
from study.faults import node_lost
from study.plan import Trial
from study.progress import StudyProgress
from study.tracking import Tracker
from trainables import checkpoint
from trainables.errors import out_of_memory
from trainables.session import Report, TrialTask

if TYPE_CHECKING:
    from study.runner import Outcome

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""Between two looks at the trials that other drivers have."""
_MOST_NODES = 10
"""That one trial may lose before it is taken for what kills them."""
KEEP_SECONDS = 600.0
"""That the end of a run waits for a store that is away."""


class Training:
    """Trains trials until each is finished, here or by another driver, or has failed here.

    Args:
        pending: what to train, in this order.
        task_of: a trial as an executor takes it.
        tracker: of the records.
        engine: runs the trials.
        alone: makes an engine that runs one trial at a time, with a whole device.
        outcome: is filled in.
        view: shows how far it is.
        starved: told of a trial that ran out of memory beside others.
    """

    adaptive = False

    def __init__(
        self,
        pending: Sequence[Trial],
        task_of: Callable[[Trial], TrialTask],
        tracker: Tracker,
        engine: Executor,
        alone: Callable[[], Executor],
        outcome: Outcome,
        view: StudyProgress,
        starved: Callable[[TrialTask], None] | None = None,
    ) -> None:
        self._trials = {trial.key: trial for trial in pending}
        self._task_of, self._tracker, self._home = task_of, tracker, tracker.home
        self._engine, self._alone = engine, alone
        self._outcome, self._view = outcome, view
        self._tell_starved = starved
        tasks = [task_of(trial) for trial in pending]
        self.threads = max((int(task.config["train"]["threads"]) for task in tasks), default=1)
        self.cuda = any(task.device == "cuda" for task in tasks)
        self._left = deque(self._trials)
        self._elsewhere: list[str] = []
        self._starved: dict[str, str] = {}
        self._lost_nodes: Counter[str] = Counter()
        self._again = False

    def run(self) -> None:
        """Train. Ctrl-C closes the open records."""
        try:
            with self._view.shown():
                self._rounds(self._engine)
                if self._starved:
                    self._left.extend(self._starved)
                    self._rounds(self._alone())
                self._settle()
        except KeyboardInterrupt:
            self._outcome.interrupted = True
            self._view.console.print(
                "Ctrl-C: stopping the trials that run and closing their records; finished trials are kept, the others "
                "go on from their last checkpoints when the same command is run again",
                highlight=False,
                soft_wrap=True,
            )
            self._tracker.close_open(schema.INTERRUPTED, "stopped by the user")

    def _rounds(self, engine: Executor) -> None:
        while self._left:
            engine.run(self, self._on_event)
            if self._elsewhere:
                self._wait()

    def _wait(self) -> None:
        """Until a trial that another driver has can be had, or all of them are finished."""
        self._again = True
        names = ", ".join(self._trials[key].label for key in self._elsewhere[:3])
        more = f" and {len(self._elsewhere) - 3} more" if len(self._elsewhere) > 3 else ""
        logger.warning("another run is training %s%s; waiting for it", names, more)
        while self._elsewhere:
            finished, free = self._tracker.custody.finished_or_free(self._elsewhere)
            self._outcome.found += len(finished)
            self._elsewhere = [key for key in self._elsewhere if key not in finished | free]
            if free:
                self._left.extend(key for key in self._trials if key in free)
                return
            time.sleep(_LOOK_SECONDS)

    # ---- the executor's source -------------------------------------------------------------------

    def next(self) -> TrialTask | None:
        """The next trial that no other driver has; see :class:`study.executors.Source`."""
        while self._left:
            key = self._left.popleft()
            claim = self._tracker.claim(key)
            if claim is Claim.OURS:
                if self._again:
                    self._tracker.close_orphans(key)
                return self._task_of(self._trials[key])
            if claim is Claim.BUSY:
                self._elsewhere.append(key)
            else:
                self._outcome.found += 1
        return None

    def _on_event(self, event: Report | Failure) -> Verdict | None:
        trial = self._trials[event.key]
        if self._tracker.custody.lost(event.key):
            self._tracker.suspend(trial, TAKEN)
            self._elsewhere.append(event.key)
            return Verdict.STOP
        if isinstance(event, Failure):
            self._failed(trial, event.reason, event.traceback)
            return None
        self._tracker.log(trial, event)
        if not event.over:
            self._view.report(trial, event)
            return None
        refused = self._tracker.refused(trial)
        if refused == TAKEN:
            self._elsewhere.append(event.key)
        elif refused and refused != TWICE:
            self._give_up(trial, refused)
        else:
            self._over(trial, event)
        return None

    def _over(self, trial: Trial, report: Report) -> None:
        self._view.report(trial, report)
        checkpoint.remove(self._home.checkpoint(trial.key))
        if report.diverged:
            self._outcome.fail(trial, report.diverged, self._home)
        else:
            self._outcome.trained += 1
            self._home.failed(trial.key).unlink(missing_ok=True)

    def _failed(self, trial: Trial, reason: str, traceback: str) -> None:
        if out_of_memory(reason):
            if trial.key not in self._starved:
                self._starved[trial.key] = reason
                if self._tell_starved is not None:
                    self._tell_starved(self._task_of(trial))
                self._tracker.suspend(trial, f"{reason}; to be tried again alone on its device")
                self._view.console.print(f"{trial.label}: out of memory, tried again alone later", highlight=False)
                return
            reason = f"alone on its device, too: {reason}"
        if node_lost(reason) and self._lost_nodes[trial.key] < _MOST_NODES:
            self._lost_nodes[trial.key] += 1
            self._tracker.suspend(trial, f"{reason}; goes on elsewhere")
            self._left.append(trial.key)
            return
        self._tracker.fail(trial, reason, traceback)
        self._give_up(trial, reason)

    def _give_up(self, trial: Trial, reason: str) -> None:
        self._outcome.fail(trial, reason, self._home)
        self._view.fail(trial, reason)

    def _settle(self) -> None:
        """What went by way of the disk counts once the store has it."""
        self._tracker.custody.spool.flush(KEEP_SECONDS)
        for trial, reason in self._tracker.unrecorded():
            self._outcome.trained -= 1
            self._give_up(trial, reason)
