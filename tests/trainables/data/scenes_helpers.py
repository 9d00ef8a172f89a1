"""Scenes of one object in front of a distant wall, whose labels have closed forms."""

from __future__ import annotations

import numpy as np

from trainables.data.scenes.geometry import Primitive, Shape, frame_along, rotation_about
from trainables.data.scenes.texture import Material
from trainables.data.scenes.world import Camera, Light, Scene

GREY = Material("plain", np.full((2, 3), 0.5), 1.0, np.eye(3), np.zeros((6, 4)))
LIGHT = Light(np.array([0.0, -1.0, 0.0]), np.ones(3), np.full(3, 0.3))


def primitive(
    shape: Shape,
    center: tuple[float, float, float],
    size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    rotation: np.ndarray | None = None,
    **extra: int | bool,
) -> Primitive:
    frame = np.eye(3) if rotation is None else rotation
    fields = {"instance": 7, "semantic": 3, **extra}
    return Primitive(shape, np.array(center), frame, np.array(size), GREY, **fields)  # type: ignore[arg-type]


def wall(depth: float) -> Primitive:
    return primitive(
        "plane", (0.0, 0.0, depth), rotation=frame_along(np.array([0.0, 0.0, -1.0])), instance=0, semantic=0
    )


def floor(height: float) -> Primitive:
    return primitive(
        "plane", (0.0, height, 0.0), rotation=frame_along(np.array([0.0, -1.0, 0.0])), instance=1, semantic=1
    )


def scene(*primitives: Primitive, size: int = 33, fov: float = 60.0, pitch: float = 0.0) -> Scene:
    """An odd ``size`` has a pixel on the optical axis; ``pitch`` in degrees, positive looks down."""
    camera = Camera(rotation_about(0, -np.deg2rad(pitch)), float(np.deg2rad(fov)), size)
    return Scene(tuple(primitives), camera, LIGHT)
