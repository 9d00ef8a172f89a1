"""One forward pass as the trainer makes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._functorch import config as functorch_config

from trainables.models.network import MultiTaskNetwork

Forward = Callable[[Tensor], tuple[dict[str, Tensor], Tensor | None]]
"""Images to every task's prediction and, where it is to be had, the representation the decoders read."""


def forward_of(network: MultiTaskNetwork, compiled: bool, needs_representation: bool) -> Forward:
    """Images to every task's prediction and, where it is to be had, the representation the decoders read.

    A compiled function is one node of the graph, and no gradient can be asked for half-way through it: a method that
    needs the representation gets a compiled trunk and plain decoders, any other method one compiled network.
    """
    if compiled and not needs_representation:
        whole = torch.compile(network)
        return lambda images: (whole(images), None)
    # The trunk is passed back once per task, so that its backward must not overwrite what the forward saved.
    features_of = torch.compile(network.features) if compiled else network.features

    def forward(images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        if not compiled:
            features = features_of(images)
        else:
            with functorch_config.patch(donated_buffer=False):
                features = features_of(images)
        return network.decode(features), features

    return forward
