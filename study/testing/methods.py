"""What every method owes the trainer, on a small real network."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from trainables.methods import METHODS, Counters, Method, StepLog, Update
from trainables.settings import component

WIDTH = 8
INPUTS = 6
OUTPUTS = 2
BATCH = 5


class Bench:
    """A shared trunk, one linear head per task, Adam, and a method; counts the passes that really happen.

    Batch t is a function of the seed and t alone: a run that continues from a checkpoint sees what it would have seen.

    Args:
        config: of the method: its name, or a mapping of its fields.
        tasks: number of tasks K, named ``task0``, ``task1``, ...
        seed: of network, batches and method.
        fixed_batch: the same batch in every iteration.
    """

    def __init__(
        self, config: Mapping[str, Any] | str, tasks: int, *, seed: int = 0, fixed_batch: bool = False
    ) -> None:
        self.config = component(METHODS, config, "method")
        self.tasks = [f"task{index}" for index in range(tasks)]
        self.seed = seed
        self.fixed_batch = fixed_batch
        cls = METHODS[self.config.name]
        cls.check(self.config, self.tasks)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.trunk = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
            self.heads = nn.ModuleDict({task: nn.Linear(WIDTH, OUTPUTS) for task in self.tasks})
        self.network = nn.ModuleDict({"trunk": self.trunk, "heads": self.heads})
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-2, weight_decay=1e-3)
        self.counters = Counters()
        self.update = Update(
            self.tasks,
            self.trunk.parameters(),
            {task: list(self.heads[task].parameters()) for task in self.tasks},
            self.optimizer,
            self.counters,
        )
        self.method: Method = cls(self.config, self.update, seed)
        self.forwards = self.forwards_without_grad = self.backwards = self.steps = 0
        self.trunk[0].register_forward_hook(self._forward_seen)
        self.optimizer.register_step_post_hook(lambda *_: setattr(self, "steps", self.steps + 1))

    def _forward_seen(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.forwards += 1
        if output.requires_grad:
            output.register_hook(self._backward_seen)
        else:
            self.forwards_without_grad += 1

    def _backward_seen(self, gradient: Tensor) -> None:
        self.backwards += 1

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs (B, I) and targets (K, B, O) of the iteration that is due."""
        number = 0 if self.fixed_batch else self.counters.iterations
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        inputs = torch.randn(BATCH, INPUTS, generator=generator)
        return inputs, torch.randn(len(self.tasks), BATCH, OUTPUTS, generator=generator)

    def losses(self) -> dict[str, Tensor]:
        """One forward, as :data:`trainables.methods.Losses` is called."""
        self.counters.forward_passes += 1
        inputs, targets = self.batch()
        features = self.trunk(inputs)
        # Given in reverse, so that a method that trusts the mapping's order is caught.
        pairs = reversed(list(zip(self.tasks, targets, strict=True)))
        return {task: (self.heads[task](features) - target).square().mean() for task, target in pairs}

    def expected_losses(self) -> Tensor:
        """(K,) the losses as they are now, by a forward that is not counted."""
        inputs, targets = self.batch()
        with torch.no_grad():
            # By hand, for the module's own call would be counted.
            first = [parameter.detach() for parameter in self.trunk[0].parameters()]
            features = self.trunk[3](self.trunk[2](nn.functional.tanh(nn.functional.linear(inputs, *first))))
            outputs = [self.heads[task](features) for task in self.tasks]
        return torch.stack([(o - t).square().mean() for o, t in zip(outputs, targets, strict=True)])

    def iterate(self, count: int = 1) -> list[StepLog]:
        """So many iterations of the method."""
        logs = []
        for _ in range(count):
            logs.append(self.method.step(self.losses))
            self.counters.iterations += 1
        return logs

    def save(self) -> bytes:
        """A checkpoint of everything."""
        buffer = io.BytesIO()
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "iterations": self.counters.iterations,
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def load(self, saved: bytes) -> None:
        """Put back what :meth:`save` gave."""
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.counters.iterations = state["iterations"]

    def bits(self) -> list[Tensor]:
        """Copies of all parameters."""
        return [parameter.detach().clone() for parameter in self.network.parameters()]


