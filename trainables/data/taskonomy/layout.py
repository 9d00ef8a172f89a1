"""Where a folder of Taskonomy has its files: recognised by looking, samples paired by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from trainables.data.ondisk import DataRoot, Raw, read_image
from trainables.data.taskonomy.config import TaskonomyConfig
from trainables.data.taskonomy.normalisation import NORMALISATIONS

logger = logging.getLogger(__name__)

GREY16 = ("I;16",)

LABELS: Mapping[str, tuple[str, ...]] = {
    "depth_euclidean": GREY16,
    "depth_zbuffer": GREY16,
    "edge_occlusion": GREY16,
    "edge_texture": GREY16,
    "keypoints2d": GREY16,
    "keypoints3d": GREY16,
    "normal": ("RGB",),
    "principal_curvature": ("RGB",),
    "reshading": ("RGB", "L"),
    "segment_unsup2d": ("L",),
    "segment_unsup25d": ("L",),
}
"""Label, as its folder is called, to the pixel types its files have."""

LABELS_3D = frozenset(
    {
        "depth_euclidean",
        "depth_zbuffer",
        "edge_occlusion",
        "keypoints3d",
        "normal",
        "principal_curvature",
        "reshading",
        "segment_unsup25d",
    }
)
"""Labels made from the scanned mesh, and so without meaning where it has a hole."""

DEPTH_HOLE = 65535
DEPTH_FAR = 2**13
"""16 m, in steps of 1/512 m."""

_BUILDING = re.compile(r"\w[\w.-]*")

SPLITS_SOURCE = "data/assets/splits_taskonomy.zip of github.com/StanfordVL/taskonomy"


def splits_file(config: TaskonomyConfig, root: DataRoot) -> str | None:
    """The list of the subset's buildings, in one of the places it is kept in."""
    name = f"train_val_test_{config.subset}.csv"
    return root.first(f"splits_taskonomy/{name}", name)


def parse_splits(root: DataRoot, file: str) -> dict[str, tuple[str, ...]]:
    """The buildings of ``train``, ``val`` and ``test``, in the file's order.

    Its columns are ``id,train,val,test``, the last three 0 or 1.

    Raises:
        DataError: the file is missing, not UTF-8 text, or not of these columns.
    """
    header, *rows = [[field.strip() for field in line.split(",")] for line in root.lines(file)]
    if header != ["id", "train", "val", "test"]:
        raise root.error(file, f"its columns are to be id,train,val,test, they are {','.join(header)[:80]}")
    out: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    seen = set()
    for number, row in enumerate(rows, start=2):
        if len(row) != 4 or sorted(row[1:]) != ["0", "0", "1"]:
            raise root.error(file, f"line {number}: a building and one 1 among two 0 is wanted: {','.join(row)[:80]}")
        if not _BUILDING.fullmatch(row[0]):
            raise root.error(file, f"line {number}: '{row[0][:80]}' is no name of a building")
        if row[0] in seen:
            raise root.error(file, f"line {number}: building '{row[0]}' is in it twice")
        seen.add(row[0])
        out[header[1 + row[1:].index("1")]].append(row[0])
    return {split: tuple(buildings) for split, buildings in out.items()}


