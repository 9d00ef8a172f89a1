"""A study's records as data frames: its plan, one row per trial, one row per measured number."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.plan import Plan, PlanCell, PlanRow, read_plan
from analysis.run import Run
from analysis.store import Store
from study import schema
from trainables.errors import ConfigError, StoreError, unknown

MISSING = "missing"
"""The status of a trial no run was ever begun for."""
DEVICE_HOURS = "device_hours"
"""The column of what a trial took of its devices."""

_TAGS = (
    schema.STATUS_REASON,
    schema.CELL,
    schema.STUDY,
    schema.METHOD,
    schema.BACKBONE,
    schema.DATA,
    schema.TASK_SET,
    schema.DATA_FINGERPRINT,
    schema.RESULT_VERSION,
    schema.EXECUTOR,
    schema.DEVICE,
    schema.HOST,
    schema.HELD,
    schema.GIT_COMMIT,
    schema.GIT_DIRTY,
    schema.VERSIONS,
    schema.ATTEMPT,
)
_SEARCH_COSTS = ("trunk_passes", "seconds")
_TRIAL_COLUMNS = ("row", "label", "seed", "cell_key", "trial_key", "run_id", "experiment_id", "status", "tasks")
_METRIC_COLUMNS = ("row", "label", "seed", "task", "split", "metric", "value", "trial_key", "run_id")
_CURVE_COLUMNS = ("row", "label", "seed", "step", "value", "trial_key", "run_id")
_FLOAT_MAX = 1.797e308
"""MLflow stores an infinity as the largest float."""


@dataclass(frozen=True)
class Records:
    """What is recorded of one study at one profile. Made by :meth:`load`.

    A trial counts where MLflow calls its run FINISHED and its status tag is ``complete``; of several such runs for a
    trial key, in this study's experiment or any other, the one that finished first counts. Every other trial keeps
    its place with what is known of it.

    Attributes:
        plan: what was to be trained.
        trials: one row per trial of the plan, in its order: ``row``, ``label``, ``seed``, ``cell_key``,
            ``trial_key``, ``run_id``, ``experiment_id``, ``status`` (``missing`` where no run was begun), ``tasks``
            (tuple of names), the tags of the run under their own names (``method``, ``backbone``, ``data``,
            ``device``, ``git_commit``, ``status_reason``, ...; empty where absent), ``groups`` (the last number of
            groups), ``mean_groups`` (over all iterations), the costs (``iterations``, ``trunk_passes``, ``seconds``,
            ...; NaN where absent) and ``device_hours`` (of the GPUs, or cores, that the trial held; of one where the
            record is older than the tag that says how many).
        metrics: one row per number of a complete trial: ``row``, ``label``, ``seed``, ``task``, ``split`` (``val`` or
            ``test``), ``metric``, ``value`` (the last one logged), ``trial_key``, ``run_id``.
    """

    plan: Plan
    trials: pd.DataFrame
    metrics: pd.DataFrame
    _store: Store
    _complete: Mapping[str, Run]

    @classmethod
    def load(cls, home: Path, study: str, profile: str | None = None) -> Records:
        """Read a study from the store of ``home``, which is not written to.

        Args:
            home: the folder with ``mlflow.db``.
            study: its id.
            profile: which one; without it, the one planned last.

        Raises:
            StoreError: no store there, no such study or profile recorded, or records of another layout.
        """
        return cls.read(Store(home), study, profile)

    @classmethod
    def read(cls, store: Store, study: str, profile: str | None = None) -> Records:
        """:meth:`load` from a store that is open: several studies of one home share what it has read."""
        experiments = store.experiments()
        study_run = _study_run(store, experiments, study, profile)
        plan = read_plan(store.artifact(study_run, schema.PLAN_FILE))
        keys = {cell.trial_key for row in plan.rows for cell in row.cells}
        by_key: dict[str, list[Run]] = {}
        for run in store.runs(list(experiments.values()), schema.TRIAL_RUN):
            key = run.tags.get(schema.TRIAL_KEY)
            if key in keys and _of_a_cell(run):
                check_schema(run)
                by_key.setdefault(key, []).append(run)
        chosen = {key: choose_run(runs) for key, runs in by_key.items()}
        complete = {key: run for key, run in chosen.items() if is_complete(run)}
        groups = _mean_groups(store, complete)
        trials = [
            {**_trial(row, cell, chosen.get(cell.trial_key)), schema.MEAN_GROUPS: groups.get(cell.trial_key, math.nan)}
            for row, cell in _cells(plan)
        ]
        metrics = [
            line for row, cell in _cells(plan) for line in _metric_lines(row, cell, complete.get(cell.trial_key))
        ]
        return cls(
            plan=plan,
            trials=_frame(
                trials, (*_TRIAL_COLUMNS, *_TAGS, "groups", schema.MEAN_GROUPS, *schema.ALL_COSTS, DEVICE_HOURS)
            ),
            metrics=_frame(metrics, _METRIC_COLUMNS),
            _store=store,
            _complete=complete,
        )

    @property
    def profile(self) -> str:
        """The profile the study ran at."""
        return self.plan.profile

    def curves(self, name: str) -> pd.DataFrame:
        """A metric over the steps it was logged at, of every complete trial that has it; read when asked for.

        Columns: ``row``, ``label``, ``seed``, ``step``, ``value``, ``trial_key``, ``run_id``.

        Args:
            name: as recorded: ``val/depth_euclidean/l1``, ``train/loss/normal``, ``groups/count``.

        Raises:
            ConfigError: no complete trial has it.
        """
        return self.curves_of([name])[name]

    def curves_of(self, names: Sequence[str]) -> dict[str, pd.DataFrame]:
        """:meth:`curves` of several metrics by name, in one reading. Raises as it does."""
        for name in names:
            if name not in self.metric_names:
                raise ConfigError(unknown("metric", name, self.metric_names))
        runs = [run.run_id for run in self._complete.values() if not run.metrics.keys().isdisjoint(names)]
        cells = self.trials[["row", "label", "seed", "trial_key", "run_id"]]
        found = {}
        for name, points in self._store.metric_histories(runs, names).items():
            finite = points["value"].abs() < _FLOAT_MAX
            points["value"] = points["value"].where(finite, np.sign(points["value"]) * np.inf)
            found[name] = cells.merge(points, on="run_id")[list(_CURVE_COLUMNS)]
        return found

    @cached_property
    def metric_names(self) -> tuple[str, ...]:
        """Every metric some complete trial of the plan has, sorted."""
        return tuple(sorted({name for run in self._complete.values() for name in run.metrics}))

    @cached_property
    def searched(self) -> pd.DataFrame:
        """The trials of every search of this study's name and profile: ``contender``, ``search`` (name of its Optuna
        study), ``number``, ``status``, ``trunk_passes``, ``seconds``. An interrupted trial that went on is one line,
        with the costs of all its attempts."""
        lines = [
            {
                "contender": run.tags[schema.CONTENDER],
                "search": run.tags.get(schema.OPTUNA_STUDY, ""),
                "number": run.tags.get(schema.OPTUNA_NUMBER, run.run_id),
                "status": status_of(run),
                **{name: number(run.metrics.get(schema.cost(name), math.nan)) for name in _SEARCH_COSTS},
            }
            for run in self._store.runs(list(self._store.experiments().values()), schema.TRIAL_RUN)
            if schema.CONTENDER in run.tags
            and run.tags.get(schema.STUDY) == self.plan.study
            and run.tags.get(schema.PROFILE) == self.profile
        ]
        frame = _frame(lines, ("contender", "search", "number", "status", *_SEARCH_COSTS))
        # Oldest first, and costs add up over attempts: the last status holds, and the largest cost.
        ends = {"status": "last", **dict.fromkeys(_SEARCH_COSTS, "max")}
        return frame.groupby(["contender", "search", "number"], sort=False, as_index=False).agg(ends)

    def history(self, trial_key: str, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
        """The grouping history of a trial, as :data:`study.schema.HISTORY_FILE` describes it (T iterations, K tasks).

        With ``names``, only those of its arrays that there are: each that is left out is time saved.

        Raises:
            StoreError: the trial is not complete, kept no history, or its file is damaged.
        """
        run = self._complete.get(trial_key)
        if run is None:
            raise StoreError(f"trial {trial_key}: no complete run of it is recorded in study '{self.plan.study}'")
        path = self._store.artifact(run, schema.HISTORY_FILE)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files if names is None or name in names}
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise StoreError(f"trial {trial_key}: its {schema.HISTORY_FILE} is damaged ({error})") from error

    def whole_history(self, trial_key: str, names: Collection[str]) -> dict[str, NDArray[Any]]:
        """:meth:`history` with all of ``names``, ``iteration`` and ``tasks`` among them, in the shapes they must have.

        Raises:
            StoreError: as :meth:`history` does; an array is not there, is empty or has another shape.
        """
        history = self.history(trial_key, names)
        absent = [name for name in names if name not in history]
        if absent:
            raise StoreError(f"trial {trial_key}: its {schema.HISTORY_FILE} lacks {', '.join(absent)}")
        steps, tasks = history["iteration"].size, history["tasks"].size
        square = (steps, tasks, tasks)
        shapes = {"iteration": (steps,), "tasks": (tasks,), "count": (steps,), "group": (steps, tasks)}
        shapes |= {"affinity": square, "together": square}
        for name in names:
            shape = history[name].shape
            if shape != shapes[name] or not steps:
                raise StoreError(f"trial {trial_key}: {name} in its {schema.HISTORY_FILE} has shape {shape}")
        return history


def _study_run(store: Store, experiments: Mapping[str, str], study: str, profile: str | None) -> Run:
    if study not in experiments:
        raise StoreError(unknown("study", study, _studies(store, experiments)))
    runs = store.runs([experiments[study]], schema.STUDY_RUN)
    if not runs:
        raise StoreError(unknown("study", study, _studies(store, experiments)))
    if profile is not None:
        recorded = {run.tags.get(schema.PROFILE, "") for run in runs}
        runs = [run for run in runs if run.tags.get(schema.PROFILE) == profile]
        if not runs:
            raise StoreError(unknown(f"profile of study '{study}' in the records", profile, recorded))
    last = max(runs, key=lambda run: run.moment)
    check_schema(last)
    return last


def _studies(store: Store, experiments: Mapping[str, str]) -> list[str]:
    """The experiments that hold a study run: MLflow's own ``Default`` does not."""
    runs = store.runs(list(experiments.values()), schema.STUDY_RUN)
    with_study = {run.experiment_id for run in runs}
    return [name for name, experiment_id in experiments.items() if experiment_id in with_study]


