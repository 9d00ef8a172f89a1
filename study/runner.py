"""Run a study: find what is finished, take up what was interrupted, train the rest, write everything down."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console

from study import schema
from study.best import BestSoFar, Gain
from study.cluster.connect import LOCAL, Connection, joined
from study.cost import CostModel
from study.executors import Executor, ExecutorSettings, Failure, Listed, make_executor
from study.home import Home
from study.plan import Plan, Trial
from study.progress import StudyProgress, build_bar
from study.tracking import Tracker, finished_runs
from trainables import checkpoint
from trainables.config import data_set_of
from trainables.errors import CheckpointError, ConfigError
from trainables.models.weights import weights_file
from trainables.session import Report, TrialTask

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        found: trials the records had finished before.
        trained: trials finished by this run.
        failures: label and reason of each trial that failed or diverged.
        interrupted: whether the user stopped it.
    """

    found: int = 0
    trained: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether every cell has its result."""
        return not self.failures and not self.interrupted


def resolve_device(device: str, connection: Connection | None = None) -> str:
    """``auto`` as ``cuda`` where there is one, here or on the cluster that was joined; raises :class:`ConfigError` for
    ``cuda`` without one."""
    there = torch.cuda.is_available() if connection is None else connection.gpus > 0
    if device == "auto":
        return "cuda" if there else "cpu"
    if device == "cuda" and not there:
        where = "torch sees no CUDA device here" if connection is None else f"{connection.address} has no GPU"
        raise ConfigError(f"--device cuda: {where} (allowed: auto, cpu)")
    return device


def prepare_data(trials: Sequence[Trial], home: Home, console: Console, workers: int) -> None:
    """Build or check each distinct data set, and see that the weights to start from are here.

    Raises:
        UserError: a data set or a weight file is not here.
    """
    configs = {data_set_of(t.config).fingerprint(t.config.data): t.config for t in trials}
    for config in configs.values():
        data_set = data_set_of(config)
        with build_bar(console, f"building data set {config.data.name}") as progress:
            data_set.prepare(config.data, home.data, workers=workers, progress=progress)
        for split in data_set.sizes(config.data):
            data_set.open(config.data, home.data, split)
    for model in {t.config.model for t in trials}:
        weights_file(model)


def run_study(
    plan: Plan,
    home: Home,
    *,
    executor: str = "ray",
    settings: ExecutorSettings | None = None,
    device: str = "auto",
    console: Console | None = None,
    gain: Gain | None = None,
) -> Outcome:
    """Train what the records lack of ``plan``.

    ``gain`` is what "best so far" is judged by while it runs, on the validation split; without it nothing is said.

    Returns when every trial has ended; an interrupt (Ctrl-C) closes the open records and returns, too.

    Raises:
        UserError: the home, the data or a checkpoint cannot be used. Nothing is recorded as finished then.
    """
    console = console or Console(stderr=True)
    settings = settings or ExecutorSettings()
    if executor != "ray" and settings.cluster != LOCAL:
        raise ConfigError(f"--executor {executor}: trains on this machine; --cluster {settings.cluster} needs ray")
    home.require()
    with joined(settings.cluster, home) as connection:
        device = resolve_device(device, connection)
        if connection is not None and not settings.workers:
            threads = max(trial.config.train.threads for trial in plan.trials)
            share = settings.gpus_per_trial if device == "cuda" else 0.0
            settings = replace(settings, workers=connection.slots(threads, share))
        return _run(plan, home, make_executor(executor, settings, home), settings, device, console, gain)


def _run(
    plan: Plan,
    home: Home,
    engine: Executor,
    settings: ExecutorSettings,
    device: str,
    console: Console,
    gain: Gain | None,
) -> Outcome:
    with home.lock():
        trials = plan.trials
        tracker = Tracker(home, plan.parent_run(), engine.name)
        outcome = Outcome()
        status, reason = schema.FAILED, "ended by an error"
        try:
            orphans = tracker.close_orphans()
            if orphans:
                console.print(f"closed {orphans} runs whose driver is gone", highlight=False)
            finished = finished_runs(tracker.client)
            pending = [trial for trial in trials if trial.key not in finished]
            outcome.found = len(trials) - len(pending)
            if pending:
                check_checkpoints(pending, home)
                prepare_data(pending, home, console, min(settings.workers, os.cpu_count() or 1))
                expected = CostModel(tracker.client).seconds(pending)
                view = StudyProgress(console, plan, outcome.found, expected, settings.workers)
                if gain is not None:
                    view.best = BestSoFar(plan, gain)
                    for trial in trials:
                        if trial.key in finished:
                            view.best.add(trial, finished[trial.key].data.metrics)
                # The longest first: a long trial started last would be waited for alone.
                pending.sort(key=lambda trial: expected[trial.key], reverse=True)
                _train(pending, tracker, engine, device, outcome, view)
            if outcome.interrupted:
                status, reason = schema.INTERRUPTED, "stopped by the user"
            elif outcome.failures:
                reason = f"{len(outcome.failures)} trials failed"
            else:
                status, reason = schema.COMPLETE, ""
        finally:
            tracker.close(status, reason)
    return outcome


def _train(
    pending: Sequence[Trial], tracker: Tracker, engine: Executor, device: str, outcome: Outcome, view: StudyProgress
) -> None:
    home = tracker.home
    by_key = {trial.key: trial for trial in pending}
    tasks = [task_of(trial, home, device) for trial in pending]

    def on_event(event: Report | Failure) -> None:
        trial = by_key[event.key]
        if isinstance(event, Failure):
            tracker.fail(trial, event.reason, event.traceback)
            outcome.failures.append((trial.label, event.reason))
            view.fail(trial, event.reason)
            return
        tracker.log(trial, event)
        view.report(trial, event)
        if event.over:
            home.checkpoint(trial.key).unlink(missing_ok=True)
            if event.diverged:
                outcome.failures.append((trial.label, event.diverged))
            else:
                outcome.trained += 1

    try:
        with view.shown():
            engine.run(Listed(tasks), on_event)
    except KeyboardInterrupt:
        outcome.interrupted = True
        tracker.close_open(schema.INTERRUPTED, "stopped by the user")


def task_of(trial: Trial, home: Home, device: str, *, report_evaluations: bool = False) -> TrialTask:
    """A trial as an executor takes it."""
    return TrialTask(
        key=trial.key,
        config=trial.config.to_dict(),
        data_root=str(home.data),
        checkpoint=str(home.checkpoint(trial.key)),
        device=device,
        label=trial.label,
        report_evaluations=report_evaluations,
    )


def check_checkpoints(pending: Sequence[Trial], home: Home) -> None:
    """A checkpoint of another config stops the run before anything trains."""
    for trial in pending:
        path: Path = home.checkpoint(trial.key)
        if path.exists() and checkpoint.read_header(path).key != trial.key:
            raise CheckpointError(
                f"{path}: is a checkpoint of another config, not of '{trial.label}'; delete it to start that trial over"
            )
