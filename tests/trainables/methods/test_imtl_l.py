"""IMTL-L against its formula, its optimum, TorchJD, and its kinship with uncertainty weighting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.scalarization import IMTLL as Reference  # noqa: N811

from study.testing import LossWeightedContract, Scripted

ROWS = [[1.0, -0.5, 0.2], [0.3, 0.8, -0.1], [-0.2, 0.1, 0.4]]


class TestIMTLL(LossWeightedContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        forms: dict[str, Mapping[str, Any]] = {
            "default": {},
            "plain": {"lr": 0.025, "decoder_grads": "plain", "weight_decay": 1e-2},
            "sgd": {"optimizer": "sgd", "lr": 0.1, "initial": 0.5},
        }
        return {label: {"name": "imtl_l", **form} for label, form in forms.items()}


@settings(deadline=None, max_examples=8)
@given(st.lists(st.floats(0.05, 20.0), min_size=1, max_size=6))
def test_settles_where_every_scaled_loss_is_one(losses: list[float]) -> None:
    bench = Scripted({"name": "imtl_l", "lr": 0.05}, torch.eye(len(losses)))
    for _ in range(600):
        log = bench.replay(losses)
    scaled = [weight * loss for weight, loss in zip(bench.weights(log), losses, strict=True)]
    assert scaled == pytest.approx([1.0] * len(losses), rel=2e-2)


def test_first_steps_by_hand() -> None:
    bench = Scripted({"name": "imtl_l", "optimizer": "sgd", "lr": 0.1}, torch.eye(2))
    first, second = bench.replay([4.0, 0.5]), bench.replay([1.0, 1.0])
    assert bench.weights(first) == [1.0, 1.0]
    assert bench.weights(second) == pytest.approx([math.exp(-0.3), math.exp(0.05)])


def test_agrees_with_torchjd() -> None:
    bench = Scripted({"name": "imtl_l", "optimizer": "sgd", "lr": 0.03}, ROWS, lr=0.03)
    other = Scripted("gd", ROWS)
    reference = Reference(3).double()
    optimizer = torch.optim.SGD([other.trunk, *other.heads, *reference.parameters()], lr=0.03)
    for step in range(20):
        offsets = [3.0 + math.sin(step), 1.0, 5.0]
        bench.iterate(offsets)
        optimizer.zero_grad()
        reference(other.values(offsets)).backward()
        optimizer.step()
    torch.testing.assert_close(bench.trunk, other.trunk)
    torch.testing.assert_close(torch.cat(bench.heads), torch.cat(other.heads))
    torch.testing.assert_close(bench.method.state_dict()["scales"]["values"], reference.log_scale.detach())


def test_is_doubled_uncertainty_weighting_with_the_sign_of_s_turned() -> None:
    balance = Scripted({"name": "imtl_l", "lr": 0.1}, ROWS)
    uncertainty = Scripted({"name": "uw", "form": "doubled", "lr": 0.1}, ROWS)
    for step in range(10):
        offsets = [3.0, 1.0 + step, 0.2]
        (one,), (other,) = balance.iterate(offsets), uncertainty.iterate(offsets)
        assert balance.weights(one) == pytest.approx(uncertainty.weights(other))
    torch.testing.assert_close(balance.trunk, uncertainty.trunk)
