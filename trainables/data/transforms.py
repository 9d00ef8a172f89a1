"""Training transforms of the InvPT family: random scale, ratio-checked crop, flip, photometric distortion, padding.

Order and ranges are those of InvPT (Ye and Xu, 2022), which took them from ATRC. A view of the image is drawn first and
then taken from every array at once, so that no pixel is resized that the crop leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from trainables.losses import IGNORE
from trainables.settings import Settings

Size = tuple[int, int]
"""(H, W) in pixels."""

Kind = Literal["classes", "edge", "depth", "normal"]
"""How a label behaves: classes and edges are padded with "ignore", depth and normals with 0; normals turn."""

PAD: Mapping[Kind, int] = {"classes": IGNORE, "edge": IGNORE, "depth": 0, "normal": 0}
"""What stands where an image does not reach."""

Side = Annotated[int, Field(ge=16, le=4096)]


class AugmentConfig(Settings):
    """Random changes of the training samples."""

    enabled: bool = True
    """Whether there are any. Without them, training sees what evaluation sees."""

    scale: tuple[Annotated[float, Field(gt=0, le=8)], Annotated[float, Field(gt=0, le=8)]] = (0.5, 2.0)
    """Range of the factor by which image and labels are resized."""

    depth_scaling: Literal["divide", "keep"] = "divide"
    """``divide``: depth over the factor, as a camera that came nearer would measure. ``keep``: as it is."""

    crop_max_ratio: float = Field(default=0.75, gt=0, le=1)
    """A crop is drawn anew where one semantic class has at least this share of its labelled pixels; 1 takes any."""

    crop_tries: int = Field(default=10, ge=1, le=100)
    """Most crops drawn; the last one is taken as it is."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""

    flip_normals: Literal["negate_x", "keep"] = "negate_x"
    """``negate_x``: a flipped normal points the other way. ``keep``: it is moved but not turned, a mistake of the
    loaders of Mod-Squad and of the code released with the paper."""

    photometric: bool = True
    """Brightness, contrast, saturation and hue, each with probability a half."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the smaller factor comes first, got {list(self.scale)}")
        return self


@dataclass(frozen=True)
class View:
    """What is taken of an image: it is resized to ``size``, and of that the ``crop``, flipped or not.

    Attributes:
        size: (H, W) of the whole image once resized.
        top: first row of the crop.
        left: first column of the crop.
        crop: (H, W) of the crop.
        flip: whether it is mirrored.
        scale: factor that depth is divided by.
    """

    size: Size
    top: int
    left: int
    crop: Size
    flip: bool = False
    scale: float = 1.0

    @classmethod
    def whole(cls, shape: Size) -> View:
        """All of an image of (H, W) pixels, as it is."""
        return cls(shape, 0, 0, shape)


def draw_view(
    shape: Size, target: Size, semseg: np.ndarray | None, config: AugmentConfig, rng: np.random.Generator
) -> View:
    """A random view of an image.

    Args:
        shape: (H, W) of the image.
        target: (H, W) of the crop; less where the resized image is smaller.
        semseg: (H, W) semantic classes, 255 for unlabelled; ``None`` checks no ratio.
        config: what is drawn.
        rng: drawn from in a fixed order.
    """
    scale = float(rng.uniform(*config.scale))
    height, width = (max(1, int(side * scale)) for side in shape)
    crop = (min(height, target[0]), min(width, target[1]))
    rows, columns = nearest(shape[0], height), nearest(shape[1], width)
    for _ in range(config.crop_tries):
        top = int(rng.integers(height - crop[0] + 1))
        left = int(rng.integers(width - crop[1] + 1))
        if semseg is None or config.crop_max_ratio >= 1:
            break
        part = np.take(np.take(semseg, rows[top : top + crop[0]], axis=0), columns[left : left + crop[1]], axis=1)
        if _mixed(part, config.crop_max_ratio):
            break
    return View((height, width), top, left, crop, bool(rng.random() < config.flip), scale)


def _mixed(semseg: np.ndarray, ratio: float) -> bool:
    """Whether at least two classes are there and none has ``ratio`` of the labelled pixels or more."""
    counts = np.bincount(semseg.ravel(), minlength=256)
    counts = np.delete(counts, IGNORE)
    return bool((counts > 0).sum() > 1 and counts.max() < ratio * counts.sum())


def nearest(length: int, resized: int) -> np.ndarray:
    """(resized,) the source pixel nearest to each pixel's centre, along an axis of ``length`` pixels."""
    return ((2 * np.arange(resized) + 1) * length) // (2 * resized)


