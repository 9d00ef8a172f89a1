"""In which order the groups of one iteration are stepped."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.methods.selective.partition import Groups, tidy

Order = Literal["random", "forward", "backward", "affinity"]


def arrange(groups: Groups, order: Order, affinity: Tensor, generator: torch.Generator) -> Groups:
    """The groups in the order they are to be stepped.

    Args:
        groups: in any order.
        order: ``forward`` by lowest task index, ``backward`` the reverse, ``random`` a fresh permutation from
            ``generator``, ``affinity`` by falling :func:`outward` affinity, ties by lowest task index.
        affinity: (K, K) the tracked map.
        generator: advanced by ``random`` and by nothing else.
    """
    ascending = tidy(groups)
    if order == "forward":
        return ascending
    if order == "backward":
        return ascending[::-1]
    if order == "affinity":
        return tuple(sorted(ascending, key=lambda group: -outward(group, affinity)))  # sorted() is stable
    return tuple(ascending[index] for index in torch.randperm(len(ascending), generator=generator).tolist())


def outward(group: tuple[int, ...], affinity: Tensor) -> float:
    """Mean tracked affinity from the members of ``group`` to the tasks outside it; 0 where there are none."""
    outside = torch.ones(affinity.shape[0], dtype=torch.bool)
    outside[list(group)] = False
    values = affinity[list(group)][:, outside]
    return float(values.mean()) if values.numel() else 0.0
