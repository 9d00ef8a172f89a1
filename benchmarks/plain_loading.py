"""The same samples in the plain way: file after file with Pillow, then torchvision's transforms on whole pictures.

What is drawn at random has the same ranges as in the data sets' own loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat
from torch import Tensor
from torch.nn import functional as F

from benchmarks.data_files import Size, names_of
from trainables.data.encodings import IMAGENET_MEAN, IMAGENET_STD
from trainables.data.pascal_context import CLASSES_WITH_NORMALS
from trainables.data.taskonomy.layout import GREY16, LABELS
from trainables.data.taskonomy.normalisation import NORMALISATIONS
from trainables.models.torchvision_shim import ensure_importable

ensure_importable()
from torchvision.transforms import ColorJitter, InterpolationMode  # noqa: E402
from torchvision.transforms import functional as TF  # noqa: E402

Sample = tuple[Tensor, dict[str, Tensor]]
Load = Callable[[int, np.random.Generator], Sample]
"""(position, random numbers) -> image (3, H, W) and labels."""

_JITTER = ColorJitter(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.1)
_MTAN_SCALES = (1.0, 1.2, 1.5)


def batch(load: Load, indices: Sequence[int], random: np.random.Generator) -> Sample:
    """The samples, stacked."""
    samples = [load(int(index), random) for index in indices]
    labels = {name: torch.stack([sample[1][name] for sample in samples]) for name in samples[0][1]}
    return torch.stack([image for image, _ in samples]), labels


def nyud(root: Path, count: int, target: Size) -> Load:
    """NYUD-v2 in InvPT's layout."""
    names = names_of(count)

    def load(index: int, random: np.random.Generator) -> Sample:
        name = names[index]
        depth = Image.fromarray(np.load(root / "depth" / f"{name}.npy"))
        files = {label: root / folder / f"{name}.png" for label, folder in _NYUD.items()}
        pictures = {label: Image.open(path) for label, path in files.items()} | {"depth": depth}
        image, parts, scale = _augmented(Image.open(root / "images" / f"{name}.png"), pictures, target, random)
        semseg = parts["semseg"].astype(np.int64) - 1
        semseg[semseg == -1] = 255
        edge = parts["edge"].astype(np.float32)
        return image, {
            "semseg": torch.from_numpy(semseg),
            "depth": torch.from_numpy(parts["depth"] / np.float32(scale)).unsqueeze(0),
            "normal": _unit(parts["normal"]),
            "edge": torch.from_numpy(np.where(edge == 254, 255, edge > 0).astype(np.float32)).unsqueeze(0),
        }

    return load


_NYUD = {"semseg": "segmentation", "normal": "normals", "edge": "edge"}


def pascal(root: Path, count: int, target: Size) -> Load:
    """PASCAL-Context in InvPT's layout: classes, saliency and normals."""
    names = names_of(count)

    def load(index: int, random: np.random.Generator) -> Sample:
        name = names[index]
        label_map = loadmat(str(root / f"pascal-context/trainval/{name}.mat"))["LabelMap"]
        valid = np.isin(label_map, CLASSES_WITH_NORMALS).astype(np.uint8)
        pictures = {
            "semseg": Image.open(root / f"semseg/VOC12/{name}.png"),
            "saliency": Image.open(root / f"sal_distill/{name}.png"),
            "normal": Image.open(root / f"normals_distill/{name}.png"),
            "valid": Image.fromarray(valid),
        }
        image, parts, _ = _augmented(Image.open(root / f"JPEGImages/{name}.jpg"), pictures, target, random)
        return image, {
            "semseg": torch.from_numpy(parts["semseg"].astype(np.int64)),
            "saliency": torch.from_numpy((parts["saliency"] > 127).astype(np.int64)),
            "normal": _unit(parts["normal"]) * torch.from_numpy(parts["valid"] == 1),
        }

    return load


def taskonomy(root: Path, count: int, size: int) -> Load:
    """Taskonomy: every file resized, codes to labels as Mod-Squad has them."""
    normalise = NORMALISATIONS["mod_squad"]

    def read(label: str, index: int) -> Image.Image:
        picture: Image.Image = Image.open(root / label / "allensville" / f"point_{index}_view_0_domain_{label}.png")
        return picture

    def load(index: int, random: np.random.Generator) -> Sample:
        image = TF.resize(read("rgb", index).convert("RGB"), [size, size])
        out = {}
        for label, modes in LABELS.items():
            picture = read(label, index)
            if modes == GREY16:
                picture = Image.fromarray(np.asarray(picture).astype(np.float32))
            out[label] = normalise[label](np.asarray(TF.resize(picture, [size, size])).astype(np.float32))
        return TF.normalize(TF.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD), out

    return load


