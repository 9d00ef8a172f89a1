"""Networks: timm backbones for images, message passing for molecules, decoders, the multi-task network of them."""

from trainables.models.backbones import VIT_PICO, BackboneSpec, backbone_spec, published
from trainables.models.base import BACKBONES, Backbone
from trainables.models.config import ModelConfig, check
from trainables.models.message_passing import MessagePassingSpec
from trainables.models.network import MultiTaskNetwork, build_network
from trainables.models.weights import weights_file, weights_fingerprint

for _spec in (
    VIT_PICO,
    published("vit_tiny", dim=192, depth=12, heads=3, base_parameters=5_486_592),
    published("vit_small", dim=384, depth=12, heads=6, base_parameters=21_590_016),
    published("vit_base", dim=768, depth=12, heads=12, base_parameters=85_647_360),
    published("vit_large", dim=1024, depth=24, heads=16, base_parameters=303_099_904),
    MessagePassingSpec("mpnn_small", dim=32, depth=3, radial=11),
    MessagePassingSpec("mpnn_base", dim=64, depth=3, radial=23),
):
    BACKBONES.register(_spec.name, _spec)

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneSpec",
    "MessagePassingSpec",
    "ModelConfig",
    "MultiTaskNetwork",
    "backbone_spec",
    "build_network",
    "check",
    "weights_file",
    "weights_fingerprint",
]
