"""Gradient descent and its equal-compute control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from study.testing import Bench, MethodContract, same_bits
from trainables.errors import ConfigError
from trainables.methods.gd import GDConfig


class TestGD(MethodContract):
    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        return {"plain": {"name": "gd"}, "three_steps": {"name": "gd", "steps_per_batch": 3}}


def test_is_a_step_on_the_sum_of_losses() -> None:
    bench, reference = Bench("gd", 3), Bench("gd", 3)
    bench.iterate(4)
    for _ in range(4):
        losses = reference.losses()
        reference.optimizer.zero_grad()
        torch.stack([losses[task] for task in reference.tasks]).sum().backward()
        reference.optimizer.step()
        reference.counters.iterations += 1
    assert same_bits(bench.bits(), reference.bits())


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_per_batch_is_that_many_iterations_on_one_batch(steps: int) -> None:
    control = Bench({"name": "gd", "steps_per_batch": steps}, 2, fixed_batch=True)
    plain = Bench("gd", 2, fixed_batch=True)
    (log,) = control.iterate()
    logs = plain.iterate(steps)
    assert same_bits(control.bits(), plain.bits())
    assert torch.equal(log.losses, logs[0].losses)
    assert (control.forwards, control.backwards, control.steps) == (steps, steps, steps)


def test_default_is_left_out_of_the_canonical_config() -> None:
    assert GDConfig().canonical() == GDConfig(steps_per_batch=1).canonical() == {"name": "gd"}
    assert GDConfig(steps_per_batch=2).canonical() == {"name": "gd", "steps_per_batch": 2}


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_per_batch_is_a_positive_integer(steps: float) -> None:
    with pytest.raises(ConfigError, match=r"steps_per_batch"):
        GDConfig.parse({"steps_per_batch": steps}, "method")
