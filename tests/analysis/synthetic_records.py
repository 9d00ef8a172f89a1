"""MLflow stores with invented numbers, written by the names of ``study.schema`` and by nothing else of ``study``."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study import schema

TASKS = (
    {"name": "depth", "metric": "rmse", "higher_is_better": False, "short": "De"},
    {"name": "semseg", "metric": "miou", "higher_is_better": True, "short": "Se"},
)


def cell(key: str, seed: int, tasks: Sequence[str] = ("depth", "semseg"), cell_key: str = "") -> dict[str, Any]:
    return {"seed": seed, "trial_key": key, "cell_key": cell_key or f"cell-{key}", "tasks": list(tasks)}


def row(row_id: str, cells: Sequence[Mapping[str, Any]], label: str = "", published: Any = None) -> dict[str, Any]:
    return {"id": row_id, "label": label or row_id, "axes": {}, "published": published, "cells": list(cells)}


def baseline_row(seeds: Sequence[int] = (0, 1)) -> dict[str, Any]:
    cells = [cell(f"single-{task['name']}-{seed}", seed, [task["name"]]) for seed in seeds for task in TASKS]
    return row("single", cells, "Single task")


def plan(rows: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "study": "toy",
        "title": "A toy study",
        "profile": "cpu",
        "seeds": [0, 1],
        "task_set": "toy_tasks",
        "tasks": list(TASKS),
        "baseline": "single",
        "rows": list(rows),
        **changes,
    }


class SyntheticStore:
    """A home's MLflow store, written with the client."""

    def __init__(self, home: Path, template: Path | None = None) -> None:
        from mlflow import MlflowClient

        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        if template is not None:
            shutil.copy(template, home / "mlflow.db")
        self.client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
        self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self.client.create_experiment(name, artifact_location=(self.home / "artifacts" / name).as_uri())

    def study(self, plan: Mapping[str, Any], *, start: int = 1000, end: int = 2000, layout: str = "1") -> str:
        """Record a study run with its plan."""
        tags = {
            schema.KIND: schema.STUDY_RUN,
            schema.SCHEMA: layout,
            schema.STUDY: plan["study"],
            schema.PROFILE: plan["profile"],
            schema.STATUS: schema.COMPLETE,
        }
        run = self.client.create_run(self.experiment(plan["study"]), start_time=start, tags=tags)
        self.artifact(run.info.run_id, schema.PLAN_FILE, json.dumps(plan).encode())
        self.client.set_terminated(run.info.run_id, "FINISHED", end)
        return run.info.run_id

    def trial(
        self,
        key: str,
        test: Mapping[str, float],
        *,
        study: str = "toy",
        status: str = schema.COMPLETE,
        mlflow_status: str = "FINISHED",
        start: int = 1000,
        end: int = 2000,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    ) -> str:
        """Record a trial run: ``test`` is ``task/metric`` to value, ``metrics`` is name to (step, value) points."""
        from mlflow.entities import Metric

        all_tags = {
            schema.KIND: schema.TRIAL_RUN,
            schema.SCHEMA: str(schema.SCHEMA_VERSION),
            schema.STUDY: study,
            schema.STATUS: status,
            schema.TRIAL_KEY: key,
            schema.METHOD: "gd",
            schema.BACKBONE: "vit_pico",
            schema.DATA: "scenes",
            schema.DEVICE: "cpu",
            schema.VERSIONS: json.dumps({"torch": "2.13.0"}),
            **(tags or {}),
        }
        run_id = self.client.create_run(self.experiment(study), start_time=start, tags=all_tags).info.run_id
        points = [Metric(f"test/{name}", value, 5, 10) for name, value in test.items()]
        points += [
            Metric(name, value, 5 + place, step)
            for name, series in (metrics or {}).items()
            for place, (step, value) in enumerate(series)
        ]
        self.client.log_batch(run_id, metrics=points)
        if mlflow_status != "RUNNING":
            self.client.set_terminated(run_id, mlflow_status, end)
        return run_id

    def baseline(self, depth: Sequence[float] = (2.0, 2.2), semseg: Sequence[float] = (40.0, 44.0)) -> None:
        """The single-task trials of :func:`baseline_row`, with costs."""
        for seed, (d, s) in enumerate(zip(depth, semseg, strict=True)):
            for name, value in (("depth/rmse", d), ("semseg/miou", s)):
                self.trial(f"single-{name.partition('/')[0]}-{seed}", {name: value}, metrics=costs(100, 5.0))

    def artifact(self, run_id: str, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            self.client.log_artifact(run_id, str(path))

    def history(self, run_id: str, arrays: Mapping[str, np.ndarray]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / schema.HISTORY_FILE
            np.savez_compressed(path, **arrays)
            self.client.log_artifact(run_id, str(path))


def costs(trunk_passes: float, seconds: float) -> dict[str, list[tuple[int, float]]]:
    return {"cost/trunk_passes": [(10, trunk_passes)], "cost/seconds": [(10, seconds)]}


def mixed_study(store: SyntheticStore) -> None:
    """A study in every state a trial can be in.

    ``gd`` is complete; ``shared`` is complete, its seed 0 trained by another study; ``twice`` has a seed recorded
    twice and more; ``partial`` waits for seed 1; ``diverged`` lost seed 1; ``absent`` was never begun; ``unfinished``
    is tagged complete while its runs are not FINISHED.
    """
    pairs = {name: [cell(f"{name}-0", 0), cell(f"{name}-1", 1)] for name in MIXED_ROWS}
    store.study(plan([baseline_row(), *(row(name, cells) for name, cells in pairs.items())]))
    store.baseline()
    store.trial("gd-0", {"depth/rmse": 1.89, "semseg/miou": 42.0}, metrics=costs(100, 5.0))
    store.trial("gd-1", {"depth/rmse": 2.31, "semseg/miou": 46.2}, metrics=costs(300, 7.0))
    store.trial("shared-0", {"depth/rmse": 2.1, "semseg/miou": 21.0}, study="other")
    store.trial("shared-1", {"depth/rmse": 2.1, "semseg/miou": 21.0})
    store.trial("twice-0", {"depth/rmse": 9.0, "semseg/miou": 9.0}, start=1000, end=9000)
    store.trial("twice-0", {"depth/rmse": 2.1, "semseg/miou": 42.0}, study="other", start=3000, end=4000)
    store.trial("twice-0", {"depth/rmse": 1.0, "semseg/miou": 1.0}, status="failed", mlflow_status="FAILED", end=2000)
    store.trial("twice-1", {"depth/rmse": 2.1, "semseg/miou": 42.0})
    store.trial("partial-0", {"depth/rmse": 2.1, "semseg/miou": 46.2})
    store.trial("diverged-0", {"depth/rmse": 2.1, "semseg/miou": 42.0})
    store.trial(
        "diverged-1",
        {},
        status="diverged",
        mlflow_status="FAILED",
        tags={"status_reason": "losses not finite\nat iteration 7"},
    )
    store.trial("diverged-1", {}, status="interrupted", mlflow_status="KILLED", start=5000, end=6000)
    store.trial("unfinished-0", {"depth/rmse": 2.1, "semseg/miou": 42.0}, mlflow_status="RUNNING")
    store.trial("unfinished-1", {"depth/rmse": 2.1, "semseg/miou": 42.0}, mlflow_status="KILLED")
    store.trial("of-no-study", {"depth/rmse": 0.1, "semseg/miou": 99.0})


MIXED_ROWS = ("gd", "shared", "twice", "partial", "diverged", "absent", "unfinished")
