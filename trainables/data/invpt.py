"""What NYUD-v2 and PASCAL-Context share as the InvPT family loads them: their config, and samples made into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from trainables.data.base import DataConfig
from trainables.data.encodings import image as standardised
from trainables.data.ondisk import DataRoot, Finish, HoldoutConfig, OnDisk, Raw, held_out, hold_out
from trainables.data.transforms import (
    AugmentConfig,
    Kind,
    Side,
    Size,
    View,
    adapt,
    draw_view,
    pad,
    photometric,
    take,
    take_image,
)
from trainables.losses import IGNORE

KINDS: Mapping[str, Kind] = {
    "semseg": "classes",
    "human_parts": "classes",
    "saliency": "classes",
    "edge": "edge",
    "depth": "depth",
    "normal": "normal",
}
"""How each label behaves."""

NORMAL_VALID = "normal_valid"
"""Name of a sample's mask (H, W) of the pixels whose normals count, where there is one."""


class InvPTConfig(HoldoutConfig):
    """A data set of the InvPT family."""

    image_size: tuple[Side, Side]
    """Height and width, in pixels, of what the network sees. Images are padded to it, or cropped in training."""

    augment: AugmentConfig = AugmentConfig()
    """Random changes of the training samples."""

    valid_normals: Literal["unit", "nonzero"] = "unit"
    """Which pixels have a normal. ``unit``: those whose stored vector has about unit length (0.5 to 1.5), which plain
    grey and black, the marks of a hole, have not. ``nonzero``: every vector but zero, as in InvPT. Vectors are brought
    to unit length in both."""


class InvPT(OnDisk):
    """Base of the two data sets. Labels: (B, C, H, W) float32 or (B, H, W) int64 classes with 255 for "ignore".

    ``depth`` is in metres with 0 for unmeasured, ``normal`` a unit vector or zero, ``edge`` 0, 1 or 255.
    """

    train_count: ClassVar[int]
    test_count: ClassVar[int]

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels."""
        return _own(config).image_size

    @classmethod
    def published(cls, config: Any) -> dict[str, int]:
        """Samples by split, once the validation split is held out."""
        val = held_out(cls.train_count, config.val_fraction)
        return {"train": cls.train_count - val, "val": val, "test": cls.test_count}

    @classmethod
    def also(cls, config: Any) -> tuple[str, ...]:
        """Crops are judged by the semantic classes, whatever tasks are trained."""
        own = _own(config)
        return ("semseg",) if own.augment.enabled and own.augment.crop_max_ratio < 1 else ()

    @classmethod
    def finish(cls, config: Any) -> Finish:
        """Augment, decode, pad."""
        return partial(finish, config=_own(config))


def _own(config: DataConfig) -> InvPTConfig:
    if not isinstance(config, InvPTConfig):
        raise TypeError(f"an InvPTConfig is wanted, got {type(config).__name__}")
    return config


def split_names(root: DataRoot, train: str, test: str, fraction: float) -> dict[str, tuple[str, ...]]:
    """Samples by split, from the lists of the training and the test samples.

    Raises:
        DataError: a list is missing or damaged, or both name a sample.
    """
    official, tested = root.lines(train), root.lines(test)
    both = set(official) & set(tested)
    if both:
        raise root.error(test, f"'{min(both)}' is in {train}, too")
    kept, held = hold_out(official, fraction)
    return {"train": kept, "val": held, "test": tested}


def fits(root: DataRoot, relative: str, image: np.ndarray, target: Size) -> None:
    """Raise :class:`trainables.errors.DataError` where an image is larger than what the network sees."""
    height, width = image.shape[:2]
    if height > target[0] or width > target[1]:
        wanted = f"data.image_size [{target[0]}, {target[1]}]"
        raise root.error(relative, f"{width}x{height} pixels do not fit into {wanted}")


def finish(
    raw: Raw, labels: Sequence[str], seed: int | None, *, config: InvPTConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """One sample as tensors.

    Args:
        raw: ``image`` uint8 (H, W, 3) and labels (H, W) or (H, W, 3): classes uint8, edge uint8 0/1, depth float32
            metres, normal as bytes (0..255 for -1..1) or as floats.
        labels: those wanted.
        seed: of the augmentation; ``None`` for none.
        config: sizes and ranges.

    Returns:
        Image (3, H, W) and labels, of ``config.image_size``.
    """
    augment, target = config.augment, config.image_size
    image = raw["image"]
    view = View.whole((image.shape[0], image.shape[1]))
    if seed is not None and augment.enabled:
        rng = np.random.default_rng(seed)
        view = draw_view(view.size, target, raw.get("semseg"), augment, rng)
        image = take_image(image, view)
        if augment.photometric:
            image = photometric(image, rng)
    pixels = standardised(image[None])[0].movedim(0, -1).numpy()
    picture = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pad(pixels, target, 0.0), -1, 0)))
    out = {}
    for label in labels:
        kind = KINDS[label]
        part = take(raw[label], view)
        if kind == "normal":
            part = unit_normals(part, config.valid_normals)
            if NORMAL_VALID in raw:
                part *= take(raw[NORMAL_VALID], view)[..., None]
        out[label] = _tensor(_only_with_people(label, adapt(part, kind, view, augment)), kind, target)
    return picture, out


_BYTES = np.arange(256, dtype=np.float32) * np.float32(2.0 / 255.0) - np.float32(1.0)
"""What each byte of a stored normal stands for."""


def unit_normals(stored: np.ndarray, valid: Literal["unit", "nonzero"]) -> np.ndarray:
    """Bytes or floats (H, W, 3) -> float32 unit vectors, zero where there is no normal."""
    if stored.dtype == np.uint8:
        vectors = np.take(_BYTES, stored)
    else:
        vectors = np.nan_to_num(stored.astype(np.float32), copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    length = np.sqrt(x * x + y * y + z * z)
    sound = (length >= 0.5) & (length <= 1.5) if valid == "unit" else length > 1e-6
    vectors *= np.where(sound, np.float32(1.0) / np.maximum(length, np.float32(1e-6)), np.float32(0.0))[..., None]
    return vectors


def _only_with_people(label: str, part: np.ndarray) -> np.ndarray:
    """Human parts of a view without people say nothing (InvPT's rule): all of it is ignored."""
    if label == "human_parts" and not ((part > 0) & (part != IGNORE)).any():
        return np.full_like(part, IGNORE)
    return part


def _tensor(part: np.ndarray, kind: Kind, target: Size) -> Tensor:
    if kind == "classes":
        return torch.from_numpy(pad(part.astype(np.int64), target, IGNORE))
    padded = pad(part.astype(np.float32), target, IGNORE if kind == "edge" else 0.0)
    return torch.from_numpy(padded[None] if padded.ndim == 2 else np.ascontiguousarray(np.moveaxis(padded, -1, 0)))
