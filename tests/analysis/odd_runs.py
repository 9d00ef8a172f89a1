"""Runs with all that a reader of records may meet, written with MLflow's client; and both ways to read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.run import Run
from analysis.server import Server
from analysis.store import Store
from study import schema

if TYPE_CHECKING:
    from mlflow import MlflowClient


def write_odd_runs(client: MlflowClient) -> list[str]:
    """Ids of the trial runs that count, as they are to be read."""
    from mlflow.entities import Metric, Param

    first, second, gone = (client.create_experiment(name) for name in ("one", "zwölf ✓", "gone"))

    def run(experiment: str, start: int, kind: str = schema.TRIAL_RUN, **tags: str) -> str:
        return client.create_run(experiment, start_time=start, tags={schema.KIND: kind, **tags}).info.run_id

    plain, bare, odd, early = (
        run(first, 3000),
        run(second, 2000),
        run(second, 4000, label="β ≤ 1e−3 | 日本 'x' \"y\" %s :n"),
        run(first, 7),
    )
    together = sorted(run(first, 5000) for _ in range(3))
    deleted, lost = run(first, 1), run(gone, 2)
    run(first, 6, schema.STUDY_RUN)
    untagged = client.create_run(first, start_time=8).info.run_id
    ends = {"val/a/b": math.nan, "val/a/c": math.inf, "val/a/d": -math.inf, "cost/seconds": 1e-300, "zero": -0.0}
    points = [Metric(name, value, 5, 10) for name, value in ends.items()]
    # Of a step logged twice the later one counts; what was NaN and is a number again is a number.
    points += [Metric("again", math.nan, 5, 1), Metric("again", 2.0, 6, 1), Metric("back", 3.0, 9, 2)]
    points += [Metric("back", 4.0, 10, 1), Metric("größe", 1.5, 1, 0)]
    for each in (odd, deleted, lost, untagged):
        client.log_batch(each, points, [Param("train.lr", "0.1"), Param("näme", "wért " * 50)])
    client.log_batch(plain, [Metric("val/a/b", 0.1 + 0.2, 1, 1)], [Param("train.lr", "0.2")])
    client.set_terminated(plain, "FINISHED", 9000)
    client.set_terminated(odd, "KILLED", 9001)
    client.delete_run(deleted)
    client.delete_experiment(gone)
    return [early, bare, plain, odd, *together]


def assert_read_alike(store: Store, client: MlflowClient, counted: list[str]) -> None:
    """What ``store`` reads by SQL is what MLflow's client reads, run for run; NaN is NaN."""
    server = Server(client, "reference")
    assert store.experiments() == server.experiments()
    every = list(store.experiments().values())
    for kind in (schema.TRIAL_RUN, schema.STUDY_RUN, "no kind"):
        found, wanted = store.runs(every, kind), server.runs(kind)
        assert [_comparable(run) for run in found] == [_comparable(run) for run in wanted]
    runs = store.runs(every, schema.TRIAL_RUN)
    assert [run.run_id for run in runs] == counted
    assert store.params(counted) == server.params(counted)
    metrics = sorted({name for run in runs for name in run.metrics})
    ours, theirs = store._records.points(counted, metrics), server.points(counted, metrics)
    assert sorted(map(repr, _with_nan(ours))) == sorted(map(repr, _with_nan(theirs)))
    assert len(ours) > len(metrics) > 5


def _comparable(run: Run) -> tuple[object, ...]:
    own = {name: getattr(run, name) for name in Run.__slots__ if name not in ("tags", "metrics")}
    return own, dict(run.tags), {name: repr(float(value)) for name, value in run.metrics.items()}


def _with_nan(points: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [(*point[:-1], math.nan if point[-1] is None else point[-1]) for point in points]
