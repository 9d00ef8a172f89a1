"""Training losses of the task sets.

Each takes a prediction (B, C, H, W) of any floating type, as a decoder gives it, and a target as the data set gives it,
and returns a scalar of at least float32. Losses that can ignore pixels average over the others of the batch; where a
batch has none, the loss is zero and so is its gradient. Nothing here waits for the device: ignored pixels are masked,
never selected. Where several processes share a batch, each divides by the count of the whole batch
(:func:`trainables.together.whole`), so that their losses sum up to that of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.together import shared_out, whole

IGNORE = 255
"""The value of an ignored pixel in class and edge labels."""

_COSINE_EPS = 1e-6


def l1(prediction: Tensor, target: Tensor, ignore: int | None = None) -> Tensor:
    """Mean absolute error over all pixels and channels.

    The loss of ten of the eleven Taskonomy tasks (paper, appendix C; Mod-Squad differs for normals, see
    :func:`cosine`).

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W) float.
        ignore: value of the target where it does not count; ``None``: all of it counts.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    if ignore is None:
        return _everywhere(F.l1_loss, prediction, target)
    return _mean((prediction - target).abs(), target != ignore)


def mse(prediction: Tensor, target: Tensor, ignore: int | None = None) -> Tensor:
    """Mean squared error over all pixels and channels: principal curvature, as in Mod-Squad's and the released code.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W) float.
        ignore: value of the target where it does not count; ``None``: all of it counts.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    if ignore is None:
        return _everywhere(F.mse_loss, prediction, target)
    return _mean((prediction - target).square(), target != ignore)


def standardized_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of standardised values: the properties of QM9, as in LibMTL, Nash-MTL and FAMO.

    Args:
        prediction: (B, 1, H, W), in standard deviations from the mean.
        target: (B, 2, H, W) float, every pixel valid; the same, then the standard deviation, which is not read.

    Raises:
        ValueError: the shapes do not fit.
    """
    return _everywhere(F.mse_loss, _wide(prediction), _dense(prediction, target[:, :1]))


def depth_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over the pixels with a measured depth (NYUD-v2, InvPT family).

    Args:
        prediction: (B, 1, H, W) metres.
        target: (B, 1, H, W) metres; 0 where nothing was measured.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    return _mean((prediction - target).abs(), target > 0)


def normal_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 distance of unit normals, summed over channels, averaged over valid pixels: NYUD-v2, PASCAL-Context (InvPT).

    Args:
        prediction: (B, 3, H, W), brought to unit length here.
        target: (B, 3, H, W) unit vectors; the zero vector where there is no normal.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    unit = prediction / _length(prediction, dim=1).unsqueeze(1)
    distance = (unit - target).abs().sum(dim=1)
    return _mean(distance, has_normal(target))


def cosine(prediction: Tensor, target: Tensor, ignore: int | None = None) -> Tensor:
    """One minus the cosine of predicted and true normal, averaged over valid pixels: Mod-Squad's loss for Taskonomy.

    Args:
        prediction: (B, 3, H, W), of any length.
        target: (B, 3, H, W), of any length; the zero vector where there is no normal.
        ignore: value of the target where there is none either.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    valid = has_normal(target)
    if ignore is not None:
        valid = valid & (target != ignore).all(dim=1)
    return _mean(1 - _cosine(prediction, target, dim=1), valid)


def cosine_along_width(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine of whole rows of pixels, averaged over rows and channels: a mistake, kept to be studied.

    The code released with the paper (``engine_mt.get_loss``) takes the cosine over the last axis, as Mod-Squad does,
    but without Mod-Squad's permutation to channels-last. Each row of each channel, W numbers long, is compared as if it
    were one vector.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    distance = 1 - _cosine(prediction, target, dim=-1)
    return _mean(distance, torch.ones_like(distance, dtype=torch.bool)) if shared_out() else distance.mean()


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy averaged over the labelled pixels: semantic segmentation, human parts.

    Args:
        prediction: (B, C, H, W) logits.
        target: (B, H, W) int64 in [0, C), 255 to ignore.
    """
    total = F.cross_entropy(_wide(prediction), target, ignore_index=IGNORE, reduction="sum")
    return total / whole((target != IGNORE).sum()).clamp(min=1)


def balanced_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Two-class cross-entropy whose classes weigh as much as the batch has of the other one: saliency (InvPT family).

    A salient pixel weighs the fraction of background among the labelled pixels, a background pixel the fraction of
    salient ones; the weighted sum is divided by the number of labelled pixels, not by the sum of the weights.

    Args:
        prediction: (B, 2, H, W) logits of background and salient.
        target: (B, H, W) int64, 0 or 1, 255 to ignore.
    """
    labelled = target != IGNORE
    prediction = _wide(prediction)
    counts = whole(torch.stack([labelled.sum(), (target == 1).sum()]))
    count = counts[0].clamp(min=1)
    salient = counts[1].to(prediction.dtype) / count
    weight = torch.stack([salient, 1 - salient])
    return F.cross_entropy(prediction, target, weight=weight, ignore_index=IGNORE, reduction="sum") / count


def edge_bce(prediction: Tensor, target: Tensor, positive_weight: float = 0.95) -> Tensor:
    """Binary cross-entropy with a fixed balance, averaged over the labelled pixels: edges (InvPT family).

    Args:
        prediction: (B, 1, H, W) logits.
        target: (B, 1, H, W) float, 1 on an edge, 0 off it, 255 to ignore.
        positive_weight: w in (0, 1): an edge pixel weighs w, any other 1 - w.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _wide(prediction), _dense(prediction, target)
    on, off = target == 1, target == 0
    # softplus(-x) and softplus(x) are -log sigmoid(x) and -log(1 - sigmoid(x)); the sign picks one of them per pixel.
    nll = F.softplus(torch.where(on, -prediction, prediction))
    weight = on.to(nll.dtype) * positive_weight + off.to(nll.dtype) * (1 - positive_weight)
    return (nll * weight).sum() / whole((on | off).sum()).clamp(min=1)


def has_normal(target: Tensor) -> Tensor:
    """(B, H, W) bool: where the normals (B, 3, H, W) are not the zero vector."""
    return (target != 0).any(dim=1)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """The mean of ``values`` where ``valid``, zero (with a zero gradient) where nothing is."""
    return (values * valid).sum() / whole(valid.sum()).clamp(min=1)


def _everywhere(loss: Callable[..., Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    """The mean over all elements of one of PyTorch's losses."""
    if not shared_out():
        return loss(prediction, target)
    count = torch.tensor(prediction.numel(), device=prediction.device)
    return loss(prediction, target, reduction="sum") / whole(count)


def _cosine(a: Tensor, b: Tensor, dim: int) -> Tensor:
    lengths = (_length(a, dim) + _COSINE_EPS) * (_length(b, dim) + _COSINE_EPS)
    return (a * b).sum(dim=dim) / lengths


def _length(vectors: Tensor, dim: int) -> Tensor:
    """The Euclidean norm, at least 1e-12; its gradient at the zero vector is zero."""
    # Tensor.norm over the channels takes ten times as long on a CPU.
    return vectors.square().sum(dim=dim).clamp(min=1e-24).sqrt()


def _wide(prediction: Tensor) -> Tensor:
    """At least float32, so that sums over pixels of a half-precision prediction keep their digits."""
    return prediction.float() if prediction.dtype in (torch.float16, torch.bfloat16) else prediction


def _dense(prediction: Tensor, target: Tensor) -> Tensor:
    """The target, once it is sure that it will not broadcast."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    return target
