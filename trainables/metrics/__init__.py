"""Streaming metrics, each fed batch by batch, merged by addition, computed once."""

from trainables.metrics.base import SumMetric
from trainables.metrics.classes import AbsentClasses, MeanIoU, PixelAccuracy
from trainables.metrics.dense import L1, MAE, MSE, RMSE, RelativeError, display_depth
from trainables.metrics.edges import EdgeTruth, OdsF
from trainables.metrics.normals import MeanAngularError, MedianAngularError, WithinAngle
from trainables.metrics.saliency import MaxF, SaliencyScores

__all__ = [
    "L1",
    "MAE",
    "MSE",
    "RMSE",
    "AbsentClasses",
    "EdgeTruth",
    "MaxF",
    "MeanAngularError",
    "MeanIoU",
    "MedianAngularError",
    "OdsF",
    "PixelAccuracy",
    "RelativeError",
    "SaliencyScores",
    "SumMetric",
    "WithinAngle",
    "display_depth",
]
