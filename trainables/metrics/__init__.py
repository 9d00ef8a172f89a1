"""Streaming metrics, each fed batch by batch, merged by addition, computed once."""

from trainables.metrics.base import SumMetric
from trainables.metrics.classes import AbsentClasses, MeanIoU
from trainables.metrics.dense import L1, MAE, MSE, RMSE, display_depth
from trainables.metrics.edges import EdgeTruth, OdsF
from trainables.metrics.normals import MeanAngularError
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
    "OdsF",
    "SaliencyScores",
    "SumMetric",
    "display_depth",
]
