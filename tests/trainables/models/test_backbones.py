from __future__ import annotations

import pytest
import torch

from trainables.errors import ConfigError
from trainables.models.backbones import BACKBONES, BackboneSpec, backbone_spec, build_trunk

NAMES = ("vit_pico", "vit_tiny", "vit_small", "vit_base", "vit_large")
ANY = [*NAMES, "timm:test_vit", "timm:vit_medium_patch16_gap_256", "timm:deit3_small_patch16_224"]


def meta(spec: BackboneSpec, image_shape: tuple[int, int]) -> torch.nn.Module:
    with torch.device("meta"):
        return build_trunk(spec, image_shape)


def shape_for(spec: BackboneSpec) -> tuple[int, int]:
    return 3 * spec.patch, 5 * spec.patch


def test_the_named_backbones() -> None:
    assert tuple(BACKBONES) == (*NAMES, "mpnn_small", "mpnn_base")
    assert [name for name, spec in BACKBONES.items() if spec.inputs == "images"] == list(NAMES)


@pytest.mark.parametrize("name", ANY)
def test_spec_is_what_timm_builds(name: str) -> None:
    spec = backbone_spec(name)
    shape = shape_for(spec)
    trunk = meta(spec, shape)
    assert spec.name == name
    assert len(trunk.blocks) == spec.depth
    assert trunk.embed_dim == spec.dim
    assert trunk.blocks[0].attn.num_heads == spec.heads
    assert trunk.patch_embed.patch_size == (spec.patch, spec.patch)
    assert trunk.patch_embed.grid_size == spec.grid(shape) == (3, 5)
    assert sum(p.numel() for p in trunk.parameters()) == spec.parameter_count(shape)


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_tiny", 9.74), ("vit_small", 30.08), ("vit_base", 102.60), ("vit_large", 325.69)]
)
def test_sizes_against_counts_measured_with_the_imagenet_21k_classifier(name: str, millions: float) -> None:
    spec = BACKBONES[name]
    classifier = (spec.dim + 1) * 21_843
    assert round((spec.parameter_count((224, 224)) + classifier) / 1e6, 2) == millions


def test_pico_is_small() -> None:
    assert BACKBONES["vit_pico"].parameter_count((64, 64)) == 324_192 < 1_000_000


@pytest.mark.parametrize("name", ANY)
def test_every_parameter_belongs_to_the_features(name: str) -> None:
    spec = backbone_spec(name)
    parts = {key.split(".")[0] for key, _ in meta(spec, shape_for(spec)).named_parameters()}
    assert parts <= {"cls_token", "reg_token", "pos_embed", "patch_embed", "blocks", "norm"}
    assert "norm" in parts


@pytest.mark.parametrize(
    ("depth", "blocks"), [(4, (1, 2, 3, 4)), (12, (3, 6, 9, 12)), (24, (6, 12, 18, 24)), (27, (6, 13, 20, 27))]
)
def test_features_are_read_after_each_quarter(depth: int, blocks: tuple[int, ...]) -> None:
    assert BackboneSpec("x", "x", 8, depth, 1, 4, 0).feature_blocks == blocks


def test_published_weights_have_a_repository() -> None:
    assert BACKBONES["vit_tiny"].repo == "timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k"
    assert BACKBONES["vit_pico"].repo is None
    assert backbone_spec("timm:vit_small_patch16_224.dino").repo == "timm/vit_small_patch16_224.dino"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vit_tinny",
            r"^model\.backbone: unknown backbone 'vit_tinny'; did you mean 'vit_tiny'\? \(allowed: mpnn_b",
        ),
        (
            "timm:vit_smal_patch16_224",
            r"^model\.backbone: .*'vit_smal_patch16_224'; did you mean 'timm:vit_small_patch16_224'",
        ),
        ("timm:resnet50", r"^model\.backbone: unknown timm vision transformer 'resnet50'"),
        ("timm:vit_small_patch16_224.dinno", r"^model\.backbone: .*'dinno'; did you mean 'dino'\?"),
        ("timm:", r"^model\.backbone: unknown timm vision transformer ''"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        backbone_spec(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(64, 60), (60, 64), (0, 64), (64, -16), (8, 8)])
def test_images_that_the_patch_does_not_divide(shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=rf"vit_tiny .* 16x16 pixels; {shape[0]}x{shape[1]} is not a multiple"):
        build_trunk(BACKBONES["vit_tiny"], shape)


@pytest.mark.parametrize(
    ("name", "rate"), [("vit_pico", 0.15), ("vit_tiny", 0.15), ("vit_pico", 0.3), ("vit_pico", 0.0)]
)
def test_drop_path_grows_linearly_from_zero(name: str, rate: float) -> None:
    spec = BACKBONES[name]
    with torch.device("meta"):
        trunk = build_trunk(spec, (64, 64), rate)
    for branch in ("drop_path1", "drop_path2"):
        rates = [getattr(getattr(block, branch), "drop_prob", 0.0) for block in trunk.blocks]
        assert rates == pytest.approx([rate * block / (spec.depth - 1) for block in range(spec.depth)])
