"""Everything recorded at one profile, study by study, as numbers per row and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records import Records
from analysis.store import Store
from study import schema
from trainables.errors import StoreError, unknown

_GROUPS = ("iteration", "group", "together", "tasks")
"""Arrays of a history that claims are about; the affinity, most of the file, is none of them."""


@dataclass(frozen=True)
class Gains:
    """Gains over a study's baseline, in percent of it; positive is better.

    Attributes:
        tasks: index (row, seed), one column per task of the plan; NaN where a task has no number.
        lost: row to the seeds that ended without a finite number of some task: they diverged, or did not log it.
    """

    tasks: pd.DataFrame
    lost: Mapping[str, tuple[int, ...]]

    def delta_m(self, row: str) -> dict[int, float]:
        """Seed to Delta_m (the mean over tasks), of the seeds with a number for every task."""
        mean = self.of(row).mean(axis=1, skipna=False).dropna()
        return _by_seed(mean)

    def task(self, row: str, task: str) -> dict[int, float]:
        """Seed to the gain in one task."""
        return _by_seed(self.of(row)[task].dropna())

    def of(self, row: str) -> pd.DataFrame:
        """The seeds of one row; none where nothing of it ended."""
        return self.tasks[self.tasks.index.get_level_values("row") == row].droplevel("row")


@dataclass
class Evidence:
    """The records of every study at one profile.

    Attributes:
        profile: whose records.
        records: study id to them.
        problems: what could not be read, one line each.
        other_profiles: at which something is recorded as well.
    """

    profile: str
    records: Mapping[str, Records]
    problems: tuple[str, ...] = ()
    other_profiles: tuple[str, ...] = ()
    _gains: dict[str, Gains] = field(default_factory=dict, repr=False)
    _keys: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, home: Path, profile: str | None = None) -> Evidence:
        """Read every study recorded at ``profile``, or at the one a study was last recorded at.

        A study that cannot be read is named in ``problems``; the others are read all the same.

        Raises:
            StoreError: there is no store, nothing is recorded in it, or nothing at that profile.
        """
        store = Store(home)
        experiments = store.experiments()
        runs = store.runs(list(experiments.values()), schema.STUDY_RUN)
        if not runs:
            raise StoreError(f"{store.name}: no study is recorded in it")
        profiles = {run.tags.get(schema.PROFILE, "") for run in runs}
        last = max(runs, key=lambda run: run.moment)
        chosen = last.tags.get(schema.PROFILE, "") if profile is None else profile
        if chosen not in profiles:
            raise StoreError(unknown("profile in the records", chosen, profiles))
        ids = {run.experiment_id for run in runs if run.tags.get(schema.PROFILE, "") == chosen}
        records: dict[str, Records] = {}
        problems: list[str] = []
        for study in sorted(name for name, experiment_id in experiments.items() if experiment_id in ids):
            try:
                records[study] = Records.read(store, study, chosen)
            except StoreError as error:
                problems.append(f"study {study} cannot be read: {error}")
        return cls(chosen, records, tuple(problems), tuple(sorted(profiles - {chosen})))

    def studies(self, preferred: Sequence[str], rows: Iterable[str]) -> list[str]:
        """The recorded ones among ``preferred`` that plan all ``rows``; where there is none, any other that does."""
        wanted = set(rows)
        able = [name for name, records in self.records.items() if wanted <= {row.id for row in records.plan.rows}]
        return [name for name in preferred if name in able] or sorted(able)

    def gains(self, study: str) -> Gains:
        """Of every row of a study, computed once."""
        if study not in self._gains:
            self._gains[study] = gains_of(self.records[study])
        return self._gains[study]

    def keys(self, study: str, row: str) -> tuple[str, ...]:
        """The trial keys of a row: equal ones are the same trials, whichever study names them."""
        if study not in self._keys:
            plan = self.records[study].plan
            self._keys[study] = {planned.id: tuple(cell.trial_key for cell in planned.cells) for planned in plan.rows}
        return self._keys[study].get(row, ())

    def complete(self, study: str, row: str) -> pd.DataFrame:
        """The complete trials of a row."""
        trials = self.records[study].trials
        return trials[(trials["row"] == row) & (trials["status"] == schema.COMPLETE)]

    def histories(self, study: str, row: str) -> dict[int, dict[str, NDArray[Any]]]:
        """Seed to grouping history without the affinity, of the trials that kept one that can be read."""
        found = {}
        for seed, key in self.complete(study, row)[["seed", "trial_key"]].itertuples(index=False, name=None):
            try:
                history = self.records[study].history(key, _GROUPS)
            except StoreError:
                continue
            if {"iteration", "group", "tasks"} <= history.keys() and len(history["iteration"]):
                found[int(seed)] = history
        return found


def gains_of(records: Records) -> Gains:
    """Gains of every row and seed, against the mean of the baseline over its seeds, as :mod:`analysis.stats` has it.

    Without a baseline, or for a task whose baseline is 0 or lost a seed, there are none.
    """
    plan = records.plan
    names = [task.name for task in plan.tasks]
    wanted = pd.DataFrame({"task": names, "metric": [task.metric for task in plan.tasks]})
    test = records.metrics[records.metrics["split"] == schema.TEST].merge(wanted, on=["task", "metric"])
    trials = records.trials[records.trials["status"].isin([schema.COMPLETE, schema.DIVERGED])]
    ended = trials[["row", "seed", "tasks"]].explode("tasks").rename(columns={"tasks": "task"})
    values = ended.merge(test[["row", "seed", "task", "value"]], on=["row", "seed", "task"], how="left")
    values["value"] = values["value"].astype("float64").where(np.isfinite(values["value"].astype("float64")))
    wide = values.set_index(["row", "seed", "task"])["value"].unstack("task").reindex(columns=names)
    base_values = values[values["row"] == plan.baseline].groupby("task")["value"]
    base = base_values.agg(lambda column: column.mean(skipna=False)).reindex(names).astype("float64")
    base = base.where(base != 0)
    sign = pd.Series({task.name: 1.0 if task.higher_is_better else -1.0 for task in plan.tasks})
    gains = 100 * sign * (wide - base) / base
    lost: dict[str, set[int]] = {}
    for row, seed in values.loc[values["value"].isna(), ["row", "seed"]].itertuples(index=False, name=None):
        lost.setdefault(row, set()).add(int(seed))
    return Gains(gains, {row: tuple(sorted(seeds)) for row, seeds in lost.items()})


def _by_seed(values: pd.Series) -> dict[int, float]:
    return {int(seed): float(value) for seed, value in zip(values.index, values, strict=True)}