def mtan(root: Path, count: int, size: Size, *, normals: bool) -> Load:
    """MTAN's arrays, scaled by 1, 1.2 or 1.5 and mirrored."""
    folders = {"image": "image", "semseg": "label", "depth": "depth"} | ({"normal": "normal"} if normals else {})

    def load(index: int, random: np.random.Generator) -> Sample:
        sample = {}
        for name, folder in folders.items():
            array = np.load(root / "train" / folder / f"{index}.npy")
            sample[name] = torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)).float()
        scale = _MTAN_SCALES[int(random.integers(3))]
        height, width = int(size[0] / scale), int(size[1] / scale)
        top = int(random.integers(size[0] - height, endpoint=True))
        left = int(random.integers(size[1] - width, endpoint=True))
        mirrored = random.random() < 0.5
        for name, tensor in sample.items():
            how = InterpolationMode.BILINEAR if name in ("image", "normal") else InterpolationMode.NEAREST
            grown = TF.resized_crop(tensor, top, left, height, width, list(size), how, antialias=False)
            sample[name] = TF.hflip(grown) if mirrored else grown
        sample["depth"] = sample["depth"] / scale
        if mirrored and normals:
            sample["normal"][0] *= -1
        image = TF.normalize(sample.pop("image"), IMAGENET_MEAN, IMAGENET_STD)
        sample["semseg"] = sample["semseg"][0].long()
        return image, sample

    return load


def scenes(root: Path, count: int, labels: Sequence[str]) -> Load:
    """Scenes written out: the image as PNG, every label as an array."""

    def load(index: int, random: np.random.Generator) -> Sample:
        image = TF.to_tensor(Image.open(root / f"{index}.png"))
        out = {label: torch.from_numpy(np.load(root / f"{index}-{label}.npy")) for label in labels}
        return TF.normalize(image, IMAGENET_MEAN, IMAGENET_STD), out

    return load


def _augmented(
    image: Image.Image, labels: dict[str, Image.Image], target: Size, random: np.random.Generator
) -> tuple[Tensor, dict[str, np.ndarray], float]:
    """Scale, crop, flip, distort, pad; the image as a tensor, the labels as arrays, and the factor."""
    scale = float(random.uniform(0.5, 2.0))
    size = [max(1, int(side * scale)) for side in (image.height, image.width)]
    image = TF.resize(image.convert("RGB"), size)
    grown = {name: TF.resize(label, size, InterpolationMode.NEAREST) for name, label in labels.items()}
    height, width = min(size[0], target[0]), min(size[1], target[1])
    for _ in range(10):
        top, left = int(random.integers(size[0] - height + 1)), int(random.integers(size[1] - width + 1))
        part = np.asarray(TF.crop(grown["semseg"], top, left, height, width))
        _, counts = np.unique(part[part != 255], return_counts=True)
        if len(counts) > 1 and counts.max() < 0.75 * counts.sum():
            break
    mirrored = random.random() < 0.5
    missing = (target[0] - height, target[1] - width)
    sides = [missing[1] // 2, missing[0] // 2, missing[1] - missing[1] // 2, missing[0] - missing[0] // 2]

    def placed(picture: Image.Image, fill: Any) -> Image.Image:
        picture = TF.crop(picture, top, left, height, width)
        return TF.pad(TF.hflip(picture) if mirrored else picture, sides, fill)

    cropped = _JITTER(TF.crop(image, top, left, height, width))
    whole = TF.pad(TF.hflip(cropped) if mirrored else cropped, sides, 0)
    arrays = {name: np.array(placed(label, 0 if name in ("depth", "normal") else 255)) for name, label in grown.items()}
    if mirrored:
        arrays["normal"][..., 0] = 255 - arrays["normal"][..., 0]
    return TF.normalize(TF.to_tensor(whole), IMAGENET_MEAN, IMAGENET_STD), arrays, scale


def _unit(codes: np.ndarray) -> Tensor:
    """(3, H, W) unit vectors of stored bytes."""
    return F.normalize(torch.from_numpy(codes.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1, dim=0)
