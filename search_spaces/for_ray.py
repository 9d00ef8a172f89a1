"""A space as Ray Tune knows it, for Tune's own sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.axes import Axis
from search_spaces.domains import Choice, Float
from search_spaces.fields import plain
from search_spaces.space import Point, Space
from trainables.config import TrialConfig

DRAWS = "draws"
"""Key of what Tune draws, one value per axis."""

POINT = "point"
"""Key of the point that is made of the draws."""


def to_ray(space: Space, base: Mapping[str, Any] | TrialConfig | None = None) -> dict[str, Any]:
    """A ``param_space`` for ``Tuner``: ``config["point"]`` is the point, with the axes that exist only.

    Tune draws every axis under ``draws``, seeded as Tune is (a function of one's own would draw outside its
    generator), and ``tune.sample_from`` keeps of them those whose conditions hold. Tune's searchers cannot translate
    ``sample_from``: with Optuna use define by run (:func:`search_spaces.suggest`), whose records hold no dead
    parameters either.

    Args:
        space: the space.
        base: the config that is searched from; conditions look at it.
    """
    from ray import tune

    start = plain(base or {})

    def point(spec: Any) -> Point:
        # Tune gives the whole spec or the config in it. Read by attribute, a draw that is not there yet is noticed, and
        # Tune asks again.
        draws = getattr(spec, "config", spec).draws
        return space.alive({path: getattr(draws, path) for path in space.paths}, start)

    return {DRAWS: {axis.path: _domain(axis) for axis in space.axes}, POINT: tune.sample_from(point)}


def _domain(axis: Axis) -> Any:
    from ray import tune

    domain = axis.domain
    if isinstance(domain, Choice):
        return tune.choice(list(domain.values))
    if isinstance(domain, Float):
        if domain.log:
            return tune.loguniform(domain.low, domain.high)
        # A quantised uniform counts from 0; steps are counted from the low end, so they are drawn as a choice.
        return tune.uniform(domain.low, domain.high) if domain.step is None else tune.choice(list(domain.points()))
    if domain.log:
        return tune.lograndint(domain.low, domain.high + 1)
    if domain.step is not None:
        return tune.choice(list(domain.points()))
    return tune.randint(domain.low, domain.high + 1)
