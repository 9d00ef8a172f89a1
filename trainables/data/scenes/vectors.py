"""Small vector products over many points, without BLAS."""

from __future__ import annotations

import numpy as np


def turn(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``vectors @ matrix`` for (..., 3) and (3, K), element by element, so that its bits do not hang on BLAS."""
    rotated: np.ndarray = vectors[..., 0:1] * matrix[0] + vectors[..., 1:2] * matrix[1] + vectors[..., 2:3] * matrix[2]
    return rotated


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products over the last axis of (..., 3) arrays."""
    product: np.ndarray = np.einsum("...i,...i->...", a, b)
    return product
