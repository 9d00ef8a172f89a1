"""Dynamic weight average: a loss that fell least lately weighs most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.base import Losses, MethodConfig, Update
from trainables.methods.weighting import LossWeighted, LossWeightedConfig


class DWAConfig(LossWeightedConfig):
    """The fields of ``dwa``."""

    name: Literal["dwa"] = "dwa"
    temperature: float = Field(default=2.0, gt=0)
    """T: the larger, the more even the weights. Paper: 2."""
    window: Annotated[int, Field(ge=1, le=100_000)] | Literal["epoch"] = "epoch"
    """What the compared losses are averaged over. ``epoch``: whole epochs, new weights after each (paper, mtan,
    LibMTL, TorchJD). A number n: the last n iterations against the n before them, new weights each iteration;
    nash-mtl, FAMO's and SamsungLabs' codes have 25."""
    scale: Literal["sum", "mean"] = "sum"
    """``sum``: the weights sum to K (paper, mtan, LibMTL, TorchJD). ``mean``: to 1, a K-th of it (nash-mtl,
    SamsungLabs); the unit weights of the start are then 1/K, too."""


class DWA(LossWeighted):
    """Dynamic weight average: ``lambda = K softmax(w / T)`` with ``w_k = L_k(t-1) / L_k(t-2)`` over epochs t.

    The weights are 1 until two epochs (or windows) are complete. A task whose earlier mean is 0 counts as unchanged,
    w = 1. Source: Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, equation 7, and
    the authors' code (mtan). nash-mtl compares the first windows with ones it made up; here they are waited for.
    """

    Config: ClassVar[type[MethodConfig]] = DWAConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        count = len(self.tasks)
        self.means = torch.empty(0, count, dtype=torch.float64)
        """(0 to 2, K) the mean losses of the last complete windows, the older one first."""
        self._open = torch.zeros(count, dtype=torch.float64)
        self._open_count = 0
        self._recent = torch.empty(0, count, dtype=torch.float64)

    def weigh(self, losses: Tensor) -> Tensor:
        """(K,) from the complete windows alone."""
        weights = torch.ones_like(losses)
        if len(self.means) == 2:
            older, newer = self.means
            rates = torch.where(older > 0, newer / older, 1.0).nan_to_num()
            weights = len(losses) * torch.softmax(rates / self.config.temperature, dim=0)
        # A weight of exactly 0 is an underflow: the task would be frozen out for good.
        weights = weights.clamp(min=torch.finfo(torch.float32).tiny)
        return weights / len(losses) if self.config.scale == "mean" else weights

    def learn(self, losses: Tensor, forward: Losses) -> dict[str, float]:
        """Take the losses into the open window."""
        if self.config.window == "epoch":
            self._open += losses
            self._open_count += 1
            if self._open_count == self.update.iterations_per_epoch:
                self.means = torch.cat([self.means, (self._open / self._open_count)[None]])[-2:]
                self._open = torch.zeros_like(self._open)
                self._open_count = 0
        else:
            size = self.config.window
            self._recent = torch.cat([self._recent, losses[None]])[-2 * size :]
            if len(self._recent) == 2 * size:
                self.means = torch.stack([self._recent[:size].mean(dim=0), self._recent[size:].mean(dim=0)])
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The complete windows and the open one, too."""
        return {
            **super().state_dict(),
            "means": self.means.clone(),
            "open": self._open.clone(),
            "open_count": self._open_count,
            "recent": self._recent.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.means = state["means"].clone()
        self._open = state["open"].clone()
        self._open_count = state["open_count"]
        self._recent = state["recent"].clone()
