"""What a trial config says about its network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from trainables.models.backbones import BackboneSpec, backbone_spec
from trainables.settings import Settings


class ModelConfig(Settings):
    """The network: one backbone shared by all tasks and one decoder for each task."""

    backbone: str = "vit_tiny"
    """A registered backbone (`vit_pico`, `vit_tiny`, `vit_small`, `vit_base`, `vit_large`) or `timm:NAME`."""

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


def check(config: ModelConfig, image_shape: tuple[int, int]) -> BackboneSpec:
    """Find out, without building it, whether the network can be built for images of (H, W) pixels; give its backbone.

    Weight files are checked by :func:`trainables.models.weights.weights_fingerprint`.

    Raises:
        ConfigError: the backbone is unknown, or its patch does not divide the image.
    """
    spec = backbone_spec(config.backbone)
    spec.grid(image_shape)
    return spec
