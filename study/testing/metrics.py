"""What every metric keeps: agreement with a reference, streaming, merging, state."""

from __future__ import annotations

import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.errors import CheckpointError
from trainables.metrics import SumMetric


class MetricContract:
    """Inherit, define :meth:`make`, :meth:`batch` and :meth:`reference`, and every test below holds for the metric."""

    sizes = (7, 5)
    """(H, W) of the batches."""

    waits = False
    """Whether an update has to wait for the device."""

    def make(self) -> SumMetric:
        """A fresh metric."""
        raise NotImplementedError

    def other(self) -> SumMetric:
        """A metric whose state must be refused."""

        class Other(SumMetric):
            pass

        return Other(3, 5, 7)

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` random samples: prediction float64, target as a data set gives it."""
        raise NotImplementedError

    def reference(self, prediction: np.ndarray, target: np.ndarray) -> float:
        """The metric of a whole set, worked out without torch and without the code under test."""
        raise NotImplementedError

    def samples(self, count: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
        """:meth:`batch` by a seed."""
        return self.batch(count, torch.Generator().manual_seed(seed))

    def measured(self, prediction: Tensor, target: Tensor) -> float:
        """The metric of one batch."""
        metric = self.make()
        metric.update(prediction, target)
        return metric.compute()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_the_reference(self, dtype: torch.dtype, seed: int) -> None:
        prediction, target = self.samples(seed=seed)
        prediction = prediction.to(dtype)
        expected = self.reference(prediction.double().numpy(), target.numpy())
        assert math.isfinite(expected)
        assert self.measured(prediction, target) == pytest.approx(expected, rel=2e-6)

    @pytest.mark.parametrize("split", [(1,) * 9, (4, 5), (2, 6, 1), (8, 1)])
    def test_split_into_batches_does_not_matter(self, split: tuple[int, ...]) -> None:
        prediction, target = self.samples()
        metric = self.make()
        for p, t in zip(prediction.split(split), target.split(split), strict=True):
            metric.update(p, t)
        assert metric.compute() == pytest.approx(self.measured(prediction, target), rel=1e-12)

    @pytest.mark.parametrize("first", [0, 3, 9])
    def test_merged_parts_are_the_whole(self, first: int) -> None:
        prediction, target = self.samples()
        one, two = self.make(), self.make()
        one.update(prediction[:first], target[:first])
        two.update(prediction[first:], target[first:])
        before = two.compute()
        one.merge(two)
        assert one.compute() == pytest.approx(self.measured(prediction, target), rel=1e-12)
        assert two.compute() == pytest.approx(before, nan_ok=True)

    def test_state_round_trip_goes_on_with_the_same_bits(self) -> None:
        prediction, target = self.samples()
        metric = self.make()
        metric.update(prediction[:4], target[:4])
        buffer = io.BytesIO()
        torch.save(metric.state_dict(), buffer)
        buffer.seek(0)
        loaded = self.make()
        loaded.load_state_dict(torch.load(buffer, weights_only=True))
        for one in (metric, loaded):
            one.update(prediction[4:], target[4:])
        assert torch.equal(metric.sums, loaded.sums)

    def test_state_is_a_copy(self) -> None:
        prediction, target = self.samples()
        metric = self.make()
        metric.update(prediction, target)
        state = metric.state_dict()
        kept = state["sums"].clone()
        metric.update(prediction, target)
        assert torch.equal(state["sums"], kept)

    def test_state_of_another_metric_is_refused(self) -> None:
        for state in ({}, self.other().state_dict()):
            with pytest.raises(CheckpointError, match=type(self.make()).__name__):
                self.make().load_state_dict(state)

    def test_merging_another_metric_is_refused(self) -> None:
        with pytest.raises(TypeError, match="cannot take in"):
            self.make().merge(self.other())

    def test_nothing_is_nan(self) -> None:
        assert math.isnan(self.make().compute())

    def test_shapes_that_do_not_fit_are_refused(self) -> None:
        prediction, target = self.samples()
        for p, t in ((prediction[0], target), (prediction[:1], target), (prediction[..., :-1], target)):
            with pytest.raises(ValueError, match=r"wanted|differ"):
                self.make().update(p, t)

    def test_no_graph_is_kept(self) -> None:
        prediction, target = self.samples()
        metric = self.make()
        metric.update(prediction.requires_grad_(), target)
        assert not metric.sums.requires_grad

    def test_travels_between_processes(self) -> None:
        prediction, target = self.samples()
        metric = self.make()
        metric.update(prediction, target)
        assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_gpu_agrees_and_does_not_wait(self) -> None:
        prediction, target = self.samples()
        on_gpu = self.make()
        p, t = prediction.cuda(), target.cuda()
        on_gpu.update(p, t)
        if not self.waits:
            torch.cuda.set_sync_debug_mode("error")
            try:
                on_gpu.update(p, t)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        merged = self.make()
        merged.merge(on_gpu)
        assert merged.compute() == pytest.approx(self.measured(prediction, target), rel=1e-6)


class IgnoringMetricContract(MetricContract):
    """The contract of a metric that leaves out some pixels. Define :meth:`ignore` too."""

    def ignore(self, target: Tensor, where: Tensor) -> Tensor:
        """The target with the pixels ``where`` (B, H, W) bool marked as not to count."""
        raise NotImplementedError

    def test_nothing_valid_is_nan(self) -> None:
        prediction, target = self.samples()
        nothing = self.ignore(target, torch.ones(9, *self.sizes, dtype=torch.bool))
        assert math.isnan(self.measured(prediction, nothing))

    def test_predictions_on_ignored_pixels_do_not_matter(self) -> None:
        prediction, target = self.samples()
        where = torch.rand(9, *self.sizes, generator=torch.Generator().manual_seed(1)) < 0.4
        target = self.ignore(target, where)
        disturbed = torch.where(where.unsqueeze(1), 50 * torch.ones_like(prediction), prediction)
        assert self.measured(disturbed, target) == self.measured(prediction, target)

    def test_an_ignored_image_adds_nothing(self) -> None:
        prediction, target = self.samples()
        where = torch.zeros(9, *self.sizes, dtype=torch.bool)
        where[4] = True
        keep = [0, 1, 2, 3, 5, 6, 7, 8]
        ignored = self.measured(prediction, self.ignore(target, where))
        assert ignored == pytest.approx(self.measured(prediction[keep], target[keep]), rel=1e-12)

    def test_ignored_pixels_agree_with_the_reference(self) -> None:
        prediction, target = self.samples(seed=5)
        where = torch.rand(9, *self.sizes, generator=torch.Generator().manual_seed(2)) < 0.3
        target = self.ignore(target, where)
        expected = self.reference(prediction.numpy(), target.numpy())
        assert self.measured(prediction, target) == pytest.approx(expected, rel=1e-9)