def same_bits(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether all tensors are equal, pair by pair."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class MethodContract:
    """The contract of every method: inherit, define ``variants``, and set ``task_counts`` where not every K is allowed.

    It stays finite, learns, counts its work, logs the losses at the start of the iteration in task order, draws from
    its own generator only, and continues bit for bit from a checkpoint.
    """

    task_counts: ClassVar[tuple[int, ...]] = (1, 2, 3, 6)
    """Numbers of tasks K that it is tested with."""

    @staticmethod
    def variants(tasks: int) -> dict[str, Mapping[str, Any]]:
        """Configs to be tested with ``tasks`` tasks, by a label."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each variant and number of tasks."""
        if {"config", "tasks"} <= set(metafunc.fixturenames):
            cases = [
                pytest.param(config, tasks, id=f"{label}-K{tasks}")
                for tasks in self.task_counts
                for label, config in self.variants(tasks).items()
            ]
            metafunc.parametrize(("config", "tasks"), cases)

    def test_stays_finite_and_moves_every_parameter(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Bench(config, tasks)
        before = bench.bits()
        logs = bench.iterate(8)
        assert all(bool(log.losses.isfinite().all()) for log in logs)
        assert all(math.isfinite(value) for log in logs for value in log.scalars.values())
        for old, new in zip(before, bench.bits(), strict=True):
            assert bool(new.isfinite().all())
            assert not torch.equal(old, new)

    def test_learns_a_batch(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Bench(config, tasks, fixed_batch=True)
        logs = bench.iterate(30)
        assert float(logs[-1].losses.sum()) < 0.9 * float(logs[0].losses.sum())

    def test_counters_are_the_work_done(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Bench(config, tasks)
        bench.iterate(5)
        counters = bench.counters
        assert bench.steps >= 5
        assert counters.optimizer_steps == bench.steps
        assert counters.forward_passes == bench.forwards
        assert counters.backward_passes == bench.backwards
        assert counters.trunk_passes == bench.forwards + bench.backwards

    def test_losses_are_those_at_the_start_in_task_order(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Bench(config, tasks)
        for _ in range(3):
            expected = bench.expected_losses()
            (log,) = bench.iterate()
            assert log.losses.shape == (tasks,)
            assert not log.losses.requires_grad
            torch.testing.assert_close(log.losses, expected)

    def test_groups_and_affinity_are_well_formed(self, config: Mapping[str, Any], tasks: int) -> None:
        for log in Bench(config, tasks).iterate(4):
            if log.groups is not None:
                assert sorted(set().union(*map(set, log.groups))) == list(range(tasks))
            if log.affinity is not None:
                assert log.affinity.shape == (tasks, tasks)
                assert log.affinity.dtype == torch.float64
                assert log.affinity.device.type == "cpu"
                assert bool(log.affinity.isfinite().all())

    def test_same_seed_same_bits(self, config: Mapping[str, Any], tasks: int) -> None:
        first, second = Bench(config, tasks, seed=3), Bench(config, tasks, seed=3)
        torch.manual_seed(1)
        logs = first.iterate(6)
        torch.manual_seed(2)  # the process's generator is not a method's
        again = second.iterate(6)
        assert same_bits(first.bits(), second.bits())
        assert [log.groups for log in logs] == [log.groups for log in again]

    def test_continues_bit_for_bit_from_a_checkpoint(self, config: Mapping[str, Any], tasks: int) -> None:
        whole = Bench(config, tasks)
        whole.iterate(5)
        saved = whole.save()
        expected = whole.iterate(5)
        resumed = Bench(config, tasks)
        resumed.load(saved)
        logs = resumed.iterate(5)
        assert same_bits(whole.bits(), resumed.bits())
        for log, other in zip(logs, expected, strict=True):
            assert torch.equal(log.losses, other.losses)
            assert log.groups == other.groups
            assert log.scalars == other.scalars

    def test_config_survives_plain_data(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Bench(config, tasks)
        parsed = bench.config
        cls = type(parsed)
        assert cls.parse(parsed.to_dict()) == parsed
        assert cls.parse(parsed.canonical()) == parsed
        assert cls.parse(parsed.to_dict()).canonical() == parsed.canonical()
        assert parsed.canonical()["name"] == parsed.name == bench.config.name
