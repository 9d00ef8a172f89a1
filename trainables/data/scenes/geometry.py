"""Primitives met by rays in closed form: where, with which normal, and how curved the surface is there.

World and camera frames are those of OpenCV: x right, y down, z into the scene, metres. A ray direction of the camera
has z = 1, so the ray parameter t is the z-buffer depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.data.scenes.texture import Material
from trainables.data.scenes.vectors import dot, turn

Shape = Literal["plane", "sphere", "box", "cylinder"]

EPSILON = 1e-6
"""Nearest ray parameter that counts as a hit, so that a surface does not meet the rays that start on it."""

UP = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True, eq=False)
class Primitive:
    """One surface of a scene.

    Attributes:
        shape: ``plane`` (infinite, through ``center``, facing local +z), ``sphere``, ``box`` or ``cylinder`` (axis
        local z).
        center: (3,) in the world.
        rotation: (3, 3); its rows are the local axes in world coordinates.
        size: (3,) sphere: radius first; box: half extents; cylinder: radius, unused, half length.
        material: its texture.
        instance: number of the object it is a part of.
        semantic: class index.
        part: human part, 0 where it is none.
        open_top: a cylinder without its cap at local +z, so that its hollow inside shows.
    """

    shape: Shape
    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    material: Material
    instance: int
    semantic: int
    part: int = 0
    open_top: bool = False

    @property
    def bound(self) -> float:
        """Radius of a sphere around ``center`` that holds it, in metres; infinite for a plane."""
        if self.shape == "plane":
            return float("inf")
        if self.shape == "sphere":
            return float(self.size[0])
        if self.shape == "cylinder":
            return float(np.hypot(self.size[0], self.size[2]))
        return float(np.linalg.norm(self.size))

    def to_local(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) world points in the local frame."""
        return turn(points - self.center, self.rotation.T)

    def hit(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) ray parameter of the first hit, infinite for none; origins (3,) or (N, 3), directions (N, 3)."""
        o = turn(origins - self.center, self.rotation.T)
        d = turn(directions, self.rotation.T)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.shape == "plane":
                return _first(-o[..., 2] / d[..., 2])
            if self.shape == "sphere":
                return _hit_quadric(dot(d, d), dot(o, d), dot(o, o) - self.size[0] ** 2)
            if self.shape == "box":
                return self._hit_box(o, d)
            return self._hit_cylinder(o, d)

    def surface(self, local: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal and principal curvatures at points on the surface.

        Args:
            local: (N, 3) points on the surface, local frame.
            directions: (N, 3) of the rays that met them, world frame.

        Returns:
            Unit normals (N, 3) in the world, turned to where the rays come from, and curvatures (N, 2) in 1/m with
            |k1| >= |k2|: positive where the surface bulges towards the viewer (sphere 1/r, 1/r; cylinder 1/r, 0),
            negative where it is hollow.
        """
        normal = np.zeros_like(local)
        curvature = np.zeros((len(local), 2))
        if self.shape == "plane":
            normal[:, 2] = 1.0
        elif self.shape == "sphere":
            normal = local / self.size[0]
            curvature[:] = 1.0 / self.size[0]
        elif self.shape == "box":
            axis = np.argmax(np.abs(local) / self.size, axis=1)
            rows = np.arange(len(local))
            normal[rows, axis] = np.sign(local[rows, axis])
        else:
            radius, half = self.size[0], self.size[2]
            distance = np.hypot(local[:, 0], local[:, 1])
            cap = np.abs(np.abs(local[:, 2]) - half) < np.abs(distance - radius)
            normal[:, :2] = np.where(cap[:, None], 0.0, local[:, :2] / np.maximum(distance, EPSILON)[:, None])
            normal[:, 2] = np.where(cap, np.sign(local[:, 2]), 0.0)
            curvature[:, 0] = np.where(cap, 0.0, 1.0 / radius)
        world = turn(normal, self.rotation)
        away = np.where(dot(world, directions) > 0, -1.0, 1.0)[:, None]
        return world * away, curvature * away

    def _hit_box(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        a = (-self.size - o) / d
        b = (self.size - o) / d
        # A ray inside a slab's plane gives 0/0 there: fmin and fmax pass over it.
        near: np.ndarray = np.fmax.reduce(np.fmin(a, b), axis=-1)
        far: np.ndarray = np.fmin.reduce(np.fmax(a, b), axis=-1)
        t = np.where(near > EPSILON, near, far)
        return np.where((near <= far) & (t > EPSILON), t, np.inf)

    def _hit_cylinder(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        radius, half = self.size[0], self.size[2]
        ox, oy, oz = o[..., 0], o[..., 1], o[..., 2]
        dx, dy, dz = d[..., 0], d[..., 1], d[..., 2]
        a = dx * dx + dy * dy
        b = ox * dx + oy * dy
        root = np.sqrt(b * b - a * (ox * ox + oy * oy - radius**2))
        best = np.full(d.shape[0], np.inf)
        for t in ((-b - root) / a, (-b + root) / a):
            ok = (t > EPSILON) & (np.abs(oz + t * dz) <= half)
            best = np.where(ok, np.minimum(best, t), best)
        for level in (-half,) if self.open_top else (-half, half):
            t = (level - oz) / dz
            ok = (t > EPSILON) & ((ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= radius**2)
            best = np.where(ok, np.minimum(best, t), best)
        return best


def _first(t: np.ndarray) -> np.ndarray:
    return np.where(t > EPSILON, t, np.inf)


def _hit_quadric(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Smallest positive root of a t^2 + 2 b t + c; infinite where there is none."""
    root = np.sqrt(b * b - a * c)
    near, far = (-b - root) / a, (-b + root) / a
    return _first(np.where(near > EPSILON, near, far))


def near_bound(
    primitive: Primitive, origins: np.ndarray, directions: np.ndarray, squared_lengths: np.ndarray
) -> np.ndarray:
    """(M,) positions of the rays that meet the sphere around a primitive: the only ones that need its exact test.

    Origins (3,) or (N, 3), directions (N, 3), and the squared lengths (N,) of these.
    """
    to_center = primitive.center - origins
    along = dot(directions, to_center)
    gap = dot(to_center, to_center) - primitive.bound**2
    meets: np.ndarray = (gap <= 0) | ((along > 0) & (along * along >= gap * squared_lengths))
    return np.flatnonzero(meets)


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """(3, 3) matrix that turns column vectors by ``angle`` (radians) about x, y or z (0, 1, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.eye(3)
    out[i, i], out[i, j], out[j, i], out[j, j] = c, -s, s, c
    return out


def frame_along(axis: np.ndarray) -> np.ndarray:
    """(3, 3) local axes, as rows, of which the third points along ``axis``."""
    z = axis / np.linalg.norm(axis)
    helper = np.array([1.0, 0.0, 0.0]) if abs(z[0]) < 0.9 else np.array([0.0, 0.0, 1.0])
    x = np.cross(helper, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])
