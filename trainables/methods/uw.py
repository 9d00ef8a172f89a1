"""Uncertainty weighting: each loss is weighed by a learned variance of its task."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from torch import Tensor

from trainables.methods.base import MethodConfig
from trainables.methods.weighting import LearnedScales, LearnedScalesConfig

Form = Literal["kendall", "doubled", "classification"]

_FACTORS: Final[dict[str, tuple[float, float]]] = {
    "kendall": (0.5, 0.5),
    "doubled": (1.0, 1.0),
    "classification": (1.0, 0.5),
}


class UWConfig(LearnedScalesConfig):
    """The fields of ``uw``. A log-scale is the log-variance s; its ``initial`` value is 0 in the authors' code,
    nash-mtl and TorchJD, -0.5 in mtan and LibMTL, -0.7 in auto-lambda."""

    name: Literal["uw"] = "uw"
    form: Form = "kendall"
    """What is minimised, over network and s together. ``kendall``: ``1/2 exp(-s) L + 1/2 s``, the paper's equation 7
    for regression, of every task (mtan, nash-mtl, LibMTL, TorchJD). ``doubled``: ``exp(-s) L + s``, the authors'
    notebook, twice the formula. ``classification``: ``exp(-s) L + 1/2 s``, the paper's equation 10 for cross-entropy
    and SamsungLabs' code for every task. Where s has settled the weights are 1/(2L), 1/L and 1/(2L); on the way they
    differ."""


class UW(LearnedScales):
    """Uncertainty weighting: minimise ``sum_k 1/2 exp(-s_k) L_k + 1/2 s_k`` over the network and the log-variances s.

    Source: Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018. The paper has
    one form for regression and one for classification; a method here sees losses without their kind, so all tasks
    have one form, as in every later implementation. The formula with a fixed s is what makes L a likelihood only for
    squared errors and cross-entropy; for L1 it is applied all the same, as the field does.
    """

    Config: ClassVar[type[MethodConfig]] = UWConfig

    def weigh(self, losses: Tensor) -> Tensor:
        """(K,) ``a exp(-s)``, with the form's a."""
        return _FACTORS[self.config.form][0] * (-self.scales.values).exp()

    def slope(self, losses: Tensor) -> Tensor:
        """(K,) ``b - a exp(-s) L``, with the form's a and b."""
        return _FACTORS[self.config.form][1] - self.weigh(losses) * losses
