"""Points that a search tries before any its sampler proposes: the defaults, the spec's, an enumeration's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from search_spaces import default_point, to_params
from study.search import enumeration
from study.search.entries import POINT
from study.search.enumeration import Enumeration
from study.search.plan import PlannedContender
from study.search.spec import SearchSpec
from trainables.errors import ConfigError

logger = logging.getLogger(__name__)


class Queue:
    """What waits in an Optuna study, whose storage keeps it.

    Args:
        study: Optuna's.
        contender: what is tuned.
        spec: with points of its own, and the sampler.
    """

    def __init__(self, study: optuna.Study, contender: PlannedContender, spec: SearchSpec) -> None:
        self._study, self._contender, self._points = study, contender, spec.points
        self._list = Enumeration(spec.sampler, contender) if spec.sampler.name in enumeration.NAMES else None

    def begin(self) -> None:
        """Enqueue the defaults, where the space has them, and the spec's points."""
        try:
            first = [default_point(self._contender.space, self._contender.base)]
        except ConfigError as error:
            logger.info("contender %s: its defaults are not tried: %s", self._contender.id, error)
            first = []
        for point in (*first, *self._points):
            if set(point) <= set(self._contender.space.paths):
                self.enqueue({**(first[0] if first else {}), **point})

    def enqueue(self, values: Mapping[str, Any]) -> None:
        """Enqueue a point; known ones are not tried again.

        Raises:
            ConfigError: it is not in the space.
        """
        point = self._contender.space.alive(values, self._contender.base)
        unknown = [path for path in values if path not in self._contender.space]
        if unknown:
            raise ConfigError(f"points: '{unknown[0]}' is no axis of contender '{self._contender.id}'")
        self._study.enqueue_trial(to_params(self._contender.space, point), skip_if_exists=True)

    def follow(self) -> bool:
        """Of a sampler that enumerates, enqueue its next point where nothing waits; false where there is none left."""
        if self._list is None:
            return True
        trials = self._study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        point = self._list.next({str(trial.user_attrs.get(POINT)) for trial in trials})
        if point is None:
            return False
        self._study.enqueue_trial(to_params(self._contender.space, point))
        return True