class BuildingLayout:
    """A folder for each label, in it (perhaps below ``taskonomy/``) one for each building, in it the images.

    Args:
        config: of the data set.
        root: its folder.
        name: of the arrangement.
        below: what stands between label and building: ``/taskonomy`` or nothing.
        splits: the list of buildings.
    """

    def __init__(self, config: TaskonomyConfig, root: DataRoot, name: str, below: str, splits: str) -> None:
        self.name = name
        self.labels = tuple(label for label in LABELS if label in NORMALISATIONS[config.normalisation])
        self._config = config
        self._root = root
        self._below = below
        self._splits = splits
        self._buildings = parse_splits(root, splits)
        self._names = lru_cache(maxsize=None)(self._list)

    def names(self, split: str) -> Sequence[str]:
        """``building/point_P_view_V`` of every image, the buildings in the list's order.

        Raises:
            DataError: the list is missing or damaged, or a building of it has no images and ``on_bad`` is ``error``.
        """
        return self._names(split)

    def files(self, sample: str) -> Sequence[str]:
        """The colour image alone: there are millions of labels, and they are found by its name."""
        return (self.path("rgb", sample),)

    def path(self, folder: str, sample: str) -> str:
        """The file of a sample in the folder of a label, of ``rgb`` or of ``mask``."""
        building, _, view = sample.partition("/")
        return f"{folder}{self._below}/{building}/{view}_domain_{folder}.png"

    def load(self, sample: str, labels: Sequence[str]) -> Raw:
        """``image`` and ``labels`` as stored; ``mask`` (bool) with them where the config asks for one.

        Raises:
            DataError: a file is missing, damaged, of another bit depth, or of another size than the image.
        """
        image = read_image(self._root, self.path("rgb", sample), ("RGB",))
        size = image.shape[0], image.shape[1]
        raw = {"image": image}
        for label in labels:
            raw[label] = read_image(self._root, self.path(label, sample), LABELS[label], size)
        if self._config.mask != "none" and not LABELS_3D.isdisjoint(labels):
            raw["mask"] = self._mask(sample, raw.get("depth_zbuffer"), size)
        return raw

    def _mask(self, sample: str, depth: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool: where the labels of the mesh count."""
        if self._config.mask == "files":
            return read_image(self._root, self.path("mask", sample), ("1", "L"), size) > 0
        if depth is None:
            depth = read_image(self._root, self.path("depth_zbuffer", sample), LABELS["depth_zbuffer"], size)
        return depth < (DEPTH_HOLE if self._config.mask == "holes" else DEPTH_FAR)

    def _list(self, split: str) -> tuple[str, ...]:
        own = self._config
        buildings = self._buildings
        chosen = buildings[split]
        if split == "train" and own.train_on == "train_val":
            both = {*buildings["train"], *buildings["val"]}
            chosen = tuple(b for b in self._in_order() if b in both)
        names: list[str] = []
        missing = []
        for building in chosen:
            if building not in own.leave_out:
                views = self._views(building)
                names += [f"{building}/{view}" for view in views]
                if not views:
                    missing.append(building)
        if missing:
            why = f"it names building '{missing[0]}', of which rgb{self._below}/{missing[0]} has no image"
            more = f" ({len(missing)} such buildings in split '{split}')" if len(missing) > 1 else ""
            if own.on_bad == "error":
                raise self._root.error(self._splits, f"{why}{more}; add it to data.leave_out, or use on_bad: skip")
            logger.warning("%s", self._root.error(self._splits, f"left out: {why}{more}"))
        if split == "test" and own.test == "first_tenth":
            names = names[: max(1, len(names) // 10)]
        if not names and split != "val":
            raise self._root.error(self._splits, f"no building of split '{split}' has an image")
        return tuple(names)

    def _in_order(self) -> tuple[str, ...]:
        """All buildings in the list's order."""
        return tuple(line.split(",")[0].strip() for line in self._root.lines(self._splits)[1:])

    def _views(self, building: str) -> list[str]:
        """``point_P_view_V`` of a building's images, sorted as text, which is the order that Mod-Squad reads.

        One label is looked at beside the images, so that an image that is missing is noticed.
        """
        views: set[str] = set()
        for folder in ("rgb", "depth_zbuffer"):
            pattern = re.compile(rf"(point_\d+_view_\d+)_domain_{folder}\.png")
            names = self._root.files(f"{folder}{self._below}/{building}")
            views.update(match.group(1) for match in map(pattern.fullmatch, names) if match)
        return sorted(views)


def find(config: TaskonomyConfig, root: DataRoot) -> BuildingLayout | None:
    """The layout: of Mod-Squad (``label/taskonomy/building``, as the Omnidata tool downloads it), of Taskonomy
    (``label/building``) or of TaskGrouping (the same, with masks).

    Raises:
        DataError: the images are there and the list of buildings is not.
    """
    if not root.exists("rgb"):
        return None
    below = "/taskonomy" if root.exists("rgb/taskonomy") else ""
    if not below and not root.folders("rgb"):
        return None
    splits = splits_file(config, root)
    if splits is None:
        file = f"splits_taskonomy/train_val_test_{config.subset}.csv"
        raise root.error(file, f"it is missing; it is in {SPLITS_SOURCE}")
    name = "mod_squad" if below else "taskgrouping" if root.exists("mask") else "taskonomy"
    return BuildingLayout(config, root, name, below, splits)
