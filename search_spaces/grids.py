"""Every point of a space, where they can be counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.axes import Axis
from search_spaces.domains import Choice
from search_spaces.fields import apply, plain
from search_spaces.space import Point, Space
from trainables.config import TrialConfig
from trainables.errors import ConfigError, unknown


def to_grid(
    space: Space,
    counts: Mapping[str, int] | int | None = None,
    base: Mapping[str, Any] | TrialConfig | None = None,
) -> list[Point]:
    """Every combination, the last axis fastest, each once; an axis that does not exist at a point is not in it.

    Args:
        space: the space.
        counts: how many values a range gives, at equal distances on its own scale: by path, or one number for all. A
            range of whole numbers or of steps needs none and then gives every value.
        base: the config that is searched from; conditions look at it.

    Raises:
        ConfigError: a range without steps has no count, or ``counts`` names an axis that is not there or is a choice.
    """
    for path in counts if isinstance(counts, Mapping) else ():
        if path not in space:
            raise ConfigError(f"counts: {unknown('axis', path, space.paths)}")
        if isinstance(space[path].domain, Choice):
            raise ConfigError(f"counts.{path}: the axis is a choice, all its values are taken")
    values = {axis.path: _values(axis, counts) for axis in space.axes}
    start = plain(base or {})

    def below(index: int, point: Point) -> Iterator[Point]:
        if index == len(space.axes):
            yield point
            return
        axis = space.axes[index]
        if axis.when is not None and not axis.active(apply(start, point)):
            yield from below(index + 1, point)
            return
        for value in values[axis.path]:
            yield from below(index + 1, {**point, axis.path: value})

    return list(below(0, {}))


def _values(axis: Axis, counts: Mapping[str, int] | int | None) -> tuple[Any, ...]:
    count = counts.get(axis.path) if isinstance(counts, Mapping) else counts
    try:
        return axis.domain.points(count)
    except ConfigError as error:
        raise ConfigError(f"axes.{axis.path}: {error}") from None
