"""The multi-task network: one trunk shared by all tasks, one decoder for each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.errors import ConfigError
from trainables.models.backbones import backbone_spec
from trainables.models.base import Backbone
from trainables.models.config import ModelConfig
from trainables.models.weights import load_weights, weights_file


class MultiTaskNetwork(nn.Module):
    """A trunk whose features feed one 1x1 convolution per task; of images, upsampled to their size.

    With a vision transformer, whose features are its tokens at four depths, the network of section 5 and of the
    released code of *Selective Task Group Updates for Multi-Task Optimization*.

    Attributes:
        trunk: what the tasks share, as the backbone builds it.
        decoders: by task, each a 1x1 convolution from the backbone's channels to the task's.
        spec: the backbone.
        image_shape: of one input: (H, W) of an image in pixels, (atoms, numbers of an atom) of a molecule.
    """

    def __init__(
        self, trunk: nn.Module, decoders: Mapping[str, nn.Module], spec: Backbone, image_shape: tuple[int, int]
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.decoders = nn.ModuleDict(dict(decoders))
        self.spec = spec
        self.image_shape = image_shape
        self.upsample = spec.upsample(image_shape)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names, in the order they were given."""
        return tuple(self.decoders)

    def features(self, inputs: Tensor) -> Tensor:
        """Images (B, 3, H, W) or molecules (B, N, F) to (B, channels, h, w), what the decoders read."""
        return self.spec.features(self.trunk, inputs, self.image_shape)

    def stages(self) -> list[nn.Module]:
        """Modules of the trunk after which its graph may be cut, in the order of the forward."""
        return list(self.spec.stages(self.trunk))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Images or molecules to the prediction (B, C, H, W) of every task; H and W are 1 for molecules."""
        return self.decode(self.features(inputs))

    def decode(self, features: Tensor) -> dict[str, Tensor]:
        """What :meth:`features` gave to the prediction (B, C, H, W) of every task; nothing is shared between them."""
        return {task: self.upsample(decoder(features)) for task, decoder in self.decoders.items()}

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters of the trunk. All of them get a gradient from any task."""
        return list(self.trunk.parameters())

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters of one task's decoder. No other task's loss gives them a gradient."""
        return list(self.decoders[task].parameters())


def build_network(
    config: ModelConfig, tasks: Mapping[str, int], image_shape: tuple[int, int], seed: int
) -> MultiTaskNetwork:
    """Build the network in training mode on the CPU; equal arguments give equal bits.

    The trunk's weights depend on ``seed`` and not on the tasks, each decoder's on ``seed`` and its task's name: a
    single-task network starts where the multi-task network of the same seed does. The caller's random generators are
    left as they were.

    Args:
        config: the backbone, where its weights come from, the decoder.
        tasks: channels of each task's prediction, by task.
        image_shape: of one input: (H, W) of an image in pixels, (atoms, numbers of an atom) of a molecule.
        seed: of the random weights.

    Raises:
        ConfigError: the backbone is unknown, its patch does not divide the image, or there is no task.
        WeightsError: pretrained weights were asked for and are absent or do not fit.
    """
    spec = backbone_spec(config.backbone)
    spec.grid(image_shape)
    if not tasks:
        raise ConfigError("tasks: at least one task is wanted, got none")
    path = weights_file(config)
    decoder = _DECODERS[config.decoder]
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed, which would seed the CUDA generators of the caller too.
        torch.default_generator.manual_seed(_stream(seed, "trunk"))
        trunk = spec.build(image_shape, config.drop_path)
        if path is not None:
            load_weights(trunk, spec, path)
        decoders = {
            task: decoder(spec.feature_channels, channels, _stream(seed, "decoder", task))
            for task, channels in tasks.items()
        }
        return MultiTaskNetwork(trunk, decoders, spec, image_shape).train()


def _conv1x1(inputs: int, outputs: int, seed: int) -> nn.Conv2d:
    """A 1x1 convolution, uniform within 1/sqrt(inputs) as PyTorch initialises it, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    convolution = nn.utils.skip_init(nn.Conv2d, inputs, outputs, kernel_size=1)
    bound = 1.0 / math.sqrt(inputs)
    nn.init.uniform_(convolution.weight, -bound, bound, generator=generator)
    nn.init.uniform_(convolution.bias, -bound, bound, generator=generator)
    return convolution


_DECODERS = {"conv1x1": _conv1x1}


def _stream(seed: int, *names: str) -> int:
    """A seed for one named part, unrelated to those of other parts, the same in every process."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
