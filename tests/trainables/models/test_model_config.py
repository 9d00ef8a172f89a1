from __future__ import annotations

import pytest

from trainables.errors import ConfigError
from trainables.models import ModelConfig, check


def test_defaults_are_the_papers() -> None:
    config = ModelConfig.parse({})
    assert config.to_dict() == {"backbone": "vit_tiny", "pretrained": False, "drop_path": 0.15, "decoder": "conv1x1"}
    assert config.canonical() == {}


@pytest.mark.parametrize("pretrained", [True, False, "weights.safetensors"])
def test_pretrained_is_a_switch_or_a_path(pretrained: bool | str) -> None:
    parsed = ModelConfig.parse({"pretrained": pretrained}).pretrained
    assert (type(parsed), parsed) == (type(pretrained), pretrained)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbon": "vit_tiny"}, r"unknown field 'backbon'; did you mean 'backbone'"),
        ({"drop_path": 1.0}, r"model\.drop_path: should be less than 1"),
        ({"drop_path": -0.1}, r"model\.drop_path: should be greater than or equal to 0"),
        ({"decoder": "mlp"}, r"model\.decoder: should be 'conv1x1'"),
        ({"pretrained": 3}, r"model\.pretrained: true, false or the path of a weight file is wanted, got 3"),
        ({"pretrained": ""}, r"model\.pretrained: true, false or the path"),
    ],
)
def test_wrong_fields_are_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelConfig.parse(fields, "model")
    assert "\n" not in str(caught.value)


def test_check_gives_the_backbone() -> None:
    assert check(ModelConfig(backbone="vit_large"), (448, 576)).grid((448, 576)) == (28, 36)


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (ModelConfig(backbone="vit_huge"), (64, 64), "unknown backbone 'vit_huge'"),
        (ModelConfig(), (64, 72), "64x72 is not a multiple"),
    ],
)
def test_check_refuses_early(config: ModelConfig, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config, shape)
