"""What a data set is: splits that give batches of images and labels by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from trainables.settings import Settings

Progress = Callable[[int, int], None]
"""Called with (done, total) while something long is built."""

SPLITS = ("train", "val", "test")


class DataConfig(Settings):
    """The fields of a data set. ``name`` is what it is registered as."""

    name: str


class Split(Protocol):
    """One split, open for reading."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(self, indices: np.ndarray, labels: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples by position.

        Args:
            indices: (B,) int, in the order wanted.
            labels: which labels to decode.

        Returns:
            Images (B, 3, H, W) float32, normalised by ImageNet's mean and standard deviation, and each label by name:
            dense float labels (B, C, H, W) float32, class labels (B, H, W) int64 with 255 for "ignore".
        """
        ...


class DataSet:
    """Base of the data sets: made from its config, built or found on disk, then opened split by split.

    A subclass names its config class as ``Config``.
    """

    Config: ClassVar[type[DataConfig]]
    labels: ClassVar[tuple[str, ...]]
    """Every label it can give."""
    classes: ClassVar[Mapping[str, int]] = {}
    """Number of classes of each class label."""

    @classmethod
    def fingerprint(cls, config: DataConfig) -> str:
        """Hex digest of what decides the data's bits, known without building it. Part of every trial key."""
        raise NotImplementedError

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels."""
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
    def open(cls, config: DataConfig, root: Path, split: str) -> Split:
        """Open a prepared split read-only.

        Raises:
            DataError: it is missing or damaged; the message names the file.
        """
        raise NotImplementedError
