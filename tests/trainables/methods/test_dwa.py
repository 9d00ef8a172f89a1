"""Dynamic weight average by hand and against TorchJD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.scalarization import DWA as Reference  # noqa: N811

from study.testing import LossWeightedContract, Scripted
from trainables.errors import ConfigError
from trainables.methods.dwa import DWAConfig


class TestDWA(LossWeightedContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        forms: dict[str, Mapping[str, Any]] = {
            "epoch": {},
            "window": {"window": 3, "decoder_grads": "plain", "temperature": 0.5},
            "mean": {"window": 1, "scale": "mean"},
        }
        return {label: {"name": "dwa", **form} for label, form in forms.items()}


def softmax(rates: list[float], temperature: float) -> list[float]:
    powers = [math.exp(rate / temperature) for rate in rates]
    return [len(rates) * power / sum(powers) for power in powers]


def test_three_epochs_by_hand() -> None:
    bench = Scripted("dwa", torch.eye(2), iterations_per_epoch=2)
    for losses in ([4.0, 1.0], [2.0, 3.0], [1.0, 1.0], [2.0, 5.0]):
        assert bench.weights(bench.replay(losses)) == [1.0, 1.0]  # the first two epochs
    # Epoch means (3, 2) and (1.5, 3): rates 0.5 and 1.5.
    expected = softmax([0.5, 1.5], 2.0)
    for losses in ([6.0, 6.0], [0.0, 0.0]):
        assert bench.weights(bench.replay(losses)) == pytest.approx(expected)
    # Epoch means (1.5, 3) and (3, 3).
    assert bench.weights(bench.replay([1.0, 1.0])) == pytest.approx(softmax([2.0, 1.0], 2.0))


def test_a_window_of_iterations_slides() -> None:
    bench = Scripted({"name": "dwa", "window": 2, "temperature": 1.0}, torch.eye(2))
    seen = [[4.0, 1.0], [2.0, 3.0], [1.0, 1.0], [2.0, 5.0], [3.0, 1.0], [7.0, 2.0]]
    for index, losses in enumerate(seen):
        weights = bench.weights(bench.replay(losses))
        if index < 4:
            assert weights == [1.0, 1.0]
        else:
            older, newer = (np.mean(seen[index - back : index - back + 2], axis=0) for back in (4, 2))
            assert weights == pytest.approx(softmax(list(newer / older), 1.0))


@pytest.mark.parametrize("tasks", [1, 3])
def test_mean_is_a_kth_of_sum(tasks: int) -> None:
    total, mean = (Scripted({"name": "dwa", "scale": scale}, torch.eye(tasks)) for scale in ("sum", "mean"))
    for step in range(5):
        losses = [1.0 + step * index for index in range(tasks)]
        weights = total.weights(total.replay(losses))
        assert mean.weights(mean.replay(losses)) == pytest.approx([weight / tasks for weight in weights])
        assert sum(weights) == pytest.approx(tasks)


def test_agrees_with_torchjd() -> None:
    rows = [[1.0, -0.5, 0.2], [0.3, 0.8, -0.1], [-0.2, 0.1, 0.4]]
    bench = Scripted({"name": "dwa", "temperature": 1.5}, rows, lr=0.05, iterations_per_epoch=3)
    other = Scripted("gd", rows, lr=0.05)
    reference = Reference(temperature=1.5)
    for step in range(18):
        offsets = [3.0 + math.sin(step), 2.0 + math.cos(2 * step), 5.0]
        bench.iterate(offsets)
        other.optimizer.zero_grad()
        reference(other.values(offsets)).backward()
        other.optimizer.step()
        if step % 3 == 2:
            reference.step()
    torch.testing.assert_close(bench.trunk, other.trunk)
    torch.testing.assert_close(torch.cat(bench.heads), torch.cat(other.heads))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_the_unit_of_a_loss_does_not_matter(losses: list[float], unit: float) -> None:
    plain, scaled = (Scripted("dwa", torch.eye(len(losses))) for _ in range(2))
    for step in (1.0, 0.7, 0.6):
        given_losses = [loss * step**index for index, loss in enumerate(losses)]
        one = plain.weights(plain.replay(given_losses))
        other = scaled.weights(scaled.replay([given_losses[0] * unit, *given_losses[1:]]))
        assert one == pytest.approx(other)


def test_a_task_that_had_no_loss_counts_as_unchanged() -> None:
    bench = Scripted("dwa", torch.eye(2))
    bench.replay([0.0, 2.0])
    bench.replay([3.0, 4.0])
    assert bench.weights(bench.replay([1.0, 1.0])) == pytest.approx(softmax([1.0, 2.0], 2.0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0}, r"method\.temperature: .*greater than 0"),
        ({"window": 0}, r"method\.window: .*1.*'epoch'"),
        ({"window": "epochs"}, r"method\.window: .*'epoch'"),
        ({"scale": "max"}, r"method\.scale: .*'sum' or 'mean'"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DWAConfig.parse(fields, "method")
