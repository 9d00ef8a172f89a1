"""Axes as Optuna knows them. An axis's path is the parameter's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search_spaces.axes import Axis
from search_spaces.domains import Choice, Float, tidy
from search_spaces.space import Space
from trainables.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial


def to_optuna(axis: Axis) -> BaseDistribution:
    """The distribution of an axis.

    Optuna keeps only text, numbers, truth values and ``None``; where a choice has a list or a mapping among its
    values, all of them become JSON text (:func:`encode`), so that no two can be mistaken for each other.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    domain = axis.domain
    if isinstance(domain, Choice):
        return CategoricalDistribution([encode(axis, value) for value in domain.values])
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step or 1)


def to_optuna_space(space: Space) -> dict[str, BaseDistribution]:
    """Path to distribution of every axis, conditions left aside: what a sampler that wants the whole space gets."""
    return {axis.path: to_optuna(axis) for axis in space.axes}


def suggest(trial: BaseTrial, axis: Axis) -> Any:
    """The value that ``trial`` suggests for an axis, decoded: ``space.sample_with(partial(suggest, trial), base)``."""
    domain = axis.domain
    if isinstance(domain, Choice):
        return decode(axis, trial.suggest_categorical(axis.path, [encode(axis, value) for value in domain.values]))
    if isinstance(domain, Float):
        return decode(axis, trial.suggest_float(axis.path, domain.low, domain.high, log=domain.log, step=domain.step))
    return trial.suggest_int(axis.path, domain.low, domain.high, log=domain.log, step=domain.step or 1)


def _as_text(axis: Axis) -> bool:
    return isinstance(axis.domain, Choice) and any(isinstance(value, (list, Mapping)) for value in axis.domain.values)


def encode(axis: Axis, value: Any) -> Any:
    """A value of ``axis`` as Optuna keeps it."""
    return json.dumps(value, sort_keys=True) if _as_text(axis) else value


def decode(axis: Axis, value: Any) -> Any:
    """The value of ``axis`` that Optuna keeps as ``value``; raises :class:`ConfigError` where it is none."""
    if isinstance(axis.domain, Float) and axis.domain.step is not None and isinstance(value, float):
        return tidy(value)
    if not _as_text(axis):
        return value
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        raise ConfigError(f"axes.{axis.path}: JSON text is wanted, got {value!r}") from None


def to_params(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as ``enqueue_trial`` takes it."""
    return {path: encode(space[path], value) for path, value in point.items()}


def from_params(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The point of a trial's parameters."""
    return {path: decode(space[path], value) for path, value in params.items()}
