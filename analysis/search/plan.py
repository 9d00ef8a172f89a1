"""A search as its run records it (``search.json``): contenders, axes, sampler, pruner, objective."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainables.errors import StoreError

Value = Any
"""Of an axis: number, text, truth value, ``None``, list or mapping."""


@dataclass(frozen=True)
class Axis:
    """One thing that a contender's trials vary.

    Attributes:
        path: dotted path of a trial-config field.
        kind: ``choice``, ``float`` or ``int``.
        values: of a choice, in order; empty for a range.
        low: of a range, included; NaN for a choice.
        high: of a range, included; NaN for a choice.
        log: whether a range's scale is logarithmic.
        when: path to the values under which the axis exists; empty for always.
    """

    path: str
    kind: str
    values: tuple[Value, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    when: Mapping[str, Any] | None = None

    @property
    def cells(self) -> int:
        """Values of a choice; 0 for a range."""
        return len(self.values)

    def place(self, value: Value) -> float:
        """Where a value is between 0 and 1: the middle of its cell for a choice, on the range's scale for a number.

        Raises:
            StoreError: it is no value of the axis.
        """
        if self.kind == "choice":
            return (self.index(value) + 0.5) / self.cells
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise StoreError(f"axis '{self.path}': a number is wanted, the records have {value!r}")
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def at(self, place: float) -> float:
        """The number of a range at a place between 0 and 1."""
        if self.log:
            return self.low * (self.high / self.low) ** place
        return self.low + place * (self.high - self.low)

    def index(self, value: Value) -> int:
        """Which of a choice's values it is; raises :class:`StoreError` for none."""
        key = same(value)
        for index, own in enumerate(self.values):
            if same(own) == key:
                return index
        raise StoreError(f"axis '{self.path}': the records have {value!r}, which is none of its values")

    @property
    def short(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]

    def condition(self) -> str:
        """When it exists, in words; empty for always."""
        parts = []
        for path, allowed in (self.when or {}).items():
            values = allowed if isinstance(allowed, (list, tuple)) else [allowed]
            parts.append(f"{path} is {' or '.join(said(value) for value in values)}")
        return " and ".join(parts)


def same(value: Value) -> str:
    """A key that equal values share, and 1 and ``true`` do not."""
    return json.dumps(value, sort_keys=True)


def said(value: Value) -> str:
    """A value as labels show it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def short_names(axes: Sequence[Axis]) -> dict[str, str]:
    """Path to the shortest end of it that no other axis shares."""
    names = {}
    for axis in axes:
        parts = axis.path.split(".")
        for length in range(1, len(parts) + 1):
            end = ".".join(parts[-length:])
            others = [a.path for a in axes if a.path != axis.path]
            if not any(other == end or other.endswith(f".{end}") for other in others):
                break
        names[axis.path] = end
    return names


def point_in(axes: Sequence[Axis], config: Mapping[str, Any]) -> dict[str, Value]:
    """The values of a resolved trial config at the axes that exist in it; an axis whose values it has none of is left
    out."""
    point: dict[str, Value] = {}
    for axis in axes:
        found = _field(config, axis.path)
        exists = all(
            any(_is(_field(config, path), value) for value in (allowed if isinstance(allowed, list) else [allowed]))
            for path, allowed in (axis.when or {}).items()
        )
        if not exists:
            continue
        if axis.kind != "choice":
            if isinstance(found, (int, float)) and axis.low <= found <= axis.high:
                point[axis.path] = found
            continue
        fitting = next((value for value in axis.values if _is(found, value)), None)
        if fitting is not None or any(value is None and found is None for value in axis.values):
            point[axis.path] = fitting
    return point


def _field(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _is(found: Any, wanted: Any) -> bool:
    """Equal, or a component that ``wanted`` names or gives some fields of."""
    if isinstance(found, Mapping) and isinstance(wanted, str):
        return bool(found.get("name") == wanted)
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return all(_is(found.get(key), value) for key, value in wanted.items())
    return same(found) == same(wanted)


class _Record(BaseModel):
    """Frozen and strict about what it knows; fields a later writer adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Named(_Record):
    name: str
    seed: int = 0


class _Objective(_Record):
    name: str = "delta_m"
    of: str = "trunk_passes"


class _Budget(_Record):
    trials: int | None = None
    trunk_passes: float | None = None


class SearchContender(_Record):
    """One thing that is tuned."""

    id: str
    """Short name."""
    label: str
    """As tables show it."""
    optuna_study: str
    """Name of its Optuna study, by which its trials are found."""
    config: dict[str, Any]
    """The trial of its defaults, resolved."""
    space: dict[str, dict[str, Any]]
    """Path to axis."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """In the space's order; raises :class:`StoreError` for one that is none."""
        return tuple(_axis(path, value) for path, value in self.space.items())


class SearchPlan(_Record):
    """A search at a profile."""

    schema_version: Literal[1] = Field(alias="schema")
    """Of ``search.json``."""
    search: str
    """Its id."""
    title: str
    """One line."""
    about: str = ""
    """What it asks."""
    profile: str
    """The scale it ran at."""
    objective: _Objective = _Objective()
    """What was sought."""
    sampler: _Named
    """Who proposed."""
    pruner: _Named
    """Who stopped."""
    budget: _Budget = _Budget()
    """Of each contender."""
    contenders: tuple[SearchContender, ...] = Field(min_length=1)
    """In order."""

    @property
    def way(self) -> str:
        """Sampler and pruner: ``tpe+asha``."""
        return f"{self.sampler.name}+{self.pruner.name}"

    @property
    def budget_text(self) -> str:
        """The budget of each contender, in words."""
        parts = [f"{self.budget.trials} trials"] if self.budget.trials else []
        if self.budget.trunk_passes:
            parts.append(f"{self.budget.trunk_passes:,.0f} trunk passes")
        return " or ".join(parts)

    @property
    def studies(self) -> tuple[str, ...]:
        """The contenders' Optuna studies."""
        return tuple(contender.optuna_study for contender in self.contenders)


def _axis(path: str, value: Mapping[str, Any]) -> Axis:
    when = value.get("when")
    if isinstance(value.get("choice"), list) and value["choice"]:
        return Axis(path, "choice", tuple(value["choice"]), when=when)
    for kind in ("float", "int"):
        ends = value.get(kind)
        if isinstance(ends, list) and len(ends) == 2 and ends[0] < ends[1]:
            low, high = map(float, ends)
            return Axis(path, kind, low=low, high=high, log=bool(value.get("log")), when=when)
    raise StoreError(f"axis '{path}' of the recorded search: neither a choice nor a range ({value})")


def read_search(path: Path) -> SearchPlan:
    """Read ``search.json``.

    Raises:
        StoreError: it cannot be read, or is no record of a search of this layout.
    """
    try:
        return SearchPlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise StoreError(f"{path}: not a search of this layout: {field}: {problem['msg']}") from None
