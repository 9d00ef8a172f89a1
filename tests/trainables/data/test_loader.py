from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainables.data.loader import Loader, LoadingConfig, Order, join, sample_seeds, workers_for
from trainables.errors import DataError


class Numbers:
    """Samples that are their index, plus what their seed says; odd ones are bad where ``skip``."""

    def __init__(self, size: int = 100, *, skip: bool = False, broken: int | None = None) -> None:
        self.size, self.skip, self.broken = size, skip, broken
        self.asked: list[int] = []
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return self.size

    def batch(
        self, indices: np.ndarray, labels: Sequence[str], seeds: np.ndarray | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.asked += indices.tolist()
        self.threads.add(threading.get_ident())
        if self.broken in indices:
            raise DataError(f"sample {self.broken} is bad")
        if self.skip:
            indices = indices[indices % 2 == 0]
            if not len(indices):
                return torch.empty(0), {}
        images = torch.from_numpy(indices.astype(np.float32)).reshape(-1, 1)
        if seeds is not None:
            images = images + torch.from_numpy((seeds % np.uint64(97)).astype(np.float32)).reshape(-1, 1) * 1000
        return images, {label: images + position for position, label in enumerate(labels)}


def order(number: int) -> Order | None:
    if number >= 7:
        return None
    indices = np.random.default_rng(number).permutation(100)[:5]
    return Order(indices, sample_seeds(3, number, indices))


def everything(loader: Loader) -> list[Any]:
    return [(images.tolist(), {k: v.tolist() for k, v in labels.items()}) for images, labels in loader]


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (3, 1), (2, 4), (8, 20)])
def test_batches_do_not_depend_on_workers_nor_prefetching(workers: int, prefetch: int) -> None:
    expected = everything(Loader(Numbers(), ("a", "b"), order))
    assert len(expected) == 7
    loader = Loader(Numbers(), ("a", "b"), order, workers, prefetch)
    assert everything(loader) == expected
    loader.close()


def test_any_batch_can_be_asked_for_at_any_time() -> None:
    plain, loader = Loader(Numbers(), ("a",), order), Loader(Numbers(), ("a",), order, 2, 2)
    for number in (0, 1, 5, 2, 2, 6, 0):
        assert torch.equal(loader[number][0], plain[number][0])
    for each in (plain, loader):
        with pytest.raises(IndexError):
            each[7]
    loader.close()


def test_workers_decode_ahead_in_threads_of_their_own() -> None:
    numbers = Numbers()
    loader = Loader(numbers, (), order, 2, 2)
    loader[0]
    loader.close()
    assert threading.get_ident() not in numbers.threads
    wanted = [each for number in range(3) for each in _order(number).indices.tolist()]
    assert set(_order(0).indices) <= set(numbers.asked) <= set(wanted)
    alone = Numbers()
    Loader(alone, (), order)[0]
    assert alone.threads == {threading.get_ident()}
    assert alone.asked == _order(0).indices.tolist()


def _order(number: int) -> Order:
    found = order(number)
    assert found is not None
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_with_its_own_batch(workers: int) -> None:
    orders = [Order(np.array([0, 1])), Order(np.array([2, 3])), Order(np.array([4, 5]))]
    loader = Loader(Numbers(broken=3), (), lambda n: orders[n] if n < 3 else None, workers)
    assert loader[0][0].flatten().tolist() == [0, 1]
    with pytest.raises(DataError, match="sample 3 is bad"):
        loader[1]
    assert loader[2][0].flatten().tolist() == [4, 5]
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_left_out_make_a_batch_shorter(workers: int) -> None:
    orders = [Order(np.array([0, 1, 2])), Order(np.array([3, 5])), Order(np.array([7, 8]))]
    loader = Loader(Numbers(skip=True), ("a",), lambda n: orders[n] if n < 3 else None, workers)
    assert [images.flatten().tolist() for images, _ in loader] == [[0, 2], [], [8]]
    loader.close()


def test_joining_nothing_is_nothing() -> None:
    empty = (torch.empty(0), {})
    assert join([empty, empty]) is empty
    full = (torch.ones(2, 1), {"a": torch.zeros(2, 1)})
    assert join([empty, full, empty]) is full


def test_seeds_follow_from_seed_epoch_and_index_alone() -> None:
    indices = np.array([4, 0, 7])
    seeds = sample_seeds(1, 2, indices)
    assert seeds.dtype == np.uint64
    assert (sample_seeds(1, 2, indices[::-1]) == seeds[::-1]).all()
    assert sample_seeds(1, 2, np.array([7]))[0] == seeds[2]
    for other in (sample_seeds(2, 2, indices), sample_seeds(1, 3, indices)):
        assert not (other == seeds).any()


@given(st.integers(0, 2**31 - 1), st.integers(0, 1000))
def test_no_two_samples_of_an_epoch_share_a_seed(seed: int, epoch: int) -> None:
    seeds = sample_seeds(seed, epoch, np.arange(5000))
    assert len(np.unique(seeds)) == 5000
    # Every bit is set in about half of them: no generator starts in a poor state.
    bits = np.unpackbits(seeds.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert (np.abs(bits - 0.5) < 0.05).all()


def test_data_in_memory_is_loaded_without_threads_unless_asked_for() -> None:
    assert workers_for(LoadingConfig(), decodes=False) == 0
    assert 1 <= workers_for(LoadingConfig(), decodes=True) <= 8
    assert workers_for(LoadingConfig(workers=0), decodes=True) == 0
    assert [workers_for(LoadingConfig(), decodes=True, cores=cores) for cores in (1, 3, 64)] == [1, 3, 8]
    assert workers_for(LoadingConfig(), decodes=False, cores=4) == 0
    assert workers_for(LoadingConfig(workers=5), decodes=True, cores=2) == 5
    assert workers_for(LoadingConfig(workers=3), decodes=False) == 3
