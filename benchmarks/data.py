"""Samples per second and core of every data set, beside plain loops: ``python -m benchmarks.data --help``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks import data_files, plain_loading
from benchmarks.machine import machine
from trainables.data import DATA_SETS
from trainables.data.base import Split
from trainables.data.loader import sample_seeds
from trainables.data.ondisk import FileSplit, decoded
from trainables.settings import component

COLUMNS = ("data set", "files", "input", "labels", "own", "cached", "plain", "own to plain", "min-max", "cached to own")


@dataclass(frozen=True)
class Contest:
    """A data set and its plain loop.

    Attributes:
        name: of the data set.
        files: what its files are.
        fields: of its config.
        labels: that are read; ``None`` for all.
        plain: the same samples in the plain way.
    """

    name: str
    files: str
    fields: dict[str, Any]
    labels: tuple[str, ...] | None
    plain: plain_loading.Load


@click.command(context_settings={"show_default": True})
@click.option("--count", default=24, help="samples of each data set")
@click.option("--batch", default=8, help="samples of a batch")
@click.option("--rounds", default=3, help="each round reads every sample of every data set in all ways")
@click.option("--only", default=None, help="names of data sets, with commas")
def main(count: int, batch: int, rounds: int, only: str | None) -> None:
    """Read generated files as a trial reads them in training, augmented, in one thread, and print samples per second of
    processor time: from the files, from the decoded cache, and by a plain loop over Pillow and torchvision."""
    torch.set_num_threads(1)
    click.echo(machine())
    click.echo(f"{count} samples, batches of {batch}, {rounds} rounds; one thread, processor time\n")
    click.echo(f"| {' | '.join(COLUMNS)} |\n|:---|:---|:---|{'---:|' * (len(COLUMNS) - 3)}")
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in CONTESTS.items():
            if only is None or name in only.split(","):
                root = Path(scratch) / name
                root.mkdir()
                click.echo(_line(make(root, count), root, count, batch, rounds))
    click.echo(f"\nload of the machine at the end: {os.getloadavg()[0]:.2f}")


def _line(contest: Contest, root: Path, count: int, batch: int, rounds: int) -> str:
    data_set = DATA_SETS[contest.name]
    config = component(DATA_SETS, {"name": contest.name, **contest.fields}, "data")
    labels = contest.labels or data_set.labels
    split = data_set.open(config, root, "train")
    ways: dict[str, Callable[[np.ndarray, int], object]] = {
        "own": _reader(split, labels),
        "plain": lambda indices, epoch: plain_loading.batch(
            contest.plain, indices.tolist(), np.random.default_rng(epoch)
        ),
    }
    if isinstance(split, FileSplit):
        cached = decoded(split, root / "cache", contest.name, "train", "benchmark")
        ways["cached"] = _reader(cached, labels)
    batches = np.array_split(np.arange(count), -(-count // batch))
    times: dict[str, list[float]] = {way: [] for way in ways}
    # In the first round libraries are loaded and files come from the disk.
    for epoch in range(rounds + 1):
        for way, read in ways.items():
            began = time.process_time()
            for indices in batches:
                read(indices, epoch)
            if epoch:
                times[way].append((time.process_time() - began) / count)
    ratios = [plain / own for plain, own in zip(times["plain"], times["own"], strict=True)]
    rates = {way: f"{1 / median(seconds):.1f}" for way, seconds in times.items()}
    gain = f"{median(times['own']) / median(times['cached']):.2f}" if "cached" in times else ""
    height, width = data_set.image_shape(config)
    cells = (
        contest.name,
        contest.files,
        f"{height}x{width}",
        str(len(labels)),
        rates["own"],
        rates.get("cached", ""),
        rates["plain"],
        f"{median(ratios):.2f}",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
        gain,
    )
    return f"| {' | '.join(cells)} |"


def _reader(split: Split, labels: Sequence[str]) -> Callable[[np.ndarray, int], object]:
    return lambda indices, epoch: split.batch(indices, labels, sample_seeds(0, epoch, indices))


def _nyud(root: Path, count: int) -> Contest:
    data_files.write_nyud(root, count, np.random.default_rng(0))
    fields = {"root": str(root), "val_fraction": 0.0}
    plain = plain_loading.nyud(root, count, (448, 576))
    return Contest("nyud", "PNG and npy, 425x560", fields, None, plain)


def _pascal(root: Path, count: int) -> Contest:
    data_files.write_pascal(root, count, np.random.default_rng(0))
    fields = {"root": str(root), "val_fraction": 0.0}
    plain = plain_loading.pascal(root, count, (512, 512))
    labels = ("semseg", "saliency", "normal")
    return Contest("pascal_context", "JPEG, PNG and mat, 375x500", fields, labels, plain)


def _taskonomy(root: Path, count: int) -> Contest:
    data_files.write_taskonomy(root, count, np.random.default_rng(0))
    plain = plain_loading.taskonomy(root, count, 256)
    return Contest("taskonomy", "PNG of 8 and 16 bits, 512x512", {"root": str(root)}, None, plain)


def _nyuv2(root: Path, count: int) -> Contest:
    data_files.write_mtan(root, count, np.random.default_rng(0), (288, 384), 13, normals=True)
    fields = {"root": str(root), "val_fraction": 0.0, "augment": True}
    return Contest(
        "nyuv2_mtan", "npy, 288x384", fields, None, plain_loading.mtan(root, count, (288, 384), normals=True)
    )


def _cityscapes(root: Path, count: int) -> Contest:
    data_files.write_mtan(root, count, np.random.default_rng(0), (128, 256), 7, normals=False)
    fields = {"root": str(root), "val_fraction": 0.0, "augment": True}
    return Contest(
        "cityscapes_mtan", "npy, 128x256", fields, None, plain_loading.mtan(root, count, (128, 256), normals=False)
    )


def _scenes(root: Path, count: int) -> Contest:
    """The plain loop reads the same images from PNG, their labels from arrays."""
    fields = {"image_size": 128, "train": count, "val": 1, "test": 1}
    config = component(DATA_SETS, {"name": "scenes", **fields}, "data")
    data_set = DATA_SETS["scenes"]
    data_set.prepare(config, root)
    split = data_set.open(config, root, "train")
    written = root / "written"
    written.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(data_files.picture(random, (128, 128))).save(written / f"{index}.png")
        for label, value in split.batch(np.array([index]), data_set.labels)[1].items():
            np.save(written / f"{index}-{label}.npy", value[0].numpy())
    return Contest(
        "scenes", "memory-mapped, 128x128", fields, None, plain_loading.scenes(written, count, data_set.labels)
    )


CONTESTS: dict[str, Callable[[Path, int], Contest]] = {
    "nyud": _nyud,
    "pascal_context": _pascal,
    "taskonomy": _taskonomy,
    "nyuv2_mtan": _nyuv2,
    "cityscapes_mtan": _cityscapes,
    "scenes": _scenes,
}


if __name__ == "__main__":
    sys.exit(main())
