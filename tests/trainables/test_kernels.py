"""Products by oneDNN against torch's own and against float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables import kernels
from trainables.config import data_set_of, load_trial
from trainables.errors import ConfigError
from trainables.kernels import GELU, Linear, check_kernels, fastest, inner_products, install
from trainables.models.config import ModelConfig
from trainables.models.network import build_network
from trainables.saved_model import Predictor, load, save
from trainables.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("tokens", "inputs", "outputs"), [((16, 65), 192, 768), ((1040,), 768, 192), ((8, 9), 128, 128)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_as_exact_as_torch_s_own(tokens: tuple[int, ...], inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    own = nn.Linear(inputs, outputs, bias=bias)
    layer = Linear.of(own)
    x, at_out = torch.randn(*tokens, inputs, requires_grad=True), torch.randn(*tokens, outputs)
    exact = nn.Linear(inputs, outputs, bias=bias, dtype=torch.float64)
    exact.load_state_dict({name: value.double() for name, value in own.state_dict().items()})
    x64 = x.detach().double().requires_grad_()

    def everything(module: nn.Module, given: Tensor, at: Tensor) -> list[Tensor]:
        out = module(given)
        return [out.detach(), *torch.autograd.grad(out, [given, *module.parameters()], at)]

    wanted = everything(exact, x64, at_out.double())
    for ours, torchs, right in zip(everything(layer, x, at_out), everything(own, x, at_out), wanted, strict=True):
        assert ours.shape == right.shape
        assert error(ours, right) < 1e-6
        assert error(torchs, right) < 1e-6
    followed = layer(x).detach()
    with torch.no_grad():
        assert torch.equal(layer(x), followed)


def test_it_is_asked_for_where_it_gains_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    product = kernels._linear
    monkeypatch.setattr(kernels, "_linear", lambda *given: asked.append(1) or product(*given))
    layer = Linear(256, 256)
    layer(torch.randn(64, 256))
    assert asked == [1]
    layer(torch.randn(2, 256))
    layer.double()(torch.randn(64, 256, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        layer.float()(torch.randn(64, 256))
    assert asked == [1]


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_has_torch_s_bits_in_every_backward(approximate: str) -> None:
    own, ours = nn.GELU(approximate), GELU(approximate)
    x = (4 * torch.randn(7, 33)).requires_grad_()
    one, other = own(x), ours(x)
    assert torch.equal(one, other)
    for _ in range(3):
        at_out = torch.randn_like(x)
        (wanted,), (found,) = (torch.autograd.grad(y, x, at_out, retain_graph=True) for y in (one, other))
        assert torch.equal(wanted, found)


def test_installed_layers_keep_parameters_names_and_mode() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.GELU("tanh"), nn.Sequential(nn.Linear(4, 2, bias=False))).eval()
    before = dict(network.named_parameters())
    install(network)
    after = dict(network.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert [type(network[0]), type(network[1]), type(network[2][0])] == [Linear, GELU, Linear]
    assert network[1].approximate == "tanh"
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("width", [1, 100, 16384])
def test_inner_products(width: int) -> None:
    rows = torch.randn(11, width)
    wanted = rows.double() @ rows.double().T
    for kind in ("torch", "onednn"):
        assert error(inner_products(rows, kind), wanted) < 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["gd", "mgda", "graddrop", "selective"])
def test_a_trial_trains_to_the_same_up_to_rounding_and_resumes_to_the_same_bits(tmp_path: Path, method: str) -> None:
    def trainer(kind: str) -> Trainer:
        config = load_trial(
            {
                "data": {"name": "scenes", "image_size": 64, "train": 8, "val": 2, "test": 1},
                "tasks": {"set": "nyud"},
                "model": {"backbone": "vit_pico"},
                "train": {"batch_size": 8, "budget": {"amount": 4}, "kernels": kind},
                "optim": {"lr": 1e-5},
                "record": {"eval_every": 0, "points": 4},
                "method": method,
            }
        )
        data_set_of(config).prepare(config.data, tmp_path)
        return Trainer(config, tmp_path)

    stock, ours, half = trainer("torch"), trainer("onednn"), trainer("onednn")
    assert stock.key != ours.key
    assert any(isinstance(module, Linear) for module in ours.network.modules())
    assert not any(isinstance(module, Linear) for module in stock.network.modules())
    stock.advance()
    ours.advance()
    half.advance(iterations=2)
    again = trainer("onednn")
    again.load_state_dict(half.state_dict())
    again.advance()
    pairs = zip(ours.network.parameters(), again.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    first = [
        [p.value for p in t.history.points if p.name.startswith("train/loss/") and p.step == 1] for t in (stock, ours)
    ]
    assert first[0] == pytest.approx(first[1], rel=1e-5)


def test_a_saved_model_predicts_what_the_trainer_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(backbone="vit_pico", drop_path=0.0)
    network = build_network(config, {"seg": 40, "normal": 3}, (64, 64), seed=0).eval()
    images = np.random.default_rng(0).standard_normal((16, 3, 64, 64), np.float32)
    torchs = Predictor(network).predict(images)
    install(network)
    wanted = Predictor(network).predict(images)
    save(tmp_path / "model", network, config, images[:1], "onednn")
    loaded = load(tmp_path / "model")
    assert any(isinstance(module, Linear) for module in loaded.network.modules())
    found = loaded.predict(images)
    assert all(np.array_equal(found[task], wanted[task]) for task in wanted)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    without = load(tmp_path / "model")
    assert not any(isinstance(module, Linear) for module in without.network.modules())
    found = without.predict(images)
    assert all(np.array_equal(found[task], torchs[task]) for task in torchs)


def test_a_torch_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_kernels("onednn")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    check_kernels("torch")
    assert fastest() == "torch"
    with pytest.raises(ConfigError, match=r"train\.kernels"):
        check_kernels("onednn")
