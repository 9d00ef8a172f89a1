"""One forward pass as the trainer makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch._functorch import config as functorch_config

from trainables.cuts import Cut, cut_after
from trainables.models.network import MultiTaskNetwork


class Passed(NamedTuple):
    """What a forward gives.

    Attributes:
        predictions: of every task, by its name.
        representation: what the decoders read, where it is to be had.
        cuts: where the trunk's graph was cut, in order.
    """

    predictions: dict[str, Tensor]
    representation: Tensor | None = None
    cuts: tuple[Cut, ...] = ()


Forward = Callable[[Tensor], Passed]
"""Takes a batch of inputs."""


def forward_of(
    network: MultiTaskNetwork, *, compiled: bool = False, needs_representation: bool = False, cut: bool = False
) -> Forward:
    """One pass through a network.

    A compiled function is one node of the graph, and no gradient can be asked for half-way through it: a method that
    needs the representation gets a compiled trunk and plain decoders, any other method one compiled network.

    Args:
        network: to pass.
        compiled: by ``torch.compile``; does not go with ``cut``.
        needs_representation: whether the method makes use of it.
        cut: cut the trunk's graph after each of its stages.
    """
    if compiled and not needs_representation:
        whole = torch.compile(network)
        return lambda images: Passed(whole(images))
    # The trunk is passed back once per task, so that its backward must not overwrite what the forward saved.
    features_of = torch.compile(network.features) if compiled else network.features
    stages = network.stages() if cut else []

    def forward(images: Tensor) -> Passed:
        with cut_after(stages) as cuts:
            if not compiled:
                features = features_of(images)
            else:
                with functorch_config.patch(donated_buffer=False):
                    features = features_of(images)
        return Passed(network.decode(features), features, tuple(cuts))

    return forward
