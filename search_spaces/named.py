"""Spaces by name: one YAML file per kind in ``spaces/``, one per method in ``spaces/methods/``.

Data and not code, as the studies are: a file can be read, copied, changed and given back by its path, needs nothing
run, and what :meth:`Space.to_yaml` writes fits under its ``axes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import Field

from search_spaces.axes import as_tuple
from search_spaces.space import Space
from trainables.errors import ConfigError, unknown
from trainables.methods import METHODS
from trainables.settings import Settings, parse_yaml, read_yaml

_METHODS = "methods/"


class SpaceFile(Settings):
    """A space as a file."""

    about: str = ""
    """One line."""
    include: tuple[str, ...] = ()
    """Names of spaces that come with the package, whose axes come first."""
    when: dict[str, Any] = Field(default_factory=dict)
    """A condition on every axis of the file, beside the axis's own."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """Path to axis: a list of values, or a mapping of ``choice: [...]``, ``float: [low, high]`` or ``int: [low, high]``
    with ``log``, ``step``, ``when`` and ``source``."""


@cache
def _files() -> Mapping[str, Traversable]:
    """The files that come with the package, by the names of their spaces."""
    folder = files("search_spaces") / "spaces"
    out: dict[str, Traversable] = {}
    for prefix, directory in (("", folder), (_METHODS, folder / "methods")):
        for entry in directory.iterdir():
            if entry.name.endswith(".yaml"):
                out[prefix + entry.name.removesuffix(".yaml")] = entry
    return dict(sorted(out.items()))


def space_names() -> tuple[str, ...]:
    """Names of the spaces that come with the package."""
    return tuple(_files())


def _file(name: str) -> SpaceFile:
    return SpaceFile.parse(read_yaml(Path(name)), name) if name.endswith((".yaml", ".yml")) else _packaged(name)


@cache
def _packaged(name: str) -> SpaceFile:
    if name not in _files():
        raise ConfigError(unknown("space", name, _files()))
    return SpaceFile.parse(parse_yaml(_files()[name].read_text(encoding="utf-8"), f"{name}.yaml"), f"{name}.yaml")


def about(name: str) -> str:
    """What a space is, in one line; raises :class:`ConfigError` naming the nearest name."""
    return _file(name).about


def space(name: str) -> Space:
    """A space by name, or from a YAML file by its path.

    Raises:
        ConfigError: the name is unknown (the nearest is named), or there is a mistake in the file.
    """
    file = _file(name)
    where = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    axes = {path: _conditioned(path, value, file.when, where) for path, value in file.axes.items()}
    out = Space()
    for part in file.include:
        if part not in _files():
            raise ConfigError(f"{where}: include: {unknown('space', part, _files())}")
        out = out + space(part)
    return out + Space.from_dict(axes, where)


def _conditioned(path: str, value: Any, when: Mapping[str, Any], where: str) -> Any:
    if not when:
        return value
    if not isinstance(value, Mapping):
        value = {"choice": value}
    own = value.get("when") or {}
    for field in own if isinstance(own, Mapping) else ():
        if field in when and not set(as_tuple(own[field])) <= set(as_tuple(when[field])):
            raise ConfigError(f"{where}.axes.{path}: when.{field}: not among those of the whole file")
    return {**value, "when": {**when, **own} if isinstance(own, Mapping) else own}


def method_space(method: str) -> Space:
    """The knobs of a method, each under that method only; empty for one that has none.

    Raises:
        ConfigError: there is no such method; the nearest is named.
    """
    if method not in METHODS:
        raise ConfigError(unknown("method", method, METHODS))
    name = _METHODS + method.replace(":", "_")
    return space(name) if name in _files() else Space()
