"""Paper and released code as two presets of a whole trial.

Every difference between the two (research notes: the released repository read at commit 53a8ba2) is a field of the
config; the defaults are the paper's. ``preset: released`` at the top of a trial config sets them all the other way,
save those given explicitly.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from trainables.errors import ConfigError, unknown
from trainables.methods.selective.presets import PAPER, RELEASED

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {f"method.{path}": value for path, value in PAPER.items()},
    "released": {
        **{f"method.{path}": value for path, value in RELEASED.items()},
        "optim.head_lr_scale": "tasks",
        "train.data_order": "fixed",
        "tasks.normal_loss": "width_axis",
    },
}
"""Preset to dotted field paths and values. Paths below ``method`` apply to the selective method only, the loss along
the width axis to Taskonomy only."""


def expand_preset(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` without its ``preset``, the preset's fields filled in where ``value`` gives none."""
    config = dict(value)
    if "preset" not in config:
        return config
    name = config.pop("preset")
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"preset: {unknown('preset', name, PRESETS)}")
    method, tasks = config.get("method"), config.get("tasks", {})
    selective = (method.get("name") if isinstance(method, Mapping) else method) == "selective"
    taskonomy = isinstance(tasks, Mapping) and tasks.get("set", "taskonomy") == "taskonomy"
    below: dict[str, Any] = {"method": {"name": "selective"}} if selective else {}
    for path, preset_value in PRESETS[name].items():
        applies = selective if path.startswith("method.") else taskonomy if path.startswith("tasks.") else True
        if applies:
            below = set_path(below, path, preset_value)
    merged: dict[str, Any] = merge(below, config)
    return merged


def set_path(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of ``config`` with the field at the dotted ``path`` set.

    A component given by bare name (``method: gd``) becomes a mapping on the way. Another ``name`` for a component drops
    the fields it has, which are the other one's. Raises :class:`ConfigError` where the path runs through a plain value.
    """
    if not path or any(not part for part in path.split(".")):
        raise ConfigError(f"'{path}' is not a field path (like optim.lr)")
    head, _, rest = path.partition(".")
    out = dict(config)
    if not rest and head == "name" and config.get("name", value) != value:
        return {"name": deepcopy(value)}
    if not rest:
        out[head] = merge(out[head], value) if head in out and isinstance(value, Mapping) else deepcopy(value)
        return out
    inner = out.get(head, {})
    if isinstance(inner, str):
        inner = {"name": inner}
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{path}: '{head}' has no fields")
    out[head] = set_path(inner, rest, value)
    return out


def merge(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``, field by field; a component of another ``name`` replaces the one below it whole.

    A bare name is the component with nothing said about its fields.
    """
    if isinstance(base, str) and isinstance(over, Mapping):
        base = {"name": base}
    if isinstance(base, Mapping) and isinstance(over, str) and "name" in base:
        over = {"name": over}
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return deepcopy(over)
    if "name" in over and over["name"] != base.get("name", over["name"]):
        return deepcopy(dict(over))
    out = {key: deepcopy(value) for key, value in base.items()}
    for key, value in over.items():
        out[key] = merge(out[key], value) if key in out else deepcopy(value)
    return out
