"""Where a given config stands in a space: settings to start a search from, finished trials to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from search_spaces.axes import Axis
from search_spaces.domains import Choice
from search_spaces.fields import MISSING, apply, filled, lookup, plain
from search_spaces.space import Point, Space
from trainables.config import TrialConfig
from trainables.errors import ConfigError


def default_point(space: Space, config: Mapping[str, Any] | TrialConfig) -> Point:
    """The values that ``config`` itself has at the axes that exist in it: setting them changes nothing.

    Raises:
        ConfigError: the config's value at an axis is not in its domain; the axis is named.
    """
    point, refused = _walk(space, plain(config), plain(config))
    if refused is not None:
        value = _shown(lookup(filled(plain(config)), refused.path))
        raise ConfigError(f"axes.{refused.path}: the config has {value}, {refused.domain} is wanted")
    return point


def point_of(
    space: Space,
    config: Mapping[str, Any] | TrialConfig,
    base: Mapping[str, Any] | TrialConfig,
    ignore: Iterable[str] = ("seed", "record"),
) -> Point | None:
    """The point of ``space`` that makes ``config`` out of ``base``; ``None`` where there is none.

    Args:
        space: the space.
        config: of a trial, say a finished one.
        base: the config that is searched from.
        ignore: top-level fields in which the two may differ, although no axis is there.
    """
    wanted = filled(plain(config))
    point, refused = _walk(space, wanted, plain(base))
    if refused is not None:
        return None
    made = filled(apply(plain(base), point))
    for field in ignore:
        made.pop(field, None)
        wanted.pop(field, None)
    return point if made == wanted else None


def fits(
    space: Space,
    config: Mapping[str, Any] | TrialConfig,
    base: Mapping[str, Any] | TrialConfig,
    ignore: Iterable[str] = ("seed", "record"),
) -> bool:
    """Whether ``config`` is ``base`` with some point of ``space``; see :func:`point_of`."""
    return point_of(space, config, base, ignore) is not None


def _walk(space: Space, config: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[Point, Axis | None]:
    """The values of ``config`` at the axes that exist, and the first axis that does not take its own."""
    fields = filled(config)
    point: Point = {}
    for axis in space.axes:
        if not axis.active(apply(base, point)):
            continue
        value = _value(axis, lookup(fields, axis.path))
        if value is MISSING:
            return point, axis
        point[axis.path] = value
    return point, None


def _value(axis: Axis, found: Any) -> Any:
    """The value of the domain that ``found`` is; a component is its name, or those of its fields that a choice has."""
    if found is not MISSING and axis.domain.contains(found):
        return found
    if not isinstance(axis.domain, Choice) or not isinstance(found, Mapping):
        return MISSING
    fitting = [value for value in axis.domain.values if _part(value, found)]
    return max(fitting, key=_size, default=MISSING)


def _part(value: Any, found: Any) -> bool:
    if isinstance(value, str) and isinstance(found, Mapping):
        return bool(value == found.get("name"))
    if isinstance(value, Mapping) and isinstance(found, Mapping):
        return all(key in found and _part(inner, found[key]) for key, inner in value.items())
    return bool(value == found)


def _size(value: Any) -> int:
    return sum(_size(inner) for inner in value.values()) if isinstance(value, Mapping) else 1


def _shown(value: Any) -> str:
    if value is MISSING:
        return "no value"
    return repr(value.get("name", value)) if isinstance(value, Mapping) else repr(value)
