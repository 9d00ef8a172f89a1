from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trainables.errors import ConfigError
from trainables.models import ModelConfig, MultiTaskNetwork, build_network
from trainables.models.upsample import BilinearUpsample

PICO = ModelConfig(backbone="vit_pico")
TASKS = {"segmentation": 7, "depth": 1, "normal": 3}


def images(batch: int = 2, shape: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return torch.randn(batch, 3, *shape, generator=torch.Generator().manual_seed(5))


def build(tasks: dict[str, int] | None = None, seed: int = 0, shape: tuple[int, int] = (64, 64)) -> MultiTaskNetwork:
    return build_network(PICO, tasks or TASKS, shape, seed)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vit_pico", (64, 64)),
        ("vit_pico", (24, 40)),
        ("vit_tiny", (64, 96)),
        ("timm:test_vit", (48, 32)),  # six blocks
        ("timm:vit_xsmall_patch16_clip_224", (32, 48)),  # a LayerNorm before the blocks, ten blocks
        ("timm:test_vit2", (32, 48)),  # register tokens
    ],
)
def test_shapes_and_gradients(name: str, shape: tuple[int, int]) -> None:
    network = build_network(ModelConfig(backbone=name, drop_path=0.0), TASKS, shape, seed=0)
    predictions = network(images(2, shape))
    assert {task: tuple(p.shape) for task, p in predictions.items()} == {t: (2, c, *shape) for t, c in TASKS.items()}
    assert all(p.dtype == torch.float32 for p in predictions.values())
    assert network.features(images(2, shape)).shape == (2, 4 * network.spec.dim, *network.spec.grid(shape))

    predictions["depth"].square().mean().backward()
    idle = [n for n, p in network.trunk.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert all(p.grad is not None and p.grad.any() for p in network.task_parameters("depth"))
    for other in ("segmentation", "normal"):
        assert [p.grad for p in network.task_parameters(other)] == [None, None]


@pytest.mark.parametrize("name", ["vit_small", "vit_base", "vit_large"])
def test_larger_backbones_on_the_meta_device(name: str) -> None:
    from trainables.models.backbones import BACKBONES, build_trunk, trunk_levels

    with torch.device("meta"):
        levels = trunk_levels(build_trunk(BACKBONES[name], (448, 576)), BACKBONES[name], torch.empty(1, 3, 448, 576))
    assert [tuple(level.shape) for level in levels] == [(1, 28 * 36, BACKBONES[name].dim)] * 4


@pytest.mark.parametrize("name", ["vit_tiny", "vit_pico"])
def test_features_are_the_tokens_of_the_blocks(name: str) -> None:
    network = build_network(ModelConfig(backbone=name), {"depth": 1}, (48, 32), seed=3).eval()
    x = images(2, (48, 32))
    tokens: dict[int, torch.Tensor] = {}
    for number, block in enumerate(network.trunk.blocks, start=1):
        block.register_forward_hook(lambda _m, _i, out, number=number: tokens.__setitem__(number, out))
    features = network.features(x)
    quarter = network.spec.depth // 4
    rows, columns = network.spec.grid((48, 32))
    levels = [tokens[quarter], tokens[2 * quarter], tokens[3 * quarter], network.trunk.norm(tokens[4 * quarter])]
    for level, part in zip(levels, features.chunk(4, dim=1), strict=True):
        for row in range(rows):
            for column in range(columns):
                assert torch.equal(part[:, :, row, column], level[:, 1 + row * columns + column])


def test_features_equal_timms_own() -> None:
    network = build_network(ModelConfig(backbone="vit_tiny"), {"depth": 1}, (48, 32), seed=3).eval()
    x = images(2, (48, 32))
    raw = network.trunk.forward_intermediates(x, indices=[2, 5, 8], intermediates_only=True)
    last = network.trunk.forward_intermediates(x, indices=[11], norm=True, intermediates_only=True)
    assert torch.equal(network.features(x), torch.cat([*raw, *last], dim=1))


def test_prediction_is_the_convolution_upsampled() -> None:
    network = build().eval()
    features = network.features(images())
    for task, prediction in network(images()).items():
        expected = F.interpolate(network.decoders[task](features), size=(64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(prediction, expected)


@settings(max_examples=30, deadline=None)
@given(h=st.integers(1, 6), w=st.integers(1, 6), scale=st.sampled_from([1, 2, 8, 14, 16]))
def test_upsampling_is_bilinear(h: int, w: int, scale: int) -> None:
    generator = torch.Generator().manual_seed(h * 100 + w)
    x = torch.randn(2, 3, h, w, generator=generator, requires_grad=True)
    weight = torch.randn(2, 3, h * scale, w * scale, generator=generator)
    ours = BilinearUpsample((h, w), (h * scale, w * scale))(x)
    theirs = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    (ours_grad,) = torch.autograd.grad(ours, x, weight)
    (theirs_grad,) = torch.autograd.grad(theirs, x, weight)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-4, atol=1e-4)


def test_one_seed_one_network() -> None:
    assert same(build(seed=4), build(seed=4))
    a, b = build(seed=4), build(seed=5)
    assert not torch.equal(a.trunk.cls_token, b.trunk.cls_token)
    assert not torch.equal(a.trunk.blocks[0].attn.qkv.weight, b.trunk.blocks[0].attn.qkv.weight)
    assert not torch.equal(a.decoders["depth"].weight, b.decoders["depth"].weight)


def test_tasks_do_not_disturb_each_others_start() -> None:
    together, alone = build(), build({"normal": 3})
    assert same(together.trunk, alone.trunk)
    assert same(together.decoders["normal"], alone.decoders["normal"])
    reordered = build(dict(reversed(TASKS.items())))
    assert reordered.tasks == ("normal", "depth", "segmentation")
    assert all(same(together.decoders[task], reordered.decoders[task]) for task in TASKS)


def test_decoders_of_equal_size_start_apart() -> None:
    network = build({"a": 1, "b": 1})
    assert not torch.equal(network.decoders["a"].weight, network.decoders["b"].weight)


def test_decoders_start_uniform_within_the_inverse_root_of_their_inputs() -> None:
    convolution = build({"a": 200}).decoders["a"]
    bound = (4 * 96) ** -0.5
    for values in (convolution.weight, convolution.bias):
        assert values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_the_callers_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    build()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


def test_the_callers_generators_do_not_matter() -> None:
    torch.manual_seed(1)
    first = build()
    torch.manual_seed(2)
    assert same(first, build())


def test_parameters_are_shared_or_of_one_task() -> None:
    network = build()
    groups = [network.shared_parameters(), *(network.task_parameters(task) for task in network.tasks)]
    ids = [id(p) for group in groups for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in network.parameters()}
    assert sum(p.numel() for p in groups[0]) == network.spec.parameter_count((64, 64))
    assert sum(p.numel() for p in network.task_parameters("segmentation")) == 7 * (4 * 96 + 1)
    assert not any(key.startswith("upsample") for key in network.state_dict())


def test_training_drops_paths_and_evaluation_does_not() -> None:
    network = build()
    x = images(8)
    assert network.training
    assert not torch.equal(network(x)["depth"], network(x)["depth"])
    network.eval()
    assert torch.equal(network(x)["depth"], network(x)["depth"])


def test_copies() -> None:
    network = build()
    assert same(network, copy.deepcopy(network))
    other = build(seed=9)
    other.load_state_dict(network.state_dict())
    assert same(network, other)


def test_it_learns() -> None:
    network = build_network(ModelConfig(backbone="vit_pico", drop_path=0.0), {"blur": 1}, (32, 32), seed=0)
    x = images(4, (32, 32))
    target = F.avg_pool2d(x.mean(1, keepdim=True), 9, stride=1, padding=4)
    target = target / target.std()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        loss = F.mse_loss(network(x)["blur"], target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_no_task() -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        build_network(PICO, {}, (64, 64), seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu_and_repeats_itself() -> None:
    state = torch.cuda.get_rng_state()
    network = build_network(ModelConfig(backbone="vit_pico", drop_path=0.0), TASKS, (64, 64), seed=0)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    on_cpu = network(images())
    network.cuda()
    gradients = []
    for _ in range(2):
        network.zero_grad()
        predictions = network(images().cuda())
        torch.stack([p.square().mean() for p in predictions.values()]).sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for task in TASKS:
        torch.testing.assert_close(predictions[task].cpu(), on_cpu[task], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
