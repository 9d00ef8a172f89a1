"""What an axis may take: given values, or a range of numbers with its scale."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from trainables.errors import ConfigError, unknown

_TOLERANCE = 1e-9
"""How far, in steps, a number may be off the grid of its range: rounding, no more."""


def equal(a: Any, b: Any) -> bool:
    """Whether two values make the same trial: equal, and not a number against a truth value."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


@dataclass(frozen=True)
class Choice:
    """One of some values of any plain kind.

    Attributes:
        values: at least one, no two equal.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Refuse nothing, something twice, and what no YAML file could hold."""
        if isinstance(self.values, (str, Mapping)) or not isinstance(self.values, Sequence):
            raise ConfigError(f"choice: a list of values is wanted, got {self.values!r}")
        values = tuple(deepcopy(list(self.values)))
        object.__setattr__(self, "values", values)
        if not values:
            raise ConfigError("an axis needs at least one value")
        for index, value in enumerate(values):
            if value in values[:index]:
                raise ConfigError(f"the value {value!r} is given twice")
            try:
                plain = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError):
                plain = None
            if plain != value:
                raise ConfigError(f"a number, text, truth value, null, list or mapping is wanted, got {value!r}")

    def contains(self, value: Any) -> bool:
        """Whether ``value`` is one of them."""
        return any(equal(value, own) for own in self.values)

    def within(self, other: Domain) -> bool:
        """Whether every value is in ``other``."""
        return all(other.contains(value) for value in self.values)

    def representatives(self) -> tuple[Any, ...]:
        """Every value: each is a case of its own."""
        return self.values

    def points(self, count: int | None = None) -> tuple[Any, ...]:
        """Every value, whatever ``count``."""
        return self.values

    def to_dict(self) -> dict[str, Any]:
        """As plain data, which :func:`domain_from` reads."""
        return {"choice": deepcopy(list(self.values))}

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


@dataclass(frozen=True)
class _Range:
    """What the two kinds of range have in common."""

    low: Any
    high: Any
    log: bool = False
    step: Any = None

    _kind = ""

    def _check(self) -> None:
        kind = self._kind
        if not isinstance(self.log, bool):
            raise ConfigError(f"log: true or false is wanted, got {self.log!r}")
        if not self.low < self.high:
            raise ConfigError(f"{kind}: low < high is wanted, got {self.low} and {self.high}; one value is a choice")
        if self.log and self.low <= 0:
            raise ConfigError(f"{kind}: a logarithmic range starts above 0, got {self.low}")
        if self.step is None:
            return
        if self.log:
            raise ConfigError(f"{kind}: a range has a step or a logarithmic scale, not both")
        if self.step <= 0:
            raise ConfigError(f"step: above 0 is wanted, got {self.step}")
        if not self._on_grid(self.high):
            raise ConfigError(f"step: {self.step} does not lead from {self.low} to {self.high}")

    def _on_grid(self, value: Any) -> bool:
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) <= _TOLERANCE * max(1.0, abs(steps))

    def contains(self, value: Any) -> bool:
        """Whether ``value`` is a number of this kind, in the range and on its grid."""
        if isinstance(value, bool) or not isinstance(value, int if self._kind == "int" else (int, float)):
            return False
        return self.low <= value <= self.high and (self.step is None or self._on_grid(value))

    def within(self, other: Domain) -> bool:
        """Whether every number of this range is in ``other``."""
        if type(self) is not type(other) or not isinstance(other, _Range):
            return False
        if not (other.contains(self.low) and other.contains(self.high)):
            return False
        own = self.step if self.step is not None or self._kind == "float" else 1
        if other.step is None:
            return True
        return own is not None and abs(own / other.step - round(own / other.step)) <= _TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """As plain data, which :func:`domain_from` reads."""
        out: dict[str, Any] = {self._kind: [self.low, self.high]}
        if self.log:
            out["log"] = True
        if self.step is not None:
            out["step"] = self.step
        return out

    def __str__(self) -> str:
        extra = ", logarithmic" if self.log else f" in steps of {self.step}" if self.step is not None else ""
        return f"{self.low} to {self.high}{extra}"


