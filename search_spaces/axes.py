"""An axis: a dotted path into the trial config and the values it takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.errors import ConfigError
from trainables.presets import set_path


@dataclass(frozen=True)
class Axis:
    """One thing that varies.

    Attributes:
        path: dotted path of a trial-config field, like ``method.beta``.
        values: at least one, no two equal.
    """

    path: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Refuse an axis that names nothing or repeats itself."""
        if not self.values:
            raise ConfigError(f"axes.{self.path}: an axis needs at least one value")
        for index, value in enumerate(self.values):
            if value in self.values[:index]:
                raise ConfigError(f"axes.{self.path}: the value {value!r} is given twice")


def axes_from(mapping: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    """Axes from ``{path: [values]}``; raises :class:`ConfigError` for anything else."""
    axes = []
    for path, values in mapping.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ConfigError(f"{where}.axes.{path}: a list of values is wanted, got {values!r}")
        try:
            axes.append(Axis(path, tuple(values)))
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from None
    return tuple(axes)


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every combination, the last axis fastest, as path to value. One empty combination where there is no axis."""
    for values in itertools.product(*(axis.values for axis in axes)):
        yield dict(zip((axis.path for axis in axes), values, strict=True))


def apply(config: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` (plain data) with the fields of one combination set."""
    out = dict(config)
    for path, value in point.items():
        out = set_path(out, path, value)
    return out
