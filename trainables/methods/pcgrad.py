"""PCGrad: every task gradient projected off those it conflicts with."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from trainables.methods.gramian import Array, GramianConfig, GramianMethod, Scale, SolverInfo, pcgrad, solve


class PCGradConfig(GramianConfig):
    """The fields of ``pcgrad``."""

    name: Literal["pcgrad"] = "pcgrad"
    scale: Scale = "sum"
    """Paper: ``sum``. The widespread PyTorch version: ``mean``."""


class PCGrad(GramianMethod):
    """Gradient surgery, the other tasks in a random order that is drawn for each task and step.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1. The authors' code draws no
    order, by a mistake, and projects a gradient on itself too; both as in the paper here.
    """

    Config: ClassVar[type[PCGradConfig]] = PCGradConfig

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """The coefficients of the sum of projected gradients; see :func:`trainables.methods.gramian.pcgrad`."""
        keys = torch.rand(len(gramian), len(gramian), generator=generator, dtype=torch.float64).numpy()
        return solve(gramian, lambda problem: pcgrad(problem, keys), epsilon=epsilon)
