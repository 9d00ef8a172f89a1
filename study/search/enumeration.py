"""Samplers that propose every point of a finite list: a grid in order, or all points in random order."""

from __future__ import annotations

import json
import random
from collections.abc import Collection

from search_spaces import Choice, Point, to_grid
from study.search.plan import PlannedContender
from study.search.spec import SamplerConfig
from trainables.seeding import derive

NAMES = ("grid", "brute_force")


class Enumeration:
    """Every point of a contender's space, once.

    Args:
        config: ``grid`` or ``brute_force``, with seed and number of values.
        contender: whose space.

    Raises:
        ConfigError: ``brute_force`` on a range without steps, which has no end.
    """

    def __init__(self, config: SamplerConfig, contender: PlannedContender) -> None:
        grid = config.name == "grid"
        wide = [axis.path for axis in contender.space if grid and not isinstance(axis.domain, Choice)]
        self._points = to_grid(contender.space, dict.fromkeys(wide, config.counts), contender.base)
        if not grid:
            random.Random(derive(config.seed, "enumeration")).shuffle(self._points)

    def next(self, seen: Collection[str]) -> Point | None:
        """The first point that is not among those seen (JSON); ``None`` where none is left."""
        return next((point for point in self._points if json.dumps(point) not in seen), None)
