from __future__ import annotations

import numpy as np
import pytest
from skimage.graph import cut_normalized, rag_mean_color
from skimage.segmentation import felzenszwalb

from trainables.data.scenes import ScenesConfig, encode, filters, segments
from trainables.data.scenes.render import photograph
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


def test_segment_unsup25d_separates_a_near_box_from_the_wall() -> None:
    metres = np.full((64, 64), 5.0)
    metres[20:50, 20:50] = 1.5
    depth = encode.depth(metres)
    normal = np.full((64, 64, 3), 128, dtype=np.uint8)
    normal[..., 2] = 0
    ids = segments.segment_unsup25d(depth, normal, filters.edge_occlusion(depth))
    assert ids[35, 35] != ids[5, 5]
    assert len(np.unique(ids[26:44, 26:44])) == 1
    assert {int(ids.min()), int(ids.max())} == {0, 255}


def test_segment_unsup25d_of_a_bare_wall_is_one_segment() -> None:
    depth = np.full((48, 48), 1500, dtype=np.uint16)
    normal = np.full((48, 48, 3), 128, dtype=np.uint8)
    assert not segments.segment_unsup25d(depth, normal, np.zeros_like(depth)).any()


def test_stretch_spreads_ids_over_a_byte() -> None:
    assert segments.stretch(np.array([[3, 3], [5, 7]])).tolist() == [[0, 0], [128, 255]]
    assert segments.stretch(np.array([[3, 3]])).tolist() == [[0, 0]]
