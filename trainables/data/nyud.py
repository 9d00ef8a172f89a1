"""NYUD-v2 (Silberman et al. 2012) with four labels, from the folders that the InvPT family of papers hands around."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from trainables.data.base import DataConfig
from trainables.data.invpt import InvPT, InvPTConfig, fits, split_names
from trainables.data.ondisk import DataRoot, Layout, Raw, read_image, read_mat_array, read_npy
from trainables.data.transforms import Side
from trainables.losses import IGNORE

CLASSES = 40


class NYUDConfig(InvPTConfig):
    """NYUD-v2: 795 training and 654 test images of indoor scenes, 425x560 pixels."""

    name: Literal["nyud"] = "nyud"

    image_size: tuple[Side, Side] = (448, 576)
    """Height and width, in pixels, of what the network sees. Images are padded to it, or cropped in training."""


class NYUD(InvPT):
    """NYUD-v2: ``semseg`` (40 classes), ``depth``, ``normal``, ``edge``."""

    Config: ClassVar[type[DataConfig]] = NYUDConfig
    labels: ClassVar[tuple[str, ...]] = ("semseg", "depth", "normal", "edge")
    classes: ClassVar[Mapping[str, int]] = MappingProxyType({"semseg": CLASSES})
    train_count: ClassVar[int] = 795
    test_count: ClassVar[int] = 654
    layout_help: ClassVar[str] = (
        "gt_sets/train.txt and val.txt (795 and 654 names) and the folders images, segmentation, depth, normals, edge"
    )
    source: ClassVar[str] = "the NYUDv2 archives of InvPT, MTI-Net or ASTMT"

    @classmethod
    def find(cls, config: Any, root: DataRoot) -> Layout | None:
        """One of the three layouts, told apart by the types of the files in each folder."""
        if not all(root.exists(each) for each in ("gt_sets/train.txt", "gt_sets/val.txt", "images")):
            return None
        suffixes = {folder: _suffix(root, folder) for folder in _FOLDERS}
        for name, expected in _LAYOUTS.items():
            if all(suffixes[folder] in (suffix, "") for folder, suffix in expected.items()) and suffixes["images"]:
                present = {**expected, **{folder: found for folder, found in suffixes.items() if found}}
                splits = split_names(root, "gt_sets/train.txt", "gt_sets/val.txt", config.val_fraction)
                return _NYUDLayout(name, root, splits, present, config.image_size)
        return None


_FOLDERS = MappingProxyType(
    {"images": "image", "segmentation": "semseg", "depth": "depth", "normals": "normal", "edge": "edge"}
)
"""Folder to label."""

_LAYOUTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "invpt": {"images": ".png", "segmentation": ".png", "depth": ".npy", "normals": ".png", "edge": ".png"},
        "mti_net": {"images": ".jpg", "segmentation": ".png", "depth": ".npy", "normals": ".npy", "edge": ".npy"},
        "astmt": {"images": ".jpg", "segmentation": ".mat", "depth": ".mat", "normals": ".jpg"},
    }
)
"""Layout to the type of the files in each folder. ASTMT's folder may have edges of either type."""


def _suffix(root: DataRoot, folder: str) -> str:
    """The type of most files of a folder; nothing where it has none."""
    counts = Counter(PurePosixPath(name).suffix for name in root.files(folder) if not name.startswith("."))
    return counts.most_common(1)[0][0] if counts else ""


@dataclass(frozen=True)
class _NYUDLayout:
    name: str
    root: DataRoot
    splits: Mapping[str, tuple[str, ...]]
    suffixes: Mapping[str, str]
    image_size: tuple[int, int]
    labels: Sequence[str] = NYUD.labels

    def names(self, split: str) -> Sequence[str]:
        return self.splits[split]

    def files(self, sample: str) -> Sequence[str]:
        return [self._path(folder, sample) for folder in _FOLDERS]

    def load(self, sample: str, labels: Sequence[str]) -> Raw:
        path = self._path("images", sample)
        image = read_image(self.root, path)
        fits(self.root, path, image, self.image_size)
        size = (image.shape[0], image.shape[1])
        out = {"image": image}
        for folder, label in _FOLDERS.items():
            if label in labels:
                path = self._path(folder, sample)
                out[label] = _READERS[label](self.root, path, size)
        return out

    def _path(self, folder: str, sample: str) -> str:
        return f"{folder}/{sample}{self.suffixes.get(folder, '.png')}"


def _semseg(root: DataRoot, path: str, size: tuple[int, int]) -> np.ndarray:
    """0 (unlabelled) and classes 1 to 40 -> classes 0 to 39 and 255 for unlabelled."""
    if path.endswith(".mat"):
        stored = read_mat_array(root, path, "segmentation", size)
    else:
        stored = read_image(root, path, ("L", "P"), size)
    if not ((stored >= 0) & (stored <= CLASSES)).all():
        raise root.error(path, f"classes from 0 to {CLASSES} are wanted, it has {stored.max()}")
    return np.where(stored == 0, IGNORE, stored.astype(np.int64) - 1).astype(np.uint8)


def _depth(root: DataRoot, path: str, size: tuple[int, int]) -> np.ndarray:
    """Metres, float32; 0 where nothing was measured, which is what negative and infinite depths mean as well."""
    if path.endswith(".mat"):
        stored = read_mat_array(root, path, "depth", size)
    else:
        stored = read_npy(root, path, "fiu", (2, 3), size)
    if stored.ndim == 3:
        if stored.shape[-1] != 1:
            raise root.error(path, f"one value per pixel is wanted, it has shape {stored.shape}")
        stored = stored[..., 0]
    depth = stored.astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0.0))


def _normal(root: DataRoot, path: str, size: tuple[int, int]) -> np.ndarray:
    """Vectors as bytes (0 to 255 for -1 to 1), or as floats."""
    if not path.endswith(".npy"):
        return read_image(root, path, size=size)
    stored = read_npy(root, path, "fu", (3,), size)
    if stored.shape[-1] != 3:
        raise root.error(path, f"three values per pixel are wanted, it has shape {stored.shape}")
    return stored if stored.dtype == np.uint8 else stored.astype(np.float32)


def _edge(root: DataRoot, path: str, size: tuple[int, int]) -> np.ndarray:
    """1 on an edge, 0 off it; images have 255 on an edge, arrays 1."""
    if path.endswith(".npy"):
        stored = read_npy(root, path, "fiub", (2, 3), size).astype(np.float32)
        if stored.ndim == 3:
            stored = stored[..., 0]
        return (stored > (127.0 if stored.max(initial=0.0) > 1.0 else 0.5)).astype(np.uint8)
    stored = read_image(root, path, ("L", "1"), size)
    return (stored > (127 if stored.max(initial=0) > 1 else 0)).astype(np.uint8)


_READERS = MappingProxyType({"semseg": _semseg, "depth": _depth, "normal": _normal, "edge": _edge})
