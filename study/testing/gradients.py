"""What every method that aggregates task gradients owes besides: on a small real network, the gradients it writes are
those that :func:`trainables.methods.aggregate` makes of the explicitly computed Jacobian."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from study.testing.methods import Bench, MethodContract, same_bits
from trainables.cuts import cut_after
from trainables.methods import METHODS, StepLog, aggregate

Spoil = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _gradient(module: nn.Module) -> Tensor:
    """(n,) what is in ``.grad`` of a module whose parameters all have one."""
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


class SplitBench(Bench):
    """A bench whose forward tells its representation, as the trainer's does; ``spoil`` may change the losses."""

    def __init__(self, config: Mapping[str, Any] | str, tasks: int, *, split: bool = True, **options: Any) -> None:
        super().__init__(config, tasks, **options)
        self.split = split
        self.spoil: Spoil = lambda losses: losses
        self.features: Tensor | None = None
        self.cuts_trunk = type(self.method).cuts_trunk(self.config)

    def losses(self) -> dict[str, Tensor]:
        """One forward; tells its representation, and cuts the trunk where the method wants it."""
        return self._pass([self.trunk[1], self.trunk[2]] if self.split and self.cuts_trunk else [])

    def _pass(self, stages: Sequence[nn.Module] = ()) -> dict[str, Tensor]:
        self.counters.forward_passes += 1
        inputs, targets = self.batch()
        with cut_after(stages) as cuts:
            features = self.trunk(inputs)
        self.update.representation = self.features = features if self.split else None
        self.update.cuts = tuple(cuts)
        pairs = reversed(list(zip(self.tasks, targets, strict=True)))
        return self.spoil({task: (self.heads[task](features) - target).square().mean() for task, target in pairs})

    def jacobian(self, of: str = "shared") -> Tensor:
        """(K, d) task by task, through the whole graph; (K, B * width) for the features."""
        rows = []
        for task in self.tasks:
            passes = self.counters.forward_passes, self.backwards, self.forwards
            losses = self._pass()
            wanted: list[Tensor] = list(self.trunk.parameters())
            if of != "shared":
                assert self.features is not None
                wanted = [self.features]
            found = torch.autograd.grad(losses[task], wanted, allow_unused=True)
            rows.append(
                torch.cat(
                    [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(wanted, found, strict=True)]
                )
            )
            self.counters.forward_passes, self.backwards, self.forwards = passes
        return torch.stack(rows)

    def head_gradients(self) -> list[Tensor]:
        """(n,) for each task, of its own loss by its own parameters."""
        losses = self.losses()
        return [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(losses[t], list(self.heads[t].parameters()), retain_graph=True)
                ]
            )
            for t in self.tasks
        ]

    def written(self) -> Tensor:
        """(d,) what a step left in ``.grad`` of the trunk."""
        return _gradient(self.trunk)

    def written_heads(self) -> list[Tensor]:
        """(n,) for each task, what a step left in ``.grad`` of its decoder."""
        return [_gradient(self.heads[task]) for task in self.tasks]


