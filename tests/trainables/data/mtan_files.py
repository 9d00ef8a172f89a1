"""Folders of MTAN's NYUv2 and Cityscapes as people have them, a dozen samples each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

COUNTS = {"train": 8, "val": 4}


def sample(shape: tuple[int, int], classes: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of one sample, as the ``.npy`` files hold them."""
    height, width = shape
    label = random.integers(-1, classes, shape).astype(np.float32)
    depth = random.uniform(0.5, 9.0, (height, width, 1)).astype(np.float32)
    depth[:4] = 0
    normal = random.normal(size=(height, width, 3))
    normal = (normal / np.linalg.norm(normal, axis=-1, keepdims=True)).astype(np.float32)
    normal[:4] = 0
    image = random.uniform(0, 1, (height, width, 3)).astype(np.float32)
    return {"image": image, "label": label, "depth": depth, "normal": normal}


def write_npy(root: Path, shape: tuple[int, int], classes: int, *, label: str = "label", normals: bool = True) -> Path:
    """``{train,val}/{image,label,depth,normal}/I.npy``."""
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for index in range(count):
            for name, array in sample(shape, classes, random).items():
                if name != "normal" or normals:
                    folder = root / split / (label if name == "label" else name)
                    folder.mkdir(parents=True, exist_ok=True)
                    np.save(folder / f"{index}.npy", array)
    return root


def write_parquet(root: Path, shape: tuple[int, int], classes: int, *, parts: int = 2) -> Path:
    """``data/{train,val}-0000I-of-0000N-HASH.parquet``, the same samples as :func:`write_npy`, channels first."""
    random = np.random.default_rng(0)
    (root / "data").mkdir(parents=True)
    for split, count in COUNTS.items():
        samples = [sample(shape, classes, random) for _ in range(count)]
        columns = {
            "image": [s["image"].transpose(2, 0, 1).tolist() for s in samples],
            "segmentation": [s["label"].astype(np.int64).tolist() for s in samples],
            "depth": [s["depth"].transpose(2, 0, 1).tolist() for s in samples],
            "normal": [s["normal"].transpose(2, 0, 1).tolist() for s in samples],
        }
        number = {"image": 3, "segmentation": 2, "depth": 3, "normal": 3}
        for part in range(parts):
            here = slice(part * count // parts, (part + 1) * count // parts)
            arrays = {}
            for name, values in columns.items():
                kind: pa.DataType = pa.int64() if name == "segmentation" else pa.float32()
                for _ in range(number[name]):
                    kind = pa.list_(kind)
                arrays[name] = pa.array(values[here], kind)
            name = f"{split}-{part:05d}-of-{parts:05d}-0f1e2d3c4b5a6978.parquet"
            parquet.write_table(pa.table(arrays), root / "data" / name, row_group_size=3)
    return root
