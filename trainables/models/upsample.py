"""From the grid of features to the size of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BilinearUpsample(nn.Module):
    """Bilinear upsampling, corners not aligned, as one matrix for the rows and one for the columns.

    The same function as ``interpolate(mode="bilinear", align_corners=False)`` up to rounding, in about half of its time
    on a CPU, and its backward is deterministic on CUDA, where that of ``interpolate`` adds atomically.

    Args:
        size: (h, w) that comes in.
        to: (H, W) that goes out.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], to: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", _interpolation(size[0], to[0]), persistent=False)
        self.register_buffer("columns", _interpolation(size[1], to[1]).T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, H, W)."""
        return self.rows @ (x @ self.columns)


def _interpolation(size: int, to: int) -> Tensor:
    """(to, size): the weights by which ``size`` samples make ``to``."""
    one_hot = torch.eye(size).view(1, size, size)
    return F.interpolate(one_hot, size=to, mode="linear", align_corners=False)[0].T.contiguous()
