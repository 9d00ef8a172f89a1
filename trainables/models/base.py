"""What a backbone is to the network: known without building it, built on demand, read for features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from trainables.data.base import InputKind
from trainables.registry import Registry, having


class Backbone(Protocol):
    """The trunk that tasks share, before it is built.

    ``shape`` is of one input: (H, W) of an image in pixels, (atoms, numbers of an atom) of a molecule.
    """

    @property
    def name(self) -> str:
        """As a config writes it."""
        ...

    @property
    def inputs(self) -> InputKind:
        """What it reads."""
        ...

    @property
    def repo(self) -> str | None:
        """Hugging Face repository of the published weights; ``None`` where there are none."""
        ...

    @property
    def feature_channels(self) -> int:
        """Channels of the features."""
        ...

    @property
    def about(self) -> str:
        """One line for lists."""
        ...

    def grid(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the features; raises :class:`trainables.errors.ConfigError` for a shape it cannot take."""
        ...

    def parameter_count(self, shape: tuple[int, int]) -> int:
        """Parameters of the trunk."""
        ...

    def operations(self, shape: tuple[int, int]) -> float:
        """About how many multiplications one forward of one input takes."""
        ...

    def build(self, shape: tuple[int, int], drop_path: float) -> nn.Module:
        """The trunk, randomly initialised from torch's default generator.

        ``drop_path`` is the rate of stochastic depth at the last block; it grows linearly from 0 at the first.
        """
        ...

    def features(self, trunk: nn.Module, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        """A batch of inputs through a trunk that :meth:`build` gave: (B, channels, h, w)."""
        ...

    def stages(self, trunk: nn.Module) -> Sequence[nn.Module]:
        """Modules of a trunk in the order in which :meth:`features` passes them, each giving one tensor: after any of
        them the graph may be cut. No parameter serves on both sides of one; the more evenly they are shared out, the
        less memory streamed task gradients take. May be empty."""
        ...

    def upsample(self, shape: tuple[int, int]) -> nn.Module:
        """From (B, C, h, w), what a decoder makes of the features, to the size of a prediction."""
        ...


_MEMBERS = (
    *("inputs", "repo", "feature_channels", "about"),
    *("grid", "parameter_count", "operations", "build", "features", "stages", "upsample"),
)

BACKBONES: Registry[Backbone] = Registry("backbone", "mtl_study.backbones", having(*_MEMBERS))
"""The named backbones. Filled in the package's ``__init__``."""
