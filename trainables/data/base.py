"""What a data set is: splits that give batches of images and labels by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from torch import Tensor

from trainables.errors import DataError
from trainables.settings import Settings

Progress = Callable[[int, int], None]
"""Called with (done, total) while something long is built."""

SPLITS = ("train", "val", "test")

InputKind = Literal["images", "molecules"]
"""What a data set gives and a backbone reads: images (B, 3, H, W), or molecules (B, N, F) of N atoms with F numbers
each, padded with zeros to the largest."""


class DataConfig(Settings):
    """The fields of a data set. ``name`` is what it is registered as."""

    name: str


class Split(Protocol):
    """One split, open for reading."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(
        self, indices: np.ndarray, labels: Sequence[str], seeds: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples by position. Each depends on its own index and seed alone, whatever else is in the batch.

        Args:
            indices: (B,) int, in the order wanted.
            labels: which labels to decode.
            seeds: (B,) uint64, of each sample's augmentation, for a training batch; ``None`` to evaluate, without any.
                A data set that augments nothing ignores them.

        Returns:
            Images (B, 3, H, W) float32, normalised by ImageNet's mean and standard deviation, and each label by name:
            dense float labels (B, C, H, W) float32, class labels (B, H, W) int64 with 255 for "ignore". Where damaged
            samples are to be skipped, a batch without ``seeds`` is shorter by them, down to none; one with ``seeds``
            is always full.

        Raises:
            DataError: there is no such label, or a file of a sample is missing or damaged; the message names it.
        """
        ...


@dataclass(frozen=True)
class LabelCount:
    """How much of a label one split has.

    Attributes:
        split: of the data set.
        label: name of the label, or ``image``.
        found: samples of which it could be read.
        listed: samples of the split, by its lists on disk.
        expected: samples of the split as published.
    """

    split: str
    label: str
    found: int
    listed: int
    expected: int

    @property
    def complete(self) -> bool:
        """Whether all that was published is listed and could be read."""
        return self.found == self.listed == self.expected


@dataclass(frozen=True)
class CheckResult:
    """What a data folder was found to hold.

    Attributes:
        name: of the data set.
        root: the folder.
        layout: which of the known layouts it has.
        counts: by split and label, in order.
        problems: the first damaged or missing files, one line each, with their paths relative to ``root``.
        damaged: how many there are in all.
    """

    name: str
    root: str
    layout: str
    counts: tuple[LabelCount, ...]
    problems: tuple[str, ...]
    damaged: int

    @property
    def complete(self) -> bool:
        """Whether every label of every published sample could be read."""
        return self.damaged == 0 and all(count.complete for count in self.counts)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "complete": self.complete}


class DataSet:
    """Base of the data sets: made from its config, built or found on disk, then opened split by split.

    A subclass names its config class as ``Config``.
    """

    Config: ClassVar[type[DataConfig]]
    result_version: ClassVar[int] = 1
    """Raised whenever the same config and files would give other bits; part of the trial key."""
    labels: ClassVar[tuple[str, ...]]
    """Every label it can give."""
    classes: ClassVar[Mapping[str, int]] = {}
    """Number of classes of each class label."""
    inputs: ClassVar[InputKind] = "images"
    """What :meth:`Split.batch` gives beside the labels."""
    decodes: ClassVar[bool] = False
    """Whether a batch is decoded from many files, which is worth workers of its own."""

    @classmethod
    def identity(cls, config: DataConfig) -> dict[str, Any]:
        """The fields that count in a trial key: where the data is kept does not."""
        return config.canonical()

    @classmethod
    def ignoring(cls, config: DataConfig) -> frozenset[str]:
        """Dense float labels that have 255 where a pixel does not count, in loss or metric."""
        return frozenset()

    @classmethod
    def needs(cls) -> tuple[str, str] | None:
        """What has to be brought before it can be used on this machine, and how; ``None`` where it is made of
        nothing, or all is here."""
        return None

    @classmethod
    def fingerprint(cls, config: DataConfig) -> str:
        """Hex digest of what decides the data's bits, known without building it. Part of every trial key."""
        raise NotImplementedError

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels; (atoms, numbers of an atom) of molecules."""
        raise NotImplementedError

    @classmethod
    def sizes(cls, config: DataConfig) -> dict[str, int]:
        """Number of samples by split."""
        raise NotImplementedError

    @classmethod
    def prepare(cls, config: DataConfig, root: Path, *, workers: int = 1, progress: Progress | None = None) -> None:
        """Build what is missing below ``root``; does nothing where it is complete. Safe to call from several processes.

        Raises:
            DataError: it cannot be built or found; the message names the file or folder.
        """
        raise NotImplementedError

    @classmethod
    def bring(cls, config: DataConfig, root: Path, source: Path) -> None:
        """Have it below ``root``, a folder of this node's own, too, when it is prepared below ``source``, which all
        nodes share. Safe to call from several processes.

        Raises:
            DataError: as :meth:`prepare`, or the one below ``source`` is damaged.
        """
        cls.prepare(config, root)

    @classmethod
    def open(cls, config: DataConfig, root: Path, split: str) -> Split:
        """Open a prepared split read-only.

        Raises:
            DataError: it is missing or damaged; the message names the file.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, config: DataConfig, on_progress: Progress | None = None, *, workers: int = 1) -> CheckResult:
        """Read every file of a data set that people bring themselves, in ``workers`` threads, and say what is there.

        Raises:
            DataError: the data set is not one of those, or its folder is not given, missing or of no known layout.
        """
        raise DataError(f"data set '{config.name}' is built on this machine; there is no folder of it to check")
