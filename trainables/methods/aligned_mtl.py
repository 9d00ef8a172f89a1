"""Aligned-MTL: the task gradients made orthogonal and of one length before they are added."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from trainables.methods.gramian import (
    Array,
    GramianConfig,
    GramianMethod,
    Scale,
    ScaleMode,
    SolverInfo,
    aligned_mtl,
    solve,
)


class AlignedMTLConfig(GramianConfig):
    """The fields of ``aligned_mtl``."""

    name: Literal["aligned_mtl"] = "aligned_mtl"
    scale: Scale = "sum"
    """Authors' code: ``sum``, every task's weight 1. TorchJD: ``mean``."""
    scale_mode: ScaleMode = "min"
    """Common length of the aligned gradients, from the singular values of the stacked ones. Paper: the ``min``; the
    authors' code also knows the ``median`` and the root mean square (``rmse``)."""


class AlignedMTL(GramianMethod):
    """The sum of the nearest system of orthogonal gradients of equal length, by the polar factor of their matrix.

    Source: Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023, algorithm 1.
    """

    Config: ClassVar[type[AlignedMTLConfig]] = AlignedMTLConfig

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """The coefficients of the sum; see :func:`trainables.methods.gramian.aligned_mtl`."""
        return solve(gramian, lambda problem: aligned_mtl(problem, config.scale_mode), epsilon=epsilon)
