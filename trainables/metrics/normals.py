"""Angular error of surface normals: its mean, its median, and the share of pixels within some degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses import has_normal
from trainables.metrics.base import PERCENT, SumMetric, histogram, ratio, same_shape, sum_and_count


class MeanAngularError(SumMetric):
    """Angle between predicted and true normal in degrees, averaged over the valid pixels of the set; lower is better.

    Both are brought to unit length; then the angle is ``2 atan2(|p - t|, |p + t|)`` (InvPT family), which keeps its
    digits near 0 and 180 degrees where an arc cosine loses them. A prediction of length zero is 90 degrees off.

    prediction (B, 3, H, W); target (B, 3, H, W), the zero vector where there is no normal.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) sum of angles in degrees, number of valid pixels."""
        return sum_and_count(_degrees(prediction, target), has_normal(target))

    def value(self, sums: Tensor) -> float:
        """In degrees."""
        return ratio(sums)


class WithinAngle(SumMetric):
    """Share of the valid pixels of the set whose angular error is below a bound, in percent; higher is better.

    Angle, prediction and target as for :class:`MeanAngularError`. Published for 11.25, 22.5 and 30 degrees.

    Args:
        degrees: the bound.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__(2)
        self.degrees = degrees

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) number of valid pixels below the bound, number of valid pixels."""
        return sum_and_count(_degrees(prediction, target) < self.degrees, has_normal(target))

    def value(self, sums: Tensor) -> float:
        """In percent."""
        return ratio(sums) * PERCENT


class MedianAngularError(SumMetric):
    """Median of the angular error over the valid pixels of the set, in degrees; lower is better.

    Angle, prediction and target as for :class:`MeanAngularError`. Angles are counted in steps of :attr:`STEP`, so that
    the memory does not grow with the set: the value is at most half a step off. For an even number of pixels, the mean
    of the two in the middle.
    """

    STEP = 1e-3
    """Degrees; a tenth of the last digit that is published."""

    def __init__(self) -> None:
        super().__init__(round(180 / self.STEP))

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(180,000,) how many valid pixels have an angle in each step."""
        step = (_degrees(prediction, target).double() / self.STEP).long().clamp(max=len(self.sums) - 1)
        # Other pixels go to bin 0: picking the valid ones would wait for the device.
        return histogram(torch.where(has_normal(target), 1 + step, 0), 1 + len(self.sums))[1:]

    def value(self, sums: Tensor) -> float:
        """In degrees."""
        count = int(sums.sum())
        if not count:
            return float("nan")
        ranks = torch.tensor([(count - 1) // 2, count // 2], dtype=torch.float64)
        middle = torch.searchsorted(sums.cumsum(0), ranks, right=True)
        return (float(middle.double().mean()) + 0.5) * self.STEP


def _degrees(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, H, W) angle between the normals (B, 3, H, W)."""
    same_shape(prediction, target)
    p, t = _unit(prediction), _unit(target.to(prediction.dtype))
    return (2 * torch.atan2((p - t).square().sum(dim=1).sqrt(), (p + t).square().sum(dim=1).sqrt())).rad2deg()


def _unit(vectors: Tensor) -> Tensor:
    # The largest component goes first: squares of very short vectors would vanish.
    largest = vectors.abs().amax(dim=1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1)
    return scaled / scaled.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1)
