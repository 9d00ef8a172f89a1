"""From a spec to an explicit list of trials: every cell, its replicates, and the key each is found by in the
records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_spaces import apply, axes_from, grid
from study import schema
from study.parent import ParentRun
from study.spec import Row, StudySpec, profile
from trainables.config import TrialConfig, TrialReader, data_set_of, tasks_of
from trainables.errors import ConfigError, unknown
from trainables.presets import merge, set_path


@dataclass(frozen=True)
class Trial:
    """One trial of a plan.

    Attributes:
        key: trial key.
        cell_key: shared by its replicates.
        config: what to train.
        tasks: names of the tasks it trains, in order.
        label: readable: row, task where it trains one, seed.
        tags: of its run in the records, beside those every trial has.
    """

    key: str
    cell_key: str
    config: TrialConfig
    tasks: tuple[str, ...]
    label: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.config.seed


@dataclass(frozen=True)
class PlannedRow:
    """One row of the table, its axes resolved."""

    id: str
    label: str
    axes: Mapping[str, Any]
    published: tuple[Mapping[str, str], ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Plan:
    """Everything a study trains, and what its table shows.

    Attributes:
        spec: the study.
        profile: name of the profile.
        seeds: of the replicates.
        rows: in the table's order.
    """

    spec: StudySpec
    profile: str
    seeds: tuple[int, ...]
    rows: tuple[PlannedRow, ...]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Distinct trials, in order of first appearance; one that several rows name appears once."""
        return tuple({trial.key: trial for row in self.rows for trial in row.trials}.values())

    @property
    def named(self) -> int:
        """Trials the rows name, counted as often as they are named."""
        return sum(len(row.trials) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the records (``plan.json``): what an analysis needs to join rows with trials."""
        config = self.rows[0].trials[0].config
        everything = config.model_copy(update={"tasks": config.tasks.model_copy(update={"include": None})})
        names = list(dict.fromkeys(name for row in self.rows for trial in row.trials for name in trial.tasks))
        tasks = [task for task in tasks_of(everything) if task.name in names]
        return {
            "schema": schema.SCHEMA_VERSION,
            "study": self.spec.id,
            "title": self.spec.title,
            "about": self.spec.about,
            "profile": self.profile,
            "seeds": list(self.seeds),
            "data": _told(config),
            "backbone": config.model.backbone,
            "task_set": config.tasks.set,
            "tasks": [
                {"name": t.name, "metric": t.metric, "higher_is_better": t.higher_is_better, "short": t.short}
                for t in tasks
            ],
            "baseline": self.spec.baseline,
            "rows": [
                {
                    "id": row.id,
                    "label": row.label,
                    "axes": dict(row.axes),
                    "published": [dict(reference) for reference in row.published],
                    "cells": [
                        {"seed": t.seed, "trial_key": t.key, "cell_key": t.cell_key, "tasks": list(t.tasks)}
                        for t in row.trials
                    ],
                }
                for row in self.rows
            ],
        }

    def parent_run(self) -> ParentRun:
        """As the records keep it."""
        spec = self.spec
        return ParentRun(
            schema.STUDY_RUN, spec.id, spec.title, spec.about, self.profile, schema.PLAN_FILE, self.to_dict()
        )


def _told(config: TrialConfig) -> dict[str, Any]:
    """The fields of the data set, less those that say where it is kept: a folder that moved is the same study."""
    placing = config.data.canonical().keys() - data_set_of(config).identity(config.data).keys()
    return {name: None if name in placing else value for name, value in config.data.to_dict().items()}


def make_plan(
    spec: StudySpec,
    profile_name: str | None = None,
    seeds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Expand a spec.

    Fields are laid over each other in this order, later ones winning: profile, spec's base, spec's addition to the
    profile, row, axis values, ``overrides``.

    Args:
        spec: the study.
        profile_name: instead of the spec's own.
        seeds: number of replicates instead of the profile's; their seeds are 0, 1, ...
        overrides: dotted field path to value, for every trial.

    Raises:
        ConfigError: a field is unknown or out of range, an axis is empty, the overrides leave no difference between
            two rows' ids.
    """
    name = profile_name or spec.profile
    chosen = profile(name)
    own = spec.profiles.get(name)
    count = seeds if seeds is not None else (own.seeds if own and own.seeds else chosen.seeds)
    if count < 1:
        raise ConfigError(f"seeds: at least 1, got {count}")
    base = merge(merge(chosen.set, spec.base), own.set if own else {})
    if overrides and "seed" in overrides:
        raise ConfigError("seed: replicates are chosen by --seeds N, not by --set")
    expansion = _Expansion(base, range(count), overrides or {}, spec.published)
    rows = [row for index, entry in enumerate(spec.rows) for row in expansion.rows(entry, f"rows.{index}")]
    ids = [row.id for row in rows]
    if len(set(ids)) < len(ids):
        twice = next(row_id for row_id in ids if ids.count(row_id) > 1)
        raise ConfigError(f"rows: two rows are called '{twice}'")
    if spec.baseline not in ids:
        raise ConfigError(f"baseline: {unknown('row', spec.baseline, ids)}")
    return Plan(spec, name, tuple(range(count)), tuple(rows))


class _Expansion:
    """Rows of a spec made into those of its plan.

    Args:
        base: fields of every row.
        seeds: of the replicates.
        overrides: see :func:`make_plan`.
        table: the published one of rows that name none.
    """

    def __init__(self, base: Mapping[str, Any], seeds: Sequence[int], overrides: Mapping[str, Any], table: str) -> None:
        self._base, self._seeds, self._overrides, self._table = base, seeds, overrides, table
        self._reader = TrialReader()

    def rows(self, row: Row, where: str) -> Iterable[PlannedRow]:
        """One for each combination of the row's axes."""
        fields = merge(self._base, row.set)
        name = f"row '{row.id}'"
        for point in grid(axes_from(row.axes, where)):
            plain = apply(apply(fields, point), self._overrides)
            suffix = "".join(f"_{_slug(value)}" for value in point.values())
            label = _fill(row.label, point, f"{where}.label")
            published = tuple(
                {"table": p.table or self._table, "row": _fill(p.row, point, f"{where}.published.row")}
                for p in row.published
                # A study that takes its rows from another's need not have a published table.
                if p.table or self._table
            )
            configs = self._per_task(plain, name) if row.per_task else [self._reader.load(plain, name)]
            replicates = [self._replicates(config, label, row.per_task) for config in configs]
            trials = tuple(trial for same_seed in zip(*replicates, strict=True) for trial in same_seed)
            yield PlannedRow(row.id + suffix, label, point, published, trials)

    def _per_task(self, plain: Mapping[str, Any], where: str) -> list[TrialConfig]:
        # The task names come from a config that validates with any method; the row's own method may take one task only.
        names = [task.name for task in self._reader.tasks(self._reader.load({**plain, "method": "gd"}, where))]
        return [self._reader.load(set_path(plain, "tasks.include", [name]), where) for name in names]

    def _replicates(self, config: TrialConfig, label: str, per_task: bool) -> list[Trial]:
        tasks = tuple(task.name for task in self._reader.tasks(config))
        cell, keys = self._reader.keys(config, self._seeds)
        parts = [label, *tasks] if per_task else [label]
        return [
            Trial(key, cell, config.with_seed(seed), tasks, " | ".join([*parts, f"seed {seed}"]))
            for seed, key in zip(self._seeds, keys, strict=True)
        ]


def make_trial(config: TrialConfig, label: str, tags: Mapping[str, str] | None = None) -> Trial:
    """A trial of ``config``, its keys computed."""
    tasks = tuple(task.name for task in tasks_of(config))
    cell, (key,) = TrialReader().keys(config, [config.seed])
    return Trial(key, cell, config, tasks, label, tags or {})


def _slug(value: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")


def _fill(template: str, point: Mapping[str, Any], where: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match.group(1) not in point:
            raise ConfigError(f"{where}: {unknown('axis', match.group(1), point)}")
        return str(point[match.group(1)])

    return re.sub(r"\{([^{}]+)\}", value, template)
