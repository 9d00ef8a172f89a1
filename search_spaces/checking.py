"""Whether the trial config takes what a space gives, found out on representative points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.axes import Axis
from search_spaces.fields import COMPONENTS, apply
from search_spaces.space import Point, Space, touches
from trainables.config import load_trial
from trainables.errors import ConfigError, UserError, unknown


def check_space(space: Space, base: Mapping[str, Any]) -> None:
    """See :meth:`Space.check`. The points grow with the combinations of the axes that others depend on, and beyond
    those with the sum of the axes' values, not their product."""
    _check_conditions(space)
    tried: set[str] = set()
    for context in contexts(space, base):
        _load(base, context, None)
        for axis in space.axes:
            if axis.path not in context or axis.path in tried or _decides(space, axis):
                continue
            tried.add(axis.path)
            for value in axis.domain.representatives()[1:]:
                _load(base, {**context, axis.path: value}, axis.path)


def contexts(space: Space, base: Mapping[str, Any]) -> Iterator[Point]:
    """One point for each combination of the axes that others depend on; the other axes at their first value."""

    def below(index: int, point: Point) -> Iterator[Point]:
        if index == len(space.axes):
            yield point
            return
        axis = space.axes[index]
        if not axis.active(apply(base, point)):
            yield from below(index + 1, point)
            return
        values = axis.domain.representatives()
        for value in values if _decides(space, axis) else values[:1]:
            yield from below(index + 1, {**point, axis.path: value})

    yield from below(0, {})


def _decides(space: Space, axis: Axis) -> bool:
    """Whether other axes exist or not by this one's value, or lie inside what it sets."""
    others = [other for other in space.axes if other is not axis]
    conditions = (path for other in others if other.when for path in other.when.allowed)
    return any(touches(axis.path, path) for path in (*conditions, *(other.path for other in others)))


def _check_conditions(space: Space) -> None:
    # An axis under a misspelt name would never exist, and never be missed.
    for axis in space.axes:
        for path, values in axis.when.allowed.items() if axis.when else ():
            registry = COMPONENTS.get(path.removesuffix(".name"))
            for value in values:
                if registry is not None and value not in registry:
                    raise ConfigError(f"axes.{axis.path}: when.{path}: {unknown(registry.kind, value, registry)}")


def _load(base: Mapping[str, Any], point: Point, varied: str | None) -> None:
    error = _refusal(base, point)
    if error is None:
        return
    path = varied or _culprit(base, point, error)
    if path is None:
        raise ConfigError(f"the config searched from: {error}")
    raise ConfigError(f"axes.{path}: the value {point[path]!r} is refused: {error}")


def _refusal(base: Mapping[str, Any], point: Point) -> str | None:
    try:
        load_trial(apply(base, point))
    except UserError as error:
        return str(error)
    return None


def _culprit(base: Mapping[str, Any], point: Point, error: str) -> str | None:
    """The axis that an error is about: the one whose field it names, or the one without which there is none."""
    field = error.partition(":")[0].split(" ")[0]
    named = [path for path in point if touches(path, field)]
    if named:
        return max(named, key=len)
    for path in reversed(point):
        rest = {other: value for other, value in point.items() if other != path and not touches(path, other)}
        if _refusal(base, rest) is None:
            return path
    return None
