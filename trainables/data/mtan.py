"""NYUv2 and Cityscapes as MTAN (Liu et al. 2019) published them and LibMTL, Nash-MTL, CAGrad and FAMO read them: small
arrays, one file for each sample and label, images from 0 to 1."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data import encodings
from trainables.data.ondisk import DataRoot, HoldoutConfig, Raw, hold_out, read_npy
from trainables.errors import DataError
from trainables.losses import IGNORE

SCALES = (1.0, 1.2, 1.5)
"""Of the random scaling."""

FOLDERS = {"train": "train", "test": "val"}
"""What is measured on at the end is called ``val`` there; of a validation split they have none."""

MOST_SAMPLES = 100_000
"""More than either data set has."""

CACHE_BYTES = 4 * 2**30
"""Most memory for decoded parts of Parquet files: enough for the whole of NYUv2."""


class MtanConfig(HoldoutConfig):
    """The fields of both data sets."""

    augment: bool = False
    """Scale by 1, 1.2 or 1.5, crop, and mirror half of the training samples. Off in MTAN's paper; on in Nash-MTL and
    FAMO."""

    pixels: Literal["imagenet", "unit"] = "imagenet"
    """What the network sees: ``unit``, values from 0 to 1, as MTAN's family; ``imagenet``, the same less ImageNet's
    mean, over its deviation, as pretrained backbones want it."""


@dataclass(frozen=True)
class Prepare:
    """Makes tensors of a sample's arrays.

    Attributes:
        config: of the data set.
        depth_power: what depth is multiplied with when the image is scaled by s is s to the power of this: -1 for
            depth, 1 for its inverse.
    """

    config: MtanConfig
    depth_power: int

    def __call__(self, raw: Raw, labels: Sequence[str], seed: int | None) -> tuple[Tensor, dict[str, Tensor]]:
        """See :data:`trainables.data.ondisk.Finish`."""
        sample = {name: _channels_first(raw[name]) for name in ("image", *labels)}
        if seed is not None and self.config.augment:
            sample = augment(sample, np.random.default_rng(seed), self.depth_power)
        image = sample.pop("image")
        if self.config.pixels == "imagenet":
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encodings.IMAGENET_MEAN, encodings.IMAGENET_STD))
            image = (image - mean) / std
        if "semseg" in sample:
            sample["semseg"] = sample["semseg"][0].to(torch.int64)
        return image, sample


def augment(sample: Mapping[str, Tensor], random: np.random.Generator, depth_power: int) -> dict[str, Tensor]:
    """Scale by a factor s: crop H/s x W/s and bring it back to H x W; then mirror, or not.

    Images and normals are interpolated between pixels (so that normals are no longer of unit length), classes and depth
    are not. A mirrored normal points the other way in x.

    Args:
        sample: (C, H, W) each.
        random: three draws are taken from it, then one.
        depth_power: see :class:`Prepare`.
    """
    height, width = sample["image"].shape[-2:]
    scale = SCALES[int(random.integers(len(SCALES)))]
    h, w = int(height / scale), int(width / scale)
    top, left = int(random.integers(height - h, endpoint=True)), int(random.integers(width - w, endpoint=True))
    mirrored = bool(random.random() < 0.5)
    out = {}
    for name, tensor in sample.items():
        part = tensor[:, top : top + h, left : left + w].unsqueeze(0)
        if (h, w) == (height, width):
            # Interpolating would copy it, at a third of the time of a sample.
            grown = tensor
        elif name in ("image", "normal"):
            grown = F.interpolate(part, (height, width), mode="bilinear", align_corners=True)[0]
        else:
            grown = F.interpolate(part, (height, width), mode="nearest")[0]
        if name == "depth":
            grown = grown * scale**depth_power
        if mirrored:
            grown = grown.flip(-1)
            if name == "normal":
                grown[0] *= -1
        out[name] = grown
    return out


def _channels_first(array: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) -> (C, H, W) float32; classes are small enough to be exact."""
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


@dataclass(frozen=True)
class Field:
    """One array of a sample.

    Attributes:
        folders: what its folder is called, any of these.
        column: what its column is called in Parquet files.
        channels: how many; 0 for a label of classes.
    """

    folders: tuple[str, ...]
    column: str
    channels: int


