"""Solid textures: a colour for every point of an object, in the object's own coordinates, blind to its geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.data.scenes.vectors import turn

Pattern = Literal["plain", "checker", "stripes", "waves", "patches", "dots"]

_WAVES = 6


@dataclass(frozen=True, eq=False)
class Material:
    """Two colours and the pattern that mixes them.

    Attributes:
        pattern: which one.
        colors: (2, 3) albedo in 0..1.
        scale: its period, in metres.
        axes: (3, 3) rows: the pattern's own axes in local coordinates.
        waves: (6, 4) wave vectors, in periods, and phases of the smooth patterns.
    """

    pattern: Pattern
    colors: np.ndarray
    scale: float
    axes: np.ndarray
    waves: np.ndarray

    def albedo(self, local: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """(N, 3) albedo at local points (N, 3).

        ``footprint`` (N,) is the size of a pixel there, in metres: a pattern finer than two pixels fades to its mean
        colour instead of aliasing.
        """
        if self.pattern == "plain":
            return np.broadcast_to(self.colors[0], local.shape)
        mix = self._mix(turn(local, self.axes.T) / self.scale)
        contrast = np.clip(self.scale / (2.0 * np.maximum(footprint, 1e-9)) - 0.5, 0.0, 1.0)
        mix = 0.5 + (mix - 0.5) * contrast
        shade: np.ndarray = self.colors[0] + mix[:, None] * (self.colors[1] - self.colors[0])
        return shade

    def _mix(self, p: np.ndarray) -> np.ndarray:
        phase = self.waves[:3, 3]
        if self.pattern == "checker":
            return np.floor(2.0 * p + phase).sum(1) % 2.0
        if self.pattern == "stripes":
            return (np.floor(2.0 * p[:, 0] + phase[0]) % 2.0).astype(np.float64)
        if self.pattern == "dots":
            cell = (p + phase) % 1.0 - 0.5
            return ((cell * cell).sum(1) < 0.12).astype(np.float64)
        smooth = np.sin(2.0 * np.pi * (turn(p, self.waves[:, :3].T) + self.waves[:, 3])).sum(1) / np.sqrt(_WAVES)
        if self.pattern == "patches":
            return (smooth > 0.2).astype(np.float64)
        return np.clip(0.5 + 0.4 * smooth, 0.0, 1.0)


PATTERNS: tuple[Pattern, ...] = ("checker", "stripes", "waves", "patches", "dots")


def random_material(
    rng: np.random.Generator, colors: np.ndarray, scale: tuple[float, float], plain: float = 0.15
) -> Material:
    """A material with a random pattern (``plain`` is the probability of none), turned and shifted at random."""
    pattern: Pattern = "plain" if rng.random() < plain else PATTERNS[rng.integers(len(PATTERNS))]
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    waves = np.concatenate([rng.normal(size=(_WAVES, 3)), rng.random((_WAVES, 1))], axis=1)
    waves[:, :3] *= rng.uniform(0.5, 1.6, (_WAVES, 1)) / np.linalg.norm(waves[:, :3], axis=1, keepdims=True)
    return Material(pattern, colors, float(np.exp(rng.uniform(*np.log(scale)))), axes, waves)


def color_pair(
    rng: np.random.Generator, value: tuple[float, float], saturation: tuple[float, float], contrast: float
) -> np.ndarray:
    """(2, 3) two colours: shades of a random hue, or at times of two hues, apart by up to ``contrast``."""
    hue = rng.random()
    first = _hsv(hue, rng.uniform(*saturation), rng.uniform(*value))
    if rng.random() < 0.4:
        second = _hsv((hue + rng.uniform(0.2, 0.8)) % 1.0, rng.uniform(*saturation), rng.uniform(*value))
        return np.stack([first, first + contrast * (second - first)])
    factor = 1.0 - contrast * rng.uniform(0.35, 0.9)
    return np.stack([first, first * factor])[:: rng.choice([1, -1])]


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6.0) % 6.0
    color: np.ndarray = value * (1.0 - saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    return color
