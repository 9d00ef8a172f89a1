"""What the gradient-based methods are compared with: the same step, written the two ways in which it is commonly had.

Both are methods of the platform, so that they train the same network in the same loop under the same clock.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables.clock import BACKWARD
from trainables.methods import METHODS, Losses, Method, StepLog, Update
from trainables.methods.graddrop import graddrop
from trainables.methods.gramian import GramianMethod


class PlainPattern(Method):
    """One full ``autograd.grad`` per task through decoder and trunk, into flat vectors, as most public code has it.

    The rows are concatenated and stacked to one Jacobian J (K, d); weights come from J J^T in float32 by the solver of
    this project, whatever it is: what is compared is the pattern, not other people's solvers.

    Args:
        name: of the method whose update is made.
        update: the network it trains.
        stacked: take each loss out of a tensor of all losses, as Nash-MTL's code and LibMTL do. Every loss is then a
            function of every decoder as far as autograd can tell, and all K are passed back K times, with zeros.
    """

    def __init__(self, name: str, update: Update, *, stacked: bool) -> None:
        cls = METHODS[name]
        self.stacked = stacked
        super().__init__(cls.Config.parse({"name": name}, "method"), update, 0)
        self.rule = cls

    def step(self, losses: Losses) -> StepLog:
        """One forward, K backward passes through everything, one step."""
        forward = losses()
        values = list(self.stack(forward)) if self.stacked else [forward[task] for task in self.tasks]
        self.update.representation = None
        shared, last = self.update.shared, self.tasks[-1]
        rows: list[Tensor] = []
        heads: list[Sequence[Tensor]] = []
        for task, value in zip(self.tasks, values, strict=True):
            own = self.update.heads[task]
            with self.update.clock(BACKWARD):
                found = torch.autograd.grad(value, [*shared, *own], retain_graph=task != last)
            rows.append(torch.cat([gradient.reshape(-1) for gradient in found[: len(shared)]]))
            heads.append(found[len(shared) :])
        direction = self._aggregated(torch.stack(rows))
        self.update.zero_grad()
        for parameter, part in zip(shared, direction.split([p.numel() for p in shared]), strict=True):
            parameter.grad = part.view_as(parameter)
        for task, gradients in zip(self.tasks, heads, strict=True):
            for parameter, gradient in zip(self.update.heads[task], gradients, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
        self.update.step()
        return StepLog(losses=self.stack(forward).detach())

    def _aggregated(self, jacobian: Tensor) -> Tensor:
        """(d,) of (K, d)."""
        if not issubclass(self.rule, GramianMethod):
            return graddrop(jacobian, torch.rand_like(jacobian[0]), self.config.leak)
        weights, _ = self.rule.solve(self.config, (jacobian @ jacobian.T).double().cpu(), self.generator)
        return torch.from_numpy(weights).to(jacobian) @ jacobian


class TorchJDPattern(Method):
    """``mtl_backward``, then ``jac_to_grad`` with an aggregator, as TorchJD's documentation has it.

    Args:
        aggregator: of TorchJD.
        update: the network it trains.
        lean: compute rows one after the other and the Gramian parameter by parameter (``parallel_chunk_size=1``,
            ``optimize_gramian_computation=True``), the settings that its documentation offers where memory binds.
    """

    needs_representation = True

    def __init__(self, aggregator: nn.Module, update: Update, *, lean: bool = False) -> None:
        super().__init__(None, update, 0)
        self.aggregator = aggregator
        self.chunk = {"parallel_chunk_size": 1} if lean else {}
        self.gramian = {"optimize_gramian_computation": True} if lean else {}
        autojac = importlib.import_module("torchjd.autojac")
        self._backward: Callable[..., None] = autojac.mtl_backward
        self._to_grad: Callable[..., Any] = autojac.jac_to_grad

    def step(self, losses: Losses) -> StepLog:
        """One forward, TorchJD's Jacobian, one step."""
        values = list(losses().values())
        detached = torch.stack(values).detach()
        features, self.update.representation = self.update.representation, None
        shared = list(self.update.shared)
        self.update.zero_grad()
        with self.update.clock(BACKWARD):
            self._backward(
                values,
                features=features,
                tasks_params=[list(self.update.heads[task]) for task in self.tasks],
                shared_params=shared,
                **self.chunk,
            )
        self._to_grad(shared, self.aggregator, **self.gramian)
        self.update.step()
        return StepLog(losses=detached)


TORCHJD_NAMES = {
    "mgda": "MGDA",
    "graddrop": "GradDrop",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "imtl": "IMTLG",
    "imtl_g": "IMTLG",
    "aligned_mtl": "AlignedMTL",
    "nash_mtl": "NashMTL",
}
"""Method to the aggregator of TorchJD that is it, or is nearest to it (``imtl``)."""

_OF_GRAMIAN = {"mgda", "pcgrad", "cagrad", "imtl", "imtl_g", "aligned_mtl"}


def has_torchjd() -> bool:
    """Whether the optional library is installed."""
    return importlib.util.find_spec("torchjd") is not None


def torchjd_pattern(name: str, update: Update, *, lean: bool = False) -> TorchJDPattern:
    """The counterpart of method ``name``, under TorchJD's defaults. The Gramian of a ``lean`` one is computed by
    parameter where its aggregator reads nothing else."""
    library = importlib.import_module("torchjd.aggregation")
    arguments = {"cagrad": {"c": 0.4}, "nash_mtl": {"n_tasks": len(update.tasks)}}.get(name, {})
    pattern = TorchJDPattern(getattr(library, TORCHJD_NAMES[name])(**arguments), update, lean=lean)
    if name not in _OF_GRAMIAN:
        pattern.gramian = {}
    return pattern
