"""Ray casting of a scene: which surface each ray meets, and the light that comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.data.scenes.geometry import Primitive, near_bound
from trainables.data.scenes.vectors import dot, turn
from trainables.data.scenes.world import Scene

_SUPERSAMPLE = 2


@dataclass(frozen=True, eq=False)
class Frame:
    """What the rays through the pixel centres meet.

    Attributes:
        depth: (H, W) z-buffer depth, metres.
        ray_length: (H, W) length of the ray direction whose z is 1: Euclidean over z-buffer depth.
        normal: (H, W, 3) unit normal in the camera frame, turned to the camera.
        curvature: (H, W, 2) principal curvatures in 1/m, |k1| >= |k2|.
        instance, semantic, part: (H, W) int64.
        rays: (H, W, 3) directions in the camera frame.
    """

    depth: np.ndarray
    ray_length: np.ndarray
    normal: np.ndarray
    curvature: np.ndarray
    instance: np.ndarray
    semantic: np.ndarray
    part: np.ndarray
    rays: np.ndarray


@dataclass(frozen=True, eq=False)
class _Hits:
    """The first surfaces met by N rays, world frame."""

    t: np.ndarray
    owner: np.ndarray
    normal: np.ndarray
    curvature: np.ndarray


def cast(scene: Scene) -> Frame:
    """Labels' geometry, at pixel centres."""
    rays = scene.camera.rays()
    size = rays.shape[0]
    hits = _first_hits(scene.primitives, turn(rays.reshape(-1, 3), scene.camera.rotation.T))

    def table(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)[hits.owner].reshape(size, size)

    return Frame(
        depth=hits.t.reshape(size, size),
        ray_length=np.linalg.norm(rays, axis=-1),
        normal=turn(hits.normal, scene.camera.rotation).reshape(size, size, 3),
        curvature=hits.curvature.reshape(size, size, 2),
        instance=table([p.instance for p in scene.primitives]),
        semantic=table([p.semantic for p in scene.primitives]),
        part=table([p.part for p in scene.primitives]),
        rays=rays,
    )


def photograph(scene: Scene, noise: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 image: textures under one lamp with hard shadows and light from everywhere, and sensor noise.

    Four rays a pixel; ``noise`` is a standard deviation in steps of the 8-bit channel.
    """
    camera, light = scene.camera, scene.light
    rays = camera.rays(_SUPERSAMPLE).reshape(-1, 3)
    directions = turn(rays, camera.rotation.T)
    hits = _first_hits(scene.primitives, directions)
    points = hits.t[:, None] * directions
    albedo = np.empty_like(points)
    footprint = hits.t / camera.focal
    for index in np.unique(hits.owner):
        mine = np.flatnonzero(hits.owner == index)
        primitive = scene.primitives[index]
        albedo[mine] = primitive.material.albedo(primitive.to_local(points[mine]), footprint[mine])
    to_light = light.position - points
    distance = np.linalg.norm(to_light, axis=1)
    cosine = np.clip(dot(hits.normal, to_light) / distance, 0.0, None)
    lit = cosine > 0
    lit[lit] = ~_shadowed(scene.primitives, points[lit] + 1e-4 * hits.normal[lit], to_light[lit])
    lamp = np.where(lit, cosine * 16.0 / (16.0 + distance**2), 0.0)
    # Surfaces facing down get less of the light from everywhere, as they do in rooms.
    sky = 0.85 - 0.15 * hits.normal[:, 1]
    color = albedo * (light.ambient * sky[:, None] + light.color * lamp[:, None])
    size, k = camera.size, _SUPERSAMPLE
    color = np.clip(color, 0.0, 1.0).reshape(size, k, size, k, 3).mean(axis=(1, 3)) ** (1.0 / 1.6)
    color = 255.0 * color + noise * rng.standard_normal(color.shape)
    return np.clip(np.rint(color), 0, 255).astype(np.uint8)


def _first_hits(primitives: tuple[Primitive, ...], directions: np.ndarray) -> _Hits:
    """The nearest surface along rays (N, 3) from the origin of the world."""
    origin = np.zeros(3)
    t = np.full(len(directions), np.inf)
    owner = np.zeros(len(directions), dtype=np.int64)
    squared = dot(directions, directions)
    everyone = np.arange(len(directions))
    for index, primitive in enumerate(primitives):
        rays = everyone if primitive.shape == "plane" else near_bound(primitive, origin, directions, squared)
        if not rays.size:
            continue
        found = primitive.hit(origin, directions[rays])
        closer = found < t[rays]
        t[rays[closer]] = found[closer]
        owner[rays[closer]] = index
    normal = np.empty_like(directions)
    curvature = np.zeros((len(directions), 2))
    for index in np.unique(owner):
        mine = np.flatnonzero(owner == index)
        local = primitives[index].to_local(t[mine, None] * directions[mine])
        normal[mine], curvature[mine] = primitives[index].surface(local, directions[mine])
    return _Hits(t, owner, normal, curvature)


def _shadowed(primitives: tuple[Primitive, ...], points: np.ndarray, to_light: np.ndarray) -> np.ndarray:
    """(N,) bool: something stands between points (N, 3) and the lamp. The room itself is convex and casts no shadow."""
    dark = np.zeros(len(points), dtype=bool)
    squared = dot(to_light, to_light)
    for primitive in primitives:
        if primitive.shape == "plane":
            continue
        rays = near_bound(primitive, points, to_light, squared)
        rays = rays[~dark[rays]]
        if rays.size:
            dark[rays] = primitive.hit(points[rays], to_light[rays]) < 1.0
    return dark