class GradientContract(MethodContract):
    """Inherit, and define ``name``; ``formula`` tells ``aggregate`` what the method's defaults add to it."""

    name: ClassVar[str]
    """Of the method."""
    aggregator: ClassVar[str | None] = None
    """Its formula's name in ``aggregate``, where it is another."""
    formula: ClassVar[dict[str, Any]] = {}
    """What ``aggregate`` is told beside."""
    fields: ClassVar[dict[str, Any]] = {}
    """Of the method's config."""
    modes: ClassVar[tuple[str, ...]] = ("plain", "weighted")
    """What ``decoder_grads`` may be."""

    @classmethod
    def variants(cls, tasks: int) -> dict[str, Mapping[str, Any]]:
        """The method with ``fields``, and with streamed rows where it has them."""
        own: dict[str, Any] = {"name": cls.name, **cls.fields}
        streams = "rows" in METHODS[cls.name].Config.model_fields
        return {"default": own, **({"streamed": {**own, "rows": "streamed"}} if streams else {})}

    def expected(self, bench: SplitBench, of: str = "shared") -> Tensor:
        """The direction for the parameters (or features) as they are; called before the step."""
        jacobian = self.factors(bench)[:, None] * bench.jacobian(of)
        # What clips the shared gradient does not clip the representation's.
        formula = self.formula if of == "shared" else {**self.formula, "max_norm": 0.0}
        return aggregate(self.aggregator or self.name, jacobian, generator=self.generator(bench), **formula)

    def generator(self, bench: SplitBench) -> torch.Generator:
        """In the state from which the method is going to draw."""
        return copy.deepcopy(bench.method.generator)

    @pytest.mark.parametrize("split", [True, False])
    @pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
    def test_writes_the_aggregate_of_the_jacobian(self, count: int, split: bool) -> None:
        bench = SplitBench({"name": self.name, **self.fields}, count, split=split)
        for _ in range(2):
            expected = self.expected(bench)
            bench.iterate()
            torch.testing.assert_close(bench.written(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    def test_aggregates_the_representation_when_asked(self) -> None:
        fields = {name: value for name, value in self.fields.items() if name != "rows"}
        bench = SplitBench({"name": self.name, **fields, "grad_space": "representation"}, 3)
        direction = self.expected(bench, "features")
        bench.losses()
        assert bench.features is not None
        found = torch.autograd.grad(bench.features, list(bench.trunk.parameters()), direction.view_as(bench.features))
        before = bench.backwards
        bench.iterate()
        assert bench.backwards == before + 1
        expected = torch.cat([g.flatten() for g in found])
        if bench.config.max_norm:
            expected = expected * min(1.0, bench.config.max_norm / float(expected.norm()))
        torch.testing.assert_close(bench.written(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    @pytest.mark.parametrize("split", [True, False])
    def test_decoders_get_their_own_gradients_plain_or_weighted(self, split: bool) -> None:
        for mode in self.modes:
            bench = SplitBench({"name": self.name, **self.fields, "decoder_grads": mode}, 3, split=split)
            plain, factors = bench.head_gradients(), self.factors(bench)
            (log,) = bench.iterate()
            for index, (gradient, written) in enumerate(zip(plain, bench.written_heads(), strict=True)):
                weight = log.scalars[f"weights/task{index}"] if mode == "weighted" else 1.0
                torch.testing.assert_close(written, weight * factors[index] * gradient, rtol=1e-5, atol=1e-7)

    def factors(self, bench: SplitBench) -> Tensor:
        """(K,) of the losses, for a method that scales them before it aggregates."""
        return torch.ones(len(bench.tasks))

    @pytest.mark.parametrize("split", [True, False])
    def test_a_gradient_that_is_not_finite_skips_the_step(self, split: bool) -> None:
        bench = SplitBench({"name": self.name, **self.fields}, 3, split=split)
        bench.iterate(2)
        before, steps, state = bench.bits(), bench.steps, copy.deepcopy(bench.optimizer.state_dict())
        bench.spoil = lambda losses: {**losses, "task1": losses["task1"] * float("nan")}
        (log,) = bench.iterate()
        assert log.scalars["grads/skipped"] == 1.0
        assert same_bits(before, bench.bits())
        assert bench.steps == steps
        assert str(state) == str(bench.optimizer.state_dict())
        bench.spoil = lambda losses: losses
        (log,) = bench.iterate()
        assert log.scalars["grads/skipped"] == 1.0
        assert not same_bits(before, bench.bits())
        assert all(bool(p.isfinite().all()) for p in bench.bits())

    def test_a_task_without_gradient_is_left_out_and_counted(self) -> None:
        bench = SplitBench({"name": self.name, **self.fields}, 3)
        bench.spoil = lambda losses: {**losses, "task1": losses["task1"] * 0.0}
        expected = self.expected(bench)
        (log,) = bench.iterate()
        assert log.scalars["grads/inactive"] == 1.0
        torch.testing.assert_close(bench.written(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    @pytest.mark.parametrize("kind", ["all zero", "equal", "opposite", "cycle", "a millionth", "huge"])
    def test_training_goes_on_with_degenerate_gradients(self, kind: str) -> None:
        def spoil(losses: dict[str, Tensor]) -> dict[str, Tensor]:
            first = losses["task0"]
            return {
                "all zero": {task: value * 0.0 for task, value in losses.items()},
                "equal": dict.fromkeys(losses, first),
                "opposite": {**losses, "task1": -losses["task0"]},
                "cycle": {**losses, "task2": -losses["task0"] - losses["task1"]},
                "a millionth": {**losses, "task1": losses["task1"] * 1e-6},
                "huge": {task: value * 1e8 for task, value in losses.items()},
            }[kind]

        # Whole graphs: equal losses share a decoder here.
        bench = SplitBench({"name": self.name, **self.fields}, 3, split=False)
        bench.spoil = spoil
        logs = [bench.method.step(bench.losses) for _ in range(3)] if kind != "equal" else []
        if kind == "equal":
            bench.heads["task1"].load_state_dict(bench.heads["task0"].state_dict())
            logs = [bench.method.step(bench.losses)]
        assert all(self.finite(log) for log in logs)
        assert all(bool(p.isfinite().all()) for p in bench.bits())

    @staticmethod
    def finite(log: StepLog) -> bool:
        """Whether all curves are numbers of a size that means something."""
        return all(abs(value) < 1e30 for value in log.scalars.values())

    def test_nothing_of_the_graph_outlives_the_step(self) -> None:
        bench = SplitBench({"name": self.name, **self.fields}, 2)
        (log,) = bench.iterate()
        assert (bench.update.representation, bench.update.cuts) == (None, ())
        assert not log.losses.requires_grad

    def test_takes_as_many_backward_passes_as_it_expects(self) -> None:
        bench = SplitBench({"name": self.name, **self.fields}, 4)
        bench.iterate(4)
        forwards, backwards, steps = type(bench.method).expected_work(bench.config, bench.tasks)
        counters = bench.counters
        assert (bench.forwards, bench.backwards, bench.steps) == (4 * forwards, 4 * backwards, 4 * steps)
        assert (counters.forward_passes, counters.backward_passes) == (bench.forwards, bench.backwards)
