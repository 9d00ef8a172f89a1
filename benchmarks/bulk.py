"""Records of many runs, invented and written straight into MLflow's database: its client would take an hour."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from study import schema

PROFILE = "smoke"
EXPERIMENT = "pool"
ITERATIONS = 100
_LOST = 97
"""Of the last fifth of the runs, every so manieth diverged."""

Row = tuple[Any, ...]


class BulkStore:
    """A home's store with ``runs`` trials, which every study's plan names from the first to the last, so that each has
    all of them.

    Args:
        home: an empty folder.
        runs: number of trials.
        points: of every training curve.
    """

    def __init__(self, home: Path, runs: int, points: int) -> None:
        self.home = home
        self.runs = runs
        self.points = points
        self._folder = home / "artifacts" / EXPERIMENT / "shared" / "artifacts"

    def fill(self) -> list[str]:
        """Write everything; returns the studies' ids."""
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        client = MlflowClient(tracking_uri=f"sqlite:///{self.home / 'mlflow.db'}")
        client.search_experiments(view_type=ViewType.ALL)
        pool = client.create_experiment(EXPERIMENT)
        plans = [self._spread(plan) for plan in _plans()]
        for plan in plans:
            self._study(client, plan)
        tasks = plans[0]["tasks"]
        self._history([task["name"] for task in tasks])
        names = ("runs", "tags", "metrics", "latest_metrics")
        with closing(sqlite3.connect(self.home / "mlflow.db")) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            for table, rows in zip(names, self._rows(pool, tasks), strict=True):
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            connection.commit()
        return [plan["study"] for plan in plans]

    def _spread(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The plan with so many seeds that it names all runs, or nearly."""
        per_seed = sum(len(row["cells"]) for row in plan["rows"])
        seeds = range(max(2, self.runs // per_seed))
        number = 0
        for row in plan["rows"]:
            cells = []
            for seed in seeds:
                for cell in row["cells"]:
                    cells.append({**cell, "seed": seed, "trial_key": f"key-{number % self.runs}"})
                    number += 1
            row["cells"] = cells
        return {**plan, "seeds": list(seeds)}

    def _study(self, client: Any, plan: dict[str, Any]) -> None:
        folder = self.home / "artifacts" / plan["study"]
        experiment = client.create_experiment(plan["study"], artifact_location=folder.as_uri())
        tags = {
            schema.KIND: schema.STUDY_RUN,
            schema.SCHEMA: str(schema.SCHEMA_VERSION),
            schema.STUDY: plan["study"],
            schema.PROFILE: PROFILE,
            schema.STATUS: schema.COMPLETE,
        }
        run = client.create_run(experiment, tags=tags)
        path = self.home / schema.PLAN_FILE
        path.write_text(json.dumps(plan), encoding="utf-8")
        client.log_artifact(run.info.run_id, str(path))
        client.set_terminated(run.info.run_id, "FINISHED")

    def _history(self, tasks: list[str]) -> None:
        """One grouping history, which all runs share."""
        self._folder.mkdir(parents=True)
        windows, size = 50, len(tasks)
        draw = np.random.default_rng(0)
        share = draw.random((windows, size, size))
        np.savez_compressed(
            self._folder / schema.HISTORY_FILE,
            iteration=np.arange(1, windows + 1) * (ITERATIONS // windows),
            affinity=draw.normal(scale=0.01, size=(windows, size, size)),
            group=np.zeros((windows, size), dtype=np.int64),
            count=draw.uniform(1, 5, size=windows),
            together=np.maximum((share + share.transpose(0, 2, 1)) / 2, np.eye(size)),
            tasks=np.array(tasks),
        )

    def _rows(self, pool: str, tasks: list[dict[str, Any]]) -> tuple[list[Row], ...]:
        """What goes into each of MLflow's tables, in the order of its columns."""
        runs: list[Row] = []
        tags: list[Row] = []
        metrics: list[Row] = []
        latest: list[Row] = []
        draw = np.random.default_rng(1)
        for number in range(self.runs):
            run = f"{number:032x}"
            lost = number > 0.8 * self.runs and number % _LOST == 0
            ended = "FAILED" if lost else "FINISHED"
            place = self._folder.as_uri()
            runs.append(
                (run, run, "LOCAL", "", "", "", ended, number, number + 1, "", "active", place, int(pool), None)
            )
            tags += [(key, value, run) for key, value in _tags(number, lost=lost).items()]
            for name, steps, values in _curves(tasks, self.points, draw):
                points = [(name, float(value), 1, int(step), 0, run) for step, value in zip(steps, values, strict=True)]
                metrics += [(key, value, stamp, run, step, nan) for key, value, stamp, step, nan, _ in points]
                latest.append(points[-1])
        return runs, tags, metrics, latest


def _plans() -> Iterator[dict[str, Any]]:
    """Of every study with a table of its own, one seed, on the tasks of Taskonomy."""
    from analysis.tables import TABLES
    from study.plan import make_plan
    from study.search.sensitivity import sensitivity_plan
    from study.search.spec import load_search
    from study.spec import load_spec

    tasks = {"tasks.set": "taskonomy"}
    searches = {name: load_search(name) for name in ("tuned", "tune_selective")}
    for name in TABLES:
        if name in searches:
            search = searches[name]
            spec = search.final({contender.id: {} for contender in search.contenders})
        else:
            spec = load_spec(name)
        yield make_plan(spec, PROFILE, 1, tasks).to_dict()
    yield sensitivity_plan(searches["tune_selective"], PROFILE, 1, tasks).to_dict()


def _tags(number: int, *, lost: bool) -> dict[str, str]:
    return {
        schema.KIND: schema.TRIAL_RUN,
        schema.SCHEMA: str(schema.SCHEMA_VERSION),
        schema.STUDY: EXPERIMENT,
        schema.PROFILE: PROFILE,
        schema.STATUS: schema.DIVERGED if lost else schema.COMPLETE,
        schema.STATUS_REASON: "the loss of normal is not finite at iteration 7" if lost else "",
        schema.TRIAL_KEY: f"key-{number}",
        schema.METHOD: "selective",
        schema.BACKBONE: "vit_pico",
        schema.DATA: "scenes",
        schema.DEVICE: "cpu",
        schema.HOST: "bench",
        schema.DATA_FINGERPRINT: "0",
        schema.VERSIONS: "{}",
    }


def _curves(
    tasks: list[dict[str, Any]], points: int, draw: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, steps and values of everything a run logs."""
    end = np.array([ITERATIONS])
    steps = np.linspace(ITERATIONS / points, ITERATIONS, points).round()
    halves = np.array([ITERATIONS // 2, ITERATIONS])
    for task in tasks:
        name, metric = task["name"], task["metric"]
        yield schema.train_loss(name), steps, 1.0 + draw.random(points)
        yield schema.metric(schema.VAL, name, metric), halves, 1.0 + draw.random(2)
        yield schema.metric(schema.TEST, name, metric), end, 1.0 + draw.random(1)
    yield schema.GROUP_COUNT, steps, draw.uniform(1, 5, points)
    yield schema.cost(schema.MEAN_GROUPS), end, draw.uniform(1, 5, 1)
    for cost in schema.ALL_COSTS:
        yield schema.cost(cost), halves, np.array([0.5, 1.0]) * draw.uniform(50, 150)
