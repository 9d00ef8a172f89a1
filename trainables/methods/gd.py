"""Gradient descent on the sum of the losses: the baseline every other method is read against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from trainables.methods.base import Losses, Method, MethodConfig, StepLog


class GDConfig(MethodConfig):
    """The fields of ``gd``."""

    name: Literal["gd"] = "gd"
    steps_per_batch: int = Field(default=1, ge=1)
    """Optimizer steps on each batch, every one with a forward of its own. Above 1 it is the equal-compute control of
    selective group updates, which take one step per group; 1 is gradient descent as every comparison has it."""


class GD(Method):
    """All tasks together, all weights 1: one backward of the summed losses, one optimizer step.

    Published as "GD" in the tables of Jeong & Yoon (ICLR 2025); the sum, not the mean, is what the field's code takes.
    """

    Config: ClassVar[type[MethodConfig]] = GDConfig

    def step(self, losses: Losses) -> StepLog:
        """One iteration; ``StepLog.losses`` are those of the first forward."""
        first = self._descend(losses)
        for _ in range(self.config.steps_per_batch - 1):
            self._descend(losses)
        return StepLog(losses=first.detach())

    def _descend(self, losses: Losses) -> Tensor:
        values = self.stack(losses())
        self.update.zero_grad()
        self.update.backward(values.sum())
        self.update.step()
        return values

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """One forward, one backward and one step, each ``steps_per_batch`` times."""
        steps = float(config.steps_per_batch)
        return steps, steps, steps
