"""A search's records: its plan, and one row per trial.

Trials belong to a search by the names of its Optuna studies, not by their parent run: a search that goes on with a
larger budget has a second parent run and the trials of both.

A trial that the search did not train because the records held it already has no run of its own; Optuna alone knows that
it was proposed. It is counted as "without a run". The one exception is the trial of a contender's defaults, which
every search proposes first: where another study or search trained it, it is read from there, Delta_m taken anew against
this search's own baseline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.delta_m import delta_m
from analysis.records import Records, check_schema
from analysis.records import number as measured
from analysis.run import Run
from analysis.search.plan import SearchContender, SearchPlan, point_in, read_search
from analysis.store import Store
from study import schema
from trainables.errors import StoreError, unknown

WHOLE = (schema.VALIDATED, schema.COMPLETE)
"""Statuses of trials that went to their end."""

_SETTLED = (*WHOLE, schema.PRUNED, schema.DIVERGED, schema.FAILED)
_LONGEST_PARAM = 6000

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
            (milliseconds since 1970, NaN while it runs), ``found`` (read from other records), ``run_id``,
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
    _runs: tuple[Run, ...] = field(default=(), repr=False, compare=False)

    @property
    def plan(self) -> SearchPlan:
        """Contenders, sampler, pruner."""
        return self.run.plan

    @property
    def home(self) -> Path:
        """The folder it was read from."""
        return self._store.home

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
        judge = _Judge(store, plan)
        every = store.runs(list(store.experiments().values()), schema.TRIAL_RUN)
        lines: list[dict[str, Any]] = []
        attempts: dict[str, tuple[str, ...]] = {}
        for contender in plan.contenders:
            mine: dict[int, list[Run]] = {}
            for trial in every:
                tags = trial.tags
                if tags.get(schema.OPTUNA_STUDY) == contender.optuna_study and schema.OPTUNA_NUMBER in tags:
                    mine.setdefault(int(tags[schema.OPTUNA_NUMBER]), []).append(trial)
            for number, runs in mine.items():
                chosen = _choose(runs)
                attempts[chosen.run_id] = tuple(run.run_id for run in runs)
                lines.append(_line(contender, number, chosen, judge))
            default = _default(contender, every, store) if 0 not in mine else None
            if default is not None:
                lines.append(_line(contender, 0, default, judge, found=True))
        frame = pd.DataFrame(lines, columns=list(_COLUMNS))
        order = frame["ended"].fillna(math.inf)
        frame = frame.assign(_order=order).sort_values(["_order", "number"], kind="stable").drop(columns="_order")
        return cls(entry, frame.reset_index(drop=True), judge.names, judge.maximize, store, attempts, tuple(every))

    def of_contender(self, contender: str) -> pd.DataFrame:
        """The trials of one contender, in the order in which they ended."""
        return self.trials[self.trials["contender"] == contender].reset_index(drop=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """What each trial was judged by at each of its evaluations: ``contender``, ``number``, ``run_id``, ``step``
        (iteration), ``value`` (the objective's first). A trial that was interrupted has the points of all attempts."""
        name = f"{schema.OBJECTIVE}/{self.names[0]}"
        attempts = {run_id: self._attempts.get(run_id, (run_id,)) for run_id in self.trials["run_id"]}
        every = list(dict.fromkeys(attempt for each in attempts.values() for attempt in each))
        found = self._store.metric_histories(every, [name])[name]
        series = {
            run_id: list(zip(part["step"], part["value"], strict=True)) for run_id, part in found.groupby("run_id")
        }
        lines = []
        for contender, number, run_id in self.trials[["contender", "number", "run_id"]].itertuples(index=False):
            points = {step: measured(value) for each in attempts[run_id] for step, value in series.get(each, ())}
            lines += [(contender, number, run_id, step, value) for step, value in sorted(points.items())]
        return pd.DataFrame(lines, columns=["contender", "number", "run_id", "step", "value"])

    def config(self, run_id: str) -> dict[str, Any]:
        """The resolved trial config of a trial's run.

        Raises:
            StoreError: it is not there, or damaged.
        """
        return self._store.config(next(run for run in self._runs if run.run_id == run_id))


def recorded_searches(store: Store) -> list[SearchRun]:
    """Every parent run of a search, oldest first.

    Raises:
        StoreError: the records cannot be read or have another layout.
    """
    experiments = list(store.experiments().values())
    numbers: dict[str, set[str]] = {}
    for run in store.runs(experiments, schema.TRIAL_RUN):
        study = run.tags.get(schema.OPTUNA_STUDY)
        if study:
            numbers.setdefault(study, set()).add(run.tags.get(schema.OPTUNA_NUMBER, ""))
    found = []
    for run in store.runs(experiments, schema.SEARCH_RUN):
        check_schema(run)
        plan = read_search(store.artifact(run, schema.SEARCH_FILE))
        count = sum(len(numbers.get(study, ())) for study in plan.studies)
        status = run.tags.get(schema.STATUS, schema.RUNNING)
        entry = SearchRun(plan, run.run_id, run.experiment_id, run.start_time or 0, status, count)
        found.append(entry)
    return found


class _Judge:
    """What a search makes of a trial's numbers.

    Args:
        store: of the records.
        plan: the search.

    Raises:
        StoreError: this version does not know the objective.
    """

    def __init__(self, store: Store, plan: SearchPlan) -> None:
        self._store, self._plan = store, plan
        self._sought = plan.objective.name
        if self._sought not in ("delta_m", "cost", "tasks"):
            raise StoreError(f"search '{plan.search}': objective '{self._sought}' is not known to this version")

    @cached_property
    def _study(self) -> Records:
        """The study that the search trained its baseline in."""
        return Records.read(self._store, self._plan.search, self._plan.profile)

    @cached_property
    def _baseline(self) -> dict[str, float]:
        metrics = self._study.metrics
        alone = metrics[(metrics["row"] == self._study.plan.baseline) & (metrics["split"] == schema.VAL)]
        found = {}
        for task in self._study.plan.tasks:
            values = alone[(alone["task"] == task.name) & (alone["metric"] == task.metric)]["value"]
            found[task.name] = float(values.mean()) if len(values) else math.nan
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Of the values."""
        if self._sought == "tasks":
            return tuple(f"{task.name}/{task.metric}" for task in self._study.plan.tasks)
        return ("delta_m", self._plan.objective.of) if self._sought == "cost" else ("delta_m",)

    @property
    def maximize(self) -> tuple[bool, ...]:
        """For each value, whether more is better."""
        if self._sought == "tasks":
            return tuple(task.higher_is_better for task in self._study.plan.tasks)
        return (True, False) if self._sought == "cost" else (True,)

    def judge(self, numbers: Mapping[str, float], *, anew: bool = False) -> tuple[float, tuple[float, ...]]:
        """Delta_m and the values. ``anew``: against this search's own baseline, whatever another recorded."""
        if self._sought == "tasks" or anew:
            tasks = self._study.plan.tasks
            values = {
                task.name: measured(numbers.get(schema.metric(schema.VAL, task.name, task.metric), math.nan))
                for task in tasks
            }
            gain = delta_m(values, self._baseline, {task.name: task.higher_is_better for task in tasks})
            if self._sought == "tasks":
                return gain, tuple(values.values())
        else:
            gain = measured(numbers.get(f"{schema.OBJECTIVE}/delta_m", math.nan))
        if self._sought == "cost":
            return gain, (gain, measured(numbers.get(schema.cost(self._plan.objective.of), math.nan)))
        return gain, (gain,)


def _choose(runs: Sequence[Run]) -> Run:
    """Of a trial's attempts the one that settled it, else the latest."""
    settled = [run for run in runs if run.tags.get(schema.STATUS) in _SETTLED]
    return max(settled or runs, key=lambda run: (run.start_time or 0, run.run_id))


def _line(contender: SearchContender, number: int, run: Run, judge: _Judge, *, found: bool = False) -> dict[str, Any]:
    tags, numbers = run.tags, run.metrics
    status = tags.get(schema.STATUS, schema.RUNNING)
    gain, values = judge.judge(numbers, anew=found)
    if status == schema.DIVERGED:
        gain, values = math.nan, tuple(math.nan for _ in values)
    try:
        point = json.loads(tags.get(schema.POINT, "{}"))
    except ValueError:
        raise StoreError(f"run {run.run_id}: its tag {schema.POINT} is not JSON") from None
    return {
        "contender": contender.id,
        "label": contender.label,
        "number": number,
        "status": status,
        "reason": tags.get(schema.STATUS_REASON, ""),
        "delta_m": gain,
        "values": values,
        **{name: measured(numbers.get(schema.cost(name), math.nan)) for name in _COSTS},
        "point": point_in(contender.axes, contender.config) if found else point,
        # What was found cost its search nothing but the budget, and came first.
        "ended": 0.0 if found else float(run.end_time) if run.end_time else math.nan,
        "found": found,
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
    }


def _default(contender: SearchContender, runs: Iterable[Run], store: Store) -> Run | None:
    """The trial of the contender's defaults in the records of any study: the same fields, what is only written down and
    how samples are read aside. The first that ended."""
    wanted = _compared(_flat(contender.config))
    whole = [run for run in runs if run.tags.get(schema.STATUS) in WHOLE and run.status == "FINISHED"]
    params = store.params([run.run_id for run in whole])
    fitting = [run for run in whole if _compared(params[run.run_id]) == wanted]
    return min(fitting, key=lambda run: (run.end_time or math.inf, run.run_id), default=None)


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
