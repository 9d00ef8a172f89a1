from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, root_mean_squared_error

from study.testing import IgnoringMetricContract, MetricContract
from trainables.metrics import L1, MAE, MSE, RMSE, MeanAngularError, display_depth


def dense(count, channels, generator):
    shape = (count, channels, 7, 5)
    return torch.randn(shape, generator=generator).double(), torch.randn(shape, generator=generator)


class TestL1(MetricContract):
    def make(self):
        return L1()

    def batch(self, count, generator):
        return dense(count, 3, generator)

    def reference(self, prediction, target):
        return mean_absolute_error(target.ravel(), prediction.ravel())


class TestMAE(MetricContract):
    def make(self):
        return MAE()

    def batch(self, count, generator):
        prediction, value = dense(count, 1, generator)
        return prediction, torch.cat([value, torch.rand(value.shape, generator=generator) + 0.5], dim=1)

    def reference(self, prediction, target):
        value, deviation = target[:, :1], target[:, 1:]
        return mean_absolute_error((value * deviation).ravel(), (prediction * deviation).ravel())


class TestMSE(MetricContract):
    def make(self):
        return MSE()

    def batch(self, count, generator):
        return dense(count, 2, generator)

    def reference(self, prediction, target):
        return mean_squared_error(target.ravel(), prediction.ravel())


class TestRMSE(MetricContract):
    def make(self):
        return RMSE()

    def batch(self, count, generator):
        return dense(count, 2, generator)

    def reference(self, prediction, target):
        return root_mean_squared_error(target.ravel(), prediction.ravel())


class TestDepthRMSE(IgnoringMetricContract):
    def make(self):
        return RMSE(valid="positive")

    def batch(self, count, generator):
        prediction, target = dense(count, 1, generator)
        return prediction, target.abs() + 0.1

    def reference(self, prediction, target):
        measured = target > 0
        return root_mean_squared_error(target[measured], prediction[measured])

    def ignore(self, target, where):
        return target.masked_fill(where.unsqueeze(1), 0)

    def test_pools_pixels_instead_of_averaging_images(self):
        target = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
        prediction = target + torch.tensor([0.0, 5.0]).view(2, 1, 1, 1)
        assert self.measured(prediction, target) == pytest.approx(5 / 5**0.5)


class TestDisplayDepthRMSE(MetricContract):
    def make(self):
        return RMSE(transform=display_depth)

    def batch(self, count, generator):
        shape = (count, 1, 7, 5)
        return torch.rand(shape, generator=generator).double(), 0.5 + torch.rand(shape, generator=generator) / 2

    def reference(self, prediction, target):
        def scale(x):
            logs = np.log(np.exp(np.float64(x) * 16 * np.log(2)) - 1) / 11.09
            return np.clip(((logs - 0.64) / 0.18 + 1) / 2 * 80, 1, 80)

        with np.errstate(divide="ignore"):
            return root_mean_squared_error(scale(target).ravel(), scale(prediction).ravel())

    def test_zero_and_negative_depth_stay_finite(self):
        assert display_depth(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [1.0, 1.0, 80.0]


class TestMeanAngularError(IgnoringMetricContract):
    def make(self):
        return MeanAngularError()

    def batch(self, count, generator):
        prediction, target = dense(count, 3, generator)
        return prediction, torch.nn.functional.normalize(target, dim=1)

    def reference(self, prediction, target):
        p, t = (np.moveaxis(x, 1, -1).reshape(-1, 3).astype(np.float64) for x in (prediction, target))
        p, t = p[np.any(t != 0, axis=1)], t[np.any(t != 0, axis=1)]
        cosine = (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())

    def ignore(self, target, where):
        return target.masked_fill(where.unsqueeze(1), 0)

    @pytest.mark.parametrize("degrees", [0.0, 1e-3, 1.0, 45.0, 90.0, 135.0, 179.0, 179.999, 180.0])
    @pytest.mark.parametrize("length", [1e-30, 1.0, 1e6])
    def test_angle_in_closed_form(self, degrees, length):
        angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
        prediction = length * torch.stack([angle.cos(), angle.sin(), torch.zeros(())]).view(1, 3, 1, 1)
        target = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
        assert self.measured(prediction, target) == pytest.approx(degrees, abs=1e-10)

    def test_zero_prediction_is_a_right_angle_off(self):
        target = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1)
        assert self.measured(torch.zeros(1, 3, 1, 1), target) == pytest.approx(90)

    def test_a_normal_whose_components_sum_to_zero_counts(self):
        target = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1) / 2**0.5
        assert self.measured(-target, target) == pytest.approx(180)
