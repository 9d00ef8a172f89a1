from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainables.errors import ConfigError, WeightsError
from trainables.models import BACKBONES, ModelConfig, build_network, check, weights_file
from trainables.models.message_passing import REACH, TYPICAL_ATOMS, MessagePassing
from trainables.models.network import MultiTaskNetwork

SHAPE = (9, 8)
TASKS = {"mu": 1, "gap": 1}


def molecules(batch: int = 3, atoms: int = 6, padded: int = SHAPE[0]) -> Tensor:
    """(B, padded, 8): every molecule has one atom less than the one before it."""
    generator = torch.Generator().manual_seed(1)
    out = torch.zeros(batch, padded, SHAPE[1])
    for row, count in enumerate(range(atoms, atoms - batch, -1)):
        out[row, torch.arange(count), torch.randint(0, 5, (count,), generator=generator)] = 1
        out[row, :count, 5:] = 2 * torch.randn(count, 3, generator=generator)
    return out


def network(name: str = "mpnn_small", drop_path: float = 0.0, seed: int = 0) -> MultiTaskNetwork:
    return build_network(ModelConfig(backbone=name, drop_path=drop_path), TASKS, SHAPE, seed)


@pytest.mark.parametrize("name", ["mpnn_small", "mpnn_base"])
def test_shapes_parameters_and_gradients(name: str) -> None:
    net = network(name)
    spec = BACKBONES[name]
    assert sum(p.numel() for p in net.trunk.parameters()) == spec.parameter_count(SHAPE)
    features = net.features(molecules())
    assert features.shape == (3, spec.feature_channels, *spec.grid(SHAPE))
    predictions = net(molecules())
    assert {task: tuple(p.shape) for task, p in predictions.items()} == {"mu": (3, 1, 1, 1), "gap": (3, 1, 1, 1)}
    predictions["mu"].square().mean().backward()
    assert [n for n, p in net.trunk.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is not None and p.grad.any() for p in net.task_parameters("mu"))
    assert [p.grad for p in net.task_parameters("gap")] == [None, None]


def test_a_forward_by_hand() -> None:
    """Every atom, pair and layer in loops, from the definition."""
    torch.manual_seed(3)
    trunk = MessagePassing(elements=5, dim=4, depth=2, radial=3).double()
    given = molecules(1).double()
    got = trunk(given)[0, :, 0, 0]

    def silu(x: Tensor) -> Tensor:
        return x / (1 + (-x).exp())

    kinds = [row[:5] for row in given[0] if row[:5].any()]
    places = [row[5:] for row in given[0] if row[:5].any()]
    atoms = [trunk.embed(kind) for kind in kinds]
    centers = [0.8 + k * (REACH - 0.8) / 2 for k in range(3)]
    for layer in trunk.layers:
        heard = [layer.norm(atom) for atom in atoms]
        weight = layer.values.weight.view(4, 4, 4)  # basis, out, in
        updates = []
        for i, own in enumerate(heard):
            message = torch.zeros(4, dtype=torch.float64)
            for j, other in enumerate(heard):
                if i != j:
                    d = math.dist(places[i].tolist(), places[j].tolist())
                    basis = [math.exp(-(((d - c) / ((REACH - 0.8) / 2)) ** 2)) for c in centers] + [d / REACH]
                    for share, matrix in zip(basis, weight, strict=True):
                        message += share * (matrix @ other)
            updates.append(layer.outer(silu(layer.inner(torch.cat([own, message])))))
        atoms = [atom + update for atom, update in zip(atoms, updates, strict=True)]
    total = sum((silu(trunk.atoms(atom)) for atom in atoms), torch.zeros(4, dtype=torch.float64))
    wanted = silu(trunk.molecule(torch.cat([total / TYPICAL_ATOMS, total / len(atoms)])))
    # The centres of the Gaussians are float32.
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)


def test_rotations_translations_order_and_padding_change_nothing() -> None:
    net = network().double()
    given = molecules().double()
    wanted = net.features(given)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    moved = given.clone()
    moved[..., 5:] = moved[..., 5:] @ rotation + torch.tensor([1.0, -2.0, 0.5])
    moved[..., 5:] *= given[..., :5].sum(-1, keepdim=True)
    shuffled = given[:, torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1))]
    more_padding = torch.cat([given, torch.zeros(3, 4, 8, dtype=torch.float64)], dim=1)
    for other in (moved, shuffled, more_padding):
        torch.testing.assert_close(net.features(other), wanted)
    stretched = given.clone()
    stretched[..., 5:] *= 1.1
    assert not torch.allclose(net.features(stretched), wanted)


def test_drop_path_drops_whole_layers_of_a_molecule_in_training_only() -> None:
    layer = network(drop_path=0.5).trunk.layers[-1]
    generator = torch.Generator().manual_seed(2)
    atoms, pairs = torch.randn(64, 4, 32, generator=generator), torch.rand(64, 4, 48, generator=generator)
    layer.eval()
    update = layer(atoms, pairs) - atoms
    layer.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = layer(atoms, pairs) - atoms
    kept = noisy.flatten(1).abs().amax(1) > 1e-5
    assert 16 < int(kept.sum()) < 48
    torch.testing.assert_close(noisy[kept], 2 * update[kept], rtol=1e-4, atol=1e-5)
    assert [layer.drop for layer in network(drop_path=0.5).trunk.layers] == [0.0, 0.25, 0.5]


def test_the_trunk_does_not_depend_on_the_tasks() -> None:
    alone = build_network(ModelConfig(backbone="mpnn_small"), {"gap": 1}, SHAPE, 0)
    both = network()
    assert all(torch.equal(a, b) for a, b in zip(alone.trunk.parameters(), both.trunk.parameters(), strict=True))
    assert torch.equal(alone.decoders["gap"].weight, both.decoders["gap"].weight)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone: mpnn_small reads molecules, the data set gives images"):
        check(ModelConfig(backbone="mpnn_small"), (64, 64))
    with pytest.raises(ConfigError, match=r"vit_pico reads images.* \(allowed: mpnn_small, mpnn_base\)"):
        check(ModelConfig(backbone="vit_pico"), (29, 8), "molecules")
    with pytest.raises(ConfigError, match="an element and a place"):
        check(ModelConfig(backbone="mpnn_small"), (29, 3), "molecules")


@pytest.mark.parametrize("pretrained", [True, "weights.pth"])
def test_there_are_no_weights_to_start_from(pretrained: bool | str) -> None:
    with pytest.raises(WeightsError, match="mpnn_small starts from random weights; false is wanted"):
        weights_file(ModelConfig(backbone="mpnn_small", pretrained=pretrained))
