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
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from trainables.data import store
from trainables.data.base import SPLITS, DataConfig, Progress
from trainables.data.scenes import decode
from trainables.data.scenes.config import ScenesConfig
from trainables.data.scenes.furniture import NUM_PARTS, SEMSEG_CLASSES
from trainables.data.scenes.sample import arrays, make_sample
from trainables.data.stored import StoredDataSet
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


class Scenes(StoredDataSet):
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
        size = cls._own(config).image_size
        return size, size

    @classmethod
    def sizes(cls, config: DataConfig) -> dict[str, int]:
        """Number of samples by split."""
        own = cls._own(config)
        return {"train": own.train, "val": own.val, "test": own.test}

    @classmethod
    def arrays(cls, config: ScenesConfig) -> Mapping[str, store.ArraySpec]:
        """Codes of every label."""
        return arrays(config)

    @classmethod
    def parameters(cls, config: ScenesConfig) -> dict[str, Any]:
        """The config and the generator's version."""
        return {**config.to_dict(), "generator_version": GENERATOR_VERSION}

    @classmethod
    def produce(cls, config: ScenesConfig, workers: int, progress: Progress | None) -> store.Samples:
        """Every sample, split by split, in order."""
        return _produce(config, workers, progress)

    @classmethod
    def split(cls, stored: Mapping[str, np.ndarray]) -> ScenesSplit:
        """Decodes what is asked for."""
        return ScenesSplit(stored)


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
