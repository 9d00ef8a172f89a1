"""Fields of a trial config given as plain data, perhaps not all of them: what they are, with the defaults filled in.

A space looks at configs that are not complete yet (a grouping named, its number of groups still to be drawn), which
:func:`trainables.config.load_trial` rightly refuses. What is here never refuses, it only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from trainables.config import TrialConfig
from trainables.data import DATA_SETS
from trainables.methods import METHODS
from trainables.methods.selective import CLUSTERERS, GROUPINGS
from trainables.presets import expand_preset, set_path
from trainables.registry import Registry
from trainables.settings import Settings

COMPONENTS: Mapping[str, Registry[Any]] = {
    "data": DATA_SETS,
    "method": METHODS,
    "method.grouping": GROUPINGS,
    "method.grouping.clusterer": CLUSTERERS,
}
"""Path of every field that holds a component chosen by name, and where its names are registered."""

MISSING: Any = object()
"""What :func:`lookup` gives where a config has no such field."""


def plain(config: Mapping[str, Any] | TrialConfig) -> Mapping[str, Any]:
    """A config as plain data."""
    return config.to_dict() if isinstance(config, TrialConfig) else config


def apply(config: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` (plain data) with the fields of one combination set, in the point's order.

    Another name for a component replaces it with all its fields; the name it has already leaves them as they are. A
    field of a component that ``config`` leaves to its default is set in that default.
    """
    out = dict(config)
    for path, value in point.items():
        for inner in COMPONENTS:
            if path.startswith(f"{inner}.") and lookup(out, inner) is MISSING:
                name = lookup(filled(out), f"{inner}.name")
                out = out if name is MISSING else set_path(out, inner, {"name": name})
        named = path in COMPONENTS and isinstance(value, str)
        out = set_path(out, path, {"name": value} if named else value)
    return out


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the default of every field it leaves out, those of its components included; a preset expanded.

    A required field that is not given stays absent; a component whose name is unknown stays as it is.
    """
    return _filled(TrialConfig, expand_preset(config), "")


def _filled(model: type[Settings], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    out: dict[str, Any] = {key: value for key, value in given.items() if key not in model.model_fields}
    for name, info in model.model_fields.items():
        if name not in given and info.is_required():
            continue
        at = f"{path}.{name}" if path else name
        value = given[name] if name in given else to_jsonable_python(_default(info))
        inner = _model(at, info.annotation, value)
        if inner is not None:
            value = _filled(inner, {"name": value} if isinstance(value, str) else value, at)
        out[name] = value
    return out


def _default(info: Any) -> Any:
    value = info.get_default(call_default_factory=True)
    return value.to_dict() if isinstance(value, Settings) else value


def _model(path: str, annotation: Any, value: Any) -> type[Settings] | None:
    """The class that the fields of ``value`` belong to; ``None`` for a plain value and for a component of no name."""
    if path in COMPONENTS:
        name = value.get("name") if isinstance(value, Mapping) else value
        if not isinstance(name, str) or name not in COMPONENTS[path]:
            return None
        entry = COMPONENTS[path][name]
        model: type[Settings] = getattr(entry, "Config", entry)
        return model
    is_group = isinstance(annotation, type) and issubclass(annotation, Settings) and isinstance(value, Mapping)
    return annotation if is_group else None


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or :data:`MISSING`."""
    at: Any = config
    for part in path.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return MISSING
        at = at[part]
    return at
