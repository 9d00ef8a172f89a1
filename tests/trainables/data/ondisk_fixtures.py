"""Small data sets in the layouts the field has on disk, with contents that tests can compute again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

NYUD_TRAIN = tuple(f"{n:04d}" for n in range(1, 9))
NYUD_TEST = tuple(f"{n:04d}" for n in range(11, 15))
NYUD_SIZE = (40, 56)

PASCAL_TRAIN = tuple(f"2008_{n:06d}" for n in range(1, 9))
PASCAL_TEST = tuple(f"2009_{n:06d}" for n in range(1, 5))

PERSON_PARTS = ("head", "hair", "torso", "luarm", "rhand", "ruleg", "lfoot")


def save_png(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if mode == "P":
        image = Image.fromarray(array)
        image.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
    image.save(path)


def save_jpg(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=95)


def save_npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def save_mat(path: Path, **variables: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, do_compression=True)


def save_list(path: Path, names: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n", encoding="utf-8")


def nyud_sample(name: str, size: tuple[int, int] = NYUD_SIZE) -> dict[str, np.ndarray]:
    """One sample's labels in plain numbers: image, semseg 0..40, depth in metres, normal as unit vectors, edge 0/1."""
    rng = np.random.default_rng(int(name))
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    semseg = ((rows // 7 + columns // 9 + int(name)) % 41).astype(np.uint8)
    normal = rng.normal(size=(*size, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    depth = (1.0 + rows / 10 + columns / 20).astype(np.float32)
    depth[:3, :4] = 0.0
    normal_codes = np.rint((normal + 1) / 2 * 255).astype(np.uint8)
    normal_codes[:2, :5] = 128
    return {
        "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "semseg": semseg,
        "depth": depth,
        "normal": normal_codes,
        "edge": (np.diff(semseg.astype(int), axis=1, append=semseg[:, -1:]) != 0).astype(np.uint8),
    }


def write_nyud(root: Path, layout: str = "invpt", size: tuple[int, int] = NYUD_SIZE) -> None:
    save_list(root / "gt_sets/train.txt", NYUD_TRAIN)
    save_list(root / "gt_sets/val.txt", NYUD_TEST)
    for name in (*NYUD_TRAIN, *NYUD_TEST):
        sample = nyud_sample(name, size)
        floats = sample["normal"].astype(np.float32) / 127.5 - 1
        if layout == "invpt":
            save_png(root / f"images/{name}.png", sample["image"])
            save_png(root / f"segmentation/{name}.png", sample["semseg"])
            save_npy(root / f"depth/{name}.npy", sample["depth"])
            save_png(root / f"normals/{name}.png", sample["normal"])
            save_png(root / f"edge/{name}.png", sample["edge"] * np.uint8(255))
        elif layout == "mti_net":
            save_jpg(root / f"images/{name}.jpg", sample["image"])
            save_png(root / f"segmentation/{name}.png", sample["semseg"])
            save_npy(root / f"depth/{name}.npy", sample["depth"][..., None])
            save_npy(root / f"normals/{name}.npy", floats)
            save_npy(root / f"edge/{name}.npy", sample["edge"].astype(np.float32))
        else:
            save_jpg(root / f"images/{name}.jpg", sample["image"])
            save_mat(root / f"segmentation/{name}.mat", segmentation=sample["semseg"])
            save_mat(root / f"depth/{name}.mat", depth=sample["depth"])
            save_jpg(root / f"normals/{name}.jpg", sample["normal"])
            save_npy(root / f"edge/{name}.npy", sample["edge"])


def pascal_size(name: str) -> tuple[int, int]:
    return (48, 60) if int(name[-1]) % 2 else (60, 44)


def person(size: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """Parts of a person: each a row of pixels lower than the one before."""
    parts = []
    for index, part in enumerate(PERSON_PARTS):
        mask = np.zeros(size, dtype=np.uint8)
        mask[10 + 3 * index : 13 + 3 * index, 8:30] = 1
        parts.append((part, mask))
    return parts


def annotation(size: tuple[int, int], *, people: int, parts: bool = True) -> np.ndarray:
    """A PASCAL-Part annotation as MATLAB has it: a 1x1 struct with a 1xN struct of objects."""
    records = [("dog", 12, [("tail", np.ones(size, dtype=np.uint8))])]
    records += [("person", 15, person(size) if parts else [])] * people
    objects = np.zeros((1, len(records)), dtype=[(n, object) for n in ("class", "class_ind", "mask", "parts")])
    for index, (kind, number, given) in enumerate(records):
        stored: np.ndarray = np.zeros((0, 0))
        if given:
            stored = np.zeros((1, len(given)), dtype=[("part_name", object), ("mask", object)])
            for position, (part, mask) in enumerate(given):
                stored[0, position] = (part, mask)
        objects[0, index] = (kind, np.array([[number]], dtype=np.uint8), np.ones(size, dtype=np.uint8), stored)
    whole = np.zeros((1, 1), dtype=[("imname", object), ("objects", object)])
    whole[0, 0] = ("name", objects)
    return whole


def pascal_sample(name: str) -> dict[str, np.ndarray]:
    size = pascal_size(name)
    rng = np.random.default_rng(int(name[-6:]) + 100)
    rows, columns = np.mgrid[: size[0], : size[1]]
    normal = rng.normal(size=(*size, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    semseg = ((rows // 9 + columns // 11) % 21).astype(np.uint8)
    semseg[:2] = 255
    label_map = np.where(columns < size[1] // 2, 72, 360).astype(np.uint16)  # chair, sky
    label_map[size[0] // 2 :] = 440  # wall
    return {
        "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "semseg": semseg,
        "label_map": label_map,
        "normal": np.rint((normal + 1) / 2 * 255).astype(np.uint8),
        "saliency": rng.integers(0, 256, size, dtype=np.uint8),
    }


def write_pascal(root: Path) -> None:
    save_list(root / "ImageSets/Context/train.txt", PASCAL_TRAIN)
    save_list(root / "ImageSets/Context/val.txt", PASCAL_TEST)
    for name in (*PASCAL_TRAIN, *PASCAL_TEST):
        sample, size = pascal_sample(name), pascal_size(name)
        odd = int(name[-1]) % 2
        save_jpg(root / f"JPEGImages/{name}.jpg", sample["image"])
        save_png(root / f"semseg/{'VOC12' if odd else 'pascal-context'}/{name}.png", sample["semseg"], "P")
        save_mat(root / f"pascal-context/trainval/{name}.mat", LabelMap=sample["label_map"])
        save_mat(root / f"human_parts/{name}.mat", anno=annotation(size, people=odd))
        save_png(root / f"normals_distill/{name}.png", sample["normal"])
        save_png(root / f"sal_distill/{name}.png", sample["saliency"])
