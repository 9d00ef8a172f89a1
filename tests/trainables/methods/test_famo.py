"""FAMO against a literal transcription of its formulas, its laws, and TorchJD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.scalarization import FAMO as Reference  # noqa: N811

from study.testing import Bench, LossWeightedContract, Scripted
from trainables.errors import ConfigError
from trainables.methods import METHODS
from trainables.methods.famo import FAMOConfig

ROWS = [[1.0, -0.5, 0.2], [0.3, 0.8, -0.1], [-0.2, 0.1, 0.4]]


class TestFAMO(LossWeightedContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        forms: dict[str, Mapping[str, Any]] = {
            "default": {},
            "clipped": {"max_norm": 0.3, "gamma": 0.01},
            "plain": {"decoder_grads": "plain", "gamma": 0.0, "min_losses": {"task0": 0.01}},
        }
        return {label: {"name": "famo", **form} for label, form in forms.items()}


def logits(bench: Scripted | Bench) -> Tensor:
    values: Tensor = bench.method.state_dict()["logits"]["values"]
    return values


def test_first_iteration_by_hand() -> None:
    bench = Scripted({"name": "famo", "gamma": 0.0, "lr": 0.025}, torch.eye(2), lr=0.1)
    before, after = [4.0, 1.0], [2.0, 0.9]
    log = bench.replay(before, after)
    # z = 1/2 each: weights in proportion to 1/L, that is 1/4 to 1, and of sum 1.
    assert bench.weights(log) == pytest.approx([0.2, 0.8], rel=1e-7)
    assert bench.trunk.tolist() == pytest.approx([-0.02, -0.08])
    # Delta is (log 2, log 1/0.9): the first task fell more, so its logit goes down, by Adam's first step.
    assert logits(bench).tolist() == pytest.approx([-0.025, 0.025], rel=1e-6)


def test_agrees_with_a_literal_transcription() -> None:
    gamma, lr, floor = 0.01, 0.1, [0.0, 0.3, 0.0]
    config = {"name": "famo", "gamma": gamma, "lr": lr, "min_losses": {"task1": 0.3}}
    bench, other = Scripted(config, ROWS, lr=0.05), Scripted("gd", ROWS, lr=0.05)
    xi = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    minimum = torch.tensor(floor, dtype=torch.float64)
    m = v = torch.zeros(3, dtype=torch.float64)
    for step in range(1, 16):
        offsets = [3.0 + math.sin(step), 2.0, 5.0]
        (log,) = bench.iterate(offsets)
        z = torch.softmax(xi, dim=0)
        old = other.values(offsets) - minimum + 1e-8
        c = 1 / (z / old).sum().detach()
        other.optimizer.zero_grad()
        (c * (z.detach() * old.log()).sum()).backward()
        other.optimizer.step()
        with torch.no_grad():
            delta = old.log() - (other.values(offsets) - minimum + 1e-8).log()
        (gradient,) = torch.autograd.grad((z * delta).sum(), xi)
        with torch.no_grad():
            gradient = gradient + gamma * xi
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            xi -= lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        assert bench.weights(log) == pytest.approx((c * z / old).tolist(), rel=1e-9)
    torch.testing.assert_close(logits(bench), xi.detach())
    torch.testing.assert_close(bench.trunk, other.trunk)


@pytest.mark.parametrize("gamma", [0.0, 1e-3])
def test_agrees_with_torchjd(gamma: float) -> None:
    bench, other = Scripted({"name": "famo", "gamma": gamma}, ROWS, lr=0.05), Scripted("gd", ROWS, lr=0.05)
    reference = Reference(3, weight_decay=gamma).double()
    for step in range(20):
        offsets = [3.0 + math.sin(step), 1.5, 5.0]
        bench.iterate(offsets)
        other.optimizer.zero_grad()
        reference(other.values(offsets)).backward()
        other.optimizer.step()
        reference.update(other.values(offsets))
    torch.testing.assert_close(bench.trunk, other.trunk)
    torch.testing.assert_close(torch.cat(bench.heads), torch.cat(other.heads))
    torch.testing.assert_close(logits(bench), reference._w.detach())


LOSSES = st.floats(0.01, 100.0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(LOSSES, LOSSES), min_size=1, max_size=6), st.floats(0.1, 10.0))
def test_weights_sum_to_one_and_units_cancel(pairs: list[tuple[float, float]], unit: float) -> None:
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    delta = torch.tensor(before, dtype=torch.float64).log() - torch.tensor(after, dtype=torch.float64).log()
    # Adam turns a gradient into its sign; one as small as the formula's 1e-8 has none to speak of.
    assume(len(pairs) == 1 or float((delta - delta.mean()).abs().min()) > 1e-2)
    plain, scaled = (Scripted("famo", torch.eye(len(pairs))) for _ in range(2))
    for _ in range(3):
        weights = plain.weights(plain.replay(before, after))
        # One task in another unit: its gradient grows by as much, what it is multiplied by shrinks.
        log = scaled.replay([before[0] * unit, *before[1:]], [after[0] * unit, *after[1:]])
        rescaled = [scaled.weights(log)[0] * unit, *scaled.weights(log)[1:]]
        assert sum(weights) == pytest.approx(1.0)
        assert [push / sum(rescaled) for push in rescaled] == pytest.approx(weights, rel=1e-3)
    torch.testing.assert_close(logits(plain), logits(scaled), rtol=1e-3, atol=1e-6)


def test_equal_relative_change_leaves_the_logits_alone() -> None:
    bench = Scripted({"name": "famo", "gamma": 0.0}, torch.eye(3))
    bench.replay([8e6, 2e6, 5e6], [4e6, 1e6, 2.5e6])  # large, so that the formula's 1e-8 is nothing to them
    assert float(logits(bench).abs().max()) < 1e-8


def test_decay_pulls_the_logits_together() -> None:
    kept, decayed = (Scripted({"name": "famo", "gamma": gamma}, torch.eye(2)) for gamma in (0.0, 0.5))
    for _ in range(40):
        for bench in (kept, decayed):
            bench.replay([1.0, 1.0], [0.99, 0.9])
    assert float(logits(kept)[0] - logits(kept)[1]) > 2 * float(logits(decayed)[0] - logits(decayed)[1]) > 0


def test_the_second_forward_has_no_graph_and_the_same_batch() -> None:
    bench = Bench("famo", 3)
    bench.iterate(2)
    assert (bench.forwards, bench.forwards_without_grad, bench.backwards, bench.steps) == (4, 2, 2, 2)
    assert METHODS["famo"].expected_work(bench.config, bench.tasks) == (2.0, 1.0, 1.0)


def test_clips_the_trunk_alone() -> None:
    bench = Scripted({"name": "famo", "max_norm": 0.1}, [[3.0, 4.0]])
    bench.iterate([2.0])
    assert bench.trunk.grad is not None
    assert bench.trunk.grad.tolist() == pytest.approx([0.06, 0.08], rel=1e-4)
    assert bench.heads[0].grad is not None
    assert bench.heads[0].grad.item() == pytest.approx(1.0)


def test_losses_not_finite_after_the_step_leave_the_logits_alone() -> None:
    bench = Scripted("famo", torch.eye(2))
    bench.replay([1.0, 1.0], [0.5, 0.9])
    before = logits(bench).clone()
    log = bench.replay([1.0, 1.0], [math.inf, 0.9])
    assert torch.equal(before, logits(bench))
    assert log.scalars["famo/unmeasured"] == 1.0
    assert log.scalars["losses/skipped"] == 0.0


def test_a_loss_below_its_minimum_counts_as_at_it() -> None:
    bench = Scripted({"name": "famo", "min_losses": {"task1": 2.0}}, torch.eye(2))
    weights = bench.weights(bench.replay([1.0, 1.5], [1.0, 3.0]))
    assert weights == pytest.approx([1e-8, 1.0], rel=1e-6)
    assert bool(logits(bench).isfinite().all())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0}, r"method\.lr: .*greater than 0"),
        ({"gamma": -1e-3}, r"method\.gamma: .*0"),
        ({"max_norm": 0}, r"method\.max_norm: .*greater than 0"),
        ({"min_losses": {"depth": "low"}}, r"method\.min_losses\.depth: .*number"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FAMOConfig.parse(fields, "method")


def test_minima_are_of_tasks_that_are_trained() -> None:
    config = FAMOConfig.parse({"min_losses": {"dept": 0.1}})
    with pytest.raises(ConfigError, match=r"^method\.min_losses: unknown task 'dept'; did you mean 'depth'\?"):
        METHODS["famo"].check(config, ["depth", "normals"])
