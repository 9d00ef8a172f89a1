from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, mean_absolute_percentage_error

from study.testing import IgnoringMetricContract
from trainables.metrics import MedianAngularError, PixelAccuracy, RelativeError, WithinAngle


def angles(prediction, target):
    """Degrees between the valid normals, by the arc cosine."""
    p, t = (np.moveaxis(x, 1, -1).reshape(-1, 3).astype(np.float64) for x in (prediction, target))
    p, t = p[np.any(t != 0, axis=1)], t[np.any(t != 0, axis=1)]
    cosine = (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def turned(*degrees):
    """Predictions and targets (1, 3, 1, N), each prediction so many degrees off."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    prediction = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)]).view(1, 3, 1, -1)
    return prediction, torch.tensor([1.0, 0, 0], dtype=torch.float64).view(1, 3, 1, 1).expand_as(prediction)


class TestPixelAccuracy(IgnoringMetricContract):
    def make(self):
        return PixelAccuracy(classes=4)

    def batch(self, count, generator):
        prediction = torch.randn(count, 4, 7, 5, generator=generator).double()
        return prediction, torch.randint(0, 4, (count, 7, 5), generator=generator)

    def reference(self, prediction, target):
        labelled = target != 255
        return 100 * accuracy_score(target[labelled], prediction.argmax(axis=1)[labelled])

    def ignore(self, target, where):
        return target.masked_fill(where, 255)

    def test_closed_form(self):
        target = torch.tensor([[0, 1, 2, 3], [255, 255, 1, 1]]).view(1, 2, 4)
        prediction = torch.nn.functional.one_hot(torch.tensor([[0, 1, 0, 0], [0, 1, 1, 2]]), 4)
        prediction = prediction.permute(2, 0, 1)[None].double()
        assert self.measured(prediction, target) == 50


class TestRelativeError(IgnoringMetricContract):
    def make(self):
        return RelativeError()

    def batch(self, count, generator):
        shape = (count, 1, 7, 5)
        return torch.rand(shape, generator=generator).double(), torch.rand(shape, generator=generator) + 0.1

    def reference(self, prediction, target):
        measured = target > 0
        return mean_absolute_percentage_error(target[measured], prediction[measured])

    def ignore(self, target, where):
        return target.masked_fill(where.unsqueeze(1), 0)

    def test_a_metre_weighs_less_far_away(self):
        target = torch.tensor([1.0, 4.0, 0.0]).view(1, 1, 1, 3)
        assert self.measured(target + 1, target) == pytest.approx((1 + 1 / 4) / 2)


class NormalMetricContract(IgnoringMetricContract):
    def batch(self, count, generator):
        shape = (count, 3, 7, 5)
        target = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
        return (target + 0.4 * torch.randn(shape, generator=generator)).double(), target

    def ignore(self, target, where):
        return target.masked_fill(where.unsqueeze(1), 0)


class TestWithinAngle(NormalMetricContract):
    def make(self):
        return WithinAngle(30.0)

    def reference(self, prediction, target):
        return 100 * float((angles(prediction, target) < 30).mean())

    @pytest.mark.parametrize(("degrees", "percent"), [(11.25, 25.0), (22.5, 50.0), (30.0, 75.0)])
    def test_closed_form(self, degrees, percent):
        metric = WithinAngle(degrees)
        metric.update(*turned(11.2, 11.3, 22.6, 31.0))
        assert metric.compute() == percent


class TestMedianAngularError(NormalMetricContract):
    def make(self):
        return MedianAngularError()

    def reference(self, prediction, target):
        step = MedianAngularError.STEP
        return float(np.median((np.floor(angles(prediction, target) / step) + 0.5) * step))

    @pytest.mark.parametrize("seed", range(5))
    def test_is_at_most_half_a_step_off(self, seed):
        prediction, target = self.samples(seed=seed)
        exact = np.median(angles(prediction.numpy(), target.numpy()))
        assert abs(self.measured(prediction, target) - exact) <= MedianAngularError.STEP / 2 + 1e-9

    @pytest.mark.parametrize(
        ("degrees", "median"),
        [((5.0,), 5.0), ((0.0, 0.0, 180.0), 0.0), ((180.0,), 180.0), ((10.0, 20.0), 15.0), ((1.0, 2.0, 40.0), 2.0)],
    )
    def test_closed_form(self, degrees, median):
        assert self.measured(*turned(*degrees)) == pytest.approx(median, abs=MedianAngularError.STEP / 2 + 1e-9)
