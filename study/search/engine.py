"""Run a search: baseline and defaults first, then every contender's trials, then the winners on fresh seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rich.console import Console

from search_spaces import Point
from study import schema
from study.cluster.connect import fitted, joined
from study.custody import TAKEN, Claim
from study.executors import Executor, ExecutorSettings, Failure, Verdict, make_executor
from study.home import Home
from study.plan import Trial
from study.progress import Emit
from study.resources import settled
from study.runner import Outcome, check_checkpoints, prepare_data, resolve_device, run_study, task_of
from study.search.contest import Contest
from study.search.entries import Decision
from study.search.limits import Limits, Patience
from study.search.objective import Gain, Objective
from study.search.past import PastTrials
from study.search.plan import SearchPlan
from study.search.population import Population
from study.search.storage import open_storage
from study.search.view import SearchView
from study.tracking import Tracker, finished_runs, open_client
from trainables import checkpoint
from trainables.config import tasks_of
from trainables.errors import StoreError, out_of_memory
from trainables.session import Report, TrialTask

_LOOK_SECONDS = 2.0
"""Between two looks at trials that another driver has."""


@dataclass(frozen=True)
class SearchOptions:
    """How a search is run. Nothing here changes what a trial gives.

    Attributes:
        limits: of this invocation.
        storage: of Optuna, instead of the home's own.
        warm_start: tell the samplers of the records' finished trials whose configs fit.
        points: tried first, beside the spec's, by contender id.
        final: train the final table, too.
    """

    limits: Limits = field(default_factory=Limits)
    storage: str | None = None
    warm_start: bool = False
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    final: bool = True


@dataclass
class SearchOutcome:
    """What a search did.

    Attributes:
        winners: contender id to the point that won; absent where no trial went to its end.
        complete: whether every contender's budget is spent.
        ended: why it ended before that; empty where it did not.
        interrupted: whether the user ended it.
        failures: label and reason of each trial that failed. Those that diverged are results.
        final: the final study, where it was run.
    """

    winners: dict[str, Point] = field(default_factory=dict)
    complete: bool = False
    ended: str = ""
    interrupted: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)
    final: Outcome | None = None


def run_search(
    plan: SearchPlan,
    home: Home,
    gain: Gain,
    *,
    options: SearchOptions | None = None,
    executor: str = "ray",
    settings: ExecutorSettings | None = None,
    device: str = "auto",
    console: Console | None = None,
    emit: Emit | None = None,
) -> SearchOutcome:
    """Search until every contender's budget is spent, and train the winners on fresh seeds.

    Run again after any end, it goes on with the same Optuna studies: no trial is proposed or trained twice.

    Args:
        plan: what is searched.
        home: records, checkpoints, data.
        gain: Delta_m.
        options: limits, storage, warm starts.
        executor: ``ray`` or ``local``.
        settings: workers and the like.
        device: ``auto``, ``cpu`` or ``cuda``.
        console: for progress.
        emit: takes the events of :class:`study.search.view.SearchView`, and of the studies before and after.

    Raises:
        UserError: home, storage, data or a checkpoint cannot be used, or the baseline did not finish.
    """
    console = console or Console(stderr=True)
    options, settings = options or SearchOptions(), settings or ExecutorSettings()
    threads = max(contender.config.train.threads for contender in plan.contenders)
    home.require()
    with joined(settings.cluster, home) as connection:
        there = resolve_device(device, connection)
        settings = settled(settings, there, [contender.config for contender in plan.contenders], plan.spec.resources)
        fit = fitted(settings, connection, threads, there)
        return _searched(plan, home, gain, options, executor, fit, there, console, emit)


def _searched(
    plan: SearchPlan,
    home: Home,
    gain: Gain,
    options: SearchOptions,
    executor: str,
    settings: ExecutorSettings,
    device: str,
    console: Console,
    emit: Emit | None,
) -> SearchOutcome:
    def study(winners: Mapping[str, Point] | None) -> Outcome:
        planned = plan.final(winners)
        return run_study(
            planned, home, executor=executor, settings=settings, device=device, console=console, gain=gain, emit=emit
        )

    outcome = SearchOutcome()
    console.print("single-task baseline and defaults", highlight=False)
    first = study(None)
    if first.interrupted:
        outcome.interrupted, outcome.ended = True, "stopped by the user"
        return outcome
    engine = make_executor(executor, settings, home)
    with home.lock():
        _Search(plan, home, gain, options, settings, device, console, emit).run(engine, outcome)
    if outcome.winners and options.final and not outcome.interrupted:
        console.print("winners on fresh seeds", highlight=False)
        outcome.final = study(outcome.winners)
        outcome.interrupted = outcome.final.interrupted
    return outcome


class _Search:
    """The part of a search that trains contenders' trials. Holds the home."""

    adaptive = True

    def __init__(
        self,
        plan: SearchPlan,
        home: Home,
        gain: Gain,
        options: SearchOptions,
        settings: ExecutorSettings,
        device: str,
        console: Console,
        emit: Emit | None = None,
    ) -> None:
        self._plan, self._home, self._options, self._device = plan, home, options, device
        self.threads = max(contender.config.train.threads for contender in plan.contenders)
        self.cuda = device == "cuda"
        client = open_client(home, create=True)
        self._past = PastTrials(client)
        baseline = _baseline(plan, home)
        storage = open_storage(home, options.storage)
        self._contests = []
        for contender in plan.contenders:
            objective = Objective(plan.spec.objective, gain, tasks_of(contender.config), baseline)
            contest = (
                Population(contender, plan.spec, storage, objective, self._past, self._hand_down)
                if plan.spec.sampler.name == "pbt"
                else Contest(contender, plan.spec, storage, objective, self._past)
            )
            for point in options.points.get(contender.id, ()):
                contest.enqueue(point)
            self._contests.append(contest)
        self._view = SearchView(console, self._contests, emit)
        if options.warm_start:
            whole = list(self._past.whole())
            for contest in self._contests:
                fitting = sum(contest.learn(config, outcome) for config, outcome in whole)
                self._view.say(f"{contest.contender.label}: {fitting} finished trials of the records fit")
        self._patience = Patience(options.limits, settings.gpus_per_trial if self.cuda else 0.0, self._view.say)
        self._given: dict[str, tuple[Contest, Trial]] = {}
        self._running: set[str] = set()
        self._starved: set[str] = set()
        self._workers = settings.workers

    def run(self, engine: Executor, outcome: SearchOutcome) -> None:
        tracker = Tracker(self._home, self._plan.parent_run(), engine.name)
        self._tracker, self._outcome = tracker, outcome
        status, reason = schema.FAILED, "ended by an error"
        try:
            tracker.close_orphans()
            trials = [contender.trial({}) for contender in self._plan.contenders]
            prepare_data(trials, self._home, self._view.console, self._workers)
            try:
                with self._patience.listening():
                    engine.run(self, self.on_event)
            except KeyboardInterrupt:
                self._patience.presses = 3
                tracker.close_open(schema.INTERRUPTED, "stopped by the user")
            outcome.interrupted = self._patience.interrupted
            outcome.complete = all(contest.share_spent() >= 1.0 for contest in self._contests)
            outcome.ended = "" if outcome.complete else self._patience.out_of()
            for contest in self._contests:
                winner = contest.winner()
                if winner is not None:
                    outcome.winners[contest.contender.id] = winner
            self._view.summary()
            status = schema.COMPLETE if outcome.complete else schema.INTERRUPTED
            reason = outcome.ended
        finally:
            tracker.close(status, reason)

    def _close_replaced(self, contest: Contest) -> None:
        for key, run_id, reason in contest.replaced():
            self._tracker.custody.end(run_id, schema.PRUNED, "FINISHED", reason)
            checkpoint.remove(self._home.checkpoint(key))

    def _hand_down(self, parent: str, child: str) -> None:
        checkpoint.hand_down(self._home.checkpoint(parent), self._home.checkpoint(child), parent=parent, child=child)

    # ---- the executor's source -------------------------------------------------------------------

    def next(self) -> TrialTask | None:
        """A trial of the contender that has spent the least of its budget."""
        while not self._patience.out_of() and not self._starved & self._running:
            elsewhere = False
            for contest in sorted(self._contests, key=Contest.share_spent):
                trial = contest.next()
                self._view.refresh(contest)
                if trial is None:
                    continue
                if trial.key in self._starved and self._running:
                    # It has the machine to itself once those that run have ended.
                    contest.postpone(trial)
                    return None
                claim = self._tracker.claim(trial.key)
                if claim is Claim.OURS:
                    return self._give(contest, trial)
                if claim is Claim.FINISHED:
                    self._past.read()
                if not contest.found(trial):
                    # A study of this home trains the same trial; its result will do.
                    contest.postpone(trial)
                    elsewhere = True
            if self._running or not elsewhere:
                return None
            time.sleep(_LOOK_SECONDS)
        return None

    def _give(self, contest: Contest, trial: Trial) -> TrialTask:
        check_checkpoints([trial], self._home)
        self._given[trial.key] = (contest, trial)
        self._running.add(trial.key)
        return task_of(trial, self._home, self._device, report_evaluations=True, save_evaluations=contest.pauses)

    def on_event(self, event: Report | Failure) -> Verdict:
        contest, trial = self._given[event.key]
        if self._tracker.custody.lost(event.key):
            self._tracker.suspend(trial, TAKEN)
            contest.postpone(trial)
            self._running.discard(event.key)
            return Verdict.STOP
        if isinstance(event, Failure):
            return self._failed(contest, trial, event)
        decision, curve = contest.take(event)
        run_id = self._tracker.log(trial, event, curve)
        self._view.progress(contest, trial, event)
        if event.over:
            contest.finish(event, run_id)
            return self._ended(contest, event)
        if decision is Decision.STOP:
            self._tracker.prune(trial, contest.why_stopped(event.key))
            contest.stop(event.key, run_id)
            return self._ended(contest, event)
        if decision is Decision.PAUSE and isinstance(contest, Population):
            self._tracker.suspend(trial, "waits for the rest of its generation")
            contest.pause(event.key, run_id)
            self._running.discard(event.key)
            self._close_replaced(contest)
            self._view.refresh(contest)
            return Verdict.STOP
        if self._patience.suspending and event.saved:
            self._tracker.suspend(trial, "stopped by the user")
            contest.release(event.key)
            self._running.discard(event.key)
            return Verdict.STOP
        return Verdict.GO

    def _failed(self, contest: Contest, trial: Trial, event: Failure) -> Verdict:
        reason = event.reason
        if out_of_memory(reason) and trial.key not in self._starved:
            self._starved.add(trial.key)
            self._tracker.suspend(trial, f"{reason}; to be tried again alone on its device")
            self._view.say(f"{trial.label}: out of memory, tried again alone")
            contest.postpone(trial)
            self._running.discard(trial.key)
            return Verdict.STOP
        if trial.key in self._starved and out_of_memory(reason):
            reason = f"alone on its device, too: {reason}"
        self._tracker.fail(trial, reason, event.traceback)
        contest.fail(trial.key, reason)
        self._outcome.failures.append((trial.label, reason))
        return self._ended(contest, event)

    def _ended(self, contest: Contest, event: Report | Failure) -> Verdict:
        self._running.discard(event.key)
        if isinstance(event, Report):
            self._patience.used(event.costs["seconds"])
            checkpoint.remove(self._home.checkpoint(event.key))
        self._close_replaced(contest)
        self._view.refresh(contest)
        return Verdict.STOP


def _baseline(plan: SearchPlan, home: Home) -> dict[str, float]:
    """Task name to the mean of its single-task metric on the validation split; raises :class:`StoreError` where one is
    missing."""
    final = plan.final()
    row = next(row for row in final.rows if row.id == final.spec.baseline)
    runs = finished_runs(open_client(home))
    values: dict[str, list[float]] = {}
    for trial in row.trials:
        for task in tasks_of(trial.config):
            name = schema.metric(schema.VAL, task.name, task.metric)
            value = runs[trial.key].data.metrics.get(name, math.nan) if trial.key in runs else math.nan
            if not math.isfinite(value) or value == 0:
                raise StoreError(
                    f"the single-task baseline has no usable {name} (trial '{trial.label}'): "
                    "Delta_m cannot be measured; see its run"
                )
            values.setdefault(task.name, []).append(value)
    return {name: fmean(numbers) for name, numbers in values.items()}
