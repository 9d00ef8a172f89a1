"""The data set ``scenes``: builds, finds and opens its stored splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from trainables.data import store
from trainables.data.base import SPLITS, DataConfig, DataSet, Progress
from trainables.data.scenes import decode
from trainables.data.scenes.config import ScenesConfig
from trainables.data.scenes.furniture import NUM_PARTS, SEMSEG_CLASSES
from trainables.data.scenes.sample import arrays, make_sample
from trainables.errors import DataError, unknown

GENERATOR_VERSION = 1
"""Of the scenes and their labels. Raised by every change of the code, or of a default, that changes their bits."""


PIXELS_WORTH_A_WORKER = 64 * 64**2
"""Size of a build, in pixels of all its images, from which it is spread over processes."""


class ScenesSplit:
    """One split, memory-mapped and shared by the processes that open it."""

    def __init__(self, stored: Mapping[str, np.ndarray]) -> None:
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored["image"])

    def batch(
        self, indices: np.ndarray, labels: Sequence[str], seeds: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Samples by position.

        Args:
            indices: (B,) int.
            labels: which of :attr:`Scenes.labels` to decode.
            seeds: not used; nothing is augmented.

        Returns:
            Images (B, 3, S, S) float32 and labels: (B, C, S, S) float32, or (B, S, S) int64 of classes. Taskonomy's
            eleven are normalised as Mod-Squad does; ``depth`` is in metres with 0 for invalid, ``normal`` a unit
            vector or zero.

        Raises:
            DataError: there is no such label; the message names the nearest.
        """
        out = {}
        raw: dict[str, np.ndarray] = {}
        for label in labels:
            if label not in decode.DECODERS:
                raise DataError(f"data set 'scenes': {unknown('label', label, decode.DECODERS)}")
            source, decoder = decode.DECODERS[label]
            if source not in raw:
                raw[source] = self._stored[source][indices]
            out[label] = decoder(raw[source])
        return decode.image(self._stored["image"][indices]), out


class Scenes(DataSet):
    """Procedural rooms with the label sets of Taskonomy (11), NYUD-v2 (4) and PASCAL-Context (5)."""

    Config: ClassVar[type[DataConfig]] = ScenesConfig
    labels: ClassVar[tuple[str, ...]] = tuple(decode.DECODERS)
    SEMSEG_CLASSES: ClassVar[tuple[str, ...]] = SEMSEG_CLASSES
    """Names of the semantic classes, by index."""
    classes: ClassVar[Mapping[str, int]] = {"semseg": len(SEMSEG_CLASSES), "human_parts": NUM_PARTS, "saliency": 2}
    NUM_PARTS: ClassVar[int] = NUM_PARTS
    """Classes of ``human_parts``, background included."""

    @classmethod
    def fingerprint(cls, config: DataConfig) -> str:
        """Hex digest of the config and the generator's version."""
        text = json.dumps({"config": config.canonical(), "generator": GENERATOR_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def image_shape(cls, config: DataConfig) -> tuple[int, int]:
        """(H, W) of the images, in pixels."""
        size = _own(config).image_size
        return size, size

    @classmethod
    def sizes(cls, config: DataConfig) -> dict[str, int]:
        """Number of samples by split."""
        own = _own(config)
        return {"train": own.train, "val": own.val, "test": own.test}

    @classmethod
    def prepare(cls, config: DataConfig, root: Path, *, workers: int = 1, progress: Progress | None = None) -> None:
        """Build the data set below ``root`` where it is not there yet; the same bits for any number of ``workers``.

        Raises:
            DataError: ``root`` cannot be written, the disk is full, or what is there is damaged.
        """
        own = _own(config)
        store.prepare(_key(own), root, lambda: _produce(own, workers, progress))

    @classmethod
    def open(cls, config: DataConfig, root: Path, split: str) -> ScenesSplit:
        """Open a prepared split read-only; its checksums are verified once in each process.

        Raises:
            DataError: it is missing or damaged, or there is no such split.
        """
        return ScenesSplit(store.open_split(_key(_own(config)), root, split))


def _own(config: DataConfig) -> ScenesConfig:
    if not isinstance(config, ScenesConfig):
        raise TypeError(f"a ScenesConfig is wanted, got {type(config).__name__}")
    return config


def _key(config: ScenesConfig) -> store.Key:
    return store.Key(
        name="scenes",
        fingerprint=Scenes.fingerprint(config),
        parameters={**config.to_dict(), "generator_version": GENERATOR_VERSION},
        samples=Scenes.sizes(config),
        arrays=arrays(config),
    )


def _produce(config: ScenesConfig, workers: int, progress: Progress | None) -> store.Samples:
    """Every sample, split by split, in order."""
    sizes = Scenes.sizes(config)
    todo = [(split, index) for split in SPLITS for index in range(sizes[split])]
    make = partial(_make, config)
    # A worker takes seconds to start; a small build is through by then.
    alone = workers <= 1 or len(todo) * config.image_size**2 < PIXELS_WORTH_A_WORKER
    samples = (make(which) for which in todo) if alone else _in_parallel(make, todo, workers)
    with closing(samples):
        for done, ((split, _), sample) in enumerate(zip(todo, samples, strict=True), start=1):
            yield split, sample
            if progress is not None:
                progress(done, len(todo))


def _in_parallel(
    make: partial[dict[str, np.ndarray]], todo: list[tuple[str, int]], workers: int
) -> Generator[dict[str, np.ndarray], None, None]:
    workers = min(workers, len(todo))
    # A fresh interpreter: a fork would copy the locks of torch's and Ray's threads in whatever state they are.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(make, todo, chunksize=max(1, min(8, len(todo) // (4 * workers))))
    except BrokenProcessPool:
        raise DataError(
            "data set 'scenes': a worker process of the build was killed, most often for want of memory; "
            "use fewer workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make(config: ScenesConfig, which: tuple[str, int]) -> dict[str, np.ndarray]:
    return make_sample(config, *which)