def check_schema(run: Run) -> None:
    """Raise StoreError for a run whose records have another layout than this version reads."""
    version = run.tags.get(schema.SCHEMA)
    if version != str(schema.SCHEMA_VERSION):
        raise StoreError(
            f"run {run.run_id}: its records have layout {version or 'unknown'}, "
            f"this version reads layout {schema.SCHEMA_VERSION}"
        )


def is_complete(run: Run) -> bool:
    """Whether a trial's run is whole, so that its numbers count."""
    return run.status == "FINISHED" and run.tags.get(schema.STATUS) == schema.COMPLETE


def choose_run(runs: list[Run]) -> Run:
    """The run a trial is read from: first the complete (earliest finished), then a diverged one, then the latest begun.

    Divergence comes before later attempts because the same trial would do the same again.
    """
    complete = [run for run in runs if is_complete(run)]
    if complete:
        return min(complete, key=lambda run: (run.end_time or math.inf, run.run_id))
    diverged = [run for run in runs if run.tags.get(schema.STATUS) == schema.DIVERGED]
    return max(diverged or runs, key=lambda run: (run.start_time or 0, run.run_id))


def _of_a_cell(run: Run) -> bool:
    """Whether a run may stand for a cell: a trial of a search is judged on the validation split and may have been
    stopped, even where it has a cell's key. That it diverged holds for the cell, too, and so do test metrics."""
    ends = (schema.COMPLETE, schema.DIVERGED)
    return schema.CONTENDER not in run.tags or run.tags.get(schema.STATUS) in ends


