"""TorchJD's aggregators as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trainables.errors import ConfigError
from trainables.methods.base import Update
from trainables.methods.gramian import Array, GradientConfig, GradientMethod, Rows, SolverInfo
from trainables.methods.gramian.method import no_weights
from trainables.methods.torchjd.library import (
    Option,
    aggregator_class,
    build,
    drawing,
    rehearse,
    restore,
    sees,
    state_of,
)


class AggregatorConfig(GradientConfig):
    """The fields of every ``torchjd:<Name>``."""

    options: dict[str, Option] = Field(default_factory=dict)
    """Arguments of the aggregator's constructor, by name; a list of numbers for a tensor. The number of tasks is
    given to those that want it."""

    @model_validator(mode="after")
    def _readable(self) -> AggregatorConfig:
        if self.scale != "sum":
            raise ConfigError("method.scale: an aggregator of TorchJD has the scale that TorchJD gives it")
        if self.decoder_grads == "weighted" and self.name.endswith((":ConFIG", ":GradDrop", ":TrimmedMean")):
            raise ConfigError(f"method.decoder_grads: '{self.name}' makes no weights for the decoders (allowed: plain)")
        return self


class TorchJDAggregator(GradientMethod):
    """An aggregator of TorchJD, an optional library: from the task gradients to one update of the trunk.

    Those that work on the Gramian get it in float64, the others the Jacobian as one matrix. An iteration for which
    TorchJD raises, or gives numbers that are not finite, is left out and counted (``grads/skipped``).
    """

    Config: ClassVar[type[GradientConfig]] = AggregatorConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        first = next(iter(update.shared))
        self._device = first.device
        self.aggregator: Any = _made(config, len(self.tasks), first.dtype, first.device)
        self._sees = sees(self.aggregator)
        if self._sees != "gramian" and config.grad_space == "representation" and update.processes > 1:
            raise ConfigError(
                f"method.grad_space: '{config.name}' sees the gradients themselves, and of the representation each of "
                f"{update.processes} processes has a part alone (allowed: shared)"
            )

    def combine(self, rows: Rows, gramian: Array) -> tuple[list[Tensor], Array, SolverInfo]:
        """What the aggregator makes of the gradients."""
        weights = np.zeros(len(gramian))
        info = no_weights(gramian)
        failed = SolverInfo(inactive=info.inactive, conflicts=info.conflicts, finite=False)
        if not info.finite:
            return [], weights, failed
        try:
            with torch.no_grad(), drawing(self.generator, self._device):
                combined, found = self._aggregate(rows, torch.from_numpy(gramian))
        except Exception:  # noqa: BLE001 - the libraries below TorchJD raise types of their own
            return [], weights, failed
        if not bool(torch.stack([part.isfinite().all() for part in combined]).all()):
            return [], weights, failed
        return combined, weights if found is None else found.double().cpu().numpy(), info

    def _aggregate(self, rows: Rows, gramian: Tensor) -> tuple[list[Tensor], Tensor | None]:
        if self._sees == "gramian":
            weights: Tensor = self.aggregator.gramian_weighting(gramian)
            return rows.combine(weights), weights
        jacobian = torch.cat(rows.blocks, dim=1)
        if self._sees == "jacobian":
            weights = self.aggregator.weighting(jacobian)
            return rows.combine(weights), weights
        vector: Tensor = self.aggregator(jacobian)
        return [part.view(shape) for part, shape in zip(vector.split(rows.sizes), rows.shapes, strict=True)], None

    def state_dict(self) -> dict[str, Any]:
        """The aggregator's memory, too."""
        return {**super().state_dict(), "aggregator": state_of(self.aggregator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        restore(self.aggregator, state["aggregator"], torch.device("cpu") if self._sees == "gramian" else self._device)

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where TorchJD is missing, or does not take the options or the number of tasks."""
        rehearse(_made(config, len(tasks), torch.float64, torch.device("cpu")), torch.eye(len(tasks)).double())


def _made(config: Any, tasks: int, dtype: torch.dtype, device: torch.device) -> nn.Module:
    cls = aggregator_class(config.name)
    made = build(cls, config.options, tasks, dtype=dtype, device=device)
    if sees(made) == "gramian":
        return build(cls, config.options, tasks)
    return made
