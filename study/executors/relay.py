"""From Ray Tune's callbacks to the driver's events. Imports Ray, so it is imported only where a cluster is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.executors.base import Failure, OnEvent, Source, Verdict
from study.faults import node_lost
from trainables.session import Report, TrialTask

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class Relay(tune.Callback):
    """Passes last reports and failures on; :class:`Judge` passes on the reports before the last.

    An exception in a Tune callback aborts the sweep with Tune's own error on top of it. It is kept here instead, what
    follows is dropped, and :meth:`raise_pending` raises it once Tune has returned.

    Args:
        on_event: of the run.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event: OnEvent | None = on_event
        self.pending: Exception | None = None
        self.running: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into the experiment's snapshot, which is never restored here.
        return {"_on_event": None, "pending": None, "running": set()}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial is through, or has ended without its final metrics."""
        if result.get("failure"):
            key = trial.config["trial"]["key"]
            self.running.discard(key)
            self.tell(Failure(key, *result["failure"]))
            return
        report: Report = result["report"]
        if report.over:
            self.running.discard(report.key)
            self.tell(report)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is given up, after its retries."""
        key = trial.config["trial"]["key"]
        text = last_error(trial)
        self.running.discard(key)
        self.tell(Failure(key, reason_of(text), text))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial goes on elsewhere. Where its node was lost, that is none of its own failures."""
        if _without_node(last_error(trial)):
            trial.run_metadata.num_failures = max(0, trial.run_metadata.num_failures - 1)

    def raise_pending(self) -> None:
        """Raise what ``on_event`` raised, if it did."""
        if self.pending is not None:
            raise self.pending

    def fail_silent(self) -> None:
        """A trial that ended without a last word looks finished to Tune; here it is a failure."""
        for key in sorted(self.running):
            self.tell(Failure(key, "ended without reporting its final metrics"))
        self.raise_pending()

    def tell(self, event: Report | Failure) -> Verdict:
        """Pass an event on; the verdict on its trial."""
        if self.pending is not None or self._on_event is None:
            return Verdict.STOP
        try:
            return self._on_event(event) or Verdict.GO
        except Exception as error:  # noqa: BLE001 - raised again by raise_pending
            self.pending = error
            return Verdict.STOP


class Judge(FIFOScheduler):
    """Asks for the verdict on every report that is not a trial's last; starts trials in the order they come.

    Tune acts on what its scheduler returns before the trial goes on, so a trial is stopped at the very evaluation
    that the verdict rests on.

    Args:
        relay: to the driver's events.
    """

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """``STOP`` or ``CONTINUE``."""
        report: Report = result["report"]
        if self._relay.tell(report) is Verdict.GO:
            return str(TrialScheduler.CONTINUE)
        self._relay.running.discard(report.key)
        return str(TrialScheduler.STOP)


class Feed(Searcher):
    """Gives Tune the trials of a source, one by one.

    Args:
        source: of trials.
        relay: knows which trials run.
        workers: trials at a time; an adaptive source is asked for no more.
        fixed: what every trial's Tune config holds beside the trial.
        cores: of its machine that are a trial's share.
        gpus: share of a GPU that a trial takes.
        processes: that train a trial together.
    """

    def __init__(
        self,
        source: Source,
        relay: Relay,
        workers: int,
        fixed: dict[str, Any],
        cores: int | None = None,
        gpus: Callable[[TrialTask], float] = lambda task: 0.0,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self._source = source
        self._relay = relay
        self._workers = workers
        self._fixed = fixed
        self._cores = cores
        self._gpus = gpus
        self._processes = processes

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher with the experiment, which is never restored here; a source may hold what cannot
        # be pickled.
        return {**vars(self), "_source": None, "_relay": None, "_gpus": None}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's Tune config, ``None`` to be asked again, or ``FINISHED``."""
        running = self._relay.running
        if self._relay.pending is not None:
            return str(Searcher.FINISHED)
        if self._source.adaptive and len(running) >= self._workers:
            return None
        try:
            task = self._source.next()
        except Exception as error:  # noqa: BLE001 - raised again by raise_pending
            self._relay.pending = error
            return str(Searcher.FINISHED)
        if task is None:
            return None if running and self._source.adaptive else str(Searcher.FINISHED)
        running.add(task.key)
        # Actors are reused by what they take: trials with the same share of a GPU follow one another in one of them.
        gpus = self._gpus(task)
        given = replace(task, cores=self._cores, processes=self._processes, gpus=gpus)
        return {"trial": asdict(given), "gpus": gpus, **self._fixed}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the relay and the judge have told the driver."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a run is resumed from the records, never from Tune's snapshot."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def last_error(trial: Any) -> str:
    """What Tune wrote down of a trial's last failure; empty where it wrote nothing.

    Tune has it in its own folder by then, and under the storage path, where `Trial.get_error` looks, perhaps not yet.
    """
    path = Path(trial.error_file or os.devnull)
    text = path.read_text(errors="replace") if path.is_file() else ""
    return text.rpartition("Failure #")[2].partition("\n")[2]


def _without_node(text: str) -> bool:
    """Whether an error is of the machine. What a method raised has a traceback, and may say of nodes what it likes."""
    return node_lost(text) and "Traceback (most recent call last)" not in text


def reason_of(error: BaseException | str | None) -> str:
    """A remote error in one line: of several, the one that says that a node was lost, or the last. Ray wraps the
    original and its traceback into one text."""
    if not error:
        return "failed without an error"
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        first = str(cause).splitlines()[0] if str(cause) else ""
        return f"{type(cause).__name__}: {first}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    lost = [line for line in lines if node_lost(line)] if _without_node(str(error)) else []
    return (lost or lines)[-1].strip() if lines else type(error).__name__
