from __future__ import annotations

import numpy as np
from scenes_helpers import primitive, scene, wall

from trainables.data.scenes import encode
from trainables.data.scenes.geometry import Primitive, rotation_about
from trainables.data.scenes.keypoints3d import keypoints3d, surface_change
from trainables.data.scenes.render import cast


def score(*primitives: Primitive, size: int = 64) -> np.ndarray:
    world = scene(*primitives, size=size)
    frame = cast(world)
    return keypoints3d(encode.depth(frame.depth), frame.normal, world.camera.focal)


def corner_box() -> Primitive:
    """A box that turns one corner to the camera, its three faces alike."""
    turned = rotation_about(0, np.arctan(np.sqrt(0.5))) @ rotation_about(1, np.pi / 4)
    return primitive("box", (0.0, 0.0, 2.5), (0.5, 0.5, 0.5), turned.T)


def test_plane_has_no_interest() -> None:
    assert not score(wall(3.0)).any()


def test_corner_is_more_interesting_than_the_edges_and_faces_around_it() -> None:
    image = score(wall(8.0), corner_box()) / 65536
    corner = image[28:36, 28:36].max()
    assert corner > 0.3
    # Along the upright edge, further than the support from both of its ends, the surface changes in one direction only.
    assert image[41:45, 28:36].max() < 0.3 * corner
    # The middle of the faces left and right of that edge.
    assert image[38:42, 23:26].max() < 0.3 * corner
    assert image[38:42, 38:41].max() < 0.3 * corner


def test_larger_images_are_scored_at_the_working_size() -> None:
    small, large = score(wall(8.0), corner_box(), size=128), score(wall(8.0), corner_box(), size=256)
    assert large.shape == (256, 256)
    assert np.corrcoef(large[::2, ::2].ravel(), small.ravel())[0, 1] > 0.8


def test_holes_have_no_interest_and_make_none() -> None:
    world = scene(wall(3.0), size=64)
    frame = cast(world)
    depth = encode.depth(frame.depth)
    depth[20:30, 20:30] = encode.DEPTH_HOLE
    assert not keypoints3d(depth, frame.normal, world.camera.focal).any()
    depth[:] = encode.DEPTH_HOLE
    assert not keypoints3d(depth, frame.normal, world.camera.focal).any()


def test_surface_change_points_across_borders_on_their_near_side() -> None:
    depth = np.full((16, 16), 4.0)
    depth[:, :8] = 2.0
    normals = np.broadcast_to(np.array([0.0, 0.0, -1.0]), (16, 16, 3))
    weight, angle = surface_change(depth, normals)
    expected = np.zeros((16, 16))
    expected[:, 7] = 1.0
    np.testing.assert_array_equal(weight, expected)
    np.testing.assert_allclose(np.minimum(angle[:, 7], np.pi - angle[:, 7]), 0.0, atol=1e-9)


def test_surface_change_of_a_right_angle_is_one() -> None:
    normals = np.zeros((16, 16, 3))
    normals[:8, :, 2] = -1.0
    normals[8:, :, 1] = -1.0
    weight, angle = surface_change(np.full((16, 16), 2.0), normals)
    np.testing.assert_allclose(weight[7:9], 1.0)
    assert not weight[:7].any()
    assert not weight[9:].any()
    np.testing.assert_allclose(angle[7:9], np.pi / 2)
