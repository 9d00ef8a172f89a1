"""A space: axes in order, composed, narrowed and sampled, with those that do not apply left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from search_spaces.axes import Axis, axis_from
from search_spaces.domains import Choice, Domain, equal
from search_spaces.fields import apply, plain
from trainables.config import TrialConfig
from trainables.errors import ConfigError, unknown
from trainables.settings import parse_yaml

Point = dict[str, Any]
"""Path to value, in the order of the space's axes, of the axes that exist there."""


@dataclass(frozen=True)
class Space:
    """Axes in order. An axis may depend on earlier ones and on the config that is searched from, never on later ones.

    Attributes:
        axes: no two of the same path; a component before its own fields.
    """

    axes: tuple[Axis, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a path twice, and an axis that a later one would undo or decide upon."""
        object.__setattr__(self, "axes", tuple(self.axes))
        seen: list[str] = []
        for axis in self.axes:
            if axis.path in seen:
                raise ConfigError(f"axes.{axis.path}: given twice")
            for earlier in seen:
                if earlier.startswith(f"{axis.path}."):
                    raise ConfigError(f"axes.{axis.path}: would undo '{earlier}', which comes before it; put it first")
            seen.append(axis.path)
        for index, axis in enumerate(self.axes):
            for later in self.axes[index + 1 :]:
                if axis.when and any(touches(later.path, path) for path in axis.when.allowed):
                    raise ConfigError(f"axes.{axis.path}: when: depends on '{later.path}', which comes after it")

    def __add__(self, other: Space) -> Space:
        """Both, this one's axes first; raises :class:`ConfigError` naming a path that is in both."""
        if not isinstance(other, Space):
            return NotImplemented
        return Space((*self.axes, *other.axes))

    def __iter__(self) -> Iterator[Axis]:
        return iter(self.axes)

    def __len__(self) -> int:
        return len(self.axes)

    def __contains__(self, path: object) -> bool:
        return path in self.paths

    def __getitem__(self, path: str) -> Axis:
        """The axis of that path; raises :class:`ConfigError` naming the nearest one."""
        self._known([path])
        return next(axis for axis in self.axes if axis.path == path)

    @property
    def paths(self) -> tuple[str, ...]:
        """The axes' paths, in order."""
        return tuple(axis.path for axis in self.axes)

    def restrict(self, path: str, domain: Domain) -> Space:
        """The space with ``domain`` for one axis; raises :class:`ConfigError` where it is not within the axis's own."""
        own = self[path].domain
        if not domain.within(own):
            raise ConfigError(f"axes.{path}: {domain} is not within {own}")
        return Space(tuple(replace(axis, domain=domain) if axis.path == path else axis for axis in self.axes))

    def fix(self, path: str, value: Any) -> Space:
        """The space with one value for one axis, which is then set and not asked for."""
        return self.restrict(path, Choice((value,)))

    def only(self, paths: Iterable[str]) -> Space:
        """The space of these axes, in the order they have here."""
        wanted = list(paths)
        self._known(wanted)
        return Space(tuple(axis for axis in self.axes if axis.path in wanted))

    def without(self, paths: Iterable[str]) -> Space:
        """The space of the other axes."""
        unwanted = list(paths)
        self._known(unwanted)
        return Space(tuple(axis for axis in self.axes if axis.path not in unwanted))

    def _known(self, paths: Iterable[str]) -> None:
        for path in paths:
            if path not in self.paths:
                raise ConfigError(f"axes: {unknown('axis', path, self.paths)}")

    def sample_with(self, suggest: Callable[[Axis], Any], base: Mapping[str, Any] | TrialConfig | None = None) -> Point:
        """One point, axis by axis.

        Args:
            suggest: gives the value of an axis; asked for the axes that exist only (define by run), and not where
                there is one value.
            base: the config that is searched from, as far as it differs from the defaults.

        Raises:
            ConfigError: a value is not in its axis's domain.
        """
        start = plain(base or {})
        point: Point = {}
        for axis in self.axes:
            if not axis.active(apply(start, point) if axis.when else start):
                continue
            single = isinstance(axis.domain, Choice) and len(axis.domain.values) == 1
            value = axis.domain.points()[0] if single else suggest(axis)
            if not axis.domain.contains(value):
                raise ConfigError(f"axes.{axis.path}: {axis.domain} is wanted, got {value!r}")
            point[axis.path] = value
        return point

    def alive(self, values: Mapping[str, Any], base: Mapping[str, Any] | TrialConfig | None = None) -> Point:
        """The point in ``values``: those of the axes that exist, in order; the others left out.

        Raises:
            ConfigError: a value is missing, or not in its axis's domain.
        """

        def given(axis: Axis) -> Any:
            if axis.path not in values:
                raise ConfigError(f"axes.{axis.path}: a value is missing")
            return values[axis.path]

        point = self.sample_with(given, base)
        for path, value in point.items():
            if path in values and not equal(values[path], value):
                raise ConfigError(f"axes.{path}: {self[path].domain} is wanted, got {values[path]!r}")
        return point

    def check(self, base: Mapping[str, Any] | TrialConfig | None = None) -> None:
        """Find out before anything runs whether the trial config takes what the space gives.

        Every value of a choice and both ends of a range are tried in a whole config, each where its axis exists; of
        the axes that others depend on every combination is.

        Raises:
            ConfigError: naming the axis, the value, and what the config says.
        """
        from search_spaces.checking import check_space

        check_space(self, plain(base or {}))

    def to_dict(self) -> dict[str, Any]:
        """As plain data: path to axis, in order."""
        return {axis.path: axis.to_dict() for axis in self.axes}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "") -> Space:
        """From what :meth:`to_dict` gives; raises :class:`ConfigError` naming ``where`` and the axis."""
        prefix = f"{where}.axes" if where else "axes"
        if not isinstance(value, Mapping):
            raise ConfigError(f"{prefix}: a mapping of paths to axes is wanted, got {value!r}")
        axes = tuple(axis_from(path, inner, prefix) for path, inner in value.items())
        try:
            return cls(axes)
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}" if where else str(error)) from None

    def to_yaml(self) -> str:
        """As YAML text."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120)
        return text

    @classmethod
    def from_yaml(cls, text: str, source: str = "space") -> Space:
        """From YAML text; raises :class:`ConfigError` naming ``source``."""
        return cls.from_dict(parse_yaml(text, source) or {}, source)


def touches(path: str, other: str) -> bool:
    """Whether setting ``path`` may change what is at ``other``."""
    return path == other or other.startswith(f"{path}.")
