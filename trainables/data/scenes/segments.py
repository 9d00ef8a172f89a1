"""Taskonomy's unsupervised segmentations: superpixels, their adjacency graph, and normalised cuts of it.

Felzenszwalb and Huttenlocher 2004; Shi and Malik 2000; parameters of the Omnidata annotator. scikit-image's own
superpixels and cuts are used; only its adjacency graph, a Python loop over the pixels, is put together here with array
operations. The graph is the same, in the same order of nodes, so the cuts are the same too.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.sparse.linalg import ArpackError
from skimage.graph import RAG, cut_normalized
from skimage.segmentation import felzenszwalb

from trainables.data.scenes.encode import DEPTH_HOLE
from trainables.data.scenes.filters import masked_blur

_SIMILARITY = 255.0
"""Squared colour distance at which the weight of an edge is 1/e."""

_OFFSETS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def segment_unsup2d(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W) segment ids of a uint8 RGB image, stretched to 0..255."""
    superpixels = felzenszwalb(image, scale=200, sigma=3.0)
    return _cut(image, superpixels, threshold=0.005, cuts=10, self_weight=2.0)


def segment_unsup25d(depth_zbuffer: np.ndarray, normal: np.ndarray, edge_occlusion: np.ndarray) -> np.ndarray:
    """uint8 (H, W) segment ids of the encoded geometry, stretched to 0..255.

    Args:
        depth_zbuffer: (H, W) uint16.
        normal: (H, W, 3) uint8.
        edge_occlusion: (H, W) uint16.
    """
    mask = depth_zbuffer < DEPTH_HOLE - 1
    depth = masked_blur(np.log(np.maximum(depth_zbuffer.astype(np.float64), 1.0)) / 16.0, mask, 1.0)
    channels = np.concatenate(
        [
            2.0 * depth[..., None],
            masked_blur(normal / 255.0, mask, 2.0),
            10.0 * edge_occlusion[..., None] / 255.0**2,
        ],
        axis=-1,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got image with third dimension", category=RuntimeWarning)
        superpixels = felzenszwalb(channels, scale=200, sigma=0.0, min_size=200)
    return _cut(channels, superpixels, threshold=1.0, cuts=100, self_weight=1.0)


def adjacency(image: np.ndarray, superpixels: np.ndarray) -> RAG:
    """The graph of ``skimage.graph.rag_mean_color(image, superpixels, mode="similarity")``, for any number of channels.

    Args:
        image: (H, W, C).
        superpixels: (H, W) ids 0..M-1, each present.
    """
    flat = superpixels.ravel()
    counts = np.bincount(flat)
    channels = image.reshape(flat.size, -1).astype(np.float64)
    means = np.stack([np.bincount(flat, weights=c) for c in channels.T], axis=1) / counts[:, None]
    padded = np.pad(superpixels, 1, mode="edge")
    height, width = superpixels.shape
    around = [padded[1 + i : 1 + i + height, 1 + j : 1 + j + width].ravel() for i, j in _OFFSETS]
    # Row by row, and each pixel's neighbours in their order: the order in which scikit-image adds the edges.
    pairs = np.stack([np.repeat(flat, len(_OFFSETS)), np.stack(around, axis=1).ravel()], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    _, first = np.unique(low * len(counts) + high, return_index=True)
    graph = RAG()
    for x, y in pairs[np.sort(first)].tolist():
        distance = float(np.linalg.norm(means[x] - means[y]))
        graph.add_edge(x, y, weight=float(np.exp(-(distance**2) / _SIMILARITY)))
    for node in graph:
        graph.nodes[node]["labels"] = [node]
    return graph


def stretch(ids: np.ndarray) -> np.ndarray:
    """uint8 of ids, spread linearly from 0 to 255; 0 where there is but one id."""
    low, high = int(ids.min()), int(ids.max())
    if low == high:
        return np.zeros(ids.shape, dtype=np.uint8)
    return np.floor((ids - low) * (255.0 / (high - low)) + 0.5).astype(np.uint8)


def _cut(image: np.ndarray, superpixels: np.ndarray, threshold: float, cuts: int, self_weight: float) -> np.ndarray:
    graph = adjacency(image, superpixels)
    if not graph.number_of_nodes():
        return stretch(np.zeros_like(superpixels))
    try:
        segments = cut_normalized(superpixels, graph, threshold, cuts, max_edge=self_weight, rng=0)
    except ArpackError:
        # The annotator falls back to a single segment where the eigenvectors cannot be found.
        segments = np.zeros_like(superpixels)
    return stretch(segments)
