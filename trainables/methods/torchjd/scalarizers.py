"""TorchJD's scalarizers as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.base import Losses, MethodConfig, Update
from trainables.methods.torchjd.library import Option, build, drawing, rehearse, restore, scalarizer_class, state_of
from trainables.methods.weighting import LossWeighted, LossWeightedConfig

_CPU = torch.device("cpu")


class ScalarizerConfig(LossWeightedConfig):
    """The fields of every ``torchjd:scalarization.<Name>``."""

    options: dict[str, Option] = Field(default_factory=dict)
    """Arguments of the scalarizer's constructor, by name; a list of numbers for a tensor. The number of tasks is
    given to those that want it."""
    lr: Annotated[float, Field(gt=0)] | Literal["model"] = "model"
    """Learning rate of the scalarizer's own parameters, where it has some (UW, IMTLL), under Adam. ``model``: the
    trunk's at each step."""


class TorchJDScalarizer(LossWeighted):
    """A scalarizer of TorchJD, an optional library: one function of the losses, descended by one backward.

    What it does to the network is the gradient of that function in the losses: a weight per task, computed from the
    losses in float64 on the CPU. An iteration whose weights are not finite is left out and counted. UW, DWA, FAMO and
    IMTLL are methods of this project, too (``uw``, ``dwa``, ``famo``, ``imtl_l``), with more choices.
    """

    Config: ClassVar[type[MethodConfig]] = ScalarizerConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.scalarizer: Any = build(scalarizer_class(config.name), config.options, len(self.tasks))
        own = [p for p in self.scalarizer.parameters() if p.requires_grad] if not _looks_again(self.scalarizer) else []
        self._optimizer = torch.optim.Adam(own, foreach=False) if own else None
        self._seen = 0

    def weigh(self, losses: Tensor) -> Tensor | None:
        """(K,) the gradient of the scalarizer at the losses."""
        at = losses.clone().requires_grad_()
        self.scalarizer.zero_grad()
        with drawing(self.generator, _CPU):
            value: Tensor = self.scalarizer(at)
        value.backward()
        if at.grad is None or not bool(at.grad.isfinite().all()):
            return None
        return at.grad

    def learn(self, losses: Tensor, forward: Losses) -> dict[str, float]:
        """Whatever the scalarizer wants after a step: one of its own parameters, an epoch's end, a second forward."""
        if self._optimizer is not None:
            lr = self.config.lr
            self._optimizer.param_groups[0]["lr"] = (
                float(self.update.optimizer.param_groups[0]["lr"]) if lr == "model" else lr
            )
            self._optimizer.step()
        self._seen += 1
        if self._seen % self.update.iterations_per_epoch == 0 and hasattr(self.scalarizer, "step"):
            self.scalarizer.step()
        if _looks_again(self.scalarizer):
            with torch.no_grad():
                after = self.on_host(self.stack(forward()))
            if bool(after.isfinite().all()):
                self.scalarizer.update(after)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The scalarizer's memory and its parameters' moments, too."""
        return {
            **super().state_dict(),
            "scalarizer": state_of(self.scalarizer),
            "optimizer": None if self._optimizer is None else self._optimizer.state_dict(),
            "seen": self._seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        restore(self.scalarizer, state["scalarizer"], _CPU)
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        self._seen = state["seen"]

    @classmethod
    def check(cls, config: Any, tasks: Sequence[str]) -> None:
        """Raise :class:`ConfigError` where TorchJD is missing, or does not take the options or the number of tasks."""
        made = build(scalarizer_class(config.name), config.options, len(tasks))
        rehearse(made, torch.ones(len(tasks), dtype=torch.float64))

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """One forward, two for FAMO, one backward and one step."""
        return (2.0 if config.name.endswith(".FAMO") else 1.0), 1.0, 1.0


def _looks_again(scalarizer: Any) -> bool:
    """Whether it wants the losses after the step, as FAMO does, and learns from them by itself."""
    return hasattr(scalarizer, "update")