def _mean_groups(store: Store, complete: Mapping[str, Run]) -> dict[str, float]:
    """Trial key to the mean number of groups over all iterations; from the curve where the records are older than the
    number."""
    name = schema.cost(schema.MEAN_GROUPS)
    means = {key: run.metrics[name] for key, run in complete.items() if name in run.metrics}
    older = {run.run_id: key for key, run in complete.items() if key not in means and schema.GROUP_COUNT in run.metrics}
    if older:
        points = store.metric_histories(list(older), [schema.GROUP_COUNT])[schema.GROUP_COUNT]
        # A point is the mean over the iterations since the one before.
        lengths = points["step"] - points.groupby("run_id")["step"].shift(fill_value=0)
        sums = pd.DataFrame({"run_id": points["run_id"], "sum": lengths * points["value"], "iterations": lengths})
        totals = sums.groupby("run_id").sum()
        means |= {older[str(run)]: float(mean) for run, mean in (totals["sum"] / totals["iterations"]).items()}
    return means


def status_of(run: Run) -> str:
    """The status tag, unless it says running or complete and MLflow knows better."""
    tag = run.tags.get(schema.STATUS, schema.RUNNING)
    if is_complete(run) or tag not in (schema.COMPLETE, schema.RUNNING):
        return tag
    return {"FAILED": schema.FAILED, "KILLED": schema.INTERRUPTED}.get(run.status, schema.RUNNING)


