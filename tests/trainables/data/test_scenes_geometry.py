from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scenes_helpers import floor, primitive, scene, wall

from trainables.data.scenes.geometry import UP, Primitive, frame_along, near_bound, rotation_about
from trainables.data.scenes.render import cast, photograph
from trainables.data.scenes.vectors import dot, turn

MIDDLE = (16, 16)
UPRIGHT = frame_along(UP)


def test_sphere_depth_normal_and_curvature_in_closed_form() -> None:
    z, r = 3.0, 0.5
    frame = cast(scene(wall(10.0), primitive("sphere", (0.0, 0.0, z), (r, r, r))))
    d = frame.rays
    square = (d * d).sum(-1)
    inside = z * z - square * (z * z - r * r)
    hit = inside > 0
    expected = (z - np.sqrt(inside[hit])) / square[hit]
    np.testing.assert_allclose(frame.depth[hit], expected, rtol=1e-12)
    np.testing.assert_allclose(frame.depth[~hit], 10.0, rtol=1e-12)
    points = expected[:, None] * d[hit]
    np.testing.assert_allclose(frame.normal[hit], (points - [0, 0, z]) / r, atol=1e-12)
    np.testing.assert_allclose(frame.curvature[hit], 1.0 / r)
    np.testing.assert_array_equal(frame.curvature[~hit], 0.0)
    assert frame.depth[MIDDLE] == pytest.approx(z - r)
    np.testing.assert_allclose(frame.normal[MIDDLE], [0, 0, -1], atol=1e-12)


def test_box_is_flat_and_meets_the_axis_at_its_near_face() -> None:
    frame = cast(scene(wall(10.0), primitive("box", (0.0, 0.0, 4.0), (0.5, 0.6, 0.7))))
    assert frame.depth[MIDDLE] == pytest.approx(3.3)
    np.testing.assert_allclose(frame.normal[MIDDLE], [0, 0, -1])
    np.testing.assert_array_equal(frame.curvature, 0.0)


