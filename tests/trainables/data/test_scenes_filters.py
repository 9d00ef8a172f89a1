from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.feature import hessian_matrix_det

from trainables.data.scenes import filters


def sobel_by_hand(image: np.ndarray) -> np.ndarray:
    """Root mean square of the two Sobel responses, kernels of weight 1, edges reflected."""
    smooth, slope = np.array([0.25, 0.5, 0.25]), np.array([1.0, 0.0, -1.0])
    x = ndimage.convolve(image, np.outer(smooth, slope), mode="reflect")
    y = ndimage.convolve(image, np.outer(slope, smooth), mode="reflect")
    return np.sqrt((x * x + y * y) / 2)


@pytest.fixture
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(rng.normal(size=(64, 64, 3)), (4, 4, 0))
    return np.clip(127 + 900 * blobs, 0, 255).astype(np.uint8)


def test_gray_is_pillows_luma(picture: np.ndarray) -> None:
    np.testing.assert_array_equal(filters.gray(picture) * 255, np.asarray(Image.fromarray(picture).convert("L")))


def test_occlusion_edge_of_a_step() -> None:
    near, far = 512, 2048
    depth = np.full((12, 12), near, dtype=np.uint16)
    depth[:, 6:] = far
    edges = filters.edge_occlusion(depth)
    # The step of sqrt(depth / 65536), over sqrt(2), on the two columns beside it; the mask drops the border.
    height = (np.sqrt(2048) - np.sqrt(512)) / 256 / np.sqrt(2)
    expected = np.zeros((12, 12))
    expected[1:-1, 5:7] = round(height * 65535)
    np.testing.assert_array_equal(edges, expected)


def test_occlusion_edge_next_to_a_hole_is_dropped() -> None:
    depth = np.full((12, 12), 1024, dtype=np.uint16)
    depth[5, 5] = 65535
    assert not filters.edge_occlusion(depth).any()


def test_texture_edge_is_sobel_of_the_normalised_blur(picture: np.ndarray) -> None:
    gray = filters.gray(picture)
    blurred = ndimage.gaussian_filter(gray, 3, mode="constant") / ndimage.gaussian_filter(
        np.ones_like(gray), 3, mode="constant"
    )
    np.testing.assert_allclose(filters.edge_texture(gray), sobel_by_hand(blurred) * 65535, atol=1.0)


def test_texture_edge_of_a_step_is_the_gaussian_of_its_distance() -> None:
    gray = np.zeros((64, 64))
    gray[:, 32:] = 0.5
    row = filters.edge_texture(gray)[32] / 65535
    # Central difference over two pixels of a blurred step: 0.5 * (Phi(x + 1) - Phi(x - 1)) / sqrt(2), x in pixels.
    from scipy.stats import norm

    x = np.arange(64) - 31.5
    expected = 0.5 * (norm.cdf((x + 1) / 3) - norm.cdf((x - 1) / 3)) / np.sqrt(2)
    np.testing.assert_allclose(row[20:44], expected[20:44], atol=2e-3)


def test_flat_grey_has_no_texture_edges_even_at_the_border() -> None:
    assert not filters.edge_texture(np.full((40, 40), 0.6)).any()


@pytest.mark.parametrize(("size", "scales"), [(128, 10), (160, 10), (64, 5), (32, 3)])
def test_keypoints2d_is_the_largest_hessian_determinant(size: int, scales: int) -> None:
    gray = ndimage.gaussian_filter(np.random.default_rng(1).random((size, size)), 2)
    gray = (gray - gray.min()) / np.ptp(gray)
    sigmas = [1 + 29 * i / 9 for i in range(scales)]
    expected = np.max([hessian_matrix_det(gray, sigma) for sigma in sigmas], axis=0)
    np.testing.assert_array_equal(filters.keypoints2d(gray), np.rint(np.clip(expected, 0, 1) * 65535))


def test_keypoints2d_peaks_on_a_blob() -> None:
    y, x = np.mgrid[:128, :128]
    blob = np.exp(-((x - 70) ** 2 + (y - 50) ** 2) / (2 * 6.0**2))
    peak = np.unravel_index(np.argmax(filters.keypoints2d(blob)[20:100, 20:100]), (80, 80))
    assert abs(peak[0] + 20 - 50) <= 2
    assert abs(peak[1] + 20 - 70) <= 2


@pytest.mark.parametrize("size", [64, 256])
def test_blurred_occlusion_edges_keep_their_sum(size: int) -> None:
    edges = np.zeros((size, size), dtype=np.uint16)
    edges[size // 2, size // 2] = 60000
    blurred = filters.blur_occlusion(edges).astype(float)
    sigma = 4 * size / 256
    assert blurred.sum() == pytest.approx(60000, rel=0.01)
    assert blurred.max() == pytest.approx(60000 / (2 * np.pi * sigma**2), rel=0.05)


def test_boundaries_are_thin_and_lie_between_ids() -> None:
    ids = np.zeros((20, 20), dtype=np.int64)
    ids[5:15, 5:15] = 3
    lines = filters.boundaries(ids)
    assert set(np.unique(lines)) == {0, 1}
    touching = np.zeros((20, 20), dtype=bool)
    touching[4:16, 4:16] = True
    touching[6:14, 6:14] = False
    assert not (lines.astype(bool) & ~touching).any()
    # A closed ring of one pixel's width: the inside stays enclosed, and there is no 2x2 block of line.
    assert ndimage.label(1 - lines)[1] == 2
    assert not (lines[1:, 1:] & lines[:-1, 1:] & lines[1:, :-1] & lines[:-1, :-1]).any()


def test_one_id_has_no_boundary() -> None:
    assert not filters.boundaries(np.full((8, 8), 4)).any()
