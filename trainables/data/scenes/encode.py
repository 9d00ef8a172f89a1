"""Taskonomy's pixel encodings of exact geometry (Taskonomy 2018 and the Omnidata annotator's settings).

Images are (H, W) or (H, W, C). Depths are uint16 with 512 steps a metre; normals, curvature and reshading are uint8.
"""

from __future__ import annotations

import numpy as np

DEPTH_STEPS = 512.0
"""Steps of an encoded depth in a metre: 128 m over 16 bits."""

DEPTH_HOLE = 65535
"""Encoded depth where there is no geometry."""

NORMAL_HOLE = 128
"""All three channels of an encoded normal where there is no geometry. No unit normal is encoded so."""

CURVATURE_RADIUS = 0.03
"""Smallest radius of curvature told apart, in metres."""

CURVATURE_FLAT = 127
"""Encoded curvature of a plane."""

LAMP_GAIN = 1.6
"""Reshading of a surface that faces a lamp at no distance (lamp energy 2.5, albedo 0.8, twice), before clipping."""

LAMP_HALF_LIFE = 8.0
"""D of the lamp's falloff D / (D + d^2), d in metres."""


def depth(metres: np.ndarray) -> np.ndarray:
    """uint16 depth of metres; what is not finite becomes a hole."""
    steps = np.where(np.isfinite(metres), np.clip(np.rint(metres * DEPTH_STEPS), 0, DEPTH_HOLE - 1), DEPTH_HOLE)
    return steps.astype(np.uint16)


def normal(vectors: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of unit normals (H, W, 3), x right, y down, z into the scene: (n + 1) / 2 * 255."""
    return np.rint((vectors + 1.0) * 127.5).astype(np.uint8)


def principal_curvature(curvature: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 2) of curvatures (H, W, 2) in 1/m: k / 33.3 clipped to [-1, 1], then (k + 1) / 2 * 254; plane 127.

    The released images carry a third channel that is always 0; it is left out.
    """
    scaled = np.clip(curvature * CURVATURE_RADIUS, -1.0, 1.0)
    return np.rint((scaled + 1.0) * 127.0).astype(np.uint8)


def reshading(normals: np.ndarray, rays: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """uint8 (H, W) shading by one lamp at the camera, without shadows and texture.

    255 * clip(1.6 * max(0, n.v) * 8 / (8 + d^2), 0, 1).

    Args:
        normals: (H, W, 3) unit normals in the camera frame.
        rays: (H, W, 3) from the camera to the surface, of any length; v is the unit vector back along them.
        metres: (H, W) Euclidean distance d to the camera.
    """
    facing = -(normals * rays).sum(-1) / np.linalg.norm(rays, axis=-1)
    light = LAMP_GAIN * np.maximum(facing, 0.0) * LAMP_HALF_LIFE / (LAMP_HALF_LIFE + metres**2)
    return np.rint(255.0 * np.clip(light, 0.0, 1.0)).astype(np.uint8)
