"""The data set ``taskonomy``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainables.data import encodings
from trainables.data.base import SPLITS, DataConfig
from trainables.data.ondisk import DataRoot, Finish, OnDisk, Raw
from trainables.data.taskonomy import layout
from trainables.data.taskonomy.config import TaskonomyConfig
from trainables.data.taskonomy.layout import LABELS, LABELS_3D
from trainables.data.taskonomy.normalisation import NORMALISATIONS
from trainables.losses import IGNORE

BUILDINGS = {"tiny": (25, 5, 5), "medium": (99, 20, 19), "full": (346, 67, 69), "fullplus": (381, 75, 79)}
"""Training, validation and test buildings of each subset, as counted in the published lists."""

IMAGES_PER_BUILDING = 4_600_000 // 537
"""The mean, by the data set's own description: of most subsets no exact count is published."""

KNOWN_SIZES = {("tiny", "val"): 35_774, ("tiny", "test"): 54_514}
"""Images, as listed by MultiMAE; of the validation buildings without wiconisco."""


@dataclass(frozen=True)
class Prepare:
    """Makes tensors of a sample's files: resized, cropped, mirrored, normalised, masked."""

    config: TaskonomyConfig

    def __call__(self, raw: Raw, labels: Sequence[str], seed: int | None) -> tuple[Tensor, dict[str, Tensor]]:
        """See :data:`trainables.data.ondisk.Finish`."""
        own = self.config
        size, resize = own.image_size, own.resize or own.image_size
        top = left = (resize - size) // 2
        mirrored = False
        if seed is not None:
            random = np.random.default_rng(seed)
            top, left = (int(offset) for offset in random.integers(0, resize - size, size=2, endpoint=True))
            mirrored = bool(random.random() < 0.5) and own.flip != "off"

        def placed(array: np.ndarray, how: Image.Resampling) -> np.ndarray:
            array = resized(array, resize, how)[top : top + size, left : left + size]
            return array[:, ::-1] if mirrored else array

        how = Image.Resampling.BILINEAR if own.interpolation == "bilinear" else Image.Resampling.NEAREST
        # A pixel with any share of a hole is a hole.
        valid = torch.from_numpy(placed(raw["mask"].astype(np.float32), how) > 0.999) if "mask" in raw else None
        out = {}
        for label in labels:
            value = NORMALISATIONS[own.normalisation][label](placed(raw[label], how))
            if label == "normal" and mirrored and own.flip == "mirror":
                value[0] *= -1
            if valid is not None and label in LABELS_3D:
                value.masked_fill_(~valid, float(IGNORE))
            out[label] = value
        return encodings.image(placed(raw["image"], Image.Resampling.BILINEAR)[None])[0], out


def resized(array: np.ndarray, size: int, how: Image.Resampling) -> np.ndarray:
    """(H, W) or (H, W, C) -> (size, size) or (size, size, C) float32; 8-bit codes are rounded, as Pillow does, others
    are not."""
    if array.shape[:2] != (size, size):
        picture = Image.fromarray(array if array.dtype == np.uint8 else array.astype(np.float32))
        array = np.asarray(picture.resize((size, size), how))
    return array.astype(np.float32)


class Taskonomy(OnDisk):
    """Taskonomy with its eleven dense labels, from the folders of Taskonomy, Omnidata, Mod-Squad or TaskGrouping."""

    Config: ClassVar[type[DataConfig]] = TaskonomyConfig
    labels: ClassVar[tuple[str, ...]] = tuple(LABELS)
    layout_help: ClassVar[str] = (
        "rgb/[taskonomy/]BUILDING/point_P_view_V_domain_rgb.png, a folder like it for each label, and "
        "splits_taskonomy/train_val_test_SUBSET.csv"
    )
    source: ClassVar[str] = "omnitools.download (docs.omnidata.vision) or github.com/StanfordVL/taskonomy"

    @classmethod
    def find(cls, config: TaskonomyConfig, root: DataRoot) -> layout.BuildingLayout | None:
        """The layout, told by where the buildings are."""
        return layout.find(config, root)

    @classmethod
    def published(cls, config: TaskonomyConfig) -> dict[str, int]:
        """Images by split. Where no count is published it is what the folder lists, and without a folder about that:
        buildings times their mean number of images."""
        found = cls.layout(config)
        out = {}
        for split, buildings in zip(SPLITS, BUILDINGS[config.subset], strict=True):
            known = KNOWN_SIZES.get((config.subset, split))
            if found is not None and (known is None or _chosen(config)):
                out[split] = len(found.names(split))
            else:
                out[split] = known or buildings * IMAGES_PER_BUILDING
        if found is None and config.train_on == "train_val":
            out["train"] += out["val"]
        if found is None and config.test == "first_tenth":
            out["test"] //= 10
        return out

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels."""
        if not isinstance(config, TaskonomyConfig):
            raise TypeError(f"a TaskonomyConfig is wanted, got {type(config).__name__}")
        return config.image_size, config.image_size

    @classmethod
    def finish(cls, config: TaskonomyConfig) -> Finish:
        """What makes tensors of a sample's files."""
        return Prepare(config)

    @classmethod
    def ignoring(cls, config: DataConfig) -> frozenset[str]:
        """The 3D labels, where a mask is asked for."""
        return LABELS_3D if isinstance(config, TaskonomyConfig) and config.mask != "none" else frozenset()


def _chosen(config: TaskonomyConfig) -> bool:
    """Whether the config takes other images than those counted."""
    default = TaskonomyConfig.model_fields["leave_out"].default
    return config.test == "first_tenth" or set(config.leave_out) != set(default)
