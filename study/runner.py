"""Run a study: find what is finished, take up what was interrupted, train the rest, write everything down."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from study import schema
from study.best import BestSoFar, Gain
from study.cluster.connect import LOCAL, Connection, fitted, joined
from study.cost import CostModel
from study.executors import Executor, ExecutorSettings, make_executor
from study.gains import gains
from study.home import Home
from study.packing import in_order
from study.plan import Plan, Trial
from study.probing import packed
from study.progress import Emit, StudyProgress, build_bar
from study.resources import settled
from study.served import MODELS_TAG
from study.tracking import Tracker, diverged_reasons, finished_runs
from study.training import Training
from trainables import checkpoint
from trainables.config import data_set_of
from trainables.errors import CheckpointError, ConfigError
from trainables.models.weights import weights_file
from trainables.session import TrialTask

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        found: trials the records had finished before.
        trained: trials finished by this run.
        failures: label and reason of each trial that failed or diverged.
        configs: label of each of these to a file that repeats it (``mtl-study trial FILE``).
        interrupted: whether the user stopped it.
    """

    found: int = 0
    trained: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    configs: dict[str, Path] = field(default_factory=dict)
    interrupted: bool = False

    def fail(self, trial: Trial, reason: str, home: Home) -> None:
        """Take in a trial that failed, and keep its config to repeat it with."""
        path = home.failed(trial.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(trial.config.to_dict(), indent=1), encoding="utf-8")
        self.failures.append((trial.label, reason))
        self.configs[trial.label] = path

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
    emit: Emit | None = None,
) -> Outcome:
    """Train what the records lack of ``plan``.

    ``gain`` is what "best so far" is judged by while it runs, on the validation split; without it nothing is said.
    ``emit`` takes the events of :class:`study.progress.StudyProgress`.

    Several runs may share a home, and trials: each trains those that no other has, and waits for the rest.

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
        settings = settled(settings, device, [trial.config for trial in plan.trials], plan.spec.resources)
        threads = max(trial.config.train.threads for trial in plan.trials)
        settings = fitted(settings, connection, threads, device)
        engine = make_executor(executor, settings, home)
        single = replace(settings, workers=1, gpus_per_trial=max(1.0, settings.gpus_per_trial))
        alone = partial(make_executor, executor, single, home)
        return _run(plan, home, engine, alone, settings, device, connection, console, gain, emit)


def _run(
    plan: Plan,
    home: Home,
    engine: Executor,
    alone: Callable[[], Executor],
    settings: ExecutorSettings,
    device: str,
    connection: Connection | None,
    console: Console,
    gain: Gain | None,
    emit: Emit | None,
) -> Outcome:
    trials = plan.trials
    tracker = Tracker(home, plan.parent_run(), engine.name)
    outcome = Outcome()
    status, reason = schema.FAILED, "ended by an error"
    try:
        if tracker.recovered:
            console.print(f"delivered {tracker.recovered} records that waited for the store", highlight=False)
        orphans = tracker.close_orphans()
        if orphans:
            console.print(f"closed {orphans} runs whose driver is gone", highlight=False)
        finished, diverged = finished_runs(tracker.client), diverged_reasons(tracker.client)
        pending = [trial for trial in trials if trial.key not in finished]
        outcome.found = len(trials) - len(pending)
        if settings.save_models:
            bare = sum(MODELS_TAG not in finished[t.key].data.tags for t in trials if t.key in finished)
            if bare:
                console.print(f"{bare} trials were finished without a model and are not trained again", highlight=False)
        for trial in trials:
            # Its driver ended between the record and this.
            if trial.key in finished and home.checkpoint(trial.key).exists():
                checkpoint.remove(home.checkpoint(trial.key))
        for trial in pending:
            if trial.key in diverged:
                # The same trial would do the same again.
                outcome.fail(trial, diverged[trial.key], home)
        pending = [trial for trial in pending if trial.key not in diverged]
        if pending:
            check_checkpoints(pending, home)
            prepare_data(pending, home, console, min(settings.workers, os.cpu_count() or 1))
            expected = CostModel(tracker.client).seconds(pending)
            tasks = {trial.key: task_of(trial, home, device, save_model=settings.save_models) for trial in pending}
            settings, packing = packed(
                settings, tasks, expected, home, connection, console, one_gpu=engine.name == "local"
            )
            engine = make_executor(engine.name, settings, home)
            view = StudyProgress(console, plan, len(trials) - len(pending), expected, settings.workers, emit)
            if gain is not None:
                view.best = BestSoFar(plan, gain)
                for trial in trials:
                    if trial.key in finished:
                        view.best.add(trial, finished[trial.key].data.metrics)
            by_key = {trial.key: trial for trial in pending}
            # The longest first: a long trial started last would be waited for alone.
            pending = [by_key[key] for key in in_order(tasks, expected)]
            starved = None if packing is None else packing.starved
            Training(pending, lambda trial: tasks[trial.key], tracker, engine, alone, outcome, view, starved).run()
        if gain is not None and pending and not outcome.interrupted:
            tracker.log_gains(lambda runs: gains(plan, runs, gain))
        if outcome.interrupted:
            status, reason = schema.INTERRUPTED, "stopped by the user"
        elif outcome.failures:
            reason = f"{len(outcome.failures)} trials failed"
        else:
            status, reason = schema.COMPLETE, ""
    finally:
        tracker.close(status, reason)
    return outcome


def task_of(
    trial: Trial,
    home: Home,
    device: str,
    *,
    report_evaluations: bool = False,
    save_evaluations: bool = False,
    save_model: bool = False,
) -> TrialTask:
    """A trial as an executor takes it."""
    return TrialTask(
        key=trial.key,
        config=trial.config.to_dict(),
        data_root=str(home.data),
        node_data=home.node_data,
        checkpoint=str(home.checkpoint(trial.key)),
        device=device,
        label=trial.label,
        report_evaluations=report_evaluations,
        save_evaluations=save_evaluations,
        model=str(home.model(trial.key)) if save_model else None,
    )


def check_checkpoints(pending: Sequence[Trial], home: Home) -> None:
    """A checkpoint of another config stops the run before anything trains; one that cannot be read is set aside."""
    for trial in pending:
        path = home.checkpoint(trial.key)
        if not path.exists():
            continue
        try:
            key = checkpoint.read_header(path).key
        except CheckpointError as error:
            logger.warning("%s; moved to %s, its trial starts over", error, checkpoint.set_aside(path))
            continue
        if key != trial.key:
            raise CheckpointError(
                f"{path}: is a checkpoint of another config, not of '{trial.label}'; delete it to start that trial over"
            )
