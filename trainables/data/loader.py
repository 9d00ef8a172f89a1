"""Brings batches from disk in time: decoded by several threads, ahead of the iteration that wants them.

What a batch holds depends on its own order alone: neither on how many workers there are, nor on what was asked for
before.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trainables.data.base import Split
from trainables.seeding import derive
from trainables.settings import Settings

Batch = tuple[Tensor, dict[str, Tensor]]
"""Images and labels by name, as :meth:`trainables.data.base.Split.batch` gives them."""

MOST_WORKERS = 8
"""Threads that are started unless a number is given."""


class LoadingConfig(Settings):
    """How samples are brought from disk. Changes no result, so it is no part of the trial key."""

    workers: int | None = Field(default=None, ge=0, le=256)
    """Threads that decode samples; 0 decodes between the iterations. ``null``: for data that is decoded from
    files, one for each core that is the trial's share of its machine, at most 8; 0 for data that only has to be copied
    from memory."""
    prefetch: int = Field(default=2, ge=1, le=64)
    """Batches decoded ahead."""
    cache: bool = False
    """Keep every sample decoded, as arrays in the home that all trials of a node map into memory. The first trial
    makes them; they take many times the disk space of the compressed files."""


@dataclass(frozen=True)
class Order:
    """Which samples one batch has.

    Attributes:
        indices: (B,) int.
        seeds: (B,) uint64 of the augmentation, or ``None``.
    """

    indices: np.ndarray
    seeds: np.ndarray | None = None


def sample_seeds(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """(B,) uint64 seeds of the samples' augmentation, a function of seed, epoch and index alone.

    The index is spread over 64 bits by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), which is one to one:
    no two samples of an epoch share a seed.
    """
    mixed = indices.astype(np.uint64) + np.uint64(derive(seed, "augment", epoch))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result


class Loader:
    """The batches of one split.

    Args:
        split: the data.
        labels: which labels every batch has.
        order: what batch number ``i`` holds, or ``None`` past the last one.
        workers: threads; 0 for none.
        prefetch: batches decoded ahead, with threads.
    """

    def __init__(
        self,
        split: Split,
        labels: Sequence[str],
        order: Callable[[int], Order | None],
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        self._split, self._labels, self._order = split, tuple(labels), order
        self._prefetch = prefetch
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode") if workers else None
        self._ahead: OrderedDict[int, list[Future[Batch]]] = OrderedDict()

    def __getitem__(self, number: int) -> Batch:
        """Batch ``number``, counted from 0; those after it are then decoded in the background.

        Raises:
            IndexError: it is past the last one.
            DataError: a file is missing or damaged.
        """
        if self._pool is None:
            order = self._order(number)
            if order is None:
                raise IndexError(number)
            return self._split.batch(order.indices, self._labels, order.seeds)
        # What was decoded ahead of another place is of no use now.
        for other in [other for other in self._ahead if not number <= other <= number + self._prefetch]:
            for future in self._ahead.pop(other):
                future.cancel()
        for wanted in range(number, number + self._prefetch + 1):
            order = self._order(wanted) if wanted not in self._ahead else None
            if order is not None:
                self._ahead[wanted] = self._submit(self._pool, order)
        if number not in self._ahead:
            raise IndexError(number)
        return join([future.result() for future in self._ahead.pop(number)])

    def __iter__(self) -> Iterator[Batch]:
        """Every batch from the first to the last."""
        number = 0
        while True:
            try:
                batch = self[number]
            except IndexError:
                return
            yield batch
            number += 1

    def close(self) -> None:
        """Stop decoding; the loader is not used afterwards."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, order: Order) -> list[Future[Batch]]:
        def one(position: int) -> Batch:
            here = slice(position, position + 1)
            seeds = None if order.seeds is None else order.seeds[here]
            return self._split.batch(order.indices[here], self._labels, seeds)

        return [pool.submit(one, position) for position in range(len(order.indices))]


def join(parts: Sequence[Batch]) -> Batch:
    """Batches one after the other as one; empty ones vanish."""
    full = [part for part in parts if len(part[0])] or list(parts[:1])
    if len(full) == 1:
        return full[0]
    return (
        torch.cat([images for images, _ in full]),
        {label: torch.cat([labels[label] for _, labels in full]) for label in full[0][1]},
    )


def workers_for(config: LoadingConfig, *, decodes: bool, cores: int | None = None) -> int:
    """The number of threads a config asks for.

    Args:
        config: of the loading.
        decodes: whether the data set's samples are decoded from files.
        cores: that the trial may use; ``None`` for all of this machine.
    """
    if config.workers is not None:
        return config.workers
    return min(cores or usable_cores(), MOST_WORKERS) if decodes else 0


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


__all__ = ["Batch", "Loader", "LoadingConfig", "Order", "join", "sample_seeds", "usable_cores", "workers_for"]
