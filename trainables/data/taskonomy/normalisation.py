"""From Taskonomy's codes to labels, as three papers do it.

A function takes the codes of one label at the size of the network's input, resized in floating point: (H, W) or
(H, W, C) float32; and gives (C, H, W) float32. In floating point, because a hole's code is 65535 and one more
overflows 16 bits: its logarithm was minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from trainables.data import encodings
from trainables.data.taskonomy.config import Normalisation

BLUR_SIGMA = 4.0
"""Of the occlusion edges, in pixels of the label as it is trained on."""

Normalise = Callable[[np.ndarray], Tensor]


def log_depth(codes: np.ndarray) -> Tensor:
    """log(1 + x) / log(2^16): (1, H, W); a hole is 1."""
    return torch.from_numpy(np.log1p(codes.astype(np.float32)) / np.float32(math.log(2.0**16))).unsqueeze(0)


def signed(top: float, *, clip: bool = True) -> Normalise:
    """x -> 2 x / top - 1, with x / top clipped to 1 first where ``clip``: (1, H, W)."""
    decode = encodings.signed(top, clip=clip)
    return lambda codes: decode(codes[None])[0]


def occlusion(*, clip: bool) -> Normalise:
    """Occlusion edges to [-1, 1], then blurred, then clipped where ``clip``: (1, H, W)."""
    scaled = signed(encodings.EDGE_OCCLUSION_TOP, clip=False)

    def normalise(codes: np.ndarray) -> Tensor:
        blurred = torch.from_numpy(gaussian_filter(scaled(codes)[0].numpy(), sigma=BLUR_SIGMA)).unsqueeze(0)
        return blurred.clamp_(-1.0, 1.0) if clip else blurred

    return normalise


def affine(mean: float, scale: float) -> Normalise:
    """(x - mean) / scale: (1, H, W)."""
    return lambda codes: torch.from_numpy(codes.astype(np.float32)).sub_(mean).div_(scale).unsqueeze(0)


def normal(codes: np.ndarray) -> Tensor:
    """2 x / 255 - 1: (3, H, W), not brought to unit length."""
    return encodings.signed_vectors(codes[None])[0]


def curvature(codes: np.ndarray) -> Tensor:
    """The first two channels, standardised: (2, H, W)."""
    return encodings.curvature(codes[None, ..., :2])[0]


def grouping_curvature(codes: np.ndarray) -> Tensor:
    """The same by TaskGrouping's mean and deviation, which are of x / 255: (2, H, W)."""
    means, stds = (0.5175, 0.4987), (0.1373, 0.0359)
    return encodings.standardise(codes[None, ..., :2], [255.0 * m for m in means], [255.0 * s for s in stds])[0]


def reshading(codes: np.ndarray) -> Tensor:
    """2 x / 255 - 1 of the mean channel, three times: (3, H, W). The stored channels are equal."""
    return encodings.reshading(_grey(codes)[None])[0]


def grouping_reshading(codes: np.ndarray) -> Tensor:
    """(x / 255 - .4962) / .2846 of the mean channel, three times, since the task has three channels: (3, H, W)."""
    return affine(0.4962 * 255.0, 0.2846 * 255.0)(_grey(codes)).repeat(3, 1, 1)


def _grey(codes: np.ndarray) -> np.ndarray:
    return codes.mean(axis=-1, dtype=np.float32) if codes.ndim == 3 else codes


_COMMON: Mapping[str, Normalise] = {
    "depth_euclidean": log_depth,
    "depth_zbuffer": log_depth,
    "edge_texture": signed(encodings.EDGE_TEXTURE_TOP),
    "keypoints2d": signed(encodings.KEYPOINTS2D_TOP),
    "keypoints3d": signed(encodings.KEYPOINTS3D_TOP),
    "normal": normal,
    "principal_curvature": curvature,
    "reshading": reshading,
}

NORMALISATIONS: Mapping[Normalisation, Mapping[str, Normalise]] = MappingProxyType(
    {
        "mod_squad": {
            **_COMMON,
            "edge_occlusion": occlusion(clip=False),
            # Numbers of segments, regressed as if they were a grey value.
            "segment_unsup2d": signed(encodings.BYTE_TOP),
            "segment_unsup25d": signed(encodings.BYTE_TOP),
        },
        "taskonomy": {**_COMMON, "edge_occlusion": occlusion(clip=True)},
        "taskgrouping": {
            "depth_euclidean": affine(1500.0, 1000.0),
            "depth_zbuffer": affine(1500.0, 1000.0),
            "edge_occlusion": affine(56.0248, 239.1265),
            "edge_texture": affine(718.0, 1070.0),
            "keypoints2d": affine(50.0, 100.0),
            "normal": normal,
            "principal_curvature": grouping_curvature,
            "reshading": grouping_reshading,
        },
    }
)
"""Normalisation to its labels."""
