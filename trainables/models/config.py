"""What a trial config says about its network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from trainables.data.base import InputKind
from trainables.errors import ConfigError
from trainables.models.backbones import backbone_spec
from trainables.models.base import BACKBONES, Backbone
from trainables.settings import Settings


class ModelConfig(Settings):
    """The network: one backbone shared by all tasks and one decoder for each task."""

    backbone: str = "vit_tiny"
    """A registered backbone (for images `vit_pico`, `vit_tiny`, `vit_small`, `vit_base`, `vit_large`; for molecules
    `mpnn_small`, `mpnn_base`) or `timm:NAME`."""

    pretrained: bool | str = False
    """`false`: random weights. `true`: the published ones from this machine's Hugging Face cache. Text: path of a
    weight file (`.safetensors`, `.pth`, `.pt`, `.bin` or `.npz`). Nothing is ever downloaded."""

    drop_path: float = Field(default=0.15, ge=0.0, lt=1.0)
    """Rate of stochastic depth at the last block; it grows linearly from 0 at the first."""

    decoder: Literal["conv1x1"] = "conv1x1"
    """What reads the features: `conv1x1`, one 1x1 convolution."""

    @field_validator("pretrained", mode="before")
    @classmethod
    def _switch_or_path(cls, value: Any) -> Any:
        if not isinstance(value, (bool, str)) or value == "":
            raise ValueError("true, false or the path of a weight file is wanted")
        return value


def check(config: ModelConfig, image_shape: tuple[int, int], inputs: InputKind = "images") -> Backbone:
    """Find out, without building it, whether the network can be built for a data set's inputs; give its backbone.

    Weight files are checked by :func:`trainables.models.weights.weights_fingerprint`.

    Args:
        config: of the network.
        image_shape: of one input: (H, W) of an image in pixels, (atoms, numbers of an atom) of a molecule.
        inputs: what the data set gives.

    Raises:
        ConfigError: the backbone is unknown, reads other inputs, or its patch does not divide the image.
    """
    spec = backbone_spec(config.backbone)
    if spec.inputs != inputs:
        fitting = ", ".join(name for name, other in BACKBONES.items() if other.inputs == inputs)
        raise ConfigError(
            f"model.backbone: {spec.name} reads {spec.inputs}, the data set gives {inputs} (allowed: {fitting})"
        )
    spec.grid(image_shape)
    return spec
