from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.graph import RAG, cut_normalized, rag_mean_color
from skimage.segmentation import felzenszwalb

from trainables.data.scenes import ScenesConfig, encode, filters, segments
from trainables.data.scenes.render import cast, photograph
from trainables.data.scenes.world import random_scene


def photo(index: int, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(index)
    return photograph(random_scene(ScenesConfig(image_size=size), rng), 2.0, rng)


@pytest.mark.parametrize("index", range(4))
def test_segment_unsup2d_is_scikit_images_own_cut(index: int) -> None:
    image = photo(index)
    superpixels = felzenszwalb(image, scale=200, sigma=3.0)
    graph = rag_mean_color(image, superpixels, mode="similarity")
    expected = cut_normalized(superpixels, graph, thresh=0.005, num_cuts=10, max_edge=2.0, rng=0)
    ids = segments.segment_unsup2d(image)
    np.testing.assert_array_equal(ids, segments.stretch(expected))
    assert ids.dtype == np.uint8


def test_adjacency_is_scikit_images_graph_in_its_order() -> None:
    image = photo(7)
    superpixels = felzenszwalb(image, scale=50, sigma=1.0)
    ours, theirs = segments.adjacency(image, superpixels), rag_mean_color(image, superpixels, mode="similarity")
    assert list(ours.nodes) == list(theirs.nodes)
    assert [(x, y) for x, y in ours.edges] == [(x, y) for x, y in theirs.edges]
    for x, y, data in theirs.edges(data=True):
        assert ours[x][y]["weight"] == pytest.approx(data["weight"], rel=1e-12)


@pytest.mark.parametrize("index", range(3))
@pytest.mark.filterwarnings("ignore:Got image with third dimension")
def test_segment_unsup25d_is_scikit_images_cut_of_depth_normals_and_edges(
    index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = cast(random_scene(ScenesConfig(image_size=64), np.random.default_rng(index)))
    depth, normal = encode.depth(frame.depth), encode.normal(frame.normal)
    edges = filters.edge_occlusion(depth)

    def blur(channel: np.ndarray, sigma: float) -> np.ndarray:
        # Without holes the mask only makes up for what lies outside the image.
        inside = ndimage.gaussian_filter(np.ones((64, 64)), sigma, mode="constant")
        return ndimage.gaussian_filter(channel, sigma, mode="constant") / inside

    channels = [2 * blur(np.log(depth) / 16, 1), *(blur(normal[..., c] / 255, 2) for c in range(3)), 10 * edges / 65025]
    stack = np.stack(channels, axis=-1)
    superpixels = felzenszwalb(stack, scale=200, sigma=0, min_size=200)
    reference = RAG(superpixels, connectivity=2)
    mean = {node: stack[superpixels == node].mean(0) for node in reference}
    cut: list[np.ndarray] = []

    def spy(labels: np.ndarray, graph: RAG, thresh: float, num_cuts: int, **options: object) -> np.ndarray:
        # The cut itself turns on the last bit of a weight where regions are as alike as here, so its input is compared.
        np.testing.assert_array_equal(labels, superpixels)
        assert list(graph.nodes) == list(reference.nodes)
        assert list(graph.edges) == list(reference.edges)
        for x, y, data in graph.edges(data=True):
            assert data["weight"] == pytest.approx(np.exp(-((mean[x] - mean[y]) ** 2).sum() / 255), rel=1e-9)
        assert (thresh, num_cuts, options) == (1.0, 100, {"max_edge": 1.0, "rng": 0})
        cut.append(cut_normalized(labels, graph, thresh, num_cuts, **options))
        return cut[0]

    monkeypatch.setattr(segments, "cut_normalized", spy)
    ids = segments.segment_unsup25d(depth, normal, edges)
    np.testing.assert_array_equal(ids, segments.stretch(cut[0]))
    assert len(np.unique(ids)) > 1


def test_segment_unsup25d_of_a_bare_wall_is_one_segment() -> None:
    depth = np.full((48, 48), 1500, dtype=np.uint16)
    normal = np.full((48, 48, 3), 128, dtype=np.uint8)
    assert not segments.segment_unsup25d(depth, normal, np.zeros_like(depth)).any()


def test_stretch_spreads_ids_over_a_byte() -> None:
    assert segments.stretch(np.array([[3, 3], [5, 7]])).tolist() == [[0, 0], [128, 255]]
    assert segments.stretch(np.array([[3, 3]])).tolist() == [[0, 0]]
