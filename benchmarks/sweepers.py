"""Who runs a sweep in the benchmark: this package's executors, what people write without it, and a bare loop."""

from __future__ import annotations

import io
import json
import logging
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.idle import IdleSession
from study import environment, schema
from study.executors import ExecutorSettings
from study.home import Home
from study.plan import Plan, make_plan
from study.runner import prepare_data, run_study, task_of
from study.spec import MOST_SEEDS, parse_spec
from study.store import open_client, search
from study.tracking import flatten
from trainables.session import Report, Session, TrialTask

_SPEC = """
id: sweep
title: Trials of one length
profile: smoke
base:
  data: {{image_size: 32, train: 64, val: 8, test: 8}}
  tasks: {{include: [normal, reshading, depth_zbuffer]}}
  train: {{batch_size: 4, budget: {{amount: {iterations}}}}}
baseline: gd
rows:
  - {{id: gd, label: GD, set: {{method: gd}}}}
  - {{id: lr, label: "lr={{optim.lr}}", set: {{method: gd}}, axes: {{optim.lr: {rates}}}}}
"""

_GRID = """
id: grid
title: Cells that all differ
profile: smoke
baseline: gd
rows:
  - {{id: gd, label: GD, set: {{method: gd}}}}
  - {{id: graddrop, label: "{{optim.lr}}, {{method.leak}}", set: {{method: graddrop}}, axes: {axes}}}
"""


@dataclass(frozen=True)
class Load:
    """What is swept.

    Attributes:
        trials: how many.
        chunk_seconds: between two reports of a trial.
        iterations: of a trial; an idle one reports each of them.
        slots: trials at a time.
        idle: whether trials sleep instead of training.
    """

    trials: int
    chunk_seconds: float
    iterations: int
    slots: int
    idle: bool

    @property
    def session(self) -> type[Session]:
        """What a worker runs."""
        return IdleSession if self.idle else Session


@dataclass(frozen=True)
class Ended:
    """A trial that is through: when (seconds since the epoch), and the seconds it trained."""

    at: float
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """A sweep that is through.

    Attributes:
        ended: its trials, in the order they ended.
        memory: the most that its driver held, in bytes.
    """

    ended: list[Ended]
    memory: int


Sweeper = Callable[[Load, Path], list[Ended]]


