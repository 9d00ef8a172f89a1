"""NARF-style interest image: where a surface changes in several directions near a point that is itself stable.

Follows the interest score of Steder, Rusu, Konolige and Burgard, "Point feature extraction on 3D range scans taking
into account object boundaries" (ICRA 2011), whose implementation in PCL made Taskonomy's labels. It is not
that implementation: the surface change comes from exact normals instead of fitted ones, and every border counts alike.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from trainables.data.scenes.encode import DEPTH_HOLE, DEPTH_STEPS

SUPPORT = 0.3
"""Diameter of the neighbourhood that is looked at, in metres."""

WORKING_SIZE = 128
"""Larger images are thinned out to at most this many pixels for the score, which is then interpolated back."""

_MAX_RADIUS = 8
"""Most pixels, at the working size, from a neighbourhood's centre: what is nearer than 1 to 2 m gets a smaller one."""

_BINS = 8
"""Directions told apart in half a turn."""

_BORDER_JUMP = 0.08
"""Relative jump of the range between neighbours that makes a border."""


def keypoints3d(depth_zbuffer: np.ndarray, normals: np.ndarray, focal: float) -> np.ndarray:
    """uint16 (H, W) interest in 0..1, * 65536.

    Args:
        depth_zbuffer: (H, W) uint16 encoded depth; holes have no interest and are no neighbours.
        normals: (H, W, 3) unit normals in the camera frame.
        focal: focal length in pixels.
    """
    size = depth_zbuffer.shape[0]
    step = -(-size // WORKING_SIZE)
    score = interest(
        np.where(depth_zbuffer == DEPTH_HOLE, np.nan, depth_zbuffer / DEPTH_STEPS)[::step, ::step],
        normals[::step, ::step],
        focal / step,
    )
    if step > 1:
        grid = np.arange(size) / step
        where = np.meshgrid(grid, grid, indexing="ij")
        score = ndimage.map_coordinates(score, where, order=1, mode="nearest")
    score = np.where(depth_zbuffer == DEPTH_HOLE, 0.0, score)
    return np.clip(np.rint(score * 65536.0), 0, 65535).astype(np.uint16)


def surface_change(depth: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much the surface changes at each pixel, and in which direction of the image.

    Args:
        depth: (H, W) metres, NaN in holes.
        normals: (H, W, 3).

    Returns:
        Weight (H, W) in 0..1, 1 at borders of objects (on their near side), and the direction's angle (H, W) in 0..pi.
    """
    valid = np.isfinite(depth)
    z = np.where(valid, depth, np.nanmax(depth) if valid.any() else 1.0)
    # Nothing is known of a surface next to a hole: a change there would be the hole's, not the surface's.
    known = ndimage.binary_erosion(valid, np.ones((3, 3)), border_value=1)
    # Slanted planes change their range steadily; a border is a jump on top of that, seen in the second difference.
    nearest = ndimage.minimum_filter(z, 3)
    bend = np.maximum(np.abs(_second(z, 1)), np.abs(_second(z, 0)))
    border = known & (bend > _BORDER_JUMP * nearest) & (z - nearest < 0.5 * bend)
    tensor = np.where(border, _tensor(z[..., None]), np.where(known, _tensor(normals), 0.0))
    eigenvalue = 0.5 * (tensor[0] + tensor[1]) + np.hypot(0.5 * (tensor[0] - tensor[1]), tensor[2])
    # The largest eigenvalue is the squared change along the dominant direction; a right angle between normals is
    # sqrt(2) long.
    weight = np.where(border, 1.0, np.clip(np.sqrt(eigenvalue / 2.0), 0.0, 1.0))
    # Directions are averaged as unit tensors, which evens out the stairs of a slanted line of pixels.
    unit = np.where(eigenvalue > 0, tensor * weight / np.maximum(eigenvalue, 1e-12), 0.0)
    xx, yy, xy = (ndimage.gaussian_filter(part, 1.0) for part in unit)
    return weight, 0.5 * np.arctan2(2.0 * xy, xx - yy) % np.pi


def interest(depth: np.ndarray, normals: np.ndarray, focal: float) -> np.ndarray:
    """(H, W) NARF-style interest I1 * I2 in 0..1 of depth (H, W) in metres (NaN in holes) and normals (H, W, 3).

    I1 = min over neighbours of 1 - w max(0, 1 - 10 d / s): the point itself and the closest ones should not change.

    I2 = max over pairs of neighbours of f f' (1 - |cos(angle - angle')|), f = sqrt(w (1 - |2 d / s - 1/2|)): changes
    in different directions nearby. d is the distance in space, s the support.
    """
    weight, angle = surface_change(depth, normals)
    size = depth.shape[0]
    steps = (np.arange(size) + 0.5 - 0.5 * size) / focal
    points = np.stack([steps[None, :] * depth, steps[:, None] * depth, depth])
    nearest = np.nanmin(depth) if np.isfinite(depth).any() else np.inf
    radius = int(np.clip(np.floor(0.5 * SUPPORT * focal / nearest), 1, _MAX_RADIUS))
    bins = (angle * (_BINS / np.pi)).astype(np.int64) % _BINS
    by_direction = np.where(bins == np.arange(_BINS)[:, None, None], np.sqrt(weight), 0.0)
    stable = np.ones_like(depth)
    strongest = np.zeros((_BINS, *depth.shape))
    pad = ((0, 0), (radius, radius), (radius, radius))
    far_points = np.pad(points, pad, constant_values=np.nan)
    far_direction = np.pad(by_direction, pad)
    far_weight = np.pad(weight, radius)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx * dx + dy * dy > radius * radius:
                continue
            window = (slice(radius + dy, radius + dy + size), slice(radius + dx, radius + dx + size))
            gap = np.sqrt(((far_points[:, *window] - points) ** 2).sum(0)) / SUPPORT
            inside = gap <= 0.5
            if not inside.any():
                continue
            gap = np.where(inside, gap, 1.0)
            stable = np.minimum(stable, 1.0 - far_weight[window] * np.maximum(0.0, 1.0 - 10.0 * gap))
            falloff = np.where(inside, np.sqrt(np.clip(1.0 - np.abs(2.0 * gap - 0.5), 0.0, None)), 0.0)
            np.maximum(strongest, far_direction[:, *window] * falloff, out=strongest)
    pair = np.zeros_like(depth)
    for i in range(_BINS):
        for j in range(i):
            contrast = 1.0 - abs(np.cos(np.pi * (i - j) / _BINS))
            pair = np.maximum(pair, strongest[i] * strongest[j] * contrast)
    return stable * pair


def _tensor(image: np.ndarray) -> np.ndarray:
    """(3, H, W) structure tensor xx, yy, xy of (H, W, C), summed over the channels."""
    dx, dy = _difference(image, 1), _difference(image, 0)
    return np.stack([(dx * dx).sum(-1), (dy * dy).sum(-1), (dx * dy).sum(-1)])


def _difference(image: np.ndarray, axis: int) -> np.ndarray:
    """Central difference over two pixels, edges repeated."""
    padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(image.ndim)], mode="edge")
    n = image.shape[axis]
    return np.take(padded, range(2, n + 2), axis) - np.take(padded, range(n), axis)


def _second(image: np.ndarray, axis: int) -> np.ndarray:
    """Second difference, edges repeated."""
    padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(image.ndim)], mode="edge")
    n = image.shape[axis]
    return np.take(padded, range(2, n + 2), axis) - 2.0 * image + np.take(padded, range(n), axis)
