"""Molecules as pictures to look at."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from trainables.data.qm9.properties import ELEMENTS

_SIDE = 128
_SCALE = 9.0
"""Pixels of an angstrom: the longest molecule, of about 12 angstrom, fits."""

_COLORS = {"H": (190, 190, 190), "C": (60, 60, 60), "N": (40, 80, 200), "O": (205, 40, 40), "F": (60, 160, 60)}
_RADII = {"H": 0.3, "C": 0.55, "N": 0.55, "O": 0.5, "F": 0.5}
"""Of the discs, in angstrom."""


def draw_molecules(molecules: np.ndarray) -> np.ndarray:
    """uint8 (B, 128, 128, 3) of molecules (B, N, 8): discs in the elements' usual colours, seen from where they spread
    widest, the nearest atoms in front."""
    return np.stack([_picture(molecule) for molecule in molecules])


def _picture(molecule: np.ndarray) -> np.ndarray:
    kinds, places = molecule[:, : len(ELEMENTS)], molecule[:, len(ELEMENTS) :].astype(np.float64)
    real = kinds.any(axis=1)
    names = [ELEMENTS[index] for index in kinds[real].argmax(axis=1)]
    centred = places[real] - places[real].mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    seen = centred @ axes.T
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(image)
    for atom in np.argsort(seen[:, 2]):
        x, y = _SIDE / 2 + seen[atom, :2] * _SCALE
        radius = _RADII[names[atom]] * _SCALE
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=_COLORS[names[atom]], outline="white")
    return np.asarray(image)
