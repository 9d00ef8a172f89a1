"""Folders of Taskonomy as people have them, a dozen images each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.taskonomy.layout import GREY16, LABELS

SIDE = 64
BUILDINGS = {"allensville": ("train", 4), "beechwood": ("train", 2), "collierville": ("val", 2), "ihlen": ("test", 4)}
"""Building to its split and number of images."""

HOLE = np.s_[:16, :16]
"""Where the fixture's meshes have a hole."""


def codes(label: str, random: np.random.Generator) -> np.ndarray:
    """One label as its PNG holds it, with a hole of the mesh in its corner."""
    if LABELS[label] == GREY16:
        top = 4096 if label.startswith("depth") else 600
        out = random.integers(500 if label.startswith("depth") else 0, top, (SIDE, SIDE)).astype(np.uint16)
        if label.startswith("depth"):
            out[HOLE] = 65535
        return out
    if label.startswith("segment"):
        return random.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    out = random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    if label == "reshading":
        out[..., 1:] = out[..., :1]
    if label == "normal":
        out[HOLE] = 128
    return out


def csv_text(buildings: dict[str, str]) -> str:
    """The list of buildings, as published."""
    rows = [
        f"{name},{','.join(str(int(of == split)) for split in ('train', 'val', 'test'))}"
        for name, of in buildings.items()
    ]
    return "\n".join(["id,train,val,test", *rows]) + "\n"


def write(root: Path, layout: str = "mod_squad", subset: str = "tiny") -> Path:
    """Write a folder in one of the layouts; returns it."""
    below = "taskonomy" if layout == "mod_squad" else ""
    random = np.random.default_rng(0)
    folders = ["rgb", *LABELS, *(["mask"] if layout == "taskgrouping" else [])]
    for building, (_, count) in BUILDINGS.items():
        for folder in folders:
            (root / folder / below / building).mkdir(parents=True)
        for index in range(count):
            # Text order is not numerical order here: point 10 comes before point 2.
            view = f"point_{(2, 10, 3, 0)[index]}_view_{index}"
            for folder in folders:
                if folder == "rgb":
                    array = random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
                elif folder == "mask":
                    array = np.full((SIDE, SIDE), 255, dtype=np.uint8)
                    array[HOLE] = 0
                else:
                    array = codes(folder, random)
                Image.fromarray(array).save(root / folder / below / building / f"{view}_domain_{folder}.png")
    lists = root / "splits_taskonomy"
    lists.mkdir()
    (lists / f"train_val_test_{subset}.csv").write_text(csv_text({b: split for b, (split, _) in BUILDINGS.items()}))
    return root
