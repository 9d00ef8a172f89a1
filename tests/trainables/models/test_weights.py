from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from trainables.config import load_trial, trial_key
from trainables.errors import WeightsError
from trainables.models import ModelConfig, MultiTaskNetwork, build_network, weights_file, weights_fingerprint

SHAPE = (32, 32)
State = dict[str, Tensor]


def pico(seed: int, pretrained: Path | bool = False, shape: tuple[int, int] = SHAPE) -> MultiTaskNetwork:
    path = str(pretrained) if isinstance(pretrained, Path) else pretrained
    return build_network(ModelConfig(backbone="vit_pico", pretrained=path), {"depth": 1}, shape, seed)


@pytest.fixture(scope="module")
def state() -> State:
    return {name: value.detach().clone() for name, value in pico(seed=1).trunk.state_dict().items()}


def save(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif path.suffix == ".npz":
        np.savez(path, **as_jax(content))
    else:
        torch.save(content, path)
    return path


def as_jax(state: State, depth: int = 4, heads: int = 3) -> dict[str, np.ndarray]:
    """The layout of the original JAX releases: kernels are (in, out), attention's are split by head."""
    a = {name: value.numpy() for name, value in state.items()}
    dim = a["cls_token"].shape[-1]
    out = {
        "cls": a["cls_token"],
        "embedding/kernel": a["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": a["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": a["pos_embed"],
        "Transformer/encoder_norm/scale": a["norm.weight"],
        "Transformer/encoder_norm/bias": a["norm.bias"],
        "head/kernel": np.zeros((dim, 10), np.float32),
        "head/bias": np.zeros(10, np.float32),
    }
    for i in range(depth):
        ours, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for number, layer in (("1", "LayerNorm_0"), ("2", "LayerNorm_2")):
            out[f"{theirs}/{layer}/scale"] = a[f"{ours}.norm{number}.weight"]
            out[f"{theirs}/{layer}/bias"] = a[f"{ours}.norm{number}.bias"]
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        weights, biases = np.split(a[f"{ours}.attn.qkv.weight"], 3), np.split(a[f"{ours}.attn.qkv.bias"], 3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}/{name}/kernel"] = weight.T.reshape(dim, heads, dim // heads)
            out[f"{attention}/{name}/bias"] = bias.reshape(heads, dim // heads)
        out[f"{attention}/out/kernel"] = a[f"{ours}.attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        out[f"{attention}/out/bias"] = a[f"{ours}.attn.proj.bias"]
        for number, layer in (("1", "Dense_0"), ("2", "Dense_1")):
            out[f"{theirs}/MlpBlock_3/{layer}/kernel"] = a[f"{ours}.mlp.fc{number}.weight"].T
            out[f"{theirs}/MlpBlock_3/{layer}/bias"] = a[f"{ours}.mlp.fc{number}.bias"]
    return out


def assert_trunk_is(network: MultiTaskNetwork, state: State) -> None:
    loaded = network.trunk.state_dict()
    assert loaded.keys() == state.keys()
    assert [name for name in loaded if not torch.equal(loaded[name], state[name])] == []


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".npz"])
def test_round_trip(tmp_path: Path, state: State, suffix: str) -> None:
    network = pico(seed=2, pretrained=save(tmp_path / f"weights{suffix}", state))
    assert_trunk_is(network, state)
    assert torch.equal(network.decoders["depth"].weight, pico(seed=2).decoders["depth"].weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {**s, "head.weight": torch.ones(10, 96), "head.bias": torch.ones(10)},
        lambda s: {f"fc_{k}" if k.startswith("norm.") else k: v for k, v in s.items()},
        lambda s: {**s, "fc_norm.weight": torch.ones(96)},
        lambda s: {k: v.double() for k, v in s.items()},
    ],
    ids=["state_dict", "model", "classifier", "norm named fc_norm", "both norms", "float64"],
)
def test_forms_that_checkpoints_come_in(tmp_path: Path, state: State, change: Callable[[State], Any]) -> None:
    assert_trunk_is(pico(seed=2, pretrained=save(tmp_path / "weights.pth", change(state))), state)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (16, 24)])
def test_position_embedding_is_resized_bicubically(
    tmp_path: Path, state: State, suffix: str, shape: tuple[int, int]
) -> None:
    network = pico(seed=2, pretrained=save(tmp_path / f"weights{suffix}", state), shape=shape)
    loaded = network.trunk.state_dict()
    rows, columns = shape[0] // 8, shape[1] // 8
    grid = state["pos_embed"][:, 1:].reshape(1, 4, 4, 96).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(loaded["pos_embed"][:, 1:], expected.flatten(2).transpose(1, 2))
    assert torch.equal(loaded["pos_embed"][:, :1], state["pos_embed"][:, :1])
    assert torch.equal(loaded["blocks.3.mlp.fc2.weight"], state["blocks.3.mlp.fc2.weight"])
    assert network(torch.zeros(1, 3, *shape))["depth"].shape == (1, 1, *shape)


