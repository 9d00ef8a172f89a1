"""One split of a data set on disk: samples by name, loaded from files or a cache, augmented, made into tensors."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainables.errors import DataError, unknown

logger = logging.getLogger(__name__)

Raw = Mapping[str, np.ndarray]
"""A sample as its files have it: ``image`` and labels, each (H, W) or (H, W, C), in the files' own types."""
Load = Callable[[str, Sequence[str]], Raw]
"""(name of a sample, labels) -> what its files hold, the image included. Raises :class:`DataError`."""
Finish = Callable[[Raw, Sequence[str], int | None], tuple[Tensor, dict[str, Tensor]]]
"""(sample, labels, seed) -> image (3, H, W) and each label, (C, H, W) float32 or (H, W) int64; not augmented where the
seed is ``None``. A pure function."""


def hold_out(names: Sequence[str], fraction: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part the training samples: those kept, and those held out for validation, both in the order given.

    The ``round(fraction * N)`` samples (at least one, if ``fraction`` is not 0) whose names have the smallest hashes
    are held out: no order and no random number plays a part.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"val/{name}".encode()).digest())
    held = set(ranked[: held_out(len(names), fraction)])
    return tuple(n for n in names if n not in held), tuple(n for n in names if n in held)


def held_out(count: int, fraction: float) -> int:
    """How many of ``count`` training samples :func:`hold_out` takes."""
    return max(1, round(fraction * count)) if fraction > 0 else 0


class FileSplit:
    """One split.

    Args:
        names: of its samples, in order.
        labels: every label the data set can give.
        load: reads a sample's files.
        finish: makes tensors of what was read; all samples get the same shapes.
        on_bad: whether a sample that cannot be read stops everything or is left out.
        also: labels that ``finish`` wants for every training sample, whatever labels are asked for.
    """

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[str],
        load: Load,
        finish: Finish,
        on_bad: Literal["error", "skip"] = "error",
        also: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.labels = tuple(labels)
        self.load = load
        self.skipped: dict[str, str] = {}
        """Samples left out so far, and why."""
        self._finish = finish
        self._on_bad = on_bad
        self._also = tuple(also)

    def __len__(self) -> int:
        return len(self.names)

    def reading(self, load: Load) -> FileSplit:
        """The same split, its samples read by ``load``."""
        return FileSplit(self.names, self.labels, load, self._finish, self._on_bad, self._also)

    def batch(
        self, indices: np.ndarray, labels: Sequence[str], seeds: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples by position; see :meth:`trainables.data.base.Split.batch`.

        With ``on_bad: skip``, the place of a bad sample is taken by the next readable one where ``seeds`` are given,
        and left empty where they are not.

        Raises:
            DataError: there is no such label, a file is missing or damaged, or no sample can be read.
        """
        for label in labels:
            if label not in self.labels:
                raise DataError(unknown("label", label, self.labels))
        samples = []
        for position, index in enumerate(indices):
            seed = None if seeds is None else int(seeds[position])
            sample = self._sample(int(index), labels, seed)
            if sample is not None:
                samples.append(sample)
        if not samples:
            return torch.empty(0), {}
        images = torch.stack([image for image, _ in samples])
        return images, {label: torch.stack([given[label] for _, given in samples]) for label in labels}

    def _sample(self, index: int, labels: Sequence[str], seed: int | None) -> tuple[Tensor, dict[str, Tensor]] | None:
        read = labels if seed is None else [*labels, *(label for label in self._also if label not in labels)]
        for step in range(len(self.names)):
            name = self.names[(index + step) % len(self.names)]
            try:
                return self._finish(self.load(name, read), labels, seed)
            except DataError as error:
                if self._on_bad == "error":
                    raise
                if name not in self.skipped:
                    self.skipped[name] = str(error)
                    logger.warning("left out (%d so far): %s", len(self.skipped), error)
            if seed is None:
                return None
        raise DataError(
            f"not one of {len(self.names)} samples can be read; the first: {next(iter(self.skipped.values()))}"
        )
