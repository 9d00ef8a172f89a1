"""A random room: walls, furniture, people, one camera and one lamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainables.data.scenes.config import ScenesConfig
from trainables.data.scenes.furniture import KINDS, PERSON_KIND, SEMSEG_CLASSES, Assembly, Kind
from trainables.data.scenes.geometry import Primitive, frame_along, rotation_about
from trainables.data.scenes.texture import color_pair, random_material

_TRIES = 25
"""Positions tried for an object before it is left out."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole at the origin of the world.

    Attributes:
        rotation: (3, 3) from camera to world coordinates.
        fov: full angle of view across the image, in radians.
        size: height and width of the image, in pixels.
    """

    rotation: np.ndarray
    fov: float
    size: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return float(0.5 * self.size / np.tan(0.5 * self.fov))

    def rays(self, supersample: int = 1) -> np.ndarray:
        """(S, S, 3) directions in the camera frame with z = 1, S = size * supersample, row by row."""
        steps = (np.arange(self.size * supersample) + 0.5) / supersample - 0.5 * self.size
        v, u = np.meshgrid(steps / self.focal, steps / self.focal, indexing="ij")
        return np.stack([u, v, np.ones_like(u)], axis=-1)


@dataclass(frozen=True, eq=False)
class Light:
    """A point lamp: position (3,) in the world, its colour (3,), and the colour (3,) of the light from everywhere."""

    position: np.ndarray
    color: np.ndarray
    ambient: np.ndarray


@dataclass(frozen=True, eq=False)
class Scene:
    """What is rendered. ``primitives[:6]`` are the room: floor, ceiling and four walls."""

    primitives: tuple[Primitive, ...]
    camera: Camera
    light: Light


@dataclass(frozen=True)
class _Room:
    """Extents in metres from the camera: the floor is at y = floor, the ceiling at y = ceiling."""

    left: float
    right: float
    back: float
    front: float
    floor: float
    ceiling: float

    def holds(self, x: float, z: float, margin: float) -> bool:
        return self.left + margin < x < self.right - margin and self.back + margin < z < self.front - margin


def random_scene(config: ScenesConfig, rng: np.random.Generator) -> Scene:
    """Draw a scene; every choice comes from ``rng``."""
    height = rng.uniform(2.4, 3.2)
    eye = rng.uniform(1.0, min(1.9, height - 0.6))
    room = _Room(
        left=-rng.uniform(1.3, 4.0),
        right=rng.uniform(1.3, 4.0),
        back=-rng.uniform(0.6, 1.5),
        front=rng.uniform(3.2, 7.5),
        floor=eye,
        ceiling=eye - height,
    )
    yaw, pitch, roll = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.1), rng.normal(0.0, 0.03)
    rotation = rotation_about(1, yaw) @ rotation_about(0, pitch) @ rotation_about(2, roll)
    camera = Camera(rotation, float(np.deg2rad(rng.uniform(45.0, 80.0))), config.image_size)
    placer = _Placer(rng, room, yaw, camera.fov)
    placer.walls()
    if rng.random() < config.people:
        for _ in range(rng.choice([1, 2, 3], p=[0.65, 0.25, 0.1])):
            placer.place(PERSON_KIND)
    weights = np.array([kind.weight for kind in KINDS])
    for _ in range(rng.integers(config.min_objects, config.max_objects + 1)):
        placer.place(KINDS[rng.choice(len(KINDS), p=weights / weights.sum())])
    placer.pictures(int(rng.integers(0, 4)))
    warm = rng.uniform(-0.08, 0.08)
    tint = np.array([1.0 + warm, 1.0, 1.0 - warm])
    ambient = rng.uniform(0.3, 0.5)
    position = np.array(
        [
            rng.uniform(0.7 * room.left, 0.7 * room.right),
            room.ceiling + rng.uniform(0.1, 0.5),
            rng.uniform(0.2, 0.7 * room.front),
        ]
    )
    light = Light(position, tint * rng.uniform(0.7, 1.0), tint[::-1] * ambient)
    return Scene(tuple(placer.primitives), camera, light)


class _Placer:
    """Puts objects into a room where the camera can see them and they do not overlap."""

    def __init__(self, rng: np.random.Generator, room: _Room, yaw: float, fov: float) -> None:
        self.rng, self.room, self.yaw, self.fov = rng, room, yaw, fov
        self.primitives: list[Primitive] = []
        self.taken: list[tuple[float, float, float]] = []
        self.tops: list[tuple[Primitive, list[tuple[float, float]]]] = []
        self.instances = 0

    def walls(self) -> None:
        """The six planes of the room."""
        room, rng = self.room, self.rng
        paper = random_material(rng, color_pair(rng, (0.6, 0.95), (0.05, 0.45), 0.55), (0.25, 1.2))
        ground = random_material(rng, color_pair(rng, (0.35, 0.8), (0.1, 0.6), 0.8), (0.2, 0.9))
        above = random_material(rng, color_pair(rng, (0.8, 0.98), (0.0, 0.12), 0.3), (0.4, 1.2), plain=0.5)
        accent = random_material(rng, color_pair(rng, (0.5, 0.9), (0.1, 0.6), 0.6), (0.25, 1.2))
        faces = [
            ("floor", (0.0, room.floor, 0.0), (0.0, -1.0, 0.0), ground),
            ("ceiling", (0.0, room.ceiling, 0.0), (0.0, 1.0, 0.0), above),
            ("wall", (room.left, 0.0, 0.0), (1.0, 0.0, 0.0), paper),
            ("wall", (room.right, 0.0, 0.0), (-1.0, 0.0, 0.0), paper),
            ("wall", (0.0, 0.0, room.front), (0.0, 0.0, -1.0), accent if rng.random() < 0.4 else paper),
            ("wall", (0.0, 0.0, room.back), (0.0, 0.0, 1.0), paper),
        ]
        for name, center, normal, material in faces:
            semantic = SEMSEG_CLASSES.index(name)
            frame = frame_along(np.array(normal))
            # A class of the room is one instance: where two walls meet is no semantic boundary.
            instance = semantic
            self.primitives.append(
                Primitive("plane", np.array(center), frame, np.ones(3), material, instance, semantic)
            )
        self.instances = 3

    def place(self, kind: Kind) -> None:
        """Try to put an object of a kind into the view."""
        rng = self.rng
        if kind.small and self.tops and rng.random() < 0.4 and self._on_table(kind):
            return
        for _ in range(_TRIES):
            if kind.wall_gap is not None:
                x, z, yaw = self._along_wall(kind.radius, kind.wall_gap)
            else:
                far = 4.5 if kind is PERSON_KIND else 7.0
                distance = rng.uniform(1.5, far)
                bearing = self.yaw + rng.uniform(-0.48, 0.48) * self.fov
                x, z, yaw = distance * np.sin(bearing), distance * np.cos(bearing), rng.uniform(-np.pi, np.pi)
            margin = kind.radius if kind.wall_gap is None else 0.0
            if self.room.holds(x, z, margin) and self._free(x, z, kind.radius) and self._in_view(x, z):
                self.taken.append((x, z, kind.radius))
                self._build(kind, np.array([x, self.room.floor, z]), yaw)
                return

    def pictures(self, count: int) -> None:
        """Hang pictures on the walls in view."""
        rng, room = self.rng, self.room
        for _ in range(count):
            x, z, yaw = self._along_wall(0.7, gap=0.02)
            if not self._in_view(x, z):
                continue
            width, height = rng.uniform(0.35, 1.3), rng.uniform(0.35, 1.0)
            center = np.array([x, rng.uniform(-0.5, 0.3), z])
            center[1] = np.clip(center[1], room.ceiling + 0.6, room.floor - 0.6)
            a = Assembly(rng, center, yaw, self.instances, SEMSEG_CLASSES.index("picture"))
            a.box(center, (width, height, 0.05), a.paint((0.15, 0.6), plain=0.05))
            self._keep(a)

    def _build(self, kind: Kind, base: np.ndarray, yaw: float) -> None:
        a = Assembly(self.rng, base, yaw, self.instances, kind.semantic)
        kind.build(a)
        if kind.name == "table":
            self.tops.append((a.parts[0], []))
        self._keep(a)

    def _keep(self, assembly: Assembly) -> None:
        self.primitives.extend(assembly.parts)
        self.instances += 1

    def _on_table(self, kind: Kind) -> bool:
        rng = self.rng
        top, used = self.tops[rng.integers(len(self.tops))]
        x, z = rng.uniform(-0.6, 0.6) * top.size[0], rng.uniform(-0.5, 0.5) * top.size[2]
        if any(np.hypot(x - a, z - b) < 0.45 for a, b in used):
            return False
        used.append((x, z))
        self._build(kind, top.center + top.rotation.T @ np.array([x, -top.size[1], z]), rng.uniform(-np.pi, np.pi))
        return True

    def _along_wall(self, radius: float, gap: float) -> tuple[float, float, float]:
        rng, room = self.rng, self.room
        wall = rng.choice(["left", "right", "front"])
        if wall == "front":
            return rng.uniform(room.left + radius, room.right - radius), room.front - gap, 0.0
        z = rng.uniform(1.2, max(1.3, room.front - radius))
        if wall == "left":
            return room.left + gap, z, -0.5 * np.pi
        return room.right - gap, z, 0.5 * np.pi

    def _free(self, x: float, z: float, radius: float) -> bool:
        if np.hypot(x, z) < radius + 0.9:
            return False
        return all(np.hypot(x - a, z - b) > radius + r for a, b, r in self.taken)

    def _in_view(self, x: float, z: float) -> bool:
        bearing = np.arctan2(x, z) - self.yaw
        return bool(abs(bearing) < 0.55 * self.fov)
