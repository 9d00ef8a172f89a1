"""The step of every method that sees the gradient of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from trainables.methods.base import Losses, Method, MethodConfig, StepLog, Update
from trainables.methods.gramian.problem import Array, SolverInfo, epsilon_of, solve
from trainables.methods.gramian.rows import Rows, Stages, TaskGradients, precision_of, trainable

Scale = Literal["sum", "mean"]


class GradientConfig(MethodConfig):
    """Fields of all methods that see the gradient of each task."""

    grad_space: Literal["shared", "representation"] = "shared"
    """Which gradients are aggregated. ``shared``: those of the trunk's parameters, K backward passes.
    ``representation``: those of the features all decoders read, one backward pass; another algorithm, an upper bound of
    the first for MGDA (MGDA-UB). Papers: GradDrop and IMTL take the representation, MGDA does for large networks, the
    others the parameters; in comparisons on dense prediction (CAGrad's and Nash-MTL's code) all take the parameters."""
    decoder_grads: Literal["plain", "weighted"] = "plain"
    """What the decoders get. ``plain``: each the gradient of its own loss. ``weighted``: times the task's weight, as
    code that calls backward on the weighted sum of losses does."""
    scale: Scale = "sum"
    """Whether the update is on the scale of the ``sum`` or of the ``mean`` of the task gradients: K times apart. Adam
    hides it but for its epsilon, weight decay and clipping."""
    max_norm: float = Field(default=0.0, ge=0)
    """Largest norm of the shared parameters' gradient; 0 for any. FAMO's code takes 1 for all methods, Nash-MTL's for
    its own alone, which is the default there."""


class GramianConfig(GradientConfig):
    """Fields of methods that need only the inner products of the task gradients."""

    rows: Literal["kept", "streamed"] = "kept"
    """Where the shared parameters' task gradients are. ``kept``: in memory, all K of them, until they are recombined.
    ``streamed``: a stage of the backbone at a time, until their inner products are made; the update then takes one more
    backward pass, (3 + 2K)/3 forwards and backwards of gradient descent instead of (1 + 2K)/3, and instead of K times
    the parameters there are K gradients of the features. Other last bits."""

    @model_validator(mode="after")
    def _streams_parameters(self) -> Self:
        if self.rows == "streamed" and self.grad_space != "shared":
            raise ValueError("rows: 'streamed' is for grad_space 'shared'")
        return self


class GradientMethod(Method):
    """One forward, the gradient of every task, one aggregated update.

    A step with a gradient that is not finite is skipped, optimizer state included, and counted; a task with a zero
    gradient takes no part in the aggregation, and is counted.
    """

    Config: ClassVar[type[GradientConfig]]
    needs_representation: ClassVar[bool] = True
    native_scale: ClassVar[Scale] = "sum"
    """The scale that the formula itself has."""
    degree: ClassVar[int] = 1
    """The update is homogeneous of this degree in the gradients."""

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.skipped = 0
        self.fallbacks = 0
        self._rows: Rows | None = None

    def step(self, losses: Losses) -> StepLog:
        """One iteration: a forward, K backward passes through the trunk (one for the representation), a step."""
        forward = losses()
        # Taken one by one: through their stack, each loss would be a function of every decoder.
        values = [forward[task] for task in self.tasks]
        self.update.zero_grad()
        gradients = TaskGradients(self.update, self.objectives(values))
        # Its graph would live until the next forward.
        self.update.forget()
        shared, weights, info = self.aggregated(gradients)
        detached = torch.stack(values).detach()
        if info.finite:
            self._clip(shared)
            gradients.write(shared, weights.tolist() if self.config.decoder_grads == "weighted" else None)
            self.update.step()
            self.stepped(detached)
        else:
            self.skipped += 1
        self.fallbacks += int(info.fallback)
        return StepLog(
            losses=detached,
            scalars={
                "solver/residual": info.residual,
                "solver/iterations": float(info.iterations),
                "solver/fallbacks": float(self.fallbacks),
                "grads/inactive": float(info.inactive),
                "grads/conflicts": float(info.conflicts),
                "grads/skipped": float(self.skipped),
                **self.curves(weights),
            },
        )

    def objectives(self, losses: Sequence[Tensor]) -> Sequence[Tensor]:
        """What is differentiated for each task: its loss, unless a method scales it."""
        return losses

    def stepped(self, losses: Tensor) -> None:
        """Called after a step that was not skipped, with the detached losses (K,)."""

    def curves(self, weights: Array) -> dict[str, float]:
        """What else is worth a curve."""
        return {}

    def aggregated(self, gradients: TaskGradients) -> tuple[list[Tensor | None], Array, SolverInfo]:
        """The shared parameters' gradients, the weights (K,) for decoders that want them, and how it went."""
        if self.in_representation:
            rows = gradients.representation_rows()
        else:
            if self._rows is None:
                self._rows = Rows(len(self.tasks), trainable(self.update.shared), self.update.kernels)
            rows = self._rows
            gradients.shared_rows(rows)
        gramian, finite = self._to_host(self.inner_products(rows), gradients)
        if self.in_representation:
            # The processes hold different samples of one batch, whose mean loss gives each 1/W of its gradient.
            gramian = gramian / self.update.processes
        combined, weights, info = self.combine(rows, gramian if finite else np.full_like(gramian, np.nan))
        if not info.finite:
            return [], weights, info
        if self.in_representation:
            return gradients.through_trunk(combined[0]), weights, info
        return list(combined), weights, info

    @property
    def in_representation(self) -> bool:
        """Whether gradients are of the representation."""
        return bool(self.config.grad_space == "representation")

    def inner_products(self, rows: Rows) -> Tensor:
        """(K, K) float64 of the rows; not finite where they are not, and the step is then skipped."""
        return rows.gramian()

    def combine(self, rows: Rows, gramian: Array) -> tuple[list[Tensor], Array, SolverInfo]:
        """Aggregate ``rows``, whose inner products are ``gramian`` (K, K): one tensor per stack, weights, how it went.
        The tensors are not read where ``info.finite`` is false."""
        raise NotImplementedError

    def factor(self) -> float:
        """From the formula's own scale to the one asked for."""
        return scale_factor(self.native_scale, self.config.scale, len(self.tasks))

    def _to_host(self, gramian: Tensor, gradients: TaskGradients) -> tuple[Array, bool]:
        """The Gramian and whether the decoders' gradients are finite, in the step's only transfer from the device."""
        if self.in_representation:
            self.update.average([gramian])
        heads = [g for head in gradients.heads for g in head if g is not None]
        norm = torch.nn.utils.get_total_norm(heads) if heads else gramian.new_zeros(())
        numbers = torch.cat([gramian.reshape(-1), norm.double().reshape(1).to(gramian.device)]).cpu().numpy()
        # Rounding that differs between machines must not part the processes.
        numbers = self.update.together.decided(numbers)
        return numbers[:-1].reshape(gramian.shape), bool(np.isfinite(numbers[-1]))

    def _clip(self, shared: Sequence[Tensor | None]) -> None:
        if self.config.max_norm > 0.0:
            clip([g for g in shared if g is not None], self.config.max_norm)

    def state_dict(self) -> dict[str, Any]:
        """The generator and the counts."""
        return {**super().state_dict(), "skipped": self.skipped, "fallbacks": self.fallbacks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.skipped = state["skipped"]
        self.fallbacks = state["fallbacks"]

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """One forward, K backwards (one for the representation), one step."""
        return 1.0, 1.0 if config.grad_space == "representation" else float(len(tasks)), 1.0


class GramianMethod(GradientMethod):
    """A method whose update is ``d = sum_k w_k g_k`` with weights that depend on the inner products alone."""

    Config: ClassVar[type[GramianConfig]]

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self._stages = Stages(len(self.tasks), update.kernels)

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """Weights (K,) in the formula's own scale, and how it went; raises nothing.

        Args:
            config: of the method.
            gramian: (K, K) inner products of the task gradients.
            generator: of the draws, for methods that make some.
            epsilon: relative rounding of the entries of ``gramian``; of float64 where not given.
        """
        raise NotImplementedError

    def curves(self, weights: Array) -> dict[str, float]:
        """``weights/<task>``: the coefficient of the task's gradient, before any clipping."""
        return dict(zip((f"weights/{task}" for task in self.tasks), weights.tolist(), strict=True))

    def combine(self, rows: Rows, gramian: Array) -> tuple[list[Tensor], Array, SolverInfo]:
        """``sum_k w_k row_k``."""
        weights, info = self.weigh(gramian, rows.precision)
        return (rows.combine(torch.from_numpy(weights)) if info.finite else []), weights, info

    def aggregated(self, gradients: TaskGradients) -> tuple[list[Tensor | None], Array, SolverInfo]:
        """As the base, or with streamed rows: their Gramian, then one backward pass of the weighted sum."""
        if self.config.rows == "kept":
            return super().aggregated(gradients)
        gramian, finite = self._to_host(gradients.streamed_gramian(self._stages), gradients)
        weights, info = self.weigh(gramian if finite else np.full_like(gramian, np.nan), precision_of(gradients.shared))
        if not info.finite:
            return [], weights, info
        return gradients.weighted(torch.from_numpy(weights)), weights, info

    def weigh(self, gramian: Array, precision: torch.dtype) -> tuple[Array, SolverInfo]:
        """The weights of one step in the scale asked for, ``precision`` that in which ``gramian`` was made."""
        weights, info = self.solve(self.config, gramian, self.generator, epsilon_of(precision))
        return weights * self.factor(), info

    @classmethod
    def cuts_trunk(cls, config: Any) -> bool:
        """With streamed rows."""
        return bool(config.rows == "streamed")

    @classmethod
    def expected_work(cls, config: Any, tasks: Sequence[str]) -> tuple[float, float, float]:
        """One more backward with streamed rows."""
        forwards, backwards, steps = super().expected_work(config, tasks)
        return forwards, backwards + (config.rows == "streamed"), steps


def no_weights(gramian: Array) -> SolverInfo:
    """What there is to say about gradients that are aggregated without weights."""
    return solve(gramian, lambda problem: (np.ones(problem.size), SolverInfo()))[1]


def scale_factor(native: Scale, wanted: Scale, tasks: int) -> float:
    """From one scale to the other."""
    if native == wanted:
        return 1.0
    return float(tasks) if wanted == "sum" else 1.0 / tasks


def clip(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Shorten, in place, all of them together to ``max_norm`` where they are longer."""
    if not gradients:
        return
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(list(gradients), (max_norm / norm.clamp_min(max_norm)))
