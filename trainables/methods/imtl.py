"""IMTL: equal projections onto all task gradients (IMTL-G), losses brought to one scale (IMTL-L), or both (IMTL)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.methods.base import Update
from trainables.methods.gramian import Array, GramianConfig, GramianMethod, Scale, SolverInfo, imtl_g, solve
from trainables.methods.weighting import LARGEST_LOG_SCALE, TaskNumbers


class IMTLGConfig(GramianConfig):
    """The fields of ``imtl_g``."""

    name: Literal["imtl_g"] = "imtl_g"
    decoder_grads: Literal["plain", "weighted"] = "plain"
    """What the decoders get. Paper (algorithm 1), LibMTL: ``plain``. Nash-MTL's and FAMO's code: ``weighted``."""
    scale: Scale = "mean"
    """Paper: ``mean``, weights of sum 1."""


class IMTLG(GramianMethod):
    """The update with equal projections onto all task gradients, its weights of sum 1 (they may be negative).

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1 (no code by the authors). It is
    what most comparisons call IMTL; the paper's IMTL is ``imtl``. The paper takes the gradients of the representation,
    comparisons those of the shared parameters, as is the default here.
    """

    Config: ClassVar[type[IMTLGConfig]] = IMTLGConfig
    native_scale: ClassVar[Scale] = "mean"

    @classmethod
    def solve(
        cls, config: Any, gramian: Array | Tensor, generator: torch.Generator, epsilon: float | None = None
    ) -> tuple[Array, SolverInfo]:
        """Weights of sum 1; see :func:`trainables.methods.gramian.imtl_g`."""
        return solve(gramian, imtl_g, epsilon=epsilon)


class IMTLConfig(IMTLGConfig):
    """The fields of ``imtl``."""

    name: Literal["imtl"] = "imtl"  # type: ignore[assignment]
    initial: float = Field(default=0.0, ge=-LARGEST_LOG_SCALE, le=LARGEST_LOG_SCALE)
    """Every log-scale s at first. LibMTL: 0."""
    lr: Annotated[float, Field(gt=0)] | Literal["model"] = "model"
    """Learning rate of the Adam that trains every s. ``model``: the shared parameters' at each step; paper and LibMTL
    train s as one more parameter of the network."""


class IMTL(IMTLG):
    """The hybrid: IMTL-G on the gradients of the scaled losses ``e^s_k L_k - s_k``, every s_k trained along.

    Source: Liu et al., ICLR 2021, section 3.3 and algorithm 1; LibMTL's "IMTL". Decoders get the gradient of the scaled
    loss, and s_k its derivative ``e^s_k L_k - 1``, neither weighted: scaled losses are driven towards 1.
    """

    Config: ClassVar[type[IMTLConfig]] = IMTLConfig

    def __init__(self, config: Any, update: Update, seed: int) -> None:
        super().__init__(config, update, seed)
        self.scales = TaskNumbers(len(self.tasks), config.initial, limit=LARGEST_LOG_SCALE)

    def objectives(self, losses: Sequence[Tensor]) -> Sequence[Tensor]:
        """``e^s_k L_k``; the term -s_k has no gradient in the network."""
        factors = self.scales.values.exp().tolist()
        return [factor * loss for factor, loss in zip(factors, losses, strict=True)]

    def stepped(self, losses: Tensor) -> None:
        """One step of every s_k."""
        mean = losses.double()
        self.update.average([mean])
        mean = mean.cpu()
        lr = self.config.lr
        if lr == "model":
            lr = float(self.update.optimizer.param_groups[0]["lr"])
        # A loss of exactly 0 is a batch without a label for the task: nothing to learn its scale from.
        self.scales.descend(torch.where(mean == 0, 0.0, self.scales.values.exp() * mean - 1.0), lr)

    def state_dict(self) -> dict[str, Any]:
        """As the base, and the log-scales with the moments of their optimizer."""
        return {**super().state_dict(), "scales": self.scales.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.scales.load_state_dict(state["scales"])
