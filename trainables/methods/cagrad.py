"""CAGrad: the update near the mean gradient that serves the worst-served task best."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.gramian import Array, GramianConfig, GramianMethod, Scale, SolverInfo, cagrad, solve


class CAGradConfig(GramianConfig):
    """The fields of ``cagrad``."""

    name: Literal["cagrad"] = "cagrad"
    c: float = Field(default=0.4, ge=0)
    """Radius of the ball around the mean gradient, relative to its norm. Authors: 0.4 on NYUv2, LibMTL: 0.5; 0 is
    gradient descent."""
    rescale: Literal[0, 1, 2] = 1
    """Divides the update by: 0, nothing; 1, ``1 + c^2``; 2, ``1 + c``. Authors' NYUv2 code: 1."""
    scale: Scale = "sum"
    """Formula: ``mean``. Authors' code: ``sum``, it multiplies by K to match the sum of losses."""


class CAGrad(GramianMethod):
    """Conflict-averse gradient descent: ``d = g0 + c |g0| g_w / |g_w|``, w found exactly.

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, algorithm 1. The
    authors' general-purpose optimizer stops at an absolute tolerance, and so at its start (w = 1/K) where gradients are
    small; here w does not depend on their scale.
    """

    Config: ClassVar[type[CAGradConfig]] = CAGradConfig
    native_scale: ClassVar[Scale] = "mean"

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """The coefficients of d, rescaled; see :func:`trainables.methods.gramian.cagrad`."""
        weights, info = solve(gramian, lambda problem: cagrad(problem, config.c), epsilon=epsilon)
        return weights / (1.0, 1.0 + config.c**2, 1.0 + config.c)[config.rescale], info
