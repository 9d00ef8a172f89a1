"""F-measure of edges at the optimal data-set scale (odsF), as the SEISM and BSDS benchmarks define it, without MATLAB.

Per image and threshold: predicted and true edges are thinned to lines, then matched one to one within a tolerance; the
counts of matched, predicted and true pixels are pooled over the set, and the best F over the thresholds is the result,
with no interpolation between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainables.losses import IGNORE
from trainables.metrics.base import PERCENT, SumMetric, same_shape
from trainables.metrics.lines import match_count, outline, suppress_non_maxima, thin

EdgeTruth = Literal["thin", "outline"]
"""How a label of edges becomes lines."""

FULL_THRESHOLDS = 101


class OdsF(SumMetric):
    """odsF in percent; higher is better.

    prediction (B, 1, H, W) logits; target (B, 1, H, W) float, 1 on an edge, 0 off it, 255 to ignore. Ignored pixels
    hold no edge, predicted or true, and do not count for the size of the image, which is that of the box around the
    others.

    Exact where the benchmark is not: the matching is one of the largest possible size, by maximum flow, where BSDS's
    solver works on random sparse graphs and comes up to 0.13 % short. Runs on the CPU, whatever the device of the
    predictions, and so waits for them; images are shared out over :attr:`executor` where one is set, with the same
    result, since counts add up in any order.

    Args:
        max_dist: tolerance of the matching, as a fraction of the image's diagonal: .011 for NYUD-v2, .0075 for
            PASCAL-Context. Below one pixel only coinciding pixels match.
        thresholds: how many. 101 is the benchmark's list .001, .01, .02 ... .99, .999. Others are evenly spaced inside
            (0, 1): 19 are .05, .10 ... .95, part of the benchmark's list and so never above it. On synthetic noisy edge
            maps 19 came within 0.5 of 101 with ``nms`` and 9 only within 6, at a fifth of its time.
        nms: suppress non-maxima of the prediction before the thresholds, as ATRC and InvPT do; MTI-Net does not.
        truth: ``thin``: the label's edges are thinned; ``outline``: the label is taken for a map of regions whose
            outlines are the edges, and these are thinned, as SEISM's tools do to NYUD-v2's edge images, which turns
            each line into its two sides.
    """

    # Processes, since the work is Python's and SciPy's, which threads do not share.
    spreads = True

    def __init__(
        self, max_dist: float = 0.0075, thresholds: int = 19, nms: bool = True, truth: EdgeTruth = "thin"
    ) -> None:
        super().__init__(4, thresholds)
        self.max_dist = max_dist
        self.thresholds = threshold_values(thresholds)
        self.nms = nms
        self.truth = truth

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(4, T) per threshold: matched pixels, predicted pixels, true pixels, images."""
        same_shape(prediction, target)
        if prediction.shape[1] != 1:
            raise ValueError(f"a prediction (B, 1, H, W) is wanted, got {tuple(prediction.shape)}")
        # The benchmark reads predictions from 8-bit images.
        levels = (torch.sigmoid(prediction[:, 0]) * 255).floor().double().cpu().numpy() / 255
        labels = target[:, 0].float().cpu().numpy()
        count = partial(
            image_counts, max_dist=self.max_dist, thresholds=self.thresholds, nms=self.nms, truth=self.truth
        )
        # One image at a time: they differ in cost by what is drawn in them.
        found: Iterable[np.ndarray] = (map if self.executor is None else self.executor.map)(count, levels, labels)
        return torch.from_numpy(sum(found, np.zeros(tuple(self.sums.shape))))

    def value(self, sums: Tensor) -> float:
        """In percent; 0 where nothing matches at any threshold."""
        matched, predicted, true, images = sums
        if images.sum() == 0:
            return float("nan")
        # 2 P R / (P + R) with P = matched / predicted and R = matched / true.
        f = 2 * matched / (predicted + true).clamp(min=1)
        return float(f.max()) * PERCENT


def image_counts(
    level: np.ndarray, label: np.ndarray, *, max_dist: float, thresholds: np.ndarray, nms: bool, truth: EdgeTruth
) -> np.ndarray:
    """One image's counts per threshold: matched pixels, predicted pixels, true pixels, images.

    Args:
        level: (H, W) float in [0, 1], the prediction.
        label: (H, W), 1 on an edge, 0 off it, 255 to ignore.
        max_dist: tolerance, as a fraction of the diagonal.
        thresholds: (T,) float.
        nms: suppress non-maxima of the prediction.
        truth: how the label becomes lines.

    Returns:
        (4, T) float64.
    """
    sums = np.zeros((4, len(thresholds)))
    valid = label != IGNORE
    if not valid.any():
        return sums
    box = _bounding_box(valid)
    level, label, valid = level[box], label[box], valid[box]
    if nms:
        level = suppress_non_maxima(np.where(valid, level, 0.0))
    edges = (label == 1) & valid
    if truth == "outline":
        edges = outline(edges) & valid
    called = (level > thresholds[:, None, None]) & valid
    lines = thin(np.concatenate([edges[None], called]))
    radius = max_dist * float(np.hypot(*label.shape))
    sums[0] = [match_count(line, lines[0], radius) for line in lines[1:]]
    sums[1] = lines[1:].sum(axis=(1, 2))
    sums[2] = lines[0].sum()
    sums[3] = 1
    return sums


def threshold_values(count: int) -> np.ndarray:
    """(``count``,) float64: evenly spaced inside (0, 1), or the benchmark's own list for 101."""
    if count == FULL_THRESHOLDS:
        return np.concatenate([[0.001], np.arange(1, 100) / 100, [0.999]])
    return np.arange(1, count + 1) / (count + 1)


def _bounding_box(valid: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
