"""The task gradients, one backward pass per task, kept as one stack per parameter.

No gradient is ever flattened into a vector of all parameters, and none is computed twice: the rows that make the
Gramian are the rows that are recombined.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.clock import BACKWARD
from trainables.errors import ConfigError
from trainables.methods.base import Update

_BLOCK = 16384
"""Columns of a block of rows whose inner products are taken at once on a CPU."""


class Rows:
    """Task gradients as stacks (K, *shape), one for each tensor they are taken of; the memory is reused.

    Args:
        tasks: K.
        like: tensors of the shapes, dtypes and devices of the gradients.
    """

    def __init__(self, tasks: int, like: Sequence[Tensor]) -> None:
        self.tasks = tasks
        self.stacks = [torch.zeros(tasks, *t.shape, dtype=t.dtype, device=t.device) for t in like]
        # Made once: to index every stack anew for every task takes a seventh as long as the copies.
        self._places = [[stack[task] for stack in self.stacks] for task in range(tasks)]

    def put(self, task: int, gradients: Sequence[Tensor | None]) -> None:
        """Copy the gradient of one task in; ``None`` is zero."""
        pairs = []
        for place, gradient in zip(self._places[task], gradients, strict=True):
            if gradient is None:
                place.zero_()
            else:
                pairs.append((place, gradient))
        if pairs:
            torch._foreach_copy_([place for place, _ in pairs], [gradient for _, gradient in pairs])

    def gramian(self) -> Tensor:
        """(K, K) float64 on the rows' device: products in the rows' own precision (float32 at least), summed in
        float64."""
        parts = []
        for stack in self.stacks:
            rows = stack.view(self.tasks, -1)
            rows = rows if rows.dtype in {torch.float32, torch.float64} else rows.float()
            # On a CPU in blocks that stay in the cache: one product of so few and so long rows is slower.
            width = _BLOCK if rows.device.type == "cpu" else max(rows.shape[1], 1)
            parts += [block @ block.T for block in rows.split(width, dim=1)]
        return torch.stack(parts).double().sum(0)

    def combine(self, weights: Tensor) -> list[Tensor]:
        """``sum_k weights[k] * row_k``, one tensor for each stack; ``weights`` (K,)."""
        out = []
        for stack in self.stacks:
            combined = weights.to(stack.device, stack.dtype) @ stack.view(self.tasks, -1)
            out.append(combined.view(stack.shape[1:]))
        return out

    @property
    def precision(self) -> torch.dtype:
        """The dtype in which :meth:`gramian` multiplies."""
        return torch.float64 if all(stack.dtype == torch.float64 for stack in self.stacks) else torch.float32


class TaskGradients:
    """One forward, differentiated task by task.

    Every decoder is differentiated once, down to the representation, when its row is due; the trunk is passed back once
    per row. Where the forward told no representation, rows go through the whole graph. Ask for rows or for a weighted
    gradient, once.

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

    def representation_rows(self) -> Rows:
        """The gradients of the representation: no pass through the trunk."""
        if self._features is None:
            raise ConfigError("method.grad_space: 'representation' needs a network that tells its representation")
        rows = Rows(len(self._objectives), [self._features])
        for task in range(rows.tasks):
            rows.put(task, [self._through_decoder(task)])
        self._average_heads()
        return rows

    def shared_rows(self, rows: Rows) -> None:
        """Fill ``rows`` with the gradients of the shared parameters: K backward passes through the trunk."""
        for task in range(rows.tasks):
            # No name keeps a row once it is in the stack: the peak is one stack, and the row on its way there.
            rows.put(task, self._row(task, retain_graph=task < rows.tasks - 1))
        self._average_heads()
        self.update.average(rows.stacks)

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
        found = owned(self.update.gradients(self._features, self.shared, at_features), self.shared)
        self.update.average([g for g in found if g is not None])
        return found

    def weighted(self, weights: Tensor) -> list[Tensor | None]:
        """The shared parameters' gradient of ``sum_k weights[k] * objective_k``: one backward pass."""
        at_features: Tensor | None = None
        for task, weight in enumerate(weights.tolist()):
            one = self._through_decoder(task)
            if one is not None:
                at_features = one.mul_(weight) if at_features is None else at_features.add_(one, alpha=weight)
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
