"""GradDrop: in every coordinate the gradients of one sign, drawn by how much they weigh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trainables.kernels import check_compiles
from trainables.methods.base import Update
from trainables.methods.gramian import Array, GradientConfig, GradientMethod, Rows, SolverInfo
from trainables.methods.gramian.method import no_weights

_WIDE = 16384
"""Columns of the blocks that a fused kernel takes, and more: on a CPU those of a full block."""

Kernel = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers as wide as a float of so many bytes."""


class GradDropConfig(GradientConfig):
    """The fields of ``graddrop``."""

    name: Literal["graddrop"] = "graddrop"
    decoder_grads: Literal["plain"] = "plain"
    """The method has no weights that decoders could get."""
    leak: float = Field(default=0.0, ge=0, le=1)
    """Share of every gradient that is passed on whatever was drawn. LibMTL, TorchJD: 0."""
    measure_every: int = Field(default=10, ge=1)
    """Steps from one measurement of conflicts and inactive tasks to the next; in between, their curves keep the last
    one. Nothing else needs the inner products, a third of what the method costs. Changes no result."""
    fused: bool = False
    """Read the task gradients once, in a kernel that ``torch.compile`` makes in the first step of a process: some
    seconds, for which a CPU needs a C++ compiler and a GPU Triton. Other last bits on a GPU and of more than 16 tasks;
    else none."""


class GradDrop(GradientMethod):
    """Gradient sign dropout, coordinate by coordinate: the one method that inner products do not determine.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020,
    algorithm 1 with f the identity. The paper applies it to the representation, CAGrad's code to the parameters.
    """

    Config: ClassVar[type[GradDropConfig]] = GradDropConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self._since = 0
        self._gramian: Tensor | None = None
        self._kernel: Kernel = _signs
        if config.fused:
            check_compiles("method.fused", next((p.device for p in update.shared), torch.device("cpu")))
            self._kernel = torch.compile(_signs)

    def inner_products(self, rows: Rows) -> Tensor:
        """Of a step that is due; of the last such step on others."""
        # Of the representation they are cheap, and tell every process whether all have finite rows.
        if self.in_representation:
            return rows.gramian()
        if self._gramian is None or self._since >= self.config.measure_every:
            # Whether a step is skipped must not depend on whether it is measured: combine() finds out itself.
            self._gramian, self._since = rows.gramian().nan_to_num(0.0, 0.0, 0.0), 0
        self._since += 1
        return self._gramian

    def combine(self, rows: Rows, gramian: Array) -> tuple[list[Tensor], Array, SolverInfo]:
        """Every block by :func:`graddrop`, the noise of all from one draw."""
        ones = np.ones(rows.tasks)
        # The step's own generator, on the rows' device: drawing on the CPU for a GPU would cost more than the method.
        seed = int(torch.randint(2**62, (), generator=self.generator))
        info = no_weights(gramian)
        if not info.finite:
            return [], ones, info
        noise = self._noise(rows, torch.Generator(rows.device).manual_seed(seed))
        # A kernel that reads each row once needs no blocks that stay in the cache, and a call takes a fifth of the time
        # of one.
        swept = rows.stacks if self.config.fused else rows.blocks
        parts = noise.split([block.numel() // rows.tasks for block in swept])
        dropped = [self._drop(block, part) for block, part in zip(swept, parts, strict=True)]
        if not torch.stack([size for _, size in dropped]).isfinite().all():
            self._gramian = None
            return [], ones, replace(info, finite=False)
        combined = rows.assembled(drawn for drawn, _ in dropped)
        if self.factor() != 1.0:
            torch._foreach_mul_(combined, self.factor())
        return combined, ones, info

    def state_dict(self) -> dict[str, Any]:
        """The last measurement and the steps since, too."""
        return {**super().state_dict(), "since": self._since, "gramian": self._gramian}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self._since, self._gramian = state["since"], state["gramian"]

    def _drop(self, block: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What is drawn of a block, or of a stack of them, and the sum of absolute values, finite where they are."""
        # A narrow block takes no time, and each new width a compiler's; torch adds up one that is no multiple of its
        # vectors in another order.
        kernel = self._kernel if block.shape[-1] >= _WIDE else _signs
        drawn, absolute = kernel(block, noise.view(*block.shape[:-2], -1), self.config.leak)
        return drawn, absolute.sum()

    def _noise(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """(d,) uniform on [0, 1), one for each coordinate of a row."""
        count, before, after = sum(rows.sizes), 0, 0
        share = self.update.share
        if share is not None and self.in_representation and share.samples:
            # Rows are of this process's samples; what is drawn for one must not depend on who has it.
            each = count // share.samples
            before, after = share.first * each, (share.total - share.first - share.samples) * each
        noise = torch.rand(before + count + after, generator=generator, device=generator.device)
        return noise[before : before + count]


def graddrop(rows: Tensor, noise: Tensor, leak: float = 0.0) -> Tensor:
    """The sum over k of ``(leak + (1 - leak) M_k) g_k``, by coordinate, of shape (...).

    M_k keeps positive entries where ``P = (1 + sum_k g_k / sum_k |g_k|) / 2`` exceeds the noise, negative ones
    elsewhere.

    Args:
        rows: (K, ...) the task gradients.
        noise: (...) uniform on [0, 1).
        leak: see :class:`GradDropConfig`.
    """
    return _signs(rows.reshape(len(rows), -1), noise.reshape(-1), leak)[0].view(noise.shape)


def _signs(rows: Tensor, noise: Tensor, leak: float) -> tuple[Tensor, Tensor]:
    """:func:`graddrop` of rows (..., K, w), and the sum over k of absolute values, finite where all entries are."""
    positive, negative = rows.clamp_min(0).sum(-2), rows.clamp_max(0).sum(-2)
    absolute = positive - negative
    # P = positive / absolute, not divided out: no coordinate is 0 / 0.
    drawn = _larger(positive, noise * absolute, negative)
    return drawn if leak == 0.0 else drawn.lerp(positive + negative, leak), absolute


def _larger(tensor: Tensor, threshold: Tensor, otherwise: Tensor) -> Tensor:
    """``torch.where(tensor > threshold, tensor, otherwise)``, to the bit."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(tensor > threshold, tensor, otherwise)
    # There it branches at every entry, and what is drawn at random is guessed wrong half of the time.
    as_bits = _BITS[tensor.element_size()]
    yes, no = tensor.view(as_bits), otherwise.view(as_bits)
    return (tensor > threshold).to(as_bits).mul_(yes ^ no).bitwise_xor_(no).view(tensor.dtype)