def plan_of(load: Load) -> Plan:
    """As many distinct trials of equal length as are wanted: replicates of one cell, and of more where they do not
    suffice."""
    seeds = min(load.trials, MOST_SEEDS)
    more = -(-load.trials // seeds) - 1
    rates = [round(1e-5 + 1e-7 * index, 9) for index in range(max(more, 1))]
    spec = parse_spec(_SPEC.format(iterations=load.iterations, rates=rates), "sweep.yaml")
    plan = make_plan(spec if more else spec.model_copy(update={"rows": spec.rows[:1]}), None, seeds)
    return plan


def grid_of(cells: int) -> Plan:
    """A plan of at least so many cells that all differ, one trial each."""
    side = math.isqrt(max(cells - 2, 0)) + 1
    axes = {
        "optim.lr": [round(1e-5 + 1e-7 * index, 9) for index in range(side)],
        "method.leak": [round(index / side, 6) for index in range(side)],
    }
    spec = parse_spec(_GRID.format(axes=json.dumps(axes)), "grid.yaml")
    return make_plan(spec, None, 1)


def tasks_for(load: Load, folder: Path) -> list[TrialTask]:
    """The same trials for those who know no plans; their data is made ready."""
    home = Home(folder)
    trials = plan_of(load).trials[: load.trials]
    if not load.idle:
        prepare_data(trials, home, Console(file=io.StringIO()), 1)
    return [task_of(trial, home, "cpu") for trial in trials]


def bare(load: Load, folder: Path) -> list[Ended]:
    """One trial after another in one process; nothing is recorded."""
    ended = []
    for task in tasks_for(load, folder):
        session = load.session(task)
        while not (report := session.advance(load.chunk_seconds)).over:
            pass
        ended.append(Ended(time.time(), report.costs["seconds"]))
    return ended


def ours(load: Load, folder: Path, executor: str) -> list[Ended]:
    """``mtl-study run``, with full records; when trials ended is read from these."""
    home = Home(folder)
    settings = ExecutorSettings(workers=load.slots, chunk_seconds=load.chunk_seconds, session=load.session)
    outcome = run_study(
        plan_of(load), home, executor=executor, settings=settings, device="cpu", console=Console(file=io.StringIO())
    )
    if outcome.failures:
        raise RuntimeError(f"a trial of the benchmark failed: {outcome.failures[0]}")
    runs = search(open_client(home), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")
    return [Ended(run.info.end_time / 1000, run.data.metrics[schema.cost("seconds")]) for run in runs]


def tune_stock(load: Load, folder: Path, *, reuse: bool) -> list[Ended]:
    """Plain Ray Tune, a class trainable, the MLflow callback that comes with it."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class Trainable(tune.Trainable):
        def setup(self, config: dict[str, Any], tasks: list[TrialTask] | None = None) -> None:
            self.tasks = tasks or self.tasks
            self.session = load.session(self.tasks[config["index"]])

        def step(self) -> dict[str, Any]:
            report = self.session.advance(load.chunk_seconds)
            return {**_values(report), "done": report.over}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Tune asks for one at the end of a trial; there is nothing to keep."""

        def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
            """Nothing, likewise."""

    class Note(tune.Callback):
        def __init__(self) -> None:
            self.ended: list[Ended] = []

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.ended.append(Ended(time.time(), float(trial.last_result[schema.cost("seconds")])))

    note = Note()
    environment.ray_token(folder)
    ray.init("local", num_cpus=load.slots, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        tune.Tuner(
            tune.with_parameters(Trainable, tasks=tasks_for(load, folder)),
            param_space={"index": tune.grid_search(list(range(load.trials)))},
            tune_config=tune.TuneConfig(reuse_actors=reuse),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(folder / "tune"),
                verbose=0,
                callbacks=[MLflowLoggerCallback(f"sqlite:///{folder / 'stock.db'}", experiment_name="sweep"), note],
            ),
        ).fit()
    finally:
        ray.shutdown()
    return note.ended


def optuna_joblib(load: Load, folder: Path) -> list[Ended]:
    """Optuna on SQLite in processes of joblib, MLflow written in each trial."""
    import joblib
    import mlflow
    import optuna
    from joblib.externals.loky import get_reusable_executor

    store = f"sqlite:///{folder / 'stock.db'}"
    mlflow.set_tracking_uri(store)
    mlflow.create_experiment("sweep", artifact_location=(folder / "artifacts").as_uri())
    storage = f"sqlite:///{folder / 'optuna.db'}"
    optuna.create_study(study_name="sweep", storage=storage)
    tasks = tasks_for(load, folder)
    parts = [tasks[index :: load.slots] for index in range(load.slots)]
    parallel = joblib.Parallel(n_jobs=load.slots)
    done = parallel(joblib.delayed(_optuna_part)(load, part, storage, store) for part in parts)
    # The workers are kept for a next call, and a process that multiprocessing started waits for them at its end.
    get_reusable_executor().shutdown(wait=True)
    return sorted((one for part in done for one in part), key=lambda one: one.at)


def _optuna_part(load: Load, tasks: list[TrialTask], storage: str, store: str) -> list[Ended]:
    import mlflow
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("sweep")
    ended: list[Ended] = []

    def objective(trial: optuna.Trial) -> float:
        task = tasks[len(ended)]
        trial.suggest_float("lr", 1e-5, 1e-3, log=True)
        with mlflow.start_run(run_name=task.label):
            mlflow.log_params(flatten(task.config))
            session = load.session(task)
            while True:
                report = session.advance(load.chunk_seconds)
                mlflow.log_metrics(_values(report), step=report.iteration)
                if report.over:
                    break
        ended.append(Ended(time.time(), report.costs["seconds"]))
        return report.progress

    optuna.load_study(study_name="sweep", storage=storage).optimize(objective, n_trials=len(tasks))
    return ended


def _values(report: Report) -> dict[str, float]:
    points = {point.name: point.value for point in report.points}
    return {**points, **{schema.cost(name): value for name, value in report.costs.items()}}


SWEEPERS: Mapping[str, Sweeper] = {
    "mtl-study, local": partial(ours, executor="local"),
    "mtl-study, ray": partial(ours, executor="ray"),
    "Ray Tune, actors reused": partial(tune_stock, reuse=True),
    "Ray Tune": partial(tune_stock, reuse=False),
    "Optuna, joblib": optuna_joblib,
    "bare loop": bare,
}


def sweep(name: str, load: Load) -> Sweep:
    """Run one sweeper in a process of its own, in a folder that is removed; raises ``RuntimeError`` where it fails."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_isolated, args=(there, name, load))
    process.start()
    there.close()
    try:
        rows, memory = here.recv()
    except EOFError:
        raise RuntimeError(f"{name}: ended without a result") from None
    finally:
        process.join()
    if len(rows) != load.trials and not name.startswith("mtl-study"):
        raise RuntimeError(f"{name}: {len(rows)} of {load.trials} trials ended")
    return Sweep(sorted((Ended(**row) for row in rows), key=lambda one: one.at), memory)


def _isolated(connection: Connection, name: str, load: Load) -> None:
    environment.quiet()
    if not name.startswith("mtl-study"):
        # What Tune writes unless told otherwise is part of what it costs.
        os.environ.pop("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", None)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ended = SWEEPERS[name](load, Path(folder))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send(([asdict(one) for one in ended], memory))
