"""Uncertainty weighting against its formula, its optimum and TorchJD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.scalarization import UW as Reference  # noqa: N811

from study.testing import LossWeightedContract, Scripted
from trainables.errors import ConfigError
from trainables.methods.uw import UWConfig

FACTORS = {"kendall": (0.5, 0.5), "doubled": (1.0, 1.0), "classification": (1.0, 0.5)}
ROWS = [[1.0, -0.5, 0.2], [0.3, 0.8, -0.1], [-0.2, 0.1, 0.4]]


class TestUW(LossWeightedContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        forms: dict[str, Mapping[str, Any]] = {
            "kendall": {},
            "doubled": {"form": "doubled", "lr": 0.025, "decoder_grads": "plain"},
            "classification": {"form": "classification", "optimizer": "sgd", "lr": 0.1, "initial": -0.5},
        }
        return {label: {"name": "uw", **form} for label, form in forms.items()}


@pytest.mark.parametrize("form", FACTORS)
def test_settles_where_the_weight_is_b_over_the_loss(form: str) -> None:
    bench = Scripted({"name": "uw", "form": form, "optimizer": "sgd", "lr": 0.3}, torch.eye(3))
    losses = [0.2, 1.0, 7.0]
    for _ in range(200):
        log = bench.replay(losses)
    a, b = FACTORS[form]
    assert bench.weights(log) == pytest.approx([b / loss for loss in losses], rel=1e-6)
    scales = bench.method.state_dict()["scales"]["values"]
    torch.testing.assert_close(scales, torch.tensor([math.log(a * x / b) for x in losses], dtype=torch.float64))


@pytest.mark.parametrize("form", FACTORS)
def test_first_steps_by_hand(form: str) -> None:
    a, b = FACTORS[form]
    bench = Scripted({"name": "uw", "form": form, "optimizer": "sgd", "lr": 0.1}, torch.eye(2))
    first, second = bench.replay([4.0, 0.5]), bench.replay([1.0, 1.0])
    assert bench.weights(first) == [a, a]
    s = [-0.1 * (b - a * 4.0), -0.1 * (b - a * 0.5)]
    assert bench.weights(second) == pytest.approx([a * math.exp(-value) for value in s])


def test_adams_first_step_is_the_learning_rate() -> None:
    bench = Scripted({"name": "uw", "lr": 0.025, "initial": 0.5}, torch.eye(2))
    bench.replay([100.0, 0.01])
    values = bench.method.state_dict()["scales"]["values"]
    assert values.tolist() == pytest.approx([0.525, 0.475], abs=1e-7)


def test_the_models_learning_rate_is_followed_through_its_schedule() -> None:
    bench = Scripted({"name": "uw", "optimizer": "sgd"}, torch.eye(1), lr=0.2)
    bench.replay([3.0])
    first = 0.2 * 0.5 * 2
    assert bench.method.state_dict()["scales"]["values"].item() == pytest.approx(first)
    bench.optimizer.param_groups[0]["lr"] = 0.02
    bench.replay([3.0])
    second = first - 0.02 * (0.5 - 0.5 * math.exp(-first) * 3)
    assert bench.method.state_dict()["scales"]["values"].item() == pytest.approx(second)


def test_weight_decay_pulls_to_zero() -> None:
    bench = Scripted({"name": "uw", "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.5, "initial": 2.0}, torch.eye(1))
    bench.replay([math.exp(2.0)])  # at the optimum of the formula
    assert bench.method.state_dict()["scales"]["values"].item() == pytest.approx(2.0 - 0.1 * 0.5 * 2.0)


def test_agrees_with_torchjd() -> None:
    bench = Scripted({"name": "uw", "optimizer": "sgd", "lr": 0.05}, ROWS, lr=0.05)
    other = Scripted("gd", ROWS)
    reference = Reference(3).double()
    optimizer = torch.optim.SGD([other.trunk, *other.heads, *reference.parameters()], lr=0.05)
    for step in range(20):
        offsets = [3.0 + math.sin(step), 1.0, 5.0]
        bench.iterate(offsets)
        optimizer.zero_grad()
        reference(other.values(offsets)).backward()
        optimizer.step()
    torch.testing.assert_close(bench.trunk, other.trunk)
    torch.testing.assert_close(torch.cat(bench.heads), torch.cat(other.heads))
    torch.testing.assert_close(bench.method.state_dict()["scales"]["values"], reference.log_var.detach())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6), st.sampled_from(sorted(FACTORS)))
def test_the_slope_is_the_derivative_of_the_objective(losses: list[float], form: str) -> None:
    a, b = FACTORS[form]
    bench = Scripted(
        {"name": "uw", "form": form, "optimizer": "sgd", "lr": 1e-3, "initial": 0.3}, torch.eye(len(losses))
    )
    s = torch.full((len(losses),), 0.3, dtype=torch.float64, requires_grad=True)
    (a * (-s).exp() * torch.tensor(losses, dtype=torch.float64) + b * s).sum().backward()
    bench.replay(losses)
    assert s.grad is not None
    torch.testing.assert_close(bench.method.state_dict()["scales"]["values"], (s - 1e-3 * s.grad).detach())


def test_a_task_without_labels_keeps_its_scale() -> None:
    bench = Scripted({"name": "uw", "optimizer": "sgd", "lr": 0.1}, torch.eye(2))
    for _ in range(50):
        bench.replay([0.0, 2.0])
    values = bench.method.state_dict()["scales"]["values"]
    assert values[0] == 0.0
    assert values[1] > 0.5


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_scales_stay_within_their_limit(size: float) -> None:
    bench = Scripted({"name": "uw", "lr": 20.0}, torch.eye(1))
    for _ in range(5):
        log = bench.replay([size])
    assert abs(bench.method.state_dict()["scales"]["values"].item()) == 30.0
    assert math.isfinite(torch.tensor(bench.weights(log)[0], dtype=torch.float32).item())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0}, r"method\.lr: .*greater than 0.*'model'"),
        ({"lr": "modle"}, r"method\.lr: .*'model'"),
        ({"form": "kendal"}, r"method\.form: .*'kendall'"),
        ({"initial": 31}, r"method\.initial: .*30"),
        ({"optimiser": "adam"}, r"did you mean 'optimizer'"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UWConfig.parse(fields, "method")
