"""A trunk's graph in pieces, so that several backward passes can walk through it together, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import ConfigError


@dataclass(frozen=True)
class Cut:
    """One place where a graph ends and the next one begins.

    Attributes:
        end: what a stage made, with the graph up to there.
        start: the same values in the same memory, a leaf: where the graph of what follows begins.
    """

    end: Tensor
    start: Tensor


@contextmanager
def cut_after(stages: Iterable[nn.Module]) -> Iterator[list[Cut]]:
    """Within it, every forward cuts the graph at the output of each of ``stages``, a single tensor.

    The list that is given fills up in the order of the forward. Nothing is cut where no graph is made.
    """
    cuts: list[Cut] = []

    def cut(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and output.requires_grad):
            return output
        start = output.detach().requires_grad_()
        cuts.append(Cut(output, start))
        return start

    handles = [stage.register_forward_hook(cut) for stage in stages]
    try:
        yield cuts
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Segment:
    """The graph between cuts that ends in one tensor.

    Attributes:
        end: that tensor.
        starts: the cuts where it begins, by their places.
        parameters: those it reaches, by their places.
    """

    end: Tensor
    starts: tuple[int, ...]
    parameters: tuple[int, ...]


class CutGraph:
    """A graph in pieces and the way back through them.

    Args:
        output: where the way back begins.
        cuts: in the order of the forward.
        parameters: whose gradients are wanted; each is part of one segment at most.

    Raises:
        ConfigError: a parameter is part of two segments.
    """

    def __init__(self, output: Tensor, cuts: Sequence[Cut], parameters: Sequence[Tensor]) -> None:
        self.parameters = tuple(parameters)
        self._starts = [cut.start for cut in cuts]
        places = {id(start): place for place, start in enumerate(self._starts)}
        names = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        self.segments: list[Segment] = []
        """From the last to the first."""
        seen: set[int] = set()
        passed: set[Any] = set()
        self._overlap = False
        for end in [output, *(cut.end for cut in reversed(cuts))]:
            reached, nodes = _reached(end)
            leaves = {id(leaf) for leaf in reached}
            # What was made of a cut's start and is read beyond the next cut belongs to two segments.
            self._overlap |= not passed.isdisjoint(nodes)
            passed |= nodes
            own = tuple(sorted(names[leaf] for leaf in leaves & names.keys()))
            if seen.intersection(own):
                shape = tuple(self.parameters[min(seen.intersection(own))].shape)
                raise ConfigError(
                    f"method.rows: 'streamed' needs a backbone whose stages share no parameter, "
                    f"one of shape {shape} is part of two (allowed: kept)"
                )
            seen.update(own)
            self.segments.append(Segment(end, tuple(sorted(places[leaf] for leaf in leaves & places.keys())), own))

    def back(
        self, at_output: Sequence[Tensor], *, again: bool
    ) -> Iterator[tuple[Segment, Iterator[list[Tensor | None]]]]:
        """Several gradients at the output passed back together: segment by segment, each with the gradients of its
        parameters, in their order, for one row after the other. Take all rows of a segment before the next segment.

        Args:
            at_output: one for each row.
            again: keep the graph for another time.
        """
        at: list[list[Tensor | None]] = [[None] * len(at_output) for _ in self._starts]
        at.append(list(at_output))
        for segment in self.segments:
            yield segment, self._rows(segment, at.pop(), at, again=again)

    def _rows(
        self, segment: Segment, at_end: list[Tensor | None], at: list[list[Tensor | None]], *, again: bool
    ) -> Iterator[list[Tensor | None]]:
        inputs = [*(self._starts[place] for place in segment.starts), *(self.parameters[p] for p in segment.parameters)]
        for row, given in enumerate(at_end):
            at_end[row] = None
            if given is None or not inputs:
                yield [None] * len(segment.parameters)
                continue
            keep = again or self._overlap or row < len(at_end) - 1
            found: list[Tensor | None] = list(
                torch.autograd.grad(segment.end, inputs, given, retain_graph=keep, allow_unused=True)
            )
            for place in segment.starts:
                one, before = found.pop(0), at[place][row]
                at[place][row] = one if before is None else before if one is None else before + one
            yield found
            del found, given


def _reached(end: Tensor) -> tuple[list[Tensor], set[Any]]:
    """The leaves of a tensor's graph, each once, and its other nodes; the graph of a leaf is itself."""
    if end.grad_fn is None:
        return [end], set()
    leaves: list[Tensor] = []
    nodes: set[Any] = set()
    waiting: list[Any] = [end.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        else:
            nodes.add(node)
        waiting += [following for following, _ in node.next_functions]
    return leaves, nodes