def test_turned_box_shows_two_faces_at_45_degrees() -> None:
    box = primitive("box", (0.0, 0.0, 4.0), (0.5, 0.5, 0.5), rotation_about(1, np.pi / 4).T)
    frame = cast(scene(wall(10.0), box))
    assert frame.depth[MIDDLE] == pytest.approx(4.0 - 0.5 * np.sqrt(2))
    left, right = frame.normal[16, 14], frame.normal[16, 18]
    np.testing.assert_allclose(left, [-np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(right, [np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-12)


def test_upright_cylinder_curves_once() -> None:
    r, z = 0.25, 2.0
    frame = cast(scene(wall(10.0), primitive("cylinder", (0.0, 0.0, z), (r, r, 0.4), UPRIGHT)))
    assert frame.depth[MIDDLE] == pytest.approx(z - r)
    np.testing.assert_allclose(frame.normal[MIDDLE], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(frame.curvature[MIDDLE], [1 / r, 0.0])
    # Off the axis, on the row of the horizon, it is a circle in the plane.
    u = frame.rays[16, 18, 0]
    expected = (z - np.sqrt(z * z - (1 + u * u) * (z * z - r * r))) / (1 + u * u)
    assert frame.depth[16, 18] == pytest.approx(expected)


def test_cap_of_a_cylinder_is_flat_and_faces_up() -> None:
    frame = cast(scene(floor(50.0), primitive("cylinder", (0.0, 3.0, 0.001), (1.0, 1.0, 1.0), UPRIGHT), pitch=90.0))
    assert frame.depth[MIDDLE] == pytest.approx(2.0)
    np.testing.assert_allclose(frame.normal[MIDDLE], [0, 0, -1], atol=1e-12)
    np.testing.assert_array_equal(frame.curvature[MIDDLE], 0.0)


def test_open_cylinder_shows_its_hollow_inside() -> None:
    # Seen obliquely from above: the ray enters through the missing cap and meets the far wall from inside.
    hollow = primitive("cylinder", (0.0, 2.0, 2.0), (0.5, 0.5, 0.5), UPRIGHT, open_top=True)
    frame = cast(scene(wall(50.0), floor(2.6), hollow, pitch=40.0))
    closed = primitive("cylinder", (0.0, 2.0, 2.0), (0.5, 0.5, 0.5), UPRIGHT)
    inside = (frame.curvature[..., 0] < 0) & (frame.instance == 7)
    assert inside.any()
    np.testing.assert_allclose(frame.curvature[inside], np.broadcast_to([-2.0, 0.0], (inside.sum(), 2)))
    assert (dot(frame.normal, frame.rays)[inside] < 0).all()
    assert not (cast(scene(wall(50.0), floor(2.6), closed, pitch=40.0)).curvature < 0).any()


def test_floor_depth_is_its_height_over_the_slope_of_the_ray() -> None:
    frame = cast(scene(wall(1e6), floor(1.5)))
    below = frame.rays[..., 1] > 0
    np.testing.assert_allclose(frame.depth[below], np.minimum(1.5 / frame.rays[..., 1][below], 1e6), rtol=1e-9)
    np.testing.assert_allclose(frame.normal[below][0], [0, -1, 0], atol=1e-12)


def test_nearest_surface_wins_and_names_its_object() -> None:
    near = primitive("sphere", (0.0, 0.0, 2.0), (0.2, 0.2, 0.2), instance=9, semantic=5, part=4)
    far = primitive("sphere", (0.0, 0.0, 4.0), (1.5, 1.5, 1.5), instance=8, semantic=6)
    for order in ((near, far), (far, near)):
        frame = cast(scene(wall(10.0), *order))
        assert (frame.instance[MIDDLE], frame.semantic[MIDDLE], frame.part[MIDDLE]) == (9, 5, 4)
        assert set(np.unique(frame.instance)) == {0, 8, 9}


def test_shadow_falls_behind_what_stands_in_the_light() -> None:
    # The lamp is 1 m above the camera, so a small ball's shadow on the wall lies below the ball.
    ball = primitive("sphere", (0.0, 0.0, 2.0), (0.2, 0.2, 0.2))
    lit = photograph(scene(wall(4.0), size=65), 0.0, np.random.default_rng(0)).astype(int)
    shaded = photograph(scene(wall(4.0), ball, size=65), 0.0, np.random.default_rng(0)).astype(int)
    focal = scene(wall(4.0), size=65).camera.focal
    row = round(32 + focal * 1.0 / 4.0)
    assert shaded[row, 32, 0] < 0.7 * lit[row, 32, 0]
    np.testing.assert_array_equal(shaded[5], lit[5])


finite = st.floats(-1.0, 1.0, allow_nan=False, width=32)
direction = st.tuples(finite, finite, finite).filter(lambda v: np.linalg.norm(v) > 0.1)


@st.composite
def solids(draw: st.DrawFn) -> Primitive:
    shape = draw(st.sampled_from(["sphere", "box", "cylinder"]))
    size = draw(st.tuples(*[st.floats(0.05, 1.0)] * 3))
    center = draw(st.tuples(*[st.floats(-4.0, 4.0)] * 3))
    frame = rotation_about(0, draw(st.floats(-3, 3))) @ rotation_about(1, draw(st.floats(-3, 3)))
    return primitive(shape, center, size, frame)


def distance_outside(solid: Primitive, local: np.ndarray) -> np.ndarray:
    """Positive outside, 0 on the surface, negative inside."""
    if solid.shape == "sphere":
        return np.linalg.norm(local, axis=1) - solid.size[0]
    if solid.shape == "box":
        return (np.abs(local) - solid.size).max(1)
    return np.maximum(np.hypot(local[:, 0], local[:, 1]) - solid.size[0], np.abs(local[:, 2]) - solid.size[2])


@settings(max_examples=80, deadline=None)
@given(solids(), st.integers(0, 2**32 - 1))
def test_first_hit_is_on_the_surface_with_nothing_before_it(solid: Primitive, seed: int) -> None:
    origin = distance_outside(solid, solid.to_local(np.zeros((1, 3))))[0]
    assume(abs(origin) > 1e-3)
    # Rays from the origin to points around the solid's centre: most of them meet it.
    directions = solid.center + 1.2 * solid.bound * np.random.default_rng(seed).uniform(-1, 1, (20, 3))
    t = solid.hit(np.zeros(3), directions)
    hit = np.isfinite(t)
    share = np.linspace(0, 1, 150)[1:-1, None, None]
    before = (share * np.where(hit, t, 4.0)[:, None] * directions).reshape(-1, 3)
    # Up to its hit, or for good, a ray stays on the side of the surface where it began.
    assert (np.sign(origin) * distance_outside(solid, solid.to_local(before)) > -1e-9).all()
    points = t[hit, None] * directions[hit]
    np.testing.assert_allclose(distance_outside(solid, solid.to_local(points)), 0.0, atol=1e-9)
    normals, curvature = solid.surface(solid.to_local(points), directions[hit])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-9)
    assert (dot(normals, directions[hit]) <= 1e-9).all()
    assert (np.abs(curvature[:, 0]) >= np.abs(curvature[:, 1])).all()


@settings(max_examples=50, deadline=None)
@given(solids())
def test_bounding_sphere_never_loses_a_hit(solid: Primitive) -> None:
    directions = np.random.default_rng(0).normal(size=(300, 3))
    t = solid.hit(np.zeros(3), directions)
    kept = near_bound(solid, np.zeros(3), directions, dot(directions, directions))
    assert set(np.flatnonzero(np.isfinite(t))) <= set(kept.tolist())


@given(direction)
def test_frames_are_right_handed_and_orthonormal(axis: tuple[float, ...]) -> None:
    frame = frame_along(np.array(axis))
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(frame) == pytest.approx(1.0)
    np.testing.assert_allclose(frame[2], np.array(axis) / np.linalg.norm(axis), atol=1e-9)


def test_turn_is_the_matrix_product() -> None:
    rng = np.random.default_rng(0)
    vectors, matrix = rng.normal(size=(5, 4, 3)), rng.normal(size=(3, 6))
    np.testing.assert_allclose(turn(vectors, matrix), vectors @ matrix, rtol=1e-12)
