"""A search's records: its plan, and one row per trial.

Trials belong to a search by the names of its Optuna studies, not by their parent run: a search that goes on with a
larger budget has a second parent run and the trials of both.

A trial that the search did not train because the records held it already has no run of its own; Optuna alone knows that
it was proposed. It is counted as "without a run". The one exception is the trial of a contender's defaults, which
every search proposes first: where another search of the same id trained it, it is read from there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.delta_m import delta_m
from analysis.plan import PlanTask
from analysis.records import Records
from analysis.search.plan import SearchContender, SearchPlan, read_search
from analysis.store import Store
from study import schema
from trainables.errors import StoreError, unknown

if TYPE_CHECKING:
    from mlflow.entities import Run

WHOLE = (schema.VALIDATED, schema.COMPLETE)
"""Statuses of trials that went to their end."""

_SETTLED = (*WHOLE, schema.PRUNED, schema.DIVERGED, schema.FAILED)
_LONGEST_PARAM = 6000
_FLOAT_MAX = 1.797e308
"""MLflow stores an infinity as the largest float."""

_COSTS = ("iterations", "trunk_passes", "seconds")
_COLUMNS = (
    "contender",
    "label",
    "number",
    "status",
    "reason",
    "delta_m",
    "values",
    *_COSTS,
    "point",
    "ended",
    "found",
    "run_id",
    "experiment_id",
)


@dataclass(frozen=True)
class SearchRun:
    """A parent run of a search.

    Attributes:
        plan: what it says of itself.
        run_id: MLflow's.
        experiment_id: MLflow's.
        started: milliseconds since 1970.
        status: as :mod:`study.schema` names it.
        trials: number of trial runs, attempts of one trial counted once.
    """

    plan: SearchPlan
    run_id: str
    experiment_id: str
    started: int
    status: str
    trials: int


@dataclass(frozen=True)
class SearchRecords:
    """What is recorded of one search. Made by :meth:`load`.

    Attributes:
        run: its parent run.
        trials: one row per trial that has a run: ``contender`` (id), ``label``, ``number`` (Optuna's), ``status``,
            ``reason``, ``delta_m`` (percent, on the validation split, at the last evaluation; NaN where it diverged or
            was never judged), ``values`` (tuple, the objective's), the costs, ``point`` (path to value), ``ended``
            (milliseconds since 1970, NaN while it runs), ``found`` (read from another search's records), ``run_id``,
            ``experiment_id``. In the order in which they ended.
        names: of the objective's values.
        maximize: for each of them, whether more is better.
    """

    run: SearchRun
    trials: pd.DataFrame
    names: tuple[str, ...]
    maximize: tuple[bool, ...]
    _store: Store = field(repr=False, compare=False)
    _attempts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def plan(self) -> SearchPlan:
        """Contenders, sampler, pruner."""
        return self.run.plan

    @classmethod
    def load(cls, home: Path, search: str, profile: str | None = None, run: str | None = None) -> SearchRecords:
        """Read a search from the store of ``home``, which is not written to.

        Args:
            home: the folder with ``mlflow.db``.
            search: its id.
            profile: which one.
            run: the beginning of its parent run's id; without it, the one begun last.

        Raises:
            StoreError: no store there, no such search, profile or run, or records of another layout.
        """
        store = Store(home)
        found = recorded_searches(store)
        chosen = [entry for entry in found if entry.plan.search == search]
        if not chosen:
            raise StoreError(unknown("recorded search", search, sorted({entry.plan.search for entry in found})))
        if profile is not None:
            profiles = {entry.plan.profile for entry in chosen}
            chosen = [entry for entry in chosen if entry.plan.profile == profile]
            if not chosen:
                raise StoreError(unknown(f"profile of search '{search}' in the records", profile, sorted(profiles)))
        if run is not None:
            ids = [entry.run_id for entry in chosen]
            chosen = [entry for entry in chosen if entry.run_id.startswith(run)]
            if len(chosen) != 1:
                why = "several have it" if chosen else "there is none"
                raise StoreError(f"run '{run}' of search '{search}': {why} (recorded: {', '.join(ids)})")
        return cls.of(store, chosen[-1])

    @classmethod
    def of(cls, store: Store, entry: SearchRun) -> SearchRecords:
        """The records of one parent run; raises as :meth:`load` does."""
        plan = entry.plan
        names, maximize, tasks = _objective(store, plan)
        every = store.runs([entry.experiment_id], schema.TRIAL_RUN)
        gains = _Gains(store, plan, tasks)
        lines: list[dict[str, Any]] = []
        attempts: dict[str, tuple[str, ...]] = {}
        for contender in plan.contenders:
            mine: dict[int, list[Run]] = {}
            for trial in every:
                tags = trial.data.tags
                if tags.get(schema.OPTUNA_STUDY) == contender.optuna_study and schema.OPTUNA_NUMBER in tags:
                    mine.setdefault(int(tags[schema.OPTUNA_NUMBER]), []).append(trial)
            for number, runs in mine.items():
                chosen = _choose(runs)
                attempts[chosen.info.run_id] = tuple(run.info.run_id for run in runs)
                lines.append(_line(contender, number, chosen, names, gains))
            default = _default(contender, every) if 0 not in mine else None
            if default is not None:
                line = _line(contender, 0, default, names, gains)
                lines.append({**line, "found": True, "ended": 0.0})
        frame = pd.DataFrame(lines, columns=list(_COLUMNS))
        order = frame["ended"].fillna(math.inf)
        frame = frame.assign(_order=order).sort_values(["_order", "number"], kind="stable").drop(columns="_order")
        return cls(entry, frame.reset_index(drop=True), names, maximize, store, attempts)

    def of_contender(self, contender: str) -> pd.DataFrame:
        """The trials of one contender, in the order in which they ended."""
        return self.trials[self.trials["contender"] == contender].reset_index(drop=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """What each trial was judged by at each of its evaluations: ``contender``, ``number``, ``run_id``, ``step``
        (iteration), ``value`` (the objective's first). A trial that was interrupted has the points of all attempts."""
        name = f"{schema.OBJECTIVE}/{self.names[0]}"
        lines = []
        for contender, number, run_id in self.trials[["contender", "number", "run_id"]].itertuples(index=False):
            points = {
                point.step: _number(point.value)
                for attempt in self._attempts.get(run_id, (run_id,))
                for point in self._store.metric_history(attempt, name)
            }
            lines += [(contender, number, run_id, step, value) for step, value in sorted(points.items())]
        return pd.DataFrame(lines, columns=["contender", "number", "run_id", "step", "value"])

    def config(self, run_id: str) -> dict[str, Any]:
        """The resolved trial config of a trial's run.

        Raises:
            StoreError: it is not there, or damaged.
        """
        run = next(run for run in self._runs if run.info.run_id == run_id)
        try:
            value = json.loads(self._store.artifact(run, schema.CONFIG_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"run {run_id}: its {schema.CONFIG_FILE} cannot be read ({error})") from None
        if not isinstance(value, dict):
            raise StoreError(f"run {run_id}: its {schema.CONFIG_FILE} is no trial config")
        return value

    @cached_property
    def _runs(self) -> list[Run]:
        return self._store.runs([self.run.experiment_id], schema.TRIAL_RUN)


def recorded_searches(store: Store) -> list[SearchRun]:
    """Every parent run of a search, oldest first.

    Raises:
        StoreError: the records cannot be read or have another layout.
    """
    experiments = list(store.experiments().values())
    numbers: dict[str, set[str]] = {}
    for run in store.runs(experiments, schema.TRIAL_RUN):
        study = run.data.tags.get(schema.OPTUNA_STUDY)
        if study:
            numbers.setdefault(study, set()).add(run.data.tags.get(schema.OPTUNA_NUMBER, ""))
    found = []
    for run in store.runs(experiments, schema.SEARCH_RUN):
        version = run.data.tags.get(schema.SCHEMA)
        if version != str(schema.SCHEMA_VERSION):
            raise StoreError(
                f"run {run.info.run_id}: its records have layout {version or 'unknown'}, "
                f"this version reads layout {schema.SCHEMA_VERSION}"
            )
        plan = read_search(store.artifact(run, schema.SEARCH_FILE))
        count = sum(len(numbers.get(study, ())) for study in plan.studies)
        status = run.data.tags.get(schema.STATUS, schema.RUNNING)
        entry = SearchRun(plan, run.info.run_id, run.info.experiment_id, run.info.start_time or 0, status, count)
        found.append(entry)
    return found


def _objective(store: Store, plan: SearchPlan) -> tuple[tuple[str, ...], tuple[bool, ...], tuple[PlanTask, ...]]:
    """Names and directions of the values, and the tasks where they are the values."""
    match plan.objective.name:
        case "delta_m":
            return ("delta_m",), (True,), ()
        case "cost":
            return ("delta_m", plan.objective.of), (True, False), ()
        case "tasks":
            tasks = _study(store, plan).plan.tasks
            names = tuple(f"{task.name}/{task.metric}" for task in tasks)
            return names, tuple(task.higher_is_better for task in tasks), tasks
    raise StoreError(f"search '{plan.search}': objective '{plan.objective.name}' is not known to this version")


def _study(store: Store, plan: SearchPlan) -> Records:
    """The study that the search trained its baseline in."""
    return Records.load(store.path.parent, plan.search, plan.profile)


class _Gains:
    """Delta_m of a trial: as recorded, or recomputed where the search sought something else.

    Args:
        store: of the records.
        plan: the search.
        tasks: the objective's values; empty where Delta_m is among them.
    """

    def __init__(self, store: Store, plan: SearchPlan, tasks: Sequence[PlanTask]) -> None:
        self._tasks = tasks
        self._better = {task.name: task.higher_is_better for task in tasks}
        self._baseline: dict[str, float] = {}
        if tasks:
            study = _study(store, plan)
            metrics = study.metrics
            alone = metrics[(metrics["row"] == study.plan.baseline) & (metrics["split"] == schema.VAL)]
            for task in tasks:
                values = alone[(alone["task"] == task.name) & (alone["metric"] == task.metric)]["value"]
                self._baseline[task.name] = float(values.mean()) if len(values) else math.nan

    def __call__(self, numbers: Mapping[str, float]) -> float:
        if not self._tasks:
            return _number(numbers.get(f"{schema.OBJECTIVE}/delta_m", math.nan))
        values = {
            task.name: _number(numbers.get(schema.metric(schema.VAL, task.name, task.metric), math.nan))
            for task in self._tasks
        }
        return delta_m(values, self._baseline, self._better)


def _choose(runs: Sequence[Run]) -> Run:
    """Of a trial's attempts the one that settled it, else the latest."""
    settled = [run for run in runs if run.data.tags.get(schema.STATUS) in _SETTLED]
    return max(settled or runs, key=lambda run: (run.info.start_time or 0, run.info.run_id))


def _line(contender: SearchContender, number: int, run: Run, names: Iterable[str], gains: _Gains) -> dict[str, Any]:
    tags, numbers = run.data.tags, run.data.metrics
    status = tags.get(schema.STATUS, schema.RUNNING)
    judged = status != schema.DIVERGED
    try:
        point = json.loads(tags.get(schema.POINT, "{}"))
    except ValueError:
        raise StoreError(f"run {run.info.run_id}: its tag {schema.POINT} is not JSON") from None
    return {
        "contender": contender.id,
        "label": contender.label,
        "number": number,
        "status": status,
        "reason": tags.get(schema.STATUS_REASON, ""),
        "delta_m": gains(numbers) if judged else math.nan,
        "values": tuple(
            _number(numbers.get(f"{schema.OBJECTIVE}/{name}", math.nan)) if judged else math.nan for name in names
        ),
        **{name: _number(numbers.get(schema.cost(name), math.nan)) for name in _COSTS},
        "point": point,
        "ended": float(run.info.end_time) if run.info.end_time else math.nan,
        "found": False,
        "run_id": run.info.run_id,
        "experiment_id": run.info.experiment_id,
    }


def _default(contender: SearchContender, runs: Iterable[Run]) -> Run | None:
    """The trial of the contender's defaults in the records of another search of this id: same contender, same fields,
    what is only written down and how samples are read aside."""
    wanted = _compared(_flat(contender.config))
    for run in runs:
        tags = run.data.tags
        ours = tags.get(schema.CONTENDER) == contender.id and tags.get(schema.STATUS) in WHOLE
        if ours and _compared(run.data.params) == wanted:
            return run
    return None


def _compared(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name.partition(".")[0] not in ("record", "loading")}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields by dotted path, as text: what the records call parameters."""
    out: dict[str, str] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            out.update(_flat(inner, f"{path}."))
        else:
            out[path] = str(inner)[:_LONGEST_PARAM]
    return out


def _number(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _FLOAT_MAX else float(value)
