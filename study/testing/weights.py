"""What every method that weighs losses owes besides, and a bench whose losses are given."""

from __future__ import annotations

import io
import math
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.testing.methods import Bench, MethodContract, same_bits
from trainables.methods import METHODS, Method, StepLog, Update
from trainables.settings import component


class Scripted:
    """A method on losses linear in the parameters: task k's is ``offset_k + rows[k] . trunk + head_k``, in float64.

    Its gradient in the trunk is ``rows[k]`` and in its decoder 1, so that what a method does can be read off.

    Args:
        config: of the method.
        rows: (K, d) gradients in the trunk.
        lr: of the network's plain gradient descent.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str,
        rows: Sequence[Sequence[float]] | Tensor,
        *,
        lr: float = 0.01,
        iterations_per_epoch: int = 1,
    ) -> None:
        self.rows = torch.as_tensor(rows, dtype=torch.float64)
        self.tasks = [f"task{index}" for index in range(len(self.rows))]
        self.trunk = nn.Parameter(torch.zeros(self.rows.shape[1], dtype=torch.float64))
        self.heads = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in self.tasks]
        self.optimizer = torch.optim.SGD([self.trunk, *self.heads], lr=lr)
        self.config = component(METHODS, config, "method")
        cls = METHODS[self.config.name]
        cls.check(self.config, self.tasks)
        heads = {task: [head] for task, head in zip(self.tasks, self.heads, strict=True)}
        self.update = Update(self.tasks, [self.trunk], heads, self.optimizer, iterations_per_epoch=iterations_per_epoch)
        self.method: Method = cls(self.config, self.update, 0)

    def values(self, offsets: Sequence[float]) -> Tensor:
        """(K,) the losses where the parameters are now."""
        return torch.as_tensor(offsets, dtype=torch.float64) + self.rows @ self.trunk + torch.cat(tuple(self.heads))

    def iterate(self, *offsets: Sequence[float]) -> list[StepLog]:
        """One iteration for each of ``offsets``."""
        return [self.method.step(partial(self._forward, given)) for given in offsets]

    def _forward(self, offsets: Sequence[float]) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.values(offsets), strict=True))

    def replay(self, *forwards: Sequence[float]) -> StepLog:
        """One iteration whose forwards give these losses, wherever the parameters are."""
        given = iter(forwards)

        def losses() -> dict[str, Tensor]:
            moved = self.rows @ (self.trunk - self.trunk.detach())
            heads = torch.cat(tuple(self.heads))
            values = torch.as_tensor(next(given), dtype=torch.float64) + moved + (heads - heads.detach())
            return dict(zip(self.tasks, values, strict=True))

        return self.method.step(losses)

    def weights(self, log: StepLog) -> list[float]:
        """The logged weight of each task."""
        return [log.scalars[f"weights/{task}"] for task in self.tasks]


class LossWeightedContract(MethodContract):
    """The contract of every method, and of those that weigh losses."""

    def test_logged_weights_are_those_of_the_step(self, config: Mapping[str, Any], tasks: int) -> None:
        rows = torch.eye(tasks, dtype=torch.float64)
        bench = Scripted({**config, "decoder_grads": "weighted"}, rows)
        for offsets in ([1.0 + index for index in range(tasks)], [2.0] * tasks, [0.5] * tasks):
            (log,) = bench.iterate(offsets)
            weights = torch.tensor(bench.weights(log), dtype=torch.float64)
            assert bool((weights > 0).all())
            assert bench.trunk.grad is not None
            clip = getattr(bench.config, "max_norm", None) or math.inf
            expected = weights * min(1.0, clip / float(weights.norm()))
            torch.testing.assert_close(bench.trunk.grad, expected, rtol=1e-5, atol=0.0)
            torch.testing.assert_close(torch.cat([head.grad for head in bench.heads if head.grad is not None]), weights)

    def test_plain_decoders_get_the_gradient_of_their_loss(self, config: Mapping[str, Any], tasks: int) -> None:
        plain = Scripted({**config, "decoder_grads": "plain"}, torch.eye(tasks))
        weighted = Scripted({**config, "decoder_grads": "weighted"}, torch.eye(tasks))
        offsets = [1.0 + index for index in range(tasks)]
        for bench in (plain, weighted):
            bench.iterate(offsets)
        assert plain.trunk.grad is not None
        assert weighted.trunk.grad is not None
        assert torch.equal(plain.trunk.grad, weighted.trunk.grad)
        for head in plain.heads:
            torch.testing.assert_close(head.grad, torch.ones(1, dtype=torch.float64))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(
        self, config: Mapping[str, Any], tasks: int, bad: float
    ) -> None:
        disturbed, calm = Bench(config, tasks), Bench(config, tasks)
        for bench in (disturbed, calm):
            bench.iterate(3)
        before = disturbed.bits()
        log = disturbed.method.step(
            lambda: {
                task: torch.tensor(bad if task == "task0" else 1.0, requires_grad=True) for task in disturbed.tasks
            }
        )
        assert log.scalars == {"losses/skipped": 1.0}
        assert not bool(log.losses.isfinite().all())
        assert same_bits(before, disturbed.bits())
        after, expected = disturbed.iterate(4), calm.iterate(4)
        assert same_bits(disturbed.bits(), calm.bits())
        assert [log.scalars["losses/skipped"] for log in (after[-1], expected[-1])] == [1.0, 0.0]

    def test_zero_losses_are_survived(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Scripted(config, torch.eye(tasks))
        offsets = [float(index) for index in range(tasks)]  # the first task has none
        for given in (offsets, [0.0] * tasks, offsets, [1e-12] * tasks, [1e12] * tasks, offsets):
            log = bench.replay(given, given)
            assert all(math.isfinite(weight) and weight > 0 for weight in bench.weights(log))
            assert bool(bench.trunk.isfinite().all())
            assert log.scalars["losses/skipped"] == 0.0

    def test_keeps_no_graph_between_iterations(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Scripted(config, torch.eye(tasks))
        seen: list[weakref.ref[Tensor]] = []

        def losses() -> dict[str, Tensor]:
            values = bench.values([1.0] * tasks)
            seen.append(weakref.ref(values))
            return dict(zip(bench.tasks, values, strict=True))

        log = bench.method.step(losses)
        assert log.losses.shape == (tasks,)
        assert [reference() for reference in seen] == [None] * len(seen)

    def test_state_is_plain_data(self, config: Mapping[str, Any], tasks: int) -> None:
        bench = Scripted(config, torch.eye(tasks))
        bench.iterate([1.0] * tasks, [2.0] * tasks)
        buffer = io.BytesIO()
        torch.save(bench.method.state_dict(), buffer)
        buffer.seek(0)
        other = Scripted(config, torch.eye(tasks))
        other.method.load_state_dict(torch.load(buffer, weights_only=True))
        given = [[3.0] * tasks] * 2
        assert bench.replay(*given).scalars == other.replay(*given).scalars
        assert bench.replay(*given).scalars == other.replay(*given).scalars
