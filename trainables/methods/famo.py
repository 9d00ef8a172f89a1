"""FAMO: all losses are to fall at one relative rate, learned from what each step did to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.errors import ConfigError, unknown
from trainables.methods.base import Losses, MethodConfig, Update
from trainables.methods.weighting import LossWeighted, LossWeightedConfig, TaskNumbers

_EPS = 1e-8


class FAMOConfig(LossWeightedConfig):
    """The fields of ``famo``."""

    name: Literal["famo"] = "famo"
    lr: float = Field(default=0.025, gt=0)
    """Learning rate of the task logits, constant. 0.025 in the paper and all codes."""
    gamma: float = Field(default=1e-3, ge=0)
    """Decay of the task logits, Adam's coupled weight decay. Paper, LibMTL, TorchJD: 1e-3. The authors' code has 1e-5
    (``weight_methods.py``) and 0.01 (``famo.py``, command line) as defaults and runs its experiments with 1e-3, 1e-2
    and 0."""
    min_losses: dict[str, float] = Field(default_factory=dict)
    """Lower bound of a task's loss by task, subtracted from it; 0 for those not named, as in the authors'
    experiments."""
    max_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the trunk's gradient. ``null``: none, as in the paper's algorithm, LibMTL and TorchJD. The
    authors' code clips at 1, but does so for every method it compares; to have it for every method set
    ``optim.clip_norm``, which is over trunk and decoders together."""


class FAMO(LossWeighted):
    """FAMO: descend ``c sum_k z_k log D_k`` with ``z = softmax(xi)``, then learn xi from the change of ``log D``.

    ``D_k = L_k - min_k + 1e-8`` and ``c = 1 / sum_k (z_k / D_k)``, a constant: the weights on the losses' gradients,
    ``c z_k / D_k``, sum to 1. After the step a forward without gradients on the same batch gives
    ``delta = log D(before) - log D(after)``, and xi takes an Adam step along the gradient of ``softmax(xi) . delta``.
    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1, and the authors' code.

    The second forward is made as the first one was, in training mode, as in the authors' code and LibMTL. With drop
    path or dropout it draws new masks, and delta then holds their noise besides what the step did; with a small
    learning rate the noise is the larger part. ``model.drop_path: 0`` shows the difference.

    Unlike the authors' code this keeps no graph between iterations. A loss below its minimum counts as at it. Where
    the losses after the step are not finite, xi is left as it is; the curve ``famo/unmeasured`` counts that.
    """

    Config: ClassVar[type[MethodConfig]] = FAMOConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.logits = TaskNumbers(len(self.tasks), 0.0, weight_decay=config.gamma)
        self._minimum = torch.tensor([config.min_losses.get(task, 0.0) for task in self.tasks], dtype=torch.float64)
        self.unmeasured = 0

    def weigh(self, losses: Tensor) -> Tensor:
        """(K,) ``c z / D``; sums to 1."""
        shares = torch.softmax(self.logits.values, dim=0) / self._above(losses)
        return shares / shares.sum()

    def before_step(self) -> None:
        """Clip the trunk's gradient, if asked for."""
        if self.config.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.update.shared, self.config.max_norm)

    def learn(self, losses: Tensor, forward: Losses) -> dict[str, float]:
        """Look at the same batch again and take a step of the logits."""
        with torch.no_grad():
            after = self.on_host(self.stack(forward()))
        if bool(after.isfinite().all()):
            delta = self._above(losses).log() - self._above(after).log()
            z = torch.softmax(self.logits.values, dim=0)
            # The gradient of softmax(xi) . delta.
            self.logits.descend(z * (delta - z @ delta), self.config.lr)
        else:
            self.unmeasured += 1
        return {"famo/unmeasured": float(self.unmeasured)}

    def _above(self, losses: Tensor) -> Tensor:
        """(K,) D, at least 1e-8."""
        return (losses - self._minimum).clamp(min=0.0) + _EPS

    def state_dict(self) -> dict[str, Any]:
        """The logits and their optimizer's moments, too."""
        return {**super().state_dict(), "logits": self.logits.state_dict(), "unmeasured": self.unmeasured}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.logits.load_state_dict(state["logits"])
        self.unmeasured = state["unmeasured"]

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where ``min_losses`` names a task that is not trained."""
        for name in config.min_losses:
            if name not in tasks:
                raise ConfigError(f"method.min_losses: {unknown('task', name, tasks)}")

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """Two forwards, the second without gradients, one backward and one step."""
        return 2.0, 1.0, 1.0
