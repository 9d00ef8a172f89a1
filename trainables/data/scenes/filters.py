"""Image filters behind Taskonomy's edges and 2D keypoints (Omnidata annotator, its settings for "all")."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import hessian_matrix_det
from skimage.filters import gaussian, sobel
from skimage.morphology import thin

from trainables.data.scenes.encode import DEPTH_HOLE

EDGE_TEXTURE_SIGMA = 3.0
"""Blur before the texture edges, in pixels."""

KEYPOINT_SIGMAS = np.linspace(1.0, 30.0, 10)
"""Scales of the 2D keypoints, in pixels."""

KEYPOINT_REACH = 0.25
"""Largest scale, as a fraction of the image's width. From 128 pixels on all ten scales count, as in Taskonomy. Smaller
images drop those whose box, 3 sigma wide, sees little but the zeros outside the image and would saturate the label."""

OCCLUSION_BLUR = 4.0 / 256.0
"""Sigma of the blur that Taskonomy's loaders give occlusion edges, as a fraction of the width: 4 at 256 pixels."""


def gray(image: np.ndarray) -> np.ndarray:
    """(H, W) float64 in 0..1 of a uint8 RGB image: the integer luma of Pillow's mode ``L``, over 255."""
    weighted = image.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.float64) / 255.0


def masked_blur(image: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of (H, W) or (H, W, C) over the pixels of ``mask`` (H, W) inside the image alone."""
    weight = gaussian(mask.astype(np.float64), sigma, mode="constant")
    if image.ndim == 2:
        blurred = gaussian(np.where(mask, image, 0.0), sigma, mode="constant")
        return blurred / (weight + np.finfo(np.float64).eps)
    blurred = gaussian(np.where(mask[..., None], image, 0.0), sigma, mode="constant", channel_axis=-1)
    return blurred / (weight[..., None] + np.finfo(np.float64).eps)


def edge_texture(gray_image: np.ndarray) -> np.ndarray:
    """uint16 (H, W): Canny's gradient without its non-maximum suppression, Sobel of the blurred grey image, * 65535."""
    everywhere = np.ones(gray_image.shape, dtype=bool)
    return to_uint16(sobel(masked_blur(gray_image, everywhere, EDGE_TEXTURE_SIGMA)))


def edge_occlusion(depth_zbuffer: np.ndarray) -> np.ndarray:
    """uint16 (H, W): Sobel of sqrt(encoded depth) / 256 where the depth is below 65036, * 65535.

    The released code also blurs, and throws the result away; so there is no blur here.
    """
    root = np.sqrt(depth_zbuffer.astype(np.float64)) / np.sqrt(65536.0)
    return to_uint16(sobel(root, mask=depth_zbuffer < DEPTH_HOLE + 1 - 500))


def blur_occlusion(edges: np.ndarray) -> np.ndarray:
    """uint16 (H, W): encoded occlusion edges after the loaders' Gaussian, its sigma scaled to the image."""
    blurred = ndimage.gaussian_filter(edges.astype(np.float64), OCCLUSION_BLUR * edges.shape[-1])
    return np.rint(blurred).astype(np.uint16)


def keypoints2d(gray_image: np.ndarray) -> np.ndarray:
    """uint16 (H, W): SURF-like interest, the largest box-filter determinant of the Hessian over the scales, * 65535.

    Bay et al., SURF (2006); no non-maximum suppression. Negative determinants count as 0.
    """
    sigmas = KEYPOINT_SIGMAS[gray_image.shape[-1] * KEYPOINT_REACH >= KEYPOINT_SIGMAS]
    interest = np.max([hessian_matrix_det(gray_image, sigma) for sigma in sigmas], axis=0)
    return to_uint16(interest)


def boundaries(ids: np.ndarray) -> np.ndarray:
    """uint8 (H, W) 0/1: pixels whose id differs from one of their four neighbours, thinned to lines.

    PASCAL-Context's edge label, thin(|Laplacian(ids)| > 0), without the accident of a Laplacian that cancels.
    """
    edge = np.zeros(ids.shape, dtype=bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return thin(edge).astype(np.uint8)


def to_uint16(image: np.ndarray) -> np.ndarray:
    """uint16 of floats in 0..1: * 65535, rounded and clipped."""
    return np.clip(np.rint(image * 65535.0), 0, 65535).astype(np.uint16)
