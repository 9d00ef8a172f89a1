"""The task gradients, one backward pass per task, kept in blocks of columns.

No gradient is ever flattened into a vector of all parameters, and none is computed twice: the rows that make the
Gramian are the rows that are recombined.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from trainables.clock import BACKWARD
from trainables.cuts import CutGraph
from trainables.errors import ConfigError
from trainables.kernels import Kernels, inner_products
from trainables.methods.base import Update

_BLOCK = 16384
"""Columns of a block of rows on a CPU: those of eleven tasks stay in the cache of a core."""

_LEAST = 8
"""Columns of the narrowest last block: torch adds up a single column in another order than many."""


class Rows:
    """Task gradients (K, d), d over all tensors they are taken of, kept in blocks of columns; the memory is reused.

    A block holds columns of one tensor. On a CPU it is as wide as stays in the cache, so that what is made of all
    tasks' entries is made of one block after the other; elsewhere it is the whole tensor.

    Args:
        tasks: K.
        like: tensors of the shapes, dtypes and devices of the gradients.
        kernels: what multiplies blocks on a CPU.
    """

    def __init__(self, tasks: int, like: Sequence[Tensor], kernels: Kernels = "torch") -> None:
        self.tasks = tasks
        self.kernels = kernels
        self.shapes = [t.shape for t in like]
        self._parts = [list(_parts(tasks, t)) for t in like]
        self.blocks = [block for parts in self._parts for part in parts for block in part]
        """Contiguous (K, w), in the order of the columns."""
        self.stacks = [part for parts in self._parts for part in parts]
        """The same memory with N neighbouring blocks of one width in one tensor (N, K, w)."""
        # Made once: to index every part anew for every task takes a seventh as long as the copies.
        self._places = [[[part[:, task] for part in parts] for parts in self._parts] for task in range(tasks)]

    @property
    def sizes(self) -> list[int]:
        """Columns of each tensor."""
        return [shape.numel() for shape in self.shapes]

    @property
    def device(self) -> torch.device:
        """Of the rows."""
        return self.blocks[0].device

    def put(self, task: int, gradients: Sequence[Tensor | None]) -> None:
        """Copy the gradient of one task in; ``None`` is zero."""
        to: list[Tensor] = []
        of: list[Tensor] = []
        for places, gradient in zip(self._places[task], gradients, strict=True):
            if gradient is None:
                for place in places:
                    place.zero_()
                continue
            to += places
            if len(places) == 1:
                of.append(gradient.reshape(places[0].shape))
            else:
                parts = gradient.reshape(-1).split([place.numel() for place in places])
                of += [part.view_as(place) for place, part in zip(places, parts, strict=True)]
        if to:
            torch._foreach_copy_(to, of)

    def gramian(self) -> Tensor:
        """(K, K) float64 on the rows' device: products in the rows' own precision (float32 at least), summed in
        float64."""
        parts = []
        for block in self.blocks:
            rows = block if block.dtype in {torch.float32, torch.float64} else block.float()
            parts.append(inner_products(rows, self.kernels))
        return torch.stack(parts).double().sum(0)

    def combine(self, weights: Tensor) -> list[Tensor]:
        """``sum_k weights[k] * row_k``, one tensor for each it is taken of; ``weights`` (K,)."""
        out = []
        for shape, parts in zip(self.shapes, self._parts, strict=True):
            combined = parts[0].new_empty(shape.numel())
            pieces = combined.split([part[:, 0].numel() for part in parts])
            for part, piece in zip(parts, pieces, strict=True):
                number, _, width = part.shape
                row = weights.to(part.device, part.dtype).expand(number, 1, self.tasks)
                torch.bmm(row, part, out=piece.view(number, 1, width))
            out.append(combined.view(shape))
        return out

    def assembled(self, columns: Iterable[Tensor]) -> list[Tensor]:
        """What was made of each block, (w,), or of each of ``stacks``, (N, w), put together: one tensor for each that
        rows are taken of."""
        made = iter(columns)
        out = []
        for shape in self.shapes:
            pieces = [next(made).reshape(-1)]
            missing = shape.numel() - pieces[0].numel()
            while missing > 0:
                pieces.append(next(made).reshape(-1))
                missing -= pieces[-1].numel()
            out.append((pieces[0] if len(pieces) == 1 else torch.cat(pieces)).view(shape))
        return out

    def average(self, update: Update) -> None:
        """Replace every row by its mean over the processes that train together."""
        update.average(self.stacks)

    @property
    def precision(self) -> torch.dtype:
        """The dtype in which :meth:`gramian` multiplies."""
        return precision_of(self.blocks)


class Stages:
    """Task gradients of one stage of the trunk after the other, each in the memory of an earlier one of its shapes.

    Args:
        tasks: K.
        kernels: what multiplies blocks on a CPU.
    """

    def __init__(self, tasks: int, kernels: Kernels = "torch") -> None:
        self.tasks = tasks
        self.kernels = kernels
        self._rows: dict[tuple[object, ...], Rows] = {}

    def rows(self, like: Sequence[Tensor]) -> Rows:
        """Those to fill for a stage of these parameters, until the next stage."""
        kind = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in like)
        if kind not in self._rows:
            self._rows[kind] = Rows(self.tasks, like, self.kernels)
        return self._rows[kind]


def precision_of(tensors: Iterable[Tensor]) -> torch.dtype:
    """The dtype in which inner products of such rows are made."""
    return torch.float64 if all(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _parts(tasks: int, like: Tensor) -> Iterator[Tensor]:
    """Zeros (N, K, w): N whole blocks, then the columns left over as a block of their own."""
    columns = like.numel()
    width = _BLOCK if like.device.type == "cpu" else max(columns, 1)
    whole, left = divmod(columns, width)
    if whole and 0 < left < _LEAST:
        whole, left = whole - 1, left + width
    if whole:
        yield torch.zeros(whole, tasks, width, dtype=like.dtype, device=like.device)
    if left or not whole:
        yield torch.zeros(1, tasks, left, dtype=like.dtype, device=like.device)


class TaskGradients:
    """One forward, differentiated task by task.

    Every decoder is differentiated once, down to the representation, when its row is due; the trunk is passed back once
    per row. Where the forward told no representation, rows go through the whole graph. Ask for rows or for a weighted
    gradient, once; or for the streamed Gramian, and then for a weighted gradient.

    Args:
        update: whose ``representation`` is that of the forward.
        objectives: one scalar per task, in task order.
    """

    def __init__(self, update: Update, objectives: Sequence[Tensor]) -> None:
        self.update = update
        self.shared = [p for p in update.shared if p.requires_grad]
        self.heads: list[list[Tensor | None]] = []
        """Plain gradients of each task's own parameters, in the order of ``update.heads``; there once rows, or a
        weighted gradient, have been asked for."""
        self._objectives = list(objectives)
        self._features = update.representation
        self._cuts = update.cuts
        self._at_features: list[Tensor] = []
        """Every task's gradient of the representation, once the Gramian has been streamed."""
        self._streamed = False

    def representation_rows(self) -> Rows:
        """The gradients of the representation: no pass through the trunk."""
        if self._features is None:
            raise ConfigError("method.grad_space: 'representation' needs a network that tells its representation")
        rows = Rows(len(self._objectives), [self._features], self.update.kernels)
        for task in range(rows.tasks):
            rows.put(task, [self._through_decoder(task)])
        self._average_heads()
        return rows

    def shared_rows(self, rows: Rows, *, again: bool = False) -> None:
        """Fill ``rows`` with the gradients of the shared parameters: K backward passes through the trunk, whose graph
        is kept for one more with ``again``."""
        for task in range(rows.tasks):
            # No name keeps a row once it is in the stack: the peak is one stack, and the row on its way there.
            rows.put(task, self._row(task, retain_graph=again or task < rows.tasks - 1))
        self._average_heads()
        rows.average(self.update)

    def streamed_gramian(self, stages: Stages) -> Tensor:
        """(K, K) float64 inner products of the shared parameters' gradients, K backward passes through the trunk that
        walk through its stages together: no more rows are held at once than one stage has. A forward that told no
        representation is one stage."""
        self._streamed = True
        if self._features is None:
            whole = stages.rows(self.shared)
            self.shared_rows(whole, again=True)
            return whole.gramian()
        self._at_features = [
            found for task in range(stages.tasks) if (found := self._through_decoder(task)) is not None
        ]
        self._average_heads()
        total = torch.zeros(stages.tasks, stages.tasks, dtype=torch.float64, device=self._features.device)
        graph = CutGraph(self._features, self._cuts, self.shared)
        for segment, passes in graph.back(self._at_features, again=True):
            rows = stages.rows([self.shared[place] for place in segment.parameters])
            for task, row in self._timed(passes):
                rows.put(task, row)
            if segment.parameters:
                rows.average(self.update)
                total += rows.gramian()
        self.update.counters.backward_passes += stages.tasks
        return total

    def _timed(self, passes: Iterator[list[Tensor | None]]) -> Iterator[tuple[int, list[Tensor | None]]]:
        for task in itertools.count():
            with self.update.clock(BACKWARD):
                found = next(passes, None)
            if found is None:
                return
            yield task, found

    def _row(self, task: int, *, retain_graph: bool) -> list[Tensor | None]:
        at_features = self._through_decoder(task)
        if self._features is None:
            return self.update.gradients(self._objectives[task], self.shared, retain_graph=retain_graph)
        return self.update.gradients(self._features, self.shared, at_features, retain_graph=retain_graph)

    def _through_decoder(self, task: int) -> Tensor | None:
        """Pass one task's decoder back, the next in task order: its parameters' gradients go to ``heads``, that of the
        representation is returned, ``None`` where the forward told none."""
        parameters = self.update.heads[self.update.tasks[task]]
        own: list[Tensor] = [p for p in parameters if p.requires_grad]
        wanted = own if self._features is None else [self._features, *own]
        found: list[Tensor | None] = []
        if wanted:
            retain = self._features is None
            with self.update.clock(BACKWARD):
                objective = self._objectives[task]
                found = list(torch.autograd.grad(objective, wanted, retain_graph=retain, allow_unused=True))
            found = owned(found, wanted)
        at_features = None
        if self._features is not None:
            at_features = found.pop(0)
            if at_features is None:
                at_features = torch.zeros_like(self._features)
        gradients = iter(found)
        self.heads.append([next(gradients) if p.requires_grad else None for p in parameters])
        return at_features

    def _average_heads(self) -> None:
        self.update.average([g for head in self.heads for g in head if g is not None])

    def through_trunk(self, at_features: Tensor) -> list[Tensor | None]:
        """The shared parameters' gradient for a given gradient of the representation: one backward pass."""
        assert self._features is not None
        if self._cuts:
            given = self._through_stages(at_features)
        else:
            given = self.update.gradients(self._features, self.shared, at_features)
        found = owned(given, self.shared)
        self.update.average([g for g in found if g is not None])
        return found

    def _through_stages(self, at_features: Tensor) -> list[Tensor | None]:
        assert self._features is not None
        out: list[Tensor | None] = [None] * len(self.shared)
        graph = CutGraph(self._features, self._cuts, self.shared)
        for segment, passes in graph.back([at_features], again=False):
            for _, found in self._timed(passes):
                for place, gradient in zip(segment.parameters, found, strict=True):
                    out[place] = gradient
        self.update.counters.backward_passes += 1
        return out

    def weighted(self, weights: Tensor) -> list[Tensor | None]:
        """The shared parameters' gradient of ``sum_k weights[k] * objective_k``: one backward pass."""
        at_features: Tensor | None = None
        for task, weight in enumerate(weights.tolist()):
            if not self._streamed:
                one = self._through_decoder(task)
            else:
                # Of a forward that told no representation there are none.
                one = self._at_features.pop(0) if self._at_features else None
            if one is not None:
                at_features = one.mul_(weight) if at_features is None else at_features.add_(one, alpha=weight)
        if not self._streamed:
            self._average_heads()
        if at_features is not None:
            return self.through_trunk(at_features)
        total = torch.stack(self._objectives)
        total = (weights.to(total.device, total.dtype) * total).sum()
        found = owned(self.update.gradients(total, self.shared), self.shared)
        self.update.average([g for g in found if g is not None])
        return found

    def write(self, shared: Sequence[Tensor | None], head_weights: Sequence[float] | None) -> None:
        """Put gradients in ``.grad``: ``shared`` as they are, the decoders' plain or times ``head_weights``."""
        self.update.zero_grad()
        for parameter, gradient in zip(self.shared, shared, strict=True):
            parameter.grad = gradient
        for index, task in enumerate(self.update.tasks):
            weight = 1.0 if head_weights is None else head_weights[index]
            for parameter, gradient in zip(self.update.heads[task], self.heads[index], strict=True):
                parameter.grad = gradient if gradient is None or weight == 1.0 else gradient * weight


def owned(gradients: Sequence[Tensor | None], of: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients as ``backward`` leaves them in ``.grad``: laid out as what they are of, in memory of their own.

    ``torch.autograd.grad`` promises neither, and a fused optimizer takes the layout for granted.
    """
    out: list[Tensor | None] = []
    seen: set[int] = set()
    for gradient, tensor in zip(gradients, of, strict=True):
        if gradient is None:
            out.append(None)
            continue
        shared = gradient.untyped_storage().data_ptr() in seen
        keep = (
            gradient
            if gradient.stride() == tensor.stride() and not shared
            else torch.empty_like(tensor).copy_(gradient)
        )
        seen.add(keep.untyped_storage().data_ptr())
        out.append(keep)
    return out


def trainable(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Those that get a gradient."""
    return [p for p in parameters if p.requires_grad]
