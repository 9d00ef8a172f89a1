"""From stored encodings to training labels; Taskonomy's are normalised as Mod-Squad (Chen et al. 2023) does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from trainables.data.encodings import (
    BYTE_TOP,
    EDGE_OCCLUSION_TOP,
    EDGE_TEXTURE_TOP,
    KEYPOINTS2D_TOP,
    KEYPOINTS3D_TOP,
    Decoder,
    curvature,
    image,
    reshading,
    signed,
    signed_vectors,
)
from trainables.data.scenes.encode import DEPTH_HOLE, DEPTH_STEPS

__all__ = [
    "DECODERS",
    "Decoder",
    "curvature",
    "image",
    "log_depth",
    "metres",
    "normal",
    "occlusion",
    "reshading",
    "signed",
]

TASKONOMY_SIZE = 512
"""Width of Taskonomy's images, in pixels."""


def log_depth(stored: np.ndarray) -> Tensor:
    """uint16 -> log(1 + x) / log(2^16), x in floating point: 65535 + 1 does not overflow, and a hole is 1."""
    return torch.from_numpy(_log_table()[stored]).unsqueeze(1)


def metres(stored: np.ndarray) -> Tensor:
    """uint16 -> metres; a hole is 0, which counts as invalid."""
    return torch.from_numpy(_metre_table()[stored]).unsqueeze(1)


def occlusion(stored: np.ndarray) -> Tensor:
    """uint16 (B, H, W) -> x / (0.00625 * 65536) to [-1, 1], not clipped, x per pixel of a 512-pixel image.

    The edge is a gradient per pixel, and a pixel of a smaller image spans more of the scene: left as it is at 64
    pixels, its labels are eight times too large and this task's loss outweighs all others. At 512 it is Mod-Squad's
    label.
    """
    return signed(EDGE_OCCLUSION_TOP * TASKONOMY_SIZE / stored.shape[-1], clip=False)(stored)


def normal(stored: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> unit vectors (B, 3, H, W), x right, y down, z into the scene; a hole is the zero vector."""
    vectors = signed_vectors(stored)
    x, y, z = vectors.unbind(1)
    squared = x * x + y * y + z * z
    # Quantisation leaves no unit vector shorter than 0.98; the code of a hole is 0.007 long.
    scale = squared.rsqrt().masked_fill_(squared < 0.25, 0.0)
    return vectors.mul_(scale.unsqueeze(1))


def binary(stored: np.ndarray) -> Tensor:
    """uint8 0/1 -> float32 (B, 1, H, W)."""
    return torch.from_numpy(stored.astype(np.float32)).unsqueeze(1)


def classes(stored: np.ndarray) -> Tensor:
    """uint8 -> int64 (B, H, W)."""
    return torch.from_numpy(stored.astype(np.int64))


@lru_cache(maxsize=1)
def _log_table() -> np.ndarray:
    steps = np.arange(DEPTH_HOLE + 1, dtype=np.float32)
    return (np.log1p(steps) / np.float32(np.log(2.0**16))).astype(np.float32)


@lru_cache(maxsize=1)
def _metre_table() -> np.ndarray:
    table = np.arange(DEPTH_HOLE + 1, dtype=np.float32) / np.float32(DEPTH_STEPS)
    table[DEPTH_HOLE] = 0.0
    return table


DECODERS: Mapping[str, tuple[str, Decoder]] = MappingProxyType(
    {
        "depth_euclidean": ("depth_euclidean", log_depth),
        "depth_zbuffer": ("depth_zbuffer", log_depth),
        "edge_occlusion": ("edge_occlusion_blurred", occlusion),
        "edge_texture": ("edge_texture", signed(EDGE_TEXTURE_TOP, clip=True)),
        "keypoints2d": ("keypoints2d", signed(KEYPOINTS2D_TOP, clip=True)),
        "keypoints3d": ("keypoints3d", signed(KEYPOINTS3D_TOP, clip=False)),
        "normal": ("normal", normal),
        "principal_curvature": ("principal_curvature", curvature),
        "reshading": ("reshading", reshading),
        "segment_unsup2d": ("segment_unsup2d", signed(BYTE_TOP, clip=False)),
        "segment_unsup25d": ("segment_unsup25d", signed(BYTE_TOP, clip=False)),
        "depth": ("depth_zbuffer", metres),
        "edge": ("edge", binary),
        "semseg": ("semseg", classes),
        "human_parts": ("human_parts", classes),
        "saliency": ("saliency", classes),
    }
)
"""For each label: the stored array it is decoded from, and how."""
