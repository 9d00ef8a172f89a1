"""MGDA: the shortest vector in the convex hull of the task gradients."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from trainables.methods.gramian import Array, GramianConfig, GramianMethod, Scale, SolverInfo, mgda, solve


class MGDAConfig(GramianConfig):
    """The fields of ``mgda``."""

    name: Literal["mgda"] = "mgda"
    decoder_grads: Literal["plain", "weighted"] = "weighted"
    """What the decoders get. Authors' code: ``weighted``, by backward on the weighted sum of losses. LibMTL, TorchJD:
    ``plain``."""
    scale: Scale = "mean"
    """Authors' code: ``mean``, weights of sum 1. Nash-MTL's code: ``sum``, K times that."""


class MGDA(GramianMethod):
    """Multiple-gradient descent: weights on the simplex that make ``|sum_k w_k g_k|`` least, found exactly.

    Source: Desideri, "Multiple-gradient descent algorithm", 2012; Sener & Koltun, "Multi-Task Learning as
    Multi-Objective Optimization", NeurIPS 2018, eq. 3. ``grad_space: representation`` is their MGDA-UB (eq. 6). The
    authors' solver stops at a tolerance, and normalises gradients in some experiments; neither is done here.
    """

    Config: ClassVar[type[MGDAConfig]] = MGDAConfig
    native_scale: ClassVar[Scale] = "mean"

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """Weights >= 0 of sum 1; see :func:`trainables.methods.gramian.mgda`."""
        return solve(gramian, mgda, epsilon=epsilon)