class Checked:
    """What the arrays of one sample have to be.

    Args:
        root: the data folder.
        size: (H, W).
        classes: how many.
    """

    def __init__(self, root: DataRoot, size: tuple[int, int], classes: int) -> None:
        self.root = root
        self.size = size
        self.classes = classes

    def field(self, file: str, name: str, array: np.ndarray, channels: int) -> np.ndarray:
        """(H, W) uint8 of classes, 255 to ignore; (H, W) or (H, W, C) float32 of others.

        Raises:
            DataError: the array has another shape, or values that cannot be; the message names ``file``.
        """
        if array.ndim == 3 and array.shape[-1] == 1:
            array = array[..., 0]
        wanted = (*self.size, channels) if channels > 1 else self.size
        if array.shape != wanted:
            raise self.root.error(file, f"an array of shape {wanted} is wanted, it has {array.shape}")
        if name == "semseg":
            return self._classes(file, array)
        array = array.astype(np.float32) / 255.0 if array.dtype == np.uint8 else array.astype(np.float32)
        if name == "depth":
            return np.where(np.isfinite(array) & (array > 0), array, np.float32(0))
        if not np.isfinite(array).all() or np.abs(array).max() > 1.01:
            raise self.root.error(file, f"values from {-1 if name == 'normal' else 0} to 1 are wanted")
        return array

    def _classes(self, file: str, array: np.ndarray) -> np.ndarray:
        ignored = (array == -1) | (array == IGNORE)
        right = ignored | ((array >= 0) & (array < self.classes) & (array == np.floor(array)))
        if not right.all():
            wrong = array[~right].flat[0]
            raise self.root.error(file, f"classes 0 to {self.classes - 1}, or -1, are wanted, it has {wrong}")
        return np.where(ignored, IGNORE, array).astype(np.uint8)


class _Splits:
    """Samples as ``train/17``; of the training samples, some are held out for validation."""

    def __init__(self, config: MtanConfig, fields: Mapping[str, Field]) -> None:
        self.labels = tuple(name for name in fields if name != "image")
        self._fraction = config.val_fraction
        self._all = lru_cache(maxsize=None)(self._list)

    def names(self, split: str) -> Sequence[str]:
        """``train/I`` or ``val/I`` of every sample, by number."""
        if split == "test":
            return self._all("test")
        return hold_out(self._all("train"), self._fraction)[split == "val"]

    def _list(self, split: str) -> tuple[str, ...]:
        raise NotImplementedError


class NpyLayout(_Splits):
    """``{train,val}/{image,label,depth,...}/I.npy``."""

    name = "npy"

    def __init__(self, config: MtanConfig, checked: Checked, fields: Mapping[str, Field]) -> None:
        super().__init__(config, fields)
        self._checked = checked
        self._root = checked.root
        self._fields = fields
        self._folder = lru_cache(maxsize=None)(self._look)

    def files(self, sample: str) -> Sequence[str]:
        """One array for each label and one for the image."""
        return [self._file(sample, name) for name in self._fields]

    def load(self, sample: str, labels: Sequence[str]) -> Raw:
        """``image`` and ``labels``.

        Raises:
            DataError: a file is missing, damaged, or holds something else.
        """
        out = {}
        for name in ("image", *labels):
            file = self._file(sample, name)
            array = read_npy(self._root, file, "fiu", (2, 3))
            out[name] = self._checked.field(file, name, array, self._fields[name].channels)
        return out

    def _file(self, sample: str, name: str) -> str:
        split, _, number = sample.partition("/")
        return f"{split}/{self._folder(split, name)}/{number}.npy"

    def _look(self, split: str, name: str) -> str:
        folders = self._fields[name].folders
        return next((folder for folder in folders if self._root.exists(f"{split}/{folder}")), folders[0])

    def _list(self, split: str) -> tuple[str, ...]:
        folder = FOLDERS[split]
        # Numbers run from 0; one that a folder lacks is a sample with a file missing.
        numbers = [
            int(file.removesuffix(".npy"))
            for name in self._fields
            for file in self._root.files(f"{folder}/{self._folder(folder, name)}")
            if file.endswith(".npy") and file.removesuffix(".npy").isdecimal()
        ]
        if not numbers:
            raise self._root.error(f"{folder}/image", "there is no array 0.npy, 1.npy, ... in it")
        if max(numbers) >= MOST_SAMPLES:
            raise self._root.error(folder, f"it has an array of number {max(numbers)}; they run from 0")
        return tuple(f"{folder}/{number}" for number in range(max(numbers) + 1))


_PART = re.compile(r"(train|val|validation|test)-(\d{5})-of-(\d{5}).*\.parquet")


