"""The records a figure is drawn from: one study, or several of the same profile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from analysis.records import Records
from analysis.store import Store
from analysis.tables.results import row_results
from study import schema
from trainables.errors import ConfigError, StoreError, unknown


class Shelf:
    """Finds and reads, once each, the studies a figure may be drawn from.

    Args:
        name: of the figure, for messages.
        home: the folder with the records.
        profile: of every study; without it, the one last planned of the first study that is recorded.
        studies: ids, most wanted first; empty for a figure of any study.
        only: draw from this study and no other.
    """

    def __init__(
        self, name: str, home: Path, profile: str | None, studies: Sequence[str], only: str | None = None
    ) -> None:
        self.name = name
        self.home = home
        self._profile = profile
        self._only = only
        self.studies = (only,) if only is not None else tuple(studies)
        self._open: dict[str, Records | None] = {}

    @cached_property
    def _store(self) -> Store:
        return Store(self.home)

    @cached_property
    def _recorded(self) -> dict[str, set[str]]:
        """Study id to the profiles it is recorded at."""
        store = self._store
        names = {experiment_id: name for name, experiment_id in store.experiments().items()}
        found: dict[str, set[str]] = {}
        for run in store.runs(list(names), schema.STUDY_RUN):
            found.setdefault(names[run.experiment_id], set()).add(run.tags.get(schema.PROFILE, ""))
        return found

    @cached_property
    def first(self) -> Records:
        """The most wanted study that is recorded.

        Raises:
            StoreError: none is, or its records cannot be read.
            ConfigError: the figure is of any study, and there are several.
        """
        if not self.studies:
            return self._any_study()
        for study in self.studies:
            if self._profile in self._recorded.get(study, ()) or (self._profile is None and study in self._recorded):
                return Records.read(self._store, study, self._profile)
        raise self._nothing()

    def get(self, *studies: str) -> Records | None:
        """The first of ``studies`` that the figure may use and that is recorded at :attr:`profile`.

        Raises:
            StoreError: its records cannot be read.
        """
        for study in studies:
            if study in self.studies and self.profile in self._recorded.get(study, ()):
                if study not in self._open:
                    same = study == self.first.plan.study
                    self._open[study] = self.first if same else Records.read(self._store, study, self.profile)
                return self._open[study]
        return None

    def all(self) -> list[Records]:
        """Every study the figure may use that is recorded at :attr:`profile`, most wanted first. Raises as
        :attr:`first` does."""
        return [records for study in self.studies if (records := self.get(study)) is not None]

    def hold(self, records: Mapping[str, Records]) -> None:
        """Use records that are loaded, by study id, and read no others: all of one profile."""
        self._recorded = {study: {found.profile} for study, found in records.items()}
        self.first = next(records[study] for study in self.studies if study in records)
        self._open = dict(records)

    @property
    def profile(self) -> str:
        """Of the records. Raises as :attr:`first` does."""
        return self.first.profile

    def command(self, study: str) -> str:
        """What to run for a study."""
        profile = f" --profile {self._profile}" if self._profile else ""
        return f"mtl-study run {study}{profile}"

    def empty(self, what: str, records: Sequence[Records]) -> StoreError:
        """The error of a figure whose studies are recorded and hold nothing to draw."""
        names = list(dict.fromkeys(f"{found.plan.study} at profile {found.profile}" for found in records))
        run = self.command(records[0].plan.study)
        return StoreError(f"figure {self.name}: no {what} in {', '.join(names)} (run: {run})")

    def _any_study(self) -> Records:
        found = sorted(
            study for study, profiles in self._recorded.items() if self._profile is None or self._profile in profiles
        )
        if len(found) > 1:
            raise ConfigError(f"figure {self.name}: name the study (recorded: {', '.join(found)})")
        if not found:
            raise self._nothing()
        return Records.read(self._store, found[0], self._profile)

    def _nothing(self) -> StoreError:
        at = f" at profile {self._profile}" if self._profile else ""
        if self._only is not None and self._only not in self._recorded:
            return StoreError(f"figure {self.name}: {unknown('recorded study', self._only, self._recorded)}")
        which = f"study {' or '.join(self.studies)}" if self.studies else "any study"
        run = f" (run: {self.command(self.studies[0])})" if self.studies else ""
        return StoreError(f"figure {self.name} needs records of {which}, none is there{at} in {self.home}{run}")


def source_notes(studies: Iterable[Records], *, spread: str = "") -> list[str]:
    """The footer of a figure: study, profile, data, tasks, backbone, seeds; ``spread`` says what bands or bars are."""
    notes = []
    for records in studies:
        plan = records.plan
        complete = records.trials[records.trials["status"] == schema.COMPLETE]
        data = _distinct(complete[schema.DATA]) or "unnamed data"
        backbone = _distinct(complete[schema.BACKBONE])
        seeds = complete["seed"].nunique()
        notes.append(
            f"Study {plan.study}, profile {plan.profile}: {data} ({plan.task_set} tasks)"
            f"{f', {backbone}' if backbone else ''}, {seeds} seed{' (no spread)' if seeds == 1 else 's'}, "
            f"{len(complete)} of {len(records.trials)} trials complete."
        )
    return [*notes, spread] if spread else notes


def missing_notes(records: Records, row_ids: Iterable[str]) -> list[str]:
    """What is not recorded of the rows a figure shows and why, in one note; none where nothing is missing."""
    results = row_results(records)
    notes = [f"{results[row].row.label}: {', '.join(results[row].notes)}" for row in row_ids if results[row].notes]
    return [f"Not recorded: {'; '.join(notes)}."] if notes else []


def machine_notes(records: Records) -> list[str]:
    """What the seconds of a figure were measured on; none where the records do not say."""
    complete = records.trials[records.trials["status"] == schema.COMPLETE]
    devices, hosts = _distinct(complete[schema.DEVICE]), _distinct(complete[schema.HOST])
    notes = [f"Device: {devices}{f' ({hosts})' if hosts else ''}."] if devices else []
    if complete[schema.DEVICE].nunique() > 1 or complete[schema.HOST].nunique() > 1:
        notes.append("The trials ran on different machines or devices: their seconds do not compare.")
    return notes


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))
