"""A little study that trains in seconds, on real components: data, worker processes, SQLite, MLflow.

As a script it is a driver.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.delta_m import delta_m
from analysis.records import Records
from study import schema
from study.executors import ExecutorSettings
from study.home import Home
from study.plan import Plan, make_plan
from study.runner import run_study
from study.spec import parse_spec
from study.store import open_client, search

SPEC = """
id: little
title: A little study
about: What is asked.
profile: smoke
base:
  data: {image_size: 32, train: 8, val: 4, test: 4}
  tasks: {include: [normal, reshading, depth_zbuffer]}
  train: {batch_size: 2, budget: {amount: 6}}
  record: {eval_every: 3, points: 3}
baseline: single
rows:
  - {id: single, label: Single, set: {method: single_task}, per_task: true}
  - {id: gd, label: GD, set: {method: gd}, published: [{table: D.1, row: GD}]}
  - {id: selective, label: Selective, set: {method: {name: selective, beta: 0.5}}}
"""
QUICK = ExecutorSettings(workers=1, chunk_seconds=0.0, checkpoint_seconds=0.0)


def plan(seeds: int = 1, **overrides: Any) -> Plan:
    return make_plan(parse_spec(SPEC, "little.yaml"), seeds=seeds, overrides=overrides)


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def run(home: Home, planned: Plan, settings: ExecutorSettings = QUICK, **options: Any) -> Any:
    """What came of it, and what was shown."""
    out = console()
    outcome = run_study(planned, home, executor="local", settings=settings, console=out, gain=delta_m, **options)
    return outcome, out.file.getvalue()  # type: ignore[attr-defined]


def driver(home: Path, seeds: int = 1) -> subprocess.Popen[str]:
    """A process that runs it; at its end it prints how many trials it found and trained, and what failed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, str(home), str(seeds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def results(home: Home, study: str = "little") -> dict[tuple[Any, ...], float]:
    frame = Records.load(home.path, study).metrics
    return {(r.trial_key, r.split, r.task, r.metric): r.value for r in frame.itertuples()}


def trials(home: Home) -> dict[str, Any]:
    """Name to run of every trial."""
    found = search(open_client(home), f"tags.{schema.KIND} = '{schema.TRIAL_RUN}'")
    return {run.info.run_name: run for run in found}


def files(home: Home, run: Any, folder: str = "") -> list[str]:
    return [each.path for each in open_client(home).list_artifacts(run.info.run_id, folder or None)]


if __name__ == "__main__":
    outcome, _ = run(Home.locate(Path(sys.argv[1])), plan(int(sys.argv[2])))
    print(outcome.found, outcome.trained, outcome.failures)
