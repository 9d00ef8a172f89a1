"""Named things a config can ask for: methods, data sets, backbones, task sets, clusterers; this package's own and those
that other installed packages add by entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from trainables.errors import ConfigError, ExtensionError, unknown

T = TypeVar("T")

OWN = "mtl-study"
"""The package whose entries a registry is filled with at first."""

Complaint = Callable[[str, Any], str]
"""(name, entry) -> what is wrong with an entry that another package gives; empty where nothing is."""


class Registry(Mapping[str, T]):
    """A read-mostly mapping from name to thing whose lookup errors name the nearest entry.

    Filled in one visible place: the ``__init__`` of the package that owns it. Entry points of other packages are looked
    for at the first name that is not among those, or when the names are listed; each is imported when it is first
    asked for.

    Args:
        kind: of the entries, for messages.
        group: of the entry points by which other packages add to it; empty where none can.
        complaint: what is wrong with an entry of another package.
    """

    def __init__(self, kind: str, group: str = "", complaint: Complaint = lambda name, entry: "") -> None:
        self.kind = kind
        self.group = group
        self._complaint = complaint
        self._entries: dict[str, T] = {}
        self._loaded: dict[str, T] = {}
        self._points: dict[str, EntryPoint] | None = None

    def register(self, name: str, entry: T) -> T:
        """Add ``entry`` under ``name``; raises ``ValueError`` where the name is taken."""
        if name in self._entries or name in (self._points or {}):
            raise ValueError(f"{self.kind} '{name}' is registered already")
        self._entries[name] = entry
        return entry

    def stamp(self, name: str) -> dict[str, Any]:
        """What beside an entry's name decides results: the package it comes from and its ``result_version``.

        Empty for this package's own entries at version 1: trial keys made before there were others stay as they are.
        """
        version = getattr(self[name], "result_version", 1)
        if name in self._entries:
            return {} if version == 1 else {"result_version": version}
        return {"package": _package(self._extensions()[name]), "result_version": version}

    def __getitem__(self, name: str) -> T:
        """The entry.

        Raises:
            ConfigError: there is none; the message names the nearest one.
            ExtensionError: the package that adds it cannot be imported, or gives something else.
        """
        if not isinstance(name, str) or name not in self:
            raise ConfigError(unknown(self.kind, name, self))
        if name in self._entries:
            return self._entries[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(self._extensions()[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._extensions()

    def __iter__(self) -> Iterator[str]:
        return iter([*self._entries, *self._extensions()])

    def __len__(self) -> int:
        return len(self._entries) + len(self._extensions())

    def _extensions(self) -> Mapping[str, EntryPoint]:
        """The entry points of other packages by name; raises :class:`ExtensionError` for a name that two give."""
        if self._points is None:
            found: dict[str, EntryPoint] = {}
            for point in sorted(entry_points(group=self.group) if self.group else (), key=lambda p: p.name):
                if point.name in self._entries or point.name in found:
                    other = _package(found[point.name]) if point.name in found else OWN
                    raise ExtensionError(
                        f"{self.kind} '{point.name}' is in two packages, {other} and {_package(point)}: "
                        f"uninstall one, or rename it in its entry points"
                    )
                found[point.name] = point
            self._points = found
        return self._points

    def _load(self, point: EntryPoint) -> T:
        what = f"{self.kind} '{point.name}' of package {_package(point)}"
        try:
            entry: T = point.load()
        except Exception as error:  # importing another's code can raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ExtensionError(f"{what}: cannot be imported from {point.value}: {reason}") from error
        version = getattr(entry, "result_version", 1)
        wrong = self._complaint(point.name, entry)
        if not wrong and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
            wrong = f"its result_version is {version!r}; a whole number from 1 is wanted"
        if wrong:
            raise ExtensionError(f"{what}: {point.value}: {wrong}")
        return entry


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module.partition(".")[0]


def component_of(base: type) -> Complaint:
    """What is wrong with an entry that has to be a subclass of ``base`` whose ``Config`` has the registered name."""

    def complaint(name: str, entry: Any) -> str:
        if not isinstance(entry, type) or not issubclass(entry, base):
            return f"a subclass of {base.__module__}.{base.__name__} is wanted"
        field = getattr(getattr(entry, "Config", None), "model_fields", {}).get("name")
        if field is None:
            return "it has no Config with a field 'name'"
        if isinstance(field.default, str) and field.default != name:
            return f"its config's name is '{field.default}', its entry point's '{name}'"
        return ""

    return complaint


def having(*attributes: str) -> Complaint:
    """What is wrong with an entry that has to have these attributes, ``name`` as it is registered."""

    def complaint(name: str, entry: Any) -> str:
        missing = [attribute for attribute in ("name", *attributes) if not hasattr(entry, attribute)]
        if missing:
            return f"it has no '{missing[0]}'"
        return "" if entry.name == name else f"its name is '{entry.name}', its entry point's '{name}'"

    return complaint
