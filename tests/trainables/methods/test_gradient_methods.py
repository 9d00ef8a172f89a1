"""The methods that aggregate task gradients, under the contract of every method and their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from study.testing import GradientContract, SplitBench, same_bits
from trainables.errors import ConfigError
from trainables.methods import METHODS, aggregate
from trainables.methods.graddrop import GradDropConfig, graddrop
from trainables.methods.gramian.rows import owned
from trainables.methods.mgda import MGDAConfig
from trainables.methods.nash_mtl import NashMTLConfig


class TestMGDA(GradientContract):
    name = "mgda"


class TestPCGrad(GradientContract):
    name = "pcgrad"


class TestIMTLG(GradientContract):
    name = "imtl_g"


class TestAlignedMTL(GradientContract):
    name = "aligned_mtl"
    formula: ClassVar[dict[str, Any]] = {"scale_mode": "rmse"}
    fields: ClassVar[dict[str, Any]] = {"scale_mode": "rmse"}


class TestCAGrad(GradientContract):
    name = "cagrad"
    formula: ClassVar[dict[str, Any]] = {"rescale": 1, "scale": "sum"}


class TestNashMTL(GradientContract):
    name = "nash_mtl"
    formula: ClassVar[dict[str, Any]] = {"max_norm": 1.0}

    @classmethod
    def variants(cls, tasks: int) -> dict[str, Mapping[str, Any]]:
        return {**super().variants(tasks), "kept": {"name": "nash_mtl", "update_weights_every": 3, "max_norm": 0.0}}


class TestGradDrop(GradientContract):
    name = "graddrop"
    formula: ClassVar[dict[str, Any]] = {"leak": 0.25}
    fields: ClassVar[dict[str, Any]] = {"leak": 0.25}
    modes = ("plain",)

    def generator(self, bench: SplitBench) -> torch.Generator:
        seed = int(torch.randint(2**62, (), generator=super().generator(bench)))
        return torch.Generator().manual_seed(seed)


class TestIMTL(GradientContract):
    name = "imtl"
    aggregator = "imtl_g"
    fields: ClassVar[dict[str, Any]] = {"initial": 0.7, "lr": 0.05}

    def factors(self, bench: SplitBench) -> Tensor:
        return bench.method.scales.values.exp().float()

    def test_scales_descend_the_paper_s_objective(self) -> None:
        bench = SplitBench({"name": "imtl", "lr": 0.05}, 3)
        reference = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([reference], lr=0.05)
        for _ in range(4):
            (log,) = bench.iterate()
            adam.zero_grad()
            (reference.exp() * log.losses.double() - reference).sum().backward()
            adam.step()
            torch.testing.assert_close(bench.method.scales.values, reference.detach())

    def test_scales_follow_the_network_s_learning_rate_unless_told(self) -> None:
        bench = SplitBench("imtl", 2)
        bench.optimizer.param_groups[0]["lr"] = 0.125
        bench.iterate()
        # Adam's first step is of the learning rate's size.
        torch.testing.assert_close(bench.method.scales.values.abs(), torch.full((2,), 0.125, dtype=torch.float64))


class TestStreamedMGDA(TestMGDA):
    fields: ClassVar[dict[str, Any]] = {"rows": "streamed"}


class TestStreamedPCGrad(TestPCGrad):
    fields: ClassVar[dict[str, Any]] = {"rows": "streamed"}


class TestStreamedNashMTL(TestNashMTL):
    fields: ClassVar[dict[str, Any]] = {"rows": "streamed"}


class TestStreamedIMTL(TestIMTL):
    fields: ClassVar[dict[str, Any]] = {**TestIMTL.fields, "rows": "streamed"}


def test_every_gradient_method_is_under_the_contract() -> None:
    named = {cls.name for cls in GradientContract.__subclasses__()}
    own = {name for name in METHODS if ":" not in name}
    assert named == {name for name in own if METHODS[name].needs_representation}


@pytest.mark.parametrize("name", ["mgda", "pcgrad", "imtl_g", "imtl", "aligned_mtl", "cagrad", "nash_mtl"])
def test_streamed_rows_give_what_kept_ones_do(name: str) -> None:
    kept, streamed = SplitBench(name, 4), SplitBench({"name": name, "rows": "streamed"}, 4)
    for _ in range(3):
        (log,), (other,) = kept.iterate(), streamed.iterate()
        torch.testing.assert_close(streamed.written(), kept.written(), rtol=1e-4, atol=1e-6)
        for ours, theirs in zip(streamed.written_heads(), kept.written_heads(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        assert other.scalars.keys() == log.scalars.keys()


def test_streamed_rows_are_of_parameters() -> None:
    with pytest.raises(ConfigError, match=r"^method: rows: 'streamed' is for grad_space 'shared'"):
        MGDAConfig.parse({"name": "mgda", "rows": "streamed", "grad_space": "representation"}, "method")
    with pytest.raises(ConfigError, match=r"^method\.rows: "):
        GradDropConfig.parse({"name": "graddrop", "rows": "streamed"}, "method")


def test_streamed_rows_need_no_gradient_of_frozen_stages() -> None:
    bench = SplitBench({"name": "mgda", "rows": "streamed"}, 3)
    first = list(bench.trunk[0].parameters())
    expected = aggregate("mgda", bench.jacobian()[:, sum(parameter.numel() for parameter in first) :])
    for parameter in first:
        parameter.requires_grad_(False)
    bench.method.step(bench.losses)
    assert [parameter.grad for parameter in first] == [None, None]
    torch.testing.assert_close(bench.written(), expected, rtol=1e-4, atol=1e-6)


class TestNashReuse:
    """Weights kept for several steps."""

    def test_costs_one_backward_in_between_and_keeps_the_weights(self) -> None:
        bench = SplitBench({"name": "nash_mtl", "update_weights_every": 3}, 4)
        logs = []
        passes = []
        for _ in range(7):
            before = bench.backwards
            logs += bench.iterate()
            passes.append(bench.backwards - before)
        assert passes == [4, 1, 1, 4, 1, 1, 4]
        weights = [[log.scalars[f"weights/task{k}"] for k in range(4)] for log in logs]
        assert weights[0] == weights[1] == weights[2] != weights[3] == weights[4]

    @pytest.mark.parametrize("split", [True, False])
    @pytest.mark.parametrize("mode", ["plain", "weighted"])
    def test_in_between_it_takes_the_weighted_sum(self, mode: str, split: bool) -> None:
        config = {"name": "nash_mtl", "update_weights_every": 2, "max_norm": 0.0, "decoder_grads": mode}
        bench = SplitBench(config, 3, split=split)
        (log,) = bench.iterate()
        weights = torch.tensor([log.scalars[f"weights/task{k}"] for k in range(3)])
        expected, heads = weights @ bench.jacobian(), bench.head_gradients()
        bench.iterate()
        torch.testing.assert_close(bench.written(), expected, rtol=1e-5, atol=1e-6)
        for weight, gradient, written in zip(weights, heads, bench.written_heads(), strict=True):
            torch.testing.assert_close(
                written, gradient * (weight if mode == "weighted" else 1.0), rtol=1e-5, atol=1e-7
            )

    def test_skips_a_gradient_that_is_not_finite(self) -> None:
        bench = SplitBench({"name": "nash_mtl", "update_weights_every": 3}, 3)
        bench.iterate()
        before = bench.bits()
        bench.spoil = lambda losses: {**losses, "task2": losses["task2"] * float("inf")}
        (log,) = bench.iterate()
        assert log.scalars["grads/skipped"] == 1.0
        assert same_bits(before, bench.bits())

    def test_the_work_expected_is_between_one_backward_and_k(self) -> None:
        config = NashMTLConfig(update_weights_every=5)
        assert METHODS["nash_mtl"].expected_work(config, ["a"] * 6) == (1.0, 2.0, 1.0)


class TestGradDropFormula:
    """The function behind ``graddrop``."""

    def test_keeps_one_sign_of_every_coordinate(self) -> None:
        rows = torch.randn(5, 400, generator=torch.Generator().manual_seed(0))
        out = graddrop(rows, torch.rand(400, generator=torch.Generator().manual_seed(1)))
        positive, negative = rows.clamp_min(0).sum(0), rows.clamp_max(0).sum(0)
        near = torch.minimum((out - positive).abs(), (out - negative).abs())
        assert float(near.max()) < 1e-5
        assert bool((out > 0).any())
        assert bool((out < 0).any())

    def test_draws_the_positive_sign_as_often_as_it_weighs(self) -> None:
        rows = torch.tensor([[3.0], [-1.0]]).expand(2, 20_000)
        out = graddrop(rows, torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
        # Binomial with p = 3/4: five standard deviations are 0.0153.
        assert float((out == 3.0).float().mean()) == pytest.approx(0.75, abs=0.0153)
        assert bool(((out == 3.0) | (out == -1.0)).all())

    def test_agreeing_gradients_are_summed_whatever_is_drawn(self) -> None:
        rows = torch.tensor([[1.0, -2.0, 0.0], [2.0, -1.0, 0.0]])
        for noise in (0.0, 0.5, 1.0 - 2**-24):
            assert graddrop(rows, torch.full((3,), noise)).tolist() == [3.0, -3.0, 0.0]

    def test_a_leak_of_one_is_gradient_descent(self) -> None:
        rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
        noise = torch.rand(50, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(graddrop(rows, noise, leak=1.0), rows.sum(0))
        half = 0.5 * (rows.sum(0) + graddrop(rows, noise))
        torch.testing.assert_close(graddrop(rows, noise, leak=0.5), half)

    def test_has_no_weights_for_decoders(self) -> None:
        with pytest.raises(ConfigError, match=r"^method\.decoder_grads: "):
            GradDropConfig.parse({"name": "graddrop", "decoder_grads": "weighted"}, "method")


def test_the_representation_has_to_be_told() -> None:
    bench = SplitBench({"name": "mgda", "grad_space": "representation"}, 2, split=False)
    with pytest.raises(ConfigError, match=r"^method\.grad_space: 'representation' needs"):
        bench.iterate()


@pytest.mark.parametrize(
    ("name", "k_times"), [("mgda", 3.0), ("imtl_g", 3.0), ("pcgrad", 1 / 3), ("aligned_mtl", 1 / 3)]
)
def test_the_two_scales_are_k_apart(name: str, k_times: float) -> None:
    other = "sum" if k_times > 1 else "mean"
    first, second = SplitBench(name, 3), SplitBench({"name": name, "scale": other}, 3)
    second.method.generator = copy.deepcopy(first.method.generator)
    for bench in (first, second):
        bench.iterate()
    torch.testing.assert_close(second.written(), k_times * first.written())


@pytest.mark.parametrize("name", ["mgda", "graddrop", "cagrad"])
def test_the_shared_gradient_is_clipped_alone(name: str) -> None:
    bench, free = SplitBench({"name": name, "max_norm": 1e-3}, 3), SplitBench(name, 3)
    for each in (bench, free):
        each.iterate()
    assert float(bench.written().norm()) == pytest.approx(1e-3, rel=1e-5)
    for clipped, plain in zip(bench.written_heads(), free.written_heads(), strict=True):
        assert torch.equal(clipped, plain)


def test_gradients_are_laid_out_as_their_parameters_and_share_no_memory() -> None:
    weight = torch.zeros(3, 4, 2, 2)
    gradient = torch.arange(48.0).view(3, 4, 2, 2).to(memory_format=torch.channels_last)
    expanded = torch.ones(()).expand(5)
    bias, other = torch.zeros(5), torch.zeros(5)
    out = owned([gradient, None, expanded, expanded], [weight, bias, bias, other])
    assert out[1] is None
    for found, given, tensor in zip(
        out, [gradient, None, expanded, expanded], [weight, None, bias, other], strict=True
    ):
        if found is not None and given is not None and tensor is not None:
            assert torch.equal(found, given)
            assert found.stride() == tensor.stride()
    assert len({t.data_ptr() for t in out if t is not None}) == 3
    same = torch.ones(5)
    first, second = owned([same, same], [bias, other])
    assert first is same
    assert second is not None
    assert second.data_ptr() != same.data_ptr()


def test_frozen_and_unused_parameters_get_no_gradient() -> None:
    bench = SplitBench("pcgrad", 3)
    bench.trunk[0].weight.requires_grad_(False)
    bench.heads["task1"].bias.requires_grad_(False)
    bench.iterate(2)
    assert bench.trunk[0].weight.grad is None
    assert bench.heads["task1"].bias.grad is None
    assert bench.heads["task1"].weight.grad is not None
