"""Dynamic task prioritization: the harder a task still is, the more it weighs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trainables.errors import ConfigError
from trainables.methods.base import MethodConfig, Update
from trainables.methods.weighting import LossWeighted, LossWeightedConfig


class DTPConfig(LossWeightedConfig):
    """The fields of ``dtp``."""

    name: Literal["dtp"] = "dtp"
    gamma: float = Field(default=1.0, ge=0)
    """Focusing exponent of the weight ``-(1 - k)^gamma log k``: the larger, the less an easy task weighs. The paper
    allows one per task; here all share it."""
    alpha: float = Field(default=0.1, gt=0, le=1)
    """Weight of the new batch in the moving average of the indicator, ``k <- (1 - alpha) k + alpha k_new``. This
    project knows of no published value; 0.1 remembers about ten batches."""
    kpi: Literal["progress", "likelihood"] = "progress"
    """The key performance indicator in [0, 1], from the losses of the training batch. ``progress``: ``1 - L / L_0``,
    the share of the initial loss that is gone. ``likelihood``: ``exp(-L)``, for cross-entropy the geometric mean of
    the probabilities given to the true classes; for any other loss it depends on the loss's unit."""
    reference_iterations: int = Field(default=10, ge=1)
    """``L_0`` is the mean loss of a task over this many of its first batches (over those seen so far, before). One
    batch alone is a noisy divisor for the whole of training. Read by ``progress``."""
    kpi_min: float = Field(default=0.1, gt=0, lt=1)
    """The averaged indicator is not taken for less: the weight is infinite at 0."""
    kpi_max: float = Field(default=0.99, gt=0, lt=1)
    """The averaged indicator is not taken for more: the weight is 0 at 1, and a task without weight is not learned
    again when it gets worse."""

    @model_validator(mode="after")
    def _ordered(self) -> DTPConfig:
        if self.kpi_min >= self.kpi_max:
            raise ConfigError(f"method.kpi_min: less than kpi_max is wanted, got {self.kpi_min} and {self.kpi_max}")
        if self.kpi != "progress" and self.reference_iterations != 10:
            raise ConfigError("method.reference_iterations: read by kpi 'progress' only")
        return self


class DTP(LossWeighted):
    """Dynamic task prioritization: ``w_k = -(1 - k_k)^gamma log k_k`` with k a moving average of the task's indicator.

    Source: Guo et al., "Dynamic Task Prioritization for Multitask Learning", ECCV 2018, the prioritization among
    tasks. The focal loss within each task is left out, as in the surveys' comparisons: it would change the losses,
    which are the task set's. The authors released no code.

    The paper wants an indicator in [0, 1] that is high for an easy task, such as accuracy, and leaves the choice to
    the user. Most tasks here are dense regressions, whose accuracies exist only up to thresholds (a depth within
    25 %, a normal within 30 degrees); curvature, keypoints, edges and segments of Taskonomy have no customary ones.
    Any we made up would set the balance between tasks. The share of the initial loss that is gone needs none, has no
    unit, means the same for L1, cross-entropy and cosine losses, and costs nothing. What it cannot see is how much of
    a loss can be removed at all: a task with much label noise stays "hard" for ever, as it does under accuracy.

    A loss of exactly 0 is a batch without a label for the task and leaves its indicator as it was.
    """

    Config: ClassVar[type[MethodConfig]] = DTPConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.kpi = torch.full((len(self.tasks),), torch.nan, dtype=torch.float64)
        """(K,) the averaged indicators; NaN before the first."""
        self._reference = torch.zeros(len(self.tasks), dtype=torch.float64)
        self._reference_count = torch.zeros(len(self.tasks), dtype=torch.int64)

    def weigh(self, losses: Tensor) -> Tensor:
        """(K,) from the indicators with this batch's in them."""
        labelled = losses != 0
        new = self._indicator(losses, labelled)
        averaged = torch.where(self.kpi.isnan(), new, (1 - self.config.alpha) * self.kpi + self.config.alpha * new)
        self.kpi = torch.where(labelled, averaged, self.kpi)
        # Of a task not seen so far nothing is learned.
        kpi = self.kpi.nan_to_num(nan=0.0).clamp(self.config.kpi_min, self.config.kpi_max)
        return -((1 - kpi) ** self.config.gamma) * kpi.log()

    def _indicator(self, losses: Tensor, labelled: Tensor) -> Tensor:
        if self.config.kpi == "likelihood":
            return (-losses).exp().clamp(0, 1)
        counted = labelled & (self._reference_count < self.config.reference_iterations)
        self._reference_count += counted
        step = (losses - self._reference) / self._reference_count.clamp(min=1)
        self._reference = torch.where(counted, self._reference + step, self._reference)
        return (1 - losses / self._reference).nan_to_num(nan=0.0).clamp(0, 1)

    def state_dict(self) -> dict[str, Any]:
        """The averaged indicators and the initial losses, too."""
        return {
            **super().state_dict(),
            "kpi": self.kpi.clone(),
            "reference": self._reference.clone(),
            "reference_count": self._reference_count.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.kpi = state["kpi"].clone()
        self._reference = state["reference"].clone()
        self._reference_count = state["reference_count"].clone()
