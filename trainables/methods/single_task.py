"""One task, one network: the reference from which the multi-task gain Delta_m is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from trainables.errors import ConfigError
from trainables.methods.base import Losses, Method, MethodConfig, StepLog


class SingleTaskConfig(MethodConfig):
    """The fields of ``single_task``: none of its own."""

    name: Literal["single_task"] = "single_task"


class SingleTask(Method):
    """Plain training of a network with one task; the single-task baseline is one such trial per task."""

    Config: ClassVar[type[MethodConfig]] = SingleTaskConfig

    def step(self, losses: Losses) -> StepLog:
        """One forward, one backward, one optimizer step."""
        values = self.stack(losses())
        self.update.zero_grad()
        self.update.backward(values.sum())
        self.update.step()
        return StepLog(losses=values.detach())

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` unless there is exactly one task."""
        if len(tasks) != 1:
            given = ", ".join(tasks) or "none"
            raise ConfigError(
                f"tasks.include: 'single_task' trains one task, got {len(tasks)} ({given}); name one of them"
            )