@pytest.mark.parametrize(
    ("suffix", "classifier"),
    [
        (".npz", "head/kernel, head/bias"),
        (".safetensors", "head.bias, head.weight"),
        (".pth", "head.weight, head.bias"),
    ],
)
def test_what_was_loaded_skipped_and_resized_is_logged(
    tmp_path: Path, state: State, suffix: str, classifier: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The JAX layout always has a classifier.
    head = {} if suffix == ".npz" else {"head.weight": torch.ones(10, 96), "head.bias": torch.ones(10)}
    path = save(tmp_path / f"weights{suffix}", {**state, **head})
    with caplog.at_level("INFO", "trainables.models.weights"):
        pico(seed=2, pretrained=path, shape=(48, 80))
    assert caplog.messages == [
        f"{path}: loaded {len(state)} tensors, skipped {classifier}, resized pos_embed (1, 17, 96) to (1, 61, 96)"
    ]


def test_nothing_skipped_or_resized_is_logged_too(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "trainables.models.weights"):
        pico(seed=2, pretrained=save(tmp_path / "weights.pth", state))
    assert caplog.messages[0].endswith(f": loaded {len(state)} tensors, skipped nothing, resized nothing")


def test_weights_and_not_their_place_are_part_of_the_trial_key(tmp_path: Path, state: State) -> None:
    (tmp_path / "elsewhere").mkdir()
    one, moved = (save(folder / "weights.pth", state) for folder in (tmp_path, tmp_path / "elsewhere"))
    other = save(tmp_path / "other.pth", {**state, "norm.bias": state["norm.bias"] + 1})
    keys = [
        trial_key(load_trial({"model": {"backbone": "vit_pico", "pretrained": str(path)}}))
        for path in (one, moved, other)
    ]
    assert keys[0] == keys[1] != keys[2]
    assert trial_key(load_trial({"model": {"backbone": "vit_pico"}})) not in keys


def test_no_weights_asked_for() -> None:
    assert weights_file(ModelConfig()) is None
    assert weights_fingerprint(ModelConfig()) is None


def test_fingerprint_is_of_the_bytes(tmp_path: Path, state: State) -> None:
    path = save(tmp_path / "weights.safetensors", state)
    config = ModelConfig(backbone="vit_pico", pretrained=str(path))
    first = weights_fingerprint(config)
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    save(path, {**state, "head.bias": torch.ones(4)})
    assert weights_fingerprint(config) == hashlib.sha256(path.read_bytes()).hexdigest() != first


def test_home_folder_is_expanded(tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = save(tmp_path / "weights.safetensors", state)
    assert weights_file(ModelConfig(pretrained="~/weights.safetensors")) == path


class Harmful:
    """Its pickle writes a file where it is loaded with code allowed."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def wrong_files(folder: Path, state: State) -> dict[str, Path]:
    without = {name: value for name, value in state.items() if name not in ("norm.bias", "blocks.3.norm1.bias")}
    wider = build_network(ModelConfig(backbone="timm:test_vit"), {"depth": 1}, SHAPE, 0).trunk.state_dict()
    (folder / "text.txt").write_text("weights")
    (folder / "folder.pth").mkdir()
    for suffix in ("safetensors", "pth", "npz"):
        (folder / f"garbage.{suffix}").write_bytes(bytes(range(256)) * 4)
        (folder / f"empty.{suffix}").write_bytes(b"")
    np.save(folder / "array.npy", np.zeros(3))
    (folder / "array.npy").rename(folder / "array.npz")
    np.savez(folder / "unrelated.npz", x=np.zeros(3))
    deeper = as_jax(state)
    np.savez(folder / "deeper.npz", **deeper, **{"Transformer/encoderblock_4/LayerNorm_0/scale": np.zeros(96)})
    shallower = {name: value for name, value in deeper.items() if "encoderblock_3" not in name}
    np.savez(folder / "shallower.npz", **shallower)
    half = {**state, "patch_embed.proj.weight": torch.zeros(96, 3, 16, 16)}
    return {
        "absent.pth": folder / "absent.pth",
        **{name: folder / name for name in ("text.txt", "folder.pth", "array.npz", "unrelated.npz")},
        **{
            f"{kind}.{suffix}": folder / f"{kind}.{suffix}"
            for kind in ("garbage", "empty")
            for suffix in ("safetensors", "pth", "npz")
        },
        "deeper.npz": folder / "deeper.npz",
        "shallower.npz": folder / "shallower.npz",
        "code.pth": save(folder / "code.pth", {"x": Harmful(folder / "harmed")}),
        "list.pth": save(folder / "list.pth", [1, 2]),
        "numbers.pth": save(folder / "numbers.pth", {"a": 1}),
        "nothing.pth": save(folder / "nothing.pth", {}),
        "missing.pth": save(folder / "missing.pth", without),
        "extra.pth": save(folder / "extra.pth", {**state, "blocks.4.norm1.bias": torch.zeros(96)}),
        "other.pth": save(folder / "other.pth", wider),
        "shape.pth": save(folder / "shape.pth", {**state, "norm.bias": torch.zeros(95)}),
        "positions.pth": save(folder / "positions.pth", {**state, "pos_embed": torch.zeros(1, 8, 96)}),
        "flat.pth": save(folder / "flat.pth", {**state, "pos_embed": torch.zeros(8)}),
        "patches.pth": save(folder / "patches.pth", half),
    }


MESSAGES = {
    "absent.pth": "no such file",
    "text.txt": r"a file ending in \.safetensors, \.pth, \.pt, \.bin, \.npz is wanted",
    "folder.pth": "no such file",
    "array.npz": "not a readable weight file: it is not an .npz archive",
    "unrelated.npz": "it holds no position embedding",
    "garbage.safetensors": "not a readable weight file",
    "garbage.pth": "not a readable weight file",
    "garbage.npz": "not a readable weight file: it is not an .npz archive",
    "empty.safetensors": "not a readable weight file",
    "empty.pth": "not a readable weight file: it is empty or cut short",
    "empty.npz": "not a readable weight file",
    "deeper.npz": "more than the 4 blocks of vit_pico",
    "shallower.npz": "encoderblock_3",
    "code.pth": "it holds more than tensors",
    "list.pth": "no mapping from name to tensor",
    "numbers.pth": "no mapping from name to tensor",
    "nothing.pth": r"'cls_token' is missing and \d+ more",
    "missing.pth": r"not weights of vit_pico: 'blocks\.3\.norm1\.bias' is missing and 1 more",
    "extra.pth": r"not weights of vit_pico: 'blocks\.4\.norm1\.bias' is not part of it",
    "other.pth": r"its patches are 16x16, not 8x8",
    "shape.pth": r"'norm\.bias' is \(95,\), \(96,\) is wanted",
    "positions.pth": "not weights of vit_pico",
    "flat.pth": "not weights of vit_pico",
    "patches.pth": "its patches are 16x16, not 8x8",
}


def test_wrong_files_are_told_in_one_line(tmp_path: Path, state: State) -> None:
    files = wrong_files(tmp_path, state)
    assert files.keys() == MESSAGES.keys()
    for name, path in files.items():
        with pytest.raises(WeightsError, match=MESSAGES[name]) as caught:
            pico(seed=0, pretrained=path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert not (tmp_path / "harmed").exists()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty Hugging Face cache; any attempt to reach the network fails the test."""
    from huggingface_hub import constants

    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield tmp_path / "hub"
    assert attempts == []


@pytest.mark.parametrize("backbone", ["vit_tiny", "vit_large"])
def test_absent_published_weights_are_told_without_the_network(cache: Path, backbone: str) -> None:
    config = ModelConfig(backbone=backbone, pretrained=True)
    repo = f"timm/{backbone}_patch16_384.augreg_in21k_ft_in1k"
    for ask in (weights_fingerprint, lambda c: build_network(c, {"depth": 1}, SHAPE, 0)):
        with pytest.raises(
            WeightsError, match=rf"^model\.pretrained: {repo} is not in the Hugging Face cache"
        ) as caught:
            ask(config)
        assert str(cache) in str(caught.value)
        assert f"hf download {repo} model.safetensors" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_no_weights_are_published_for_pico(cache: Path) -> None:
    with pytest.raises(WeightsError, match="no weights are published for vit_pico"):
        weights_fingerprint(ModelConfig(backbone="vit_pico", pretrained=True))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_published_weights_come_from_the_cache(cache: Path, name: str) -> None:
    source = build_network(ModelConfig(backbone="vit_tiny"), {"depth": 1}, (64, 64), 1).trunk.state_dict()
    repo = cache / "models--timm--vit_tiny_patch16_384.augreg_in21k_ft_in1k"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(revision)
    (repo / "snapshots" / revision).mkdir(parents=True)
    path = save(repo / "snapshots" / revision / name, {**source, "head.bias": torch.zeros(1000)})
    config = ModelConfig(backbone="vit_tiny", pretrained=True)
    assert weights_file(config) == path
    assert weights_fingerprint(config) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_trunk_is(build_network(config, {"depth": 1}, (64, 64), 2), source)