@dataclass(frozen=True)
class Float(_Range):
    """A real number between two ends, both included.

    Attributes:
        low: smallest.
        high: largest.
        log: drawn uniformly in its logarithm.
        step: distance of neighbours, counted from ``low``; ``None`` for any number between.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    _kind = "float"

    def __post_init__(self) -> None:
        """Refuse ends and steps that make no range."""
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if name == "step" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"float: {name}: a finite number is wanted, got {value!r}")
            object.__setattr__(self, name, float(value))
        self._check()

    def representatives(self) -> tuple[float, ...]:
        """Both ends: between them a field's type and bounds hold where they hold at the ends."""
        return (self.low, self.high)

    def points(self, count: int | None = None) -> tuple[float, ...]:
        """Numbers of a grid, ends included: those of the steps, or ``count`` at equal distances on the range's scale.

        Raises:
            ConfigError: there is neither step nor count, or the count is below 2.
        """
        if count is None:
            if self.step is None:
                raise ConfigError("a range without steps needs a count of values for a grid")
            count = round((self.high - self.low) / self.step) + 1
            return tuple(tidy(self.low + index * self.step) for index in range(count))
        _enough(count)
        if self.log:
            ratio = math.log(self.high / self.low)
            inner = [self.low * math.exp(ratio * index / (count - 1)) for index in range(1, count - 1)]
        else:
            inner = [self.low + (self.high - self.low) * index / (count - 1) for index in range(1, count - 1)]
        if self.step is not None:
            inner = [self.low + round((value - self.low) / self.step) * self.step for value in inner]
        return tuple(dict.fromkeys([self.low, *map(tidy, inner), self.high]))


@dataclass(frozen=True)
class Int(_Range):
    """A whole number between two ends, both included.

    Attributes:
        low: smallest.
        high: largest.
        log: drawn uniformly in its logarithm.
        step: distance of neighbours, counted from ``low``; ``None`` for 1.
    """

    low: int
    high: int
    log: bool = False
    step: int | None = None

    _kind = "int"

    def __post_init__(self) -> None:
        """Refuse ends and steps that make no range."""
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if name == "step" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"int: {name}: a whole number is wanted, got {value!r}")
        self._check()

    def representatives(self) -> tuple[int, ...]:
        """Both ends: between them a field's type and bounds hold where they hold at the ends."""
        return (self.low, self.high)

    def points(self, count: int | None = None) -> tuple[int, ...]:
        """Every number, or about ``count`` of them at equal distances on the range's scale, ends included; fewer where
        two would round to one.

        Raises:
            ConfigError: the count is below 2.
        """
        every = range(self.low, self.high + 1, self.step or 1)
        if count is None or count >= len(every):
            return tuple(every)
        _enough(count)
        if self.log:
            ratio = math.log(self.high / self.low)
            wanted = [self.low * math.exp(ratio * index / (count - 1)) for index in range(count)]
        else:
            wanted = [self.low + (self.high - self.low) * index / (count - 1) for index in range(count)]
        nearest = (every[min(len(every) - 1, round((value - self.low) / every.step))] for value in wanted)
        return tuple(dict.fromkeys(nearest))


Domain = Choice | Float | Int


def tidy(value: float) -> float:
    """A number of a grid to twelve digits: 0.1 + 2 * 0.1 is to be the same trial as a 0.3 written by hand."""
    return float(f"{value:.12g}")


def _enough(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ConfigError(f"counts: at least 2 values of a range are wanted, both ends being among them, got {count!r}")


_FIELDS: Mapping[str, tuple[str, ...]] = {"choice": (), "float": ("log", "step"), "int": ("log", "step")}


def domain_from(value: Mapping[str, Any]) -> Domain:
    """A domain from plain data: ``{choice: [...]}``, ``{float: [low, high], log: true}`` or ``{int: [low, high],
    step: 2}``.

    Raises:
        ConfigError: another kind, another field, or ends that make no range.
    """
    kinds = [kind for kind in _FIELDS if kind in value]
    if len(kinds) != 1:
        got = ", ".join(map(str, value)) or "none"
        raise ConfigError(f"one of {', '.join(_FIELDS)} is wanted, with values or ends; fields given: {got}")
    kind = kinds[0]
    for name in value:
        if name != kind and name not in _FIELDS[kind]:
            raise ConfigError(unknown("field", name, [kind, *_FIELDS[kind]]))
    given = value[kind]
    if kind == "choice":
        return Choice(given)
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise ConfigError(f"{kind}: [low, high] is wanted, got {given!r}")
    options = {name: value[name] for name in _FIELDS[kind] if name in value}
    return Float(*given, **options) if kind == "float" else Int(*given, **options)