def _cells(plan: Plan) -> Iterator[tuple[PlanRow, PlanCell]]:
    return ((row, cell) for row in plan.rows for cell in row.cells)


def _trial(row: PlanRow, cell: PlanCell, run: Run | None) -> dict[str, Any]:
    tags = run.tags if run else {}
    numbers = run.metrics if run else {}
    return {
        "row": row.id,
        "label": row.label,
        "seed": cell.seed,
        "cell_key": cell.cell_key,
        "trial_key": cell.trial_key,
        "run_id": run.run_id if run else "",
        "experiment_id": run.experiment_id if run else "",
        "status": status_of(run) if run else MISSING,
        "tasks": cell.tasks,
        **{tag: tags.get(tag, "") for tag in _TAGS},
        "groups": number(numbers.get(schema.GROUP_COUNT, math.nan)),
        **{name: number(numbers.get(schema.cost(name), math.nan)) for name in schema.ALL_COSTS},
        DEVICE_HOURS: _device_hours(run) if run else math.nan,
    }


def _device_hours(run: Run) -> float:
    held = run.tags.get(schema.HELD) or "1"
    try:
        return number(run.metrics.get(schema.cost("seconds"), math.nan)) * float(held) / 3600.0
    except ValueError:
        raise StoreError(f"run {run.run_id}: its tag {schema.HELD} is no number ('{held}')") from None


def _metric_lines(row: PlanRow, cell: PlanCell, run: Run | None) -> Iterator[dict[str, Any]]:
    for name, value in sorted(run.metrics.items()) if run else ():
        split, _, rest = name.partition("/")
        task, _, metric = rest.partition("/")
        if split in (schema.VAL, schema.TEST) and task in cell.tasks and metric:
            numbers = (row.id, row.label, cell.seed, task, split, metric, number(value))
            yield dict(zip(_METRIC_COLUMNS, (*numbers, cell.trial_key, run.run_id), strict=True))  # type: ignore[union-attr]


def number(value: float) -> float:
    """A recorded value as it was: stores keep an infinity as the largest number there is."""
    return math.copysign(math.inf, value) if abs(value) >= _FLOAT_MAX else float(value)


def _frame(lines: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame(list(lines), columns=list(columns))
