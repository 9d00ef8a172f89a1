"""Maximal F-measure of saliency."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.losses import IGNORE
from trainables.metrics.base import PERCENT, SumMetric, class_labels, histogram

SaliencyScores = Literal["softmax", "double_sigmoid"]
"""What the thresholds are applied to."""

BETA_SQUARED = 0.3
THRESHOLDS = 19
"""At .05, .10, ... .95."""


class MaxF(SumMetric):
    """The best F-measure over fixed thresholds, from counts pooled over the set, in percent; higher is better.

    ``F = (1 + b) P R / (b P + R)`` with b = 0.3, at the thresholds .05, .10, ... .95 (ATRC). A pixel is called salient
    where its score reaches the threshold.

    prediction (B, 2, H, W) logits of background and salient; target (B, H, W) int64, 0 or 1, 255 to ignore.

    Args:
        scores: ``softmax``: the probability of salient (ATRC); ``double_sigmoid``: the sigmoid of that probability, by
            mistake, as in InvPT and the code released with the paper: only the thresholds .55 to .70 then tell pixels
            apart, and they stand for probabilities of .201, .405, .619 and .847.
    """

    def __init__(self, scores: SaliencyScores = "softmax") -> None:
        super().__init__(2, THRESHOLDS + 1)
        self.scores = scores

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(2, 20) pixels by true class and by how many thresholds their score reaches."""
        class_labels(prediction, target, 2)
        score = torch.sigmoid(prediction[:, 1] - prediction[:, 0])
        if self.scores == "double_sigmoid":
            score = torch.sigmoid(score)
        bins = THRESHOLDS + 1
        thresholds = torch.arange(1, bins, device=score.device, dtype=score.dtype) / bins
        reached = torch.bucketize(score, thresholds, right=True)
        index = torch.where(target == IGNORE, 0, 1 + target * bins + reached)
        return histogram(index, 1 + 2 * bins)[1:].view(2, bins)

    def value(self, sums: Tensor) -> float:
        """In percent; 0 where no salient pixel is found at any threshold."""
        if sums.sum() == 0:
            return float("nan")
        # Pixels whose score reaches threshold k are those in the bins from k on.
        called = sums.flip(1).cumsum(1).flip(1)[:, 1:]
        hits = called[1]
        weighted = BETA_SQUARED * sums[1].sum() + called.sum(dim=0)
        f = (1 + BETA_SQUARED) * hits / weighted.clamp(min=torch.finfo(torch.float64).tiny)
        return float(f.max()) * PERCENT
