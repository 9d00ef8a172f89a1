"""Optuna's tables in a database that may be away for a while: the search waits for it, and does nothing twice."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from study.addresses import mask
from trainables.errors import StoreError

logger = logging.getLogger(__name__)

WAIT_SECONDS = 900.0
"""How long an answer is waited for."""
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_REPEATABLE = (
    *("get_study_id_from_name", "get_study_name_from_id", "get_study_directions", "get_study_user_attrs"),
    *("get_study_system_attrs", "get_all_studies", "get_trial", "get_trial_user_attrs", "get_trial_system_attrs"),
    *("get_trial_param", "get_trial_id_from_study_id_trial_number", "_get_trials", "_get_best_trial_id"),
    *("set_study_user_attr", "set_study_system_attr", "set_trial_user_attr", "set_trial_system_attr"),
    *("set_trial_intermediate_value", "_set_trial_param"),
)
"""Methods of Optuna's storage that may be called again where it is not known whether the first call came through."""
_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
_LOCKED = "database is locked"
_FULL = ("disk is full", "disk full", "No space left")


class WaitingStorage(optuna.storages.RDBStorage):
    """Optuna's storage, which waits for a database that cannot be reached.

    What only reads, or sets what is there to a value, is asked again until there is an answer. What makes a trial or
    takes one up might come through twice that way: the database is asked for a sign of life before, and an end of the
    connection in the midst of it ends the search, which goes on where it was when it is run again.

    Args:
        url: as SQLAlchemy takes it.
        engine_kwargs: for its engine.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        self._shown = mask(url)
        super().__init__(url, engine_kwargs=engine_kwargs)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """See Optuna."""
        return self._once(lambda: super(WaitingStorage, self).create_new_study(directions, study_name))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See Optuna."""
        original = super().set_trial_state_values

        def call() -> bool:
            return original(trial_id, state, values)

        answer: bool = self._again(call, finishes=True) if state.is_finished() else self._once(call)
        return answer

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        return self._once(lambda: super(WaitingStorage, self)._create_new_trial(study_id, template_trial))

    def _once(self, call: Callable[[], Any]) -> Any:
        def alive_and_call() -> Any:
            self._again(self._alive)
            try:
                return call()
            except _ERRORS as error:
                if _LOCKED in _why(error):
                    raise  # Nothing came through.
                raise self._refused(error, "; run the search again, it goes on where it was") from error

        return self._again(alive_and_call)

    def _alive(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM version_info"))

    def _again(self, call: Callable[[], Any], *, finishes: bool = False) -> Any:
        until, attempt = time.monotonic() + WAIT_SECONDS, 0
        while True:
            try:
                return call()
            except optuna.exceptions.UpdateFinishedTrialError:
                if not (finishes and attempt):
                    raise
                return True  # The call before, whose answer was lost, came through.
            except _ERRORS as error:
                if not _lost(error) or time.monotonic() > until:
                    raise self._refused(error) from error
                if attempt == 0:
                    logger.warning("search storage %s: waiting for it (%s)", self._shown, _why(error))
            time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    def _refused(self, error: Exception, more: str = "") -> StoreError:
        return StoreError(f"search storage {self._shown}: cannot be reached or written ({_why(error)}){more}")


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error


def _lost(error: Exception) -> bool:
    """Whether a database is away or locked, and may be back; one that is full is for its owner."""
    cause = _cause(error)
    if not isinstance(cause, DBAPIError) or any(sign in str(cause) for sign in _FULL):
        return False
    if isinstance(cause.orig, sqlite3.Error):  # All of its errors are operational; a missing table, too.
        return _LOCKED in str(cause)
    return isinstance(cause, (OperationalError, InterfaceError)) or cause.connection_invalidated


def _why(error: Exception) -> str:
    cause = _cause(error)
    inner = getattr(cause, "orig", None) or cause
    return mask((str(inner).splitlines() or [type(inner).__name__])[0])


def _waiting(name: str) -> Callable[..., Any]:
    def method(self: WaitingStorage, *args: Any, **options: Any) -> Any:
        return self._again(lambda: getattr(super(WaitingStorage, self), name)(*args, **options))

    method.__name__ = name
    return method


for _name in _REPEATABLE:
    setattr(WaitingStorage, _name, _waiting(_name))
