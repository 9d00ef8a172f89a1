"""Mean intersection over union and pixel accuracy: semantic segmentation, human parts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.losses import IGNORE
from trainables.metrics.base import PERCENT, SumMetric, class_labels, histogram, ratio, sum_and_count

AbsentClasses = Literal["zero", "nan", "drop"]
"""What a class counts that is neither predicted nor labelled anywhere in the set."""


class MeanIoU(SumMetric):
    """Intersection over union per class, pooled over the set, averaged over the classes, in percent; higher is better.

    prediction (B, ``classes``, H, W) scores; target (B, H, W) int64, 255 to ignore.

    Args:
        classes: how many.
        absent_classes: ``zero``: a class that never occurs counts 0 (InvPT family, and so the paper's tables); ``nan``:
            it makes the mean NaN (MTAN, LibMTL); ``drop``: the mean is over the others (torchmetrics' macro average).
    """

    def __init__(self, classes: int, absent_classes: AbsentClasses = "zero") -> None:
        super().__init__(classes, classes)
        self.classes = classes
        self.absent_classes = absent_classes

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(C, C) confusion counts: true class down, predicted class across."""
        class_labels(prediction, target, self.classes)
        # Ignored pixels go to bin 0, so that a label out of range falls outside the bins instead of among the ignored.
        pair = torch.where(target == IGNORE, 0, 1 + target * self.classes + prediction.argmax(dim=1))
        return histogram(pair, 1 + self.classes**2)[1:].view(self.classes, self.classes)

    def value(self, sums: Tensor) -> float:
        """In percent."""
        if sums.sum() == 0:
            return float("nan")
        both = sums.diagonal()
        either = sums.sum(dim=0) + sums.sum(dim=1) - both
        iou = both / either
        if self.absent_classes == "zero":
            iou = iou.nan_to_num(nan=0.0)
        elif self.absent_classes == "drop":
            iou = iou[either > 0]
        return float(iou.mean()) * PERCENT


class PixelAccuracy(SumMetric):
    """Share of the labelled pixels of the set whose class is predicted, in percent; higher is better.

    prediction (B, ``classes``, H, W) scores; target (B, H, W) int64, 255 to ignore. Pooled over the set (MTAN,
    LibMTL), not averaged over images.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(2)
        self.classes = classes

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2,) pixels that are right, labelled pixels."""
        class_labels(prediction, target, self.classes)
        return sum_and_count(prediction.argmax(dim=1) == target, target != IGNORE)

    def value(self, sums: Tensor) -> float:
        """In percent."""
        return ratio(sums) * PERCENT
