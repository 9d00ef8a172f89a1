"""GradDrop: in every coordinate the gradients of one sign, drawn by how much they weigh."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.gramian import Array, GradientConfig, GradientMethod, Rows, SolverInfo
from trainables.methods.gramian.method import no_weights

_BLOCK = 32768
"""Columns that are dropped at once on a CPU: what is made on the way stays in the cache."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers as wide as a float of so many bytes."""


class GradDropConfig(GradientConfig):
    """The fields of ``graddrop``."""

    name: Literal["graddrop"] = "graddrop"
    decoder_grads: Literal["plain"] = "plain"
    """The method has no weights that decoders could get."""
    leak: float = Field(default=0.0, ge=0, le=1)
    """Share of every gradient that is passed on whatever was drawn. LibMTL, TorchJD: 0."""


class GradDrop(GradientMethod):
    """Gradient sign dropout, coordinate by coordinate: the one method that inner products do not determine.

    Source: Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020,
    algorithm 1 with f the identity. The paper applies it to the representation, CAGrad's code to the parameters.
    """

    Config: ClassVar[type[GradDropConfig]] = GradDropConfig

    def combine(self, rows: Rows, gramian: Array) -> tuple[list[Tensor], Array, SolverInfo]:
        """Every stack by :func:`graddrop`, the noise of all from one draw."""
        ones = np.ones(rows.tasks)
        # The step's own generator, on the rows' device: drawing on the CPU for a GPU would cost more than the method.
        seed = int(torch.randint(2**62, (), generator=self.generator))
        info = no_weights(gramian)
        if not info.finite:
            return [], ones, info
        device = rows.stacks[0].device
        generator = torch.Generator(device).manual_seed(seed)
        noise = self._noise(rows, generator)
        parts = noise.split([s[0].numel() for s in rows.stacks])
        combined = [
            graddrop(stack, part.view(stack.shape[1:]), self.config.leak)
            for stack, part in zip(rows.stacks, parts, strict=True)
        ]
        if self.factor() != 1.0:
            torch._foreach_mul_(combined, self.factor())
        return combined, ones, info

    def _noise(self, rows: Rows, generator: torch.Generator) -> Tensor:
        """(N,) uniform on [0, 1), one for each coordinate of a row."""
        count, before, after = sum(s[0].numel() for s in rows.stacks), 0, 0
        share = self.update.share
        if share is not None and self.config.grad_space == "representation" and share.samples:
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
    if rows.device.type != "cpu" or noise.numel() < 2 * _BLOCK:
        return _drop(rows, noise, leak)
    # The last block is the widest: torch would add up a single column left over in another order.
    blocks = noise.numel() // _BLOCK
    widths = [_BLOCK] * (blocks - 1) + [noise.numel() - _BLOCK * (blocks - 1)]
    parts = zip(rows.flatten(1).split(widths, 1), noise.flatten().split(widths), strict=True)
    return torch.cat([_drop(block, drawn, leak) for block, drawn in parts]).view(noise.shape)


def _drop(rows: Tensor, noise: Tensor, leak: float) -> Tensor:
    """:func:`graddrop` in one piece."""
    positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
    # P = positive / (positive - negative), not divided out: no coordinate is 0 / 0.
    drawn = _larger(positive, noise * (positive - negative), negative)
    return drawn if leak == 0.0 else drawn.lerp(positive + negative, leak)


def _larger(tensor: Tensor, threshold: Tensor, otherwise: Tensor) -> Tensor:
    """``torch.where(tensor > threshold, tensor, otherwise)``, to the bit."""
    if tensor.device.type != "cpu":
        return torch.where(tensor > threshold, tensor, otherwise)
    # There it branches at every entry, and what is drawn at random is guessed wrong half of the time.
    as_bits = _BITS[tensor.element_size()]
    yes, no = tensor.view(as_bits), otherwise.view(as_bits)
    return (tensor > threshold).to(as_bits).mul_(yes ^ no).bitwise_xor_(no).view(tensor.dtype)
