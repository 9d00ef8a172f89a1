"""Named things a config can ask for: methods, data sets, backbones, task sets, clusterers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from trainables.errors import ConfigError, unknown

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A read-mostly mapping from name to thing whose lookup errors name the nearest entry.

    Filled in one visible place: the ``__init__`` of the package that owns it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T) -> T:
        """Add ``entry`` under ``name``; raises ``ValueError`` where the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered already")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        """The entry; raises :class:`ConfigError` naming the nearest entry where there is none."""
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise ConfigError(unknown(self.kind, name, self._entries)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
