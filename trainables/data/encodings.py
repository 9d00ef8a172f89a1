"""From stored codes to training labels: the parts common to the data sets that have Taskonomy's labels.

Ranges are those of Mod-Squad (Chen et al. 2023), which the paper follows (appendix C) and which took them from
Taskonomy (Zamir et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EDGE_OCCLUSION_TOP = 0.00625 * 65536.0
EDGE_TEXTURE_TOP = 0.08 * 65536.0
KEYPOINTS2D_TOP = 0.005 * 65536.0
KEYPOINTS3D_TOP = 65536.0
BYTE_TOP = 255.0

CURVATURE_MEAN = (123.572, 120.1)
CURVATURE_STD = (31.922, 21.658)

Decoder = Callable[[np.ndarray], Tensor]
"""Stored batch (B, H, W) or (B, H, W, C) to a label (B, C, H, W) float32 or (B, H, W) int64."""


def image(stored: np.ndarray) -> Tensor:
    """Codes 0..255 (B, H, W, 3) -> float32 (B, 3, H, W), minus ImageNet's mean, over its standard deviation."""
    return standardise(stored, [255.0 * m for m in IMAGENET_MEAN], [255.0 * s for s in IMAGENET_STD])


def signed(top: float, *, clip: bool) -> Decoder:
    """A decoder of x -> 2 x / top - 1, with x / top clipped to 1 first where ``clip``."""

    def decode(stored: np.ndarray) -> Tensor:
        out = torch.from_numpy(stored.astype(np.float32)).mul_(2.0 / top).sub_(1.0)
        return (out.clamp_(max=1.0) if clip else out).unsqueeze(1)

    return decode


def signed_vectors(stored: np.ndarray) -> Tensor:
    """Codes 0..255 (B, H, W, 3) -> [-1, 1], (B, 3, H, W), of whatever length the codes give."""
    return standardise(stored, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def curvature(stored: np.ndarray) -> Tensor:
    """Codes 0..255 (B, H, W, 2) -> standardised (B, 2, H, W)."""
    return standardise(stored, CURVATURE_MEAN, CURVATURE_STD)


def reshading(stored: np.ndarray) -> Tensor:
    """Codes 0..255 (B, H, W) -> [-1, 1], the one channel three times: (B, 3, H, W)."""
    one = torch.from_numpy(stored.astype(np.float32)).mul_(2.0 / 255.0).sub_(1.0)
    return one.unsqueeze(1).repeat(1, 3, 1, 1)


def standardise(stored: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(B, H, W, C) of any number type -> float32 (B, C, H, W), minus ``mean``, over ``std``, channel by channel."""
    out = np.empty((stored.shape[0], stored.shape[3], *stored.shape[1:3]), dtype=np.float32)
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        np.subtract(stored[..., channel], np.float32(m), out=out[:, channel], dtype=np.float32)
        out[:, channel] *= np.float32(1.0 / s)
    return torch.from_numpy(out)
