"""What every metric is made of: sums over pixels that add up over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.errors import CheckpointError

PERCENT = 100.0
"""Fractions (IoU, F) are given as the papers print them, 0 to 100."""


class SumMetric:
    """Base of the metrics; its whole memory is one float64 tensor of sums.

    So batches may be split in any way, instances of several processes merge by addition, and a count is exact up to
    2**53. The sums stay on the device of the predictions: :meth:`update` does not wait for the device, :meth:`compute`
    does. A subclass defines :meth:`measure` and :meth:`value`; it may not keep anything else.

    Args:
        shape: of the sums.
    """

    spreads: ClassVar[bool] = False
    """Whether :meth:`measure` shares its work out over :attr:`executor`."""
    executor: Executor | None = None
    """Of processes; set by who evaluates, for as long as that takes. Changes no result and is no part of the state."""

    def __init__(self, *shape: int) -> None:
        self.sums = torch.zeros(shape, dtype=torch.float64)

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One batch's sums, of the metric's shape, float64, on any device. ``prediction`` is of at least float32."""
        raise NotImplementedError

    def value(self, sums: Tensor) -> float:
        """The metric from its sums on the CPU; NaN where no valid pixel is in them."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take in one batch: prediction (B, C, H, W) as the decoder gives it, target as the data set gives it.

        Raises:
            ValueError: the two do not fit together.
        """
        if prediction.ndim != 4:
            raise ValueError(f"a prediction (B, C, H, W) is wanted, got {tuple(prediction.shape)}")
        prediction = prediction.detach()
        if prediction.dtype in (torch.float16, torch.bfloat16):
            prediction = prediction.float()
        self._add(self.measure(prediction, target))

    def compute(self) -> float:
        """The value over everything taken in; NaN where nothing was."""
        return self.value(self.sums.cpu())

    def merge(self, other: SumMetric) -> None:
        """Take in what another instance of the same settings took in.

        Raises:
            TypeError: it is another metric.
            ValueError: it has other settings.
        """
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} cannot take in {type(other).__name__}")
        if other.sums.shape != self.sums.shape:
            raise ValueError(
                f"{type(self).__name__}: sums {tuple(other.sums.shape)} do not fit {tuple(self.sums.shape)}"
            )
        self._add(other.sums)

    def state_dict(self) -> dict[str, Any]:
        """The sums, on the CPU."""
        return {"sums": self.sums.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave.

        Raises:
            CheckpointError: it is of a metric with other settings.
        """
        sums = state.get("sums")
        if not isinstance(sums, Tensor) or sums.shape != self.sums.shape or sums.dtype != torch.float64:
            raise CheckpointError(f"{type(self).__name__}: the state is not of a metric with these settings")
        self.sums = sums.clone()

    def _add(self, more: Tensor) -> None:
        # The sums follow the device of what comes in, which is free but for the first batch.
        self.sums = self.sums.to(more.device) + more


def same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raise ``ValueError`` where the two would broadcast or not fit at all."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")


def class_labels(prediction: Tensor, target: Tensor, channels: int) -> None:
    """Raise ``ValueError`` unless prediction is (B, ``channels``, H, W) and target (B, H, W) of the same B, H and W."""
    wanted = (target.shape[0], channels, *target.shape[1:])
    if target.ndim != 3 or tuple(prediction.shape) != wanted:
        raise ValueError(
            f"prediction (B, {channels}, H, W) and target (B, H, W) are wanted, "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )


def sum_and_count(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """(2,) float64: the sum of ``values`` where ``valid`` (everywhere for ``None``), and how many these are."""
    if valid is None:
        total = values.sum(dtype=torch.float64)
        return torch.stack([total, torch.full_like(total, values.numel())])
    return torch.stack([(values * valid).sum(dtype=torch.float64), valid.sum(dtype=torch.float64)])


def histogram(index: Tensor, size: int) -> Tensor:
    """(``size``,) float64: how often each of 0 .. ``size`` - 1 stands in ``index`` (any shape, int64).

    Raises:
        ValueError: on the CPU, an index is out of range. On a GPU the kernel's own check fails the process.
    """
    index = index.flatten()
    if index.device.type == "cpu":
        counts = torch.bincount(index, minlength=size)
        if counts.numel() > size:
            raise ValueError(f"index {counts.numel() - 1} where at most {size - 1} is allowed")
        return counts.double()
    # bincount waits for the device to learn the largest index.
    counts = torch.zeros(size, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index)).double()


def ratio(sums: Tensor) -> float:
    """``sums[0] / sums[1]``; NaN for 0 / 0."""
    total, count = sums.tolist()
    return total / count if count else float("nan")
