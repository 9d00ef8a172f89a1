"""Furniture, loose objects and people, put together from primitives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from trainables.data.scenes.geometry import UP, Primitive, frame_along, rotation_about
from trainables.data.scenes.texture import Material, color_pair, random_material

SEMSEG_CLASSES: tuple[str, ...] = (
    "wall",
    "floor",
    "ceiling",
    "cabinet",
    "table",
    "chair",
    "bed",
    "lamp",
    "picture",
    "bin",
    "ball",
    "box",
    "can",
    "person",
)
"""Semantic classes, by index."""

NUM_PARTS = 7
"""Background and the six human parts of PASCAL: 1 head, 2 torso, 3 upper arm, 4 lower arm, 5 upper leg, 6 lower leg."""

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, NUM_PARTS)

PERSON = SEMSEG_CLASSES.index("person")

_UPRIGHT = frame_along(UP)


@dataclass
class Assembly:
    """Collects the primitives of one object that stands at ``base`` (on the floor or a table), turned by ``yaw``.

    Positions are given as (right, height, forward) in metres from ``base``.
    """

    rng: np.random.Generator
    base: np.ndarray
    yaw: float
    instance: int
    semantic: int
    parts: list[Primitive] = field(default_factory=list)

    def at(self, right: float, height: float, forward: float) -> np.ndarray:
        """(3,) world position."""
        return self.base + rotation_about(1, self.yaw) @ np.array([right, -height, forward])

    def paint(self, scale: tuple[float, float] = (0.08, 0.35), plain: float = 0.15) -> Material:
        """A material of two lively colours."""
        return random_material(self.rng, color_pair(self.rng, (0.35, 0.95), (0.2, 0.85), 0.9), scale, plain)

    def box(self, center: np.ndarray, size: tuple[float, float, float], material: Material, part: int = 0) -> None:
        """A box of extents (width, height, depth)."""
        rotation = rotation_about(1, self.yaw).T
        half = 0.5 * np.array(size)
        self.parts.append(Primitive("box", center, rotation, half, material, self.instance, self.semantic, part))

    def ball(self, center: np.ndarray, radius: float, material: Material, part: int = 0) -> None:
        """A sphere."""
        rotation = rotation_about(1, self.yaw).T
        size = np.full(3, radius)
        self.parts.append(Primitive("sphere", center, rotation, size, material, self.instance, self.semantic, part))

    def rod(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radius: float,
        material: Material,
        part: int = 0,
        *,
        open_top: bool = False,
    ) -> None:
        """A cylinder from ``start`` to ``end``; the top, where it may be open, is at ``end``."""
        axis = end - start
        size = np.array([radius, radius, 0.5 * np.linalg.norm(axis)])
        frame, center = frame_along(axis), 0.5 * (start + end)
        self.parts.append(
            Primitive("cylinder", center, frame, size, material, self.instance, self.semantic, part, open_top)
        )


def _table(a: Assembly) -> None:
    width, depth, height = a.rng.uniform(0.8, 1.5), a.rng.uniform(0.6, 0.9), a.rng.uniform(0.45, 0.78)
    top, legs = a.paint(plain=0.3), a.paint(plain=0.8)
    a.box(a.at(0, height - 0.03, 0), (width, 0.06, depth), top)
    for x in (-0.43, 0.43):
        for z in (-0.4, 0.4):
            a.rod(a.at(x * width, 0, z * depth), a.at(x * width, height - 0.06, z * depth), 0.04, legs)


def _chair(a: Assembly) -> None:
    side, height = a.rng.uniform(0.42, 0.52), a.rng.uniform(0.42, 0.48)
    seat, legs = a.paint(), a.paint(plain=0.8)
    a.box(a.at(0, height, 0), (side, 0.07, side), seat)
    a.box(a.at(0, height + 0.28, 0.5 * side - 0.03), (side, 0.55, 0.06), seat)
    for x in (-0.42, 0.42):
        for z in (-0.42, 0.42):
            a.rod(a.at(x * side, 0, z * side), a.at(x * side, height - 0.03, z * side), 0.025, legs)


def _cabinet(a: Assembly) -> None:
    width, height, depth = a.rng.uniform(0.6, 1.5), a.rng.uniform(0.7, 2.1), a.rng.uniform(0.35, 0.6)
    a.box(a.at(0, 0.5 * height, 0), (width, height, depth), a.paint((0.15, 0.6)))
    knob = a.paint(plain=1.0)
    for x in (-0.08, 0.08):
        a.ball(a.at(x * width, 0.55 * height, -0.5 * depth), 0.028, knob)


def _bed(a: Assembly) -> None:
    width, length = a.rng.uniform(0.9, 1.6), a.rng.uniform(1.8, 2.1)
    a.box(a.at(0, 0.15, 0), (width, 0.3, length), a.paint(plain=0.4))
    a.box(a.at(0, 0.4, 0), (0.96 * width, 0.2, 0.98 * length), a.paint((0.15, 0.5)))
    a.box(a.at(0, 0.5, 0.5 * length), (width, 1.0, 0.08), a.paint())
    for x in (-0.23, 0.23) if width > 1.2 else (0.0,):
        center = a.at(x * width, 0.56, 0.38 * length)
        half = 0.2 * width * (rotation_about(1, a.yaw) @ np.array([1.0, 0.0, 0.0]))
        a.rod(center - half, center + half, 0.12, a.paint())


def _lamp(a: Assembly) -> None:
    height, radius = a.rng.uniform(1.3, 1.8), a.rng.uniform(0.15, 0.25)
    metal = a.paint(plain=0.9)
    a.rod(a.at(0, 0, 0), a.at(0, 0.04, 0), 0.18, metal)
    a.rod(a.at(0, 0.04, 0), a.at(0, height, 0), 0.03, metal)
    shade = a.paint()
    if a.rng.random() < 0.5:
        a.ball(a.at(0, height + 0.8 * radius, 0), radius, shade)
    else:
        a.rod(a.at(0, height - 0.1, 0), a.at(0, height + 0.2, 0), radius, shade)


def _bin(a: Assembly) -> None:
    a.rod(a.at(0, 0, 0), a.at(0, a.rng.uniform(0.3, 0.6), 0), a.rng.uniform(0.16, 0.3), a.paint(), open_top=True)


def _ball(a: Assembly) -> None:
    radius = a.rng.uniform(0.1, 0.38)
    a.ball(a.at(0, radius, 0), radius, a.paint())


def _box(a: Assembly) -> None:
    size = a.rng.uniform(0.2, 0.7, 3)
    a.box(a.at(0, 0.5 * size[1], 0), (float(size[0]), float(size[1]), float(size[2])), a.paint())


def _can(a: Assembly) -> None:
    radius, height = a.rng.uniform(0.08, 0.25), a.rng.uniform(0.2, 0.7)
    if a.rng.random() < 0.25:
        half = 0.5 * height * (rotation_about(1, a.yaw) @ np.array([1.0, 0.0, 0.0]))
        a.rod(a.at(0, radius, 0) - half, a.at(0, radius, 0) + half, radius, a.paint())
    else:
        a.rod(a.at(0, 0, 0), a.at(0, height, 0), radius, a.paint())


def _person(a: Assembly) -> None:
    rng = a.rng
    s = rng.uniform(1.5, 1.9) / 1.75
    skin = random_material(
        rng, np.outer([1.0, 0.9], np.array([0.95, 0.72, 0.58]) * rng.uniform(0.35, 1.0)), (0.1, 0.2), 1
    )
    shirt, trousers = a.paint((0.06, 0.25)), a.paint((0.06, 0.25), plain=0.4)
    sleeve = shirt if rng.random() < 0.5 else skin
    hip, lower, upper = 0.86 * s, 0.43 * s, 0.43 * s
    stride = rng.uniform(-0.5, 0.5)
    for side, swing in ((-1.0, stride), (1.0, -stride)):
        bend = rng.uniform(0.0, 0.3)
        joint = np.array([side * 0.1 * s, hip, 0.0])
        knee = joint + upper * np.array([0.0, -np.cos(swing), np.sin(swing)])
        foot = knee + lower * np.array([0.0, -np.cos(swing - bend), np.sin(swing - bend)])
        a.rod(a.at(*joint), a.at(*knee), 0.085 * s, trousers, UPPER_LEG)
        a.rod(a.at(*knee), a.at(*foot), 0.065 * s, trousers, LOWER_LEG)
        lift, spread, elbow_bend = rng.uniform(-0.9, 1.6), rng.uniform(0.1, 0.7), rng.uniform(0.0, 1.6)
        shoulder = np.array([side * 0.24 * s, hip + 0.54 * s, 0.0])
        elbow = shoulder + 0.3 * s * _limb(lift, side * spread)
        hand = elbow + 0.3 * s * _limb(lift + elbow_bend, side * spread)
        a.rod(a.at(*shoulder), a.at(*elbow), 0.055 * s, shirt, UPPER_ARM)
        a.rod(a.at(*elbow), a.at(*hand), 0.045 * s, sleeve, LOWER_ARM)
    a.box(a.at(0, hip + 0.29 * s, 0), (0.4 * s, 0.6 * s, 0.22 * s), shirt, TORSO)
    a.ball(a.at(0, hip + 0.74 * s, 0), 0.135 * s, skin, HEAD)
    # The stride lifts the lower foot off the floor or sinks it; the whole figure is shifted to stand.
    lowest = max(float(p.center[1] + abs(p.rotation[2, 1]) * p.size[2]) for p in a.parts if p.part == LOWER_LEG)
    shift = np.array([0.0, a.base[1] - lowest, 0.0])
    a.parts[:] = [
        Primitive(p.shape, p.center + shift, p.rotation, p.size, p.material, p.instance, p.semantic, p.part)
        for p in a.parts
    ]


def _limb(lift: float, spread: float) -> np.ndarray:
    """(right, height, forward) direction of a limb hanging down, lifted forwards and spread sideways (radians)."""
    return np.array([np.sin(spread), -np.cos(lift) * np.cos(spread), np.sin(lift) * np.cos(spread)])


@dataclass(frozen=True)
class Kind:
    """A kind of object: its class, how it is built, the radius (m) it needs on the floor, and how often it is drawn.

    An object with a ``wall_gap`` stands with its back (local forward) to a wall, its middle that far (m) from it;
    ``small`` ones may stand on tables.
    """

    name: str
    build: Callable[[Assembly], None]
    radius: float
    weight: float
    wall_gap: float | None = None
    small: bool = False

    @property
    def semantic(self) -> int:
        """Class index."""
        return SEMSEG_CLASSES.index(self.name)


KINDS: tuple[Kind, ...] = (
    Kind("table", _table, 0.75, 1.5),
    Kind("chair", _chair, 0.4, 1.5),
    Kind("cabinet", _cabinet, 0.6, 1.5, wall_gap=0.32),
    Kind("bed", _bed, 1.0, 0.8, wall_gap=1.12),
    Kind("lamp", _lamp, 0.3, 1.0),
    Kind("bin", _bin, 0.3, 1.0),
    Kind("ball", _ball, 0.35, 1.8, small=True),
    Kind("box", _box, 0.45, 1.5, small=True),
    Kind("can", _can, 0.3, 1.5, small=True),
)

PERSON_KIND = Kind("person", _person, 0.4, 0.0)
