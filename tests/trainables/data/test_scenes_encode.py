from __future__ import annotations

import numpy as np
import pytest
from scenes_helpers import floor, primitive, scene, wall

from trainables.data.scenes import ScenesConfig, encode
from trainables.data.scenes.render import cast
from trainables.data.scenes.world import random_scene


def test_depth_has_512_steps_a_metre_and_one_code_for_holes() -> None:
    coded = encode.depth(np.array([[0.0, 1.0, 2.5, 127.9, 500.0, np.inf]]))
    assert coded.tolist() == [[0, 512, 1280, 65485, 65534, 65535]]
    assert coded.dtype == np.uint16


def test_euclidean_over_zbuffer_is_the_obliqueness_of_the_pixel() -> None:
    world = random_scene(ScenesConfig(image_size=40), np.random.default_rng(3))
    frame = cast(world)
    steps = np.arange(40) + 0.5 - 20
    r2 = steps[:, None] ** 2 + steps[None, :] ** 2
    ratio = np.sqrt(1 + r2 / world.camera.focal**2)
    np.testing.assert_allclose(frame.ray_length, ratio, rtol=1e-12)
    points = frame.depth[..., None] * frame.rays
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), frame.depth * ratio, rtol=1e-12)


@pytest.mark.parametrize(
    ("pitch", "code"),
    # Tilted down by p the floor's normal is (0, -cos p, -sin p): the published example (128, ~2, 112) is p = 7 degrees.
    [(0.0, [128, 0, 128]), (7.0, [128, 1, 112]), (60.0, [128, 64, 17])],
)
def test_floor_is_coded_with_y_down(pitch: float, code: list[int]) -> None:
    frame = cast(scene(wall(1e6), floor(1.5), pitch=pitch))
    coded = encode.normal(frame.normal)
    assert coded[-1, 16].tolist() == code


def test_wall_facing_the_camera_is_128_128_0() -> None:
    coded = encode.normal(cast(scene(wall(4.0))).normal)
    assert np.unique(coded.reshape(-1, 3), axis=0).tolist() == [[128, 128, 0]]


@pytest.mark.parametrize(
    ("curvature", "code"),
    [
        ((0.0, 0.0), [127, 127]),
        ((1 / 0.3, 1 / 0.3), [140, 140]),  # a ball of 0.3 m: (0.1 + 1) / 2 * 254 = 139.7
        ((1 / 0.06, 0.0), [190, 127]),  # a pipe of 6 cm: 190.5, rounded to even
        ((1 / 0.03, 0.0), [254, 127]),
        ((1 / 0.01, 0.0), [254, 127]),  # below 3 cm it saturates
        ((-1 / 0.3, 0.0), [114, 127]),
        ((-1 / 0.01, 0.0), [0, 127]),
    ],
)
def test_curvature_codes(curvature: tuple[float, float], code: list[int]) -> None:
    assert encode.principal_curvature(np.array([[curvature]])).tolist() == [[code]]


def test_reshading_of_a_wall_facing_the_lamp() -> None:
    z = 4.0
    frame = cast(scene(wall(z)))
    distance = z * frame.ray_length
    expected = np.clip(1.6 / frame.ray_length * 8 / (8 + distance**2), 0, 1)
    coded = encode.reshading(frame.normal, frame.rays, distance)
    np.testing.assert_array_equal(coded, np.rint(255 * expected))
    assert coded[16, 16] == 136  # 255 * 1.6 * 8 / 24


def test_reshading_saturates_near_by_and_ignores_what_faces_away() -> None:
    rays = np.array([[[0.0, 0.0, 1.0]] * 3])
    normals = np.array([[[0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]])
    assert encode.reshading(normals, rays, np.full((1, 3), 1.0)).tolist() == [[255, 0, 0]]


def test_ball_in_the_picture_carries_its_curvature_code() -> None:
    frame = cast(scene(wall(6.0), primitive("sphere", (0.0, 0.0, 3.0), (0.3, 0.3, 0.3))))
    coded = encode.principal_curvature(frame.curvature)
    assert coded[16, 16].tolist() == [140, 140]
    assert coded[0, 0].tolist() == [127, 127]