class ParquetLayout(_Splits):
    """``{train,val}-00000-of-0000N*.parquet`` as Hugging Face has them, one row for each sample, channels first."""

    name = "parquet"

    def __init__(self, config: MtanConfig, checked: Checked, fields: Mapping[str, Field], folder: str) -> None:
        super().__init__(config, fields)
        self._checked = checked
        self._root = checked.root
        self._fields = fields
        self._below = folder
        self._cache: OrderedDict[tuple[str, int, str], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._parts = lru_cache(maxsize=None)(self._find)

    def files(self, sample: str) -> Sequence[str]:
        """The file that has the sample's row."""
        return (self._place(sample)[0],)

    def load(self, sample: str, labels: Sequence[str]) -> Raw:
        """``image`` and ``labels``.

        Raises:
            DataError: a file is missing or damaged, or holds something else.
        """
        file, group, row = self._place(sample)
        out = {}
        for name in ("image", *labels):
            channels = self._fields[name].channels
            array = self._group(file, group, name)[row]
            array = array.transpose(1, 2, 0) if array.ndim == 3 else array
            out[name] = self._checked.field(file, name, array, channels)
        return out

    def _list(self, split: str) -> tuple[str, ...]:
        folder = FOLDERS[split]
        return tuple(f"{folder}/{row}" for row in range(self._parts(folder)[-1][2]))

    def _place(self, sample: str) -> tuple[str, int, int]:
        """File, row group, and row in it."""
        split, _, number = sample.partition("/")
        first = 0
        for file, group, end in self._parts(split):
            if int(number) < end:
                return file, group, int(number) - first
            first = end
        raise DataError(f"{sample}: there is no such sample")

    def _find(self, split: str) -> list[tuple[str, int, int]]:
        """(file, row group, number of the first sample after it) of a split, in order."""
        matches = [m for m in map(_PART.fullmatch, sorted(self._root.files(self._below))) if m and m.group(1) == split]
        if not matches:
            raise self._root.error(self._below, f"there is no {split}-00000-of-....parquet in it")
        of = int(matches[0].group(3))
        missing = sorted(set(range(of)) - {int(match.group(2)) for match in matches})
        if missing or len(matches) != of:
            lacks = f"{split}-{missing[0]:05d}-of-{of:05d}" if missing else f"one set of {split}-....parquet"
            raise self._root.error(self._below, f"{lacks} is missing")
        groups = []
        for match in matches:
            file = match.group(0) if self._below == "." else f"{self._below}/{match.group(0)}"
            meta = self._opened(file, lambda parquet: parquet.metadata)
            groups += [(file, group, meta.row_group(group).num_rows) for group in range(meta.num_row_groups)]
        ends = accumulate(rows for _, _, rows in groups)
        return [(file, group, end) for (file, group, _), end in zip(groups, ends, strict=True)]

    def _group(self, file: str, group: int, name: str) -> np.ndarray:
        """(rows, ...) of one row group and column."""
        key = (file, group, name)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = self._opened(file, lambda parquet: self._column(file, parquet, group, name))
                while sum(array.nbytes for array in self._cache.values()) > CACHE_BYTES and len(self._cache) > 1:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return self._cache[key]

    def _column(self, file: str, parquet: Any, group: int, name: str) -> np.ndarray:
        column = self._fields[name].column
        if column not in parquet.schema_arrow.names:
            raise self._root.error(file, f"it has no column '{column}'")
        values = parquet.read_row_group(group, columns=[column]).column(0).combine_chunks()
        rows = len(values)
        while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
            values = values.flatten()
        channels = self._fields[name].channels
        shape = (rows, channels, *self._checked.size) if channels else (rows, *self._checked.size)
        array = values.to_numpy(zero_copy_only=False)
        if array.size != int(np.prod(shape)):
            raise self._root.error(file, f"column '{column}': rows of shape {shape[1:]} are wanted")
        # Wider numbers than the values need would fill the memory.
        return array.reshape(shape).astype(np.float32 if array.dtype.kind == "f" else np.int16)

    def _opened(self, file: str, use: Callable[[Any], Any]) -> Any:
        import pyarrow
        from pyarrow import parquet

        path = self._root.file(file)
        try:
            with parquet.ParquetFile(path) as opened:
                return use(opened)
        except FileNotFoundError:
            raise self._root.error(file, "it is missing") from None
        except (pyarrow.ArrowException, OSError, ValueError):
            raise self._root.error(file, "it is damaged: no whole Parquet file of arrays") from None


def find(
    config: MtanConfig, checked: Checked, fields: Mapping[str, Field], *, parquet: bool
) -> NpyLayout | ParquetLayout | None:
    """The layout of a folder, if it has one of the two."""
    root = checked.root
    if root.exists("train/image") and root.exists("val/image"):
        return NpyLayout(config, checked, fields)
    # In the cache of huggingface_hub the files of a snapshot are links into the folder above it.
    cached = [f"snapshots/{revision}/data" for revision in root.folders("snapshots")]
    for folder in ("data", ".", *cached) if parquet else ():
        if any(_PART.fullmatch(name) for name in root.files(folder)):
            return ParquetLayout(config, checked, fields, folder)
    return None
