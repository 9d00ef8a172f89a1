"""Generated folders of data sets, of the sizes and file types that the published ones have: what decoding costs depends
on these and on how busy a picture is, not on what it shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from trainables.data.taskonomy.layout import GREY16, LABELS

NYUD_SIZE = (425, 560)
PASCAL_SIZE = (375, 500)
TASKONOMY_SIZE = (512, 512)

Size = tuple[int, int]


def picture(random: np.random.Generator, size: Size) -> np.ndarray:
    """(H, W, 3) uint8: smooth shapes and a little noise, so that it is compressed about as a photograph is."""
    shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float32)
    return np.clip(smooth + random.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)


def classes(random: np.random.Generator, size: Size, count: int) -> np.ndarray:
    """(H, W) uint8: patches of classes."""
    patches = Image.fromarray(random.integers(0, count, (8, 11), dtype=np.uint8))
    return np.asarray(patches.resize(size[::-1], Image.Resampling.NEAREST))


def surface(random: np.random.Generator, size: Size) -> np.ndarray:
    """(H, W) float32: a smooth surface between 0.7 and 9."""
    grid = Image.fromarray(random.uniform(1, 8.5, (9, 12)).astype(np.float32))
    return np.clip(np.asarray(grid.resize(size[::-1], Image.Resampling.BICUBIC)), 0.7, 9).astype(np.float32)


def vectors(random: np.random.Generator, size: Size) -> np.ndarray:
    """(H, W, 3) float32: unit vectors that change slowly."""
    stacked = np.stack([surface(random, size) - 5 for _ in range(3)], axis=-1)
    unit: np.ndarray = stacked / np.linalg.norm(stacked, axis=-1, keepdims=True)
    return unit


def names_of(count: int) -> list[str]:
    """Of the samples."""
    return [f"2008_{index:06d}" for index in range(1, count + 1)]


def write_nyud(root: Path, count: int, random: np.random.Generator) -> None:
    """The layout of InvPT: PNG, depth as an array."""
    folders = _folders(root, "images", "segmentation", "depth", "normals", "edge", "gt_sets")
    for name in names_of(count):
        semseg = classes(random, NYUD_SIZE, 41)
        _image(folders["images"] / f"{name}.png", picture(random, NYUD_SIZE))
        _image(folders["segmentation"] / f"{name}.png", semseg)
        np.save(folders["depth"] / f"{name}.npy", surface(random, NYUD_SIZE))
        _image(folders["normals"] / f"{name}.png", _codes(vectors(random, NYUD_SIZE)))
        edge = np.diff(semseg.astype(int), axis=1, append=semseg[:, -1:]) != 0
        _image(folders["edge"] / f"{name}.png", edge.astype(np.uint8) * 255)
    _lists(folders["gt_sets"], count)


def write_pascal(root: Path, count: int, random: np.random.Generator) -> None:
    """The layout of InvPT, without human parts: JPEG, PNG, label maps as ``.mat``."""
    folders = _folders(
        root,
        "JPEGImages",
        "ImageSets/Context",
        "semseg/VOC12",
        "semseg/pascal-context",
        "pascal-context/trainval",
        "human_parts",
        "normals_distill",
        "sal_distill",
    )
    for name in names_of(count):
        _image(folders["JPEGImages"] / f"{name}.jpg", picture(random, PASCAL_SIZE))
        _image(folders["semseg/VOC12"] / f"{name}.png", classes(random, PASCAL_SIZE, 21))
        label_map = classes(random, PASCAL_SIZE, 200).astype(np.uint16) * 2
        savemat(folders["pascal-context/trainval"] / f"{name}.mat", {"LabelMap": label_map}, do_compression=True)
        _image(folders["normals_distill"] / f"{name}.png", _codes(vectors(random, PASCAL_SIZE)))
        _image(folders["sal_distill"] / f"{name}.png", (surface(random, PASCAL_SIZE) * 28).astype(np.uint8))
    _lists(folders["ImageSets/Context"], count)


def write_taskonomy(root: Path, count: int, random: np.random.Generator) -> None:
    """One building, as Taskonomy has it: 8- and 16-bit PNG."""
    for label in ("rgb", *LABELS):
        folder = _folders(root, f"{label}/allensville")[f"{label}/allensville"]
        for index in range(count):
            if label == "rgb" or LABELS[label] == ("RGB",):
                array = picture(random, TASKONOMY_SIZE)
            elif LABELS[label] == GREY16:
                array = (surface(random, TASKONOMY_SIZE) * 500).astype(np.uint16)
            else:
                array = classes(random, TASKONOMY_SIZE, 100)
            _image(folder / f"point_{index}_view_0_domain_{label}.png", array)
    lists = _folders(root, "splits_taskonomy")["splits_taskonomy"]
    rows = ["id,train,val,test", "allensville,1,0,0"]
    (lists / "train_val_test_tiny.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_mtan(root: Path, count: int, random: np.random.Generator, size: Size, kinds: int, *, normals: bool) -> None:
    """MTAN's arrays."""
    for split, samples in (("train", count), ("val", 1)):
        folders = _folders(root / split, "image", "label", "depth", *(["normal"] if normals else []))
        for index in range(samples):
            np.save(folders["image"] / f"{index}.npy", picture(random, size).astype(np.float32) / 255)
            np.save(folders["label"] / f"{index}.npy", classes(random, size, kinds).astype(np.float32))
            np.save(folders["depth"] / f"{index}.npy", surface(random, size)[..., None])
            if normals:
                np.save(folders["normal"] / f"{index}.npy", vectors(random, size))


def _codes(unit: np.ndarray) -> np.ndarray:
    return np.rint((unit + 1) / 2 * 255).astype(np.uint8)


def _folders(root: Path, *names: str) -> dict[str, Path]:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    return {name: root / name for name in names}


def _image(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def _lists(folder: Path, count: int) -> None:
    (folder / "train.txt").write_text("\n".join(names_of(count)) + "\n", encoding="utf-8")
    (folder / "val.txt").write_text("2009_000001\n", encoding="utf-8")