def take(array: np.ndarray, view: View) -> np.ndarray:
    """A view of labels: (H, W, ...) -> (h, w, ...). Each pixel is the nearest one, never a mixture."""
    rows = nearest(array.shape[0], view.size[0])[view.top : view.top + view.crop[0]]
    columns = nearest(array.shape[1], view.size[1])[view.left : view.left + view.crop[1]]
    if view.flip:
        columns = columns[::-1]
    # Rows first: whole ones are copied at once, and the columns are then picked from few of them.
    return np.take(np.take(array, rows, axis=0), columns, axis=1)


def adapt(part: np.ndarray, kind: Kind, view: View, config: AugmentConfig) -> np.ndarray:
    """Make a label's values those of the view: depth is divided by its scale, normals turn with a flip.

    Args:
        part: (h, w) depth, (h, w, 3) normals as vectors, or anything else, which stays as it is.
        kind: of the label.
        view: what was taken.
        config: whether depth is divided and normals turn.
    """
    if kind == "depth" and config.depth_scaling == "divide" and view.scale != 1.0:
        return np.asarray(part / np.asarray(view.scale, part.dtype))
    if kind == "normal" and view.flip and config.flip_normals == "negate_x":
        return part * np.array([-1, 1, 1], dtype=part.dtype)
    return part


def take_image(image: np.ndarray, view: View) -> np.ndarray:
    """A view of an image: uint8 (H, W, 3) -> uint8 (h, w, 3). Enlarging is bilinear, shrinking averages."""
    if view.size == image.shape[:2]:
        part = image[view.top : view.top + view.crop[0], view.left : view.left + view.crop[1]]
    else:
        down, right = image.shape[0] / view.size[0], image.shape[1] / view.size[1]
        bottom, end = view.top + view.crop[0], view.left + view.crop[1]
        box = (
            view.left * right,
            view.top * down,
            min(end * right, image.shape[1]),
            min(bottom * down, image.shape[0]),
        )
        resized = Image.fromarray(image).resize((view.crop[1], view.crop[0]), Image.Resampling.BILINEAR, box)
        part = np.asarray(resized)
    return part[:, ::-1] if view.flip else part


def pad(array: np.ndarray, target: Size, value: float) -> np.ndarray:
    """(H, W, ...) put in the middle of ``target``, the rest ``value``; an odd pixel goes below and to the right.

    Raises:
        ValueError: it is larger than ``target``.
    """
    height, width = array.shape[:2]
    if height > target[0] or width > target[1]:
        raise ValueError(f"{width}x{height} pixels do not fit into {target[1]}x{target[0]}")
    if (height, width) == target:
        return array
    top, left = (target[0] - height) // 2, (target[1] - width) // 2
    out = np.full((*target, *array.shape[2:]), value, dtype=array.dtype)
    out[top : top + height, left : left + width] = array
    return out


_BRIGHTNESS = 32.0
_CONTRAST = _SATURATION = (0.5, 1.5)
_HUE = 36.0
"""Degrees. OpenCV's hue has 180 steps to the circle, of which the field's code turns by up to 18."""


def photometric(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distort colours: uint8 (H, W, 3) -> uint8 (H, W, 3).

    Brightness by up to 32 steps of 255, contrast and saturation by a factor from 0.5 to 1.5, hue by up to 36 degrees,
    each with probability a half; contrast comes, by another coin, before or after the colours. (SSD, Liu et al. 2016,
    as ATRC and InvPT have it.)
    """
    brightness = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS) if rng.random() < 0.5 else 0.0
    early = rng.random() < 0.5
    contrast = rng.uniform(*_CONTRAST) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(*_SATURATION) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-_HUE, _HUE) if rng.random() < 0.5 else 0.0
    steps = np.arange(256, dtype=float)
    table = np.clip(steps + brightness, 0, 255)
    if early:
        table = np.clip(table * contrast, 0, 255)
    out = recolor(_looked_up(image, table), saturation, hue)
    return out if early or contrast == 1.0 else _looked_up(out, np.clip(steps * contrast, 0, 255))


def _looked_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Every value of an image replaced by the table's, rounded."""
    return np.take(np.rint(table).astype(np.uint8), image)


def recolor(image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """Scale saturation and turn hue (degrees) in HSV, in 256 steps of each: uint8 (H, W, 3) -> uint8 (H, W, 3)."""
    if saturation == 1.0 and hue == 0.0:
        return image
    steps = np.arange(256)
    h = (steps + round(hue / 360.0 * 256.0)) % 256
    s = np.rint(np.clip(steps * saturation, 0, 255)).astype(int)
    # Pillow's own tables and conversions release the interpreter, so that threads decode side by side.
    table = [*h.tolist(), *s.tolist(), *steps.tolist()]
    return np.asarray(Image.fromarray(image).convert("HSV").point(table).convert("RGB"))
