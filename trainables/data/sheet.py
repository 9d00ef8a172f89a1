"""A contact sheet: samples of a data set with every label, as one picture to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from trainables.data.base import DataConfig, DataSet
from trainables.data.encodings import IMAGENET_MEAN, IMAGENET_STD
from trainables.data.qm9.picture import draw_molecules
from trainables.errors import DataError
from trainables.losses import IGNORE

_CELL = 128
_GAP = 4
_TITLE = 16

_HEAT = np.array(
    [(13, 8, 84), (84, 2, 163), (156, 23, 158), (204, 71, 120), (237, 121, 83), (253, 180, 47), (240, 249, 33)],
    dtype=float,
)
"""Dark blue to yellow, evenly spaced: readable in grey and with impaired colour vision."""


class NothingToShowError(DataError):
    """Not one of the first samples of a split can be read."""


def contact_sheet(
    data: type[DataSet],
    config: DataConfig,
    root: Path,
    path: Path,
    *,
    split: str = "train",
    count: int = 4,
    wanted: Sequence[str] | None = None,
) -> Path:
    """Write a PNG with one row for each of the first ``count`` samples: the image or molecule, then every label under
    its name; or the labels ``wanted`` only.

    One-channel labels are coloured from their lowest (dark) to their highest value (yellow) over the whole sheet;
    vectors of three channels are red, green and blue; two channels red and green; classes have a palette. What is to be
    ignored is white.

    Returns:
        ``path``.

    Raises:
        DataError: the data set is not built or damaged, or ``path`` cannot be written.
    """
    opened = data.open(config, root, split)
    images, labels = opened.batch(np.arange(min(count, len(opened))), data.labels if wanted is None else wanted)
    if not len(images):
        raise NothingToShowError(f"data set '{config.name}': split '{split}' has no sample to show")
    if data.inputs == "molecules":
        # Of a property, the value; its other channel is the unit it is told in.
        columns = {"molecule": draw_molecules(images.numpy())}
        columns.update({name: _heat(label[:, :1].numpy()) for name, label in labels.items()})
    else:
        columns = {"image": _photo(images.numpy())}
        columns.update({name: _picture(label.numpy()) for name, label in labels.items()})
    rows = len(images)
    sheet = Image.new("RGB", (len(columns) * (_CELL + _GAP) + _GAP, _TITLE + rows * (_CELL + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (name, pictures) in enumerate(columns.items()):
        left = _GAP + i * (_CELL + _GAP)
        draw.text((left, 2), name, fill="black")
        for row, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            scale = _CELL / max(height, width)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            shown = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
            sheet.paste(shown, (left, _TITLE + _GAP + row * (_CELL + _GAP)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    except OSError as error:
        raise DataError(f"{path}: the contact sheet cannot be written: {error.strerror or error}") from None
    return path


def _photo(images: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) of normalised images (B, 3, H, W)."""
    plain = np.moveaxis(images, 1, -1) * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    return _bytes(plain)


def _picture(label: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) of a label (B, C, H, W) or (B, H, W)."""
    if label.ndim == 3:
        return _palette()[label]
    by_channels: dict[int, Callable[[np.ndarray], np.ndarray]] = {1: _heat, 2: _two, 3: _three}
    ignored = (label == IGNORE).all(axis=1)
    return np.where(ignored[..., None], np.uint8(255), by_channels[label.shape[1]](label))


def _heat(label: np.ndarray) -> np.ndarray:
    counted = label[label != IGNORE]
    low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 0.0)
    position = np.clip((label[:, 0] - low) / max(high - low, 1e-9), 0.0, 1.0) * (len(_HEAT) - 1)
    below = np.minimum(position.astype(np.int64), len(_HEAT) - 2)
    share = (position - below)[..., None]
    return np.rint(_HEAT[below] * (1 - share) + _HEAT[below + 1] * share).astype(np.uint8)


def _two(label: np.ndarray) -> np.ndarray:
    # A few saturated pixels would leave the rest grey.
    counted = np.abs(label[label != IGNORE])
    spread = 2.0 * max(float(np.percentile(counted, 98)) if counted.size else 0.0, 1e-9)
    both = np.moveaxis(label, 1, -1) / spread + 0.5
    return _bytes(np.concatenate([both, np.full_like(both[..., :1], 0.5)], axis=-1))


def _three(label: np.ndarray) -> np.ndarray:
    return _bytes((np.moveaxis(label, 1, -1) + 1.0) / 2.0)


def _bytes(values: np.ndarray) -> np.ndarray:
    """uint8 of values in 0..1."""
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def _palette() -> np.ndarray:
    """(256, 3) uint8 colours of classes: neighbours far apart in hue, 0 near black, 255 (ignore) white."""
    index = np.arange(256)
    hue = (index * 0.618034) % 1.0
    value = 0.95 - 0.3 * ((index // 3) % 2)
    k = (np.array([5.0, 3.0, 1.0]) + hue[:, None] * 6.0) % 6.0
    colors = value[:, None] * (1.0 - 0.75 * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    colors[0], colors[255] = 0.12, 1.0
    return _bytes(colors)
