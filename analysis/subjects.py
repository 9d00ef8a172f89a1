"""What a name means in the records: a run, a trial, a cell, a row or a study, and where the tables use it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.plan import Plan, PlanRow, read_plan
from analysis.records import choose_run
from analysis.run import Run
from analysis.store import Store
from study import schema
from trainables.errors import ConfigError, StoreError, unknown

RUN, TRIAL, CELL, ROW, STUDY = "run", "trial", "cell", "row", "study"
_SHORTEST = 4
"""Characters a beginning of a key or run id has at least."""
_SHOWN = 6


@dataclass(frozen=True)
class Use:
    """A place of a table that a trial fills.

    Attributes:
        study: whose table.
        profile: it ran at.
        row: id.
        label: of the row.
        seed: of the trial.
        tasks: it trains there.
        published: ``table: row`` of every place the paper prints the row.
    """

    study: str
    profile: str
    row: str
    label: str
    seed: int
    tasks: tuple[str, ...]
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """What a name means.

    Attributes:
        kind: ``run``, ``trial``, ``cell``, ``row`` or ``study``.
        name: to show.
        keys: of its trials, by seed and then as the plan has them.
        runs: trial key to every run of it, oldest first; none for a trial that was never begun.
        plan: of a row or study, the one it is of.
        run_id: of a run.
    """

    kind: str
    name: str
    keys: tuple[str, ...]
    runs: Mapping[str, tuple[Run, ...]]
    plan: Plan | None = None
    run_id: str = ""

    def chosen(self, key: str) -> Run | None:
        """The run that stands for a trial: the named one, or the one tables read."""
        runs = self.runs[key]
        named = [run for run in runs if run.run_id == self.run_id]
        return named[0] if named else choose_run(list(runs)) if runs else None


class Directory:
    """Looks names up in a store. Reads each plan and the runs once.

    Args:
        store: the records.
        profile: looks at plans of this profile alone.
    """

    def __init__(self, store: Store, profile: str | None = None) -> None:
        self.store = store
        self._profile = profile

    @cached_property
    def plans(self) -> Mapping[tuple[str, str], Plan]:
        """(study, profile) to its newest plan, the one planned last at the end."""
        runs = self.store.runs(list(self.store.experiments().values()), schema.STUDY_RUN)
        runs.sort(key=lambda run: run.moment)
        newest: dict[tuple[str, str], Run] = {}
        for run in runs:
            place = (run.tags.get(schema.STUDY, ""), run.tags.get(schema.PROFILE, ""))
            newest.pop(place, None)
            newest[place] = run
        if self._profile is not None:
            found = {profile for _, profile in newest}
            if self._profile not in found:
                raise StoreError(unknown("profile in the records", self._profile, found))
            newest = {place: run for place, run in newest.items() if place[1] == self._profile}
        return {place: read_plan(self.store.artifact(run, schema.PLAN_FILE)) for place, run in newest.items()}

    @cached_property
    def runs(self) -> Mapping[str, tuple[Run, ...]]:
        """Trial key to every run of it, oldest first."""
        found: dict[str, list[Run]] = {}
        for run in self.store.runs(list(self.store.experiments().values()), schema.TRIAL_RUN):
            found.setdefault(run.tags.get(schema.TRIAL_KEY, ""), []).append(run)
        return {key: tuple(runs) for key, runs in found.items()}

    @cached_property
    def _cell_keys(self) -> Mapping[str, str]:
        """Trial key to cell key."""
        found = {cell.trial_key: cell.cell_key for _, row in self._rows() for cell in row.cells}
        for key, runs in self.runs.items():
            for run in runs:
                found.setdefault(key, run.tags.get(schema.CELL_KEY, ""))
        return found

    @cached_property
    def _seeds(self) -> Mapping[str, int]:
        found = {key: int(run.tags.get(schema.SEED, "0") or 0) for key, runs in self.runs.items() for run in runs}
        return found | {cell.trial_key: cell.seed for _, row in self._rows() for cell in row.cells}

    def _rows(self) -> Iterator[tuple[Plan, PlanRow]]:
        return ((plan, row) for plan in self.plans.values() for row in plan.rows)

    # ---- answers ---------------------------------------------------------------------------------

    def uses(self, keys: Iterable[str]) -> list[Use]:
        """Every place of a recorded plan that one of these trials fills."""
        wanted = set(keys)
        return [
            Use(
                plan.study,
                plan.profile,
                row.id,
                row.label,
                cell.seed,
                cell.tasks,
                tuple(f"{place.table}: {place.row}" for place in row.published),
            )
            for plan, row in self._rows()
            for cell in row.cells
            if cell.trial_key in wanted
        ]

    def cell_key(self, key: str) -> str:
        """The cell that a trial is a replicate of."""
        return self._cell_keys[key]

    def seed(self, key: str) -> int:
        """The seed of a trial."""
        return self._seeds[key]

    def config(self, subject: Subject, key: str) -> dict[str, Any] | None:
        """The resolved trial config a run recorded, nested; from its params, as text, where it kept no file; ``None``
        where nothing ran."""
        run = subject.chosen(key)
        if run is None:
            return None
        try:
            return self.store.config(run)
        except StoreError:
            return dict(self.store.params([run.run_id])[run.run_id])

    def any_config(self, subject: Subject) -> dict[str, Any] | None:
        """:meth:`config` of the first trial that ran; ``None`` where nothing did or nothing was kept."""
        found = (self.config(subject, key) for key in subject.keys)
        return next((config for config in found if config), None)

    def rows(self, subject: Subject) -> dict[str, Subject]:
        """The rows of a study by id."""
        return {row.id: self._row(subject.plan, row) for row in subject.plan.rows} if subject.plan else {}

    def find(self, name: str) -> Subject:
        """What ``name`` means.

        Args:
            name: a study, ``STUDY@PROFILE``, ``STUDY/ROW``; the beginning of a trial key, cell key or run id; a
                cell's label with or without its seed, a row's id or label.

        Raises:
            ConfigError: nothing is called so (the nearest name is given), or several things are.
        """
        of_study = self._study(name)
        if of_study is not None:
            return of_study
        found = self._by_row(name) or self._by_key(name) or self._by_label(name)
        if not found:
            raise ConfigError(self._nothing(name))
        distinct = {subject.keys: subject for subject in found}
        if len(distinct) > 1:
            shown = [subject.name for subject in distinct.values()]
            more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
            raise ConfigError(f"'{name}' may be any of {'; '.join(shown[:_SHOWN])}{more}; name one of them")
        return next(iter(distinct.values()))

    def _subject(self, kind: str, name: str, keys: Iterable[str], plan: Plan | None = None, run: str = "") -> Subject:
        ordered = tuple(dict.fromkeys(keys))
        return Subject(kind, name, ordered, {key: self.runs.get(key, ()) for key in ordered}, plan, run)

    def _study(self, name: str) -> Subject | None:
        named, slash, row_name = name.partition("/")
        study, at, profile = named.partition("@")
        plans = {p: plan for (s, p), plan in self.plans.items() if s == study}
        if not plans:
            return None
        if at and profile not in plans:
            raise ConfigError(unknown(f"profile of study '{study}' in the records", profile, plans))
        plan = plans[profile] if at else list(plans.values())[-1]
        if not slash:
            keys = (cell.trial_key for row in plan.rows for cell in row.cells)
            return self._subject(STUDY, f"{study}@{plan.profile}", keys, plan)
        for row in plan.rows:
            if row_name in (row.id, row.label):
                return self._row(plan, row)
        raise ConfigError(unknown(f"row of study '{study}'", row_name, [row.id for row in plan.rows]))

    def _row(self, plan: Plan, row: PlanRow) -> Subject:
        kind = CELL if len({cell.cell_key for cell in row.cells}) == 1 else ROW
        name = f"{plan.study}@{plan.profile}/{row.id}"
        return self._subject(kind, name, (cell.trial_key for cell in row.cells), plan)

    def _by_key(self, name: str) -> list[Subject]:
        word = name.strip().lower()
        if len(word) < _SHORTEST:
            return []
        cells: dict[str, list[str]] = {}
        for key, cell in self._cell_keys.items():
            cells.setdefault(cell, []).append(key)
        runs = [
            self._subject(RUN, f"run {run.run_id}", [key], run=run.run_id)
            for key, each in self.runs.items()
            for run in each
            if run.run_id.startswith(word)
        ]
        trials = [self._trial(key) for key in self._cell_keys if key.startswith(word)]
        whole = [
            self._subject(CELL, f"cell {cell[:12]}: {self._label(keys)}", sorted(keys, key=self.seed))
            for cell, keys in cells.items()
            if cell.startswith(word)
        ]
        # A name in full is meant before names that only begin with it.
        full = [s for s in trials if s.keys == (word,)]
        return runs or full or [*trials, *whole]

    def _trial(self, key: str) -> Subject:
        return self._subject(TRIAL, f"trial {key[:12]}: {self._label([key])}", [key])

    def _by_row(self, name: str) -> list[Subject]:
        word = name.strip().lower()
        return [self._row(plan, row) for plan, row in self._rows() if word in (row.id.lower(), row.label.lower())]

    def _by_label(self, name: str) -> list[Subject]:
        word = name.strip().lower()
        labelled: dict[str, None] = {}
        whole: dict[str, list[str]] = {}
        for key, runs in self.runs.items():
            for run in runs:
                label = run.tags.get(schema.CELL, "").lower()
                if label == word:
                    labelled[key] = None
                if label.rpartition(" | seed ")[0] == word and key not in whole.setdefault(self._cell_keys[key], []):
                    whole[self._cell_keys[key]].append(key)
        cells = [
            self._subject(CELL, f"cell {cell[:12]}: {name.strip()}", sorted(keys, key=self.seed))
            for cell, keys in whole.items()
            if keys
        ]
        return [self._trial(key) for key in labelled] or cells

    def _label(self, keys: list[str]) -> str:
        """What people call a trial, or a cell whose trials these are."""
        labels = [run.tags.get(schema.CELL, "") for key in keys for run in self.runs.get(key, ())]
        planned = [f"{use.label} | seed {use.seed}" for use in self.uses(keys)]
        label = next((each for each in (*labels, *planned) if each), "")
        return label if len(keys) == 1 else label.rpartition(" | seed ")[0] or label

    def _nothing(self, name: str) -> str:
        studies = sorted({study for study, _ in self.plans})
        labels = {run.tags.get(schema.CELL, "") for runs in self.runs.values() for run in runs}
        rows = {f"{plan.study}/{row.id}" for plan, row in self._rows()}
        words = [*studies, *rows, *(row.id for _, row in self._rows()), *(row.label for _, row in self._rows())]
        every = {word.lower(): word for word in (*labels, *words) if word}
        near = difflib.get_close_matches(name.lower(), every, n=1, cutoff=0.6)
        hint = f"; did you mean '{every[near[0]]}'?" if near else ""
        return (
            f"no run, cell or study is called '{name}'{hint} (studies recorded: {', '.join(studies) or 'none'}; else "
            "STUDY/ROW, a label, or the beginning of a run id, trial key or cell key)"
        )
