"""Mean angular error of surface normals."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses import has_normal
from trainables.metrics.base import SumMetric, ratio, same_shape, sum_and_count


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
        same_shape(prediction, target)
        p, t = _unit(prediction), _unit(target.to(prediction.dtype))
        angle = 2 * torch.atan2((p - t).square().sum(dim=1).sqrt(), (p + t).square().sum(dim=1).sqrt())
        return sum_and_count(angle.rad2deg(), has_normal(target))

    def value(self, sums: Tensor) -> float:
        """In degrees."""
        return ratio(sums)


def _unit(vectors: Tensor) -> Tensor:
    # The largest component goes first: squares of very short vectors would vanish.
    largest = vectors.abs().amax(dim=1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1)
    return scaled / scaled.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1)
