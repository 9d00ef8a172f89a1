"""Nash-MTL: the Nash bargaining solution between the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.base import Update
from trainables.methods.gramian import (
    Array,
    GramianConfig,
    GramianMethod,
    SolverInfo,
    TaskGradients,
    nash,
    solve,
)


class NashMTLConfig(GramianConfig):
    """The fields of ``nash_mtl``."""

    name: Literal["nash_mtl"] = "nash_mtl"
    decoder_grads: Literal["plain", "weighted"] = "weighted"
    """What the decoders get. Authors' code: ``weighted``, by backward on the weighted sum of losses."""
    scale: Literal["sum"] = "sum"
    """The formula fixes the scale: the update has norm sqrt(K)."""
    max_norm: float = Field(default=1.0, ge=0)
    """Largest norm of the shared parameters' gradient; 0 for any. Authors' code: 1, which is always at work, for the
    norm is sqrt(K)."""
    update_weights_every: int = Field(default=1, ge=1)
    """New weights every so many steps; in between the last ones are used, at the cost of one backward pass. Authors: 1;
    they report little loss for more."""


class NashMTL(GramianMethod):
    """``d = sum_k w_k g_k`` with w > 0 and ``(G w)_k = 1 / w_k``, solved exactly.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, claim 3.1 and algorithm 1. The authors
    approximate w by a sequence of convex programs, often off by percents from a cold start; this is what they
    approximate. Unlike all the others, d does not grow with the gradients: unscale them before, or train in bfloat16.
    """

    Config: ClassVar[type[NashMTLConfig]] = NashMTLConfig
    degree: ClassVar[int] = 0

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.weights: list[float] | None = None
        """The last ones, and how many steps they have served."""
        self.served = 0

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """Weights > 0; see :func:`trainables.methods.gramian.nash`."""
        return solve(gramian, nash, degree=0, epsilon=epsilon)

    def weigh(self, gramian: Array, precision: torch.dtype) -> tuple[Array, SolverInfo]:
        """The weights, kept for the steps that follow."""
        weights, info = super().weigh(gramian, precision)
        if info.finite:
            self.weights, self.served = weights.tolist(), 0
        return weights, info

    def aggregated(self, gradients: TaskGradients) -> tuple[list[Tensor | None], Array, SolverInfo]:
        """New weights when due, else the last ones with one backward pass."""
        self.served += 1
        if self.weights is None or self.served >= self.config.update_weights_every:
            return super().aggregated(gradients)
        weights = torch.tensor(self.weights, dtype=torch.float64)
        shared = gradients.weighted(weights)
        tensors = [g for g in [*shared, *(g for head in gradients.heads for g in head)] if g is not None]
        finite = bool(torch.nn.utils.get_total_norm(tensors).isfinite())
        return shared, weights.numpy(), SolverInfo(finite=finite)

    def state_dict(self) -> dict[str, Any]:
        """As the base, and the weights in use."""
        return {**super().state_dict(), "weights": self.weights, "served": self.served}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        weights = state["weights"]
        self.weights = None if weights is None else list(weights)
        self.served = state["served"]

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """K backwards when the weights are new, else one."""
        forwards, backwards, steps = super().expected_work(config, tasks)
        return forwards, 1.0 + (backwards - 1.0) / config.update_weights_every, steps
