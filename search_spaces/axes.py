"""An axis: a dotted path into the trial config, what it may take, and when it exists."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from search_spaces.domains import Choice, Domain, Float, Int, domain_from, equal
from search_spaces.fields import filled, lookup
from trainables.errors import ConfigError, unknown


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A list as a tuple, anything else as its one element."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@dataclass(frozen=True)
class Condition:
    """When an axis exists: every path has one of its values, by an earlier axis or in the config that is searched from.

    Attributes:
        allowed: path to a value or a list of values; kept as tuples. The name of a component stands for the component.
    """

    allowed: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        """Refuse a condition that always or never holds."""
        if not isinstance(self.allowed, Mapping) or not self.allowed:
            raise ConfigError(f"when: a mapping of paths to values is wanted, got {self.allowed!r}")
        allowed = {path: as_tuple(values) for path, values in self.allowed.items()}
        for path, values in allowed.items():
            if not values:
                raise ConfigError(f"when.{path}: at least one value is wanted")
        object.__setattr__(self, "allowed", allowed)

    def __hash__(self) -> int:
        return hash(tuple(self.allowed))

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether ``config`` (plain data, defaults need not be given) meets it."""
        fields = filled(config)
        return all(any(_is(lookup(fields, path), value) for value in values) for path, values in self.allowed.items())

    def to_dict(self) -> dict[str, Any]:
        """As plain data, one value of a path without a list."""
        return {path: values[0] if len(values) == 1 else list(values) for path, values in self.allowed.items()}


def _is(found: Any, wanted: Any) -> bool:
    if isinstance(found, Mapping) and isinstance(wanted, str):
        found = found.get("name")
    return equal(found, wanted)


@dataclass(frozen=True)
class Axis:
    """One thing that varies.

    Attributes:
        path: dotted path of a trial-config field, like ``method.beta``.
        domain: what it may take; a bare list of values is a choice among them.
        when: the condition under which it exists; ``None`` for always.
        source: where the range is from.
    """

    path: str
    domain: Domain
    when: Condition | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse an axis that names nothing or repeats itself."""
        if not isinstance(self.path, str) or not all(self.path.split(".")):
            raise ConfigError(f"axes: '{self.path}' is not a field path (like optim.lr)")
        if not isinstance(self.source, str):
            raise ConfigError(f"axes.{self.path}: source: text is wanted, got {self.source!r}")
        domain: Any = self.domain
        if not isinstance(domain, (Choice, Float, Int)):
            try:
                object.__setattr__(self, "domain", Choice(domain))
            except ConfigError as error:
                raise ConfigError(f"axes.{self.path}: {error}") from None
        if self.when is not None and not isinstance(self.when, Condition):
            raise ConfigError(f"axes.{self.path}: when: a Condition is wanted, got {self.when!r}")
        for path in self.when.allowed if self.when else ():
            if path == self.path or path.startswith(f"{self.path}."):
                raise ConfigError(f"axes.{self.path}: when: depends on '{path}', which the axis itself sets")

    @property
    def values(self) -> tuple[Any, ...]:
        """Every value, in order; raises :class:`ConfigError` for a range without steps."""
        try:
            return self.domain.points()
        except ConfigError as error:
            raise ConfigError(f"axes.{self.path}: {error}") from None

    def active(self, config: Mapping[str, Any]) -> bool:
        """Whether the axis exists in ``config`` (plain data, with the earlier axes' values set)."""
        return self.when is None or self.when.holds(config)

    def to_dict(self) -> dict[str, Any]:
        """As plain data without the path, which :func:`axis_from` reads."""
        out = self.domain.to_dict()
        if self.when is not None:
            out["when"] = self.when.to_dict()
        if self.source:
            out["source"] = self.source
        return out


def axis_from(path: str, value: Any, where: str = "axes") -> Axis:
    """An axis from plain data: a list of values, or ``{choice | float | int: ..., log, step, when, source}``.

    Raises:
        ConfigError: naming ``where`` and the path.
    """
    try:
        if isinstance(value, Mapping):
            rest = {name: inner for name, inner in value.items() if name not in ("when", "source")}
            if len(rest) == len(value) and not rest:
                raise ConfigError("a list of values or a range is wanted, got nothing")
            for name in rest:
                if name not in _AXIS_FIELDS:
                    raise ConfigError(unknown("field", name, _AXIS_FIELDS))
            when = Condition(deepcopy(dict(value["when"]))) if value.get("when") is not None else None
            return Axis(path, domain_from(rest), when, value.get("source") or "")
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"a list of values is wanted, got {value!r}")
        return Axis(path, Choice(tuple(value)))
    except ConfigError as error:
        text = str(error).removeprefix(f"axes.{path}: ")
        raise ConfigError(f"{where}.{path}: {text}") from None


_AXIS_FIELDS = ("choice", "float", "int", "log", "step", "when", "source")


def axes_from(mapping: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    """Axes from ``{path: [values]}`` or ``{path: {float: [low, high], ...}}``; raises :class:`ConfigError` for anything
    else."""
    return tuple(axis_from(path, value, f"{where}.axes") for path, value in mapping.items())


def grid(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Every combination, the last axis fastest, as path to value. One empty combination where there is no axis."""
    for values in itertools.product(*(axis.values for axis in axes)):
        yield dict(zip((axis.path for axis in axes), values, strict=True))
