"""Metrics of dense regression: absolute and squared errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from trainables.losses import IGNORE
from trainables.metrics.base import SumMetric, ratio, same_shape, sum_and_count

Valid = Literal["all", "positive", "labelled"]
"""Which elements of a target count: all, those above zero (a measured depth), or those that are not 255 (ignored)."""


class L1(SumMetric):
    """Mean absolute error over all pixels and channels of the set: "L1 Dist." of the paper's Taskonomy tables.

    Predictions are compared as they are; normals are not brought to unit length. prediction and target (B, C, H, W);
    lower is better.

    Args:
        valid: which elements of the target count.
    """

    def __init__(self, valid: Valid = "all") -> None:
        super().__init__(2)
        self.valid = valid

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) sum of absolute errors, number of elements."""
        same_shape(prediction, target)
        return sum_and_count((prediction - target).abs(), _counted(target, self.valid))

    def value(self, sums: Tensor) -> float:
        """In the target's unit."""
        return ratio(sums)


class RelativeError(SumMetric):
    """Absolute error as a share of the true value, averaged over the elements above zero of the set; lower is better.

    prediction and target (B, C, H, W): depth, of which zero is not measured (MTAN, LibMTL; 1 is 100 %).
    """

    def __init__(self) -> None:
        super().__init__(2)

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) sum of relative errors, number of measured elements."""
        same_shape(prediction, target)
        measured = target > 0
        return sum_and_count((prediction - target).abs() / torch.where(measured, target, 1), measured)

    def value(self, sums: Tensor) -> float:
        """As a fraction."""
        return ratio(sums)


class MAE(SumMetric):
    """Mean absolute error of standardised values, in the unit they had before; lower is better.

    prediction (B, 1, H, W) in standard deviations from the mean; target (B, 2, H, W) the same, then the standard
    deviation.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) sum of absolute errors times the standard deviations, number of elements."""
        value, deviation = target[:, :1], target[:, 1:]
        same_shape(prediction, value)
        same_shape(prediction, deviation)
        return sum_and_count((prediction - value).abs().double() * deviation)

    def value(self, sums: Tensor) -> float:
        """In the unit of the standard deviations."""
        return ratio(sums)


class MSE(SumMetric):
    """Mean squared error over the valid elements of the whole set; lower is better.

    Args:
        valid: which elements of the target count.
        transform: applied to prediction and target before they are compared, shape to same shape; ``None`` for none.
    """

    def __init__(self, valid: Valid = "all", transform: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(2)
        self.valid = valid
        self.transform = transform

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) sum of squared errors, number of valid elements."""
        same_shape(prediction, target)
        valid = _counted(target, self.valid)
        if self.transform is not None:
            prediction, target = self.transform(prediction), self.transform(target)
        return sum_and_count((prediction - target).square(), valid)

    def value(self, sums: Tensor) -> float:
        """In the square of the target's unit."""
        return ratio(sums)


class RMSE(MSE):
    """Root of the mean squared error, the mean being over the valid elements of the whole set, not per image or batch.

    Depth in metres over measured pixels (``valid="positive"``, InvPT family; ASTMT averaged per image); Taskonomy's
    principal curvature over all elements of both channels. Lower is better.
    """

    def value(self, sums: Tensor) -> float:
        """In the target's unit."""
        return math.sqrt(ratio(sums))


def _counted(target: Tensor, valid: Valid) -> Tensor | None:
    """Where the target counts, bool of its shape; ``None`` for everywhere."""
    if valid == "all":
        return None
    return target > 0 if valid == "positive" else target != IGNORE


def display_depth(depth: Tensor) -> Tensor:
    """Taskonomy's normalised log depth, any shape, on the scale from 1 to 80 where the released code takes its RMSE.

    log2 of the raw depth code, undone and taken again as ``log(d) / 11.09``, moved from .64 +- .18 onto [0, 80] and cut
    to [1, 80] (released ``metric.compute_depth_errors``, from Mod-Squad). Not metres.
    """
    raw = torch.expm1(depth.clamp(min=0) * math.log(2.0**16))
    return (((raw.log() / 11.09 - 0.64) / 0.18 + 1) / 2 * 80).clamp(min=1, max=80)
