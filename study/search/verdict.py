"""A pruner's verdict on a trial, which a driver that ends in the midst of it comes to again."""

from __future__ import annotations

from typing import Any

import optuna

from study.search.entries import STOPPED, Open


class Referee:
    """Asks a study's pruner.

    A pruner may note in the storage how far a trial came, and look no second time at the evaluation it came by then. A
    driver that ended after that note and before the trial was stopped would let it go on. The verdict is noted first.

    Args:
        study: whose trials are judged.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._notes = _Withheld(study._storage)
        self._study = study
        storage: Any = self._notes  # Optuna takes one it does not know as it is.
        self._noting = optuna.Study(study.study_name, storage, sampler=study.sampler)

    def stops(self, entry: Open) -> bool:
        """Whether a trial ends at the evaluation it has come to, whose value was reported."""
        reached = len(entry.metrics)
        if reached < max(entry.reported, default=0):
            return False  # An attempt before this one went on from here.
        trial = self._study._storage.get_trial(entry.optuna._trial_id)
        stopped: bool = self._study.pruner.prune(self._noting, trial)
        if stopped:
            entry.optuna.set_user_attr(STOPPED, reached)
        self._notes.deliver()
        return stopped or STOPPED in trial.user_attrs


class _Withheld:
    """A storage whose notes on trials wait until they are delivered."""

    def __init__(self, storage: optuna.storages.BaseStorage) -> None:
        self._storage = storage
        self._notes: list[tuple[int, str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._notes.append((trial_id, key, value))

    def deliver(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            self._storage.set_trial_system_attr(*note)
