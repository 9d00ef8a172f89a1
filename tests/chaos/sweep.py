"""The sweep that is disturbed, as a process runs it, and what its home holds afterwards."""

from __future__ import annotations

import functools
import io
import logging
import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from sqlalchemy import Connection, create_engine, text
from sqlalchemy import inspect as tables
from sqlalchemy.pool import NullPool

from study import environment

environment.quiet()

import mlflow.tracking  # noqa: E402, F401 - so that drivers forked from here need not
import optuna  # noqa: E402
import torch  # noqa: E402, F401
from rich.console import Console  # noqa: E402

from study import addresses, schema, training  # noqa: E402
from study.cli import run as command  # noqa: E402
from study.custody import Custody  # noqa: E402
from study.executors import ExecutorSettings, local  # noqa: E402
from study.home import Home  # noqa: E402
from study.inspection import inspect  # noqa: E402
from study.plan import Plan, make_plan  # noqa: E402
from study.runner import run_study  # noqa: E402
from study.search.entries import DELTA_M, ORDINAL, POINT, STATUS, TRIAL_KEY  # noqa: E402
from study.search.storage import open_storage  # noqa: E402
from study.spec import parse_spec  # noqa: E402
from trainables.errors import UserError  # noqa: E402

from .faults import DRIVER, Injector, redirect, serve  # noqa: E402
from .servers import Records  # noqa: E402

SWEEP = """
id: chaos
title: A sweep to be disturbed
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, depth_zbuffer]}
  train: {batch_size: 2, budget: {amount: 8}}
  record: {eval_every: 4, points: 4}
baseline: single
rows:
  - {id: single, label: Single, set: {method: single_task}, per_task: true}
  - {id: gd, label: GD, set: {method: gd}}
  - {id: selective, label: Selective, set: {method: {name: selective, beta: 0.5}}}
"""
SEARCH = """
id: chaos_search
title: A search to be disturbed
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, depth_zbuffer]}
  train: {budget: {amount: 6}}
axes:
  optim.lr: {float: [1.0e-4, 1.0e-1], log: true}
  train.batch_size: [2, 4]
contenders:
  - {id: gd, label: GD, set: {method: gd}}
evaluations: 3
budget: {trials: 5}
sampler: {name: tpe, startup: 2}
pruner: {name: asha, reduction: 2}
"""
STUDY, SEARCHING = "study", "search"


def plan() -> Plan:
    return make_plan(parse_spec(SWEEP, "chaos.yaml"))


def drive(kind: str, executor: str, injector: Injector, log: Path, lease_seconds: float) -> None:
    """A driver: a process of its own that runs the sweep and exits as the command does."""
    redirect(log)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING, force=True)
    # A store that stays away, and another machine's lease, are waited for in seconds.
    Custody.close.__defaults__ = (20.0,)
    training.KEEP_SECONDS = 20.0
    Custody.__init__.__defaults__ = (lease_seconds,)
    local._serve = functools.partial(serve, injector, log)  # type: ignore[assignment]
    # Workers as fresh as spawned ones, forked from where drivers are: what they import is there.
    local.multiprocessing = SimpleNamespace(get_context=lambda _: multiprocessing.get_context("forkserver"))  # type: ignore[assignment]
    injector.install(DRIVER)
    if injector.tracking is not None:
        os.environ[addresses.TRACKING] = injector.tracking
    if kind == SEARCHING:
        spec = log.with_name("chaos.yaml")
        spec.write_text(SEARCH)
        arguments = ["search", str(spec), "--executor", executor, "--workers", "1", "--home", str(injector.home)]
        sys.exit(command([*arguments, "--quiet", "--no-final"]))
    settings = ExecutorSettings(workers=1, chunk_seconds=0.0, checkpoint_seconds=0.0)
    try:
        outcome = run_study(
            plan(),
            Home(injector.home, injector.tracking),
            executor=executor,
            settings=settings,
            console=Console(file=io.StringIO()),
        )
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    for label, reason in outcome.failures:
        sys.stderr.write(f"failed: {label}: {reason}\n")
    sys.exit(0 if outcome.complete else 1)


@dataclass
class Result:
    """What a home holds, as it says itself.

    Attributes:
        cells: by trial key, the content of every run that counts: curves, final metrics, histories.
        sequence: of a search, its trials in order.
        odd: what is not as it should be: runs without a driver, leftovers, ...
    """

    cells: dict[str, list[Any]] = field(default_factory=dict)
    sequence: list[Any] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def result(kind: str, path: Path, records: Records | None = None) -> Result:
    """Read a home: the tables and the files alone, so that nothing that is tested has a say in it."""
    records = records or Records.embedded(path)
    home, found = Home(path, records.tracking), Result()
    if records.tracking is not None or home.database.exists():
        with create_engine(records.database, poolclass=NullPool).connect() as connection:
            if tables(connection).has_table("runs"):
                _cells(connection, records, found)
    if kind == SEARCHING:
        storage = open_storage(home)
        for name in optuna.get_all_study_names(storage):
            for trial in optuna.load_study(study_name=name, storage=storage).get_trials():
                note = trial.user_attrs
                if ORDINAL in note:  # else it was not fully asked for, and was dropped
                    found.sequence.append((note[POINT], note.get(STATUS), note.get(DELTA_M), note.get(TRIAL_KEY)))
                if not trial.state.is_finished():
                    found.odd.append(f"search trial {trial.number} is {trial.state.name}")
    found.odd += [f"{o.name}: {o.found}" for o in inspect(home) if o.level != "ok"]
    return found


def _cells(connection: Connection, records: Records, found: Result) -> None:
    kept = (schema.COMPLETE, schema.VALIDATED, schema.PRUNED)

    def ask(question: str, **values: str) -> list[Any]:
        return [tuple(row) for row in connection.execute(text(question), values)]

    for run, status, artifacts in ask("SELECT run_uuid, status, artifact_uri FROM runs"):
        tags = dict(ask("SELECT key, value FROM tags WHERE run_uuid = :run", run=run))
        if tags.get(schema.KIND) != schema.TRIAL_RUN:
            continue
        if status == "RUNNING":
            found.odd.append(f"run {run} is RUNNING")
        if status != "FINISHED" or tags.get(schema.STATUS) not in kept:
            continue
        question = "SELECT key, step, value, is_nan FROM {} WHERE run_uuid = :run"
        content: list[Any] = [
            (key, step, value, bool(is_nan))
            for table in ("metrics", "latest_metrics")
            for key, step, value, is_nan in sorted(ask(question.format(table), run=run))
            if schema.decided(key)
        ]
        place = artifacts.removeprefix("file://")
        if artifacts.startswith("mlflow-artifacts:/"):
            place = records.artifacts / artifacts.removeprefix("mlflow-artifacts:/")
        history = Path(place) / schema.HISTORY_FILE
        arrays: Mapping[str, np.ndarray] = np.load(history, allow_pickle=False) if history.exists() else {}
        content += [(name, arrays[name].shape, arrays[name].tobytes()) for name in sorted(arrays)]
        found.cells.setdefault(tags[schema.TRIAL_KEY], []).append((tags[schema.STATUS], content))
