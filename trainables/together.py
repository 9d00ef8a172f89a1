"""Several processes that train one trial: each takes a share of every batch, and all hold the same network.

Not ``DistributedDataParallel``: its hooks see a gradient on its way into ``.grad`` alone, and most methods here ask for
one gradient per task without it, or make several backward passes in an iteration. So gradients are reduced where a
method takes them (:meth:`trainables.methods.Update.average`), by one code for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from trainables.errors import ConfigError

Value = TypeVar("Value")

BUCKET_BYTES = 32 * 2**20
"""Tensors smaller than this are reduced as parts of one of about this size: every reduction has its own latency."""
PATIENCE = 1800.0
"""Seconds that a process waits for the others: the slowest may have a kernel to compile, or data to decode."""


@dataclass(frozen=True)
class Together:
    """The processes of one trial, seen from one of them. Everything here but the attributes is collective: all of them
    call it, in the same order. Alone, nothing is communicated and values are handed back as they are.

    Attributes:
        rank: of this process; 0 decides for all.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Together:
        """Those that this process has met, or it alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self.size == 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place."""
        if self.alone:
            return
        for bucket in _buckets(tensors):
            if len(bucket) == 1 and bucket[0].is_contiguous():
                dist.all_reduce(bucket[0])
                bucket[0].div_(self.size)
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            flat.div_(self.size)
            parts = flat.split([tensor.numel() for tensor in bucket])
            torch._foreach_copy_(list(bucket), [part.view(t.shape) for part, t in zip(parts, bucket, strict=True)])

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, as a new tensor."""
        if self.alone:
            return tensor
        out = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(out)
        return out

    def counts(self, number: int) -> list[int]:
        """Every process's ``number``, by rank."""
        if self.alone:
            return [number]
        numbers = torch.zeros(self.size, dtype=torch.int64)
        numbers[self.rank] = number
        dist.all_reduce(numbers)
        return [int(value) for value in numbers.tolist()]

    def decided(self, value: Value) -> Value:
        """What the first process says, whatever the others would."""
        if self.alone:
            return value
        said = [value if self.rank == 0 else None]
        dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        return said[0]  # type: ignore[return-value]

    def agreed(self, flag: bool) -> bool:
        """As :meth:`decided`, of a yes or no, at a fraction of its time."""
        if self.alone:
            return flag
        said = torch.tensor([int(flag)])
        dist.broadcast(said, src=0)
        return bool(said.item())

    def gathered(self, value: Value) -> list[Value]:
        """Every process's ``value``, by rank; tensors in it are on the CPU."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def part(self, count: int) -> slice:
        """This process's share of ``count`` things in a row."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)


def check_shares(together: Together, batch: int, network: nn.Module) -> None:
    """Raise :class:`ConfigError` where a batch has no sample for one of the processes, or the network looks at more
    than one sample at a time."""
    if together.alone:
        return
    if batch < together.size:
        raise ConfigError(f"train.batch_size: {together.size} processes share a batch of {batch}; each needs a sample")
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"model.backbone: its layer {name} normalises over the batch; it trains in one process only"
            )


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, small neighbours of one kind together."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        fits = not bucket or (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not fits or size + tensor.nbytes > BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


# ---- losses of a batch that is shared out ------------------------------------------------------------


class Share:
    """This process's share of one batch.

    Args:
        together: the processes.
        samples: in this share.
    """

    def __init__(self, together: Together, samples: int) -> None:
        self._together = together
        counts = together.counts(samples)
        self.first = sum(counts[: together.rank])
        """Samples of the batch before this share."""
        self.samples = samples
        self.total = sum(counts)
        """Samples of the batch."""
        self._pooled = False

    def loss(self, loss_of: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor) -> Tensor:
        """What the share adds to a loss of the whole batch: over all processes it sums up to that loss.

        A loss that divides by :func:`whole` adds its part of the sum. Any other is taken for a mean over all there is
        in the batch, and weighted by the share's samples.
        """
        if self._together.alone:
            return loss_of(prediction, target)
        self._pooled = False
        token = _SHARE.set(self)
        try:
            loss = loss_of(prediction, target)
        finally:
            _SHARE.reset(token)
        if self._pooled:
            return loss
        return loss * (self.samples / self.total) if self.samples else prediction.sum() * 0

    def whole(self, losses: Sequence[Tensor]) -> list[Tensor]:
        """The losses of the whole batch, the same bits in every process.

        Their gradient is that of this process's part times the number of processes: averaged over the processes it is
        that of the whole.
        """
        if self._together.alone:
            return list(losses)
        totals = self._together.total(torch.stack([loss.detach() for loss in losses]))
        size = self._together.size
        return [_Whole.apply(loss, total, size) for loss, total in zip(losses, totals.unbind(), strict=True)]

    def count(self, count: Tensor) -> Tensor:
        """Over the batch."""
        self._pooled = True
        return self._together.total(count)


_SHARE: ContextVar[Share | None] = ContextVar("share", default=None)


def shared_out() -> bool:
    """Whether a loss is being computed of a share of a batch, not of the batch."""
    return _SHARE.get() is not None


def whole(count: Tensor) -> Tensor:
    """A count in this process's share of the batch, made one of the whole batch. Losses divide by it.

    ``count`` depends on the targets alone; any shape. Where one process has the whole batch, it is handed back.
    """
    share = _SHARE.get()
    return count if share is None else share.count(count)


class _Whole(torch.autograd.Function):
    """The value of the whole, the gradient of this process's part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, total: Tensor, size: int) -> Tensor:
        ctx.size = size
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.size, None, None


# ---- meeting -----------------------------------------------------------------------------------------


def join(store: dist.Store, rank: int, size: int, device: str, patience: float = PATIENCE) -> Together:
    """Meet the others of a trial, until :func:`part`.

    Tensors on a GPU go over NCCL, those on the CPU, decisions among them, over gloo.

    Args:
        store: that all of them reach.
        rank: of this process.
        size: number of processes.
        device: ``cpu`` or ``cuda``.
        patience: seconds that one waits for the others.
    """
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=patience))
    return Together(rank, size)


def part() -> None:
    """Leave the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def parted(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached, whatever is the matter with it."""
    # gloo's errors have no type of their own; each names the source file that it is from.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
