"""Data sets that are built: their splits are arrays in a store, by the config's fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data import store
from trainables.data.base import DataConfig, DataSet, Progress, Split


class StoredDataSet(DataSet):
    """Base of the data sets that :mod:`trainables.data.store` keeps. A subclass defines :meth:`arrays`,
    :meth:`parameters`, :meth:`produce` and :meth:`split`."""

    @classmethod
    def arrays(cls, config: Any) -> Mapping[str, store.ArraySpec]:
        """What is stored of each sample, by name."""
        raise NotImplementedError

    @classmethod
    def parameters(cls, config: Any) -> dict[str, Any]:
        """What decides the bits, readable, for the manifest."""
        raise NotImplementedError

    @classmethod
    def produce(cls, config: Any, workers: int, progress: Progress | None) -> store.Samples:
        """Every sample of every split, in order; the same bits for any number of ``workers``."""
        raise NotImplementedError

    @classmethod
    def split(cls, stored: Mapping[str, np.ndarray]) -> Split:
        """A split from its arrays, mapped into memory."""
        raise NotImplementedError

    @classmethod
    def key(cls, config: DataConfig) -> store.Key:
        """What decides the stored data set."""
        own = cls._own(config)
        return store.Key(
            name=own.name,
            fingerprint=cls.fingerprint(own),
            parameters=cls.parameters(own),
            samples=cls.sizes(own),
            arrays=cls.arrays(own),
        )

    @classmethod
    def prepare(cls, config: DataConfig, root: Path, *, workers: int = 1, progress: Progress | None = None) -> None:
        """Build the data set below ``root`` where it is not there yet.

        Raises:
            DataError: what it is made of is not there, ``root`` cannot be written, the disk is full, or what is there
                is damaged.
        """
        own = cls._own(config)
        store.prepare(cls.key(own), root, lambda: cls.produce(own, workers, progress))

    @classmethod
    def bring(cls, config: DataConfig, root: Path, source: Path) -> None:
        """Copy it from below ``source``, or build it where ``source`` has none; see :meth:`DataSet.bring`."""
        if not store.copy(cls.key(config), source, root):
            cls.prepare(config, root)

    @classmethod
    def open(cls, config: DataConfig, root: Path, split: str) -> Split:
        """Open a prepared split read-only; its checksums are verified once in each process.

        Raises:
            DataError: it is missing or damaged, or there is no such split.
        """
        return cls.split(store.open_split(cls.key(config), root, split))

    @classmethod
    def _own(cls, config: DataConfig) -> Any:
        if not isinstance(config, cls.Config):
            raise TypeError(f"a {cls.Config.__name__} is wanted, got {type(config).__name__}")
        return config
