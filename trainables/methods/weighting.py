"""What the methods that see losses only have in common: one forward, one weight per task, one backward of the weighted
sum, one optimizer step.

A method of this kind costs what gradient descent costs. Its bookkeeping is on (K,) numbers in float64 on the CPU, fed
by one transfer of the K losses per iteration, so that its state does not depend on the device and a step that cannot
be taken is known before the backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.base import Losses, Method, MethodConfig, StepLog, Update

LARGEST_LOG_SCALE = 30.0
"""Learned log-scales stay within plus and minus this: exp(30) is 1e13, beyond any ratio of losses that is not a fault,
and far enough from the largest float32 that no product overflows."""

_SMALLEST_WEIGHT = 1e-30


class LossWeightedConfig(MethodConfig):
    """The fields of every method that weighs losses."""

    decoder_grads: Literal["weighted", "plain"] = "weighted"
    """Which gradient a task's decoder gets. ``weighted``: that of the weighted loss, as in every published
    implementation of these methods. ``plain``: that of the task's own loss, the trunk alone is weighted."""


class LossWeighted(Method):
    """Base of the methods that weigh losses: a subclass defines :meth:`weigh`, and :meth:`learn` where it remembers.

    An iteration with a loss that is not finite, or for which :meth:`weigh` finds no weights, is left out: no backward,
    no step, nothing remembered. The curve ``losses/skipped`` counts them. ``weights/<task>`` is the factor on the
    gradient of the task's loss in the trunk.
    """

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.skipped = 0
        self._curves = tuple(f"weights/{task}" for task in self.tasks)

    def weigh(self, losses: Tensor) -> Tensor | None:
        """The weights of this iteration: (K,) float64 losses, all finite, to (K,) float64, all finite; ``None`` where
        there are none."""
        raise NotImplementedError

    def learn(self, losses: Tensor, forward: Losses) -> dict[str, float]:
        """Remember the iteration, after its step.

        Args:
            losses: (K,) float64 on the CPU, as :meth:`weigh` got them.
            forward: for one more look at the same batch.

        Returns:
            Curves of the method's own.
        """
        return {}

    def before_step(self) -> None:
        """Last change of the gradients in ``.grad``."""

    def step(self, losses: Losses) -> StepLog:
        """One iteration: forward, backward of the weighted sum, optimizer step."""
        values = self.stack(losses())
        log = StepLog(losses=values.detach())
        # Nothing here reads it, and it would keep the forward's graph.
        self.update.forget()
        seen = self.on_host(values)
        weights = self.weigh(seen) if bool(seen.isfinite().all()) else None
        if weights is not None:
            self._descend(values, weights)
            del values  # A second forward then has the memory of the first one's graph.
            log.scalars.update(zip(self._curves, weights.tolist(), strict=True))
            log.scalars.update(self.learn(seen, losses))
        else:
            self.skipped += 1
        log.scalars["losses/skipped"] = float(self.skipped)
        return log

    def on_host(self, values: Tensor) -> Tensor:
        """(K,) losses as float64 numbers on the CPU, the same in all processes that train together. Waits for the
        forward."""
        seen = values.detach().double()
        self.update.average([seen])
        return seen.cpu()

    def _descend(self, values: Tensor, weights: Tensor) -> None:
        self.update.zero_grad()
        self.update.backward((weights.to(values) * values).sum())
        if self.config.decoder_grads == "plain":
            self._restore_decoders(weights)
        self.before_step()
        self.update.step()

    def _restore_decoders(self, weights: Tensor) -> None:
        """Divide each decoder's gradient by its task's weight: a decoder serves one task, so that is the gradient of
        its loss alone, to rounding. At a weight of 0 it gets none."""
        divisors = torch.where(weights.abs() < _SMALLEST_WEIGHT, 1.0, weights)
        for task, weight in zip(self.tasks, divisors.tolist(), strict=True):
            grads = [p.grad for p in self.update.heads[task] if p.grad is not None]
            if grads:
                torch._foreach_mul_(grads, 1.0 / weight)

    def state_dict(self) -> dict[str, Any]:
        """The generator and the count of iterations left out."""
        return {**super().state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.skipped = state["skipped"]


class TaskNumbers:
    """One learned number per task, with an optimizer of its own.

    Args:
        count: number of tasks K.
        start: their value at first.
        optimizer: ``adam`` or ``sgd``.
        weight_decay: L2 coefficient added to the gradient.
        limit: largest magnitude they may take, or ``None``.

    Attributes:
        values: (K,) float64 on the CPU.
    """

    def __init__(
        self,
        count: int,
        start: float,
        *,
        optimizer: Literal["adam", "sgd"] = "adam",
        weight_decay: float = 0.0,
        limit: float | None = None,
    ) -> None:
        self.values = torch.full((count,), start, dtype=torch.float64)
        self.limit = limit
        # The learning rate is given with each step.
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.Adam([self.values], lr=1.0, weight_decay=weight_decay, foreach=False)
            if optimizer == "adam"
            else torch.optim.SGD([self.values], lr=1.0, weight_decay=weight_decay, foreach=False)
        )

    def descend(self, gradient: Tensor, lr: float) -> None:
        """One optimizer step of learning rate ``lr`` along minus ``gradient`` (K,), then the limit."""
        self._optimizer.param_groups[0]["lr"] = lr
        self.values.grad = gradient
        self._optimizer.step()
        self.values.grad = None
        if self.limit is not None:
            self.values.clamp_(-self.limit, self.limit)

    def state_dict(self) -> dict[str, Any]:
        """The numbers and their optimizer's moments."""
        return {"values": self.values.clone(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        self.values.copy_(state["values"])
        self._optimizer.load_state_dict(state["optimizer"])


class LearnedScalesConfig(LossWeightedConfig):
    """The fields of the methods that learn one log-scale per task along with the network."""

    initial: float = Field(default=0.0, ge=-LARGEST_LOG_SCALE, le=LARGEST_LOG_SCALE)
    """The log-scales at first."""
    lr: Annotated[float, Field(gt=0)] | Literal["model"] = "model"
    """Learning rate of the log-scales. ``model``: the trunk's at each step, schedule included, as where they are one
    more parameter of the network (the authors, mtan, LibMTL). Under Adam they then move by at most that much a step:
    over 40,000 iterations at 2e-5 by 0.4, and the method stays close to equal weights. A number: constant; nash-mtl
    and FAMO's code have 0.025."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the log-scales; ``adam`` is the network's kind."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 coefficient on the log-scales: it pulls them to 0. Codes that make them parameters of the network give them
    the network's."""


class LearnedScales(LossWeighted):
    """Base of the methods that learn one log-scale per task: a subclass defines :meth:`weigh` and :meth:`slope`.

    The log-scales take a step from the losses that the network's own step is taken from, as if both were one
    optimizer's. A loss of exactly 0 is a batch without a label for the task, from which nothing is learned: the
    formulas would send the log-scale to infinity.
    """

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.scales = TaskNumbers(
            len(self.tasks),
            config.initial,
            optimizer=config.optimizer,
            weight_decay=config.weight_decay,
            limit=LARGEST_LOG_SCALE,
        )

    def slope(self, losses: Tensor) -> Tensor:
        """(K,) the derivative of the method's objective by each log-scale."""
        raise NotImplementedError

    def learn(self, losses: Tensor, forward: Losses) -> dict[str, float]:
        """One step of the log-scales."""
        lr = self.config.lr
        if lr == "model":
            lr = float(self.update.optimizer.param_groups[0]["lr"])
        self.scales.descend(torch.where(losses == 0, 0.0, self.slope(losses)), lr)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The log-scales and their optimizer's moments, too."""
        return {**super().state_dict(), "scales": self.scales.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.scales.load_state_dict(state["scales"])
