"""The loss balance of impartial multi-task learning: learned scales bring all losses to one magnitude."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from trainables.methods.base import MethodConfig
from trainables.methods.weighting import LearnedScales, LearnedScalesConfig


class IMTLLConfig(LearnedScalesConfig):
    """The fields of ``imtl_l``. A log-scale is the s of the formula; its ``initial`` value is 0 in LibMTL and
    TorchJD."""

    name: Literal["imtl_l"] = "imtl_l"


class IMTLL(LearnedScales):
    """IMTL-L: minimise ``sum_k exp(s_k) L_k - s_k`` over the network and the log-scales s.

    Where s has settled, every scaled loss ``exp(s_k) L_k`` is 1. Source: Liu et al., "Towards Impartial Multi-task
    Learning", ICLR 2021, section 3.2 (base e, the paper's a); the authors released no code. It is twice uncertainty
    weighting with the sign of s turned. The gradient balance, and both together, are methods of their own.
    """

    Config: ClassVar[type[MethodConfig]] = IMTLLConfig

    def weigh(self, losses: Tensor) -> Tensor:
        """(K,) ``exp(s)``."""
        return self.scales.values.exp()

    def slope(self, losses: Tensor) -> Tensor:
        """(K,) ``exp(s) L - 1``."""
        return self.weigh(losses) * losses - 1.0
